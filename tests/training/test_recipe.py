from __future__ import annotations

import os
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tomli_w

from pinglow.errors import RecipeError
from pinglow.models.card import bundled_models, read_card
from pinglow.models.registry import parse_network
from pinglow.study.grid import load_study, plan_runs
from pinglow.training.recipe import Recipe
from pinglow.training.recipe_file import load_recipe, parse_recipe, read_toml

BUNDLED = sorted((Path(__file__).parents[2] / "recipes").glob("*.toml"))
MINIMAL: dict[str, Any] = {
    "name": "least",
    "steps": 1000,
    "data": {"sets": [{"folder": "f"}]},
}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "least.toml"
    file.write_text(tomli_w.dumps(MINIMAL))
    return file


def test_a_tilde_is_the_home_folder(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(path.parent))
    recipe = load_recipe("~/least.toml", {"data.root": "~/data"})
    assert recipe.data.place(recipe.data.sets[0]) == path.parent / "data" / "f"
    alone = load_recipe(path, {"data.sets.0.folder": "~/g"})
    assert alone.data.place(alone.data.sets[0]) == path.parent / "g"
    (path.parent / "inner").mkdir()
    study = path.parent / "inner" / "study.toml"
    study.write_text('name = "s"\nrecipe = "~/least.toml"\nseeds = [0]\narms = [{ name = "x" }]\n')
    assert [run.recipe.name for run in plan_runs(load_study(study))]


@pytest.mark.parametrize("file", BUNDLED, ids=lambda file: file.stem)
def test_every_bundled_recipe_is_valid_by_path_and_by_name(file: Path) -> None:
    assert load_recipe(file) == load_recipe(file.stem)


def test_the_bundled_recipes() -> None:
    names = ["base", "detect", "fast", "fast-finish", "mshnet", "paper"]
    assert sorted(file.stem for file in BUNDLED) == names


@pytest.mark.parametrize("file", BUNDLED, ids=lambda file: file.stem)
def test_a_bundled_recipe_starts_from_nothing_or_from_a_bundled_model(file: Path) -> None:
    recipe = load_recipe(file)
    models = {recipe.init, recipe.distill.model if recipe.distill else None} - {None}
    assert models <= bundled_models().keys()
    if recipe.init:
        assert parse_network(read_card(recipe.init).network) == recipe.network


def test_the_papers_recipe_is_the_papers_setting() -> None:
    paper = load_recipe("paper")
    assert paper.network.widths == (16, 32, 64, 128, 256)
    assert paper.network.depths == (1, 2, 2, 2, 2)
    assert (paper.network.patch, paper.network.attention) == (1, "learned")
    assert (paper.optimizer.name, paper.optimizer.learning_rate) == ("adagrad", 0.05)
    assert (paper.batch_size, paper.augmentation.crop) == (4, 256)
    epoch = 720 / paper.batch_size
    assert paper.steps == 400 * epoch
    assert paper.loss.warmup_steps == 5 * epoch
    (term,) = paper.loss.terms
    assert (term.name, term.weight) == ("scale", 1)
    assert term.options == {"variant": "diff", "location": True}
    assert paper.input_rule.scale(256, 256) == 1


def test_mshnet_differs_from_the_paper_in_attention_and_weight_only() -> None:
    paper, mshnet = (load_recipe(name).model_dump() for name in ("paper", "mshnet"))
    assert paper["network"].pop("attention") == "learned"
    assert mshnet["network"].pop("attention") == "free"
    assert paper["loss"]["terms"][0]["options"].pop("variant") == "diff"
    assert mshnet["loss"]["terms"][0]["options"].pop("variant") == "variance"
    assert paper.pop("name") != mshnet.pop("name")
    assert paper == mshnet


def test_a_recipe_survives_its_own_toml(tmp_path: Path, make_recipe: Callable[..., Recipe]) -> None:
    recipe: Recipe = make_recipe(loss={"terms": [{"name": "scale", "options": {"smooth": 2}}]})
    (tmp_path / "again.toml").write_text(recipe.to_toml())
    assert load_recipe(tmp_path / "again.toml") == recipe


@pytest.mark.parametrize(
    ("change", "unknown", "nearest"),
    [
        ("stepz=3", "stepz", "steps"),
        ("optimiser.name=adamw", "optimiser", "optimizer"),
        ("optimizer.learning_rat=0.1", "optimizer.learning_rat", "learning_rate"),
        ("network.width=[8, 16]", "network.width", "widths"),
        ("loss.warmup=1", "loss.warmup", "warmup_steps"),
        ("loss.terms.0.wight=1", "loss.terms.0.wight", "weight"),
        ("loss.terms.0.options.varient=diff", "loss.terms.0.options.varient", "variant"),
        ("data.rot=x", "data.rot", "root"),
        ("data.sets=[{foldr = 'f'}]", "data.sets.0.foldr", "folder"),
        ("augmentation.target_bais=1", "augmentation.target_bais", "target_bias"),
        ("input_rule.longside=64", "input_rule.longside", "long_side"),
    ],
)
def test_an_unknown_key_is_refused_with_the_nearest_known_one(
    path: Path, change: str, unknown: str, nearest: str
) -> None:
    with pytest.raises(RecipeError, match=f"'{unknown}' is unknown; did you mean '{nearest}'"):
        load_recipe(path, [change])


def test_a_key_that_resembles_none_gets_the_list(path: Path) -> None:
    with pytest.raises(RecipeError, match="'qqq' is unknown; known keys: name, seed, steps"):
        load_recipe(path, ["qqq=1"])


@pytest.mark.parametrize("number", ["2", "-1", "first", "9" * 5000])
def test_a_list_has_only_the_items_that_it_has(path: Path, number: str) -> None:
    with pytest.raises(RecipeError, match=f"loss.terms.{number} .* is no number of an item below"):
        load_recipe(path, [f"loss.terms.{number}=1"])


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ("steps=0", "steps"),
        ("steps=many", "steps"),
        ("seed=-1", "seed"),
        ("seed=4294967296", "seed"),
        ("name=../elsewhere", "name"),
        ("batch_size=", "batch_size"),
        ("ema_decay=1", "ema_decay"),
        ("network.type=YOLO", "network.type"),
        ("network.widths=[0, 8, 8, 8]", "network.widths"),
        ("network.widths=[8, 16]", "widths and depths"),
        ("network.attention=mystic", "network.attention"),
        ("network=3", "network"),
        ("loss.terms.0.name=scales", "loss.terms.0.name"),
        ("loss.terms=[]", "loss.terms"),
        ("loss.terms.0.weight=0", "loss.terms.0.weight"),
        ("network.convolution=cross", "network.convolution"),
        ("network.type=nowhere:Network", "nowhere:Network"),
        ("loss.terms.0.name=json:JSONDecoder", "json:JSONDecoder"),
        ("network.type=json:JSONDecoder", "json:JSONDecoder"),
        ("loss.terms.0.options.variant=best", "loss.terms.0.options"),
        ("loss.terms.0.options.smooth=0", "loss.terms.0.options"),
        ("loss.terms.0.options.smooth=a", "loss.terms.0.options.smooth"),
        ("loss.terms.0.options.location=no", "loss.terms.0.options.location"),
        ("optimizer.name=sgd", "optimizer.name"),
        ("optimizer.learning_rate=0", "optimizer.learning_rate"),
        ("data.sets=[]", "data.sets"),
        ("data.validation=0", "data.validation"),
        ("data.sets=[{folder = 'f', weight = 0}]", "data.sets.0.weight"),
        ("augmentation.scale=[0.0, 1.0]", "augmentation.scale"),
        ("augmentation.crop=16", "augmentation.crop"),
        ("input_rule.max_scale=0.5", "input_rule.max_scale"),
    ],
)
def test_an_impossible_value_is_refused_by_name(path: Path, change: str, named: str) -> None:
    with pytest.raises(RecipeError) as raised:
        load_recipe(path, [change])
    assert named in str(raised.value)
    assert str(path) in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(("name", "known"), [("dice", "smooth"), ("location", "none")])
def test_another_loss_says_whose_options_are_unknown(name: str, known: str) -> None:
    unknown = rf"options.variant' is unknown; known keys: {known} \(options of the loss '{name}'\)"
    with pytest.raises(RecipeError, match=unknown):
        load_recipe("fast", [f"loss.terms.0.name={name}"])
    changed = load_recipe("fast", [f"loss.terms=[{{name='{name}'}}]"])
    assert [term.name for term in changed.loss.terms] == [name]


def test_a_number_in_a_key_counts_in_a_list(path: Path) -> None:
    changes = ["loss.terms.0.options.location=true", "data.sets.0.split=train"]
    recipe = load_recipe(path, changes)
    assert recipe.loss.terms[0].options == {"variant": "diff", "location": True}
    assert recipe.data.sets[0].split == "train"


EARLIER: dict[str, Any] = {
    "name": "scale",
    "options": {"variant": "diff", "location": True},
    "warmup_steps": 3,
    "bce_weight": 5.0,
    "bce_per_target": False,
}


def test_a_recipe_of_the_earlier_form_is_read_with_one_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "earlier.toml"
    file.write_text(tomli_w.dumps(MINIMAL | {"loss": EARLIER}))
    recipe = load_recipe(file)
    terms = [
        {"name": "scale", "options": {"variant": "diff", "location": True}},
        {"name": "bce", "weight": 5.0},
    ]
    today = MINIMAL | {"loss": {"warmup_steps": 3, "terms": terms}}
    assert recipe == parse_recipe(today, "today") == load_recipe(file)
    assert [record.message for record in caplog.records] == [
        f"{file} is a recipe of the earlier form, read as [[loss.terms]] and [network]; "
        "docs/reference/recipes.md has today's"
    ]


def test_earlier_changes_of_the_loss_are_understood() -> None:
    changes = {"loss.options": {"variant": "mobius"}, "loss.bce_weight": 0.0}
    (term,) = load_recipe("fast", changes).loss.terms
    assert (term.name, term.options) == ("scale", {"variant": "mobius"})
    both = load_recipe("fast", ["loss.name=dice", "loss.options={}", "loss.bce_weight=2"]).loss
    assert [(term.name, term.weight) for term in both.terms] == [("dice", 1), ("bce", 2)]


def test_a_detectors_earlier_recipe_is_read(path: Path) -> None:
    path.write_text(tomli_w.dumps(MINIMAL | {"detector": {"gaussian": True}}))
    network = load_recipe(path).network
    assert network.model_dump() == {"type": "yolov8n-p2", "gaussian": True, "box_loss": "own"}
    changed = load_recipe("detect", ["detector.type=retinanet-small"])
    assert changed.network.type == "retinanet-small"


def test_an_option_that_is_no_more_is_named(path: Path) -> None:
    with pytest.raises(RecipeError, match=r"loss\.bce_per_target is no more; leave it out"):
        load_recipe(path, ["loss.bce_per_target=true"])


@pytest.mark.parametrize("name", sorted(bundled_models()))
def test_the_recipe_in_a_bundled_card_can_be_read(name: str) -> None:
    card = read_card(name)
    recipe = parse_recipe(tomllib.loads(card.recipe), name)
    assert recipe.network == parse_network(card.network)


def test_a_missing_key_is_named() -> None:
    with pytest.raises(RecipeError, match="here: steps: Field required"):
        parse_recipe({"name": "x", "data": {"sets": [{"folder": "f"}]}}, "here")


def test_the_last_step_must_be_validated(path: Path) -> None:
    with pytest.raises(RecipeError, match=r"steps is 1500.*multiple of validate_every \(1000\)"):
        load_recipe(path, ["steps=1500"])
    assert load_recipe(path, ["steps=1500", "validate_every=500"]).steps == 1500


@pytest.mark.parametrize(
    ("change", "key", "value"),
    [
        ("steps=2000", "steps", 2000),
        ("steps = 2_000 ", "steps", 2000),
        ("ema_decay=0.5", "ema_decay", 0.5),
        ("optimizer.learning_rate=1e-4", "optimizer.learning_rate", 1e-4),
        ("name=plain", "name", "plain"),
        ('name="quoted"', "name", "quoted"),
        ("augmentation.flip=false", "augmentation.flip", False),
        ("augmentation.scale=[0.5, 2]", "augmentation.scale", (0.5, 2.0)),
        ("data.root=/a=b c", "data.root", "/a=b c"),
        (r"data.root=C:\frames", "data.root", r"C:\frames"),
    ],
)
def test_changes_are_toml_or_bare_words(path: Path, change: str, key: str, value: object) -> None:
    found: Any = load_recipe(path, [change])
    for part in key.split("."):
        found = getattr(found, part)
    assert found == value


def test_a_short_trial_validates_and_reaches_the_full_learning_rate(path: Path) -> None:
    warmups = ["optimizer.warmup_steps=500", "loss.warmup_steps=500"]
    recipe = load_recipe(path, ["steps=10", "validate_every=1000", *warmups])
    assert recipe.validate_every == 10
    assert (recipe.optimizer.warmup_steps, recipe.loss.warmup_steps) == (5, 5)
    longer = load_recipe(path, ["steps=1000", "validate_every=1000", *warmups])
    assert longer.validate_every == 1000
    assert (longer.optimizer.warmup_steps, longer.loss.warmup_steps) == (500, 500)


def test_a_later_change_wins(path: Path) -> None:
    assert load_recipe(path, ["seed=1", "seed=2"]).seed == 2


@pytest.mark.parametrize(
    "change",
    [
        "seed",
        "=3",
        " =3",
        "steps.deep=3",
        "data.sets.1.folder=f",
        "data.sets.x.folder=f",
        "a..b=1",
        ".=1",
    ],
)
def test_a_change_of_another_form_is_refused(path: Path, change: str) -> None:
    with pytest.raises(RecipeError):
        load_recipe(path, [change])


def test_what_is_no_recipe_is_named(tmp_path: Path) -> None:
    bundled = ", ".join(file.stem for file in BUNDLED)
    with pytest.raises(RecipeError, match=f"'fst' is neither .* bundled: {bundled}"):
        load_recipe("fst")
    (tmp_path / "bad.toml").write_text("steps = = 3")
    with pytest.raises(RecipeError, match=r"bad\.toml is not readable TOML"):
        load_recipe(tmp_path / "bad.toml")
    (tmp_path / "bad.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(RecipeError, match=r"bad\.toml is no text in UTF-8: save it as UTF-8"):
        load_recipe(tmp_path / "bad.toml")


def test_the_bundled_recipes_are_plain_toml_with_comments() -> None:
    for file in BUNDLED:
        text = file.read_text()
        assert text.startswith("#")
        tomllib.loads(text)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ("optimizer.learning_rate=inf", "finite number"),
        ("augmentation.offset=inf", "finite number"),
        ("input_rule.max_scale=inf", "finite number"),
        ("loss.terms.0.options={smooth = inf}", "smooth is inf"),
    ],
)
def test_endless_numbers_are_refused(change: str, reason: str) -> None:
    with pytest.raises(RecipeError, match=reason):
        load_recipe("fast", [change])


def test_a_view_that_leaves_one_value_is_refused() -> None:
    small = ["batch_size=1", "augmentation.crop=32", "network.widths=[4, 4, 4, 4, 4]"]
    with pytest.raises(RecipeError, match="BatchNorm cannot take"):
        load_recipe("fast", [*small, "network.depths=[1, 1, 1, 1, 1]"])
    load_recipe("fast", [*small[1:], "network.depths=[1, 1, 1, 1, 1]"])


@pytest.mark.parametrize(
    "text",
    [
        "a = " + "[" * 20_000,
        "a = " + "{b=" * 20_000,
        "steps = " + "9" * 20_000,
        ".".join(["a"] * 20_000) + " = 1",
        " . ".join(['"a b"'] * 20_000) + " = 1",
        "[" + ".".join(["'a'"] * 20_000) + "]",
        "a = {" + ".".join(["a"] * 20_000) + " = 1}",
        "steps = " + "9" * 100,
        "batch_size = 99999999999999",
        "network.widths = [8, 99999999999]",
        "network.depths = [1, 1, 1, 999999999]",
        f"{'k' * 500_000} = 1",
    ],
    ids=range(12),
)
def test_what_nobody_would_write_is_one_sentence(tmp_path: Path, text: str) -> None:
    path = tmp_path / "absurd.toml"
    path.write_text(text)
    with pytest.raises(RecipeError) as raised:
        load_recipe(path)
    assert len(str(raised.value)) < 500
    if len(text) < 100_000:
        with pytest.raises(RecipeError) as raised:
            load_recipe("fast", [text])
        assert len(str(raised.value)) < 500


def test_a_pipe_is_no_recipe(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.toml")
    with pytest.raises(RecipeError, match="is a pipe or a device"):
        read_toml(tmp_path / "pipe.toml")
