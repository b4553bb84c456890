"""Random arguments for every public function: nothing may come out but the documented exceptions, and never a crash.

    python tests/fuzz.py --calls 1000000 --seed 7

A scene is a set of arguments that fit together, laid out in memory in every way that NumPy and torch know. A call
takes its arguments from the scene, and now and then one from the junk. A fraction of the calls is looked at closely: a
refused call may not have changed a byte, a successful one only the elements of its output, and the numbers must be
those of posenc._reference. Made to run under AddressSanitizer. After a crash, the same seed with --trace names the
call.
"""

from __future__ import annotations

import argparse
import dataclasses
import random
import sys
import time
from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np
from numpy.lib.stride_tricks import as_strided

import posenc
from conftest import OtherArray, memory_of, outside, owner_of
from posenc import _reference, rotary, runtime

try:
    import torch
except ImportError:
    torch = None

FLOATS = (np.float32, np.float64, np.float16, ml_dtypes.bfloat16)
TORCH_FLOATS = ("float32", "float64", "float16", "bfloat16")
LAYOUTS = ("half", "interleaved", "interleaved_to_half")
HEAD_DIMS = (1, 2, 3, 4, 6, 7, 8, 16, 17, 30, 64, 66)
DOCUMENTED = (TypeError, ValueError, IndexError, BufferError)
CALLS_OF_A_SCENE = 500
NOISE = np.random.default_rng(0).standard_normal(1 << 16)


class OwnError(Exception):
    """What objects in the junk raise by themselves."""


class Raises:
    """Fails with an error of its own, whatever is asked of it."""

    def __index__(self) -> int:
        raise OwnError

    def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
        raise OwnError

    def __dlpack__(self, **options: Any) -> Any:
        raise OwnError

    def __dlpack_device__(self) -> tuple[int, int]:
        return (1, 0)


class ByLength:
    """A scaling that asks for the sequence length."""

    depends_on_length = True

    def frequencies(
        self, rotary_dim: int, base: float, seq_len: int | None = None, precision: str = "exact"
    ) -> tuple[np.ndarray, float]:
        return base ** (-np.arange(rotary_dim // 2) / (seq_len or 1)), 1.0

    def effective_length(self, seq_len: int) -> int:
        return seq_len

    def __repr__(self) -> str:
        return "ByLength()"


def junk() -> list[Any]:
    """Return what has no business being an argument, and some that has."""
    plain = [
        *(None, True, False, 0, 1, -1, 3, 2**31, -(2**31), 2**62, 2**63, 2**64 - 8, 2**64 - 1, 2**70, -(2**70)),
        *(0.0, 1.5, -2.5, float("nan"), float("inf"), 1e300, 10**400, 1j, "half", "", b"x", (), [], [1.0], {}),
        *(np.int8(3), np.uint64(2**64 - 1), np.float32(2), np.bool_(True), np.float64("nan"), range(4), object()),
        *([[1], [1, 2]], [2**70] * 4, [None] * 4, ["a"] * 4, Raises(), type, np.float32, np.dtype(">f4"), Ellipsis),
    ]
    dtypes = (*"?bBhIqQefdgFDO", "S3", "U2", "M8[s]", "m8[s]")
    arrays = [np.zeros(shape, dtype) for dtype in dtypes for shape in ((), 4, (4, 8), (0, 8), (2, 3, 4, 8))]
    strange = [
        *(np.zeros((4, 8), dtype) for dtype in (">f4", ">f8", ">f2", "V2", [("a", "f4")])),
        *(np.zeros((4, 8), dtype) for dtype in (ml_dtypes.float8_e5m2, ml_dtypes.int4, ml_dtypes.bfloat16)),
        *(np.ma.masked_array(np.zeros((4, 8), np.float32)), np.zeros([1] * 40, np.float32), np.matrix(np.ones((4, 8)))),
        *(OtherArray(np.zeros((4, 8), dtype)) for dtype in ("f4", "i4", "f8")),
    ]
    return plain + arrays + strange + (torch_junk() if torch else [])


#: more elements than fit in 32 bits, for calls that must not come to allocate a result
HUGE = [np.broadcast_to(np.float32(1), shape) for shape in ((2**45, 4, 8), (4, 2**45, 8), (2**45, 8), (2, 2**45))]


def torch_junk() -> list[Any]:
    """Return tensors whose memory is not their value, or that are of no use here."""
    x = torch.ones(2, 3, 4, 8)
    return [
        *(
            torch.tensor(3),
            torch.tensor(2.5),
            torch.tensor([1, 2]),
            torch.arange(4),
            torch.arange(4.0),
            torch.ones(0, 8),
        ),
        *(x, x.int(), x.bool(), x.half(), x.to(torch.cfloat), x.to(torch.cfloat).conj(), x[:1].expand(2, 3, 4, 8)),
        *(x.clone().requires_grad_(), torch._neg_view(x), x.to("meta"), x.to_sparse(), x.to_mkldnn()),
        torch.frombuffer(bytearray(4 * 64 + 1), dtype=torch.float32, offset=1, count=64).view(8, 8),
    ]


class Choices(random.Random):
    """Random choices, made cheap: they are most of what a call costs."""

    def pick(self, options: Any) -> Any:
        return options[int(self.random() * len(options))]

    def maybe(self, chance: float) -> bool:
        return self.random() < chance


# ---- arrays in every way that memory can lie ----


def noise(choose: Choices, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    count = int(np.prod(shape))
    start = int(choose.random() * (len(NOISE) - min(count, len(NOISE) - 1)))
    return np.resize(NOISE[start : start + max(count, 1)], shape).astype(dtype)


def array(choose: Choices, shape: tuple[int, ...], dtype: Any, *, output: bool = False) -> np.ndarray:
    """Return a view of a larger buffer: permuted, stepped, reversed, and for inputs broadcast."""
    order = list(range(len(shape)))
    if choose.maybe(0.5):
        choose.shuffle(order)
    steps = [choose.pick((1, 1, 1, 2, -1, -3)) for _ in shape]
    lengths = [n * abs(step) + choose.pick((0, 0, 1, 3)) for n, step in zip(shape, steps, strict=True)]
    buffer = noise(choose, tuple(lengths[axis] for axis in order), dtype)
    view = np.moveaxis(buffer, range(len(order)), order)
    cuts = [
        slice(0, n * step, step) if step > 0 else slice(None, None, step) for n, step in zip(shape, steps, strict=True)
    ]
    view = view[tuple(cuts)][tuple(slice(n) for n in shape)]
    if not output and choose.maybe(0.15) and view.size:
        axis = choose.pick(range(view.ndim))
        view = np.broadcast_to(view.take([0], axis), shape)
    if 1 in shape and choose.maybe(0.5):
        garbage = choose.pick((2**62 + 8, -(2**61), 0))
        strides = [stride if n > 1 else garbage for n, stride in zip(shape, view.strides, strict=True)]
        view = as_strided(view, shape, strides, writeable=view.flags.writeable)
    return view


def tensor(choose: Choices, shape: tuple[int, ...], name: str, *, output: bool = False) -> Any:
    """Return a tensor that is a view of a larger one: permuted, stepped, and for inputs expanded."""
    order = list(range(len(shape)))
    if choose.maybe(0.5):
        choose.shuffle(order)
    steps = [choose.pick((1, 1, 1, 2)) for _ in shape]
    lengths = [n * step + choose.pick((0, 0, 3)) for n, step in zip(shape, steps, strict=True)]
    buffer = torch.from_numpy(noise(choose, tuple(lengths[axis] for axis in order), np.float64)).to(
        getattr(torch, name)
    )
    view = buffer.permute([order.index(axis) for axis in range(len(shape))])
    view = view[tuple(slice(0, n * step, step) for n, step in zip(shape, steps, strict=True))]
    if not output and choose.maybe(0.15) and view.numel():
        axis = choose.pick(range(view.ndim))
        view = view.narrow(axis, 0, 1).expand(shape)
    return view


# ---- scenes ----


@dataclasses.dataclass
class Scene:
    """Arguments that fit together."""

    rope: posenc.Rope
    seq_axis: int
    dtype: str
    q: list[Any]
    k: list[Any]
    q_out: list[Any]
    k_out: list[Any]
    positions: list[Any]
    rows: list[Any]
    offsets: list[Any]
    tables: list[Any]
    table_sizes: list[Any]

    def arrays(self) -> list[Any]:
        """Return everything whose memory can be compared."""
        pairs = [part for pair in self.tables for part in pair]
        every = [*self.q, *self.k, *self.q_out, *self.k_out, *self.positions, *self.offsets, *pairs]
        return [a for a in every if isinstance(a, np.ndarray) or (torch and type(a) is torch.Tensor)]


def random_rope(choose: Choices) -> posenc.Rope:
    """Return a Rope of any layout, width, precision, scaling and number of axes."""
    head_dim = choose.pick(HEAD_DIMS)
    how: dict[str, Any] = {"layout": choose.pick(LAYOUTS), "precision": choose.pick(("exact", "exact", "float32"))}
    width = head_dim + head_dim % 2
    if head_dim > 3 and choose.maybe(0.4):
        width = how["rotary_dim"] = 2 * choose.randint(1, head_dim // 2)
        how["rotary_offset"] = choose.randint(0, head_dim - width)
    if choose.maybe(0.2):
        how["axis_of_freq"] = [choose.randint(0, 2) for _ in range(width // 2)]
    kind = choose.random()
    if kind < 0.2:
        how["inv_freq"] = NOISE[: width // 2]
    elif kind < 0.4:
        how["scaling"] = posenc.scaling.InverseFrequencies(tuple(NOISE[: width // 2]), 1.25)
    elif kind < 0.5:
        how["scaling"] = ByLength()
    return posenc.Rope(head_dim, **how)


def random_shape(choose: Choices, head_dim: int) -> tuple[list[int], int]:
    """Return a shape of 2 to 5 axes and which of them is the sequence."""
    seq = choose.pick((0, 1, 2, 3, 5, 33) if choose.maybe(0.2) else (1, 2, 3, 5, 33))
    batch, heads = choose.pick((1, 2, 3)), choose.pick((0, 1, 2, 4) if choose.maybe(0.1) else (1, 2, 3))
    shape, axis = choose.pick(
        (
            ([seq], 0),
            ([seq, heads], 0),
            ([heads, seq], 1),
            ([batch, heads, seq], 2),
            ([batch, seq, heads], 1),
            ([seq, batch, heads], 0),
            ([batch, 2, heads, seq], 3),
        )
    )
    return [*shape, head_dim], axis


def random_positions(choose: Choices, axes: int, batch: int, seq: int) -> list[Any]:
    """Return positions of every kind that fit."""
    lead = (axes,) if axes > 1 else ()
    found: list[Any] = []
    for dtype in (np.int64, np.int32, np.float64, np.float32, np.int16, np.uint8):
        shape = (*lead, *choose.pick(((), (1,), (batch,))), seq)
        values = np.abs(noise(choose, shape, np.float64)) * choose.pick((3, 50, 1000))
        found.append((values % 256 if dtype == np.uint8 else values).astype(dtype))
    found.append(array(choose, (*lead, batch, seq), np.float64))
    found.append(np.broadcast_to(np.int64(choose.pick((7, 2**31 - 1, -(2**31) + 1))), (*lead, seq)))
    found.append(found[0].tolist())
    if torch:
        found.append(torch.from_numpy(np.ascontiguousarray(found[1])))
    return found


def random_scene(choose: Choices) -> Scene:
    rope = random_rope(choose)
    shape, axis = random_shape(choose, rope.head_dim)
    name = choose.pick(TORCH_FLOATS)
    dtype = FLOATS[TORCH_FLOATS.index(name)]
    batch, seq = shape[0] if axis > 0 else 1, shape[axis]
    k_shape = [n + (1 < i + 1 < len(shape) and i != axis) for i, n in enumerate(shape)]
    wide = np.float64 if dtype is np.float64 else np.float32
    rows, pairs = seq + choose.pick((0, 1, 40)), len(rope.inv_freq)

    def some(shape: list[int], output: bool) -> list[Any]:
        made = [array(choose, tuple(shape), dtype, output=output) for _ in range(3)]
        if torch and choose.maybe(0.3):
            made.append(tensor(choose, tuple(shape), name, output=output))
        if choose.maybe(0.1) and dtype is not ml_dtypes.bfloat16:
            made.append(OtherArray(noise(choose, tuple(shape), dtype)))
        return made

    sizes = [choose.pick(((rows, pairs), (1, rows, pairs), (batch, rows, pairs))) for _ in range(3)]
    return Scene(
        rope=rope,
        seq_axis=axis - choose.pick((0, len(shape))),
        dtype=name,
        q=some(shape, False) + some(shape, True),
        k=some(k_shape, True),
        q_out=some(shape, True),
        k_out=some(k_shape, True),
        positions=random_positions(choose, rope.axes, batch, seq),
        rows=[
            np.arange(seq),
            np.arange(seq, dtype=np.int32)[::-1],
            [rows - 1] * seq,
            np.zeros((batch, seq), np.uint16),
        ],
        offsets=[0, 1, rows - seq, np.int64(0), [0], [1] * batch, np.zeros(batch, np.int32), np.ones(batch, np.uint64)],
        tables=[tuple(array(choose, size, wide) for _ in "cs") for size in sizes],
        table_sizes=[0, 1, 5, *random_positions(choose, rope.axes, batch, seq)],
    )


# ---- calls ----


@dataclasses.dataclass
class Call:
    """A function with its arguments; `expected` gives the numbers of a successful one, `written` its outputs."""

    function: Callable[..., Any]
    arguments: tuple[Any, ...]
    named: dict[str, Any]
    expected: Callable[[], list[tuple[np.ndarray, float]]] | None = None

    def __repr__(self) -> str:
        given = [shown(value) for value in self.arguments]
        given += [f"{name}={shown(value)}" for name, value in self.named.items()]
        return f"{getattr(self.function, '__qualname__', self.function)}({', '.join(given)})"

    def outputs(self) -> list[Any]:
        out = self.named.get("out")
        return list(out) if isinstance(out, (tuple, list)) else [] if out is None else [out]


def shown(value: Any) -> str:
    if isinstance(value, np.ndarray) and value.size > 8:
        return f"<{value.dtype} {value.shape} strides {value.strides}>"
    if isinstance(value, (tuple, list)) and len(value) < 5:
        return f"({', '.join(map(shown, value))})"
    return repr(value)[:200]


class Fuzzer:
    """Makes calls from a seed, and judges what they do."""

    def __init__(self, seed: int, checked: float) -> None:
        self.choose, self.checked = Choices(seed), checked
        self.junk = junk()
        self.successes = self.compared = self.calls = 0
        self.makers = [self.rotation] * 45 + [self.by_tables] * 30 + [self.table] * 15 + [self.frequencies] * 4
        self.makers += [self.rope] * 4 + [self.weights] * 2

    def given(self, options: Any, chance: float = 0.02) -> Any:
        """Return one of the options, or junk."""
        return self.choose.pick(self.junk) if self.choose.random() < chance else self.choose.pick(options)

    def count_or_positions(self, scene: Scene) -> Any:
        """Return what a table is made for; numbers that would take memory are left out."""
        given = self.given(scene.table_sizes)
        return 7 if type(given) is int and 2**20 < given <= 2**31 else given

    # -- what to call --

    def out_for(self, x: Any, outputs: list[Any]) -> Any:
        kind = self.choose.random()
        return x if kind < 0.4 else self.given(outputs) if kind < 0.9 else None

    def where(self, positions: list[Any], offsets: list[Any]) -> dict[str, Any]:
        kind = self.choose.random()
        if kind < 0.45:
            return {"positions": self.given(positions)}
        if kind < 0.9:
            return {"offset": self.given(offsets)}
        return {} if kind < 0.98 else {"positions": self.given(positions), "offset": self.given(offsets)}

    def rotation(self, scene: Scene) -> Call:
        choose, rope = self.choose, scene.rope
        q, k = self.given(scene.q), self.given(scene.k) if choose.maybe(0.5) else None
        named = {"seq_axis": self.given((scene.seq_axis,)), "inverse": choose.maybe(0.3)}
        named |= self.where(scene.positions, scene.offsets)
        if choose.maybe(0.6):
            out = self.out_for(q, scene.q_out)
            named["out"] = out if k is None else (out, self.out_for(k, scene.k_out))
        if choose.maybe(0.002):
            q, named["out"] = choose.pick(HUGE), choose.pick(scene.q_out) if k is None else (q, k)
        inputs = (q,) if k is None else (q, k)
        return Call(rope, inputs, named, lambda: expected_rotation(rope, inputs, named))

    def by_tables(self, scene: Scene) -> Call:
        x, (cos, sin) = self.given(scene.q), self.choose.pick(scene.tables)
        cos, sin = self.given((cos,), 0.01), self.given((sin,), 0.01)
        offset = scene.rope.rotary_offset if self.choose.maybe(0.97) else self.choose.pick(self.junk)
        named = {
            "layout": self.choose.pick(LAYOUTS),
            "seq_axis": self.given((scene.seq_axis,)),
            "rotary_offset": offset,
        }
        named |= self.where(scene.rows, scene.offsets) | {"conjugate": self.choose.maybe(0.3)}
        if self.choose.maybe(0.6):
            named["out"] = self.out_for(x, scene.q_out)
        if self.choose.maybe(0.002):
            x, named["out"] = self.choose.pick(HUGE), self.choose.pick(scene.q_out)
        return Call(posenc.apply_rotary_emb, (x, cos, sin), named, lambda: expected_by_tables((x, cos, sin), named))

    def table(self, scene: Scene) -> Call:
        choose, rope = self.choose, scene.rope
        positions, named = self.count_or_positions(scene), {"dtype": self.given((np.float32, np.float64, "f4"))}
        if choose.maybe(0.3) and isinstance(positions, np.ndarray) and positions.ndim < 5:
            shape = (*positions.shape[rope.axes > 1 :], len(rope.inv_freq))
            named["out"] = tuple(array(choose, shape, choose.pick((np.float32, np.float64)), output=True) for _ in "cs")
        return Call(rope.table, (positions,), named, lambda: expected_table(rope, positions))

    def frequencies(self, scene: Scene) -> Call:
        named: dict[str, Any] = {"precision": self.given(("exact", "float32")), "scale": self.given((1.0, 2.5, -1))}
        if self.choose.maybe(0.2):
            named["axis_of_freq"] = self.given((scene.rope.axis_of_freq,))
        arguments = (self.count_or_positions(scene), self.given((scene.rope.inv_freq,), 0.1))
        return Call(posenc.rotary_table, arguments, named)

    def rope(self, scene: Scene) -> Call:
        """Any parameters; lengths that would take memory are left out."""
        named: dict[str, Any] = {"layout": self.given(LAYOUTS), "precision": self.given(("exact", "float32"))}
        for name, options in (
            ("base", (1e4, 5e5, 2)),
            ("rotary_dim", range(9)),
            ("rotary_offset", range(5)),
            ("inv_freq", (NOISE[:4], None)),
            ("axis_of_freq", ([0, 1, 0, 2], None)),
            ("scaling", (None, ByLength(), posenc.scaling.InverseFrequencies((1.0,) * 4))),
        ):
            if self.choose.maybe(0.3):
                named[name] = self.given(options, 0.15)
        head_dim = self.given(HEAD_DIMS, 0.1)
        too_long = type(head_dim) is int and 2**20 < head_dim < 2**63
        return Call(posenc.Rope, (8 if too_long else head_dim,), named)

    def weights(self, scene: Scene) -> Call:
        names = ("half", "interleaved")
        named = {"source": self.given(names), "target": self.given(names), "rotary_dim": self.given((None, 2, 4, 6))}
        heads = self.given((1, 2, 3, 4))
        if type(heads) is int and heads > 2**20:  # would take memory for a weight without rows
            heads = 5
        return Call(posenc.permute_rotary_weights, (self.given(scene.q), heads), named)

    # -- what became of it --

    def run(self, calls: int, trace: bool = False) -> None:
        """Make that many calls; the first that does what it must not raises AssertionError naming it."""
        for self.calls in range(calls):
            if self.calls % CALLS_OF_A_SCENE == 0:
                self.begin_scene()
            call = self.choose.pick(self.makers)(self.scene)
            if trace:
                print(self.calls, call, flush=True)
            try:
                if self.choose.random() < self.checked:
                    self.check(call)
                else:
                    self.make(call)
            except AssertionError as error:
                raise AssertionError(f"call {self.calls}: {call}\n{error}") from error

    def begin_scene(self) -> None:
        """Take new arguments; every tenth scene has calls split among threads, however small they are."""
        self.scene = random_scene(self.choose)
        split = self.calls // CALLS_OF_A_SCENE % 10 == 9
        rotary._SPLIT_BYTES = runtime.SPLIT_BYTES = 64 if split else 4 << 20
        runtime.SLICE_BYTES = self.choose.pick((128, 4096)) if split else 8 << 20
        posenc.set_num_threads(self.choose.pick((1, 2, 3)) if split else 1)

    def make(self, call: Call) -> Any:
        """Return the result, or the exception if it is one that is documented."""
        try:
            result = call.function(*call.arguments, **call.named)
        except (*DOCUMENTED, OwnError) as error:
            return error
        except Exception as error:
            raise AssertionError(f"undocumented {type(error).__name__}: {error}") from error
        self.successes += 1
        return result

    def check(self, call: Call) -> None:
        arrays = self.scene.arrays()
        before = [memory_of(a) for a in arrays]
        wanted = safely(call.expected)  # computed first: the call may overwrite its input
        result = self.make(call)
        written = [] if isinstance(result, BaseException) else call.outputs()
        for a, old in zip(arrays, before, strict=True):
            assert_unwritten(a, old, written)
        if wanted is not None and not isinstance(result, BaseException):
            results = result if isinstance(result, tuple) else (result,)
            for found, (numbers, tolerance) in zip(results, wanted, strict=True):
                assert_close(found, numbers, tolerance)
            self.compared += 1


def safely(expected: Callable[[], Any] | None) -> Any:
    """Return what the reference says, or None where the arguments make no sense to it."""
    if expected is None:
        return None
    try:
        with np.errstate(all="ignore"):
            return expected()
    except Exception:
        return None


def assert_unwritten(a: Any, old: np.ndarray, written: list[Any]) -> None:
    """The memory behind an array is as before, except for the elements of the outputs."""
    now = memory_of(a)
    if np.array_equal(now, old):
        return
    free = np.ones(len(now), bool)
    for out in written:
        if same_memory(a, out):
            free &= outside(out)
    assert not (free & (now != old)).any(), f"bytes changed outside the outputs, in the memory of {shown(a)}"


def same_memory(a: Any, out: Any) -> bool:
    if isinstance(a, np.ndarray) and isinstance(out, np.ndarray):
        return owner_of(a) is owner_of(out)
    if torch and type(a) is type(out) is torch.Tensor:
        return a.untyped_storage().data_ptr() == out.untyped_storage().data_ptr()
    return False


# ---- what the numbers should be ----

ROUNDING = {"float32": 2**-22, "float64": 2**-50, "float16": 2**-10, "bfloat16": 2**-7}


def as_float64(x: Any) -> np.ndarray:
    if isinstance(x, OtherArray):
        x = x.array
    if torch and isinstance(x, torch.Tensor) and not x.is_complex():
        x = x.double().numpy()
    x = np.asarray(x)
    if x.dtype.kind not in "biufV" or x.size > 1 << 20:
        raise TypeError("nothing for the reference")
    return x.astype(np.float64)


def dtype_name(x: Any) -> str:
    return str((x.array if isinstance(x, OtherArray) else x).dtype).removeprefix("torch.")


def places(x: np.ndarray, named: dict[str, Any]) -> np.ndarray:
    """Return the positions of a call: (seq,) or (batch, seq), with a leading axis for several position axes."""
    if named.get("positions") is not None:
        return as_float64(named["positions"])
    offset = as_float64(named.get("offset", 0))
    return np.arange(x.shape[named["seq_axis"]]) + (offset[:, None] if offset.ndim else offset)


def on_every_axis(rope: posenc.Rope, positions: np.ndarray, given: Any) -> np.ndarray:
    """Return positions with their leading axis; an offset and a number of positions mean all axes alike."""
    if rope.axes == 1 or given is not None:
        return positions
    return np.broadcast_to(positions, (rope.axes, *positions.shape))


def angles(rope: posenc.Rope, positions: np.ndarray) -> np.ndarray:
    """Return angles (seq, pairs) or (batch, seq, pairs), rounded as the precision says."""
    lead = 1 if rope.axes > 1 else 0
    if positions.ndim - lead == 2 and positions.shape[lead] == 1:
        positions = positions.take(0, lead)
    axis_of_freq = rope.axis_of_freq if rope.axes > 1 else None
    if rope.precision == "exact":
        return _reference.angles(positions, rope.inv_freq, axis_of_freq)
    ones = _reference.angles(positions.astype(np.float32), np.ones(len(rope.inv_freq)), axis_of_freq)
    return (ones.astype(np.float32) * rope.inv_freq.astype(np.float32)).astype(np.float64)


def tolerance_of(x: Any, slack: float, factor: float) -> float:
    """Return how far a result may be off: rounding of the element type, and what cosines and sines are off."""
    largest = float(np.abs(as_float64(x)).max(initial=0)) * max(1.0, factor)
    return 4 * largest * (ROUNDING[dtype_name(x)] + slack) + 1e-7 * (dtype_name(x) == "float16")


def expected_rotation(rope: posenc.Rope, inputs: Any, named: dict[str, Any]) -> list[tuple[np.ndarray, float]] | None:
    if isinstance(rope.scaling, ByLength):
        return None
    turn = angles(rope, on_every_axis(rope, places(as_float64(inputs[0]), named), named.get("positions")))
    factor = 1 / rope.attention_factor if named["inverse"] else rope.attention_factor
    cos, sin = factor * np.cos(turn), factor * np.sin(turn) * (-1 if named["inverse"] else 1)
    how = (rope.layout, rope.rotary_offset, named["seq_axis"], named["inverse"])
    slack = float(np.abs(turn).max(initial=0)) * 2**-51 + (2**-23 if rope.precision == "float32" else 0)
    return [(_reference.apply(as_float64(x), cos, sin, *how), tolerance_of(x, slack, factor)) for x in inputs]


def expected_by_tables(arrays: Any, named: dict[str, Any]) -> list[tuple[np.ndarray, float]]:
    x = as_float64(arrays[0])
    rows = places(x, named).astype(np.int64)
    cos, sin = (choose_rows(as_float64(t), rows) for t in arrays[1:])
    how = (named["layout"], named["rotary_offset"], named["seq_axis"])
    factor = float(np.hypot(cos, sin).max(initial=0))
    return [(_reference.apply(x, cos, -sin if named["conjugate"] else sin, *how), tolerance_of(arrays[0], 0, factor))]


def choose_rows(table: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Return rows (seq,) or (batch, seq) of a table (rows, pairs) or (batch, rows, pairs)."""
    table, rows = (a[0] if a.ndim == full and len(a) == 1 else a for a, full in ((table, 3), (rows, 2)))
    if rows.min(initial=0) < 0:
        raise IndexError
    if table.ndim == 2:
        return table[rows]
    rows = np.broadcast_to(rows, (len(table), rows.shape[-1]))
    return np.stack([part[row] for part, row in zip(table, rows, strict=True)])


def expected_table(rope: posenc.Rope, positions: Any) -> list[tuple[np.ndarray, float]] | None:
    if isinstance(rope.scaling, ByLength):
        return None
    number = isinstance(positions, int)
    given = on_every_axis(rope, np.arange(positions) if number else as_float64(positions), None if number else 0)
    turn = angles(rope, given)
    if given.ndim > 1 + (rope.axes > 1):  # a batch of one keeps its axis here
        turn = turn.reshape(given.shape[rope.axes > 1 :] + turn.shape[-1:])
    slack = 2 * rope.attention_factor * (2**-23 + float(np.abs(turn).max(initial=0)) * 2**-51)
    return [(rope.attention_factor * f(turn), slack) for f in (np.cos, np.sin)]


def assert_close(found: Any, wanted: np.ndarray, tolerance: float) -> None:
    """Within the tolerance wherever the reference is finite and fits the element type."""
    name = dtype_name(found)
    found = as_float64(found)
    assert found.shape == wanted.shape, f"shape {found.shape}, not {wanted.shape}"
    fits = np.isfinite(wanted) & (np.abs(wanted) < (6e4 if name == "float16" else 1e38))
    wrong = fits & ~(np.abs(found - wanted) <= tolerance)
    assert not wrong.any(), f"{wrong.sum()} of {wrong.size} elements differ, by up to {np.abs(found - wanted).max()}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--checked", type=float, default=0.01, help="fraction of the calls that is looked at closely")
    parser.add_argument("--trace", action="store_true", help="print each call before it is made")
    options = parser.parse_args()
    print(f"{options.calls} calls, seed {options.seed}", flush=True)
    fuzzer, start = Fuzzer(options.seed, options.checked), time.perf_counter()
    try:
        fuzzer.run(options.calls, options.trace)
    except AssertionError as error:
        print(f"FAILED with seed {options.seed}, {error}")
        return 1
    seconds = time.perf_counter() - start
    print(f"{fuzzer.successes} succeeded, {fuzzer.compared} compared with the reference, {seconds:.1f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
