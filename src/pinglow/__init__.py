"""pinglow finds tiny, dim targets in infrared frames.

    >>> import pinglow
    >>> predictor = pinglow.Predictor.load("pinglow-fast")
    >>> prediction = predictor(pinglow.read_frame("frame.png"))
    >>> prediction.targets

Importing pinglow is cheap: each public name is loaded when it is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from pinglow._version import __version__

if TYPE_CHECKING:
    from pinglow import losses, nn
    from pinglow.errors import PinglowError
    from pinglow.inference.ignored import Ignored
    from pinglow.inference.predictor import Predictor
    from pinglow.inference.tracking import Tracker
    from pinglow.io.frames import read_frame
    from pinglow.io.source import open_source
    from pinglow.structures import Detections, Prediction, Target

__all__ = [
    "Detections",
    "Ignored",
    "PinglowError",
    "Prediction",
    "Predictor",
    "Target",
    "Tracker",
    "__version__",
    "losses",
    "nn",
    "open_source",
    "read_frame",
]

_HOMES = {
    "Detections": "pinglow.structures",
    "Ignored": "pinglow.inference.ignored",
    "PinglowError": "pinglow.errors",
    "Prediction": "pinglow.structures",
    "Predictor": "pinglow.inference.predictor",
    "Target": "pinglow.structures",
    "Tracker": "pinglow.inference.tracking",
    "open_source": "pinglow.io.source",
    "read_frame": "pinglow.io.frames",
}


def __getattr__(name: str) -> Any:
    """Load a public name on first use (PEP 562), so that importing pinglow loads no torch."""
    if name in ("losses", "nn"):
        return importlib.import_module(f"pinglow.{name}")
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'pinglow' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
