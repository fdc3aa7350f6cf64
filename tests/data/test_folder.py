from __future__ import annotations

import os
import unicodedata
from pathlib import Path

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from pinglow.data.folder import (
    FrameFolder,
    list_splits,
    read_split,
    resize_nearest,
)
from pinglow.data.known import KNOWN_DATASETS
from pinglow.errors import DataError, FrameError

NAMES = ["a", "b", "Misc_1"]


def make_folder(
    folder: Path, names: list[str] = NAMES, *, lists: tuple[str, ...], mask_suffix: str = ""
) -> Path:
    """Frames whose every pixel is their number, with one target pixel at (2, number)."""
    for part in ("images", "masks"):
        (folder / part).mkdir(parents=True)
    for number, name in enumerate(names):
        frame = np.full((8, 10), number, dtype=np.uint16)
        mask = np.zeros((8, 10), dtype=np.uint8)
        mask[2, number] = 255
        Image.fromarray(frame).save(folder / "images" / f"{name}.png")
        Image.fromarray(mask).save(folder / "masks" / f"{name}{mask_suffix}.png")
    for path in lists:
        (folder / path).parent.mkdir(exist_ok=True)
        (folder / path).write_text("".join(f"{name}\n" for name in names))
    return folder


@pytest.mark.parametrize(
    ("listing", "mask_suffix"),
    [
        ("train.txt", ""),  # plain
        ("img_idx/train_NUDT-SIRST.txt", ""),  # BasicIRSTD
        ("idx_427/train.txt", "_pixels0"),  # SIRST
    ],
)
def test_published_layouts_are_read_as_they_are(
    tmp_path: Path, listing: str, mask_suffix: str
) -> None:
    frames = FrameFolder(
        make_folder(tmp_path / "d", lists=(listing,), mask_suffix=mask_suffix), "train"
    )
    assert frames.names == NAMES
    assert len(frames) == 3
    for number in range(3):
        frame, mask = frames.pair(number)
        assert frame.dtype == np.uint16
        assert (frame == number).all()
        assert mask.dtype == np.bool_
        assert np.argwhere(mask).tolist() == [[2, number]]


def test_a_list_in_the_folder_goes_before_one_in_a_sub_folder(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "d", lists=("train.txt", "idx_1/train.txt", "idx_1/test.txt"))
    splits = list_splits(folder)
    assert splits == {
        "train": folder / "train.txt",
        "test": folder / "idx_1/test.txt",
        "idx_1/train": folder / "idx_1/train.txt",
    }


def test_no_list_hides_another(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    lists = ("idx_320/test.txt", "idx_427/test.txt", "idx_427/val.txt", "train.txt")
    folder = make_folder(tmp_path / "d", lists=lists)
    (folder / "idx_427/test.txt").write_text("b\n")
    assert set(list_splits(folder)) == {"train", "val", "idx_320/test", "idx_427/test"}
    with pytest.raises(DataError, match=r"several lists 'test' \(idx_320/test, idx_427/test\); n"):
        read_split(folder, "test")
    assert read_split(folder, "idx_427/test") == ["b"]
    assert read_split(folder, "idx_320/test") == read_split(folder, "val") == NAMES
    assert read_split(folder, "idx_427/val") == NAMES
    assert not caplog.messages
    (folder / "test.txt").write_text("a\n")
    assert read_split(folder, "test") == ["a"]
    (told,) = caplog.messages
    assert "test.txt, not idx_320/test or idx_427/test" in told
    caplog.clear()
    assert read_split(folder, "idx_427/test") == ["b"]
    assert not caplog.messages


def test_lists_with_one_beginning_are_told_apart(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "d", lists=("img_idx/test_hard.txt", "img_idx/train_X.txt"))
    assert read_split(folder, "test") == read_split(folder, "test_hard") == NAMES
    assert read_split(folder, "train_X") == NAMES
    (folder / "img_idx/test_NUDT.txt").write_text("b\n")
    assert set(list_splits(folder)) == {"test_hard", "test_NUDT", "train"}
    with pytest.raises(DataError, match=r"several lists 'test' \(test_NUDT, test_hard\)"):
        read_split(folder, "test")
    assert read_split(folder, "test_NUDT") == ["b"]
    (folder / "img_idx/test.txt").write_text("a\n")
    assert read_split(folder, "test") == ["a"]
    assert read_split(folder, "test_hard") == NAMES


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
@pytest.mark.parametrize("forms", [("NFC", "NFD"), ("NFD", "NFC")])
def test_names_are_found_in_either_unicode_form(
    tmp_path: Path, encoding: str, forms: tuple[str, str]
) -> None:
    on_disk, listed = (unicodedata.normalize(form, "café-한글") for form in forms)
    folder = make_folder(tmp_path / "d", [on_disk], lists=())
    (folder / "masks" / f"{on_disk}.png").rename(folder / "masks" / f"{listed}.png")
    (folder / "train.txt").write_bytes(f"{listed}\r\n{on_disk}\r\n".encode(encoding))
    frames = FrameFolder(folder, "train")
    assert frames.names == [on_disk]
    assert np.argwhere(frames.pair(0)[1]).tolist() == [[2, 0]]


def test_a_list_that_is_no_text_is_refused(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "d", lists=())
    path = folder / "train.txt"
    for data, message in (
        ("b\ncafé\n".encode("latin-1"), "is not text in UTF-8: save it as UTF-8"),
        ("b\na\n".encode("utf-16-le"), "holds bytes of 0, .* save it as UTF-8"),
    ):
        path.write_bytes(data)
        with pytest.raises(DataError, match=rf"train\.txt {message}"):
            read_split(folder, "train")
    path.unlink()
    os.mkfifo(path)
    (folder / "val.txt").symlink_to("/dev/zero")
    for split in ("train", "val", str(path)):
        with pytest.raises(DataError, match=r"\.txt is a pipe or a device"):
            read_split(folder, split)


@pytest.mark.parametrize("stray", ["README.txt", "readme.txt", "LICENSE.txt", "license.txt"])
def test_a_stray_text_is_no_list(tmp_path: Path, stray: str) -> None:
    folder = make_folder(tmp_path / "d", lists=("train.txt",))
    (folder / stray).write_text("These frames are free.")
    assert list(list_splits(folder)) == ["train"]


@pytest.mark.parametrize(
    "text",
    [
        "a\r\nb\r\nMisc_1\r\n",  # Windows
        "a.png\nb.PNG\nMisc_1.tif\n",  # with suffixes
        "\n  a \n\nb\n\tMisc_1",  # blank lines, blanks, no last line end
        "\ufeffa\nb\nMisc_1\n",  # Windows' notepad
        "./images/a.png\n./images/b.png\n./images/Misc_1.png\n",  # detectors' trainers
        ".\\images\\a.png\r\nimages\\b.png\r\nMisc_1.png\r\n",  # the same on Windows
        "a\rb\rMisc_1",  # old Macs
    ],
    ids=["crlf", "suffixes", "blanks", "bom", "paths", "backslashes", "cr"],
)
def test_lists_as_people_write_them(tmp_path: Path, text: str) -> None:
    folder = make_folder(tmp_path / "d", lists=())
    (folder / "train.txt").write_bytes(text.encode())
    assert read_split(folder, "train") == NAMES


def test_a_dot_in_a_name_is_no_suffix(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "d", ["scene.1", "scene.2"], lists=("train.txt",))
    assert FrameFolder(folder, "train").names == ["scene.1", "scene.2"]


def test_a_list_can_lie_anywhere(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "d", lists=())
    (tmp_path / "mine.txt").write_text("b\n")
    frames = FrameFolder(folder, str(tmp_path / "mine.txt"))
    assert (frames.frame(0) == 1).all()


@pytest.mark.parametrize("suffix", [".tif", ".PNG", ".Tiff", ".bmp", ".npy", ".pgm"])
def test_images_of_any_kind_are_found(tmp_path: Path, suffix: str) -> None:
    folder = make_folder(tmp_path / "d", ["a"], lists=("train.txt",))
    path = folder / "images" / f"a{suffix}"
    frame = np.full((8, 10), 77, dtype=np.uint8)
    (folder / "images" / "a.png").unlink()
    if suffix == ".npy":
        np.save(path, frame)
    else:
        Image.fromarray(frame).save(path)
    assert (FrameFolder(folder, "train").frame(0) == 77).all()


def test_masks_are_told_apart_and_said_once_of_a_kind(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = make_folder(tmp_path / "d", lists=("train.txt",))
    numbers = np.zeros((8, 10), dtype=np.uint8)
    numbers[2, 2], numbers[5, 5:7] = 1, 2
    for name in ("a", "b"):
        Image.fromarray(numbers).save(folder / "masks" / f"{name}.png")
    frames = FrameFolder(folder, "train")
    for index in (0, 1, 0):
        assert (frames.mask(index) == (numbers > 0)).all()
    (told,) = caplog.messages
    assert "a.png holds several values: every value above 0 is read as target" in told
    Image.fromarray(255 - numbers).save(folder / "masks" / "b.png")
    with pytest.raises(DataError, match=r"b\.png marks 100.0% of its frame"):
        frames.pair(1)


def test_masks_of_1_beside_masks_of_255_are_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = make_folder(tmp_path / "d", lists=("train.txt",))
    for name in ("b", "Misc_1"):
        mask = np.asarray(Image.open(folder / "masks" / f"{name}.png")) // 255
        Image.fromarray(mask).save(folder / "masks" / f"{name}.png")
    frames = FrameFolder(folder, "train")
    assert all(frames.mask(index).sum() == 1 for index in range(3))
    (told,) = caplog.messages
    assert "a.png marks with the largest value" in told
    assert "b.png with small numbers" in told


def test_a_mask_whose_background_is_no_data_is_read(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "d", ["a"], lists=("train.txt",))
    mask = np.zeros((8, 10), dtype=np.uint8)
    mask[4, 5] = 255
    (folder / "masks" / "a.png").unlink()
    tifffile.imwrite(folder / "masks" / "a.tif", mask, extratags=[(42113, "s", 0, "0", True)])
    assert np.argwhere(FrameFolder(folder, "train").mask(0)).tolist() == [[4, 5]]


def test_a_color_mask_is_read(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "d", ["a"], lists=("train.txt",))
    color = np.zeros((8, 10, 3), dtype=np.uint8)
    color[4, 5] = 255
    Image.fromarray(color).save(folder / "masks" / "a.png")
    assert np.argwhere(FrameFolder(folder, "train").mask(0)).tolist() == [[4, 5]]


def test_a_mask_of_another_size_is_brought_to_the_frame(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "d", ["a"], lists=("train.txt",))
    mask = np.zeros((16, 20), dtype=np.uint8)
    mask[4:6, 6:10] = 255
    Image.fromarray(mask).save(folder / "masks" / "a.png")
    frame, brought = FrameFolder(folder, "train").pair(0)
    assert frame.shape == brought.shape
    assert np.argwhere(brought).tolist() == [[2, 3], [2, 4]]


def test_a_mask_of_another_shape_is_refused(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "d", ["a"], lists=("train.txt",))
    for shape in ((9, 10), (8, 8), (10, 8)):  # the frame has 8 rows of 10
        Image.fromarray(np.zeros(shape, dtype=np.uint8)).save(folder / "masks" / "a.png")
        with pytest.raises(DataError, match=rf"a\.png is {shape[1]} x {shape[0]} but its frame"):
            FrameFolder(folder, "train").pair(0)


def test_a_name_that_is_listed_twice_is_taken_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "all.txt").write_text("b\na\nb\nb.png\n")
    assert read_split(tmp_path, "all") == ["b", "a"]
    (told,) = caplog.messages
    assert "has 4 lines but 2 names, b more than once" in told


@given(
    old=st.tuples(st.integers(1, 30), st.integers(1, 30)),
    new=st.tuples(st.integers(1, 60), st.integers(1, 60)),
    seed=st.integers(0, 99),
)
@settings(max_examples=60, deadline=None)
def test_resizing_takes_the_nearest_pixel_center(
    old: tuple[int, int], new: tuple[int, int], seed: int
) -> None:
    mask = np.random.default_rng(seed).random(old) < 0.3
    resized = resize_nearest(mask, new)
    assert resized.shape == new
    for y in range(new[0]):
        for x in range(new[1]):
            place = [(i + 0.5) * o / n for i, o, n in zip((y, x), old, new, strict=True)]
            best = [
                min(range(o), key=lambda k, p=p: abs(k + 0.5 - p))  # type: ignore[misc]
                for o, p in zip(old, place, strict=True)
            ]
            ties = any(abs(p - round(p)) < 1e-9 for p in place)
            assert ties or resized[y, x] == mask[best[0], best[1]]


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "d", lists=("train.txt", "val.txt"))
    with pytest.raises(DataError, match=r"gone.* is not a folder"):
        FrameFolder(tmp_path / "gone", "train")
    with pytest.raises(DataError, match=r"no list test\.txt \(lists there: train, val\)"):
        FrameFolder(folder, "test")
    with pytest.raises(DataError, match=r"nowhere\.txt does not exist"):
        FrameFolder(folder, str(tmp_path / "nowhere.txt"))
    (folder / "val.txt").write_text("\n \n")
    with pytest.raises(DataError, match=r"val\.txt names no frames"):
        FrameFolder(folder, "val")
    (folder / "val.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match=r"val\.txt is not text in UTF-16"):
        FrameFolder(folder, "val")
    (folder / "masks" / "b.png").unlink()
    with pytest.raises(DataError, match=r"no mask for 'b' of list 'train'"):
        FrameFolder(folder, "train")
    (folder / "images" / "b.png").unlink()
    with pytest.raises(DataError, match=r"no image for 'b' of list 'train'"):
        FrameFolder(folder, "train")


def test_a_broken_image_is_named_when_it_is_read(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "d", lists=("train.txt",))
    (folder / "images" / "b.png").write_bytes(b"nothing")
    frames = FrameFolder(folder, "train")
    with pytest.raises(FrameError, match=r"b\.png"):
        frames.pair(1)


@pytest.mark.parametrize("kind", ["images", "masks"])
def test_a_file_of_several_frames_is_refused(tmp_path: Path, kind: str) -> None:
    folder = make_folder(tmp_path / "d", lists=("train.txt",))
    (folder / kind / "b.png").unlink()
    pages = np.zeros((3, 8, 8), np.uint8)
    tifffile.imwrite(folder / kind / "b.tif", pages, photometric="minisblack")
    with pytest.raises(FrameError, match=r"b\.tif holds 3 frames: save each to a file of its own"):
        FrameFolder(folder, "train").pair(1)


def test_a_frame_without_a_finite_pixel_is_refused_by_name(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "d", lists=("train.txt",))
    (folder / "images" / "b.png").unlink()
    np.save(folder / "images" / "b.npy", np.full((8, 8), np.inf))
    with pytest.raises(FrameError, match=r"b\.npy has no finite pixel"):
        FrameFolder(folder, "train").pair(1)


def test_the_table_of_known_data_sets_is_complete() -> None:
    assert set(KNOWN_DATASETS) == {
        "sirst", "sirst-v2", "irstd-1k", "nudt-sirst", "sirst-uavb", "mdvsfa",
    }  # fmt: skip
    for info in KNOWN_DATASETS.values():
        assert info.license
        assert info.home.startswith("https://")
        assert info.how_to_get
        assert sum(n for split, n in info.splits.items() if split != "trainval") <= info.frames


@pytest.mark.parametrize(
    ("name", "split"),
    [("sirst", split) for split in ("train", "val", "trainval", "test")]
    + [("irstd-1k", "trainval"), ("irstd-1k", "test")]
    + [("nudt-sirst", "train"), ("nudt-sirst", "test")],
)
def test_official_lists_have_their_length(shared_data: Path, name: str, split: str) -> None:
    names = read_split(shared_data / name, split)
    assert len(set(names)) == len(names) == KNOWN_DATASETS[name].splits[split]


def test_misc_111_has_a_mask_of_another_size(shared_data: Path) -> None:
    folder = shared_data / "sirst"
    split = next(s for s in ("trainval", "test") if "Misc_111" in read_split(folder, s))
    frames = FrameFolder(folder, split)
    index = frames.names.index("Misc_111")
    frame, mask = frames.pair(index)
    assert frames.mask(index).shape != frame.shape == mask.shape
    assert mask.any()


@pytest.mark.parametrize("line", ["s1/0001", "s1/0001.png"])
def test_a_list_may_name_frames_in_folders(tmp_path: Path, line: str) -> None:
    for part in ("images", "masks"):
        for name, value in (("s1/0001", 7), ("0001", 9)):
            path = tmp_path / part / f"{name}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.full((4, 4), value, np.uint8)).save(path)
    (tmp_path / "all.txt").write_text(f"{line}\n")
    assert FrameFolder(tmp_path, "all").frame(0).max() == 7


def test_a_line_may_be_the_path_of_its_image(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "d", ["a", "b", "c"], lists=("train.txt",))
    (tmp_path / "link").symlink_to(folder)
    (tmp_path / "other").symlink_to(folder)
    lines = [f"{tmp_path}/other/images/a.png", "images/b.png", "./images/c.png"]
    (folder / "paths.txt").write_text("\n".join(lines))
    for reached in (folder, tmp_path / "link"):
        frames = FrameFolder(reached, "paths")
        assert frames.names == ["a", "b", "c"]
        assert [np.argwhere(frames.mask(i)).tolist() for i in range(3)] == [
            [[2, 0]],
            [[2, 1]],
            [[2, 2]],
        ]


def test_a_folder_images_inside_images_keeps_its_names(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "d", ["a"], lists=())
    inner = make_folder(tmp_path / "e", ["b", "a"], lists=())  # its a has another mask
    for part in ("images", "masks"):
        (inner / part).rename(folder / part / "images")
    (folder / "train.txt").write_text("images/a\na\n")
    frames = FrameFolder(folder, "train")
    assert frames.names == ["images/a", "a"]
    assert [np.argwhere(frames.mask(i)).tolist() for i in range(2)] == [[[2, 1]], [[2, 0]]]


@pytest.mark.parametrize(
    "line", ["/elsewhere/images/a.png", "../images/a.png", "x/../a", ".", "./", "images", "/"]
)
def test_a_line_that_leads_out_of_the_images_is_refused(tmp_path: Path, line: str) -> None:
    # A path that leaves images/ would be found as its own mask.
    folder = make_folder(tmp_path / "d", lists=("train.txt",))
    (folder / "train.txt").write_text(line)
    with pytest.raises(DataError, match=r"train\.txt has the line .* no frame in .*images"):
        FrameFolder(folder, "train")


def test_a_name_that_no_file_can_have_is_no_image(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "d", lists=())
    for name in ("9" * 300, "é" * 200, "a/" * 3000 + "b"):
        (folder / "train.txt").write_text(name)
        with pytest.raises(DataError, match="has no image for"):
            FrameFolder(folder, "train")


def test_a_folder_without_lists_is_told_how_to_make_one(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "d", lists=())
    with pytest.raises(DataError, match=r"has no lists: write train\.txt there, one file name"):
        FrameFolder(folder, "train")


def test_a_folder_without_images_is_told_what_a_data_folder_has(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"neither lists nor a folder images/: .*train\.txt"):
        FrameFolder(tmp_path, "train")
