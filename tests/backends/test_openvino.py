"""What OpenVINO does to the process that it is loaded into."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("openvino", reason="needs openvino: pip install '.[openvino]'")

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
