"""Which convention a function follows: called on chosen inputs, named, and reproduced."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from posenc import _parameters as check
from posenc.checks._calling import Caller
from posenc.checks._faults import Finding
from posenc.checks._report import Line, Report

if TYPE_CHECKING:
    pass


@dataclass(frozen=True)
class Identification(Report):
    """What `identify` found.

    Attributes
    ----------
    ok : bool
        Whether it is a convention that is reproduced, without a fault.
    kind : {"rotation", "bias", "table"}
    name : str
        In one line; "unknown" where nothing reproduces the function.
    rope : Rope, BlockRope, UnequalRope, XPos or None
        What reproduces a rotation, together with `position_offset`; None where nothing does. An XPos does by its
        `queries` or its `keys`, as the fact `side` says.
    facts : dict
        layout, rotary_dim, rotary_offset, direction, base, scaling, attention_factor, position_offset, axis_of_freq,
        table_precision; of xPos scale_base, centre and side too; for biases and tables their own.
    residual : float
        The largest difference between the function and what reproduces it, over all probes, relative to its input.
    runner_up : (str, float) or None
        The next best explanation and its residual; None where every other rule comes down to the same numbers.
    faults : tuple of Finding
        What is wrong with it, or with it compared with `expected`.
    notes : tuple of str
    """

    ok: bool
    kind: str
    name: str
    rope: Any
    facts: dict[str, Any]
    residual: float
    runner_up: tuple[str, float] | None = None
    faults: tuple[Finding, ...] = ()
    notes: tuple[str, ...] = ()
    reproduce: Callable[..., Any] | None = field(default=None, repr=False, compare=False)

    def __getstate__(self) -> dict[str, Any]:
        """Return what is pickled: `reproduce` is a function of one process, `rope` does the same."""
        return {**vars(self), "reproduce": None}

    def title(self) -> str:
        """Return the name of the convention."""
        return f"{self.kind}: {self.name}"

    def lines(self) -> list[Line]:
        """Return facts, faults and residuals."""
        found = [Line(key.replace("_", " "), _shown(value)) for key, value in self.facts.items() if value is not None]
        found.append(Line("residual", f"{self.residual:.1e} of the largest input"))
        if self.runner_up is not None:
            found.append(Line("runner-up", f"{self.runner_up[0]} (residual {self.runner_up[1]:.1e})"))
        found += [Line("fault", str(f), False, (f.meaning, f"usual cause: {f.cause}")) for f in self.faults]
        return found + [Line("note", note) for note in self.notes]

    def to_dict(self) -> dict[str, Any]:
        """Return the fields, ready for JSON."""
        own = super().to_dict()
        own.pop("reproduce")
        return own


def _shown(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.10g}"
    text = str(value)
    return text if len(text) <= 160 else f"{text[:157]}..."


def identify(
    fn: Callable[..., Any],
    head_dim: int | None = None,
    *,
    kind: str = "rotation",
    expected: Any = None,
    axes: int | None = None,
    heads: int | None = None,
    like: Any = None,
    max_position: int = 131071,
) -> Identification:
    """Name the convention of a position encoding that is given as a function.

    A rotation is called on basis vectors at a few positions, large ones too; from its matrices follow the pairs, from
    their phases at 0, 1, 2, 4, .. the frequencies, from these base and scaling. What was found is then compared with
    the function at every probe. Nothing is guessed: where no convention reproduces it, the name is "unknown".

    Parameters
    ----------
    fn : callable
        For a rotation fn(x, positions) -> rotated x; x (1, heads, seq, head_dim) float32, positions (seq,) int64, or
        (axes, seq). For a bias fn(query_len, key_len) -> (heads, query_len, key_len). For a table fn(positions) ->
        (seq, dim).
    head_dim : int, optional
        Needed for a rotation, unless `expected` or fn has it.
    kind : {"rotation", "bias", "table"}
    expected : Rope, optional
        What it should be: differences are then named as faults.
    axes : int, optional
        Position axes; default those of `expected`, else 1.
    heads : int, optional
        The only number of heads that a rotation takes.
    like : {"numpy", "torch"}, array or tensor, optional
        What a function is called with; default: its attribute `like`, else NumPy.
    max_position : int
        The largest position to try (of rotations and tables); smaller ones are taken where the function refuses it.

    Returns
    -------
    Identification

    Raises
    ------
    TypeError, ValueError
        For a function that does not return an array of x's shape, and for wrong parameters.

    Examples
    --------
    >>> rope = posenc.Rope(64, layout="interleaved", base=500000.0, rotary_dim=32)
    >>> found = identify(lambda x, positions: rope(x, positions=positions), 64)
    >>> found.rope == rope
    True
    >>> print(found.name)
    interleaved, 32 of 64 elements, base 500000
    """
    kind = check.choice("kind", kind, ("rotation", "bias", "table"))
    own = {"expected": expected, "axes": axes, "heads": heads}
    if kind != "rotation" and any(value is not None for value in own.values()):
        raise ValueError(f"expected, axes and heads are for a rotation, not for a {kind}")
    if expected is not None and not hasattr(expected, "head_dim"):
        raise TypeError(f"expected must be a posenc.Rope, got {check.shown(expected)}")
    if kind == "table":
        from posenc.checks._table import identify_table

        return identify_table(fn, like, check.integer("max_position", max_position, 4))
    if kind == "bias":
        from posenc.checks._bias import identify_bias

        return identify_bias(fn)
    from posenc.checks._rotation import identify_rotation

    if head_dim is None:
        head_dim = getattr(expected, "head_dim", getattr(fn, "head_dim", None))
    if head_dim is None:
        raise TypeError("head_dim must be given for a rotation")
    head_dim = check.integer("head_dim", head_dim, 2)
    axes = check.integer(
        "axes", getattr(expected, "axes", getattr(fn, "axes", 1)) if axes is None else axes, 1, check.MAX_AXES
    )
    call = Caller(fn, like=like, heads=heads)
    return identify_rotation(call, head_dim, axes, check.integer("max_position", max_position, 4), expected)
