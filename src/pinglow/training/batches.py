"""The batches of a run, cut out of frames that all lie on the device that trains."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any, Final, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

from pinglow.data.augment import counter
from pinglow.data.augment.paste import Pasting, TargetPatch, lift_target
from pinglow.data.augment.views import FrameBank, cut_views, draw_views
from pinglow.preprocess import normalize_frame
from pinglow.structures import BoolArray, FloatArray, find_targets, label_targets
from pinglow.training.recipe import Phase, Recipe
from pinglow.training.splits import Cut

_logger = logging.getLogger("pinglow")

_MEMORY_SHARE: Final = 0.5  # of the free memory
_DEVICE_SHARE: Final = 0.6  # of the free memory of a card; the rest is for the network
_READERS: Final = 8  # threads that decode frames
_ALIKE: Final = 8  # views that a processor cuts at a time


class TrainingBatches:
    """The batches of a run: number n depends on the seed and n alone, whatever the device.

    (To the rounding of its sums, which no two devices do alike.) That is what makes a resumed run
    equal to an uninterrupted one. Of several processes each makes its own slice of a batch.

    Args:
        recipe: Phases, augmentation, seed.
        bank: The frames.
        rank: Which of the processes this is, from 0.
        world: How many there are; divides every batch size.
    """

    def __init__(self, recipe: Recipe, bank: FrameBank, rank: int = 0, world: int = 1) -> None:
        self.recipe = recipe
        self.bank = bank
        self._rank, self._world = rank, world
        self._seed = torch.tensor(recipe.seed, device=self.device)
        # A processor loses where the sizes of windows differ, so it takes a few alike at a time.
        self._at_once = self.device.type != "cpu"

    @property
    def device(self) -> torch.device:
        """Where the frames lie and batches are made."""
        return self.bank.frames.device

    def batch(self, number: int) -> tuple[Tensor, Tensor]:
        """Batch by its number: images and masks (batch, 1, crop, crop), of the step's phase."""
        at = torch.full((), number, device=self.device)  # a copy from the host would wait
        return self.make(at, self.recipe.phase_at(number))

    def make(self, number: Tensor, phase: Phase) -> tuple[Tensor, Tensor]:
        """The same from a number that lies on the device, a scalar int64."""
        count = phase.batch_size // self._world
        views = torch.arange(count, device=self.device) + self._rank * count
        keys = counter.mix(counter.mix(self._seed, number), views)
        settings = phase.augmentation
        drawn = draw_views(self.bank, settings, keys)
        if self._at_once:  # windows of one size for all, so that no number has to come back
            side = self.bank.largest_side(settings)
            return cut_views(self.bank, settings, drawn, side)
        order = drawn.side.argsort(stable=True)
        groups = [drawn.part(places) for places in torch.split(order, _ALIKE)]
        parts = [cut_views(self.bank, settings, each, int(each.side.max())) for each in groups]
        images, masks = zip(*parts, strict=True)
        back = order.argsort()
        return torch.cat(images)[back], torch.cat(masks)[back]


class _Frame(NamedTuple):
    """A normalized frame, its mask, a pixel of each target, and its targets lifted."""

    frame: FloatArray
    mask: BoolArray
    points: NDArray[np.int64]
    patches: list[TargetPatch]


def collect_frames(recipe: Recipe, cuts: Sequence[Cut]) -> FrameBank:
    """Read all training frames into a bank on the CPU.

    Where they take more than half of the free memory, they are kept in a temporary file.

    Raises:
        FrameError: An image is broken.
        DataError: A mask does not fit.
        OSError: The temporary file cannot be written.
    """
    items = [(cut, index) for cut in cuts for index in cut.training]
    room = _free_memory() * _MEMORY_SHARE
    frames, masks = _Store(np.float32, 0.8 * room), _Store(np.bool_, 0.2 * room)
    shapes, points, patches = [], [], []
    for each in _read_all(items, pasting=recipe.augmentation.paste > 0):
        frames.append(each.frame)
        masks.append(each.mask)
        shapes.append(each.frame.shape)
        points.append(each.points)
        patches.append(each.patches)
    augmentations = [recipe.augmentation_of(cut.dataset) for cut, _ in items]
    return FrameBank.build(
        frames.finish(),
        masks.finish(),
        shapes,
        points,
        scale=[recipe.input_rule.scale(*shape) for shape in shapes],
        scale_share=[each.scale_share for each in augmentations],
        rotate=[each.rotate for each in augmentations],
        weights=[cut.dataset.weight for cut, _ in items],
        pasting=Pasting.collect(patches),
    )


def place_frames(bank: FrameBank, device: torch.device) -> FrameBank:
    """Bring a bank to a device, if there is room for it; else it stays, and that is said."""
    if device.type != "cuda":
        return bank
    free, _ = torch.cuda.mem_get_info(device)
    if bank.size > _DEVICE_SHARE * free:
        _logger.warning(
            f"the training frames take {bank.size / 2**30:.1f} GiB and {device} has "
            f"{free / 2**30:.1f} GiB free: they stay in main memory, and the processor cuts the "
            "views, which is slower"
        )
        return bank
    return bank.to(device)


def _read_all(items: Sequence[tuple[Cut, int]], pasting: bool) -> Iterator[_Frame]:
    def read(item: tuple[Cut, int]) -> _Frame:
        cut, index = item
        counts, mask = cut.frames.pair(index)
        frame = normalize_frame(counts)
        lifted = [
            lift_target(frame, mask, each) for each in (find_targets(mask) if pasting else ())
        ]
        patches = [patch for patch in lifted if patch is not None]
        return _Frame(frame, mask, pixels_of_targets(mask), patches)

    with ThreadPoolExecutor(min(_READERS, os.cpu_count() or 1)) as pool:
        ends = [*range(0, len(items), 4 * _READERS), len(items)]
        for begin, end in pairwise(ends):  # a few at a time: results wait in memory
            yield from pool.map(read, items[begin:end])


class _Store:
    """Arrays of one type, one after the other: in memory, or from ``room`` bytes on in a file."""

    def __init__(self, kind: type[np.generic], room: float) -> None:
        self._kind, self._room = kind, room
        self._parts: list[NDArray[Any]] = []
        self._file: Any = None
        self._length = 0

    def append(self, values: NDArray[Any]) -> None:
        flat = np.ascontiguousarray(values, dtype=self._kind).ravel()
        self._length += len(flat)
        self._parts.append(flat)
        if self._file is None and self._length * flat.itemsize > self._room:
            self._file = NamedTemporaryFile(prefix="pinglow-frames-")  # noqa: SIM115
            _logger.warning(
                f"the training frames take much of the free memory: they are kept in "
                f"{Path(self._file.name).parent} while the run lasts"
            )
        if self._file is not None:
            for part in self._parts:
                self._file.write(part.data)
            self._parts.clear()

    def finish(self) -> Tensor:
        """All values, (n,). A file is deleted; what maps it keeps it alive."""
        kind = torch.from_numpy(np.zeros(0, dtype=self._kind)).dtype
        if self._file is not None:
            self._file.flush()
            values = torch.from_file(self._file.name, size=self._length, dtype=kind)
            self._file.close()
            return values
        values = torch.empty(self._length, dtype=kind)
        end = self._length
        while self._parts:
            part = self._parts.pop()  # its memory is free again once it is copied
            values[end - len(part) : end] = torch.from_numpy(part)
            end -= len(part)
        return values


def _free_memory() -> float:
    """Bytes that can be used without swapping; 1 GiB where the system does not say."""
    try:
        return float(os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    except (AttributeError, ValueError, OSError):
        return 2.0**30


def pixels_of_targets(mask: BoolArray) -> NDArray[np.int64]:
    """(n, 2): of each target its pixel (y, x) nearest to its centroid, which may lie beside it."""
    labels, count = label_targets(mask)
    points = np.empty((count, 2), dtype=np.int64)
    for number, place in enumerate(ndimage.find_objects(labels)):
        pixels = np.argwhere(labels[place] == number + 1)
        nearest = np.linalg.norm(pixels - pixels.mean(axis=0), axis=1).argmin()
        points[number] = pixels[nearest] + (place[0].start, place[1].start)
    return points
