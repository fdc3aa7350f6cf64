"""What stands for a worker in tests of the service: it starts at once and does as it is told."""

from __future__ import annotations

import json
import os
import sys
import time
from multiprocessing.connection import Connection
from pathlib import Path

from pinglow.errors import ModelError
from pinglow.serve.settings import ServeSettings
from pinglow.serve.tasks import Answer, Loaded, Task

CARD = {
    **{"name": "fake", "operating_point": None, "parameters": 1, "data": [{"name": "none"}]},
    "license": "none",
}
LOADED = Loaded(CARD, "pixels", 0.5, "cpu", "fake", 1)


def work(connection: Connection, settings: ServeSettings) -> None:
    """Answer; a task's content says how.

    - ``die``: end, as by a signal.
    - ``wait PATH``: answer when that file is there.
    - anything else: say its length.

    """
    _serve(connection, LOADED)


def work_together(connection: Connection, settings: ServeSettings) -> None:
    """The same, four frames at once."""
    _serve(connection, Loaded(CARD, "pixels", 0.5, "cpu", "fake", 4))


def die(connection: Connection, settings: ServeSettings) -> None:
    """End before the model is loaded."""
    os._exit(3)


def refuse(connection: Connection, settings: ServeSettings) -> None:
    """Have no model."""
    connection.send(ModelError("the model is damaged: copy it again"))


def _serve(connection: Connection, loaded: Loaded) -> None:
    connection.send(loaded)
    while True:
        try:
            tasks = connection.recv()
        except EOFError:
            return
        connection.send([_answer(task) for task in tasks])


def _answer(task: Task) -> Answer:
    if task.content == b"die":
        sys.stderr.flush()
        os._exit(9)
    if task.content.startswith(b"wait "):
        path = Path(task.content[5:].decode())
        while not path.exists():
            time.sleep(0.01)
    body = {"source": task.name, "want": task.want, "length": len(task.content)}
    return Answer(200, "application/json", json.dumps(body).encode(), 2, 2)
