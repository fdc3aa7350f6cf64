"""What pip install without extras does; `make test-core` runs this where there is no PyTorch."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from pinglow.cli.main import app
from pinglow.extras import is_installed
from pinglow.models.card import bundled_models, read_card
from pinglow.models.checksum import seal
from pinglow.models.recard import save_with_card

EXAMPLES = Path(__file__).parents[2] / "examples"
NEEDS_MORE = (  # torch, or a web framework
    *("nn", "losses", "training", "integrations", "study", "deploy", "data.augment"),
    *("models.weights", "models.conversion", "inference.boxes", "serve"),
)
HIDE_TORCH = "import sys; sys.modules['torch'] = None\n"
RUNTIMES = [name for name in ("onnxruntime", "openvino") if is_installed(name)]
WATCH = """
import sys
def watch(event, arguments):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.sendto"):
        print("opened", event, arguments[1:], flush=True)
        raise OSError("no network here")
sys.addaudithook(watch)
"""
PREDICT = """
import numpy as np
from pinglow import Predictor
frame = np.random.default_rng(0).normal(1000, 20, (64, 80))
frame[30:33, 40:43] += 400
found = Predictor.load("pinglow-fast", backend="{runtime}", device="cpu")(frame)
print(len(found.targets), round(found.targets[0].x), round(found.targets[0].y))
"""


def run(code: str, **environment: str) -> str:
    """Run code in a fresh interpreter and return what it prints."""
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=os.environ | environment
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


def call(*words: str) -> tuple[int, str]:
    """Run a command without PyTorch; its exit code and what it says on stderr."""
    code = (
        f"{HIDE_TORCH}sys.argv = ['pinglow', *{words!r}]\nfrom pinglow.cli.main import main; main()"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    return result.returncode, result.stderr


def test_all_but_training_and_its_parts_imports_without_torch() -> None:
    code = f"""{HIDE_TORCH}
import importlib, pkgutil, pinglow
for module in pkgutil.walk_packages(pinglow.__path__, "pinglow.", onerror=lambda name: None):
    name = module.name.removeprefix("pinglow.")
    if not any(name == each or name.startswith(each + ".") for each in {NEEDS_MORE}):
        importlib.import_module(module.name)
        print(name)
"""
    names = run(code).split()
    assert {"backends.torch", "inference.predictor", "evaluation.pixels", "output.sinks"} <= set(
        names
    )


def test_a_prediction_is_converted_and_drawn(tmp_path: Path) -> None:
    code = f"""{HIDE_TORCH}
import numpy as np
from pinglow import Prediction
sys.modules["polars"] = sys.modules["pandas"] = None
probability = np.zeros((64, 80), np.float32)
probability[30:33, 40:43] = 0.9
found = Prediction(probability)
print(found.to_dict()["targets"][0]["bbox"], found.to_coco(1)[0]["bbox"], found.plot().mode)
for name in ("m.png", "p.npy", "p.tif", "t.json", "t.csv"):
    found.save({str(tmp_path)!r} + "/" + name)
try:
    found.to_dataframe()
except Exception as error:
    print(type(error).__name__)
"""
    lines = run(code).splitlines()
    assert lines == ["[40, 30, 3, 3] [40.0, 30.0, 3.0, 3.0] RGB", "MissingExtraError"]
    assert len(list(tmp_path.iterdir())) == 5


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_nothing_is_sent_and_nothing_written_at_home(runtime: str, tmp_path: Path) -> None:
    home, cache = tmp_path / "home", tmp_path / "cache"
    home.mkdir()
    code = WATCH + PREDICT.format(runtime=runtime)
    assert run(code, HOME=str(home), XDG_CACHE_HOME=str(cache)).split() == ["1", "41", "31"]
    assert list(home.iterdir()) == []
    assert not cache.exists()  # a bundled model needs no conversion


def test_the_watch_sees_a_socket() -> None:
    code = WATCH + (
        "import socket\n"
        "try: socket.create_connection(('127.0.0.1', 9))\n"
        "except OSError as error: print(error)"
    )
    assert "no network here" in run(code)


@pytest.mark.parametrize("name", ["pinglow-fast", "pinglow-base"])
def test_the_bundled_models_find_the_examples(name: str, tmp_path: Path) -> None:
    words = ["predict", str(EXAMPLES / "images"), "--model", name, "--out", str(tmp_path)]
    result = CliRunner().invoke(app, [*words, "--save", "mask,overlay,csv,jsonl"])
    assert result.exit_code == 0, result.output
    rows = (tmp_path / "targets.csv").read_text().splitlines()
    assert len(rows) > 1
    assert len(list((tmp_path / "overlays").iterdir())) == len(
        list((EXAMPLES / "images").iterdir())
    )


def test_the_examples_are_scored(tmp_path: Path) -> None:
    scores = tmp_path / "scores.json"
    words = ["evaluate", "--data", str(EXAMPLES), "--split", "demo", "--model", "pinglow-fast"]
    result = CliRunner().invoke(app, [*words, "--json", str(scores)])
    assert result.exit_code == 0, result.output
    assert json.loads(scores.read_text())["pd"] > 0.5


def test_the_examples_are_compared(tmp_path: Path) -> None:
    methods = ["pinglow-fast", f"truth={EXAMPLES / 'masks'}"]
    words = ["compare", *methods, "--data", str(EXAMPLES), "--split", "demo"]
    result = CliRunner().invoke(app, [*words, "--out", str(tmp_path)])
    assert result.exit_code == 0, result.output
    assert (tmp_path / "table.tex").is_file()


@pytest.mark.parametrize(
    ("words", "extra"),
    [
        (("train", "fast"), "train"),
        (("study", "x.toml"), "train"),
        (("bench",), "train"),
        (("export", "pinglow-fast"), "export"),
        (("predict", str(EXAMPLES / "images"), "--backend", "torch"), "train"),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else value,
)
def test_what_needs_torch_says_so_in_one_sentence(
    words: tuple[str, ...], extra: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    code, said = call(*words)
    assert code == 2
    assert said.count("\n") == 1
    assert "needs torch" in said
    assert f"pip install '.[{extra}]'" in said


def test_weights_of_ones_own_need_torch(tmp_path: Path) -> None:
    import pinglow

    bundled = Path(pinglow.__path__[0]) / "weights" / "pinglow-fast.safetensors"
    own = tmp_path / "own.safetensors"
    content = bytearray(bundled.read_bytes())
    content[-1] ^= 1  # of a weight
    own.write_bytes(seal(bytes(content), ".safetensors"))
    for backend in ("auto", "onnxruntime"):
        words = ("predict", str(EXAMPLES / "images"), "--model", str(own), "--backend", backend)
        code, said = call(*words, "--out", str(tmp_path / "out"))
        assert code == 2
        assert said.splitlines()[-1].startswith("error: ")
        assert "needs torch" in said
        assert "Traceback" not in said


def test_a_bundled_model_with_another_card_needs_none(tmp_path: Path) -> None:
    bundled = bundled_models()["pinglow-fast"]
    card = read_card(bundled).model_copy(update={"license": "another"})
    own = save_with_card(bundled, card, tmp_path)
    out = tmp_path / "out"
    words = ("predict", str(EXAMPLES / "images"), "--model", str(own), "--out", str(out))
    code, said = call(*words, "--save", "csv")
    assert (code, said) == (0, "")
    assert len((out / "targets.csv").read_text().splitlines()) > 1


def test_resampling_to_the_same_size_is_no_work() -> None:
    from pinglow.preprocess import bring_back, resample

    images = np.ones((1, 1, 40, 50), dtype=np.float32)
    assert resample(images, (40, 50)) is images
    assert bring_back(images, (40, 50)) is images
