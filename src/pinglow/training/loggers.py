"""Where losses and scores go while a run lasts: TensorBoard, Weights & Biases, MLflow.

TensorBoard's files need no network. The other two go through Lightning's loggers, and send what
they get as they are configured: WANDB_MODE=offline keeps it here, and MLflow writes into the run's
folder unless MLFLOW_TRACKING_URI names a server.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, Final, Protocol

from pinglow.errors import OptionError
from pinglow.extras import import_extra
from pinglow.files import naming
from pinglow.training.processes import quiet_lightning


class Log(Protocol):
    """Gets points of curves."""

    def add(self, points: Mapping[str, float], step: int) -> None:
        """Add a point to each of some curves, by its tag."""

    def close(self) -> None:
        """End the log; each point is in it already, or will be sent now."""


class EventLog:
    """What TensorBoard shows. Its own writer has a thread, which fails without telling anybody.

    Args:
        folder: Gets a file more.

    Raises:
        OSError: It cannot be written, here or later.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        proto = import_extra("tensorboard.compat.proto.event_pb2", "train", "pinglow train")
        summary = import_extra("tensorboard.compat.proto.summary_pb2", "train", "pinglow train")
        records = import_extra("tensorboard.summary.writer.record_writer", "train", "training")
        self._event, self._summary = proto.Event, summary.Summary
        host = socket.gethostname()
        self._path = folder / f"events.out.tfevents.{time.time():.0f}.{host}.{os.getpid()}"
        self._file = self._path.open("ab")
        self._records = records.RecordWriter(self._file)
        try:
            self._add(file_version="brain.Event:2")
        except OSError:
            self.close()
            raise

    def add(self, points: Mapping[str, float], step: int) -> None:
        """See `Log`."""
        values = [self._summary.Value(tag=tag, simple_value=value) for tag, value in points.items()]
        self._add(step=step, summary=self._summary(value=values))

    def close(self) -> None:
        """End the file; each point is in it already."""
        with suppress(OSError):
            self._file.close()

    def _add(self, **content: Any) -> None:
        event = self._event(wall_time=time.time(), **content)
        with naming(self._path):
            self._records.write(event.SerializeToString())
            self._file.flush()


class _LightningLog:
    """One of Lightning's loggers as a `Log`."""

    def __init__(self, logger: Any, end: Callable[[], object]) -> None:
        self._logger, self._end = logger, end

    def add(self, points: Mapping[str, float], step: int) -> None:
        """See `Log`."""
        self._logger.log_metrics(dict(points), step)

    def close(self) -> None:
        """See `Log`."""
        self._end()


def _open_tensorboard(run: Path, settings: dict[str, Any]) -> Log:
    return EventLog(run / "tensorboard")


def _open_wandb(run: Path, settings: dict[str, Any]) -> Log:
    wandb = import_extra("wandb", "wandb", "--logger wandb")
    with _told("wandb", "log in with `wandb login`, or set WANDB_MODE=offline"), quiet_lightning():
        from lightning.pytorch.loggers import WandbLogger

        # What resumes a run is another run of the same name to the service.
        logger = WandbLogger(
            name=run.absolute().name,
            save_dir=run,
            project=os.environ.get("WANDB_PROJECT", "pinglow"),
            settings=wandb.Settings(silent=True, console="off"),
        )
        logger.log_hyperparams(settings)  # opens the run
    return _LightningLog(logger, logger.experiment.finish)  # Lightning leaves it to the exit


def _open_mlflow(run: Path, settings: dict[str, Any]) -> Log:
    import_extra("mlflow", "mlflow", "--logger mlflow")
    # MLflow 3 wants to be asked for plain files; its databases take more packages.
    os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
    with _told("mlflow", "look at MLFLOW_TRACKING_URI"), quiet_lightning():
        from lightning.pytorch.loggers import MLFlowLogger

        logger = MLFlowLogger(
            experiment_name=os.environ.get("MLFLOW_EXPERIMENT_NAME", "pinglow"),
            run_name=run.absolute().name,
            tracking_uri=os.environ.get("MLFLOW_TRACKING_URI"),
            save_dir=str(run / "mlruns"),
        )
        logger.log_hyperparams(settings)  # opens the run
    return _LightningLog(logger, partial(logger.finalize, "success"))


LOGGERS: Final[dict[str, Callable[[Path, dict[str, Any]], Log]]] = {
    "tensorboard": _open_tensorboard,
    "wandb": _open_wandb,
    "mlflow": _open_mlflow,
}
"""What opens a log, from the run's folder and its recipe as plain values, by name."""


def check_loggers(names: Sequence[str]) -> None:
    """See that logs can be opened, before hours of reading and training.

    Raises:
        OptionError: One is unknown.
        MissingExtraError: What one needs is not installed.
    """
    for name in names:
        if name not in LOGGERS:
            raise OptionError(f"--logger {name!r} is unknown: choose from {', '.join(LOGGERS)}")
        import_extra(name, "train" if name == "tensorboard" else name, f"--logger {name}")


def open_logs(names: Sequence[str], run: Path, settings: dict[str, Any]) -> list[Log]:
    """Open each log once.

    Raises:
        OptionError: One does not open.
        OSError: One cannot be written.
    """
    return [LOGGERS[name](run, settings) for name in dict.fromkeys(names)]


@contextmanager
def _told(name: str, advice: str) -> Iterator[None]:
    """One sentence where a service does not begin."""
    try:
        yield
    except Exception as error:  # of its own kind in each service
        [reason, *_] = str(error).strip().splitlines() or [repr(error)]
        raise OptionError(f"--logger {name} does not start ({reason}): {advice}") from error
