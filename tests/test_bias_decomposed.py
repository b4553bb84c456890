"""Biases of images in two parts: SAM's and ViTDet's own layers, every dtype and stride, threads, memory, bad input."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import torch

from conftest import OtherArray, assert_refused, assert_same_bits
from posenc.bias import add_decomposed_bias, decomposed_bias, decomposed_index

DTYPES = [np.float32, np.float64, np.float16, ml_dtypes.bfloat16]


def data(dtype: Any, sizes: tuple[int, int, int, int] = (3, 4, 5, 7), lead: tuple[int, ...] = (2, 3)) -> list[Any]:
    rng = np.random.default_rng(3)
    height, width, rows, columns = sizes
    shapes = [(height * width, rows * columns), (height, width, rows), (height, width, columns)]
    return [rng.standard_normal((*lead, *shape)).astype(dtype) for shape in shapes]


def plain(x: Any, rows: Any, columns: Any) -> Any:
    """The model's formula, in the precision of the kernels."""
    wide = np.float64 if x.dtype == np.float64 else np.float32
    bias = rows.astype(wide)[..., :, None] + columns.astype(wide)[..., None, :]
    return (x.astype(wide) + bias.reshape(*bias.shape[:-4], *x.shape[-2:])).astype(x.dtype)


def test_index_of_unequal_sides() -> None:
    """get_rel_pos of transformers' SAM, MViTv2's own, also where float32 decides on which side of an integer it is."""
    from transformers.models.sam.modeling_sam import SamVisionAttention

    for queries in range(1, 33):
        for keys in range(1, 33):
            rows = torch.arange(2.0 * max(queries, keys) - 1)[:, None]
            theirs = SamVisionAttention.get_rel_pos(None, queries, keys, rows)[..., 0]
            np.testing.assert_array_equal(decomposed_index(queries, keys), theirs)


@pytest.mark.parametrize("size", [(14, 14), (5, 9)])
def test_sam(size: tuple[int, int]) -> None:
    """The scores of transformers' own layer, and its attention weights."""
    from transformers import SamVisionConfig
    from transformers.models.sam.modeling_sam import SamVisionAttention

    torch.manual_seed(0)
    config = SamVisionConfig(hidden_size=24, num_attention_heads=3, image_size=112, patch_size=8)
    layer = SamVisionAttention(config, window_size=0).eval()
    with torch.no_grad():
        layer.rel_pos_h.normal_()
        layer.rel_pos_w.normal_()
        _, weights = layer(states := torch.randn(2, *size, 24))
        q, k, _ = layer.qkv(states).reshape(2, -1, 3, 3, 8).permute(2, 0, 3, 1, 4).flatten(1, 2)
        tables = layer.rel_pos_h, layer.rel_pos_w
        scores = (q * layer.scale) @ k.mT
        bias = layer.get_decomposed_rel_pos(q, *tables, size, size)
        grid = q.reshape(6, *size, 8)
        relative = [layer.get_rel_pos(n, n, t) for n, t in zip(size, tables, strict=True)]
        rows = torch.einsum("bhwc,hkc->bhwk", grid, relative[0])
        columns = torch.einsum("bhwc,wkc->bhwk", grid, relative[1])
        assert_same_bits(add_decomposed_bias(scores, rows, columns), scores + bias.reshape_as(scores))
        if size == (14, 14):
            parts = decomposed_bias(q.numpy(), *(t.numpy() for t in tables), size, size)
            assert add_decomposed_bias(scores, *parts, out=scores) is scores
            torch.testing.assert_close(scores.softmax(-1), weights.reshape_as(scores), rtol=1e-5, atol=1e-6)


def test_vitdet() -> None:
    """It adds rows, then columns: two roundings where SAM has one of the sum."""
    from transformers.models.vitdet.modeling_vitdet import add_decomposed_relative_positions, get_rel_pos

    torch.manual_seed(0)
    q, scores, tables = torch.randn(3, 20, 8), torch.randn(3, 20, 20), (torch.randn(7, 8), torch.randn(9, 8))
    wanted = add_decomposed_relative_positions(scores, q, *tables, (4, 5), (4, 5))
    grid = q.reshape(3, 4, 5, 8)
    rows = torch.einsum("bhwc,hkc->bhwk", grid, get_rel_pos(4, 4, tables[0]))
    columns = torch.einsum("bhwc,wkc->bhwk", grid, get_rel_pos(5, 5, tables[1]))
    torch.testing.assert_close(add_decomposed_bias(scores, rows, columns), wanted, rtol=1e-6, atol=2e-6)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    "sizes", [(3, 4, 5, 7), (1, 1, 1, 1), (2, 33, 40, 31), (1, 3, 300, 2), (2, 2, 1, 900)], ids=str
)
def test_oracle(sizes: tuple[int, int, int, int], dtype: Any) -> None:
    """Bit for bit, in place and not, for any strides, widths beyond a tile, and parts that heads share."""
    x, rows, columns = data(dtype, sizes)
    wanted = plain(x, rows, columns)
    assert_same_bits(add_decomposed_bias(x, rows, columns), wanted)
    turned = [np.asfortranarray(a) for a in (x, rows, columns)]
    assert_same_bits(add_decomposed_bias(*turned), wanted)
    wide = np.zeros((*x.shape[:-1], 2 * x.shape[-1]), dtype)
    out = wide[..., ::-2]
    assert add_decomposed_bias(x[..., ::-1][..., ::-1], rows, columns, out=out) is out
    assert_same_bits(out, wanted)
    assert not wide[..., ::2].any()
    assert_same_bits(add_decomposed_bias(x, rows[:, :1], columns[0]), plain(x, rows[:, :1], columns[0]))
    other = OtherArray(x) if dtype is not ml_dtypes.bfloat16 else x
    assert add_decomposed_bias(other, rows, columns, out=other) is other
    assert_same_bits(x, wanted)


def test_no_axes_before() -> None:
    x, rows, columns = data(np.float32, lead=())
    assert_same_bits(add_decomposed_bias(x, rows, columns), plain(x, rows, columns))
    mixed = add_decomposed_bias(x, rows.astype(np.float64), torch.from_numpy(columns))
    assert_same_bits(mixed, plain(x, rows, columns))


@pytest.mark.parametrize(
    ("sizes", "lead"), [((16, 16, 32, 32), (8,)), ((2, 600, 40, 32), ())], ids=["batch", "queries"]
)
def test_threads_and_memory(
    sizes: tuple[int, int, int, int], lead: tuple[int, ...], threads: Callable[[int | None], None]
) -> None:
    """The same bits for one thread and two, whatever is shared out; nothing of the scores' size is made in place."""
    x, rows, columns = data(np.float32, sizes, lead)
    found = []
    for n in (1, 2):
        threads(n)
        y = x.copy()
        tracemalloc.start()
        add_decomposed_bias(y, rows, columns, out=y)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < x.nbytes // 100
        found.append(y)
    assert_same_bits(found[1], found[0])
    assert_same_bits(found[0], plain(x, rows, columns))


def test_bad_input() -> None:
    x, rows, columns = data(np.float32)
    refused = [
        (ValueError, "rows and columns must have shapes", (x, rows[..., 0, 0, 0], columns), {}),
        (ValueError, "rows and columns must have shapes", (x, rows[:, :, :2], columns), {}),
        (ValueError, "scores must have shape (.., 3 * 4, 5 * 6), got (2, 3, 12, 35)", (x, rows, columns[..., :6]), {}),
        (ValueError, "rows must have shape", (x, rows[:1].repeat(3, 0), columns[:1].repeat(3, 0)), {}),
        (TypeError, "columns", (x, rows, columns.astype(np.int32)), {}),
        (TypeError, "scores", (x.astype(np.int64), rows, columns), {}),
        (ValueError, "out must have the shape of scores", (x, rows, columns), {"out": np.zeros((3, 12, 35), "f")}),
        (TypeError, "out", (x, rows, columns), {"out": np.zeros(x.shape)}),
        (TypeError, "out must be", (x, rows, columns), {"out": "scores"}),
        (ValueError, "overlap", (x[:1], rows[:1], columns[:1]), {"out": x[:1, :, ::-1]}),
    ]
    for error, text, args, more in refused:
        assert_refused(error, text, lambda args=args, more=more: add_decomposed_bias(*args, **more), x, rows, columns)
    frozen = x.copy()
    frozen.flags.writeable = False
    assert_refused(BufferError, "read-only", lambda: add_decomposed_bias(frozen, rows, columns, out=frozen), frozen)
    grows = torch.from_numpy(x.copy()).requires_grad_()
    with pytest.raises(TypeError, match="requires grad"):
        add_decomposed_bias(grows, rows, columns)
