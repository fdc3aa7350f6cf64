"""A package of its own adds a network, a loss and a reader; nothing of pinglow is changed.

A backend is added in tests/backends/test_opening.py.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pinglow.data.synthetic.scenes import SceneSpec, write_dataset
from pinglow.deploy.export import export_model
from pinglow.errors import MissingExtraError, ModelError, RecipeError
from pinglow.inference.predictor import Predictor
from pinglow.io.frames import read_frame
from pinglow.io.source import open_source
from pinglow.losses import find_loss
from pinglow.models.card import read_card
from pinglow.models.registry import build_network, find_network, parse_network
from pinglow.nn import fold_kernels
from pinglow.plugins import find_plugin
from pinglow.training.fit import train
from pinglow.training.recipe import Recipe
from pinglow.training.recipe_file import load_recipe, parse_recipe

PACKAGE = Path(__file__).parent / "plugin_package"


@pytest.fixture(scope="module", autouse=True)
def package(one_thread: None) -> Iterator[None]:
    """Install the package: its code and its metadata lie in a folder of sys.path."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(PACKAGE)
        yield
    for name in [name for name in sys.modules if name.partition(".")[0] == "sharp_dots"]:
        del sys.modules[name]


@pytest.fixture(scope="module")
def make_recipe(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Recipe]:
    root = tmp_path_factory.mktemp("data")
    spec = SceneSpec(width=64, height=64, targets=(1, 2), snr=(20, 30), length=(2, 6))
    write_dataset(root / "scenes", 10, spec, kinds=("gradient",), seed=1)

    def make(**changes: Any) -> Recipe:
        content: dict[str, Any] = {
            "name": "dots",
            "steps": 4,
            "batch_size": 2,
            "network": {"type": "dots", "width": 6},
            "loss": {"terms": [{"name": "squares", "options": {"scale": 0.5}}]},
            "data": {"root": str(root), "sets": [{"folder": "scenes", "split": "train"}]},
            "augmentation": {"crop": 32},
        }
        return parse_recipe(content | changes, "test")

    return make


def test_a_network_and_a_loss_train_export_and_predict(
    make_recipe: Callable[..., Recipe], no_curves: None, tmp_path: Path
) -> None:
    recipe = make_recipe()
    task = train(recipe, tmp_path / "run", progress=False)
    assert load_recipe(tmp_path / "run" / "recipe.toml") == recipe
    card = read_card(tmp_path / "run")
    assert card.network == {"type": "dots", "width": 6}
    assert card.kind == "pixels"
    images = torch.randn(1, 1, 40, 33)
    folded = fold_kernels(task.network.eval())
    assert type(folded.first) is torch.nn.Conv2d
    torch.testing.assert_close(folded(images), task.network(images), atol=1e-5, rtol=1e-5)
    report = export_model(tmp_path / "run", "onnx", tmp_path / "exported")
    frame = np.random.default_rng(0).integers(1000, 2000, (48, 50)).astype(np.uint16)
    found, wanted = (
        Predictor.load(path, backend=backend).probability(frame)
        for path, backend in ((report.path, "onnxruntime"), (tmp_path / "run", "torch"))
    )
    np.testing.assert_allclose(found, wanted, atol=1e-4)


def test_names_of_a_module_do_without_metadata(make_recipe: Callable[..., Recipe]) -> None:
    """A class alone is enough: its constructor says what a recipe may set."""
    name = "sharp_dots.network:DotsNet"
    recipe = make_recipe(
        network={"type": name, "width": 3},
        loss={"terms": [{"name": "sharp_dots.losses:SquaresLoss"}, {"name": "dice"}]},
    )
    assert recipe.network.build().first.wide.out_channels == 3
    assert recipe == make_recipe(**recipe.model_dump(include={"network", "loss"}))
    assert parse_network({"type": name}) == parse_network({"type": name, "width": 4})
    assert (recipe.network.kind, recipe.network.multiple) == ("pixels", 1)
    with pytest.raises(RecipeError, match=r"'network\.widht' is unknown; did you mean 'width'"):
        make_recipe(network={"type": name, "widht": 3})


def test_mistakes_are_named(make_recipe: Callable[..., Recipe]) -> None:
    with pytest.raises(RecipeError, match=r"test: key 'network\.widht' is unknown; did you mean"):
        make_recipe(network={"type": "dots", "widht": 3})
    with pytest.raises(RecipeError, match=r"test: network\.width: Input should be greater than 0"):
        make_recipe(network={"type": "dots", "width": 0})
    with pytest.raises(RecipeError, match=r"loss\.terms\.0\.options\.scal' is unknown; did you"):
        make_recipe(loss={"terms": [{"name": "squares", "options": {"scal": 1}}]})
    with pytest.raises(RecipeError, match=r"use one of .*resnet50, dots, or module:Class"):
        make_recipe(network={"type": "dot"})
    with pytest.raises(RecipeError, match=r"use one of .*bce, squares, or module:Class"):
        find_loss("square")
    with pytest.raises(MissingExtraError, match="sharp_dots:Nothing cannot be imported"):
        find_network("sharp_dots:Nothing")


@pytest.mark.parametrize("name", ["subprocess:Popen", "os:system", "sharp_dots.reader:read_counts"])
def test_a_card_cannot_call_what_is_no_network(name: str) -> None:
    with pytest.raises(ModelError, match="which is no network"):
        build_network({"type": name, "args": ["true"]})


def test_a_card_cannot_build_a_class_that_is_not_made_for_pinglow() -> None:
    """Such as one whose constructor loads what it is told to."""
    with pytest.raises(ModelError, match="not made for pinglow"):
        build_network({"type": "torch.nn:Conv2d", "in_channels": 1})


def test_a_configuration_is_read_without_its_network() -> None:
    sys.modules.pop("sharp_dots.network", None)
    assert parse_network({"type": "dots"}).model_dump() == {"type": "dots", "width": 4}
    assert "sharp_dots.network" not in sys.modules


def test_a_reader_is_used_for_its_files(tmp_path: Path) -> None:
    path = tmp_path / "frame.counts"
    path.write_text("1 2 3\n4 5 6\n")
    assert [entry.name for entry in entry_points(group="pinglow.readers")] == [".counts"]
    np.testing.assert_array_equal(read_frame(path), [[1, 2, 3], [4, 5, 6]])
    np.testing.assert_array_equal(open_source(tmp_path).read(0), [[1, 2, 3], [4, 5, 6]])
    assert find_plugin("pinglow.readers", ".nothing") is None
