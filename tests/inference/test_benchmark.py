from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image
from torch import nn

from pinglow.errors import ModelError, OptionError
from pinglow.inference.benchmark import count_macs, draw_timings, measure_speed
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


def test_every_pair_is_timed(small_model: Path, tmp_path: Path) -> None:
    progress: list[tuple[int, int]] = []
    timings = measure_speed(
        [str(small_model)],
        ["torch", "openvino"],
        (64, 48),
        repeats=4,
        on_progress=lambda done, total: progress.append((done, total)),
    )
    assert [each.backend for each in timings] == ["torch", "openvino"]
    assert progress[-1][0] == progress[-1][1]
    for each in timings:
        assert 0 < each.median <= each.p95
        assert each.macs == timings[0].macs > 1e6
        assert 0 < each.peak_share < 1
        # torch alone takes more; this process holds more than the child.
        assert 5e7 < each.peak_memory < 5e9
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
