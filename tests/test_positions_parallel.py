"""Context parallelism: the ranks' parts are the whole, and the same pieces as TransformerEngine and Megatron-LM cut."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import posenc
from conftest import assert_refused
from posenc import positions

reproducible = settings(derandomize=True, deadline=None, max_examples=80)
SCHEMES = ["contiguous", "zigzag"]
worlds = st.integers(1, 5)
pieces = st.lists(st.integers(0, 4), min_size=1, max_size=6)


def documents(of: list[int], world_size: int) -> np.ndarray:
    """Boundaries of documents that every scheme can cut."""
    return np.cumsum([0, *(2 * world_size * n for n in of)])


def every_index(length: int, world_size: int, scheme: str, cu: Any = None) -> list[np.ndarray]:
    return [
        positions.context_parallel_index(length, g, world_size, scheme=scheme, cu_seqlens=cu) for g in range(world_size)
    ]


# ---- the systems, in their own words ----


def transformer_engine(whole: torch.Tensor, seqlen: int, cp_size: int, cp_rank: int) -> torch.Tensor:
    """_get_freqs_on_this_cp_rank: seqlen is that of a rank, two segments from both ends of the whole."""
    if cp_size == 1:
        return whole
    seg, full = seqlen // 2, cp_size * seqlen
    ahead = whole[cp_rank * seg : (cp_rank + 1) * seg]
    return torch.cat([ahead, whole[full - (cp_rank + 1) * seg : full - cp_rank * seg]])


def megatron(whole: torch.Tensor, cp_size: int, cp_rank: int) -> torch.Tensor:
    """get_batch_on_this_cp_rank: a view of 2 * cp_size rows, of which two are selected."""
    rows = whole.view(2 * cp_size, len(whole) // (2 * cp_size))
    return rows.index_select(0, torch.tensor([cp_rank, 2 * cp_size - cp_rank - 1])).view(-1)


@given(world_size=worlds, of=pieces)
@reproducible
def test_zigzag_as_the_systems_cut(world_size: int, of: list[int]) -> None:
    cu = documents(of, world_size)
    for rank in range(world_size):
        packed = positions.context_parallel(int(cu[-1]), rank, world_size, scheme="zigzag", cu_seqlens=cu)
        local = np.diff(cu // world_size)  # cu_seqlens // cp_size, apply_rotary_pos_emb of TransformerEngine
        parts = [transformer_engine(torch.arange(n * world_size), n, world_size, rank) for n in local.tolist()]
        assert packed.tolist() == torch.cat(parts).tolist()
        n = int(cu[-1])
        whole = positions.context_parallel(n, rank, world_size, scheme="zigzag")
        assert whole.tolist() == megatron(torch.arange(n), world_size, rank).tolist()


def test_literals() -> None:
    assert [i.tolist() for i in every_index(8, 2, "zigzag")] == [[0, 1, 6, 7], [2, 3, 4, 5]]  # Megatron's own example
    assert [i.tolist() for i in every_index(8, 2, "contiguous")] == [[0, 1, 2, 3], [4, 5, 6, 7]]
    assert [i.tolist() for i in every_index(6, 2, "contiguous", [0, 2, 6])] == [[0, 2, 3], [1, 4, 5]]
    assert every_index(5, 1, "zigzag")[0].tolist() == [0, 1, 2, 3, 4]  # one rank takes any length
    assert every_index(0, 3, "zigzag", [0])[2].tolist() == []


# ---- the union of the ranks ----


@pytest.mark.parametrize("scheme", SCHEMES)
@given(world_size=worlds, of=pieces, packed=st.booleans())
@reproducible
def test_ranks_together_are_the_whole(scheme: str, world_size: int, of: list[int], packed: bool) -> None:
    cu = documents(of, world_size)
    length, given_cu = int(cu[-1]), cu if packed else None
    parts = every_index(length, world_size, scheme, given_cu)
    assert all(len(part) == length // world_size for part in parts)
    assert sorted(np.concatenate(parts).tolist()) == list(range(length))
    inverse = positions.context_parallel_inverse(length, world_size, scheme=scheme, cu_seqlens=given_cu)
    assert np.concatenate(parts)[inverse].tolist() == list(range(length))


@pytest.mark.parametrize("scheme", SCHEMES)
@given(world_size=worlds, of=pieces)
@reproducible
def test_zigzag_halves_balance_a_causal_mask(scheme: str, world_size: int, of: list[int]) -> None:
    """A causal token p attends to p + 1 keys: what zigzag is for, and contiguous pieces do not give."""
    cu = documents(of, world_size)
    work = [
        int((positions.context_parallel(int(cu[-1]), g, world_size, scheme=scheme, cu_seqlens=cu) + 1).sum())
        for g in range(world_size)
    ]
    assert (len(set(work)) == 1) == (scheme == "zigzag" or world_size == 1 or not cu[-1])


@pytest.mark.parametrize("scheme", SCHEMES)
def test_ranks_rotate_like_the_whole(scheme: str) -> None:
    """Sliced by the index, turned by the positions, put back by the inverse: the bits of one call."""
    cu = np.array([0, 8, 12, 28])
    x = np.random.default_rng(6).standard_normal((28, 3, 16)).astype(np.float32)
    rope = posenc.Rope(16, layout="half")
    whole = rope(x, positions=positions.from_cu_seqlens(cu), seq_axis=0)
    how: dict[str, Any] = {"scheme": scheme, "cu_seqlens": cu}
    parts = [
        rope(
            x[positions.context_parallel_index(28, g, 2, **how)],
            positions=positions.context_parallel(28, g, 2, **how),
            seq_axis=0,
        )
        for g in range(2)
    ]
    inverse = positions.context_parallel_inverse(28, 2, **how)
    assert np.array_equal(np.concatenate(parts)[inverse], whole)


def test_positions_of_any_shape_and_kind() -> None:
    mrope = np.random.default_rng(7).integers(0, 99, (3, 2, 8))
    found = positions.context_parallel(torch.from_numpy(mrope), 1, 2, scheme="zigzag")
    assert isinstance(found, torch.Tensor)
    assert np.array_equal(found.numpy(), mrope[..., [2, 3, 4, 5]])
    seconds = np.linspace(0, 1, 4)
    found = positions.context_parallel(seconds, 0, 2, scheme="contiguous")
    assert found.tolist() == seconds[:2].tolist()
    index = positions.context_parallel_index(8, 0, 2, scheme="zigzag", cu_seqlens=torch.tensor([0, 8]))
    assert torch.equal(index, torch.tensor([0, 1, 6, 7]))
    inverse = positions.context_parallel_inverse(8, 2, scheme="zigzag", cu_seqlens=torch.tensor([0, 8]))
    assert isinstance(inverse, torch.Tensor)


def cut(*arguments: Any, scheme: str = "zigzag", cu_seqlens: Any = None) -> Any:
    return positions.context_parallel(*arguments, scheme=scheme, cu_seqlens=cu_seqlens)


REFUSED = [
    (
        lambda: cut(10, 0, 2),
        ValueError,
        "the sequence must have a multiple of 4 tokens to be cut 'zigzag', got 10; pad it to 12",
    ),
    (lambda: cut(10, 0, 3, scheme="contiguous"), ValueError, "a multiple of 3 tokens to be cut 'contiguous', got 10"),
    (lambda: cut(12, 0, 2, cu_seqlens=[0, 4, 10, 12]), ValueError, "document 1 must have a multiple of 4 tokens"),
    (lambda: cut(8, 2, 2), ValueError, "rank must be at most 1, got 2"),
    (lambda: cut(8, -1, 2), ValueError, "rank must be at least 0, got -1"),
    (lambda: cut(8, 0, 0), ValueError, "world_size must be at least 1, got 0"),
    (lambda: cut(8, 0.0, 2), TypeError, "rank must be an integer, got 0.0"),
    (lambda: cut(8.0, 0, 2), TypeError, "positions must be an integer, got 8.0"),
    (lambda: cut(-8, 0, 2), ValueError, "positions must be at least 0, got -8"),
    (lambda: cut(8, 0, 2, scheme="ring"), ValueError, "scheme must be one of 'contiguous', 'zigzag', got 'ring'"),
    (
        lambda: cut(np.arange(8), 0, 2, cu_seqlens=[0, 4]),
        ValueError,
        "cu_seqlens must end with the number of tokens, 8, got 4",
    ),
    (lambda: cut(8, 0, 2, cu_seqlens=[0, 4]), ValueError, "cu_seqlens must end with the number of tokens, 8, got 4"),
    (lambda: cut(8, 0, 2, cu_seqlens=[0, 12]), ValueError, "cu_seqlens must end with the number of tokens, 8, got 12"),
    (lambda: positions.context_parallel_inverse(10, 2, scheme="zigzag"), ValueError, "a multiple of 4 tokens"),
]


@pytest.mark.parametrize(("call", "error", "message"), REFUSED, ids=[message for _, _, message in REFUSED])
def test_refuses(call: Any, error: type[Exception], message: str) -> None:
    assert_refused(error, message, call)
