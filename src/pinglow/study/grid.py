"""A study as one validated TOML file: arms, seeds, and the pairs of arms to compare."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from pinglow.errors import RecipeError
from pinglow.training.recipe import Recipe, load_recipe, read_toml

_PLACE: Final = "data.root"  # where the data lies is no part of what a run is
_Seed = Annotated[int, Field(ge=0, lt=2**32)]
_Name = Annotated[str, Field(pattern=r"^\w[\w.+-]*$")]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Arm(_Section):
    """One setting of the study: what it changes in the recipe."""

    name: _Name
    set: dict[str, Any] = Field(default={}, description="recipe keys and values, as in --set")
    seeds: tuple[_Seed, ...] | None = Field(default=None, description="instead of the study's")
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
    set: dict[str, Any] = Field(default={}, description="changes to the recipe for all arms")
    arms: tuple[Arm, ...] = Field(min_length=1)
    compare: tuple[Comparison, ...] = ()
    interact: tuple[Interaction, ...] = ()

    @model_validator(mode="after")
    def _check_names(self) -> Study:
        names = [arm.name for arm in self.arms]
        if len(set(names)) < len(names):
            raise ValueError("two arms have one name")
        used = [name for each in self.compare for name in (each.first, each.second)]
        for each in self.interact:
            used += [each.both, each.first, each.second, each.neither]
        for name in used:
            if name not in names:
                raise ValueError(f"compares {name!r}, which is none of the arms {', '.join(names)}")
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
        """Tells apart what would train differently; not by where the data lies."""
        content = self.recipe.model_dump(mode="json", exclude={"name": True, "data": {"root"}})
        return hashlib.sha256(repr(content).encode()).hexdigest()[:16]


def load_study(path: Path) -> Study:
    """Read a study.

    Raises:
        RecipeError: The file cannot be read, a key is unknown, or a value does not fit.
    """
    try:
        return Study.model_validate(read_toml(path))
    except ValidationError as error:
        fault = error.errors()[0]
        where = ".".join(str(part) for part in fault["loc"]) or "study"
        raise RecipeError(f"{path}: {where}: {fault['msg']}; mend it and start again") from error


def plan_runs(study: Study, root: Path | None = None) -> list[PlannedRun]:
    """All runs in their order: every arm with the first seed, then with the next.

    So a study that is stopped early still compares all arms.

    Args:
        study: The study.
        root: Where the data lies; None: as the recipe says.

    Raises:
        RecipeError: An arm does not make a valid recipe.
    """
    seeds = sorted({seed for arm in study.arms for seed in arm.seeds or study.seeds})
    place = {} if root is None else {_PLACE: str(root)}
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
                runs.append(PlannedRun(arm, seed, recipe))
    return runs
