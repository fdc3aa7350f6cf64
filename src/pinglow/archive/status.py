"""What an archive has, and what it lacks: by names alone, no part is read."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pinglow.archive.frames import name_of
from pinglow.archive.parts import Keys
from pinglow.archive.place import Place
from pinglow.archive.plans import read_units
from pinglow.archive.settings import SETTINGS
from pinglow.errors import DataError, OptionError


@dataclass(frozen=True)
class Status:
    """How far the results of one model and its options are.

    Attributes:
        name: The folder of these results.
        settings: The model and the options.
        planned: Units of all plans.
        done: Of these, units with a part.
        broken: Of these, units some of whose frames could not be read.
        parts: Parts that are there, those of files that were changed or are gone included.
        bytes: Of all parts.
    """

    name: str
    settings: dict[str, Any]
    planned: int
    done: int
    broken: int
    parts: int
    bytes: int

    @property
    def missing(self) -> int:
        """Planned units without a part."""
        return self.planned - self.done


def list_results(place: Place) -> list[str]:
    """The folders of results in a destination, one for each model and its options.

    Raises:
        PlaceError: It cannot be listed.
    """
    # All else that lies there, which may be a million frames, is not asked.
    names = (name for name in place.names() if re.search(r"-[0-9a-f]{8}$", name))
    return sorted(name for name in names if SETTINGS in place.below(name).names())


def find_results(place: Place) -> list[str]:
    """`list_results` of what is an archive.

    Raises:
        DataError: It is none.
    """
    names = list_results(place)
    if not names:
        raise DataError(f"{place} is no archive: name the --out of `pinglow archive run`")
    return names


def choose_results(place: Place, name: str | None) -> str:
    """The one folder of results, or the one that was named.

    Raises:
        DataError: There is none.
        OptionError: There are several and none was named, or the named one is not there.
    """
    names = find_results(place)
    if name is None and len(names) > 1:
        raise OptionError(
            f"{place} has results of several models or options: choose with --results, one of "
            f"{', '.join(names)}; `pinglow archive status` tells them apart"
        )
    if name is not None and name not in names:
        raise OptionError(f"--results {name} is not in {place}: choose from {', '.join(names)}")
    return name or names[0]


def measure(place: Place, name: str) -> Status:
    """How far the results in one folder of a destination are.

    Raises:
        PlaceError: It cannot be read.
    """
    results = place.below(name)
    keys = Keys(results)
    states = Counter(keys.state(key) for key, _ in read_units(results))
    return Status(
        name=name,
        settings=json.loads(results.read(SETTINGS)),
        planned=states.total(),
        done=states["whole"] + states["broken"],
        broken=states["broken"],
        parts=keys.count(),
        bytes=keys.bytes,
    )


def list_missing(place: Place) -> Iterator[str]:
    """The files of planned units without a part, as messages name them: without logins."""
    keys = Keys(place)
    for key, unit in read_units(place):
        if keys.state(key) is None:
            yield name_of(unit.uri)
