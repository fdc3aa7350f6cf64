"""From a recipe to a run folder."""

from __future__ import annotations

import logging
import platform
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import TensorBoardLogger
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset

from pinglow.data.datasets import KNOWN_DATASETS
from pinglow.errors import ModelError, RecipeError
from pinglow.inference.weights import ModelCard, load_network
from pinglow.structures import BoolArray
from pinglow.training.batches import Cut, TrainingBatches, cut_validation
from pinglow.training.checkpoint import SafeCheckpointIO
from pinglow.training.progress import StepsBar
from pinglow.training.recipe import Recipe, RunRecipe
from pinglow.training.run import RunKeeper, check_run, describe_run
from pinglow.training.task import SegmentationTask, TrainingTask, ValidationFrame


def train(
    recipe: Recipe,
    run: Path,
    *,
    resume: bool = False,
    command: str = "",
    progress: bool = True,
    on_start: Callable[[list[Cut]], None] = lambda cuts: None,
) -> SegmentationTask:
    """Train by a recipe until its last step; see `pinglow.training.run` for what a run leaves.

    Args:
        recipe: What to do.
        run: The run folder, new, or with ``resume`` one that was interrupted.
        resume: Go on from the folder's last.ckpt, to the same result as without interruption.
        command: The command line, for the weights' card.
        progress: Show a progress bar with the time left.
        on_start: Called with the frames before the first step.

    Returns:
        The task, with the network in it.

    Raises:
        RecipeError: The folder and the recipe do not fit together, or the run is finished.
        DataError: A data folder, list, image or mask is missing, or no validation frames can be
            cut; see `cut_validation`.
        FrameError: An image is broken.
        ModelError: The checkpoint to resume from is torn, or the weights to start from do not
            exist or are of another network.
        TrainingInterruptedError: A signal asked to stop; everything is saved.
    """
    start = finished_steps(run, recipe, resume)
    cuts = cut_validation(recipe)
    lightning.seed_everything(recipe.seed, verbose=False)
    task = SegmentationTask(recipe)
    # A resumed run has its weights, and the origin of the first ones, in its checkpoint.
    base = _start_from(task, recipe.init) if recipe.init and not resume else None
    network = {"type": recipe.network.type, **task.network.config}
    card = describe_model(task, network, cuts, command, base)
    fit_task(
        task,
        card,
        cuts,
        DataLoader(TrainingBatches(recipe, cuts, start), batch_size=None),
        DataLoader(ValidationFrames(cuts), batch_size=None, collate_fn=as_is),
        run,
        resume=resume,
        progress=progress,
        on_start=on_start,
    )
    return task


def fit_task(
    task: TrainingTask,
    card: ModelCard,
    cuts: list[Cut],
    batches: DataLoader[Any],
    frames: DataLoader[Any],
    run: Path,
    *,
    resume: bool,
    progress: bool,
    on_start: Callable[[list[Cut]], None],
    command: str = "pinglow train",
) -> None:
    """Train a task to its recipe's last step, in a run folder.

    Args:
        task: What is trained, and how.
        card: Of the weights, but for what only the run can say.
        cuts: The frames, as the run folder lists them.
        batches: What ``training_step`` gets, from the run's first step that is still to do.
        frames: What ``validation_step`` gets.
        run: See `train`.
        resume: See `train`.
        progress: See `train`.
        on_start: See `train`.
        command: What a stopped run is gone on with, without its ``--resume``.

    Raises:
        DataError: See `describe_run`.
        TrainingInterruptedError: See `train`.
    """
    describe_run(run, task.recipe, cuts, resume)
    on_start(cuts)
    keeper = RunKeeper(run, card, command)
    callbacks: list[Callback] = [StepsBar(), keeper] if progress else [keeper]
    with keeper.listening(), _quiet_lightning():
        trainer = _build_trainer(task.recipe, run, callbacks)
        trainer.fit(task, batches, frames, ckpt_path=run / "last.ckpt" if resume else None)


def _start_from(task: SegmentationTask, name_or_path: str) -> ModelCard:
    """Put the weights of a model into the task's network; return its card."""
    network, card = load_network(name_or_path)
    wanted = {"type": task.recipe.network.type, **task.network.config}
    for key in {**wanted, **card.network}:
        if card.network.get(key) != wanted.get(key):
            has, wants = (each.get(key, "its default") for each in (card.network, wanted))
            raise ModelError(
                f"init: {name_or_path} has {key} {has}, the recipe's network {wants}; "
                f"set network.{key} to the same"
            )
    task.network.load_state_dict(network.state_dict())
    return card


def finished_steps(run: Path, recipe: RunRecipe, resume: bool) -> int:
    """Steps that a run folder has behind it; see `check_run`, too.

    Raises:
        RecipeError: The folder and the recipe do not fit together, or the run is finished.
        ModelError: The checkpoint to resume from is torn.
    """
    check_run(run, recipe, resume)
    if not resume:
        return 0
    steps: int = SafeCheckpointIO().load_checkpoint(run / "last.ckpt")["global_step"]
    if steps >= recipe.steps:
        raise RecipeError(
            f"{run} has done all of its {recipe.steps} steps; start a new run to train for longer"
        )
    return steps


def _build_trainer(recipe: RunRecipe, run: Path, callbacks: list[Callback]) -> lightning.Trainer:
    return lightning.Trainer(
        accelerator="auto",
        devices=1,
        precision="bf16-mixed" if _in_bfloat16(recipe) else "32-true",
        max_steps=recipe.steps,
        max_epochs=-1,
        val_check_interval=recipe.validate_every,
        check_val_every_n_epoch=None,
        num_sanity_val_steps=0,
        gradient_clip_val=recipe.optimizer.gradient_clip or None,
        logger=TensorBoardLogger(run, name="", version="tensorboard"),
        log_every_n_steps=min(50, recipe.validate_every),
        callbacks=callbacks,
        plugins=[SafeCheckpointIO()],
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )


def _in_bfloat16(recipe: RunRecipe) -> bool:
    if recipe.precision == "auto":
        return torch.cuda.is_available()
    return recipe.precision == "bfloat16"


class ValidationFrames(Dataset[ValidationFrame]):
    """The validation frames of all data sets: (name, counts, mask)."""

    def __init__(self, cuts: list[Cut]) -> None:
        self._items = [(cut, index) for cut in cuts for index in cut.validation]

    def __len__(self) -> int:
        """Number of frames."""
        return len(self._items)

    def __getitem__(self, number: int) -> tuple[str, NDArray[Any], BoolArray]:
        """Data set, (H, W) counts and (H, W) mask."""
        cut, index = self._items[number]
        return cut.name, *cut.validation_frames.pair(index)


def as_is(item: Any) -> Any:
    """Frames stay numpy arrays of counts: inference does the rest."""
    return item


def describe_model(
    task: TrainingTask,
    network: dict[str, Any],
    cuts: list[Cut],
    command: str,
    base: ModelCard | None = None,
) -> ModelCard:
    """The card of what a task will have trained, but for its scores.

    Args:
        task: Before training.
        network: How to build its network: the type and its arguments.
        cuts: What it is trained on.
        command: The command line.
        base: The card of the weights that it starts from.
    """
    recipe = task.recipe
    data = []
    for cut in cuts:
        known = KNOWN_DATASETS.get(cut.dataset.known_as or cut.frames.folder.absolute().name)
        data.append(
            {
                "name": known.title if known else cut.name,
                "split": cut.dataset.split,
                "frames": len(cut.training),
                "held out for validation": len(cut.validation),
                "licence": known.licence if known else "not known to pinglow",
            }
        )
    training: dict[str, Any] = {
        "steps": recipe.steps,
        "batch_size": recipe.batch_size,
        "torch": torch.__version__,
        "processor": platform.machine(),
        "threads": torch.get_num_threads(),
    }
    if base is not None:
        training["started_from"] = {
            "name": base.name,
            "command": base.command,
            "data": base.data,
            "training": base.training,
        }
    return ModelCard(
        name=recipe.name,
        network=network,
        parameters=sum(each.numel() for each in task.network.parameters()),
        input_rule=recipe.input_rule,
        upright=not all(recipe.augmentation_of(each).rotate for each in recipe.data.sets),
        data=data,
        training=training,
        recipe=recipe.to_toml(),
        command=command,
    )


@contextmanager
def _quiet_lightning() -> Iterator[None]:
    """Keep Lightning from advising what does not apply: batches are made in the main process."""
    logger = logging.getLogger("lightning.pytorch")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*does not have many workers.*")
            # Its own use of torch, from torch 2.9 on.
            warnings.filterwarnings("ignore", message=".*isinstance.treespec, LeafSpec.*")
            yield
    finally:
        logger.setLevel(level)
