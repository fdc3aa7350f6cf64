"""pinglow train."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pinglow.cli.output_file import check_output_folder
from pinglow.cli.predict import Device
from pinglow.errors import DataError, OptionError, PinglowError
from pinglow.extras import need_torch

if TYPE_CHECKING:
    from pinglow.training.gain import Gain
    from pinglow.training.recipe import Recipe
    from pinglow.training.splits import Cut

_BEGUN = time.monotonic()  # as near to the command's beginning as can be


def train(
    recipe: Annotated[
        str | None,
        typer.Argument(
            help="A recipe file, or a bundled recipe, as fast, paper or detect; none: they are "
            "listed. With --resume it can be left out."
        ),
    ] = None,
    data: Annotated[
        list[str] | None,
        typer.Option(
            metavar="DIR[:SPLIT[:VALIDATION]]",
            help="Train on this folder, or pack of one, instead of the recipe's; repeat for "
            "several. SPLIT names a list in it (default: train), VALIDATION the list that "
            "validates (default: frames cut from SPLIT).",
        ),
    ] = None,
    boxes: Annotated[
        str | None,
        typer.Option(
            help="Where --data has the boxes that a detector learns: masks, voc, yolo or coco.",
            show_default="the first that a folder has",
        ),
    ] = None,
    changes: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="Change a key, as in optimizer.name=adagrad or network.type=retinanet-small.",
        ),
    ] = None,
    run: Annotated[
        Path | None, typer.Option(help="The run folder to make (default: runs/NAME).")
    ] = None,
    resume: Annotated[
        Path | None,
        typer.Option(metavar="RUN", help="Go on with this run folder, exactly where it stopped."),
    ] = None,
    device: Device = "auto",
    devices: Annotated[
        int,
        typer.Option(metavar="N", help="Train on N devices, a process each; also by torchrun."),
    ] = 1,
    minutes: Annotated[
        float | None,
        typer.Option(
            metavar="M",
            help="End after M minutes, validated and saved; --resume goes on. With --set "
            "steps=minutes the schedule has as many steps as fit.",
        ),
    ] = None,
    loggers: Annotated[
        list[str] | None,
        typer.Option(
            "--logger",
            metavar="NAME",
            help="What gets losses and scores: tensorboard, wandb, mlflow; repeat for several.",
            show_default="tensorboard",
        ),
    ] = None,
    compiled: Annotated[
        bool,
        typer.Option(
            "--compile",
            help="Fuse operations by torch.compile: minutes of preparation, faster steps.",
        ),
    ] = False,
) -> None:
    """Train a network by a recipe; the run folder gets weights, curves and lists.

    The recipe says whether the network finds masks or boxes. Ctrl-C saves and stops
    (exit code 130), SIGTERM too (143).

    Example: pinglow train fast --data my-frames:train --set steps=2000

    Example: pinglow train base --data my-frames:train --minutes 9 --set steps=minutes

    Example: pinglow train fast --data my-frames:train --logger wandb --logger tensorboard

    Example: pinglow train detect --data my-frames:train --set network.gaussian=true

    From the bundled weights: add --set init=pinglow-fast
    """
    need_torch("pinglow train")
    import shlex
    import sys

    from pinglow.console import Console
    from pinglow.metrics.scores import SCORES
    from pinglow.training.fit import Machine
    from pinglow.training.fit import train as fit
    from pinglow.training.recipe_file import load_recipe
    from pinglow.training.run import TrainingInterruptedError

    _check_options(run, resume, minutes, boxes, data)
    changes = list(changes or [])
    if data:
        tables = [_as_table(item, {"boxes": boxes} if boxes else {}) for item in data]
        changes.append(f"data.sets=[{', '.join(tables)}]")
    plain = load_recipe(recipe or _recipe_of(resume), changes)
    folder = resume or run or Path("runs") / plain.name
    follower = _rank() > 0
    console = Console(stderr=True, soft_wrap=True, markup=False, highlight=False, quiet=follower)
    command = shlex.join(["pinglow", *sys.argv[1:]])
    machine = Machine(
        device,
        devices,
        minutes,
        compiled=compiled,
        loggers=tuple(loggers or ["tensorboard"]),
        begun=_BEGUN,
    )

    console.print(f"{plain.name}: reading frames")

    def announce(recipe: Recipe, cuts: list[Cut]) -> None:
        console.print(f"training {plain.name}: {recipe.steps} steps into {folder}")
        for cut in cuts:
            trained, held = len(cut.training), len(cut.validation)
            source = getattr(cut.frames, "source", "masks")
            console.print(f"{cut.name}: {trained} frames, {held} more validate; truth: {source}")

    gains: list[Gain] = []
    try:
        task = fit(
            plain,
            folder,
            resume=resume is not None,
            command=command,
            on_start=announce,
            machine=machine,
            on_end=gains.append,
        )
    except TrainingInterruptedError as stop:
        console.print(str(stop))
        raise typer.Exit(128 + stop.signal_number) from stop
    except PinglowError as error:
        if follower:  # the first process says it, of all
            raise typer.Exit(2) from error
        raise
    if task.steps_done < task.recipe.steps:
        console.print(
            f"the {minutes:g} minutes are over at step {task.steps_done} of "
            f"{task.recipe.steps}, everything is saved; go on with: pinglow train --resume "
            f"{shlex.quote(str(folder))}"
        )
    console.print(
        f"last validation {SCORES[task.figures[0]].name} {task.score:.3f}; weights of the best "
        f"validation: {folder / 'weights.safetensors'}; curves: {folder / 'curves.png'}; pictures: "
        f"{folder / 'validation.png'}"
    )
    if gains:
        console.print(gains[0].describe())


def _check_options(
    run: Path | None,
    resume: Path | None,
    minutes: float | None,
    boxes: str | None,
    data: list[str] | None,
) -> None:
    """See whether the options fit together.

    Raises:
        OptionError: They do not.
    """
    if minutes is not None and not 0 < minutes < float("inf"):
        raise OptionError(f"--minutes is {minutes:g}; use a number above 0")
    if run is not None and resume is not None:
        raise OptionError("--run and --resume exclude each other; --resume names the run itself")
    if run is not None:
        check_output_folder("--run", run)
    if boxes is not None and not data:
        raise OptionError("--boxes says where the boxes of --data are; name a folder with that")


def _recipe_of(resume: Path | None) -> str:
    """The recipe of a run folder.

    Raises:
        OptionError: There is none.
    """
    from pinglow.training.recipe_file import bundled_recipes

    if resume is None:
        raise OptionError(
            f"no recipe is given; name a file or one of {', '.join(bundled_recipes())}"
        )
    recipe = resume / "recipe.toml"
    if not recipe.is_file():
        raise OptionError(f"--resume {resume} is not a run folder; it has no recipe.toml")
    return str(recipe)


def _rank() -> int:
    """This process's number among those that torchrun, or --devices, has started."""
    import os

    if "TORCHELASTIC_RUN_ID" in os.environ:
        return int(os.environ["RANK"])
    started = {"MASTER_ADDR", "NODE_RANK", "LOCAL_RANK"} <= os.environ.keys()
    return int(os.environ["LOCAL_RANK"]) if started else 0


def _as_table(item: str, options: dict[str, str]) -> str:
    """A folder and its lists as a data set in TOML; a folder's own colons are left alone."""
    import json

    folder, lists = item, list[str]()
    while not _is_data(folder) and len(lists) < 2:
        head, separator, last = folder.rpartition(":")
        if not separator or last.startswith("//"):
            break
        folder, lists = head, [last, *lists]
    place = folder if "://" in folder else str(Path(folder).absolute())
    values = {"folder": place, "split": lists[0] if lists else "train"}
    if len(lists) == 2:
        values["validation_split"] = lists[1]
    # A JSON string is a TOML string.
    pairs = (
        f"{key} = {json.dumps(value, ensure_ascii=False)}"
        for key, value in (values | options).items()
    )
    return f"{{{', '.join(pairs)}}}"


def _is_data(path: str) -> bool:
    """Whether a path means a folder, in a pack or not; what is wrong with a pack is said later."""
    from pinglow.data.pack.cache import open_data

    try:
        return open_data(path).is_dir()
    except DataError:
        return False
