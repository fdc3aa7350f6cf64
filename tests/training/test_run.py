from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from PIL import Image

from pinglow.errors import DataError, RecipeError
from pinglow.models.card import ModelCard
from pinglow.training.curves import draw_curves, read_rows
from pinglow.training.recipe import Recipe
from pinglow.training.recipe_file import load_recipe
from pinglow.training.run import RunKeeper, check_run, claim_run, describe_run
from pinglow.training.splits import cut_validation

MakeRecipe = Callable[..., Recipe]


def test_a_new_folder_is_neither_made_nor_refused(tmp_path: Path, make_recipe: MakeRecipe) -> None:
    check_run(tmp_path / "runs" / "new", make_recipe(), resume=False)
    assert not (tmp_path / "runs").exists()
    check_run(tmp_path, make_recipe(), resume=False)  # there, but no run in it


def test_a_run_is_described_by_recipe_and_lists(tmp_path: Path, make_recipe: MakeRecipe) -> None:
    recipe = make_recipe()
    cuts = cut_validation(recipe)
    describe_run(tmp_path / "run", recipe, cuts, resume=False)
    assert load_recipe(tmp_path / "run" / "recipe.toml") == recipe
    lists = {
        part: (tmp_path / "run" / "splits" / f"scenes.{part}.txt").read_text().splitlines()
        for part in ("training", "validation")
    }
    assert sorted(lists["training"] + lists["validation"]) == sorted(cuts[0].frames.names)
    assert lists["validation"] == [cuts[0].frames.names[i] for i in cuts[0].validation]


def test_a_run_is_not_overwritten(tmp_path: Path, make_recipe: MakeRecipe) -> None:
    recipe = make_recipe()
    describe_run(tmp_path, recipe, [], resume=False)
    (tmp_path / "last.ckpt").touch()
    with pytest.raises(RecipeError, match="holds a run already; add --resume"):
        check_run(tmp_path, recipe, resume=False)
    with pytest.raises(RecipeError, match="is a file"):
        check_run(tmp_path / "last.ckpt", recipe, resume=False)


def test_only_a_saved_run_is_resumed_and_by_its_own_recipe(
    tmp_path: Path, make_recipe: MakeRecipe
) -> None:
    recipe = make_recipe()
    for stored in ("nothing", "a recipe"):
        if stored == "a recipe":
            describe_run(tmp_path, recipe, [], resume=False)
        with pytest.raises(RecipeError, match="no saved run to go on with"):
            check_run(tmp_path, recipe, resume=True)
    (tmp_path / "last.ckpt").touch()
    check_run(tmp_path, recipe, resume=True)
    with pytest.raises(RecipeError, match=r"recipe\.toml differs .* resume with .*recipe\.toml"):
        check_run(tmp_path, make_recipe(seed=4), resume=True)


def test_a_resumed_run_needs_the_same_frames(tmp_path: Path, make_recipe: MakeRecipe) -> None:
    recipe = make_recipe()
    cuts = cut_validation(recipe)
    describe_run(tmp_path, recipe, cuts, resume=False)
    describe_run(tmp_path, recipe, cuts, resume=True)
    changed = [replace(cuts[0], training=cuts[0].training[1:])]
    with pytest.raises(DataError, match="scenes has changed since the run began"):
        describe_run(tmp_path, recipe, changed, resume=True)


def test_a_set_without_targets_has_no_curve(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "metrics.csv").write_text(
        "step,minutes,train_loss,a_iou,a_pd,empty_iou,empty_pd\n5,0.5,0.9,0.2,0.5,0.0,\n"
    )
    drawn: list[str] = []
    monkeypatch.setattr("matplotlib.axes.Axes.plot", lambda *_, label="", **__: drawn.append(label))
    monkeypatch.setattr("matplotlib.axes.Axes.legend", lambda *_: None)
    draw_curves(tmp_path, "iou")
    assert drawn == ["a", ""]


def test_curves_are_drawn_with_what_is_there(tmp_path: Path) -> None:
    (tmp_path / "metrics.csv").write_text(
        "step,minutes,learning_rate,train_loss,val_score,a_iou,a_pd,b_iou,b_pd\n"
        "5,0.5,0.1,0.9,0.2,0.2,,,\n"
        "10,1.0,0.1,0.7,0.4,0.4,0.5,,\n"
    )
    draw_curves(tmp_path, "iou")
    with Image.open(tmp_path / "curves.png") as image:
        assert image.width > 2 * image.height
        assert len(image.convert("RGB").getcolors(100_000)) > 10


def test_the_best_is_kept_and_of_equal_ones_the_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept: list[int] = []
    monkeypatch.setattr("pinglow.training.run.save_model", lambda *_: kept.append(step))
    for name in ("_append_row", "_finished_card", "save"):
        monkeypatch.setattr(RunKeeper, name, lambda *_: None)
    monkeypatch.setattr("pinglow.training.run.draw_curves", lambda *_: None)
    keeper = RunKeeper(tmp_path, ModelCard(name="x", network={}, parameters=0))
    task: Any = SimpleNamespace(trained_network=None, figures=("iou",))
    optimizer: Any = None
    for step, score in enumerate((0.0, 0.0, 0.5, 0.4, 0.5, 0.499)):
        task.score = score
        keeper.keep(task, optimizer, step, 0.1)
    assert kept == [0, 1, 2, 4]
    assert keeper.best == 0.5


def test_rows_are_kept_whatever_a_folder_is_called(
    tmp_path: Path,
) -> None:
    path = tmp_path / "metrics.csv"
    head = 'step,minutes,train_loss,"my,frames_iou"\n2,1,1,0.5\n4,1,1,0.6\n'
    path.write_text(head + "6,1,1,0.7\n8")
    card = ModelCard(name="x", network={}, parameters=0)
    RunKeeper(tmp_path, card)._drop_rows_after(4)
    assert path.read_text() == head


@pytest.mark.parametrize(
    "content",
    [
        b"step,minutes,train_loss\n1,1," + b"9" * 200_000 + b"\n",
        b"step,minutes,train_loss\n" + b"9" * 5000 + b",1,1\n",
        b"step,minutes,train_loss\none,1,1\n",
        b"minutes,train_loss\n1,1\n",
        b"step,minutes,train_loss\n\xff,1,1\n",
    ],
    ids=["a huge field", "a huge step", "no number", "no step", "other bytes"],
)
def test_a_table_of_another_kind_is_one_sentence(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "metrics.csv").write_bytes(content)
    with pytest.raises(DataError, match=r"metrics\.csv is not a table that pinglow train"):
        read_rows(tmp_path / "metrics.csv")


def test_a_start_that_failed_does_not_block_the_next(
    tmp_path: Path, make_recipe: MakeRecipe
) -> None:
    recipe = make_recipe()
    cuts = cut_validation(recipe)
    describe_run(tmp_path, recipe, cuts, resume=False)
    (tmp_path / "splits" / "left.txt").touch()
    (tmp_path / "mine.txt").touch()
    check_run(tmp_path, recipe, resume=False)
    describe_run(tmp_path, recipe, cuts, resume=False)
    assert not (tmp_path / "splits" / "left.txt").exists()
    assert (tmp_path / "mine.txt").exists()


def test_two_do_not_train_into_one_folder(tmp_path: Path) -> None:
    with (
        claim_run(tmp_path),
        pytest.raises(RecipeError, match="another process is training into"),
        claim_run(tmp_path),
    ):
        pass
    with claim_run(tmp_path):
        pass
