"""A worker process: a model, and the one place where what clients send is decoded."""

from __future__ import annotations

import copy
import json
import logging
import signal
from collections.abc import Sequence
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from pinglow.errors import FrameError, PinglowError
from pinglow.inference.ignored import Ignored
from pinglow.inference.inputs import output_name
from pinglow.inference.predictor import Predictor
from pinglow.io.containers import is_container
from pinglow.io.counts import check_size
from pinglow.io.frames import count_pages, open_frames, simplify_dtype
from pinglow.io.memory import MemoryFile
from pinglow.output.mask import mask_levels
from pinglow.output.overlay import draw_overlay
from pinglow.output.probability import probability_levels
from pinglow.output.sink import FrameRecord, encode_npy, encode_png
from pinglow.output.sinks import check_sinks
from pinglow.output.tables import frame_with_targets
from pinglow.process import take_share, trim_memory
from pinglow.serve.logs import log_to_stderr
from pinglow.serve.settings import ServeSettings
from pinglow.serve.tasks import Answer, Loaded, Statistics, Task
from pinglow.structures import Detections, Prediction

if TYPE_CHECKING:
    from pinglow.inference.boxes import BoxPredictor

_logger = logging.getLogger("pinglow.serve")

_TOGETHER: Final = 16  # frames, on a card
_MEASURED: Final = 2**14  # pixels of a frame whose statistics are taken
_WARM_UP: Final = (256, 256)
_IDLE: Final = 1.0  # seconds without a frame after which what large ones left is given back
_LARGE: Final = 2**19  # pixels
_MULTIPLE: Final = "post it to /v1/jobs, which takes clips and archives"


def work(connection: Connection, settings: ServeSettings) -> None:
    """Load the model, say what it is, and answer tasks until the connection ends."""
    # Whoever stops the service, by Ctrl-C too, stops the process before: it drains.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    log_to_stderr()
    take_share(settings.workers)
    try:
        predictor = Predictor.load(
            settings.model,
            backend=settings.backend,
            device=settings.device,
            min_score=settings.min_score,
        )
        predictor(_warm_frame())
        connection.send(describe(predictor))
    except PinglowError as error:
        connection.send(type(error)(str(error)))
        return
    with suppress(EOFError, ConnectionError):  # the service has ended
        large = False
        while True:
            if large and not connection.poll(_IDLE):
                give_back(predictor)
                large = False
            answers = _answer_whatever(predictor, connection.recv(), settings.max_pixels)
            connection.send(answers)
            large = large or any(_is_large(answer) for answer in answers)


def _is_large(answer: Answer) -> bool:
    frame = answer.statistics
    return frame is not None and frame.width * frame.height >= _LARGE


def give_back(predictor: Predictor | BoxPredictor) -> None:
    """Give back memory that large frames needed; they leave hundreds of megabytes."""
    if isinstance(predictor, Predictor):
        try:
            predictor.backend.release_memory()
        except Exception:
            _logger.exception("memory could not be given back")
    trim_memory()


def _answer_whatever(
    predictor: Predictor | BoxPredictor, tasks: Sequence[Task], max_pixels: int
) -> list[Answer]:
    """`answer_all`, where a fault of ours costs one answer and not the worker."""
    try:
        return answer_all(predictor, tasks, max_pixels)
    except Exception:
        if len(tasks) > 1:
            alone = (_answer_whatever(predictor, [task], max_pixels) for task in tasks)
            return [answer for answers in alone for answer in answers]
        _logger.exception("a frame of %s bytes cannot be answered", len(tasks[0].content))
        return [refusal("", "the service made a mistake with this frame: its log tells more", 500)]


def describe(predictor: Predictor | BoxPredictor) -> Loaded:
    """What a model is, and how it computes."""
    if isinstance(predictor, Predictor):
        backend, device = predictor.backend.name, str(predictor.backend.device)
        # On a CPU frames gain nothing by being computed together; see `batch_pixels`.
        most = _TOGETHER if predictor.batch_pixels > 1 else 1
    else:
        network: Any = predictor.network
        backend, device, most = "torch", str(next(network.parameters()).device), 1
    card = predictor.card.model_dump(mode="json")
    return Loaded(card, predictor.kind, predictor.min_score, device, backend, most)


def _warm_frame() -> NDArray[Any]:
    frame = np.random.default_rng(0).normal(1000, 20, _WARM_UP)
    frame[100:103, 100:103] += 400  # what follows a target is warm, too
    return frame.astype(np.uint16)


def answer_all(
    predictor: Predictor | BoxPredictor, tasks: Sequence[Task], max_pixels: int
) -> list[Answer]:
    """The answer to each task; frames of one size are computed together where that gains.

    Args:
        predictor: The model.
        tasks: What is asked.
        max_pixels: Of a frame; a larger one is refused before it is decoded.
    """
    frames = [_decode(task, max_pixels) for task in tasks]
    found = _find_all(predictor, tasks, frames)
    least = predictor.min_score
    return [_answer(*each, least) for each in zip(tasks, frames, found, strict=True)]


def _decode(task: Task, max_pixels: int) -> NDArray[Any] | PinglowError:
    try:
        if task.shape is not None:
            return _decode_raw(task, task.shape, max_pixels)
        file = MemoryFile(task.name, task.content)
        if is_container(file):
            raise FrameError(f"{task.name} is a clip: {_MULTIPLE}")
        with open_frames(file, max_pixels=max_pixels) as read:
            frame = read(0)
        pages = count_pages(file)
        if pages > 1:
            raise FrameError(f"{task.name} holds {pages} frames: {_MULTIPLE}")
        return frame
    except PinglowError as error:
        return error


def _decode_raw(task: Task, shape: tuple[int, int], max_pixels: int) -> NDArray[Any]:
    height, width = shape
    dtype = np.dtype(task.dtype)
    check_size(task.name, height, width, max_pixels)
    if len(task.content) != height * width * dtype.itemsize:
        raise FrameError(
            f"{task.name} has {len(task.content):,} bytes, and {width} x {height} pixels of "
            f"{dtype} are {height * width * dtype.itemsize:,}: send all of them"
        )
    # As of a file, so that both are answered alike.
    return simplify_dtype(task.name, np.frombuffer(task.content, dtype).reshape(shape))


_Found = Prediction | Detections


def _find_all(
    predictor: Predictor | BoxPredictor,
    tasks: Sequence[Task],
    frames: Sequence[NDArray[Any] | PinglowError],
) -> list[_Found | PinglowError]:
    """What is found in each frame, or why nothing is."""
    found: dict[int, _Found | PinglowError] = {}
    alike: list[int] = []  # those that the predictor takes as it is
    for place, (task, frame) in enumerate(zip(tasks, frames, strict=True)):
        if isinstance(frame, PinglowError):
            found[place] = frame
        elif task.want == "counts":
            found[place] = Detections(np.zeros((0, 4)), np.zeros(0))  # nothing is looked for
        elif isinstance(predictor, Predictor) and not task.ignore and task.crop is None:
            alike.append(place)
        else:
            found[place] = _find_one(predictor, task, frame)
    if isinstance(predictor, Predictor):
        maps = predictor.probabilities([frames[place] for place in alike])  # type: ignore[misc]
        for place, probability in zip(alike, maps, strict=True):
            if isinstance(probability, FrameError):
                found[place] = probability
            else:
                found[place] = _with_score(predictor, tasks[place]).decide(probability)
    return [found[place] for place in range(len(tasks))]


def _find_one(
    predictor: Predictor | BoxPredictor, task: Task, frame: NDArray[Any]
) -> _Found | PinglowError:
    try:
        own = _with_score(predictor, task)
        own.ignore = Ignored.parse(task.ignore, task.crop, files=False)
        found: _Found = own(frame)
        return found
    except PinglowError as error:
        return error


def _with_score(predictor: Any, task: Task) -> Any:
    """The predictor with the smallest score that is asked for."""
    own = copy.copy(predictor)
    own.min_score = predictor.min_score if task.min_score is None else task.min_score
    return own


def _answer(
    task: Task,
    frame: NDArray[Any] | PinglowError,
    found: _Found | PinglowError,
    least: float,
) -> Answer:
    if isinstance(frame, PinglowError) or isinstance(found, PinglowError):
        reason = str(frame if isinstance(frame, PinglowError) else found)
        return refusal(task.name, reason)
    try:
        if task.want in ("mask", "probability"):
            check_sinks([task.want], _kind(found))
        media_type, body = _WANTED[task.want](task, frame, found)
    except PinglowError as error:
        return refusal(task.name, str(error))
    alarms = None
    if task.min_score is None or task.min_score <= least:
        alarms = sum(target.score > least for target in found.targets)
    return Answer(200, media_type, body, len(found.targets), alarms, measure(frame))


def refusal(name: str, reason: str, status: int = 422) -> Answer:
    """What is said where a frame has no answer."""
    detail = reason if name in reason else f"{name}: {reason}"
    return Answer(status, "application/json", json.dumps({"detail": detail}).encode())


def _kind(found: _Found) -> str:
    return "pixels" if isinstance(found, Prediction) else "boxes"


def measure(frame: NDArray[Any]) -> Statistics:
    """What a frame is like."""
    step = max(1, int(np.ceil(np.sqrt(frame.size / _MEASURED))))
    sample = frame[::step, ::step].astype(np.float64)
    finite = sample[np.isfinite(sample)]
    low, median, high = np.percentile(finite, [5, 50, 95]) if finite.size else (0.0, 0.0, 0.0)
    return Statistics(float(median), float((high - low) / 3.29), frame.shape[1], frame.shape[0])


def _targets(task: Task, frame: NDArray[Any], found: _Found) -> tuple[str, bytes]:
    record = FrameRecord(task.name, 0, output_name(task.name), frame, found)
    return "application/json", json.dumps(frame_with_targets(record), allow_nan=False).encode()


def _outlines(task: Task, frame: NDArray[Any], found: _Found) -> tuple[str, bytes]:
    """The line of targets, each with its pixels as in COCO's format, or its box unrounded."""
    line = json.loads(_targets(task, frame, found)[1])
    for target, entry in zip(line["targets"], found.to_coco(0), strict=True):
        if "segmentation" in entry:
            target["segmentation"] = entry["segmentation"]
        else:
            target["box"] = entry["bbox"]
    return "application/json", json.dumps(line, allow_nan=False).encode()


def _counts(task: Task, frame: NDArray[Any], found: _Found) -> tuple[str, bytes]:
    return "application/octet-stream", encode_npy(frame)


def _mask(task: Task, frame: NDArray[Any], found: Any) -> tuple[str, bytes]:
    return "image/png", encode_png(mask_levels(found))


def _probability(task: Task, frame: NDArray[Any], found: Any) -> tuple[str, bytes]:
    return "image/png", encode_png(probability_levels(found))


def _tensors(task: Task, frame: NDArray[Any], found: _Found) -> tuple[str, bytes]:
    rows = [(each.x, each.y, *each.bbox, each.area, each.score) for each in found.targets]
    body = np.array(rows, "<f8").tobytes()
    if isinstance(found, Prediction):
        body += found.probability.astype("<f4", copy=False).tobytes()
    return "application/octet-stream", body


def _overlay(task: Task, frame: NDArray[Any], found: _Found) -> tuple[str, bytes]:
    mask = found.mask if isinstance(found, Prediction) else None
    ignored = Ignored.parse(task.ignore, task.crop, files=False)
    area = None if ignored is None else ignored.area(frame.shape)
    picture = draw_overlay(frame, found.targets, mask=mask, ignored=area)
    return "image/png", encode_png(picture)


_WANTED: Final = {
    "targets": _targets,
    "outlines": _outlines,
    "counts": _counts,
    "mask": _mask,
    "overlay": _overlay,
    "probability": _probability,
    "tensors": _tensors,
}
