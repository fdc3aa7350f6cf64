"""pinglow study."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pinglow.cli.output_file import check_output_folder
from pinglow.cli.predict import Device
from pinglow.extras import need_torch

if TYPE_CHECKING:
    from pinglow.study.grid import PlannedRun
    from pinglow.study.results import RunResult


def study(
    words: Annotated[
        list[str],
        typer.Argument(
            metavar="[report] STUDY.toml",
            help="The study: make its runs; with the word report before it, write its report.",
        ),
    ],
    root: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Where the data folders lie.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Where results and report go (default: studies/NAME)."),
    ] = None,
    work: Annotated[
        Path, typer.Option(metavar="DIR", help="Where the run folders go, with checkpoints.")
    ] = Path("runs"),
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Make runs again that have failed.")
    ] = False,
    jobs: Annotated[
        int, typer.Option(min=1, metavar="N", help="Make N runs at a time, a process each.")
    ] = 1,
    device: Device = "auto",
) -> None:
    """Compare recipes over seeds: make all runs of a study, or report what they show.

    Runs that are done are skipped and one that was stopped is gone on with, so
    a study is started again by the same command. Results are in OUT/results.csv
    as each run ends. Small runs leave a GPU, and many cores, mostly idle: --jobs
    makes several at a time.

    Example: pinglow study my-study.toml --root data

    Example: pinglow study my-study.toml --root data --jobs 8

    Example: pinglow study report my-study.toml
    """
    from functools import partial

    from pinglow.console import Console

    need_torch("pinglow study")
    from pinglow.errors import OptionError
    from pinglow.study.grid import load_study, plan_runs
    from pinglow.study.jobs import run_jobs
    from pinglow.study.run import run_study
    from pinglow.training.run import TrainingInterruptedError

    if words == ["report"] or len(words) > 2 or (len(words) == 2 and words[0] != "report"):
        raise OptionError(
            f"{' '.join(words)!r} cannot be understood; give one STUDY.toml, or report STUDY.toml"
        )
    for option, place in (("--out", out), ("--work", work)):
        if place is not None:
            check_output_folder(option, place)
    plan_of = load_study(Path(words[-1]))
    folder = out or Path("studies") / plan_of.name
    console = Console(stderr=True, soft_wrap=True, markup=False, highlight=False)
    if len(words) == 2:
        from pinglow.study.report import write_report

        if root or retry_failed:
            raise OptionError("--root and --retry-failed are for making runs, not for the report")
        page = write_report(plan_of, folder)
        console.print(f"The report is {page}.")
        return
    plan = plan_runs(plan_of, root)

    def announce(run: PlannedRun, number: int) -> None:
        console.print(f"run {number} of {len(plan)}: arm {run.arm.name}, seed {run.seed}")

    try:
        make = run_study if jobs == 1 else partial(run_jobs, jobs=jobs)
        results = make(
            plan,
            folder,
            work / plan_of.name,
            retry_failed=retry_failed,
            device=device,
            on_start=announce,
            on_end=lambda results: console.print(_table(results, len(plan))),
        )
    except TrainingInterruptedError as stop:
        console.print("stopped, everything is saved; the same command goes on")
        raise typer.Exit(128 + stop.signal_number) from stop
    failed = [result for result in results if result.failure]
    for result in failed:
        console.print(f"warning: {result.arm}, seed {result.seed} failed: {result.failure}")
    done = len(results) - len(failed)
    next_step = f"; pinglow study report {words[-1]} says what they show" if done else ""
    console.print(f"{done} of {len(plan)} runs are done{next_step}.")
    if failed:
        console.print("--retry-failed makes the failed ones again.")
        raise typer.Exit(1)


def _table(results: list[RunResult], total: int) -> Any:
    from rich.table import Table

    from pinglow.metrics.scores import SCORES
    from pinglow.study.results import FIGURES

    table = Table(title=f"{len(results)} of {total} runs; means over the data sets")
    headings = [SCORES[key].heading for key in FIGURES]
    for column in ("arm", "seed", *headings, "minutes"):
        table.add_column(column, justify="left" if column == "arm" else "right")
    for result in results:
        if result.failure:
            figures = ["failed", "", "", ""]
        else:
            figures = [SCORES[key].show(result.figure(key)) for key in FIGURES]
        table.add_row(result.arm, str(result.seed), *figures, f"{result.minutes:.1f}")
    return table
