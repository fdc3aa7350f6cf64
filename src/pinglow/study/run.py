"""Run a study: every run that is not done yet, one after the other, resumable at any point."""

from __future__ import annotations

import csv
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from pinglow.errors import ModelError, PinglowError, RecipeError
from pinglow.study.grid import PlannedRun
from pinglow.study.results import RunResult, SetResult, read_results, write_result, write_table
from pinglow.training.checkpoint import SafeCheckpointIO
from pinglow.training.fit import train
from pinglow.training.recipe import load_recipe
from pinglow.training.run import TrainingInterruptedError
from pinglow.training.task import SegmentationTask

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
) -> list[RunResult]:
    """Make every run of the plan that has no result yet.

    A run that fails becomes a result with its reason, and the others go on.

    Args:
        plan: In the order in which they are made.
        folder: Where results go; those already there are kept.
        work: Run folders, with checkpoints; one that was interrupted is gone on with.
        retry_failed: Make failed runs again.
        on_start: Called with a run and its number in the plan, from 1.
        on_end: Called with all results so far, in the plan's order, after each run.
        progress: Show each run's progress bar.

    Returns:
        All results, in the plan's order.

    Raises:
        RecipeError: A result is of other settings than the plan's run of that name.
        DataError: A result is damaged.
        TrainingInterruptedError: A signal asked to stop; everything is saved.
    """
    planned = {run.name: run for run in plan}
    done: dict[str, RunResult] = {}
    for result in read_results(folder):
        run = planned.get(f"{result.arm}-{result.seed}")
        if run is None:
            continue  # of an arm that was taken out of the study
        if result.digest != run.digest:
            raise RecipeError(
                f"{folder} holds {run.name} of other settings; give the study another name, or "
                f"delete {folder / 'runs' / run.name}.json to make that run again"
            )
        if not (result.failure and retry_failed):
            done[run.name] = result

    def tell() -> list[RunResult]:
        results = [done[run.name] for run in plan if run.name in done]
        if results:
            write_table(folder, results)
        return results

    tell()
    for number, run in enumerate(plan, start=1):
        if run.name in done:
            continue
        on_start(run, number)
        begin = time.monotonic()
        try:
            result = _make_run(run, work / run.name, progress)
        except (TrainingInterruptedError, KeyboardInterrupt):
            raise
        except Exception as error:  # whatever it is, the other runs can still be made
            reason = " ".join(str(error).split())[:_LONGEST_REASON]
            kind = "" if isinstance(error, PinglowError) else f"{type(error).__name__}: "
            minutes = (time.monotonic() - begin) / 60
            result = _describe(run, failure=kind + reason or repr(error), minutes=minutes)
        write_result(folder, result)
        done[run.name] = result
        on_end(tell())
    return tell()


def _make_run(run: PlannedRun, work: Path, progress: bool) -> RunResult:
    """Train, from the last checkpoint if there is one that fits; score the last step."""
    resume = _can_resume(run, work)
    if work.exists() and not resume:
        shutil.rmtree(work)
    task = train(run.recipe, work, resume=resume, command="pinglow study", progress=progress)
    return _read_run(run, work, task)


def _can_resume(run: PlannedRun, work: Path) -> bool:
    """Whether a run folder is of this run, has been saved, and has steps left."""
    try:
        steps = SafeCheckpointIO().load_checkpoint(work / "last.ckpt")["global_step"]
        return load_recipe(work / "recipe.toml") == run.recipe and steps < run.recipe.steps
    except (OSError, ModelError, RecipeError):
        return False


def _read_run(run: PlannedRun, work: Path, task: SegmentationTask) -> RunResult:
    with (work / "metrics.csv").open(newline="", encoding="utf-8") as file:
        curve = list(csv.DictReader(file))
    sets = {}
    for name, scorer in task.scorers.items():
        frames = (work / "splits" / f"{name}.validation.txt").read_text(encoding="utf-8")
        sets[name] = SetResult(
            frames=tuple(frames.splitlines()),
            counts=tuple(tuple(each) for each in scorer.images),
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
    options = recipe.loss.options
    loss = str(options.get("variant", "")) or recipe.loss.name
    if options.get("location"):
        loss += "+location"
    return RunResult.model_validate(
        {
            "arm": run.arm.name,
            "seed": run.seed,
            "loss": loss,
            "attention": recipe.network.attention,
            "steps": recipe.steps,
            "digest": run.digest,
            **fields,
        }
    )
