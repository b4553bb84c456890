"""The notebook runs from top to bottom, as it is, and with a whole model where that is at hand."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib import pyplot

import smollm2

NOTEBOOK = Path(__file__).resolve().parents[1] / "docs" / "notebooks" / "one_model.py"


def cells() -> list[tuple[int, str]]:
    """Return (line number, code) of each cell of code."""
    text = NOTEBOOK.read_text(encoding="utf-8")
    parts = re.split(r"(?m)^(# %%.*)$", text)
    found, line = [], parts[0].count("\n") + 1
    for head, code in zip(parts[1::2], parts[2::2], strict=True):
        if "[markdown]" not in head:
            found.append((line, code))
        line += code.count("\n")
    return found


def run() -> dict[str, Any]:
    names: dict[str, Any] = {"__name__": "notebook"}
    for line, code in cells():
        exec(compile("\n" * (line - 1) + code, str(NOTEBOOK), "exec"), names)
    return names


def test_it_runs(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.delenv("POSENC_SMOLLM2_GGUF", raising=False)
    names = run()
    assert len(cells()) == 7
    assert names["found"].rope.layout == "half"
    assert names["found"].rope.base == pytest.approx(names["real"].base, rel=1e-4)
    assert names["difference"] < 2e-6
    assert names["report"].causal
    assert len(names["report"].heads) == 9
    assert "<svg" in names["report"]._repr_html_()
    assert names["weighted"].curves[0].values[0] == pytest.approx(1)
    assert not np.allclose(names["weighted"].curves[0].values, names["alone"].curves[0].values)
    for picture in ("wavelengths", "curves", "by_distance", "by_head"):
        assert names[picture].has_data()
    assert pyplot.get_fignums() == []
    printed = capsys.readouterr().out
    assert "largest difference to transformers" in printed
    assert "32 pairs, wavelengths 6.283 to " in printed


@pytest.mark.slow
def test_it_runs_on_the_whole_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POSENC_SMOLLM2_GGUF", str(smollm2.gguf_path()))
    report = run()["report"]
    assert report
    assert len(report.heads) == 270
