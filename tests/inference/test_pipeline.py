from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from pinglow.backends.torch import TorchBackend
from pinglow.errors import FrameError, OptionError
from pinglow.inference.pipeline import JobSummary, run
from pinglow.inference.predictor import Predictor
from pinglow.io.source import Selection, Source, SourceFrame, open_source
from pinglow.models.card import ModelCard
from pinglow.output.sink import FrameRecord, Sink
from pinglow.output.sinks import open_sinks
from pinglow.preprocess import InputRule
from pinglow.structures import Clip, Prediction

SaveClip = Callable[..., Path]

FRAME = np.full((20, 30), 50, dtype=np.uint8)
FRAME[4:6, 7:9] = 200


def find_bright(frame: NDArray[Any]) -> Prediction:
    return Prediction((frame > 100).astype(np.float32))


class Memory(Sink):
    """A sink that keeps the records, and the sources that are done."""

    def __init__(self, done: Sequence[Path] = ()) -> None:
        self.records: list[FrameRecord] = []
        self.done = [str(path) for path in done]

    def write(self, record: FrameRecord) -> None:
        self.records.append(record)

    def end_source(self, source: str, whole: bool) -> None:
        if whole:
            self.done.append(source)


def run_files(
    predictor: Any, files: Sequence[Path], sinks: Sequence[Sink], **options: Any
) -> JobSummary:
    return run([open_source(file) for file in files], predictor, sinks, **options)


def save(path: Path, frame: NDArray[Any] = FRAME) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(frame).save(path)
    return path


def test_reads_predicts_and_writes_in_order(tmp_path: Path) -> None:
    files = [save(tmp_path / "b.png"), save(tmp_path / "a.png", FRAME // 4)]
    memory, progress = Memory(), []
    summary = run_files(
        find_bright, files, [memory], on_progress=lambda done, total: progress.append((done, total))
    )
    assert (summary.frames, summary.targets, summary.broken) == (2, 1, ())
    assert summary.seconds > 0
    assert progress == [(1, 2), (2, 2)]
    assert [record.name for record in memory.records] == ["b", "a"]
    np.testing.assert_array_equal(memory.records[0].frame, FRAME)
    assert memory.records[0].prediction.targets[0].bbox == (7, 4, 2, 2)


def test_a_broken_frame_is_noted_and_does_not_stop_the_job(tmp_path: Path) -> None:
    files = [save(tmp_path / "a.png"), tmp_path / "broken.png", save(tmp_path / "c.png")]
    files[1].write_bytes(files[0].read_bytes()[:50])
    torn = tmp_path / "torn.tif"
    torn.write_bytes(b"II*\0\xff\xff\xff")
    memory, progress = Memory(), []
    summary = run_files(
        find_bright, [*files, torn], [memory], on_progress=lambda done, total: progress.append(done)
    )
    assert summary.frames == 2
    assert [name for name, _ in summary.broken] == [str(files[1]), str(torn)]
    assert all(name in reason for name, reason in summary.broken)
    assert progress == [1, 2, 3, 4]


def test_a_frame_that_the_predictor_refuses_is_noted_too(tmp_path: Path) -> None:
    def refuse(frame: NDArray[Any]) -> Prediction:
        raise FrameError("nothing but NaN")

    summary = run_files(refuse, [save(tmp_path / "a.png")], [])
    assert summary.broken == ((str(tmp_path / "a.png"), f"{tmp_path / 'a.png'}: nothing but NaN"),)


def test_other_errors_are_not_hidden(tmp_path: Path) -> None:
    def fail(frame: NDArray[Any]) -> Prediction:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run_files(fail, [save(tmp_path / "a.png")], [])


def test_no_files_is_an_empty_job() -> None:
    summary = run_files(find_bright, [], [])
    assert (summary.frames, summary.targets, summary.broken) == (0, 0, ())


def test_every_page_is_a_frame_with_its_number_in_the_name(tmp_path: Path) -> None:
    stack = np.stack([FRAME.astype(np.uint16) + number for number in range(11)])
    tifffile.imwrite(tmp_path / "stack.tif", stack, photometric="minisblack")
    memory = Memory()
    summary = run_files(find_bright, [tmp_path / "stack.tif"], [memory])
    assert summary.frames == 11
    assert [record.page for record in memory.records] == list(range(11))
    assert [record.name for record in memory.records][:2] == ["stack_p00", "stack_p01"]
    for record, frame in zip(memory.records, stack, strict=True):
        np.testing.assert_array_equal(record.frame, frame)


def test_names_are_unique_whatever_the_files_are_called(tmp_path: Path) -> None:
    files = [
        save(tmp_path / "x" / "f.png"),
        save(tmp_path / "y" / "f.png"),
        save(tmp_path / "y" / "F.bmp"),
        save(tmp_path / "y" / "g.png"),
        save(tmp_path / "z" / "y" / "f.png"),
        save(tmp_path / "s_p0.png"),
    ]
    tifffile.imwrite(tmp_path / "s.tif", np.stack([FRAME] * 2), photometric="minisblack")
    memory = Memory()
    run_files(find_bright, [*files, tmp_path / "s.tif"], [memory])
    names = [record.name for record in memory.records]
    assert names == ["x_f", "y_f", "y_F-2", "g", "y_f-3", "s_p0", "s_p0-2", "s_p1"]
    assert len({name.casefold() for name in names}) == len(names)


def test_ctrl_c_leaves_whole_files(tmp_path: Path) -> None:
    files = [save(tmp_path / f"{number}.png") for number in range(5)]
    seen = 0

    def interrupt_third(frame: NDArray[Any]) -> Prediction:
        nonlocal seen
        seen += 1
        if seen == 3:
            raise KeyboardInterrupt
        return find_bright(frame)

    out = tmp_path / "out"
    with (
        pytest.raises(KeyboardInterrupt),
        open_sinks(["mask", "overlay", "csv", "jsonl"], out) as sinks,
    ):
        run_files(interrupt_third, files, sinks)
    lines = (out / "targets.jsonl").read_text().splitlines()
    assert [Path(json.loads(line)["source"]).name for line in lines] == ["0.png", "1.png"]
    assert len((out / "targets.csv").read_text().splitlines()) == 3
    for image in out.rglob("*.png"):
        Image.open(image).load()
    assert len(list(out.rglob("*.png"))) == 4


def test_long_names_are_shortened_and_stay_apart(tmp_path: Path) -> None:
    files = [save(tmp_path / f"{'ä' * 110}{letter}.png") for letter in "ab"]
    with open_sinks(["mask", "overlay"], tmp_path / "out") as sinks:
        summary = run_files(find_bright, files, sinks)
    assert summary.frames == 2
    assert len(list((tmp_path / "out" / "masks").iterdir())) == 2


def test_a_video_goes_in_frame_by_frame(tmp_path: Path, save_clip: SaveClip) -> None:
    clip = save_clip(tmp_path / "clip.mkv", 12)
    memory, progress = Memory(), []
    summary = run_files(
        find_bright,
        [save(tmp_path / "a.png"), clip],
        [memory],
        on_progress=lambda done, total: progress.append((done, total)),
        selection=Selection(every=5),
    )
    assert (summary.frames, summary.targets, summary.tracks) == (4, 4, None)
    assert progress[-1] == (4, 4)
    still, *moving = memory.records
    assert (still.time, still.clip) == (None, None)
    assert [record.page for record in moving] == [0, 5, 10]
    assert [record.time for record in moving] == pytest.approx([0.0, 0.5, 1.0])
    assert [record.name for record in moving] == ["clip_f0000", "clip_f0005", "clip_f0010"]
    assert {record.clip for record in moving} == {Clip("clip", 2.0)}
    assert [record.prediction.targets[0].x for record in moving] == [5.5, 10.5, 15.5]
    late = run_files(find_bright, [clip], [], selection=Selection(start=0.2, end=0.65))
    assert late.frames == 5


def test_a_selection_by_time_wants_videos(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=r"a.png has no times"):
        run_files(find_bright, [save(tmp_path / "a.png")], [], selection=Selection(end=1.0))


def test_a_folder_and_bytes_are_sources_too(tmp_path: Path) -> None:
    files = [save(tmp_path / "in" / f"{number}.png") for number in (1, 2, 10)]
    memory = Memory()
    sources = [open_source(tmp_path / "in"), open_source(files[0].read_bytes(), "upload.png")]
    CountUp.made = []
    summary = run(sources, find_bright, [memory], make_tracker=CountUp)
    assert (summary.frames, summary.targets, len(CountUp.made)) == (4, 4, 2)
    assert [record.name for record in memory.records] == ["in_1", "in_2", "in_10", "upload"]
    assert memory.done == [str(tmp_path / "in"), "upload.png"]


def test_a_source_without_an_end_is_predicted_until_it_has_one() -> None:
    class Camera(Source):
        def __init__(self) -> None:
            super().__init__("camera", None, rate=10.0)

        def select(self, selection: Selection | None = None) -> Iterator[SourceFrame]:
            for number in range(3):
                yield SourceFrame(number, FRAME, f"_f{number}", number / 10)

    memory, progress = Memory(), []
    summary = run(
        [Camera()], find_bright, [memory], on_progress=lambda *done: progress.append(done)
    )
    assert summary.frames == 3
    assert progress == [(1, 1), (2, 2), (3, 3)]
    assert memory.records[-1].clip == Clip("camera", 10.0)


def test_a_broken_video_is_noted_and_does_not_stop_the_job(
    tmp_path: Path, save_clip: SaveClip
) -> None:
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"garbage" * 50)
    summary = run_files(find_bright, [broken, save_clip(tmp_path / "clip.mkv", 12)], [])
    assert summary.frames == 12
    assert [name for name, _ in summary.broken] == [str(broken)]


class CountUp:
    """A tracker that gives each frame's targets the number of its update."""

    made: list[float]

    def __init__(self, rate: float) -> None:
        self.made.append(rate)
        self.updates = 0

    def update(self, prediction: Any, frame: Any = None) -> tuple[int | None, ...]:
        self.updates += 1
        number = None if self.updates == 1 else self.updates - 1
        return tuple(number for _ in prediction.targets)


def test_every_sequence_has_its_own_tracker_and_numbers_go_on(
    tmp_path: Path, save_clip: SaveClip
) -> None:
    CountUp.made = []
    stack = np.stack([FRAME] * 3)
    tifffile.imwrite(tmp_path / "stack.tif", stack, photometric="minisblack")
    stills = [save(tmp_path / "x" / f"{number}.png") for number in range(3)]
    others = [save(tmp_path / "y" / f"{number}.png") for number in range(2)]
    clip = save_clip(tmp_path / "clip.mkv", 4)
    memory = Memory()
    summary = run_files(
        find_bright,
        [tmp_path / "stack.tif", *stills, *others, clip],
        [memory],
        make_tracker=CountUp,
    )
    assert len(CountUp.made) == 4
    assert CountUp.made[-1] == 10
    tracks = [record.tracks for record in memory.records]
    assert tracks == [
        *((None,), (1,), (2,)),
        *((None,), (3,), (4,)),
        *((None,), (5,)),
        *((None,), (6,), (7,), (8,)),
    ]
    assert summary.tracks == 8


def test_pixels_without_a_value_are_counted(tmp_path: Path) -> None:
    for number, value in enumerate([1.0, np.nan, np.inf]):
        frame = FRAME.astype(np.float32)
        frame[0, 0] = value
        np.save(tmp_path / f"{number}.npy", frame)
    summary = run_files(find_bright, sorted(tmp_path.glob("*.npy")), [])
    assert (summary.frames, summary.holed) == (3, 2)


def test_reading_and_writing_overlap_but_stay_in_order_and_bounded(tmp_path: Path) -> None:
    files = [save(tmp_path / f"{number}.png", FRAME + number) for number in range(30)]
    written: list[int] = []
    predicted = 0
    behind = 0

    class Slow(Sink):
        def write(self, record: FrameRecord) -> None:
            nonlocal behind
            time.sleep(0.005)
            behind = max(behind, predicted - len(written))
            written.append(int(record.frame[0, 0]))

    def find(frame: NDArray[Any]) -> Prediction:
        nonlocal predicted
        predicted += 1
        return find_bright(frame)

    run_files(find, files, [Slow()])
    assert written == [50 + number for number in range(30)]
    assert 1 < behind <= 7


def test_what_a_sink_raises_ends_the_job(tmp_path: Path) -> None:
    class Full(Sink):
        def write(self, record: FrameRecord) -> None:
            raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        run_files(find_bright, [save(tmp_path / f"{n}.png") for n in range(9)], [Full()])


def test_every_nth_frame_of_a_folder(tmp_path: Path) -> None:
    files = [save(tmp_path / folder / f"{n}.png") for folder in "xy" for n in range(5)]
    memory = Memory()
    run_files(find_bright, files, [memory], selection=Selection(every=3))
    sources = [Path(record.source) for record in memory.records]
    names = [f"{source.parent.name}{source.stem}" for source in sources]
    assert names == ["x0", "x3", "y0", "y3"]


def test_time_goes_on_for_a_tracker_where_a_frame_is_broken(tmp_path: Path) -> None:
    CountUp.made = []
    files = [save(tmp_path / f"{number}.png") for number in range(3)]
    files[1].write_bytes(b"")
    memory = Memory()
    run_files(find_bright, files, [memory], make_tracker=CountUp)
    assert [record.tracks for record in memory.records] == [(None,), (2,)]


def test_a_name_that_is_not_utf8_is_no_obstacle(tmp_path: Path) -> None:
    path = tmp_path / os.fsdecode(b"s\xff.npy")
    try:
        with path.open("wb") as file:
            np.save(file, FRAME)
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    assert run_files(find_bright, [path], []).frames == 1


def test_a_file_of_which_something_was_not_written_is_not_done(tmp_path: Path) -> None:
    files = [save(tmp_path / f"{n}.png") for n in range(9)]
    log = Memory()

    class Full(Memory):
        def write(self, record: FrameRecord) -> None:
            if len(self.records) == 2:
                raise OSError("full")
            super().write(record)

    with pytest.raises(OSError, match="full"):
        run_files(find_bright, files, [Memory(), Full()], resume=log)
    assert log.done == [str(file) for file in files[:2]]


def test_files_that_are_done_are_passed_over_and_names_stay(tmp_path: Path) -> None:
    files = [save(tmp_path / part / "a.png") for part in ("in", "sub", "in/in")]
    memory, log = Memory(), Memory(files[:1])
    run_files(find_bright, files, [memory], resume=log)
    assert [record.name for record in memory.records] == ["sub_a", "in_a-2"]
    assert log.done == [str(file) for file in files]
    files[1].write_bytes(b"")
    memory = Memory()
    summary = run_files(find_bright, files, [memory])
    assert len(summary.broken) == 1
    assert memory.done == [str(files[0]), str(files[2])]


# --- several frames at once ----------------------------------------------------------------------


class Bright(nn.Module):
    """Finds what stands out, and has no memory for frames with very hot pixels."""

    def forward(self, x: Tensor) -> Tensor:
        """(N, 1, H, W) to the same shape."""
        if x.max() > 8:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return 4 * (x - 4)


def job_of(backend: Any, files: list[Path]) -> tuple[Any, list[Any], list[tuple[int, int]]]:
    """What a job finds and tells: its summary, its records, its progress."""
    card = ModelCard(name="t", network={}, parameters=0, input_rule=InputRule(max_scale=1))
    CountUp.made = []
    memory, progress = Memory(), []
    summary = run_files(
        Predictor(backend, card),
        files,
        [memory],
        on_progress=lambda count, total: progress.append((count, total)),
        make_tracker=CountUp,
    )
    records = [
        (each.source, each.page, each.name, each.frame.shape, each.time, each.clip, each.tracks)
        for each in memory.records
    ]
    found = [each.prediction.targets for each in memory.records]
    told = (summary.frames, summary.targets, summary.tracks, summary.broken, summary.holed)
    return told, [records, found, memory.done, CountUp.made], progress


def test_on_a_card_a_job_is_the_same_with_fewer_runs(
    tmp_path: Path, save_clip: SaveClip, on_card: Callable[..., Any]
) -> None:
    noise = np.random.default_rng(0).normal(100, 5, (9, 32, 40)).astype(np.uint16)
    noise[:, 10:12, 20:22] += 400
    noise[4, 0, 0] = 60000
    tifffile.imwrite(tmp_path / "stack.tif", noise, photometric="minisblack")
    stills = [save(tmp_path / "in" / f"{n}.png", noise[n]) for n in range(4)]
    stills[2].write_bytes(b"broken")
    other = save(tmp_path / "in" / "other.png", noise[0, :, :33].copy())
    clip = save_clip(tmp_path / "clip.mkv", 12)
    files = [*stills[:2], tmp_path / "stack.tif", *stills[2:], other, clip]
    card = on_card(Bright())
    alone = job_of(TorchBackend(Bright()), files)
    assert job_of(card, files) == alone
    (frames, targets, _, broken, _), *_ = alone
    assert (frames, len(broken)) == (24, 2)
    assert targets > 20
    # All of one size at once, and when that fails one by one.
    assert card.batches[0] == (24, 1, 32, 40)


def test_on_a_card_no_more_is_held_than_a_batch(
    tmp_path: Path, on_card: Callable[..., Any]
) -> None:
    files = [save(tmp_path / f"{n}.png", np.full((1024, 1024), n, np.uint8)) for n in range(11)]
    card = on_card(Bright())
    told: list[int] = []
    model = ModelCard(name="t", network={}, parameters=0, input_rule=InputRule(max_scale=1))
    run_files(Predictor(card, model), files, [], on_progress=lambda done, _: told.append(done))
    assert [batch[0] for batch in card.batches] == [4, 4, 3]
    assert told == list(range(1, 12))
