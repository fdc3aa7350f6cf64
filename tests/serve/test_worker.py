"""What a worker answers: as the command, whatever comes with it, and no more than it may."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from numpy.typing import NDArray
from PIL import Image
from typer.testing import CliRunner

from pinglow.cli.main import app
from pinglow.inference import predictor as predicting
from pinglow.inference import probability as computing
from pinglow.inference.predictor import Predictor
from pinglow.serve import worker
from pinglow.serve.settings import ServeSettings
from pinglow.serve.tasks import Answer, Task
from pinglow.serve.worker import answer_all, describe, give_back, measure

MOST = 2**20


@pytest.fixture(scope="module")
def predictor() -> Any:
    return Predictor.load("pinglow-fast", backend="onnxruntime", device="cpu")


def make_frame(seed: int, shape: tuple[int, int] = (64, 80)) -> NDArray[np.uint16]:
    rng = np.random.default_rng(seed)
    frame = rng.normal(1000, 20, shape)
    top, left = rng.integers(10, 50, 2)
    frame[top : top + 3, left : left + 3] += 400
    return frame.astype(np.uint16)


def png(frame: NDArray[Any]) -> bytes:
    content = io.BytesIO()
    Image.fromarray(frame).save(content, "PNG")
    return content.getvalue()


def answer(predictor: Any, content: bytes, **more: Any) -> Answer:
    return answer_all(predictor, [Task(content, **more)], MOST)[0]


def reason(answer: Answer) -> str:
    assert answer.status == 422
    return str(json.loads(answer.body)["detail"])


def test_a_line_and_pictures_are_those_of_the_command(predictor: Any, tmp_path: Path) -> None:
    path = tmp_path / "one.png"
    path.write_bytes(png(make_frame(0)))
    out = tmp_path / "out"
    words = ["predict", str(path), "--backend", "onnxruntime", "--out", str(out)]
    options = ["--ignore", "0,0,9,9", "--min-score", "0.01"]
    saved = ["--save", "jsonl,mask,probability,overlay"]
    assert CliRunner().invoke(app, [*words, *options, *saved]).exit_code == 0
    asked = {"name": str(path), "ignore": ("0,0,9,9",), "min_score": 0.01}
    for want, place in (
        ("targets", "targets.jsonl"),
        ("mask", "masks/one_mask.png"),
        ("probability", "probability/one.png"),
        ("overlay", "overlays/one_overlay.png"),
    ):
        found = answer(predictor, path.read_bytes(), want=want, **asked)
        assert found.body.strip() == (out / place).read_bytes().strip(), want
        assert found.targets >= 1


def test_a_broken_frame_has_the_sentence_of_the_command(predictor: Any, tmp_path: Path) -> None:
    path = tmp_path / "cut.png"
    path.write_bytes(png(make_frame(0))[:-200])
    result = CliRunner().invoke(app, ["predict", str(path), "--out", str(tmp_path / "out")])
    said = reason(answer(predictor, path.read_bytes(), name=str(path)))
    assert f"left out: {said}\n" in result.output
    assert str(tmp_path) not in reason(answer(predictor, path.read_bytes(), name="cut.png"))


def test_frames_together_are_answered_as_alone(
    predictor: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    shapes = [(64, 80), (64, 80), (50, 40), (64, 80), (50, 40), (64, 80)]
    tasks = [
        Task(png(make_frame(seed, shape)), f"{seed}.png", min_score=None if seed % 2 else 0.01)
        for seed, shape in enumerate(shapes)
    ]
    tasks.insert(2, Task(b"broken", "b.png"))
    tasks.insert(4, Task(tasks[0].content, "i.png", ignore=("0,0,20,20",)))
    tasks.append(Task(tasks[0].content, "p.png", want="tensors"))
    alone = [answer_all(predictor, [task], MOST)[0] for task in tasks]
    assert answer_all(predictor, tasks, MOST) == alone  # on a CPU to the last bit
    for module in (computing, predicting):  # as on a card
        monkeypatch.setattr(module, "batch_pixels", lambda backend, tile: 4 * 2**20)
    sizes = []
    run = predictor.backend.run
    monkeypatch.setattr(
        predictor.backend, "run", lambda x, gates: (sizes.append(len(x)), run(x, gates))[1]
    )
    together = answer_all(predictor, tasks, MOST)
    assert max(sizes) > 1
    for one, other in zip(alone, together, strict=True):
        assert (one.status, one.targets, one.alarms) == (other.status, other.targets, other.alarms)
        if one.media_type == "application/json":
            assert rounded(one) == rounded(other)
        else:
            maps = [np.frombuffer(each.body[-4 * 64 * 80 :], "<f4") for each in (one, other)]
            np.testing.assert_allclose(*maps, atol=1e-5)


def rounded(answer: Answer) -> Any:
    return json.loads(answer.body, parse_float=lambda text: round(float(text), 4))


def test_tasks_of_raw_counts(predictor: Any) -> None:
    frame = make_frame(3)
    as_file = answer(predictor, png(frame), want="tensors")
    raw = {"shape": frame.shape, "dtype": "<u2", "want": "tensors"}
    assert answer(predictor, frame.tobytes(), **raw) == as_file
    assert len(as_file.body) == 8 * 8 * as_file.targets + 4 * frame.size
    assert "are 10,240: send all" in reason(answer(predictor, b"abc", **raw))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is empty"),
        (b"words", "is not a frame that pinglow reads"),
        (b"\0\0\0\x18ftypmp42\0\0\0\0", "is a clip: post it to /v1/jobs"),
    ],
)
def test_what_is_no_frame(predictor: Any, content: bytes, said: str) -> None:
    assert reason(answer(predictor, content, name="x")).startswith(f"x {said}")


def test_a_file_of_several_pages_is_for_jobs(predictor: Any) -> None:
    content = io.BytesIO()
    pages = [Image.fromarray(make_frame(seed)) for seed in range(3)]
    pages[0].save(content, "TIFF", save_all=True, append_images=pages[1:])
    said = reason(answer(predictor, content.getvalue(), name="x.tif"))
    assert said.startswith("x.tif holds 3 frames: post it to /v1/jobs")


def test_what_claims_too_much_is_not_decoded(predictor: Any) -> None:
    large = png(np.zeros((2048, 1024), np.uint8))
    assert "more than the limit of 1048576" in reason(answer(predictor, large))
    for shape, kind in (((4000, 4000), "<u2"), ((1000, 1000), "V1000000"), ((1000, 1000), "<f8")):
        head = io.BytesIO()
        claim = {"descr": kind, "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_2_0(head, claim)
        assert reason(answer(predictor, head.getvalue()))


def test_a_file_on_this_machine_is_not_read(predictor: Any, tmp_path: Path) -> None:
    mask = tmp_path / "mask.png"
    Image.fromarray(np.full((64, 80), 255, np.uint8)).save(mask)
    said = reason(answer(predictor, png(make_frame(0)), ignore=(str(mask),)))
    assert "is not x,y,w,h" in said


def test_alarms_are_counted_by_the_services_own_score(predictor: Any) -> None:
    content = png(make_frame(0))
    usual = answer(predictor, content)
    low = answer(predictor, content, min_score=0.0)
    assert usual.alarms == usual.targets == low.alarms
    assert low.targets >= usual.targets
    assert answer(predictor, content, min_score=0.999).alarms is None


def test_statistics_are_of_the_finite_counts() -> None:
    frame = np.random.default_rng(0).normal(500, 10, (300, 200)).astype(np.float32)
    frame[:3] = np.nan
    found = measure(frame)
    assert (found.width, found.height) == (200, 300)
    assert found.median == pytest.approx(500, abs=1)
    assert found.spread == pytest.approx(10, rel=0.05)


def test_a_model_says_what_it_is(predictor: Any) -> None:
    loaded = describe(predictor)
    assert (loaded.card["name"], loaded.kind) == ("pinglow-fast", "pixels")
    assert (loaded.device, loaded.backend, loaded.most) == ("cpu", "onnxruntime", 1)
    assert loaded.min_score == predictor.card.choose_score()


def test_a_fault_costs_one_answer(
    predictor: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def measure_or_fail(frame: NDArray[Any]) -> Any:
        if frame.shape == (50, 40):
            raise RuntimeError("never thought of")
        return measure(frame)

    monkeypatch.setattr(worker, "measure", measure_or_fail)
    tasks = [Task(png(make_frame(seed, (50, 40 + seed)))) for seed in range(2)]
    broken, whole = worker._answer_whatever(predictor, tasks, MOST)
    assert (broken.status, whole.status) == (500, 200)
    assert "never" not in broken.body.decode()
    assert "never thought of" in caplog.text


def test_no_torch_is_needed() -> None:
    code = """
import sys
sys.modules["torch"] = None
import pinglow.serve.server
from pinglow.serve.worker import answer_all
from pinglow.serve.tasks import Task
from pinglow import Predictor
import numpy as np
frame = np.random.default_rng(0).normal(1000, 20, (64, 80)).astype(np.uint16)
predictor = Predictor.load("pinglow-fast", backend="onnxruntime", device="cpu")
task = Task(frame.tobytes(), shape=frame.shape, dtype="<u2")
print(answer_all(predictor, [task], 2**20)[0].status)
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.stdout.split() == ["200"], result.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="other systems keep what they were given")
@pytest.mark.parametrize("name", ["onnxruntime", "openvino"])
def test_what_large_frames_took_is_given_back(name: str) -> None:
    """Of images with their own channel attention, and with that of the frame they are cut from."""
    predictor = Predictor.load("pinglow-fast", backend=name, device="cpu")
    images = np.random.default_rng(0).normal(size=(1, 1, 1024, 1024)).astype(np.float32)
    small = images[..., :64, :64]
    gates = predictor.backend.gates(small)
    expected = predictor.backend(small), predictor.backend(small, gates)
    give_back(predictor)
    before = psutil.Process().memory_info().rss
    predictor.backend(images)
    predictor.backend(images, gates)
    taken = psutil.Process().memory_info().rss - before
    assert taken > 30 * 2**20
    give_back(predictor)
    assert psutil.Process().memory_info().rss - before < taken / 4
    found = predictor.backend(small), predictor.backend(small, gates)
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_a_worker_that_waits_gives_back_what_large_frames_took(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shares: list[int] = []
    given: list[int] = []
    monkeypatch.setattr(worker, "give_back", lambda predictor: given.append(connection.taken))
    monkeypatch.setattr(worker, "log_to_stderr", lambda: None)
    monkeypatch.setattr(worker, "take_share", shares.append)
    monkeypatch.setattr(worker, "_LARGE", 100 * 100)
    monkeypatch.setattr(worker.signal, "signal", lambda *_: None)
    small, large = (png(make_frame(0, (side, side))) for side in (64, 100))

    class Connection:
        """Waits after each task but the second one."""

        tasks = (small, large, large, small, small)
        taken = 0

        def poll(self, seconds: float) -> bool:
            return self.taken == 2

        def send(self, what: Any) -> None: ...

        def recv(self) -> list[Task]:
            self.taken += 1
            if self.taken > len(self.tasks):
                raise EOFError
            return [Task(self.tasks[self.taken - 1])]

    connection = Connection()
    worker.work(connection, ServeSettings(model="pinglow-fast", workers=3))  # type: ignore[arg-type]
    assert given == [3]
    assert shares == [3]


def test_what_a_backend_fails_to_give_back_ends_no_worker(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    predictor = Predictor.load("pinglow-fast", backend="onnxruntime", device="cpu")

    def fail() -> None:
        raise RuntimeError("of a runtime")

    monkeypatch.setattr(predictor.backend, "release_memory", fail)
    give_back(predictor)
    assert "memory could not be given back" in caplog.text
