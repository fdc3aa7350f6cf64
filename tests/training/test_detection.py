"""Training runs of detectors: what they leave, and that they can be gone on with."""

from __future__ import annotations

import csv
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pinglow.data.boxes import BoxFolder, mask_boxes
from pinglow.data.convert import convert_labels
from pinglow.errors import DataError, ModelError, OptionError, RecipeError
from pinglow.inference.predictor import Predictor
from pinglow.io.frames import read_frame
from pinglow.models.card import read_card
from pinglow.training.detection import DetectionTask
from pinglow.training.fit import Machine, train
from pinglow.training.recipe import Recipe
from pinglow.training.recipe_file import load_recipe
from pinglow.training.run import TrainingInterruptedError
from pinglow.training.task import TrainingTask

pytest.importorskip("ultralytics", reason="needs ultralytics: pip install '.[detect]'")

pytestmark = pytest.mark.usefixtures("one_thread", "offline_detectors", "no_curves")

Make = Callable[..., Recipe]


def network_of(kind: str) -> dict[str, object]:
    return {"type": kind, "gaussian": True, "box_loss": "diff"}


@pytest.fixture(scope="module")
def runs(
    one_thread: None,
    offline_detectors: None,
    make_detector_recipe: Make,
    tmp_path_factory: pytest.TempPathFactory,
) -> dict[str, tuple[TrainingTask, Path]]:
    """Return a whole run of each kind, and its folder."""
    folder = tmp_path_factory.mktemp("runs")
    command = "pinglow train detect"
    return {
        kind: (
            train(
                make_detector_recipe(network=network_of(kind)),
                folder / kind,
                progress=False,
                command=command,
            ),
            folder / kind,
        )
        for kind in ("retinanet-small", "yolov8n")
    }


@pytest.mark.parametrize("kind", ["retinanet-small", "yolov8n"])
def test_a_run_leaves_weights_that_find_boxes(
    kind: str,
    make_detector_recipe: Make,
    box_scenes: Path,
    runs: dict[str, tuple[TrainingTask, Path]],
) -> None:
    task, run = runs[kind]
    card = read_card(run / "weights.safetensors")
    assert card.network == network_of(kind)
    assert card.threshold == task.threshold
    assert card.scores[0]["protocol"] == "boxes"
    assert card.data[0]["frames"] + card.data[0]["held out for validation"] == 28
    predictor = Predictor.load(run / "weights.safetensors")
    frame = read_frame(next((box_scenes / "images").glob("*.png")))
    (found,) = predictor.candidates([frame])
    assert found.boxes.shape[1] == 4
    with (run / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["step"] for row in rows] == ["2", "4"]
    assert {"scenes_ap50", "scenes_pd", "train_loss"} <= rows[0].keys()
    assert (run / "curves.png").is_file()
    assert load_recipe(run / "recipe.toml") == make_detector_recipe(network=network_of(kind))


def test_a_stopped_run_goes_on_to_the_same_weights(
    make_detector_recipe: Make,
    runs: dict[str, tuple[TrainingTask, Path]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    recipe, whole = make_detector_recipe(network=network_of("yolov8n")), runs["yolov8n"][0]
    report, validations = DetectionTask.report, [0]

    def interrupt(task: DetectionTask) -> object:
        validations[0] += 1
        if validations[0] == 1:  # after step 2 of 4
            os.kill(os.getpid(), signal.SIGTERM)
        return report(task)

    with monkeypatch.context() as patch:
        patch.setattr(DetectionTask, "report", interrupt)
        with pytest.raises(TrainingInterruptedError, match="pinglow train --resume"):
            train(recipe, tmp_path / "parts", progress=False)
    parts = train(recipe, tmp_path / "parts", resume=True, progress=False)
    for key, value in whole.trained_network.state_dict().items():
        torch.testing.assert_close(
            parts.trained_network.state_dict()[key], value, rtol=0, atol=0, msg=key
        )


def test_training_lowers_the_loss_and_finds_the_targets(
    make_detector_recipe: Make, tmp_path: Path
) -> None:
    recipe = make_detector_recipe(
        steps=100,
        validate_every=100,
        batch_size=4,
        augmentation={"crop": 64, "target_bias": 1.0},
        optimizer={"learning_rate": 3e-3, "warmup_steps": 5},
    )
    task = train(recipe, tmp_path / "run", progress=False)
    (report,) = task.reports.values()
    assert report.targets > 0
    assert report.pd is not None
    assert report.pd >= 0.7
    assert report.false_alarms_per_image is not None
    assert report.false_alarms_per_image <= 1


def test_boxes_without_masks_train_on_filled_boxes(
    make_detector_recipe: Make, box_scenes: Path, tmp_path: Path
) -> None:
    """The weights are those of a run on masks that hold these boxes, to the bit."""
    filled = tmp_path / "filled"
    (filled / "masks").mkdir(parents=True)
    shutil.copy(box_scenes / "train.txt", filled / "train.txt")
    frames = BoxFolder(box_scenes, "train")
    for index, name in enumerate(frames.names):
        mask = np.zeros(frames.frame(index).shape, np.uint8)
        for left, top, width, height in frames.boxes(index).astype(int):
            mask[top : top + height, left : left + width] = 255
        Image.fromarray(mask).save(filled / "masks" / f"{name}.png")
    states = []
    for source in ("filled", "voc", "coco"):
        if source != "filled":
            convert_labels(box_scenes, ["train"], source, tmp_path / source)
        (tmp_path / source / "images").symlink_to(box_scenes / "images")
        data = {"root": str(tmp_path), "sets": [{"folder": source, "split": "train"}]}
        task = train(make_detector_recipe(data=data), tmp_path / f"run-{source}", progress=False)
        states.append(task.trained_network.state_dict())
    for key, value in states[0].items():
        for state in states[1:]:
            torch.testing.assert_close(state[key], value, rtol=0, atol=0, msg=key)


def test_a_broken_label_is_said_before_the_run_begins(
    make_detector_recipe: Make, box_scenes: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "boxed"
    convert_labels(box_scenes, ["train"], "voc", folder)
    (folder / "images").symlink_to(box_scenes / "images")
    broken = sorted((folder / "boxes").glob("*.xml"))[-1]
    broken.write_text("<annotation><object></object></annotation>")
    data = {"root": str(tmp_path), "sets": [{"folder": "boxed", "split": "train"}]}
    with pytest.raises(DataError, match=broken.name):
        train(make_detector_recipe(data=data), tmp_path / "run", progress=False)
    assert not (tmp_path / "run").exists()


def test_views_boxes_are_those_of_their_masks(
    make_detector_recipe: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = DetectionTask(make_detector_recipe())
    masks = torch.zeros(2, 1, 32, 32)
    masks[0, 0, 3:5, 10:14] = 1
    masks[0, 0, 20, 20] = 1
    seen: list[list[torch.Tensor]] = []

    def loss(images: torch.Tensor, boxes: list[torch.Tensor]) -> torch.Tensor:
        seen.append(boxes)
        return images.sum()

    monkeypatch.setattr(task.network, "loss", loss)
    task.batch_loss(torch.zeros(2, 1, 32, 32), masks, False)
    assert seen[0][0].tolist() == [[10, 3, 14, 5], [20, 20, 21, 21]]
    assert seen[0][1].shape == (0, 4)
    np.testing.assert_array_equal(mask_boxes(masks[0, 0].bool().numpy())[0], [10, 3, 4, 2])


def test_impossible_recipes_are_refused(make_detector_recipe: Make) -> None:
    with pytest.raises(
        RecipeError, match=r"network\.type is 'yolov9'; use one of PinwheelUNet, yolov8n"
    ):
        make_detector_recipe(network={"type": "yolov9"})
    with pytest.raises(RecipeError, match="crop is 40; retinanet-small needs a multiple of 32"):
        make_detector_recipe(augmentation={"crop": 40})
    with pytest.raises(RecipeError, match=r"key 'network\.gauss' is unknown; did you mean"):
        make_detector_recipe(network={"gauss": True})
    with pytest.raises(
        RecipeError, match=r"'data\.sets\.0\.boxs' is unknown; did you mean 'boxes'"
    ):
        make_detector_recipe(data={"sets": [{"folder": "scenes", "boxs": "voc"}]})
    with pytest.raises(RecipeError, match="BatchNorm cannot take"):
        make_detector_recipe(batch_size=1)


def test_keys_of_the_other_kind_are_refused(make_detector_recipe: Make) -> None:
    for key, value in (("loss", {"terms": [{"name": "dice"}]}), ("distill", {"model": "m"})):
        with pytest.raises(RecipeError, match=f"test: {key} is of networks that find masks"):
            make_detector_recipe(**{key: value})
    with pytest.raises(RecipeError, match="has boxes, but PinwheelUNet learns masks"):
        load_recipe("fast", ["data.sets=[{folder = 'f', boxes = 'voc'}]"])
    with pytest.raises(RecipeError, match=r"key 'network\.widths' is unknown"):
        load_recipe("fast", ["network.type=yolov8n"])


def test_a_detector_is_not_compiled(make_detector_recipe: Make, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="leave out --devices and --compile"):
        train(make_detector_recipe(), tmp_path / "run", machine=Machine(compiled=True))
    assert not (tmp_path / "run").exists()


def test_a_finished_run_is_not_gone_on_with(
    make_detector_recipe: Make, runs: dict[str, tuple[TrainingTask, Path]]
) -> None:
    recipe = make_detector_recipe(network=network_of("retinanet-small"))
    with pytest.raises(RecipeError, match="has done all of its 4 steps"):
        train(recipe, runs["retinanet-small"][1], resume=True, progress=False)


def test_a_run_starts_from_the_weights_of_another(
    make_detector_recipe: Make, runs: dict[str, tuple[TrainingTask, Path]], tmp_path: Path
) -> None:
    first = str(runs["retinanet-small"][1])
    with pytest.raises(ModelError, match="has gaussian True, the recipe's network False"):
        train(make_detector_recipe(init=first), tmp_path / "other", progress=False)
    recipe = make_detector_recipe(init=first, network=network_of("retinanet-small"))
    train(recipe, tmp_path / "second", progress=False)
    assert read_card(tmp_path / "second").training["started_from"]["name"] == "tiny"
