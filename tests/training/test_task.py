from __future__ import annotations

import copy
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from pinglow.backends.torch import TorchBackend
from pinglow.inference.probability import predict_probability
from pinglow.losses import ScaleLoss, SoftIoULoss
from pinglow.metrics import PROTOCOLS, THRESHOLDS, Scorer
from pinglow.models.weights import load_network
from pinglow.training.recipe import Recipe
from pinglow.training.segmentation import SegmentationTask
from pinglow.training.task import ValidationFrame, learning_rate

MakeRecipe = Callable[..., Recipe]


def make_batch(seed: int = 0, side: int = 32) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    images = torch.randn(2, 1, side, side, generator=generator)
    masks = (torch.rand(2, 1, side, side, generator=generator) > 0.97).float()
    return images, masks


def reference_loss(task: SegmentationTask, criterion: nn.Module, bce: float) -> float:
    """Mean over fused output and levels, each against the mask max-pooled to its size."""
    images, masks = make_batch()
    terms = []
    for logits in copy.deepcopy(task.network).forward_pyramid(images):
        truth = nn.functional.adaptive_max_pool2d(masks, logits.shape[-2:])
        term = criterion(logits, truth)
        if bce:
            p = torch.sigmoid(logits.double())
            term = term - bce * (truth * p.log() + (1 - truth) * (1 - p).log()).mean()
        terms.append(term.item())
    return sum(terms) / len(terms)


@pytest.mark.parametrize("bce", [0.0, 2.0])
@pytest.mark.parametrize("step", [0, 3, 4, 9])
def test_the_loss_changes_at_the_end_of_its_warm_up(
    make_recipe: MakeRecipe, step: int, bce: float
) -> None:
    terms = [{"name": "scale", "options": {"variant": "diff"}}]
    terms += [{"name": "bce", "weight": bce}] if bce else []
    recipe = make_recipe(loss={"warmup_steps": 4, "terms": terms}, network={"patch": 2})
    task = SegmentationTask(recipe)
    criterion = SoftIoULoss() if step < 4 else ScaleLoss("diff")
    expected = reference_loss(task, criterion, bce)
    found = task.batch_loss(*make_batch(), task.is_warm(step)).item()
    assert found == pytest.approx(expected, rel=1e-5)
    other = reference_loss(task, ScaleLoss("diff") if step < 4 else SoftIoULoss(), bce)
    assert abs(other - expected) > 1e-4  # the two can be told apart


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ("constant", lambda step: min(1, (step + 1) / 4)),
        (
            "cosine",
            lambda step: (
                min(1, (step + 1) / 4) * (1 + math.cos(math.pi * max(0, step - 3) / 17)) / 2
            ),
        ),
    ],
)
def test_the_learning_rate_over_the_steps(
    make_recipe: MakeRecipe, schedule: str, expected: Callable[[int], float]
) -> None:
    section = {"schedule": schedule, "warmup_steps": 3, "learning_rate": 0.01}
    recipe = make_recipe(steps=20, optimizer=section)
    rates = [learning_rate(recipe.optimizer, 20, step) for step in range(20)]
    assert rates == pytest.approx([0.01 * expected(step) for step in range(20)])
    assert (max(rates), rates[3]) == pytest.approx((0.01, 0.01))


@pytest.mark.parametrize(
    ("name", "kind"), [("adamw", torch.optim.AdamW), ("adagrad", torch.optim.Adagrad)]
)
def test_the_optimizer_holds_the_network_and_nothing_else(
    make_recipe: MakeRecipe, name: str, kind: type
) -> None:
    task = SegmentationTask(make_recipe(optimizer={"name": name, "weight_decay": 0.03}))
    optimizer = task.build_optimizer(torch.device("cpu"))
    assert type(optimizer) is kind
    decayed, others = optimizer.param_groups
    assert (decayed["weight_decay"], others["weight_decay"]) == (0.03, 0)
    held = {id(each): group for group in (decayed, others) for each in group["params"]}
    assert len(held) == len(decayed["params"]) + len(others["params"])
    for key, parameter in task.network.named_parameters():
        is_convolution = key.endswith("weight") and "norm" not in key and parameter.dim() == 4
        assert held.pop(id(parameter)) is (decayed if is_convolution else others)
    assert not held


def test_the_moving_average_follows_its_formula(make_recipe: MakeRecipe) -> None:
    task = SegmentationTask(make_recipe(ema_decay=0.6))
    assert task.average is not None
    weight = task.network.stem.weight
    counter = next(b for n, b in task.network.named_buffers() if n.endswith("num_batches_tracked"))
    average = task.average.stem.weight
    expected = weight.detach().clone()
    for count in range(12):
        with torch.no_grad():
            weight += count + 1
            counter += 1
        task.follow(count)
        if count == 0:
            expected = weight.detach().clone()  # the first update copies
        else:
            keep = min(0.6, (1 + count) / (10 + count))
            expected = keep * expected + (1 - keep) * weight.detach()
        torch.testing.assert_close(average.detach(), expected)
    followed = dict(task.average.named_buffers())
    for name, buffer in task.network.named_buffers():
        if not buffer.is_floating_point():
            assert torch.equal(followed[name], buffer)


def test_without_a_moving_average_the_network_itself_is_used(make_recipe: MakeRecipe) -> None:
    task = SegmentationTask(make_recipe(ema_decay=0.0))
    assert task.average is None
    assert task.trained_network is task.network


def test_validation_scores_the_averaged_network_as_inference_runs_it(
    make_recipe: MakeRecipe,
) -> None:
    task = SegmentationTask(make_recipe())
    with torch.no_grad():
        task.network.fuse.bias.fill_(-50)  # finds nothing
        task.trained_network.fuse.bias.fill_(50)  # finds everything
    rng = np.random.default_rng(0)
    scorers = {name: Scorer(PROTOCOLS["strict"], thresholds=THRESHOLDS) for name in ("a", "b")}
    names, frames = ("a", "a", "b"), []
    for number, name in enumerate(names):
        frame = rng.integers(0, 2**14, (40, 50 + number)).astype(np.uint16)
        mask = np.zeros(frame.shape, dtype=bool)
        mask[5:7, 8 : 10 + number] = True
        frames.append(ValidationFrame(name, frame, mask))
        probability = predict_probability(
            TorchBackend(task.trained_network.eval()), frame, task.recipe.input_rule
        )
        assert (probability > 0.5).all()
        scorers[name].update(probability, mask)
    task.take_scores(names, task.score_frames(frames))
    assert task.reports == {name: scorer.compute() for name, scorer in scorers.items()}
    assert task.scorers["a"].images == scorers["a"].images
    ious = [report.iou for report in task.reports.values()]
    assert task.score == pytest.approx(sum(ious) / 2)
    assert 0 < task.score < 0.01
    task.take_scores(names, task.score_frames(frames))  # the last validation is forgotten
    assert task.reports == {name: scorer.compute() for name, scorer in scorers.items()}


def test_a_validation_without_targets_has_a_score(make_recipe: MakeRecipe) -> None:
    task = SegmentationTask(make_recipe())
    counts = np.zeros((32, 32), dtype=np.uint8)
    empty = ValidationFrame("empty", counts, counts.astype(bool))
    task.take_scores(["empty"], task.score_frames([empty]))
    assert task.score == 0
    # Beside one with targets, it does not count.
    with torch.no_grad():
        task.trained_network.fuse.bias.fill_(50)  # finds everything
    mask = counts.astype(bool)
    mask[4:8, 4:8] = True
    scene = ValidationFrame("scene", counts, mask)
    task.take_scores(["empty", "scene"], task.score_frames([empty, scene]))
    assert task.score == task.reports["scene"].iou
    assert task.score > 0


def test_a_teachers_probabilities_are_learned_where_the_masks_do_not_deny_them(
    make_recipe: MakeRecipe, small_model: Path
) -> None:
    plain = SegmentationTask(make_recipe(loss={"warmup_steps": 0}))
    distill = {"model": str(small_model), "weight": 3.0}
    task = SegmentationTask(make_recipe(loss={"warmup_steps": 0}, distill=distill))
    assert task.state_dict().keys() == plain.state_dict().keys()  # the teacher is not saved
    plain.load_state_dict(task.state_dict())
    images, masks = make_batch(side=64)
    losses = [each.batch_loss(images, masks, False).double() for each in (plain, task)]
    teacher, _ = load_network(small_model)
    with torch.no_grad():
        p = torch.sigmoid(copy.deepcopy(task.network)(images).double())
        q = torch.sigmoid(teacher(images).double())
    denied = (q > 0.5) != (masks > 0.5)
    assert 0 < denied.double().mean() < 1
    distance = -(q * p.log() + (1 - q) * (1 - p).log())
    distance = torch.where(denied, 0.0, distance).mean()
    assert (losses[1] - losses[0]).item() == pytest.approx(3 * distance.item(), rel=1e-3)
    losses[1].backward()
    assert all(each.grad is None for each in task._teachers[0].parameters())


def test_frames_are_scored_where_the_network_is(
    make_recipe: MakeRecipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = SegmentationTask(make_recipe()).to("meta")
    asked: list[torch.device] = []

    def fastest(network: nn.Module, device: torch.device) -> TorchBackend:
        asked.append(device)
        return TorchBackend(network)

    monkeypatch.setattr(TorchBackend, "fastest", fastest)
    assert task.score_frames([]) == []
    assert asked == [torch.device("meta")]
