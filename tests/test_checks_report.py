"""What every report of a check has in common."""

from __future__ import annotations

import io
import json
import math
from dataclasses import dataclass

import numpy as np
import pytest

import posenc
from conftest import run_python
from posenc.checks import Line, Report


@dataclass(frozen=True)
class Example(Report):
    ok: bool
    numbers: np.ndarray
    rope: posenc.Rope
    worst: float = math.inf

    def title(self) -> str:
        return "an <example>"

    def lines(self) -> list[Line]:
        return [Line("norms", "kept"), Line("a&b", "<script>", self.ok, ("why", "what to do"))]

    def svg(self) -> str:
        return "<svg></svg>"


def example(ok: bool) -> Example:
    return Example(ok, np.arange(3.0), posenc.Rope(8, layout="half"))


def test_text() -> None:
    assert str(example(False)).splitlines() == [
        "an <example>",
        "          norms  kept",
        "  FAILED  a&b    <script>",
        "                 why",
        "                 what to do",
    ]


def test_it_can_fail() -> None:
    assert example(True)
    assert not example(False)
    example(True).raise_if_failed()
    with pytest.raises(AssertionError, match="FAILED  a&b"):
        example(False).raise_if_failed()


def test_json() -> None:
    found = json.loads(json.dumps(example(True).to_dict(), allow_nan=False))
    assert found == {
        "check": "Example", "ok": True, "numbers": [0.0, 1.0, 2.0], "rope": "Rope(8, layout='half', base=10000.0)",
        "worst": None,
    }  # fmt: skip


def test_html_is_escaped_and_the_picture_is_not() -> None:
    page = example(False)._repr_html_()
    assert "<script>" not in page
    assert "&lt;script&gt;" in page
    assert "an &lt;example&gt;" in page
    assert "<svg></svg>" in page


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_colour_on_a_terminal_only(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("rich")
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    file, terminal = io.StringIO(), Terminal()
    example(False).show(file)
    example(False).show(terminal)
    assert "\x1b[" not in file.getvalue()
    assert "\x1b[" in terminal.getvalue()
    assert file.getvalue() == f"{example(False)}\n"


def test_nothing_is_loaded_before_it_is_asked_for() -> None:
    code = "import sys, posenc; posenc.checks; print(sorted(m for m in sys.modules if m.startswith('posenc.checks')))"
    assert run_python(code) == "['posenc.checks']"
    code = "import posenc.checks\nfor name in posenc.checks.__all__: assert name in dir(posenc.checks), name\n"
    assert run_python(code + "print([getattr(posenc.checks, n) for n in posenc.checks.__all__] and 'all')") == "all"
