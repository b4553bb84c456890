"""Weights of one layout for models of the other: the converters people run, and attention that stays what it was."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import posenc
from conftest import assert_refused, assert_same_bits
from posenc import _reference, weights
from posenc.weights import RotaryProjections, permute_rotary_projections, permute_rotary_weights

if not os.environ.get("CI"):  # there, a missing package is a failure
    for package in ("torch", "transformers", "ml_dtypes"):
        pytest.importorskip(package, reason=f'needs {package}: pip install ".[test]"')

import ml_dtypes
import torch
from transformers.models.glm import modeling_glm
from transformers.models.llama import modeling_llama
from transformers.models.qwen3 import modeling_qwen3

reproducible = settings(derandomize=True, deadline=None, max_examples=50)


def normal(seed: int, *shape: int) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(shape))


# ---- the converters ----


def permute_of_transformers(w: torch.Tensor, n_heads: int) -> torch.Tensor:
    """`permute` of transformers' models/llama/convert_llama_weights_to_hf.py."""
    dim1, dim2 = w.shape
    return w.view(n_heads, dim1 // n_heads // 2, 2, dim2).transpose(1, 2).reshape(dim1, dim2)


def permute_of_llama_cpp(w: np.ndarray, n_heads: int) -> np.ndarray:
    """`LlamaModel.permute` of llama.cpp's convert_hf_to_gguf.py, which goes the other way."""
    return w.reshape(n_heads, 2, w.shape[0] // n_heads // 2, *w.shape[1:]).swapaxes(1, 2).reshape(w.shape)


@given(heads=st.integers(1, 5), pairs=st.integers(1, 9), columns=st.integers(1, 4))
@reproducible
def test_converters(heads: int, pairs: int, columns: int) -> None:
    w = torch.arange(heads * 2 * pairs * columns).reshape(-1, columns)
    found = permute_rotary_weights(w, heads)
    assert torch.equal(found, permute_of_transformers(w, heads))
    back = permute_rotary_weights(found.numpy(), heads, source="half", target="interleaved")
    assert np.array_equal(back, permute_of_llama_cpp(found.numpy(), heads))
    assert np.array_equal(back, w.numpy())


# ---- one projection ----


def test_rows_around_stay() -> None:
    """DeepSeek-V3's queries turn the last 64 of 192 rows of a head, its shared key the last 64 of 576."""
    found = permute_rotary_weights(np.arange(2 * 192), 2, rotary_dim=64, rotary_offset=128)
    turned = [*range(128, 192, 2), *range(129, 192, 2)]
    assert found.tolist() == [*range(128), *turned, *range(192, 320), *(i + 192 for i in turned)]
    shared = permute_rotary_weights(np.arange(576), 1, rotary_offset=512)
    assert shared.tolist() == [*range(512), *range(512, 576, 2), *range(513, 576, 2)]
    part = permute_rotary_weights(np.arange(10), 1, rotary_dim=4, rotary_offset=2)
    assert part.tolist() == [0, 1, 2, 4, 3, 5, 6, 7, 8, 9]


def test_lora() -> None:
    """B is permuted and A stays: the same as permuting the merged weight."""
    w, a, b = normal(1, 32, 6), normal(2, 3, 6), normal(3, 32, 3)
    merged = permute_rotary_weights(w + b @ a, 4)
    assert torch.equal(permute_rotary_weights(w, 4) + permute_rotary_weights(b, 4) @ a, merged)


@pytest.mark.parametrize("head_dim", [64, 128])
def test_scales_of_float8_blocks_stay(head_dim: int) -> None:
    """128 x 128 blocks, no head across two of them: the scales fit the permuted weight where they are."""
    rng = np.random.default_rng(4)
    w = rng.standard_normal((256, 128)).astype(ml_dtypes.float8_e4m3fn)
    blocks = rng.uniform(0.5, 2, (2, 1)).repeat(128, 0).repeat(128, 1)
    found = permute_rotary_weights(w, 256 // head_dim)
    assert found.dtype == w.dtype
    full = permute_rotary_weights(w.astype(np.float64) * blocks, 256 // head_dim)
    assert np.array_equal(found.astype(np.float64) * blocks, full)
    as_tensor = torch.from_numpy(w.view(np.uint8)).view(torch.float8_e4m3fn)
    in_torch = permute_rotary_weights(as_tensor, 256 // head_dim)
    assert np.array_equal(in_torch.view(torch.uint8).numpy(), found.view(np.uint8))


def test_kinds_and_dtypes() -> None:
    """The same kind, dtype and shape; a new array, also where nothing moves."""
    for dtype in (torch.bfloat16, torch.float16, torch.int8):
        w = torch.arange(16).reshape(8, 2).to(dtype)
        found = permute_rotary_weights(w, 1)
        assert (found.dtype, found.shape) == (dtype, w.shape)
        assert found[:, 0].tolist() == [0, 4, 8, 12, 2, 6, 10, 14]
    w = np.arange(8.0)
    same = permute_rotary_weights(w, 1, source="half")
    assert_same_bits(same, w)
    assert not np.shares_memory(same, w)


# ---- queries, keys and values in one ----


def stacked(q: np.ndarray, k: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Phi3Attention splits its qkv_proj like this."""
    return np.concatenate([x.reshape(-1, x.shape[-1]) for x in (q, k, v)])


def grouped(q: np.ndarray, k: np.ndarray, v: np.ndarray) -> np.ndarray:
    """FalconAttention._split_heads views (kv heads, queries of each + 2, head_dim); GPTNeoXAttention (heads, 3, ..)."""
    queries = q.reshape(len(k), -1, *q.shape[1:])
    return np.concatenate([queries, k[:, None], v[:, None]], axis=1).reshape(-1, q.shape[-1])


@pytest.mark.parametrize(("name", "join"), [("stacked", stacked), ("grouped", grouped)])
@pytest.mark.parametrize(("heads", "kv_heads"), [(6, 2), (4, 4), (3, 1)])
def test_fused(name: str, join: Callable[..., np.ndarray], heads: int, kv_heads: int) -> None:
    """As queries and keys permuted alone, and the values as they were."""
    rng = np.random.default_rng(5)
    q, k, v = (rng.random((n, 8, 3)) for n in (heads, kv_heads, kv_heads))

    def alone(x: np.ndarray) -> np.ndarray:
        return permute_rotary_weights(x.reshape(-1, 3), len(x), rotary_dim=6).reshape(x.shape)

    found = permute_rotary_weights(join(q, k, v), heads, fused=name, num_kv_heads=kv_heads, rotary_dim=6)
    assert_same_bits(found, join(alone(q), alone(k), v))


# ---- a whole layer ----


def attention(made: RotaryProjections, x: torch.Tensor, head_dim: int, width: int, apply: Any) -> Any:
    """Return q.k of a layer as transformers computes it: projection, bias, Qwen3's norm, its model's rotation."""

    def project(weight: Any, bias: Any, gains: Any) -> torch.Tensor:
        y = torch.nn.functional.linear(x, weight, bias).view(*x.shape[:-1], -1, head_dim)
        if gains is not None:
            norm = modeling_qwen3.Qwen3RMSNorm(head_dim, eps=1e-6).double()
            norm.weight.data = gains
            y = norm(y)
        return y.transpose(1, 2)

    q = project(made.q_weight, made.q_bias, made.q_norm)
    k = project(made.k_weight, made.k_bias, made.k_norm)
    cos, sin = posenc.Rope(width, layout="half").table(x.shape[1], dtype=np.float64)
    cos, sin = (torch.from_numpy(np.tile(t, 2))[None] for t in (cos, sin))
    turned = apply(q[..., :width], k[..., :width], cos, sin)
    q, k = (torch.cat((t, s[..., width:]), dim=-1) for t, s in zip(turned, (q, k), strict=True))
    return q @ k.repeat_interleave(q.shape[1] // k.shape[1], 1).transpose(-1, -2)


@pytest.mark.parametrize("width", [8, 12])
@pytest.mark.parametrize("more", [(), ("q_bias", "k_bias"), ("q_bias", "q_norm", "k_norm")], ids=str)
def test_logits_of_transformers(width: int, more: tuple[str, ...]) -> None:
    """An interleaved layer (GLM) and, permuted, a half-split one (Llama), grouped queries: the same logits."""
    shapes = {"q_bias": 6 * 12, "k_bias": 2 * 12, "q_norm": 12, "k_norm": 12}
    layer = RotaryProjections(
        normal(6, 72, 20), normal(7, 24, 20), **{name: normal(i, shapes[name]) for i, name in enumerate(more)}
    )
    found = permute_rotary_projections(layer, 6, 2, rotary_dim=width)
    x = normal(8, 2, 9, 20)
    with torch.no_grad():
        before = attention(layer, x, 12, width, modeling_glm.apply_rotary_pos_emb)
        after, unchanged = (
            attention(made, x, 12, width, modeling_llama.apply_rotary_pos_emb) for made in (found, layer)
        )
    tolerance = 1e-4 if "q_norm" in more else 1e-11  # the norm is float32
    assert torch.allclose(before, after, rtol=0, atol=tolerance)
    assert not torch.allclose(before, unchanged, rtol=0, atol=0.5)
    for name in more:
        wanted = permute_rotary_weights(getattr(layer, name), getattr(layer, name).numel() // 12, rotary_dim=width)
        assert torch.equal(getattr(found, name), wanted)


def test_norms_over_all_heads() -> None:
    """Gains of shape (heads * head_dim,), as OLMo 2 has them, and (heads, head_dim), as Cohere."""
    gains = np.random.default_rng(9).random((4, 8))
    flat = RotaryProjections(np.ones((32, 5)), np.ones((16, 5)), q_norm=gains.ravel(), k_norm=gains[:2].ravel())
    square = flat._replace(q_norm=gains, k_norm=gains[:2])
    wanted = permute_rotary_weights(gains.ravel(), 4)
    assert_same_bits(permute_rotary_projections(flat, 4, 2).q_norm, wanted)
    assert_same_bits(permute_rotary_projections(square, 4, 2).q_norm, wanted.reshape(4, 8))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float8_e4m3fn])
def test_narrow_layers(dtype: torch.dtype) -> None:
    layer = RotaryProjections(normal(10, 16, 4).to(dtype), normal(11, 8, 4).to(dtype))
    found = permute_rotary_projections(layer, 2, 1, source="half", target="interleaved")
    assert found.k_weight.dtype == dtype
    assert found.q_bias is None
    back = permute_rotary_projections(found, 2, 1)
    assert torch.equal(back.q_weight.float(), layer.q_weight.float())


def test_a_layer_with_nan_is_no_failure_of_the_proof() -> None:
    q, k = np.ones((8, 3)), np.ones((8, 3))
    q[1, 2] = np.nan
    assert np.isnan(permute_rotary_projections(RotaryProjections(q, k), 1, 1).q_weight[4, 2])


# ---- the proof ----


def test_a_wrong_order_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two rows exchanged, rows of the wrong half, rows that should have stayed."""
    right = weights._order_of_head
    for wrong in (
        lambda *how: right(*how)[[1, 0, 2, 3, 4, 5, 6, 7]],
        lambda *how: right(*how)[[0, 1, 2, 3, 4, 5, 7, 6]],  # q.k stays, but these rows had no reason to move
        lambda *how: np.arange(8),
        lambda *how: right(8, how[2], how[1], *how[3:]),
        lambda head_dim, source, target, width, first: right(head_dim, source, target, 8, 0),
    ):
        monkeypatch.setattr(weights, "_order_of_head", wrong)
        with pytest.raises(RuntimeError, match=r"changed q\.k"):
            permute_rotary_weights(np.ones((16, 2)), 2, rotary_dim=6)
    monkeypatch.setattr(weights, "_order_of_head", right)
    assert permute_rotary_weights(np.ones((16, 2)), 2, rotary_dim=6).shape == (16, 2)


@pytest.mark.parametrize("forgotten", ["k_weight", "q_bias", "k_norm"])
def test_a_forgotten_array_is_caught(forgotten: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second proof is of these weights, all of them."""
    rng = np.random.default_rng(12)
    layer = RotaryProjections(*(rng.random(shape) for shape in ((16, 4), (8, 4), 16, 8, 8, 8)))
    right = weights.permute_rotary_weights

    def forgetful(array: Any, num_heads: int, **how: Any) -> Any:
        return array if array is getattr(layer, forgotten) else right(array, num_heads, **how)

    assert permute_rotary_projections(layer, 2, 1).q_weight.shape == (16, 4)
    monkeypatch.setattr(weights, "permute_rotary_weights", forgetful)
    with pytest.raises(RuntimeError, match=r"changed q\.k of these weights"):
        permute_rotary_projections(layer, 2, 1)


def test_the_oracle_agrees() -> None:
    """q.k by the oracle, both layouts, rows of a weight taken for queries and keys."""
    q, k = np.random.default_rng(13).standard_normal((2, 10))
    inv_freq = _reference.inv_freq(100.0, 6)
    products = []
    for layout, a, b in (
        ("interleaved", q, k),
        ("half", *(permute_rotary_weights(x, 1, rotary_dim=6, rotary_offset=2) for x in (q, k))),
    ):
        turned = [
            _reference.rotate(x[None], np.array([p]), inv_freq, layout, rotary_offset=2) for x, p in ((a, 9), (b, 4))
        ]
        products.append(float((turned[0] * turned[1]).sum()))
    assert abs(products[0] - products[1]) < 1e-14


# ---- refusals ----


def test_wrong_arguments() -> None:
    w = np.ones((24, 3))
    layer = RotaryProjections(np.ones((16, 3)), np.ones((8, 3)))
    for error, message, call in (
        (ValueError, "num_kv_heads is for a fused weight", lambda: permute_rotary_weights(w, 3, num_kv_heads=1)),
        (ValueError, "num_kv_heads must be given", lambda: permute_rotary_weights(w, 3, fused="stacked")),
        (
            ValueError,
            "fused must be one of 'stacked', 'grouped', got 'qkv'",
            lambda: permute_rotary_weights(w, 3, fused="qkv", num_kv_heads=1),
        ),
        (
            ValueError,
            "num_heads must be a multiple of num_kv_heads (2), got 3",
            lambda: permute_rotary_weights(w, 3, fused="grouped", num_kv_heads=2),
        ),
        (
            ValueError,
            "weight must have (num_heads + 2 * num_kv_heads) * head_dim rows, a multiple of 5, got shape (24, 3)",
            lambda: permute_rotary_weights(w, 3, fused="grouped", num_kv_heads=1),
        ),
        (
            ValueError,
            "rotary_offset + rotary_dim must be at most head_dim (8), and rotary_dim at least 2, got 4 + 6",
            lambda: permute_rotary_weights(w, 3, rotary_dim=6, rotary_offset=4),
        ),
        (ValueError, "and rotary_dim at least 2, got 8 + 0", lambda: permute_rotary_weights(w, 3, rotary_offset=8)),
        (ValueError, "rotary_dim must be even", lambda: permute_rotary_weights(w, 3, rotary_offset=1)),
        (
            ValueError,
            "rotary_offset must be at least 0, got -1",
            lambda: permute_rotary_weights(w, 3, rotary_offset=-1),
        ),
        (
            ValueError,
            "num_heads must be a multiple of num_kv_heads (2)",
            lambda: permute_rotary_projections(layer, 3, 2),
        ),
        (ValueError, "q_weight must have shape", lambda: permute_rotary_projections(layer, 3, 1)),
        (
            ValueError,
            "k_weight must have shape (4, 3) for q_weight (16, 3), 4 heads and 1 key heads, got (8, 3); is it a fused",
            lambda: permute_rotary_projections(layer, 4, 1),
        ),
        (
            ValueError,
            "q_bias must have shape (16,)",
            lambda: permute_rotary_projections(layer._replace(q_bias=np.ones(8)), 2, 1),
        ),
        (
            ValueError,
            "k_norm must have shape (8,) or (1, 8)",
            lambda: permute_rotary_projections(layer._replace(k_norm=np.ones(4)), 2, 1),
        ),
        (
            TypeError,
            "k_weight must be a NumPy array or a torch tensor",
            lambda: permute_rotary_projections(layer._replace(k_weight=None), 2, 1),
        ),
    ):
        assert_refused(error, message, call, w)


def test_weights_that_cannot_be_indexed() -> None:
    with pytest.raises(TypeError, match="weight must be a dense array whose rows can be reordered"):
        permute_rotary_weights(torch.eye(4).to_mkldnn(), 1)
