"""Biases as values: what is called, built, added and given to flex attention is one bias."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import numpy as np
import pytest
import torch

from posenc import bias

rng = np.random.default_rng(5)
TABLE = rng.standard_normal((16, 4)).astype(np.float32)
#: every kind of bias, of four heads
KINDS: dict[str, Callable[[], bias.Bias]] = {
    "alibi": lambda: bias.Alibi(bias.alibi_slopes(4)),
    "alibi, key": lambda: bias.Alibi(bias.alibi_slopes(4), form="key"),
    "alibi, sides": lambda: bias.Alibi(bias.alibi_slopes(4), right_slopes=[1, 0, 3, 0.5]),
    "t5 encoder": lambda: bias.T5(TABLE, bidirectional=True, max_distance=12),
    "kerple": lambda: bias.Kerple([1.0, 0.5, 2.0, 0.25], [0.5, 1.0, 2.0, 0.1]),
    "kerple, power": lambda: bias.Kerple([1.0, 0.5, 2.0, 0.25], [0.5, 1.0, 2.0, 0.1], form="power"),
    "t5 decoder": lambda: bias.T5(TABLE.T, bidirectional=False, order="heads_buckets"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_the_protocol(kind: str) -> None:
    one = KINDS[kind]()
    called = one(np.arange(20, 30)[:, None], np.arange(30))
    assert called.dtype == np.float64
    assert called.shape == (4, 10, 30)
    np.testing.assert_allclose(one.dense(10, 30, dtype=np.float64), called, rtol=1e-15)
    scores = np.random.default_rng(1).standard_normal((2, 4, 10, 30))
    np.testing.assert_allclose(one.add(scores), scores + called, rtol=1e-13)
    where = {"query_positions": np.arange(20, 30), "key_positions": np.arange(30)}
    np.testing.assert_allclose(one.add(scores, **where), scores + called, rtol=1e-13)
    assert np.isneginf(one.add(scores, causal=True)[0, 0, 0, 21:]).all()
    assert one([7], [3]).shape == (4, 1)


@pytest.mark.parametrize("kind", KINDS)
def test_score_functions(kind: str) -> None:
    """In flex attention itself, eager: the numbers of the plain formula."""
    from torch.nn.attention.flex_attention import flex_attention

    one = KINDS[kind]()
    q, k, v = (torch.randn(2, 4, n, 16, generator=torch.Generator().manual_seed(3)) for n in (10, 30, 30))
    with warnings.catch_warnings():  # once a process: flex_attention called without torch.compile
        warnings.simplefilter("ignore")
        found = flex_attention(q, k, v, score_mod=one.score_mod(20))
    called = torch.from_numpy(one(np.arange(20, 30)[:, None], np.arange(30))).float()
    wanted = torch.softmax(q @ k.mT / 4 + called, -1) @ v
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)


def test_one_bias_for_many_batches_is_asked_for_elsewhere() -> None:
    with pytest.raises(ValueError, match="slopes must have shape"):
        bias.Alibi(np.ones((2, 4)))


# ---- gradients ----


def numeric(loss: Callable[[np.ndarray], float], at: np.ndarray) -> np.ndarray:
    """Central differences of a linear function: exact but for rounding."""
    found = np.zeros_like(at)
    for i in np.ndindex(at.shape):
        step = np.zeros_like(at)
        step[i] = 0.5
        found[i] = loss(at + step) - loss(at - step)
    return found


OPTIONS = {
    "plain": {},
    "causal": {"causal": True},
    "skip": {"causal": "skip"},
    "window": {"window": 4, "sinks": 2},
    "listed": {"query_positions": np.arange(24).reshape(3, 8) % 7, "key_positions": [5, 1, 2, 8, 9, 0, 3, 3, 1, 11]},
}


def seen_loss(y: np.ndarray, grad: np.ndarray) -> float:
    return float((np.where(np.isneginf(y), 0, y) * grad).sum())


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("form", ["distance", "key", "sides", "batch"])
def test_gradient_of_slopes(form: str, options: str) -> None:
    x, grad = rng.standard_normal((2, 3, 2, 8, 10))
    given = {**OPTIONS[options], "form": "key" if form == "key" else "distance"}
    slopes = rng.random((3, 2) if form == "batch" else 2)
    right = {"right_slopes": rng.random(2)} if form == "sides" else {}
    found = bias.gradients.of_slopes(grad, per_batch=form == "batch", sides=form == "sides", **given)
    wanted = numeric(lambda m: seen_loss(bias.add_alibi(x, m, **right, **given), grad), slopes)
    np.testing.assert_allclose(found[0] if form == "sides" else found, wanted, rtol=1e-9, atol=1e-9)
    if form == "sides":
        wanted = numeric(
            lambda m: seen_loss(bias.add_alibi(x, slopes, right_slopes=m, **given), grad), right["right_slopes"]
        )
        np.testing.assert_allclose(found[1], wanted, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("order", ["buckets_heads", "heads_buckets"])
@pytest.mark.parametrize("bidirectional", [True, False])
def test_gradient_of_a_table(bidirectional: bool, order: str, options: str) -> None:
    x, grad = rng.standard_normal((2, 3, 2, 8, 10))
    table = rng.standard_normal((8, 2) if order == "buckets_heads" else (2, 8))
    how = {"bidirectional": bidirectional, "max_distance": 7, "order": order, **OPTIONS[options]}
    found = bias.gradients.of_t5_table(grad, num_buckets=8, **how)
    wanted = numeric(lambda t: seen_loss(bias.add_t5_bias(x, t, **how), grad), table)
    np.testing.assert_allclose(found, wanted, rtol=1e-9, atol=1e-9)


def test_gradients_are_added() -> None:
    """Into float64 arrays of the caller's, strided ones too; two calls add up."""
    grad = rng.standard_normal((2, 6, 9)).astype(np.float32)
    sums = np.ones((2, 2))[:, 0]
    assert bias.gradients.of_slopes(grad, out=sums) is sums
    bias.gradients.of_slopes(grad, out=sums)
    np.testing.assert_allclose(sums, 1 + 2 * bias.gradients.of_slopes(grad), rtol=1e-12)
    table = np.ones((32, 2))
    bias.gradients.of_t5_table(grad, bidirectional=True, out=table)
    np.testing.assert_allclose(table, 1 + bias.gradients.of_t5_table(grad, bidirectional=True), rtol=1e-12)


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_gradients_of_any_dtype_and_stride(dtype: str) -> None:
    """The sums are those of the widened elements, in float64."""
    grad = torch.randn(2, 3, 40, 50, generator=torch.Generator().manual_seed(1)).to(getattr(torch, dtype))
    wide = grad.double().numpy()
    np.testing.assert_array_equal(bias.gradients.of_slopes(grad), bias.gradients.of_slopes(wide))
    turned = grad.transpose(-1, -2).contiguous().transpose(-1, -2)
    np.testing.assert_array_equal(bias.gradients.of_slopes(turned), bias.gradients.of_slopes(wide))
    np.testing.assert_array_equal(
        bias.gradients.of_t5_table(turned, bidirectional=True), bias.gradients.of_t5_table(wide, bidirectional=True)
    )


def test_gradients_of_any_number_of_threads(threads: Callable[[int], None]) -> None:
    """Large enough to be split: the same bits."""
    grad = np.random.default_rng(2).standard_normal((2, 6, 500, 700)).astype(np.float32)
    slopes = np.ones((2, 6))
    found = []
    for count in (1, 2, 3):
        threads(count)
        found.append(
            (
                bias.gradients.of_slopes(grad, causal=True),
                bias.gradients.of_slopes(grad, per_batch=True),
                bias.gradients.of_t5_table(grad, bidirectional=True),
            )
        )
    assert found[0][1].shape == slopes.shape
    for other in found[1:]:
        for mine, theirs in zip(found[0], other, strict=True):
            np.testing.assert_array_equal(mine, theirs)


@pytest.mark.parametrize(
    ("error", "text", "how"),
    [
        (ValueError, r"query_positions must have shape \(seq,\) = \(3,\)", {"query_positions": []}),
        (ValueError, r"key_positions has one row per batch row", {"key_positions": np.zeros((0, 3), np.int64)}),
        (TypeError, "key_positions must be integers here, got float64", {"key_positions": [0.5, 1, 2]}),
        (ValueError, "query_positions must be an array", {"query_positions": [[0, 1], [2]]}),
        (ValueError, "causal must be True, False or 'skip', got ''", {"causal": ""}),
        (TypeError, "causal must be True, False or 'skip', got 0", {"causal": 0}),
        (TypeError, "sinks must be an integer, got None", {"sinks": None}),
    ],
)
def test_wrong_options_of_kerple(error: type[Exception], text: str, how: dict[str, object]) -> None:
    scores = np.ones((1, 3, 3), np.float32)
    with pytest.raises(error, match=text):
        bias.Kerple([1.0], [1.0]).add(scores, out=scores, **how)
    assert (scores == 1).all()
