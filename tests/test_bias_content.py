"""Biases that content decides as callables: the numbers of the one-pass forms."""

from __future__ import annotations

import itertools
import warnings

import numpy as np
import pytest
import torch

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


def test_decomposed(rng: np.random.Generator) -> None:
    rows, columns = rng.standard_normal((3, 2, 5, 4)), rng.standard_normal((3, 2, 5, 6))
    called = bias.Decomposed(rows, columns)(np.arange(10)[:, None], np.arange(24))
    wanted = bias.add_decomposed_bias(np.zeros((3, 10, 24)), rows, columns)
    np.testing.assert_array_equal(called, wanted)
    np.testing.assert_array_equal(bias.Decomposed(rows, columns)([7], [[23]])[:, 0, 0], wanted[:, 7, 23])
    with pytest.raises(ValueError, match="rows and columns must have shape"):
        bias.Decomposed(rows[0], columns)


CONTENT = np.random.default_rng(5)
QUERIES, KEYS, ROWS = (CONTENT.standard_normal((4, n, 8)) for n in (24, 24, 47))
#: of four heads, for 24 positions
KINDS = {
    "disentangled": lambda: Disentangled(c2p=QUERIES, p2c=KEYS, num_buckets=4, max_distance=9, scale=0.5),
    "of keys": lambda: Disentangled(p2c=KEYS),
    "transformer_xl": lambda: TransformerXL(QUERIES, ROWS, 23, CONTENT.standard_normal((4, 1, 8)), scale=0.25),
    "decomposed": lambda: bias.Decomposed(QUERIES[..., :6].reshape(4, 4, 6, 6), KEYS[..., :4].reshape(4, 4, 6, 4)),
}


@pytest.mark.parametrize("offset", [0, 14])
@pytest.mark.parametrize("kind", KINDS)
def test_score_functions(kind: str, offset: int) -> None:
    """In flex attention itself, eager: the numbers of the plain formula."""
    from torch.nn.attention.flex_attention import flex_attention

    one, positions = KINDS[kind](), np.arange(offset, 24)
    q, k, v = (torch.randn(2, 4, n, 16, generator=torch.Generator().manual_seed(3)) for n in (24 - offset, 24, 24))
    with warnings.catch_warnings():  # once a process: flex_attention called without torch.compile
        warnings.simplefilter("ignore")
        found = flex_attention(q, k, v, score_mod=one.score_mod(offset))
    called = torch.from_numpy(one(positions[:, None], np.arange(24))).float()
    torch.testing.assert_close(found, torch.softmax(q @ k.mT / 4 + called, -1) @ v, rtol=1e-5, atol=1e-5)


def test_score_functions_leave_distances_without_rows(rng: np.random.Generator) -> None:
    score_mod = TransformerXL(QUERIES, ROWS[:, :24], 23).score_mod()
    at = [torch.tensor(i) for i in (1, 5, 9)]
    assert float(score_mod(torch.tensor(2.5), torch.tensor(0), *at)) == 2.5
    assert float(score_mod(torch.tensor(2.5), torch.tensor(0), at[0], at[2], at[1])) != 2.5


def test_score_functions_of_one_term(rng: np.random.Generator) -> None:
    """The term that is not there says nothing of how far queries and keys lie apart."""
    for part, shape in (("c2p", (2, 40)), ("p2c", (40, 2))):
        one = Disentangled(**{part: rng.standard_normal((3, 2, 16))})
        at = torch.arange(3)[:, None, None], torch.arange(shape[0])[:, None], torch.arange(shape[1])
        found = one.score_mod()(torch.zeros(3, *shape), torch.tensor(0), *at)
        np.testing.assert_allclose(found, one(np.arange(shape[0])[:, None], np.arange(shape[1])), rtol=1e-6)


def test_positions_without_a_row() -> None:
    """None is counted from the end."""
    kinds = [Disentangled(c2p=QUERIES), TransformerXL(QUERIES, ROWS, 23), KINDS["decomposed"]()]
    for kind, position in itertools.product(kinds, (-1, 24)):
        with pytest.raises(IndexError, match=f"query_positions must be 0 to 23, got {position} to {position}"):
            kind([position], [3])
    for kind, position in itertools.product([Disentangled(p2c=KEYS), kinds[2]], (-1, 24)):
        with pytest.raises(IndexError, match=f"key_positions must be 0 to 23, got {position} to {position}"):
            kind([3], [position])
    assert Disentangled(c2p=QUERIES)([[3]], [-1, 99]).shape == (4, 1, 2)  # keys without rows may lie anywhere


def test_bad_input() -> None:
    with pytest.raises(ValueError, match=r"must have 2 \* num_buckets = 16 entries, got 8"):
        Disentangled(c2p=np.ones((1, 2, 8)), num_buckets=8)
    with pytest.raises(ValueError, match="c2p or p2c must be given"):
        Disentangled()
    with pytest.raises(ValueError, match="same even number of entries"):
        Disentangled(c2p=np.ones((1, 2, 3)))
    with pytest.raises(ValueError, match=r"q must have shape \(heads, rows, n\)"):
        TransformerXL(np.ones((2, 3)), np.ones((1, 2, 3)), 0)
