"""What the CPU image of containers/Dockerfile takes, measured without a builder.

The environment is installed by the image's own command into a temporary folder. Of the base image,
Python and Debian's required packages are those of this machine, so that their part is an estimate.

    python benchmarks/container_size.py
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
# Of Debian's packages, those that the slim image has beside the required ones.
ALSO = ("ca-certificates", "netbase", "tzdata", "openssl", "libsqlite3-0", "libreadline8")


def find_command() -> list[str]:
    """The last `uv sync` of the Dockerfile."""
    text = (ROOT / "containers" / "Dockerfile").read_text()
    words = re.findall(r"^RUN uv (sync .+)$", text, re.MULTILINE)[-1].split()
    if shutil.which("uv"):
        return ["uv", *words]
    return [sys.executable, "-m", "uv", *words]


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


def size_of_debian() -> int | None:
    """Bytes of Debian's required packages as they are installed here; None: it is no Debian."""
    if not shutil.which("dpkg-query"):
        return None
    form = "${Installed-Size} ${Essential} ${Priority} ${Package}\n"
    listed = subprocess.run(
        ["dpkg-query", "--show", f"--showformat={form}"], capture_output=True, text=True, check=True
    )
    rows = (line.split() for line in listed.stdout.splitlines())
    return 1024 * sum(
        int(size)
        for size, essential, priority, package in rows
        if essential == "yes" or priority == "required" or package in ALSO
    )


def main() -> None:
    with tempfile.TemporaryDirectory() as temporary:
        environment = Path(temporary) / "pinglow"
        subprocess.run(
            find_command(),
            cwd=ROOT,
            check=True,
            env=os.environ
            | {
                "UV_PROJECT_ENVIRONMENT": str(environment),
                "UV_COMPILE_BYTECODE": "1",
                "UV_LINK_MODE": "copy",
                "UV_PYTHON": sys.executable,
            },
        )
        packages: Counter[str] = Counter()
        (site,) = environment.glob("lib/python*/site-packages")
        for part in site.iterdir():
            name = re.sub(r"(\.libs|-[\d.]+(\.post\d+)?\.dist-info)$", "", part.name)
            packages[name] += size_of(part) if part.is_dir() else part.stat().st_size
        installed = size_of(environment)
        for name in ("torch", "pip", "setuptools"):
            assert name not in packages, f"{name} is in the image"
        told = subprocess.run(
            [environment / "bin" / "pinglow", "serve", "--help"], capture_output=True, check=False
        )
        assert told.returncode == 0, told.stderr.decode()
    for name, size in packages.most_common(SHOWN):
        print(f"{size / 1e6:8.1f} MB  {name}")
    print(f"{(installed - sum(dict(packages.most_common(SHOWN)).values())) / 1e6:8.1f} MB  others")
    debian = size_of_debian()
    total = installed + size_of_python() + (debian or 0)
    print(f"{installed / 1e6:8.1f} MB  the environment, with compiled modules")
    print(f"{size_of_python() / 1e6:8.1f} MB  Python {sys.version.split()[0]}")
    if debian is not None:
        print(f"{debian / 1e6:8.1f} MB  Debian's required packages")
    print(f"{total / 1e6:8.1f} MB  together; {MOST} are allowed")
    sys.exit(total / 1e6 > MOST)


if __name__ == "__main__":
    main()
