"""pinglow archive: millions of frames, on one machine or many."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pinglow.cli.output_file import STANDARD_OUTPUT, check_output_folder, echo, write_json
from pinglow.cli.predict import Device
from pinglow.cli.sensitivity import MinScore
from pinglow.cli.sources import Crop, Ignore
from pinglow.errors import OptionError

if TYPE_CHECKING:
    from pinglow.archive.run import Progress, Runner

app = typer.Typer(no_args_is_help=True, context_settings={"help_option_names": ["-h", "--help"]})

Destination = Annotated[
    str, typer.Argument(metavar="DEST", help="The --out of pinglow archive run.")
]
Results = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="Which results of DEST, where there are several models or options.",
        show_default="the only ones",
    ),
]

_SAID_EVERY = 30.0  # seconds, where there is no terminal
_TOLD = 20  # problems


@app.callback()
def archive() -> None:
    """Predict millions of frames, on one machine or many, and query what was found."""


@app.command()
def run(
    sources: Annotated[
        list[str],
        typer.Argument(
            metavar="SOURCE",
            help="Images, videos, tar files of images, folders (to their depth), quoted patterns: "
            "paths, or addresses as s3://, gs://, az://, https://. @LIST.txt: a file with one of "
            "these a line.",
        ),
    ],
    out: Annotated[
        str, typer.Option(metavar="DEST", help="Folder or address for the parts of the results.")
    ],
    model: Annotated[
        str, typer.Option(help="A bundled model, a run folder, a weights file, or an exported one.")
    ] = "pinglow-fast",
    min_score: MinScore = None,
    workers: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="N",
            help="Processes, a model each.",
            show_default="1; with --ray as many as it has room for",
        ),
    ] = None,
    ray: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS|local",
            help="Do it on a Ray cluster, as 10.0.0.5:6379, with its token in RAY_AUTH_TOKEN; "
            "local: one that is started on this machine, for this run.",
        ),
    ] = None,
    gpus: Annotated[
        float,
        typer.Option(
            "--gpus-per-worker",
            min=0,
            metavar="SHARE",
            help="With --ray: the share of a card that a process takes, as 0.25; 0: it takes a "
            "core.",
        ),
    ] = 0,
    shard: Annotated[
        str,
        typer.Option(
            metavar="I/N", help="Do the I-th of N shares of the files, as one of N machines."
        ),
    ] = "1/1",
    ignore: Ignore = None,
    crop: Crop = None,
    backend: Annotated[
        str, typer.Option(help="auto (the fastest installed), torch, onnxruntime or openvino.")
    ] = "auto",
    device: Device = "auto",
    retry: Annotated[
        bool,
        typer.Option("--retry", help="Try files again some of whose frames could not be read."),
    ] = False,
) -> None:
    """Predict all frames that have no results yet; the same command goes on where it stopped.

    Each image, clip, 2,000 frames of a long clip, or tar file gets a Parquet
    file of its own in DEST, with a row a frame and a row a target. Files that
    are new or were changed are done, all others are left.

    Example: pinglow archive run /footage --out /results --workers 4

    Example: pinglow archive run s3://bucket/2026/ --out s3://bucket/found --shard 3/8

    Example: pinglow archive run s3://bucket/2026/ --out s3://bucket/found --ray 10.0.0.5:6379
    """
    from pinglow.archive.local import run_units
    from pinglow.archive.place import open_place
    from pinglow.archive.plans import Shard
    from pinglow.archive.run import run_archive
    from pinglow.archive.settings import make_settings
    from pinglow.archive.status import list_results

    if gpus and ray is None:
        raise OptionError("--gpus-per-worker is for --ray; without it all processes share the card")
    share = Shard.parse(shard)
    place = open_place(out)
    settings = make_settings(
        model,
        min_score=min_score,
        ignore=ignore or [],
        crop=crop,
        backend=backend,
        device=device,
    )
    if ray is None:
        runner: Runner = partial(run_units, workers=workers or 1)
    else:
        from pinglow.archive.ray import run_on_ray

        runner = partial(run_on_ray, address=ray, workers=workers, gpus=gpus)
    others = [name for name in list_results(place) if name != settings.name]
    if others:
        echo(
            f"note: {place} also has results of another model or other options "
            f"({', '.join(others)}); these go into {settings.name}",
            err=True,
        )
    begin = time.perf_counter()
    try:
        with _progress() as tell:
            done = run_archive(
                sources, settings, place, shard=share, retry=retry, runner=runner, on_progress=tell
            )
    except KeyboardInterrupt:
        echo("note: what is done is kept; the same command goes on", err=True)
        raise
    for problem in done.problems[:_TOLD]:
        echo(problem, err=True)
    hidden = done.failed + done.broken - _TOLD
    if hidden > 0:
        echo(f"... and {hidden:,} more", err=True)
    seconds = time.perf_counter() - begin
    rate = f", {done.frames / seconds:.1f} frames a second" if done.frames else ""
    echo(
        f"{done.frames:,} frames, {done.targets:,} targets in {done.done:,} files and slices"
        f"{rate}; {done.before:,} were done before. Results are in {place}/{settings.name}."
    )
    if done.broken:
        echo(f"{done.broken:,} frames could not be read; --retry tries their files again.")
    if done.failed:
        echo(f"{done.failed:,} files could not be done; the same command tries them again.")
    if done.broken or done.failed:
        raise typer.Exit(2)


@contextmanager
def _progress() -> Iterator[Callable[[Progress], None]]:
    """A bar on a terminal; elsewhere a line on stderr now and then."""
    from pinglow.cli.progress import frame_progress

    begin = said = time.monotonic()

    with frame_progress("files and slices") as bar:
        task = bar.add_task("", total=None)

        def tell(progress: Progress) -> None:
            nonlocal said
            done = progress.done + progress.before + progress.failed
            now = time.monotonic()
            rate = f"{progress.frames / (now - begin):.1f} frames a second"
            bar.update(task, total=progress.total, completed=done, description=rate)
            if bar.disable and now - said >= _SAID_EVERY:
                said = now
                echo(_describe(progress, now - begin), err=True)

        yield tell


def _describe(progress: Progress, seconds: float) -> str:
    new = progress.done + progress.failed
    done = progress.before + new
    if progress.total is None:
        of = f"{progress.listed:,} listed so far"
        left = ""
    else:
        of = f"{progress.total:,}"
        left = f", {seconds * (progress.total - done) / new / 60:.0f} min left" if new else ""
    return f"{done:,} of {of}, {progress.frames / seconds:.1f} frames a second{left}"


@app.command()
def merge(
    place: Destination,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Local folder for the tables.")],
    results: Results = None,
) -> None:
    """Make one targets.parquet, targets.csv, coco.json and frames.parquet of all parts.

    Example: pinglow archive merge s3://bucket/found --out tables
    """
    from pinglow.archive.merge import merge as merge_parts
    from pinglow.archive.place import open_place
    from pinglow.archive.status import choose_results
    from pinglow.cli.progress import frame_progress

    check_output_folder("--out", out)
    opened = open_place(place)
    name = choose_results(opened, results)
    with frame_progress("files and slices") as bar:
        task = bar.add_task("", total=None)
        merged = merge_parts(opened.below(name), out, lambda done: bar.update(task, completed=done))
    echo(
        f"{merged.frames:,} frames, {merged.targets:,} targets, {merged.broken:,} frames that "
        f"could not be read, of {merged.units:,} files and slices. Tables are in {out}."
    )
    if merged.missing:
        echo(
            f"{merged.missing:,} files and slices are not done yet: pinglow archive run goes on",
            err=True,
        )
        raise typer.Exit(2)


@app.command()
def status(
    place: Destination,
    results: Results = None,
    missing: Annotated[
        bool, typer.Option("--missing", help="List the files that are not done, a line each.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Tell how far an archive is: of each model and its options, what is done and what is not.

    Example: pinglow archive status /results
    """
    from dataclasses import asdict

    from pinglow.archive.place import open_place
    from pinglow.archive.status import choose_results, find_results, list_missing, measure

    opened = open_place(place)
    if missing:
        if json:
            raise OptionError("--missing is a list of names: leave --json out")
        for uri in list_missing(opened.below(choose_results(opened, results))):
            echo(uri)
        return
    names = find_results(opened) if results is None else [choose_results(opened, results)]
    found = [measure(opened, name) for name in names]
    if json:
        entries: list[dict[str, Any]] = [
            {**asdict(each), "missing": each.missing} for each in found
        ]
        write_json(STANDARD_OUTPUT, entries)
        return
    for each in found:
        options = {key: value for key, value in each.settings["options"].items() if value}
        echo(
            f"{each.name}: {each.done:,} of {each.planned:,} files and slices done, "
            f"{each.missing:,} missing, {each.broken:,} with frames that could not be read; "
            f"{each.bytes / 2**20:,.1f} MB; {options}"
        )
        if each.parts > each.done:
            echo(f"  {each.parts - each.done:,} parts are of files that changed or were not named")
