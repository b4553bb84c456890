"""Positions of padded, packed and continued sequences, and rows of learned tables: literals, and transformers 5.23."""

from typing import Any

import ml_dtypes
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers.generation import GenerationMixin
from transformers.modeling_flash_attention_utils import prepare_fa_kwargs_from_position_ids
from transformers.models.bart.modeling_bart import BartLearnedPositionalEmbedding
from transformers.models.opt.modeling_opt import OPTLearnedPositionalEmbedding
from transformers.models.roberta.modeling_roberta import RobertaEmbeddings

import posenc
from conftest import assert_refused
from posenc import positions

reproducible = settings(derandomize=True, deadline=None, max_examples=60)
lengths = st.lists(st.integers(0, 9), max_size=8)
masks = st.integers(1, 12).flatmap(
    lambda n: st.lists(st.lists(st.integers(0, 1), min_size=n, max_size=n), min_size=1, max_size=4)
)


def boundaries(of: list[int]) -> np.ndarray:
    return np.cumsum([0, *of])


def assert_positions(found: Any, wanted: Any) -> None:
    """NumPy int64 of these values and this shape."""
    wanted = np.asarray(wanted)
    assert isinstance(found, np.ndarray)
    assert found.dtype == np.int64
    assert found.shape == wanted.shape
    assert np.array_equal(found, wanted)


# ---- masks ----


def test_padding_on_either_side() -> None:
    mask = [[0, 0, 1, 1], [1, 1, 0, 0], [1, 1, 1, 1], [0, 0, 0, 0]]
    assert_positions(positions.from_attention_mask(mask), [[0, 0, 0, 1], [0, 1, 0, 0], [0, 1, 2, 3], [0, 0, 0, 0]])
    wanted = [[1, 1, 0, 1], [0, 1, 1, 1], [0, 1, 2, 3], [1, 1, 1, 1]]  # transformers 4: masked_fill(mask == 0, 1)
    assert_positions(positions.from_attention_mask(mask, padding_position=1), wanted)


def test_a_hole_takes_no_position() -> None:
    assert_positions(positions.from_attention_mask([1, 1, 0, 1, 0, 1]), [0, 1, 0, 2, 0, 3])


@given(mask=masks)
@reproducible
def test_masks_as_in_generation(mask: list[list[int]]) -> None:
    """transformers' own, which calls nothing of its object here."""
    tensor = torch.tensor(mask)
    wanted = GenerationMixin._prepare_position_ids_for_generation(None, tensor, {"attention_mask": tensor})
    found = positions.from_attention_mask(tensor)
    assert torch.equal(found, wanted)
    assert found.dtype == torch.int64


@pytest.mark.parametrize("dtype", [bool, np.int8, np.uint64, np.float16, np.float64])
def test_masks_of_any_dtype(dtype: Any) -> None:
    assert_positions(positions.from_attention_mask(np.array([0, 1, 1], dtype)), [0, 0, 1])


# ---- documents ----


def test_documents() -> None:
    assert_positions(positions.from_cu_seqlens([0, 3, 3, 4, 6]), [0, 1, 2, 0, 0, 1])
    assert_positions(positions.from_cu_seqlens([0, 2], 4), [0, 1, 0, 0])
    assert_positions(positions.from_cu_seqlens([0, 2], 4, padding_position=1), [0, 1, 1, 1])
    assert_positions(positions.from_cu_seqlens([0]), np.empty(0, np.int64))


def test_documents_of_one_token() -> None:
    """0 -> 0 does not fall, so looking for a fall would find [0, 2, 5, 6]."""
    assert_positions(positions.to_cu_seqlens([0, 0, 0, 1, 2, 0]), [0, 1, 2, 5, 6])


def test_rows_begin_documents() -> None:
    assert_positions(positions.to_cu_seqlens([[0, 1, 2], [0, 0, 1]]), [0, 3, 4, 6])
    assert_positions(positions.to_cu_seqlens([2, 3, 2, 3], start=2), [0, 2, 4])


@given(of=lengths)
@reproducible
def test_documents_there_and_back(of: list[int]) -> None:
    """One by one, by np.arange, and back: without the empty ones, which positions cannot show."""
    found = positions.from_cu_seqlens(boundaries(of))
    assert_positions(found, np.concatenate([np.empty(0, np.int64), *(np.arange(n) for n in of)]))
    assert_positions(positions.to_cu_seqlens(found), boundaries([n for n in of if n]))


@given(of=st.lists(st.integers(1, 9), min_size=1, max_size=8))
@reproducible
def test_boundaries_as_transformers_finds_them(of: list[int]) -> None:
    tensor = positions.from_cu_seqlens(torch.tensor(boundaries(of)))
    (wanted, _), _ = prepare_fa_kwargs_from_position_ids(tensor)
    found = positions.to_cu_seqlens(tensor)
    assert found.dtype == torch.int64
    assert torch.equal(found, wanted.long())


@given(of=st.lists(st.integers(1, 9), min_size=1, max_size=8), pad=st.integers(0, 4))
@reproducible
def test_document_ids(of: list[int], pad: int) -> None:
    """Segment numbers from 1, as T5X writes them, with 0 behind."""
    ids = np.repeat(np.arange(len(of) + 1), [0, *of])
    found = positions.from_document_ids(np.append(ids, np.zeros(pad, np.int64)), padding_id=0)
    assert_positions(found, positions.from_cu_seqlens(boundaries(of), int(np.sum(of)) + pad))


def test_document_ids_of_a_batch() -> None:
    ids = [[1, 1, 2, 2], [0, 0, 1, 1], [5, 3, 3, 3]]
    assert_positions(positions.from_document_ids(ids), [[0, 1, 0, 1], [0, 1, 0, 1], [0, 0, 1, 2]])
    wanted = [[0, 1, 0, 1], [9, 9, 0, 1], [0, 0, 1, 2]]
    assert_positions(positions.from_document_ids(ids, padding_id=0, padding_position=9), wanted)
    assert_positions(positions.from_document_ids([0, 1, 0, 2], padding_id=0), [0, 0, 0, 0])  # padding in pieces


def test_offsets() -> None:
    assert_positions(positions.with_offsets(3, 5), [5, 6, 7])
    assert_positions(positions.with_offsets(2, [5, 0]), [[5, 6], [0, 1]])
    assert_positions(positions.with_offsets(0, [5, 0]), np.empty((2, 0), np.int64))
    rope, x = posenc.Rope(8, layout="half"), np.random.default_rng(5).standard_normal((2, 3, 4, 8))
    assert np.array_equal(rope(x, offset=[7, 2]), rope(x, positions=positions.with_offsets(4, [7, 2])))


# ---- learned tables ----


def rows_of(table: torch.nn.Embedding) -> torch.nn.Embedding:
    """Return the table with its row numbers in it, so that what it gives back is what it read."""
    with torch.no_grad():
        table.weight.copy_(torch.arange(len(table.weight))[:, None])
    return table


@given(mask=masks, past=st.integers(0, 3), padding_idx=st.integers(0, 3))
@reproducible
def test_roberta(mask: list[list[int]], past: int, padding_idx: int) -> None:
    ids = torch.where(torch.tensor(mask) == 1, 100, padding_idx)
    wanted = RobertaEmbeddings.create_position_ids_from_input_ids(ids, padding_idx, past)
    found = positions.roberta(ids, padding_idx, past_length=past)
    assert found.dtype == torch.int64
    assert torch.equal(found, wanted)


@given(mask=masks, past=st.integers(0, 3))
@reproducible
def test_opt(mask: list[list[int]], past: int) -> None:
    tensor = torch.tensor(mask)
    past = min(past, tensor.shape[1])
    wanted = rows_of(OPTLearnedPositionalEmbedding(20, 1))(tensor, past)[..., 0]
    assert torch.equal(positions.opt(tensor, past_length=past), wanted.long())


def test_bart() -> None:
    table = rows_of(BartLearnedPositionalEmbedding(20, 1))
    wanted = table(torch.zeros(1, 5, dtype=torch.long), 3)[0, :, 0].detach().numpy()
    assert_positions(positions.bart(5, past_length=3), wanted.astype(np.int64))
    assert_positions(positions.bart(2), [2, 3])


# ---- kinds ----


@pytest.mark.parametrize(
    "call",
    [
        lambda x: positions.from_attention_mask(x([0, 1, 1])),
        lambda x: positions.from_cu_seqlens(x([0, 1, 3])),
        lambda x: positions.to_cu_seqlens(x([0, 0, 1])),
        lambda x: positions.from_document_ids(x([4, 4, 5])),
        lambda x: positions.with_offsets(2, x([4, 4, 5])),
        lambda x: positions.roberta(x([4, 1, 5]), 1),
        lambda x: positions.opt(x([0, 1, 1])),
        lambda x: positions.self_extend(x([0, 1, 9]), window=4, group=2).query,
        lambda x: positions.dual_chunk(x([0, 1, 9]), chunk_size=4, local_size=1).inter,
        lambda x: positions.token_types(x([0, 1, 9]), 1, 9),
    ],
)
def test_kind_in_is_kind_out(call: Any) -> None:
    wanted = call(list)
    assert isinstance(wanted, np.ndarray)
    for kind in (torch.int32, torch.int64):
        found = call(lambda x, kind=kind: torch.tensor(x, dtype=kind))
        assert isinstance(found, torch.Tensor)
        assert found.dtype == torch.int64
        assert np.array_equal(found.numpy(), wanted)
    assert_positions(call(lambda x: np.array(x, np.uint8)), wanted)


def test_results_own_their_memory() -> None:
    given_positions = np.array([0, 1, 2])
    within = positions.dual_chunk(given_positions, chunk_size=8, local_size=0)
    within.key[:] = 9
    assert given_positions.tolist() == within.intra.tolist() == [0, 1, 2]


# ---- maps beyond the training length ----


def test_self_extend_distances() -> None:
    """LLM Maybe LongLM, figure 3: group 2, window 4, ten tokens; distances of the last query, then near ones."""
    query, key = positions.self_extend(np.arange(10), window=4, group=2)
    assert_positions(key, [0, 0, 1, 1, 2, 2, 3, 3, 4, 4])
    assert_positions(query, [2, 2, 3, 3, 4, 4, 5, 5, 6, 6])
    assert (query[9] - key[:6]).tolist() == [6, 6, 5, 5, 4, 4]


@given(chunk_size=st.integers(1, 30), local=st.integers(0, 29), p=st.lists(st.integers(0, 200), min_size=1))
@reproducible
def test_dual_chunk(chunk_size: int, local: int, p: list[int]) -> None:
    """By the caches of vLLM's DualChunkRotaryEmbedding: position tables, indexed by position mod chunk."""
    local = min(local, chunk_size - 1)
    chunk = chunk_size - local
    qc = (torch.arange(chunk) + chunk).clamp(max=chunk_size)
    k = torch.arange(201) % chunk
    found = positions.dual_chunk(torch.tensor(p), chunk_size=chunk_size, local_size=local)
    index = torch.tensor(p)
    wanted = (k[index], torch.arange(chunk)[index % chunk], qc[index % chunk], qc[chunk - 1].repeat(len(p)))
    for a, b in zip(found, wanted, strict=True):
        assert torch.equal(a, b)


# ---- what is refused ----

REFUSED = [
    (
        lambda: positions.from_attention_mask([0.0, -np.inf]),
        ValueError,
        "attention_mask must hold 0 and 1 only, got -inf",
    ),
    (
        lambda: positions.from_attention_mask([1, 1, 2, 2]),
        ValueError,
        "got 2; an additive mask becomes one by mask == 0;",
    ),
    (lambda: positions.from_attention_mask([1, np.nan]), ValueError, "attention_mask must hold 0 and 1 only, got nan"),
    (
        lambda: positions.from_attention_mask(np.ones((1, 1, 4, 4))),
        ValueError,
        "must have shape (seq,) or (batch, seq)",
    ),
    (lambda: positions.from_attention_mask("11"), TypeError, "attention_mask must be numbers, got <U2"),
    (lambda: positions.from_attention_mask([[1], [1, 1]]), ValueError, "attention_mask must be rectangular"),
    (
        lambda: positions.from_attention_mask([1], padding_position=-1),
        ValueError,
        "padding_position must be at least 0",
    ),
    (
        lambda: positions.from_attention_mask([1], padding_position=0.5),
        TypeError,
        "padding_position must be an integer",
    ),
    (lambda: positions.from_cu_seqlens([1, 2]), ValueError, "cu_seqlens must begin with 0, got 1"),
    (lambda: positions.from_cu_seqlens([]), ValueError, "cu_seqlens must begin with 0, got an empty array"),
    (lambda: positions.from_cu_seqlens([0, 5, 3]), ValueError, "cu_seqlens must not fall, got 5 before 3 at index 1"),
    (lambda: positions.from_cu_seqlens([0, 5], 4), ValueError, "total must be at least cu_seqlens[-1] = 5, got 4"),
    (
        lambda: positions.from_cu_seqlens([[0, 5]]),
        ValueError,
        "cu_seqlens must have shape (documents + 1,), got (1, 2)",
    ),
    (lambda: positions.from_cu_seqlens([0.0, 5.0]), TypeError, "cu_seqlens must be integers, got float64"),
    (lambda: positions.from_cu_seqlens([False, True]), TypeError, "cu_seqlens must be integers, got bool"),
    (lambda: positions.from_cu_seqlens(np.array([0, 2**63], np.uint64)), ValueError, "cu_seqlens must fit int64"),
    (
        lambda: positions.to_cu_seqlens([0, 1, 3]),
        ValueError,
        "positions must be 0 or one more than the position before, got 3 at index 2",
    ),
    (lambda: positions.to_cu_seqlens([5, 6]), ValueError, "got 5 at index 0"),
    (lambda: positions.to_cu_seqlens([[0, 1], [2, 3]]), ValueError, "got 2 at index (1, 0)"),
    (lambda: positions.to_cu_seqlens(np.zeros((3, 1, 4), int)), ValueError, "one axis of several, got (3, 1, 4)"),
    (
        lambda: positions.to_cu_seqlens(torch.zeros(4, dtype=torch.bfloat16)),
        TypeError,
        "positions is a tensor that NumPy cannot read",
    ),
    (
        lambda: positions.to_cu_seqlens(np.zeros(4, ml_dtypes.bfloat16)),
        TypeError,
        "positions must be numbers, got bfloat16",
    ),
    (
        lambda: positions.from_document_ids([1, 1, 2, 1]),
        ValueError,
        "document_ids must hold each document in one piece, got 1 in 2 pieces",
    ),
    (lambda: positions.from_document_ids([1], padding_id=0.0), TypeError, "padding_id must be an integer"),
    (lambda: positions.from_document_ids(3), ValueError, "document_ids must have shape (seq,) or (batch, seq), got ()"),
    (lambda: positions.with_offsets(-1, 0), ValueError, "seq must be at least 0, got -1"),
    (lambda: positions.with_offsets(3, [0, -2]), ValueError, "offsets must be at least 0, got -2"),
    (lambda: positions.with_offsets(3, [[0]]), ValueError, "offsets must have shape () or (batch,), got (1, 1)"),
    (lambda: positions.roberta([1.0], 1), TypeError, "input_ids must be integers, got float64"),
    (lambda: positions.roberta([1], -1), ValueError, "padding_idx must be at least 0, got -1"),
    (lambda: positions.opt([1, 1], past_length=3), ValueError, "past_length must be at most 2, got 3"),
    (lambda: positions.opt([3, 1]), ValueError, "attention_mask must hold 0 and 1 only, got 3"),
    (lambda: positions.bart([[1, 2]]), TypeError, "seq must be an integer"),
    (
        lambda: positions.self_extend([0], window=5, group=2),
        ValueError,
        "window must be a multiple of group (2), got 5",
    ),
    (lambda: positions.self_extend([-1], window=4, group=2), ValueError, "positions must be at least 0, got -1"),
    (lambda: positions.dual_chunk([0], chunk_size=4, local_size=4), ValueError, "local_size must be at most 3, got 4"),
]


@pytest.mark.parametrize(("call", "error", "message"), REFUSED, ids=[message for _, _, message in REFUSED])
def test_refuses(call: Any, error: type[Exception], message: str) -> None:
    assert_refused(error, message, call)
