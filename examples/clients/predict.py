"""Send frames or a clip to a running `pinglow serve` and print what is found, a line of JSON each.

    python examples/clients/predict.py http://127.0.0.1:8080 frames/*.png
    python examples/clients/predict.py http://127.0.0.1:8080 --job clip.mkv

Needs nothing but Python. A token is taken from PINGLOW_TOKEN. Where the service is full (429) or is
being started (503), the frame is sent again after the time that it asks for. The exit code is 1 if
something was not answered.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.parse import quote
from urllib.request import Request, urlopen

TOGETHER = 4  # requests on their way at once
TRIES = 5


def main() -> int:
    """Send what the command line names; the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("address")
    parser.add_argument("frames", nargs="*", type=Path)
    parser.add_argument(
        "--job", type=Path, help="a clip, a multi-page file, a zip or tar of frames"
    )
    arguments = parser.parse_args()
    try:
        if arguments.job:
            return run_job(arguments.address, arguments.job)
        with ThreadPoolExecutor(TOGETHER) as threads:
            answers = threads.map(lambda path: predict(arguments.address, path), arguments.frames)
            answered = [tell(*answer) for answer in answers]
        return 0 if all(answered) else 1
    except (URLError, TimeoutError) as error:
        print(f"{arguments.address} cannot be reached ({error})", file=sys.stderr)
        return 1


def predict(address: str, path: Path) -> tuple[int, str]:
    """The status of the answer to a frame, and the answer: a line, or {"detail": why not}."""
    return ask(f"{address}/v1/predict?name={quote(path.name)}", path.read_bytes())


def run_job(address: str, path: Path) -> int:
    """Have a clip or an archive searched, show how far it is, print the lines."""
    status, text = ask(f"{address}/v1/jobs?name={quote(path.name)}", path.read_bytes())
    if status != 202:
        return 0 if tell(status, text) else 1
    job = json.loads(text)
    place = f"{address}/v1/jobs/{job['id']}"
    while job["state"] in ("queued", "running"):
        print(f"\r{job['state']}, {job['done']} of {job['total']}", end="", file=sys.stderr)
        time.sleep(0.5)
        job = json.loads(ask(place)[1])
    print(f"\r{job['state']}: {job['done']} frames, {job['targets']} targets", file=sys.stderr)
    answered = tell(*ask(f"{place}/results/targets.jsonl")) if job["state"] == "done" else False
    ask(place, method="DELETE")
    return 0 if answered else 1


def ask(address: str, body: bytes | None = None, method: str | None = None) -> tuple[int, str]:
    """A request's status and answer; what can be tried again is."""
    token = os.environ.get("PINGLOW_TOKEN")
    headers = {"Content-Type": "application/octet-stream"} if body is not None else {}
    if token:
        headers["Authorization"] = f"Bearer {token}"
    for attempt in range(TRIES):
        try:
            with urlopen(Request(address, body, headers, method=method), timeout=60) as answer:
                return answer.status, answer.read().decode()
        except HTTPError as error:
            again = error.code in (429, 503) and attempt + 1 < TRIES
            if not again:
                return error.code, error.read().decode(errors="replace")
            time.sleep(int(error.headers.get("Retry-After", 1)))
    raise AssertionError


def tell(status: int, text: str) -> bool:
    """Print an answer, errors to standard error; whether it was good."""
    good = status < 300
    print(text.strip() if good else f"{status}: {text}", file=sys.stdout if good else sys.stderr)
    return good


if __name__ == "__main__":
    sys.exit(main())
