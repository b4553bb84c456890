"""DeBERTa's disentangled bias: buckets by exact arithmetic, the models of transformers, Microsoft's own code."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import ml_dtypes
import mpmath
import numpy as np
import pytest
import torch

from conftest import assert_same_bits
from posenc import _reference as reference
from posenc.bias import add_disentangled_bias, deberta_bucket, deberta_index, disentangled_bias, relative_gradients

SETTINGS = [
    (256, 512),
    (32, 128),
    (128, 512),
    (8, 33),
    (9, 40),
    (2, 9),
    (3, 9),
    (64, 2048),
    (512, 1024),
    (12, 4 * 8 + 1),
]


def exact_bucket(distance: int, buckets: int, most: int) -> int:
    """The formula with 60 digits; what lies that near an integer is one."""
    mid, size = buckets // 2, abs(distance)
    if size <= mid:
        return distance
    with mpmath.workdps(60):
        x = (mid - 1) * mpmath.log(mpmath.mpf(size) / mid) / mpmath.log(mpmath.mpf(most - 1) / mid)
        n = int(mpmath.nint(x)) if abs(x - mpmath.nint(x)) < mpmath.mpf(10) ** -50 else int(mpmath.ceil(x))
    return int(math.copysign(mid + n, distance))


@pytest.mark.parametrize(("buckets", "most"), SETTINGS)
def test_buckets(buckets: int, most: int) -> None:
    """Against 60 digits near every bound, and against transformers' float32 logarithm everywhere."""
    from transformers.models.deberta_v2.modeling_deberta_v2 import make_log_bucket_position

    distances = np.arange(-3 * most, 3 * most)
    found = deberta_bucket(distances, num_buckets=buckets, max_distance=most)
    steps = distances[np.flatnonzero(np.diff(found))]
    for distance in {*steps.tolist(), *(steps + 1).tolist(), most - 1, most, -most}:
        assert deberta_bucket(distance, num_buckets=buckets, max_distance=most) == exact_bucket(distance, buckets, most)
    theirs = make_log_bucket_position(torch.from_numpy(distances), buckets, most).long().numpy()
    np.testing.assert_array_equal(found, theirs)


def test_bounds_that_are_integers() -> None:
    """(max_distance - 1) / mid = 8 = 2**3 and mid - 1 = 3: the bounds are 4 * 2**n, and belong to their buckets."""
    found = deberta_bucket([8, 9, 16, 17, 32, 33], num_buckets=8, max_distance=33)
    np.testing.assert_array_equal(found, [5, 6, 6, 7, 7, 8])


def microsoft_bucket(relative_pos: torch.Tensor, bucket_size: int, max_position: int) -> torch.Tensor:
    """make_log_bucket_position and make_log_bucket_dict of microsoft/DeBERTa, da_utils.py, at c794b71."""
    every = torch.arange(-max_position, max_position)
    sign, mid = torch.sign(every), bucket_size // 2
    abs_pos = torch.where((every < mid) & (every > -mid), torch.tensor(mid - 1).to(every), torch.abs(every))
    log_pos = torch.ceil(torch.log(abs_pos / mid) / math.log((max_position - 1) / mid) * (mid - 1)) + mid
    table = torch.where(abs_pos <= mid, every, (log_pos * sign).to(every)).to(torch.long)
    return table[torch.clamp(relative_pos, -max_position + 1, max_position - 1) + max_position]


@pytest.mark.parametrize(("buckets", "most"), [(256, 512), (32, 128), (8, 33)])
def test_microsoft_clamps_first(buckets: int, most: int) -> None:
    """Beyond max_distance the two readings part: one entry, for keys far after the query."""
    distances = np.arange(-3 * most, 3 * most)
    how = {"num_buckets": buckets, "max_distance": most}
    found = deberta_bucket(distances, beyond="microsoft", **how)
    np.testing.assert_array_equal(found, microsoft_bucket(torch.from_numpy(distances), buckets, most).numpy())
    ours, theirs = (deberta_index(distances, buckets, beyond=name, **how) for name in ("transformers", "microsoft"))
    np.testing.assert_array_equal(distances[ours != theirs], distances[distances <= -most])
    assert set(ours[ours != theirs]) == {0}
    assert set(theirs[ours != theirs]) == {1}


# ---- the models ----


def v2_layer(seq: int, buckets: int, most: int, kinds: list[str]) -> tuple[Any, tuple[torch.Tensor, ...], torch.Tensor]:
    """The module's own bias, and its inputs c2p and p2c."""
    from transformers import DebertaV2Config
    from transformers.models.deberta_v2.modeling_deberta_v2 import DisentangledSelfAttention

    torch.manual_seed(seq)
    config = DebertaV2Config(
        hidden_size=24, num_attention_heads=3, relative_attention=True, position_buckets=buckets,
        max_relative_positions=most, pos_att_type=kinds, share_att_key=True, hidden_dropout_prob=0.0,
    )  # fmt: skip
    layer = DisentangledSelfAttention(config).eval()
    q, k = torch.randn(6, seq, 8), torch.randn(6, seq, 8)
    embeddings = torch.randn(2 * buckets, 24)
    factor = 1 + len(kinds)
    bias = layer.disentangled_attention_bias(q, k, None, embeddings, factor)
    parts = layer.transpose_for_scores(layer.key_proj(embeddings[None]), 3).repeat(2, 1, 1)
    other = layer.transpose_for_scores(layer.query_proj(embeddings[None]), 3).repeat(2, 1, 1)
    return layer, (q @ parts.mT, k @ other.mT), bias


@pytest.mark.parametrize("kinds", [["c2p", "p2c"], ["c2p"], ["p2c"]], ids="|".join)
@pytest.mark.parametrize("seq", [37, 90])
def test_deberta_v2(seq: int, kinds: list[str]) -> None:
    """The bias of transformers' own layer, beyond max_relative_positions too."""
    with torch.no_grad():
        _, (c2p, p2c), wanted = v2_layer(seq, 8, 33, kinds)
        scores = torch.randn(6, seq, seq)
        found = add_disentangled_bias(
            scores, c2p=c2p if "c2p" in kinds else None, p2c=p2c if "p2c" in kinds else None,
            num_buckets=8, max_distance=33, scale=1 / math.sqrt(8 * (1 + len(kinds))),
        )  # fmt: skip
    torch.testing.assert_close(found, scores + wanted, rtol=2e-6, atol=2e-6)


@pytest.mark.parametrize(("seq", "most"), [(11, 20), (30, 20)])
def test_deberta_v1(seq: int, most: int) -> None:
    from transformers import DebertaConfig
    from transformers.models.deberta.modeling_deberta import DisentangledSelfAttention, build_relative_position

    config = DebertaConfig(
        hidden_size=24, num_attention_heads=3, relative_attention=True, max_relative_positions=most,
        pos_att_type=["c2p", "p2c"], hidden_dropout_prob=0.0,
    )  # fmt: skip
    torch.manual_seed(seq)
    layer, span = DisentangledSelfAttention(config).eval(), min(seq, most)
    q, k, embeddings = torch.randn(2, 3, seq, 8), torch.randn(2, 3, seq, 8), torch.randn(2 * most, 24)
    with torch.no_grad():
        wanted = layer.disentangled_att_bias(q, k, build_relative_position(q, k), embeddings, 3)
        used = embeddings[most - span : most + span][None]
        c2p = q @ layer.transpose_for_scores(layer.pos_proj(used)).mT
        p2c = k @ (layer.transpose_for_scores(layer.pos_q_proj(used)) / math.sqrt(24)).mT
        found = disentangled_bias(c2p=c2p, p2c=p2c)
    np.testing.assert_allclose(found, wanted.numpy(), rtol=2e-6, atol=2e-6)


# ---- the oracle ----

SHAPES = [(1, 1), (5, 9), (70, 33), (16, 1030), (40, 40)]


def data(shape: tuple[int, int], entries: int, dtype: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(7)
    queries, keys = shape
    sizes = [(2, 3, queries, keys), (2, 3, queries, entries), (3, keys, entries)]
    x, c2p, p2c = (rng.standard_normal(size).astype(dtype) for size in sizes)
    return x, c2p, p2c


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16, ml_dtypes.bfloat16])
def test_oracle(shape: tuple[int, int], dtype: Any) -> None:
    """Bit for bit: entries added, scaled, added, in float32 (or float64), rounded once."""
    queries, keys = shape
    x, c2p, p2c = data(shape, 32, dtype)
    distance = np.arange(keys - queries, keys)[:, None] - np.arange(keys)
    index = deberta_index(distance, 16, num_buckets=16, max_distance=40)
    how = {"num_buckets": 16, "max_distance": 40, "scale": 0.375}
    wide = np.float64 if dtype is np.float64 else np.float32
    for a, b in ((c2p, p2c), (c2p, None), (None, p2c)):
        entries = [None if part is None else part.astype(wide) for part in (a, b)]
        terms = reference.picked(*entries, index).astype(wide)
        wanted = (x.astype(wide) + terms * wide(0.375)).astype(dtype)
        assert_same_bits(add_disentangled_bias(x, c2p=a, p2c=b, **how), wanted)
    # listed positions give the same bits, in any order
    order = np.random.default_rng(1).permutation(keys)
    listed = add_disentangled_bias(
        x[..., order], c2p=c2p, p2c=p2c[:, order], key_positions=order, query_positions=distance[:, 0], **how
    )
    assert_same_bits(listed, add_disentangled_bias(x, c2p=c2p, p2c=p2c, **how)[..., order])


@pytest.mark.parametrize("buckets", [2, 3, 4, 5, 6, 7, 9])
@pytest.mark.parametrize("beyond", ["transformers", "microsoft"])
def test_few_buckets(buckets: int, beyond: str) -> None:
    """Bounds between few buckets lie far apart: listed positions up to there and farther."""
    c2p, how = data((1, 5), 2 * buckets, np.float32)[1], {"num_buckets": buckets, "max_distance": 12, "beyond": beyond}
    key = np.array([-9000, -100, -90, -70, -60, -40, -13, -12, -11, -6, -1, 0, 2, 9, 11, 12, 13, 59, 60, 61, 300])
    found = add_disentangled_bias(
        np.zeros((2, 3, 1, len(key)), np.float32), c2p=c2p, query_positions=[0], key_positions=key, **how
    )
    assert_same_bits(found[..., 0, :], c2p[..., 0, deberta_index(-key, buckets, **how)])


def test_strides(rng: np.random.Generator) -> None:
    """Any strides of every array, in place and not, few entries, broadcast heads."""
    x, c2p, p2c = data((50, 60), 6, np.float32)
    wanted = add_disentangled_bias(x, c2p=c2p, p2c=p2c)
    turned = [np.asfortranarray(a) for a in (x, c2p, p2c)]
    assert_same_bits(add_disentangled_bias(turned[0], c2p=turned[1], p2c=turned[2]), wanted)
    back = [np.repeat(a, 2, -1)[..., ::-1][..., ::2][..., ::-1] for a in (x, c2p, p2c)]
    out = np.zeros((60, 50, 3, 2), np.float32).transpose(3, 2, 1, 0)
    assert add_disentangled_bias(back[0], c2p=back[1], p2c=back[2], out=out) is out
    assert_same_bits(out, wanted)
    assert add_disentangled_bias(x, c2p=c2p[:, :1], p2c=p2c[:1], out=x) is x
    x = data((50, 60), 6, np.float32)[0]
    shared = add_disentangled_bias(x, c2p=c2p[:, :1], p2c=p2c[0])
    assert_same_bits(shared[:, 2], add_disentangled_bias(x[:, 2], c2p=c2p[:, 0], p2c=p2c[0]))


def test_threads_and_masks(threads: Callable[[int], None], rng: np.random.Generator) -> None:
    """The same bits for one thread and two, causal too."""
    x, c2p, p2c = (rng.standard_normal((3, 1024, n)).astype(np.float32) for n in (1024, 64, 64))
    how = {"c2p": c2p, "p2c": p2c, "num_buckets": 32, "max_distance": 128, "causal": True}
    found = []
    for n in (1, 2):
        threads(n)
        found.append(add_disentangled_bias(x, **how))
        gradients = relative_gradients.of_disentangled(
            x, c2p_shape=c2p.shape, p2c_shape=p2c.shape, num_buckets=32, max_distance=128
        )
        found.append(np.stack(gradients))
    assert_same_bits(found[0], found[2])
    assert_same_bits(found[1], found[3])
    assert np.isneginf(found[0][:, *np.triu_indices(1024, 1)]).all()


# ---- gradients ----


@pytest.mark.parametrize("causal", [False, True, "skip"], ids=str)
def test_gradients(causal: Any, rng: np.random.Generator) -> None:
    """Of a function that is linear in c2p and p2c: autograd's of the same gather, summed over what is broadcast."""
    c2p, p2c = (rng.standard_normal(size) for size in ((2, 3, 20, 16), (3, 45, 16)))
    grad = rng.standard_normal((2, 3, 20, 45))
    distance = np.arange(25, 45)[:, None] - np.arange(45)
    index = torch.from_numpy(deberta_index(distance, 8, num_buckets=8, max_distance=33))
    a, b = (torch.from_numpy(part).requires_grad_() for part in (c2p, p2c))
    rows, columns = np.indices(index.shape)
    bias = a[..., rows, index] + b[..., columns, index]
    seen = torch.from_numpy(distance >= 0) if causal else torch.ones(20, 45, dtype=torch.bool)
    (0.5 * bias * torch.from_numpy(grad) * seen).sum().backward()
    how = {"num_buckets": 8, "max_distance": 33, "scale": 0.5, "causal": causal}
    shapes = {"c2p_shape": c2p.shape, "p2c_shape": p2c.shape}
    found = relative_gradients.of_disentangled(grad, **shapes, **how)
    for one, wanted in zip(found, (a.grad, b.grad), strict=True):
        np.testing.assert_allclose(one, wanted.numpy(), rtol=1e-12, atol=1e-12)
    given = [np.ones_like(part) for part in found]
    again = relative_gradients.of_disentangled(grad, **shapes, **how, c2p_out=given[0], p2c_out=given[1])
    assert again[0] is given[0]
    assert again[1] is given[1]
    for one, plus in zip(found, given, strict=True):
        np.testing.assert_allclose(plus, one + 1, rtol=1e-12, atol=1e-12)
    narrow = relative_gradients.of_disentangled(torch.from_numpy(grad).float(), c2p_shape=(20, 16), **how)
    assert narrow[1] is None
    np.testing.assert_allclose(narrow[0], found[0].sum((0, 1)), rtol=1e-5, atol=1e-5)


# ---- bad input ----

ONES = np.ones((2, 4, 5), np.float32)
WRONG: list[tuple[type[Exception], str, dict[str, Any]]] = [
    (ValueError, "c2p or p2c must be given", {}),
    (ValueError, "c2p must have shape (.., 2 * span), got (2, 4, 3)", {"c2p": np.ones((2, 4, 3))}),
    (ValueError, "c2p must have shape (.., queries, n)", {"c2p": np.ones((2, 5, 4))}),
    (ValueError, "p2c must have shape (.., keys, n)", {"p2c": np.ones((2, 4, 4))}),
    (ValueError, "c2p must have shape (.., queries, n)", {"c2p": np.ones((3, 4, 4))}),
    (ValueError, "c2p must have shape (.., queries, n)", {"c2p": np.ones((1, 2, 4, 4))}),
    (ValueError, "c2p and p2c must have the same length", {"c2p": np.ones((4, 4)), "p2c": np.ones((5, 6))}),
    (ValueError, "num_buckets must be at least 2, got 0", {"c2p": np.ones((4, 4)), "num_buckets": 0}),
    (ValueError, "c2p must have 2 * num_buckets = 8 entries, got 4", {"c2p": np.ones((4, 4)), "num_buckets": 4}),
    (ValueError, "max_distance must be more than", {"c2p": np.ones((4, 8)), "num_buckets": 4, "max_distance": 3}),
    (ValueError, "beyond must be one of", {"c2p": np.ones((4, 8)), "num_buckets": 4, "beyond": "google"}),
    (ValueError, "scale must be finite", {"c2p": np.ones((4, 4)), "scale": math.inf}),
    (ValueError, "window must be at least 1", {"c2p": np.ones((4, 4)), "window": 0}),
    (TypeError, "c2p must be float32, float64, float16 or bfloat16", {"c2p": np.ones((4, 4), int)}),
    (TypeError, "must be integers", {"c2p": np.ones((4, 4)), "key_positions": [0.5, 1, 2, 3, 4]}),
    (TypeError, "c2p is a tensor that requires", {"c2p": torch.ones(4, 4, requires_grad=True)}),
]


@pytest.mark.parametrize(("error", "text", "how"), WRONG, ids=[text for _, text, _ in WRONG])
def test_bad_input(error: type[Exception], text: str, how: dict[str, Any]) -> None:
    x = ONES.copy()
    with pytest.raises(error) as caught:
        add_disentangled_bias(x, **how, out=x)
    assert caught.type is error
    if "requires" not in text:
        assert text in str(caught.value)
    np.testing.assert_array_equal(x, ONES)


def test_outputs_are_checked() -> None:
    x, c2p = ONES.copy(), np.ones((2, 4, 4), np.float32)
    with pytest.raises(ValueError, match="out and c2p overlap"):
        add_disentangled_bias(c2p, c2p=c2p, out=c2p)
    x.flags.writeable = False
    with pytest.raises(BufferError, match="out is read-only"):
        add_disentangled_bias(x, c2p=c2p, out=x)
    sums, shape = np.zeros((2, 4, 4)), (2, 4, 4)
    with pytest.raises(ValueError, match="the two outputs overlap"):
        relative_gradients.of_disentangled(x[..., :4], c2p_shape=shape, p2c_shape=shape, c2p_out=sums, p2c_out=sums)
