"""What the properties of a rotation share: the report of one, the function under test, how a check is made of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from posenc import _parameters as check
from posenc.checks._calling import Caller
from posenc.checks._report import Line, Report
from posenc.checks.identification import Identification, identify
from posenc.rotary import Rope, as_rope

if TYPE_CHECKING:
    import numpy.typing as npt

    Floats = npt.NDArray[np.float64]
    Ints = npt.NDArray[np.int64]

FAR = 131071
_FLOAT32 = 1e-5  # what rounding may cost, relative to the largest input


@dataclass(frozen=True)
class Property(Report):
    """One property of a rotation, and whether a function has it.

    Attributes
    ----------
    ok : bool
    name : str
    residual : float
        The largest violation, relative to the largest input; NaN where the function raised an error.
    allowed : float
        What rounding may cost there.
    where : str
        The positions at which it is largest.
    meaning, cause : str
        What a failure means, and what usually causes it.
    max_ulp : float
        The largest difference in units of the last place; NaN where two arrays were not compared.
    first_bad : tuple of int or None
        The first index that is wrong.
    diagnosis : Identification or None
        What the function is, where the property fails.
    """

    ok: bool
    name: str
    residual: float
    allowed: float
    where: str
    meaning: str
    cause: str
    max_ulp: float = float("nan")
    first_bad: tuple[int, ...] | None = None
    diagnosis: Identification | None = None

    def title(self) -> str:
        """Return the verdict in one line."""
        return f"{self.name.replace('_', ' ')}: {'holds' if self.ok else 'FAILS'}"

    def line(self) -> Line:
        """Return it as a line of a larger report."""
        size = (
            f"{self.residual:.1e} of the largest input, {self.allowed:.1e} allowed"
            if self.residual == self.residual
            else ""
        )
        text = ", ".join(filter(None, [size, self.where]))
        notes = () if self.ok else (self.meaning, f"usual cause: {self.cause}")
        return Line(self.name.replace("_", " "), text, self.ok, notes)

    def lines(self) -> list[Line]:
        """Return the numbers, what a failure means, and the diagnosis."""
        found = [self.line()]
        if not self.ok and self.max_ulp == self.max_ulp:
            found.append(Line("largest difference", f"{self.max_ulp:.4g} ulp"))
        if not self.ok and self.first_bad is not None:
            found.append(Line("first bad index", str(self.first_bad)))
        if self.diagnosis is not None:
            found.append(Line("it is", self.diagnosis.name))
            found += [
                Line("fault", str(f), False, (f.meaning, f"usual cause: {f.cause}")) for f in self.diagnosis.faults
            ]
        return found


class Subject:
    """The function, what it should be, and the input that it is tried with."""

    def __init__(
        self, fn: Any, rope: Rope | int, like: Any, heads: int | None, context: int | None, max_position: int
    ) -> None:
        if not isinstance(rope, Rope):
            rope = Rope(check.integer("rope (or its head_dim)", rope, 2), layout="half")
            self.known = False
        else:
            self.known = True
        self.fn, self.rope, self.like, self.heads = fn, rope, like, heads
        self.call = Caller(fn, like=like, heads=heads)
        self.max_position = check.integer("max_position", max_position, 8)
        length = context if context is not None else getattr(rope.scaling, "original_max_position_embeddings", 4096)
        self.context = check.integer("context", length, 1)
        self.rng = np.random.default_rng(0)

    def positions(self) -> Ints:
        """Return 0, 1, 40, L-1, L, L+1 and 131071, as far as they may be asked for."""
        wanted = {0, 1, 40, self.context - 1, self.context, self.context + 1, FAR}
        return np.array(sorted(p for p in wanted if 0 <= p <= self.max_position), np.int64)

    def on_axes(self, positions: Ints) -> Ints:
        """Return positions for every axis, different ones."""
        if self.rope.axes == 1:
            return positions
        return np.stack([np.roll(positions, a) for a in range(self.rope.axes)])

    def x(self, seq: int) -> Floats:
        """Return random input that float32 holds."""
        return self.rng.standard_normal((1, self.heads or 3, seq, self.rope.head_dim)).astype(np.float32)

    def allowed(self, positions: Ints) -> float:
        """Return what rounding may cost: more at large positions for precision="float32" alone."""
        far = float(np.abs(positions).max(initial=0)) * float(np.abs(self.rope.inv_freq).max())
        return _FLOAT32 * self.rope.attention_factor + (3e-7 * far if self.rope.precision == "float32" else 0.0)


#: what is said in place of a property's meaning and cause where the function under test raised
_UNANSWERED = (
    "the question got no answer: fn does not take this call, or gives no array of x's shape",
    "another signature, a fixed number of heads (heads=), a largest position (max_position=), tensors alone (like=)",
)


def property_of(meaning: str, cause: str, *, needs_rope: bool = False, loses: bool = False) -> Callable[[Any], Any]:
    """Make a check of a function that measures: (subject) -> dict of residual, allowed, where, .. or a bool `ok`."""

    def decorate(measure: Callable[[Subject], dict[str, Any]]) -> Callable[..., Property]:
        name = measure.__name__

        def run(subject: Subject) -> Property:
            if loses and subject.known and subject.rope.rotary_dim % 2:
                text = "not asked: an odd head loses what its last output would hold"
                return Property(True, name, 0.0, 0.0, text, meaning, cause)
            try:
                with np.errstate(all="ignore"):
                    found = measure(subject)
            except Exception as error:  # of the function under test
                text = f"raises {type(error).__name__}: {error}".splitlines()[0][:300]
                return Property(False, name, float("nan"), float("nan"), text, *_UNANSWERED)
            ok = found.pop("ok", None)
            residual, allowed = found["residual"], found["allowed"]
            return Property(
                bool(residual <= allowed) if ok is None else ok, name, meaning=meaning, cause=cause, **found
            )

        def checked(
            fn: Callable[..., Any], rope: Rope | int, *, like: Any = None, heads: int | None = None,
            context: int | None = None, max_position: int = FAR,
        ) -> Property:  # fmt: skip
            if needs_rope:
                as_rope(rope)
            subject = Subject(fn, rope, like, heads, context, max_position)
            found = run(subject)
            return found if found.ok else replace(found, diagnosis=diagnosed(subject))

        checked.__name__ = checked.__qualname__ = name
        checked.__module__ = __name__
        checked.__doc__ = f"{measure.__doc__}{_PARAMETERS}"
        checked.run = run  # type: ignore[attr-defined]
        return checked

    return decorate


_PARAMETERS = """
    Parameters
    ----------
    fn : callable
        fn(x, positions) -> rotated x; x (1, heads, seq, head_dim) float32, positions (seq,) int64, or (axes, seq).
    rope : Rope
        What it should be; its head_dim alone is enough where the property does not depend on it.
    like : {"numpy", "torch"}, array or tensor, optional
        What fn is called with; default: its attribute `like`, else NumPy.
    heads : int, optional
        The only number of heads that fn takes.
    context : int, optional
        L of the positions 0, 1, 40, L-1, L, L+1, 131071; default: that of the scaling, else 4096.
    max_position : int
        Positions above are not asked for.

    Returns
    -------
    Property
        Its truth value is the verdict; a failed one carries the diagnosis of `identify`.
    """


def diagnosed(subject: Subject) -> Identification | None:
    try:
        return identify(
            subject.fn, subject.rope.head_dim, expected=subject.rope if subject.known else None, axes=subject.rope.axes,
            heads=subject.heads, like=subject.like, max_position=subject.max_position,
        )  # fmt: skip
    except Exception:  # it raises, or answers with another shape: the property has said so
        return None


def worst_token(gap: Floats, positions: Any) -> tuple[float, str]:
    """Return the largest entry of gaps by token, and the position there; NaN counts as infinite."""
    gap = np.where(np.isnan(gap), np.inf, gap)
    j = int(np.argmax(gap))
    where = positions[..., j]
    return float(gap[j]), f"at position {where.tolist() if np.ndim(where) else int(where)}"


def by_token(gap: Floats) -> Floats:
    return np.asarray(gap.max(axis=(0, 1, 3)))
