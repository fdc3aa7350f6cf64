"""Two processes on the CPU train what one does."""

from __future__ import annotations

import csv
import itertools
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from pinglow.data.pack.writer import write_pack
from pinglow.errors import OptionError, RecipeError
from pinglow.inference.predictor import Predictor
from pinglow.io.places import file_system
from pinglow.training.batches import TrainingBatches
from pinglow.training.fit import train
from pinglow.training.processes import SharedBatchNorm2d, World, open_world, share_norms
from pinglow.training.recipe import Recipe
from pinglow.training.run import TrainingInterruptedError
from s3 import serve_s3

MakeRecipe = Callable[..., Recipe]


@pytest.fixture(scope="module")
def recipe(make_recipe: MakeRecipe) -> Recipe:
    return make_recipe(
        batch_size=4,
        network={"widths": [4, 8], "patch": 2},
        augmentation={"crop": 32, "paste": 0.5},
    )


@pytest.fixture(scope="module")
def alone(recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the run of one process."""
    run = tmp_path_factory.mktemp("alone") / "run"
    train(recipe, run, progress=False)
    return run


def start(options: list[str], launcher: tuple[str, ...] = ()) -> list[str]:
    """The steps that were validated, as the command has printed them."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "default"}
    command = [sys.executable, "-m", *launcher, "pinglow", "train", "--device", "cpu", *options]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stderr.splitlines() if line.startswith("step ")]
    return [line.partition(":")[0] for line in lines]


def rows(run: Path) -> list[dict[str, float]]:
    with (run / "metrics.csv").open(newline="") as file:
        return [
            {key: float(value) for key, value in row.items() if key != "minutes"}
            for row in csv.DictReader(file)
        ]


def assert_same_to_rounding(run: Path, other: Path) -> None:
    one, two = (load_file(path / "weights.safetensors") for path in (run, other))
    assert one.keys() == two.keys()
    for name, value in one.items():
        # BatchNorm takes these away again: the gradient of such a bias is rounding alone.
        if name.endswith(("conv1.bias", "conv2.bias", "skip.0.bias", "running_mean")):
            continue
        torch.testing.assert_close(two[name], value, rtol=1e-3, atol=1e-5, msg=name)
    frame = np.random.default_rng(0).normal(size=(64, 64)).astype(np.float32)
    found = [Predictor.load(path, backend="torch").probability(frame) for path in (run, other)]
    np.testing.assert_allclose(found[0], found[1], atol=1e-4)
    for mine, theirs in zip(rows(run), rows(other), strict=True):
        assert mine == pytest.approx(theirs, rel=1e-3, abs=1e-6)


def test_two_processes_train_and_score_as_one(recipe: Recipe, alone: Path, tmp_path: Path) -> None:
    (tmp_path / "recipe.toml").write_text(recipe.to_toml())
    options = [str(tmp_path / "recipe.toml"), "--run", str(tmp_path / "two"), "--devices", "2"]
    assert start(options) == ["step 5", "step 10"]  # one of them has printed it
    assert_same_to_rounding(alone, tmp_path / "two")


@pytest.fixture
def distant(recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Recipe]:
    """The recipe with its frames in a pack on object storage."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    write_pack([recipe.data.place(recipe.data.sets[0])], tmp_path / "frames.pack")
    with serve_s3():
        system, _ = file_system("s3://bucket")
        system.mkdir("bucket")
        system.put_file(str(tmp_path / "frames.pack"), "bucket/frames.pack")
        data = recipe.data.model_copy(update={"root": "s3://bucket/frames.pack"})
        yield recipe.model_copy(update={"data": data})


def test_torchrun_starts_processes_too_and_goes_on_with_what_one_began(
    distant: Recipe, alone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make = TrainingBatches.batch

    def batch(self: TrainingBatches, number: int) -> Any:
        if number == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return make(self, number)

    with monkeypatch.context() as patch:
        patch.setattr(TrainingBatches, "batch", batch)
        with pytest.raises(TrainingInterruptedError):
            train(distant, tmp_path / "two", progress=False)
    launcher = ("torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m")
    assert start(["--resume", str(tmp_path / "two")], launcher) == ["step 5", "step 10"]
    assert_same_to_rounding(alone, tmp_path / "two")
    assert len(list(tmp_path.glob("cache/pinglow/packs/fetched/*.pack"))) == 1


def test_a_batch_that_cannot_be_shared_is_refused(
    make_recipe: MakeRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    three = World(torch.device("cpu"), 0, 3)
    monkeypatch.setattr("pinglow.training.fit.open_world", lambda *_: three)
    with pytest.raises(RecipeError, match="which 3 processes cannot share evenly; set it to 6"):
        train(make_recipe(batch_size=4), tmp_path / "run", progress=False)
    assert not (tmp_path / "run").exists()


def test_impossible_numbers_of_devices_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(OptionError, match="--devices is 0; use 1 or more"):
        open_world("cpu", 0)
    monkeypatch.setattr(
        "pinglow.training.processes.choose_device", lambda *_: torch.device("cuda", 1)
    )
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    with pytest.raises(OptionError, match="--devices is 4, but this machine has 2"):
        open_world("cuda", 4)
    with pytest.raises(OptionError, match="leave out its number"):
        open_world("cuda:1", 2)


def test_shares_are_gathered_in_their_first_order() -> None:
    items = list(range(11))

    for size in (1, 2, 3, 12):
        shares = [World(torch.device("cpu"), rank, size).share(items) for rank in range(size)]
        assert sorted(itertools.chain(*shares)) == items
        assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_a_shared_norm_of_one_process_is_the_plain_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.distributed.get_world_size", lambda: 1)
    monkeypatch.setattr("torch.distributed.all_reduce", lambda values: None)
    plain = nn.Sequential(nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5)).double()
    shared = nn.Sequential(nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5)).double()
    shared.load_state_dict(plain.state_dict())
    share_norms(shared)
    assert type(shared[1]) is SharedBatchNorm2d
    x = torch.randn(4, 3, 9, 8, dtype=torch.float64)
    for _ in range(3):
        outs = [network(x * 3 + 1) for network in (plain, shared)]
        torch.testing.assert_close(outs[0], outs[1], rtol=1e-5, atol=1e-5)
        for out in outs:
            (out * torch.arange(out.numel()).reshape(out.shape).cos()).sum().backward()
    for (name, one), two in zip(plain.named_parameters(), shared.parameters(), strict=True):
        torch.testing.assert_close(one.grad, two.grad, rtol=1e-4, atol=1e-4, msg=name)
    for one, two in zip(plain.buffers(), shared.buffers(), strict=True):
        torch.testing.assert_close(one, two, rtol=1e-5, atol=1e-6)
    assert torch.equal(shared.eval()(x), shared(x))
