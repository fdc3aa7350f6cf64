"""Logs by name; Lightning's loggers are played by a module that takes notes."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pinglow.errors import MissingExtraError, OptionError
from pinglow.training.loggers import check_loggers, open_logs


class Notes:
    """What a service would have been sent."""

    made: list[Notes]

    def __init__(self, **how: Any) -> None:
        self.how, self.points, self.ended = how, list[Any](), ""
        self.made.append(self)

    def log_hyperparams(self, settings: dict[str, Any]) -> None:
        self.settings = settings

    def log_metrics(self, points: dict[str, float], step: int) -> None:
        self.points.append((step, points))

    def finalize(self, status: str) -> None:
        self.ended = status

    @property
    def experiment(self) -> Any:
        return SimpleNamespace(finish=lambda: self.finalize("success"))


@pytest.fixture
def services(monkeypatch: pytest.MonkeyPatch) -> list[Notes]:
    Notes.made = []
    loggers = SimpleNamespace(WandbLogger=Notes, MLFlowLogger=Notes)
    monkeypatch.setitem(sys.modules, "lightning.pytorch.loggers", loggers)
    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(Settings=dict))
    monkeypatch.setitem(sys.modules, "mlflow", SimpleNamespace())
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME", "WANDB_PROJECT"):
        monkeypatch.delenv(name, raising=False)
    return Notes.made


def test_services_get_settings_and_points_under_the_name_of_the_run(
    services: list[Notes], tmp_path: Path
) -> None:
    names = ["wandb", "mlflow", "wandb"]
    check_loggers(names)
    logs = open_logs(names, tmp_path / "mine", {"steps": 10})
    for log in logs:
        log.add({"train/loss": 0.5, "train/learning_rate": 0.1}, 3)
        log.close()
    wandb, mlflow = services
    assert (wandb.how["name"], wandb.how["project"]) == ("mine", "pinglow")
    assert (mlflow.how["run_name"], mlflow.how["experiment_name"]) == ("mine", "pinglow")
    assert Path(mlflow.how["save_dir"]).parent == wandb.how["save_dir"] == tmp_path / "mine"
    for each in services:
        assert each.settings == {"steps": 10}
        assert each.points == [(3, {"train/loss": 0.5, "train/learning_rate": 0.1})]
        assert each.ended == "success"


def test_what_is_unknown_missing_or_does_not_start_is_said(
    services: list[Notes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(OptionError, match="--logger 'comet' is unknown: choose from tensorboard"):
        check_loggers(["tensorboard", "comet"])

    def refuse(self: Notes, settings: dict[str, Any]) -> None:
        raise RuntimeError("no API key configured\nmore")

    monkeypatch.setattr(Notes, "log_hyperparams", refuse)
    with pytest.raises(OptionError, match=r"wandb does not start \(no API key configured\): log"):
        open_logs(["wandb"], tmp_path, {})
    monkeypatch.setitem(sys.modules, "mlflow", None)
    with pytest.raises(MissingExtraError, match=r"--logger mlflow needs mlflow.*\[mlflow\]"):
        check_loggers(["mlflow"])
