"""The network's answer to frames: normalize, enlarge, run, bring back; large frames in tiles."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pinglow.backends.base import Backend
from pinglow.border import hide_border
from pinglow.errors import FrameError
from pinglow.inference.batches import memory_guard
from pinglow.inference.tiling import (
    MARGIN,
    SMALLEST_SIDE,
    TILE,
    choose_windows,
    cut_into_tiles,
    is_untiled,
    untiled_pixels,
)
from pinglow.preprocess import (
    InputRule,
    Normalization,
    Place,
    bring_back,
    measure_frame,
    normalize_frame,
    resample,
)
from pinglow.structures import FloatArray


def predict_probability(
    backend: Backend, frame: NDArray[Any], rule: InputRule, tile: int | None = TILE
) -> FloatArray:
    """Normalize, enlarge by the rule, run the network, bring back to the frame's size.

    A frame that is larger, at the network's input, than four tiles' area is computed in tiles, so
    that memory does not grow with it. Normalization, scale and channel attention belong to the
    frame, so that tiles join without seams and find the same. The attention is the frame's own up
    to four megapixels, beyond that the mean of four windows' (docs/decisions/tiling.md).

    Args:
        backend: Maps images to probabilities.
        frame: (H, W) counts, any number type.
        rule: How much to enlarge.
        tile: Side of a tile at the network's input, pixels; None: never in tiles.

    Returns:
        (H, W) float32 in [0, 1].

    Raises:
        FrameError: See `as_frame`; or the frame does not fit into memory.
    """
    return predict_probabilities(backend, [frame], rule, tile)[0]


def predict_probabilities(
    backend: Backend, frames: Sequence[NDArray[Any]], rule: InputRule, tile: int | None = TILE
) -> list[FloatArray]:
    """`predict_probability` of each frame; those of one size together, as `batch_pixels` allows.

    Raises:
        FrameError: See `as_frame`; or a frame does not fit into memory, or those that were
            computed together do not.
    """
    looks: dict[tuple[int, ...], list[_Look]] = {}
    for place, frame in enumerate(frames):
        shown = hide_border(as_frame(frame))
        for normalize in measure_frame(shown):
            looks.setdefault(shown.shape, []).append(_Look(place, shown, normalize))
    found: dict[int, FloatArray] = {}
    for alike in looks.values():
        height, width = input_size(alike[0].frame, rule)
        at_once = _is_untiled(height, width, tile)
        count = max(1, batch_pixels(backend, tile) // (height * width)) if at_once else 1
        for start in range(0, len(alike), count):
            batch = alike[start : start + count]
            with memory_guard(batch[0].frame):
                if at_once:
                    maps = _at_once(backend, batch, rule)
                else:
                    maps = iter([_in_parts(backend, batch[0], rule, tile)])
                for look, probability in zip(batch, maps, strict=True):
                    before = found.get(look.place)
                    found[look.place] = (
                        probability if before is None else np.maximum(before, probability)
                    )
    return [found[place] for place in range(len(frames))]


class _Look(NamedTuple):
    """A frame as the network is to see it; one of several temperatures has two looks."""

    place: int
    frame: NDArray[Any]
    normalize: Normalization


def batch_pixels(backend: Backend, tile: int | None) -> int:
    """Pixels at the network's input up to which frames are computed together.

    On a card as many as the largest frame has that is computed at once, so that a batch takes no
    more memory than such a frame: 16 images of 512 x 512. On a CPU each frame goes alone: of 8
    images of 512 x 512 one takes 1.17 of what it takes alone in PyTorch, 0.91 in ONNX Runtime and
    0.96 in OpenVINO (python benchmarks/batches.py), for all of which the first would wait.
    """
    return untiled_pixels(tile or TILE) if backend.device.type == "cuda" else 1


def as_frame(frame: ArrayLike) -> NDArray[Any]:
    """An (H, W) array of counts; those that a masked array hides are NaN.

    Raises:
        FrameError: It is no array, not two-dimensional, has no pixels, no numbers or no finite
            ones.
    """
    hidden = np.ma.getmaskarray(frame) if isinstance(frame, np.ma.MaskedArray) else None
    try:
        frame = np.asarray(frame)
    except (TypeError, ValueError, RuntimeError) as error:  # numpy's, and torch's own
        raise FrameError(
            f"a {type(frame).__name__} cannot be used as a frame ({error}); pass one numpy array "
            "of shape (height, width)"
        ) from error
    if hidden is not None and hidden.any() and frame.dtype.kind in "buif":
        frame = np.where(hidden, np.float32(np.nan), frame)
    if frame.ndim != 2 or frame.size == 0 or frame.dtype.kind not in "buif":
        raise FrameError(
            f"a frame of shape {frame.shape} and type {frame.dtype} cannot be used; pass one "
            "(height, width) gray frame, as pinglow.read_frame returns it"
        )
    if frame.dtype.kind == "f" and not np.isfinite(frame).any():
        raise FrameError("a frame without a single finite pixel cannot be used; export it again")
    return frame


def checked(frame: ArrayLike) -> NDArray[Any] | FrameError:
    """`as_frame`, or why it is none."""
    try:
        return as_frame(frame)
    except FrameError as error:
        return error


def prepare_input(frame: NDArray[Any], rule: InputRule) -> FloatArray:
    """What the network sees of a frame (H, W): (1, 1, H', W') float32, sides at least 32."""
    return resample(_continue(normalize_frame(frame))[None, None], input_size(frame, rule))


def _continue(image: FloatArray) -> FloatArray:
    """(H, W), a tiny image continued by reflection."""
    padding = [(0, max(0, SMALLEST_SIDE - side)) for side in image.shape]
    return np.pad(image, padding, mode="symmetric")


def input_size(frame: NDArray[Any], rule: InputRule) -> tuple[int, int]:
    """Height and width of a frame at the network's input."""
    scale = rule.scale(*frame.shape)
    height, width = (round(max(SMALLEST_SIDE, side) * scale) for side in frame.shape)
    return height, width


def _is_untiled(height: int, width: int, tile: int | None) -> bool:
    """Whether a network input is computed at once, by its own channel attention."""
    return is_untiled(height, width, tile) and len(choose_windows(height, width, TILE)) == 1


def _at_once(backend: Backend, looks: Sequence[_Look], rule: InputRule) -> Iterator[FloatArray]:
    """Probabilities of looks at frames of one size."""
    images = np.stack([_continue(look.normalize(look.frame)) for look in looks])[:, None]
    frame = looks[0].frame
    height, width = frame.shape
    for found in backend(images, size=input_size(frame, rule)):  # of (N, 1, H, W)
        # A copy: who keeps one of the frames need not keep them all.
        yield found[0, :height, :width].copy()


def _in_parts(backend: Backend, look: _Look, rule: InputRule, tile: int | None) -> FloatArray:
    """Probability of a frame by windows and tiles."""
    frame = look.frame
    height, width = input_size(frame, rule)
    part_of: Callable[[Place], FloatArray]  # of the network's input, (h, w)
    if (height, width) != frame.shape:
        image = _continue(look.normalize(frame))[None, None]
        part_of = resample(image, (height, width))[0, 0].__getitem__
    else:  # a large frame: its parts one by one
        part_of = partial(look.normalize, frame)

    probability = _run(backend, part_of, height, width, tile)[None, None]
    rows, columns = (max(SMALLEST_SIDE, side) for side in frame.shape)
    back = bring_back(probability, (rows, columns))[0, 0]
    return np.ascontiguousarray(back[: frame.shape[0], : frame.shape[1]])


def _run(
    backend: Backend,
    part_of: Callable[[Place], FloatArray],
    height: int,
    width: int,
    tile: int | None,
) -> FloatArray:
    """Probabilities (height, width) of a network input that is given in parts."""
    windows = choose_windows(height, width, TILE)
    seen = [backend.gates(part_of(window)[None, None]) for window in windows]
    gates = np.concatenate(seen).mean(axis=0, keepdims=True)
    if tile is None or is_untiled(height, width, tile):
        whole = slice(0, height), slice(0, width)
        return np.asarray(backend(part_of(whole)[None, None], gates)[0, 0])
    probability = np.empty((height, width), dtype=np.float32)
    for part in cut_into_tiles(height, width, tile, MARGIN):
        found = backend(part_of((part.rows, part.columns))[None, None], gates)[0, 0]
        probability[part.core_rows, part.core_columns] = found[part.core]
    return probability
