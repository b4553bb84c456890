"""Is this a right RoPE? Each property that one must have, as a check of its own, and all of them as `check_rope`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from posenc import _parameters as check
from posenc.checks import _units
from posenc.checks._calling import as_float64, dtype_name
from posenc.checks._property import FAR, Property, Subject, by_token, diagnosed, property_of, worst_token
from posenc.checks._report import Line, Report
from posenc.checks._rounding import HALVES
from posenc.checks.identification import Identification
from posenc.rotary import Rope, as_rope

if TYPE_CHECKING:
    import numpy.typing as npt

    Floats = npt.NDArray[np.float64]
    Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class RopeCheck(Report):
    """What `check_rope` found.

    Attributes
    ----------
    ok : bool
    rope : Rope
        What it should be.
    properties : tuple of Property
    diagnosis : Identification or None
        What the function is, where a property fails.
    """

    ok: bool
    rope: Rope
    properties: tuple[Property, ...]
    diagnosis: Identification | None = None

    def __getitem__(self, name: str) -> Property:
        """Return a property by its name."""
        return next(
            p for p in self.properties if p.name == check.choice("name", name, [p.name for p in self.properties])
        )

    def title(self) -> str:
        """Return the verdict in one line."""
        return f"{'a right' if self.ok else 'NOT a right'} rotation of {self.rope!r}"

    def lines(self) -> list[Line]:
        """Return the properties, then the diagnosis."""
        found = [p.line() for p in self.properties]
        if self.diagnosis is not None:
            found.append(Line("it is", self.diagnosis.name))
            found += [
                Line("fault", str(f), False, (f.meaning, f"usual cause: {f.cause}")) for f in self.diagnosis.faults
            ]
        return found


# ---- the properties


@property_of(
    "the numbers are not those of the rotation that was asked for",
    "see the fault: another convention, base, scaling, offset or precision",
    needs_rope=True,
)
def rope_matches(subject: Subject) -> dict[str, Any]:
    """Check that a function rotates as a Rope does; in a short call too where the length decides."""
    found = _compared(subject, subject.positions())
    if subject.rope.at(8) == subject.rope.at(subject.max_position + 1):
        return found
    short = _compared(subject, np.arange(8, dtype=np.int64))
    short["where"] += " of a call of 8 tokens"
    return short if found["residual"] <= found["allowed"] else found


def _compared(subject: Subject, where: Ints) -> dict[str, Any]:
    """Return the difference to the Rope's numbers in one call."""
    positions = subject.on_axes(where)
    x = subject.x(positions.shape[-1])
    rope = subject.rope.at(int(positions.max()) + 1)
    wanted = np.asarray(rope(x.astype(np.float64), positions=positions))
    found = subject.call(x, positions)
    scale = float(np.abs(x).max())
    gap = by_token(np.abs(found - wanted)) / scale
    allowed = np.array([subject.allowed(positions[..., j]) for j in range(positions.shape[-1])])
    over = int(np.argmax(np.where(np.isnan(gap), np.inf, gap) / allowed))
    return {
        "residual": float(gap[over]),
        "allowed": float(allowed[over]),
        "where": f"at position {positions[..., over].tolist()}",
        "max_ulp": float(_units.units(found.astype(np.float32), wanted).max()),
        "first_bad": _units.first_bad(found, wanted, float(allowed.min()) * scale),
    }


@property_of(
    "position 0 is not the identity",
    "positions count from 1, cosine and sine are exchanged, or a table starts elsewhere",
)
def origin(subject: Subject) -> dict[str, Any]:
    """Check that position 0 changes nothing but the attention factor (and the order of interleaved_to_half)."""
    x = subject.x(1)
    positions = subject.on_axes(np.zeros(1, np.int64))
    found = subject.call(x, positions)
    if subject.known:
        wanted = np.asarray(subject.rope.at(1)(x.astype(np.float64), positions=positions))
    else:
        wanted = x * float(np.linalg.norm(found) / np.linalg.norm(x))
    return {
        "residual": float(np.abs(found - wanted).max() / np.abs(x).max()),
        "allowed": subject.allowed(positions),
        "where": "",
    }


@property_of(
    "the rotation changes norms, so it is none",
    "the two elements of a pair turn by different angles, tables of 16 bits, or a missing minus sign",
    loses=True,
)
def isometry(subject: Subject) -> dict[str, Any]:
    """Check that norms are kept, up to one attention factor."""
    positions = subject.on_axes(subject.positions())
    x = subject.x(positions.shape[-1])
    before, after = (np.linalg.norm(t, axis=-1) for t in (x.astype(np.float64), subject.call(x, positions)))
    first, width = subject.rope.rotary_offset, subject.rope.rotary_dim
    if subject.known and subject.rope.attention_factor != 1:  # it multiplies the rotated part alone
        part = np.linalg.norm(x[..., first : first + width].astype(np.float64), axis=-1)
        factor = subject.rope.at(int(positions.max()) + 1).attention_factor
        before = np.sqrt(before**2 + (factor**2 - 1) * part**2)
    gap = np.abs(after / before - 1).max(axis=(0, 1))
    residual, where = worst_token(gap, positions)
    return {"residual": residual, "allowed": 1e-5, "where": where}


@property_of(
    "scores depend on more than the distance of two tokens",
    "angles in float32 at large positions, positions rounded to 16 bits, a scaling that changes with the length, or no "
    "rotation",
    loses=True,
)
def relative(subject: Subject) -> dict[str, Any]:
    """Check R_i R_j^T = R_(i-j): scores of two tokens stay the same where both move by the same distance."""
    tokens = np.array([[0, 3, 40], [3, 40, 0], [40, 0, 3], [0, 40, 3]] * 2, np.int64)  # other distances on other axes
    moves = [m for m in (1, 256, subject.context, 65521, FAR - 40) if m + 40 <= subject.max_position]
    q, k = subject.x(3), subject.x(3)
    positions = np.concatenate([tokens + m for m in (0, *moves)], axis=-1)
    positions = positions[0] if subject.rope.axes == 1 else positions[: subject.rope.axes]
    tiled = [np.tile(t, (1, 1, len(moves) + 1, 1)) for t in (q, k)]
    turned = [subject.call(t, positions).reshape(*t.shape[:2], -1, 3, t.shape[-1]) for t in tiled]
    scores = np.einsum("bhsid,bhsjd->sbhij", *turned)
    size = np.linalg.norm(q, axis=-1)[:, :, :, None] * np.linalg.norm(k, axis=-1)[:, :, None, :]
    gap = np.abs(scores[1:] - scores[0]).max(axis=(1, 2, 3, 4)) / size.max()
    at = np.array(moves)
    over = np.where(np.isnan(gap), np.inf, gap) / [subject.allowed(np.array([m + 40])) for m in moves]
    j = int(np.argmax(over))
    return {"residual": float(gap[j]), "allowed": subject.allowed(at[j] + 40), "where": f"tokens moved by {moves[j]}"}


@property_of(
    "decoding from a cache gives other numbers than one prefill",
    "the length of the call decides the angles, positions are counted from 0 in every call, or a cache of the module",
)
def offset_equals_prefill(subject: Subject) -> dict[str, Any]:
    """Check that tokens one by one, and in chunks, are rotated as in one call."""
    n = min(24, subject.max_position)
    positions = np.r_[np.arange(n), min(subject.context, subject.max_position)].astype(np.int64)
    x, where = subject.x(len(positions)), subject.on_axes(positions)
    whole = subject.call(x, where)
    longest = int(positions.max()) + 1
    if subject.rope.at(longest) != subject.rope.at(1):  # such a scaling cannot have this beyond its switch
        return {"residual": 0.0, "allowed": 0.0, "where": "not asked: the scaling depends on the length of the call"}
    parts = [(0, 7), (7, 8), (8, len(positions))]
    pieces = [subject.call(x[:, :, a:b], where[..., a:b]) for a, b in parts]
    alone = [subject.call(x[:, :, j : j + 1], where[..., j : j + 1]) for j in range(len(positions))]
    gap = by_token(np.maximum(*(np.abs(np.concatenate(p, axis=2) - whole) for p in (pieces, alone)))) / np.abs(x).max()
    residual, at = worst_token(gap, where)
    return {"residual": residual, "allowed": 1e-6, "where": at}


@property_of(
    "a packed document is not rotated as it would be alone",
    "positions not reset at document borders, or not used at all",
)
def packed_equals_separate(subject: Subject) -> dict[str, Any]:
    """Check that documents packed into one sequence, each counted from 0, are rotated as if alone."""
    lengths = (5, 1, 9)
    rows = [subject.on_axes(np.arange(n, dtype=np.int64)) for n in lengths]
    where = np.concatenate(rows, axis=-1)
    x = subject.x(sum(lengths))
    together = subject.call(x, where)
    cuts = np.cumsum(lengths)[:-1]
    alone = [subject.call(part, row) for part, row in zip(np.split(x, cuts, axis=2), rows, strict=True)]
    residual, at = worst_token(
        by_token(np.abs(np.concatenate(alone, axis=2) - together)) / np.abs(x).max(), np.arange(sum(lengths))
    )
    return {"residual": residual, "allowed": 1e-6, "where": at.replace("position", "token")}


@property_of(
    "padding on the left changes what the tokens behind it become",
    "positions counted with the padding, one set of positions for rows of different padding",
)
def left_padding(subject: Subject) -> dict[str, Any]:
    """Check that tokens behind padding, at positions 0, 0, 0, 0, 1, 2, .., are rotated as without it."""
    count, padding = 8, 3
    x = subject.x(padding + count)
    padded = subject.on_axes(np.r_[np.zeros(padding, np.int64), np.arange(count)].astype(np.int64))
    plain = padded[..., padding:]
    gap = np.abs(subject.call(x, padded)[:, :, padding:] - subject.call(x[:, :, padding:], plain))
    residual, at = worst_token(by_token(gap) / np.abs(x).max(), plain)
    return {"residual": residual, "allowed": 1e-6, "where": at}


@property_of(
    "un-rotating does not give the input back",
    "the attention factor multiplied where it should be divided out, another direction, or no rotation",
    needs_rope=True,
    loses=True,
)
def inverse(subject: Subject) -> dict[str, Any]:
    """Check that the inverse of the Rope undoes the function."""
    positions = subject.on_axes(subject.positions())
    x = subject.x(positions.shape[-1])
    rope = subject.rope.at(int(positions.max()) + 1)
    back = np.asarray(rope(subject.call(x, positions), positions=positions, inverse=True))
    gap = by_token(np.abs(back - x)) / np.abs(x).max()
    allowed = np.array([subject.allowed(positions[..., j]) for j in range(positions.shape[-1])])
    over = int(np.argmax(np.where(np.isnan(gap), np.inf, gap) / allowed))
    return {
        "residual": float(gap[over]),
        "allowed": float(allowed[over]),
        "where": f"at position {positions[..., over].tolist()}",
    }


@property_of(
    "the result has a narrower dtype than the input, the input is overwritten, or 16-bit input is treated coarsely",
    "a cast in the middle, in-place arithmetic, or tables and positions in the activations' dtype",
)
def dtypes(subject: Subject) -> dict[str, Any]:
    """Check that no dtype gets narrower, that the input stays, and that 16-bit input is rotated within 4 units.

    A wider result, as float32 tables make it, is right and is said by name; attention asks for one dtype, so a model
    casts it back.
    """
    positions = subject.on_axes(subject.positions())
    x = subject.x(positions.shape[-1])
    exact = subject.call(x, positions)
    worst, allowed, where = 0.0, 1.0, "float32 alone: 16-bit input is refused"
    promoted: list[str] = []
    for name, given in (("float32", x), *_halves_of(x, subject.call.kind)):
        ok, text, residual, came = _keeps(subject, name, given, positions, exact)
        if not ok:
            return {"ok": False, "residual": residual, "allowed": allowed, "where": text}
        if came != name:
            promoted.append(f"{name} in, {came} out")
        if text:
            worst, where = max(worst, residual), text
    where += f"; promoted by wider tables: {', '.join(promoted)}" if promoted else ""
    return {"ok": worst <= allowed, "residual": worst, "allowed": allowed, "where": where}


_BYTES = {"float16": 2, "bfloat16": 2, "float32": 4, "float64": 8}


def _halves_of(x: Any, kind: str) -> list[tuple[str, Any]]:
    if kind == "numpy":
        return [("float16", x.astype(np.float16))]
    import torch

    return [(name, torch.from_numpy(x).to(getattr(torch, name))) for name in ("float16", "bfloat16")]


def _keeps(subject: Subject, name: str, given: Any, positions: Ints, exact: Floats) -> tuple[bool, str, float, str]:
    """Return (ok, what to say, residual in units of 4 last places of 16-bit results, dtype of the result)."""
    if subject.call.kind == "torch":
        import torch

        x = torch.from_numpy(given.copy()) if isinstance(given, np.ndarray) else given.clone()
        where: Any = torch.from_numpy(np.array(positions))
    else:
        x, where = given.copy(), np.array(positions)
    before = as_float64(x).copy()
    try:
        with subject.call._no_grad():
            y = subject.fn(x, where)
    except Exception:
        if name == "float32":
            raise
        return True, "", 0.0, name  # only float32 is promised
    came = dtype_name(y)
    if came != name and _BYTES.get(came, 0) <= _BYTES[name]:
        return False, f"{name} in, {came} out", float("nan"), came
    if not np.array_equal(as_float64(x), before):
        return False, f"{name} input is overwritten", float("nan"), came
    if not np.array_equal(as_float64(where), positions):
        return False, "the positions are overwritten", float("nan"), came
    if name == "float32":
        return True, "", 0.0, came
    unit = {"float16": 2.0**-11, "bfloat16": 2.0**-8}[name]
    rounded = HALVES[name](exact)
    error = float(np.abs(as_float64(y) - rounded).max() / np.abs(rounded).max())
    return True, f"{name} within {error / unit:.3g} units of the last place", error / unit / 4, came


@property_of(
    "a long call changes what later short calls give",
    "frequencies or tables cached in the module and not reset",
)
def stateless(subject: Subject) -> dict[str, Any]:
    """Check that a call gives the same before and after a long one: a short one, and one just beyond L."""
    counting, long = np.arange(8, dtype=np.int64), subject.on_axes(subject.positions())
    beyond = np.r_[np.arange(7), min(subject.context + 8, subject.max_position)].astype(np.int64)
    calls = [(subject.x(8), subject.on_axes(where)) for where in (counting, beyond)]
    before = [subject.call(x, where) for x, where in calls]
    worst, at = 0.0, ""
    for (x, where), wanted in zip(calls, before, strict=True):
        subject.call(subject.x(long.shape[-1]), long)
        gap = by_token(np.abs(subject.call(x, where) - wanted)) / np.abs(x).max()
        residual, place = worst_token(gap, where)
        if residual > worst:
            worst, at = residual, f"{place} of a call up to {int(where.max())}"
    return {"residual": worst, "allowed": 0.0, "where": at}


PROPERTIES = (
    rope_matches, origin, isometry, relative, offset_equals_prefill, packed_equals_separate, left_padding, inverse,
    dtypes, stateless,
)  # fmt: skip


def check_rope(
    fn: Callable[..., Any],
    rope: Rope,
    *,
    like: Any = None,
    heads: int | None = None,
    context: int | None = None,
    max_position: int = FAR,
) -> RopeCheck:
    """Check that a function is the rotation of a Rope, property by property.

    At positions 0, 1, 40, L-1, L, L+1 and 131071: its numbers; norms; scores by distance alone, R_i R_j^T = R_(i-j);
    one prefill as chunks and single tokens; packed documents; left padding; the inverse; dtypes; and that no call
    changes a later one. What fails says what that means and what usually causes it, and `identify` says what the
    function is.

    Parameters
    ----------
    fn : callable
        fn(x, positions) -> rotated x; x (1, heads, seq, head_dim) float32, positions (seq,) int64, or (axes, seq).
    rope : Rope
        What it should be. precision="float32" allows what float32 angles cost; "exact" does not.
    like : {"numpy", "torch"}, array or tensor, optional
        What fn is called with; default: its attribute `like`, else NumPy.
    heads : int, optional
        The only number of heads that fn takes.
    context : int, optional
        L; default: that of the scaling, else 4096.
    max_position : int
        Positions above are not asked for.

    Returns
    -------
    RopeCheck
        Its truth value is the verdict: `assert check_rope(fn, rope)`.

    Raises
    ------
    TypeError
        For an fn that cannot be called, or another thing than a Rope.

    Examples
    --------
    >>> rope = posenc.Rope(64, layout="half")
    >>> bool(check_rope(lambda x, positions: rope(x, positions=positions), rope))
    True
    >>> found = check_rope(lambda x, positions: rope(x, positions=positions + 1), rope)
    >>> [p.name for p in found.properties if not p.ok], found.diagnosis.faults[0].fault
    (['rope_matches', 'origin', 'inverse'], 'offset')
    """
    as_rope(rope)
    subject = Subject(fn, rope, like, heads, context, max_position)
    # `stateless` first: nothing long has been asked yet
    order = (stateless, *(p for p in PROPERTIES if p is not stateless))
    found = {p.__name__: p.run(subject) for p in order}
    results = tuple(found[p.__name__] for p in PROPERTIES)
    ok = all(p.ok for p in results)
    return RopeCheck(ok, rope, results, None if ok else diagnosed(subject))
