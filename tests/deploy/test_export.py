from __future__ import annotations

import copy
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from PIL import Image

from pinglow.backends.opening import open_model
from pinglow.backends.torch import TorchBackend
from pinglow.data.synthetic.scenes import SceneSpec, write_dataset
from pinglow.deploy import export
from pinglow.deploy.export import check_parity, export_model
from pinglow.errors import DataError, FrameError, ModelError, OptionError
from pinglow.files import claim
from pinglow.inference.predictor import Predictor
from pinglow.models.weights import load_network

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]


@pytest.fixture(scope="session")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "scenes"
    write_dataset(folder, 8, SceneSpec(width=64, height=64, snr=(10, 20)), kinds=("sea",), seed=1)
    return folder


def frame(height: int = 70, width: int = 90) -> NDArray[np.uint16]:
    random = np.random.default_rng(3)
    return random.normal(6000, 100, (height, width)).astype(np.uint16)


@pytest.mark.parametrize(
    ("form", "backend"), [("onnx", "onnxruntime"), ("onnx", "openvino"), ("openvino", "openvino")]
)
def test_an_exported_file_is_a_model(
    exported: dict[str, Path], small_model: Path, form: str, backend: str
) -> None:
    original = Predictor.load(small_model, backend="torch")
    predictor = Predictor.load(exported[form], backend=backend)
    assert predictor.backend.name == backend
    assert predictor.card == original.card
    expected = original.probability(frame())
    np.testing.assert_allclose(predictor.probability(frame()), expected, atol=1e-5)
    tiled = Predictor.load(exported[form], backend=backend, tile=256)
    large = frame(520, 560)
    np.testing.assert_allclose(tiled.probability(large), original.probability(large), atol=1e-4)


def test_an_onnx_file_is_standard_and_speaks_of_the_model_alone(
    exported: dict[str, Path],
) -> None:
    model = onnx.load(exported["onnx"])
    onnx.checker.check_model(model, full_check=True)
    assert [entry.version for entry in model.opset_import if not entry.domain] == [18]
    shapes = [
        [side.dim_param or side.dim_value for side in end.type.tensor_type.shape.dim]
        for end in (model.graph.input[0], model.graph.output[0])
    ]
    assert shapes == [["batch", 1, "height", "width"]] * 2
    entry, checksum = model.metadata_props
    assert (entry.key, checksum.key) == ("pinglow", "sha256")
    assert json.loads(entry.value)["normalization"] == "median-spread-asinh"
    content = exported["onnx"].read_bytes()
    assert b".py" not in content
    assert str(Path(export.__file__).parent).encode() not in content


@pytest.mark.parametrize("form", ["onnx", "openvino"])
def test_int8_says_what_it_costs_and_keeps_tiles_whole(
    small_model: Path, scenes: Path, tmp_path: Path, form: str
) -> None:
    report = export_model(small_model, form, tmp_path, calibration=scenes)
    assert report.difference is None
    accuracy = report.accuracy
    assert accuracy is not None
    assert (accuracy.frames, accuracy.with_masks) == (4, True)
    assert set(accuracy.scores) == {"float32", "int8"}
    predictor = Predictor.load(report.path, tile=256)
    assert predictor.card.precision == "int8"
    original = Predictor.load(small_model, backend="torch")
    large = frame(520, 560)
    tiled = predictor.probability(large)
    difference = np.abs(tiled - original.probability(large)).mean()
    assert 1e-4 < difference < 0.2  # it is int8, and it is the model
    untiled = Predictor.load(report.path, tile=None).probability(large)
    assert np.abs(tiled - untiled).mean() < difference / 10


def test_int8_without_masks_is_measured_against_float32(
    small_model: Path, scenes: Path, tmp_path: Path
) -> None:
    report = export_model(small_model, "openvino", tmp_path, calibration=scenes / "images")
    agreement = report.accuracy
    assert agreement is not None
    assert not agreement.with_masks
    assert agreement.scores["float32"]["iou"] == 1
    assert agreement.scores["int8"]["iou"] is not None


def test_what_differs_is_refused_and_leaves_nothing(
    small_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def other(network: Any) -> TorchBackend:
        spoiled = copy.deepcopy(network)
        spoiled.fuse.bias.data += 0.01
        return TorchBackend(spoiled)

    (tmp_path / "model.onnx").write_text("the one of before")
    monkeypatch.setattr(export, "TorchBackend", other)
    with pytest.raises(ModelError, match=r"differs from the original.*was not kept"):
        export_model(small_model, "onnx", tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]
    assert (tmp_path / "model.onnx").read_text() == "the one of before"


def test_parity_is_the_largest_difference(small_model: Path) -> None:
    backend, _ = open_model(small_model, "torch")

    class Shifted:
        name = "shifted"

        def __init__(self, by: float, gates: float = 0.0) -> None:
            self.by, self.gates_by = np.float32(by), np.float32(gates)

        def __call__(self, images: Any, gates: Any = None) -> Any:
            return backend(images, gates) + self.by

        def gates(self, images: Any) -> Any:
            return backend.gates(images) + self.gates_by

    assert check_parity(backend, backend) == 0
    assert check_parity(backend, Shifted(5e-5)) == pytest.approx(5e-5, rel=0.01)
    for other in (Shifted(2e-4), Shifted(-2e-4), Shifted(0, 2e-4)):
        with pytest.raises(ModelError, match=r"by 0.0002 at 1 x 32 x 32"):
            check_parity(backend, other)
    for nothing in (Shifted(float("nan")), Shifted(0, float("nan"))):
        with pytest.raises(ModelError, match=r"by nan"):
            check_parity(backend, nothing)


@pytest.mark.parametrize("suffix", [".onnx", ".xml"])
@pytest.mark.parametrize("content", [b"", b"garbage", b"<net/>"])
def test_a_corrupt_file_is_one_sentence(tmp_path: Path, suffix: str, content: bytes) -> None:
    path = tmp_path / f"model{suffix}"
    path.write_bytes(content)
    with pytest.raises(ModelError, match=r"model\..* is damaged, or of a kind"):
        open_model(path)


def test_a_file_cut_short_is_one_sentence(exported: dict[str, Path], tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(exported["onnx"].read_bytes()[:-5000])
    for backend in ("onnxruntime", "openvino"):
        with pytest.raises(ModelError, match="is damaged"):
            open_model(path, backend)


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_other_models_are_refused(exported: dict[str, Path], tmp_path: Path, backend: str) -> None:
    def change(name: str, edit: Any) -> Path:
        model = onnx.load(exported["onnx"])
        model.metadata_props.pop()  # its checksum
        edit(model)
        path = tmp_path / name
        onnx.save(model, path)
        return path

    def three_channels(model: Any) -> None:
        three = onnx.helper.make_tensor_value_info("image", 1, ["n", 3, "h", "w"])
        graph = onnx.helper.make_graph(
            [
                onnx.helper.make_node("Identity", ["image"], ["probability"]),
                onnx.helper.make_node("Identity", ["image"], ["gates"]),
            ],
            "three",
            [three],
            [
                onnx.helper.make_tensor_value_info("probability", 1, ["n", 3, "h", "w"]),
                onnx.helper.make_tensor_value_info("gates", 1, ["n", 3, "h", "w"]),
            ],
        )
        model.graph.CopyFrom(graph)

    def newer(model: Any) -> None:
        model.opset_import[0].version = 999

    def spoil_weights(model: Any) -> None:
        weights = next(each for each in model.graph.initializer if len(each.dims) == 4)
        values = onnx.numpy_helper.to_array(weights).copy()
        values[0] = np.nan
        weights.CopyFrom(onnx.numpy_helper.from_array(values, weights.name))

    with pytest.raises(ModelError, match="image and probability of"):
        open_model(change("three.onnx", three_channels), backend)
    if backend == "onnxruntime":  # OpenVINO reads operators that it knows at any version
        with pytest.raises(ModelError, match="is damaged, or of a kind that the installed"):
            open_model(change("newer.onnx", newer), backend)
    with pytest.raises(ModelError, match=r"nan\.onnx computes no numbers"):
        open_model(change("nan.onnx", spoil_weights), backend)
    path = change("bare.onnx", lambda model: model.metadata_props.pop())
    with pytest.raises(ModelError, match="has no pinglow card"):
        open_model(path, backend)


def test_what_a_killed_export_left_is_removed(
    small_model: Path, tmp_path: Path, exported: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    left, used = tmp_path / ".export-left", tmp_path / ".export-used"
    for folder in (left, used):
        folder.mkdir()
        (folder / "model.bin").touch()
    graph = exported["onnx"].read_bytes()
    monkeypatch.setattr(export, "convert_to_onnx", lambda *_: graph)
    with claim(used / ".lock"):  # by another process that is at work
        export_model(small_model, "onnx", tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".export-used", "model.onnx"]


@pytest.mark.skipif(resource is None, reason="this system limits no sizes of files")
@pytest.mark.parametrize("form", ["onnx", "openvino"])
def test_a_file_that_may_not_grow_is_named_and_leaves_nothing(
    small_model: Path,
    tmp_path: Path,
    exported: dict[str, Path],
    monkeypatch: pytest.MonkeyPatch,
    form: str,
) -> None:
    graph = exported["onnx"].read_bytes()
    monkeypatch.setattr(export, "convert_to_onnx", lambda *_: graph)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (8192, before[1]))
    try:
        with pytest.raises(OSError, match="File too large") as raised:
            export_model(small_model, form, tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert raised.value.filename.startswith(f"{tmp_path / 'model.'}")
    assert not list(tmp_path.iterdir())


def test_what_cannot_be_exported_is_refused(
    exported: dict[str, Path],
    small_model: Path,
    scenes: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with pytest.raises(ModelError, match="exported already"):
        export_model(exported["onnx"], "openvino", tmp_path)
    with pytest.raises(OptionError, match="'tflite' is unknown: use onnx or openvino or triton"):
        export_model(small_model, "tflite", tmp_path)
    few = tmp_path / "few"
    few.mkdir()
    np.save(few / "a.npy", frame())
    with pytest.raises(DataError, match="holds 1 frames; calibration needs at least 4"):
        export_model(small_model, "onnx", tmp_path, calibration=few)
    other = shutil.copytree(scenes, tmp_path / "other")
    last = max((other / "masks").iterdir())
    Image.fromarray(np.zeros((40, 20), dtype=np.uint8)).save(last)
    monkeypatch.setattr("pinglow.deploy.export.quantize", None)  # said before the work
    dark = tmp_path / "dark"
    dark.mkdir()
    for name in "abcd":
        np.save(dark / f"{name}.npy", frame())
    np.save(dark / "c.npy", np.full((40, 40), np.nan))
    with pytest.raises(FrameError, match=r"c\.npy has no finite pixel"):
        export_model(small_model, "onnx", tmp_path, calibration=dark)
    with pytest.raises(DataError, match=rf"{last.name} is 20 x 40 but its frame"):
        export_model(small_model, "onnx", tmp_path, calibration=other)
    assert load_network(small_model)
    with pytest.raises(ModelError, match="cannot run on torch; use openvino or onnxruntime"):
        open_model(exported["onnx"], "torch")
