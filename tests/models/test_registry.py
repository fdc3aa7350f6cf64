"""What recipes and cards may say of a network, and that this takes no torch."""

from __future__ import annotations

import subprocess
import sys
from typing import get_args

import pytest
import torch

from pinglow.errors import ModelError
from pinglow.models.registry import (
    NETWORKS,
    PinwheelUNetConfig,
    build_network,
    find_network,
    parse_network,
)
from pinglow.nn import ATTENTIONS, CONVOLUTIONS


@pytest.mark.parametrize(
    ("field", "table"), [("attention", ATTENTIONS), ("convolution", CONVOLUTIONS)]
)
def test_the_names_are_those_of_the_tables(field: str, table: dict[str, object]) -> None:
    assert set(get_args(PinwheelUNetConfig.model_fields[field].annotation)) == table.keys()


@pytest.mark.parametrize("widths", [(4, 8), (4, 8, 8)])
@pytest.mark.parametrize("patch", [1, 2])
def test_the_multiple_is_the_networks_own(widths: tuple[int, ...], patch: int) -> None:
    config = parse_network(
        {"type": "PinwheelUNet", "widths": widths, "depths": (1,) * len(widths), "patch": patch}
    )
    assert config.multiple == config.build().multiple


@pytest.mark.parametrize("name", NETWORKS)
def test_every_network_has_defaults_and_survives_its_own_values(name: str) -> None:
    config = parse_network({"type": name})
    assert parse_network(config.model_dump(mode="json")) == config
    assert config.kind == ("pixels" if name == "PinwheelUNet" else "boxes")


def test_a_network_is_built_from_its_values() -> None:
    values = {"type": "PinwheelUNet", "widths": [4, 8], "depths": [1, 1], "attention": "free"}
    one, two = build_network(values).eval(), build_network(values).eval()
    two.load_state_dict(one.state_dict())
    image = torch.randn(1, 1, 32, 40)
    with torch.no_grad():
        assert torch.equal(one(image), two(image))


def test_unknown_names_are_refused() -> None:
    with pytest.raises(ModelError, match=r"network\.type is .yolov9.; use one of PinwheelUNet"):
        find_network("yolov9")
    with pytest.raises(ModelError, match=r"key 'network\.color' is unknown; did you mean"):
        parse_network({"type": "retinanet-small", "color": 1})


def test_values_are_checked_without_torch() -> None:
    code = (
        "import sys; from pinglow.models.registry import parse_network;"
        "parse_network({'type': 'PinwheelUNet'}); parse_network({'type': 'yolov8n'});"
        "print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
