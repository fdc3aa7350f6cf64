"""Methods compared on the same frames: their scores, and differences with paired intervals.

The bootstrap draws the same frames for all methods, so a difference is taken frame by frame: what
makes a frame hard for all of them cancels. It says nothing of another training of the same method.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from pinglow.errors import DataError
from pinglow.evaluation.map_files import shorten
from pinglow.evaluation.results import Results
from pinglow.metrics import BoxReport, Report
from pinglow.metrics.report import FloatArray, percentile_interval
from pinglow.metrics.scores import SCORES

_logger = logging.getLogger("pinglow")

_FEWEST: Final = 5  # frames, from which on a bootstrap says anything at all


@dataclass(frozen=True)
class Difference:
    """How much more of a score a method has than the one it is compared with.

    Attributes:
        value: The difference, a fraction.
        interval: Paired bootstrap 95 % interval over frames.
        verdict: "better", "worse", "no difference shown" where the interval holds 0, or "too few
            frames".
    """

    value: float
    interval: tuple[float, float]
    verdict: str


@dataclass(frozen=True)
class Row:
    """A method in a comparison.

    Attributes:
        results: Its results.
        report: Its scores on the frames that all methods have.
        differences: To the first method, by score; empty for the first one, and without scores
            that are undefined.
    """

    results: Results
    report: Report | BoxReport
    differences: dict[str, Difference]

    @property
    def name(self) -> str:
        """What tables call it."""
        return self.results.method


@dataclass(frozen=True)
class Comparison:
    """Methods on the same frames.

    Attributes:
        rows: The methods; differences are to the first.
        names: The frames that all have, in the first one's order.
        left_out: Those that one lacks, and which ones do.
    """

    rows: tuple[Row, ...]
    names: tuple[str, ...]
    left_out: dict[str, tuple[str, ...]]

    @property
    def first(self) -> Row:
        """What the others are compared with."""
        return self.rows[0]


def compare_results(methods: Sequence[Results]) -> Comparison:
    """Compare methods by their results.

    Raises:
        DataError: There are fewer than two, two of one name, or they are of other lists, frames or
            protocols; or no frame has scores of all.
    """
    check_comparable(methods)
    names = tuple(name for name in methods[0].frames if all(name in m.frames for m in methods))
    if not names:
        raise DataError("no frame could be scored for all methods: see the reasons in each's file")
    # As many as the list has: a frame that cannot be read is in none.
    missing = sorted(methods[0].names - set(names))
    left_out = {n: tuple(m.method for m in methods if n not in m.frames) for n in missing}
    first = methods[0].report(names)
    rows = [Row(methods[0], first, {})]
    drawn = methods[0].resample(names)
    for each in methods[1:]:
        report, own = each.report(names), each.resample(names)
        differences = {}
        for key in each.compared:
            scores = np.array([getattr(first, key), getattr(report, key)], dtype=np.float64)
            found = judge(key, scores, np.column_stack([drawn[key], own[key]]), len(names))
            if found is not None:
                differences[key] = found
        rows.append(Row(each, report, differences))
    return Comparison(tuple(rows), names, left_out)


def check_comparable(methods: Sequence[Results]) -> None:
    """See whether results can stand in one table.

    Raises:
        DataError: See `compare_results`.
    """
    if len(methods) < 2:
        raise DataError("a comparison takes two methods at least: name another one")
    first = methods[0]
    if len({each.method for each in methods}) < len(methods):
        raise DataError(
            f"two methods have one name ({', '.join(each.method for each in methods)}): give "
            "names, as in mine=runs/a"
        )
    for each in methods[1:]:
        pair = f"{each.method} and {first.method} cannot be compared"
        if each.kind != first.kind:
            raise DataError(
                f"{pair}: of one {each.kind} were scored, of the other {first.kind}; score both "
                "with the same --score"
            )
        # Each detector has a threshold of its own; a probability means the same for all.
        if each.protocol != first.protocol or (
            each.kind == "pixels" and each.threshold != first.threshold
        ):
            raise DataError(
                f"{pair}: one was scored by {each.protocol} at threshold {each.threshold:g}, the "
                f"other by {first.protocol} at {first.threshold:g}; score both alike"
            )
        if alone := sorted(each.names ^ first.names):
            raise DataError(
                f"{pair}: they were scored on different lists ({shorten(alone)} in only one); "
                "score both on one"
            )
        both = each.frames.keys() & first.frames.keys()
        changed = [n for n in sorted(both) if each.frames[n].digest != first.frames[n].digest]
        if changed:
            raise DataError(
                f"{pair}: frames or masks of one name differ ({shorten(changed)}); score both on "
                "the same data"
            )
    versions = sorted({each.pinglow for each in methods})
    if len(versions) > 1:
        _logger.warning(f"these results were made by several versions, {', '.join(versions)}")


def rank_frames(comparison: Comparison) -> list[str]:
    """The frames in which methods differ, those first in which they differ most.

    A miss and a false alarm weigh 1 each; where these are equal, the IoU decides.
    """
    spread = {}
    for name in comparison.names:
        errors = [row.results.count_errors(name) for row in comparison.rows]
        spread[name] = max(errors) - min(errors)
    return sorted((name for name in spread if spread[name] > 0), key=lambda n: -spread[n])


def judge(key: str, scores: FloatArray, draws: FloatArray, frames: int) -> Difference | None:
    """How much more of a score a second method has than a first one.

    Args:
        key: The score.
        scores: (2,) of the first and the second.
        draws: (R, 2) the same over draws of frames, which are the same for both.
        frames: How many there are.

    Returns:
        None where the score is undefined.
    """
    value = float(scores[1] - scores[0])
    interval = percentile_interval(draws[:, 1] - draws[:, 0])
    if np.isnan(value) or interval is None:
        return None
    low, high = interval
    if frames < _FEWEST:
        verdict = "too few frames"
    elif low <= 0 <= high:
        verdict = "no difference shown"
    else:
        verdict = "better" if low * SCORES[key].good > 0 else "worse"
    return Difference(value, interval, verdict)
