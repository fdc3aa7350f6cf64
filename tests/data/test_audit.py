from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from PIL import Image

from pinglow.data.audit import audit_folder
from pinglow.data.synthetic.backgrounds import cloud
from pinglow.errors import DataError
from pinglow.masks import READINGS


def save(path: Path, image: NDArray[np.uint8] | NDArray[np.uint16]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path)


def scene(seed: int) -> NDArray[np.uint8]:
    return (cloud(np.random.default_rng(seed), 80, 100) * 200).astype(np.uint8)


def mask(*areas: int) -> NDArray[np.uint8]:
    """A mask with one horizontal bar of each area, on every fourth row."""
    drawn = np.zeros((80, 100), dtype=np.uint8)
    for index, area in enumerate(areas):
        drawn[4 * index + 1, 1 : area + 1] = 255
    return drawn


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Six frames, each with one target, in three lists; nothing is wrong."""
    for index in range(6):
        save(tmp_path / "images" / f"f{index}.png", scene(index))
        save(tmp_path / "masks" / f"f{index}.png", mask(5))
    (tmp_path / "train.txt").write_text("f0\nf1\n")
    (tmp_path / "val.txt").write_text("f2\nf3\n")
    (tmp_path / "trainval.txt").write_text("f0\nf1\nf2\nf3\n")
    (tmp_path / "test.txt").write_text("f4\nf5\n")
    return tmp_path


def test_a_clean_folder(folder: Path) -> None:
    seen: list[None] = []
    audit = audit_folder(folder, on_frame=lambda: seen.append(None))
    assert len(seen) == audit.images == audit.targets == 6
    assert audit.frame_sizes == {"100x80": 6}
    assert audit.pixel_types == {"uint8": 6}
    assert audit.splits == {"test": 2, "train": 2, "trainval": 4, "val": 2}
    assert audit.shared_names == {"train & trainval": 2, "trainval & val": 2}
    for finding in (
        "broken", "missing_masks", "mismatched_masks", "non_binary_masks", "special_masks",
        "unclear_masks", "target_free", "missing_images", "unlisted", "leaks", "duplicates",
        "near_duplicates", "duplicates_across", "near_duplicates_across",
    ):  # fmt: skip
        assert not getattr(audit, finding), finding


def test_target_sizes_at_the_edges_of_the_bins(folder: Path) -> None:
    save(folder / "masks" / "f0.png", mask(1, 9, 10, 25, 26, 49, 50, 98))
    audit = audit_folder(folder)
    assert audit.target_sizes == {"1-9": 2 + 5, "10-25": 2, "26-49": 2, "50+": 2}
    assert audit.targets == 8 + 5


def test_masks_that_are_missing_of_another_size_soft_or_empty(folder: Path) -> None:
    (folder / "masks" / "f0.png").unlink()
    save(folder / "masks" / "f1.png", mask(5)[:40])
    soft = mask(5)
    soft[1, 7] = 60
    save(folder / "masks" / "f2.png", soft)
    save(folder / "masks" / "f3.png", mask())
    save(folder / "masks" / "f4.png", mask(5) // 255)
    save(folder / "masks" / "f5.png", np.pad(np.full((4, 4), 255, np.uint8), ((0, 36), (0, 46))))
    audit = audit_folder(folder)
    assert audit.missing_masks == ["f0"]
    assert audit.mismatched_masks == {
        "f1": "image 100x80, mask 100x40",
        "f5": "image 100x80, mask 50x40",
    }
    assert list(audit.broken) == [str(folder / "masks" / "f1.png")]  # the other can be enlarged
    assert audit.non_binary_masks == ["f2"]
    assert audit.target_free == ["f3"]
    assert audit.targets == 4


def test_masks_that_mean_something_else_are_named(folder: Path) -> None:
    numbers = mask(5, 9, 3)
    numbers[5, numbers[5] > 0], numbers[9, numbers[9] > 0] = 2, 3
    numbers[1, numbers[1] > 0] = 1
    save(folder / "masks" / "f0.png", numbers)
    save(folder / "masks" / "f1.png", 255 - mask(5))
    alpha = np.zeros((80, 100, 4), dtype=np.uint8)
    alpha[..., 3] = mask(5)
    save(folder / "masks" / "f2.png", alpha)
    rim = mask(5) // 255
    rim[0, :7] = rim[2, :7] = rim[1, 0] = rim[1, 6] = 255
    save(folder / "masks" / "f3.png", rim)
    audit = audit_folder(folder)
    assert audit.special_masks == {READINGS["numbers"]: ["f0"], READINGS["alpha"]: ["f2"]}
    assert list(audit.unclear_masks) == ["f1", "f3"]
    assert "99.9% of its frame" in audit.unclear_masks["f1"]
    assert "a rim of the value 255" in audit.unclear_masks["f3"]
    assert audit.targets == 3 + 3
    assert not audit.broken


def test_broken_files_are_listed_and_do_not_stop_the_audit(folder: Path) -> None:
    (folder / "images" / "f1.png").write_bytes(b"not an image")
    (folder / "masks" / "f2.png").write_bytes(b"")
    (folder / "val.txt").write_text("")
    (folder / "images" / "f3.png").unlink()
    np.save(folder / "images" / "f3.npy", np.full((80, 100), np.nan))
    (folder / "masks" / "f4.png").unlink()
    tifffile.imwrite(folder / "masks" / "f4.tif", np.stack([mask(5)] * 2), photometric="minisblack")
    audit = audit_folder(folder)
    broken = {"images/f1.png", "masks/f2.png", "val.txt", "images/f3.npy", "masks/f4.tif"}
    assert set(audit.broken) == {str(folder / name) for name in broken}
    assert audit.images == 6
    assert audit.frame_sizes == {"100x80": 4}
    assert audit.missing_masks == []


def test_frames_in_subfolders_are_looked_at(folder: Path) -> None:
    for name in ("night/f0", "night/f9"):
        save(folder / "images" / f"{name}.png", scene(4))
        save(folder / "masks" / f"{name}.png", mask(5))
    (folder / "train.txt").write_text("f0\nf1\nnight/f0\n")
    audit = audit_folder(folder)
    assert audit.images == 8
    assert audit.missing_images == {}
    assert audit.unlisted == ["night/f9"]
    assert audit.duplicates_across["train & test"] == ["f4"]


def test_of_two_files_with_one_name_the_one_that_is_never_read_is_named(folder: Path) -> None:
    save(folder / "images" / "f1.bmp", scene(7))
    seen: list[None] = []
    audit = audit_folder(folder, on_frame=lambda: seen.append(None))
    assert (audit.images, len(seen)) == (6, 7)  # the bar counts files
    (path,) = audit.broken
    assert path == str(folder / "images" / "f1.bmp")
    assert str(folder / "images" / "f1.png") in audit.broken[path]


def test_depth_and_counts(folder: Path) -> None:
    save(folder / "images" / "f1.png", (scene(1) * np.uint16(20) + np.uint16(6000)))
    audit = audit_folder(folder)
    assert audit.pixel_types == {"uint8": 5, "uint16": 1}
    assert audit.counts == (0, 6000 + 20 * float(scene(1).max()))


def test_lists_against_images_and_each_other(folder: Path) -> None:
    (folder / "train.txt").write_text("f0\nf1\nf4\ngone\n")
    (folder / "trainval.txt").write_text("f0\nf1\nf2\n")
    (folder / "val.txt").write_text("f2\n")
    audit = audit_folder(folder)
    assert audit.missing_images == {"train": ["gone"]}
    assert audit.unlisted == ["f3"]
    assert audit.leaks == {"train & test": ["f4"]}
    assert audit.shared_names["train & test"] == 1


def test_a_frame_that_trains_and_validates_is_a_leak(folder: Path) -> None:
    (folder / "train.txt").write_text("f0\nf1\nf2\n")
    (folder / "eval.txt").write_text("f1\n")
    audit = audit_folder(folder)  # trainval holds all of val, as it should
    assert audit.leaks == {"train & eval": ["f1"], "train & val": ["f2"]}


def test_lists_that_may_share_frames_are_no_leaks(folder: Path) -> None:
    (folder / "test.txt").unlink()
    for name in ("all", "night", "naval", "train_1", "val_1", "train_2", "val_2", "train_val"):
        (folder / f"{name}.txt").write_text("f0\nf1\n" if name in ("train_1", "val_2") else "f2\n")
    (folder / "train.txt").write_text("f0\n")
    assert audit_folder(folder).leaks == {}
    (folder / "Holdout.txt").write_text("f0\n")
    assert set(audit_folder(folder).leaks) == {
        f"{name} & Holdout" for name in ("train", "train_1", "trainval", "val_2")
    }


def test_duplicates_across_lists(folder: Path) -> None:
    # f4 (test) repeats f0 (train); f5 (test) is f2 (val) with more contrast and a target.
    save(folder / "images" / "f4.png", scene(0))
    brighter = (scene(2) * 1.2 + 3).astype(np.uint8)
    brighter[40:43, 50:53] = 255
    save(folder / "images" / "f5.png", brighter)
    audit = audit_folder(folder)
    assert audit.duplicates == [["f0", "f4"]]
    assert audit.near_duplicates == [["f0", "f4"], ["f2", "f5"]]
    assert audit.duplicates_across == {"train & test": ["f4"], "trainval & test": ["f4"]}
    assert audit.near_duplicates_across == {
        "train & test": ["f4"],
        "trainval & test": ["f4", "f5"],
        "val & test": ["f5"],
    }


def test_equal_featureless_frames_count_as_near_duplicates(folder: Path) -> None:
    for name in ("f0", "f5"):
        save(folder / "images" / f"{name}.png", np.full((80, 100), 9, dtype=np.uint8))
    assert audit_folder(folder).near_duplicates == [["f0", "f5"]]


def test_no_lists(folder: Path) -> None:
    for path in folder.glob("*.txt"):
        path.unlink()
    audit = audit_folder(folder)
    assert audit.splits == {}
    assert audit.unlisted == []


def test_to_dict_survives_json(folder: Path) -> None:
    found = audit_folder(folder).to_dict()
    again = json.loads(json.dumps(found))
    assert again["images"] == 6
    assert again["counts"] == list(found["counts"])


def test_no_images(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="gone is not a folder"):
        audit_folder(tmp_path / "gone")
    with pytest.raises(DataError, match="no folder images/"):
        audit_folder(tmp_path)
    (tmp_path / "images").mkdir()
    with pytest.raises(DataError, match="images"):
        audit_folder(tmp_path)


def test_sirst_is_as_known(shared_data: Path) -> None:
    audit = audit_folder(shared_data / "sirst")
    assert audit.images == 427
    assert audit.splits == {"test": 86, "train": 256, "trainval": 341, "val": 85}
    assert list(audit.mismatched_masks) == ["Misc_111"]
    assert audit.leaks == {}
    assert ["Misc_27", "Misc_31"] in audit.near_duplicates
