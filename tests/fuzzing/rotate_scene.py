"""Scenes of rotation: a Rope of any kind, with queries, keys, outputs, positions and tables that fit it."""

from __future__ import annotations

import dataclasses
from typing import Any

import ml_dtypes
import numpy as np

import posenc
from conftest import OtherArray
from fuzzing.memory import FLOATS, NOISE, TORCH_FLOATS, Choices, array, noise, tensor, torch

LAYOUTS = ("half", "interleaved", "interleaved_to_half")
HEAD_DIMS = (1, 2, 3, 4, 6, 7, 8, 16, 17, 30, 64, 66)


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
        """Return everything whose memory may be compared."""
        pairs = [part for pair in self.tables for part in pair]
        return [*self.q, *self.k, *self.q_out, *self.k_out, *self.positions, *self.offsets, *pairs]


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
