"""Model files: safetensors with a card in the metadata, so that a file says all about itself."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import save
from torch import nn

from pinglow.errors import ModelError
from pinglow.files import write_whole
from pinglow.models.card import CARD_KEY, ModelCard, find_model, read_card
from pinglow.nn import NETWORKS


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
    write_whole(path, content)
