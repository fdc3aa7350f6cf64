"""What evaluate and compare share: their options, and going through the frames of a list."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Generic, TypeAlias, TypeVar, cast

import typer

from pinglow.cli.output_file import echo
from pinglow.errors import DataError, FrameError, OptionError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pinglow.data.boxes import BoxFolder  # noqa: F401
    from pinglow.data.folder import FrameFolder
    from pinglow.evaluation.pixels import ScoredFrame
    from pinglow.evaluation.saved import SavedMaps
    from pinglow.inference.boxes import BoxPredictor
    from pinglow.inference.predictor import Predictor
    from pinglow.io.labels.boxes import BoxArray
    from pinglow.metrics import BoxReport, Protocol, Report
    from pinglow.structures import BoolArray

    AnyPredictor: TypeAlias = Predictor | BoxPredictor

_Truth = TypeVar("_Truth")  # a mask, or boxes
_Folder = TypeVar("_Folder", bound="FrameFolder")

Split = Annotated[
    str, typer.Option(help="List to score: its name in the folder, or the path of a .txt file.")
]
Flips = Annotated[
    bool, typer.Option("--flips", help="Score the mean over mirror images, as in predict.")
]
Large = Annotated[bool, typer.Option("--large", help="Look at reduced scale, too, as in predict.")]
Scale = Annotated[
    str | None,
    typer.Option(
        metavar="NUMBER|logits",
        help="The value that stands for probability 1 in saved maps.",
        show_default="255 for 8 bits, 65535 for 16 bits, 1 for floats",
    ),
]
Resize = Annotated[
    str | None,
    typer.Option(
        metavar="HOW",
        help="How saved maps of another size are brought to that of the frames: nearest or "
        "bilinear.",
        show_default="they are left out",
    ),
]
Score = Annotated[
    str | None,
    typer.Option(
        help="pixels or boxes.",
        show_default="pixels; boxes for a detector, for data without masks/ and with --boxes",
    ),
]
Boxes = Annotated[
    str | None,
    typer.Option(
        help="Where the true boxes are: masks, voc, yolo or coco.",
        show_default="the first that the folder has",
    ),
]


def choose_protocols(names: list[str] | None) -> list[Protocol]:
    """The protocols of ``--protocol``, each once.

    Raises:
        OptionError: One is unknown.
    """
    from pinglow.metrics import PROTOCOLS

    for name in names or []:
        if name not in PROTOCOLS:
            raise OptionError(f"--protocol {name!r} is unknown: choose from {', '.join(PROTOCOLS)}")
    return [PROTOCOLS[name] for name in dict.fromkeys(names or ["strict"])]


def choose_reading(scale: str | None, resize: str | None) -> dict[str, Any]:
    """How saved maps are read, by ``--scale`` and ``--resize``.

    Raises:
        OptionError: The scale is neither a number above 0 nor "logits", or the way is unknown.
    """
    if resize not in (None, "nearest", "bilinear"):
        raise OptionError(f"--resize {resize!r} is unknown: choose nearest or bilinear")
    if scale in (None, "logits"):
        return {"scale": scale, "resize": resize}
    try:
        number = float(scale or 0)
    except ValueError:
        number = 0.0
    if not 0 < number < float("inf"):
        raise OptionError(f"--scale {scale!r} is unknown: give logits, or the value that means 1")
    return {"scale": number, "resize": resize}


class FrameTask(Generic[_Folder]):
    """The frames of a list, each with its truth, for one model after the other.

    Attributes:
        frames: The list.
        broken: Why frames were left out, each reason once.
        truth: What a table says of the truth.
    """

    truth = ""

    def __init__(self, frames: _Folder) -> None:
        self.frames = frames
        self.broken: dict[str, None] = {}

    def leave_out(self, reason: str) -> None:
        """Keep why a frame has no scores."""
        self.broken[reason] = None

    def pairs(
        self, read: Callable[[int], tuple[NDArray[Any], _Truth]]
    ) -> Iterator[tuple[str, NDArray[Any], _Truth]]:
        """Go through the list, with a bar on stderr if a person is looking at it."""
        from pinglow.cli.progress import frame_progress

        with frame_progress() as progress:
            for index in progress.track(range(len(self.frames)), total=len(self.frames)):
                try:
                    frame, truth = read(index)
                except (FrameError, DataError) as error:
                    self.leave_out(str(error))
                else:
                    yield self.frames.names[index], frame, truth


class PixelTask(FrameTask["FrameFolder"]):
    """The frames of a list with their masks, and the protocols and threshold to score by."""

    kind = "pixels"

    def __init__(self, data: Path, split: str, rules: list[Protocol], threshold: float) -> None:
        from pinglow.data.folder import FrameFolder

        super().__init__(FrameFolder(data, split))
        self.rules = rules
        self.threshold = threshold

    def read(self, index: int) -> tuple[NDArray[Any], BoolArray]:
        """Frame and mask."""
        return self.frames.pair(index)

    def threshold_of(self, method: AnyPredictor | SavedMaps) -> float:
        """Above which probability a pixel is predicted."""
        return self.threshold

    def open_saved(self, place: Path, reading: dict[str, Any]) -> SavedMaps:
        """Find saved maps, before anything is scored."""
        from pinglow.evaluation.saved import SavedMaps, check_protocols

        check_protocols(self.rules)
        return SavedMaps(place, self.frames.names, **reading)

    def score_each(self, method: AnyPredictor | SavedMaps) -> Iterator[ScoredFrame]:
        """The scores of each frame, of a model that finds pixels or of saved maps."""
        from pinglow.evaluation.pixels import score_model
        from pinglow.evaluation.saved import SavedMaps, score_saved

        pairs = self.pairs(self.frames.pair)
        if isinstance(method, SavedMaps):
            return score_saved(pairs, method, self.rules, self.threshold, self.leave_out)
        find = cast("Predictor", method).probabilities
        return score_model(pairs, find, self.rules, self.threshold, self.leave_out)

    def score(
        self,
        method: AnyPredictor | SavedMaps,
        watch: Callable[[Iterator[ScoredFrame]], Iterator[ScoredFrame]] | None = None,
    ) -> list[Report]:
        """A report by each protocol; ``watch`` sees the frames on their way into it."""
        from pinglow.evaluation.pixels import add_up

        scored = self.score_each(method)
        return add_up(scored if watch is None else watch(scored), self.rules, self.threshold)

    def collect(
        self, method: AnyPredictor | SavedMaps, digests: Mapping[str, str]
    ) -> dict[str, Any]:
        """What `PixelResults` keep of a model or of saved maps, by the first protocol."""
        from pinglow.evaluation.results_file import collect_results

        return collect_results(self.score_each(method), (self.rules[0], self.threshold), digests)


class BoxTask(FrameTask["BoxFolder"]):
    """The frames of a list with their boxes, and the protocols and threshold to score by."""

    kind = "boxes"

    def __init__(
        self, data: Path, split: str, source: str | None, how: tuple[list[Protocol], float | None]
    ) -> None:
        from pinglow.data.boxes import BoxFolder
        from pinglow.metrics.average_precision import need_average_precision

        folder = BoxFolder(data, split, source)
        need_average_precision()  # not after hours
        super().__init__(folder)
        self.rules, self.threshold = how
        self.truth = f", boxes from {self.frames.source}"

    def read(self, index: int) -> tuple[NDArray[Any], BoxArray]:
        """Frame and boxes."""
        return self.frames.boxed(index)

    def threshold_of(self, method: AnyPredictor | SavedMaps) -> float:
        """Above which score a box is a target: the model's own where none was given."""
        return (
            cast("AnyPredictor", method).card.threshold
            if self.threshold is None
            else self.threshold
        )

    def score(self, predictor: AnyPredictor) -> list[BoxReport]:
        """A report by each protocol."""
        from pinglow.evaluation.boxes import evaluate_boxes

        threshold = self.threshold_of(predictor)
        pairs, find = self.pairs(self.frames.boxed), self._find(predictor, threshold)
        return evaluate_boxes(pairs, find, self.rules, threshold, self.leave_out)

    def collect(
        self, method: AnyPredictor | SavedMaps, digests: Mapping[str, str]
    ) -> dict[str, Any]:
        """What `BoxResults` keep of a model."""
        from pinglow.evaluation.boxes import find_boxes
        from pinglow.evaluation.results_file import collect_box_results

        find = self._find(cast("AnyPredictor", method), self.threshold_of(method))
        found = find_boxes(self.pairs(self.frames.boxed), find, self.leave_out)
        return {"source": self.frames.source, **collect_box_results(found, digests)}

    def _find(self, predictor: AnyPredictor, threshold: float) -> Callable[..., Any]:
        from pinglow.evaluation.boxes import target_boxes
        from pinglow.inference.predictor import Predictor

        if isinstance(predictor, Predictor):
            return partial(target_boxes, predictor, threshold)
        return predictor.candidates


def choose_score(
    wanted: str | None,
    kinds: set[str],
    data: Path,
    boxes: str | None,
) -> str:
    """What is scored, "pixels" or "boxes": ``--score``, or by the models, the data and options.

    Args:
        wanted: ``--score``.
        kinds: What the models find, and "saved" where maps are scored.
        data: ``--data``.
        boxes: ``--boxes``.

    Raises:
        OptionError: Options do not fit what is scored.
    """
    from pinglow.data.pack.cache import open_data

    if "saved" in kinds:
        if wanted == "boxes" or boxes is not None:
            raise OptionError("--score boxes and --boxes are for a model: saved maps are pixels")
        if "boxes" in kinds:
            raise OptionError("a detector and saved maps have no score in common: score one alone")
        return "pixels"
    if wanted is None:
        without_masks = open_data(data).is_dir() and not (open_data(data) / "masks").is_dir()
        by_boxes = boxes is not None or without_masks or "boxes" in kinds
        wanted = "boxes" if by_boxes else "pixels"
    if wanted == "pixels" and "boxes" in kinds:
        raise OptionError("--score pixels is not for a detector: it finds boxes, leave it out")
    if wanted == "pixels" and boxes is not None:
        raise OptionError("--boxes is for --score boxes: leave one of the two out")
    return wanted


@contextmanager
def told_broken(broken: Iterable[str], images: int, total: int) -> Iterator[None]:
    """Around what shows scores: say what they lack.

    Args:
        broken: Why each frame that could not be used was left out.
        images: Frames that were scored.
        total: Frames in the list.

    Raises:
        DataError: All frames were left out, so that there are no scores.
        typer.Exit: With code 2, after the scores, if some were.
    """
    broken = list(broken)
    for reason in broken:
        echo(f"warning: left out: {reason}", err=True)
    if not images:
        raise DataError(f"none of the {total} frames could be scored: see above why")
    yield
    if images < total:
        echo(f"warning: these are scores of {images} of the list's {total} frames", err=True)
    if broken:
        raise typer.Exit(2)
