"""What reaches a terminal."""

from __future__ import annotations

import io
import logging
import unicodedata

import pytest

from pinglow.console import Console
from pinglow.terminal import SafeFormatter, escape_controls


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain, café, 图像, 🎯", "plain, café, 图像, 🎯"),
        ("wide\u3000space", "wide\u3000space"),
        ("\x1b]0;title\x07", r"\x1b]0;title\x07"),
        ("two\nlines\rhere", r"two\nlines\rhere"),
        ("\x9b31m", r"\x9b31m"),
        ("cod.\u202egnp", r"cod.\u202egnp"),
        ("caf\udce9", r"caf\udce9"),
        ("", ""),
    ],
)
def test_what_a_terminal_would_act_on_is_escaped(text: str, shown: str) -> None:
    assert escape_controls(text) == shown


def test_no_control_character_is_left() -> None:
    kinds = ("Cc", "Cf", "Cs", "Zl", "Zp")
    for number in range(0x11000):
        if unicodedata.category(chr(number)) in kinds:
            assert escape_controls(chr(number)).isprintable()


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "utf-8"])
def test_a_console_of_any_encoding_shows_any_name_in_its_columns(encoding: str) -> None:
    from rich.table import Table

    raw = io.BytesIO()
    console = Console(file=io.TextIOWrapper(raw, encoding=encoding), width=60)
    table = Table("name", "number")
    table.add_row("图\x1b[2J", "1")
    table.add_row("plain", "2")
    console.print(table)
    console.file.flush()
    lines = raw.getvalue().decode(encoding).splitlines()
    assert b"\x1b" not in raw.getvalue()
    assert any(r"\x1b[2J" in line for line in lines)
    if encoding != "utf-8":
        assert any(r"\u56fe" in line for line in lines)
        assert len({len(line) for line in lines}) == 1


def test_warnings_are_one_line() -> None:
    record = logging.LogRecord("pinglow", 30, "", 0, "%s is odd", ("a\nb\x1b",), None)
    assert SafeFormatter().format(record) == r"a\nb\x1b is odd"
