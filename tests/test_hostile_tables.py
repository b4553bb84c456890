"""Tables, wrong in every way: the right exception, its whole message, and no byte of any array changed."""

from __future__ import annotations

import pytest

from conftest import assert_same_bits, run_python
from hostile import Arrays, assert_call_refused, refused


@refused("""
ValueError: cos and sin of width 8 rotate 16 elements from rotary_offset 0 on, but head_dim is 8; tables are half ...
    apply(x, np.tile(cos, 2), np.tile(sin, 2))
ValueError: cos and sin of width 0 rotate 0 elements from rotary_offset 0 on, but head_dim is 8; tables are half ...
    apply(x, cos[:, :0], sin[:, :0])
ValueError: cos and sin of width 4 rotate 8 elements from rotary_offset 2 on, but head_dim is 8; tables are half ...
    apply(rotary_offset=2)
ValueError: cos and sin of width 3 rotate 6 elements from rotary_offset 2 on, but head_dim is 7; tables are half ...
    apply(new(4, 7), cos[:, :3], sin[:, :3], rotary_offset=2)
ValueError: cos and sin of width 4 rotate 8 elements from rotary_offset 4611686018427387904 on, but head_dim is 8; ...
    apply(rotary_offset=2**62)
ValueError: cos must have shape (rows, rotary_dim/2) or (batch, rows, rotary_dim/2), got (4,)
    apply(x, cos[0], sin[0])
ValueError: cos must have shape (rows, rotary_dim/2) or (batch, rows, rotary_dim/2), got (1, 1, 64, 4)
    apply(x, cos[None, None], sin[None, None])
ValueError: sin must have the shape of cos, (64, 4), got (63, 4)
    apply(x, cos, sin[1:])
TypeError: cos must be float32 for this x (half-width tables are float32, and float64 for float64 x), got float64
    apply(x, cos.astype(np.float64), sin)
TypeError: cos must be float64 for this x (half-width tables are float32, and float64 for float64 x), got float32
    apply(new(2, 4, 8, dtype=np.float64))
TypeError: sin must be float32 for this x (half-width tables are float32, and float64 for float64 x), got float16
    apply(x, cos, sin.astype(np.float16))
TypeError: cos must be float32 for this x (half-width tables are float32, and float64 for float64 x), got complex64
    apply(x, cos.astype(np.complex64), sin)
TypeError: cos must be float32 for this x (half-width tables are float32, and float64 for float64 x), got >f4
    apply(x, cos.astype(swapped(np.float32)), sin)
ValueError: cos must have batch 1 or 2 (x's first axis), got shape (3, 64, 4)
    apply(x, np.stack([cos] * 3), np.stack([sin] * 3))
ValueError: cos has a batch axis, shape (2, 64, 4), but x has none before its sequence axis
    apply(x[0, 0], np.stack([cos] * 2), np.stack([sin] * 2))
    apply(x, np.stack([cos] * 2), np.stack([sin] * 2), seq_axis=0)
IndexError: position 3 is outside the table, which has rows 0 to 2
    apply(x, cos[:3], sin[:3], out=x)
    apply(x[:, :, :1], cos[:3], sin[:3], positions=[3])
IndexError: position ... is outside the table, which has rows 0 to -1
    apply(x, cos[:0], sin[:0])
IndexError: position 64 is outside the table, which has rows 0 to 63
    apply(positions=[0, 63, 64, 1], out=x)
    apply(positions=[[0] * 4, [0, 0, 0, 64]])
    apply(offset=61)
    apply(offset=[0, 61], out=x)
IndexError: position -1 is outside the table, which has rows 0 to 63
    apply(positions=[0, 1, 2, -1], out=x)
    apply(offset=-1)
IndexError: position 9223372036854775807 is outside the table, which has rows 0 to 63
    apply(positions=np.full(4, 2**63 - 1))
    apply(offset=[0, 2**63 - 1])
IndexError: position 9223372036854775806 is outside the table, which has rows 0 to 63
    apply(offset=[0, 2**63 - 2])
IndexError: position -9223372036854775808 is outside the table, which has rows 0 to 63
    apply(positions=np.full(4, -2**63))
    apply(offset=-2**63)
TypeError: positions that select table rows must be integers, got floats
    apply(positions=[0.0, 1.0, 2.0, 3.0])
    apply(positions=np.full((2, 4), np.nan, np.float32))
TypeError: ...'layout'
    posenc.apply_rotary_emb(x, cos, sin)
ValueError: layout must be one of 'half', 'interleaved', 'interleaved_to_half', got 'neox'
    apply(layout="neox")
ValueError: rotary_offset must be at least 0, got -1
    apply(rotary_offset=-1)
TypeError: rotary_offset must be an integer, got 1.0
    apply(rotary_offset=1.0)
TypeError: rotary_offset must be an integer, got None
    apply(rotary_offset=None)
ValueError: axis_of_freq must have shape (1,), got (2,)
    table(4, [1.0], axis_of_freq=[0, 1])
ValueError: scale must be finite, got nan
    table(4, [1.0], scale=np.nan)
ValueError: scale must be finite, got -inf
    table(4, [1.0], scale=-np.inf)
TypeError: dtype must be float32 or float64, got None
    rope.table(4, dtype=None)
    dynamic.table(4, dtype=None)
    table(4, [1.0], dtype=None)
TypeError: dtype must be float32 or float64, got float16
    table(4, [1.0], dtype=np.float16)
    rope.table(4, dtype=np.float16)
TypeError: dtype must be float32 or float64, got int64
    rope.table(4, dtype=np.int64)
TypeError: dtype must be float32 or float64, got >f4
    rope.table(4, dtype=swapped(np.float32))
TypeError: dtype must be float32 or float64, got 'nonsense'
    rope.table(4, dtype="nonsense")
TypeError: dtype must be float32 or float64, got 0
    rope.table(4, dtype=0)
TypeError: dtype must be float32 or float64, got ndarray of shape (2, 3, 4, 8) and dtype float32
    rope.table(4, dtype=x)
TypeError: dtype must be float32 or float64, got bfloat16
    rope.table(4, dtype=torch.bfloat16)
ValueError: out[0] must have shape (4, 4) for these positions and frequencies, got (64, 4)
    rope.table(4, out=(cos, sin))
ValueError: out[1] must have shape (4, 4) for these positions and frequencies, got (64, 4)
    rope.table(4, out=(cos[:4], sin))
ValueError: out[0] must have shape (1, 4, 4) for these positions and frequencies, got (4, 4)
    rope.table(np.zeros((1, 4)), out=(cos[:4], sin[:4]))
TypeError: out[0] must be float64, as dtype says, got float32
    rope.table(4, dtype=np.float64, out=(cos[:4], sin[:4]))
TypeError: out[1] must be float32, as dtype says, got float16
    rope.table(4, out=(cos[:4], new(4, 4, dtype=np.float16)))
TypeError: out[1] must be float32, as dtype says, got >f4
    rope.table(4, out=(cos[:4], new(4, 4, dtype=swapped(np.float32))))
TypeError: out must be a pair of arrays, one for cos and one for sin, got <class 'numpy.ndarray'>
    rope.table(64, out=cos)
TypeError: out must be a pair of arrays, one for cos and one for sin, got 1 of them
    rope.table(64, out=(cos,))
TypeError: out must be a pair of arrays, one for cos and one for sin, got 3 of them
    rope.table(64, out=(cos, sin, cos))
""")
def test_tables(error: str, text: str, call: str) -> None:
    assert_call_refused(error, text, call)


BEHIND_THE_HEAD = """
import sys
import numpy as np, posenc
x = np.ones((2, 3, 4, 8), np.float32)
cos, sin = posenc.Rope(8, layout="half").table(64)
try:
    posenc.apply_rotary_emb(x, cos, sin, layout="half", rotary_offset=int(sys.argv[1]), out=np.empty_like(x))
except ValueError as error:
    print("rotary_offset" in str(error))
"""


@pytest.mark.parametrize("offset", [2**64 - 8, 2**64 - 1, 2**64 - 4])
def test_rotary_offset_that_wraps(offset: int) -> None:
    assert run_python(BEHIND_THE_HEAD, offset) == "True"


@pytest.mark.parametrize("batch", [1, 2])
def test_offset_of_one_row_into_tables(batch: int) -> None:
    """[5] means 5, as for a Rope."""
    arrays = Arrays()
    x = arrays.x[:batch]
    assert_same_bits(arrays.apply(x, offset=[5]), arrays.apply(x, offset=5))
