"""Every parameter at random, against posenc._reference: float64 NumPy, written from the formulas."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

import posenc
from posenc import _reference
from strategies import (
    ROUNDING,
    SMALLEST,
    Array,
    assert_close,
    kinds,
    layouts,
    normal,
    reproducible,
    seeds,
    wide,
)


@st.composite
def calls(draw: st.DrawFn) -> dict[str, Any]:
    """Every parameter of a Rope and of its call at once."""
    axes, pairs = draw(st.integers(1, 3)), draw(st.integers(1, 24))
    batch, heads, seq = draw(st.integers(1, 3)), draw(st.integers(1, 3)), draw(st.integers(1, 20))
    seed = draw(seeds)
    rng = np.random.default_rng(seed)
    axis_of_freq = None if axes == 1 else np.concatenate([rng.integers(0, axes, pairs - 1), [axes - 1]])
    own_rows = draw(st.booleans())
    shape = (*([axes] if axes > 1 else []), *([batch] if own_rows else []), seq)
    whole = rng.integers(-(10**5), 10**5, shape)
    return {
        "shape": (batch, heads, seq),
        "inv_freq": rng.uniform(-1, 1, pairs),
        "axis_of_freq": axis_of_freq,
        "positions": whole if draw(st.booleans()) else whole / 7,
        "layout": draw(layouts),
        "rotary_offset": draw(st.integers(0, 4)),
        "rest": draw(st.integers(0, 6)),
        "inverse": draw(st.booleans()),
        "scale": draw(st.sampled_from([1.0, 1.25, 0.1])),
        "seq_axis": draw(st.sampled_from([-2, 2, -3, 1])),
        "kind": draw(kinds),
        "seed": seed,
    }


def by_rope(x: Array, call: dict[str, Any]) -> Array:
    fixed = posenc.scaling.InverseFrequencies(tuple(call["inv_freq"].tolist()), call["scale"])
    rope = posenc.Rope(
        x.shape[-1],
        layout=call["layout"],
        rotary_dim=2 * len(call["inv_freq"]),
        rotary_offset=call["rotary_offset"],
        scaling=fixed,
        axis_of_freq=call["axis_of_freq"],
    )
    return rope(x, positions=call["positions"], seq_axis=call["seq_axis"], inverse=call["inverse"])


@given(call=calls())
@settings(reproducible, max_examples=400)
def test_oracle_agrees(call: dict[str, Any]) -> None:
    """posenc._reference, float64 NumPy from the formulas, for every parameter at random."""
    batch, heads, seq = call["shape"]
    head_dim = call["rotary_offset"] + 2 * len(call["inv_freq"]) + call["rest"]
    along_third = call["seq_axis"] in (-2, 2)
    x = normal(
        call["seed"], (batch, heads, seq, head_dim) if along_third else (batch, seq, heads, head_dim), call["kind"]
    )
    names = ("axis_of_freq", "rotary_offset", "seq_axis", "scale", "inverse")
    wanted = _reference.rotate(
        x, call["positions"], call["inv_freq"], call["layout"], **{name: call[name] for name in names}
    )
    growth = 1 / call["scale"] if call["inverse"] else call["scale"]
    angles = 2.0**-53 * 1e5  # NumPy's angle is rounded to float64: positions below 1e5, frequencies below 1
    wider = ROUNDING[np.float64 if call["kind"] is np.float64 else np.float32]
    largest = 2 * np.abs(wide(x)).max() * max(1.0, growth)
    tolerance = largest * (2 * angles + 4 * wider + ROUNDING[call["kind"]]) + SMALLEST[call["kind"]]
    assert_close(by_rope(x, call), wanted, tolerance)


@given(pairs=st.integers(1, 30), seed=seeds, layout=layouts, inverse=st.booleans())
@reproducible
def test_oracle_agrees_on_odd_heads(pairs: int, seed: int, layout: str, inverse: bool) -> None:
    """The appended zero of head_dim 2*pairs - 1."""
    x = normal(seed, (2, 11, 2 * pairs - 1), np.float64)
    rope = posenc.Rope(2 * pairs - 1, layout=layout)
    wanted = _reference.rotate(x, np.arange(11), rope.inv_freq, layout, inverse=inverse)
    assert_close(rope(x, inverse=inverse), wanted, 2.0**-48)
