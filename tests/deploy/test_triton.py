from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

from pinglow.deploy import export
from pinglow.deploy.export import export_model
from pinglow.deploy.triton import describe_model, folder_name
from pinglow.inference.predictor import Predictor


def parse(text: str) -> Any:
    """The config, read by Triton's own definition of one."""
    from google.protobuf import text_format
    from tritonclient.grpc.model_config_pb2 import ModelConfig

    return text_format.Parse(text, ModelConfig())


@pytest.fixture
def repository(
    exported: dict[str, Path], small_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Path:
    graph = exported["onnx"].read_bytes()
    monkeypatch.setattr(export, "convert_to_onnx", lambda *_: graph)  # takes seconds
    report = export_model(small_model, "triton", tmp_path)
    assert report.path == tmp_path / "small" / "1" / "model.onnx"
    assert report.path.read_bytes() == graph
    return tmp_path


def test_the_repository_is_as_triton_wants_it(repository: Path) -> None:
    files = sorted(str(path.relative_to(repository)) for path in repository.rglob("*.*"))
    assert files == ["small/1/model.onnx", "small/config.pbtxt"]
    config = parse((repository / "small" / "config.pbtxt").read_text())
    assert (config.name, config.backend) == ("small", "onnxruntime")
    assert config.HasField("dynamic_batching")
    assert [group.count for group in config.instance_group] == [1]
    # Triton puts the batch before the dimensions that the config has.
    session = onnxruntime.InferenceSession(repository / "small" / "1" / "model.onnx")
    graph_inputs, graph_outputs = session.get_inputs(), session.get_outputs()[:1]
    assert config.max_batch_size > 1
    for ends, graph_ends in ((config.input, graph_inputs), (config.output, graph_outputs)):
        assert [end.name for end in ends] == [end.name for end in graph_ends]
        for end, graph_end in zip(ends, graph_ends, strict=True):
            shape = [-1 if isinstance(side, str) else side for side in graph_end.shape]
            assert [-1, *end.dims] == shape
            assert (end.DESCRIPTOR.fields_by_name["data_type"].enum_type.values_by_number)[
                end.data_type
            ].name == {"tensor(float)": "TYPE_FP32"}[graph_end.type]


def test_its_model_is_one_for_pinglow_and_is_replaced_whole(
    repository: Path, small_model: Path
) -> None:
    path = repository / "small" / "1" / "model.onnx"
    predictor = Predictor.load(path)
    assert predictor.card == Predictor.load(small_model, backend="torch").card
    path.write_bytes(b"the one of before")
    export_model(small_model, "triton", repository)
    assert Predictor.load(path).card == predictor.card
    assert np.isfinite(Predictor.load(path).probability(np.eye(40))).all()


@pytest.mark.parametrize(
    ("name", "folder"),
    [("my model/2", "my_model_2"), ("../x", "_x"), ("..", "model"), ('a"\n', "a__"), ("ü", "_")],
)
def test_any_name_becomes_that_of_a_folder(name: str, folder: str) -> None:
    assert folder_name(name) == folder
    assert parse(describe_model(folder)).name == folder
