"""A model's card as a page of Markdown: printed by the command, kept beside the weights."""

from __future__ import annotations

from typing import Any, Final

from pinglow.metrics.scores import SCORES
from pinglow.models.card import DIGESTS, ModelCard, OperatingPoint
from pinglow.models.score import ScoreCalibration

_SHOWN: Final = ("ap50", "ap", "iou", "niou", "pd", "fa", "false_alarms_per_image")
# They say nothing where there are no targets.
_OVERLAPS: Final = ("ap50", "ap", "iou", "niou", "pd")


def card_page(card: ModelCard, *, recipe: bool = True) -> str:
    """Write a card as Markdown.

    Args:
        card: The card; what it leaves out is shown as "-".
        recipe: End with the whole recipe.
    """
    rule = card.input_rule
    blocks = [
        f"# {card.name}",
        f"{card.parameters:,} parameters, threshold {card.threshold:.9g}, normalization "
        f"{card.normalization}. Frames are enlarged until their longer side has {rule.long_side} "
        f"pixels, at most {rule.max_scale:g} times. "
        + ("Some training frames were never turned. " if card.upright else "")
        + f"License of the weights: {card.license}.",
        "Network: " + _facts(card.network) + ".",
        "\n".join(_training_steps({"command": card.command, "training": card.training})),
        "## Data",
        _table(_all_data({"data": card.data, "training": card.training})),
    ]
    if card.precision != "float32":
        blocks.insert(2, f"Computes in {card.precision}; the scores are of the float32 weights.")
    if card.scores:
        protocols = sorted({str(row.get("protocol", "-")) for row in card.scores})
        heading = f"## Scores (protocol {', '.join(protocols)}"
        if any(row.get("ci95") for row in card.scores):
            heading += "; in brackets the 95 % bootstrap interval"
        if "boxes" in protocols:
            heading += "; Fa by the area of boxes"
        other = ("iou", "niou") if "boxes" in protocols else ("ap50", "ap")
        keys = [key for key in _SHOWN if key not in other]
        blocks += [f"{heading})", _table([_score_row(row, keys) for row in card.scores])]
    sizes = [row for row in card.scores if row.get("per_size") and row.get("targets")]
    if sizes:
        blocks += [
            "Per size of the true target: Pd in % (number of targets).",
            _table([_size_row(row) for row in sizes]),
        ]
    if card.calibration is not None:
        blocks.append(calibration_page(card.calibration).rstrip())
    if card.operating_point is not None:
        blocks += ["## Operating point", _operating_point(card.operating_point)]
    if recipe and card.recipe:
        blocks += ["## Recipe", f"```toml\n{card.recipe.strip()}\n```"]
    return "\n\n".join(blocks) + "\n"


def _operating_point(point: OperatingPoint) -> str:
    """At which score there are how many alarms, on what footage."""
    a = {"hour": "an hour", "frame": "a frame"}[point.unit]
    hours = "" if point.hours is None else f", {point.hours:.3g} hours"
    return (
        f"Above score {point.min_score:.6g}, which is the default, at most {point.wished:g} false "
        f"alarms {a} were wished. Footage without targets had {point.alarms}, {point.rate:.3g} "
        f"{a}; with {100 * point.confidence:g} % confidence the rate there is below "
        f"{point.bound:.3g}. It was of {point.clips:,} clips or stills, {point.frames:,} frames"
        f"{hours}: `{point.command or '-'}`."
    )


def calibration_page(found: ScoreCalibration) -> str:
    """What a score means, and which smallest score costs what, as Markdown."""
    levels = [
        {
            "min score": f"{row.min_score:.4f}" + " (default)" * (row.min_score == found.min_score),
            "detections": row.detections,
            "Pd, %": f"{100 * row.pd:.1f}",
            "false alarms a frame": f"{row.alarms_per_frame:.3f}",
            "a megapixel": f"{row.alarms_per_megapixel:.3f}",
        }
        for row in found.table
    ]
    bins = [
        {
            "mean score": f"{each.score:.3f}",
            "true, %": f"{100 * each.true:.1f}",
            "candidates": each.candidates,
        }
        for each in found.reliability
    ]
    blocks = [
        "## Sensitivity",
        "A score is the share of such detections that were true in the frames that it was "
        "calibrated on. What smallest scores come to in these frames:",
        _table(found.frames),
        _table(levels),
        f"Reliability; the expected calibration error is {100 * found.ece:.1f} %:",
        _table(bins),
    ]
    return "\n\n".join(blocks) + "\n"


def _all_data(part: dict[str, Any]) -> list[dict[str, Any]]:
    """What the last run was trained on, then what only runs before it were."""
    before = part["training"].get("started_from")
    lists = {(row.get("name"), row.get("split")) for row in part["data"]}
    earlier = _all_data(before) if before else []
    return [
        *part["data"],
        *(row for row in earlier if (row.get("name"), row.get("split")) not in lists),
    ]


def _training_steps(part: dict[str, Any]) -> list[str]:
    """One line per run, the first one first: runs that started from others are a chain."""
    training = dict(part["training"])
    before = training.pop("started_from", None)
    earlier = _training_steps(before) if before else ["Trained by, one run after the other:", ""]
    return [*earlier, f"- `{part['command'] or '-'}` ({_facts(training)})"]


def _facts(values: dict[str, Any]) -> str:
    return ", ".join(f"{key.replace('_', ' ')} {value}" for key, value in values.items())


def _score_row(row: dict[str, Any], keys: list[str]) -> dict[str, Any]:
    head = {key: row.get(key) for key in ("data", "list", "images", "targets")}
    head["list"] = row.get("list", row.get("split"))
    free = row.get("targets") == 0
    return head | {
        SCORES[key].heading: None if free and key in _OVERLAPS else _cell(row, key) for key in keys
    }


def _cell(row: dict[str, Any], key: str) -> str | None:
    if row.get(key) is None:
        return None
    score = SCORES[key]
    digits = score.digits - 1  # a page is for reading
    shown = score.show(row[key], digits)
    interval = (row.get("ci95") or {}).get(key)
    if interval is None:
        return shown
    low, high = (score.show(end, digits) for end in interval)
    return f"{shown} [{low}, {high}]"


def _size_row(row: dict[str, Any]) -> dict[str, Any]:
    return {"data": row.get("data"), "list": row.get("list")} | {
        f"{size['size']} px": f"{100 * size['pd']:.1f} ({size['targets']})"
        if size["targets"]
        else "- (0)"
        for size in row["per_size"]
    }


def _table(rows: list[dict[str, Any]]) -> str:
    columns = list(dict.fromkeys(c for row in rows for c in row if c != DIGESTS))
    lines = [columns, ["---"] * len(columns)]
    lines += [["-" if row.get(c) is None else str(row[c]) for c in columns] for row in rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
