"""What is asked of S3 itself, where fsspec does without: pages of names, and ETags."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pinglow.extras import import_extra


def is_s3(system: Any) -> bool:
    """Whether a file system of fsspec is an S3 store."""
    return hasattr(system, "call_s3")


def etag_of(details: dict[str, Any]) -> str:
    """The ETag in what a store says of an object; empty: it says none."""
    return str(details.get("ETag", "")).strip('"')


def fetch(system: Any, path: str) -> tuple[bytes, str]:
    """All bytes of an object, and their ETag; fsspec would ask for the size before."""
    asyn = import_extra("fsspec.asyn", "archive", "reading from S3")
    bucket, key, _ = system.split_path(path)
    answer = system.call_s3("get_object", Bucket=bucket, Key=key)
    try:
        return asyn.sync(system.loop, answer["Body"].read), etag_of(answer)
    finally:
        answer["Body"].close()


def list_folder(system: Any, path: str, *, deep: bool) -> Iterator[dict[str, Any]]:
    """See `pinglow.io.places.list_folder`: a thousand names at a time; fsspec would hold all."""
    bucket, key, _ = system.split_path(path)
    asked = {"Bucket": bucket, "Prefix": f"{key.rstrip('/')}/" if key else ""}
    asked |= {} if deep else {"Delimiter": "/"}
    while True:
        page = system.call_s3("list_objects_v2", **asked)
        for entry in page.get("Contents", []):
            if not entry["Key"].endswith("/"):  # what consoles make for an empty folder
                name = f"{bucket}/{entry['Key']}"
                yield {**entry, "name": name, "size": entry["Size"], "type": "file"}
        for folder in page.get("CommonPrefixes", []):
            yield {"name": f"{bucket}/{folder['Prefix']}", "size": 0, "type": "directory"}
        if not page.get("IsTruncated"):
            return
        asked["ContinuationToken"] = page["NextContinuationToken"]
