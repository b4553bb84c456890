"""Calls that bias scores by content: DeBERTa's terms, Transformer-XL's, relative keys, SAM's parts, and gradients."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from fuzzing.call import Call, Expected, Verb, as_float64, dtype_name, tolerance_of
from fuzzing.memory import FLOATS, HUGE, TORCH_FLOATS, Choices, array, tensor, torch
from posenc import _reference, bias


@dataclasses.dataclass
class Scene:
    """Arguments that fit together."""

    scores: list[Any]
    outputs: list[Any]
    of_query: list[Any]
    of_key: list[Any]
    q: list[Any]
    r: list[Any]
    products: list[Any]
    of_row: list[Any]
    of_column: list[Any]

    def arrays(self) -> list[Any]:
        """Return all arrays that calls are given."""
        parts = [*self.of_query, *self.of_key, *self.q, *self.r, *self.products, *self.of_row, *self.of_column]
        return [*self.scores, *self.outputs, *parts]


def random_scene(choose: Choices) -> Scene:
    queries, keys, heads = (choose.pick(sizes) for sizes in ((0, 1, 3, 20, 40), (0, 1, 4, 40, 300), (1, 3)))
    lead = choose.pick(((heads,), (2, heads), (2, 1, heads), ()))
    name = choose.pick(TORCH_FLOATS)
    dtype = FLOATS[TORCH_FLOATS.index(name)]
    shape = (*lead, queries, keys)
    scores = [array(choose, shape, dtype, output=output) for output in (False, True)]
    outputs = [array(choose, shape, dtype, output=True) for _ in "ab"]
    if torch and choose.maybe(0.3):
        scores.append(tensor(choose, shape, name, output=True))

    def rows(n: int, width: int) -> list[Any]:
        leads = (lead, lead[1:], (1,) * len(lead))
        return [array(choose, (*choose.pick(leads), n, width), choose.pick(FLOATS)) for _ in "ab"]

    width = choose.pick((2, 6, 32))
    height, key_height = (choose.pick([n for n in (1, 2, 4, 5) if length % n == 0]) for length in (queries, keys))

    def parts(n: int) -> list[Any]:
        leads = (lead, lead[1:], (1,) * len(lead))
        image = (height, queries // height, n)
        return [array(choose, (*choose.pick(leads), *image), choose.pick(FLOATS)) for _ in "ab"]

    return Scene(
        scores, outputs, rows(queries, width), rows(keys, width), rows(queries, 5), rows(queries + keys - 1, 5)
        if queries + keys else rows(0, 5), rows(queries, max(keys, 1)),
        parts(key_height), parts(keys // key_height),
    )  # fmt: skip


def common(choose: Choices, scene: Scene, x: Any) -> dict[str, Any]:
    named: dict[str, Any] = {}
    for name, options, chance in (
        ("causal", (False, True, "skip"), 0.4),
        ("window", (1, 30, (2, 0), None), 0.2),
        ("scale", (1.0, 0.25, -2.0), 0.5),
    ):
        if choose.maybe(chance):
            named[name] = choose.given(options)
    if choose.maybe(0.6):
        named["out"] = choose.output_for(x, scene.outputs)
    return named


def disentangled(choose: Choices, scene: Scene) -> Call:
    x = choose.given(scene.scores)
    named = common(choose, scene, x)
    if choose.maybe(0.8):
        named["c2p"] = choose.given(scene.of_query)
    if choose.maybe(0.8):
        named["p2c"] = choose.given(scene.of_key)
    if choose.maybe(0.4):
        width = scene.of_query[0].shape[-1] if hasattr(scene.of_query[0], "shape") else 2
        named |= {"num_buckets": choose.given((width // 2, 1, 4)), "max_distance": choose.given((40, 512, 9))}
    if choose.maybe(0.002):
        x = choose.pick(HUGE)
    return Call(bias.add_disentangled_bias, (x,), named, lambda: expected(x, named))


def keys_of(choose: Choices, scene: Scene) -> Call:
    x = choose.given(scene.scores)
    named = common(choose, scene, x) | {"of_query": choose.given(scene.of_query), "left": choose.given((0, 1, 2, 15))}
    named |= {"right": choose.given((0, 3, 16)), "order": choose.given(("key_minus_query", "query_minus_key"))}
    return Call(bias.add_relative_keys, (x,), named)


def transformer_xl(choose: Choices, scene: Scene) -> Call:
    x, q, r = (choose.given(options) for options in (scene.scores, scene.q, scene.r))
    named = common(choose, scene, x) | {"convention": choose.given(("transformer_xl", "conformer", "xlnet"))}
    return Call(bias.add_transformer_xl_bias, (x, q, r), named)


def in_parts(choose: Choices, scene: Scene) -> Call:
    x, rows, columns = (choose.given(options) for options in (scene.scores, scene.of_row, scene.of_column))
    named = {"out": choose.output_for(x, scene.outputs)} if choose.maybe(0.6) else {}
    return Call(bias.add_decomposed_bias, (x, rows, columns), named, lambda: expected_of_parts(x, rows, columns))


def expected_of_parts(given: Any, rows: Any, columns: Any) -> Expected:
    """SAM's formula in float64."""
    x, a, b = (as_float64(array) for array in (given, rows, columns))
    term = a[..., :, None] + b[..., None, :]
    term = term.reshape(*term.shape[:-4], *x.shape[-2:])
    steps = 2.0**-8 if dtype_name(given) in ("float16", "bfloat16") else 2.0**-20
    largest = max(float(np.abs(array).max(initial=0)) for array in (term, x + term))
    return [(x + term, tolerance_of(given, 0.0, 2.0) + 4 * steps * largest)]


def shift(choose: Choices, scene: Scene) -> Call:
    x, products = choose.given(scene.scores), choose.given(scene.products)
    if choose.maybe(0.5):
        return Call(bias.add_relative_shift, (x, products), common(choose, scene, x))
    return Call(bias.relative_shift, (products,), {})


def gradient(choose: Choices, scene: Scene) -> Call:
    grad = choose.given(scene.scores)
    if choose.maybe(0.5):
        shapes = {"c2p_shape": np.shape(choose.pick(scene.of_query)), "p2c_shape": np.shape(choose.pick(scene.of_key))}
        return Call(bias.relative_gradients.of_disentangled, (grad,), shapes)
    named = {"convention": "conformer"}
    return Call(bias.relative_gradients.of_transformer_xl, (grad, choose.given(scene.q), choose.given(scene.r)), named)


CALLS = ((50, disentangled), (15, keys_of), (20, transformer_xl), (15, in_parts), (10, shift), (10, gradient))
VERB = Verb(random_scene, CALLS)


def expected(given: Any, named: dict[str, Any]) -> Expected | None:
    """DeBERTa's terms without masks, in float64."""
    if named.get("causal") or named.get("window") is not None:
        return None
    x = as_float64(given)
    entries = [None if named.get(n) is None else as_float64(named[n]) for n in ("c2p", "p2c")]
    queries, keys = x.shape[-2:]
    distance = np.arange(keys - queries, keys)[:, None] - np.arange(keys)
    span = next(part for part in entries if part is not None).shape[-1] // 2
    how = {n: named[n] for n in ("num_buckets", "max_distance") if n in named}
    scale = float(as_float64(named.get("scale", 1.0)))
    terms = scale * _reference.picked(*entries, bias.deberta_index(distance, span, **how))
    found = x + terms
    steps = 2.0**-8 if dtype_name(given) in ("float16", "bfloat16") else 2.0**-20
    largest = max(float(np.abs(a).max(initial=0)) for a in (terms, found))
    return [(found, tolerance_of(given, 0.0, 2.0) + 4 * steps * largest)]
