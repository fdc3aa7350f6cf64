"""What every backend is: images in, probabilities out, whatever computes them and wherever."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import ClassVar, Final, Self

from pinglow.backends.device import Device
from pinglow.preprocess import bring_back, resample
from pinglow.structures import FloatArray

PRECISIONS: Final = ("float32", "tf32")
"""How a card multiplies: exactly, or in TensorFloat-32 (10 bits of mantissa), which is faster."""


class Backend(ABC):
    """Maps images to target probabilities.

    Another package adds one of its own by an entry point in the group ``pinglow.backends``.
    """

    name: ClassVar[str]
    """As options have it, and in errors."""

    suffixes: ClassVar[tuple[str, ...]]
    """Of the files that it loads. What loads .onnx runs weights, too, which are converted."""

    @classmethod
    @abstractmethod
    def why_not(cls, device: Device) -> str | None:
        """Why it cannot compute there, and what to do; None: it can."""

    @classmethod
    @abstractmethod
    def load(cls, model: Path | bytes, source: str, device: Device, precision: str) -> Self:
        """Load a model.

        Args:
            model: A file of one of the suffixes, or the content of an ONNX model.
            source: Names it in errors.
            device: Where to compute.
            precision: One of `PRECISIONS`; for a card.

        Raises:
            ModelError: It is not a model that the installed runtime understands.
            MissingExtraError: The runtime is not installed, or not for this device.
        """

    @property
    @abstractmethod
    def device(self) -> Device:
        """Where it computes."""

    @abstractmethod
    def run(self, images: FloatArray, gates: FloatArray | None) -> FloatArray:
        """(N, 1, H, W) to probabilities of the same shape; see `__call__`."""

    @abstractmethod
    def gates(self, images: FloatArray) -> FloatArray:
        """The channel attention of images (N, 1, H, W): (N, G) in [0, 1]."""

    def make_repeatable(self) -> None:  # noqa: B027 - most backends have nothing to do
        """Answer equal images equally to the last bit from now on, whatever came before them.

        For results that several processes make; it costs time where frames are of many sizes.
        """

    def release_memory(self) -> None:  # noqa: B027 - some backends keep none
        """Give back what is kept for the next image; a large one leaves hundreds of megabytes."""

    def metadata(self, key: str) -> str | None:
        """What the model's file has under a key of its metadata."""
        return None

    def __call__(
        self,
        images: FloatArray,
        gates: FloatArray | None = None,
        size: tuple[int, int] | None = None,
    ) -> FloatArray:
        """Probabilities of images: (N, 1, H, W) float32 to the same shape.

        Args:
            images: H and W at least 32, unless they are enlarged.
            gates: (1, G), fix the channel attention; None: the images' own.
            size: Height and width that images are enlarged to for the network. None: as they are.
        """
        large = images if size is None else resample(images, size)
        height, width = images.shape[-2:]
        return bring_back(self.run(large, gates), (height, width))
