"""From a recipe to a run folder."""

from __future__ import annotations

import logging
import platform
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch

from pinglow.data.digests import pack_digests
from pinglow.data.known import KNOWN_DATASETS
from pinglow.errors import ModelError, OptionError, RecipeError
from pinglow.inference.batches import does_not_fit
from pinglow.models.card import DIGESTS, ModelCard
from pinglow.models.registry import Kind, parse_network
from pinglow.models.weights import load_network
from pinglow.training.batches import TrainingBatches, collect_frames, place_frames
from pinglow.training.checkpoint import load_checkpoint, not_a_checkpoint
from pinglow.training.detection import DetectionTask
from pinglow.training.gain import Gain
from pinglow.training.loggers import check_loggers
from pinglow.training.loop import (
    Deadline,
    count_steps,
    estimate_validation,
    load_optimizer,
    run_steps,
    validate,
)
from pinglow.training.processes import World, open_world, share_norms
from pinglow.training.recipe import Recipe
from pinglow.training.run import CHECKPOINT, RunKeeper, check_run, claim_run, describe_run
from pinglow.training.segmentation import SegmentationTask
from pinglow.training.splits import Cut, cut_validation
from pinglow.training.step import Step
from pinglow.training.task import TrainingTask

_logger = logging.getLogger("pinglow")

TASKS: Final[dict[Kind, type[TrainingTask]]] = {"pixels": SegmentationTask, "boxes": DetectionTask}
"""What trains a network, by what it finds."""

_UNKNOWN_STEPS: Final = 10_000  # while the steps of "minutes" are counted


@dataclass(frozen=True)
class Machine:
    """On what a run is made, and for how long; of no effect on its batches.

    Attributes:
        device: See `pinglow.backends.device.choose_device`.
        devices: How many of them, with a process each.
        minutes: End after so many, validated and saved, even if steps are left; None: never.
        compiled: Fuse operations by torch.compile.
        loggers: Names of `pinglow.training.loggers.LOGGERS` that get losses and scores.
        begun: `time.monotonic` when the command began, from which the minutes count; None: now.
    """

    device: str = "auto"
    devices: int = 1
    minutes: float | None = None
    compiled: bool = False
    loggers: tuple[str, ...] = ("tensorboard",)
    begun: float | None = None


def train(
    recipe: Recipe,
    run: Path,
    *,
    resume: bool = False,
    command: str = "",
    progress: bool = True,
    on_start: Callable[[Recipe, list[Cut]], None] = lambda recipe, cuts: None,
    on_end: Callable[[Gain], object] = lambda gain: None,
    machine: Machine | None = None,
) -> TrainingTask:
    """Train by a recipe until its last step; see `pinglow.training.run` for what a run leaves.

    Args:
        recipe: What to do.
        run: The run folder, new, or with ``resume`` one that was interrupted.
        resume: Go on from the folder's last.ckpt, to the same result as without interruption.
        command: The command line, for the weights' card.
        progress: Show a progress bar with the time left.
        on_start: Called with the recipe, its steps counted, and the frames before the first step.
        on_end: Called after the last step with what has changed, where a run started from weights.
        machine: On what, and for how long; None: on the first GPU, or the CPU, until all is done.

    Returns:
        The task, with the network in it; ``steps_done`` is less than the recipe's steps where the
        minutes were over.

    Raises:
        RecipeError: The folder and the recipe do not fit together, or the run is finished.
        DataError: A data folder, list, image or mask is missing, or no validation frames can be
            cut; see `cut_validation`.
        FrameError: An image is broken.
        ModelError: The checkpoint to resume from is torn, or the weights to start from do not
            exist or are of another network.
        OptionError: The device is not there, or a batch does not fit on it.
        MissingExtraError: A library that the network needs is not installed.
        TrainingInterruptedError: A signal asked to stop; everything is saved.
    """
    machine = machine or Machine()
    begun = time.monotonic() if machine.begun is None else machine.begun
    kind = TASKS[recipe.network.kind]
    world = open_world(machine.device, machine.devices)
    check_machine(recipe, machine, world)
    check_loggers(machine.loggers)
    start = finished_steps(run, recipe, resume)
    torch.manual_seed(recipe.seed)
    task = kind(recipe)  # first: reading all frames may take minutes
    cuts = cut_validation(recipe, kind.open_frames)
    # A resumed run has its weights, and the origin of the first ones, in its checkpoint.
    base = _start_from(task, recipe.init) if recipe.init and not resume else None
    card = describe_model(task, cuts, command, base)
    device = world.device
    deadline = Deadline(machine.minutes, begun)
    checkpoint = load_checkpoint(run / CHECKPOINT) if resume else None
    bank = place_frames(collect_frames(recipe, cuts), device)
    task.to(device)
    if world.size > 1:
        share_norms(task.network)
    validating = world.share([(cut, index) for cut in cuts for index in cut.validation])
    frames = [kind.read_frame(cut.name, cut.validation_frames, index) for cut, index in validating]
    batches = TrainingBatches(recipe, bank, world.rank, world.size)
    step = Step(
        task,
        batches,
        device,
        bfloat16=_in_bfloat16(recipe, device),
        graph=world.size == 1,
        compiled=machine.compiled,
        alone=world.size == 1,
    )
    if base is not None:
        warn_of_known_frames(base, cuts)
        deadline.validation = world.largest(validate(task, frames, world))
    elif machine.minutes is not None:
        deadline.validation = world.largest(estimate_validation(task, frames))
    if not recipe.steps:
        recipe = _count_steps(task, batches, step, deadline, world)
        card = card.model_copy(
            update={
                "recipe": recipe.to_toml(),
                "training": card.training | {"steps": recipe.steps},
            }
        )
    keeper = RunKeeper(run, card, world.main, progress, machine.loggers)
    optimizer = task.build_optimizer(device)
    if checkpoint is not None:
        _restore(checkpoint, task, optimizer, keeper)
    world.wait()  # all have seen the folder as it was
    with claim_run(run) if world.main else nullcontext():
        if world.main:
            describe_run(run, recipe, cuts, resume=resume)
            on_start(recipe, cuts)
        with keeper.watching(start, recipe), _naming_memory(device):
            if base is not None:
                keeper.keep_start(task)
                keeper.draw(task, frames)
            task.steps_done = run_steps(
                task, step, optimizer, frames, keeper, world, deadline, start
            )
    gain = keeper.gain(task.figures[0], sum(len(cut.validation) for cut in cuts))
    if gain is not None:
        on_end(gain)
    world.wait()  # until the first process has written all
    return task


@contextmanager
def _naming_memory(device: torch.device) -> Iterator[None]:
    """Say what to do where a run does not fit into a device's memory."""
    try:
        yield
    except RuntimeError as error:
        if not does_not_fit(error):
            raise
        raise OptionError(
            f"training does not fit into the memory of {device}: use a smaller batch_size, or "
            "free the card"
        ) from error


def _restore(
    checkpoint: dict[str, Any],
    task: TrainingTask,
    optimizer: torch.optim.Optimizer,
    keeper: RunKeeper,
) -> None:
    """Take up all that a checkpoint holds.

    Raises:
        ModelError: It holds something else.
    """
    try:
        task.load_state_dict(checkpoint["task"])
        load_optimizer(optimizer, checkpoint["optimizer"])
        keeper.restore(checkpoint["keeper"])
    except (KeyError, TypeError, ValueError, RuntimeError, AttributeError) as error:
        raise not_a_checkpoint(keeper.run / CHECKPOINT) from error


def _count_steps(
    task: TrainingTask, batches: TrainingBatches, step: Step, deadline: Deadline, world: World
) -> Recipe:
    """The recipe with as many steps as fit into the minutes; also the task's and the batches'."""
    recipe = task.recipe
    task.recipe = batches.recipe = recipe.with_steps(_UNKNOWN_STEPS)
    counted = recipe.with_steps(count_steps(task, step, deadline, world))
    task.recipe = batches.recipe = counted
    return counted


def check_machine(recipe: Recipe, machine: Machine, world: World) -> None:
    """See whether a recipe can be trained on these processes.

    Raises:
        RecipeError: Batches cannot be shared evenly, or the steps are to be counted and there are
            no minutes.
        OptionError: It is a detector's, on several devices or compiled.
    """
    if recipe.network.kind == "boxes" and (world.size > 1 or machine.compiled):
        raise OptionError(
            f"{recipe.network.type} is trained on one device, and not compiled: leave out "
            "--devices and --compile"
        )
    if not recipe.steps and machine.minutes is None:
        raise RecipeError('the recipe has steps = "minutes": say how many with --minutes')
    for phase in recipe.phase_list():
        if phase.batch_size % world.size:
            more = -(-phase.batch_size // world.size) * world.size
            raise RecipeError(
                f"batch_size is {phase.batch_size}, which {world.size} processes cannot share "
                f"evenly; set it to {more}"
            )


def _start_from(task: TrainingTask, name_or_path: str) -> ModelCard:
    """Put the weights of a model into the task's network; return its card."""
    wanted = task.recipe.network
    network, card = load_network(name_or_path, wanted.kind)
    given, asked = (each.model_dump() for each in (parse_network(card.network), wanted))
    for key in {**asked, **given}:
        if given.get(key) != asked.get(key):
            raise ModelError(
                f"init: {name_or_path} has {key} {given.get(key)}, the recipe's network "
                f"{asked.get(key)}; set network.{key} to the same"
            )
    for each in (task.network, task.average):  # the average is validated before the first step
        if each is not None:
            each.load_state_dict(network.state_dict())
    return card


def warn_of_known_frames(base: ModelCard, cuts: Sequence[Cut]) -> None:
    """Warn of validation frames that the weights to start from were trained on.

    Where a card has no digests, a data set of that name is all that can be known.
    """
    rows = base.trained_on
    for cut in cuts:
        seen = base.count_known(cut.validation_digests)
        same = [row for row in rows if row.get("name") == _title(cut) and not row.get(DIGESTS)]
        if seen:
            _logger.warning(
                f"{base.name} was trained on {seen} of the {len(cut.validation)} validation frames "
                f"of {cut.name}: their scores are too good before and after; name others, as in "
                "--data DIR:train:val"
            )
        elif same:
            _logger.warning(
                f"{base.name} was trained on {_title(cut)}, list {same[0].get('split')}, without a "
                f"record of its frames: where validation frames of {cut.name} are among them, "
                "their scores are too good before and after"
            )


def _title(cut: Cut) -> str:
    """What a card calls a data set."""
    known = KNOWN_DATASETS.get(cut.dataset.known_as or cut.frames.folder.absolute().name)
    return known.title if known else cut.name


def finished_steps(run: Path, recipe: Recipe, resume: bool) -> int:
    """Steps that a run folder has behind it; see `check_run`, too.

    Raises:
        RecipeError: The folder and the recipe do not fit together, or the run is finished.
        ModelError: The checkpoint to resume from is torn.
    """
    check_run(run, recipe, resume)
    if not resume:
        return 0
    steps: int = load_checkpoint(run / CHECKPOINT)["global_step"]
    if steps >= recipe.steps:
        raise RecipeError(
            f"{run} has done all of its {recipe.steps} steps; start a new run to train for longer"
        )
    return steps


def _in_bfloat16(recipe: Recipe, device: torch.device) -> bool:
    if recipe.precision == "auto":
        return device.type == "cuda"
    return recipe.precision == "bfloat16"


def describe_model(
    task: TrainingTask,
    cuts: list[Cut],
    command: str,
    base: ModelCard | None = None,
) -> ModelCard:
    """The card of what a task will have trained, but for its scores.

    Args:
        task: Before training.
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
                "name": _title(cut),
                "split": cut.dataset.split,
                "frames": len(cut.training),
                "held out for validation": len(cut.validation),
                "license": known.license if known else "not known to pinglow",
                DIGESTS: pack_digests(cut.training_digests),
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
        network=recipe.network.model_dump(mode="json"),
        parameters=sum(each.numel() for each in task.network.parameters()),
        input_rule=recipe.input_rule,
        upright=not all(recipe.augmentation_of(each).rotate for each in recipe.data.sets),
        data=data,
        training=training,
        recipe=recipe.to_toml(),
        command=command,
    )
