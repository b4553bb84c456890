"""Identification of sinusoidal tables: the order of the columns, the spacing of the frequencies, base and offset."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from posenc.additive import CONVENTIONS
from posenc.additive.sinusoidal import sinusoidal_table
from posenc.checks import _angles, _probing
from posenc.checks._calling import as_float64, kind_of
from posenc.checks._faults import Finding
from posenc.checks._judging import distance
from posenc.checks._rounding import HALVES
from posenc.checks._spectrum import nice
from posenc.checks.identification import Identification

if TYPE_CHECKING:
    import numpy.typing as npt

    Floats = npt.NDArray[np.float64]
    Ints = npt.NDArray[np.int64]

_POSITIONS = sorted({*_probing.SHORT, *_probing.LADDER, *_probing.ODD, *(1 + 2**k for k in range(17))})
_ROUNDING = 5e-6


@dataclass(frozen=True)
class Reading:
    """One way to read a table, and what it leaves."""

    convention: str
    base: float
    offset: float
    padding: int | None
    precision: str
    rounding: str | None
    residual: float

    def make(self, positions: Any, dim: int) -> Floats:
        """Return the table that this reading means."""
        where = np.asarray(positions, np.float64) + self.offset
        made = sinusoidal_table(
            where, dim, convention=self.convention, base=self.base, dtype=np.float32, precision=self.precision
        )
        wide = made.astype(np.float64) if self.rounding is None else HALVES[self.rounding](made)
        if self.padding is not None:
            wide[np.asarray(positions) == self.padding] = 0
        return np.asarray(wide)

    @property
    def words(self) -> str:
        """The reading in one line."""
        parts = [self.convention, f"base {self.base:.8g}"]
        parts += [f"positions {self.offset:+g}"] * bool(self.offset)
        parts += [f"row {self.padding} zero"] * (self.padding is not None)
        parts += [f"rounded to {self.rounding}"] * (self.rounding is not None)
        return ", ".join(parts)


def identify_table(fn: Callable[..., Any], like: Any = None, max_position: int = 131071) -> Identification:
    """Return what `posenc.checks.identify` does for a table."""
    positions, table = _asked(fn, kind_of(like, fn), max_position)
    readings = sorted(_readings(positions, table), key=lambda reading: reading.residual)
    if not readings:
        return Identification(False, "table", "unknown: no sines and cosines of one order", None, {}, float("nan"))
    best = readings[0]
    near = [r for r in readings if r.residual <= max(1.5 * best.residual, 1e-6)]
    simplest = min(near, key=_digits)
    other = next(
        (r for r in readings if (r.convention, r.precision) != (simplest.convention, simplest.precision)), None
    )
    far = float(positions.max())
    ok = simplest.residual <= _ROUNDING + (3e-7 * far if simplest.precision == "float32" else 0.0)
    facts = {
        "convention": simplest.convention,
        "dim": table.shape[1],
        "base": simplest.base,
        "position_offset": simplest.offset,
        "padding_idx": simplest.padding,
        "angles": simplest.precision,
        "table_precision": simplest.rounding,
    }
    return Identification(
        ok, "table", simplest.words if ok else f"unknown: near {simplest.words}", None, facts, simplest.residual,
        None if other is None else (other.words, other.residual),
        reproduce=partial(simplest.make, dim=table.shape[1]),
    )  # fmt: skip


def _digits(reading: Reading) -> int:
    """Return how long the base is: another spacing with another base may be the same table."""
    return len(f"{reading.base:.9g}".strip("0."))


def _asked(fn: Callable[..., Any], kind: str, most: int) -> tuple[Ints, Floats]:
    """Return positions and rows; fewer where the function refuses the large ones."""
    error: Exception | None = None
    for last in (most, *(n for n in _probing._FALLING if n < most)):
        where = np.array([p for p in _POSITIONS if p <= last], np.int64)
        try:
            given: Any = where
            if kind == "torch":
                import torch

                given = torch.from_numpy(where)
            table = as_float64(fn(given))
        except Exception as raised:  # whatever the function under test raises: it has no such row
            error = raised
            continue
        if table.ndim == 3 and table.shape[0] == 1:
            table = table[0]
        if table.ndim != 2 or len(table) != len(where):
            raise ValueError(f"fn must return a table of shape ({len(where)}, dim), got {table.shape}")
        return where, table
    raise ValueError(f"fn takes no positions: {error}") from error


def _columns(table: Floats, order: str) -> tuple[Floats, Floats]:
    """Return sines and cosines of the pairs that are whole."""
    pairs, dim = table.shape[1] // 2, table.shape[1]
    if order == "interleaved":
        return table[:, 0 : 2 * pairs : 2], table[:, 1 : 2 * pairs : 2]
    last = bool(dim % 2 and not np.any(table[:, -1]))  # an odd column of zeros
    first = pairs if dim % 2 == 0 or last else dim - pairs
    one, two = table[:, :pairs], table[:, first : first + pairs]
    return (one, two) if order == "sin_cos" else (two, one)


def _readings(positions: Ints, table: Floats) -> Iterator[Reading]:
    zero = positions[~table.any(axis=1)].tolist()
    if len(zero) > 1 or table.shape[1] < 4:
        return
    padding = zero[0] if zero else None
    known = table.any(axis=1)
    where, rows = positions[known], table[known]
    if len(where) < 2:  # which say nothing of frequencies
        return
    first = int(where[0])
    for name, convention in CONVENTIONS.items():
        sin, cos = _columns(rows, convention.order)
        turns: Any = cos + 1j * sin
        if not np.isfinite(turns).all() or np.abs(turns).max() < 1e-6:
            continue
        size = float(np.median(np.abs(turns)))
        if np.abs(np.abs(turns) / size - 1).max() > 0.02:
            continue
        found = _angles.unwrap(where - first, turns / size)
        if not found.consistent or (found.frequency <= 0).any():
            continue
        try:
            exponents = -np.log(convention.inv_freq(table.shape[1], 10000.0)[: len(found.frequency)]) / np.log(10000.0)
        except ValueError:
            continue
        use = exponents > 0
        e, f = exponents[use], found.frequency[use]
        weight = (e * f / (found.uncertainty[use] + 1e-7 * f)) ** 2
        base = float(np.exp(-np.sum(weight * np.log(f) / e) / np.sum(weight)))
        offset = _offset(found) - first
        yield from _tried(name, base, offset, padding, positions, table, sorted(zero))


def _offset(found: _angles.Turning) -> float:
    """Return the position of the first row, from the phases there."""
    turn, freq = np.exp(1j * found.start), found.frequency
    tries = np.concatenate([np.arange(-64, 65) / 2, np.arange(-4096, 4097)])
    cost = np.abs(np.exp(1j * tries[:, None] * freq) - turn).max(axis=1)
    return float(tries[int(np.argmin(cost))])


def _tried(
    name: str, base: float, offset: float, padding: int | None, positions: Ints, table: Floats, zero: list[int]
) -> Iterator[Reading]:
    for rounding in (None, *HALVES):
        for precision in ("exact", "float32"):
            for each in dict.fromkeys((nice(base, 2e-3 if rounding else 2e-5), base)):
                reading = Reading(name, each, offset, padding, precision, rounding, float("nan"))
                try:
                    made = reading.make(positions, table.shape[1])
                except ValueError:
                    continue
                residual = distance(table, made) / max(float(np.abs(table).max()), 1e-30)
                yield Reading(name, each, offset, padding, precision, rounding, residual)


def explain_table(actual: Any, expected: Any, positions: Any) -> tuple[bool, Finding | None, float]:
    """Return (whether they agree, the fault, the largest difference) of two tables."""
    one, two = as_float64(actual), as_float64(expected)
    if one.shape != two.shape or one.ndim != 2:
        raise ValueError(f"actual and expected must have one shape (seq, dim), got {one.shape} and {two.shape}")
    where = np.arange(len(one)) if positions is None else np.asarray(positions)
    if where.shape != (len(one),):
        raise ValueError(f"positions must have shape ({len(one)},) for tables of {len(one)} rows, got {where.shape}")
    off = distance(one, two)
    if off <= 1e-6:
        return True, None, off
    for name, rounded in HALVES.items():
        if distance(one, rounded(two)) <= 1e-7:
            return False, Finding("half_tables", f"rounded to {name}", 0.0), off
    start = int(where.min())  # rows may begin anywhere: they are identified as if they began at 0
    rows = where - start
    try:
        found, wanted = (
            identify_table(partial(_row, table, rows), max_position=int(rows.max())) for table in (one, two)
        )
    except ValueError:  # not the positions that tell frequencies
        return False, None, off
    if not found.ok or not wanted.ok:
        return False, None, off
    for key, fault in (("convention", "convention"), ("base", "base"), ("position_offset", "offset")):
        mine, theirs = (each.facts[key] for each in (found, wanted))
        if fault == "offset":
            mine, theirs = mine - start, theirs - start
        if mine != theirs:
            return False, Finding(fault, f"{mine}, expected {theirs}", found.residual), off
    mine, theirs = (each.facts["padding_idx"] for each in (found, wanted))
    if mine != theirs:
        zero = theirs if mine is None else mine
        return False, Finding("convention", f"row {zero + start} zero", 0.0), off
    if found.facts["angles"] == "float32" != wanted.facts["angles"]:
        return False, Finding("float32_angles", "", found.residual), off
    return False, None, off


def _row(table: Floats, where: Any, positions: Any) -> Floats:
    """Return the rows of some positions; IndexError where there is none."""
    index = {int(p): j for j, p in enumerate(where.tolist())}
    try:
        return table[[index[int(p)] for p in positions]]
    except KeyError as error:
        raise IndexError(f"there is no row for position {error}") from None
