"""Each kind of file that can be spoiled, and how it is put before the command that reads it.

A job takes spoiled files, puts them beside whole ones, runs a command, and sees that the promises
of `promises` hold, that each spoiled file is either used or named in one line, and that the whole
ones are done as they are without the others.
"""

from __future__ import annotations

import functools
import hashlib
import json
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from unittest import mock

import numpy as np
from PIL import Image

from fuzz import cameras, corpus
from fuzz.promises import BrokenPromiseError, Call, call
from fuzz.spoiling import spoil

Spoiled = list[tuple[str, bytes]]
"""Names of the whole files that they were, and what became of them."""


@dataclass(frozen=True)
class Kind:
    """Files of a kind.

    Attributes:
        samples: Whole ones, by their names.
        run: Puts spoiled ones before a command, in an empty folder.
        together: How many at a time.
        share: Of the seeds, those that are tried in each run of the tests.
    """

    samples: Callable[[], dict[str, bytes]]
    run: Callable[[Path, Spoiled], None]
    together: int = 1
    share: int = 10


def make_batch(kind: str, number: int) -> Spoiled:
    """The spoiled files of a batch; of a kind and a number always the same."""
    samples = _samples(kind)
    spoiled = []
    for place in range(KINDS[kind].together):
        seed = f"{kind}-{number}-{place}"
        names = sorted(samples)
        name = names[int(hashlib.sha256(seed.encode()).hexdigest(), 16) % len(names)]
        spoiled.append((name, spoil(samples[name], seed)))
    return spoiled


@functools.cache
def _samples(kind: str) -> dict[str, bytes]:
    return KINDS[kind].samples()


# --- frames ---------------------------------------------------------------------------------------


def predict_frames(folder: Path, spoiled: Spoiled) -> None:
    """Spoiled images or videos between two whole frames."""
    files = [folder / f"s{number:03}-{name}" for number, (name, _) in enumerate(spoiled)]
    for file, (name, content) in zip(files, spoiled, strict=True):
        file.write_bytes(content)
        if (more := cameras.beside(name)) is not None:
            file.with_suffix(".img").write_bytes(more)
    whole = [folder / "first.png", folder / "last.png"]
    for file in whole:
        file.write_bytes(_samples("image")["deep.png"])
    with _bright_is_target():
        done = call(
            *("predict", whole[0], *files, whole[1]),
            *("--out", folder / "out", "--save", "jsonl,csv,mask"),
        )
    found: dict[str, list[Any]] = {}
    for line in _read_lines(folder / "out" / "targets.jsonl"):
        row = json.loads(line)
        found.setdefault(Path(row["source"]).name, []).append(row["targets"])
    for file in whole:
        _expect(len(found.get(file.name, [])) == 1, f"{file.name} is not done", done)
        _expect(len(found[file.name][0]) == len(corpus.TARGETS), f"{file.name} has lost", done)
    for file in files:
        _expect_used_or_named(file.name, file.name in found, done)
    _expect((done.code == 2) == any("left out" in line for line in done.lines), "exit code", done)


@contextmanager
def _bright_is_target() -> Iterator[None]:
    """Instead of a model: what is far above the median is a target."""
    from pinglow.backends.base import Backend
    from pinglow.backends.device import CPU
    from pinglow.inference.predictor import Predictor
    from pinglow.models.card import ModelCard
    from pinglow.preprocess import InputRule

    class Bright(Backend):
        name, suffixes, device = "bright", (), CPU

        @classmethod
        def why_not(cls, device: Any) -> None:
            return None

        @classmethod
        def load(cls, *_: Any) -> Any:
            return cls()

        def run(self, images: Any, gates: Any) -> Any:
            return (images > 2).astype(np.float32)

        def gates(self, images: Any) -> Any:
            return np.zeros((len(images), 1), np.float32)

    rule = InputRule(max_scale=1.0)
    card = ModelCard(name="bright", network={"type": "PinwheelUNet"}, parameters=0, input_rule=rule)
    predictor = Predictor(Bright(), card)
    with mock.patch.object(Predictor, "load", return_value=predictor):
        yield


# --- labels, masks, lists -------------------------------------------------------------------------


def _write_frames(folder: Path, names: Sequence[str]) -> None:
    (folder / "images").mkdir(parents=True)
    for name in names:
        (folder / "images" / f"{name}.png").write_bytes(_samples("image")["deep.png"])
    (folder / "train.txt").write_text("".join(f"{name}\n" for name in names))


def convert_labels(folder: Path, spoiled: Spoiled, *, form: str) -> None:
    """Spoiled label files, one a frame, between two whole ones."""
    names = ["first", *(f"s{number:03}" for number in range(len(spoiled))), "last"]
    _write_frames(folder / "data", names)
    (sample,) = _samples(form).items()
    place = folder / "data" / {"voc": "boxes", "yolo": "labels"}[form]
    place.mkdir()
    for name, (_, content) in zip(names, [sample, *spoiled, sample], strict=True):
        (place / f"{name}{Path(sample[0]).suffix}").write_bytes(content)
    done = _convert(folder, form)
    boxes = _read_boxes(folder / "out")
    for name in ("first", "last"):
        _expect(boxes.get(name) == _TRUE_BOXES, f"{name} is {boxes.get(name)}", done)
    for name in names:
        _expect_used_or_named(name, name in boxes, done)


def convert_coco(folder: Path, spoiled: Spoiled) -> None:
    """A spoiled annotations.json for all frames."""
    _write_frames(folder / "data", _COCO_NAMES)
    ((_, content),) = spoiled
    (folder / "data" / "annotations.json").write_bytes(content)
    _convert(folder, "coco")


def import_labelme(folder: Path, spoiled: Spoiled) -> None:
    """Spoiled labelme files, one a frame, between two whole ones."""
    names = ["first", *(f"s{number:03}" for number in range(len(spoiled))), "last"]
    _write_frames(folder / "data", names)
    (sample,) = _samples("labelme").values()
    contents = [sample, *(content for _, content in spoiled), sample]
    for name, content in zip(names, contents, strict=True):
        label = content.replace(b"NAME", name.encode())
        (folder / "data" / "images" / f"{name}.json").write_bytes(label)
    done = call("data", "import", folder / "data" / "images", "--out", folder / "out")
    _expect_imported(folder / "out", ("first", "last"), done)


def import_whole(folder: Path, spoiled: Spoiled, *, form: str) -> None:
    """A spoiled file of the labels of all frames."""
    _write_frames(folder / "data", _COCO_NAMES)
    ((name, content),) = spoiled
    (folder / name).write_bytes(content)
    done = call(
        *("data", "import", folder / name, "--out", folder / "out", "--format", form),
        *("--images", folder / "data" / "images"),
    )
    if content == _samples(form)[name]:
        _expect_imported(folder / "out", _COCO_NAMES, done)


def _expect_imported(out: Path, names: Sequence[str], done: Call) -> None:
    for name in names:
        (path,) = out.glob(f"masks/{name}.png")
        with Image.open(path) as image:
            same = np.array_equal(np.asarray(image) > 0, corpus.mask() > 0)
        _expect(same, f"the mask of {name} is another", done)


def convert_list(folder: Path, spoiled: Spoiled) -> None:
    """A spoiled list of names."""
    _write_frames(folder / "data", _COCO_NAMES)
    (folder / "data" / "masks").mkdir()
    for name in _COCO_NAMES:
        (folder / "data" / "masks" / f"{name}.png").write_bytes(_samples("mask")["mask.png"])
    ((_, content),) = spoiled
    (folder / "data" / "train.txt").write_bytes(content)
    done = _convert(folder, "masks")
    if done.code == 0:
        for name, boxes in _read_boxes(folder / "out").items():
            _expect(boxes == _TRUE_BOXES, f"{name} is {boxes}", done)
    call("data", "audit", folder / "data")


def _convert(folder: Path, form: str) -> Call:
    return call(
        *("data", "convert", folder / "data", "--split", "train"),
        *("--from", form, "--to", "coco", "--out", folder / "out"),
    )


_COCO_NAMES: Final = ("a", "b2", "c-3")
_TRUE_BOXES: Final = [[column, row, 2, 2] for row, column in corpus.TARGETS]


def _read_boxes(out: Path) -> dict[str, list[list[float]]]:
    """Boxes that were written, by the name of their frame."""
    (path,) = out.glob("annotations/*.json")
    content = json.loads(path.read_text())
    boxes: dict[int, list[list[float]]] = {image["id"]: [] for image in content["images"]}
    for each in content["annotations"]:
        boxes[each["image_id"]].append(each["bbox"])
    return {Path(image["file_name"]).stem: boxes[image["id"]] for image in content["images"]}


def score_masks(folder: Path, spoiled: Spoiled, *, where: str = "masks") -> None:
    """Spoiled masks, or spoiled saved maps, between two whole ones."""
    names = ["first", *(f"s{number:03}" for number in range(len(spoiled))), "last"]
    data = folder / "data"
    _write_frames(data, names)
    whole = _samples("mask")["mask.png"]
    for place in ("masks", "maps"):
        (data / place).mkdir()
        contents = [whole, *(content for _, content in spoiled), whole]
        for name, content in zip(names, contents, strict=True):
            (data / place / f"{name}.png").write_bytes(content if place == where else whole)
    scores = folder / "scores.json"
    done = call(
        *("evaluate", "--data", data, "--split", "train"),
        *("--predictions", data / "maps", "--json", scores),
    )
    named = sum(line.startswith("warning: left out: ") for line in done.lines)
    refused = any(line.startswith("error: ") for line in done.lines)
    if not refused:
        scored = json.loads(scores.read_text())["images"]
        _expect(scored + named == len(names), f"{scored} scored, {named} named", done)
    if where == "masks":
        _expect(not refused, "all is refused for one mask", done)
        call("data", "audit", data)


# --- recipes, studies -----------------------------------------------------------------------------

_RECIPE: Final = """\
name = "tiny"
seed = 3
steps = 4
validate_every = 2
batch_size = 2
ema_decay = 0.9

[network]
type = "PinwheelUNet"
widths = [4, 8]
depths = [1, 1]

[loss]
warmup_steps = 2

[[loss.terms]]
name = "scale"
options = { variant = "diff" }

[[loss.terms]]
name = "bce"
weight = 5.0

[optimizer]
name = "adamw"
learning_rate = 2e-3
warmup_steps = 1

[data]
root = "ROOT"
validation = 0.25
sets = [{ folder = "scenes", split = "train" }]

[augmentation]
crop = 32
scale = [0.8, 1.4]

[input_rule]
max_scale = 1.0
"""

_STUDY: Final = """\
name = "s"
recipe = "fast"
seeds = [0, 1]

[set]
steps = 4
network = { widths = [4, 8], depths = [1, 1] }

[[arms]]
name = "x"

[[arms]]
name = "y"
set = { "loss.terms.0.options" = { variant = "penalty" }, batch_size = 4 }

[[compare]]
first = "x"
second = "y"
question = "is x better?"
"""


def read_recipe(folder: Path, spoiled: Spoiled) -> None:
    """A spoiled recipe, up to where training would begin."""
    from pinglow.errors import DataError

    def begin(*_: Any, **__: Any) -> None:
        raise DataError("here training begins")

    ((_, content),) = spoiled
    (folder / "recipe.toml").write_bytes(content)
    with mock.patch("pinglow.training.fit.train", begin):
        call("train", folder / "recipe.toml", "--run", folder / "run", codes=[2])


def read_study(folder: Path, spoiled: Spoiled) -> None:
    """A spoiled study, up to where its runs would begin, and its report."""
    ((_, content),) = spoiled
    (folder / "study.toml").write_bytes(content)
    with mock.patch("pinglow.study.run.run_study", return_value=[]):
        call("study", folder / "study.toml", "--work", folder / "work", "--out", folder / "out")
    call("study", "report", folder / "study.toml", "--out", folder / "out")


# --- models, checkpoints --------------------------------------------------------------------------


@functools.cache
def _weights() -> bytes:
    """Weights of a tiny network."""
    import torch

    from pinglow.models.card import ModelCard
    from pinglow.models.registry import build_network
    from pinglow.models.weights import save_model

    config = {"type": "PinwheelUNet", "widths": [4, 8], "depths": [1, 1]}
    torch.manual_seed(0)
    card = ModelCard.model_validate({"name": "tiny", "network": config, "parameters": 1})
    return _written(lambda path: save_model(path, build_network(config), card), "w.safetensors")


def _graph() -> bytes:
    from pinglow.models.card import bundled_graph, bundled_models

    graph = bundled_graph(bundled_models()["pinglow-fast"])
    assert graph is not None
    return graph.read_bytes()


def _written(write: Callable[[Path], object], name: str) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder) / name)
        return (Path(folder) / name).read_bytes()


def run_model(folder: Path, spoiled: Spoiled, *, backend: str) -> None:
    """A spoiled model on a whole frame: it is refused, or finds what the whole one does."""
    ((name, content),) = spoiled
    if backend == "torch":
        (folder / name).write_bytes(content)
        call("models", folder / name)
        if _tensors(content) == _tensors(_weights()):
            return  # its card is spoiled, which may well say something else
    found = _find(folder, name, content, backend)
    if found is not None and found != _find_whole(name, backend):
        raise BrokenPromiseError(f"a spoiled {name} finds something else: {found}")


def _find(folder: Path, name: str, content: bytes, backend: str) -> Any:
    """The targets that a model finds; None: it is refused."""
    (folder / name).write_bytes(content)
    (folder / "frame.png").write_bytes(_samples("image")["deep.png"])
    done = call(
        *("predict", folder / "frame.png", "--model", folder / name, "--backend", backend),
        *("--out", folder / "out", "--save", "jsonl", "--min-score", "0.01"),
    )
    if done.code:
        return None
    return [json.loads(line)["targets"] for line in _read_lines(folder / "out" / "targets.jsonl")]


@functools.cache
def _find_whole(name: str, backend: str) -> Any:
    with tempfile.TemporaryDirectory() as folder:
        content = _weights() if backend == "torch" else _graph()
        return _find(Path(folder), name, content, backend)


def _tensors(content: bytes) -> bytes:
    """What follows the header of a safetensors file."""
    return content[8 + int.from_bytes(content[:8], "little") :]


def _write_run(folder: Path) -> Path:
    """A run folder of four steps whose data lies beside it, without a checkpoint."""
    from pinglow.data.synthetic.scenes import SceneSpec, write_dataset

    spec = SceneSpec(width=32, height=32, targets=(1, 1), snr=(20, 30))
    write_dataset(folder / "scenes", 8, spec, kinds=("gradient",))
    (folder / "run").mkdir()
    (folder / "run" / "recipe.toml").write_text(_RECIPE.replace("ROOT", str(folder)))
    return folder / "run"


def _run_files() -> dict[str, bytes]:
    """What a run that was stopped after two of its four steps goes on from."""
    from pinglow.training.fit import train
    from pinglow.training.recipe_file import load_recipe
    from pinglow.training.run import RunKeeper

    kept: dict[str, bytes] = {}
    save = RunKeeper.save

    def save_and_keep(keeper: RunKeeper, task: Any, optimizer: Any, step: int) -> None:
        save(keeper, task, optimizer, step)
        for name in ("last.ckpt", "metrics.csv"):
            kept.setdefault(name, (keeper.run / name).read_bytes())

    with tempfile.TemporaryDirectory() as name, mock.patch.object(RunKeeper, "save", save_and_keep):
        recipe = load_recipe(_write_run(Path(name)) / "recipe.toml")
        train(recipe, Path(name) / "other", progress=False)
    return kept


def resume_training(folder: Path, spoiled: Spoiled) -> None:
    """A spoiled checkpoint, its checksum mended every second time, or a spoiled metrics.csv."""
    ((name, content),) = spoiled
    head = len(b"pinglow checkpoint 2\n")
    if name == "last.ckpt" and len(content) % 2:
        payload = content[head + 32 :]
        content = content[:head] + hashlib.sha256(payload).digest() + payload
    run = _write_run(folder)
    for each, whole in (_samples("run") | {name: content}).items():
        (run / each).write_bytes(whole)
    call("train", "--resume", run)


# --- what jobs leave and read again ---------------------------------------------------------------


def resume_job(folder: Path, spoiled: Spoiled) -> None:
    """The spoiled log of a job that is resumed."""
    for name in ("a", "b"):
        (folder / f"{name}.png").write_bytes(_samples("image")["deep.png"])
    arguments = "predict", folder / "a.png", folder / "b.png", "--out", folder / "out"
    ((_, content),) = spoiled
    with _bright_is_target():
        call(*arguments, "--save", "csv,jsonl")
        (folder / "out" / ".pinglow-job.jsonl").write_bytes(
            content.replace(b"FOLDER", str(folder).encode())
        )
        done = call(*arguments, "--save", "csv,jsonl", "--resume")
    if done.code == 0:
        rows = _read_lines(folder / "out" / "targets.jsonl")
        _expect(len(rows) == 2, f"{len(rows)} rows of two frames", done)


def _log() -> dict[str, bytes]:
    head = {
        **{"save": ["csv", "jsonl"], "model": "pinglow-fast", "min_score": None, "tile": 1024},
        **{"flips": False, "track": False, "selection": [1, 0.0, None]},
        "sources": ["FOLDER/a.png", "FOLDER/b.png"],
    }
    return {"log.jsonl": (json.dumps(head) + '\n"FOLDER/a.png"\n').encode()}


def resume_tables(folder: Path, spoiled: Spoiled) -> None:
    """Spoiled tables of a job that is resumed."""
    for name in ("a", "b"):
        (folder / f"{name}.png").write_bytes(_samples("image")["deep.png"])
    arguments = "predict", folder / "a.png", folder / "b.png", "--out", folder / "out"
    with _bright_is_target():
        call(*arguments, "--save", "csv,jsonl")
        log = folder / "out" / ".pinglow-job.jsonl"
        log.write_text("".join(log.read_text().splitlines(keepends=True)[:2]))
        ((name, content),) = spoiled
        content = content.replace(b"FOLDER", str(folder).encode())
        (folder / "out" / name).write_bytes(content)
        call(*arguments, "--save", "csv,jsonl", "--resume")


def _tables() -> dict[str, bytes]:
    with tempfile.TemporaryDirectory() as name, _bright_is_target():
        folder = Path(name)
        (folder / "a.png").write_bytes(_samples("image")["deep.png"])
        call("predict", folder / "a.png", "--out", folder / "out", "--save", "csv,jsonl")
        return {
            path.name: path.read_bytes().replace(name.encode(), b"FOLDER")
            for path in (folder / "out").glob("targets.*")
        }


def unpack(folder: Path, spoiled: Spoiled) -> None:
    """A spoiled pack: unpacked, or nothing at all."""
    ((name, content),) = spoiled
    (folder / name).write_bytes(content)
    done = call("data", "unpack", folder / name, "--out", folder / "out")
    left = [path.name for path in folder.glob("out/*")]
    _expect(bool(left) == (done.code == 0), f"{left} with exit code {done.code}", done)


def _pack() -> dict[str, bytes]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _write_frames(folder / "data", _COCO_NAMES)
        call("data", "pack", folder / "data", "--out", folder / "frames.pack")
        return {"frames.pack": (folder / "frames.pack").read_bytes()}


# --- what is common -------------------------------------------------------------------------------


def _expect(holds: bool, what: str, done: Call) -> None:
    if not holds:
        said = "\n".join(done.lines)[:4000]
        raise BrokenPromiseError(f"{what}; exit code {done.code}\n{said}")


def _expect_used_or_named(name: str, used: bool, done: Call) -> None:
    lines = [line for line in done.lines if name in line and line.startswith("warning: left out")]
    _expect(used or len(lines) == 1, f"{name} is named in {len(lines)} lines", done)
    _expect(len(lines) == len(set(lines)), f"{name} is named twice in the same words", done)


def _read_lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


def _of(name: str, content: Callable[[], bytes]) -> Callable[[], dict[str, bytes]]:
    return lambda: {name: content()}


_mask = functools.partial(corpus._pillow, corpus.mask(), "PNG")
_coco = functools.partial(corpus.coco, list(_COCO_NAMES))
_names = functools.partial("\n".join(["a.png", "./images/b2.png", "c-3", ""]).encode)

KINDS: Final[dict[str, Kind]] = {
    "image": Kind(corpus.images, predict_frames, 20, 15),
    "camera": Kind(cameras.cameras, predict_frames, 20, 4),
    # Its library may crash: only where each kind has a process of its own.
    "hdf5": Kind(cameras.hdf5, predict_frames, 10, share=0),
    "video": Kind(corpus.videos, predict_frames, 4, 8),
    "voc": Kind(corpus.voc, functools.partial(convert_labels, form="voc"), 20, 6),
    "yolo": Kind(corpus.yolo, functools.partial(convert_labels, form="yolo"), 20, 6),
    "coco": Kind(_of("annotations.json", _coco), convert_coco, share=20),
    "labelme": Kind(corpus.labelme, import_labelme, 20, 4),
    **{
        form: Kind(
            _of(name, functools.partial(write, list(_COCO_NAMES))),
            functools.partial(import_whole, form=form),
            share=10,
        )
        for form, name, write in (
            ("cvat", "annotations.xml", corpus.cvat),
            ("labelstudio", "project.json", corpus.label_studio),
            ("fiftyone", "samples.json", corpus.fiftyone),
        )
    },
    "list": Kind(_of("train.txt", _names), convert_list, share=15),
    "mask": Kind(_of("mask.png", _mask), score_masks, 10, 8),
    "map": Kind(_of("mask.png", _mask), functools.partial(score_masks, where="maps"), share=10),
    "recipe": Kind(_of("recipe.toml", _RECIPE.encode), read_recipe, share=20),
    "study": Kind(_of("study.toml", _STUDY.encode), read_study, share=10),
    "weights": Kind(
        _of("w.safetensors", _weights), functools.partial(run_model, backend="torch"), share=10
    ),
    "onnx": Kind(
        _of("w.onnx", _graph), functools.partial(run_model, backend="onnxruntime"), share=10
    ),
    "openvino": Kind(
        _of("w.onnx", _graph), functools.partial(run_model, backend="openvino"), share=0
    ),
    "run": Kind(_run_files, resume_training, share=4),
    "log": Kind(_log, resume_job, share=10),
    "tables": Kind(_tables, resume_tables, share=8),
    "pack": Kind(_pack, unpack, share=15),
}
"""Every kind of file that is spoiled."""
