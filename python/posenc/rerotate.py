"""Cached keys turned on: to other positions, or to other frequencies."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np

from posenc import _parameters as check
from posenc import _views
from posenc.rotary import Rope, as_rope
from posenc.scaling import InverseFrequencies

_LIMIT = 2.0**31


def shift(rope: Rope, k: Any, delta: Any, *, seq_axis: int = -2, out: Any = None) -> Any:
    """Move rotated keys by some positions; see `Rope.shift`, which is this."""
    _check_rope("rope", rope)
    return _mover(rope)(k, positions=_spread(delta, _length(k, seq_axis), rope.axes), seq_axis=seq_axis, out=out)


def rerotate(
    k: Any,
    source: Rope,
    target: Rope,
    *,
    positions: Any = None,
    offset: Any = 0,
    seq_axis: int = -2,
    out: Any = None,
) -> Any:
    """Turn keys that one Rope has rotated into what another one would have made of them.

    Dynamic NTK changes its base as a sequence grows, and LongRoPE its factors where it crosses the length of training:
    keys cached before then carry angles of frequencies that queries no longer have. Pair i of the key at position p is
    turned by p * (target.inv_freq[i] - source.inv_freq[i]), the difference taken in float64, and multiplied by
    target.attention_factor / source.attention_factor, in one pass.

    Parameters
    ----------
    k : NumPy array or torch CPU tensor, shape (..., seq, head_dim)
        Keys as `source` rotated them.
    source, target : Rope
        Of fixed length (`rope.at(n)`), which read and write the same elements of a head: they differ in frequencies and
        attention factor alone.
    positions, offset, seq_axis
        The positions that k was rotated by, as in `Rope.__call__`.
    out : array, optional
        Where to write; may be k itself.

    Returns
    -------
    array
        `out` where given, else a new array like k.

    Raises
    ------
    TypeError, ValueError, BufferError
        For Ropes that do not go together, and as in `Rope.__call__`.

    Notes
    -----
    Every pass over a cache rounds it once more, and not at random: a turn of less than half a unit in the last place
    moves nothing, however often it is repeated, so slow pairs stay behind. Relative to the norm of a key, 128 shifts by
    one token leave 4e-6 in float32, 2e-2 in float16 and 1e-1 in bfloat16, where one shift by 128 leaves 7e-8, 4e-4 and
    3e-3; 128 changes of frequency are no better (tests/test_rerotate.py). Collect small corrections into a large one;
    a system that would correct its cache at every token should keep raw keys, and rotate those.

    A Rope of precision "float32" rounded the angles of the keys by up to position * 6e-8; that stays in them.

    Examples
    --------
    >>> import numpy as np
    >>> import posenc
    >>> from posenc.rerotate import rerotate
    >>> rope = posenc.Rope(64, layout="half", scaling=posenc.scaling.DynamicNTK(2.0, 128))
    >>> raw = np.ones((1, 2, 100, 64), np.float32)
    >>> cache = rope.at(100)(raw)
    >>> cache = rerotate(cache, rope.at(100), rope.at(300), out=cache)  # the sequence has grown to 300
    >>> bool(np.allclose(cache, rope.at(300)(raw), atol=1e-6))
    True
    """
    for name, rope in (("source", source), ("target", target)):
        _check_rope(name, rope)
    return _changer(source, target)(k, positions=positions, offset=offset, seq_axis=seq_axis, out=out)


@lru_cache(maxsize=64)
def _mover(rope: Rope) -> Rope:
    """Return the Rope that moves keys of another one; kept, since a decoder moves its cache token after token."""
    return _turn(rope, rope.inv_freq, 1.0)


@lru_cache(maxsize=64)
def _changer(source: Rope, target: Rope) -> Rope:
    """Return the Rope that turns keys of one Rope into those of another."""
    for what, one, other in _places(source, target):
        if one != other:
            raise ValueError(f"source and target must agree in {what}, got {one!r} and {other!r}")
    return _turn(source, target.inv_freq - source.inv_freq, target.attention_factor / source.attention_factor)


def _check_rope(name: str, rope: Any) -> None:
    rope = as_rope(rope, name)
    if rope.scaling is not None and rope.scaling.depends_on_length:
        raise ValueError(
            f"{name} has frequencies that depend on the sequence length: take {name}.at(n) of the length n that the "
            f"keys were rotated for"
        )
    if rope.rotary_dim % 2:
        raise ValueError(
            f"{name} rotates all of an odd head_dim ({rope.head_dim}), whose last pair has lost its second element: "
            f"rotate the raw keys again"
        )


def _written(rope: Rope) -> str:
    """Return the layout in which a Rope leaves what it has rotated."""
    return "half" if rope.layout == "interleaved_to_half" else rope.layout


def _places(source: Rope, target: Rope) -> list[tuple[str, Any, Any]]:
    """Return which elements two Ropes turn, and by which axes."""
    names = ("head_dim", "rotary_dim", "rotary_offset")
    places: list[tuple[str, Any, Any]] = [(name, getattr(source, name), getattr(target, name)) for name in names]
    axes: list[Any] = [None if r.axis_of_freq is None else r.axis_of_freq.tolist() for r in (source, target)]
    return [*places, ("the layout they write", _written(source), _written(target)), ("axis_of_freq", *axes)]


def _turn(rope: Rope, inv_freq: np.ndarray[Any, np.dtype[np.float64]], factor: float) -> Rope:
    """Return the Rope that turns what another one has written."""
    return Rope(
        rope.head_dim,
        layout=_written(rope),
        rotary_dim=rope.rotary_dim,
        rotary_offset=rope.rotary_offset,
        scaling=InverseFrequencies(tuple(inv_freq.tolist()), factor),
        axis_of_freq=rope.axis_of_freq,
    )


def _length(k: Any, seq_axis: Any) -> int:
    """Return the length of the sequence, or 1 where the call will be refused."""
    shape = tuple(_views.sliceable(k).shape) if hasattr(k, "ndim") or hasattr(k, "__dlpack__") else ()
    axis = check.integer("seq_axis", seq_axis, -(1 << 62))
    return int(shape[axis]) if -len(shape) <= axis < len(shape) else 1


def _spread(delta: Any, seq: int, axes: int) -> Any:
    """Return delta as positions: (seq,) or (batch, seq), behind the axes where there are several."""
    array = check.plain_array("delta", delta)
    if array.dtype.kind not in "iuf":
        raise TypeError(f"delta must be integers or floats, got {array.dtype}")
    array = array.astype(np.float64)
    if not (np.abs(array) < _LIMIT).all():  # NaN neither
        raise ValueError("delta must be finite, with |delta| below 2**31")
    least = 1 if axes == 1 else 2
    if array.ndim == 0:
        return np.broadcast_to(array, (seq,) if axes == 1 else (axes, seq))
    if array.ndim not in (least, least + 1) or array.shape[-1] not in (1, seq) or (axes > 1 and len(array) != axes):
        shapes = f"({seq},) or (batch, {seq})" if axes == 1 else f"({axes}, {seq}) or ({axes}, batch, {seq})"
        raise ValueError(f"delta must be a number or have shape {shapes}, or 1 for {seq}, got {array.shape}")
    return np.broadcast_to(array, (*array.shape[:-1], seq))
