"""Recipes: what a training run is told; `pinglow.training.recipe_file` reads them from TOML."""

from __future__ import annotations

import difflib
from typing import (
    Annotated,
    Any,
    ClassVar,
    Literal,
    NamedTuple,
    Self,
    TypeVar,
    get_type_hints,
)

import tomli_w
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
    field_validator,
    model_validator,
)

from pinglow.data.augment.views import Augmentation
from pinglow.data.folder import KNOWN_DATASETS
from pinglow.errors import ModelError, RecipeError
from pinglow.losses import LOSSES
from pinglow.models.weights import build_network
from pinglow.preprocess import InputRule

_Positive = Annotated[int, Field(gt=0)]


class Section(BaseModel):
    """A part of a recipe: no unknown keys, no change after it is made."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class NetworkSection(Section):
    """The network: see `pinglow.nn.PinwheelUNet`."""

    type: Literal["PinwheelUNet"] = "PinwheelUNet"
    in_channels: Literal[1] = 1
    widths: tuple[_Positive, ...] = (16, 32, 64, 128)
    depths: tuple[_Positive, ...] = (1, 1, 1, 1)
    attention: str = "learned"
    patch: int = Field(default=2, ge=1)
    convolution: str = "plain"
    shaped_levels: int = Field(default=2, ge=0)


class LossSection(Section):
    """The loss after its warm-up, and what is added to it."""

    name: str = Field(default="scale", description="a key of pinglow.losses.LOSSES")
    options: dict[str, Any] = Field(default={"variant": "diff"}, description="its arguments")
    warmup_steps: int = Field(default=0, ge=0, description="steps with the plain soft IoU first")
    bce_weight: float = Field(default=0.0, ge=0, description="weight of added BCE (ours)")
    bce_per_target: bool = Field(
        default=False, description="in it all targets count alike, whatever their size"
    )


class DistillSection(Section):
    """A trained model whose probabilities are learned, beside the masks."""

    model: str = Field(description="a bundled model or a weights file")
    weight: float = Field(default=1.0, gt=0, description="of the cross entropy with them")


class OptimizerSection(Section):
    """The optimizer and its learning rate over the steps."""

    name: Literal["adamw", "adagrad"] = "adamw"
    learning_rate: float = Field(default=2e-3, gt=0)
    weight_decay: float = Field(default=0.01, ge=0)
    schedule: Literal["cosine", "constant"] = "cosine"
    warmup_steps: int = Field(default=500, ge=0, description="linear, from 0")
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
        default=None, ge=0, description="draws the validation frames; the recipe's seed if absent"
    )


class PhaseSection(Section):
    """A part of a run with views of its own; what it does not say is as in the whole recipe."""

    share: float = Field(gt=0, le=1, description="of the steps")
    crop: int | None = Field(default=None, ge=32, le=8192, description="side of a view, pixels")
    batch_size: int | None = Field(default=None, gt=0)
    target_bias: float | None = Field(default=None, ge=0, le=1)


class Phase(NamedTuple):
    """What the batches of a part of a run are like."""

    augmentation: Augmentation
    batch_size: int


class RunRecipe(Section):
    """What every training run needs to know, whatever it trains; see `Recipe`."""

    bundled_in: ClassVar[str] = "."
    """Where its kind's recipes lie among those that come with pinglow."""
    trained_by: ClassVar[str] = "pinglow train"
    """The command that trains by its kind's recipes."""

    name: str = Field(pattern=r"^\w[\w.-]*$", description="of the weights and the run folder")
    seed: int = Field(default=0, ge=0, lt=2**32)
    steps: int = Field(
        ge=0, description='or "minutes": as many as fit into --minutes; 0 until they are known'
    )
    batch_size: int = Field(default=8, gt=0)
    validate_every: int = Field(default=1000, gt=0, description="steps; also saves a checkpoint")
    ema_decay: float = Field(
        default=0.999, ge=0, lt=1, description="moving average of the weights; 0: off"
    )
    precision: Literal["auto", "float32", "bfloat16"] = Field(
        default="auto",
        description="of convolutions in training; auto: bfloat16 on a GPU, float32 on a CPU",
    )
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
        if self.steps % self.validate_every:
            raise RecipeError(
                f"{source}: steps is {self.steps}, not a multiple of validate_every "
                f"({self.validate_every}); change one of them"
            )

    def fit_to_steps(self) -> Self:
        """A short trial validates once, at its end, and no warm-up takes more than half of it."""
        every = min(self.validate_every, self.steps)
        optimizer = _shorten(self.optimizer, self.steps)
        return self.model_copy(update={"validate_every": every, "optimizer": optimizer})

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
        return tomli_w.dumps(self.model_dump(mode="json", exclude_none=True))


class Recipe(RunRecipe):
    """A training run of a segmentation network."""

    init: str | None = Field(
        default=None, description="weights to start from: a bundled model, a run folder or a file"
    )
    network: NetworkSection = NetworkSection()
    loss: LossSection = LossSection()
    distill: DistillSection | None = None

    def fit_to_steps(self) -> Self:
        """See `RunRecipe.fit_to_steps`."""
        fitted = super().fit_to_steps()
        return fitted.model_copy(update={"loss": _shorten(self.loss, self.steps)})

    def check(self, source: str) -> None:
        """See `RunRecipe.check`."""
        super().check(source)
        if self.loss.name not in LOSSES:
            raise RecipeError(
                f"{source}: loss.name is {self.loss.name!r}; use one of {', '.join(LOSSES)}"
            )
        self._check_loss_options(source)
        try:
            build_network(self.network.model_dump())
        except ModelError as error:
            raise RecipeError(f"{source}: {error}") from error
        multiple = self.network.patch * 2 ** (len(self.network.widths) - 1)
        for augmentation, batch_size in self.phase_list():
            coarsest = -(-augmentation.crop // multiple)
            if batch_size * coarsest**2 == 1:
                raise RecipeError(
                    f"{source}: one view of {augmentation.crop} pixels leaves a single value at "
                    "the network's coarsest level, which BatchNorm cannot take; enlarge "
                    "batch_size or augmentation.crop"
                )

    def _check_loss_options(self, source: str) -> None:
        loss = LOSSES[self.loss.name]
        # Without a constructor of its own a loss has nn.Module's, which seems to take anything.
        kinds = get_type_hints(loss.__init__) if "__init__" in vars(loss) else {}
        kinds.pop("return", None)
        for key, value in self.loss.options.items():
            if key not in kinds:
                fault = name_nearest(source, f"loss.options.{key}", list(kinds))
                raise RecipeError(
                    f"{fault} (it may be the recipe's own, for another loss: set loss.options to "
                    f"what {self.loss.name} takes, or to {{}})"
                )
            try:  # a word such as no would otherwise count as true
                TypeAdapter(kinds[key], config=ConfigDict(strict=True)).validate_python(value)
            except ValidationError as error:
                reason = error.errors()[0]["msg"]
                raise RecipeError(f"{source}: loss.options.{key}: {reason}") from error
        try:
            loss(**self.loss.options)
        except ValueError as error:
            raise RecipeError(f"{source}: loss.options does not fit: {error}") from error


_Warmed = TypeVar("_Warmed", OptimizerSection, LossSection)


def _shorten(section: _Warmed, steps: int) -> _Warmed:
    warmup = min(section.warmup_steps, steps // 2)
    return section.model_copy(update={"warmup_steps": warmup})


def name_nearest(source: str, key: str, known: list[str]) -> str:
    """One sentence about an unknown key, with the known one that it resembles."""
    nearest = difflib.get_close_matches(key.rpartition(".")[2], known, n=1, cutoff=0.4)
    every = f"known keys: {', '.join(known) or 'none'}"
    hint = f"did you mean {nearest[0]!r}?" if nearest else every
    return f"{source}: key {key!r} is unknown; {hint}"
