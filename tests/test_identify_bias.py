"""Identification of biases, of posenc's and of transformers', and what explains that two of them differ."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np
import pytest

import posenc
from posenc.checks import explain_mismatch, identify

Array = np.ndarray
HEADS = 12


def slopes(heads: int = HEADS) -> Array:
    """Press et al.: those of the power of two below, then every second one of the power of two above."""
    whole = 2 ** int(np.log2(heads))
    first = [2.0 ** (-8 * h / whole) for h in range(1, whole + 1)]
    return np.array(first + [2.0 ** (-4 * (2 * k - 1) / whole) for k in range(1, heads - whole + 1)])


PLAIN = 2.0 ** (-8 * np.arange(1, HEADS + 1) / HEADS)  # the paper's, for every number of heads
ROUNDED = slopes().astype(ml_dtypes.bfloat16).astype(float)


def distances(queries: int, keys: int) -> Array:
    return np.arange(keys) - np.arange(keys - queries, keys)[:, None]


def alibi(queries: int, keys: int, m: Array | None = None) -> Array:
    m = slopes() if m is None else m
    return (-m[:, None, None] * np.abs(distances(queries, keys))).astype(np.float32)


def of_key(queries: int, keys: int) -> Array:
    return np.broadcast_to(slopes()[:, None, None] * np.arange(keys), (HEADS, queries, keys)).astype(np.float32)


def masked(bias: Array) -> Array:
    return np.where(distances(*bias.shape[1:]) > 0, -np.inf, bias)


def windowed(queries: int, keys: int) -> Array:
    u = distances(queries, keys)
    return np.where((u > 0) | ((u <= -64) & (np.arange(keys) >= 4)), -np.inf, alibi(queries, keys))


def buckets(u: Array, both: bool, count: int = 32, most: int = 128) -> Array:
    """T5's, with float64 logarithms."""
    n, start = (count // 2, np.where(u > 0, count // 2, 0)) if both else (count, 0)
    d = np.abs(u) if both else np.maximum(-u, 0)
    exact = n // 2
    far = exact + (np.log(np.maximum(d, 1) / exact) / np.log(most / exact) * (n - exact) + 1e-9).astype(int)
    return start + np.where(d < exact, d, np.minimum(far, n - 1))


def t5(both: bool, count: int = 32, most: int = 128) -> Callable[[int, int], Array]:
    table = np.random.default_rng(4).standard_normal((count, HEADS)).astype(np.float32)
    return lambda queries, keys: table[buckets(distances(queries, keys), both, count, most)].transpose(2, 0, 1)


@pytest.mark.parametrize(
    ("fn", "facts"),
    [
        (alibi, {"form": "-m * |query - key|", "slopes": "alibi_slopes", "queries": "at the last keys"}),
        (lambda q, k: masked(alibi(q, k)), {"form": "-m * (query - key), causal", "causal": True}),
        (windowed, {"causal": True, "window": 64, "sinks": 4, "slopes": "alibi_slopes"}),
        (of_key, {"form": "key", "counted_as": "key", "slopes": "alibi_slopes"}),
        (lambda q, k: alibi(q, k, slopes() / 8), {"slopes": "alibi_slopes times 0.125"}),
        (lambda q, k: alibi(q, k, PLAIN), {"slopes": "2 ** (-8h/H) for every number of heads"}),
        (lambda q, k: alibi(q, k, posenc.alibi_slopes(12, 6.0)), {"slopes": "alibi_slopes with max_bias 6"}),
        (lambda q, k: alibi(q, k, slopes()[::-1]), {"slopes": "alibi_slopes, reversed"}),
        (lambda q, k: alibi(q, k, ROUNDED), {"slopes": "alibi_slopes rounded to bfloat16"}),
        (t5(True), {"form": "buckets", "bidirectional": True, "num_buckets": 32, "max_distance": 128}),
        (t5(False), {"form": "buckets", "bidirectional": False, "num_buckets": 32, "max_distance": 128}),
        (t5(True, 64, 256), {"bidirectional": True, "num_buckets": 64, "max_distance": 256}),
    ],
)  # fmt: skip
def test_identified(fn: Callable[[int, int], Array], facts: dict[str, Any]) -> None:
    found = identify(fn, kind="bias")
    assert found.ok, str(found)
    assert {key: found.facts.get(key) for key in facts} == facts
    assert found.residual < 1e-6
    q, k = np.arange(20)[:, None], np.arange(20)
    wanted = fn(20, 20)
    seen = np.isfinite(wanted[0])
    assert np.allclose(np.asarray(found.reproduce(q, k))[:, seen], wanted[:, seen], atol=1e-5)


def test_first_keys() -> None:
    def first(queries: int, keys: int) -> Array:
        u = np.arange(keys) - np.arange(queries)[:, None]
        return -slopes()[:, None, None] * np.abs(u)

    assert identify(first, kind="bias").facts["queries"] == "at the first keys"


@pytest.mark.parametrize(
    "fn",
    [
        lambda q, k: np.random.default_rng(0).standard_normal((2, q, k)),
        lambda q, k: -0.01 * np.sqrt(np.abs(distances(q, k)))[None],
        lambda q, k: alibi(q, k, np.linspace(0.1, 0.9, 7)),
    ],
)
def test_unknown(fn: Callable[[int, int], Array]) -> None:
    found = identify(fn, kind="bias")
    assert not found.ok
    assert "unknown" in found.name


def test_a_bias_needs_its_axes() -> None:
    with pytest.raises(ValueError, match=r"a bias must have shape \(heads, query_len, key_len\), got \(320, 320\)"):
        identify(lambda q, k: np.zeros((q, k)), kind="bias")


# ---- transformers


def test_transformers() -> None:
    if not os.environ.get("CI"):
        pytest.importorskip("transformers")
    import torch
    from transformers import MptConfig, T5Config
    from transformers.models.bloom.modeling_bloom import build_alibi_tensor
    from transformers.models.falcon.modeling_falcon import build_alibi_tensor as falcon
    from transformers.models.mpt.modeling_mpt import build_mpt_alibi_tensor
    from transformers.models.t5.modeling_t5 import T5Attention

    def bloom(queries: int, keys: int) -> Any:
        return build_alibi_tensor(torch.ones(1, keys), HEADS, torch.float32).expand(-1, queries, -1)

    found = identify(bloom, kind="bias")
    assert (found.ok, found.facts["form"], found.facts["counted_as"]) == (True, "key", "key"), str(found)
    found = identify(lambda q, k: build_mpt_alibi_tensor(HEADS, k, 8).expand(-1, q, -1), kind="bias")
    assert (found.ok, found.facts["counted_as"]) == (True, "key - key_len + 1"), str(found)
    assert MptConfig().attn_config.alibi_bias_max == 8
    found = identify(
        lambda q, k: falcon(torch.ones(1, k, dtype=torch.int64), 8, torch.float32).expand(-1, q, -1), kind="bias"
    )
    assert not found.ok  # products rounded to bfloat16: no line
    for decoder in (False, True):
        module = T5Attention(
            T5Config(is_decoder=decoder, num_heads=4, d_model=32, d_kv=8), has_relative_attention_bias=True
        )
        with torch.no_grad():
            found = identify(lambda q, k, m=module: m.compute_bias(q, k), kind="bias")
        assert found.ok, str(found)
        assert (found.facts["bidirectional"], found.facts["num_buckets"]) == (not decoder, 32)
        assert found.facts["max_distance"] == 128


# ---- mismatches


SQUARE, WIDE = (24, 24), (6, 24)
RIGHT = alibi(*SQUARE)

#: complaint -> (what came, what should have come, the fault)
PLANTED: dict[str, tuple[Any, Any, str]] = {
    "plain powers for 12 heads": (alibi(*SQUARE, PLAIN), RIGHT, "slopes"),
    "slopes that start at 1": (alibi(*SQUARE, 2.0 ** (-8 * np.arange(12) / 12)), RIGHT, "slopes"),
    "slopes reversed": (alibi(*SQUARE, slopes()[::-1]), RIGHT, "slope_order"),
    "slopes sorted": (alibi(*SQUARE, np.sort(slopes())[::-1]), RIGHT, "slope_order"),
    "slopes in bfloat16": (alibi(*SQUARE, ROUNDED), RIGHT, "half_slopes"),
    "bias in bfloat16": (RIGHT.astype(ml_dtypes.bfloat16).astype(np.float32), RIGHT, "half_slopes"),
    "sign": (-RIGHT, RIGHT, "sign"),
    "divided by sqrt(head_dim)": (RIGHT / 8, RIGHT, "factor"),
    "keys counted": (masked(of_key(*SQUARE)), masked(RIGHT), "bias_form"),
    "masked twice": (masked(RIGHT), RIGHT, "mask"),
    "no mask": (RIGHT, masked(RIGHT), "mask"),
    "first keys": (-slopes()[:, None, None] * np.abs(np.arange(24) - np.arange(6)[:, None]), alibi(*WIDE), "alignment"),
    "transposed": (masked(RIGHT).transpose(0, 2, 1), masked(RIGHT), "transposed"),
    "T5 with query - key": (t5(True)(*SQUARE).transpose(0, 2, 1), t5(True)(*SQUARE), "transposed"),
    "T5 decoder for encoder": (
        np.linspace(0, 1, 32)[buckets(distances(*SQUARE), False)][None].repeat(2, 0),
        np.linspace(0, 1, 32)[buckets(distances(*SQUARE), True)][None].repeat(2, 0),
        "buckets",
    ),
    "another head's table": (t5(True)(*SQUARE)[::-1], t5(True)(*SQUARE), "slope_order"),
    "one position late": (-slopes()[:, None, None] * np.abs(distances(*SQUARE) + 1), RIGHT, "offset"),
    "rows shifted": (RIGHT + np.linspace(0, 3, 24)[:, None].astype(np.float32), RIGHT, "rows_differ"),
}


@pytest.mark.parametrize("name", PLANTED)
def test_explained(name: str) -> None:
    actual, expected, fault = PLANTED[name]
    found = explain_mismatch(actual, expected, kind="bias")
    assert found.fault == fault, str(found)


def test_agreement_and_the_unknown() -> None:
    assert explain_mismatch(RIGHT, RIGHT, kind="bias").fault == "none"
    noise = RIGHT + np.random.default_rng(0).standard_normal(RIGHT.shape).astype(np.float32)
    assert explain_mismatch(noise, RIGHT, kind="bias").fault == "unknown"
    with pytest.raises(ValueError, match="must have one shape"):
        explain_mismatch(RIGHT[:, 1:], RIGHT, kind="bias")
