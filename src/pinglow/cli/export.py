"""pinglow export: a model as an ONNX or OpenVINO file, or for Triton."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pinglow.cli.output_file import check_output_folder, echo
from pinglow.errors import OptionError
from pinglow.extras import need_torch
from pinglow.terminal import escape_controls

if TYPE_CHECKING:
    from pinglow.deploy.quantize import Accuracy


def export(
    model: Annotated[
        str, typer.Argument(help="A bundled model (see `pinglow models`) or a weights file.")
    ],
    form: Annotated[
        str,
        typer.Option(
            "--format",
            help="onnx (model.onnx), openvino (model.xml, model.bin) or triton (a model "
            "repository: NAME/config.pbtxt, NAME/1/model.onnx).",
        ),
    ] = "onnx",
    out: Annotated[Path, typer.Option(help="Folder for the files; made if need be.")] = Path(
        "pinglow-export"
    ),
    int8: Annotated[
        bool, typer.Option("--int8", help="8-bit integers: smaller and faster, less exact.")
    ] = False,
    calibration: Annotated[
        Path | None,
        typer.Option(
            help="For --int8: a folder of frames like those to come, or a data folder with "
            "images/ and masks/. Half of them calibrate, half measure what int8 costs.",
            metavar="DIR",
        ),
    ] = None,
) -> None:
    """Write a model as one file that runs without pinglow.

    The file takes any batch and size, and holds the card: normalization, input
    rule, threshold. It is compared with the original before it is kept, and is
    itself a model name for predict, evaluate and bench.

    Example: pinglow export pinglow-fast --format openvino --out deployed
    """
    from pinglow.console import Console

    need_torch("pinglow export", "export")
    from pinglow.deploy.export import FORMATS, TOLERANCE, export_model

    if form not in FORMATS:
        raise OptionError(f"--format {form!r} is unknown: use {' or '.join(FORMATS)}")
    if int8 != (calibration is not None):
        raise OptionError("--int8 and --calibration DIR go together: give both or neither")
    check_output_folder("--out", out)
    console = Console(stderr=True)
    with console.status(f"exporting {escape_controls(model)}" + (", calibrating" if int8 else "")):
        report = export_model(model, form, out, calibration)
    echo(f"{report.path}: {report.size / 1e6:.2f} MB")
    if report.difference is not None:
        echo(
            f"checked against the original: probabilities differ by at most "
            f"{report.difference:.1g} ({TOLERANCE:g} is allowed)"
        )
    if report.accuracy is not None:
        _print_accuracy(report.accuracy)


def _print_accuracy(accuracy: Accuracy) -> None:
    from rich.table import Table

    from pinglow.console import Console
    from pinglow.metrics.scores import SCORES

    shown = ("iou", "pd", "fa")
    table = Table("", *(SCORES[key].heading for key in shown))
    for name, scores in accuracy.scores.items():
        table.add_row(name, *(SCORES[key].show(scores[key]) for key in shown))
    against = "their masks" if accuracy.with_masks else "what float32 finds"
    Console().print(table)
    echo(f"on {accuracy.frames} frames that int8 was not calibrated on, against {against}")
