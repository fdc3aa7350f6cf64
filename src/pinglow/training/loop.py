"""The training loop: from a task, its batches and its frames to a finished run folder."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor, nn

from pinglow.errors import FrameError, RecipeError
from pinglow.training.processes import World
from pinglow.training.run import RunKeeper
from pinglow.training.step import Step
from pinglow.training.task import TrainingTask, ValidationFrame, learning_rate

_NOTE_EVERY: Final = 20  # steps after which a card is waited for; a CPU is after each
_RESERVE: Final = 5.0  # seconds that writing a run's files takes at most
_SAMPLE: Final = 8  # frames by which the time of a validation is estimated
_TIMED_STEPS: Final = 5
_KEEPING: Final = 1.0  # seconds that weights, curves and checkpoint of a validation take


@dataclass
class Deadline:
    """When a run has to have ended.

    Attributes:
        minutes: From the start of the run; None: never.
        started: `time.monotonic` at that start.
        validation: Seconds that a validation takes, as far as is known.
    """

    minutes: float | None = None
    started: float = 0.0
    validation: float = 0.0

    @property
    def left(self) -> float:
        """Seconds left for steps, before the last validation and what is written after it."""
        if self.minutes is None:
            return math.inf
        gone = time.monotonic() - self.started
        return 60 * self.minutes - gone - 1.2 * self.validation - _RESERVE


def run_steps(
    task: TrainingTask,
    step: Step,
    optimizer: torch.optim.Optimizer,
    frames: Sequence[ValidationFrame],
    keeper: RunKeeper,
    world: World,
    deadline: Deadline,
    start: int,
) -> int:
    """Train from step ``start`` to the recipe's last one, or to the deadline.

    Args:
        task: What is trained; on the device.
        step: Makes batches and gradients.
        optimizer: Of the task's network.
        frames: This process's share of those that validate.
        keeper: Writes what the run leaves.
        world: The other processes.
        deadline: When to end before the last step, validated and saved.
        start: Steps that are done already.

    Returns:
        Steps that are done now.

    Raises:
        TrainingInterruptedError: A signal asked to stop; everything is saved.
        RecipeError: Loss or gradient are no numbers any more.
    """
    recipe, device = task.recipe, world.device
    parameters = [each for each in task.network.parameters() if each.requires_grad]
    alone = world.size == 1
    every = 1 if device.type == "cpu" else _NOTE_EVERY
    noted = torch.zeros(every, 2, device=device)  # loss and gradient norm of the last steps
    done, waiting = start, 0
    if keeper.stop_asked and alone:
        keeper.save(task, optimizer, done)
        keeper.stop(done)
    task.network.train()
    while done < recipe.steps:
        rate = learning_rate(recipe.optimizer, recipe.steps, done)
        for group in optimizer.param_groups:
            group["lr"] = rate
        noted[waiting, 0] = step(done)
        world.average_gradients(parameters)
        noted[waiting, 1] = _clip(parameters, recipe.optimizer.gradient_clip)
        optimizer.step()
        task.follow(done)
        done, waiting = done + 1, waiting + 1

        validating = done % recipe.validate_every == 0
        urgent = alone and (keeper.stop_asked or deadline.left < 0)
        if not (validating or urgent or waiting == every):
            continue
        # From here on the host waits for the device, and all processes decide alike.
        for loss, norm in world.mean(noted[:waiting]).tolist():
            keeper.note(done - waiting + 1, loss, norm, rate)
            waiting -= 1
        stopping = world.largest(keeper.stop_signal or 0)
        ending = world.largest(float(deadline.left < 0)) > 0
        if validating or ending:
            keeper.say("validating")
            deadline.validation = validate(task, frames, world, step)
            keeper.say("training")
            keeper.keep(task, optimizer, done, rate)
            ending = ending or world.largest(float(deadline.left < 0)) > 0
            keeper.draw(task, frames, last=ending or done == recipe.steps)
        elif stopping:
            keeper.save(task, optimizer, done)
        if stopping and done < recipe.steps:
            keeper.stop(done, int(stopping))
        if ending:
            break
    task.stop_signal = keeper.stop_signal  # all steps are done: for what comes after the run
    return done


def _clip(parameters: Sequence[nn.Parameter], largest: float) -> Tensor:
    """Clip the gradients' norm, 0 is none; the norm that they had."""
    if largest:
        norm: Tensor = torch.nn.utils.clip_grad_norm_(parameters, largest)
        return norm
    gradients = [each.grad for each in parameters if each.grad is not None]
    norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)))
    return norm


def validate(
    task: TrainingTask,
    frames: Sequence[ValidationFrame],
    world: World,
    step: Step | None = None,
) -> float:
    """Score the frames of all processes; the seconds that it took.

    Where they do not fit beside a step's graph, the step makes room and is captured again.
    """
    begun = time.monotonic()
    scored: list[Any] | None = None
    try:
        scored = task.score_frames(frames)
    except FrameError:
        if step is None:
            raise
    if scored is None and step is not None:  # here the error holds no memory any more
        step.forget()
        torch.cuda.empty_cache()
        scored = task.score_frames(frames)
    scorers = world.gather(scored or [])
    task.take_scores(world.gather([each.dataset for each in frames]), scorers)
    task.network.train()
    return time.monotonic() - begun


def estimate_validation(task: TrainingTask, frames: Sequence[ValidationFrame]) -> float:
    """Seconds that a validation will take, by a few of its frames."""
    few = frames[:: max(1, len(frames) // _SAMPLE)]
    task.score_frames(few[:1])  # libraries are loaded
    begun = time.monotonic()
    task.score_frames(few)
    seconds = (time.monotonic() - begun) * len(frames) / max(1, len(few))
    task.network.train()
    return seconds


def count_steps(task: TrainingTask, step: Step, deadline: Deadline, world: World) -> int:
    """How many steps fit until the deadline, as measured; the task is left as it was.

    The task's recipe has any number of steps, by which its phases are told apart.

    Raises:
        RecipeError: Not one does.
    """
    recipe, seconds, prepared, share = task.recipe, 0.0, 0.0, 0.0
    state = {name: value.clone() for name, value in task.state_dict().items()}
    task.network.train()
    for own in [section.share for section in recipe.phases] or [1.0]:
        share += own
        last = round(share * recipe.steps) - 1  # of the phase, past the loss's warm-up
        begun = time.monotonic()
        float(step(last))
        first = time.monotonic()
        for _ in range(_TIMED_STEPS):
            float(step(last))
        each = (time.monotonic() - first) / _TIMED_STEPS
        seconds += own * each
        prepared += max(0.0, first - begun - each)  # made once for a phase, and again in the run
    step.forget()
    task.load_state_dict(state)
    seconds *= 1.15  # for the optimizer and the average
    between = (deadline.validation + _KEEPING) / recipe.validate_every
    steps = int((deadline.left - prepared) / (seconds + between))
    steps = -int(world.largest(float(-steps)))  # the fewest that a process finds
    if steps < 1:
        raise RecipeError(
            f"in {deadline.minutes:g} minutes not one step fits beside reading the frames and one "
            f"validation ({deadline.validation:.0f} s): give more with --minutes"
        )
    return steps


def load_optimizer(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Take up an optimizer's state, from whatever device it was saved on.

    Raises:
        ValueError: It is of other weights.
    """
    for saved, own in zip(state["param_groups"], optimizer.param_groups, strict=True):
        for key in ("fused", "foreach", "capturable"):  # of this device, not of that
            if key in own:
                saved[key] = own[key]
    optimizer.load_state_dict(state)
    for parameter, kept in optimizer.state.items():
        for name, values in kept.items():
            if not (isinstance(values, Tensor) and values.dim()):
                continue
            if values.shape != parameter.shape:
                raise ValueError("the optimizer's state is of other weights")
            # Fused kernels take both as they lie in memory.
            kept[name] = torch.empty_like(parameter, dtype=values.dtype).copy_(values)
