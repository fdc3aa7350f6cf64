"""The sinks by name: what can be written, and how a job opens it."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence, Set
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Final

from pinglow.errors import DataError, OptionError
from pinglow.files import remove_parts
from pinglow.output.coco import CocoSink
from pinglow.output.counts import CountsSink
from pinglow.output.crops import CropSink
from pinglow.output.mask import MaskSink
from pinglow.output.overlay import OverlaySink
from pinglow.output.page import PageSink
from pinglow.output.parquet import ParquetSink
from pinglow.output.probability import ProbabilitySink
from pinglow.output.sink import PictureSink, Sink
from pinglow.output.tables import CsvSink, JsonlSink, TableSink

SINKS: Final[dict[str, type[PictureSink | TableSink]]] = {
    "mask": MaskSink,
    "probability": ProbabilitySink,
    "overlay": OverlaySink,
    "html": PageSink,
    "csv": CsvSink,
    "jsonl": JsonlSink,
    "coco": CocoSink,
    "parquet": ParquetSink,
    "crops": CropSink,
    "counts": CountsSink,
}
"""What can be written, by the name that ``--save`` takes."""


def split_names(save: str) -> list[str]:
    """The names in ``--save``.

    Raises:
        OptionError: One is unknown.
    """
    names = list(dict.fromkeys(word.strip() for word in save.split(",")))
    for name in names:
        if name not in SINKS:
            more = "; labels to correct: pinglow data convert OUT --to " + name
            more = more if name in ("labelme", "cvat", "voc", "yolo") else ""
            raise OptionError(f"--save {name!r} is unknown: choose from {', '.join(SINKS)}{more}")
    return names


def check_sinks(names: Sequence[str], kind: str) -> None:
    """See whether what a model finds can be written so.

    Args:
        names: Of `SINKS`.
        kind: "pixels" or "boxes".

    Raises:
        OptionError: A sink needs pixels, and there are boxes.
    """
    for name in names:
        if kind == "boxes" and SINKS[name].needs_pixels:
            fitting = ", ".join(each for each, sink in SINKS.items() if not sink.needs_pixels)
            raise OptionError(
                f"a detector has no {name}, it finds boxes: choose from {fitting} in --save"
            )


@contextmanager
def open_sinks(
    names: Sequence[str], folder: Path, done: Set[str] | None = None
) -> Iterator[list[Sink]]:
    """Open the named `SINKS` in ``folder``, which is made if need be, and close them at the end.

    Args:
        names: Of `SINKS`.
        folder: For the results.
        done: Go on with what an interrupted job has written of these sources; None: start anew.

    Raises:
        DataError: The folder cannot be written to, at the start or at any time before the end; or
            there is nothing to go on with.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        remove_parts(folder)
        with ExitStack() as stack:
            sinks: list[Sink] = [
                stack.enter_context(closing(SINKS[name](folder))) for name in names
            ]
            for sink in sinks if done is not None else ():
                sink.go_on(done or set())
            yield sinks
    except OSError as error:
        raise unwritable(folder, error) from error


@contextmanager
def open_stream(names: Sequence[str]) -> Iterator[list[Sink]]:
    """Open the named tables of `SINKS` as what is written to standard output."""
    tables = [SINKS[name] for name in names]
    yield [table(sys.stdout) for table in tables if issubclass(table, TableSink)]


def unwritable(folder: Path, error: OSError) -> DataError:
    """What is raised where results cannot be written."""
    return DataError(
        f"cannot write results to {folder} ({error.strerror or error}): "
        "free space there or choose another folder"
    )
