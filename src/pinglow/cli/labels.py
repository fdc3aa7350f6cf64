"""pinglow data import, convert and split: labels in and out, and lists."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pinglow.cli.output_file import check_output_folder, echo
from pinglow.errors import FrameError, OptionError

if TYPE_CHECKING:
    from pinglow.data.importing import Import

_SHOWN = 20  # reasons that are told one by one


def import_labels(
    source: Annotated[
        Path, typer.Argument(metavar="SOURCE", help="Folder of labels and images, or a label file.")
    ],
    out: Annotated[Path, typer.Option(metavar="DIR", help="Data folder to write; new or empty.")],
    form: Annotated[
        str | None,
        typer.Option(
            "--format",
            metavar="NAME",
            help="labelme, cvat, coco, labelstudio, fiftyone, voc or yolo.",
            show_default="what the files say",
        ),
    ] = None,
    images: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Folder of the images.", show_default="that of SOURCE"),
    ] = None,
    only: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Take labels of this name; give it once for each."),
    ] = None,
    polarity: Annotated[
        str, typer.Option(help="Targets in boxes and at points are bright, dark or auto.")
    ] = "auto",
    keep_boxes: Annotated[
        bool, typer.Option("--keep-boxes", help="Write boxes/ in place of masks, for detectors.")
    ] = False,
    keep_unlabeled: Annotated[
        bool, typer.Option("--keep-unlabeled", help="Images without a label are free of targets.")
    ] = False,
) -> None:
    """Make a data folder from labels of labelme, CVAT, COCO, Label Studio, FiftyOne, VOC or YOLO.

    Images are copied as they are, with their bit depth. Polygons and masks become masks. Of boxes
    and points the bright or dark core becomes the mask: derived.json says of which frames, and
    contact/ shows each target with its outline, to check. A wrong label leaves its frame out,
    which is listed at the end, and the exit code is 2.

    The way back, to an annotation tool: pinglow data convert.

    Example: pinglow data import my-labelme/ --out my-frames/
    """
    from pinglow.cli.progress import frame_progress
    from pinglow.data.importing import import_labels as run

    check_output_folder("--out", out)
    with frame_progress() as progress:
        task = progress.add_task(str(source), total=None)
        done = run(
            source,
            out,
            form=form,
            images=images,
            only=only or (),
            polarity=polarity,
            keep_boxes=keep_boxes,
            keep_unlabeled=keep_unlabeled,
            on_frame=lambda total: progress.update(task, total=total, advance=1),
        )
    _tell_import(done, out)
    if done.broken:
        raise typer.Exit(2)


def _tell_import(done: Import, out: Path) -> None:
    from pinglow.io.labels.formats import FORMATS

    for reason in done.broken[:_SHOWN]:
        echo(f"warning: left out: {reason}", err=True)
    if len(done.broken) > _SHOWN:
        echo(f"warning: {len(done.broken) - _SHOWN} more were left out", err=True)
    if done.unlabeled:
        echo(
            f"note: {_count(done.unlabeled, 'image')} without a label: left out; --keep-unlabeled "
            "takes them as free of targets",
            err=True,
        )
    names = ", ".join(f"{name or 'no name'} {number}" for name, number in done.names.most_common())
    left = ", ".join(f"{name or 'no name'} {number}" for name, number in done.left.most_common())
    echo(
        f"{FORMATS[done.format].title}: labels {names or 'none'}"
        + (f"; not taken: {left}" * bool(left))
    )
    left_out = f"{len(done.broken)} left out, " if done.broken else ""
    echo(
        f"{_count(done.frames, 'frame')}, {left_out}{_count(done.targets, 'target')}, "
        f"{done.empty} free of targets. The data folder is {out}."
    )
    if done.derived:
        echo(
            f"{_count(len(done.derived), 'mask')} derived from boxes or points, as "
            f"{out / 'derived.json'} says: look through {out / 'contact'}"
        )
    elif done.pages:
        echo(f"every target with its outline: {out / 'contact'}")
    lists = ", ".join(f"{title}.txt {size}" for title, size in done.lists.items())
    hint = (
        f"; next: pinglow data split {shlex.quote(str(out))}" if set(done.lists) == {"all"} else ""
    )
    echo(f"lists: {lists}{hint}")


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'s' * (number != 1)}"


def convert(
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="Data folder, or results of pinglow predict.")
    ],
    to: Annotated[str, typer.Option(metavar="FORMAT", help="labelme, cvat, coco, voc or yolo.")],
    out: Annotated[Path, typer.Option(help="Folder to write into; DIR: beside its frames.")],
    split: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME", help="List of a data folder to convert; give it once for each."
        ),
    ] = None,
    source: Annotated[
        str | None,
        typer.Option(
            "--from",
            metavar="SOURCE",
            help="What DIR's boxes are taken from: masks, voc, yolo or coco.",
            show_default="the first of these that it has",
        ),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace labels written earlier.")
    ] = False,
) -> None:
    """Write targets, from a data folder or predicted, for annotation tools and detectors.

    labelme: a JSON file a frame. cvat: annotations/SPLIT.xml. coco: annotations/SPLIT.json. They
    keep every pixel of a mask, so that pinglow data import gives back the same; predicted targets
    (a folder with targets.jsonl and masks/) become labels to correct. voc: boxes/NAME.xml. yolo:
    a folder that ultralytics' trainer takes, with 8-bit images, labels/NAME.txt and data.yaml; its
    first list is for training, the second for validation. A broken frame is listed at the end, the
    others go on, and the exit code is 2; a missing one stops it before anything is written.

    Example: pinglow data convert my-frames/ --split train --split val --to yolo --out my-yolo/
    """
    from functools import partial

    from pinglow.cli.progress import frame_progress
    from pinglow.data.boxes import BOX_SOURCES
    from pinglow.data.convert import LABEL_FORMATS, convert_labels
    from pinglow.data.folder import import_hint, read_split
    from pinglow.data.predicted import RESULTS, is_results

    check_output_folder("--out", out)
    if to not in LABEL_FORMATS:
        raise OptionError(f"--to {to} is unknown: choose from {', '.join(LABEL_FORMATS)}")
    if source is not None and source not in BOX_SOURCES:
        raise OptionError(f"--from {source} is unknown: choose from {', '.join(BOX_SOURCES)}")
    results = is_results(folder) and not split
    if not split and not results:
        raise OptionError(
            f"--split is missing: name a list of {folder}, which has no {RESULTS} of predicted "
            f"targets{import_hint(folder)}"
        )
    with frame_progress() as progress:
        total = None if results else sum(len(read_split(folder, name)) for name in split or ())
        task = progress.add_task(str(folder), total=total)
        done = convert_labels(
            folder,
            split or (),
            to,
            out,
            source=source,
            overwrite=overwrite,
            on_frame=partial(progress.advance, task),
        )
    if to == "yolo" and len(split or ()) == 1:
        echo(
            f"note: {out}/data.yaml validates with the frames that it trains on; give --split a "
            "second time to validate with others",
            err=True,
        )
    for reason in done.broken.values():
        echo(f"warning: left out: {reason}", err=True)
    if not done.frames:
        raise FrameError(f"none of the {len(done.broken)} frames could be used: see above why")
    left_out = f"{len(done.broken)} left out, " if done.broken else ""
    what = "labels" if to in ("labelme", "cvat") else "boxes"
    echo(
        f"{_count(done.frames, 'frame')}, {left_out}{_count(done.targets, 'target')}. "
        f"The {to} {what} are in {out}."
    )
    if done.broken:
        raise typer.Exit(2)


def split(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Data folder.")],
    val: Annotated[float, typer.Option(min=0, max=0.9, help="Share of frames in val.txt.")] = 0.15,
    test: Annotated[
        float, typer.Option(min=0, max=0.9, help="Share of frames in test.txt.")
    ] = 0.15,
    seed: Annotated[int, typer.Option(min=0, help="Same seed and frames, same lists.")] = 0,
    clips: Annotated[
        bool,
        typer.Option(
            "--clips/--no-clips",
            help="Keep numbered frames together where neighbors are alike, as in a clip.",
        ),
    ] = True,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace lists that are there.")
    ] = False,
) -> None:
    """Write train.txt, val.txt and test.txt so that frames which are alike are in one list.

    Alike are near-duplicates, overlapping windows of one larger picture, and the frames of a clip.
    Whole groups of them are drawn for val and test; 0 writes no such list.

    Example: pinglow data split my-frames/ --val 0.1 --test 0.2
    """
    from functools import partial

    from pinglow.cli.progress import frame_progress
    from pinglow.data.split import split_folder

    with frame_progress() as progress:
        task = progress.add_task(str(folder), total=None)
        done = split_folder(
            folder,
            val=val,
            test=test,
            seed=seed,
            clips=clips,
            overwrite=overwrite,
            on_frame=partial(progress.advance, task),
        )
    for reason in done.broken.values():
        echo(f"warning: left out: {reason}", err=True)
    if done.unlabeled:
        echo(f"note: {_count(done.unlabeled, 'frame')} without a mask or label: left out", err=True)
    if not done.clips and clips and done.numbered:
        echo("note: no numbered frames are taken for a clip: too few neighbors are alike", err=True)
    lists = ", ".join(
        f"{title} {_count(len(names), 'frame')} ({_count(done.groups[title], 'group')})"
        for title, names in done.lists.items()
    )
    echo(f"{folder}: {lists}.")
    echo(
        f"{_count(sum(done.groups.values()), 'group')} of alike frames, the largest of "
        f"{done.largest}; no group is in two lists. Found by near-duplicates "
        f"{done.found['near-duplicates']}, overlapping windows {done.found['windows']}, clips "
        f"{done.clips}."
    )
    if done.broken:
        raise typer.Exit(2)
