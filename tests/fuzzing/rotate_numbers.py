"""What rotations and their tables should be, from posenc._reference."""

from __future__ import annotations

from typing import Any

import numpy as np

import posenc
from fuzzing.call import as_float64, tolerance_of
from fuzzing.rotate_scene import ByLength
from posenc import _reference


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
    return np.take_along_axis(table, rows[..., None], 1)


def expected_table(rope: posenc.Rope, positions: Any) -> list[tuple[np.ndarray, float]] | None:
    if isinstance(rope.scaling, ByLength):
        return None
    number = isinstance(positions, (int, np.integer))
    given = on_every_axis(rope, np.arange(positions) if number else as_float64(positions), None if number else 0)
    turn = angles(rope, given)
    if given.ndim > 1 + (rope.axes > 1):  # a batch of one keeps its axis here
        turn = turn.reshape(given.shape[rope.axes > 1 :] + turn.shape[-1:])
    slack = 2 * rope.attention_factor * (2**-23 + float(np.abs(turn).max(initial=0)) * 2**-51)
    return [(rope.attention_factor * f(turn), slack) for f in (np.cos, np.sin)]
