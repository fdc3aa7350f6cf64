from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch

from pinglow.errors import FrameError, OptionError
from pinglow.nn.attention import _largest
from pinglow.training.batches import TrainingBatches, collect_frames
from pinglow.training.loop import validate
from pinglow.training.processes import World
from pinglow.training.recipe import Recipe
from pinglow.training.segmentation import SegmentationTask
from pinglow.training.splits import cut_validation
from pinglow.training.step import Step

MakeRecipe = Callable[..., Recipe]


def open_step(recipe: Recipe, device: str = "cpu", **options: Any) -> tuple[Step, SegmentationTask]:
    torch.manual_seed(0)
    at = torch.device(device)
    task = SegmentationTask(recipe).to(at)
    bank = collect_frames(recipe, cut_validation(recipe)).to(at)
    batches = TrainingBatches(recipe, bank)
    return Step(task, batches, at, **({"bfloat16": False, "graph": True} | options)), task


def gradients(task: SegmentationTask) -> list[torch.Tensor]:
    return [each.grad.cpu() for each in task.network.parameters() if each.grad is not None]


def test_a_step_leaves_the_gradients_of_its_batch(make_recipe: MakeRecipe) -> None:
    recipe = make_recipe(loss={"warmup_steps": 2})
    step, task = open_step(recipe)
    _, other = open_step(recipe)
    for number in (0, 5, 1):  # none adds to the last one's
        loss = step(number)
        batch = TrainingBatches(recipe, collect_frames(recipe, cut_validation(recipe)))
        other.network.zero_grad()
        expected = other.batch_loss(*batch.batch(number), number < 2)
        expected.backward()
        assert loss.item() == expected.item()
        for one, two in zip(gradients(task), gradients(other), strict=True):
            assert torch.equal(one, two)


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory"),
        RuntimeError("FIND was unable to find an engine to execute this computation"),
        RuntimeError("upsample_bilinear2d_nhwc: output.numel() < std::numeric_limits<INT_MAX>"),
    ],
    ids=lambda error: str(error)[:12],
)
def test_a_batch_that_does_not_fit_says_which_one_does(
    make_recipe: MakeRecipe, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    step, task = open_step(make_recipe(batch_size=24))
    loss, room = task.batch_loss, [7]

    def limited(images: torch.Tensor, *rest: Any) -> torch.Tensor:
        if len(images) > room[0]:
            raise error
        return loss(images, *rest)

    monkeypatch.setattr(step, "_loss_of", limited)
    with pytest.raises(OptionError, match=r"a batch of 24 views of 32 .* use --set batch_size=6"):
        step(0)
    room[0] = 0
    with pytest.raises(OptionError, match=r"does not fit .* use a smaller augmentation\.crop"):
        step(0)


def test_a_batch_that_is_shared_is_not_tried(
    make_recipe: MakeRecipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    step, _ = open_step(make_recipe(batch_size=24), alone=False)
    calls = []

    def full(images: torch.Tensor, *_: Any) -> torch.Tensor:
        calls.append(len(images))
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(step, "_loss_of", full)
    with pytest.raises(OptionError, match="use --set batch_size=12"):
        step(0)
    assert calls == [24]


def test_a_machine_without_a_compiler_is_told(
    make_recipe: MakeRecipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    from torch._dynamo.exc import TorchDynamoException

    step, _ = open_step(make_recipe())

    def fail(*_: Any) -> torch.Tensor:
        raise TorchDynamoException("no working C++ compiler found")

    monkeypatch.setattr(step, "_loss_of", fail)
    with pytest.raises(OptionError, match=r"--compile does not work here .* leave it out"):
        step(0)


def test_another_error_is_not_taken_for_a_lack_of_memory(
    make_recipe: MakeRecipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    step, _ = open_step(make_recipe())

    def fail(*_: Any) -> torch.Tensor:
        raise RuntimeError("an illegal memory access was encountered")

    monkeypatch.setattr(step, "_loss_of", fail)
    with pytest.raises(RuntimeError, match="illegal memory access"):
        step(0)


def test_validation_without_room_asks_the_step_for_it(
    make_recipe: MakeRecipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = make_recipe()
    step, task = open_step(recipe)
    (cut,) = cut_validation(recipe)
    frames = [task.read_frame("a", cut.validation_frames, each) for each in cut.validation]
    expected = task.score_frames(frames)
    score, freed, held = task.score_frames, list[bool](), list[weakref.ref[Any]]()

    def score_where_free(frames: Any) -> list[Any]:
        activations = torch.zeros(8)
        held.append(weakref.ref(activations))
        if not freed:
            raise FrameError("a frame of 64 x 64 pixels does not fit into memory")
        return score(frames)

    def forget() -> None:
        freed.append(held[-1]() is None)

    monkeypatch.setattr(task, "score_frames", score_where_free)
    with pytest.raises(FrameError, match="does not fit"):
        validate(task, frames, World(torch.device("cpu")))
    monkeypatch.setattr(step, "forget", forget)
    validate(task, frames, World(torch.device("cpu")), step)
    assert freed == [True]  # what failed holds no memory any more
    assert task.scorers["a"].compute().to_dict()["images"] == len(expected)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_the_largest_of_a_channel_is_the_pools_on_a_card() -> None:
    x = torch.randn(3, 8, 12, 20, device="cuda").to(memory_format=torch.channels_last)
    x.requires_grad_()
    ours, pooled = _largest(x), torch.nn.functional.adaptive_max_pool2d(x, 1)
    assert torch.equal(ours, pooled)
    weights = torch.randn_like(pooled)
    (one,) = torch.autograd.grad((ours * weights).sum(), x)
    (other,) = torch.autograd.grad((pooled * weights).sum(), x)
    assert torch.equal(one, other)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("resident", [True, False])
def test_a_captured_step_is_the_plain_one(make_recipe: MakeRecipe, resident: bool) -> None:
    phases = [{"share": 0.5}, {"share": 0.5, "crop": 64}]
    recipe = make_recipe(batch_size=4, phases=phases, loss={"warmup_steps": 2})
    plain, one = open_step(recipe, "cuda", graph=False)
    captured, other = open_step(recipe, "cuda")
    if not resident:
        bank = collect_frames(recipe, cut_validation(recipe))
        captured = Step(
            other,
            TrainingBatches(recipe, bank),
            torch.device("cuda"),
            bfloat16=False,
            graph=True,
        )
    for number in (0, 1, 2, 3, 6, 7):  # of both losses and both phases
        losses = [float(step(number)) for step in (plain, captured)]
        assert losses[0] == pytest.approx(losses[1], rel=1e-4)
        for mine, theirs in zip(gradients(one), gradients(other), strict=True):
            torch.testing.assert_close(mine, theirs, rtol=1e-2, atol=1e-4)
    for mine, theirs in zip(one.buffers(), other.buffers(), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-3, atol=1e-5)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_run_on_a_card_learns_and_goes_on(make_recipe: MakeRecipe, tmp_path: Any) -> None:
    from pinglow.training.fit import Machine, train

    recipe = make_recipe(
        steps=120,
        batch_size=4,
        validate_every=40,
        network={"widths": [8, 16]},
        loss={"warmup_steps": 20, "terms": [{"name": "dice"}, {"name": "bce", "weight": 5.0}]},
        optimizer={"learning_rate": 0.02, "warmup_steps": 5},
    )
    task = train(recipe, tmp_path / "run", progress=False, machine=Machine("cuda"))
    assert task.score > 0.4
