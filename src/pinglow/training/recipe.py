"""Recipes: what a training run is told; `pinglow.training.recipe_file` reads them from TOML."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, Self, TypeVar

import tomli_w
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SerializeAsAny,
    ValidationError,
    create_model,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError

from pinglow.data.augment.views import Augmentation
from pinglow.data.known import KNOWN_DATASETS
from pinglow.errors import EXPLAINED, MissingExtraError, ModelError, RecipeError, explain_fault
from pinglow.losses import find_loss
from pinglow.models.registry import NetworkConfig, parse_network
from pinglow.plugins import constructor_fields
from pinglow.preprocess import InputRule

BoxSource = Literal["masks", "voc", "yolo", "coco"]
"""What a data folder has the boxes of its targets in."""


class Section(BaseModel):
    """A part of a recipe: no unknown keys, no change after it is made."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class LossTerm(Section):
    """A loss of the sum that is minimized."""

    name: str = Field(description="a key of pinglow.losses.LOSSES, or another package's")
    weight: float = Field(default=1.0, gt=0)
    options: dict[str, Any] = Field(default={}, description="its arguments")


class LossSection(Section):
    """The sum of losses that is minimized, and its warm-up."""

    warmup_steps: int = Field(
        default=0,
        ge=0,
        le=10**9,
        description="steps with the plain soft IoU in the place of the first term",
    )
    terms: tuple[LossTerm, ...] = Field(
        default=(LossTerm(name="scale", options={"variant": "diff"}),), min_length=1
    )


class DistillSection(Section):
    """A trained model whose probabilities are learned where the masks do not deny them."""

    model: str = Field(description="a bundled model or a weights file")
    weight: float = Field(default=1.0, gt=0, description="of the cross entropy with them")


class OptimizerSection(Section):
    """The optimizer and its learning rate over the steps."""

    name: Literal["adamw", "adagrad"] = "adamw"
    learning_rate: float = Field(default=2e-3, gt=0)
    weight_decay: float = Field(default=0.01, ge=0)
    schedule: Literal["cosine", "constant"] = "cosine"
    warmup_steps: int = Field(default=500, ge=0, le=10**9, description="linear, from 0")
    gradient_clip: float = Field(default=1.0, ge=0, description="largest gradient norm; 0: off")


class DataSet(Section):
    """One list of one data folder."""

    folder: str
    split: str = "trainval"
    weight: float = Field(default=1.0, gt=0, description="how often a frame of it is drawn")
    validation: float | None = Field(
        default=None, gt=0, lt=1, description="share for this list instead of data.validation"
    )
    validation_split: str | None = Field(
        default=None,
        min_length=1,
        description="a list that validates; nothing is cut from the other one then",
    )
    rotate: bool | None = Field(
        default=None, description="turn its frames or not, instead of augmentation.rotate"
    )
    scale_share: float | None = Field(
        default=None, ge=0, le=1, description="instead of augmentation.scale_share"
    )
    known_as: str | None = Field(
        default=None, description="its name in `pinglow data list`, if the folder's is another"
    )
    boxes: BoxSource | None = Field(
        default=None,
        description="of a detector: masks, voc, yolo or coco; the first that the folder has",
    )

    @model_validator(mode="after")
    def _check_validation(self) -> DataSet:
        if self.validation is not None and self.validation_split is not None:
            raise ValueError("validation and validation_split exclude each other")
        return self

    @field_validator("known_as")
    @classmethod
    def _check_known(cls, name: str | None) -> str | None:
        if name is not None and name not in KNOWN_DATASETS:
            raise ValueError(
                f"{name!r} is none of the known data sets, {', '.join(KNOWN_DATASETS)}"
            )
        return name


class DataSection(Section):
    """What to train on; validation frames are cut from the same lists, or have their own."""

    root: str = Field(default=".", description="folders are relative to this one")
    sets: tuple[DataSet, ...] = Field(min_length=1)
    validation: float = Field(
        default=0.1, gt=0, lt=1, description="share of each list, cut by near-duplicate group"
    )
    validation_seed: int | None = Field(
        default=None,
        ge=0,
        lt=2**32,
        description="draws the validation frames; the recipe's seed if absent",
    )

    def place(self, dataset: DataSet) -> Path:
        """The folder of a data set, or a path into a pack, which may be on object storage."""
        if "://" in dataset.folder:
            return Path(dataset.folder)  # takes a slash, which `split_address` does without
        return Path(self.root).expanduser() / Path(dataset.folder).expanduser()


class PhaseSection(Section):
    """A part of a run with views of its own; what it does not say is as in the whole recipe."""

    share: float = Field(gt=0, le=1, description="of the steps")
    crop: int | None = Field(default=None, ge=32, le=8192, description="side of a view, pixels")
    batch_size: int | None = Field(default=None, gt=0, le=2**16)
    target_bias: float | None = Field(default=None, ge=0, le=1)


class Phase(NamedTuple):
    """What the batches of a part of a run are like."""

    augmentation: Augmentation
    batch_size: int


def _read_network(values: Any) -> Any:
    """A network's own configuration, from the values of [network]."""
    if not isinstance(values, Mapping):
        return values
    try:
        return parse_network({"type": "PinwheelUNet", **values})
    except (ModelError, MissingExtraError) as error:
        raise PydanticCustomError(EXPLAINED, "{reason}", {"reason": str(error)}) from error


class Recipe(Section):
    """A training run: of a network that finds masks, or of a detector, as its network says."""

    name: str = Field(pattern=r"^\w[\w.-]*$", description="of the weights and the run folder")
    seed: int = Field(default=0, ge=0, lt=2**32)
    steps: int = Field(
        ge=0,
        le=10**9,
        description='or "minutes": as many as fit into --minutes; 0 until they are known',
    )
    batch_size: int = Field(default=8, gt=0, le=2**16)
    validate_every: int = Field(
        default=1000, gt=0, le=10**9, description="steps; also saves a checkpoint"
    )
    ema_decay: float = Field(
        default=0.999, ge=0, lt=1, description="moving average of the weights; 0: off"
    )
    precision: Literal["auto", "float32", "bfloat16"] = Field(
        default="auto",
        description="of convolutions in training; auto: bfloat16 on a GPU, float32 on a CPU",
    )
    init: str | None = Field(
        default=None, description="weights to start from: a bundled model, a run folder or a file"
    )
    network: Annotated[SerializeAsAny[NetworkConfig], BeforeValidator(_read_network)] = Field(
        default={}, validate_default=True, description="see pinglow.models.registry"
    )
    loss: LossSection = LossSection()
    distill: DistillSection | None = None
    optimizer: OptimizerSection = OptimizerSection()
    data: DataSection
    augmentation: Augmentation = Augmentation()
    input_rule: InputRule = InputRule()
    phases: tuple[PhaseSection, ...] = Field(
        default=(), description="parts of the run with other views, one after the other"
    )

    @field_validator("steps", mode="before")
    @classmethod
    def _read_steps(cls, steps: Any) -> Any:
        if steps == "minutes":
            return 0
        if steps == 0:
            raise ValueError('use 1 or more, or "minutes"')
        return steps

    @field_validator("phases")
    @classmethod
    def _check_shares(cls, phases: tuple[PhaseSection, ...]) -> tuple[PhaseSection, ...]:
        total = sum(phase.share for phase in phases)
        if phases and abs(total - 1) > 1e-6:
            raise ValueError(f"the shares add up to {total:g}; make it 1")
        return phases

    def check(self, source: str) -> None:
        """See whether its values fit together; ``source`` names it in errors.

        Raises:
            RecipeError: They do not.
        """
        try:
            self._check_views()
            self._check_kind()
            for number, term in enumerate(self.loss.terms):
                _check_term(term, f"loss.terms.{number}")
        except (RecipeError, MissingExtraError) as error:
            raise RecipeError(f"{source}: {error}") from error

    def _check_views(self) -> None:
        multiple = self.network.multiple
        if self.steps % self.validate_every:
            raise RecipeError(
                f"steps is {self.steps}, not a multiple of validate_every "
                f"({self.validate_every}); change one of them"
            )
        for augmentation, batch_size in self.phase_list():
            crop = augmentation.crop
            if self.network.kind == "boxes" and crop % multiple:
                raise RecipeError(
                    f"augmentation.crop is {crop}; {self.network.type} needs a multiple of "
                    f"{multiple}"
                )
            if batch_size * (-(-crop // multiple)) ** 2 == 1:
                raise RecipeError(
                    f"one view of {crop} pixels leaves a single value at the network's coarsest "
                    "level, which BatchNorm cannot take; enlarge batch_size or augmentation.crop"
                )

    def _check_kind(self) -> None:
        """A detector has a loss of its own; masks are the truth of the others."""
        if self.network.kind == "boxes":
            for key in ("loss", "distill"):
                if getattr(self, key) != type(self).model_fields[key].default:
                    raise RecipeError(
                        f"{key} is of networks that find masks; leave it out for "
                        f"{self.network.type}, which has a loss of its own"
                    )
        elif any(each.boxes not in (None, "masks") for each in self.data.sets):
            raise RecipeError(
                f"data.sets has boxes, but {self.network.type} learns masks; leave boxes out, or "
                "set network.type to a detector"
            )

    def fit_to_steps(self) -> Self:
        """A short trial validates once, at its end, and no warm-up takes more than half of it."""
        every = min(self.validate_every, self.steps)
        update = {
            "validate_every": every,
            "optimizer": _shorten(self.optimizer, self.steps),
            "loss": _shorten(self.loss, self.steps),
        }
        return self.model_copy(update=update)

    def with_steps(self, steps: int) -> Self:
        """The recipe for about so many steps, where it left them open; the last is validated."""
        whole = steps if steps < self.validate_every else steps - steps % self.validate_every
        return self.model_copy(update={"steps": max(1, whole)}).fit_to_steps()

    def phase_list(self) -> list[Phase]:
        """The phases in their order; one where the recipe has none of its own."""
        return [
            Phase(
                self.augmentation.model_copy(
                    update=each.model_dump(include={"crop", "target_bias"}, exclude_none=True)
                ),
                each.batch_size or self.batch_size,
            )
            for each in self.phases or (PhaseSection(share=1),)
        ]

    def phase_at(self, step: int) -> Phase:
        """The phase of a step, counted from 0."""
        phases, begun = self.phase_list(), 0.0
        for phase, section in zip(phases, self.phases, strict=False):
            begun += section.share
            if step < round(begun * self.steps):
                return phase
        return phases[-1]

    def augmentation_of(self, dataset: DataSet) -> Augmentation:
        """The augmentation of a data set's views: the recipe's, but for what the set has itself."""
        own = dataset.model_dump(include={"rotate", "scale_share"}, exclude_none=True)
        return self.augmentation.model_copy(update=own)

    def to_toml(self) -> str:
        """The recipe as a TOML file's text, from which `load_recipe` makes an equal one."""
        unused = {"loss"} if self.network.kind == "boxes" else set[str]()
        return tomli_w.dumps(self.model_dump(mode="json", exclude_none=True, exclude=unused))


def _check_term(term: LossTerm, key: str) -> None:
    try:
        loss = find_loss(term.name)
        # Strict: a word such as no would otherwise count as true.
        options = create_model(
            "Options",
            __config__=ConfigDict(extra="forbid", strict=True, arbitrary_types_allowed=True),
            **constructor_fields(loss),
        )
        options.model_validate(term.options)
        loss(**term.options)
    except ValidationError as error:
        fault = explain_fault(error, options, f"{key}.options")
        raise RecipeError(f"{fault} (options of the loss {term.name!r})") from error
    except RecipeError as error:
        raise RecipeError(f"{key}.name: {error}") from error
    except (TypeError, ValueError) as error:
        raise RecipeError(f"{key}.options does not fit: {error}") from error


_Warmed = TypeVar("_Warmed", OptimizerSection, LossSection)


def _shorten(section: _Warmed, steps: int) -> _Warmed:
    warmup = min(section.warmup_steps, steps // 2)
    return section.model_copy(update={"warmup_steps": warmup})
