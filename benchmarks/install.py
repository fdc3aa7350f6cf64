"""What the base install takes: megabytes, seconds to the first picture, import, first prediction.

python benchmarks/install.py        # into an environment of its own, which is removed afterwards
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path

CHECKOUT = Path(__file__).parents[1]
FIRST = """
import time; begin = time.perf_counter()
import pinglow; imported = time.perf_counter()
import numpy as np
frame = np.random.default_rng(0).normal(1000, 20, (256, 320))
pinglow.Predictor.load("pinglow-fast", device="cpu")(frame)
end = time.perf_counter()
print(f"import pinglow: {1e3 * (imported - begin):.0f} ms")
print(f"first prediction, loading included: {end - imported:.2f} s")
"""


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        venv = Path(folder) / "venv"
        begin = time.perf_counter()
        subprocess.run([sys.executable, "-m", "venv", venv], check=True)
        python = venv / "bin" / "python"
        before = measure_packages(venv)  # pip itself, which is in every environment
        subprocess.run([python, "-m", "pip", "install", "-q", CHECKOUT], check=True)
        installed = time.perf_counter()
        size = measure_packages(venv) - before
        print(f"installed: {size / 1e6:.0f} MB in {installed - begin:.0f} s")
        words = ["predict", CHECKOUT / "examples" / "images", "--out", Path(folder) / "out"]
        subprocess.run([python, "-m", "pinglow", *words, "--save", "overlay"], check=True)
        print(f"from nothing to the first pictures: {time.perf_counter() - begin:.0f} s")
        subprocess.run([python, "-c", FIRST], check=True, cwd=folder)


def measure_packages(venv: Path) -> int:
    """Bytes of what is installed."""
    return sum(
        path.stat().st_size for path in venv.glob("lib/*/site-packages/**/*") if path.is_file()
    )


if __name__ == "__main__":
    main()
