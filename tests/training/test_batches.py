from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import ndimage
from torch import Tensor

from folders import texture, write_folder
from pinglow.errors import RecipeError
from pinglow.structures import label_targets
from pinglow.training import batches
from pinglow.training.batches import (
    TrainingBatches,
    collect_frames,
    pixels_of_targets,
    place_frames,
)
from pinglow.training.recipe import Recipe
from pinglow.training.splits import Cut, cut_validation

MakeRecipe = Callable[..., Recipe]


def open_batches(
    recipe: Recipe, cuts: list[Cut] | None = None, rank: int = 0, world: int = 1
) -> TrainingBatches:
    cuts = cut_validation(recipe) if cuts is None else cuts
    return TrainingBatches(recipe, collect_frames(recipe, cuts), rank, world)


def masks_of(recipe: Recipe, count: int | None = None) -> Tensor:
    supply = open_batches(recipe)
    return torch.cat([supply.batch(number)[1] for number in range(count or recipe.steps)])


def assert_equal(one: tuple[Tensor, Tensor], other: tuple[Tensor, Tensor]) -> None:
    for part in range(2):
        assert torch.equal(one[part], other[part])


def test_a_batch_depends_on_its_number_and_the_seed_only(make_recipe: MakeRecipe) -> None:
    recipe = make_recipe(augmentation={"crop": 32, "paste": 0.5, "stuck": 0.5})
    cuts = cut_validation(recipe)
    supply, late = open_batches(recipe, cuts), open_batches(recipe, cuts)
    straight = [supply.batch(number) for number in range(10)]
    for number in (9, 2, 7, 2):  # in any order, and again
        assert_equal(late.batch(number), straight[number])
    assert not torch.equal(straight[0][0], straight[1][0])
    other = open_batches(recipe.model_copy(update={"seed": 99}), cuts)
    assert not torch.equal(other.batch(0)[0], straight[0][0])
    for image, mask in straight:
        assert image.shape == mask.shape == (2, 1, 32, 32)
        assert image.dtype == mask.dtype == torch.float32
        assert set(mask.unique().tolist()) <= {0.0, 1.0}


def test_processes_make_slices_of_one_batch(make_recipe: MakeRecipe) -> None:
    recipe = make_recipe(batch_size=6, augmentation={"crop": 32, "paste": 0.5})
    cuts = cut_validation(recipe)
    whole = open_batches(recipe, cuts).batch(4)
    for world in (2, 3):
        parts = [open_batches(recipe, cuts, rank, world).batch(4) for rank in range(world)]
        assert_equal((torch.cat([p[0] for p in parts]), torch.cat([p[1] for p in parts])), whole)


def test_a_batch_is_the_same_cut_all_at_once(make_recipe: MakeRecipe) -> None:
    """What a card does: one size of window for all, larger than most need."""
    recipe = make_recipe(batch_size=6, augmentation={"crop": 32, "paste": 0.5, "stuck": 0.5})
    supply = open_batches(recipe)
    one_by_one = supply.batch(3)
    supply._at_once = True
    at_once = supply.batch(3)
    torch.testing.assert_close(at_once[0], one_by_one[0], atol=1e-5, rtol=0)
    assert torch.equal(at_once[1], one_by_one[1])


def test_batches_are_equal_where_memory_is_short(
    make_recipe: MakeRecipe, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    recipe = make_recipe(augmentation={"crop": 32, "paste": 0.5})
    cuts = cut_validation(recipe)
    roomy = open_batches(recipe, cuts)
    assert not caplog.messages
    for free in (0.0, 2 * 3 * 64 * 64 * 5.0):  # for no frame, and for two or three
        monkeypatch.setattr(batches, "_free_memory", lambda free=free: free)
        filed = open_batches(recipe, cuts)
        assert any("kept in" in message for message in caplog.messages)
        for number in range(10):
            assert_equal(filed.batch(number), roomy.batch(number))


def test_the_file_of_frames_is_gone_when_they_are(
    make_recipe: MakeRecipe, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(batches, "_free_memory", lambda: 0.0)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    open_batches(make_recipe()).batch(0)
    assert not list(tmp_path.iterdir())


def test_each_training_frame_is_read_once(
    make_recipe: MakeRecipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = make_recipe(steps=30)
    cuts = cut_validation(recipe)
    read: list[int] = []
    pair = type(cuts[0].frames).pair
    monkeypatch.setattr(
        type(cuts[0].frames), "pair", lambda self, index: read.append(index) or pair(self, index)
    )
    supply = open_batches(recipe, cuts)
    for number in range(30):
        supply.batch(number)
    assert sorted(read) == cuts[0].training


class _FullCard:
    """Stands for CUDA with little room."""

    def __init__(self, free: int) -> None:
        self.free = free

    def __call__(self, _: torch.device) -> tuple[int, int]:
        return self.free, 2 * self.free


def test_frames_that_do_not_fit_on_a_card_stay_on_the_host(
    make_recipe: MakeRecipe, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    recipe = make_recipe()
    bank = collect_frames(recipe, cut_validation(recipe))
    monkeypatch.setattr("torch.cuda.mem_get_info", _FullCard(bank.size))
    card = torch.device("cuda")
    assert place_frames(bank, card) is bank
    (message,) = caplog.messages
    assert "stay in main memory" in message
    moved: list[torch.device] = []
    monkeypatch.setattr("torch.cuda.mem_get_info", _FullCard(2 * bank.size))
    monkeypatch.setattr(type(bank), "to", lambda self, device: moved.append(device) or self)
    place_frames(bank, card)
    assert moved == [card]
    place_frames(bank, torch.device("cpu"))
    assert moved == [card]


def test_weights_say_how_often_a_frame_is_drawn(tmp_path: Path, make_recipe: MakeRecipe) -> None:
    # 3 and 6 frames to train on, each frame of the first drawn 4 times as often: 12 to 6.
    folders = [
        write_folder(tmp_path / name, [texture(seed + i) for i in range(count + 1)])
        for name, seed, count in (("a", 0, 3), ("b", 50, 6))
    ]
    sets = [
        {"folder": str(folder), "split": "train", "weight": weight}
        for folder, weight in zip(folders, (4.0, 1.0), strict=True)
    ]
    recipe = make_recipe(data={"sets": sets, "validation": 0.01})
    bank = collect_frames(recipe, cut_validation(recipe))
    draws = (torch.arange(18000, dtype=torch.float64) + 0.5) / 18000
    counts = torch.searchsorted(bank.shares, draws, right=True).bincount(minlength=9)
    assert counts.tolist() == [4000] * 3 + [1000] * 6


def test_no_validation_frame_is_ever_drawn(tmp_path: Path, make_recipe: MakeRecipe) -> None:
    folder = write_folder(tmp_path / "d", [texture(i) for i in range(4)])
    recipe = make_recipe(data={"sets": [{"folder": str(folder), "split": "train"}]})
    (cut,) = cut_validation(recipe)
    # Targets are upright bars, in column 20 + the frame's number.
    bank = collect_frames(recipe, [cut])
    assert sorted(bank.points[:-1, 1].tolist()) == [20 + index for index in cut.training]
    assert not set(cut.training) & set(cut.validation)


@pytest.mark.parametrize(
    ("whole", "sets", "share"),
    [
        (True, (None, None), 1 / 2),
        (True, (False, None), 1 / 4),
        (False, (None, True), 1 / 4),
        (True, (False, False), 0),
    ],
)
def test_a_set_may_be_turned_or_not_whatever_the_others_are(
    tmp_path: Path,
    make_recipe: MakeRecipe,
    whole: bool,
    sets: tuple[bool | None, ...],
    share: float,
) -> None:
    data = [
        {"folder": str(write_folder(tmp_path / str(i), [texture(10 * i + j) for j in range(4)]))}
        | {"split": "train", "rotate": rotate}
        for i, rotate in enumerate(sets)
    ]
    augmentation = {"crop": 48, "target_bias": 1.0, "scale_share": 0.0, "rotate": whole}
    recipe = make_recipe(
        steps=50, batch_size=8, augmentation=augmentation, data={"sets": data, "validation": 0.25}
    )
    # Targets are upright bars of three pixels.
    masks = masks_of(recipe)
    lying = (masks.sum(dim=-1).amax(dim=(1, 2)) == 3).float().mean().item()
    assert lying == pytest.approx(share, abs=0.1 if share else 0)
    turned = [recipe.augmentation_of(each).rotate for each in recipe.data.sets]
    assert all(turned) is (share == 1 / 2)


def test_a_set_may_be_shown_at_its_own_scale_whatever_the_others_are(
    tmp_path: Path, make_recipe: MakeRecipe
) -> None:
    data = [
        {"folder": str(write_folder(tmp_path / str(i), [texture(10 * i + j) for j in range(4)]))}
        | {"split": "train", "scale_share": share}
        for i, share in enumerate((0.0, None))
    ]
    augmentation = {"crop": 48, "target_bias": 1.0, "scale": [2, 2], "rotate": False}
    recipe = make_recipe(
        steps=50, batch_size=8, augmentation=augmentation, data={"sets": data, "validation": 0.25}
    )
    # Targets are upright bars of three pixels: of six in views at twice their scale.
    masks = masks_of(recipe)
    heights = masks.sum(dim=-2).amax(dim=(1, 2))
    assert (heights == 3).float().mean().item() == pytest.approx(0.5, abs=0.1)
    assert (heights > 3).float().mean().item() == pytest.approx(0.5, abs=0.1)


def test_pasted_targets_come_in(make_recipe: MakeRecipe) -> None:
    whole = {"crop": 64, "target_bias": 0.0, "scale_share": 0.0}
    counts = []
    for paste in (0.0, 1.0):
        masks = masks_of(make_recipe(steps=40, augmentation=whole | {"paste": paste}))
        counts.append(sum(ndimage.label(mask[0], np.ones((3, 3)))[1] for mask in masks))
    assert counts[1] > 1.5 * counts[0]


def test_views_of_a_target_beside_its_own_centroid_show_it(
    tmp_path: Path, make_recipe: MakeRecipe
) -> None:
    # Two pixels that touch at a corner: their centroid rounds to neither of them.
    folder = write_folder(tmp_path / "d", [texture(seed) for seed in range(4)])
    for path in (folder / "masks").iterdir():
        mask = np.zeros((64, 64), dtype=np.uint8)
        mask[30, 31] = mask[31, 30] = 255
        Image.fromarray(mask).save(path)
    augmentation = {"crop": 48, "scale": [0.6, 0.8], "scale_share": 1.0, "target_bias": 1.0}
    sets = [{"folder": str(folder), "split": "train"}]
    recipe = make_recipe(augmentation=augmentation, data={"sets": sets})
    assert masks_of(recipe, 20).flatten(1).any(dim=1).all()


def test_phases_change_views_at_their_share_of_the_steps(make_recipe: MakeRecipe) -> None:
    phases: list[dict[str, Any]] = [
        {"share": 0.7, "batch_size": 4, "target_bias": 1.0},
        {"share": 0.3, "crop": 64},
    ]
    recipe = make_recipe(steps=10, phases=phases)
    supply = open_batches(recipe)
    shapes = [supply.batch(number)[0].shape for number in range(10)]
    assert shapes == [(4, 1, 32, 32)] * 7 + [(2, 1, 64, 64)] * 3
    assert recipe.phase_at(0).augmentation.target_bias == 1.0
    assert recipe.phase_at(9).augmentation.target_bias == recipe.augmentation.target_bias
    with pytest.raises(RecipeError, match=r"phases: the shares add up to 0\.9"):
        make_recipe(phases=[{"share": 0.6}, {"share": 0.3}])


def test_each_target_has_a_pixel_of_its_own() -> None:
    mask = np.zeros((20, 20), dtype=np.bool_)
    mask[4:13, 4:13] = True
    mask[5:12, 5:12] = False  # a ring
    mask[8, 8] = mask[1, 2] = mask[2, 1] = True  # a dot at its center, and two pixels at a corner
    labels, count = label_targets(mask)
    corners = pixels_of_targets(mask)
    assert sorted(labels[tuple(corners.T)]) == list(range(1, count + 1))
    assert [8, 8] in corners.tolist()
