"""Turn a finished run into bundled weights: score them, complete the card, write both.

    python benchmarks/release.py runs/pinglow-fast --root ../shared/data \
        --long-side 512 --max-scale 2

Scores the validation cuts of the run and SIRST's official test list under the strict protocol, and
writes src/pinglow/weights/NAME.safetensors, NAME.md beside it, recipes/validation/*.txt, and
docs/images/NAME-curves.png.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path
from typing import Any

from pinglow.data.datasets import FrameFolder
from pinglow.data.prepare import InputRule
from pinglow.inference.evaluation import evaluate_model
from pinglow.inference.predictor import Predictor
from pinglow.inference.weights import ModelCard, load_network, save_model
from pinglow.metrics import PROTOCOLS
from pinglow.nn import fold_kernels

ROOT = Path(__file__).parents[1]
SHOWN = (("iou", 100), ("niou", 100), ("pd", 100), ("fa", 1e6), ("false_alarms_per_image", 1))
KEYS = ("iou", "niou", "pd", "fa", "precision", "f1", "false_alarms_per_image")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("--root", type=Path, required=True, help="holds the data folders")
    parser.add_argument("--long-side", type=int, required=True)
    parser.add_argument("--max-scale", type=float, required=True)
    arguments = parser.parse_args()

    network, card = load_network(arguments.run / "weights.safetensors")
    rule = InputRule(long_side=arguments.long_side, max_scale=arguments.max_scale)
    card = card.model_copy(update={"input_rule": rule})
    predictor = Predictor(fold_kernels(network), card)
    cuts = ROOT / "recipes" / "validation"
    cuts.mkdir(exist_ok=True)
    scores = [score(predictor, arguments.root / "sirst", "test", "test")]
    for path in sorted((arguments.run / "splits").glob("*.validation.txt")):
        name = path.name.removesuffix(".validation.txt")
        shutil.copy(path, cuts / f"{name}.txt")
        list_name = f"recipes/validation/{name}.txt"
        scores.append(score(predictor, arguments.root / name, str(path), list_name))
    card = card.model_copy(update={"scores": scores})
    folder = ROOT / "src" / "pinglow" / "weights"
    save_model(folder / f"{card.name}.safetensors", network, card)
    (folder / f"{card.name}.md").write_text(card_page(card), encoding="utf-8")
    shutil.copy(arguments.run / "curves.png", ROOT / "docs" / "images" / f"{card.name}-curves.png")
    print(card_page(card))


def score(predictor: Predictor, folder: Path, split: str, label: str) -> dict[str, Any]:
    frames = FrameFolder(folder, split)
    pairs = ((name, *frames.pair(index)) for index, name in enumerate(frames.names))
    (report,) = evaluate_model(pairs, predictor.probability, [PROTOCOLS["strict"]])
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


def card_page(card: ModelCard) -> str:
    """The card for a person, in Markdown."""
    lines = [
        f"# {card.name}",
        "",
        f"{card.parameters:,} parameters, threshold {card.threshold:g}, normalisation "
        f"{card.normalisation}. Frames are enlarged until their longer side has "
        f"{card.input_rule.long_side} pixels, at most {card.input_rule.max_scale:g} times. "
        f"Licence of the weights: {card.licence}.",
        "",
        *training_steps({"command": card.command, "training": card.training}),
        "",
        "## Data",
        "",
        "| data | list | frames trained on | held out | licence |",
        "|---|---|---|---|---|",
    ]
    lines += [
        f"| {row['name']} | {row['split']} | {row['frames']} | {row['held out for validation']} "
        f"| {row['licence']} |"
        for row in card.data
    ]
    lines += [
        "",
        "## Scores (strict protocol, 95 % bootstrap interval over images)",
        "",
        "| data | list | images | targets | IoU, % | nIoU, % | Pd, % | Fa, 1e-6 "
        "| false alarms a frame |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in card.scores:
        cells = [cell(row, key, factor) for key, factor in SHOWN if row["targets"] or factor != 100]
        if not row["targets"]:
            cells = ["-"] * 3 + cells
        counts = f"{row['images']} | {row['targets']}"
        lines.append(f"| {row['data']} | {row['list']} | {counts} | {' | '.join(cells)} |")
    lines += [
        "",
        "Per size of the true target: Pd in % (number of targets).",
        "",
        "| data | list | 1-9 px | 10-25 px | 26-49 px | 50+ px |",
        "|---|---|---|---|---|---|",
    ]
    for row in (row for row in card.scores if row["targets"]):
        cells = [
            f"{100 * size['pd']:.1f} ({size['targets']})" if size["targets"] else "- (0)"
            for size in row["per_size"]
        ]
        lines.append(f"| {row['data']} | {row['list']} | {' | '.join(cells)} |")
    lines += ["", "## Recipe", "", "```toml", card.recipe.strip(), "```", ""]
    return "\n".join(lines)


def training_steps(part: dict[str, Any]) -> list[str]:
    """One line per run, the first one first: runs that started from others are a chain."""
    training = dict(part["training"])
    before = training.pop("started_from", None)
    facts = ", ".join(f"{key.replace('_', ' ')} {value}" for key, value in training.items())
    earlier = (
        training_steps(before) if before else ["Trained by, one run going on from another:", ""]
    )
    return [*earlier, f"- `{part['command']}` ({facts})"]


def cell(row: dict[str, Any], key: str, factor: float) -> str:
    low, high = row["ci95"][key]
    digits = 1 if factor > 1 else 2
    return " ".join(
        [
            f"{factor * row[key]:.{digits}f}",
            f"[{factor * low:.{digits}f}, {factor * high:.{digits}f}]",
        ]
    )


if __name__ == "__main__":
    main()
