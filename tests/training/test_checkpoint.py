from __future__ import annotations

import hashlib
import io
import os
import pickle
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save

from pinglow.errors import ModelError
from pinglow.training.checkpoint import load_checkpoint as load
from pinglow.training.checkpoint import save_checkpoint

CHECKPOINT: dict[str, Any] = {
    "global_step": 7,
    "state_dict": {"weight": torch.arange(12.0).reshape(3, 4), "count": torch.tensor(3)},
    "optimizer_states": [{"state": {0: {"step": torch.tensor(7.0)}}, "groups": [{"lr": 0.1}]}],
    "losses": [0.5, 0.25],
}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "run" / "last.ckpt"
    save_checkpoint(CHECKPOINT, file)
    return file


def test_what_is_saved_is_loaded(path: Path) -> None:
    loaded = load(path)
    assert loaded["global_step"] == 7
    assert loaded["losses"] == [0.5, 0.25]
    assert loaded["optimizer_states"][0]["groups"] == [{"lr": 0.1}]
    for key, value in CHECKPOINT["state_dict"].items():
        assert torch.equal(loaded["state_dict"][key], value)
    assert [file.name for file in path.parent.iterdir()] == ["last.ckpt"]


def test_a_torn_file_is_refused_wherever_it_was_torn(path: Path) -> None:
    content = path.read_bytes()
    for length in (*range(0, 70), *random.Random(0).sample(range(70, len(content)), 60)):
        path.write_bytes(content[:length])
        with pytest.raises(ModelError, match=r"last\.ckpt"):
            load(path)


def test_a_changed_byte_is_refused_wherever_it_is(path: Path) -> None:
    content = path.read_bytes()
    for place in (*range(0, 60), *random.Random(1).sample(range(60, len(content)), 60)):
        changed = bytearray(content)
        changed[place] ^= 0x10
        path.write_bytes(changed)
        with pytest.raises(ModelError, match=r"last\.ckpt"):
            load(path)
    path.write_bytes(content + b"\0")
    with pytest.raises(ModelError, match="torn or was changed"):
        load(path)


def test_other_files_are_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"gone\.ckpt cannot be read: No such file"):
        load(tmp_path / "gone.ckpt")
    with pytest.raises(ModelError, match="cannot be read: Is a directory"):
        load(tmp_path)
    torch.save(CHECKPOINT, tmp_path / "plain.ckpt")
    with pytest.raises(ModelError, match=r"plain\.ckpt is not a pinglow training checkpoint"):
        load(tmp_path / "plain.ckpt")


def test_an_older_versions_checkpoint_says_what_to_do(path: Path) -> None:
    content = path.read_bytes()
    for older in (b"checkpoint 1", b"checkpoint 2"):
        path.write_bytes(content.replace(b"checkpoint 3", older))
        with pytest.raises(ModelError, match="older version of pinglow; resume with that version"):
            load(path)


class Bomb:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, (str(self.path),)


def write_crafted(path: Path, content: bytes) -> None:
    """Write a checkpoint whose checksum holds."""
    path.write_bytes(b"pinglow checkpoint 3\n" + hashlib.sha256(content).digest() + content)


@pytest.mark.parametrize("wrapped", [True, False], ids=["torch.save", "bare pickle"])
def test_a_pickle_bomb_is_refused(tmp_path: Path, path: Path, wrapped: bool) -> None:
    struck = tmp_path / "struck"
    bomb = io.BytesIO()
    if wrapped:
        torch.save({"state_dict": Bomb(struck)}, bomb)
    else:
        pickle.dump(Bomb(struck), bomb, protocol=2)
    write_crafted(path, bomb.getvalue())
    with pytest.raises(ModelError, match="does not hold what a training run saves"):
        load(path)
    assert not struck.exists()


@pytest.mark.parametrize(
    "structure",
    [
        "",
        "[]",
        "7",
        '{"table": 7}',
        '{"table": [["global_step", "many"]]}',
        '{"table": [["global_step", {"tensor": "gone"}]]}',
        '{"table": [[{"table": []}, 1]]}',
        '{"code": "import os"}',
        "[" * 100_000,
        '{"tuple":' * 100_000,
        '{"table": [["global_step", ' + "9" * 100_000 + "]]}",
    ],
    ids=range(11),
)
def test_a_crafted_structure_is_refused(path: Path, structure: str) -> None:
    write_crafted(path, save({"0": torch.zeros(1)}, metadata={"structure": structure}))
    with pytest.raises(ModelError, match="does not hold what a training run saves"):
        load(path)


def test_what_a_checkpoint_cannot_hold_is_not_saved(path: Path) -> None:
    before = path.read_bytes()
    with pytest.raises(TypeError, match="cannot hold a set"):
        save_checkpoint({"a": {1}}, path)
    assert path.read_bytes() == before


def test_a_writer_killed_at_any_time_leaves_a_whole_file(tmp_path: Path) -> None:
    path = tmp_path / "last.ckpt"
    code = (
        "import sys, torch\n"
        "from pathlib import Path\n"
        "from pinglow.training.checkpoint import save_checkpoint\n"
        "number = 0\n"
        "while True:\n"
        "    number += 1\n"
        "    content = {'global_step': number, 'weight': torch.full((500_000,), float(number))}\n"
        "    save_checkpoint(content, Path(sys.argv[1]))\n"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(path)]) as writer:
        while not path.exists():
            assert writer.poll() is None
            time.sleep(0.01)
        for _ in range(5):  # while it writes, there is always a whole file
            time.sleep(0.03)
            loaded = load(path)
            assert (loaded["weight"] == loaded["global_step"]).all()
        writer.send_signal(signal.SIGKILL)
    loaded = load(path)
    assert (loaded["weight"] == loaded["global_step"]).all()
