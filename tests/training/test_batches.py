from __future__ import annotations

import itertools
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from pinglow.data.datasets import FrameFolder
from pinglow.data.duplicates import group_near_duplicates
from pinglow.data.transforms import Augmentation
from pinglow.errors import DataError
from pinglow.structures import label_targets
from pinglow.training import batches
from pinglow.training.batches import TrainingBatches, cut_validation
from pinglow.training.recipe import Recipe

MakeRecipe = Callable[..., Recipe]


def texture(seed: int, side: int = 64) -> NDArray[np.uint8]:
    """A scene of its own: unrelated seeds never look alike."""
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=(side, side)), 1.5)
    return ((noise - noise.min()) / np.ptp(noise) * 200).astype(np.uint8)


def write_folder(folder: Path, frames: list[NDArray[np.uint8]], names: str = "f") -> Path:
    for part in ("images", "masks"):
        (folder / part).mkdir(parents=True)
    for index, frame in enumerate(frames):
        mask = np.zeros(frame.shape, dtype=np.uint8)
        mask[10:13, 20 + index] = 255
        Image.fromarray(frame).save(folder / "images" / f"{names}{index}.png")
        Image.fromarray(mask).save(folder / "masks" / f"{names}{index}.png")
    (folder / "train.txt").write_text("".join(f"{names}{i}\n" for i in range(len(frames))))
    return folder


def recipe_on(
    make_recipe: MakeRecipe, *folders: Path, validation: float = 0.25, **changes: str
) -> Recipe:
    sets = [{"folder": str(folder), "split": "train", **changes} for folder in folders]
    return make_recipe(data={"sets": sets, "validation": validation})


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("validation", [0.05, 0.3, 0.8])
def test_a_cut_covers_the_list_and_never_splits_a_group(
    tmp_path: Path, make_recipe: MakeRecipe, seed: int, validation: float
) -> None:
    # Sequences of 1 to 5 frames: one scene with changing noise.
    rng = np.random.default_rng(seed)
    frames = []
    for scene in range(8):
        for _ in range(rng.integers(1, 6)):
            noisy = texture(100 * seed + scene) + rng.normal(0, 3, (64, 64))
            frames.append(noisy.clip(0, 255).astype(np.uint8))
    recipe = recipe_on(make_recipe, write_folder(tmp_path / "d", frames), validation=validation)
    recipe = recipe.model_copy(update={"seed": seed})
    (cut,) = cut_validation(recipe)
    assert sorted(cut.training + cut.validation) == list(range(len(frames)))
    assert cut.training
    assert cut.validation
    groups = group_near_duplicates(frames)
    assert len(set(groups)) == 8
    assert not set(groups[cut.training]) & set(groups[cut.validation])
    assert len(cut.validation) <= max(1, round(validation * len(frames)), np.bincount(groups).min())
    (again,) = cut_validation(recipe)
    assert (again.training, again.validation) == (cut.training, cut.validation)


def test_the_seed_chooses_the_cut(tmp_path: Path, make_recipe: MakeRecipe) -> None:
    recipe = recipe_on(make_recipe, write_folder(tmp_path / "d", [texture(i) for i in range(20)]))
    cuts = {
        tuple(cut_validation(recipe.model_copy(update={"seed": seed}))[0].validation)
        for seed in range(5)
    }
    assert len(cuts) > 1


@pytest.mark.parametrize("count", [2, 3, 5])
@pytest.mark.parametrize("validation", [0.01, 0.5, 0.99])
def test_tiny_folders_have_a_frame_for_each_purpose(
    tmp_path: Path, make_recipe: MakeRecipe, count: int, validation: float
) -> None:
    folder = write_folder(tmp_path / "d", [texture(i) for i in range(count)])
    (cut,) = cut_validation(recipe_on(make_recipe, folder, validation=validation))
    assert cut.training
    assert cut.validation


def test_a_group_larger_than_the_share_is_taken_if_there_is_no_smaller(
    tmp_path: Path, make_recipe: MakeRecipe
) -> None:
    frames = [texture(0)] * 2 + [texture(1)] * 3
    (cut,) = cut_validation(recipe_on(make_recipe, write_folder(tmp_path / "d", frames)))
    assert (cut.training, cut.validation) == ([2, 3, 4], [0, 1])


def test_a_list_for_validation_takes_the_place_of_a_cut(
    tmp_path: Path, make_recipe: MakeRecipe
) -> None:
    folder = write_folder(tmp_path / "d", [texture(i) for i in range(5)])
    names = FrameFolder(folder, "train").names
    (folder / "few.txt").write_text("\n".join(names[:3]))
    (folder / "val.txt").write_text("\n".join(names[3:]))
    recipe = recipe_on(make_recipe, folder, split="few", validation_split="val")
    (cut,) = cut_validation(recipe)
    assert [cut.frames.names[index] for index in cut.training] == names[:3]
    assert [cut.validation_frames.names[index] for index in cut.validation] == names[3:]
    shared = recipe_on(make_recipe, folder, split="train", validation_split="val")
    with pytest.raises(DataError, match="trained on and validated with"):
        cut_validation(shared)


@pytest.mark.parametrize("count", [1, 4])
def test_frames_of_one_scene_only_are_refused(
    tmp_path: Path, make_recipe: MakeRecipe, count: int
) -> None:
    folder = write_folder(tmp_path / "d", [texture(0)] * count)
    with pytest.raises(DataError, match=r"'train' of .*d has only near-duplicates"):
        cut_validation(recipe_on(make_recipe, folder))


def test_masks_without_any_target_are_told(
    tmp_path: Path, make_recipe: MakeRecipe, caplog: pytest.LogCaptureFixture
) -> None:
    frames = [texture(seed) for seed in range(4)]
    folder, free = (write_folder(tmp_path / name, frames, name) for name in "de")
    for path in (free / "masks").iterdir():
        Image.fromarray(np.zeros((64, 64), dtype=np.uint8)).save(path)
    cut_validation(recipe_on(make_recipe, free))
    assert re.search(r"no frame of .*e has a target", caplog.messages[0])
    for path in (free / "images").iterdir():  # no copies of the other folder's
        Image.fromarray(texture(9 + int(path.stem[-1]))).save(path)
    cut_validation(recipe_on(make_recipe, folder, free))
    assert len(caplog.messages) == 1  # beside others they may


def test_a_frame_in_two_data_sets_is_refused(tmp_path: Path, make_recipe: MakeRecipe) -> None:
    folder = write_folder(tmp_path / "d", [texture(i) for i in range(4)])
    (folder / "val.txt").write_text("f3\n")
    sets = [{"folder": str(folder), "split": split} for split in ("train", "val")]
    with pytest.raises(
        DataError, match=r"'f3' of .* is in data sets 1 \('train'\) and 2 \('val'\)"
    ):
        cut_validation(make_recipe(data={"sets": sets}))


def test_folders_of_one_name_are_told_apart(tmp_path: Path, make_recipe: MakeRecipe) -> None:
    folders = [
        write_folder(tmp_path / str(at) / "d", [texture(10 * at + i) for i in range(3)])
        for at in range(2)
    ]
    cuts = cut_validation(recipe_on(make_recipe, *folders))
    assert [cut.name for cut in cuts] == ["d", "d-2"]


def test_a_batch_depends_on_its_number_and_the_seed_only(make_recipe: MakeRecipe) -> None:
    recipe = make_recipe(steps=10)
    cuts = cut_validation(recipe)
    straight = list(TrainingBatches(recipe, cuts))
    assert len(straight) == 10
    late = TrainingBatches(recipe, cuts, start=7)
    assert len(list(late)) == 3
    for number in (9, 2, 7, 2):  # in any order, and again
        for part in range(2):
            assert torch.equal(late.batch(number)[part], straight[number][part])
    assert not torch.equal(straight[0][0], straight[1][0])
    other = TrainingBatches(recipe.model_copy(update={"seed": 99}), cuts)
    assert not torch.equal(other.batch(0)[0], straight[0][0])
    for image, mask in straight:
        assert image.shape == mask.shape == (2, 1, 32, 32)
        assert image.dtype == mask.dtype == torch.float32
        assert set(mask.unique().tolist()) <= {0.0, 1.0}


def test_batches_are_equal_where_memory_is_short(
    make_recipe: MakeRecipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = make_recipe()
    cuts = cut_validation(recipe)
    roomy = list(TrainingBatches(recipe, cuts))
    for free in (0.0, 2 * 3 * 64 * 64 * 5.0):  # for no frame, and for two or three
        monkeypatch.setattr(batches, "_free_memory", lambda free=free: free)
        for one, other in zip(TrainingBatches(recipe, cuts), roomy, strict=True):
            assert torch.equal(one[0], other[0])
            assert torch.equal(one[1], other[1])


def test_a_frame_is_read_once_where_memory_is_long(
    make_recipe: MakeRecipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = make_recipe(steps=30)
    cuts = cut_validation(recipe)
    read: list[int] = []
    pair = type(cuts[0].frames).pair
    monkeypatch.setattr(
        type(cuts[0].frames), "pair", lambda self, index: read.append(index) or pair(self, index)
    )
    list(TrainingBatches(recipe, cuts))
    assert sorted(read) == cuts[0].training


def test_weights_say_how_often_a_frame_is_drawn(tmp_path: Path, make_recipe: MakeRecipe) -> None:
    # 3 and 6 frames to train on, each frame of the first drawn 4 times as often: 12 to 6.
    folders = [
        write_folder(tmp_path / name, [texture(seed + i) // low for i in range(count + 1)])
        for name, seed, count, low in (("a", 0, 3, 1), ("b", 50, 6, 1))
    ]
    sets = [
        {"folder": str(folder), "split": "train", "weight": weight}
        for folder, weight in zip(folders, (4.0, 1.0), strict=True)
    ]
    recipe = make_recipe(steps=150, batch_size=8, data={"sets": sets, "validation": 0.01})
    supply = TrainingBatches(recipe, cut_validation(recipe))
    drawn: list[int] = []
    load = supply._load
    supply._load = lambda index: drawn.append(index) or load(index)  # type: ignore[method-assign]
    list(supply)
    counts = np.bincount(drawn, minlength=9)
    expected = np.array([4] * 3 + [1] * 6) / 18 * len(drawn)
    assert len(drawn) == 1200
    np.testing.assert_allclose(counts, expected, atol=4 * np.sqrt(expected).max())
    assert counts[:3].sum() / len(drawn) == pytest.approx(2 / 3, abs=0.06)


def test_no_validation_frame_is_ever_drawn(make_recipe: MakeRecipe) -> None:
    recipe = make_recipe()
    (cut,) = cut_validation(recipe)
    supply = TrainingBatches(recipe, [cut])
    assert [index for _, index in supply._frames] == cut.training
    assert not set(cut.training) & set(cut.validation)


def test_a_list_may_have_its_own_share_of_validation(
    tmp_path: Path, make_recipe: MakeRecipe
) -> None:
    folders = [
        write_folder(tmp_path / name, [texture(start + seed) for seed in range(10)])
        for name, start in (("a", 0), ("b", 100))
    ]
    sets = [{"folder": str(folder)} for folder in folders]
    sets = [entry | {"split": "train"} for entry in sets]
    sets[1] |= {"validation": 0.5}
    cuts = cut_validation(make_recipe(data={"sets": sets, "validation": 0.2}))
    assert [len(cut.validation) for cut in cuts] == [2, 5]


def test_cuts_of_folders_of_one_name_are_told_apart(
    tmp_path: Path, make_recipe: MakeRecipe
) -> None:
    places = [tmp_path / "k" / "x-2", tmp_path / "k" / "x", tmp_path / "l" / "x"]
    folders = [
        write_folder(place, [texture(20 * number + seed) for seed in range(4)])
        for number, place in enumerate(places)
    ]
    cuts = cut_validation(recipe_on(make_recipe, *folders))
    assert [cut.name for cut in cuts] == ["x-2", "x", "x-3"]


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
    masks = torch.cat([masks for _, masks in TrainingBatches(recipe, cut_validation(recipe))])
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
    masks = torch.cat([masks for _, masks in TrainingBatches(recipe, cut_validation(recipe))])
    heights = masks.sum(dim=-2).amax(dim=(1, 2))
    assert (heights == 3).float().mean().item() == pytest.approx(0.5, abs=0.1)
    assert (heights > 3).float().mean().item() == pytest.approx(0.5, abs=0.1)


def test_pasted_targets_come_in_and_leave_the_frames_as_they_were(
    make_recipe: MakeRecipe,
) -> None:
    whole = {"crop": 64, "target_bias": 0.0, "scale_share": 0.0}
    plain = make_recipe(steps=40, augmentation=whole)
    cuts = cut_validation(plain)
    pasting = make_recipe(steps=40, augmentation=whole | {"paste": 1.0})
    batches_ = TrainingBatches(pasting, cuts)
    without = [TrainingBatches(plain, cuts).batch(n)[1] for n in range(40)]
    with_pasted = [batches_.batch(n)[1] for n in range(40)]
    counts = [
        sum(ndimage.label(mask[0], np.ones((3, 3)))[1] for batch in masks for mask in batch)
        for masks in (without, with_pasted)
    ]
    assert counts[1] > 1.5 * counts[0]
    again = [batches_.batch(n)[1] for n in range(40)]
    assert all(torch.equal(a, b) for a, b in zip(with_pasted, again, strict=True))


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
    recipe = recipe_on(make_recipe, folder).model_copy(
        update={"augmentation": Augmentation.model_validate(augmentation)}
    )
    for _, truth in itertools.islice(TrainingBatches(recipe, cut_validation(recipe)), 20):
        assert truth.flatten(1).any(dim=1).all()


def test_each_target_has_a_pixel_of_its_own() -> None:
    mask = np.zeros((20, 20), dtype=np.bool_)
    mask[4:13, 4:13] = True
    mask[5:12, 5:12] = False  # a ring
    mask[8, 8] = mask[1, 2] = mask[2, 1] = True  # a dot at its centre, and two pixels at a corner
    labels, count = label_targets(mask)
    corners = batches._pixels_of_targets(mask)
    assert sorted(labels[tuple(corners.T)]) == list(range(1, count + 1))
    assert [8, 8] in corners.tolist()
