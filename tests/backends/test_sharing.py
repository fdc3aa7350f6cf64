"""One model for several threads at once, and in processes that were forked."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from pinglow.backends.device import Device, check_process
from pinglow.backends.opening import BACKENDS, open_model
from pinglow.errors import OptionError
from pinglow.inference.predictor import Predictor


@pytest.mark.parametrize("name", BACKENDS)
def test_threads_get_what_one_alone_gets(small_model: Path, name: str) -> None:
    predictor = Predictor(*open_model(small_model, name, "cpu"), tile=256)
    random = np.random.default_rng(0)
    # Sizes that come again are compiled for; the largest is computed in tiles.
    shapes = [(40, 40), (40, 40), (40, 40), (64, 48), (560, 520)]
    frames = [random.normal(900, 30, shape).astype(np.uint16) for shape in shapes]
    alone = [predictor.probability(frame) for frame in frames]
    with ThreadPoolExecutor(8) as pool:
        for found, expected in zip(
            pool.map(predictor.probability, frames * 3), alone * 3, strict=True
        ):
            np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
@pytest.mark.parametrize("name", BACKENDS)
def test_a_forked_process_predicts(small_model: Path, name: str) -> None:
    """In a process of its own: one that has forked with threads would be warned about."""
    script = f"""
        import multiprocessing, sys
        import numpy as np
        from pinglow import Predictor

        predictor = Predictor.load({str(small_model)!r}, backend={name!r}, device="cpu")
        frame = np.random.default_rng(0).normal(900, 30, (150, 130)).astype(np.uint16)
        expected = predictor.probability(frame)

        def work():
            found = predictor.probability(frame)
            sys.exit(0 if np.allclose(found, expected, atol=1e-5) else 1)

        child = multiprocessing.get_context("fork").Process(target=work)
        child.start()
        child.join(60)
        child.kill()
        print(child.exitcode)
    """
    environment = os.environ | {"OMP_NUM_THREADS": "2"}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", textwrap.dedent(script)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.stdout.strip() == "0", done.stderr


def test_a_card_is_not_used_by_a_forked_process() -> None:
    check_process(Device("cuda"), os.getpid())
    check_process(Device("cpu"), -1)
    with pytest.raises(OptionError, match="spawn"):
        check_process(Device("cuda"), -1)
