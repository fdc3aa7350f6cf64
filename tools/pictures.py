"""Make the pictures of the docs from the bundled scenes.

python tools/pictures.py    # docs/images/overlays.png, panels.png and, where Chromium is, page.png

Run it again when what pictures show has changed.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image

ROOT = Path(__file__).parents[1]
IMAGES = ROOT / "docs" / "images"
SCENES = ("000000", "000001", "000002", "000004")  # clouds, sea, ground; clouds without a target
GAP = 6


def pinglow(*arguments: object) -> None:
    """Run a command."""
    subprocess.run([sys.executable, "-m", "pinglow", *map(str, arguments)], cwd=ROOT, check=True)


def main() -> None:
    """Make them all."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder)
        pinglow("predict", "examples/images", "--out", out, "--save", "overlay,html")
        model = ("--model", "pinglow-fast", "--model", "pinglow-base")
        panels = ("--save", "panels", "--out", out, "--panels", 1)
        pinglow("evaluate", "--data", "examples", "--split", "demo", *model, *panels)
        overlays = [Image.open(out / "overlays" / f"{name}_overlay.png") for name in SCENES]
        wide, tall = overlays[0].size
        montage = Image.new("RGB", (2 * wide + GAP, 2 * tall + GAP), "white")
        for number, overlay in enumerate(overlays):
            montage.paste(overlay, (number % 2 * (wide + GAP), number // 2 * (tall + GAP)))
        montage.save(IMAGES / "overlays.png", optimize=True)
        (worst,) = (out / "panels").iterdir()
        Image.open(worst).save(IMAGES / "panels.png", optimize=True)
        browser = shutil.which("chromium")
        if browser is None:
            print("no Chromium: docs/images/page.png is left as it is")
            return
        options = ("--headless", "--no-sandbox", "--hide-scrollbars", "--window-size=1280,640")
        page = (out / "html" / "index.html").as_uri()
        picture = IMAGES / "page.png"
        command = [browser, *options, f"--screenshot={picture}", page]
        subprocess.run(command, check=True, stderr=subprocess.DEVNULL)


if __name__ == "__main__":
    main()
