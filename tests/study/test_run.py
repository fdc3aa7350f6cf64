"""Whole studies of tiny runs: that a stop at any point costs no result."""

from __future__ import annotations

import csv
import gc
import json
import os
import re
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from pinglow.data.synthetic.scenes import SceneSpec, write_dataset
from pinglow.errors import DataError, PinglowError, RecipeError
from pinglow.study.grid import PlannedRun, Study, plan_runs
from pinglow.study.jobs import run_jobs
from pinglow.study.report import write_report
from pinglow.study.results import RunResult, read_results
from pinglow.study.run import run_study
from pinglow.training.batches import TrainingBatches
from pinglow.training.run import TrainingInterruptedError
from pinglow.training.segmentation import SegmentationTask

pytestmark = pytest.mark.usefixtures("one_thread", "no_curves")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a data set of ten small scenes."""
    folder = tmp_path_factory.mktemp("data")
    write_dataset(folder / "a", 10, SceneSpec(width=64, height=64))
    return folder


def make_study(**changes: Any) -> Study:
    network = {"widths": [4, 8], "depths": [1, 1]}
    common = {
        **{f"network.{key}": value for key, value in network.items()},
        **{"steps": 4, "validate_every": 2, "batch_size": 2, "augmentation.crop": 32},
        **{"data.validation": 0.3, "data.sets": [{"folder": "a", "split": "train"}]},
        **{"loss.warmup_steps": 0, "optimizer.warmup_steps": 0},
    }
    arms = [{"name": "x"}, {"name": "y", "set": {"loss.terms.0.options": {"variant": "penalty"}}}]
    compare = [{"first": "x", "second": "y", "question": "is x better?"}]
    content = {"name": "s", "seeds": [0, 1], "set": common, "arms": arms, "compare": compare}
    return Study.model_validate({**content, **changes})


def run(study: Study, root: Path, tmp_path: Path, **options: Any) -> list[RunResult]:
    plan = plan_runs(study, root)
    return run_study(plan, tmp_path / "out", tmp_path / "work", progress=False, **options)


def run_and_list(study: Study, root: Path, tmp_path: Path, **options: Any) -> list[str]:
    """Names of the runs that were made."""
    started: list[str] = []

    def note(planned: PlannedRun, _: int) -> None:
        started.append(planned.name)

    run(study, root, tmp_path, on_start=note, **options)
    return started


@pytest.fixture(scope="module")
def made_once(one_thread: None, root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made")
    run(make_study(seeds=[0]), root, folder)
    return folder


@pytest.fixture
def made(made_once: Path, tmp_path: Path) -> None:
    """Put what the study of one seed leaves into the test's folder."""
    shutil.copytree(made_once, tmp_path, dirs_exist_ok=True)


def stop_at(batches: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Send SIGTERM while that batch of the study is made."""
    make = TrainingBatches.batch
    left = [batches]

    def batch(self: TrainingBatches, number: int) -> Any:
        left[0] -= 1
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGTERM)
        return make(self, number)

    monkeypatch.setattr(TrainingBatches, "batch", batch)


def rows(tmp_path: Path) -> list[dict[str, str]]:
    with (tmp_path / "out/results.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_study_leaves_a_row_a_run_and_a_report(root: Path, tmp_path: Path) -> None:
    seen: list[int] = []
    study = make_study()
    results = run(study, root, tmp_path, on_end=lambda results: seen.append(len(results)))
    assert seen == [1, 2, 3, 4]
    assert [(row["arm"], row["seed"]) for row in rows(tmp_path)] == [
        *(("x", "0"), ("y", "0"), ("x", "1"), ("y", "1"))
    ]
    assert {row["status"] for row in rows(tmp_path)} == {"done"}
    assert [row["loss"] for row in rows(tmp_path)][:2] == ["diff+bce", "penalty+bce"]
    frames = {result.sets["a"].frames for result in results}
    assert len(frames) == 1  # all arms and seeds
    assert len(results[0].sets["a"].counts) == len(next(iter(frames))) > 0
    assert [row["step"] for row in results[0].curve] == ["2", "4"]
    page = write_report(study, tmp_path / "out").read_text()
    assert "4 of 4 runs are done" in page
    assert "| x - y | is x better? | 2 |" in page
    for name in ("s-differences.png", "s-curves.png", "s-roc.png"):
        assert (tmp_path / "out" / name).stat().st_size > 1000
    for path in (tmp_path / "out/runs").glob("y-*.json"):
        path.unlink()
    page = write_report(study, tmp_path / "out").read_text()
    assert "no common seed yet" in page
    with Image.open(tmp_path / "out" / "s-curves.png") as picture:
        assert len(picture.convert("L").getcolors() or "many") > 2  # the curves that there are


def test_frames_without_targets_say_nothing_of_iou(tmp_path: Path) -> None:
    write_dataset(tmp_path / "a", 10, SceneSpec(width=64, height=64, targets=(0, 0)))
    run(make_study(seeds=[0]), tmp_path, tmp_path)
    page = write_report(make_study(seeds=[0]), tmp_path / "out").read_text()
    assert "no targets to find" in page


def test_a_runs_frames_are_let_go_before_the_next(root: Path, tmp_path: Path) -> None:
    def count(_: Any) -> None:
        held.append(sum(type(each) is TrainingBatches for each in gc.get_objects()))

    gc.collect()
    held: list[int] = []
    count(None)
    run(make_study(seeds=[0]), root, tmp_path, on_end=count)
    assert held == [held[0]] * 3


@pytest.mark.usefixtures("made")
def test_done_runs_are_skipped(root: Path, tmp_path: Path) -> None:
    assert run_and_list(make_study(), root, tmp_path) == ["x-1", "y-1"]
    assert len(rows(tmp_path)) == 4


def test_a_study_that_was_stopped_goes_on_to_the_same_result(
    root: Path, made_once: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = run(make_study(seeds=[0]), root, made_once)
    stop_at(6, monkeypatch)  # in the middle of the second run
    with pytest.raises(TrainingInterruptedError):
        run(make_study(seeds=[0]), root, tmp_path)
    assert len(rows(tmp_path)) == 1
    results = run(make_study(seeds=[0]), root, tmp_path)
    assert [each.sets for each in results] == [each.sets for each in whole]


def test_a_run_goes_on_where_the_data_lies_elsewhere(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop_at(3, monkeypatch)
    study = make_study(seeds=[0])
    with pytest.raises(TrainingInterruptedError):
        run(study, root, tmp_path)
    made: list[int] = []
    make = TrainingBatches.batch

    def batch(self: TrainingBatches, number: int) -> Any:
        made.append(number)
        return make(self, number)

    monkeypatch.setattr(TrainingBatches, "batch", batch)
    moved = tmp_path / "moved"
    shutil.copytree(root, moved)
    run(study, moved, tmp_path)
    assert made[:2] == [3, 0]  # what was left of the first run, then the next one


def test_a_run_that_came_apart_after_a_checkpoint_is_made_anew(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[int] = []
    make = TrainingBatches.batch

    def batch(self: TrainingBatches, number: int) -> Any:
        made.append(number)
        images, masks = make(self, number)
        return (images.fill_(float("nan")) if number == 3 else images), masks

    study = make_study(arms=[{"name": "x"}], seeds=[0], compare=[])
    with monkeypatch.context() as patched:
        patched.setattr(TrainingBatches, "batch", batch)
        (result,) = run(study, root, tmp_path)
        assert result.failure is not None
        assert "apart at step 4" in result.failure
        made.clear()
        run(study, root, tmp_path, retry_failed=True)
        assert made[0] == 0
    mended = make_study(
        arms=[{"name": "x", "set": {"optimizer.learning_rate": 1e-4}}], seeds=[0], compare=[]
    )
    (result,) = run(mended, root, tmp_path)
    assert not result.failure


def test_a_signal_in_the_last_validation_stops_after_the_run(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    report, validations = SegmentationTask.report, [0]

    def stop(task: SegmentationTask) -> Any:
        validations[0] += 1
        if validations[0] == 2:  # after step 4 of 4
            os.kill(os.getpid(), signal.SIGTERM)
        return report(task)

    monkeypatch.setattr(SegmentationTask, "report", stop)
    with pytest.raises(TrainingInterruptedError):
        run(make_study(seeds=[0]), root, tmp_path)
    assert len(rows(tmp_path)) == 1


def test_a_run_that_another_is_making_is_passed_over(root: Path, tmp_path: Path) -> None:
    pytest.importorskip("fcntl", reason="needs a system with file locks")
    study = make_study(seeds=[0])
    started: list[str] = []
    beside: list[str] = []

    def start(planned: PlannedRun, _: int) -> None:
        started.append(planned.name)
        # The same command once more; locks of one process shut each other out like those of two.
        beside.extend(run_and_list(study, root, tmp_path))

    run(study, root, tmp_path, on_start=start)
    assert beside == ["y-0"]
    assert started == ["x-0"]  # y-0 is done when its turn comes
    assert [(row["arm"], row["status"]) for row in rows(tmp_path)] == [("x", "done"), ("y", "done")]


def test_a_full_disk_stops_the_study_and_fails_no_run(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device", "somewhere")

    monkeypatch.setattr("pinglow.study.run.train", full)
    with pytest.raises(OSError, match="No space left"):
        run(make_study(), root, tmp_path)
    assert read_results(tmp_path / "out") == []


def test_a_folder_that_cannot_hold_results_is_noticed_before_the_first_run(
    root: Path, tmp_path: Path
) -> None:
    (tmp_path / "out").write_text("")

    def start(planned: PlannedRun, _: int) -> None:
        pytest.fail(f"{planned.name} was begun")

    with pytest.raises(OSError, match="out"):
        run(make_study(), root, tmp_path, on_start=start)


def test_a_retry_goes_on_with_what_another_process_has_begun(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("fcntl", reason="needs a system with file locks")
    gone = {"data.sets": [{"folder": "b", "split": "train"}]}
    study = make_study(arms=[{"name": "x", "set": gone}, {"name": "y", "set": gone}], seeds=[0])
    other = tmp_path / "other"
    (other / "b").mkdir(parents=True)
    assert all(each.failure for each in run(study, other, tmp_path))
    write_dataset(other / "b", 10, SceneSpec(width=64, height=64))
    begun: list[int] = []
    make = TrainingBatches.batch

    def batch(self: TrainingBatches, number: int) -> Any:
        begun.append(number)
        return make(self, number)

    def start(planned: PlannedRun, _: int) -> None:
        if planned.name == "x-0":  # meanwhile, another process begins y-0 and is stopped
            with monkeypatch.context() as patched:
                stop_at(3, patched)
                with pytest.raises(TrainingInterruptedError):
                    run(study, other, tmp_path, retry_failed=True)
            monkeypatch.setattr(TrainingBatches, "batch", batch)

    results = run(study, other, tmp_path, retry_failed=True, on_start=start)
    assert not any(each.failure for each in results)
    assert begun == [0, 1, 2, 3, 3]  # x-0 whole, what was left of y-0


@pytest.mark.usefixtures("made")
def test_results_outlive_a_kill_between_a_run_and_the_table(root: Path, tmp_path: Path) -> None:
    (tmp_path / "out/results.csv").unlink()
    assert run_and_list(make_study(seeds=[0]), root, tmp_path) == []
    assert len(rows(tmp_path)) == 2


@pytest.mark.usefixtures("made")
def test_a_run_folder_that_is_torn_or_finished_is_made_anew(root: Path, tmp_path: Path) -> None:
    study = make_study(seeds=[0])
    (tmp_path / "out/runs/x-0.json").unlink()  # killed after the last step
    (tmp_path / "out/runs/y-0.json").unlink()
    (tmp_path / "work/y-0/last.ckpt").write_bytes(b"torn")
    assert not any(each.failure for each in run(study, root, tmp_path))


def test_a_failure_is_a_row_and_the_others_go_on(root: Path, tmp_path: Path) -> None:
    gone = {"data.sets": [{"folder": "a", "split": "gone"}]}
    study = make_study(arms=[{"name": "x", "set": gone}, {"name": "y"}], seeds=[0])
    first, second = run(study, root, tmp_path)
    assert "gone" in first.failure
    assert not second.failure
    assert [row["status"] for row in rows(tmp_path)] == ["failed", "done"]
    assert rows(tmp_path)[0]["failure"] == first.failure
    assert run_and_list(study, root, tmp_path) == []
    assert run_and_list(study, root, tmp_path, retry_failed=True) == ["x-0"]
    page = write_report(study, tmp_path / "out").read_text()
    assert "1 of 2 runs are done, 1 failed" in page
    assert first.failure in page
    mended = make_study(arms=[{"name": "x"}, {"name": "y"}], seeds=[0])
    assert run_and_list(mended, root, tmp_path) == ["x-0"]
    assert {row["status"] for row in rows(tmp_path)} == {"done"}


def test_data_sets_are_compared_each_by_itself(root: Path, tmp_path: Path) -> None:
    write_dataset(root / "b", 10, SceneSpec(width=64, height=64), seed=100)
    study = make_study(seeds=[0])
    study.set["data.sets"] = [{"folder": "a", "split": "train"}, {"folder": "b", "split": "train"}]
    results = run(study, root, tmp_path)
    assert not any(each.failure for each in results)
    page = write_report(study, tmp_path / "out").read_text()
    (line,) = re.findall(r"\| IoU a \| IoU b \|\n.*\n\| x - y \| (.*?) \[", page)
    x, y = (result.sets["a"].report["iou"] for result in results)
    assert float(line) == pytest.approx(100 * (x - y), abs=0.051)
    alone = make_study(seeds=[0], compare=[])
    alone.set["data.sets"] = study.set["data.sets"]
    (tmp_path / "out" / "s-differences.png").unlink()
    page = write_report(alone, tmp_path / "out").read_text()
    assert "each data set by itself" not in page
    assert "differen" not in page.lower()
    assert not (tmp_path / "out" / "s-differences.png").exists()
    for name in ("s-curves.png", "s-roc.png"):  # all arms in one panel
        with Image.open(tmp_path / "out" / name) as picture:
            colors = {c for _, c in picture.convert("RGB").getcolors(1 << 20) or []}
        assert any(red > 2 * blue for red, _, blue in colors)
        assert any(blue > 2 * red for red, _, blue in colors)


@pytest.mark.usefixtures("made")
def test_results_of_other_settings_are_refused(root: Path, tmp_path: Path) -> None:
    changed = make_study(seeds=[0])
    changed.set["batch_size"] = 4
    with pytest.raises(RecipeError, match=r"holds x-0 of other settings.*x-0\.json"):
        run(changed, root, tmp_path)
    with pytest.raises(RecipeError, match="holds x-0 of other settings"):
        write_report(changed, tmp_path / "out")
    shutil.rmtree(tmp_path / "out")
    with pytest.raises(RecipeError, match=r"work/x-0 holds a run of other settings; delete it"):
        run(changed, root, tmp_path)


def test_a_damaged_result_is_named(root: Path, tmp_path: Path) -> None:
    (tmp_path / "out/runs").mkdir(parents=True)
    (tmp_path / "out/runs/x-0.json").write_text(json.dumps({"arm": "x"}))
    with pytest.raises(DataError, match=r"x-0\.json is damaged"):
        read_results(tmp_path / "out")


def test_a_report_without_results_says_so(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no results of study s yet"):
        write_report(make_study(), tmp_path)


def test_a_report_of_failures_alone_says_why(root: Path, tmp_path: Path) -> None:
    study = make_study(seeds=[0])
    study.set["init"] = "gone.safetensors"
    run(study, root, tmp_path)
    with pytest.raises(
        DataError, match=r"all \d runs .* failed, the first by: .*gone\.safetensors"
    ):
        write_report(study, tmp_path / "out")


def test_runs_made_at_a_time_are_those_made_one_after_the_other(
    root: Path, made_once: Path, tmp_path: Path
) -> None:
    study = make_study(seeds=[0])
    one = run(study, root, made_once)
    plan = plan_runs(study, root)
    started: list[str] = []
    several = run_jobs(
        plan,
        tmp_path / "out2",
        tmp_path / "work2",
        2,
        device="cpu",
        on_start=lambda run, number: started.append(f"{run.name} {number}"),
    )
    assert sorted(started) == ["x-0 1", "y-0 2"]
    for mine, theirs in zip(one, several, strict=True):
        assert (mine.arm, mine.seed, mine.digest) == (theirs.arm, theirs.seed, theirs.digest)
        assert mine.sets == theirs.sets


def test_a_signal_stops_all_jobs_and_costs_nothing(root: Path, tmp_path: Path) -> None:
    plan = plan_runs(make_study(seeds=[0]), root)
    with pytest.raises(TrainingInterruptedError):
        run_jobs(
            plan,
            tmp_path / "out",
            tmp_path / "work",
            2,
            on_start=lambda run, number: os.kill(os.getpid(), signal.SIGTERM),
        )
    assert not [result for result in read_results(tmp_path / "out") if result.failure]
    done = run_study(plan, tmp_path / "out", tmp_path / "work", progress=False)
    assert [f"{each.arm}-{each.seed}" for each in done] == [each.name for each in plan]
    assert not [result for result in done if result.failure]


def test_jobs_that_cannot_begin_say_why(root: Path, tmp_path: Path) -> None:
    plan = plan_runs(make_study(), tmp_path / "elsewhere")
    with pytest.raises(PinglowError, match=r"elsewhere.* is not a folder; name with --root"):
        run_jobs(plan, tmp_path / "out", tmp_path / "work", 1)
