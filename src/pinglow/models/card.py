"""Cards and model files: what a file says about its model, and where files are. Without torch."""

from __future__ import annotations

import json
from collections.abc import Iterable
from importlib import resources
from pathlib import Path
from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from safetensors import SafetensorError, safe_open

from pinglow.data.digests import count_known
from pinglow.errors import ModelError, OptionError
from pinglow.models.checksum import check_whole
from pinglow.models.registry import Kind, find_network
from pinglow.models.score import ScoreCalibration
from pinglow.preprocess import NORMALIZATION, InputRule
from pinglow.structures import ScoreOf, peak_score

CARD_KEY: Final = "pinglow"
"""Where the card stands in the metadata of every kind of model file."""

WEIGHTS: Final = "weights.safetensors"
"""The file in a run folder that has the weights of its best validation."""

DIGESTS: Final = "digests"
"""Where a row of a card's data has those of its training frames, see `pinglow.data.digests`."""

EXPORTED: Final = (".onnx", ".xml")
"""Suffixes of models that `pinglow export` has written."""


HEADER_LENGTH: Final = 8
"""Bytes at the start of a safetensors file that say how long its header is."""


class OperatingPoint(BaseModel):
    """The score that keeps false alarms as rare as was wished, and what that rests on.

    An alarm is a track where there are times, so that rates are per hour; otherwise a target, and
    rates are per frame.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    min_score: float = Field(ge=0, lt=1)
    unit: Literal["hour", "frame"]
    wished: float = Field(gt=0, description="alarms a unit, at most")
    alarms: int = Field(ge=0, description="that the footage without targets has")
    rate: float = Field(ge=0, description="alarms a unit of it")
    bound: float = Field(gt=0, description="what the rate lies below, with the confidence")
    confidence: float = Field(gt=0, lt=1)
    hours: float | None = Field(default=None, description="of the footage, where it has times")
    frames: int
    clips: int = Field(description="whose frames depend on each other; of stills, the stills")
    command: str = Field(default="", description="the command that found it")


class ModelCard(BaseModel):
    """What a model is, how it reads frames, where it comes from and what it reaches."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    network: dict[str, Any] = Field(description="see pinglow.models.registry")
    parameters: int
    normalization: str = NORMALIZATION
    input_rule: InputRule = InputRule()
    threshold: float = Field(
        default=0.5, ge=0, lt=1, description="of pixels' probabilities; of a detector's scores"
    )
    upright: bool = Field(
        default=False,
        description="some training frames were never turned, so --flips mirrors left to right only",
    )
    calibration: ScoreCalibration | None = Field(
        default=None, description="of the scores; None: a score is the largest probability"
    )
    precision: str = Field(default="float32", description="int8: wide convolutions in 8 bits")
    operating_point: OperatingPoint | None = Field(
        default=None, description="of pinglow calibrate; on the footage that it was given"
    )
    data: list[dict[str, Any]] = Field(default=[], description="name, split, frames, license")
    training: dict[str, Any] = Field(default={}, description="steps, minutes, machine, ...")
    scores: list[dict[str, Any]] = Field(default=[], description="data, protocol and figures")
    recipe: str = Field(default="", description="the recipe, TOML")
    command: str = Field(default="", description="the command that trained it")
    license: str = Field(default="not stated", description="of the weights")

    @property
    def trained_on(self) -> list[dict[str, Any]]:
        """The rows of `data`, then those of the models that the training started from."""
        rows, training = list(self.data), self.training
        while before := training.get("started_from"):
            rows += before.get("data") or []
            training = before.get("training") or {}
        return rows

    def count_known(self, digests: Iterable[str]) -> int:
        """How many of some frames it was trained on, as far as the digests in its data say."""
        return count_known((str(row.get(DIGESTS, "")) for row in self.trained_on), digests)

    @property
    def kind(self) -> Kind:
        """What the model finds.

        Raises:
            ModelError: Its network is unknown.
            MissingExtraError: Its network is of a package that is not installed.
        """
        return find_network(self.network.get("type")).kind

    @property
    def score_of(self) -> ScoreOf:
        """What the score of a candidate is; its largest probability if nothing was calibrated."""
        return peak_score if self.calibration is None else self.calibration.score

    def choose_score(self, min_score: float | None = None) -> float:
        """The smallest score of a target: the one given, else the card's own.

        Raises:
            OptionError: It is not in [0, 1).
        """
        if min_score is None:
            known = self.operating_point or self.calibration
            return self.threshold if known is None else known.min_score
        if not 0 <= min_score < 1:
            raise OptionError(f"min_score is {min_score}; use a value from 0 to below 1")
        return min_score

    def score_for(self, alarms_per_frame: float) -> float:
        """The smallest score with at most so many false alarms a frame; see `ScoreCalibration`.

        Raises:
            OptionError: The card cannot say, or no score has so few.
        """
        if self.calibration is None:
            raise OptionError(
                f"the card of {self.name} does not say how many false alarms a score has: give "
                "min_score, or make such a card by pinglow calibrate"
            )
        return self.calibration.score_for(alarms_per_frame)

    @model_validator(mode="before")
    @classmethod
    def _respell(cls, content: Any) -> Any:
        """Read the keys of earlier cards, which were spelled otherwise."""
        return _respell(content)


_RESPELLED: Final = {"normalisation": "normalization", "licence": "license"}


def _respell(content: Any) -> Any:
    if isinstance(content, dict):
        return {_RESPELLED.get(key, key): _respell(value) for key, value in content.items()}
    return [_respell(value) for value in content] if isinstance(content, list) else content


def bundled_models() -> dict[str, Path]:
    """The weights that come with pinglow, by name."""
    folder = Path(str(resources.files("pinglow"))) / "weights"
    return {path.stem: path for path in sorted(folder.glob("*.safetensors"))}


def bundled_graph(weights: Path) -> Path | None:
    """The ONNX model that comes with a bundled weights file, or one with the same tensors.

    So a copy with another card runs where there is no PyTorch, too. None for other weights.
    """
    for bundled in bundled_models().values():
        graph = bundled.with_suffix(".onnx")
        if graph.is_file() and (weights == bundled or _same_tensors(weights, bundled)):
            return graph
    return None


def split_safetensors(content: bytes) -> tuple[dict[str, Any], bytes]:
    """The header of a safetensors file and the bytes of its tensors.

    Raises:
        ValueError: It is no such file.
    """
    end = HEADER_LENGTH + int.from_bytes(content[:HEADER_LENGTH], "little")
    header: dict[str, Any] = json.loads(content[HEADER_LENGTH:end])
    return header, content[end:]


def _same_tensors(first: Path, second: Path) -> bool:
    try:
        found = [split_safetensors(path.read_bytes()) for path in (first, second)]
    except (OSError, ValueError):
        return False
    for header, _ in found:
        header.pop("__metadata__", None)
    return found[0] == found[1]


def read_card(name_or_path: str | Path) -> ModelCard:
    """The card of a bundled model or of a weights file.

    Raises:
        ModelError: The name is unknown, or the file is damaged, changed or not pinglow's.
    """
    path = find_model(name_or_path)
    if path.suffix.lower() in EXPORTED:
        raise ModelError(f"{path} is an exported model; name the weights file that it came from")
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
    except (OSError, SafetensorError) as error:
        raise ModelError(
            f"{path} is not a readable safetensors file ({error}); a run's weights are in {WEIGHTS}"
        ) from error
    if CARD_KEY not in metadata:
        raise ModelError(f"{path} has no pinglow card; use weights that pinglow train has written")
    check_whole(path)
    return parse_card(metadata[CARD_KEY], path)


def parse_card(text: str, path: Path) -> ModelCard:
    """A card from its JSON; ``path`` names the file in errors.

    Raises:
        ModelError: This version does not understand it.
    """
    try:
        card = ModelCard.model_validate_json(text)
    except ValidationError as error:
        raise ModelError(
            f"{path} has a card that this version of pinglow does not understand "
            f"({error.error_count()} faults); update pinglow or train again"
        ) from error
    if card.normalization != NORMALIZATION:
        raise ModelError(
            f"{path} wants normalization {card.normalization!r}, this version has "
            f"{NORMALIZATION!r}; use the version of pinglow that wrote it"
        )
    return card


def find_model(name_or_path: str | Path) -> Path:
    """The file of a bundled model, of a run folder's weights, or the path given.

    A folder without weights may hold one exported model.

    Raises:
        ModelError: It is none of these.
    """
    bundled = bundled_models()
    if str(name_or_path) in bundled:
        return bundled[str(name_or_path)]
    given = Path(name_or_path).expanduser()
    path = given / WEIGHTS if given.is_dir() else given
    if path.is_file():
        return path
    names = ", ".join(bundled) or "none"
    if given.is_dir():
        exported = [name for name in sorted(given.iterdir()) if name.suffix.lower() in EXPORTED]
        if len(exported) == 1:
            return exported[0]
        if exported:
            raise ModelError(f"{given} holds several models: name one of them, as {exported[0]}")
        raise ModelError(f"{given} has no {WEIGHTS}: name a run folder, or a model of {names}")
    raise ModelError(
        f"model {str(given)!r} is neither a file nor a bundled model; bundled: {names}"
    )
