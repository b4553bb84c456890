"""Biases that content decides as callables: the numbers of the one-pass forms."""

from __future__ import annotations

import numpy as np
import pytest

from posenc import bias
from posenc.bias.content import Disentangled, TransformerXL


def test_disentangled(rng: np.random.Generator) -> None:
    c2p, p2c = (rng.standard_normal((3, 20, 16)) for _ in "ab")
    how = {"num_buckets": 8, "max_distance": 33, "scale": 0.5}
    called = Disentangled(c2p=c2p, p2c=p2c, **how)(np.arange(20)[:, None], np.arange(20))
    np.testing.assert_allclose(called, bias.disentangled_bias(c2p=c2p, p2c=p2c, dtype=np.float64, **how), rtol=1e-14)
    one = Disentangled(p2c=p2c, **how)
    np.testing.assert_allclose(one([[3], [7]], [9]), bias.disentangled_bias(p2c=p2c, query_len=20, dtype=np.float64,
                               **how)[:, [3, 7], 9:10], rtol=1e-14)  # fmt: skip


@pytest.mark.parametrize(("convention", "rows", "origin"), [("conformer", 39, 19), ("xlnet", 40, 20)])
def test_transformer_xl(convention: str, rows: int, origin: int, rng: np.random.Generator) -> None:
    q, r, v = (rng.standard_normal((3, n, 5)) for n in (20, rows, 1))
    called = TransformerXL(q, r, origin, v, scale=0.5)(np.arange(20)[:, None], np.arange(20))
    wanted = bias.transformer_xl_bias(q, r, v, convention=convention, scale=0.5, dtype=np.float64)
    np.testing.assert_allclose(called, wanted, rtol=1e-12, atol=1e-12)
    with pytest.raises(IndexError, match="have no row in r"):
        TransformerXL(q, r, 30)([0], [19])


def test_bad_input() -> None:
    with pytest.raises(ValueError, match="c2p or p2c must be given"):
        Disentangled()
    with pytest.raises(ValueError, match="same even number of entries"):
        Disentangled(c2p=np.ones((1, 2, 3)))
    with pytest.raises(ValueError, match=r"q must have shape \(heads, rows, n\)"):
        TransformerXL(np.ones((2, 3)), np.ones((1, 2, 3)), 0)
