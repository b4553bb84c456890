"""The oracle: a plain float64 NumPy twin of every C entry, written from the formulas, not from the C.

Slow and obvious. Tests compare with it; nothing else uses it.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


def inv_freq(base: float, rotary_dim: int) -> Array:
    """Return base ** (-2i / rotary_dim), to NumPy's accuracy."""
    return np.asarray(base ** (-np.arange(0, rotary_dim, 2, dtype=np.float64) / rotary_dim))


def angles(positions: Array, frequencies: Array, axis_of_freq: Array | None = None) -> Array:
    """Angle of every position and pair: positions (..., seq), or (axes, ..., seq) -> (..., seq, pairs)."""
    positions = np.asarray(positions, np.float64)
    if axis_of_freq is None:
        return np.asarray(positions[..., None] * frequencies)
    return np.asarray(np.moveaxis(positions[np.asarray(axis_of_freq)], 0, -1) * frequencies)


def table(
    positions: Array, frequencies: Array, axis_of_freq: Array | None = None, scale: float = 1.0
) -> tuple[Array, Array]:
    """Return scale * cos and scale * sin of the angles."""
    a = angles(positions, frequencies, axis_of_freq)
    return scale * np.cos(a), scale * np.sin(a)


def split_pairs(x: Array, layout: str) -> tuple[Array, Array]:
    """First and second members of the pairs of the last axis, as a layout reads them."""
    if layout == "half":
        middle = x.shape[-1] // 2
        return x[..., :middle], x[..., middle:]
    return x[..., 0::2], x[..., 1::2]


def join_pairs(first: Array, second: Array, layout: str) -> Array:
    """Put members together, as a layout writes them."""
    if layout == "interleaved":
        return np.stack([first, second], -1).reshape(*first.shape[:-1], 2 * first.shape[-1])
    return np.concatenate([first, second], -1)


def apply(
    x: Array, cos: Array, sin: Array, layout: str, rotary_offset: int = 0, seq_axis: int = -2, inverse: bool = False
) -> Array:
    """Rotate x by tables (seq, pairs) or (batch, seq, pairs); the result is float64.

    With inverse, the layouts of reading and writing change places (the sine is the caller's).
    """
    x = np.asarray(x, np.float64)
    width, head_dim = 2 * cos.shape[-1], x.shape[-1]
    rotated = x[..., rotary_offset : rotary_offset + width]
    if rotated.shape[-1] < width:  # an odd head: append the zero
        rotated = np.concatenate([rotated, np.zeros_like(rotated[..., :1])], -1)
    reads, writes = layout, "half" if layout == "interleaved_to_half" else layout
    if inverse and layout == "interleaved_to_half":
        reads, writes = "half", "interleaved"
    a, b = split_pairs(rotated, reads)
    c, s = (_along(t, x.ndim, seq_axis % x.ndim) for t in (cos, sin))
    turned = join_pairs(a * c - b * s, b * c + a * s, writes)
    y = x.copy()
    y[..., rotary_offset : rotary_offset + width] = turned[..., : head_dim - rotary_offset]
    return y


def _along(t: Array, ndim: int, seq_axis: int) -> Array:
    """Shape a table so that its rows lie along the sequence axis and, if it has them, its batch rows along axis 0."""
    t = np.asarray(t, np.float64)
    shape = [1] * ndim
    shape[seq_axis], shape[-1] = t.shape[-2:]
    if t.ndim == 3:
        shape[0] = t.shape[0]
    return t.reshape(shape)


def sinusoid(positions: Array, frequencies: Array, order: str, dim: int, scale: float = 1.0) -> Array:
    """Return the rows of sines and cosines of positions (..., seq): (..., seq, dim), zeros in columns left over."""
    cos, sin = table(positions, frequencies, None, scale)
    rows = np.zeros((*sin.shape[:-1], max(dim, 2 * len(frequencies))))
    if order == "interleaved":
        rows[..., 0 : 2 * len(frequencies) : 2], rows[..., 1 : 2 * len(frequencies) : 2] = sin, cos
    else:
        first, second = (sin, cos) if order == "sin_cos" else (cos, sin)
        rows[..., : len(frequencies)], rows[..., len(frequencies) : 2 * len(frequencies)] = first, second
    return rows[..., :dim]


def add(x: Array, rows: Array, scale: float = 1.0, kept: Array | None = None, seq_axis: int = -2) -> Array:
    """Add rows (seq, dim) or (batch, seq, dim) along an axis of x; tokens of `kept` (seq,) or (batch, seq) stay."""
    x = np.asarray(x, np.float64)
    rows = scale * np.asarray(rows, np.float64)
    if kept is not None:
        rows = np.where(np.asarray(kept)[..., None], 0.0, rows)
    return np.asarray(x + _along(rows, x.ndim, seq_axis % x.ndim))


def scatter(grad: Array, places: Array, rows: int, scale: float = 1.0, seq_axis: int = -2) -> Array:
    """Sum scale * grad over the tokens at each of `rows` places; places (seq,) or (batch, seq), -1 for none."""
    grad = np.moveaxis(np.asarray(grad, np.float64), seq_axis, -2)
    places = np.asarray(places)
    if places.ndim == 2:
        places = places.reshape(len(places), *[1] * (grad.ndim - 3), places.shape[1])
    places = np.broadcast_to(places, grad.shape[:-1])
    result = np.zeros((rows, grad.shape[-1]))
    np.add.at(result, places[places >= 0], scale * grad[places >= 0])
    return result


def rotate(
    x: Array,
    positions: Array,
    frequencies: Array,
    layout: str,
    *,
    axis_of_freq: Array | None = None,
    rotary_offset: int = 0,
    seq_axis: int = -2,
    scale: float = 1.0,
    inverse: bool = False,
) -> Array:
    """Rotate x by positions; with inverse, undo it."""
    cos, sin = table(positions, frequencies, axis_of_freq, 1 / scale if inverse else scale)
    return apply(x, cos, -sin if inverse else sin, layout, rotary_offset, seq_axis, inverse)


def transposed(grad: Array, cos: Array, sin: Array, layout: str, rotary_offset: int = 0, seq_axis: int = -2) -> Array:
    """Return the gradient of x where `grad` is that of apply(x, cos, sin, layout, ..)."""
    return apply(grad, cos, -np.asarray(sin), layout, rotary_offset, seq_axis, inverse=True)


def table_gradients(
    x: Array,
    grad: Array,
    pairs: int,
    layout: str,
    *,
    rotary_offset: int = 0,
    seq_axis: int = -2,
    per_batch: bool = False,
) -> tuple[Array, Array]:
    """Return the gradients of cos and sin, (seq, pairs), or (batch, seq, pairs) with per_batch."""
    parts = []
    writes = "half" if layout == "interleaved_to_half" else layout
    for array, order in ((x, layout), (grad, writes)):
        wide = np.asarray(array, np.float64)[..., rotary_offset : rotary_offset + 2 * pairs]
        if wide.shape[-1] < 2 * pairs:
            wide = np.concatenate([wide, np.zeros_like(wide[..., :1])], -1)
        parts.append(split_pairs(wide, order))
    (a, b), (u, v) = parts
    seq = seq_axis % np.ndim(x)
    others = tuple(i for i in range(np.ndim(x) - 1) if i != seq and not (per_batch and i == 0))
    return (a * u + b * v).sum(others), (a * v - b * u).sum(others)


def angle_gradients(of_cos: Array, of_sin: Array, cos: Array, sin: Array) -> Array:
    """Return the gradient of the angles from those of their cosines and sines (cos and sin with their scale)."""
    return np.asarray(cos * of_sin - sin * of_cos)


def frequency_gradient(of_angles: Array, positions: Array, axis_of_freq: Array | None = None) -> Array:
    """Return the gradient of inv_freq: over all positions, position times that of the angle."""
    positions = np.asarray(positions, np.float64)
    pairs = of_angles.shape[-1]
    axes = np.zeros(pairs, int) if axis_of_freq is None else np.asarray(axis_of_freq)
    by_axis = positions[None] if axis_of_freq is None else positions
    return np.array([(by_axis[axes[i]] * of_angles[..., i]).sum() for i in range(pairs)])


def position_gradient(of_angles: Array, frequencies: Array, axis_of_freq: Array | None = None) -> Array:
    """Return the gradient of the positions, with a leading axes axis where axis_of_freq is given."""
    weighted = of_angles * frequencies
    if axis_of_freq is None:
        return np.asarray(weighted.sum(-1))
    axes = np.asarray(axis_of_freq)
    return np.stack([weighted[..., axes == axis].sum(-1) for axis in range(axes.max() + 1)])


# ---- biases of scores (.., heads, queries, keys); positions (queries,), (keys,) or with a batch axis before ----


def distances(query: Array, key: Array) -> Array:
    """Key position - query position: (queries, keys), or (batch, 1, queries, keys)."""
    query, key = (np.asarray(p, np.float64) for p in (query, key))
    u = key[..., None, :] - query[..., :, None]
    return np.asarray(u[:, None] if u.ndim == 3 else u)


def keys_seen(query: Array, key: Array, causal: bool, left: float, right: float, sinks: int) -> Array:
    """Return which keys a query sees."""
    u = distances(query, key)
    at_sink = distances(np.zeros_like(query), key) < sinks
    seen = (-u <= left) | at_sink
    return np.asarray(seen & (u <= right) & ((u <= 0) | (not causal)))


def alibi(slopes: Array, query: Array, key: Array, form: str = "distance", right_slopes: Array | None = None) -> Array:
    """Return the bias of ALiBi; slopes (heads,) or (batch, heads)."""
    left, right = (
        np.asarray(m, np.float64)[..., None, None] for m in (slopes, slopes if right_slopes is None else right_slopes)
    )
    if form == "key":
        return np.asarray(left * distances(np.zeros_like(query), key))
    u = distances(query, key)
    return np.asarray(-np.where(u < 0, left, right) * np.abs(u))


def t5_bucket(distance: Array, bidirectional: bool, num_buckets: int, max_distance: int) -> Array:
    """Return the bucket of key position - query position, by logarithms."""
    distance = np.asarray(distance)
    buckets = num_buckets // 2 if bidirectional else num_buckets
    later = buckets * (distance > 0) if bidirectional else 0 * distance
    d = np.abs(distance) if bidirectional else np.maximum(-distance, 0)
    exact = buckets // 2
    ratio = np.log(np.maximum(d, 1) / exact) / np.log(max_distance / exact)
    far = np.minimum(exact + np.trunc(ratio * (buckets - exact) + 1e-12), buckets - 1)
    return np.asarray(later + np.where(d < exact, d, far)).astype(np.int64)


def masked(x: Array, bias: Array | float, seen: Array) -> Array:
    """Return x + bias where a key is seen, and -inf elsewhere."""
    return np.where(seen, np.asarray(x, np.float64) + bias, -np.inf)


# ---- attention ----


def tally(weights: Array, width: int, diagonal: int) -> tuple[Array, Array, Array]:
    """Sums of one map by offset key - query, by row and block, and of each row up to the diagonal and behind it."""
    w = np.asarray(weights, np.float64)
    queries, keys = w.shape
    offsets = np.array([np.trace(w, k) for k in range(1 - queries, keys)])
    blocks = np.array([w[:, j : j + width].sum(1) for j in range(0, keys, width)]).T
    past = np.tril(w, diagonal)
    key = np.arange(keys)
    sides = np.stack([past.sum(1), past @ key, (w - past).sum(1), (w - past) @ key], 1)
    return offsets, blocks, sides


def even_share(weights: Array) -> Array:
    """Weight by distance of a causal map, each row divided by what each of its keys would get of an even row."""
    w = np.asarray(weights, np.float64)
    n = len(w)
    lift = w / w.sum(1, keepdims=True) * np.arange(1, n + 1)[:, None]
    return np.array([np.trace(lift, -d) / (n - d) for d in range(n)])


# ---- biases that content decides; distances are query - key ----


def picked(of_query: Array | None, of_key: Array | None, index: Array) -> Array:
    """Return of_query[.., i, index[i, j]] + of_key[.., j, index[i, j]]."""
    total: Any = 0.0
    queries, keys = np.indices(index.shape)
    if of_query is not None:
        total = np.asarray(of_query, np.float64)[..., queries, index]
    if of_key is not None:
        total = total + np.asarray(of_key, np.float64)[..., keys, index]
    return np.asarray(total)


def projected(query: Array, rows: Array, row_of: Array, addend: Array | float = 0.0) -> Array:
    """Return (query[.., i] + addend) . rows[.., row_of[i, j]], 0 where row_of names no row."""
    rows = np.asarray(rows, np.float64)
    there = (row_of >= 0) & (row_of < rows.shape[-2])
    chosen = rows[..., np.where(there, row_of, 0), :]
    products = np.einsum("...id,...ijd->...ij", np.asarray(query, np.float64) + addend, chosen)
    return np.asarray(np.where(there, products, 0.0))
