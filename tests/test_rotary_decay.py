"""`rotary_decay` against the formulas of its sources, the encodings themselves, and what stretching a context does."""

from __future__ import annotations

import json
import re
from typing import Any

import numpy as np
import pytest

import posenc
from posenc.bias import T5, Alibi
from posenc.checks import extensions, rotary_decay
from posenc.config import explain
from posenc.xpos import XPos

ROPE = posenc.Rope(128, layout="half")


def only(encoding: Any, distances: Any, **keywords: Any) -> Any:
    return rotary_decay(encoding, distances, **keywords).curves[0]


def test_literals() -> None:
    """By hand: at 0 all S_j = j, whose mean over 64 pairs is 65/2; of two pairs, 1 and 0.01, S_2 2 cos(0.495 d)."""
    curve = only(ROPE, [0])
    assert curve.bound[0] == 32.5
    assert curve.values[0] == 1
    curve = only(posenc.Rope(4, layout="half"), [1, 2])
    np.testing.assert_allclose(curve.bound, [0.5 + 0.879969, 0.5 + 0.548690], atol=1e-6)
    np.testing.assert_allclose(curve.values, [0.770126, 0.291827], atol=1e-6)


def test_against_the_formulas() -> None:
    """Equations 35 to 37 as sums over complex numbers."""
    distances = np.array([0, 1, 7, 500, 4095, 100_000], float)
    turns = np.exp(1j * np.outer(distances, ROPE.inv_freq))
    curve = only(ROPE, distances)
    np.testing.assert_allclose(curve.values, turns.real.mean(1), atol=1e-12)
    np.testing.assert_allclose(curve.bound, np.abs(turns.cumsum(1)).mean(1), rtol=1e-11)


@pytest.mark.parametrize("layout", ["half", "interleaved"])
def test_the_expectation_is_that_of_real_rotations(layout: str, rng: np.random.Generator) -> None:
    """q.k of 4,000 random q = k, rotated at a distance, partly unrotated and with an attention factor."""
    rope = posenc.Rope(32, layout=layout, rotary_dim=24, scaling=posenc.scaling.Yarn(4.0, 64))
    q = rng.normal(size=(4000, 1, 32))
    for distance in (0, 3, 90):
        rotated_q, rotated_k = rope(q, offset=distance), rope(q)
        found = np.mean((rotated_q * rotated_k).sum(-1)) / 32
        assert only(rope, [distance], context=64).values[0] == pytest.approx(found, abs=0.02)


def test_the_bound_holds(rng: np.random.Generator) -> None:
    """|q.k| <= max |h_i+1 - h_i| * sum |S_j| with h_d/2 = 0, for random q and k at every distance."""
    pairs = len(ROPE.inv_freq)
    distances = np.arange(0, 5000, 37)
    bound = only(ROPE, distances).bound * pairs
    for _ in range(20):
        h = np.append((rng.normal(size=pairs) + 1j * rng.normal(size=pairs)), 0)
        scores = np.exp(1j * np.outer(distances, ROPE.inv_freq)) @ h[:-1]
        assert (np.abs(scores.real) <= np.abs(np.diff(h)).max() * bound * (1 + 1e-9)).all()


def test_weights_of_pairs() -> None:
    weights = np.zeros(64)
    weights[3] = 2
    curve = only(ROPE, np.arange(50), weights=weights)
    np.testing.assert_allclose(curve.values, np.cos(np.arange(50) * ROPE.inv_freq[3]), atol=1e-13)


def test_interpolation_stretches_the_curve() -> None:
    """PI divides positions: its curve at factor * d is the plain one at d."""
    curves = extensions(ROPE, 8.0, 4096)
    plain, stretched = rotary_decay(curves, np.arange(100))["none"], rotary_decay(curves, 8 * np.arange(100))["linear"]
    np.testing.assert_allclose(stretched.values, plain.values, atol=1e-12)
    np.testing.assert_allclose(stretched.bound, plain.bound, atol=1e-10)


def test_pairs_that_never_turn_are_those_of_explain() -> None:
    config = {"model_type": "llama", "hidden_size": 256, "num_attention_heads": 4, "max_position_embeddings": 2048}
    wanted = explain({**config, "num_hidden_layers": 2}).as_dict()["rotations"][0]["never_turn_within"]["context"]
    assert list(only(posenc.Rope(64, layout="half"), [0, 1], context=2048).unturned) == wanted
    assert wanted == list(range(21, 32))


def test_extension_makes_pairs_that_never_turn() -> None:
    """A stretched context keeps the pairs that had not turned in training from turning; unstretched, they would."""
    report = rotary_decay(extensions(ROPE, 8.0, 4096), [0, 10], context=32768)
    trained = only(ROPE, [0], context=4096).unturned
    assert len(report["none"].unturned) < len(trained)
    for name in ("linear", "yarn", "llama3"):
        assert report[name].unturned == trained
    assert report["linear"].longest == pytest.approx(8 * report["none"].longest)


def test_llama3_and_yarn_keep_near_distances_and_linear_does_not() -> None:
    report = rotary_decay(extensions(ROPE, 8.0, 8192), 65536)
    none = report["none"].half
    assert report["llama3"].half == none
    assert report["yarn"].half == pytest.approx(none, rel=0.25)
    assert report["linear"].half == pytest.approx(8 * none, rel=0.02)


def test_lengths_are_taken_from_the_context() -> None:
    dynamic = posenc.Rope(64, layout="half", scaling=posenc.scaling.DynamicNTK(2.0, 2048))
    distances = np.arange(100)
    for length in (2048, 8192):
        fixed = only(dynamic.at(length), distances)
        np.testing.assert_array_equal(only(dynamic, distances, context=length).values, fixed.values)


def test_xpos_is_what_its_own_tables_make() -> None:
    """Queries and keys of ones: q.k at distance d is twice the sum of zeta**(d / scale_base) * cos(d * inv_freq)."""
    xpos = XPos(posenc.Rope(16, layout="interleaved"), scale_base=64.0, centre=50.0)
    ones = np.ones((1, 1, 100, 16))
    q, k = xpos(ones, ones)
    curve = only(xpos, np.arange(100))
    np.testing.assert_allclose(curve.values, (q[0, 0] @ k[0, 0, 0]) / 16, rtol=1e-9)
    assert curve.bound[-1] < only(xpos.rope, np.arange(100)).bound[-1]


def test_alibi_and_t5() -> None:
    slopes = posenc.alibi_slopes(4)
    curve = only(slopes, np.arange(20))
    np.testing.assert_allclose(curve.values, -np.outer(slopes, np.arange(20)), rtol=1e-12)
    assert curve.kind == "bias"
    assert only([0.5], np.arange(9)).half == 2  # 0.5 * 2 > ln 2
    table = np.linspace(1, -3, 32)[:, None] * [1.0, 2.0]
    curve = only(T5(table, bidirectional=False), [0, 1, 40])
    bucket = posenc.t5_bucket(-np.array([0, 1, 40]), bidirectional=False)
    np.testing.assert_array_equal(curve.values, table[bucket].T)
    growing = rotary_decay({"down": Alibi([0.5]), "up": T5(-table, bidirectional=False)}, 100)
    assert [c.falls for c in growing.curves] == [True, False]
    assert not growing
    with pytest.raises(AssertionError, match="FAILED"):
        growing.raise_if_failed()


def test_the_report_in_every_form() -> None:
    report = rotary_decay({**extensions(ROPE, 4.0, 2048), "alibi": posenc.alibi_slopes(8)}, 8192)
    assert report
    text = str(report)
    assert text.count("\n") == 6
    assert "18 of its pairs never turn within 8,192" in text.splitlines()[2] or "never turn" in text
    json.dumps(report.to_dict(), allow_nan=False)
    for one in (report, rotary_decay({"alibi": [0.5, 0.25]}, 500)):
        page = one._repr_html_()
        assert len(re.findall("<polyline", page)) >= 1
    with pytest.raises(KeyError):
        report["nobody"]


@pytest.mark.parametrize(
    ("encoding", "distances", "keywords", "error", "message"),
    [
        ("rope", 9, {}, TypeError, "alibi must be a Rope, an XPos, a Bias or ALiBi slopes"),
        ({}, 9, {}, ValueError, "encoding must name at least one encoding"),
        (ROPE, 0, {}, ValueError, "distances must be at least 1, got 0"),
        (ROPE, [[1]], {}, ValueError, "distances must be a number or have shape (n,)"),
        (ROPE, [3, 2], {}, ValueError, "distances must be finite, not negative, and ascending"),
        (ROPE, [-1, 2], {}, ValueError, "distances must be finite, not negative, and ascending"),
        (ROPE, [0, np.nan], {}, ValueError, "distances must be finite, not negative, and ascending"),
        (ROPE, 9, {"weights": [1, 2]}, ValueError, "weights must have shape (64,), one for each pair, got (2,)"),
        (ROPE, 9, {"weights": np.zeros(64)}, ValueError, "weights must be finite, not negative, and not all zero"),
        (ROPE, 9, {"context": 0}, ValueError, "context must be at least 1, got 0"),
        (posenc.Rope(8, layout="half", axis_of_freq=[0, 1, 0, 1]), 9, {}, ValueError, "one position axis, got 2"),
    ],
)
def test_wrong_input(
    encoding: Any, distances: Any, keywords: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=re.escape(message)):
        rotary_decay(encoding, distances, **keywords)


def test_wrong_extensions() -> None:
    with pytest.raises(ValueError, match="rope must have a base and no scaling of its own"):
        extensions(extensions(ROPE, 2.0, 64)["linear"], 2.0, 64)
    with pytest.raises(ValueError, match="factor must be at least 1"):
        extensions(ROPE, 0.5, 64)
    with pytest.raises(TypeError, match=r"rope must be a posenc\.Rope"):
        extensions(3, 2.0, 64)  # type: ignore[arg-type]
