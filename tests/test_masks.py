"""What masks mean, drawn as people export them, and which have two meanings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from pinglow.data.folder import read_mask
from pinglow.errors import DataError
from pinglow.masks import interpret_mask

SQUARE = np.ones((3, 3), dtype=bool)


def draw() -> NDArray[np.bool_]:
    """Five targets, from one pixel to a block."""
    mask = np.zeros((40, 50), dtype=np.bool_)
    mask[3, 4] = mask[10:12, 30:32] = mask[20:25, 5:9] = mask[30, 40:43] = mask[39, 48:] = True
    return mask


MASK = draw()
NUMBERS = ndimage.label(MASK, SQUARE)[0]
RIM = ndimage.binary_dilation(MASK, iterations=2) & ~MASK
COLORS = np.array([(0, 0, 0), (128, 0, 0), (0, 128, 0), (128, 128, 0), (0, 0, 128), (64, 0, 0)])


@pytest.mark.parametrize("value", [1, 38, 255, 65535])
def test_one_value_beside_0_is_target(value: int) -> None:
    read = interpret_mask(MASK * np.uint16(value))
    assert read.targets.dtype == np.bool_
    assert (read.targets == MASK).all()
    assert read.kind == "plain"


@given(mask=st.integers(0, 999), scale=st.integers(1, 255))
@settings(deadline=None, max_examples=50)
def test_a_mask_of_two_values_keeps_its_pixels(mask: int, scale: int) -> None:
    drawn = np.random.default_rng(mask).random((9, 11)) < 0.4
    drawn[:, :2] = False
    assert (interpret_mask((drawn * scale).astype(np.uint8)).targets == drawn).all()
    assert (interpret_mask(drawn).targets == drawn).all()


@pytest.mark.parametrize("kind", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize(
    "lookup",
    [
        [0, 1, 2, 3, 4, 5],
        [0, 7, 7, 3, 9, 60],
        [0, 50, 100, 150, 200, 250],
        [0, 201, 202, 7, 1, 9],
        [0, 1, 1, 1, 1, 2],
    ],
)
def test_the_numbers_of_targets_are_targets(kind: Any, lookup: list[int]) -> None:
    read = interpret_mask(np.array(lookup, dtype=kind)[NUMBERS])
    assert (read.targets == MASK).all()
    assert read.kind == "numbers"


def test_many_numbers_and_targets_that_touch() -> None:
    mask = np.zeros((60, 60), dtype=np.uint16)
    mask[2:58:3, 2:58:3] = np.arange(1, 362).reshape(19, 19)
    assert (interpret_mask(mask).targets == (mask > 0)).all()
    touching = MASK * np.uint8(1)
    touching[20:25, 9:12] = 2
    read = interpret_mask(touching)
    assert (read.targets == (touching > 0)).all()


@pytest.mark.parametrize(("top", "kind"), [(255, np.uint8), (65535, np.uint16), (1, np.float32)])
def test_soft_edges_are_cut_at_half_of_the_maximum(top: int, kind: Any) -> None:
    large = MASK.copy()
    large[3, 4] = False
    large = large.repeat(4, 0).repeat(4, 1)
    soft = ndimage.gaussian_filter(large.astype(np.float64), 0.7)
    soft = (soft / soft.max() * top).astype(kind)
    read = interpret_mask(soft)
    assert (read.targets == (soft > soft.max() / 2)).all()
    assert read.kind == "soft"


def test_a_stray_pixel_of_a_soft_edge_is_no_target() -> None:
    """Some of IRSTD-1k's masks have one, of any value."""
    for value in (1, 2, 64, 114):
        mask = MASK * np.uint8(255)
        mask[15, 15] = value
        assert (interpret_mask(mask).targets == MASK).all()


def test_a_jpeg_mask_is_cut_at_half(tmp_path: Path) -> None:
    large = MASK.repeat(4, 0).repeat(4, 1)
    for quality in (60, 75, 95):
        Image.fromarray(large * np.uint8(255)).save(tmp_path / "a.jpg", quality=quality)
        wrong = read_mask(tmp_path / "a.jpg").targets != large
        assert not (wrong & ndimage.binary_erosion(large)).any()
        assert not (wrong & ~ndimage.binary_dilation(large, SQUARE)).any()
    Image.fromarray(large * np.uint8(1)).save(tmp_path / "a.jpg", quality=95)
    with pytest.raises(DataError, match=r"a\.jpg is a JPEG of values up to 1"):
        read_mask(tmp_path / "a.jpg")
    dim = large * np.uint8(255)
    dim[dim.shape[0] // 2 :] //= 3
    Image.fromarray(dim).save(tmp_path / "a.jpg")
    with pytest.raises(DataError, match=r"a\.jpg has \d spots of at most half"):
        read_mask(tmp_path / "a.jpg")


def test_a_jpeg_mask_in_color_is_refused(tmp_path: Path) -> None:
    mask = np.zeros((40, 48, 3), dtype=np.uint8)
    mask[10, 12], mask[20:23, 30:33] = (255, 0, 0), (0, 0, 255)
    Image.fromarray(mask).save(tmp_path / "a.jpg", quality=95)
    with pytest.raises(DataError, match=r"a\.jpg is a JPEG in color, which blurs"):
        read_mask(tmp_path / "a.jpg")
    gray = np.where(mask.any(axis=2, keepdims=True), np.uint8(255), np.uint8(0)).repeat(3, axis=2)
    Image.fromarray(gray[:, :, :]).save(tmp_path / "b.jpg", quality=95)
    assert read_mask(tmp_path / "b.jpg").targets[20:23, 30:33].all()


@pytest.mark.parametrize("mode", ["RGB", "P", "RGBA"])
@pytest.mark.parametrize(
    "order", [[0, 1, 2, 3, 4, 5], [0, 1, 1, 1, 1, 1], [0, 5, 4, 3, 2, 1], [0, 4, 4, 4, 4, 4]]
)
def test_colors_on_black_are_targets(tmp_path: Path, mode: str, order: list[int]) -> None:
    colors = COLORS[order]
    if mode == "P":
        image = Image.fromarray(NUMBERS.astype(np.uint8), "P")
        image.putpalette(colors.astype(np.uint8).tobytes())
    else:
        image = Image.fromarray(colors.astype(np.uint8)[NUMBERS]).convert(mode)
    image.save(tmp_path / "a.png")
    read = read_mask(tmp_path / "a.png")
    assert (read.targets == MASK).all()
    assert read.kind == "colors"


@pytest.mark.parametrize("channels", [2, 4])
@pytest.mark.parametrize("color", [0, 9, 255])
def test_alpha_over_one_color_is_the_mask(tmp_path: Path, channels: int, color: int) -> None:
    image = np.full((*MASK.shape, channels), color, dtype=np.uint8)
    image[..., -1] = MASK * 255
    Image.fromarray(image).save(tmp_path / "a.png")
    read = read_mask(tmp_path / "a.png")
    assert (read.targets == MASK).all()
    assert read.kind == "alpha"


def test_alpha_that_says_nothing_is_dropped(tmp_path: Path) -> None:
    for alpha in (0, 255):
        image = (MASK * np.uint8(255))[..., None].repeat(4, 2)
        image[..., 3] = alpha
        Image.fromarray(image).save(tmp_path / "a.png")
        assert (read_mask(tmp_path / "a.png").targets == MASK).all()


def test_a_mask_that_is_all_transparent_is_told() -> None:
    image = (MASK * np.uint8(255))[..., None].repeat(4, 2)
    image[..., 3] = 0
    assert interpret_mask(image).kind == "transparent"
    assert interpret_mask(image * np.uint8(0)).kind == "plain"


def rimmed(inner: Any, rim: Any, kind: Any = np.uint8) -> NDArray[Any]:
    mask = np.asarray(inner * MASK).astype(kind)
    mask[RIM] = rim
    return mask


def blot(value: int) -> NDArray[np.uint8]:
    mask = NUMBERS.astype(np.uint8)
    mask[30:36, 5:20] = value
    return mask


def viridis() -> NDArray[np.uint8]:
    return np.array([(68, 1, 84), (253, 231, 37)], dtype=np.uint8)[MASK.astype(int)]


def hidden() -> NDArray[np.uint8]:
    image = np.full((*MASK.shape, 4), 255, dtype=np.uint8)
    image[MASK, :3] = 0
    image[..., 3] = MASK * 255
    return image


def trimap() -> NDArray[np.uint8]:
    """CDNet's: 50 shadow, 85 outside, 170 unknown, 255 motion."""
    mask = MASK.repeat(3, 0).repeat(3, 1) * np.uint8(255)
    mask[50:60, 60:80], mask[55:60, 80:90], mask[60:66, 12:16] = 85, 170, 50
    mask[68:75, 27:35] = 170
    return mask


UNCLEAR: dict[str, tuple[NDArray[Any], str]] = {
    "inverted": (
        ~MASK * np.uint8(255),
        r"9.\.\d% of its frame as target, so it is inverted or no mask",
    ),
    "inverted ones": (~MASK * np.uint8(1), "is inverted"),
    "full": (np.full((9, 9), 255, np.uint8), "100.0% of its frame"),
    "from 1": (MASK + np.uint8(1), "100.0% of its frame"),
    "void": (rimmed(1, 255), "a rim of the value 255 around"),
    "void around numbers": (rimmed(NUMBERS, 255), "rim of the value 255"),
    "void in 16 bits": (rimmed(1, 65535, np.uint16), "rim of the value 65535"),
    "unsure rim": (rimmed(255, 128), "rim of the value 128"),
    "void area": (blot(255), "holds 255 beside 1, 2, 3, 4"),
    "void below 0": (rimmed(1, -1, np.float32), "values below 0"),
    "void NaN": (rimmed(1, np.nan, np.float32), "rim of NaN"),
    "infinite": (rimmed(1, np.inf, np.float32), "infinity"),
    "classes": (trimap(), r"several values \(50, 85, 170, 255\)"),
    "picture": (
        np.random.default_rng(0).integers(90, 120, (30, 30)).astype(np.uint8),
        "100.0% of its frame",
    ),
    "hidden": (hidden(), "its alpha hides"),
    "color map": (viridis(), "its frame"),
    "dim spot": (
        np.kron(NUMBERS == 3, np.ones((4, 4))) + 0.3 * np.kron(NUMBERS == 2, np.ones((4, 4))),
        "spots of at most half",
    ),
}


@pytest.mark.parametrize("case", UNCLEAR)
def test_a_mask_of_two_meanings_is_refused(case: str) -> None:
    mask, message = UNCLEAR[case]
    with pytest.raises(DataError, match=f"a.png .*{message}") as caught:
        interpret_mask(mask, "a.png")
    assert "\n" not in str(caught.value)
    assert "save targets as 255 and everything else as 0" in str(caught.value)


def test_a_colored_rim_is_refused() -> None:
    colors = np.array([(0, 0, 0), (128, 0, 0), (0, 128, 0), (224, 224, 192)], dtype=np.uint8)
    labels = np.minimum(NUMBERS, 2)
    labels[RIM] = 3
    with pytest.raises(DataError, match=r"rim of the color \(224, 224, 192\)"):
        interpret_mask(colors[labels])


def test_a_background_that_is_no_data_is_read() -> None:
    mask = np.where(MASK, np.float32(255), np.float32(np.nan))
    assert (interpret_mask(mask).targets == MASK).all()


@pytest.mark.parametrize("shape", [(1, 0), (5, 7)])
def test_a_mask_without_targets(shape: tuple[int, int]) -> None:
    assert not interpret_mask(np.zeros(shape, np.uint8)).targets.any()
    assert interpret_mask(np.zeros(shape, np.uint8)).targets.shape == shape
