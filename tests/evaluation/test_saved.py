"""Saved maps: which file is whose, what its numbers mean, and that nothing is scored unread."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.io
import tifffile
from numpy.typing import NDArray
from PIL import Image

from pinglow.errors import DataError, FrameError, OptionError
from pinglow.evaluation.saved import SavedMaps, evaluate_saved
from pinglow.metrics import PROTOCOLS, Report, Scorer

STRICT = [PROTOCOLS["strict"]]
NAMES = ["f0", "f1", "f10"]
SHAPE = (20, 30)


def make_maps(seed: int = 0) -> dict[str, NDArray[np.float64]]:
    """A map for each name: dim noise, and a target that is all sure."""
    generator = np.random.default_rng(seed)
    maps = {}
    for place, name in enumerate(NAMES):
        maps[name] = generator.uniform(0, 0.4, size=SHAPE)
        maps[name][5:8, 5 + place : 8 + place] = 1
    return maps


def make_pairs() -> list[tuple[str, NDArray[Any], NDArray[np.bool_]]]:
    return [(name, np.zeros(SHAPE), each > 0.5) for name, each in make_maps().items()]


def score(place: str | Path, threshold: float = 0.5, **how: Any) -> Report:
    maps = SavedMaps(place, NAMES, **how)
    [report] = evaluate_saved(make_pairs(), maps, STRICT, threshold)
    return report


def expected(maps: dict[str, NDArray[Any]], threshold: float = 0.5) -> Report:
    scorer = Scorer(PROTOCOLS["strict"], threshold)
    for name, _, mask in make_pairs():
        scorer.update(maps[name], mask)
    return scorer.compute()


def save(path: Path, values: NDArray[Any]) -> None:
    if path.suffix == ".npy":
        np.save(path, values)
    elif path.suffix == ".npz":
        np.savez(path, pred=values, threshold=0.5)
    elif path.suffix == ".mat":
        scipy.io.savemat(path, {"pred": values, "threshold": 0.5, "name": "f", "from": ["a", "b"]})
    elif path.suffix in (".tif", ".tiff"):
        tifffile.imwrite(path, values)
    else:
        Image.fromarray(values).save(path)


def save_all(folder: Path, end: str, change: Callable[[NDArray[Any]], NDArray[Any]]) -> None:
    folder.mkdir(exist_ok=True)
    for name, values in make_maps().items():
        save(folder / f"{name}{end}", change(values))


def to_8_bits(values: NDArray[Any]) -> NDArray[Any]:
    return np.rint(values * 255).astype(np.uint8)


def to_16_bits(values: NDArray[Any]) -> NDArray[Any]:
    return np.rint(values * 65535).astype(np.uint16)


# --- formats -----------------------------------------------------------------------------------


@pytest.mark.parametrize("end", [".png", ".bmp", ".tif", ".npy", ".npz", ".mat", ".PNG"])
@pytest.mark.parametrize(("change", "top"), [(to_8_bits, 255), (to_16_bits, 65535)])
def test_levels_of_any_format_are_shares_of_their_bits(
    tmp_path: Path, end: str, change: Any, top: int
) -> None:
    if end == ".bmp":  # of 8 bits
        change, top = to_8_bits, 255
    save_all(tmp_path, end, change)
    maps = {name: change(values) / top for name, values in make_maps().items()}
    assert score(tmp_path) == expected(maps)


@pytest.mark.parametrize(
    ("end", "dtype"),
    [
        (end, dtype)
        for end in (".npy", ".npz", ".mat", ".tiff")
        for dtype in (np.float32, np.float64)
    ],
)
def test_floats_keep_their_precision(tmp_path: Path, end: str, dtype: Any) -> None:
    save_all(tmp_path, end, lambda values: (1 - (1 - values) * 1e-7).astype(dtype))
    read = SavedMaps(tmp_path, NAMES).read("f0", SHAPE)
    assert read.dtype == dtype
    assert len(np.unique(read)) > (400 if dtype is np.float64 else 1)
    np.testing.assert_array_equal(read, (1 - (1 - make_maps()["f0"]) * 1e-7).astype(dtype))


@pytest.mark.parametrize("end", [".npy", ".npz", ".mat"])
def test_true_and_false_are_one_and_zero(tmp_path: Path, end: str) -> None:
    save_all(tmp_path, end, lambda values: values > 0.5)
    assert score(tmp_path).iou == 1


def test_big_endian_levels_are_levels(tmp_path: Path) -> None:
    save_all(tmp_path, ".npy", lambda values: to_16_bits(values).astype(">u2"))
    assert score(tmp_path).pd == 1


def test_a_file_of_several_pages_is_no_map(tmp_path: Path) -> None:
    tifffile.imwrite(
        tmp_path / "f0.tif", np.ones((2, 20, 30), np.float32), photometric="minisblack"
    )
    with pytest.raises(FrameError, match="holds 2 frames"):
        SavedMaps(tmp_path, ["f0"]).read("f0", SHAPE)


def test_matlab_keeps_doubles_apart_from_bytes(tmp_path: Path) -> None:
    # MATLAB stores a double array of whole numbers as bytes.
    save_all(tmp_path, ".mat", lambda values: (values > 0.5).astype(float))
    assert score(tmp_path).iou == 1


def test_gray_128_of_255_is_above_half_and_127_is_not(tmp_path: Path) -> None:
    save(tmp_path / "a.png", np.array([[127, 128]], dtype=np.uint8))
    maps = SavedMaps(tmp_path, ["a"])
    [report] = evaluate_saved([("a", np.zeros((1, 2)), np.array([[False, True]]))], maps, STRICT)
    assert report.iou == 1


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"a": np.eye(3), "b": np.eye(3)}, "one two-dimensional variable .*a, b"),
        ({"t": 0.5}, "one two-dimensional variable .*none"),
        ({"a": np.zeros((2, 3, 4))}, "one two-dimensional variable"),
    ],
)
def test_a_matlab_file_of_several_variables_is_refused(
    tmp_path: Path, content: dict[str, Any], message: str
) -> None:
    scipy.io.savemat(tmp_path / "f0.mat", content)
    with pytest.raises(DataError, match=message):
        SavedMaps(tmp_path, ["f0"]).read("f0", (3, 3))


def test_a_map_in_color_is_refused(tmp_path: Path) -> None:
    for image in (
        Image.fromarray(np.full((4, 4, 3), (90, 0, 200), np.uint8)),
        Image.fromarray(np.eye(4, dtype=np.uint8)).convert("P"),
    ):
        if image.mode == "P":
            image.putpalette([0, 0, 0, 128, 0, 0])
        image.save(tmp_path / "f0.png")
        with pytest.raises(DataError, match=r"f0\.png is in color"):
            SavedMaps(tmp_path, ["f0"]).read("f0", (4, 4))


def test_damaged_maps_are_left_out_and_told(tmp_path: Path) -> None:
    save_all(tmp_path, ".npy", lambda values: values)
    (tmp_path / "f10.npy").write_bytes(b"no array")
    with pytest.raises(FrameError, match=r"f10\.npy is damaged") as caught:
        score(tmp_path)
    assert "allow_pickle" not in str(caught.value)
    save_all(tmp_path, ".npy", lambda values: values)
    for name, content in [("f0", b"\x93NUMPY\x01\x00"), ("f1", None)]:
        if content is None:
            np.save(tmp_path / f"{name}.npy", np.full(SHAPE, np.nan))
        else:
            (tmp_path / f"{name}.npy").write_bytes(content)
    broken: list[str] = []
    [report] = evaluate_saved(
        make_pairs(), SavedMaps(tmp_path, NAMES), STRICT, on_broken=broken.append
    )
    assert (report.images, report.pd) == (1, 1)
    assert "f0.npy is damaged" in broken[0]
    assert "f1.npy holds NaN" in broken[1]
    with pytest.raises(FrameError, match=r"f0\.npy is damaged"):
        score(tmp_path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="Windows has no named pipes")
@pytest.mark.parametrize("end", [".npy", ".mat", ".png"])
def test_a_pipe_is_left_out_and_nothing_waits_for_it(tmp_path: Path, end: str) -> None:
    os.mkfifo(tmp_path / f"f0{end}")
    maps = SavedMaps(tmp_path, ["f0"])
    with pytest.raises(FrameError, match="is a pipe"):
        maps.read("f0", (4, 4))
    assert maps.hash()


def test_a_pickle_is_not_opened(tmp_path: Path) -> None:
    np.save(tmp_path / "f0.npy", np.array([[{}]]), allow_pickle=True)
    with pytest.raises(FrameError, match=r"f0\.npy holds Python objects.*: save one"):
        SavedMaps(tmp_path, ["f0"]).read("f0", (1, 1))


# --- scales ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("end", "change", "hint"),
    [
        (".png", lambda p: (p > 0.5).astype(np.uint8), "--scale 1 if"),
        (".png", lambda p: np.rint(p * 100).astype(np.uint8), "--scale 100 if"),
        (".png", lambda p: to_8_bits(p).astype(np.uint16), "--scale 255 if"),
        (".tif", lambda p: np.rint(p * 16383).astype(np.uint16), "--scale 16383 if"),
        (".npy", lambda p: p / 300, "lower --threshold"),
        (".png", lambda p: np.zeros(SHAPE, np.uint8), "highest value is 0 "),
        (".npy", lambda p: p * 255, "give --scale 255"),
        (".npy", lambda p: (p * 65535).astype(np.float32), "give --scale 65535"),
        (".npy", lambda p: p * 20 - 10, "give --scale logits"),
        (".npy", lambda p: p * 1.1 - 0.05, "logits if they are logits, else clip them"),
        (".npy", lambda p: (p > 0.5).astype(np.int64), "holds int64 values: give --scale"),
        (".npy", lambda p: (p > 0.5).astype(np.uint8), "--scale 1 if"),
    ],
)
def test_another_scale_is_refused_by_the_one_that_fits(
    tmp_path: Path, end: str, change: Any, hint: str
) -> None:
    save_all(tmp_path, end, change)
    with pytest.raises(DataError, match=hint):
        score(tmp_path)


@pytest.mark.parametrize(
    ("scale", "change"),
    [
        (1, lambda p: (p > 0.5).astype(np.uint8)),
        (1, lambda p: (p > 0.5).astype(np.int64)),
        (100, lambda p: np.rint(p * 100).astype(np.uint8)),
        (255, lambda p: p * 255),
        ("logits", lambda p: np.log(p.clip(1e-9, 1 - 1e-9) / (1 - p.clip(1e-9, 1 - 1e-9)))),
    ],
)
def test_a_named_scale_is_used(tmp_path: Path, scale: Any, change: Any) -> None:
    save_all(tmp_path, ".npy", change)
    report = score(tmp_path, scale=scale)
    assert (report.iou, report.fa) == (1, 0)


def test_logits_become_probabilities_of_full_precision(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.array([[-np.inf, 0, 17, 18]], dtype=np.float32))
    read = SavedMaps(tmp_path, ["a"], scale="logits").read("a", (1, 4))
    np.testing.assert_allclose(read, [[0, 0.5, 1 / (1 + np.exp(-17)), 1 / (1 + np.exp(-18))]])
    assert read[0, 2] < read[0, 3] < 1


def test_dark_maps_of_frames_without_targets_are_scored(tmp_path: Path) -> None:
    save(tmp_path / "a.png", np.zeros((4, 4), np.uint8))
    pairs = [("a", np.zeros((4, 4)), np.zeros((4, 4), dtype=bool))]
    [report] = evaluate_saved(pairs, SavedMaps(tmp_path, ["a"]), STRICT)
    assert (report.niou, report.fa) == (1, 0)


def test_one_map_above_the_threshold_is_enough(tmp_path: Path) -> None:
    save_all(tmp_path, ".png", lambda values: np.zeros(SHAPE, np.uint8))
    save(tmp_path / "f1.png", to_8_bits(make_maps()["f1"]))
    assert score(tmp_path).pd == 1 / 3


@pytest.mark.parametrize(
    ("end", "change", "scale", "others"),
    [
        (".npy", lambda p: p * 255, 255, lambda p: p),
        (".npy", lambda p: p * 255, 255, lambda p: (p > 0.5).astype(float)),
        (".npy", lambda p: p * 1e9, 1e9, lambda p: p * 65535),
        (".png", to_8_bits, None, lambda p: (p > 0.5).astype(np.uint8)),
        (".png", to_16_bits, None, lambda p: to_8_bits(p).astype(np.uint16)),
        (".png", to_8_bits, None, lambda p: to_8_bits(p).astype(np.uint16)),
    ],
)
@pytest.mark.parametrize("smaller", [["f0"], ["f1", "f10"]])
def test_maps_of_two_scales_are_refused(
    tmp_path: Path, end: str, change: Any, scale: Any, others: Any, smaller: list[str]
) -> None:
    save_all(tmp_path, end, change)
    for name in smaller:
        save(tmp_path / f"{name}{end}", others(make_maps()[name]))
    with pytest.raises(DataError, match=rf"{smaller[0]}\{end} goes up to .*save all maps in one"):
        score(tmp_path, scale=scale)


@pytest.mark.parametrize(("bits", "refused"), [(8, False), (16, True)])
def test_one_dim_map_of_many_may_be_a_miss(tmp_path: Path, bits: int, refused: bool) -> None:
    target = np.zeros((8, 8), dtype=np.bool_)
    target[3:5, 3:5] = True
    names = [f"g{number}" for number in range(20)]
    for name in names:
        save(tmp_path / f"{name}.png", target * np.uint8(255))
    save(tmp_path / "g7.png", target.astype(np.uint8) if bits == 8 else target * np.uint16(255))
    pairs = [(name, np.zeros((8, 8)), target) for name in names]
    if refused:
        with pytest.raises(DataError, match=r"g7\.png goes up to 255 where 65535"):
            evaluate_saved(pairs, SavedMaps(tmp_path, names), STRICT)
    else:
        [report] = evaluate_saved(pairs, SavedMaps(tmp_path, names), STRICT)
        assert report.pd == 0.95


def test_maps_may_be_dim_where_the_threshold_is_lower(tmp_path: Path) -> None:
    for name, _, mask in make_pairs():
        np.save(tmp_path / f"{name}.npy", mask * (0.9 if name == "f0" else 0.003))
    assert score(tmp_path, threshold=0.001).pd == 1


def test_maps_may_be_dim_where_nothing_was_found(tmp_path: Path) -> None:
    save_all(tmp_path, ".npy", lambda values: values)
    np.save(tmp_path / "f0.npy", make_maps()["f0"][::-1] / 300)  # beside its target
    assert score(tmp_path).pd == 2 / 3


def test_maps_that_may_be_inverted_are_warned_about(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    save_all(tmp_path, ".npy", lambda values: 1 - values)
    assert score(tmp_path).pd == 0
    assert "98% of the pixels" in caplog.text
    assert "they may be inverted" in caplog.text


# --- sizes -------------------------------------------------------------------------------------


def test_another_size_is_refused_unless_a_way_is_named(tmp_path: Path) -> None:
    mask = np.zeros((40, 60), dtype=bool)
    mask[10:16, 10:16] = True
    np.save(tmp_path / "a.npy", mask[::2, ::2].astype(np.float32))
    with pytest.raises(FrameError, match=r"a\.npy is 30 x 20 but its mask is 60 x 40.*--resize"):
        SavedMaps(tmp_path, ["a"]).read("a", (40, 60))
    nearest = SavedMaps(tmp_path, ["a"], resize="nearest").read("a", (40, 60))
    np.testing.assert_array_equal(nearest, mask)
    bilinear = SavedMaps(tmp_path, ["a"], resize="bilinear").read("a", (40, 60))
    theirs = Image.fromarray(mask[::2, ::2].astype(np.float32)).resize(
        (60, 40), Image.Resampling.BILINEAR
    )
    np.testing.assert_allclose(bilinear, np.asarray(theirs), atol=1e-6)


# --- names -------------------------------------------------------------------------------------


@pytest.mark.parametrize("end", ["_Pred.png", "_mask.png", "-pred.png", ".prob.png", "_p0.npy"])
def test_what_follows_a_name_is_found_if_it_is_the_same_for_all(tmp_path: Path, end: str) -> None:
    save_all(tmp_path, end, to_8_bits)
    save(tmp_path / "f0_other.png", np.zeros((3, 3), np.uint8))  # not of all names
    (tmp_path / f"._f0{end}").write_bytes(b"\0")  # macOS
    (tmp_path / "notes_Pred.txt").write_text("x")
    assert score(tmp_path).pd == 1


def test_a_number_after_a_name_is_another_name(tmp_path: Path) -> None:
    mask = np.ones((2, 2), np.uint8) * 255
    for name in ("f1", "f1_2", "f10"):
        save(tmp_path / f"{name}.png", mask)
    assert SavedMaps(tmp_path, ["f1"]).read("f1", (2, 2)).all()


def test_several_files_a_name_are_refused_until_a_pattern_says_which(tmp_path: Path) -> None:
    save_all(tmp_path, "_GT.png", lambda values: to_8_bits(1 - values))
    save_all(tmp_path, "_Pred.png", to_8_bits)
    with pytest.raises(DataError, match=r"\(\*_GT.png, \*_Pred.png\).*/\*_Pred\.png'"):
        score(tmp_path)
    assert score(tmp_path / "*_Pred.png").pd == 1
    save_all(tmp_path / "x", ".npy", lambda values: values)
    save_all(tmp_path / "x", ".png", to_8_bits)
    with pytest.raises(DataError, match=r"\(\*.npy, \*.png\)"):
        score(tmp_path / "x")
    with pytest.raises(DataError, match=r"\*_No.png is missing for 3 of the 3 names"):
        score(tmp_path / "*_No.png")


def test_a_pattern_may_have_a_folder_for_each_name(tmp_path: Path) -> None:
    for name, values in make_maps().items():
        (tmp_path / name).mkdir()
        np.save(tmp_path / name / "map.npy", values)
    assert score(tmp_path / "*" / "map.npy").pd == 1


def test_names_in_folders_and_in_another_unicode_form(tmp_path: Path) -> None:
    (tmp_path / "night").mkdir()
    save(tmp_path / "night" / "cafe\u0301_mask.png", np.ones((2, 2), np.uint8) * 255)
    name = "night/caf\u00e9"
    assert SavedMaps(tmp_path, [name]).read(name, (2, 2)).all()


def test_all_missing_maps_are_told_in_one_short_line(tmp_path: Path) -> None:
    names = [f"frame{number}" for number in range(50)]
    for name in names[:10]:
        save(tmp_path / f"{name}_Pred.png", np.zeros((2, 2), np.uint8))
    with pytest.raises(DataError) as raised:
        SavedMaps(tmp_path, names)
    assert "*_Pred.png is missing for 40 of the 50 names (frame10, frame11" in str(raised.value)
    assert "and 36 more" in str(raised.value)
    assert len(str(raised.value)) < 300


def test_a_folder_without_any_of_the_names_says_what_it_holds(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nowhere is not a folder"):
        SavedMaps(tmp_path / "nowhere", NAMES)
    with pytest.raises(DataError, match="it holds nothing"):
        SavedMaps(tmp_path, NAMES)
    save(tmp_path / "other.png", np.zeros((2, 2), np.uint8))
    with pytest.raises(DataError, match=r"it holds other\.png"):
        SavedMaps(tmp_path, NAMES)


@pytest.mark.parametrize("name", ["mshnet256", "basicirstd"])
def test_protocols_that_change_the_input_refuse_saved_maps(tmp_path: Path, name: str) -> None:
    save_all(tmp_path, ".png", to_8_bits)
    maps = SavedMaps(tmp_path, NAMES)
    with pytest.raises(OptionError, match=f"{name} .* cannot score saved predictions"):
        evaluate_saved(make_pairs(), maps, [*STRICT, PROTOCOLS[name]])


def test_several_protocols_share_the_reading(tmp_path: Path) -> None:
    save_all(tmp_path, ".png", to_8_bits)
    strict, greedy = evaluate_saved(
        make_pairs(), SavedMaps(tmp_path, NAMES), [*STRICT, PROTOCOLS["greedy"]]
    )
    assert (strict.protocol, greedy.protocol) == ("strict", "greedy")
    assert strict == score(tmp_path)
