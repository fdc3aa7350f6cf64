"""/v1/jobs: clips, files of many pages and archives of frames, each worked on in the background."""

from __future__ import annotations

import json
import zipfile
from collections.abc import AsyncIterator, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated, Any, Final

from fastapi import APIRouter, Query, Request, Response
from starlette.exceptions import HTTPException
from starlette.responses import FileResponse, StreamingResponse

from pinglow.errors import DataError, FrameError, OptionError
from pinglow.inference.ignored import Ignored
from pinglow.io.source import Selection
from pinglow.serve.bodies import stream_body
from pinglow.serve.job_process import RESULTS, Order
from pinglow.serve.job_store import Job, JobState, find_video
from pinglow.serve.service import Service, service_of
from pinglow.serve.unpacking import clean_name

router = APIRouter(tags=["jobs"])

_SAVED: Final = ("jsonl", "csv", "coco", "parquet", "overlay", "mask")
_TYPES: Final = {
    ".jsonl": "application/x-ndjson",
    ".csv": "text/csv",
    ".json": "application/json",
    ".parquet": "application/vnd.apache.parquet",
    ".mp4": "video/mp4",
    ".zip": "application/zip",
}
_GROWTH: Final = 4  # times that an archive may grow when it is unpacked
_CHUNK: Final = 2**18

_Save = Annotated[str, Query(pattern=f"^({'|'.join(_SAVED)})(,({'|'.join(_SAVED)}))*$")]
_Errors = dict[int | str, dict[str, Any]]


@router.post("/v1/jobs", status_code=202)
async def add_job(
    request: Request,
    response: Response,
    name: Annotated[str, Query(max_length=255)] = "upload",
    save: _Save = "jsonl,csv,coco",
    min_score: Annotated[float | None, Query(ge=0, lt=1)] = None,
    track: bool = False,
    every: Annotated[int, Query(ge=1)] = 1,
    start: Annotated[float, Query(ge=0)] = 0.0,
    end: Annotated[float | None, Query(gt=0)] = None,
    ignore: Annotated[list[str], Query()] = [],  # noqa: B006
    crop: str | None = None,
) -> JobState:
    """Take a video, a file of many pages, or a zip or tar of frames, as the body of the request.

    It is worked on when its turn comes; the header Location says where to ask how it does.
    """
    service = service_of(request)
    try:
        Selection(every, start, end)
        Ignored.parse(ignore, crop, files=False)
        order = Order(
            name=clean_name(name).rpartition("/")[2] or "upload",
            save=list(dict.fromkeys(save.split(","))),
            model=_model(service, min_score),
            track=track,
            selection=(every, start, end),
            ignore=ignore,
            crop=crop,
            most_bytes=_GROWTH * service.settings.max_job_bytes,
        )
        body = stream_body(request, service.settings.max_job_bytes)
        job = await service.jobs.add(order, body)
    except (FrameError, OptionError, DataError) as error:
        raise HTTPException(422, str(error)) from error
    response.headers["Location"] = f"/v1/jobs/{job.state.id}"
    return job.state


@router.get("/v1/jobs")
async def list_jobs(request: Request) -> dict[str, list[JobState]]:
    """All jobs in the order in which they came, without the lists of their broken frames."""
    return {"jobs": [replace(job.state, broken=[]) for job in service_of(request).jobs]}


@router.get("/v1/jobs/{job_id}")
async def show_job(request: Request, job_id: str) -> JobState:
    """How a job does."""
    return _find(request, job_id).state


@router.delete("/v1/jobs/{job_id}")
async def cancel_job(request: Request, job_id: str) -> JobState:
    """End a job that waits or runs; forget one that has ended, and its results."""
    job = _find(request, job_id)
    await service_of(request).jobs.cancel(job)
    return job.state


@router.get("/v1/jobs/{job_id}/events")
async def follow_job(request: Request, job_id: str) -> StreamingResponse:
    """How a job does, as server-sent events: at once, at each change, until it has ended."""
    job = _find(request, job_id)

    async def tell() -> AsyncIterator[str]:
        async for state in job.follow():
            yield f"data: {json.dumps(asdict(replace(state, broken=[])))}\n\n"

    return StreamingResponse(tell(), media_type="text/event-stream")


@router.get("/v1/jobs/{job_id}/results/{name}")
async def fetch_result(request: Request, job_id: str, name: str) -> Response:
    """A file that a job has written, of those that its "results" list; folders come as a zip."""
    job = _find(request, job_id)
    if not job.state.ended:
        raise HTTPException(409, f"the job is {job.state.state}: its results come when it is done")
    if name not in job.state.results:
        have = ", ".join(job.state.results) or "none"
        raise HTTPException(404, f"the job has no such result: it has {have}")
    folder = job.folder / RESULTS
    path = folder / name
    shown = f"{Path(job.state.name).stem}-{name}"
    if name == "overlay.mp4":
        path = find_video(folder / "overlays") or path
    if path.suffix == ".zip":
        return StreamingResponse(
            zip_folder(path.with_suffix("")),
            media_type=_TYPES[path.suffix],
            headers={"Content-Disposition": f'attachment; filename="{name}"'},
        )
    return FileResponse(path, media_type=_TYPES[path.suffix], filename=shown)


def _find(request: Request, job_id: str) -> Job:
    job = service_of(request).jobs.get(job_id)
    if job is None:
        raise HTTPException(404, "there is no such job, or it was forgotten")
    return job


def _model(service: Service, min_score: float | None) -> dict[str, Any]:
    """What `Predictor.load` takes, in a process of another working folder."""
    settings = service.settings
    path = Path(settings.model)
    return {
        "name_or_path": str(path.absolute() if path.exists() else settings.model),
        "backend": settings.backend,
        "device": settings.device,
        "min_score": settings.min_score if min_score is None else min_score,
    }


def zip_folder(folder: Path) -> Iterator[bytes]:
    """The files of a folder as a zip, as it is made; they are stored, being compressed already."""
    taken = _Taken()
    with zipfile.ZipFile(taken, "w") as archive:  # type: ignore[arg-type]
        for path in sorted(folder.iterdir()):
            entry = zipfile.ZipInfo.from_file(path, path.name)
            with path.open("rb") as file, archive.open(entry, "w", force_zip64=True) as into:
                while chunk := file.read(_CHUNK):
                    into.write(chunk)
                    yield taken.take()
    yield taken.take()


class _Taken:
    """A file that is only written to, of which one takes what was written since."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []

    def write(self, part: bytes) -> int:
        self._parts.append(bytes(part))
        return len(part)

    def flush(self) -> None:
        """There is nothing to be done."""

    def take(self) -> bytes:
        taken = b"".join(self._parts)
        self._parts.clear()
        return taken
