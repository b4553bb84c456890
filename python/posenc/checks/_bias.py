"""Identification of attention biases: ALiBi in its forms, T5's buckets, and masks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from posenc.bias import T5, Alibi, alibi_slopes, t5_bucket
from posenc.checks._calling import as_float64
from posenc.checks._rounding import HALVES
from posenc.checks._spectrum import nice
from posenc.checks.identification import Identification

if TYPE_CHECKING:
    import numpy.typing as npt

    Floats = npt.NDArray[np.float64]

_LONG = 320  # keys: T5's last bucket begins at 113 of 128 by default
_MASKED = -1e4  # and below; float16 code masks by -65504 or less, and biases are smaller


@dataclass(frozen=True)
class Map:
    """A bias taken apart.

    Attributes
    ----------
    values : ndarray of float64, shape (heads, query, key)
    masked : ndarray of bool, shape (query, key)
        Where every head forbids attention.
    by_distance : ndarray, shape (heads, query + key - 1), or None
        The value at each key - query from 1 - query on, where that is all it depends on; NaN where masked.
    by_key : ndarray, shape (heads, key), or None
        The value at each key, where that is all it depends on.
    """

    values: Floats
    masked: npt.NDArray[np.bool_]
    by_distance: Floats | None
    by_key: Floats | None

    @property
    def distances(self) -> npt.NDArray[np.int64]:
        """Key - query of the columns of `by_distance`."""
        return np.arange(1 - self.values.shape[1], self.values.shape[2])


def take_apart(bias: Any) -> Map:
    """Return a bias of shape (heads, query, key) or (1, heads, query, key) taken apart."""
    values = as_float64(bias)
    if values.ndim == 4 and values.shape[0] == 1:
        values = values[0]
    if values.ndim != 3:
        raise ValueError(f"a bias must have shape (heads, query_len, key_len), got {values.shape}")
    if np.isnan(values).any():
        raise ValueError("a bias must hold no NaN")
    masked = np.asarray((values <= _MASKED).all(axis=0))
    open_ = np.where(masked, np.nan, values)
    return Map(values, masked, _diagonals(open_), _rows(open_))


def _tolerance(values: Floats) -> float:
    finite = values[np.isfinite(values)]
    return 1e-6 * float(np.abs(finite).max(initial=0.0)) + 1e-12


def _diagonals(values: Floats) -> Floats | None:
    heads, queries, keys = values.shape
    distance = np.arange(keys) - np.arange(queries)[:, None] + queries - 1
    flat, index = values.reshape(heads, -1), distance.ravel()
    low, high = np.full((heads, queries + keys - 1), np.inf), np.full((heads, queries + keys - 1), -np.inf)
    seen = ~np.isnan(flat[0])
    for h in range(heads):
        np.minimum.at(low[h], index[seen], flat[h, seen])
        np.maximum.at(high[h], index[seen], flat[h, seen])
    met = np.isfinite(low)
    if np.any(np.where(met, high, 0) - np.where(met, low, 0) > _tolerance(values)):
        return None
    return np.where(met, low, np.nan)


def _rows(values: Floats) -> Floats | None:
    with np.errstate(all="ignore"):
        low, high = np.nanmin(values, axis=1, initial=np.inf), np.nanmax(values, axis=1, initial=-np.inf)
    met = np.isfinite(low)
    if np.any(np.where(met, high, 0) - np.where(met, low, 0) > _tolerance(values)):
        return None
    return np.where(met, low, np.nan)


# ---- lines


def slopes_of(line: Floats, at: Any) -> Floats | None:
    """Return the slope of each head where its values are a line through 0 over `at`, or None."""
    use = ~np.isnan(line[0]) & (at != 0)
    if use.sum() < 2:
        return None
    x, y = at[use].astype(np.float64), line[:, use]
    slopes = (y * x).sum(axis=1) / (x * x).sum()
    return slopes if np.abs(y - slopes[:, None] * x).max() <= 3e-6 * max(np.abs(y).max(), 1e-30) else None


def name_slopes(slopes: Floats) -> tuple[str, Floats]:
    """Return the rule of positive slopes and what it gives; "unknown slopes" and themselves where there is none."""
    heads, tried = len(slopes), []
    usual = alibi_slopes(heads)
    max_bias = -np.log2(slopes[: _whole(heads)].min()) if (slopes > 0).all() else 8.0
    tried.append(("alibi_slopes", usual))
    if 0.1 < max_bias < 1000:
        near = nice(float(max_bias), 1e-5)
        tried.append((f"alibi_slopes with max_bias {near:g}", alibi_slopes(heads, near)))
    index = np.arange(1, heads + 1)
    tried.append(("2 ** (-8h/H) for every number of heads", 2.0 ** (-8 * index / heads)))
    tried.append(("2 ** (-8(h-1)/H), which starts at 1", 2.0 ** (-8 * (index - 1) / heads)))
    tried += [(f"{name}, reversed", rule[::-1]) for name, rule in tried[:1]]
    tried.append(("alibi_slopes in descending order", np.sort(usual)[::-1]))
    tried += [(f"alibi_slopes rounded to {name}", rounded(usual)) for name, rounded in HALVES.items()]
    for name, rule in tried:
        if np.allclose(slopes, rule, rtol=2e-6, atol=0):
            return name, np.asarray(rule)
    ratio = slopes / usual
    if np.allclose(ratio, ratio[0], rtol=2e-6):
        return f"alibi_slopes times {nice(float(ratio[0]), 1e-6):.7g}", usual * ratio[0]
    return "unknown slopes", slopes


def _whole(heads: int) -> int:
    return int(1 << (heads.bit_length() - 1))


# ---- steps


def name_steps(found: Map) -> tuple[dict[str, Any], Floats] | None:
    """Return T5's parameters and table where the values are constant in its buckets and nowhere else, or None."""
    line, distances = found.by_distance, found.distances
    if line is None:
        return None
    seen = ~np.isnan(line[0])
    u, values = distances[seen], line[:, seen]
    starts = u[1:][np.abs(np.diff(values, axis=1)).max(axis=0) > _tolerance(values)]
    both = bool((u > 0).any() and np.ptp(values[:, u >= 0], axis=1).max() > _tolerance(values))
    for buckets in (32, 64, 16, 128, 256, 8, 320):
        for reach in (128, 256, 64, 512, 32, 1024, 2048, 4096):
            try:
                bucket = t5_bucket(u, both, buckets, reach)
            except ValueError:
                continue
            if np.array_equal(u[1:][np.diff(bucket) != 0], starts):
                table = np.zeros((buckets, len(values)))
                table[bucket] = values.T
                return {"bidirectional": both, "num_buckets": buckets, "max_distance": reach}, table
    return None


# ---- the whole


def identify_bias(fn: Callable[..., Any]) -> Identification:
    """Return what `posenc.checks.identify` does for a bias."""
    square, wide = take_apart(fn(_LONG, _LONG)), take_apart(fn(3, 12))
    named = _name(square)
    mask = _mask_facts(square)
    facts = {"heads": len(square.values), **mask, **named.facts, "queries": _alignment(square, wide)}
    words = ", ".join([named.name, *(f"{key} {value}" for key, value in mask.items() if value not in (None, False))])
    if named.reproduce is None:
        return replace(named, facts=facts, name=words)
    where = np.arange(_LONG)
    made = np.asarray(named.reproduce(where[:, None], where))
    apart = np.where(square.masked, 0, np.abs(made - square.values)).max()
    residual = float(apart) / max(float(np.abs(np.where(square.masked, 0, square.values)).max()), 1e-30)
    return replace(named, ok=named.ok and residual < 1e-5, facts=facts, name=words, residual=residual)


def _name(found: Map) -> Identification:
    def made(ok: bool, name: str, facts: dict[str, Any], bias: Any = None) -> Identification:
        return Identification(ok, "bias", name, None, facts, float("nan"), reproduce=bias)

    if not np.any(np.where(found.masked, 0, found.values)):
        return made(True, "a mask alone", {"form": "mask"})
    if found.by_key is not None:
        keys = np.arange(found.values.shape[2])
        for first, origin in ((0, "key"), (1 - len(keys), "key - key_len + 1")):
            slopes = slopes_of(found.by_key, keys + first)
            if slopes is not None and (slopes > 0).all():
                rule, exact = name_slopes(slopes)
                facts = {"form": "key", "counted_as": origin, "slopes": rule}
                name, known = f"ALiBi, +m * ({origin}), {rule}", "unknown" not in rule
                return made(known, name, facts, partial(_shifted, Alibi(exact, form="key"), exact * first))
    if found.by_distance is not None:
        u = found.distances
        left, right = (slopes_of(np.where(side, found.by_distance, np.nan), u) for side in (u <= 0, u >= 0))
        if left is not None and (left > 0).all():
            rule, exact = name_slopes(left)
            form, other = _right_side(left, right)
            facts = {"form": form, "slopes": rule}
            return made("unknown" not in rule, f"ALiBi, {form}, {rule}", facts, Alibi(exact, right_slopes=other))
        steps = name_steps(found)
        if steps is not None:
            parameters, table = steps
            facts = {"form": "buckets", **parameters}
            words = f"T5 buckets, {', '.join(f'{key}={value}' for key, value in parameters.items())}"
            own = {key: value for key, value in parameters.items() if key != "num_buckets"}
            return made(True, words, facts, T5(table, **own))
        return made(False, "unknown: a function of the distance, no line and no buckets of T5", {"form": "distance"})
    return made(False, "unknown: depends on more than the distance or the key", {})


def _shifted(alibi: Alibi, constant: Floats, query: Any, key: Any) -> Floats:
    return np.asarray(alibi(query, key) + constant[:, None, None])


def _right_side(left: Floats, right: Floats | None) -> tuple[str, Any]:
    """Return the form's name and the slopes to the right."""
    if right is None:
        return "-m * (query - key), causal", None
    if np.allclose(right, -left, rtol=1e-5):
        return "-m * |query - key|", None
    if np.allclose(right, left, rtol=1e-5):
        return "m * (key - query), growing to the right", -left
    return "slopes of their own to the right", -right


def _mask_facts(found: Map) -> dict[str, Any]:
    masked, size = found.masked, found.masked.shape[0]
    if not masked.any():
        return {"causal": False, "window": None}
    u = np.arange(size) - np.arange(size)[:, None]
    causal = bool(masked[u > 0].all())
    open_left = ~masked[size - 1]
    reach = size - int(np.argmax(open_left)) if open_left.any() else 0
    sinks = 0
    if reach == size and not open_left.all():  # the first keys, then a gap
        sinks = int(np.argmin(open_left))
        reach = size - sinks - int(np.argmax(open_left[sinks:]))
    return {"causal": causal, "window": reach if reach < size else None, "sinks": sinks or None}


def _alignment(square: Map, wide: Map) -> str | None:
    """Return which keys the queries of a wide bias stand at: the first, or the last."""
    if square.by_distance is None or wide.by_distance is None or square.by_key is not None:
        return None
    centre = square.values.shape[1] - 1
    queries, keys = wide.values.shape[1:]
    for name, first in (("at the last keys", keys - queries), ("at the first keys", 0)):
        u = np.arange(keys) - np.arange(queries)[:, None] - first
        wanted = square.by_distance[:, centre + u]
        same = np.isnan(wanted) == np.broadcast_to(wide.masked, wanted.shape)
        if same.all() and np.allclose(np.nan_to_num(wanted), np.where(wide.masked, 0, wide.values), atol=1e-5):
            return name
    return "unknown"
