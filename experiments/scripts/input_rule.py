"""How should small frames be enlarged before the network? Measured on validation frames.

    python experiments/scripts/input_rule.py --model runs/pinglow-fast/weights.safetensors \
        --root ../shared/data --lists recipes/validation

Scores a model under the strict protocol with other input rules than its own.
"""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path

from pinglow.backends.torch import TorchBackend
from pinglow.data.folder import FrameFolder
from pinglow.evaluation.pixels import evaluate_model
from pinglow.inference.probability import predict_probability
from pinglow.metrics import PROTOCOLS
from pinglow.models.weights import load_network
from pinglow.nn import fold_kernels
from pinglow.preprocess import InputRule

RULES = [(32, 1.0), (384, 1.5), (512, 1.5), (512, 2.0), (512, 3.0), (640, 2.0), (768, 2.0)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="pinglow-fast")
    parser.add_argument("--root", type=Path, required=True, help="holds the data folders")
    parser.add_argument(
        "--lists", type=Path, required=True, help="holds FOLDER.txt or FOLDER.validation.txt"
    )
    parser.add_argument("--rules", nargs="*", help="LONG_SIDE,MAX_SCALE ...")
    arguments = parser.parse_args()
    rules = [tuple(rule.split(",")) for rule in arguments.rules or []] or RULES
    network = fold_kernels(load_network(arguments.model)[0])
    print("| long side | at most | data | IoU | nIoU | Pd | Fa, 1e-6 |")
    print("|---|---|---|---|---|---|---|")
    for long_side, max_scale in rules:
        rule = InputRule(long_side=int(long_side), max_scale=float(max_scale))
        ious: list[float] = []
        lists = sorted(arguments.lists.glob("*.txt"))
        lists = [path for path in lists if not path.stem.endswith(".training")]
        for path in lists:
            folder = arguments.root / path.name.split(".")[0]
            frames = FrameFolder(folder, str(path))
            pairs = ((name, *frames.pair(index)) for index, name in enumerate(frames.names))
            predict = partial(predict_probability, TorchBackend(network), rule=rule)
            each = partial(map, predict)
            (report,) = evaluate_model(pairs, each, [PROTOCOLS["strict"]])
            if report.targets:
                ious.append(report.iou or 0.0)
            print(
                f"| {rule.long_side} | {rule.max_scale:g} | {folder.name} "
                f"| {100 * (report.iou or 0):.1f} | {100 * (report.niou or 0):.1f} "
                f"| {100 * (report.pd or 0):.1f} | {1e6 * (report.fa or 0):.1f} |"
            )
        mean = 100 * sum(ious) / len(ious)
        print(f"| {rule.long_side} | {rule.max_scale:g} | mean | {mean:.1f} | | | |")


if __name__ == "__main__":
    main()
