"""Arguments of the wrong kind in every room: no Rope, no flag, no sequence, no count; refused by name, not ignored."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given

from hostile import assert_call_refused, refused
from posenc import axes
from posenc.testing import position_ids


@refused("""
TypeError: rope must be a posenc.Rope, got 8
    posenc.gradients.of_x(8, x)
    posenc.gradients.of_frequencies(8, x, x)
    posenc.gradients.of_positions(8, x, x)
    posenc.config.unturned(8, 2048)
    posenc.xpos.XPos(8)
    posenc.checks.extensions(8, 4.0, 2048)
TypeError: report must be what posenc.checks.rotary_decay returns, got Rope(8, layout='half', base=10000.0)
    posenc.plot.decay(rope)
TypeError: report must be what posenc.checks.position_sanity_check returns, got ndarray of shape (2, 3, 4, 8)...
    posenc.plot.attention_by_distance(x)
    posenc.plot.attention_heads(x)
TypeError: rope must be a posenc.Rope or a BlockRope, got 8
    posenc.golden.vectors(8)
TypeError: rope must have a head_dim, got 8
    posenc.testing.heads(8, seq=4)
TypeError: source must be a posenc.Rope, got 8
    posenc.rerotate.rerotate(x, source=8, target=rope)
TypeError: expected must be a posenc.Rope, got 'config.json'
    posenc.checks.identify(rope, 8, expected="config.json")
ValueError: expected, axes and heads are for a rotation, not for a bias
    posenc.checks.identify(posenc.alibi_bias, kind="bias", expected=rope)
TypeError: like must be 'numpy', 'torch', an array or a tensor, got 3
    posenc.checks.check_rope(rope, rope, like=3)
TypeError: actual must be an array or a tensor, got None
    posenc.checks.explain_mismatch(None, x, x=x, rope=rope)
ValueError: actual and expected must have one shape, got (2, 3, 4, 8) and (2, 1, 4, 8)
    posenc.checks.explain_mismatch(x, k)
ValueError: fn answers at no position, ...called with numpy arrays of shape (1, 2, 2, 8); ...heads= say ...
    posenc.checks.identify(lambda x, positions: x.detach(), 8, heads=2)
TypeError: x must be an array or a tensor, got [1.0]
    posenc.checks.explain_mismatch(x, x, x=[1.0], rope=rope)
""")
def test_objects(error: str, text: str, call: str) -> None:
    assert_call_refused(error, text, call)


@refused("""
TypeError: conjugate must be True or False, got 'no'
    posenc.gradients.of_x_by_tables(x, cos, sin, layout="half", conjugate="no")
TypeError: per_batch must be True or False, got 1
    posenc.gradients.of_tables(x, x, 4, layout="half", per_batch=1)
TypeError: seq_len must be an integer, got 'x'
    posenc.gradients.of_x(rope, x, seq_len="x")
    posenc.gradients.of_frequencies(rope, x, x, seq_len="x")
ValueError: order must be one of 'ij', 'xy', got 'hw'
    posenc.positions.diagnose(np.arange(4), order="hw")
ValueError: scheme must be one of 'contiguous', 'zigzag', got 'zig'
    posenc.positions.diagnose(np.arange(4), scheme="zig")
ValueError: beyond must be one of 'transformers', 'microsoft', got 'hf'
    posenc.bias.deberta_index([1], 4, beyond="hf")
    posenc.bias.add_disentangled_bias(new(2, 4, 4), c2p=new(2, 4, 8), beyond="hf")
TypeError: max_distance must be an integer, got None
    posenc.bias.deberta_index([1], 4, max_distance=None)
    posenc.bias.disentangled_bias(c2p=new(2, 4, 8), query_len=4, key_len=4, max_distance=None)
""")
def test_flags_and_words(error: str, text: str, call: str) -> None:
    assert_call_refused(error, text, call)


@refused("""
TypeError: divisors must be a sequence of numbers, got {1.0}
    posenc.scaling.Divisors({1.0})
TypeError: periods must be a sequence of numbers, got b'ab'
    posenc.scaling.Periods(b"ab")
TypeError: shape must be a sequence of integers, got {3}
    posenc.positions.grid({3})
    posenc.sinusoidal_grid({3}, 8, convention="mae")
TypeError: new_shape must be a sequence of integers, got b'xy'
    posenc.resize_table(new(4, 8), b"xy")
TypeError: sections must be a sequence of integers, got {8: 0}
    posenc.axes.mrope(16, {8: 0}, layout="half")
TypeError: axes must be a sequence of integers, got 1.5
    posenc.axes.from_bands(8, [[1.0, 0.5], [1.0, 0.5]], layout="half", axes=1.5)
TypeError: c2p must be real numbers, got complex64
    posenc.bias.Disentangled(c2p=np.ones((2, 4, 8), np.complex64))
TypeError: rows must be real numbers, got bool
    posenc.bias.Decomposed(np.ones((1, 2, 2, 2), bool), new(1, 2, 2, 2))
""")
def test_sequences(error: str, text: str, call: str) -> None:
    assert_call_refused(error, text, call)


@refused("""
ValueError: seq must be at most 4611686018427387904, got 9223372036854775808
    posenc.positions.bart(1 << 63)
    posenc.positions.with_offsets(1 << 63, [0, 1])
ValueError: new_shape must be at most 4611686018427387904, got 9223372036854775808
    posenc.resize_table(new(4, 8), 1 << 63, mode="linear")
ValueError: count must be at most 4611686018427387904, got 9223372036854775808
    posenc.axes.pixel_bands(1 << 63, 256.0)
ValueError: factor must be positive and finite, got nan
    posenc.scaling.mscale_of(float("nan"))
ValueError: mscale must be finite, got inf
    posenc.scaling.mscale_of(2.0, float("inf"))
ValueError: length must be positive and finite, got nan
    posenc.config.unturned(rope, float("nan"))
""")
def test_counts(error: str, text: str, call: str) -> None:
    assert_call_refused(error, text, call)


@given(position_ids(10, most=4))
def test_drawn_positions_stay_below_the_largest(drawn: np.ndarray) -> None:
    assert drawn.shape == (10,)
    assert 0 <= drawn.min() <= drawn.max() <= 4


def test_axes_of_an_array_are_not_ignored() -> None:
    """An array is a sequence too; it was taken for no axes at all."""
    bands = [[1.0, 0.5], [0.7, 0.3]]
    listed = axes.from_bands(8, bands, layout="half", axes=[1, 0])
    assert axes.from_bands(8, bands, layout="half", axes=np.array([1, 0])) == listed
    assert listed != axes.from_bands(8, bands, layout="half")
    with pytest.raises(ValueError, match="axes must name an axis for each of 2 blocks"):
        axes.from_bands(8, bands, layout="half", axes=np.array([1, 2]))
