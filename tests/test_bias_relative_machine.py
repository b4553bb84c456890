"""Biases that content decides, as the machine sees them: memory, references, interrupts, and bits on every level."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import torch

from conftest import run_python
from posenc import _core, bias
from test_leaks import assert_no_leak, failing
from test_zero_copy import CLEAR_REFS, assert_no_copy, filled

# ---- memory ----

SCORES: dict[str, Callable[[], np.ndarray]] = {
    "contiguous": lambda: filled(8, 1024, 1024),
    "bfloat16": lambda: filled(16, 1024, 1024, dtype=ml_dtypes.bfloat16),
    "heads behind the queries": lambda: filled(1024, 8, 1024).transpose(1, 0, 2),
    "strided": lambda: filled(8, 1024, 1024)[..., ::-1, ::-1],
}


@pytest.mark.skipif(not CLEAR_REFS.exists(), reason="resident memory is read from Linux's /proc")
@pytest.mark.parametrize("name", SCORES)
@pytest.mark.parametrize("n", [1, 2], ids=["one thread", "two threads"])
def test_nothing_of_the_scores_size_is_made(name: str, n: int, threads: Callable[[int], None]) -> None:
    """32 MiB of scores, and rows of 4 MiB that are not copied either; in place and into a given array."""
    threads(n)
    x, out = SCORES[name](), SCORES[name]()
    heads = len(x)
    entries = np.ones((heads, 1024, 128), x.dtype)
    q, r = np.ones((heads, 1024, 16), x.dtype), np.ones((heads, 1024, 16), x.dtype)
    how: dict[str, Any] = {"c2p": entries, "p2c": entries, "num_buckets": 64, "max_distance": 512}
    for target in (x, out):
        assert_no_copy(lambda target=target: bias.add_disentangled_bias(x, **how, out=target))
        assert_no_copy(lambda target=target: bias.add_relative_keys(x, of_query=entries[..., 1:], left=63, out=target))
    assert_no_copy(lambda: bias.add_transformer_xl_bias(x, q, r, out=x))
    sums = [np.ones(entries.shape), np.ones(entries.shape)]  # whose pages exist
    shapes = {"c2p_shape": entries.shape, "p2c_shape": entries.shape}
    assert_no_copy(
        lambda: bias.relative_gradients.of_disentangled(
            x, **shapes, num_buckets=64, max_distance=512, c2p_out=sums[0], p2c_out=sums[1]
        )
    )


@pytest.mark.skipif(not CLEAR_REFS.exists(), reason="resident memory is read from Linux's /proc")
def test_the_shift_is_not_built() -> None:
    x, products = filled(8, 1024, 1024), filled(8, 1024, 1024)
    assert_no_copy(lambda: bias.add_relative_shift(x, products, out=x))
    assert_no_copy(lambda: bias.relative_shift(products))
    table, window = np.ones((63 * 63, 8), np.float32), (32, 32)
    bias.add_window_bias(x, table, window, out=x)  # its index, of one head's size, is made once and kept
    assert_no_copy(lambda: bias.add_window_bias(x, table, window, out=x))


# ---- references ----


class Watched:
    def __init__(self) -> None:
        self.x, self.c2p, self.p2c = (np.ones(s, np.float32) for s in ((2, 4, 5), (2, 4, 6), (2, 5, 6)))
        self.q, self.r, self.v = (np.ones(s, np.float32) for s in ((2, 4, 3), (2, 5, 3), (2, 1, 3)))
        self.tensor, self.whole = torch.ones(2, 4, 6), np.ones((2, 4, 6), int)
        self.index = np.stack([np.arange(6, dtype=np.int32), np.arange(6, dtype=np.int32)[::-1]])
        self.sums, self.other = np.zeros((2, 4, 6)), np.zeros((2, 5, 6))
        self.of_q, self.of_r = np.zeros((2, 4, 3)), np.zeros((2, 5, 3))

    def references(self) -> list[int]:
        import sys

        return [sys.getrefcount(value) for value in vars(self).values()]

    def add(self, term: Any, out: Any = None) -> Any:
        inf = float("inf")
        return _core.add_bias(self.x, out, (None, None, 1), (0, inf, inf, 0.0), term, 2**40, 1)

    def gradient(self, term: Any, first: Any, second: Any) -> Any:
        inf = float("inf")
        return _core.relative_gradient(self.x, (None, None, 1), (0, inf, inf, 0.0), term, first, second, 2**40, 1)


@pytest.mark.parametrize("fails", [False, True], ids=["success", "error"])
def test_no_leaks(fails: bool) -> None:
    w = Watched()
    right = [
        lambda: w.add((w.c2p, w.p2c, w.index, -3, 1.0, "d")),
        lambda: w.add((w.tensor, None, w.index, -3, 1.0, "d"), w.x),
        lambda: w.add((w.q, w.v, w.r, 4, 1.0, "p")),
        lambda: w.add((w.q, None, w.r, 4, 1.0, "p"), w.x),
        lambda: w.gradient((w.sums, w.other, w.index, -3, 1.0, "d"), w.sums, w.other),
        lambda: w.gradient((w.q, w.v, w.r, 4, 1.0, "p"), w.of_q, w.of_r),
    ]
    wrong = [
        lambda: w.add((w.c2p, w.c2p, w.index, -3, 1.0, "d")),
        lambda: w.add((w.whole, w.p2c, w.index, -3, 1.0, "d")),
        lambda: w.add((w.c2p, w.r, w.index, -3, 1.0, "d")),
        lambda: w.add((w.c2p[..., :3], None, w.index, -3, 1.0, "d")),
        lambda: w.add((w.q, w.q[..., :2], w.r, 4, 1.0, "p")),
        lambda: w.add((w.q, None, 5, 4, 1.0, "p")),
        lambda: w.add((w.x, None, w.index[:, :2], -3, 1.0, "s"), w.x),
        lambda: w.gradient((w.sums, w.sums, w.index, -3, 1.0, "d"), w.sums, w.sums),
    ]
    calls = [failing(call) for call in wrong] if fails else right
    assert_no_leak(calls, w, 20_000)


# ---- bits ----

PROGRAM = """
import hashlib, numpy as np, ml_dtypes
from posenc import bias
rng = np.random.default_rng(11)
def drawn(*shape):  # the same bits wherever NumPy draws them: integers, scaled exactly
    return (rng.integers(-2**20, 2**20, shape) / 2.0**18)
digest = hashlib.sha256()
for dtype in (np.float32, np.float64, np.float16, ml_dtypes.bfloat16):
    for queries, keys in ((1, 1), (37, 300), (70, 70)):
        sizes = ((queries, keys), (queries, 32), (keys, 32), (queries, 9))
        x, c2p, p2c, q = (drawn(2, n, m).astype(dtype) for n, m in sizes)
        r = drawn(2, keys + queries - 1, 9).astype(dtype)
        how = {"num_buckets": 16, "max_distance": 60, "scale": 0.3}
        for found in (
            bias.add_disentangled_bias(x, c2p=c2p, p2c=p2c, **how),
            bias.add_disentangled_bias(x, p2c=p2c[..., ::-1], causal=True),
            bias.add_transformer_xl_bias(x, q, r, convention="conformer", scale=0.3),
            *bias.relative_gradients.of_disentangled(x, c2p_shape=c2p.shape, p2c_shape=p2c.shape, **how),
            *bias.relative_gradients.of_transformer_xl(x, q, r, convention="conformer", scale=0.3),
        ):
            digest.update(np.ascontiguousarray(found).tobytes())
digest.update(bias.relative_position_table(50, 10, convention="xlnet").tobytes())
digest.update(bias.swinv2_coordinates(9).tobytes())
digest.update(bias.Kerple([0.3, 2.0], [1.5, 0.7]).dense(20, 40).tobytes())
digest.update(bias.Kerple([0.3, 2.0], [1.5, 0.7], form="power").dense(20, 40).tobytes())
print(digest.hexdigest())
"""
#: Made by this program; it changes with the numbers, never with the machine.
HASH = "55b6050e26cfa9c9caa79e5c1d6b6a46198a94c4b0bb090db3a554591ab5a5c2"


@pytest.mark.parametrize("level", _core.runtime()[1])
def test_the_same_bits_on_every_level(level: str) -> None:
    assert run_python(PROGRAM, POSENC_ISA=level) == HASH


def test_the_hash_sees_a_bit() -> None:
    assert hashlib.sha256(run_python(PROGRAM.replace("0.3,", "0.30000000001,")).encode()).hexdigest() != HASH
