"""The addition of positions to embeddings: the formula bit for bit, for every dtype and way to lie in memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import posenc
from conftest import assert_same_bits
from posenc import _reference

FLOATS = {"float32": np.float32, "float64": np.float64, "float16": np.float16, "bfloat16": ml_dtypes.bfloat16}
SHAPE = (3, 2, 11, 37)


def by_formula(x: np.ndarray, rows: np.ndarray, scale: float = 1.0) -> np.ndarray:
    """Return x + scale*rows as the contract says it: the product rounded, the sum rounded, the element rounded."""
    kind = np.float64 if x.dtype == np.float64 else np.float32
    product = kind(scale) * rows.astype(kind)
    return (x.astype(kind) + product).astype(x.dtype)


def numbers(rng: np.random.Generator, shape: tuple[int, ...], kind: Any) -> np.ndarray:
    return rng.standard_normal(shape).astype(kind)


VIEWS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "plain": lambda x: x,
    "sequence first": lambda x: np.moveaxis(np.ascontiguousarray(np.moveaxis(x, 2, 0)), 0, 2),
    "heads behind": lambda x: np.ascontiguousarray(x.transpose(0, 2, 1, 3)).transpose(0, 2, 1, 3),
    "backwards": lambda x: np.ascontiguousarray(x[:, :, ::-1, ::-1])[:, :, ::-1, ::-1],
    "every second": lambda x: np.repeat(x, 2, -1)[..., ::2],
    "Fortran": np.asfortranarray,
}


@pytest.mark.parametrize("kind", FLOATS)
@pytest.mark.parametrize("view", VIEWS)
def test_bits_of_the_formula(kind: str, view: str, rng: np.random.Generator) -> None:
    """Ranges, listed and repeated positions, one row for all and rows of their own, in place and out."""
    lay = VIEWS[view]
    x = lay(numbers(rng, SHAPE, FLOATS[kind]))
    rows = numbers(rng, (50, 37), np.float64 if kind == "float64" else np.float32)
    tables = [rows, np.asfortranarray(rows), np.repeat(rows, 3, 0)[::3], rows[::-1]]
    listed = rng.integers(0, 50, (3, 11))
    listed[0, 3:7] = [20, 21, 22, 23]
    for scale in (1.0, -0.3):
        for table in tables:
            plain = by_formula(x, table[7:18], scale)
            assert_same_bits(posenc.add_positions(x, table, offset=7, table_scale=scale), plain)
            own = by_formula(x, table[listed][:, None], scale)
            assert_same_bits(posenc.add_positions(x, table, positions=listed, table_scale=scale), own)
            starts = by_formula(x, np.stack([table[i : i + 11] for i in (0, 39, 5)])[:, None], scale)
            assert_same_bits(posenc.add_positions(x, table, offset=[0, 39, 5], table_scale=scale), starts)
            out = lay(np.zeros(SHAPE, FLOATS[kind]))
            assert posenc.add_positions(x, table, positions=listed[1], table_scale=scale, out=out) is out
            assert_same_bits(np.array(out), by_formula(x, table[listed[1]], scale))
            same = lay(np.array(x))
            assert posenc.add_positions(same, table, positions=listed, table_scale=scale, out=same) is same
            assert_same_bits(np.array(same), own)


@pytest.mark.parametrize("kind", FLOATS)
def test_tables_of_the_dtype_of_x(kind: str, rng: np.random.Generator) -> None:
    """A 16-bit model's table is widened row by row: its own addition, rounded once."""
    for dim in (1, 37, 600, 2500):
        x, table = numbers(rng, (2, 9, dim), FLOATS[kind]), numbers(rng, (30, dim), FLOATS[kind])
        listed = rng.integers(0, 30, (2, 9))
        assert_same_bits(posenc.add_positions(x, table, offset=4), by_formula(x, table[4:13]))
        assert_same_bits(posenc.add_positions(x, table, positions=listed), by_formula(x, table[listed]))
        strided = np.repeat(table, 2, 1)[:, ::2]
        assert_same_bits(posenc.add_positions(x, strided, positions=listed), by_formula(x, table[listed]))
    if kind in ("float16", "bfloat16"):
        a, t = torch.randn(2, 9, 48).to(getattr(torch, kind)), torch.randn(9, 48).to(getattr(torch, kind))
        assert torch.equal(posenc.add_positions(a, t), a + t)


@pytest.mark.parametrize("kind", FLOATS)
@pytest.mark.parametrize("dim", [1, 2, 7, 64, 2049, 5001])
def test_sinusoidal_is_the_table_added(kind: str, dim: int, rng: np.random.Generator) -> None:
    """No table is built, and the bits are those of a table, for every width and convention, also in place."""
    x = numbers(rng, (2, 3, 6, dim), FLOATS[kind])
    x[0, 0, 0] = -0.0
    fractions = rng.uniform(0, 5000, (2, 6))
    for name, convention in posenc.additive.CONVENTIONS.items():
        if dim < convention.least_dim or (dim % 2 and convention.odd == "refused"):
            continue
        for precision in ("exact", "float32"):
            wide = np.float64 if kind == "float64" else np.float32
            rows = posenc.sinusoidal_table(fractions, dim, convention=name, precision=precision, dtype=wide)
            wanted = by_formula(x, rows[:, None], 0.5)
            how = {"convention": name, "precision": precision, "table_scale": 0.5}
            assert_same_bits(posenc.add_sinusoidal(x, positions=fractions, **how), wanted)
            far = posenc.add_sinusoidal(x, offset=2**20, **how)
            rows = posenc.sinusoidal_table(
                np.arange(2**20, 2**20 + 6), dim, convention=name, precision=precision, dtype=wide
            )
            assert_same_bits(far, by_formula(x, rows, 0.5))
    y = np.array(x.transpose(2, 0, 1, 3))
    assert_same_bits(posenc.add_sinusoidal(y, seq_axis=0, out=y).transpose(1, 2, 0, 3), posenc.add_sinusoidal(x))


@pytest.mark.parametrize("kind", FLOATS)
def test_padding_stays_as_it_is(kind: str, rng: np.random.Generator) -> None:
    x, table = numbers(rng, (2, 3, 12, 40), FLOATS[kind]), numbers(rng, (20, 40), FLOATS[kind])
    rows = np.array([[1, 1, 2, 3, 4, 1, 5, 6, 7, 8, 1, 1], [2, 3, 4, 5, 6, 7, 8, 9, 10, 1, 1, 1]])
    for padding in (1, -100, 2**40):
        listed = np.where(rows == 1, padding, rows)
        wanted = np.where((rows == 1)[:, None, :, None], x, by_formula(x, table[rows][:, None]))
        found = posenc.add_positions(x, table, positions=listed, padding_idx=padding)
        assert_same_bits(found, wanted)
        same = np.array(x)
        posenc.add_positions(same, table, positions=listed, padding_idx=padding, out=same)
        assert_same_bits(same, wanted)
        spread = np.zeros((2, 3, 12, 80), FLOATS[kind])[..., ::2]
        assert_same_bits(
            np.array(posenc.add_positions(x, table, positions=listed, padding_idx=padding, out=spread)), wanted
        )
        if padding != 2**40:
            wanted = np.where((rows == 1)[:, None, :, None], x, posenc.add_sinusoidal(x, positions=listed))
            assert_same_bits(posenc.add_sinusoidal(x, positions=listed, padding_idx=padding), wanted)
    with pytest.raises(IndexError, match="position -1 is outside the table"):
        posenc.add_positions(x, table, positions=np.where(rows == 1, -1, rows), padding_idx=1)


def test_single_tokens_with_positions_of_their_own(rng: np.random.Generator) -> None:
    """A decode step of a batch: (batch, 1, dim) with an offset for each row."""
    x, table = numbers(rng, (9, 1, 70), np.float32), numbers(rng, (100, 70), np.float32)
    starts = rng.integers(0, 100, 9)
    assert_same_bits(posenc.add_positions(x, table, offset=starts), by_formula(x, table[starts][:, None]))
    rows = posenc.sinusoidal_table(starts, 70)
    assert_same_bits(posenc.add_sinusoidal(x, offset=starts), by_formula(x, rows[:, None]))
    wanted = np.where((starts == starts[2])[:, None, None], x, by_formula(x, rows[:, None]))
    assert_same_bits(posenc.add_sinusoidal(x, positions=starts[:, None], padding_idx=int(starts[2])), wanted)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_large_calls(count: int, threads: Callable[[int], None], rng: np.random.Generator) -> None:
    """Split among threads, above the size that is written past the caches, unaligned: the same bits."""
    table = numbers(rng, (3000, 128), np.float32)
    threads(count)
    for kind in ("float32", "bfloat16"):
        x = numbers(rng, (9, 3000, 2, 320 if kind == "bfloat16" else 160), FLOATS[kind])
        rows = np.resize(table, (3000, x.shape[-1]))
        listed = rng.integers(0, 3000, (9, 3000))
        listed[:, 100:900] = np.arange(800)
        for positions in (None, listed):
            wanted = by_formula(x, (rows[:3000] if positions is None else rows[positions])[..., None, :])
            assert_same_bits(posenc.add_positions(x, rows, positions=positions, seq_axis=1), wanted)
            shifted = np.empty(x.size + 3, x.dtype)[3:].reshape(x.shape)
            assert_same_bits(posenc.add_positions(x, rows, positions=positions, seq_axis=1, out=shifted), wanted)
        sines = posenc.sinusoidal_table(listed, x.shape[-1])[..., None, :]
        assert_same_bits(posenc.add_sinusoidal(x, positions=listed, seq_axis=1), by_formula(x, sines))


def test_tensors() -> None:
    """torch in, torch out; the version counter of what was written goes up; a Parameter must be detached."""
    x, layer = torch.randn(2, 5, 8), torch.nn.Embedding(9, 8)
    version = x._version
    wanted = x + layer.weight.detach()[2:7]
    with pytest.raises(TypeError, match="table requires grad"):
        posenc.add_positions(x, layer.weight, offset=2)
    found = posenc.add_positions(x, layer.weight.detach(), offset=2, out=x)
    assert found is x
    assert torch.equal(x, wanted)
    assert x._version > version
    assert torch.equal(
        posenc.add_positions(wanted, layer.weight.detach(), positions=torch.zeros(5, dtype=torch.int32)),
        wanted + layer.weight[0],
    )


# ---- the gradient of a table ----


def summed(grad: np.ndarray, places: np.ndarray, rows: int, scale: float = 1.0) -> np.ndarray:
    """Return the gradient token by token in the documented order: the sequence, then the other axes."""
    kind = np.float64 if grad.dtype == np.float64 else np.float32
    result = np.zeros((rows, grad.shape[-1]), kind)
    tokens = np.moveaxis(grad, -2, 0).astype(kind)
    for j in range(len(tokens)):
        for index in np.ndindex(tokens.shape[1:-1]):
            place = places[index[0], j] if places.ndim == 2 else places[j]
            if place >= 0:
                result[place] += kind(scale) * tokens[(j, *index)]
    return result


@pytest.mark.parametrize("kind", FLOATS)
@pytest.mark.parametrize("view", VIEWS)
def test_gradient_of_a_table(kind: str, view: str, rng: np.random.Generator) -> None:
    grad = VIEWS[view](numbers(rng, SHAPE, FLOATS[kind]))
    listed = rng.integers(0, 6, (3, 11))
    for places in (np.arange(4, 15), listed, listed[0]):
        found = posenc.position_table_gradient(grad, 20, positions=places, table_scale=0.7)
        assert_same_bits(found, summed(grad, places, 20, 0.7))
        np.testing.assert_allclose(found, _reference.scatter(grad, places, 20, 0.7), atol=1e-5)
    out = np.full((40, 74), 3, found.dtype)[::2, ::2]
    assert posenc.position_table_gradient(grad, positions=listed, padding_idx=4, out=out) is out
    assert_same_bits(np.array(out), summed(grad, np.where(listed == 4, -1, listed), 20))
    twice = np.array(out)
    skipping = {"positions": np.where(listed == 4, -7, listed), "padding_idx": -7}
    posenc.position_table_gradient(grad, out=twice, accumulate=True, **skipping)
    np.testing.assert_allclose(twice, 2 * out, atol=1e-5)


def test_gradient_is_that_of_torch() -> None:
    """Of nn.Embedding with a padding row, through autograd."""
    layer = torch.nn.Embedding(30, 24, padding_idx=1)
    ids = torch.randint(0, 30, (4, 50))
    weight = torch.randn(4, 50, 24)
    (layer(ids) * weight).sum().backward()
    found = posenc.position_table_gradient(weight, 30, positions=ids, padding_idx=1)
    assert isinstance(found, torch.Tensor)
    torch.testing.assert_close(found, layer.weight.grad, atol=1e-5, rtol=1e-5)


def test_gradient_for_any_number_of_threads(threads: Callable[[int], None], rng: np.random.Generator) -> None:
    grad, places = numbers(rng, (8, 900, 257), np.float32), rng.integers(0, 50, (8, 900))
    found = []
    for count in (1, 2, 3, 7):
        threads(count)
        found.append(posenc.position_table_gradient(grad, 50, positions=places))
    for other in found[1:]:
        assert_same_bits(other, found[0])
    np.testing.assert_allclose(found[0], _reference.scatter(grad, places, 50), atol=1e-3)


# ---- properties ----

SMALL = st.tuples(st.integers(1, 3), st.integers(1, 3), st.integers(1, 9), st.integers(1, 40))


@settings(max_examples=60, deadline=None)
@given(SMALL, st.integers(0, 2**32 - 1))
def test_slices_equal_the_whole(shape: tuple[int, ...], seed: int) -> None:
    """A prefix with its positions, a batch row with its own: the bits of the whole; and the addition is its gradient's
    transpose: <grad, add(0, table)> = <gradient(grad), table>.
    """
    rng = np.random.default_rng(seed)
    x, table = numbers(rng, shape, np.float64), numbers(rng, (20, shape[-1]), np.float64)
    places = rng.integers(0, 20, (shape[0], shape[2]))
    whole = posenc.add_positions(x, table, positions=places)
    cut = int(rng.integers(0, shape[2] + 1))
    assert_same_bits(posenc.add_positions(x[:, :, :cut], table, positions=places[:, :cut]), whole[:, :, :cut])
    assert_same_bits(posenc.add_positions(x[-1:], table, positions=places[-1]), whole[-1:])
    rows = posenc.add_positions(np.zeros(shape), table, positions=places)
    gradient = posenc.position_table_gradient(x, 20, positions=places)
    assert np.isclose((x * rows).sum(), (gradient * table).sum())
