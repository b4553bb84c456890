"""What every check returns: a verdict, lines for people, a dictionary for programs, a table for notebooks."""

from __future__ import annotations

import html
import math
import sys
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass
from typing import IO, Any

import numpy as np

#: verdict of a line -> its mark in text, its colour in a terminal and in HTML
_MARKS = {
    True: ("ok    ", "green", "#1a7f37"),
    False: ("FAILED", "bold red", "#cf222e"),
    None: ("      ", "default", "inherit"),
}


@dataclass(frozen=True)
class Line:
    """One line of a report.

    Attributes
    ----------
    name : str
        What the line is about.
    text : str
        What was found.
    ok : bool or None
        Its verdict; None for a line that only tells.
    notes : tuple of str
        What it means and what to do, one sentence each.
    """

    name: str
    text: str
    ok: bool | None = None
    notes: tuple[str, ...] = ()


class Report(ABC):
    """Base of what checks return; a subclass is a frozen dataclass with `ok`, `title()` and `lines()`.

    `str` is plain text, `show` prints it (in colour on a terminal where rich is installed), `to_dict` is ready for
    JSON, `_repr_html_` is for notebooks. Its truth value is `ok`, so that `assert check(..)` can fail.
    """

    ok: bool

    @abstractmethod
    def title(self) -> str:
        """Return what was checked, in one line."""

    @abstractmethod
    def lines(self) -> list[Line]:
        """Return what was found, one line each."""

    def svg(self) -> str | None:
        """Return a picture for notebooks as an <svg> element, whose text is escaped already; or None."""
        return None

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as dictionaries, lists, strings and numbers, ready for JSON; an infinity or NaN is None."""
        own: dict[str, Any] = {f.name: plain(getattr(self, f.name)) for f in fields(self)} if is_dataclass(self) else {}
        return {"check": type(self).__name__, "ok": bool(self.ok), **own}

    def raise_if_failed(self) -> None:
        """Raise AssertionError with the whole report unless `ok`."""
        if not self.ok:
            raise AssertionError(str(self))

    def show(self, file: IO[str] | None = None) -> None:
        """Print the report: in colour where `file` (default: standard output) is a terminal and rich is installed."""
        file = sys.stdout if file is None else file
        if file.isatty():
            try:
                _show_in_colour(self, file)
                return
            except ImportError:
                pass
        print(self, file=file)

    def __bool__(self) -> bool:
        return bool(self.ok)

    def __str__(self) -> str:
        return "\n".join(text for text, _ in _text(self))

    def _repr_html_(self) -> str:
        rows = "".join(map(_html_row, self.lines()))
        style = "text-align:left;vertical-align:top;padding:2px 8px"
        table = f"<table>{rows}</table>".replace("<td", f'<td style="{style}"')
        return f"<div><strong>{html.escape(self.title())}</strong>{table}{self.svg() or ''}</div>"


def plain(value: Any) -> Any:
    """Return a value as JSON has it: arrays as lists, an infinity or NaN as None, other objects as their repr."""
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    if isinstance(value, np.generic):
        return plain(value.item())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, (str, int, bool)):
        return value
    if isinstance(value, Report):
        return value.to_dict()
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [plain(item) for item in value]
    if is_dataclass(value) and type(value).__module__.startswith("posenc.checks"):
        return {f.name: plain(getattr(value, f.name)) for f in fields(value)}
    return repr(value)


def _text(report: Report) -> list[tuple[str, str]]:
    """Return (text, colour) of each line."""
    found = report.lines()
    width = max((len(line.name) for line in found), default=0)
    marked = any(line.ok is not None for line in found)
    result = [(report.title(), "bold")]
    for line in found:
        mark, colour, _ = _MARKS[line.ok]
        start = f"  {mark}  " if marked else "  "
        result.append((f"{start}{line.name:<{width}}  {line.text}".rstrip(), colour))
        result += [(f"{' ' * len(start)}{'':<{width}}  {note}", "default") for note in line.notes]
    return result


def _show_in_colour(report: Report, file: IO[str]) -> None:
    from rich.console import Console
    from rich.text import Text

    console = Console(file=file, soft_wrap=True)
    for text, colour in _text(report):
        console.print(Text(text, style=colour))


def _html_row(line: Line) -> str:
    mark, _, colour = _MARKS[line.ok]
    notes = "".join(f"<br><small>{html.escape(note)}</small>" for note in line.notes)
    return (
        f'<tr><td><span style="color:{colour}">{mark.strip()}</span></td>'
        f"<td>{html.escape(line.name)}</td><td>{html.escape(line.text)}{notes}</td></tr>"
    )
