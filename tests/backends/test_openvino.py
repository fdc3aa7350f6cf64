"""What OpenVINO does to the process that it is loaded into."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from pinglow.errors import ModelError

pytest.importorskip("openvino", reason="needs openvino: pip install '.[openvino]'")

SIZES = [(64, 64), (64, 96)]

CODE = """
import gc, os, signal, sys
from pathlib import Path
from pinglow.backends.openvino import OpenVinoBackend

models = [OpenVinoBackend(Path(sys.argv[1]), "model") for _ in range(2)]
del models[0]  # in the order in which they came
gc.collect()
del models[0]
gc.collect()
got = []
signal.signal(signal.SIGTERM, lambda number, frame: got.append(number))
os.kill(os.getpid(), signal.SIGTERM)
print(len(got))
"""


def test_signals_arrive_after_models_have_gone() -> None:
    import pinglow

    model = Path(pinglow.__file__).parent / "weights" / "pinglow-fast.onnx"
    done = subprocess.run(
        [sys.executable, "-c", CODE, str(model)], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout.strip()) == (0, "1"), done.stderr


def test_weights_under_the_name_of_onnx_are_refused_in_silence(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    import pinglow
    from pinglow.backends.openvino import OpenVinoBackend

    weights = Path(pinglow.__file__).parent / "weights" / "pinglow-fast.safetensors"
    model = tmp_path / "a.onnx"
    model.write_bytes(weights.read_bytes())
    with pytest.raises(ModelError, match="does not begin as ONNX does"):
        OpenVinoBackend(model, "a.onnx")
    assert capfd.readouterr() == ("", "")


def test_where_it_matters_an_image_has_one_answer_whatever_came_before(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import pinglow
    from pinglow.backends import openvino

    monkeypatch.setattr(openvino, "_MOST_STATIC", 1)
    model = Path(pinglow.__file__).parent / "weights" / "pinglow-fast.onnx"
    backend = openvino.OpenVinoBackend(model, "model")
    backend.make_repeatable()
    random = np.random.default_rng(0)
    images = [random.standard_normal((1, 1, *size), dtype=np.float32) for size in SIZES]
    expected = [backend.run(image, None) for image in images]
    assert list(backend._static) == [(1, 1, *SIZES[1])]
    for place in (1, 0, *[0] * 8):  # after so many of one size, others take another way
        np.testing.assert_array_equal(backend.run(images[place], None), expected[place])
