from __future__ import annotations

import signal
import time
import tomllib
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import tomli_w
from typer.testing import CliRunner, Result

from pinglow.cli.main import app
from pinglow.data.pack.writer import write_pack
from pinglow.data.synthetic.scenes import SceneSpec, write_dataset
from pinglow.errors import RecipeError
from pinglow.training.fit import Machine
from pinglow.training.recipe import Recipe
from pinglow.training.recipe_file import load_recipe
from pinglow.training.run import TrainingInterruptedError


class Calls(list[tuple[Recipe, Path, dict[str, Any]]]):
    error: Exception | None = None
    done: int | None = None


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Calls:
    """What the command asks the training itself to do, which is tested elsewhere."""
    made = Calls()

    def train(recipe: Recipe, run: Path, **options: Any) -> Any:
        made.append((recipe, run, options))
        options["on_start"](recipe, [])
        if made.error:
            raise made.error
        return SimpleNamespace(
            score=0.5, figures=("iou",), recipe=recipe, steps_done=made.done or recipe.steps
        )

    monkeypatch.setattr("pinglow.training.fit.train", train)
    monkeypatch.chdir(tmp_path)
    return made


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["train", *map(str, arguments)])


def sets_of(recipe: Recipe) -> list[tuple[str, str]]:
    return [(each.folder, each.split) for each in recipe.data.sets]


def test_a_bundled_recipe_trains_into_a_folder_of_its_name(calls: Calls) -> None:
    result = run("fast")
    assert result.exit_code == 0, result.output
    ((recipe, folder, options),) = calls
    assert recipe.name == "pinglow-fast"
    assert folder == Path("runs/pinglow-fast")
    assert options["resume"] is False
    assert options["command"].split()[0] == "pinglow"
    assert result.stdout == ""
    steps = load_recipe("fast").steps
    assert f"training pinglow-fast: {steps} steps into runs/pinglow-fast" in result.stderr
    assert "weights.safetensors" in result.stderr


def test_changes_and_folder_are_passed_on(calls: Calls, tmp_path: Path) -> None:
    changes = ("--set", "steps=50", "--set", "validate_every=10", "--set", "name=mine")
    result = run("fast", *changes, "--run", tmp_path / "r [1]")
    assert result.exit_code == 0, result.output
    ((recipe, folder, _),) = calls
    assert (recipe.steps, recipe.name, folder) == (50, "mine", tmp_path / "r [1]")
    assert f"{tmp_path}/r [1]/weights.safetensors" in result.stderr


def test_data_takes_the_place_of_the_recipes(calls: Calls, tmp_path: Path) -> None:
    for name in ("plain", "a:b", 'quo"te', "é"):
        (tmp_path / name).mkdir()
    given = ["plain", "plain:val", "a:b", "a:b:test", 'quo"te:x', "é", "/abs/gone:trainval"]
    options = [word for item in given for word in ("--data", item)]
    assert run("fast", *options).exit_code == 0
    assert sets_of(calls[0][0]) == [
        (str(tmp_path / "plain"), "train"),
        (str(tmp_path / "plain"), "val"),
        (str(tmp_path / "a:b"), "train"),
        (str(tmp_path / "a:b"), "test"),
        (str(tmp_path / 'quo"te'), "x"),
        (str(tmp_path / "é"), "train"),
        ("/abs/gone", "trainval"),
    ]


def test_data_may_bring_a_list_for_validation(calls: Calls, tmp_path: Path) -> None:
    (tmp_path / "a:b").mkdir()
    given = ["gone:train:val", "a:b:trainval:some lists/x.txt"]
    options = [word for item in given for word in ("--data", item)]
    assert run("fast", *options).exit_code == 0
    sets = calls[0][0].data.sets
    assert [(each.folder, each.split, each.validation_split) for each in sets] == [
        (str(tmp_path / "gone"), "train", "val"),
        (str(tmp_path / "a:b"), "trainval", "some lists/x.txt"),
    ]
    assert run("fast", "--data", "gone:train:").exit_code == 2


def test_the_machine_is_passed_on_and_over_minutes_are_said(calls: Calls, tmp_path: Path) -> None:
    calls.done = 700
    options = ("--device", "cpu", "--devices", "2", "--minutes", "9", "--compile")
    result = run("fast", *options, "--run", tmp_path / "a run")
    assert result.exit_code == 0, result.output
    machine = calls[0][2]["machine"]
    assert replace(machine, begun=None) == Machine("cpu", 2, 9.0, compiled=True)
    assert 0 < machine.begun <= time.monotonic()
    steps = load_recipe("fast").steps
    assert f"the 9 minutes are over at step 700 of {steps}, everything is saved" in result.stderr
    assert f"go on with: pinglow train --resume '{tmp_path}/a run'" in result.stderr
    for minutes in ("0", "-1", "nan"):
        result = run("fast", "--minutes", minutes)
        assert result.exit_code == 2
        assert "--minutes is" in result.stderr


def test_of_several_processes_one_speaks(calls: Calls, monkeypatch: pytest.MonkeyPatch) -> None:
    calls.error = RecipeError("a mistake")
    monkeypatch.setenv("RANK", "1")  # as some clusters do, whoever runs
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert "a mistake" in run("fast").stderr
    monkeypatch.setenv("MASTER_ADDR", "localhost")
    monkeypatch.setenv("NODE_RANK", "0")
    result = run("fast")
    assert (result.exit_code, result.stderr) == (2, "")
    monkeypatch.setenv("LOCAL_RANK", "0")
    result = run("fast")
    assert result.exit_code == 2
    assert "a mistake" in result.stderr


def test_data_may_be_a_pack_or_a_folder_in_it(calls: Calls, tmp_path: Path) -> None:
    for name in ("one", "two"):
        write_dataset(tmp_path / name, 1, SceneSpec(width=64, height=64))
    write_pack([tmp_path / "one", tmp_path / "two"], tmp_path / "both.pack")
    write_pack([tmp_path / "one"], tmp_path / "a:b.pack")
    given = ["both.pack/one", "both.pack/two:val", "a:b.pack", "a:b.pack:val", "both.pack:val"]
    assert run("fast", *[word for item in given for word in ("--data", item)]).exit_code == 0
    assert sets_of(calls[0][0]) == [
        (str(tmp_path / "both.pack" / "one"), "train"),
        (str(tmp_path / "both.pack" / "two"), "val"),
        (str(tmp_path / "a:b.pack"), "train"),
        (str(tmp_path / "a:b.pack"), "val"),
        (str(tmp_path / "both.pack"), "val"),  # reading it asks which of the two
    ]


@pytest.fixture
def stored(tmp_path: Path) -> Path:
    folder = tmp_path / "old run"
    folder.mkdir()
    content = {"name": "old", "steps": 1000, "data": {"sets": [{"folder": "f"}]}}
    (folder / "recipe.toml").write_text(tomli_w.dumps(content))
    return folder


def test_resuming_takes_the_runs_own_recipe(calls: Calls, stored: Path) -> None:
    assert run("--resume", stored).exit_code == 0
    assert run(stored / "recipe.toml", "--resume", stored).exit_code == 0
    for recipe, folder, options in calls:
        assert (recipe.name, folder, options["resume"]) == ("old", stored, True)


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=["SIGINT", "SIGTERM"]
)
def test_an_interruption_is_no_error(calls: Calls, number: int, code: int) -> None:
    message = "stopped at step 7, everything is saved; go on with: pinglow train --resume x"
    calls.error = TrainingInterruptedError(message, number)
    result = run("fast")
    assert result.exit_code == code
    assert result.stderr.splitlines()[-1] == message


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ([], "no recipe is given"),
        (["fast", "--run", "a", "--resume", "b"], "--run and --resume exclude each other"),
        (["--resume", "gone"], "--resume gone is not a run folder"),
        (["fst"], "'fst' is neither a file nor a bundled recipe"),
        (["fast", "--set", "stepz=3"], "did you mean 'steps'"),
        (["fast", "--set", "steps"], "not of the form key=value"),
    ],
    ids=str,
)
def test_mistakes_are_named_and_exit_with_2(calls: Calls, arguments: list[str], named: str) -> None:
    result = run(*arguments)
    assert result.exit_code == 2
    assert named in result.stderr
    assert result.stderr.startswith("error: ")
    assert len(result.stderr.splitlines()) == 1
    assert not calls


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    content = {
        "name": "tiny",
        "steps": 2,
        "batch_size": 2,
        "validate_every": 1,
        "network": {"widths": [4, 8], "depths": [1, 1]},
        "data": {"sets": [{"folder": "replaced"}]},
        "augmentation": {"crop": 32},
    }
    path = tmp_path / "tiny.toml"
    path.write_text(tomli_w.dumps(content))
    return path


def test_missing_data_is_named_and_nothing_is_left_behind(recipe: Path, tmp_path: Path) -> None:
    result = run(recipe, "--data", tmp_path / "gone", "--run", tmp_path / "run")
    assert result.exit_code == 2
    assert "gone is not a folder" in result.stderr
    assert not (tmp_path / "run").exists()


def test_a_whole_run(recipe: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    write_dataset(tmp_path / "scenes", 5, SceneSpec(width=64, height=64), seed=2)
    folder = tmp_path / "run"
    result = run(recipe, "--data", tmp_path / "scenes", "--run", folder)
    assert result.exit_code == 0, result.output
    lines = [line for line in result.stderr.splitlines() if line.strip()]
    assert [line.split()[0] for line in lines] == [
        *("tiny:", "training", "scenes:", "step", "step", "last")
    ]
    assert (folder / "weights.safetensors").is_file()
    stored = tomllib.loads((folder / "recipe.toml").read_text())
    assert stored["data"]["sets"][0]["folder"] == str(tmp_path / "scenes")
    again = run(recipe, "--data", tmp_path / "scenes", "--run", folder)
    assert again.exit_code == 2
    assert "holds a run already" in again.stderr
    assert capfd.readouterr().out == ""
