"""A function as a matrix at each position, from its answers to basis vectors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

    from posenc.checks._calling import Caller

    Floats = npt.NDArray[np.float64]
    Ints = npt.NDArray[np.int64]

#: What a short call asks for: exact in every 16-bit float, and below the length at which any scaling sets in.
SHORT = (0, 1, 2, 3, 4, 5, 6, 7, 8, 16, 32)
#: Beyond: doubled positions to unwrap by; odd ones, which 16-bit floats cannot hold; and what is known to break.
LADDER = tuple(2**k for k in range(6, 17))
ODD = (40, 257, 515, 2047, 4095, 4097, 32767, 65521, 131071)


def matrices(call: Caller, positions: Ints, head_dim: int) -> Floats:
    """Return M of shape (seq, head_dim, head_dim) with fn(x, positions)[.., j, :] = M[j] @ x[.., j, :].

    One call: head h of x is basis vector h at every position.
    """
    seq = positions.shape[-1]
    basis = np.broadcast_to(np.eye(head_dim, dtype=np.float32)[:, None, :], (head_dim, seq, head_dim))
    with np.errstate(all="ignore"):
        answer = call(basis[None], positions)
    return np.asarray(answer[0].transpose(1, 2, 0))


def nonlinearity(call: Caller, positions: Ints, found: Floats) -> float:
    """Return how far the answers to random vectors are from the matrices', relative to their norm."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((1, 4, positions.shape[-1], found.shape[-1])).astype(np.float32)
    with np.errstate(all="ignore"):
        y = call(x, positions)[0]
        wanted = np.einsum("poi,hpi->hpo", found, x[0].astype(np.float64))
        gap = np.abs(y - wanted).max(axis=-1) / np.linalg.norm(x[0], axis=-1)
    return float(np.nanmax(gap, initial=0.0)) if np.isfinite(gap).any() else float("nan")


def on_axis(positions: Any, axis: int, axes: int, elsewhere: int = 0) -> Ints:
    """Return positions on one axis, the others at `elsewhere`: (seq,), or (axes, seq)."""
    row = np.asarray(positions, np.int64)
    if axes == 1:
        return row
    result = np.full((axes, len(row)), elsewhere, np.int64)
    result[axis] = row
    return result


def furthest(call: Caller, head_dim: int, axes: int, most: int) -> tuple[int, str]:
    """Return the largest position of a falling list that the function takes, and what it says of the next one."""
    said, x = "", np.ones((1, 1, 2, head_dim), np.float32)
    for last in (most, *(n for n in _FALLING if n < most)):
        try:
            for axis in range(axes):
                call(x, on_axis([0, last], axis, axes))
        except Exception as error:  # whatever the function under test raises: it takes no such position
            text = str(error)
            said = f"{type(error).__name__}: {text.splitlines()[0][:200]}" if text else type(error).__name__
            continue
        return last, said
    raise ValueError(
        f"fn answers at no position, not up to {_FALLING[-1]} either: {said}. It is called with {call.kind} arrays of "
        f"shape {(1, call.heads or 1, *x.shape[2:])}; like= and heads= say otherwise"
    )


_FALLING = (131071, 65535, 32767, 16383, 8191, 4095, 2047, 1023, 511, 255, 127, 63, 31, 15, 8, 4)
