from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from PIL import Image
from torch import nn

from pinglow.backends.device import CPU
from pinglow.backends.opening import BACKENDS, open_model
from pinglow.deploy import benchmark
from pinglow.deploy.benchmark import count_macs, draw_timings, measure_speed
from pinglow.errors import ModelError, OptionError
from pinglow.nn import PinwheelUNet


def test_macs_are_those_of_the_formula() -> None:
    network = nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 16, 1), nn.Conv2d(16, 1, 5, stride=2)
    )
    # Outputs x taps: 40 x 30 pixels, then (40 - 4) / 2 by (30 - 4) / 2.
    expected = 1200 * (8 * 9 + 16 * 8) + 18 * 13 * 16 * 25
    assert count_macs(network, (40, 30)) == expected


def test_mshnets_macs_are_as_published() -> None:
    # 24.43 G at 512 x 512 are given for MSHNet by its authors; a quarter at 256 x 256.
    assert count_macs(PinwheelUNet.mshnet().eval(), (256, 256)) == pytest.approx(
        24.43e9 / 4, rel=0.03
    )


def test_every_pair_is_timed(
    small_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(benchmark, "_PEAK_SIDE", 512)
    measured, measure = [], benchmark._memory_of

    def memory_of(model: str, backend: str, *rest: Any) -> int:
        measured.append(backend)
        # A process of its own for one of them: it imports everything anew.
        return measure(model, backend, *rest) if backend == "openvino" else 2**27

    monkeypatch.setattr(benchmark, "_memory_of", memory_of)
    progress: list[tuple[int, int]] = []
    timings = measure_speed(
        [str(small_model)],
        ["torch", "openvino"],
        (64, 48),
        repeats=4,
        device="cpu",
        on_progress=lambda done, total: progress.append((done, total)),
    )
    assert [each.backend for each in timings] == ["torch", "openvino"]
    assert progress[-1][0] == progress[-1][1]
    for each in timings:
        assert each.device == "cpu"
        assert 0 < each.median <= each.p95
        assert each.macs == timings[0].macs > 1e6
        assert 0 < each.peak_share < 1
        # torch alone takes more; this process holds more than the child.
        assert 5e7 < each.peak_memory < 5e9
    assert measured == ["torch", "openvino"]
    draw_timings(timings, tmp_path / "speed.png")
    with Image.open(tmp_path / "speed.png") as image:
        assert image.width > 100


def test_what_runs_nowhere_is_refused(small_model: Path, tmp_path: Path) -> None:
    exported = tmp_path / "model.xml"
    exported.write_text("")
    with pytest.raises(OptionError, match="runs on onnxruntime"):
        measure_speed([str(exported)], ["onnxruntime"], (64, 64))
    with pytest.raises(ModelError, match="'gone' is neither"):
        measure_speed(["gone"], ["torch"], (64, 64))


def test_all_run_on_one_device_or_are_refused(
    small_model: Path, have_cards: Callable[[int], None], card_runtime: SimpleNamespace
) -> None:
    have_cards(0)
    assert benchmark._choose(None, "auto")[0] == list(BACKENDS)
    with pytest.raises(OptionError, match="device 'cuda' cannot be used"):
        measure_speed([str(small_model)], None, (64, 64), device="cuda")
    have_cards(1)
    names, place = benchmark._choose(None, "auto")
    assert (names, str(place)) == (["onnxruntime", "torch"], "cuda:0")
    assert benchmark._choose(None, "cpu") == (list(BACKENDS), CPU)
    with pytest.raises(OptionError, match=r"openvino cannot run on cuda:0: .*, or leave it out"):
        measure_speed([str(small_model)], ["torch", "openvino"], (64, 64))


def test_a_backend_that_gave_way_is_not_timed_under_its_name(
    small_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given, card = open_model(small_model, "torch")
    monkeypatch.setattr(benchmark, "open_model", lambda *_: (given, card))
    monkeypatch.setattr(benchmark, "_memory_of", lambda *_: 0)
    (timing,) = measure_speed([str(small_model)], ["onnxruntime"], (64, 64), 3, device="cpu")
    assert (timing.backend, timing.device) == ("torch", "cpu")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_real_card_is_timed(small_model: Path) -> None:
    timings = measure_speed(
        [str(small_model), "mshnet"], ["torch"], (256, 256), repeats=4, device="cuda"
    )
    small, large = timings
    assert small.device.startswith("cuda:0 (")
    assert 0 < small.median < large.median
    assert 0 < small.peak_share < large.peak_share < 1
    assert 1e6 < small.peak_memory < large.peak_memory < 1e10  # of the card, without libraries
