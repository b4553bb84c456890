"""Calls that bias scores: ALiBi, T5, masks, and their gradients."""

from __future__ import annotations

import dataclasses
import math
import operator
from typing import Any

import numpy as np

import posenc
from fuzzing.call import Call, Expected, NoReferenceError, Verb, as_float64, dtype_name, tolerance_of
from fuzzing.memory import FLOATS, HUGE, TORCH_FLOATS, Choices, array, noise, tensor, torch
from posenc import _reference


@dataclasses.dataclass
class Scene:
    """Arguments that fit together."""

    scores: list[Any]
    outputs: list[Any]
    slopes: list[Any]
    tables: list[Any]
    query: list[Any]
    key: list[Any]

    def arrays(self) -> list[Any]:
        """Return all arrays that calls are given."""
        return [*self.scores, *self.outputs, *self.slopes, *self.tables, *self.query, *self.key]


def random_scene(choose: Choices) -> Scene:
    queries, keys, heads, batch = (
        choose.pick(sizes) for sizes in ((0, 1, 3, 9, 20), (0, 1, 4, 17, 70), (1, 3), (1, 2))
    )
    shape = choose.pick(((batch, heads, queries, keys), (heads, queries, keys), (batch, 2, heads, queries, keys)))
    name = choose.pick(TORCH_FLOATS)
    dtype = FLOATS[TORCH_FLOATS.index(name)]
    scores = [array(choose, shape, dtype, output=output) for output in (False, False, True)]
    outputs = [array(choose, shape, dtype, output=True) for _ in "ab"]
    if torch and choose.maybe(0.3):
        scores.append(tensor(choose, shape, name, output=True))
        outputs.append(tensor(choose, shape, name, output=True))

    def places(n: int) -> list[Any]:
        rows = choose.pick(((n,), (1, n), (batch, n)))
        return [
            None,
            np.arange(n),
            (noise(choose, rows, np.float64) * 9).astype(choose.pick((np.int64, np.int32, np.int16))),
        ]

    slopes = [
        posenc.alibi_slopes(heads),
        noise(choose, (heads,), np.float32),
        noise(choose, (batch, heads), np.float64),
    ]
    return Scene(
        scores=scores,
        outputs=outputs,
        slopes=slopes,
        tables=[array(choose, (8, heads), choose.pick(FLOATS)) for _ in "ab"],
        query=[*places(queries), noise(choose, (queries,), np.float64) * 5],
        key=[*places(keys), noise(choose, (keys,), np.float32) * 5],
    )


def masked(choose: Choices, scene: Scene) -> dict[str, Any]:
    """Return the arguments that all these functions have."""
    named: dict[str, Any] = {}
    for name, options, chance in (
        ("causal", (False, True, "skip"), 0.5),
        ("window", (1, 3, 50, (2, 0), (None, 4), None), 0.3),
        ("sinks", (0, 1, 5), 0.3),
        ("query_positions", scene.query, 0.3),
        ("key_positions", scene.key, 0.3),
    ):
        if choose.maybe(chance):
            named[name] = choose.given(options)
    return named


def where_written(choose: Choices, scene: Scene, x: Any) -> dict[str, Any]:
    return {"out": choose.output_for(x, scene.outputs)} if choose.maybe(0.6) else {}


def alibi(choose: Choices, scene: Scene) -> Call:
    x, slopes = choose.given(scene.scores), choose.given(scene.slopes)
    named = masked(choose, scene) | {"form": choose.given(("distance", "key"))} | where_written(choose, scene, x)
    if choose.maybe(0.2):
        named["right_slopes"] = choose.given(scene.slopes)
    if choose.maybe(0.002):
        x, named["out"] = choose.pick(HUGE), choose.pick(scene.outputs)
    return Call(posenc.add_alibi, (x, slopes), named, lambda: expected_alibi(x, slopes, named))


def t5(choose: Choices, scene: Scene) -> Call:
    x, table = choose.given(scene.scores), choose.given(scene.tables)
    named = masked(choose, scene) | {
        "bidirectional": choose.given((True, False)),
        "max_distance": choose.given((8, 20, 128)),
    }
    named |= where_written(choose, scene, x)
    return Call(posenc.add_t5_bias, (x, table), named, lambda: expected_t5(x, table, named))


def mask(choose: Choices, scene: Scene) -> Call:
    x = choose.given(scene.scores)
    named = masked(choose, scene) | where_written(choose, scene, x)
    return Call(posenc.mask_scores, (x,), named, lambda: expected_sum(x, 0.0, named))


def built(choose: Choices, scene: Scene) -> Call:
    """A bias without scores; lengths that would take memory are left out."""
    lengths = [choose.given((0, 1, 5, 70)) for _ in "qk"]
    lengths = [7 if type(n) is int and n > 1000 else n for n in lengths]
    named = {"form": choose.given(("distance", "key")), "causal": choose.given((False, True, "skip"))}
    return Call(posenc.alibi_bias, (choose.given(scene.slopes), *lengths), named)


def gradient(choose: Choices, scene: Scene) -> Call:
    grad, named = choose.given(scene.scores), masked(choose, scene)
    if choose.maybe(0.5):
        named |= {"form": choose.given(("distance", "key")), "per_batch": choose.given((True, False))}
        return Call(posenc.bias.gradients.of_slopes, (grad,), named)
    return Call(posenc.bias.gradients.of_t5_table, (grad,), named | {"bidirectional": choose.given((True, False))})


VERB = Verb(random_scene, ((40, alibi), (30, t5), (20, mask), (5, built), (10, gradient)))


# ---- numbers ----


def positions_of(x: np.ndarray, named: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    queries, keys = x.shape[-2:]
    query, key = named.get("query_positions"), named.get("key_positions")
    key = np.arange(keys) if key is None else as_float64(key)
    if query is None:
        query = np.arange(keys - queries, keys) if named.get("key_positions") is None else key[..., keys - queries :]
    return along_batch(as_float64(query), x.ndim), along_batch(key, x.ndim)


def along_batch(positions: np.ndarray, ndim: int) -> np.ndarray:
    """(1, n) -> (n,), and rows of the batch only where the scores have four axes, as the reference has them."""
    if positions.ndim == 2 and len(positions) == 1:
        return positions[0]
    if positions.ndim == 2 and ndim != 4:
        raise NoReferenceError
    return positions


def expected_sum(given: Any, bias: Any, named: dict[str, Any]) -> Expected:
    x = as_float64(given)
    if x.ndim == 2 and np.ndim(bias) == 3:
        bias = bias[0]  # without an axis of heads there is one
    query, key = positions_of(x, named)
    window = named.get("window")
    left, right = window if isinstance(window, tuple) else (window, window)
    left, right = (
        math.inf if bound is None else min(operator.index(bound), 2**60) - (not isinstance(window, tuple))
        for bound in (left, right)
    )
    causal = named.get("causal", False)
    seen = _reference.keys_seen(query, key, causal is True, left, right, int(named.get("sinks", 0)))
    found = _reference.masked(x, bias, seen)
    if causal == "skip":
        found = np.where(_reference.distances(query, key) > 0, x, found)
    slack = (
        float(np.abs(bias).max(initial=0))
        * 4
        * {"float64": 2**-50, "float32": 2**-22, "float16": 2**-10}.get(dtype_name(given), 2**-7)
    )
    return [(found, tolerance_of(given, 0, 1) + slack)]


def expected_alibi(x: Any, slopes: Any, named: dict[str, Any]) -> Expected:
    numbers = as_float64(x)
    rows = [as_float64(m) for m in (slopes, named.get("right_slopes")) if m is not None]
    if any(m.ndim == 2 for m in rows) and numbers.ndim != 4:
        raise NoReferenceError
    query, key = positions_of(numbers, named)
    return expected_sum(x, _reference.alibi(rows[0], query, key, named["form"], rows[-1]), named)


def expected_t5(x: Any, table: Any, named: dict[str, Any]) -> Expected:
    numbers = as_float64(x)
    u = _reference.distances(*positions_of(numbers, named))
    values = as_float64(table)[_reference.t5_bucket(u, named["bidirectional"], 8, named["max_distance"])]
    bias = np.moveaxis(values[:, 0], -1, 1) if u.ndim == 4 else np.moveaxis(values, -1, 0)
    return expected_sum(x, bias, named)
