"""Model files: safetensors with a card in the metadata, so that a file says all about itself."""

from __future__ import annotations

import json
import os
from importlib import resources
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import nn

from pinglow.data.prepare import NORMALISATION, InputRule
from pinglow.errors import ModelError
from pinglow.nn import NETWORKS

CARD_KEY: Final = "pinglow"
"""Where the card stands in the metadata of every kind of model file."""

WEIGHTS: Final = "weights.safetensors"
"""The file in a run folder that has the weights of its best validation."""

EXPORTED: Final = (".onnx", ".xml")
"""Suffixes of models that `pinglow export` has written."""


class ModelCard(BaseModel):
    """What a model is, how it reads frames, where it comes from and what it reaches."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    network: dict[str, Any] = Field(description="type (a key of NETWORKS) and its arguments")
    parameters: int
    normalisation: str = NORMALISATION
    input_rule: InputRule = InputRule()
    threshold: float = Field(default=0.5, ge=0, lt=1)
    upright: bool = Field(
        default=False,
        description="some training frames were never turned, so --flips mirrors left to right only",
    )
    precision: str = Field(default="float32", description="int8: wide convolutions in 8 bits")
    data: list[dict[str, Any]] = Field(default=[], description="name, split, frames, licence")
    training: dict[str, Any] = Field(default={}, description="steps, minutes, machine, ...")
    scores: list[dict[str, Any]] = Field(default=[], description="data, protocol and figures")
    recipe: str = Field(default="", description="the recipe, TOML")
    command: str = Field(default="", description="the command that trained it")
    licence: str = Field(default="not stated", description="of the weights")


def bundled_models() -> dict[str, Path]:
    """The weights that come with pinglow, by name."""
    folder = Path(str(resources.files("pinglow"))) / "weights"
    return {path.stem: path for path in sorted(folder.glob("*.safetensors"))}


def read_card(name_or_path: str | Path) -> ModelCard:
    """The card of a bundled model or of a weights file.

    Raises:
        ModelError: The name is unknown, or the file is damaged or not pinglow's.
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
    if card.normalisation != NORMALISATION:
        raise ModelError(
            f"{path} wants normalisation {card.normalisation!r}, this version has "
            f"{NORMALISATION!r}; use the version of pinglow that wrote it"
        )
    return card


def load_network(name_or_path: str | Path) -> tuple[nn.Module, ModelCard]:
    """The network of a bundled model or of a weights file, in eval mode, and its card.

    Raises:
        ModelError: As `read_card`, or network and weights do not fit together.
    """
    card = read_card(name_or_path)
    path = find_model(name_or_path)
    try:
        network = build_network(card.network)
    except ModelError as error:
        raise ModelError(f"{path} cannot be used: {error}") from error
    fill_network(network, path)
    return network.eval(), card


def fill_network(network: nn.Module, path: Path) -> None:
    """Load a file's weights into its network.

    Raises:
        ModelError: They do not fit together, or the file is damaged.
    """
    from safetensors.torch import load_file

    try:
        network.load_state_dict(load_file(path))
    except (RuntimeError, SafetensorError) as error:
        raise ModelError(
            f"{path} holds weights of another network than its card says; train or export it again"
        ) from error


def build_network(config: dict[str, Any]) -> nn.Module:
    """A new network from {"type": a key of NETWORKS, **arguments}.

    Raises:
        ModelError: The type is unknown or its arguments do not fit.
    """
    arguments = dict(config)
    kind = arguments.pop("type", None)
    if kind not in NETWORKS:
        raise ModelError(
            f"network type {kind!r} is none of {', '.join(sorted(NETWORKS))}; a detector is used "
            "by pinglow detect, and exported as docs/detectors.md says"
        )
    try:
        return NETWORKS[kind](**arguments)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ModelError(f"network {kind} cannot be built: {error}") from error


def save_model(path: Path, network: nn.Module, card: ModelCard) -> None:
    """Write weights and card to a safetensors file, whole or not at all."""
    tensors = {key: value.contiguous() for key, value in network.state_dict().items()}
    content = save(tensors, metadata={CARD_KEY: json.dumps(card.model_dump(mode="json"))})
    write_atomically(path, content)


def write_atomically(path: Path, content: bytes) -> None:
    """Write beside the target, fsync and rename: the old file stays until the new one is whole.

    The temporary file lies in the target's folder, because a rename across file systems is a copy
    that can be torn.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException as error:  # a full disk, or Ctrl-C
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.filename is None:
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise


def find_model(name_or_path: str | Path) -> Path:
    """The file of a bundled model, of a run folder's weights, or the path given.

    Raises:
        ModelError: It is neither.
    """
    bundled = bundled_models()
    if str(name_or_path) in bundled:
        return bundled[str(name_or_path)]
    given = Path(name_or_path)
    path = given / WEIGHTS if given.is_dir() else given
    if path.is_file():
        return path
    names = ", ".join(bundled) or "none"
    if given.is_dir():
        for name in sorted(given.iterdir()):
            if name.suffix.lower() in EXPORTED:
                raise ModelError(f"{given} is a folder: name the exported model in it, {name}")
        raise ModelError(f"{given} has no {WEIGHTS}: name a run folder, or a model of {names}")
    raise ModelError(
        f"model {str(given)!r} is neither a file nor a bundled model; bundled: {names}"
    )
