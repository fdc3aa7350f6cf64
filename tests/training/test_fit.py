"""Whole runs of a tiny network: what they leave, and that an interruption changes nothing."""

from __future__ import annotations

import csv
import errno
import os
import shutil
import signal
import tomllib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from torch.nn.modules.module import register_module_forward_hook

from pinglow.data.digests import digest_frame
from pinglow.data.folder import FrameFolder
from pinglow.data.pack.writer import write_pack
from pinglow.errors import DataError, ModelError, OptionError, RecipeError
from pinglow.inference.predictor import Predictor
from pinglow.models.card import ModelCard, read_card
from pinglow.training.batches import TrainingBatches
from pinglow.training.checkpoint import load_checkpoint, save_checkpoint
from pinglow.training.fit import Machine, train, warn_of_known_frames
from pinglow.training.gain import Gain
from pinglow.training.loop import Deadline, count_steps
from pinglow.training.processes import World
from pinglow.training.recipe import DataSet, Recipe
from pinglow.training.recipe_file import load_recipe, parse_recipe
from pinglow.training.run import TrainingInterruptedError
from pinglow.training.segmentation import SegmentationTask
from pinglow.training.splits import Cut
from pinglow.training.step import Step

MakeRecipe = Callable[..., Recipe]
LOSS: dict[str, Any] = {
    "warmup_steps": 20,
    "terms": [
        {"name": "scale", "options": {"variant": "diff"}},
        {"name": "bce", "weight": 5.0},
    ],
}
AT: dict[int, Callable[[], object]] = {}
"""What happens while batch number n is made."""


@pytest.fixture(autouse=True)
def _events(monkeypatch: pytest.MonkeyPatch) -> None:
    AT.clear()
    make = TrainingBatches.batch

    def batch(self: TrainingBatches, number: int) -> Any:
        AT.pop(number, lambda: None)()
        return make(self, number)

    monkeypatch.setattr(TrainingBatches, "batch", batch)


def recipe_with(make_recipe: MakeRecipe, optimizer: str) -> Recipe:
    return make_recipe(
        optimizer={"name": optimizer, "learning_rate": 0.01},
        loss={"terms": [{"name": "scale", "options": {"variant": "diff", "location": True}}]},
    )


@pytest.fixture(scope="module")
def finished(make_recipe: MakeRecipe, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Return an uninterrupted run with each optimizer."""
    folder = tmp_path_factory.mktemp("finished")
    for optimizer in ("adamw", "adagrad"):
        train(recipe_with(make_recipe, optimizer), folder / optimizer, progress=False)
    return {optimizer: folder / optimizer for optimizer in ("adamw", "adagrad")}


def rows(run: Path) -> list[dict[str, str]]:
    with (run / "metrics.csv").open(newline="") as file:
        return [{k: v for k, v in row.items() if k != "minutes"} for row in csv.DictReader(file)]


def assert_equal(one: Any, other: Any, place: str = "") -> None:
    assert type(one) is type(other), place
    if isinstance(one, torch.Tensor):
        assert torch.equal(one, other), place
    elif isinstance(one, dict):
        assert one.keys() == other.keys(), place
        for key in one:
            assert_equal(one[key], other[key], f"{place}.{key}")
    elif isinstance(one, list | tuple):
        assert len(one) == len(other), place
        for index, pair in enumerate(zip(one, other, strict=True)):
            assert_equal(*pair, f"{place}.{index}")
    else:
        assert one == other, place


def assert_same_run(run: Path, other: Path) -> None:
    one, two = (load_checkpoint(path / "last.ckpt") for path in (run, other))
    for key in ("global_step", "task", "optimizer"):
        assert_equal(one[key], two[key], key)
    assert_equal(*(load_file(path / "weights.safetensors") for path in (run, other)))
    assert rows(run) == rows(other)


@pytest.mark.parametrize(
    ("optimizer", "batch", "number"),
    [
        # The step of batch 4 is followed by a validation.
        ("adamw", 0, signal.SIGTERM),
        ("adamw", 2, signal.SIGINT),
        ("adamw", 4, signal.SIGTERM),
        ("adamw", 5, signal.SIGINT),
        ("adamw", 7, signal.SIGTERM),
        ("adagrad", 6, signal.SIGINT),
    ],
)
@pytest.mark.usefixtures("no_curves")
def test_a_run_stopped_by_a_signal_goes_on_to_the_same_result(
    make_recipe: MakeRecipe,
    finished: dict[str, Path],
    tmp_path: Path,
    optimizer: str,
    batch: int,
    number: int,
) -> None:
    run = tmp_path / "a run"
    whole = finished[optimizer]
    before = [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)]
    AT[batch] = lambda: os.kill(os.getpid(), number)
    with pytest.raises(TrainingInterruptedError) as raised:
        train(recipe_with(make_recipe, optimizer), run, progress=False)
    assert raised.value.signal_number == number
    assert f"pinglow train --resume '{run}'" in str(raised.value)
    assert "everything is saved" in str(raised.value)
    assert [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)] == before
    step = load_checkpoint(run / "last.ckpt")["global_step"]
    assert step == batch + 1  # the step that it came in is done
    assert f"stopped at step {step}," in str(raised.value)
    train(load_recipe(run / "recipe.toml"), run, resume=True, progress=False)
    assert_same_run(run, whole)


@pytest.mark.usefixtures("no_curves")
def test_a_pack_trains_as_its_folder_does(
    make_recipe: MakeRecipe, scenes: Path, finished: dict[str, Path], tmp_path: Path
) -> None:
    write_pack([scenes], tmp_path / "frames.pack")
    recipe = recipe_with(make_recipe, "adamw")
    data = recipe.data.model_copy(update={"root": str(tmp_path / "frames.pack")})
    train(recipe.model_copy(update={"data": data}), tmp_path / "run", progress=False)
    assert_same_run(tmp_path / "run", finished["adamw"])
    stored = tomllib.loads((tmp_path / "run" / "recipe.toml").read_text())
    assert stored["data"]["root"] == str(tmp_path / "frames.pack")
    one, other = (
        read_card(run / "weights.safetensors").data for run in (tmp_path / "run", finished["adamw"])
    )
    assert one == other


@pytest.mark.usefixtures("no_curves")
def test_a_run_stopped_again_and_again_goes_on_to_the_same_result(
    make_recipe: MakeRecipe, finished: dict[str, Path], tmp_path: Path
) -> None:
    recipe, run = recipe_with(make_recipe, "adamw"), tmp_path / "run"
    for resume, batch in ((False, 1), (True, 3), (True, 5), (True, 8)):
        AT[batch] = lambda: os.kill(os.getpid(), signal.SIGTERM)
        with pytest.raises(TrainingInterruptedError):
            train(recipe, run, resume=resume, progress=False)
    train(recipe, run, resume=True, progress=False)
    assert_same_run(run, finished["adamw"])


class PowerCutError(Exception):
    pass


def cut_power() -> None:
    raise PowerCutError


@pytest.mark.parametrize("line", ["", "10,0.1,0.0", "1", "10,0.1,0.002,0.9,0.1,0.1,0.1,0.1,0.1\n"])
@pytest.mark.usefixtures("no_curves")
def test_a_run_that_died_goes_on_from_its_last_checkpoint(
    make_recipe: MakeRecipe, finished: dict[str, Path], tmp_path: Path, line: str
) -> None:
    recipe, run = recipe_with(make_recipe, "adamw"), tmp_path / "run"
    AT[8] = cut_power
    with pytest.raises(PowerCutError):
        train(recipe, run, progress=False)
    with (run / "metrics.csv").open("a") as file:
        file.write(line)  # as much of the next row as was written
    train(recipe, run, resume=True, progress=False)
    assert_same_run(run, finished["adamw"])


@pytest.mark.usefixtures("no_curves")
def test_a_run_that_died_before_its_first_checkpoint_is_begun_anew(
    make_recipe: MakeRecipe, tmp_path: Path
) -> None:
    recipe, run = make_recipe(), tmp_path / "run"
    AT[2] = cut_power
    with pytest.raises(PowerCutError):
        train(recipe, run, progress=False)
    with pytest.raises(RecipeError, match="no saved run"):
        train(recipe, run, resume=True, progress=False)
    train(recipe, run, progress=False)
    assert (run / "last.ckpt").exists()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("CUDA error: out of memory", OptionError),
        ("cuDNN error: CUDNN_STATUS_ALLOC_FAILED", OptionError),
        ("an illegal memory access was encountered", RuntimeError),
    ],
)
def test_a_run_without_memory_says_what_to_do(
    make_recipe: MakeRecipe,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    text: str,
    expected: type[Exception],
) -> None:
    def fail(*_: Any) -> int:
        raise RuntimeError(text)

    monkeypatch.setattr("pinglow.training.fit.run_steps", fail)
    with pytest.raises(
        expected, match="use a smaller batch_size" if expected is OptionError else text
    ):
        train(make_recipe(), tmp_path / "run", progress=False)


def test_a_run_folder_is_complete(
    make_recipe: MakeRecipe, finished: dict[str, Path], scenes: Path
) -> None:
    run, recipe = finished["adamw"], recipe_with(make_recipe, "adamw")
    assert {path.name for path in run.iterdir()} == {
        "recipe.toml", "splits", "metrics.csv", "curves.png", "weights.safetensors",
        "last.ckpt", "tensorboard", "validation.png", ".lock",
    }  # fmt: skip
    assert load_recipe(run / "recipe.toml") == recipe
    assert [row["step"] for row in rows(run)] == ["5", "10"]
    (events,) = (run / "tensorboard").glob("events.*")
    for tag in (b"train/loss", b"val/score", b"val/scenes/iou"):
        assert tag in events.read_bytes()
    card = read_card(run / "weights.safetensors")
    assert card.name == "tiny"
    assert card.network["widths"] == [4, 8]
    assert card.input_rule == recipe.input_rule
    assert card.upright is not recipe.augmentation_of(recipe.data.sets[0]).rotate
    assert parse_recipe(tomllib.loads(card.recipe), "card") == recipe
    (data,) = card.data
    assert (data["name"], data["split"], data["license"]) == (
        "scenes", "train", "not known to pinglow",
    )  # fmt: skip
    assert data["frames"] + data["held out for validation"] == len(FrameFolder(scenes, "train"))
    all_frames = FrameFolder(scenes, "train")
    digests = [digest_frame(all_frames.frame(index)) for index in range(len(all_frames))]
    assert card.count_known(digests) == data["frames"]
    assert card.training["steps"] == 10
    assert card.training["best_step"] in (5, 10)
    assert card.training["minutes"] >= 0
    (score,) = card.scores
    best = next(row for row in rows(run) if row["step"] == str(card.training["best_step"]))
    assert f"{score['iou']}" == best["scenes_iou"]
    assert score["images"] == data["held out for validation"]


def test_the_weights_predict_what_was_validated(
    make_recipe: MakeRecipe, finished: dict[str, Path], scenes: Path
) -> None:
    run = finished["adamw"]
    predictor = Predictor.load(run / "weights.safetensors", backend="torch")
    frames = FrameFolder(scenes, str(run / "splits" / "scenes.validation.txt"))
    shared = union = 0
    for index in range(len(frames)):
        frame, mask = frames.pair(index)
        found = predictor(frame).mask
        shared += (found & mask).sum()
        union += (found | mask).sum()
    best = max(float(row["val_score"]) for row in rows(run))
    assert (shared / union if union else 0.0) == pytest.approx(best, abs=1e-6)


@pytest.mark.parametrize("precision", ["auto", "bfloat16"])
@pytest.mark.usefixtures("no_curves")
def test_a_network_learns(make_recipe: MakeRecipe, tmp_path: Path, precision: str) -> None:
    recipe = make_recipe(
        precision=precision,
        steps=120,
        batch_size=4,
        validate_every=40,
        network={"widths": [8, 16]},
        loss=LOSS,
        optimizer={"learning_rate": 0.02, "warmup_steps": 5},
    )
    types: set[torch.dtype] = set()
    types_of_validation: set[torch.dtype] = set()

    def note(module: nn.Module, _: Any, out: torch.Tensor) -> None:
        if isinstance(module, nn.Conv2d):
            (types if module.training else types_of_validation).add(out.dtype)

    with register_module_forward_hook(note):
        train(recipe, tmp_path / "run", progress=False)
    if precision == "bfloat16":
        assert types == {torch.bfloat16}
    assert types_of_validation == {torch.float32}
    weights = load_file(tmp_path / "run/weights.safetensors")
    assert torch.bfloat16 not in {each.dtype for each in weights.values()}
    losses = [float(row["train_loss"]) for row in rows(tmp_path / "run")]
    assert losses[-1] < 0.7 * losses[0]
    assert float(rows(tmp_path / "run")[-1]["val_score"]) > 0.4


@pytest.mark.usefixtures("no_curves")
def test_a_finished_run_is_not_resumed(make_recipe: MakeRecipe, finished: dict[str, Path]) -> None:
    with pytest.raises(RecipeError, match="has done all of its 10 steps"):
        train(recipe_with(make_recipe, "adamw"), finished["adamw"], resume=True, progress=False)


@pytest.mark.usefixtures("no_curves")
def test_a_torn_checkpoint_is_refused(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    AT[1] = lambda: os.kill(os.getpid(), signal.SIGINT)
    with pytest.raises(TrainingInterruptedError):
        train(make_recipe(), tmp_path / "run", progress=False)
    path = tmp_path / "run" / "last.ckpt"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ModelError, match=r"last\.ckpt is torn"):
        train(make_recipe(), tmp_path / "run", resume=True, progress=False)


def test_missing_data_leaves_no_run_behind(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    recipe = make_recipe(data={"root": str(tmp_path / "gone")})
    with pytest.raises(DataError, match="gone"):
        train(recipe, tmp_path / "run", progress=False)
    assert not (tmp_path / "run").exists()


@pytest.mark.usefixtures("no_curves")
def test_a_run_that_comes_apart_says_at_which_step(
    make_recipe: MakeRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = recipe_with(make_recipe, "adamw")
    make = TrainingBatches.batch

    def batch(self: TrainingBatches, number: int) -> Any:
        images, masks = make(self, number)
        return (images.fill_(torch.nan), masks) if number == 6 else (images, masks)

    monkeypatch.setattr(TrainingBatches, "batch", batch)
    with pytest.raises(RecipeError, match=r"apart at step 7 .*lower optimizer\.learning_rate"):
        train(recipe, tmp_path / "run", progress=False)
    assert [row["step"] for row in rows(tmp_path / "run")] == ["5"]


def test_every_broken_file_is_named_before_the_run_begins(
    make_recipe: MakeRecipe, scenes: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "data"
    shutil.copytree(scenes, folder)
    image, mask = (
        sorted((folder / kind).iterdir())[place] for kind, place in (("images", 1), ("masks", -1))
    )
    image.write_bytes(image.read_bytes()[:100])
    mask.write_bytes(b"no image")
    names = [path.stem for path in sorted((folder / "images").iterdir())]
    (folder / "all.txt").write_text("\n".join(names))
    (folder / "some.txt").write_text("\n".join(names[4:]))
    (folder / "others.txt").write_text("\n".join(names[:4]))
    own = {"folder": "data", "split": "some", "validation_split": "others"}
    for dataset in ({"folder": "data", "split": "all"}, own):
        recipe = make_recipe(data={"root": str(tmp_path), "sets": [dataset]})
        with pytest.raises(DataError) as caught:
            train(recipe, tmp_path / "run", progress=False)
        assert str(image) in str(caught.value)
        assert str(mask) in str(caught.value)
        assert not (tmp_path / "run").exists()


def test_a_comma_in_a_folders_name_costs_no_figures(
    make_recipe: MakeRecipe, scenes: Path, tmp_path: Path, no_curves: None
) -> None:
    (tmp_path / "day, 2024").symlink_to(scenes)
    sets = [{"folder": "day, 2024", "split": "train"}]
    recipe = make_recipe(data={"root": str(tmp_path), "sets": sets})
    train(recipe, tmp_path / "run", progress=False)
    table = rows(tmp_path / "run")
    assert len(table) > 1
    assert all(float(row["day, 2024_iou"]) >= 0 for row in table)


def test_the_terminal_shows_the_scores_and_nothing_of_the_machinery(
    make_recipe: MakeRecipe, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    train(make_recipe(steps=4, validate_every=2), tmp_path / "run")
    shown = capfd.readouterr()
    assert shown.out == ""
    lines = shown.err.strip().splitlines()
    assert [line.partition(":")[0] for line in lines] == ["step 2", "step 4"]


@pytest.mark.usefixtures("no_curves")
def test_a_run_in_another_thread_leaves_signals_alone(
    make_recipe: MakeRecipe, tmp_path: Path
) -> None:
    before = [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)]
    recipe = make_recipe(steps=2, validate_every=2)
    with ThreadPoolExecutor(1) as pool:
        pool.submit(train, recipe, tmp_path / "run", progress=False).result()
    assert rows(tmp_path / "run")
    assert [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)] == before


def test_a_run_starts_from_the_weights_of_another(
    make_recipe: MakeRecipe, finished: dict[str, Path], no_curves: None, tmp_path: Path
) -> None:
    weights = finished["adamw"] / "weights.safetensors"
    still = {"learning_rate": 1e-30, "weight_decay": 0.0}
    recipe = make_recipe(init=str(finished["adamw"]), steps=1, validate_every=1, optimizer=still)
    task = train(recipe, tmp_path / "run", progress=False)
    learned = load_file(weights)
    for key, parameter in task.network.named_parameters():
        assert torch.equal(parameter, learned[key]), key
    card = read_card(tmp_path / "run" / "weights.safetensors")
    assert card.training["started_from"]["name"] == "tiny"
    assert card.training["started_from"]["data"] == read_card(weights).data
    assert load_recipe(tmp_path / "run" / "recipe.toml") == recipe


def test_a_folder_of_another_name_may_be_a_known_data_set(
    make_recipe: MakeRecipe, scenes: Path, no_curves: None, tmp_path: Path
) -> None:
    sets = [{"folder": str(scenes), "split": "train", "known_as": "irstd-1k"}]
    recipe = make_recipe(steps=1, validate_every=1, data={"sets": sets})
    train(recipe, tmp_path / "run", progress=False)
    (row,) = read_card(tmp_path / "run" / "weights.safetensors").data
    assert (row["name"], row["license"]) == ("IRSTD-1k", "MIT")
    sets[0]["known_as"] = "irstd"
    with pytest.raises(RecipeError, match="'irstd' is none of the known data sets, sirst, "):
        make_recipe(data={"sets": sets})


def test_a_resumed_run_needs_the_first_weights_no_more(
    make_recipe: MakeRecipe, finished: dict[str, Path], no_curves: None, tmp_path: Path
) -> None:
    weights = tmp_path / "first.safetensors"
    weights.write_bytes((finished["adamw"] / "weights.safetensors").read_bytes())
    recipe = make_recipe(init=str(weights))
    gains: list[Gain] = []
    whole = train(
        recipe,
        tmp_path / "whole",
        command="pinglow train first",
        progress=False,
        on_end=gains.append,
    )
    AT[7] = lambda: os.kill(os.getpid(), signal.SIGTERM)
    with pytest.raises(TrainingInterruptedError):
        train(recipe, tmp_path / "run", command="pinglow train first", progress=False)
    weights.unlink()
    resumed = train(
        recipe,
        tmp_path / "run",
        resume=True,
        command="pinglow train --resume",
        progress=False,
        on_end=gains.append,
    )
    assert_equal(dict(resumed.state_dict()), dict(whole.state_dict()))
    cards = [read_card(tmp_path / run / "weights.safetensors") for run in ("whole", "run")]
    for card in cards:
        assert card.command == "pinglow train first"
        assert card.training["started_from"]["name"] == "tiny"
    # What the first weights reach is known before the first step, and outlives the stop.
    assert rows(tmp_path / "run") == rows(tmp_path / "whole")
    start = rows(tmp_path / "whole")[0]
    assert (start["step"], start["train_loss"], start["learning_rate"]) == ("0", "", "")
    assert gains[0] == gains[1]
    expected = max(float(row["val_score"]) for row in rows(finished["adamw"]))
    assert gains[0].before == float(start["val_score"]) == pytest.approx(expected, abs=1e-6)
    assert gains[0].after == max(float(row["val_score"]) for row in rows(tmp_path / "whole"))


def test_validation_frames_that_the_first_weights_know_are_told(
    scenes: Path, finished: dict[str, Path], caplog: pytest.LogCaptureFixture
) -> None:
    frames = FrameFolder(scenes, "train")
    digests = [digest_frame(frames.frame(index)) for index in range(len(frames))]
    base = read_card(finished["adamw"])
    known = base.data[0]["frames"]
    cut = Cut("scenes", DataSet(folder="scenes", split="train"), frames, [], frames, [*range(8)])
    warn_of_known_frames(base, [replace(cut, validation_digests=tuple(digests))])
    assert f"tiny was trained on {known} of the 8 validation frames of scenes" in caplog.text
    later = ModelCard(name="later", network={}, parameters=1, training={"started_from": dict(base)})
    caplog.clear()
    warn_of_known_frames(later, [replace(cut, validation_digests=tuple(digests))])
    assert f"later was trained on {known} of the 8" in caplog.text
    caplog.clear()
    warn_of_known_frames(base, [replace(cut, validation_digests=("00" * 32,))])
    assert caplog.text == ""
    old = base.model_copy(update={"data": [{"name": "scenes", "split": "train"}]})
    warn_of_known_frames(old, [replace(cut, validation_digests=tuple(digests))])
    assert "tiny was trained on scenes, list train, without a record of its frames" in caplog.text


def test_weights_of_another_network_are_no_start_and_leave_no_run(
    make_recipe: MakeRecipe, finished: dict[str, Path], tmp_path: Path
) -> None:
    weights = str(finished["adamw"] / "weights.safetensors")
    wider = make_recipe(init=weights, network={"widths": [8, 8]})
    with pytest.raises(
        ModelError, match=r"init: .*weights\.safetensors has widths \(4, 8\).* \(8, 8\)"
    ):
        train(wider, tmp_path / "run", progress=False)
    with pytest.raises(ModelError, match="neither a file nor a bundled model"):
        train(make_recipe(init="nothing"), tmp_path / "run", progress=False)
    assert not (tmp_path / "run").exists()


@pytest.mark.usefixtures("no_curves")
def test_a_run_ends_with_its_minutes_and_goes_on_to_the_same_result(
    make_recipe: MakeRecipe, finished: dict[str, Path], tmp_path: Path
) -> None:
    recipe, run = recipe_with(make_recipe, "adamw"), tmp_path / "run"
    task = train(recipe, run, progress=False, machine=Machine("cpu", minutes=1e-6))
    assert task.steps_done == 1  # it does not stand still, however short the time
    assert [row["step"] for row in rows(run)] == ["1"]
    assert read_card(run / "weights.safetensors").training["best_step"] == 1
    for steps in (2, 3):
        short = Machine("cpu", minutes=1e-6)
        task = train(recipe, run, resume=True, progress=False, machine=short)
        assert task.steps_done == steps
    train(recipe, run, resume=True, progress=False)
    one, two = (load_checkpoint(path / "last.ckpt") for path in (run, finished["adamw"]))
    for key in ("global_step", "task", "optimizer"):
        assert_equal(one[key], two[key], key)
    assert [row["step"] for row in rows(run)] == ["1", "2", "3", "5", "10"]


@pytest.mark.usefixtures("no_curves")
def test_steps_may_be_counted_by_the_minutes(
    make_recipe: MakeRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted = []

    def count(task: SegmentationTask, step: Step, deadline: Deadline, world: World) -> int:
        before = {name: value.clone() for name, value in task.state_dict().items()}
        counted.append(count_steps(task, step, deadline, world))
        assert_equal(before, dict(task.state_dict()))
        # What was captured wrote into gradients that are gone.
        assert (step._key, step._replay) == (None, None)
        assert all(each.grad is None for each in task.network.parameters())
        return 23

    monkeypatch.setattr("pinglow.training.fit.count_steps", count)
    phases = [{"share": 0.5}, {"share": 0.5, "crop": 64}]
    recipe = make_recipe(steps="minutes", phases=phases)
    seen: list[Recipe] = []
    task = train(
        recipe,
        tmp_path / "run",
        progress=False,
        machine=Machine("cpu", minutes=5),
        on_start=lambda recipe, cuts: seen.append(recipe),
    )
    assert counted[0] > 100
    assert task.steps_done == seen[0].steps == 20  # whole stretches between validations
    stored = load_recipe(tmp_path / "run" / "recipe.toml")
    assert stored.steps == 20
    card = read_card(tmp_path / "run" / "weights.safetensors")
    assert card.training["steps"] == 20
    assert parse_recipe(tomllib.loads(card.recipe), "card") == stored
    with pytest.raises(RecipeError, match="say how many with --minutes"):
        train(recipe, tmp_path / "other", progress=False)
    monkeypatch.undo()
    with pytest.raises(RecipeError, match=r"not one step fits .* give more with --minutes"):
        train(recipe, tmp_path / "other", progress=False, machine=Machine("cpu", minutes=1e-3))
    assert not (tmp_path / "other").exists()


@pytest.mark.usefixtures("no_curves")
@pytest.mark.parametrize(
    "spoil",
    [
        lambda content: content.pop("task"),
        lambda content: content["keeper"].pop("best"),
        lambda content: content["task"].pop(next(iter(content["task"]))),
        lambda content: content["optimizer"]["param_groups"].pop(),
        lambda content: content["optimizer"]["state"][0].update(exp_avg=torch.zeros(3, 3)),
    ],
    ids=["no task", "no score", "a weight less", "no groups", "another shape"],
)
def test_a_checkpoint_of_something_else_is_one_sentence(
    make_recipe: MakeRecipe,
    finished: dict[str, Path],
    tmp_path: Path,
    spoil: Callable[[dict[str, Any]], object],
) -> None:
    run = tmp_path / "run"
    shutil.copytree(finished["adamw"], run)
    content = load_checkpoint(run / "last.ckpt")
    content["global_step"] = 2
    spoil(content)
    save_checkpoint(content, run / "last.ckpt")
    with pytest.raises(ModelError, match=r"last\.ckpt does not hold what a training run saves"):
        train(recipe_with(make_recipe, "adamw"), run, resume=True, progress=False)


@pytest.mark.usefixtures("no_curves")
def test_what_tensorboard_shows_that_does_not_fit_names_its_file(
    make_recipe: MakeRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise OSError(errno.EDQUOT, "Disk quota exceeded")

    monkeypatch.setattr("tensorboard.summary.writer.record_writer.RecordWriter.write", fail)
    with pytest.raises(OSError, match="quota") as raised:
        train(make_recipe(), tmp_path / "run", progress=False)
    assert "events.out" in str(raised.value.filename)
