"""Model files: safetensors with a card in the metadata, so that a file says all about itself."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import save
from torch import nn

from pinglow.errors import ModelError
from pinglow.files import write_whole
from pinglow.models.card import CARD_KEY, ModelCard, find_model, read_card
from pinglow.models.checksum import KEY, UNSEALED, seal
from pinglow.models.registry import Kind, build_network


def load_network(name_or_path: str | Path, kind: Kind = "pixels") -> tuple[nn.Module, ModelCard]:
    """The network of a bundled model or of a weights file, in eval mode, and its card.

    Args:
        name_or_path: The model's name, its file, or its run folder.
        kind: What the network has to find.

    Raises:
        ModelError: As `read_card`, or network and weights do not fit together, or it finds
            something else.
        MissingExtraError: The network's library is not installed.
    """
    card = read_card(name_or_path)
    path = find_model(name_or_path)
    try:
        if card.kind != kind:
            raise ModelError(f"it finds {card.kind}, where a model that finds {kind} is needed")
        network = build_network(card.network)
    except ModelError as error:
        raise ModelError(f"{path} cannot be used: {error}") from error
    fill_network(network, path)
    return network.eval(), card


def fill_network(network: nn.Module, path: Path) -> None:
    """Load a file's weights into its network.

    Raises:
        ModelError: They do not fit together, the file is damaged, or a weight is no finite number.
    """
    from safetensors.torch import load_file

    try:
        tensors = load_file(path)
        network.load_state_dict(tensors)
    except (RuntimeError, SafetensorError) as error:
        raise ModelError(
            f"{path} holds weights of another network than its card says; train or export it again"
        ) from error
    for name, values in tensors.items():
        if not torch.isfinite(values).all():
            raise ModelError(
                f"{path} holds a weight that is no finite number ({name}), so it would find "
                "nothing; train it again"
            )


def save_model(path: Path, network: nn.Module, card: ModelCard) -> None:
    """Write weights and card to a safetensors file, whole or not at all."""
    tensors = {key: value.contiguous() for key, value in network.state_dict().items()}
    text = json.dumps(card.model_dump(mode="json"))
    content = save(tensors, metadata={CARD_KEY: text, KEY: UNSEALED})
    write_whole(path, seal(content, ".safetensors"))
