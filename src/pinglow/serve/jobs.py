"""/v1/jobs: clips, files of many pages and archives of frames, each worked on in the background."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import AsyncIterator, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import IO, Annotated, Any, Final, cast

from fastapi import APIRouter, Depends, Query, Request, Response
from starlette.exceptions import HTTPException
from starlette.responses import FileResponse, StreamingResponse

from pinglow.errors import DataError, FrameError, OptionError
from pinglow.inference.ignored import Ignored
from pinglow.io.source import Selection
from pinglow.output.sinks import SINKS, split_names
from pinglow.serve.answers import binary, refusals
from pinglow.serve.bodies import stream_body
from pinglow.serve.job_process import RESULTS, Order
from pinglow.serve.job_store import Job, JobState, find_result
from pinglow.serve.predict import Crop, Ignore, MinScore, Name
from pinglow.serve.service import Service, service_of
from pinglow.serve.unpacking import clean_name

router = APIRouter(tags=["jobs"])

_TYPES: Final = {
    ".jsonl": "application/x-ndjson",
    ".csv": "text/csv",
    ".json": "application/json",
    ".parquet": "application/vnd.apache.parquet",
    ".mp4": "video/mp4",
    ".png": "image/png",
    ".webp": "image/webp",
    ".npy": "application/octet-stream",
}
_EVENTS: Final = "text/event-stream"
_GROWTH: Final = 4  # times that an archive may grow when it is unpacked
_CHUNK: Final = 2**18

_ONE: Final = f"({'|'.join(SINKS)})"
_Save = Annotated[
    str,
    Query(
        description=f"what is written, with commas: any of {', '.join(SINKS)}",
        json_schema_extra={"pattern": f"^{_ONE}(,{_ONE})*$"},
    ),
]


async def _select(
    every: Annotated[int, Query(ge=1, description="take each so many-th frame")] = 1,
    start: Annotated[
        float, Query(ge=0, description="skip what is before this second of a video")
    ] = 0.0,
    end: Annotated[float | None, Query(gt=0, description="stop at this second of a video")] = None,
) -> Selection:
    try:
        return Selection(every, start, end)
    except OptionError as error:
        raise HTTPException(422, str(error)) from error


@router.post(
    "/v1/jobs",
    status_code=202,
    responses={
        202: {
            "description": "The job waits for its turn, or runs.",
            "headers": {
                "Location": {"description": "where it is asked for", "schema": {"type": "string"}}
            },
        },
        **refusals(408, 413, 422, 429, 507),
    },
    openapi_extra={
        "requestBody": {"required": True, "content": binary("application/octet-stream")}
    },
)
async def add_job(
    request: Request,
    response: Response,
    selection: Annotated[Selection, Depends(_select)],
    name: Name = "upload",
    save: _Save = "jsonl,csv,coco",
    min_score: MinScore = None,
    track: Annotated[
        bool, Query(description="number targets that belong together over time")
    ] = False,
    ignore: Ignore = None,
    crop: Crop = None,
) -> JobState:
    """Take a video, a file of many pages, or a zip or tar of frames, as the body of the request.

    It is worked on when its turn comes; the header Location says where to ask how it does. Frames
    of an archive are taken by their names, 2 before 10, from all of its folders, each of which is
    a sequence; archives in it are not opened.
    """
    service = service_of(request)
    try:
        Ignored.parse(ignore or (), crop, files=False)
        order = Order(
            name=clean_name(name).rpartition("/")[2] or "upload",
            save=split_names(save),
            model=_model(service, min_score),
            track=track,
            selection=(selection.every, selection.start, selection.end),
            ignore=ignore or [],
            crop=crop,
            most_bytes=_GROWTH * service.settings.max_job_bytes,
            # Those that run at a time do not see what the others are going to write.
            counts_bytes=service.settings.max_job_bytes // service.settings.jobs,
            max_pixels=service.settings.max_pixels,
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


@router.get("/v1/jobs/{job_id}", responses=refusals(404, 422))
async def show_job(request: Request, job_id: str) -> JobState:
    """How a job does."""
    return _find(request, job_id).state


@router.delete("/v1/jobs/{job_id}", responses=refusals(404, 422))
async def cancel_job(request: Request, job_id: str) -> JobState:
    """End a job that waits or runs; forget one that has ended, and its results."""
    job = _find(request, job_id)
    await service_of(request).jobs.cancel(job)
    return job.state


@router.get(
    "/v1/jobs/{job_id}/events",
    responses={
        200: {"description": "A job a line after data:", "content": {_EVENTS: {}}},
        **refusals(404, 422),
    },
    response_class=StreamingResponse,
)
async def follow_job(request: Request, job_id: str) -> StreamingResponse:
    """How a job does, as server-sent events: at once, at each change, until it has ended."""
    job = _find(request, job_id)

    async def tell() -> AsyncIterator[str]:
        async for state in job.follow():
            yield f"data: {json.dumps(asdict(replace(state, broken=[])))}\n\n"

    return StreamingResponse(tell(), media_type=_EVENTS)


@router.get(
    "/v1/jobs/{job_id}/results/{name:path}",
    responses={
        200: {"description": "The file.", "content": binary(*_TYPES.values(), "application/zip")},
        206: {"description": "The part of it that the header Range asks for."},
        416: {"description": "It has no such part."},
        **refusals(404, 409, 422),
    },
    response_class=Response,
)
async def fetch_result(request: Request, job_id: str, name: str) -> Response:
    """What a job has written: of its "results", or a file of a folder, as masks/0001_mask.png.

    A folder comes as a zip.
    """
    job = _find(request, job_id)
    if not job.state.ended:
        raise HTTPException(409, f"the job is {job.state.state}: its results come when it is done")
    path = find_result(job.folder / RESULTS, name)
    if path is None:
        have = ", ".join(job.state.results) or "none"
        raise HTTPException(404, f"the job has no such result: it has {have}")
    if path.is_dir():
        headers = {"Content-Disposition": f'attachment; filename="{path.name}.zip"'}
        return StreamingResponse(zip_folder(path), media_type="application/zip", headers=headers)
    media_type = _TYPES.get(path.suffix, "application/octet-stream")
    return FileResponse(path, media_type=media_type, filename=path.name)


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
    with zipfile.ZipFile(cast(IO[bytes], taken), "w") as archive:
        for path in sorted(each for each in folder.rglob("*") if each.is_file()):
            entry = zipfile.ZipInfo.from_file(path, path.relative_to(folder).as_posix())
            with path.open("rb") as file, archive.open(entry, "w", force_zip64=True) as into:
                while chunk := file.read(_CHUNK):
                    into.write(chunk)
                    yield taken.take()
    yield taken.take()


class _Taken(io.RawIOBase):
    """A file that is only written to, of which one takes what was written since."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []

    def writable(self) -> bool:
        """It is."""
        return True

    def write(self, part: Any) -> int:
        """Keep some bytes."""
        self._parts.append(bytes(part))
        return len(part)

    def take(self) -> bytes:
        """What was written since."""
        taken = b"".join(self._parts)
        self._parts.clear()
        return taken
