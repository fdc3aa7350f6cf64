from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from folders import texture, write_folder
from pinglow.data.duplicates import group_near_duplicates
from pinglow.data.folder import FrameFolder
from pinglow.errors import DataError
from pinglow.training.recipe import Recipe
from pinglow.training.splits import cut_validation

MakeRecipe = Callable[..., Recipe]


def recipe_on(
    make_recipe: MakeRecipe, *folders: Path, validation: float = 0.25, **changes: str
) -> Recipe:
    sets = [{"folder": str(folder), "split": "train", **changes} for folder in folders]
    return make_recipe(data={"sets": sets, "validation": validation})


@pytest.mark.parametrize("seed", range(2))
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
