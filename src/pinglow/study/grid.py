"""A study as one validated TOML file: arms, seeds, and the pairs of arms to compare."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from pinglow.errors import RecipeError, explain_fault
from pinglow.training.recipe import Recipe
from pinglow.training.recipe_file import load_recipe, read_toml

_RESERVED: Final = ("name", "seed", "data.root")  # the study's own business
_WHOLE: Final = ("loss.options",)  # of the earlier form: a table that is a value
_BATCHES: Final = ("steps", "batch_size", "data", "augmentation", "input_rule")
_Seed = Annotated[int, Field(ge=0, lt=2**32)]
_Name = Annotated[str, Field(pattern=r"^\w[\w.-]*$", max_length=100)]


def _flatten(settings: Mapping[str, Any], above: str = "") -> dict[str, Any]:
    """Tables as dotted keys: TOML's a.b = 1 must not replace all of a."""
    flat: dict[str, Any] = {}
    for inner, value in settings.items():
        key = f"{above}{inner}"
        if isinstance(value, Mapping) and key not in _WHOLE:
            flat |= _flatten(value, f"{key}.")
        else:
            flat[key] = value
    for key in _RESERVED:
        if key in flat:
            raise ValueError(f"{key} cannot be set: it is the study's own")
    return flat


_Settings = Annotated[dict[str, Any], AfterValidator(_flatten)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Arm(_Section):
    """One setting of the study: what it changes in the recipe."""

    name: _Name
    set: _Settings = Field(default={}, description="recipe keys and values, as in --set")
    seeds: tuple[_Seed, ...] | None = Field(
        default=None, min_length=1, description="instead of the study's"
    )
    says: str = Field(default="", description="what it is, for the report")


class Comparison(_Section):
    """Two arms whose difference the report gives."""

    first: str
    second: str
    question: str = ""


class Interaction(_Section):
    """Whether a factor's effect depends on another: (both - second) - (first - neither)."""

    both: str
    first: str
    second: str
    neither: str
    question: str = ""


class Study(_Section):
    """A study."""

    name: _Name
    recipe: str = Field(default="fast", description="the recipe that all arms start from")
    seeds: tuple[_Seed, ...] = Field(default=(0, 1, 2), min_length=1)
    set: _Settings = Field(default={}, description="changes to the recipe for all arms")
    arms: tuple[Arm, ...] = Field(min_length=1)
    compare: tuple[Comparison, ...] = ()
    interact: tuple[Interaction, ...] = ()

    @model_validator(mode="after")
    def _check_names(self) -> Study:
        names = [arm.name for arm in self.arms]
        if len(set(names)) < len(names):
            raise ValueError("two arms have one name")
        groups: list[tuple[str, ...]] = [(each.first, each.second) for each in self.compare]
        groups += [(e.both, e.first, e.second, e.neither) for e in self.interact]
        for group in groups:
            for name in group:
                if name not in names:
                    raise ValueError(f"compares {name!r}, none of the arms {', '.join(names)}")
            if len(set(group)) < len(group):
                raise ValueError(f"compares {' and '.join(group)}: name different arms")
        return self


@dataclass(frozen=True)
class PlannedRun:
    """One run of a study.

    Attributes:
        arm: Of the study.
        seed: Of everything random in the run but the validation frames.
        recipe: What is trained; at data.root as the study has it, or as asked for.
    """

    arm: Arm
    seed: int
    recipe: Recipe

    @property
    def name(self) -> str:
        """Of its files and its run folder."""
        return f"{self.arm.name}-{self.seed}"

    @property
    def digest(self) -> str:
        """See `digest_recipe`."""
        return digest_recipe(self.recipe)

    @property
    def batches(self) -> dict[str, Any]:
        """What decides the batches of a seed; arms that differ in it see others."""
        content = self.recipe.model_dump(mode="json")
        content["data"].pop("root")
        return {key: content[key] for key in _BATCHES}


def digest_recipe(recipe: Recipe) -> str:
    """Tells apart what would train differently; not by name or by where the data lies."""
    content = recipe.model_dump(mode="json", exclude_defaults=True, exclude={"name"})
    content["data"].pop("root", None)
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def load_study(path: Path) -> Study:
    """Read a study.

    Raises:
        RecipeError: The file cannot be read, a key is unknown, or a value does not fit.
    """
    content = read_toml(path)
    try:
        study = Study.model_validate(content)
    except ValidationError as error:
        raise RecipeError(f"{path}: {explain_fault(error, Study)}") from error
    beside = path.parent / Path(study.recipe).expanduser()
    return study.model_copy(update={"recipe": str(beside)}) if beside.is_file() else study


def plan_runs(study: Study, root: Path | None = None) -> list[PlannedRun]:
    """All runs in their order: every arm with the first seed, then with the next.

    So a study that is stopped early still compares all arms.

    Args:
        study: The study.
        root: Where the data lies; None: as the recipe says.

    Raises:
        RecipeError: An arm does not make a valid recipe, one with steps that are counted,
            or a detector.
    """
    seeds = sorted({seed for arm in study.arms for seed in arm.seeds or study.seeds})
    place = {} if root is None else {"data.root": str(root)}
    runs = []
    for seed in seeds:
        for arm in study.arms:
            if seed in (arm.seeds or study.seeds):
                # One cut for all seeds, so that differences can be taken frame by frame.
                changes = {"data.validation_seed": 0, **study.set, **arm.set, **place}
                changes |= {"name": f"{study.name}-{arm.name}", "seed": seed}
                try:
                    recipe = load_recipe(study.recipe, changes)
                except RecipeError as error:
                    raise RecipeError(f"arm {arm.name}: {error}") from error
                if not recipe.steps:
                    raise RecipeError(
                        f'arm {arm.name} has steps = "minutes": runs that are compared need one '
                        "number of steps"
                    )
                if recipe.network.kind != "pixels":
                    raise RecipeError(
                        f"arm {arm.name} trains a detector: a study compares networks that find "
                        "masks"
                    )
                runs.append(PlannedRun(arm, seed, recipe))
    return runs
