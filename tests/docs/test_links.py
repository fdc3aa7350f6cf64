"""Links of the Markdown pages lead somewhere."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from markdown_it import MarkdownIt

ROOT = Path(__file__).parents[2]
if not (ROOT / "experiments").is_dir():
    pytest.skip("pages link to what only a checkout has", allow_module_level=True)
PAGES = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "experiments").rglob("*.md")]


def targets(text: str) -> Iterator[str]:
    """Where the links and images of a page lead, code left out."""
    for block in MarkdownIt().parse(text):
        for token in block.children or []:
            target = token.attrGet("href") or token.attrGet("src")
            if target:
                yield str(target)


def dead_links(page: Path, root: Path) -> list[str]:
    """Relative targets of a page that lead to no file or folder inside ``root``."""
    dead = []
    for target in targets(page.read_text(encoding="utf-8")):
        parts = urlsplit(target)
        if parts.scheme or parts.netloc or not parts.path:
            continue
        path = (page.parent / unquote(parts.path)).resolve()
        if not path.exists() or not path.is_relative_to(root):
            dead.append(target)
    return dead


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_relative_links_resolve(page: Path) -> None:
    assert dead_links(page, ROOT) == []


def test_dead_links_are_found_and_others_are_not(tmp_path: Path) -> None:
    page = tmp_path / "docs" / "page.md"
    page.parent.mkdir()
    page.write_text("""
[a page](page.md#part), [a folder](../docs), [a part](#part),
[elsewhere](https://e.org/gone.md), `[c](c)`

| [in a table](gone.md#part) | ![a picture](gone.png) | [outside](../..) |
""")
    assert dead_links(page, tmp_path) == ["gone.md#part", "gone.png", "../.."]
