"""The pool of threads, without Python: a C program of its own, plain and under ThreadSanitizer."""

from __future__ import annotations

from pathlib import Path

import pytest

from test_checkasm import ROOT, extension_flags, run

SOURCES = [ROOT / "csrc/core/pool.c", ROOT / "tests/c/pool_test.c"]


def build(directory: Path, *extra: str) -> Path:
    program = directory / "pool_test"
    run(["cc", *extension_flags(), *extra, "-pthread", *SOURCES, "-o", program], directory)
    return program


def test_pool(tmp_path: Path) -> None:
    """Parts, meetings, stops, four callers at once, and fifty children forked meanwhile."""
    assert run([build(tmp_path), "fork"], tmp_path, 120) == "ok\n"


@pytest.mark.broad
def test_no_race(tmp_path: Path) -> None:
    """ThreadSanitizer finds none; a program with a race of its own shows that it looks."""
    flags = ("-O1", "-g", "-fsanitize=thread")
    assert run([build(tmp_path, *flags)], tmp_path, 300) == "ok\n"
    racy = tmp_path / "racy.c"
    text = SOURCES[1].read_text(encoding="utf-8").replace("c->done[part]++", "c->done[part]++, c->sum++")
    racy.write_text(text.replace("../../csrc", str(ROOT / "csrc")), encoding="utf-8")
    run(["cc", *extension_flags(), *flags, "-pthread", SOURCES[0], racy, "-o", tmp_path / "racy"], tmp_path)
    with pytest.raises(AssertionError, match="data race"):
        run([tmp_path / "racy"], tmp_path, 300)
