"""The examples of docs/guides/detectors.md run as they are written."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from pinglow.models.card import ModelCard
from pinglow.models.registry import build_network
from pinglow.models.weights import save_model

pytest.importorskip("ultralytics", reason="needs ultralytics: pip install '.[detect]'")
pytestmark = pytest.mark.filterwarnings("ignore")  # the libraries' own

_PAGE = Path(__file__).parents[2] / "docs" / "guides" / "detectors.md"
EXAMPLES = re.findall(r"```python\n(.*?)```", _PAGE.read_text(encoding="utf-8"), re.DOTALL)


def test_the_page_has_an_example_for_each_detector_and_for_export() -> None:
    assert len(EXAMPLES) == 3


@pytest.mark.parametrize("number", range(len(EXAMPLES)))
def test_an_example_runs(
    number: int, yolo_set: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(yolo_set.parent, tmp_path / "my-yolo")
    yaml = tmp_path / "my-yolo" / "data.yaml"
    yaml.write_text(yaml.read_text().replace(str(yolo_set.parent), str(yaml.parent)))
    config = {"type": "retinanet-small", "gaussian": True}
    card = ModelCard(name="d", network=config, parameters=1)
    save_model(tmp_path / "runs/detector/weights.safetensors", build_network(config), card)
    monkeypatch.chdir(tmp_path)
    values: dict[str, Any] = {}
    source = EXAMPLES[number].replace("imgsz=320", "imgsz=64, plots=False, workers=0")
    exec(source.replace("num_classes=2", "num_classes=2, min_size=64"), values)
    if "detector.onnx" in source:
        assert_exported_detector_computes_the_same(values["network"], values["image"].shape)


def assert_exported_detector_computes_the_same(network: Any, shape: tuple[int, ...]) -> None:
    onnxruntime = pytest.importorskip("onnxruntime", reason="needs ONNX Runtime")
    images = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    (found,) = onnxruntime.InferenceSession("detector.onnx").run(None, {"images": images.numpy()})
    with torch.inference_mode():
        wanted = network(images)
    torch.testing.assert_close(torch.from_numpy(found), wanted, rtol=1e-3, atol=1e-3)
