"""What the README and the pages of docs say in code and in lists is so."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from posenc.config import FAMILIES
from posenc.config._family import Family, Switch

ROOT = Path(__file__).resolve().parents[1]
README, WHICH = ROOT / "README.md", ROOT / "docs" / "which-convention.md"


def blocks(document: Path) -> list[tuple[int, str]]:
    """Return (line number, code) of each Python block."""
    text = document.read_text(encoding="utf-8")
    found = re.finditer(r"^```python\n(.*?)^```$", text, flags=re.M | re.S)
    return [(text[: block.start(1)].count("\n") + 1, block[1]) for block in found]


WITH_CODE = [document for document in (README, *sorted((ROOT / "docs").glob("*.md"))) if blocks(document)]


@pytest.mark.parametrize("document", WITH_CODE, ids=lambda document: document.name)
def test_code_runs(document: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The Python blocks of a page run from top to bottom, each with the names of those before it."""
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {"__name__": "document"}
    for line, code in blocks(document):
        exec(compile("\n" * (line - 1) + code, str(document), "exec"), names)


def test_there_is_code() -> None:
    assert {README, WHICH} <= set(WITH_CODE)


# ---- docs/which-convention.md ----


def layouts(entry: Any) -> set[str]:
    """Return the layouts that a family can have; none where it turns nothing."""
    entries = entry.cases.values() if isinstance(entry, Switch) else [entry]
    return {one.layout for one in entries if isinstance(one, Family)}


@pytest.mark.parametrize(
    ("start", "expected"),
    [
        ("- `interleaved`: ", {"interleaved"}),
        ("- `interleaved_to_half`: ", {"interleaved_to_half"}),
        (
            "- `interleaved_to_half`, or `half` where the config says `rope_interleave: false`: ",
            {"interleaved_to_half", "half"},
        ),
    ],
)
def test_families_that_do_not_pair_halves(start: str, expected: set[str]) -> None:
    """Each list of the page has exactly the families of its layout; all others that turn are half."""
    text = " ".join(WHICH.read_text(encoding="utf-8").split())
    listed = re.search(re.escape(start) + r"([a-z0-9_ -]*?)(?= - `|\s##|$)", text)
    assert listed is not None
    assert set(listed[1].split()) == {name for name, entry in FAMILIES.items() if layouts(entry) == expected}


def test_all_other_families_pair_halves() -> None:
    every = {frozenset(layouts(entry)) for entry in FAMILIES.values()}
    named = [{"interleaved"}, {"interleaved_to_half"}, {"interleaved_to_half", "half"}]
    assert every == {frozenset(), frozenset({"half"}), *map(frozenset, named)}
