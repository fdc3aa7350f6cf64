"""Write the ONNX graph beside each bundled weights file, so that it runs without PyTorch.

A graph holds no large weights of its own: it reads them from the safetensors file beside it, in
the type in which they are stored there, and multiplies them by what batch normalization and the
kernels' shapes make of each channel. The runtimes do that once, as they load.

python tools/bundle.py                    # after the weights have changed
python tools/bundle.py mine-fast mine-base # first take over the cards that pinglow calibrate wrote
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import matplotlib.pyplot as plt
import ml_dtypes
import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from pinglow.files import write_whole
from pinglow.models.card import WEIGHTS, bundled_models, read_card, split_safetensors
from pinglow.models.card_page import card_page
from pinglow.models.checksum import seal
from pinglow.models.conversion import convert_to_onnx
from pinglow.models.weights import load_network

SMALLEST = 2048  # bytes; smaller weights stay in the graph
TYPES = {
    "F32": (TensorProto.FLOAT, np.dtype(np.float32)),
    "BF16": (TensorProto.BFLOAT16, np.dtype(ml_dtypes.bfloat16)),
}


def read_places(path: Path) -> dict[str, tuple[str, int, int]]:
    """Type, offset in the file and length in bytes of each tensor of a safetensors file."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
    header.pop("__metadata__", None)
    return {
        name: (
            entry["dtype"],
            8 + length + entry["data_offsets"][0],
            np.subtract.reduce(entry["data_offsets"][::-1]).item(),
        )
        for name, entry in header.items()
    }


def share_weights(model: onnx.ModelProto, weights: Path) -> int:
    """Let a graph read its weights from the file that they came from; how many it reads there."""
    places = read_places(weights)
    content = weights.read_bytes()
    graph = model.graph
    kept, nodes = [], []
    for entry in graph.initializer:
        values = numpy_helper.to_array(entry)
        place = places.get(entry.name.removeprefix("network.network."))
        scale = None
        if place is not None and values.nbytes >= SMALLEST:
            kind, dtype = TYPES[place[0]]
            stored = np.frombuffer(content[place[1] : place[1] + place[2]], dtype)
            scale = find_scale(stored.astype(np.float32).reshape(values.shape), values)
        if scale is None or place is None:
            kept.append(entry)
            continue
        raw = TensorProto(name=f"{entry.name}.stored", data_type=kind, dims=values.shape)
        raw.data_location = TensorProto.EXTERNAL
        for key, value in (("location", weights.name), ("offset", place[1]), ("length", place[2])):
            raw.external_data.add(key=key, value=str(value))
        factor = numpy_helper.from_array(scale, f"{entry.name}.scale")
        kept += [raw, factor]
        name = raw.name
        if kind != TensorProto.FLOAT:
            name = f"{entry.name}.float"
            nodes.append(helper.make_node("Cast", [raw.name], [name], to=TensorProto.FLOAT))
        nodes.append(helper.make_node("Mul", [name, factor.name], [entry.name]))
    ordered = [*nodes, *graph.node]
    for field, items in ((graph.initializer, kept), (graph.node, ordered)):
        copies = [type(item).FromString(item.SerializeToString()) for item in items]
        del field[:]
        field.extend(copies)
    return len([each for each in kept if each.data_location == TensorProto.EXTERNAL])


def find_scale(stored: NDArray[np.float32], values: NDArray[np.float32]) -> NDArray | None:
    """What each output channel of a stored weight is multiplied by, (C, 1, ...); None: no such."""
    flat, wanted = (each.reshape(len(each), -1).astype(np.float64) for each in (stored, values))
    energy = (flat**2).sum(axis=1)
    scale = (flat * wanted).sum(axis=1) / np.where(energy > 0, energy, 1)
    if not np.allclose(flat * scale[:, None], wanted, rtol=1e-5, atol=1e-7):
        return None
    return scale.astype(np.float32).reshape(-1, *[1] * (stored.ndim - 1))


def take_over(folder: Path) -> None:
    """Replace a bundled model by a copy with the same tensors and another card, and its page."""
    copy = folder / WEIGHTS
    card = read_card(copy)
    weights = bundled_models()[card.name]
    old, new = (split_safetensors(path.read_bytes()) for path in (weights, copy))
    assert old[1] == new[1], f"{copy} has other tensors than {weights}"
    write_whole(weights, copy.read_bytes())
    write_whole(weights.with_suffix(".md"), card_page(card).encode())


def draw_reliability(path: Path) -> None:
    """Draw the share of candidates that are true against their score, of every bundled model."""
    figure, axes = plt.subplots(figsize=(5, 4), layout="constrained")
    axes.plot([0, 1], [0, 1], color="0.7", linestyle=":")
    for name, weights in bundled_models().items():
        if (found := read_card(weights).calibration) is not None:
            bins = found.reliability
            label = f"{name}: error {100 * found.ece:.1f} %"
            axes.plot(
                [each.score for each in bins], [each.true for each in bins], "o-", label=label
            )
    axes.set(xlabel="mean score", ylabel="share that is true", xlim=(0, 1), ylim=(0, 1))
    axes.legend()
    figure.savefig(path, dpi=100)


def main() -> None:
    """Write every bundled model's graph."""
    for folder in sys.argv[1:]:
        take_over(Path(folder))
    draw_reliability(Path("docs/images/scores.png"))
    for name, weights in bundled_models().items():
        model = onnx.load_from_string(convert_to_onnx(*load_network(weights)))
        shared = share_weights(model, weights)
        path = weights.with_suffix(".onnx")
        path.write_bytes(seal(model.SerializeToString(), ".onnx"))
        print(f"{path}: {path.stat().st_size / 1e6:.2f} MB; {name} shares {shared} weights")


if __name__ == "__main__":
    main()
