"""Transformer-XL's relative attention: its own code, XLNet's and Conformer's models, the direct form, gradients."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import torch

from conftest import assert_same_bits, memory_of
from posenc import _reference as reference
from posenc.bias import (
    add_relative_shift,
    add_transformer_xl_bias,
    relative_gradients,
    relative_position_table,
    relative_shift,
    relative_shift_valid,
    transformer_xl_bias,
)


def rel_shift(x: torch.Tensor) -> torch.Tensor:
    """_rel_shift of kimiyoung/transformer-xl, pytorch/mem_transformer.py, over (query, distance, batch, head)."""
    zero_pad = torch.zeros((x.size(0), 1, *x.size()[2:]), dtype=x.dtype)
    x_padded = torch.cat([zero_pad, x], dim=1)
    x_padded = x_padded.view(x.size(1) + 1, x.size(0), *x.size()[2:])
    return x_padded[1:].view_as(x)


@pytest.mark.parametrize(("queries", "keys"), [(1, 1), (1, 7), (5, 5), (4, 9), (7, 4)])
def test_shift_of_transformer_xl(queries: int, keys: int, rng: np.random.Generator) -> None:
    """What its own shift shows up to the query; a view of the same memory, for NumPy and torch."""
    x = rng.standard_normal((2, 3, queries, keys)).astype(np.float32)
    theirs = rel_shift(torch.from_numpy(x).permute(2, 3, 0, 1)).permute(2, 3, 0, 1).numpy()
    valid = relative_shift_valid(queries, keys)
    view = relative_shift(x)
    assert np.shares_memory(view, x)
    np.testing.assert_array_equal(view[..., valid], theirs[..., valid])
    tensor = torch.from_numpy(x)
    assert relative_shift(tensor).untyped_storage().data_ptr() == tensor.untyped_storage().data_ptr()
    np.testing.assert_array_equal(relative_shift(tensor).numpy(), view)
    out = np.full((2, 3, queries, keys), np.nan, np.float32)
    assert relative_shift(x, out=out) is out
    np.testing.assert_array_equal(out, np.where(valid, theirs, 0))
    # nothing outside of x is shown where there is no product
    assert np.isin(view[..., ~valid], x).all()


def test_a_view_that_would_leave_its_array() -> None:
    x = np.ones((6, 4), np.float32)
    for turned in (x.T, x[::-1], x[:, ::-1], np.broadcast_to(x[:1], (6, 4))):
        with pytest.raises(ValueError, match="pass out="):
            relative_shift(turned)
        relative_shift(turned, out=np.empty(turned.shape, np.float32))


@pytest.mark.parametrize("convention", ["transformer_xl", "xlnet", "conformer"])
@pytest.mark.parametrize(("queries", "keys"), [(0, 3), (3, 0), (0, 0)])
def test_shift_of_nothing(convention: str, queries: int, keys: int) -> None:
    rows = {"transformer_xl": keys, "xlnet": keys + queries, "conformer": max(keys + queries - 1, 0)}[convention]
    if convention == "conformer" and not queries + keys:
        return  # there is no number of rows that fits
    x, nothing = np.zeros((2, queries, rows), np.float32), np.zeros((2, queries, keys), np.float32)
    for found in (
        relative_shift(x, keys, convention=convention),
        relative_shift(x, keys, convention=convention, out=nothing),
        add_relative_shift(nothing, x, convention=convention),
    ):
        assert found.shape == nothing.shape


@pytest.mark.parametrize(("queries", "keys"), [(1, 3), (6, 6), (4, 9), (9, 4)])
def test_shift_of_xlnet(queries: int, keys: int, rng: np.random.Generator) -> None:
    from transformers.models.xlnet.modeling_xlnet import XLNetRelativeAttention

    x = rng.standard_normal((2, 3, queries, keys + queries)).astype(np.float32)
    theirs = XLNetRelativeAttention.rel_shift_bnij(torch.from_numpy(x), klen=keys).numpy()
    np.testing.assert_array_equal(relative_shift(x, convention="xlnet"), theirs)
    assert_same_bits(
        add_relative_shift(np.ones_like(theirs), x, convention="xlnet", scale=0.5), 1 + np.float32(0.5) * theirs
    )
    one_sided = rng.standard_normal((2, 3, queries, keys + 1)).astype(np.float32)
    shifted = relative_shift(one_sided, keys, convention="xlnet")
    valid = relative_shift_valid(queries, keys)
    theirs = XLNetRelativeAttention.rel_shift_bnij(torch.from_numpy(one_sided), klen=keys).numpy()
    np.testing.assert_array_equal(shifted[..., valid], theirs[..., valid])


def test_xlnet_itself() -> None:
    """Its table within its own float32 angles, and the position term of its attention."""
    from transformers import XLNetConfig
    from transformers.models.xlnet.modeling_xlnet import XLNetModel, XLNetRelativeAttention

    config = XLNetConfig(vocab_size=8, d_model=24, n_layer=1, n_head=3, d_inner=8, clamp_len=6)
    table = XLNetModel(config).relative_positional_encoding(5, 9)[:, 0]
    ours = relative_position_table(9, 24, query_len=5, convention="xlnet", clamp_len=6)
    np.testing.assert_allclose(ours, table.numpy(), atol=1e-6)
    torch.manual_seed(0)
    layer = XLNetRelativeAttention(config)
    q, keys = torch.randn(5, 2, 3, 8), torch.zeros(9, 2, 3, 8)
    for part in (layer.r, layer.r_r_bias, layer.r_w_bias):
        torch.nn.init.normal_(part)
    r = torch.einsum("ph,hnd->pnd", table, layer.r).detach()
    with torch.no_grad():
        bd = torch.einsum("ibnd,pnd->bnip", q + layer.r_r_bias, r)
        wanted = layer.rel_shift_bnij(bd, klen=len(keys))
        args = (q.permute(1, 2, 0, 3), r.permute(1, 0, 2), layer.r_r_bias.detach()[:, None])
        found = transformer_xl_bias(*args, convention="xlnet")
    np.testing.assert_allclose(found, wanted.numpy(), rtol=1e-5, atol=1e-5)


def test_conformer() -> None:
    """The position term of wav2vec2_conformer's attention, and parakeet's shift and table."""
    from transformers import Wav2Vec2ConformerConfig
    from transformers.models.parakeet.modeling_parakeet import ParakeetEncoderAttention
    from transformers.models.wav2vec2_conformer.modeling_wav2vec2_conformer import (
        Wav2Vec2ConformerRelPositionalEmbedding,
        Wav2Vec2ConformerSelfAttention,
        _apply_relative_position_encoding,
    )

    config = Wav2Vec2ConformerConfig(
        hidden_size=24, num_attention_heads=3, position_embeddings_type="relative", max_source_positions=20
    )
    torch.manual_seed(1)
    layer = Wav2Vec2ConformerSelfAttention(config).eval()
    torch.nn.init.normal_(layer.pos_bias_u), torch.nn.init.normal_(layer.pos_bias_v)
    positions = Wav2Vec2ConformerRelPositionalEmbedding(config)(torch.zeros(1, 7, 24))
    ours = relative_position_table(7, 24, convention="conformer")
    np.testing.assert_allclose(ours, positions[0].numpy(), atol=2e-6)
    q = torch.randn(2, 3, 7, 8)
    with torch.no_grad():
        _, wanted = _apply_relative_position_encoding(layer, q, q, positions)
        r = layer.linear_pos(positions)[0].view(13, 3, 8).permute(1, 0, 2)
        x = torch.randn(2, 3, 7, 7)
        v = layer.pos_bias_v.detach()[:, None]
        found = add_transformer_xl_bias(x, q, r, v, convention="conformer", scale=layer.scaling)
    torch.testing.assert_close(found, x + wanted, rtol=1e-5, atol=1e-5)
    products = torch.randn(2, 3, 7, 13)
    theirs = ParakeetEncoderAttention._rel_shift(None, products)[..., :7]
    torch.testing.assert_close(relative_shift(products, convention="conformer"), theirs, rtol=0, atol=0)


def test_the_table_is_clamped() -> None:
    table = relative_position_table(9, 8, clamp_len=3)
    assert_same_bits(table[:6], np.repeat(table[5:6], 6, 0))
    assert_same_bits(table[5:], relative_position_table(4, 8))


# ---- the direct form ----


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16, ml_dtypes.bfloat16])
@pytest.mark.parametrize(("queries", "keys", "dim"), [(1, 1, 1), (70, 300, 33), (65, 65, 64), (3, 40, 7)])
def test_direct_form(dtype: Any, queries: int, keys: int, dim: int) -> None:
    """Against float64, with and without v, causal and not, and against the sum taken one product after the other."""
    rng = np.random.default_rng(3)
    x, q = (rng.standard_normal((2, 3, queries, n)).astype(dtype) for n in (keys, dim))
    r, v = (rng.standard_normal((3, n, dim)).astype(dtype) for n in (keys + queries - 1, 1))
    row_of = keys - 1 - (np.arange(keys - queries, keys)[:, None] - np.arange(keys))
    wide = np.float64 if dtype is np.float64 else np.float32
    added = (q.astype(wide) + v.astype(wide)).astype(np.float64)
    wanted = x.astype(np.float64) + 0.5 * reference.projected(added, r, row_of)
    found = add_transformer_xl_bias(x, q, r, v, convention="conformer", scale=0.5)
    unit = {np.float64: 1e-13, np.float32: 3e-6, np.float16: 2e-3}.get(dtype, 1.6e-2)
    np.testing.assert_allclose(found.astype(np.float64), wanted, rtol=unit, atol=unit * 4)
    summed = np.zeros((2, 3, queries, keys), wide)
    for d in range(dim):  # one product after the other, each rounded
        summed = summed + (q.astype(wide) + v.astype(wide))[..., d, None] * r.astype(wide)[..., row_of, d]
    assert_same_bits(found, (x.astype(wide) + wide(0.5) * summed).astype(dtype))
    skipped = add_transformer_xl_bias(x, q, r[:, :keys], v, scale=0.5)
    valid = relative_shift_valid(queries, keys)
    assert_same_bits(skipped, np.where(valid, found, x))


def test_one_form_is_the_other(threads: Callable[[int], None], rng: np.random.Generator) -> None:
    """Direct, by products first, one thread and two, in place, strided."""
    x, q = (rng.standard_normal((4, 600, n)).astype(np.float32) for n in (600, 16))
    r = rng.standard_normal((4, 600, 16)).astype(np.float32)
    products = np.zeros((4, 600, 600), np.float32)
    for d in range(16):
        products += q[..., d, None] * r[:, None, :, d]
    found = []
    for n in (1, 2):
        threads(n)
        found += [add_transformer_xl_bias(x, q, r, causal=True), add_relative_shift(x, products, causal=True)]
        grads = relative_gradients.of_transformer_xl(x, q, r)
        found.append(np.concatenate(grads, 1))
    for other in found[1], found[3], found[4]:
        assert_same_bits(found[0], other)
    assert_same_bits(found[2], found[5])
    assert np.isneginf(found[0][:, 0, 1:]).all()
    turned = [np.asfortranarray(a) for a in (x, q, r)]
    assert add_transformer_xl_bias(*turned, causal=True, out=turned[0]) is turned[0]
    assert_same_bits(turned[0], found[0])


@pytest.mark.parametrize("convention", ["transformer_xl", "xlnet", "conformer"])
def test_gradients(convention: str, rng: np.random.Generator) -> None:
    queries, keys, dim = 9, 14, 6
    rows = {"transformer_xl": keys, "xlnet": keys + queries, "conformer": keys + queries - 1}[convention]
    q, v, r = (rng.standard_normal(s) for s in ((2, 3, queries, dim), (3, 1, dim), (3, rows, dim)))
    grad = rng.standard_normal((2, 3, queries, keys))
    tensors = [torch.from_numpy(a).requires_grad_() for a in (q, v, r)]
    bias = relative_shift((tensors[0] + tensors[1]) @ tensors[2].mT, keys, convention=convention)
    seen = relative_shift_valid(queries, keys) if convention == "transformer_xl" else np.ones((queries, keys), bool)
    (0.5 * bias * torch.from_numpy(grad * seen)).sum().backward()
    how = {"convention": convention, "scale": 0.5}
    q_grad, r_grad = relative_gradients.of_transformer_xl(grad, q, r, v, **how)
    for found, tensor in ((q_grad, tensors[0]), (r_grad, tensors[2]), (q_grad.sum((0, 2))[:, None], tensors[1])):
        np.testing.assert_allclose(found, tensor.grad.numpy(), rtol=1e-12, atol=1e-12)
    given = np.ones_like(r)
    assert relative_gradients.of_transformer_xl(grad, q, r, v, **how, r_out=given)[1] is given
    np.testing.assert_allclose(given, r_grad + 1, rtol=1e-12, atol=1e-12)
    narrow = [a.astype(np.float32) for a in (grad, q, r, v)]
    for found, wanted in zip(relative_gradients.of_transformer_xl(*narrow, **how), (q_grad, r_grad), strict=True):
        np.testing.assert_allclose(found, wanted, rtol=2e-6, atol=2e-6 * np.abs(wanted).max())


# ---- bad input ----

X, Q, R = np.ones((2, 4, 6), np.float32), np.ones((2, 4, 3), np.float32), np.ones((2, 6, 3), np.float32)
WRONG: list[tuple[type[Exception], str, Callable[[np.ndarray], Any]]] = [
    (ValueError, "r must have 6 distances", lambda x: add_transformer_xl_bias(x, Q, R[:, :5], out=x)),
    (ValueError, "r must have 10 or 7 dist", lambda x: add_transformer_xl_bias(x, Q, R, convention="xlnet", out=x)),
    (ValueError, "convention must be one of", lambda x: add_transformer_xl_bias(x, Q, R, convention="t5", out=x)),
    (ValueError, "r has no rows for keys after", lambda x: add_transformer_xl_bias(x, Q, R, causal=False, out=x)),
    (ValueError, "q and r must have the same length", lambda x: add_transformer_xl_bias(x, Q[..., :2], R, out=x)),
    (ValueError, "q must have shape (.., queries, n)", lambda x: add_transformer_xl_bias(x, Q[:, :3], R, out=x)),
    (ValueError, "q and v must have the same", lambda x: add_transformer_xl_bias(x, Q, R, Q[:, :1, :2], out=x)),
    (ValueError, "scale must be finite", lambda x: add_transformer_xl_bias(x, Q, R, scale=float("nan"), out=x)),
    (TypeError, "q must be float32, float64", lambda x: add_transformer_xl_bias(x, Q.astype(int), R, out=x)),
    (TypeError, "q must be a NumPy array", lambda x: add_transformer_xl_bias(x, None, R, out=x)),
    (ValueError, "x must have 6 distances", lambda x: add_relative_shift(x, X[..., :5], out=x)),
    (ValueError, "x has no rows for keys after", lambda x: add_relative_shift(x, X.copy(), causal=False, out=x)),
    (ValueError, "out and x overlap in memory", lambda x: add_relative_shift(x, x, out=x)),
    (ValueError, "window must be at least 1", lambda x: add_relative_shift(x, X.copy(), window=0, out=x)),
    (ValueError, "x must have shape (.., queries", lambda x: relative_shift(x[0, 0])),
    (ValueError, "dim must be even", lambda x: relative_position_table(4, 3)),
    (ValueError, "clamp_len must be at least 1", lambda x: relative_position_table(4, 4, clamp_len=0)),
]


@pytest.mark.parametrize(("error", "text", "call"), WRONG, ids=[text for _, text, _ in WRONG])
def test_bad_input(error: type[Exception], text: str, call: Callable[[np.ndarray], Any]) -> None:
    x = X.copy()
    before = memory_of(x)
    with pytest.raises(error) as caught:
        call(x)
    assert text in str(caught.value)
    np.testing.assert_array_equal(memory_of(x), before)
