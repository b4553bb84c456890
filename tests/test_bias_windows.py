"""Window biases against Swin, SwinV2, BEiT and SAM of transformers, relative keys, and KERPLE's own code."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from conftest import assert_same_bits
from posenc import bias


@pytest.mark.parametrize("window", [(7, 7), (3, 5), (1, 4)])
def test_swin(window: tuple[int, int], rng: np.random.Generator) -> None:
    from transformers.models.swin.modeling_swin import SwinRelativePositionBias

    layer = SwinRelativePositionBias.__new__(SwinRelativePositionBias)
    torch.nn.Module.__init__(layer)
    layer.window_size, layer.window_area = window, window[0] * window[1]
    theirs = layer._create_relative_position_index()
    index = bias.window_index(window)
    np.testing.assert_array_equal(index, theirs.numpy())
    table = rng.standard_normal((index.max() + 1, 4)).astype(np.float32)
    x = rng.standard_normal((2, 4, *index.shape)).astype(np.float32)
    assert_same_bits(bias.add_window_bias(x, table, window), x + np.moveaxis(table[index], -1, 0))
    tensor = torch.from_numpy(x)
    assert bias.add_window_bias(tensor, torch.from_numpy(table), window, out=tensor) is tensor


@pytest.mark.parametrize(("window", "pretrained"), [((8, 8), None), ((8, 8), (6, 6)), ((4, 6), (0, 0)), ((16, 16), 12)])
def test_swinv2(window: tuple[int, int], pretrained: Any) -> None:
    from transformers import Swinv2Config
    from transformers.models.swinv2.modeling_swinv2 import Swinv2SelfAttention

    given = [pretrained, pretrained] if isinstance(pretrained, int) else list(pretrained or [0, 0])
    layer = Swinv2SelfAttention(Swinv2Config(), 12, 3, window, given)
    ours = bias.swinv2_coordinates(window, pretrained_window=pretrained)
    np.testing.assert_allclose(ours, layer.relative_coords_table[0].numpy(), rtol=3e-7)
    np.testing.assert_array_equal(bias.window_index(window), layer.relative_position_index.numpy())


@pytest.mark.parametrize("window", [(3, 3), (2, 4)])
def test_beit(window: tuple[int, int], rng: np.random.Generator) -> None:
    from transformers.models.beit.modeling_beit import BeitRelativePositionBias

    theirs = BeitRelativePositionBias.generate_relative_position_index(window)
    index = bias.window_index(window, kind="beit")
    np.testing.assert_array_equal(index, theirs.numpy())
    table = rng.standard_normal((index.max() + 1, 4)).astype(np.float32)
    x = np.zeros((4, *index.shape), np.float32)
    assert_same_bits(bias.add_window_bias(x, table, window, kind="beit"), np.moveaxis(table[index], -1, 0) + 0)


def test_literals() -> None:
    """A 2 by 2 window, as the authors' code prints it."""
    wanted = [[4, 3, 1, 0], [5, 4, 2, 1], [7, 6, 4, 3], [8, 7, 5, 4]]
    np.testing.assert_array_equal(bias.window_index(2), wanted)
    found = bias.swinv2_coordinates(2)
    assert found[0, 0].tolist() == pytest.approx([-math.log2(9) / 3] * 2)


@pytest.mark.parametrize(("queries", "keys"), [((4, 4), (4, 4)), ((6, 4), (3, 4)), ((2, 3), (4, 6))])
def test_sam(queries: tuple[int, int], keys: tuple[int, int], rng: np.random.Generator) -> None:
    from transformers import SamVisionConfig
    from transformers.models.sam.modeling_sam import SamVisionAttention

    layer = SamVisionAttention(SamVisionConfig(hidden_size=8, num_attention_heads=1, image_size=32, patch_size=8), 0)
    query = rng.standard_normal((5, queries[0] * queries[1], 8)).astype(np.float32)
    tables = [
        rng.standard_normal((2 * max(a, b) - 1, 8)).astype(np.float32) for a, b in zip(queries, keys, strict=True)
    ]
    wanted = layer.get_decomposed_rel_pos(*map(torch.from_numpy, (query, *tables)), queries, keys).numpy()
    rows, columns = bias.decomposed_bias(query, *tables, queries, keys)
    np.testing.assert_allclose(rows[..., :, None] + columns[..., None, :], wanted, rtol=1e-5, atol=1e-5)


# ---- relative keys ----


def test_wav2vec2_bert(rng: np.random.Generator) -> None:
    """key - query, clipped apart to the left and to the right, gathered from queries times the table."""
    from transformers import Wav2Vec2BertConfig
    from transformers.models.wav2vec2_bert.modeling_wav2vec2_bert import Wav2Vec2BertSelfAttention

    config = Wav2Vec2BertConfig(
        hidden_size=24, num_attention_heads=3, position_embeddings_type="relative_key",
        left_max_position_embeddings=5, right_max_position_embeddings=2,
    )  # fmt: skip
    layer = Wav2Vec2BertSelfAttention(config).eval()
    table = layer.distance_embedding.weight.detach()
    positions = torch.arange(12)
    distance = torch.clamp(positions - positions[:, None], -5, 2)  # modeling_wav2vec2_bert.py
    q, x = torch.randn(2, 3, 12, 8), torch.randn(2, 3, 12, 12)
    wanted = torch.einsum("bhld,lrd->bhlr", q, table[distance + 5]) / math.sqrt(8)
    assert table.shape == (8, 8)
    found = bias.add_relative_keys(x, of_query=q @ table.mT, left=5, right=2, scale=1 / math.sqrt(8))
    torch.testing.assert_close(found, x + wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("queries", [9, 1])
def test_bert(queries: int) -> None:
    """relative_key_query of transformers 4's modeling_bert.py, its five lines; cached keys too."""
    most, keys = 16, 9
    q, k, x = torch.randn(2, 3, queries, 8), torch.randn(2, 3, keys, 8), torch.randn(2, 3, queries, keys)
    table = torch.randn(2 * most - 1, 8)
    distance = torch.arange(keys - queries, keys)[:, None] - torch.arange(keys)
    embedding = table[distance + most - 1]
    wanted = torch.einsum("bhld,lrd->bhlr", q, embedding) + torch.einsum("bhrd,lrd->bhlr", k, embedding)
    found = bias.add_relative_keys(
        x, of_query=q @ table.mT, of_key=k @ table.mT, left=most - 1, order="query_minus_key"
    )
    torch.testing.assert_close(found, x + wanted, rtol=1e-5, atol=1e-5)


# ---- KERPLE ----


@pytest.mark.parametrize("form", ["log", "power"])
def test_kerple(form: str, rng: np.random.Generator) -> None:
    """bias of ParallelKerpleLog and ParallelKerplePower, megatron/mpu/layers.py of chijames/KERPLE, in float64."""
    r1, r2 = rng.uniform(0.05, 2, (2, 5))
    diff = torch.tril(torch.arange(40.0, dtype=torch.float64)[:, None] - torch.arange(40))
    bias_p, bias_a = (torch.from_numpy(r)[:, None, None] for r in (r1, r2))
    wanted = -bias_p * torch.log(1 + bias_a * diff) if form == "log" else -diff.pow(bias_a) * bias_p
    found = bias.Kerple(r1, r2, form=form)
    lower = np.tril_indices(40)
    called = found(np.arange(40)[:, None], np.arange(40))
    np.testing.assert_allclose(called[:, *lower], wanted.numpy()[:, *lower], rtol=1e-13, atol=1e-14)
    np.testing.assert_allclose(called, called.swapaxes(1, 2), rtol=0)
    x = rng.standard_normal((5, 40, 40)).astype(np.float32)
    assert_same_bits(found.add(x), x + called.astype(np.float32))
    listed = found.add(x, query_positions=np.arange(40)[::-1], key_positions=np.arange(40)[::-1])
    assert_same_bits(listed, x + called[:, ::-1, ::-1].astype(np.float32))


# ---- bad input ----


def ones(*shape: int) -> np.ndarray:
    return np.ones(shape)


WRONG: list[tuple[type[Exception], str, Any]] = [
    (ValueError, "window[0] must be at least 1, got 0", lambda: bias.window_index((0, 3))),
    (ValueError, "window must be an int or a pair", lambda: bias.window_index((1, 2, 3))),
    (TypeError, "window[0] must be an integer", lambda: bias.window_index("7")),
    (ValueError, "kind must be one of", lambda: bias.window_index(3, kind="vit")),
    (ValueError, "table must have shape (9, heads)", lambda: bias.add_window_bias(ones(1, 4, 4), ones(8, 1), 2)),
    (ValueError, "index must have shape", lambda: bias.add_window_bias(ones(1, 4, 5), ones(9, 1), 2)),
    (ValueError, "does not fit", lambda: bias.add_window_bias(ones(2, 4, 4), ones(9, 1), 2)),
    (ValueError, "pretrained_window must have sides", lambda: bias.swinv2_coordinates(3, pretrained_window=1)),
    (ValueError, "query must have shape (.., 4, dim)", lambda: bias.decomposed_bias(ones(3, 1), 1, 1, (2, 2), (2, 2))),
    (ValueError, "left must be at least 0", lambda: bias.relative_key_index(3, -1)),
    (TypeError, "relative_position must be integers", lambda: bias.relative_key_index(3.5, 1)),
    (ValueError, "of_query or of_key must be given", lambda: bias.add_relative_keys(ones(2, 2), left=1)),
    (ValueError, "of_key must have 3 entries", lambda: bias.add_relative_keys(ones(2, 2), of_key=ones(2, 2), left=1)),
    (ValueError, "of_key must have shape", lambda: bias.add_relative_keys(ones(2, 2), of_key=ones(3, 3), left=1)),
    (ValueError, "r1 must be positive", lambda: bias.Kerple([0.0], [1.0])),
    (ValueError, "r2 must be at most 2", lambda: bias.Kerple([1.0], [2.5], form="power")),
    (ValueError, "must have the same shape", lambda: bias.Kerple([1.0, 2.0], [2.5])),
    (TypeError, "positions must be integers", lambda: bias.Kerple([1], [1]).add(ones(1, 1, 1), key_positions=[0.5])),
]  # fmt: skip


@pytest.mark.parametrize(("error", "text", "call"), WRONG, ids=[text for _, text, _ in WRONG])
def test_bad_input(error: type[Exception], text: str, call: Any) -> None:
    with pytest.raises(error) as caught:
        call()
    assert text in str(caught.value)
