"""Known public data sets: what they are, their licenses, and how to get them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True)
class DatasetInfo:
    """A known data set.

    Attributes:
        title: As its authors call it.
        frames: Number of frames in all.
        size: Width x height in pixels, or their range.
        splits: Official lists and their lengths.
        license: As stated by its authors, or "none stated".
        home: Where it is published.
        how_to_get: What to do to have it in a folder that pinglow reads.
    """

    title: str
    frames: int
    size: str
    splits: dict[str, int]
    license: str
    home: str
    how_to_get: str


_CLONE = "clone the home page's repository; its folders are read as they are"
_LINKED = "follow the download link on the home page; unpack to images/, masks/ and the lists"

KNOWN_DATASETS: Final[dict[str, DatasetInfo]] = {
    "sirst": DatasetInfo(
        "SIRST v1",
        427,
        "100-600 wide",
        {"train": 256, "val": 85, "trainval": 341, "test": 86},
        "none stated",
        "https://github.com/YimianDai/sirst",
        f"{_CLONE}, its lists named with their folder, as idx_427/test",
    ),
    "sirst-v2": DatasetInfo(
        "SIRST-V2",
        1024,
        "up to 1918 x 1080",
        {},
        "none stated",
        "https://github.com/YimianDai/open-sirst-v2",
        "clone the home page's repository; bring its frames into one images/, annotations/masks to "
        "masks/, and lists from splits/ beside them; it contains all of SIRST v1, and about half "
        "of it has no target",
    ),
    "irstd-1k": DatasetInfo(
        "IRSTD-1k",
        1001,
        "512 x 512",
        {"trainval": 800, "test": 201},
        "MIT",
        "https://github.com/RuiZhang97/ISNet",
        _LINKED,
    ),
    "nudt-sirst": DatasetInfo(
        "NUDT-SIRST",
        1327,
        "256 x 256",
        {"train": 663, "test": 664},
        "none stated",
        "https://github.com/YeRen123455/Infrared-Small-Target-Detection",
        _LINKED,
    ),
    "sirst-uavb": DatasetInfo(
        "SIRST-UAVB",
        3000,
        "640 x 512",
        {},
        "MIT",
        "https://github.com/JN-Yang/PConv-SDloss-Data",
        _LINKED,
    ),
    "mdvsfa": DatasetInfo(
        "MDvsFA",
        10100,
        "128 x 128 to 256 x 256",
        {"train": 10000, "test": 100},
        "none stated",
        "https://github.com/wanghuanphd/MDvsFA_cGAN",
        _LINKED,
    ),
}
"""Known data sets by the name that pinglow uses; "none stated" licenses need the authors' leave."""
