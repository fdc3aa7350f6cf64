"""Run a study: every run that is not done yet, one after the other, resumable at any point.

Several processes may work on one study: each makes the next run that no other is making.
"""

from __future__ import annotations

import gc
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryFile
from typing import Final

from pinglow.data.pack.cache import open_data
from pinglow.errors import DataError, ModelError, PinglowError, RecipeError
from pinglow.files import claim, remove_parts, write_whole
from pinglow.study.grid import PlannedRun, digest_recipe
from pinglow.study.results import (
    RunResult,
    SetResult,
    read_results,
    result_path,
    write_result,
    write_table,
)
from pinglow.training.checkpoint import load_checkpoint
from pinglow.training.curves import read_rows
from pinglow.training.fit import Machine, train
from pinglow.training.recipe import LossTerm
from pinglow.training.recipe_file import load_recipe
from pinglow.training.run import CHECKPOINT, TrainingInterruptedError
from pinglow.training.task import TrainingTask

_LONGEST_REASON: Final = 300


def run_study(
    plan: list[PlannedRun],
    folder: Path,
    work: Path,
    *,
    retry_failed: bool = False,
    on_start: Callable[[PlannedRun, int], None] = lambda run, number: None,
    on_end: Callable[[list[RunResult]], None] = lambda results: None,
    progress: bool = True,
    device: str = "auto",
) -> list[RunResult]:
    """Make every run of the plan that has no result yet.

    A run that fails becomes a result with its reason, and the others go on; what the machine is to
    blame for, such as a full disk, stops the study. A run that another process is making is passed
    over.

    Args:
        plan: In the order in which they are made.
        folder: Where results go; those already there are kept.
        work: Run folders, with checkpoints; one that was interrupted is gone on with.
        retry_failed: Make failed runs again.
        on_start: Called with a run and its number in the plan, from 1.
        on_end: Called with all results so far, in the plan's order, after each run.
        progress: Show each run's progress bar.
        device: See `pinglow.backends.device.choose_device`.

    Returns:
        All results, in the plan's order.

    Raises:
        RecipeError: A result or a run folder is of other settings than the plan's run of that name.
        DataError: A result is damaged, or a data folder is missing.
        OSError: Something cannot be written.
        TrainingInterruptedError: A signal asked to stop; everything is saved.
    """
    to_retry = [each for each in match_results(plan, folder).values() if each.failure]

    def find_done() -> dict[str, RunResult]:  # read anew: other processes add to it
        results = match_results(plan, folder)
        if retry_failed:
            results = {name: each for name, each in results.items() if each not in to_retry}
        return results

    def tell() -> list[RunResult]:
        done = find_done()
        results = [done[run.name] for run in plan if run.name in done]
        if results:
            write_table(folder, results)
        return results

    tell()
    (folder / "runs").mkdir(parents=True, exist_ok=True)
    with TemporaryFile(dir=folder / "runs"):  # what cannot be written shows before the first run
        pass
    remove_parts(folder)
    left = [run for run in plan if run.name not in find_done()]
    _check_folders(left)
    for run in left:
        with claim(work / f".{run.name}.lock") as ours:
            if not ours or run.name in find_done():
                continue
            on_start(run, plan.index(run) + 1)
            kept = {f"{each.arm}-{each.seed}": each for each in read_results(folder)}
            if run.name in kept:  # it has failed: anew, not from the checkpoint that led there
                shutil.rmtree(work / run.name, ignore_errors=True)
                result_path(folder, run.name).unlink(missing_ok=True)
            result, stop_signal = _make_run(run, work / run.name, progress, device)
            gc.collect()  # a trainer and its frames hold each other: gigabytes, run after run
            write_result(folder, result)
            on_end(tell())
        if stop_signal is not None:
            raise TrainingInterruptedError("stopped between two runs", stop_signal)
    return tell()


def match_results(plan: list[PlannedRun], folder: Path) -> dict[str, RunResult]:
    """Results in a study's folder by the names of planned runs; those of no planned run are left.

    Raises:
        RecipeError: A result with scores is of other settings than the plan's run of that name.
        DataError: A result is damaged.
    """
    planned = {run.name: run for run in plan}
    matched = {}
    for result in read_results(folder):
        run = planned.get(f"{result.arm}-{result.seed}")
        if run is None:
            continue  # of an arm that was taken out of the study
        if result.digest != run.digest:
            if result.failure:
                continue  # mended since: nothing to lose
            raise RecipeError(
                f"{folder} holds {run.name} of other settings; give the study another name, or to "
                f"make that run again delete {folder / 'runs' / run.name}.json and its run folder"
            )
        matched[run.name] = result
    return matched


def _check_folders(runs: list[PlannedRun]) -> None:
    for run in runs:
        for dataset in run.recipe.data.sets:
            path = run.recipe.data.place(dataset)
            if not open_data(path).is_dir():
                raise DataError(
                    f"arm {run.arm.name}: {path} is not a folder; name with --root where the data "
                    "folders lie"
                )


def _make_run(
    run: PlannedRun, work: Path, progress: bool, device: str
) -> tuple[RunResult, int | None]:
    """A run's result, or why there is none; and the signal that came in its last validation."""
    begin = time.monotonic()
    resume = _can_resume(run, work)
    try:
        if work.exists() and not resume:
            shutil.rmtree(work)
        task = train(
            run.recipe,
            work,
            resume=resume,
            command="pinglow study",
            progress=progress,
            machine=Machine(device),
        )
        return _read_run(run, work, task), task.stop_signal
    except (TrainingInterruptedError, OSError):
        raise
    except Exception as error:  # whatever it is, the other runs can still be made
        reason = " ".join(str(error).split())[:_LONGEST_REASON]
        kind = "" if isinstance(error, PinglowError) else f"{type(error).__name__}: "
        minutes = (time.monotonic() - begin) / 60
        return _describe(run, failure=kind + reason or repr(error), minutes=minutes), None


def _can_resume(run: PlannedRun, work: Path) -> bool:
    """Whether a run folder has a checkpoint of this run with steps left.

    Raises:
        RecipeError: The folder is of a run with other settings.
    """
    stored = work / "recipe.toml"
    if not stored.is_file() or not (work / CHECKPOINT).is_file():
        return False
    try:
        recipe = load_recipe(stored)
    except RecipeError:
        recipe = None
    if recipe is None or digest_recipe(recipe) != run.digest:
        raise RecipeError(
            f"{work} holds a run of other settings; delete it, or name another --work"
        )
    try:
        steps = load_checkpoint(work / CHECKPOINT)["global_step"]
    except ModelError:
        return False
    if steps >= run.recipe.steps:  # done, but killed before its result was kept
        return False
    write_whole(stored, run.recipe.to_toml().encode())  # the data may lie elsewhere now
    return True


def _read_run(run: PlannedRun, work: Path, task: TrainingTask) -> RunResult:
    _, curve = read_rows(work / "metrics.csv")
    sets = {}
    for name, scorer in task.scorers.items():
        frames = (work / "splits" / f"{name}.validation.txt").read_text(encoding="utf-8")
        sets[name] = SetResult(
            frames=tuple(frames.splitlines()),
            counts=scorer.images,
            report=task.reports[name].to_dict(),
        )
    return _describe(
        run,
        minutes=float(curve[-1]["minutes"]),
        parameters=sum(each.numel() for each in task.network.parameters()),
        sets=sets,
        curve=tuple(curve),
    )


def _describe(run: PlannedRun, **fields: object) -> RunResult:
    recipe = run.recipe
    return RunResult.model_validate(
        {
            "arm": run.arm.name,
            "seed": run.seed,
            "loss": "+".join(_name_loss(term) for term in recipe.loss.terms),
            "attention": getattr(recipe.network, "attention", "-"),
            "convolution": getattr(recipe.network, "convolution", "-"),
            "steps": recipe.steps,
            "digest": run.digest,
            **fields,
        }
    )


def _name_loss(term: LossTerm) -> str:
    name = str(term.options.get("variant", "")) or term.name
    return f"{name}+location" if term.options.get("location") else name
