"""Where to write, wrong in every way: the right exception, its whole message, and no byte of any array changed."""

from __future__ import annotations

import numpy as np

from conftest import assert_refused, run_python
from hostile import Arrays, assert_call_refused, refused


@refused("""
ValueError: out must have the shape of x, (2, 3, 4, 8), got (2, 3, 4, 6)
    rope(x, out=new(2, 3, 4, 6))
ValueError: out must have the shape of x, (2, 3, 4, 8), got (3, 4, 8)
    rope(x, out=new(3, 4, 8))
    apply(out=new(3, 4, 8))
ValueError: out must have the shape of x, (2, 3, 4, 8), got (1, 3, 4, 8)
    rope(x, out=x[:1])
ValueError: out[1] must have the shape of k, (2, 1, 4, 8), got (2, 3, 4, 8)
    rope(x, k, out=(x, y))
TypeError: out must have the dtype of x, float32, got float64
    rope(x, out=new(2, 3, 4, 8, dtype=np.float64))
TypeError: out must have the dtype of x, float32, got float16
    rope(x, out=new(2, 3, 4, 8, dtype=np.float16))
TypeError: out must have the dtype of x, float32, got bfloat16
    apply(x, out=new(2, 3, 4, 8, dtype=bfloat16))
BufferError: out is read-only
    rope(x, out=read_only(2, 3, 4, 8))
    rope((r := read_only(4, 8)), out=r)
    rope(x[0, 0], out=np.frombuffer(bytes(128), np.float32).reshape(4, 8))
    apply(out=read_only(2, 3, 4, 8))
BufferError: out[1] is read-only
    rope(x, k, out=(x, read_only(2, 1, 4, 8)))
    rope.table(4, out=(cos[:4], read_only(4, 4)))
ValueError: out stores several elements in the same memory (an expanded or overlapping view); pass an array of its own
    rope(x, out=as_strided(y, strides=(0, 128, 32, 4)))
    rope(x, out=as_strided(y, strides=(384, 128, 32, 0)))
    rope((s := as_strided(y, strides=(384, 128, 0, 4))), out=s)
    rope(x[0, 0], out=as_strided(new(40), (4, 8), (16, 4)))
    rope((s := as_strided(new(40), (4, 8), (4, 4))), out=s)
    rope((s := as_strided(new(40)[4:], (4, 8), (-4, 4))), out=s)
    apply(out=as_strided(y, strides=(384, 0, 32, 4)))
ValueError: out[0] stores several elements in the same memory (an expanded or overlapping view); ...
    rope.table(4, out=(as_strided(cos, (4, 4), (0, 4)), sin[:4]))
ValueError: x and out overlap in memory; they must be the same array or disjoint
    rope(part(0), out=part(1))
    rope(part(1), out=part(0))
    rope(part(0), out=part(8))
    rope(part(8), out=part(0))
    rope(x, out=x[::-1])
    rope(x, out=x[..., ::-1])
    Rope(4)((s := new(4, 4)), out=s.T)
    rope((s := new(4, 4, 8))[:2], out=s[1:3])
    rope((s := new(8, 8))[:4], out=s[::2])
    apply(part(0), out=part(2))
TypeError: out must be a pair of arrays, one for q and one for k, got <class 'numpy.ndarray'>
    rope(x, k, out=x)
TypeError: out must be a pair of arrays, one for q and one for k, got 1 of them
    rope(x, k, out=(x,))
TypeError: out must be a pair of arrays, one for q and one for k, got 3 of them
    rope(x, k, out=[x, k, y])
TypeError: out must be a pair of arrays, one for q and one for k, got <class 'dict'>
    rope(x, k, out=dict(q=x, k=k))
TypeError: out must be a pair of arrays, one for q and one for k, got <class 'int'>
    rope(x, k, out=5)
TypeError: out[1] must be a NumPy array or a torch CPU tensor, got <class 'NoneType'>
    rope(x, k, out=(x, None))
TypeError: out must be a NumPy array or a torch CPU tensor, got <class 'tuple'>
    rope(x, out=(x,))
ValueError: out[0] and out[1] overlap in memory; they must be the same array or disjoint
    rope(x, x, out=(x, x))
    rope(part(0), part(8), out=(part(0), part(8)))
    rope.table(4, out=(cos[:4], cos[3:7]))
ValueError: out[0] and k overlap in memory; they must be the same array or disjoint
    rope(x, y, out=(y, x))
    rope(x, y, out=(y, new(2, 3, 4, 8)))
    rope(new(4, 8), part(8), out=(part(0), new(4, 8)))
ValueError: out[1] and q overlap in memory; they must be the same array or disjoint
    rope(x, y, out=(new(2, 3, 4, 8), x))
ValueError: k and out[1] overlap in memory; they must be the same array or disjoint
    rope(x[0, 0], part(0), out=(x[0, 0], part(1)))
ValueError: out and cos overlap in memory; they must be the same array or disjoint
    apply(x[0, 0], out=cos[:8].reshape(4, 8))
    apply((s := new(4, 8)), s[:, :4], sin[:4], out=s)
ValueError: out and sin overlap in memory; they must be the same array or disjoint
    apply(x[0, 0], out=sin[1:9].reshape(4, 8))
ValueError: layout interleaved_to_half rotates at most 2048 elements of a head in place, got 2050; pass another out
    Rope(2050, layout="interleaved_to_half")((s := new(2, 2050)), out=s)
    Rope(2050, layout="interleaved_to_half")((s := new(2, 2050)), inverse=True, out=s)
""")
def test_out(error: str, text: str, call: str) -> None:
    assert_call_refused(error, text, call)


# ---- positions that a call would overwrite ----

ROWS_IN_THE_OUTPUT = """
import numpy as np, posenc
x = np.zeros((2000, 8))
x[:, 4:] = 1.0
x.view(np.int64)[:, 0] = np.arange(2000) % 60
cos, sin = posenc.Rope(8, layout="half").table(64, dtype=np.float64)
try:
    posenc.apply_rotary_emb(x, cos, sin, layout="half", positions=x.view(np.int64)[::-1, 0], out=x)
except ValueError as error:
    print("positions" in str(error) and "overlap" in str(error))
"""


def test_positions_in_the_output() -> None:
    assert run_python(ROWS_IN_THE_OUTPUT) == "True"


def test_positions_and_offset_in_the_output() -> None:
    arrays = Arrays()
    a = arrays
    x = a.new(8, 8, dtype=np.float64)
    x[:, 0] = np.arange(8)
    assert_refused(ValueError, "positions", lambda: a.rope(x, positions=x[::-1, 0], out=x), *a.watched)
    y = a.watch(np.zeros((2, 4, 8)))
    offset = y.view(np.int64)[:, 0, 0]
    assert_refused(ValueError, "offset", lambda: a.rope(y, offset=offset, out=y), *a.watched)
    at = a.new(8, dtype=np.float64)
    tables = (at.reshape(2, 4), a.new(2, 4, dtype=np.float64))
    assert_refused(ValueError, "positions", lambda: a.rope.table(at[:2], dtype=np.float64, out=tables), *a.watched)
