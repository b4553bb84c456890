"""What every bias shares: where queries and keys are, which keys are seen, and the one call into C."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from posenc import _core, _views, runtime
from posenc import _parameters as check

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy.typing as npt

#: (causal, left, right, sinks) as C takes them
Mask = tuple[int, float, float, float]
#: (query positions, key positions, first query position)
Where = tuple[Any, Any, int]

LARGEST_POSITION = 1 << 30


def mask_of(causal: Any, window: Any, sinks: Any) -> Mask:
    """Return a mask as C takes it, from what a caller may say."""
    if isinstance(causal, str):
        if causal != "skip":
            raise ValueError(f"causal must be True, False or 'skip', got {causal!r}")
        code = 2
    elif isinstance(causal, (bool, np.bool_)):
        code = int(causal)
    else:
        raise TypeError(f"causal must be True, False or 'skip', got {check.shown(causal)}")
    left, right = _window(window)
    return code, left, right, float(check.integer("sinks", sinks, 0, LARGEST_POSITION))


def _window(window: Any) -> tuple[float, float]:
    """Return how far to the left and to the right keys are seen; infinity for no bound."""
    if window is None:
        return math.inf, math.inf
    if isinstance(window, (tuple, list)):
        if len(window) != 2:
            raise ValueError(f"window must be a number of keys or a pair (left, right), got {check.shown(window)}")
        names = ("window[0]", "window[1]")
        bounds = [
            math.inf if bound is None else float(min(check.integer(name, bound, 0), 4 * LARGEST_POSITION))
            for name, bound in zip(names, window, strict=True)
        ]
        return bounds[0], bounds[1]
    keys = min(check.integer("window", window, 1), 4 * LARGEST_POSITION)  # farther than any two positions
    return float(keys - 1), float(keys - 1)


def shape_of(scores: Any) -> tuple[int, ...]:
    """Return the shape of scores, or the empty one of what C will refuse."""
    try:
        return tuple(_views.sliceable(scores).shape)
    except Exception:
        return ()


def where_of(shape: tuple[int, ...], query_positions: Any, key_positions: Any) -> Where:
    """Return where queries and keys are; queries without positions are the last of the keys."""
    queries, keys = shape[-2:] if len(shape) >= 2 else (0, 0)
    if query_positions is not None or key_positions is None:
        return query_positions, key_positions, keys - queries
    positions = _views.as_array(key_positions)
    if queries > keys or getattr(positions, "ndim", 0) < 1 or positions.shape[-1] != keys:
        if queries > keys:
            raise ValueError(
                f"query_positions must be given where there are more queries ({queries}) than keys ({keys})"
            )
        return None, key_positions, 0  # C says what is wrong with the shape
    return positions[..., keys - queries :], key_positions, 0


def add(scores: Any, out: Any, where: Where, mask: Mask, term: Any) -> Any:
    """Add a term to scores where the mask sees the key."""
    if scores is None:  # which C takes for a bias without scores
        raise TypeError(f"scores must be a NumPy array or a torch CPU tensor, got {type(None)}")
    return _add(scores, out, where, mask, term)


def add_made(
    scores: Any,
    out: Any,
    make: Callable[[tuple[int, ...], Where], Any],
    masks: tuple[Any, Any, Any],
    positions: tuple[Any, Any],
) -> Any:
    """Add the term that `make` says for scores of a shape and for where their queries and keys are.

    `masks`: causal, window and sinks as a caller says them; `positions`: of queries and keys.
    """
    shape, mask = shape_of(scores), mask_of(*masks)
    where = where_of(shape, *positions)
    return add(scores, out, where, mask, make(shape, where))


def dense_of_heads(
    heads: int,
    lengths: tuple[Any, Any],
    rows: int | None,
    target: tuple[npt.DTypeLike, Any],
    term: Any,
    masks: tuple[Any, Any, Any],
    positions: tuple[Any, Any],
) -> Any:
    """Return a bias as an array, (heads, query_len, key_len), with `rows` of a batch before where there are some.

    `target`: the dtype of a new array, or the array to write into.
    """
    queries, keys = length("query_len", lengths[0]), length("key_len", lengths[1])
    shape = (heads, queries, keys) if rows is None else (rows, heads, queries, keys)
    return dense(shape, *target, where_of(shape, *positions), mask_of(*masks), term)


def _add(scores: Any, out: Any, where: Where, mask: Mask, term: Any) -> Any:
    return runtime.call(_core.add_bias, scores, out, where, mask, term)


def dense(shape: tuple[int, ...], dtype: npt.DTypeLike, out: Any, where: Where, mask: Mask, term: Any) -> Any:
    """Write a bias of a shape into `out`, or into a new array of a dtype."""
    if out is None:
        out = np.empty(shape, check.float_dtype(dtype))
    elif shape_of(out) != shape:
        raise ValueError(f"out must have shape {shape}, got {shape_of(out) or check.shown(out)}")
    return _add(None, out, where, mask, term)


def length(name: str, value: Any) -> int:
    """Return a number of queries or keys."""
    return check.integer(name, value, 0, LARGEST_POSITION)


def gradient_sums(gradient: Any, where: Where, mask: Mask, term: Any, sums: npt.NDArray[np.float64]) -> None:
    """Add what each slope or table entry gathers to `sums`, heads along axis -2; the same bits for any threads."""
    runtime.call(_core.bias_gradient, gradient, where, mask, term, sums)
