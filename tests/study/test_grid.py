"""Studies as files, and the runs that they plan."""

from __future__ import annotations

from pathlib import Path

import pytest

from pinglow.errors import RecipeError
from pinglow.study.grid import load_study, plan_runs
from pinglow.training.recipe_file import load_recipe

STUDY = """
name = "small"
recipe = "fast"
seeds = [3, 1]
[set]
steps = 2000
"data.sets" = [{ folder = "a" }]
[[arms]]
name = "plain"
[[arms]]
name = "other"
set = { "loss.terms.0.options" = { variant = "penalty" }, "network.attention" = "free" }
seeds = [1]
[[compare]]
first = "plain"
second = "other"
"""


def write(tmp_path: Path, text: str = STUDY) -> Path:
    path = tmp_path / "study.toml"
    path.write_text(text)
    return path


def test_every_arm_comes_with_the_first_seed_before_the_next(tmp_path: Path) -> None:
    plan = plan_runs(load_study(write(tmp_path)))
    assert [run.name for run in plan] == ["plain-1", "other-1", "plain-3"]
    assert [run.recipe.seed for run in plan] == [1, 1, 3]


def test_arms_differ_by_what_they_set_and_share_the_validation_frames(tmp_path: Path) -> None:
    plain, other, _ = (run.recipe for run in plan_runs(load_study(write(tmp_path))))
    assert {plain.steps, other.steps} == {2000}
    assert plain.data.validation_seed == other.data.validation_seed == 0
    assert other.loss.terms[0].options == {"variant": "penalty"}
    alike = {"name", "loss", "network"}
    assert plain.model_dump(exclude=alike) == other.model_dump(exclude=alike)
    assert plain.network.attention != other.network.attention == "free"


def test_a_digest_tells_settings_apart_and_not_places(tmp_path: Path) -> None:
    study = load_study(write(tmp_path))
    here, there = plan_runs(study), plan_runs(study, Path("/elsewhere"))
    assert there[0].recipe.data.root == "/elsewhere"
    assert [run.digest for run in here] == [run.digest for run in there]
    assert len({run.digest for run in here}) == 3
    longer = plan_runs(load_study(write(tmp_path, STUDY.replace("2000", "4000"))))
    assert longer[0].digest != here[0].digest


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('recipe = "fast"', 'recipes = "fast"', "key 'recipes' is unknown; did you mean 'recipe'"),
        ("seeds = [1]", "sees = [1]", r"key 'arms\.1\.sees' is unknown; did you mean 'seeds'"),
        ('second = "other"', 'second = "gone"', "compares 'gone', none of the arms plain"),
        ('name = "other"', 'name = "plain"', "two arms have one name"),
        ("seeds = [3, 1]", "seeds = [-1]", r"seeds\.0"),
        ('name = "small"', 'name = "../up"', "name"),
        ('second = "other"', 'second = "plain"', "compares plain and plain: name different arms"),
        ("seeds = [1]", "seeds = []", r"arms\.1\.seeds"),
        ("steps = 2000", "seed = 2000", "seed cannot be set: it is the study's own"),
        ("steps = 2000", 'data.root = "/x"', r"data\.root cannot be set"),
        ("[set]", "[set", "is not readable TOML"),
    ],
)
def test_a_faulty_study_is_refused(tmp_path: Path, old: str, new: str, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        load_study(write(tmp_path, STUDY.replace(old, new, 1)))


def test_an_arm_that_makes_no_recipe_is_named(tmp_path: Path) -> None:
    text = STUDY.replace('"network.attention" = "free"', '"network.atention" = "free"')
    with pytest.raises(RecipeError, match=r"arm other: .*did you mean 'attention'"):
        plan_runs(load_study(write(tmp_path, text)))


def test_a_dotted_key_changes_that_key_alone(tmp_path: Path) -> None:
    text = STUDY.replace("steps = 2000", "steps = 2000\nloss.warmup_steps = 7")
    quoted = STUDY.replace("steps = 2000", 'steps = 2000\n"loss.warmup_steps" = 7')
    plain, other = (plan_runs(load_study(write(tmp_path, each))) for each in (text, quoted))
    assert plain == other
    assert plain[0].recipe.loss.warmup_steps == 7
    assert [term.weight for term in plain[0].recipe.loss.terms] == [1, 5]


def test_an_arm_leaves_the_others_alone(tmp_path: Path) -> None:
    text = """
name = "s"
[set]
"loss.terms" = [{ name = "scale", options = { variant = "diff" } }]
[[arms]]
name = "before"
[[arms]]
name = "location"
set = { "loss.terms.0.options.location" = true }
[[arms]]
name = "after"
"""
    plan = plan_runs(load_study(write(tmp_path, text)))
    options = {(run.arm.name, str(run.recipe.loss.terms[0].options)) for run in plan}
    assert options == {
        ("before", "{'variant': 'diff'}"),
        ("location", "{'variant': 'diff', 'location': True}"),
        ("after", "{'variant': 'diff'}"),
    }


def test_a_recipe_beside_the_study_is_found(tmp_path: Path) -> None:
    recipe = load_recipe("fast").model_copy(update={"batch_size": 3})
    (tmp_path / "mine.toml").write_text(recipe.to_toml())
    study = load_study(write(tmp_path, STUDY.replace('"fast"', '"mine.toml"')))
    assert plan_runs(study)[0].recipe.batch_size == 3


def test_runs_that_are_compared_need_one_number_of_steps(tmp_path: Path) -> None:
    text = STUDY.replace("steps = 2000", 'steps = "minutes"')
    with pytest.raises(RecipeError, match='arm plain has steps = "minutes"'):
        plan_runs(load_study(write(tmp_path, text)))


def test_a_detector_is_no_arm(tmp_path: Path) -> None:
    text = 'name = "s"\nrecipe = "detect"\n[[arms]]\nname = "plain"\n'
    with pytest.raises(RecipeError, match="arm plain trains a detector"):
        plan_runs(load_study(write(tmp_path, text)))
