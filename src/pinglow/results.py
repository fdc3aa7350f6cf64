"""What a prediction can be turned into: tables, JSON, COCO, supervision, pictures, files.

Boxes cover pixels as COCO's and supervision's do: pixel i reaches from i to i + 1, so that a box
ends at ``left + width``. Only the centroid x, y is a pixel index: (0, 0) is the center of the
top-left pixel. No number is rounded.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Final, Literal

import numpy as np
from numpy.typing import NDArray

from pinglow.errors import MissingExtraError, OptionError
from pinglow.extras import how_to_install, import_extra, is_installed
from pinglow.files import write_whole
from pinglow.rle import encode_rle

if TYPE_CHECKING:
    from PIL.Image import Image

    from pinglow.structures import Target

TARGET_COLUMNS: Final[dict[str, type[np.generic]]] = {
    **{"x": np.float64, "y": np.float64},
    **{"left": np.int32, "top": np.int32, "width": np.int32, "height": np.int32},
    **{"area": np.int32, "score": np.float64},
}
"""The columns in which tables describe a target, and their types."""


def target_row(target: Target) -> tuple[float, ...]:
    """A target's values of `TARGET_COLUMNS`."""
    return (target.x, target.y, *target.bbox, target.area, target.score)


class TargetResults:
    """The conversions of what was found in one frame."""

    targets: tuple[Target, ...]

    def to_dict(self) -> dict[str, Any]:
        """All targets as plain values, with the keys of a line of ``predict --save jsonl``."""
        return {"targets": [target.to_dict() for target in self.targets]}

    def to_json(self) -> str:
        """`to_dict` as JSON."""
        return json.dumps(self.to_dict(), allow_nan=False)

    def to_dataframe(self, library: Literal["polars", "pandas"] | None = None) -> Any:
        """A row a target: x, y, left, top, width, height, area, score.

        Args:
            library: Whose data frame; None: the one that is installed, polars if both are.

        Raises:
            MissingExtraError: It is not installed, or neither is.
        """
        if library is None:
            if not (is_installed("polars") or is_installed("pandas")):
                raise MissingExtraError(
                    f"a data frame needs polars or pandas: {how_to_install('tables')}"
                )
            library = "polars" if is_installed("polars") else "pandas"
        return import_extra(library, "tables", "a data frame").DataFrame(self._columns())

    def to_coco(self, image_id: int, category_id: int = 1) -> list[dict[str, Any]]:
        """The targets in COCO's format of results, ready for JSON and pycocotools' ``loadRes``.

        Args:
            image_id: The frame's, as the file of the truth numbers it.
            category_id: What targets are there.

        Returns:
            ``{"image_id", "category_id", "bbox": [left, top, width, height], "score"}`` a target,
            where there are pixels with their "segmentation" as compressed run lengths.
        """
        return [
            {"image_id": image_id, "category_id": category_id, "bbox": box, "score": target.score}
            for target, box in zip(self.targets, self._boxes().tolist(), strict=True)
        ]

    def to_supervision(self) -> Any:
        """The targets as ``supervision.Detections`` of class 0, "target".

        Raises:
            MissingExtraError: supervision is not installed.
        """
        library = import_extra("supervision", "video", "to_supervision()")
        boxes = self._boxes()
        return library.Detections(
            xyxy=np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1),
            confidence=np.array([target.score for target in self.targets], np.float64),
            class_id=np.zeros(len(self.targets), np.int64),
            data={"class_name": np.array(["target"] * len(self.targets), dtype=np.str_)},
        )

    def plot(self, frame: NDArray[Any]) -> Image:
        """A picture of the frame with its targets marked, which a notebook shows.

        Args:
            frame: (H, W) counts, the frame that the targets are of.
        """
        from pinglow.output.overlay import draw_overlay

        return draw_overlay(frame, self.targets)

    def save(self, path: str | Path) -> None:
        """Write the targets to a file, whole or not at all; its suffix says how.

        .json: `to_dict`. .csv and .parquet: the columns of `to_dataframe`. A `Prediction` has also
        .png: the mask, 0 and 255; .npy, .tif and .tiff: the probability map, float32.

        Args:
            path: The file; folders that it lies in are made.

        Raises:
            OptionError: The suffix is none of these.
            MissingExtraError: .parquet, and pyarrow is not installed.
            OSError: The file cannot be written.
        """
        path = Path(path)
        if path.suffix.lower() not in self._writers:
            raise OptionError(
                f"{path} has a suffix that says nothing of the format: use one of "
                f"{', '.join(self._writers)}"
            )
        write_whole(path, self._writers[path.suffix.lower()](self))

    def _boxes(self) -> NDArray[np.float64]:
        """(n, 4) left, top, width and height, not rounded."""
        boxes = [target.bbox for target in self.targets]
        return np.array(boxes, np.float64).reshape(-1, 4)

    def _columns(self) -> dict[str, NDArray[Any]]:
        rows = [target_row(target) for target in self.targets]
        return {
            name: np.array([row[place] for row in rows], kind)
            for place, (name, kind) in enumerate(TARGET_COLUMNS.items())
        }

    def _json(self) -> bytes:
        return f"{self.to_json()}\n".encode()

    def _csv(self) -> bytes:
        text = io.StringIO(newline="")
        rows = csv.writer(text, lineterminator="\n")
        rows.writerow(TARGET_COLUMNS)
        rows.writerows(map(target_row, self.targets))
        return text.getvalue().encode()

    def _parquet(self) -> bytes:
        table = import_extra("pyarrow", "tables", "writing Parquet").table(self._columns())
        content = io.BytesIO()
        import_extra("pyarrow.parquet", "tables", "writing Parquet").write_table(table, content)
        return content.getvalue()

    _writers: ClassVar[dict[str, Callable[[Any], bytes]]] = {
        ".json": _json,
        ".csv": _csv,
        ".parquet": _parquet,
    }


class PixelResults(TargetResults):
    """The conversions where there are pixels, too."""

    probability: NDArray[np.float32]
    mask: NDArray[np.bool_]

    def outline_of(self, target: Target) -> NDArray[np.bool_]:
        """The pixels of one target.

        Args:
            target: One of this prediction's.

        Returns:
            (height, width) bool of its bbox, without what other targets have there.

        Raises:
            OptionError: The target is not of this prediction.
        """
        from pinglow.structures import label_targets

        left, top, width, height = target.bbox
        labels, count = label_targets(self.mask[top : top + height, left : left + width])
        # Only one component can touch all four sides: two would cross.
        for number in range(1, count + 1):
            inside = np.asarray(labels == number)
            if inside.any(axis=1)[[0, -1]].all() and inside.any(axis=0)[[0, -1]].all():
                return inside
        raise OptionError(f"{target} is no target of this prediction: take one of its targets")

    def to_dict(self) -> dict[str, Any]:
        """The frame's width and height, and all targets as plain values.

        The keys are those of a line of ``predict --save jsonl``.
        """
        height, width = self.mask.shape
        return {"width": width, "height": height, **super().to_dict()}

    def to_coco(self, image_id: int, category_id: int = 1) -> list[dict[str, Any]]:
        """See `TargetResults.to_coco`."""
        shape = self.mask.shape[0], self.mask.shape[1]
        entries = super().to_coco(image_id, category_id)
        for entry, target in zip(entries, self.targets, strict=True):
            entry["segmentation"] = encode_rle(self.outline_of(target), target.bbox[:2], shape)
        return entries

    def to_supervision(self, masks: bool = True) -> Any:
        """The targets as ``supervision.Detections`` of class 0, "target".

        Args:
            masks: With the pixels of each as an (n, H, W) bool array, which takes H W bytes a
                target.

        Raises:
            MissingExtraError: supervision is not installed.
        """
        found = super().to_supervision()
        if masks:
            found.mask = np.zeros((len(self.targets), *self.mask.shape), np.bool_)
            for mask, target in zip(found.mask, self.targets, strict=True):
                left, top, width, height = target.bbox
                mask[top : top + height, left : left + width] = self.outline_of(target)
        return found

    def plot(self, frame: NDArray[Any] | None = None) -> Image:
        """A picture of the frame with its targets marked and outlined, which a notebook shows.

        Args:
            frame: (H, W) counts, the frame that this is the prediction of; None: the probability
                map is shown.

        Raises:
            OptionError: The frame has another size.
        """
        if frame is not None and frame.shape != self.mask.shape:
            raise OptionError(
                f"the frame is {_size(frame.shape)} pixels and its prediction "
                f"{_size(self.mask.shape)}: plot the frame that was predicted"
            )
        from pinglow.output.overlay import draw_overlay

        shown = self.probability if frame is None else frame
        return draw_overlay(shown, self.targets, mask=self.mask)

    def _repr_png_(self) -> bytes:
        """What a notebook shows of a prediction."""
        content = io.BytesIO()
        self.plot().save(content, "PNG")
        return content.getvalue()

    def _mask(self) -> bytes:
        from PIL import Image

        content = io.BytesIO()
        Image.fromarray(self.mask.astype(np.uint8) * 255).save(content, "PNG")
        return content.getvalue()

    def _array(self) -> bytes:
        content = io.BytesIO()
        np.save(content, self.probability)
        return content.getvalue()

    def _tiff(self) -> bytes:
        import tifffile

        content = io.BytesIO()
        tifffile.imwrite(content, self.probability, compression="deflate")
        return content.getvalue()

    _writers: ClassVar[dict[str, Callable[[Any], bytes]]] = {
        **{".png": _mask, ".npy": _array, ".tif": _tiff, ".tiff": _tiff},
        **TargetResults._writers,
    }


def _size(shape: Sequence[int]) -> str:
    return " x ".join(str(side) for side in reversed(shape))
