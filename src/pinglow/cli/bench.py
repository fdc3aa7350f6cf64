"""pinglow bench: how fast models are on this machine."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pinglow.cli.output_file import check_output_file, echo, is_standard_output, write_json
from pinglow.cli.predict import Device, Precision
from pinglow.errors import OptionError
from pinglow.extras import need_torch

if TYPE_CHECKING:
    from pinglow.deploy.benchmark import Timing


def bench(
    models: Annotated[
        str,
        typer.Option(
            help="Models with commas between: bundled, weights, exported files; also mshnet and "
            "paper, the networks of these forms without weights.",
        ),
    ] = "pinglow-fast,mshnet",
    backends: Annotated[
        str,
        typer.Option(
            help="torch, onnxruntime, openvino, with commas between.",
            show_default="all that are installed and can use the device",
        ),
    ] = "",
    device: Device = "auto",
    precision: Precision = "float32",
    size: Annotated[
        str, typer.Option(metavar="WxH", help="Size at the network's input, pixels.")
    ] = "256x256",
    repeats: Annotated[int, typer.Option(min=3, help="Turns, of three timed runs each.")] = 20,
    json: Annotated[
        Path | None,
        typer.Option(help="Also write the figures to this file; - is stdout.", metavar="FILE"),
    ] = None,
    plot: Annotated[
        Path | None, typer.Option(help="Also draw them into this PNG or SVG.", metavar="FILE")
    ] = None,
) -> None:
    """Time models at batch 1: the network alone, all of them taking turns.

    MACs are multiply-adds an image. Memory is that of a process with the model
    alone; on a card, what PyTorch takes of the card's. The share of peak compares
    with a large matrix product in float32 on the same device. On a card the copies
    to it and back count. Leave the machine alone meanwhile.

    Example: pinglow bench --models pinglow-fast,mshnet --size 512x512 --plot speed.png
    """
    from dataclasses import asdict

    need_torch("pinglow bench")
    from pinglow.backends.opening import BACKENDS
    from pinglow.cli.progress import frame_progress
    from pinglow.deploy.benchmark import draw_timings, measure_speed

    names, chosen = _split(models), _split(backends)
    for name in chosen:
        if name not in BACKENDS:
            raise OptionError(f"--backends {name!r} is unknown: use {', '.join(BACKENDS)}")
    shape = _parse_size(size)
    if not names:
        raise OptionError("--models names no model")
    for option, file in (("--json", json), ("--plot", plot)):
        check_output_file(option, file)
    if plot is not None and plot.suffix.lower() not in (".png", ".svg"):
        raise OptionError(f"--plot {plot} is neither a .png nor a .svg: name one of these")
    with frame_progress() as bar:
        task = bar.add_task("", total=None)
        timings = measure_speed(
            names,
            chosen or None,
            shape,
            repeats,
            lambda done, total: bar.update(task, completed=done, total=total),
            device,
            precision,
        )
    if timings[0].device != "cpu":
        echo(f"on {timings[0].device}, {precision}", err=is_standard_output(json))
    _print_timings(timings, is_standard_output(json))
    write_json(json, [asdict(each) for each in timings])
    if plot is not None:
        draw_timings(timings, plot)


def _split(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def _parse_size(text: str) -> tuple[int, int]:
    """Height and width from WIDTHxHEIGHT."""
    match = re.fullmatch(r"(\d{1,4})x(\d{1,4})", text)
    width, height = map(int, match.groups()) if match else (0, 0)
    if not 32 <= min(width, height) <= max(width, height) <= 8192:
        raise OptionError(f"--size {text!r} is not WIDTHxHEIGHT of 32 to 8192 pixels each")
    return height, width


def _print_timings(timings: list[Timing], err: bool) -> None:
    from rich import box
    from rich.table import Table

    from pinglow.console import Console

    # Without padding: names and numbers fit into 80 columns.
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=0)
    for column in ("model", "backend"):
        table.add_column(column, overflow="fold")
    for column in ("params", "MACs", "ms", "p95", "images/s", "MB", "of peak"):
        table.add_column(column, justify="right", no_wrap=True)
    for each in timings:
        table.add_row(
            each.model,
            each.backend,
            f"{each.parameters / 1e6:.2f} M",
            f"{each.macs / 1e9:.2f} G",
            f"{1e3 * each.median:.2f}",
            f"{1e3 * each.p95:.2f}",
            f"{1 / each.median:.1f}",
            f"{each.peak_memory / 1e6:.0f}" if each.peak_memory else "-",
            f"{100 * each.peak_share:.0f} %" if each.peak_share else "-",
        )
    Console(stderr=err).print(table)
    fastest, slowest = (choose(timings, key=lambda each: each.median) for choose in (min, max))
    if fastest is not slowest:
        echo(
            f"{fastest.model} on {fastest.backend} is {slowest.median / fastest.median:.1f} times "
            f"as fast as {slowest.model} on {slowest.backend}",
            err=err,
        )
