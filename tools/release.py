"""Turn a finished run into bundled weights: score them, complete the card, write both.

    python tools/release.py runs/pinglow-fast --root ../shared/data \
        --long-side 512 --max-scale 2

Scores the validation splits of the run and SIRST's official test list under the strict protocol,
and writes src/pinglow/weights/NAME.safetensors, NAME.md beside it, recipes/validation/*.txt, and
experiments/runs/NAME.png.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path
from typing import Any

from torch import nn

from pinglow.backends.torch import TorchBackend
from pinglow.data.folder import FrameFolder, name_folders
from pinglow.evaluation.pixels import evaluate_model
from pinglow.inference.predictor import Predictor
from pinglow.metrics import PROTOCOLS
from pinglow.models.card_page import card_page
from pinglow.models.weights import load_network, save_model
from pinglow.nn import fold_kernels
from pinglow.preprocess import InputRule
from pinglow.training.checkpoint import load_checkpoint
from pinglow.training.recipe_file import load_recipe

ROOT = Path(__file__).parents[1]
KEYS = ("iou", "niou", "pd", "fa", "precision", "f1", "false_alarms_per_image")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("--root", type=Path, required=True, help="holds the data folders")
    parser.add_argument("--long-side", type=int, required=True)
    parser.add_argument("--max-scale", type=float, required=True)
    parser.add_argument(
        "--mix",
        nargs=2,
        metavar=("FILE", "SHARE"),
        help="a share of other weights to mix in, chosen on validation frames: a weights file, or "
        "a run's last.ckpt",
    )
    parser.add_argument("--bfloat16", action="store_true", help="store weights in half the bytes")
    arguments = parser.parse_args()

    network, card = load_network(arguments.run / "weights.safetensors")
    rule = InputRule(long_side=arguments.long_side, max_scale=arguments.max_scale)
    card = card.model_copy(update={"input_rule": rule})
    if arguments.mix:
        path, share = Path(arguments.mix[0]), float(arguments.mix[1])
        mix_in(network, path, share)
        training = card.training | {"mixed_in": path.as_posix(), "share_mixed_in": share}
        card = card.model_copy(update={"training": training})
    if arguments.bfloat16:
        network = network.bfloat16().float()  # what is scored is what is stored
    predictor = Predictor(TorchBackend(fold_kernels(network)), card)
    scores = [score(predictor, arguments.root / "sirst", "test", "test")]
    lists: dict[str, Path] = {}
    sets = load_recipe(arguments.run / "recipe.toml").data.sets
    for name, dataset in zip(name_folders(each.folder for each in sets), sets, strict=True):
        path = arguments.run / "splits" / f"{name}.validation.txt"
        first = f"{dataset.folder}.txt" not in lists
        lists[f"{dataset.folder}.txt" if first else f"{dataset.folder}.{dataset.split}.txt"] = path
        label = "validation cut" if first else f"validation cut of {dataset.split}"
        scores.append(score(predictor, arguments.root / dataset.folder, str(path), label))
    cuts = ROOT / "recipes" / "validation"
    cuts.mkdir(exist_ok=True)
    for name, path in lists.items():
        shutil.copy(path, cuts / name)
    card = card.model_copy(update={"scores": scores, "license": "Apache-2.0"})
    folder = ROOT / "src" / "pinglow" / "weights"
    stored = network.bfloat16() if arguments.bfloat16 else network
    save_model(folder / f"{card.name}.safetensors", stored, card)
    (folder / f"{card.name}.md").write_text(card_page(card), encoding="utf-8")
    shutil.copy(arguments.run / "curves.png", ROOT / "experiments" / "runs" / f"{card.name}.png")
    print(card_page(card))


def mix_in(network: nn.Module, path: Path, share: float) -> None:
    """Move the network's weights by a share towards others, or a checkpoint's moving average."""
    if path.suffix == ".ckpt":
        state = load_checkpoint(path)["task"]
        other = {key: state["average." + key] for key in network.state_dict()}
    else:
        other = load_network(path)[0].state_dict()
    for key, value in network.state_dict().items():
        if value.is_floating_point():
            value.lerp_(other[key], share)


def score(predictor: Predictor, folder: Path, split: str, label: str) -> dict[str, Any]:
    frames = FrameFolder(folder, split)
    pairs = ((name, *frames.pair(index)) for index, name in enumerate(frames.names))
    (report,) = evaluate_model(pairs, predictor.probabilities, [PROTOCOLS["strict"]])
    full = report.to_dict()
    head = {"data": folder.name, "list": label, "protocol": "strict"}
    counts = {"images": full["images"], "targets": full["targets"]}
    return (
        head
        | counts
        | {key: full[key] for key in KEYS}
        | {
            "ci95": {key: full["ci95"][key] for key in KEYS},
            "per_size": full["per_size"],
        }
    )


if __name__ == "__main__":
    main()
