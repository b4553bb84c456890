"""Every argument wrong in every way: the right exception, its whole message, and no byte of any array changed.

The tables below read: an exception with its text ("..." stands for anything), then the calls that raise it. The text is
part of the promise: it names the argument, what was expected and what came.
"""

from __future__ import annotations

import builtins
import functools
import re
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from numpy.lib.stride_tricks import as_strided

import posenc
from conftest import OtherArray, assert_refused, assert_same_bits, assert_untouched, run_python
from posenc.scaling import InverseFrequencies

FLOATS = (np.float32, np.float64, np.float16, ml_dtypes.bfloat16)
LIMIT = "positions must be finite, with |position| and |position * inv_freq| below 2**31"


class Dynamic:
    """A scaling that asks for the sequence length."""

    depends_on_length = True

    def frequencies(
        self, rotary_dim: int, base: float, seq_len: int | None = None, precision: str = "exact"
    ) -> tuple[np.ndarray, float]:
        return np.ones(rotary_dim // 2), 1.0

    def effective_length(self, seq_len: int) -> int:
        return seq_len


class Arrays:
    """Arguments that are right, and the list of all arrays that a refused call must leave alone."""

    def __init__(self) -> None:
        self.watched: list[Any] = []
        self.rope = posenc.Rope(8, layout="half")
        self.x, self.y = self.new(2, 3, 4, 8), self.new(2, 3, 4, 8)
        self.k, self.z = self.new(2, 1, 4, 8), self.new(2, 1, 4, 8)
        self.cos, self.sin = (self.watch(table) for table in self.rope.table(64))
        self.shared = self.new(48)

    def watch(self, array: Any) -> Any:
        self.watched.append(array)
        return array

    def new(self, *shape: int, dtype: Any = np.float32) -> Any:
        return self.watch(np.linspace(-3, 3, int(np.prod(shape))).astype(dtype).reshape(shape))

    def read_only(self, *shape: int) -> Any:
        array = self.new(*shape)
        array.flags.writeable = False
        return array

    def misaligned(self, *shape: int) -> Any:
        return self.watch(np.ndarray(shape, np.float32, np.zeros(4 * int(np.prod(shape)) + 1, np.uint8).data, 1))

    def part(self, start: int) -> Any:
        """Return a (4, 8) view of one buffer that all parts share."""
        return self.shared[start : start + 32].reshape(4, 8)

    def apply(self, *given: Any, **named: Any) -> Any:
        """Call apply_rotary_emb, with what is not given as it should be."""
        arrays = (*given, *(self.x, self.cos, self.sin)[len(given) :])
        return posenc.apply_rotary_emb(*arrays, **{"layout": "half", **named})

    def names(self) -> dict[str, Any]:
        """Return what the calls of the tables can use."""
        return {
            **{name: getattr(self, name) for name in dir(self) if not name.startswith("_")},
            **{
                "np": np,
                "posenc": posenc,
                "bfloat16": ml_dtypes.bfloat16,
                "as_strided": as_strided,
                "InverseFrequencies": InverseFrequencies,
            },
            "Rope": functools.partial(posenc.Rope, layout="half"),
            "table": posenc.rotary_table,
            "permute": posenc.permute_rotary_weights,
            "dynamic": posenc.Rope(8, layout="half", scaling=Dynamic()),
            "grid": posenc.Rope(8, layout="half", axis_of_freq=[0, 1, 0, 1]),
            "swapped": lambda dtype: np.dtype(dtype).newbyteorder("S"),
            "masked": np.ma.masked_array,
            "MaskedSubclass": type("Subclass", (np.ma.MaskedArray,), {}),
            "huge": 2**70,
        }


@pytest.fixture
def arrays() -> Arrays:
    return Arrays()


def refused(table: str) -> pytest.MarkDecorator:
    """Return the parametrization of a table: (exception, text, call)."""
    cases, error, text = [], "", ""
    for line in filter(None, table.splitlines()):
        if line.startswith("# "):
            continue
        if not line.startswith(" "):
            error, text = line.split(": ", 1)
        else:
            cases.append(pytest.param(error, text, line.strip(), id=line.strip()))
    return pytest.mark.parametrize(("error", "text", "call"), cases)


def assert_call_refused(error: str, text: str, call: str, arrays: Arrays) -> None:
    """Exactly this exception, with all of its text, and every array as it was."""
    names = arrays.names()
    pattern = re.escape(text).replace(r"\.\.\.", ".*")
    with assert_untouched(*arrays.watched), pytest.raises(Exception) as caught:
        eval(call, names)
    assert caught.type is getattr(builtins, error), f"{caught.type.__name__}: {caught.value}"
    assert re.fullmatch(pattern, str(caught.value), re.DOTALL), f"{caught.value}\ninstead of\n{text}"


@refused("""
ValueError: head_dim must be at least 1, got 0
    Rope(0)
ValueError: head_dim must be at least 1, got -8
    Rope(-8)
TypeError: head_dim must be an integer, got 8.0
    Rope(8.0)
TypeError: head_dim must be an integer, got '8'
    Rope("8")
TypeError: head_dim must be an integer, got None
    Rope(None)
TypeError: head_dim must be an integer, got True
    Rope(True)
TypeError: ...'layout'
    posenc.Rope(8)
TypeError: ...positional...
    posenc.Rope(8, "half")
ValueError: layout must be one of 'half', 'interleaved', 'interleaved_to_half', got 'neox'
    Rope(8, layout="neox")
ValueError: layout must be one of 'half', 'interleaved', 'interleaved_to_half', got None
    Rope(8, layout=None)
ValueError: layout must be one of 'half', 'interleaved', 'interleaved_to_half', got b'half'
    Rope(8, layout=b"half")
ValueError: layout must be one of 'half', 'interleaved', 'interleaved_to_half', got ['half']
    Rope(8, layout=["half"])
ValueError: base must be positive and finite, got 0
    Rope(8, base=0)
ValueError: base must be positive and finite, got -1.0
    Rope(8, base=-1.0)
ValueError: base must be positive and finite, got nan
    Rope(8, base=np.nan)
ValueError: base must be positive and finite, got inf
    Rope(8, base=np.inf)
ValueError: base must lie between 1e-300 and 1e300, got 5e-324
    Rope(8, base=5e-324)
ValueError: rotary_dim must be even or equal to head_dim (64), got 21
    Rope(64, rotary_dim=21)
ValueError: rotary_dim must be even or equal to head_dim (8), got 7
    Rope(8, rotary_offset=1)
ValueError: rotary_dim must be at least 1, got 0
    Rope(8, rotary_dim=0)
TypeError: rotary_dim must be an integer, got 4.0
    Rope(8, rotary_dim=4.0)
TypeError: rotary_dim must be an integer, got True
    Rope(8, rotary_dim=True)
ValueError: rotary_offset + rotary_dim must be at most head_dim (8), got 0 + 10
    Rope(8, rotary_dim=10)
    Rope(8, inv_freq=np.ones(5))
ValueError: rotary_offset + rotary_dim must be at most head_dim (8), got 6 + 4
    Rope(8, rotary_dim=4, rotary_offset=6)
ValueError: rotary_offset + rotary_dim must be at most head_dim (8), got 8 + 0
    Rope(8, rotary_offset=8)
ValueError: rotary_offset + rotary_dim must be at most head_dim (8), got 0 + 1180591620717411303424
    Rope(8, rotary_dim=huge)
ValueError: rotary_offset + rotary_dim must be at most head_dim (8), got 1180591620717411303424 + 4
    Rope(8, rotary_dim=4, rotary_offset=huge)
ValueError: rotary_offset must be at least 0, got -2
    Rope(8, rotary_offset=-2)
TypeError: rotary_offset must be an integer, got 0.0
    Rope(8, rotary_offset=0.0)
TypeError: rotary_offset must be an integer, got None
    Rope(8, rotary_offset=None)
ValueError: inv_freq must have shape (rotary_dim/2,), got (0,)
    Rope(8, inv_freq=[])
    table(4, [])
ValueError: inv_freq must have shape (rotary_dim/2,), got ()
    Rope(8, inv_freq=1.0)
ValueError: inv_freq must have shape (rotary_dim/2,), got (1, 4)
    Rope(8, inv_freq=np.ones((1, 4)))
ValueError: inv_freq must be finite, got nan
    Rope(8, inv_freq=[1, 1, 1, np.nan])
    Rope(8, scaling=InverseFrequencies((1.0, 1.0, 1.0, np.nan)))
    table(4, [np.nan])
ValueError: inv_freq must be finite, got -inf
    Rope(8, inv_freq=[1, 1, 1, -np.inf])
TypeError: inv_freq must be float32 or float64, got complex128
    Rope(8, inv_freq=[1j] * 4)
TypeError: inv_freq must be float32 or float64, got <U1
    Rope(8, inv_freq=["a"] * 4)
TypeError: inv_freq must be float32 or float64, got bool
    Rope(8, inv_freq=[True] * 4)
TypeError: inv_freq must be float32 or float64, got float16
    Rope(8, inv_freq=np.ones(4, np.float16))
    table(4, np.ones(4, np.float16))
TypeError: inv_freq must be float32 or float64, got bfloat16
    Rope(8, inv_freq=np.ones(4, bfloat16))
TypeError: inv_freq must be float32 or float64, got object
    Rope(8, inv_freq=[huge] * 4)
ValueError: ...inhomogeneous...
    Rope(8, inv_freq=[[1], [1, 2]])
    Rope(8, axis_of_freq=[[0], [0, 0, 0]])
ValueError: inv_freq must have 2 frequencies for rotary_dim 4, got 3
    Rope(8, inv_freq=np.ones(3), rotary_dim=4)
ValueError: inv_freq excludes base and scaling: it says all that they would
    Rope(8, inv_freq=np.ones(4), base=5e5)
    Rope(8, inv_freq=np.ones(4), scaling=InverseFrequencies((1.0,) * 4))
ValueError: axis_of_freq must have shape (4,), got (3,)
    Rope(8, axis_of_freq=[0, 1, 2])
ValueError: axis_of_freq must have shape (4,), got (1, 4)
    Rope(8, axis_of_freq=[[0] * 4])
TypeError: axis_of_freq must be integers, got float64
    Rope(8, axis_of_freq=[0.0] * 4)
TypeError: axis_of_freq must be integers, got bool
    Rope(8, axis_of_freq=[True] * 4)
TypeError: axis_of_freq must be integers, got <U1
    Rope(8, axis_of_freq=list("abcd"))
ValueError: axis_of_freq must lie between 0 and 7, got -1 to 1
    Rope(8, axis_of_freq=[0, 1, -1, 0])
ValueError: axis_of_freq must lie between 0 and 7, got 0 to 8
    Rope(8, axis_of_freq=[0, 1, 8, 0])
ValueError: axis_of_freq must lie between 0 and 7, got 0 to 18446744073709551615
    Rope(8, axis_of_freq=np.array([0, 0, 0, 2**64 - 1], np.uint64))
ValueError: precision must be one of 'exact', 'float32', got 'float64'
    Rope(8, precision="float64")
    table(4, [1.0], precision="float64")
ValueError: precision must be one of 'exact', 'float32', got None
    Rope(8, precision=None)
ValueError: scaling must give 4 frequencies for rotary_dim 8, got 3
    Rope(8, scaling=InverseFrequencies((1.0,) * 3))
ValueError: attention_factor must be positive and finite, got 0.0
    Rope(8, scaling=InverseFrequencies((1.0,) * 4, 0.0))
TypeError: ...'theta'
    Rope(8, theta=1e4)
AttributeError: a Rope is immutable; make another one with a different base
    setattr(rope, "base", 5e5)
AttributeError: a Rope is immutable
    delattr(rope, "base")
ValueError: ...read-only
    rope.inv_freq.fill(0)
ValueError: seq_len must be at least 1, got 0
    rope.at(0)
TypeError: seq_len must be an integer, got 1.5
    rope.at(1.5)
""")
def test_rope_parameters(error: str, text: str, call: str, arrays: Arrays) -> None:
    assert_call_refused(error, text, call, arrays)


@refused("""
ValueError: x must have a sequence axis and a head_dim axis, (..., seq, head_dim); got 0 axes
    rope(watch(np.array(1, np.float32)))
    apply(watch(np.array(1, np.float32)))
ValueError: x must have a sequence axis and a head_dim axis, (..., seq, head_dim); got 1 axes
    rope(new(8))
    apply(new(8))
ValueError: k must have a sequence axis and a head_dim axis, (..., seq, head_dim); got 1 axes
    rope(x, new(8))
ValueError: x must have at most 32 axes, got 33
    rope(new(*[1] * 31, 4, 8))
ValueError: x must have head_dim 8 in its last axis, got 7
    rope(new(2, 3, 4, 7))
ValueError: x must have head_dim 8 in its last axis, got 0
    rope(x[..., :0])
ValueError: q must have head_dim 8 in its last axis, got 6
    rope(x[..., :6], k)
ValueError: k must have head_dim 8 in its last axis, got 16
    rope(x, new(2, 1, 4, 16))
ValueError: q and k must have the same number of axes, got 4 and 3
    rope(x, k[0])
ValueError: q and k must have the same sequence length, got 4 and 3; rotate them in two calls
    rope(x, k[:, :, :3])
TypeError: q and k must have the same dtype; rotate them in two calls
    rope(x, new(2, 1, 4, 8, dtype=np.float64))
    rope(x, new(2, 1, 4, 8, dtype=np.float64), out=(x, k))
ValueError: q and k must have the same batch for per-row positions, got 2 and 1
    rope(x, k[:1], offset=[1, 2])
    rope(x, k[:1], positions=np.zeros((2, 4)), out=(x, k[:1]))
ValueError: x is not aligned to its element size; pass a copy
    rope(misaligned(4, 8))
    apply(misaligned(4, 8))
    rope(watch(np.zeros((4, 8), [("f", "f4"), ("b", "u1")]))["f"])
ValueError: k is not aligned to its element size; pass a copy
    rope(x[0, 0], misaligned(4, 8))
ValueError: out is not aligned to its element size; pass a copy
    rope(x[0, 0], out=misaligned(4, 8))
ValueError: cos is not aligned to its element size; pass a copy
    apply(x, misaligned(64, 4))
ValueError: out[0] is not aligned to its element size; pass a copy
    rope.table(4, out=(misaligned(4, 4), sin[:4]))
TypeError: ...'q'
    rope()
TypeError: ...'axis'
    rope(x, axis=1)
TypeError: ...positional...
    rope(x, k, [0, 1, 2, 3])
TypeError: x is a masked array, whose mask would be ignored; pass x.data or x.filled()
    rope(masked(x))
    rope(masked(x), out=x)
    apply(masked(x))
TypeError: q is a masked array, whose mask would be ignored; pass q.data or q.filled()
    rope(masked(x), k)
TypeError: k is a masked array, whose mask would be ignored; pass k.data or k.filled()
    rope(x, masked(k))
TypeError: out is a masked array, whose mask would be ignored; pass out.data or out.filled()
    rope(x, out=masked(x))
TypeError: out[0] is a masked array, whose mask would be ignored; pass out[0].data or out[0].filled()
    rope.table(64, out=(masked(cos), sin))
TypeError: cos is a masked array, whose mask would be ignored; pass cos.data or cos.filled()
    apply(x, masked(cos))
TypeError: sin is a masked array, whose mask would be ignored; pass sin.data or sin.filled()
    apply(x, cos, masked(sin))
TypeError: positions is a masked array, whose mask would be ignored; pass positions.data or positions.filled()
    rope(x, positions=masked(np.arange(4), [0, 1, 0, 0]))
    rope.table(masked(np.arange(4), [0, 1, 0, 0]))
TypeError: offset is a masked array, whose mask would be ignored; pass offset.data or offset.filled()
    rope(x, offset=masked([1, 2], [0, 1]))
ValueError: seq_axis 4 is out of bounds for x with 4 axes
    rope(x, seq_axis=4)
ValueError: seq_axis -5 is out of bounds for x with 4 axes
    rope(x, seq_axis=-5)
    apply(seq_axis=-5)
ValueError: seq_axis 7 is out of bounds for q with 4 axes
    rope(x, k, seq_axis=7)
ValueError: seq_axis must not be the last axis of x, which is head_dim
    rope(x, seq_axis=3)
    rope(x, seq_axis=-1)
    apply(seq_axis=-1, out=x)
""")
def test_what_is_rotated(error: str, text: str, call: str, arrays: Arrays) -> None:
    assert_call_refused(error, text, call, arrays)


@refused(f"""
ValueError: positions must have shape (seq,) = (4,) or (batch, seq) = (batch, 4), got ()
    rope(x, positions=5)
ValueError: positions must have shape (seq,) = (4,) or (batch, seq) = (batch, 4), got (3,)
    rope(x, positions=[0, 1, 2], out=x)
    apply(positions=[0, 1, 2])
ValueError: positions must have shape (seq,) = (4,) or (batch, seq) = (batch, 4), got (0,)
    rope(x, positions=[])
ValueError: positions must have shape (seq,) = (4,) or (batch, seq) = (batch, 4), got (4, 1)
    rope(x, positions=np.zeros((4, 1)))
ValueError: positions must have shape (seq,) = (4,) or (batch, seq) = (batch, 4), got (1, 1, 4)
    rope(x, positions=np.zeros((1, 1, 4), np.int32))
ValueError: positions must have batch 1 or 2 (the input's first axis), got shape (3, 4)
    rope(x, positions=np.zeros((3, 4)))
ValueError: positions must have at most 32 axes, got 33
    rope(x, positions=np.zeros([1] * 32 + [4]))
ValueError: positions has one row per batch row, shape (2, 4), but the input has no batch axis before its sequence axis
    rope(x[0, 0], positions=np.zeros((2, 4)))
ValueError: positions must have shape (axes, seq) = (2, 4) or (axes, batch, seq) = (2, batch, 4), got (4,)
    grid(x, positions=[0, 1, 2, 3])
ValueError: positions must have shape (axes, seq) = (2, 4) or (axes, batch, seq) = (2, batch, 4), got (3, 4)
    grid(x, positions=np.zeros((3, 4)))
ValueError: positions must have batch 1 or 2 (the input's first axis), got shape (2, 3, 4)
    grid(x, positions=np.zeros((2, 3, 4)))
ValueError: positions must have shape (axes, seq) or (axes, batch, seq) with 2 axes, got (3,)
    grid.table([0, 1, 2])
ValueError: positions must have shape (seq,) or (batch, seq) for frequencies of 1 axis, got (1, 1, 3)
    rope.table([[[0, 1, 2]]])
ValueError: positions must have shape (seq,) or (batch, seq) for frequencies of 1 axis, got ()
    rope.table(3.0)
ValueError: ...inhomogeneous...
    rope(x, positions=[[0, 1], [1]])
    rope(x, offset=[[0, 1], [1]])
TypeError: positions must be integers, float32 or float64, got float16 (half precision cannot count positions)
    rope(x, positions=np.zeros(4, np.float16))
    rope.table(np.zeros(4, np.float16))
TypeError: positions must be integers, float32 or float64, got bfloat16...
    rope(x, positions=np.zeros(4, bfloat16))
TypeError: positions must be integers, float32 or float64, got bool
    rope(x, positions=np.zeros(4, bool), out=x)
    apply(positions=[True] * 4)
TypeError: positions must be integers, float32 or float64, got complex128
    rope(x, positions=[0, 1, 2, 3j])
TypeError: positions must be integers, float32 or float64, got object
    rope(x, positions=np.zeros(4, object))
    rope(x, positions=[huge] * 4)
    rope.table(None)
TypeError: positions must be integers, float32 or float64, got {np.dtype(np.longdouble)}
    rope(x, positions=np.zeros(4, np.longdouble))
TypeError: positions must be integers, float32 or float64, got datetime64[s]
    rope(x, positions=np.zeros(4, "M8[s]"))
TypeError: positions must be integers, float32 or float64, got timedelta64[s]
    rope(x, positions=np.zeros(4, "m8[s]"))
TypeError: positions must be integers, float32 or float64, got |V8
    rope(x, positions=np.zeros(4, "V8"))
TypeError: positions must be integers, float32 or float64, got [('a', '<f4')]
    rope(x, positions=np.zeros(4, [("a", "<f4")]))
TypeError: positions must be integers, float32 or float64, got <U4
    rope(x, positions="0123")
ValueError: a number of positions must not be negative, got -1
    rope.table(-1)
ValueError: {LIMIT}
    rope.table(2**31 + 1)
    rope.table(huge)
    rope(x, offset=2**31)
    rope(x, offset=2**31 - 3)
    rope(x, offset=-2**31)
    rope(x, offset=2**63)
    rope(x, offset=huge)
    rope(x, offset=-huge, out=x)
    rope(x, offset=[0, 2**63 - 1], out=x)
    rope(x, offset=[-2**63, 0], out=x)
TypeError: offset must be an integer or one integer per batch row, shape (batch,), got floats of shape (); ...
    rope(x, offset=1.0)
    rope(x, offset=np.float64(2))
    rope(x, offset=np.array(2.0))
    apply(offset=1.5)
TypeError: ...got floats of shape (2,); fractional positions go through positions=
    rope(x, offset=[1.0, 2.0])
TypeError: offset must be integers, float32 or float64, got complex128
    rope(x, offset=1j)
TypeError: offset must be integers, float32 or float64, got object
    rope(x, offset=None)
TypeError: offset must be integers, float32 or float64, got <U1
    rope(x, offset="1")
TypeError: offset must be integers, float32 or float64, got bool
    rope(x, offset=[True, False])
ValueError: offset must have batch 1 or 2 (the input's first axis), got shape (3,)
    rope(x, offset=[1, 2, 3])
ValueError: offset must have batch 1 or 2 (the input's first axis), got shape (0,)
    rope(x, offset=np.zeros(0, int))
ValueError: ...got integers of shape (1, 2); fractional positions go through positions=
    rope(x, offset=[[1, 2]])
ValueError: offset has one row per batch row, shape (2,), but the input has no batch axis before its sequence axis
    rope(x, seq_axis=0, offset=[1, 2])
ValueError: positions and offset exclude each other: add the offset to the positions
    rope(x, positions=[0, 1, 2, 3], offset=1)
    rope(x, positions=[0, 1, 2, 3], offset=huge, out=x)
    rope(x, positions=[0, 1, 2, 3], offset=[0, 0])
    rope(x, positions=[0, 1, 2, 3], offset=None)
    apply(positions=[0, 1, 2, 3], offset=1)
""")
def test_positions_and_offset(error: str, text: str, call: str, arrays: Arrays) -> None:
    assert_call_refused(error, text, call, arrays)


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
TypeError: out must have the dtype of x
    rope(x, out=new(2, 3, 4, 8, dtype=np.float64))
    rope(x, out=new(2, 3, 4, 8, dtype=np.float16))
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
TypeError: out must be a pair of arrays, one for q and one for k
    rope(x, k, out=x)
    rope(x, k, out=(x,))
    rope(x, k, out=(x, k, y))
    rope(x, k, out=dict(q=x, k=k))
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
def test_out(error: str, text: str, call: str, arrays: Arrays) -> None:
    assert_call_refused(error, text, call, arrays)


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
TypeError: dtype must be float32 or float64, got float16
    table(4, [1.0], dtype=np.float16)
    rope.table(4, dtype=np.float16)
TypeError: dtype must be float32 or float64, got int64
    rope.table(4, dtype=np.int64)
TypeError: dtype must be float32 or float64, got >f4
    rope.table(4, dtype=swapped(np.float32))
TypeError: ...not understood
    rope.table(4, dtype="nonsense")
ValueError: out[0] must have shape (4, 4) for these positions and frequencies, got (64, 4)
    rope.table(4, out=(cos, sin))
ValueError: out[1] must have shape (4, 4) for these positions and frequencies, got (64, 4)
    rope.table(4, out=(cos[:4], sin))
ValueError: out[0] must have shape (1, 4, 4) for these positions and frequencies, got (4, 4)
    rope.table(np.zeros((1, 4)), out=(cos[:4], sin[:4]))
TypeError: out[0] must be float64, as dtype says
    rope.table(4, dtype=np.float64, out=(cos[:4], sin[:4]))
TypeError: out[1] must be float32, as dtype says
    rope.table(4, out=(cos[:4], new(4, 4, dtype=np.float16)))
    rope.table(4, out=(cos[:4], new(4, 4, dtype=swapped(np.float32))))
TypeError: out must be a pair of arrays, one for cos and one for sin
    rope.table(64, out=cos)
    rope.table(64, out=(cos,))
    rope.table(64, out=(cos, sin, cos))
""")
def test_tables(error: str, text: str, call: str, arrays: Arrays) -> None:
    assert_call_refused(error, text, call, arrays)


@refused("""
ValueError: weight must have num_heads * head_dim rows, a multiple of 3, got shape (64, 4)
    permute(cos, 3)
ValueError: weight must have num_heads * head_dim rows, a multiple of 2, got shape ()
    permute(np.array(1.0), 2)
ValueError: weight must have num_heads * head_dim rows, a multiple of 1180591620717411303424, got shape (64, 4)
    permute(cos, huge)
ValueError: num_heads must be at least 1, got 0
    permute(cos, 0)
TypeError: num_heads must be an integer, got True
    permute(cos, True)
TypeError: num_heads must be an integer, got 2.0
    permute(cos, 2.0)
ValueError: rotary_dim must be even and at most head_dim (3), got 3
    permute(cos[:6], 2)
ValueError: rotary_dim must be even and at most head_dim (32), got 3
    permute(cos, 2, rotary_dim=3)
ValueError: rotary_dim must be even and at most head_dim (32), got 34
    permute(cos, 2, rotary_dim=34)
ValueError: rotary_dim must be at least 2, got 0
    permute(cos, 2, rotary_dim=0)
TypeError: rotary_dim must be an integer, got 2.0
    permute(cos, 2, rotary_dim=2.0)
ValueError: source must be one of 'interleaved', 'half', got 'neox'
    permute(cos, 2, source="neox")
ValueError: target must be one of 'interleaved', 'half', got 'interleaved_to_half'
    permute(cos, 2, target="interleaved_to_half")
ValueError: n must be at least 1, got 0
    posenc.set_num_threads(0)
ValueError: n must be at least 1, got -2
    posenc.set_num_threads(-2)
TypeError: n must be an integer or None, got 2.0
    posenc.set_num_threads(2.0)
TypeError: n must be an integer or None, got True
    posenc.set_num_threads(True)
TypeError: n must be an integer or None, got '2'
    posenc.set_num_threads("2")
AttributeError: module 'posenc' has no attribute 'rope'
    posenc.rope
""")
def test_weights_and_threads(error: str, text: str, call: str, arrays: Arrays) -> None:
    before = posenc.get_num_threads()
    assert_call_refused(error, text, call, arrays)
    assert posenc.get_num_threads() == before


# ---- wherever a float array is expected ----

SHAPE = (2, 3, 4, 8)
WRONG_DTYPES = [
    *(np.int64, np.uint8, bool, np.complex64, np.complex128, np.longdouble, object, "M8[s]", "m8[s]", "S4", "U1", "V2"),
    *(np.dtype(kind).newbyteorder("S") for kind in (np.float32, np.float64, np.float16)),
    *([("a", "f4")], ml_dtypes.float8_e5m2, ml_dtypes.int4),
]
NOT_ARRAYS = {"list": [[1.0] * 8], "int": 3, "str": "q", "memoryview": memoryview(b"abcd"), "dict": {}}


@pytest.mark.parametrize("dtype", WRONG_DTYPES, ids=str)
def test_wrong_dtypes(dtype: Any, arrays: Arrays) -> None:
    a, wrong = arrays, arrays.watch(np.zeros(SHAPE, dtype))
    for name, call in (
        ("x", lambda: a.rope(wrong)),
        ("x", lambda: a.rope(wrong, out=wrong)),
        ("q", lambda: a.rope(wrong, a.k)),
        ("k", lambda: a.rope(a.x, wrong)),
        ("out", lambda: a.rope(a.x, out=wrong)),
        ("out[1]", lambda: a.rope(a.x, a.k, out=(a.y, wrong))),
        ("x", lambda: a.apply(wrong)),
        ("out", lambda: a.apply(out=wrong)),
    ):
        text = f"{name} must be float32, float64, float16 or bfloat16 in native byte order, got {wrong.dtype}"
        assert_refused(TypeError, text, call, *a.watched)


@pytest.mark.parametrize("kind", NOT_ARRAYS)
def test_not_arrays(kind: str, arrays: Arrays) -> None:
    a, wrong = arrays, NOT_ARRAYS[kind]
    for name, call in (
        ("x", lambda: a.rope(wrong)),
        ("q", lambda: a.rope(wrong, a.k)),
        ("k", lambda: a.rope(a.x, wrong)),
        ("out", lambda: a.rope(a.x, out=wrong)),
        ("out[0]", lambda: a.rope(a.x, a.k, out=[wrong, a.z])),
        ("x", lambda: a.apply(wrong)),
        ("cos", lambda: a.apply(a.x, wrong)),
        ("sin", lambda: a.apply(a.x, a.cos, wrong)),
        ("out", lambda: a.apply(out=wrong)),
        ("out[1]", lambda: a.rope.table(4, out=(a.cos[:4], wrong))),
    ):
        text = f"{name} must be a NumPy array or a torch CPU tensor, got <class '{kind}'>"
        assert_refused(TypeError, text, call, *a.watched)


# ---- values of positions ----

POSITION_VALUES = {
    "NaN": [0, 1, np.nan, 2],
    "inf": [np.inf, 0, 1, 2],
    "minus inf": [0, 0, 0, -np.inf],
    "NaN before a large one": [np.nan, 1, 2, 2.0**40],
    "float32 NaN": np.full(4, np.nan, np.float32),
    "2**31": [0, 0, 0, 2**31],
    "-2**31": [-(2**31), 0, 0, 0],
    "2**31 as a float": [0, 0, 0, 2.0**31],
    "rounded up to 2**31": np.full(4, 2**31 - 1, np.float32),
    "largest int64": np.full(4, 2**63 - 1),
    "smallest int64": np.full(4, -(2**63)),
    "largest uint64": np.full(4, 2**64 - 1, np.uint64),
}


@pytest.mark.parametrize("name", POSITION_VALUES)
def test_position_values(name: str, arrays: Arrays) -> None:
    a, wrong = arrays, np.asarray(POSITION_VALUES[name])
    rows = np.stack([np.arange(4, dtype=wrong.dtype), wrong])
    for call in (
        lambda: a.rope(a.x, positions=wrong, out=a.x),
        lambda: a.rope(a.x, a.k, positions=rows, out=(a.x, a.k)),
        lambda: a.rope(a.x, positions=wrong[::-1], inverse=True),
        lambda: a.rope.table(rows),
        lambda: posenc.rotary_table(wrong, [1.0] * 4, out=(a.cos[:4], a.sin[:4])),
    ):
        assert_refused(ValueError, LIMIT, call, *a.watched)


@pytest.mark.parametrize("fastest", [1.5, -2.0, 2.0**20, 1e300])
def test_angles_that_reach_the_limit(fastest: float, arrays: Arrays) -> None:
    """|position * inv_freq| is bounded too, by the fastest frequency of each axis."""
    a, inv_freq = arrays, [0.5, fastest, 0.25, 0.0]
    quick = posenc.Rope(8, layout="half", inv_freq=inv_freq)
    first = int(np.ceil(2**31 / abs(fastest)))
    at = [0, 0, 0, first]
    assert_refused(ValueError, LIMIT, lambda: quick(a.x, positions=at, out=a.x), *a.watched)
    assert_refused(ValueError, LIMIT, lambda: quick(a.x, offset=first), *a.watched)
    assert_refused(ValueError, LIMIT, lambda: quick(a.x, offset=[0, -first - 3]), *a.watched)
    axes = posenc.Rope(8, layout="half", inv_freq=inv_freq, axis_of_freq=[0, 1, 0, 0])
    assert_refused(ValueError, LIMIT, lambda: axes(a.x, positions=[[0] * 4, at]), *a.watched)
    assert axes(a.x, positions=[at, [0] * 4]).shape == a.x.shape


def test_the_largest_positions_work(arrays: Arrays) -> None:
    """2**31 - 1 and its negative are positions like others."""
    x = arrays.x[:, :, :1]
    for last in (2**31 - 1, 1 - 2**31):
        assert_same_bits(arrays.rope(x, offset=last), arrays.rope(x, positions=[float(last)]))
    assert arrays.rope(arrays.x, offset=2**31 - 4).shape == SHAPE


# ---- what is odd and right ----


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("shape", [(0, 8), (4, 0, 3, 8), (0, 2, 3, 8), (2, 3, 0, 8), (0, 0, 8), (2**40, 0, 4, 8)])
def test_empty_arrays_work(shape: tuple[int, ...], dtype: Any, arrays: Arrays) -> None:
    """Nothing to rotate is no error: in a new array, in place, by tables, with positions."""
    x, rope = np.empty(shape, dtype), arrays.rope
    q, k = rope(x, x.copy())
    assert q.shape == k.shape == rope(x).shape == shape
    assert q.dtype == k.dtype == dtype
    assert rope(x, out=x) is x
    cos, sin = rope.table(64, dtype=np.float64 if dtype is np.float64 else np.float32)
    assert posenc.apply_rotary_emb(x, cos, sin, layout="interleaved", out=x) is x
    assert rope(x, positions=np.zeros(shape[-2])).shape == shape


def test_empty_positions(arrays: Arrays) -> None:
    """No positions: as [] (which NumPy makes float64), as a number, in rows."""
    rope, none = arrays.rope, np.empty((0, 3, 4, 8), np.float32)
    for nothing in ([], 0, np.zeros(0, np.int32), np.zeros(0, np.float32)):
        cos, sin = rope.table(nothing)
        assert cos.shape == sin.shape == (0, 4)
        assert cos.dtype == sin.dtype == np.float32
    assert rope.table(np.zeros((3, 0)))[0].shape == (3, 0, 4)
    assert rope.table(np.zeros((0, 3)))[0].shape == (0, 3, 4)
    assert rope(none, offset=np.zeros(0, int)).shape == none.shape
    assert rope(none, positions=np.zeros((0, 4))).shape == none.shape


ROW = (0, 3, 1, 200)
ARRAY_LIKE = {
    **{"list": list(ROW), "tuple": ROW, "range": range(3, 7), "mixed": [0, 1.5, -2, 3]},
    **{kind: np.array(ROW, kind) for kind in ("uint8", "uint16", "uint32", "uint64", "int16", "int32", "float32")},
    **{f"{kind} swapped": np.array(ROW, np.dtype(kind).newbyteorder("S")) for kind in ("int32", "int64", "float64")},
    "misaligned": np.ndarray(4, np.int64, bytes(33), 1),
    "read-only": np.frombuffer(np.array(ROW, np.int32).tobytes(), np.int32),
    "reversed": np.array(ROW)[::-1],
    "column": np.array([ROW] * 2).T[:, 0],
    "broadcast": np.broadcast_to(np.float64(7), 4),
}


@pytest.mark.parametrize("name", ARRAY_LIKE)
def test_positions_may_be_any_array_like(name: str, arrays: Arrays) -> None:
    """Whatever NumPy reads as numbers gives the bits of plain float64 positions, in calls and in tables."""
    given, rope, x = ARRAY_LIKE[name], arrays.rope, arrays.x
    plain = np.array(given, np.float64)
    with assert_untouched(*arrays.watched):
        assert_same_bits(rope(x, positions=given), rope(x, positions=plain))
        for found, wanted in zip(rope.table(given), rope.table(plain), strict=True):
            assert_same_bits(found, wanted)


class Seven:
    def __index__(self) -> int:
        return 7


SEVENS = (
    7,
    np.int8(7),
    np.uint64(7),
    np.array(7),
    np.array(7, np.int32),
    Seven(),
    [7],
    (7, 7),
    np.array([7, 7], ">i2"),
)


@pytest.mark.parametrize("seven", SEVENS, ids=repr)
def test_offset_may_be_any_integer(seven: Any, arrays: Arrays) -> None:
    assert_same_bits(arrays.rope(arrays.x, offset=seven), arrays.rope(arrays.x, positions=[7, 8, 9, 10]))


def test_arrays_of_a_subclass_are_arrays(arrays: Arrays, tmp_path: Any) -> None:
    """A memmap is rotated in its file; what comes out new is a plain array."""
    mapped = np.memmap(tmp_path / "x", np.float32, "w+", shape=SHAPE)
    mapped[...] = arrays.x
    assert type(arrays.rope(mapped)) is np.ndarray
    assert arrays.rope(mapped, out=mapped) is mapped
    assert_same_bits(np.asarray(mapped), arrays.rope(arrays.x))


# ---- objects that lie, or fail by themselves ----


class Lying:
    """What __dlpack__ gives, or raises."""

    def __init__(self, capsule: Any) -> None:
        self.capsule = capsule

    def __dlpack__(self, **options: Any) -> Any:
        if isinstance(self.capsule, Exception):
            raise self.capsule
        return self.capsule

    def __dlpack_device__(self) -> tuple[int, int]:
        return (1, 0)


LIES: dict[str, tuple[type[BaseException], str, Any]] = {
    "None": (ValueError, "PyCapsule", None),
    "int": (ValueError, "PyCapsule", 3),
    "array": (ValueError, "PyCapsule", np.ones(3)),
    "refuses": (BufferError, "not on this processor", BufferError("not on this processor")),
    "fails in its own way": (ZeroDivisionError, "mine", ZeroDivisionError("mine")),
}


@pytest.mark.parametrize("name", LIES)
def test_objects_that_lie_about_dlpack(name: str, arrays: Arrays) -> None:
    error, text, capsule = LIES[name]
    a, wrong = arrays, Lying(capsule)
    for call in (
        lambda: a.rope(wrong),
        lambda: a.rope(a.x, wrong),
        lambda: a.rope(a.x, out=wrong),
        lambda: a.rope(a.x, a.k, out=(a.x, wrong)),
        lambda: a.apply(a.x, wrong),
        lambda: a.apply(a.x, a.cos, wrong, out=a.x),
    ):
        assert_refused(error, text, call, *a.watched)


def test_a_capsule_is_used_once(arrays: Arrays) -> None:
    once = Lying(arrays.x.__dlpack__())
    assert_same_bits(arrays.rope(once), arrays.rope(arrays.x))
    assert_refused(ValueError, "PyCapsule", lambda: arrays.rope(once), *arrays.watched)


class NoAttributes:
    def __getattr__(self, name: str) -> Any:
        raise ZeroDivisionError(name)


class FailsAsArray:
    def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
        raise ZeroDivisionError("mine")


def test_objects_that_fail_by_themselves(arrays: Arrays) -> None:
    """What raises on every attribute is no array; an error of __array__ or __index__ is the caller's own."""
    a = arrays
    assert_refused(TypeError, "x must be a NumPy array", lambda: a.rope(NoAttributes()), *a.watched)
    assert_refused(ZeroDivisionError, "mine", lambda: a.rope(a.x, positions=FailsAsArray(), out=a.x), *a.watched)
    assert_refused(ZeroDivisionError, "mine", lambda: a.rope(a.x, offset=FailsAsArray(), out=a.x), *a.watched)


class FailsAsIndex:
    def __index__(self) -> int:
        raise KeyboardInterrupt("mine")


def test_seq_axis_that_fails_by_itself(arrays: Arrays) -> None:
    assert_refused(KeyboardInterrupt, "mine", lambda: arrays.rope(arrays.x, seq_axis=FailsAsIndex()), *arrays.watched)


# ---- what is wrong in a less usual way ----


@refused("""
# the argument is named
TypeError: ...seq_axis...
    rope(x, seq_axis=1.0)
    rope(x, seq_axis=None)
    apply(seq_axis="seq")
    rope(x, seq_axis=np.array([1]))
ValueError: ...seq_axis...
    rope(x, seq_axis=huge)
TypeError: ...head_dim...
    Rope(np.zeros(3, int))
TypeError: base must be a number, got ...
    Rope(8, base=None)
    Rope(8, base=[1.0])
    Rope(8, base="abc")
TypeError: ...scale...
    table(4, [1.0], scale="1")
    table(4, [1.0], scale=1j)
    table(4, [1.0], scale=None)
ValueError: layout must be one of ...
    Rope(8, layout=np.array(["half", "interleaved"]))
# numbers that fit no C type
ValueError: ...head_dim...
    Rope(huge)
    Rope(2**63)
ValueError: ...base...
    Rope(8, base=10**400)
ValueError: ...scale...
    table(4, [1.0], scale=10**400)
ValueError: ...rotary_offset...
    apply(rotary_offset=huge)
TypeError: ...scaling...
    Rope(8, scaling="dynamic")
    Rope(8, scaling={"rope_type": "linear", "factor": 2.0})
TypeError: ...weight...
    permute([1.0, 2.0], 2)
    permute(None, 2)
# a scaling that depends on the length looks at arguments that are checked
TypeError: x must be a NumPy array or a torch CPU tensor, got <class 'list'>
    dynamic([[1.0] * 8])
TypeError: q must be a NumPy array or a torch CPU tensor, got <class 'NoneType'>
    dynamic(None, k)
ValueError: ...seq_axis...
    dynamic(x, seq_axis=9)
TypeError: ...offset...
    dynamic(x, offset="a")
TypeError: ...positions...
    dynamic(x, positions="abcd")
    dynamic.table("abcd")
ValueError: ...positions...
    dynamic(x, positions=[0, 1, 2, np.nan])
    dynamic(x, positions=[0, 1, 2, np.inf])
ValueError: ...offset...
    dynamic(x, offset=np.zeros(0, int))
# casts that overflow
ValueError: inv_freq must be finite...
    Rope(8, inv_freq=[1e300] * 4, precision="float32")
    Rope(8, inv_freq=np.full(4, np.longdouble("1e4000")))
# empty arrays of a wrong dtype
TypeError: positions must be integers, float32 or float64, got complex128
    rope.table(np.zeros(0, complex))
TypeError: positions must be integers, float32 or float64, got bool
    rope(new(2, 0, 8), positions=np.zeros(0, bool))
# masks
TypeError: ...masked...
    Rope(8, inv_freq=masked(np.ones(4), [1, 0, 0, 0]))
    Rope(8, axis_of_freq=masked([0, 1, 1, 0], [1, 0, 0, 0]))
    rope(MaskedSubclass(x))
""")
def test_unusual_mistakes(error: str, text: str, call: str, arrays: Arrays) -> None:
    assert_call_refused(error, text, call, arrays)


def test_offset_that_fails_by_itself(arrays: Arrays) -> None:
    assert_refused(KeyboardInterrupt, "mine", lambda: arrays.rope(arrays.x, offset=FailsAsIndex()), *arrays.watched)


@pytest.mark.parametrize(
    "rows", [{"positions": np.arange(4, dtype=np.uint64)}, {"offset": np.array([1, 2], np.uint64)}]
)
def test_uint64_are_integers(rows: dict[str, Any], arrays: Arrays) -> None:
    signed = {name: value.astype(np.int64) for name, value in rows.items()}
    assert_same_bits(arrays.apply(**rows), arrays.apply(**signed))
    assert_same_bits(arrays.rope(arrays.x, **rows), arrays.rope(arrays.x, **signed))


@pytest.mark.parametrize("batch", [1, 2])
def test_offset_of_one_row_into_tables(batch: int, arrays: Arrays) -> None:
    """[5] means 5, as for a Rope."""
    x = arrays.x[:batch]
    assert_same_bits(arrays.apply(x, offset=[5]), arrays.apply(x, offset=5))


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


def test_positions_and_offset_in_the_output(arrays: Arrays) -> None:
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


def test_wrong_dtype_through_dlpack(arrays: Arrays) -> None:
    whole = OtherArray(np.zeros(SHAPE, np.int64))
    assert_refused(TypeError, "x must be float32", lambda: arrays.rope(whole), *arrays.watched)
    assert_refused(TypeError, "cos must be float32", lambda: arrays.apply(arrays.x, whole), *arrays.watched)


def test_large_arrays_through_dlpack() -> None:
    rope, x = posenc.Rope(64, layout="half"), np.ones((2, 16, 1024, 64), np.float32)
    expected = rope(x)
    assert_same_bits(rope(OtherArray(x)), expected)
    wrapped = OtherArray(x)
    assert rope(wrapped, out=wrapped) is wrapped
    assert_same_bits(x, expected)


def test_scalings_that_ask_for_the_length_through_dlpack(arrays: Arrays) -> None:
    """The length is that of the imported array."""
    dynamic = arrays.names()["dynamic"]
    for how in ({}, {"seq_axis": 1}, {"offset": [3, 4]}, {"seq_len": 9}):
        assert_same_bits(dynamic(OtherArray(arrays.x), **how), dynamic(arrays.x, **how))


def test_weights_without_rows(arrays: Arrays) -> None:
    """No rows are any number of heads of no length, and take no memory."""
    for num_heads in (1, 3, 2**50):
        assert posenc.permute_rotary_weights(arrays.cos[:0], num_heads).shape == (0, 4)
