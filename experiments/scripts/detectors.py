"""Does the Gaussian convolution help detectors? Plain against shaped, at the same seeds and steps.

    python experiments/scripts/detectors.py ROOT   # makes all runs, goes on where it stopped
    python experiments/scripts/detectors.py ROOT --latency  # nothing else running

Trains both detectors, plain and with GaussianConv2d in their first layers, by the recipe detect on
SIRST and IRSTD-1k (ROOT holds the folders), and scores each on SIRST's test list (boxes of its
VOC files) and on the IRSTD-1k frames that were cut out for validation (boxes of masks), which also
chose weights and threshold. Beside them stands pinglow-fast, by the boxes of its targets. Results:
experiments/studies/detectors.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from functools import partial
from pathlib import Path

os.environ.setdefault("YOLO_OFFLINE", "true")

import torch
from scipy.stats import t as student

from pinglow.data.boxes import BoxFolder
from pinglow.evaluation.boxes import evaluate_boxes, target_boxes
from pinglow.files import write_whole
from pinglow.inference.predictor import Predictor
from pinglow.metrics import PROTOCOLS
from pinglow.models.registry import build_network
from pinglow.nn import fold_kernels
from pinglow.training.fit import train
from pinglow.training.recipe_file import load_recipe

DETECTORS = ("yolov8n-p2", "retinanet-small")
FIGURES = ("ap50", "ap", "pd", "fa", "false_alarms_per_image", "f1")
OUT = Path("experiments/studies/detectors")


def score(model: str, root: Path) -> dict[str, dict[str, float | None]]:
    """Figures on the two lists."""
    predictor = Predictor.load(model)
    segments = isinstance(predictor, Predictor)
    threshold = predictor.card.threshold
    find = partial(target_boxes, predictor, threshold) if segments else predictor.candidates
    lists = {
        "sirst test": BoxFolder(root / "sirst", "test", "voc"),
        "irstd-1k cut": BoxFolder(root / "irstd-1k", "recipes/validation/irstd-1k.txt", "masks"),
    }
    found = {}
    for name, frames in lists.items():
        pairs = ((name, *frames.boxed(index)) for index, name in enumerate(frames.names))
        (report,) = evaluate_boxes(pairs, find, [PROTOCOLS["strict"]], threshold)
        found[name] = {key: getattr(report, key) for key in FIGURES}
    return found


def train_arm(detector: str, gaussian: bool, seed: int, steps: int, root: Path) -> None:
    """One run, and its scores as a file; nothing where the file is there."""
    name = f"{detector}-{'gaussian' if gaussian else 'plain'}-{seed}"
    result = OUT / "runs" / f"{name}.json"
    if result.is_file():
        return
    print(f"{name}: {steps} steps", flush=True)
    run = Path("runs/detectors") / name
    recipe = load_recipe(
        "detect",
        {
            "name": name,
            "seed": seed,
            "steps": steps,
            "network.type": detector,
            "network.gaussian": gaussian,
            "data.root": str(root),
            "data.validation_seed": 0,  # one cut for all, that of recipes/validation
        },
    )
    if not is_done(run, steps):  # a run may have been killed between its end and its scores
        train(recipe, run, resume=(run / "last.ckpt").is_file())
    network = recipe.network.build()
    row = {
        "detector": detector,
        "gaussian": gaussian,
        "seed": seed,
        "steps": steps,
        "parameters": sum(each.numel() for each in network.parameters()),
        "scores": score(str(run / "weights.safetensors"), root),
    }
    result.parent.mkdir(parents=True, exist_ok=True)
    write_whole(result, (json.dumps(row, indent=1) + "\n").encode())


def is_done(run: Path, steps: int) -> bool:
    metrics = run / "metrics.csv"
    lines = metrics.read_text(encoding="utf-8").splitlines() if metrics.is_file() else []
    return len(lines) > 1 and lines[-1].startswith(f"{steps},")


def print_table() -> None:
    """Mean over seeds, and the shaped detector less the plain one, seed by seed."""
    rows = [json.loads(path.read_text()) for path in sorted((OUT / "runs").glob("*.json"))]
    arms: dict[tuple[str, bool], dict[int, dict]] = {}
    for row in rows:
        arms.setdefault((row["detector"], row["gaussian"]), {})[row["seed"]] = row
    print(
        "| detector | first layers | seeds | parameters | frames | mAP50 | mAP50:95 | Pd | Fa | "
        "false alarms a frame | F1 |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|---|")
    for (detector, gaussian), seeds in arms.items():
        parameters = next(iter(seeds.values()))["parameters"]
        for frames in next(iter(seeds.values()))["scores"]:
            cells = [
                show(key, [row["scores"][frames][key] for row in seeds.values()]) for key in FIGURES
            ]
            kind = "Gaussian" if gaussian else "plain"
            start = f"{detector} | {kind} | {len(seeds)} | {parameters:,} | {frames}"
            print(f"| {start} | {' | '.join(cells)} |")
    reference = OUT / "pinglow-fast.json"
    if reference.is_file():
        for frames, figures in json.loads(reference.read_text()).items():
            cells = [show(key, [figures[key]]) for key in FIGURES]
            print(f"| pinglow-fast | - | - | 522,837 | {frames} | {' | '.join(cells)} |")
    print()
    for detector in DETECTORS:
        plain, shaped = (arms.get((detector, each), {}) for each in (False, True))
        both = sorted(plain.keys() & shaped.keys())
        for frames in ("sirst test", "irstd-1k cut"):
            for key in ("ap50", "pd"):
                pairs = [
                    100 * (shaped[s]["scores"][frames][key] - plain[s]["scores"][frames][key])
                    for s in both
                ]
                print(f"{detector}, {frames}, {key}: Gaussian - plain = {interval(pairs)}")


def show(key: str, values: list[float]) -> str:
    factor = 1e6 if key == "fa" else 1 if key == "false_alarms_per_image" else 100
    decimals = 0 if key == "fa" else 2 if factor == 1 else 1
    mean = statistics.mean(values) * factor
    spread = f" ± {statistics.stdev(values) * factor:.{decimals}f}" if len(values) > 1 else ""
    return f"{mean:.{decimals}f}{spread}"


def interval(values: list[float]) -> str:
    """Mean and Student's 95 % interval over seeds."""
    if len(values) < 2:
        return f"{values[0]:+.1f} (one seed: not judged)" if values else "not run"
    mean, deviation = statistics.mean(values), statistics.stdev(values)
    half = float(student.ppf(0.975, len(values) - 1)) * deviation / len(values) ** 0.5
    verdict = "" if abs(mean) > half else ", no difference shown"
    return f"{mean:+.1f} [{mean - half:.1f}, {mean + half:.1f}] over {len(values)} seeds{verdict}"


def print_latency() -> None:
    """Median of interleaved passes over one 512 x 512 image, as ratios to the plain detector."""
    for detector in DETECTORS:
        plain, shaped = (
            build_network({"type": detector, "gaussian": each}).eval() for each in (False, True)
        )
        networks = {"plain": plain, "Gaussian": shaped, "folded": fold_kernels(shaped)}
        image = torch.randn(1, 1, 512, 512)
        times: dict[str, list[float]] = {name: [] for name in networks}
        with torch.inference_mode():
            for turn in range(25):
                for name, network in networks.items():
                    start = time.perf_counter()
                    network(image)
                    if turn >= 5:
                        times[name].append(time.perf_counter() - start)
        medians = {name: statistics.median(each) for name, each in times.items()}
        parts = [
            f"{name} {1e3 * each:.1f} ms ({each / medians['plain']:.3f})"
            for name, each in medians.items()
        ]
        print(f"{detector} at 512 x 512: {', '.join(parts)}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("root", type=Path)
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument(
        "--only", choices=DETECTORS, help="make the runs of this one: a process for each, at once"
    )
    parser.add_argument("--latency", action="store_true")
    parser.add_argument("--report", action="store_true", help="only print what is there")
    arguments = parser.parse_args()
    if arguments.latency:
        return print_latency()
    if not arguments.report:
        for seed in range(arguments.seeds):
            for detector in [arguments.only] if arguments.only else DETECTORS:
                for gaussian in (False, True):
                    train_arm(detector, gaussian, seed, arguments.steps, arguments.root)
        reference = OUT / "pinglow-fast.json"
        reference.write_text(json.dumps(score("pinglow-fast", arguments.root), indent=1) + "\n")
    print_table()


if __name__ == "__main__":
    main()
