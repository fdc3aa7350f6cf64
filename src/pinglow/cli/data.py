"""pinglow data: audit, synthetic scenes, labels, packs, the known data sets."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pinglow.cli.labels import convert, import_labels, split
from pinglow.cli.output_file import (
    check_output_file,
    check_output_folder,
    echo,
    is_standard_output,
    write_json,
)
from pinglow.errors import OptionError

if TYPE_CHECKING:
    from rich.table import Table

    from pinglow.data.audit import Audit

app = typer.Typer(
    no_args_is_help=True, help="Import, audit, split, make, convert, pack and find data sets."
)

_EXAMPLES = 4


@app.command()
def audit(
    folders: Annotated[list[Path], typer.Argument(metavar="DIR...", help="Data folders.")],
    json: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Also write every finding to this JSON file; - is stdout."
        ),
    ] = None,
) -> None:
    """Look for what spoils training or a score: missing masks, leaks, near-duplicates.

    Example: pinglow data audit sirst/ irstd-1k/ --json audit.json
    """
    from functools import partial

    from pinglow.cli.progress import frame_progress
    from pinglow.console import Console
    from pinglow.data.audit import audit_folder, find_image_files
    from pinglow.data.folder import import_hint

    check_output_file("--json", json)
    audits = []
    for folder in folders:
        with frame_progress() as progress:
            task = progress.add_task(str(folder), total=len(find_image_files(folder)))
            audits.append(audit_folder(folder, on_frame=partial(progress.advance, task)))
        Console(stderr=is_standard_output(json)).print(_audit_table(audits[-1]))
        if len(audits[-1].missing_masks) == audits[-1].images:
            hint = import_hint(folder)
            if hint:
                echo(f"note: {folder} has no masks{hint}", err=True)
    found = [each.to_dict() for each in audits]
    write_json(json, found if len(found) > 1 else found[0])


@app.command()
def synth(
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Folder to write; new or empty.")],
    count: Annotated[int, typer.Option(metavar="N", help="Number of scenes.")],
    bits: Annotated[int, typer.Option(help="Bit depth: 8, 14 or 16.")] = 14,
    kind: Annotated[
        str, typer.Option(help="Background: cloud, sea, ground, gradient or mixed.")
    ] = "mixed",
    size: Annotated[str, typer.Option(metavar="WxH", help="Frame size.")] = "256x256",
    snr: Annotated[
        str, typer.Option(metavar="LOW-HIGH", help="Target peak over local deviation.")
    ] = "3-12",
    targets: Annotated[
        str, typer.Option(metavar="LOW-HIGH", help="Targets per frame; 0-0 for none.")
    ] = "0-3",
    length: Annotated[
        str, typer.Option(metavar="LOW-HIGH", help="Target length in pixels; 0 is a point.")
    ] = "0-6",
    cold: Annotated[float, typer.Option(help="Share of targets darker than around them.")] = 0.0,
    bad_pixels: Annotated[
        int | None,
        typer.Option(
            min=0,
            metavar="N",
            help="Pixels stuck at 0, and as many stuck at the largest count.",
            show_default="2, none at 8 bits",
        ),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Same seed, same bytes.")] = 0,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace synthetic scenes written earlier.")
    ] = False,
) -> None:
    """Write synthetic scenes with exact masks: images/, masks/, lists and scenes.csv.

    Example: pinglow data synth scenes/ --count 100 --bits 14 --kind cloud --snr 4-8
    """
    from dataclasses import replace

    from pinglow.cli.progress import frame_progress
    from pinglow.data.synthetic.backgrounds import BACKGROUNDS
    from pinglow.data.synthetic.scenes import SENSORS, TRUTH, SceneSpec, write_dataset

    check_output_folder("OUT", out)
    if bits not in SENSORS:
        raise OptionError(f"--bits {bits} is not offered; use 8, 14 or 16")
    if kind not in (*BACKGROUNDS, "mixed"):
        raise OptionError(f"--kind {kind} is unknown; use {', '.join(BACKGROUNDS)} or mixed")
    kinds = tuple(BACKGROUNDS) if kind == "mixed" else (kind,)
    width, height = _parse_size(size)
    fewest, most = _parse_range("--targets", targets)
    if fewest % 1 or most % 1:
        raise OptionError(f"--targets {targets} counts targets; use whole numbers")
    sensor = SENSORS[bits]
    if bad_pixels is not None:
        sensor = replace(sensor, dead_pixels=bad_pixels, hot_pixels=bad_pixels)
    spec = SceneSpec(
        kind=kinds[0],
        width=width,
        height=height,
        targets=(int(fewest), int(most)),
        snr=_parse_range("--snr", snr),
        length=_parse_range("--length", length),
        cold=cold,
        sensor=sensor,
    )
    with frame_progress() as progress:
        task = progress.add_task(str(out), total=count)
        write_dataset(
            out,
            count,
            spec,
            kinds=kinds,
            seed=seed,
            overwrite=overwrite,
            on_scene=lambda: progress.advance(task),
        )
    echo(f"{out}: {count} scenes; the known truth is in {out / TRUTH}")


app.command("import")(import_labels)
app.command()(convert)
app.command()(split)


@app.command()
def pack(
    folders: Annotated[list[Path], typer.Argument(metavar="DIR...", help="Data folders.")],
    out: Annotated[Path, typer.Option(metavar="FILE", help="The pack to write.")],
    license: Annotated[
        str | None,
        typer.Option(
            metavar="TEXT",
            help="Of all these folders, for whoever gets the pack.",
            show_default="what `pinglow data list` says of a folder's name, or not stated",
        ),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace a file that is there.")
    ] = False,
) -> None:
    """Put data folders into one smaller file, without loss and with checksums.

    A pack is read wherever a data folder is; of several folders in it, name one:
    --data frames.pack/sirst. Hidden files and folders and __pycache__ are left out; a link
    becomes what it leads to.

    Example: pinglow data pack sirst/ irstd-1k/ --out frames.pack
    """
    from functools import partial

    from pinglow.cli.progress import frame_progress
    from pinglow.data.pack.writer import list_files, write_pack

    check_output_file("--out", out)
    with frame_progress() as progress:
        task = progress.add_task("", total=sum(len(list_files(folder)) for folder in folders))
        done = write_pack(
            folders,
            out,
            license=license,
            overwrite=overwrite,
            on_file=partial(progress.advance, task),
        )
    if done.kept:
        echo(
            f"note: {done.kept} of the PNG files are in it as they were: they are noise, tiny, "
            "interlaced, damaged, or not compressed by zlib",
            err=True,
        )
    echo(
        f"{out}: {', '.join(done.folders)}; {done.frames} frame{'s' * (done.frames != 1)}; "
        f"{done.before:,} bytes became {done.after:,}, {done.after / max(done.before, 1):.1%}"
    )


@app.command()
def unpack(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A pack.")],
    out: Annotated[
        Path, typer.Option(metavar="DIR", help="Folder to write the pack's folders into.")
    ],
) -> None:
    """Write the folders of a pack, each file as it was, byte for byte.

    A folder that is there already is left as it is; if it differs from the pack's, nothing is
    written and the exit code is 2.

    Example: pinglow data unpack frames.pack --out data/
    """
    from functools import partial

    from pinglow.cli.progress import frame_progress
    from pinglow.data.pack.reader import Pack, unpack_folders

    check_output_folder("--out", out)
    with Pack(file) as opened, frame_progress() as progress:
        folders = opened.folders.values()
        task = progress.add_task("", total=sum(len(folder.files) for folder in folders))
        other = unpack_folders(opened, out, partial(progress.advance, task))
    if other:
        echo(
            f"note: {other} PNG files have the pixels that they had, but other bytes: this "
            "machine's zlib compresses in another way",
            err=True,
        )
    for folder in folders:
        echo(f"{out / folder.name}: {len(folder.files)} files; license: {folder.license}")


@app.command("list")
def list_datasets() -> None:
    """Known public data sets, with their licenses and how to get them."""
    from rich.table import Table

    from pinglow.console import Console
    from pinglow.data.known import KNOWN_DATASETS

    table = Table("name", "title", "frames", "size", "lists", "license")
    for name, info in KNOWN_DATASETS.items():
        table.add_row(
            name,
            info.title,
            str(info.frames),
            info.size,
            ", ".join(f"{split}: {size}" for split, size in info.splits.items()) or "-",
            info.license,
        )
    Console().print(table)
    # Outside the table, where no cell cuts an address.
    for name, info in KNOWN_DATASETS.items():
        echo(f"{name}: {info.home}")
        echo(f"    {info.how_to_get}")


def _parse_range(option: str, text: str) -> tuple[float, float]:
    """Read "LOW-HIGH" or one number for both."""
    import re

    number = r"(\d+(?:\.\d+)?)"
    match = re.fullmatch(f"{number}(?:-{number})?", text)
    if match is None or float(match[2] or match[1]) < float(match[1]):
        raise OptionError(f"{option} {text} is not a range; write LOW-HIGH, for example 2-5")
    return float(match[1]), float(match[2] or match[1])


def _parse_size(text: str) -> tuple[int, int]:
    """Read "WxH"."""
    import re

    match = re.fullmatch(r"(\d{1,5})x(\d{1,5})", text)
    if match is None:
        raise OptionError(f"--size {text} is not a size; write WxH, for example 320x256")
    return int(match[1]), int(match[2])


def _audit_table(audit: Audit) -> Table:
    """Facts first, then what needs a look, in one table."""
    from rich.markup import escape
    from rich.table import Table

    table = Table("", "number", "which", title=escape(audit.folder), title_justify="left")
    table.add_row("frames", str(audit.images), _spread(audit.frame_sizes))
    counts = f", counts {audit.counts[0]:g} to {audit.counts[1]:g}" if audit.counts else ""
    table.add_row("pixel types", str(len(audit.pixel_types)), _spread(audit.pixel_types) + counts)
    table.add_row("targets, by pixels", str(audit.targets), _spread(audit.target_sizes))
    table.add_row("target-free frames", str(len(audit.target_free)), _examples(audit.target_free))
    lists = ", ".join(f"{split}: {size}" for split, size in audit.splits.items())
    table.add_row("lists", str(len(audit.splits)), escape(lists), end_section=True)

    findings: list[tuple[str, list[str]]] = [
        ("broken files", list(audit.broken.values())),
        ("frames without a mask", audit.missing_masks),
        ("masks of another size", [f"{n}: {s}" for n, s in audit.mismatched_masks.items()]),
        ("masks with soft edges", audit.non_binary_masks),
        *((f"mask {meaning}", names) for meaning, names in audit.special_masks.items()),
        ("unclear masks", list(audit.unclear_masks.values())),
        *((f"masks derived from {each}", names) for each, names in audit.derived_masks.items()),
        *((f"no image, listed in {s}", names) for s, names in audit.missing_images.items()),
        ("images in no list", audit.unlisted if audit.splits else []),
        *((f"LEAK: listed in {pair}", names) for pair, names in audit.leaks.items()),
        ("groups of equal frames", [" = ".join(group) for group in audit.duplicates]),
        ("groups of near-duplicates", [" ~ ".join(group) for group in audit.near_duplicates]),
        *((f"equal across {pair}", names) for pair, names in audit.duplicates_across.items()),
        *((f"near across {pair}", names) for pair, names in audit.near_duplicates_across.items()),
    ]
    for label, names in findings:
        style = "yellow" if names else "green"
        table.add_row(escape(label), f"[{style}]{len(names)}[/]", _examples(names))
    return table


def _spread(numbers: dict[str, int]) -> str:
    """The first few entries and how many more there are."""
    shown = [f"{label}: {number}" for label, number in list(numbers.items())[:_EXAMPLES]]
    more = len(numbers) - len(shown)
    return ", ".join(shown) + (f", {more} more" if more else "")


def _examples(names: list[str]) -> str:
    """The first few names and how many more there are, safe to print."""
    from rich.markup import escape

    more = len(names) - _EXAMPLES
    return escape(", ".join(names[:_EXAMPLES]) + (f", {more} more" if more > 0 else ""))
