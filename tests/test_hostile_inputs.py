"""What is rotated, wrong in every way, or odd and right.

Where it is refused: the right exception, its whole message, and no byte of any array changed.
"""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest

import posenc
from conftest import OtherArray, assert_refused, assert_same_bits
from hostile import SHAPE, Arrays, FailsAsArray, FailsAsIndex, NoAttributes, assert_call_refused, refused


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
TypeError: q and k must have the same dtype, got float32 and float64; rotate them in two calls
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
def test_what_is_rotated(error: str, text: str, call: str) -> None:
    assert_call_refused(error, text, call)


# ---- wherever a float array is expected ----

WRONG_DTYPES = [
    *(np.int64, np.uint8, bool, np.complex64, np.complex128, np.longdouble, object, "M8[s]", "m8[s]", "S4", "U1", "V2"),
    *(np.dtype(kind).newbyteorder("S") for kind in (np.float32, np.float64, np.float16)),
    *([("a", "f4")], ml_dtypes.float8_e5m2, ml_dtypes.int4),
]
NOT_ARRAYS = {"list": [[1.0] * 8], "int": 3, "str": "q", "memoryview": memoryview(b"abcd"), "dict": {}}


@pytest.mark.parametrize("dtype", WRONG_DTYPES, ids=str)
def test_wrong_dtypes(dtype: Any) -> None:
    arrays = Arrays()
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
def test_not_arrays(kind: str) -> None:
    arrays = Arrays()
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


# ---- what is odd and right ----

FLOATS = (np.float32, np.float64, np.float16, ml_dtypes.bfloat16)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("shape", [(0, 8), (4, 0, 3, 8), (0, 2, 3, 8), (2, 3, 0, 8), (0, 0, 8), (2**40, 0, 4, 8)])
def test_empty_arrays_work(shape: tuple[int, ...], dtype: Any) -> None:
    """Nothing to rotate is no error: in a new array, in place, by tables, with positions."""
    arrays = Arrays()
    x, rope = np.empty(shape, dtype), arrays.rope
    q, k = rope(x, x.copy())
    assert q.shape == k.shape == rope(x).shape == shape
    assert q.dtype == k.dtype == dtype
    assert rope(x, out=x) is x
    cos, sin = rope.table(64, dtype=np.float64 if dtype is np.float64 else np.float32)
    assert posenc.apply_rotary_emb(x, cos, sin, layout="interleaved", out=x) is x
    assert rope(x, positions=np.zeros(shape[-2])).shape == shape


def test_arrays_of_a_subclass_are_arrays(tmp_path: Any) -> None:
    """A memmap is rotated in its file; what comes out new is a plain array."""
    arrays = Arrays()
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
def test_objects_that_lie_about_dlpack(name: str) -> None:
    arrays = Arrays()
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


def test_a_capsule_is_used_once() -> None:
    arrays = Arrays()
    once = Lying(arrays.x.__dlpack__())
    assert_same_bits(arrays.rope(once), arrays.rope(arrays.x))
    assert_refused(ValueError, "PyCapsule", lambda: arrays.rope(once), *arrays.watched)


def test_objects_that_fail_by_themselves() -> None:
    """What raises on every attribute is no array; an error of __array__ or __index__ is the caller's own."""
    arrays = Arrays()
    a = arrays
    assert_refused(TypeError, "x must be a NumPy array", lambda: a.rope(NoAttributes()), *a.watched)
    assert_refused(ZeroDivisionError, "mine", lambda: a.rope(a.x, positions=FailsAsArray(), out=a.x), *a.watched)
    assert_refused(ZeroDivisionError, "mine", lambda: a.rope(a.x, offset=FailsAsArray(), out=a.x), *a.watched)


def test_seq_axis_that_fails_by_itself() -> None:
    arrays = Arrays()
    assert_refused(KeyboardInterrupt, "mine", lambda: arrays.rope(arrays.x, seq_axis=FailsAsIndex()), *arrays.watched)


# ---- another library's arrays ----


def test_wrong_dtype_through_dlpack() -> None:
    arrays = Arrays()
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


def test_scalings_that_ask_for_the_length_through_dlpack() -> None:
    """The length is that of the imported array."""
    arrays = Arrays()
    dynamic = arrays.names()["dynamic"]
    for how in ({}, {"seq_axis": 1}, {"offset": [3, 4]}, {"seq_len": 9}):
        assert_same_bits(dynamic(OtherArray(arrays.x), **how), dynamic(arrays.x, **how))
