"""What the service writes to stderr: a line of JSON for each request, warning and fault."""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime
from typing import Any

_requests = logging.getLogger("pinglow.serve.requests")


class JsonFormatter(logging.Formatter):
    """Writes a record as one line of JSON, in which no text can break out of its string."""

    def format(self, record: logging.LogRecord) -> str:
        """See `logging.Formatter`."""
        time = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        line: dict[str, Any] = {"time": time, "level": record.levelname.lower()}
        fields = getattr(record, "fields", None)
        line |= {"message": record.getMessage()} if fields is None else fields
        if record.exc_info:
            line["error"] = self.formatException(record.exc_info)
        return json.dumps(line)


def log_to_stderr() -> None:
    """Write what pinglow, uvicorn and the libraries log so, and nowhere else."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter())
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    logging.getLogger("pinglow").setLevel(logging.INFO)
    logging.getLogger("tifffile").setLevel(logging.CRITICAL)  # our own message says it


def log_request(fields: dict[str, Any]) -> None:
    """Write the line of one request; None is left out."""
    kept = {key: value for key, value in fields.items() if value is not None}
    _requests.info("", extra={"fields": kept})
