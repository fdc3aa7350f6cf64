"""Where the images are that labels are of, and what they are called in a data folder."""

from __future__ import annotations

import glob
import os
import unicodedata
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from pinglow.errors import DataError
from pinglow.io.frames import find_frames, strip_suffix
from pinglow.io.labels.label_studio import uploaded_name
from pinglow.io.readers import frame_suffixes

_NOT_IMAGES: Final = frozenset({"masks", "SegmentationClass", "SegmentationObject", "overlays"})
"""Folders whose pictures have their images' names."""


class ImageIndex:
    """The frames below a folder, found by what a label calls them.

    Args:
        root: The folder.

    Attributes:
        paths: The frames, absolute.

    Raises:
        DataError: There is no such folder.
    """

    def __init__(self, root: Path) -> None:
        if not root.is_dir():
            raise DataError(f"{root} is no folder: name the one with the images with --images")
        try:
            found = find_frames([f"{glob.escape(os.path.abspath(root))}/**/*"])
        except DataError:
            found = []  # a label may name an image elsewhere
        base = Path(os.path.abspath(root))
        self.paths = [
            path for path in found if _NOT_IMAGES.isdisjoint(path.relative_to(base).parts[:-1])
        ]
        self._root = root
        self._by_stem: dict[str, list[Path]] = defaultdict(list)
        for path in self.paths:
            self._by_stem[_plain(strip_suffix(path.name))].append(path)

    def find(self, name: str, label: Path) -> Path:
        """The image that a label means.

        It is the one at that place, seen from the label's folder, the images' folder or an images/
        in it; or else the one whose path ends in most of what the label has; where there are
        several, the one beside the label.

        Args:
            name: As the label has it: a path, a file name, or a name without its suffix.
            label: The file of labels.

        Raises:
            DataError: There is none, or it may be one of several.
        """
        for folder in (label.parent, self._root, self._root / "images"):
            direct = Path(os.path.abspath(folder / name))
            if direct.suffix.lower() in frame_suffixes() and os.path.isfile(direct):
                return direct
        parts = [_plain(part) for part in Path(name).parts if part not in ("/", "..", ".")]
        for tail in (parts, [_plain(part) for part in Path(uploaded_name(name)).parts]):
            found = self._match(tail, label) if tail else []
            if len(found) == 1:
                return found[0]
            if found:
                which = " or ".join(str(path) for path in found[:3])
                raise DataError(
                    f"{label}: {name} may be {which}; name the folder of the images with --images"
                )
        raise DataError(
            f"{label}: there is no image {name} in {self._root}: add it, or name the folder of the "
            "images with --images"
        )

    def _match(self, parts: list[str], label: Path) -> list[Path]:
        named = self._by_stem.get(strip_suffix(parts[-1]), [])
        candidates = [path for path in named if _plain(path.name) == parts[-1]] or named
        if len(candidates) < 2:
            return candidates
        scores = [_common_tail(parts, path) for path in candidates]
        best = [
            path for path, score in zip(candidates, scores, strict=True) if score == max(scores)
        ]
        if len(best) > 1:
            beside = [path for path in best if path.parent == Path(os.path.abspath(label.parent))]
            # labels/train/a.txt is of images/train/a.png
            beside = beside or [path for path in best if path.parent.name == label.parent.name]
            best = beside or best
        return best


def common_folder(paths: Iterable[Path]) -> Path:
    """The deepest folder that holds all of these files."""
    return Path(os.path.commonpath([path.parent for path in paths]))


def _plain(text: str) -> str:
    return unicodedata.normalize("NFC", text)


def _common_tail(parts: list[str], path: Path) -> int:
    """How many of the last parts of a name the path has; its file counts without its suffix."""
    own = [_plain(part) for part in path.parts]
    count = 0
    for wanted, there in zip(reversed(parts[:-1]), reversed(own[:-1]), strict=False):
        if wanted != there:
            break
        count += 1
    return count
