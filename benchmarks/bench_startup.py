"""How long a user waits before anything happens: `import pinglow` and `pinglow --help`.

python benchmarks/bench_startup.py
"""

from __future__ import annotations

import re
import statistics
import subprocess
import sys
import time
from pathlib import Path

RUNS = 9


def import_milliseconds() -> float:
    command = [sys.executable, "-X", "importtime", "-c", "import pinglow"]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stderr
    (line,) = re.findall(r"\|\s+(\d+) \| pinglow$", text, flags=re.MULTILINE)
    return int(line) / 1000


def help_milliseconds() -> float:
    command = [str(Path(sys.executable).with_name("pinglow")), "--help"]
    start = time.perf_counter()
    subprocess.run(command, capture_output=True, check=True)
    return 1000 * (time.perf_counter() - start)


def main() -> None:
    measures = {"import pinglow": import_milliseconds, "pinglow --help": help_milliseconds}
    for name, measure in measures.items():
        measure()  # the first run compiles
        times = [measure() for _ in range(RUNS)]
        print(f"{name}: median {statistics.median(times):.0f} ms, worst {max(times):.0f} ms")


if __name__ == "__main__":
    main()
