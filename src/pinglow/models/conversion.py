"""A network as an ONNX graph that takes any batch and any size, with its card inside.

This is what ONNX Runtime and OpenVINO run, whether a model was exported or is loaded by name.
"""

from __future__ import annotations

import logging
import warnings
from typing import Any, Final

import torch
from torch import Tensor, nn

from pinglow.errors import ModelError
from pinglow.extras import import_extra
from pinglow.models.card import CARD_KEY, ModelCard
from pinglow.models.checksum import KEY, UNSEALED, seal
from pinglow.models.graph import GATES_INPUT, OWN_INPUT
from pinglow.nn import GatedNetwork, fold_kernels

_OPSET: Final = 18
_LARGEST_MULTIPLE: Final = 32  # beyond it, padding depends on the size
_EXAMPLE: Final = (2, 1, 71, 83)  # nothing special about any of its sizes


class _Probability(nn.Module):
    """Images, gates and share of the own gates to probabilities and the images' own gates."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = GatedNetwork(fold_kernels(network))

    def forward(self, image: Tensor, gates: Tensor, own: Tensor) -> tuple[Tensor, Tensor]:
        logits, seen = self.network(image, gates, own)
        return torch.sigmoid(logits), seen


def convert_to_onnx(network: nn.Module, card: ModelCard) -> bytes:
    """Fold a network's kernels and write it as an ONNX model.

    Args:
        network: Maps (N, 1, H, W) to logits of the same shape, for any N >= 1 and any H and W
            from 32 on; in eval mode.
        card: Goes into the model's metadata, as JSON under ``pinglow``; beside it the checksum.

    Returns:
        The file's content. Input ``image`` and output ``probability`` are (N, 1, H, W) float32.
        Output ``gates`` (N, G) is the images' channel attention. For tiles of a larger frame, the
        optional inputs ``given_gates`` (1, G) and ``own`` (scalar, 0) set it; see `GatedNetwork`.

    Raises:
        ModelError: The network cannot be converted.
        MissingExtraError: The export extra is not installed.
    """
    import_extra("onnxscript", "export", "converting a model to ONNX")
    onnx = import_extra("onnx", "export", "converting a model to ONNX")
    if getattr(network, "multiple", 1) > _LARGEST_MULTIPLE:
        raise ModelError(
            f"{card.name} pools over more than {_LARGEST_MULTIPLE} pixels, for which no graph of "
            "any size can be made; use the torch backend"
        )
    whole = _Probability(network).eval()
    defaults = {GATES_INPUT: torch.zeros(1, whole.network.gates), OWN_INPUT: torch.ones(())}
    try:
        model = _trace(whole, defaults)
    except Exception as error:  # the exporter raises anything at all
        reason = str(error).strip().splitlines()[0][:200] if str(error).strip() else repr(error)
        raise ModelError(
            f"{card.name} cannot be converted to ONNX ({reason}); use the torch backend"
        ) from error
    # Nodes carry the path and line of the source they were traced from.
    for node in model.graph.node:
        del node.metadata_props[:]
        node.doc_string = ""
    del model.graph.value_info[:]
    for value in (*model.graph.input, *model.graph.output):
        del value.metadata_props[:]
    for value in (model.graph.input[0], *model.graph.output):
        shape = value.type.tensor_type.shape
        for place, label in ((0, "batch"), (2, "height"), (3, "width")):
            if place < len(shape.dim):
                shape.dim[place].dim_param = label
    # An input with an initial value may be left out.
    for name, value in defaults.items():
        model.graph.initializer.append(onnx.numpy_helper.from_array(value.numpy(), name))
    for key, text in ((CARD_KEY, card.model_dump_json()), (KEY, UNSEALED)):
        entry = model.metadata_props.add()
        entry.key, entry.value = key, text
    return seal(model.SerializeToString(), ".onnx")


def _trace(whole: nn.Module, defaults: dict[str, Tensor]) -> Any:
    """The graph of a network, as the exporter makes it, which takes many seconds."""
    free = torch.export.Dim.DYNAMIC
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    try:
        logger.setLevel(logging.ERROR)  # it reports that torchvision is not there
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                whole,
                (torch.zeros(_EXAMPLE), *defaults.values()),
                dynamo=True,
                dynamic_shapes=({0: free, 2: free, 3: free}, None, None),
                opset_version=_OPSET,
                input_names=["image", *defaults],
                output_names=["probability", "gates"],
                verbose=False,
            )
    finally:
        logger.setLevel(level)
    assert program is not None
    return program.model_proto
