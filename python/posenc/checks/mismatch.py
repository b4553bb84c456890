"""Why two arrays that should agree do not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from posenc import _parameters as check
from posenc.checks import _units
from posenc.checks._between import explain_alone, rope_between
from posenc.checks._calling import as_float64, dtype_name
from posenc.checks._faults import Finding
from posenc.checks._judging import Verdict, judge
from posenc.checks._report import Line, Report
from posenc.checks._sample import Sample
from posenc.rotary import Rope

if TYPE_CHECKING:
    import numpy.typing as npt

    Floats = npt.NDArray[np.float64]

_TOKENS, _HEADS = 256, 4  # of a large tensor; the rest says the same
_ALONE = "two tensors alone show another order, a factor or rounding; with rope= every known fault is tried"
_NOISE = {"bfloat16": 2.0**-7, "float16": 2.0**-10}


@dataclass(frozen=True)
class Mismatch(Report):
    """What `explain_mismatch` found.

    Attributes
    ----------
    ok : bool
        Whether the two agree within rounding.
    finding : Finding or None
        The fault that turns expected into actual; None where they agree or no known fault does.
    residual : float
        The largest difference between the two, relative to the largest input.
    runner_up : Finding or None
        The next best fault of another name; where there is no finding, the best.
    max_ulp : float
        The largest difference in units of the last place of actual's dtype.
    first_bad : tuple of int or None
        The first index where they differ by more than rounding.
    hint : str
        What would let more faults be tried; empty where all were.
    """

    ok: bool
    finding: Finding | None
    residual: float
    runner_up: Finding | None
    max_ulp: float
    first_bad: tuple[int, ...] | None
    hint: str = ""

    @property
    def fault(self) -> str:
        """The fault's name; "none" where they agree, "unknown" where nothing explains it."""
        return self.finding.fault if self.finding is not None else "none" if self.ok else "unknown"

    def title(self) -> str:
        """Return the verdict in one line."""
        if self.ok:
            return "actual and expected agree"
        return f"actual differs from expected: {self.finding or 'for no known reason (unknown)'}"

    def lines(self) -> list[Line]:
        """Return the numbers, and what the fault means."""
        found = [
            Line("difference", f"{self.residual:.2e} of the largest input, {self.max_ulp:.3g} ulp", self.ok),
        ]
        if self.first_bad is not None:
            found.append(Line("first bad index", str(self.first_bad)))
        if self.finding is not None:
            notes = (self.finding.meaning, f"usual cause: {self.finding.cause}")
            found.append(Line("fault", str(self.finding), False, notes))
        if self.runner_up is not None:
            found.append(Line("runner-up" if self.finding else "nearest", str(self.runner_up)))
        if self.hint:
            found.append(Line("hint", self.hint))
        return found

    def to_dict(self) -> dict[str, Any]:
        """Return the fields and the fault's name, ready for JSON."""
        return {**super().to_dict(), "fault": self.fault}


def explain_mismatch(
    actual: Any,
    expected: Any = None,
    *,
    kind: str | None = None,
    x: Any = None,
    rope: Rope | None = None,
    positions: Any = None,
    seq_len: int | None = None,
) -> Mismatch:
    """Say which known fault turns `expected` into `actual`.

    Every known fault is applied to the right rotation, and those that hold a number (an offset, a factor, a base) have
    it read off the data; the one that leaves nothing but rounding is the answer. Where none does, the answer is
    "unknown", with the nearest and what it leaves.

    Parameters
    ----------
    actual, expected : array or tensor
        Of "rotation": rotated x of shape (..., seq, head_dim); with `rope` and `x`, `expected` may be left out. Of
        "rotary_table": (cos, sin), each (seq, rotary_dim/2). Of "bias": (heads, query_len, key_len). Of "table":
        (seq, dim).
    kind : {"rotation", "rotary_table", "bias", "table"}, optional
        Default: "rotary_table" for a tuple, else "rotation".
    x : array or tensor, optional
        Of a rotation: what was rotated. Default: `expected`, un-rotated by `rope`.
    rope : Rope, optional
        What should be; needed for a rotary table. Default for a rotation: the one that makes `expected` of `x`.
        Without both, only what two tensors show by themselves is found: another order of elements, a factor, rounding.
    positions : array_like, optional
        As in `Rope.__call__`. Default: 0, 1, ..
    seq_len : int, optional
        For scalings that depend on it; default: the largest position plus one.

    Returns
    -------
    Mismatch

    Raises
    ------
    TypeError, ValueError
        For shapes that do not fit each other, and an `expected` that is not what `rope` makes of `x`.

    Examples
    --------
    >>> import numpy as np
    >>> rope = posenc.Rope(64, layout="half")
    >>> x = np.random.default_rng(0).standard_normal((2, 16, 64)).astype(np.float32)
    >>> found = explain_mismatch(rope(x, offset=3), rope(x), x=x, rope=rope)
    >>> print(found.finding)
    offset: positions +3 (residual ...)
    """
    if kind is None:
        kind = "rotary_table" if isinstance(actual, tuple) else "rotation"
    kind = check.choice("kind", kind, ("rotation", "rotary_table", "bias", "table"))
    _check_arrays(actual, expected=expected, x=x)
    if kind in ("bias", "table"):
        return _of_arrays(kind, actual, expected, positions)
    if kind == "rotation" and rope is None:
        if expected is None:
            raise TypeError("a rotation needs rope, or expected")
        if x is None:
            return _of_arrays(kind, actual, expected, positions)
        rope = _found(x, expected, positions)
    if not isinstance(rope, Rope):
        raise TypeError(f"rope must be a posenc.Rope for a {kind}, got {check.shown(rope)}")
    if kind == "rotary_table":
        return _of_tables(actual, expected, rope, positions, seq_len)
    return _of_rotation(actual, expected, x, rope, positions, seq_len)


def _check_arrays(actual: Any, **others: Any) -> None:
    given = {"actual": actual, **{name: value for name, value in others.items() if value is not None}}
    for name, value in given.items():
        for part in value if isinstance(value, tuple) else (value,):
            if not hasattr(part, "shape"):
                raise TypeError(f"{name} must be an array or a tensor, got {check.shown(part)}")


def _found(x: Any, expected: Any, positions: Any) -> Rope:
    """Return the Rope that makes `expected` of x."""
    wide = as_float64(x)
    where = np.arange(wide.shape[-2], dtype=np.float64) if positions is None else as_float64(np.asarray(positions))
    rope = rope_between(wide, as_float64(expected), where)
    if rope is None:
        raise TypeError("rope must be given: expected is no rotation of x that can be recognised at these positions")
    return rope


def _of_rotation(actual: Any, expected: Any, x: Any, rope: Rope, positions: Any, seq_len: int | None) -> Mismatch:
    if expected is None and x is None:
        raise TypeError("a rotation needs expected, or the x that was rotated")
    shape = tuple(actual.shape)
    where = np.arange(shape[-2], dtype=np.float64) if positions is None else as_float64(np.asarray(positions))
    if rope.axes > 1 and positions is None:
        where = np.broadcast_to(where, (rope.axes, shape[-2])).copy()
    fixed = rope.at(check.sequence_length(seq_len, where, 0, 0))
    wide = as_float64(x) if x is not None else np.asarray(fixed(as_float64(expected), positions=where, inverse=True))
    if wide.shape != shape:
        raise ValueError(f"x, actual and expected must have one shape, got {wide.shape} and {shape}")
    noise = _NOISE.get(dtype_name(actual), 0.0)
    wanted = np.asarray(fixed(wide, positions=where))
    if expected is not None and x is not None:
        _check_expected(as_float64(expected), wanted, wide, _NOISE.get(dtype_name(expected), 0.0), where, fixed)
    family = rope if fixed is not rope else None
    full = as_float64(actual)
    sample, some = _part(Sample(wide, where, fixed, family), full)
    return _report(judge(sample, some, noise=noise), actual, wanted, wide)


def _check_expected(expected: Floats, wanted: Floats, x: Floats, noise: float, where: Floats, rope: Rope) -> None:
    if expected.shape != wanted.shape:
        raise ValueError(f"expected must have actual's shape {wanted.shape}, got {expected.shape}")
    far = float(np.abs(where).max(initial=0.0) * np.abs(rope.inv_freq).max())
    off, scale = float(np.nanmax(np.abs(expected - wanted))), float(np.abs(x).max())
    if off > scale * (1e-5 + noise + 3e-7 * far):
        raise ValueError(f"expected is not what rope makes of x at these positions: they differ by {off:.2g}")


def _part(sample: Sample, actual: Floats) -> tuple[Sample, Floats]:
    """Return the first tokens and heads, and the last tokens: what a large tensor shows, it shows there."""
    seq = sample.x.shape[-2]
    pick = np.arange(seq) if seq <= _TOKENS else np.r_[0 : _TOKENS // 2, seq - _TOKENS // 2 : seq]
    x, y, where = sample.x[..., pick, :], actual[..., pick, :], sample.positions[..., pick]
    if x.ndim > 2 and where.ndim == 1 + (sample.rope.axes > 1):
        x, y = x[..., :_HEADS, :, :], y[..., :_HEADS, :, :]
    return Sample(x, where, sample.rope, sample.family), y


def _of_arrays(kind: str, actual: Any, expected: Any, positions: Any) -> Mismatch:
    """What is compared with each other and needs no Rope."""
    if expected is None:
        raise TypeError(f"expected must be given for a {kind}")
    if kind == "bias":
        from posenc.checks._bias_mismatch import explain_bias

        ok, finding, off = explain_bias(actual, expected)
    elif kind == "rotation":
        shapes = tuple(actual.shape), tuple(expected.shape)
        if shapes[0] != shapes[1]:
            raise ValueError(f"actual and expected must have one shape, got {shapes[0]} and {shapes[1]}")
        ok, finding, off = explain_alone(as_float64(actual), as_float64(expected))
    else:
        from posenc.checks._table import explain_table

        ok, finding, off = explain_table(actual, expected, positions)
    apart = _units.units(actual, expected)
    first_bad = None if ok else _units.first_bad(actual, expected, 1e-6)
    hint = "" if ok or finding is not None or kind != "rotation" else _ALONE
    return Mismatch(ok, finding, off, None, float(apart.max(initial=0.0)), first_bad, hint)


def _of_tables(actual: Any, expected: Any, rope: Rope, positions: Any, seq_len: int | None) -> Mismatch:
    """A table is what a rotation makes of pairs (1, 0)."""
    from posenc.scaling import InverseFrequencies

    cos, sin = (as_float64(t) for t in actual)
    pairs = len(rope.inv_freq)
    if cos.shape != sin.shape or cos.shape[-1] != pairs:
        raise ValueError(f"cos and sin must have shape (.., {pairs}), got {cos.shape} and {sin.shape}")
    where = np.arange(cos.shape[-2], dtype=np.float64) if positions is None else as_float64(np.asarray(positions))
    fixed = rope.at(check.sequence_length(seq_len, where, 0, 0))
    flat = Rope(
        2 * pairs,
        layout="half",
        scaling=InverseFrequencies(tuple(fixed.inv_freq.tolist()), fixed.attention_factor),
        axis_of_freq=fixed.axis_of_freq,
        precision=fixed.precision,
    )
    if fixed.base is not None:
        flat = Rope(
            2 * pairs,
            layout="half",
            base=fixed.base,
            scaling=fixed.scaling,
            axis_of_freq=fixed.axis_of_freq,
            precision=fixed.precision,
        )
    x = np.concatenate([np.ones_like(cos), np.zeros_like(cos)], axis=-1)
    joined = np.concatenate([cos, sin], axis=-1)
    wanted = np.asarray(flat(x, positions=where))
    if expected is not None:
        given = np.concatenate([as_float64(t) for t in expected], axis=-1)
        _check_expected(given, wanted, x, _NOISE.get(dtype_name(expected[0]), 0.0), where, flat)
    sample, some = _part(Sample(x, where, flat), joined)
    verdict = judge(sample, some, noise=_NOISE.get(dtype_name(actual[0]), 0.0))
    return _report(verdict, joined.astype(np.float32), wanted, x)


def _report(verdict: Verdict, actual: Any, wanted: Floats, x: Floats) -> Mismatch:
    scale = float(np.abs(x).max(initial=0.0)) or 1.0
    apart = _units.units(actual, wanted)
    bad = (
        None if verdict.agrees else _units.first_bad(actual, wanted, max(1e-5 * scale, 1e-3 * verdict.residual * scale))
    )
    second = verdict.runner_up if verdict.finding is not None else verdict.nearest
    return Mismatch(verdict.agrees, verdict.finding, verdict.residual, second, float(apart.max(initial=0.0)), bad)
