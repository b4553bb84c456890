"""Biases that content decides: the index of a distance, the one call into C, and the sums of their gradients."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from posenc import _core, runtime
from posenc import _parameters as check
from posenc.bias import _scores

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy.typing as npt

    #: distance of query and key (query - key) -> entry
    Index = Callable[[npt.NDArray[np.int64]], npt.NDArray[np.int64]]

#: What C reads of an index around the distances of a call, so that it can take whole blocks.
_MARGIN = 1100
#: Queries and keys together for which that is made; beyond, C clamps each distance by itself.
_MOST = 1 << 22


def counts_up(where: _scores.Where) -> bool:
    """Return whether positions count up from the first."""
    return where[0] is None and where[1] is None


def entries_term(
    of_query: Any,
    of_key: Any,
    index: Index,
    reach: int,
    where: _scores.Where,
    shape: tuple[int, ...],
    scale: float,
    kind: str = "d",
) -> tuple[Any, ...]:
    """Return what C adds: entries of rows that belong to a query and to a key.

    `reach`: beyond it, either way, the index no longer changes. `kind`: how messages name the arrays.
    """
    low, high = -reach, reach
    if counts_up(where) and len(shape) >= 2 and sum(shape[-2:]) <= _MOST:  # every distance of the call, and around it
        queries, keys = shape[-2:]
        low, high = -(where[2] + queries) - _MARGIN, keys - where[2] + _MARGIN
    entries = index(np.clip(-np.arange(low, max(high, low + 1) + 1), -reach, reach)).astype(np.int32)
    return of_query, of_key, np.stack([entries, entries[::-1]]), low, scale, kind


def products_term(query: Any, addend: Any, rows: Any, origin: int, scale: float) -> tuple[Any, ...]:
    """Return what C adds: products of query + addend with the row of a distance, `origin` that of distance 0."""
    return query, addend, rows, origin, scale, "p"


def lengths(name: str, query_len: Any, key_len: Any, found: tuple[int | None, int | None]) -> tuple[int, int]:
    """Return the numbers of queries and keys: those said, or those of the arrays."""
    wanted = []
    for what, said, own in (("query_len", query_len, found[0]), ("key_len", key_len, found[1])):
        if said is None and own is None:
            raise ValueError(f"{what} must be given: {name} does not say it")
        wanted.append(own if said is None else _scores.length(what, said))
    return wanted[0] or 0, wanted[1] or 0


def leading(*arrays: Any) -> tuple[int, ...]:
    """Return the leading axes of the scores that arrays (.., rows, n) fit by broadcasting."""
    shapes = [_scores.shape_of(array)[:-2] for array in arrays if array is not None]
    try:
        return np.broadcast_shapes(*shapes)
    except ValueError:
        raise ValueError(f"leading axes must fit by broadcasting, got {' and '.join(map(str, shapes))}") from None


# ---- gradients ----


def sums(grad: Any, where: _scores.Where, mask: _scores.Mask, term: tuple[Any, ...], first: Any, second: Any) -> None:
    """Add what entries, queries and rows gather to float64 arrays; the same bits for any number of threads.

    The work is shared along the heads, where both arrays have them: no sum is made by two threads.
    """
    runtime.call(_core.relative_gradient, grad, where, mask, term, first, second)


def target(name: str, out: Any, shape: tuple[int, ...]) -> npt.NDArray[np.float64]:
    """Return what a gradient is added to: new zeros, or the float64 array that was given."""
    if out is None:
        return np.zeros(shape)
    if not isinstance(out, np.ndarray) or out.dtype != np.float64:
        raise TypeError(f"{name} must be a float64 array, got {check.shown(out)}")
    if out.shape != shape:
        raise ValueError(f"{name} must have shape {shape}, got {out.shape}")
    if not out.flags.writeable:
        raise BufferError(f"{name} is read-only")
    if not out.flags.c_contiguous:
        raise ValueError(f"{name} must be contiguous")
    return out


def summed_axes(shape: tuple[int, ...], leading_axes: tuple[int, ...]) -> tuple[int, ...]:
    """Check that (.., rows, n) fits scores with these leading axes; return it."""
    own = shape[:-2]
    fits = len(own) <= len(leading_axes) and all(
        a in (1, b) for a, b in zip(own[::-1], leading_axes[::-1], strict=False)
    )
    if not fits:
        raise ValueError(f"leading axes {own} do not fit those of the gradient, {leading_axes}")
    return shape
