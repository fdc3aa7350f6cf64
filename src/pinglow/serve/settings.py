"""What a service is told when it is started."""

from __future__ import annotations

import ipaddress
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from pinglow.errors import OptionError
from pinglow.files import read_whole
from pinglow.io.counts import MAX_PIXELS

_MEGABYTE: Final = 2**20
_LEAST_MB: Final = 0.0001


@dataclass(frozen=True)
class ServeSettings:
    """Options of ``pinglow serve``.

    Attributes:
        model: A bundled model's name, or the path of weights or of an exported model.
        host: The address that is listened on.
        port: 0: any that is free.
        device: See `Predictor.load`.
        backend: See `Predictor.load`.
        min_score: A detection is a target if its score is above this; None: the model's own.
        workers: Processes with a model each.
        queue: Frames that may wait for a worker; one more is refused.
        max_mb: Megabytes of a request's body, at most.
        max_pixels: Pixels of a frame, at most: a small file may claim many.
        wait_ms: Milliseconds that a frame waits for others to be computed with, where that gains.
        jobs: Jobs that run at a time, each in a process with a model of its own.
        max_job_mb: Megabytes of what is sent for a job, at most; an archive may unpack to four
            times as many. Also of the counts that jobs keep, all together.
        streams: Streams that are open at a time.
        stream_idle: Seconds without a frame after which a stream is closed.
        token: What clients must know; None: nothing.
        insecure: Listen on another address than this machine's own without a token.

    Raises:
        OptionError: A value is impossible, or the address needs a token.
    """

    model: str = "pinglow-fast"
    host: str = "127.0.0.1"
    port: int = 8080
    device: str = "auto"
    backend: str = "auto"
    min_score: float | None = None
    workers: int = 1
    queue: int = 64
    max_mb: float = 64.0
    max_pixels: int = 2**24
    wait_ms: float = 5.0
    jobs: int = 1
    max_job_mb: float = 2048.0
    streams: int = 8
    stream_idle: float = 60.0
    token: str | None = field(default=None, repr=False)
    insecure: bool = False

    def __post_init__(self) -> None:
        """Refuse impossible values."""
        for option, value, least in (
            ("--port", self.port, 0),
            ("--workers", self.workers, 1),
            ("--queue", self.queue, 1),
            ("--max-pixels", self.max_pixels, 1),
            ("--wait-ms", self.wait_ms, 0),
            ("--jobs", self.jobs, 1),
            ("--streams", self.streams, 0),
        ):
            if not value >= least:
                raise OptionError(f"{option} is {value}: give {least} or more")
        for option, value, most in (
            ("--port", self.port, 65535),
            ("--workers", self.workers, 256),
            ("--max-pixels", self.max_pixels, MAX_PIXELS),
            ("--wait-ms", self.wait_ms, 10_000),
        ):
            if value > most:
                raise OptionError(f"{option} is {value}: give {most} or less")
        for option, value, most in (
            ("--max-mb", self.max_mb, 4096),
            ("--max-job-mb", self.max_job_mb, 2**20),
        ):
            if not _LEAST_MB <= value <= most:
                raise OptionError(f"{option} is {value:g}: give {_LEAST_MB} to {most}")
        if self.min_score is not None and not 0 <= self.min_score < 1:
            raise OptionError(f"--min-score is {self.min_score}: use a value from 0 to below 1")
        if not self.is_local and self.token is None and not self.insecure:
            raise OptionError(
                f"--host {self.host} can be reached from other machines: give --token-file, or "
                "--insecure if everybody there may use the service"
            )

    @property
    def max_bytes(self) -> int:
        """Of a request's body."""
        return int(self.max_mb * _MEGABYTE)

    @property
    def max_job_bytes(self) -> int:
        """Of what is sent for a job."""
        return int(self.max_job_mb * _MEGABYTE)

    @property
    def is_local(self) -> bool:
        """Whether only this machine reaches the address."""
        return is_loopback(self.host)


def is_loopback(host: str) -> bool:
    """Whether a name or an address stands for this machine only."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def read_token(path: Path) -> str:
    """The token in a file, without the white space around it.

    Raises:
        OptionError: The file cannot be read, or its token is empty or no printable ASCII.
    """
    try:
        # A shell's <(pass token), which has its writer, resolves to no file.
        named = Path(os.path.realpath(path)).exists()
        content = read_whole(path) if named else path.read_bytes()
        token = content.decode().strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is no text"
        raise OptionError(f"--token-file {path} cannot be read ({reason})") from error
    if not token:
        raise OptionError(f"--token-file {path} is empty: write a token into it")
    if not (token.isascii() and token.isprintable()) or " " in token:
        raise OptionError(
            f"--token-file {path} holds more than one word of ASCII characters: write one token, "
            "as `openssl rand -hex 32` makes it"
        )
    return token
