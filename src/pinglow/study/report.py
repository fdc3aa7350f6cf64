"""A study's page: tables, differences with their intervals, curves and ROCs."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import cycle
from pathlib import Path
from typing import Any, Final

import numpy as np

from pinglow.errors import DataError
from pinglow.files import write_whole
from pinglow.metrics.scores import SCORES
from pinglow.study.contrast import Difference, contrast_arms
from pinglow.study.grid import PlannedRun, Study, plan_runs
from pinglow.study.results import FIGURES, RunResult
from pinglow.study.run import match_results
from pinglow.training.curves import save_figure

_NOTHING: Final = 1e-9  # rounding, where the arms are equal in every frame
_PANELS: Final = 3  # side by side
_COLORS: Final = ("#c05000", "#0060a0", *(f"C{n}" for n in range(2, 10)))


def write_report(study: Study, folder: Path) -> Path:
    """Write NAME.md and its pictures.

    Args:
        study: The study.
        folder: Holds its results; the page goes beside them.

    Raises:
        DataError: There are no results yet, or they do not fit together.
        RecipeError: An arm does not make a valid recipe, or a result is of other settings.
    """
    plan = plan_runs(study)
    results = list(match_results(plan, folder).values())
    done = [each for each in results if not each.failure]
    failed = [each for each in results if each.failure]
    if failed and not done:
        raise DataError(
            f"all {len(failed)} runs of study {study.name} so far have failed, the first by: "
            f"{failed[0].failure}; mend that and run it again"
        )
    if not done:
        raise DataError(f"{folder} has no results of study {study.name} yet; run it first")
    effects = _list_effects(study, done)
    by_set = _split_by_set(done)
    blocks = [
        f"# Study {study.name}",
        _introduce(study, plan, done, len(failed)),
        "## Arms",
        "Mean over seeds, ± their standard deviation; each figure is the mean over the data sets' "
        "validation frames, at the last step. IoU, nIoU and Pd in %, Fa in false pixels a million.",
        _table_arms(study, done, by_set),
        *(_compare_arms(study, effects, by_set) if effects else ()),
        "## Stability",
        "Over all steps of a run, before clipping: the mean of the gradient's norm and its largest "
        "value; over seeds: the standard deviations of the last training loss and of the IoU.",
        _table_stability(study, done),
        "## Curves",
        f"![IoU on the validation frames over the steps]({study.name}-curves.png)",
        f"![Pd over Fa]({study.name}-roc.png)",
    ]
    if failed:
        blocks += [
            "## Failed runs",
            "Arm, seed and reason; tables and differences leave that seed of the arm out.",
            "\n".join(f"- {e.arm}, {e.seed}: {e.failure}" for e in failed),
        ]
    if effects:
        _draw_differences(effects, folder / f"{study.name}-differences.png")
    run = {each.arm for each in done}
    panels: list[tuple[str, ...]]
    panels = [(e.first, e.second) for e in study.compare if {e.first, e.second} & run]
    panels = panels or [tuple(arm.name for arm in study.arms if arm.name in run)]
    _draw_curves(done, panels, folder / f"{study.name}-curves.png")
    _draw_rocs(done, panels, folder / f"{study.name}-roc.png")
    page = folder / f"{study.name}.md"
    write_whole(page, ("\n\n".join(blocks) + "\n").encode())
    return page


def _introduce(study: Study, plan: list[PlannedRun], done: list[RunResult], failed: int) -> str:
    sets = done[0].sets
    frames = ", ".join(f"{name} {len(each.frames)}" for name, each in sets.items())
    state = f"{len(done)} of {len(plan)} runs are done" + (f", {failed} failed" if failed else "")
    minutes = sum(each.minutes for each in done)
    first = plan[0]
    others = [run.arm.name for run in plan if run.batches != first.batches]
    same = "At one seed all arms see the same batches"
    if others:
        same += f", but for {', '.join(dict.fromkeys(others))}, which have their own"
    return (
        f"{state}, {minutes / 60:.1f} hours of training; {first.recipe.steps} steps, the recipe is "
        f"`{Path(study.recipe).stem}` with the changes of the study's file. Scored under the "
        f"protocol strict on validation frames that are the same for all runs ({frames}). {same}."
    )


# --- tables --------------------------------------------------------------------------------------


def _table_arms(study: Study, done: list[RunResult], by_set: dict[str, list[RunResult]]) -> str:
    head = ["arm", "", "seeds", *(SCORES[key].name for key in FIGURES)]
    rows = []
    for arm in study.arms:
        runs = [each for each in done if each.arm == arm.name]
        if runs:
            cells = [_spread([each.figure(key) for each in runs], key) for key in FIGURES]
            for alone in by_set.values():
                values = [each.figure("iou") for each in alone if each.arm == arm.name]
                cells.append(_spread(values, "iou"))
            rows.append([arm.name, arm.says, len(runs), *cells])
    return _table([*head, *(f"IoU {name}" for name in by_set)], rows)


def _split_by_set(done: list[RunResult]) -> dict[str, list[RunResult]]:
    """All runs as scored on each data set that has targets."""
    names = dict.fromkeys(
        name for run in done for name, each in run.sets.items() if each.report["targets"]
    )
    return {name: [run.on(name) for run in done] for name in names}


def _spread(values: Sequence[float], key: str) -> str:
    scaled = SCORES[key].factor * np.array(values)
    if np.isnan(scaled).any():
        return "-"
    if len(scaled) == 1:
        return f"{scaled[0]:.1f}"
    return f"{scaled.mean():.1f} ± {scaled.std(ddof=1):.1f}"


def _freedom(effects: list[_Effect]) -> str:
    freedom = max((each.freedom for _, _, d in effects for each in d.values()), default=0)
    return (
        f", and as all share one spread over seeds, of {freedom} degree{'s' * (freedom > 1)} of "
        "freedom, wrong ones "
        "come together"
        if freedom
        else ""
    )


_Effect = tuple[str, str, dict[str, Difference]]


def _list_effects(study: Study, done: list[RunResult]) -> list[_Effect]:
    """Name, question and differences of each comparison; no differences where none can be made."""
    effects = []
    for pair in study.compare:
        weights = {pair.first: 1.0, pair.second: -1.0}
        effects.append((f"{pair.first} - {pair.second}", pair.question, weights))
    for each in study.interact:
        weights = {each.both: 1.0, each.first: -1.0, each.second: -1.0, each.neither: 1.0}
        name = f"({each.both} - {each.second}) - ({each.first} - {each.neither})"
        effects.append((name, each.question, weights))
    return [(name, question, contrast_arms(done, w)) for name, question, w in effects]


def _table_effects(effects: list[_Effect]) -> str:
    head = ["", "question", "seeds", *(SCORES[key].name for key in FIGURES), "in IoU"]
    rows = []
    for name, question, differences in effects:
        cells = [_interval(differences[key], key) if key in differences else "-" for key in FIGURES]
        seeds = max((len(each.by_seed) for each in differences.values()), default=0)
        rows.append([name, question, seeds, *cells, _verdict(differences)])
    return _table(head, rows)


def _compare_arms(
    study: Study, effects: list[_Effect], by_set: dict[str, list[RunResult]]
) -> list[str]:
    return [
        "## Differences",
        "First arm less second, frame by frame, over the seeds that both have; in brackets the "
        "95 % interval: a bootstrap over frames, and over seeds the spread that all arms of the "
        "study have in common once each arm's and each seed's own effect is taken out (Student's "
        't). "No difference shown" means that it holds 0. Each interval stands for itself: of '
        f"twenty, one may miss by chance{_freedom(effects)}.",
        _table_effects(effects),
        *(_compare_sets(study, by_set) if len(by_set) > 1 else ()),
        f"![Differences in IoU with their intervals]({study.name}-differences.png)",
    ]


def _compare_sets(study: Study, by_set: dict[str, list[RunResult]]) -> list[str]:
    rows: dict[str, list[str]] = {}
    for runs in by_set.values():
        for name, _, differences in _list_effects(study, runs):
            difference = differences.get("iou")
            cell = "-" if difference is None else _interval(difference, "iou")
            rows.setdefault(name, []).append(cell)
    return [
        "The differences in IoU on each data set by itself, with intervals made in the same way:",
        _table(["", *(f"IoU {name}" for name in by_set)], [[n, *c] for n, c in rows.items()]),
    ]


def _interval(difference: Difference, key: str) -> str:
    factor = SCORES[key].factor
    low, high = (factor * end for end in difference.interval)
    return f"{factor * difference.value:+.1f} [{low:+.1f}, {high:+.1f}]"


def _verdict(differences: dict[str, Difference]) -> str:
    if not differences:
        return "no common seed yet"
    if "iou" not in differences:
        return "no targets to find"
    difference = differences["iou"]
    if max(map(abs, difference.interval)) < _NOTHING:  # most often no run has found a target
        return "equal in every frame: not judged"
    if not difference.freedom:
        return "too few runs: not judged"
    if not difference.shown:
        return "no difference shown"
    return "better" if difference.value > 0 else "worse"


def _table_stability(study: Study, done: list[RunResult]) -> str:
    rows = []
    for arm in study.arms:
        runs = [each for each in done if each.arm == arm.name]
        if not runs:
            continue
        # Before the first step there are none.
        trained = [row for each in runs for row in each.curve if row["gradient_norm"]]
        norms = [float(row["gradient_norm"]) for row in trained]
        peaks = [float(row["largest_gradient_norm"]) for row in trained]
        losses = [float(each.curve[-1]["train_loss"]) for each in runs]
        scores = [100 * each.figure("iou") for each in runs]
        spreads = [
            f"{np.std(values, ddof=1):.{digits}f}" if len(runs) > 1 else "-"
            for values, digits in ((losses, 4), (scores, 2))
        ]
        rows.append([arm.name, f"{np.mean(norms):.2f}", f"{max(peaks):.1f}", *spreads])
    return _table(
        ["arm", "gradient norm", "largest", "spread of the last loss", "spread of IoU"], rows
    )


def _table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    cells = ([str(cell).replace("|", "\\|") for cell in line] for line in lines)
    return "\n".join(f"| {' | '.join(line)} |" for line in cells)


# --- pictures ------------------------------------------------------------------------------------


def _draw_differences(effects: list[_Effect], path: Path) -> None:
    from matplotlib.figure import Figure

    effects = [effect for effect in effects if "iou" in effect[2]]
    figure = Figure(figsize=(8, 1 + 0.35 * max(1, len(effects))), layout="constrained")
    axes = figure.add_subplot()
    for place, (_, _, differences) in enumerate(effects):
        difference = differences["iou"]
        low, high = (100 * end for end in difference.interval)
        color = "#c05000" if difference.shown else "#808080"
        axes.plot([low, high], [place, place], color=color, linewidth=2)
        axes.plot(100 * difference.value, place, "o", color=color)
        axes.plot(
            [100 * value for value in difference.by_seed.values()],
            [place] * len(difference.by_seed),
            "|",
            color="black",
        )
    axes.axvline(0, color="black", linewidth=0.8)
    axes.set_yticks(range(len(effects)), [name for name, _, _ in effects])
    axes.set_ylim(max(1, len(effects)) - 0.5, -0.5)
    axes.set_xlabel("difference in IoU, points (line: 95 % interval, strokes: seeds)")
    save_figure(figure, path, 110)


def _draw_curves(done: list[RunResult], panels: Sequence[tuple[str, ...]], path: Path) -> None:
    figure, all_axes = _make_panels(len(panels))
    for axes, arms in zip(all_axes, panels, strict=False):
        for arm, color in zip(arms, cycle(_COLORS)):
            for number, run in enumerate(each for each in done if each.arm == arm):
                steps = [int(row["step"]) for row in run.curve]
                scores = [100 * float(row["val_score"]) for row in run.curve]
                axes.plot(steps, scores, color=color, label=None if number else arm)
        axes.set(xlabel="step", ylabel="validation IoU, %")
        if axes.lines:
            axes.legend(fontsize=8)
    save_figure(figure, path, 90)


def _draw_rocs(done: list[RunResult], panels: Sequence[tuple[str, ...]], path: Path) -> None:
    figure, all_axes = _make_panels(len(panels))
    for axes, arms in zip(all_axes, panels, strict=False):
        for arm, color in zip(arms, cycle(_COLORS)):
            rocs = [
                _points(each.report["roc"])
                for run in done
                if run.arm == arm
                for each in run.sets.values()
                if each.report["targets"]
            ]
            if rocs:
                # Versions of pinglow differ in their thresholds.
                shared = sorted(set(rocs[0]).intersection(*rocs[1:]))
                points = np.array([[roc[level] for level in shared] for roc in rocs])
                fa, pd = points.mean(axis=0).T
                axes.plot(1e6 * fa, 100 * pd, ".-", color=color, label=arm)
        axes.set(xlabel="Fa, 1e-6", ylabel="Pd, %", xscale="symlog")
        if axes.lines:
            axes.legend(fontsize=8)
    save_figure(figure, path, 90)


def _points(roc: dict[str, Any]) -> dict[float, tuple[float, float]]:
    """Fa and Pd by the threshold."""
    pairs = zip(roc["fa"], roc["pd"], strict=True)
    return dict(zip(roc["thresholds"], pairs, strict=True))


def _make_panels(number: int) -> tuple[Any, list[Any]]:
    from matplotlib.figure import Figure

    columns = min(number, _PANELS)
    rows = -(-number // columns)
    figure = Figure(figsize=(4 * columns, 2.8 * rows), layout="constrained")
    panels = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axes in panels[number:]:
        axes.set_axis_off()
    return figure, panels
