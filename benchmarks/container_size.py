"""What the CPU image of containers/Dockerfile takes, measured without a builder.

The environment is made by the image's own commands in a temporary folder. The base image is not to
be had without a registry of images: in its place stands this Python, or a folder with a file system
like its own, as root can make one:

    debootstrap --variant=minbase --include=python3,ca-certificates trixie BASE

    python benchmarks/container_size.py [BASE]
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).parents[1]
MOST = 600  # MB
SHOWN = 12  # packages
# What a slim image has not.
LEFT_OUT = ("usr/share/doc", "usr/share/man", "usr/share/locale", "var/cache/apt", "var/lib/apt")


def find_commands() -> list[str]:
    """The commands of the stage that builds the environment, without the one that brings uv."""
    text = (ROOT / "containers" / "Dockerfile").read_text().replace("\\\n", " ")
    (stage,) = re.findall(r" AS build\n(.*?)^FROM", text, re.MULTILINE | re.DOTALL)
    (extras,) = re.findall(r'^ARG EXTRAS="(.*)"$', stage, re.MULTILINE)
    commands = re.findall(r"^RUN (.*)$", stage, re.MULTILINE)
    return [each.replace("${EXTRAS}", extras) for each in commands if not each.startswith("pip ")]


def size_of(folder: Path) -> int:
    """Bytes of the files below a folder, each link as a link."""
    return sum(
        (Path(place) / name).lstat().st_size
        for place, _, names in os.walk(folder)
        for name in names
    )


def size_of_python() -> int:
    """Bytes of the interpreter and its library, without tests, caches and packages."""
    library = Path(os.__file__).parent
    total = 0
    for place, folders, names in os.walk(library):
        folders[:] = [
            name
            for name in folders
            if name not in ("test", "tests", "__pycache__", "site-packages")
        ]
        total += sum(
            (Path(place) / name).lstat().st_size for name in names if not name.endswith(".a")
        )
    shared = [path for path in library.parent.glob("libpython*.so*") if not path.is_symlink()]
    return total + sum(path.stat().st_size for path in shared)


def size_of_base(folder: Path) -> int:
    """Bytes of a file system without what a slim image leaves out."""
    return size_of(folder) - sum(size_of(folder / each) for each in LEFT_OUT)


def main() -> None:
    if not shutil.which("uv"):
        sys.exit("needs uv: pip install uv")
    base = Path(sys.argv[1]) if sys.argv[1:] else None
    with tempfile.TemporaryDirectory() as temporary:
        environment = Path(temporary) / "pinglow"
        settings = {"UV_PROJECT_ENVIRONMENT": str(environment), "UV_LINK_MODE": "copy"}
        for command in find_commands():
            subprocess.run(
                ["sh", "-ec", command.replace("/opt/pinglow", str(environment))],
                cwd=ROOT,
                check=True,
                env=os.environ | settings | {"UV_PYTHON": sys.executable},
            )
        packages: Counter[str] = Counter()
        (site,) = environment.glob("lib/python*/site-packages")
        for part in site.iterdir():
            name = part.name.removesuffix(".libs").split("-")[0]
            packages[name] += size_of(part) if part.is_dir() else part.stat().st_size
        installed = size_of(environment)
        for name in ("torch", "pip", "setuptools"):
            assert name not in packages, f"{name} is in the image"
        subprocess.run(
            [environment / "bin" / "pinglow", "serve", "--help"],
            stdout=subprocess.DEVNULL,
            check=True,
            env=os.environ | {"PYTHONDONTWRITEBYTECODE": "1"},
        )
    for name, size in packages.most_common(SHOWN):
        print(f"{size / 1e6:8.1f} MB  {name}")
    below = size_of_python() if base is None else size_of_base(base)
    print(f"{installed / 1e6:8.1f} MB  the environment, together with smaller packages")
    name = f"Python {sys.version.split()[0]}" if base is None else str(base)
    print(f"{below / 1e6:8.1f} MB  {name}")
    print(f"{(installed + below) / 1e6:8.1f} MB  together; {MOST} are allowed")
    sys.exit(installed + below > MOST * 1e6)


if __name__ == "__main__":
    main()
