"""Positions and offsets, wrong in every way, or unusual and right.

Where they are refused: the right exception, its whole message, and no byte of any array changed.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import posenc
from conftest import assert_refused, assert_same_bits, assert_untouched
from hostile import LIMIT, SHAPE, Arrays, FailsAsIndex, assert_call_refused, refused


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
ValueError: positions must be integers, float32 or float64: ...inhomogeneous...
    rope(x, positions=[[0, 1], [1]])
ValueError: offset must be an integer or one integer per batch row, shape (batch,): ...inhomogeneous...
    rope(x, offset=[[0, 1], [1]])
TypeError: positions must be integers, float32 or float64, got float16 (half precision cannot count positions)
    rope(x, positions=np.zeros(4, np.float16))
    rope.table(np.zeros(4, np.float16))
TypeError: positions must be integers, float32 or float64, got bfloat16...
    rope(x, positions=np.zeros(4, bfloat16))
TypeError: positions must be integers, float32 or float64, got bool
    rope(x, positions=np.zeros(4, bool), out=x)
    rope.table(True)
    table(False, [1.0])
    apply(positions=[True] * 4)
TypeError: positions must be integers, float32 or float64, got complex128
    rope(x, positions=[0, 1, 2, 3j])
TypeError: positions must be integers, float32 or float64, got object
    rope(x, positions=np.zeros(4, object))
    rope(x, positions=[huge] * 4)
TypeError: positions must be integers, float32 or float64, got <class 'NoneType'>
    rope.table(None)
TypeError: positions must be integers, float32 or float64, got <class 'object'>
    rope(x, positions=object())
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
ValueError: {LIMIT}, got 2147483648
    rope.table(2**31 + 1)
    rope(x, offset=2**31)
    rope(x, offset=2**31 - 3)
ValueError: {LIMIT}, got -2147483648
    rope(x, offset=-2**31)
    rope(x, k, positions=[0, 1, -2**31, 2**40])
ValueError: {LIMIT}, got an integer of 64 bits or more
    rope.table(huge)
    rope(x, offset=2**63)
    rope(x, offset=huge)
    rope(x, offset=-huge, out=x)
    rope(x, offset=[0, 2**63 - 1], out=x)
    rope(x, offset=[-2**63, 0], out=x)
ValueError: {LIMIT}, got nan
    rope(x, positions=[0, 1, 2.5, np.nan])
ValueError: {LIMIT}, got 2147483648.5
    rope.table([0, 2147483648.5, np.inf])
TypeError: offset must be an integer or one integer per batch row, shape (batch,), got floats of shape (); ...
    rope(x, offset=1.0)
    rope(x, offset=np.float64(2))
    rope(x, offset=np.array(2.0))
    apply(offset=1.5)
TypeError: ...got floats of shape (2,); fractional positions go through positions=
    rope(x, offset=[1.0, 2.0])
TypeError: offset must be an integer or one integer per batch row, shape (batch,), got complex128
    rope(x, offset=1j)
TypeError: offset must be an integer or one integer per batch row, shape (batch,), got <class 'NoneType'>
    rope(x, offset=None)
    rope(x, k, offset=None, out=(x, k))
    apply(offset=None)
TypeError: offset must be an integer or one integer per batch row, shape (batch,), got object
    rope(x, offset=[None, 1])
TypeError: offset must be an integer or one integer per batch row, shape (batch,), got <class 'dict'>
    rope(x, offset=dict())
TypeError: offset must be an integer or one integer per batch row, shape (batch,), got <U1
    rope(x, offset="1")
TypeError: offset must be an integer or one integer per batch row, shape (batch,), got torch.bfloat16 (half ...
    rope(x, offset=torch.ones(2).bfloat16())
TypeError: offset must be an integer or one integer per batch row, shape (batch,), got bool
    rope(x, offset=[True, False])
    rope(x, offset=True)
    rope(x, offset=False, out=x)
    rope(x, offset=np.True_)
    rope(x, offset=np.array(True))
    rope(x, offset=torch.tensor(True))
    rope(x, offset=torch.tensor([True, False]))
    apply(offset=True, out=x)
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
def test_positions_and_offset(error: str, text: str, call: str) -> None:
    assert_call_refused(error, text, call)


def test_offset_that_fails_by_itself() -> None:
    arrays = Arrays()
    assert_refused(KeyboardInterrupt, "mine", lambda: arrays.rope(arrays.x, offset=FailsAsIndex()), *arrays.watched)


# ---- values ----

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
def test_position_values(name: str) -> None:
    arrays = Arrays()
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
def test_angles_that_reach_the_limit(fastest: float) -> None:
    """|position * inv_freq| is bounded too, by the fastest frequency of each axis."""
    arrays = Arrays()
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


def test_the_largest_positions_work() -> None:
    """2**31 - 1 and its negative are positions like others."""
    arrays = Arrays()
    x = arrays.x[:, :, :1]
    for last in (2**31 - 1, 1 - 2**31):
        assert_same_bits(arrays.rope(x, offset=last), arrays.rope(x, positions=[float(last)]))
    assert arrays.rope(arrays.x, offset=2**31 - 4).shape == SHAPE


# ---- what is odd and right ----


def test_empty_positions() -> None:
    """No positions: as [] (which NumPy makes float64), as a number, in rows."""
    arrays = Arrays()
    rope, none = arrays.rope, np.empty((0, 3, 4, 8), np.float32)
    for nothing in ([], 0, np.zeros(0, np.int32), np.zeros(0, np.float32)):
        cos, sin = rope.table(nothing)
        assert cos.shape == sin.shape == (0, 4)
        assert cos.dtype == sin.dtype == np.float32
    assert rope.table(np.zeros((3, 0)))[0].shape == (3, 0, 4)
    assert rope.table(np.zeros((0, 3)))[0].shape == (0, 3, 4)
    assert rope(none, offset=np.zeros(0, int)).shape == none.shape
    assert rope(none, positions=np.zeros((0, 4))).shape == none.shape


def test_empty_batch_of_a_length_dependent_scaling() -> None:
    """No offset is the largest of none; a Rope of fixed frequencies takes such a batch, and so does this one."""
    rope, none = posenc.Rope(8, layout="half", scaling=posenc.scaling.DynamicNTK(2.0, 32)), np.empty((0, 3, 4, 8))
    for offset in (np.zeros(0, int), []):
        assert rope(none, offset=offset).shape == none.shape
        assert posenc.gradients.of_x(rope, none, offset=offset).shape == none.shape
        assert not posenc.gradients.of_frequencies(rope, none, none, offset=offset).any()


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
def test_positions_may_be_any_array_like(name: str) -> None:
    """Whatever NumPy reads as numbers gives the bits of plain float64 positions, in calls and in tables."""
    arrays = Arrays()
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
def test_offset_may_be_any_integer(seven: Any) -> None:
    arrays = Arrays()
    assert_same_bits(arrays.rope(arrays.x, offset=seven), arrays.rope(arrays.x, positions=[7, 8, 9, 10]))


@pytest.mark.parametrize(
    "rows", [{"positions": np.arange(4, dtype=np.uint64)}, {"offset": np.array([1, 2], np.uint64)}]
)
def test_uint64_are_integers(rows: dict[str, Any]) -> None:
    arrays = Arrays()
    signed = {name: value.astype(np.int64) for name, value in rows.items()}
    assert_same_bits(arrays.apply(**rows), arrays.apply(**signed))
    assert_same_bits(arrays.rope(arrays.x, **rows), arrays.rope(arrays.x, **signed))
