"""Optional packages: loaded where they are needed, with one sentence where they are missing."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from typing import Any

from pinglow.errors import MissingExtraError


def import_extra(package: str, extra: str, purpose: str) -> Any:
    """Import a package that may be missing; nothing that it brings tells anybody of its use.

    Args:
        package: Its import name.
        extra: The extra of pinglow that brings it; several with commas; "": none does, it belongs
            to the base.
        purpose: What needs it, as the start of a sentence.

    Raises:
        MissingExtraError: It is not installed, or does not load.
    """
    _silence_telemetry()
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise MissingExtraError(
            f"{purpose} needs {package}, which cannot be loaded ({error}): {how_to_install(extra)}"
        ) from error


def need_torch(command: str, extra: str = "train") -> None:
    """See that PyTorch is there for a command, before anything that imports it.

    Raises:
        MissingExtraError: It is not.
    """
    import_extra("torch", extra, command)


def how_to_install(extra: str) -> str:
    """The command that brings an extra, or with "" the base, from a checkout."""
    return f"pip install '.[{extra}]' in the checkout" if extra else "pip install . in the checkout"


def is_installed(package: str) -> bool:
    """Whether a package is there, without importing it."""
    try:
        return importlib.util.find_spec(package) is not None
    except ValueError:  # a None in sys.modules
        return False


def _silence_telemetry() -> None:
    """Keep ONNX Runtime and OpenVINO from noting a device and sending what they are used for."""
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
