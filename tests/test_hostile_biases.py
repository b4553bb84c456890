"""Biases and masks, every argument wrong: the right exception, its whole message, and no byte of any array changed."""

from __future__ import annotations

import pytest
import torch

import posenc
from hostile import assert_call_refused, refused


@refused("""
ValueError: scores of shape (2, 3, 4, 8) must have as many heads as there are slopes, 4
    posenc.add_alibi(x, np.ones(4))
    posenc.add_alibi(x, np.ones(4), out=x)
ValueError: scores of shape (2, 3, 4, 8) must have as many batch rows and heads as there are slopes, (3, 3)
    posenc.add_alibi(x, np.ones((3, 3)), out=y)
ValueError: scores of shape (3, 4, 8) must have as many batch rows and heads as there are slopes, (2, 3)
    posenc.add_alibi(x[0], np.ones((2, 3)))
ValueError: scores of shape (4, 8) must have as many heads as there are slopes, 3
    posenc.add_alibi(x[0, 0], np.ones(3))
ValueError: slopes must have shape (heads,) or (batch, heads), got (1, 1, 3)
    posenc.add_alibi(x, np.ones((1, 1, 3)))
ValueError: slopes must have shape (heads,) or (batch, heads), got ()
    posenc.add_alibi(x, 0.5)
ValueError: slopes must have shape (heads,) or (batch, heads), got (0,)
    posenc.add_alibi(x, [])
ValueError: slopes must be finite in float32, got nan
    posenc.add_alibi(x, [1, np.nan, 1], out=x)
ValueError: slopes must be finite in float32, got inf
    posenc.add_alibi(x, [1, np.inf, 1])
ValueError: slopes must be finite in float32, got 1e+39
    posenc.add_alibi(x, [1, 1e39, 1])
ValueError: right_slopes must be finite in float32, got -inf
    posenc.add_alibi(x, [1, 1, 1], right_slopes=[1, 1, -np.inf])
TypeError: slopes must be numbers, got <U1
    posenc.add_alibi(x, ["a", "b", "c"])
TypeError: slopes must be numbers, got complex128
    posenc.add_alibi(x, [1j, 1, 1])
TypeError: slopes must be numbers, got bool
    posenc.add_alibi(x, [True, True, True])
ValueError: right_slopes must have the shape of slopes, (3,), got (2,)
    posenc.add_alibi(x, [1, 1, 1], right_slopes=[1, 1])
ValueError: right_slopes need form 'distance': a key's position has no side
    posenc.add_alibi(x, [1, 1, 1], right_slopes=[1, 1, 1], form="key")
ValueError: form must be one of 'distance', 'key', got 'keys'
    posenc.add_alibi(x, [1, 1, 1], form="keys")
ValueError: form must be one of 'distance', 'key', got None
    posenc.add_alibi(x, [1, 1, 1], form=None)
ValueError: num_heads must be at least 1, got 0
    posenc.alibi_slopes(0)
ValueError: num_heads must be at most 1048576, got an integer of 101 bits
    posenc.alibi_slopes(2**100)
TypeError: num_heads must be an integer, got 8.0
    posenc.alibi_slopes(8.0)
TypeError: num_heads must be an integer, got True
    posenc.alibi_slopes(True)
ValueError: max_bias must be positive and finite, got 0
    posenc.alibi_slopes(8, 0)
ValueError: max_bias must be positive and finite, got nan
    posenc.alibi_slopes(8, float("nan"))
ValueError: query_len must be at least 0, got -1
    posenc.alibi_bias([1], -1, 4)
ValueError: key_len must be at most 1073741824, got an integer of 101 bits
    posenc.alibi_bias([1], 1, 2**100)
TypeError: dtype must be float32, float64, float16 or bfloat16, got int32
    posenc.alibi_bias([1], 2, 2, dtype=np.int32)
TypeError: dtype must be float32, float64, float16 or bfloat16, got >f4
    posenc.alibi_bias([1], 2, 2, dtype=">f4")
TypeError: dtype must be float32, float64, float16 or bfloat16, got 'half a float'
    posenc.alibi_bias([1], 2, 2, dtype="half a float")
TypeError: dtype must be float32, float64, float16 or bfloat16, got None
    posenc.alibi_bias([1], 2, 2, dtype=None)
ValueError: out must have shape (1, 2, 2), got (1, 2, 3)
    posenc.alibi_bias([1], 2, 2, out=new(1, 2, 3))
TypeError: out must be float32, float64, float16 or bfloat16 in native byte order, got int64
    posenc.alibi_bias([1], 2, 2, out=new(1, 2, 2, dtype=np.int64))
""")
def test_slopes(error: str, text: str, call: str) -> None:
    assert_call_refused(error, text, call)


@refused("""
ValueError: window must be at least 1, got 0
    posenc.mask_scores(x, window=0, out=x)
    posenc.add_alibi(x, [1, 1, 1], window=0)
ValueError: window must be at least 1, got -3
    posenc.mask_scores(x, window=-3)
TypeError: window must be an integer, got 2.0
    posenc.mask_scores(x, window=2.0)
TypeError: window must be an integer, got True
    posenc.mask_scores(x, window=True)
ValueError: window must be a number of keys or a pair (left, right), got (1, 2, 3)
    posenc.mask_scores(x, window=(1, 2, 3))
ValueError: window[1] must be at least 0, got -1
    posenc.mask_scores(x, window=(4, -1))
TypeError: window[0] must be an integer, got 'a'
    posenc.mask_scores(x, window=("a", 1))
ValueError: sinks must be at least 0, got -1
    posenc.mask_scores(x, sinks=-1)
TypeError: sinks must be an integer, got None
    posenc.mask_scores(x, sinks=None)
TypeError: causal must be True, False or 'skip', got 1
    posenc.mask_scores(x, causal=1, out=x)
TypeError: causal must be True, False or 'skip', got None
    posenc.add_alibi(x, [1, 1, 1], causal=None)
ValueError: causal must be True, False or 'skip', got 'mask'
    posenc.mask_scores(x, causal="mask")
ValueError: scores must have shape (.., heads, queries, keys), got 1 axes
    posenc.mask_scores(cos[0], causal=True)
ValueError: scores must have shape (.., heads, queries, keys), got 0 axes
    posenc.mask_scores(new(1).reshape(()), causal=True)
TypeError: scores must be float32, float64, float16 or bfloat16 in native byte order, got int64
    posenc.mask_scores(new(3, 3, dtype=np.int64), causal=True)
TypeError: scores must be float32, float64, float16 or bfloat16 in native byte order, got >f4
    posenc.mask_scores(x.astype(swapped("f4")), causal=True)
TypeError: scores must be a NumPy array or a torch CPU tensor, got <class 'list'>
    posenc.mask_scores([[1.0]], causal=True)
TypeError: scores must be a NumPy array or a torch CPU tensor, got <class 'NoneType'>
    posenc.mask_scores(None, causal=True)
    posenc.add_alibi(None, [1.0], out=new(1, 2, 2))
TypeError: scores is a masked array, whose mask would be ignored; pass scores.data or scores.filled()
    posenc.mask_scores(masked(x), causal=True)
ValueError: scores is not aligned to its element size; pass a copy
    posenc.mask_scores(misaligned(4, 4), causal=True)
TypeError: scores requires grad, which this call would not record; use posenc.torch, or pass its .detach()
    posenc.add_alibi(torch.ones(1, 2, 2, requires_grad=True), [1.0])
""")
def test_masks(error: str, text: str, call: str) -> None:
    assert_call_refused(error, text, call)


@refused("""
ValueError: query_positions must have shape (seq,) = (4,) or (batch, seq) = (batch, 4), got (5,)
    posenc.add_alibi(x, [1, 1, 1], query_positions=np.arange(5), out=x)
ValueError: key_positions must have shape (seq,) = (8,) or (batch, seq) = (batch, 8), got (4,)
    posenc.add_alibi(x, [1, 1, 1], key_positions=np.arange(4), out=x)
ValueError: key_positions must have shape (seq,) = (8,) or (batch, seq) = (batch, 8), got (1, 1, 8)
    posenc.add_alibi(x, [1, 1, 1], query_positions=np.arange(4), key_positions=np.zeros((1, 1, 8), int))
ValueError: query_positions must have batch 1 or 2 (the input's first axis), got shape (3, 4)
    posenc.add_alibi(x, [1, 1, 1], query_positions=np.zeros((3, 4), int))
ValueError: query_positions has one row per batch row, shape (3, 4), but the input has no batch axis...
    posenc.add_alibi(x[0], [1, 1, 1], query_positions=np.zeros((3, 4), int))
TypeError: query_positions must be integers, float32 or float64, got bool
    posenc.mask_scores(x, causal=True, query_positions=np.ones(4, bool))
TypeError: key_positions must be integers, float32 or float64, got float16 (half precision cannot count positions)
    posenc.mask_scores(x, causal=True, query_positions=[0, 1, 2, 3], key_positions=np.ones(8, np.float16))
ValueError: query_positions must be finite and below 2**30 in size
    posenc.add_alibi(x, [1, 1, 1], query_positions=[0, 1, 2, 2**30], out=x)
    posenc.add_alibi(x, [1, 1, 1], query_positions=[0, 1, 2, -(2**30)], out=x)
    posenc.add_alibi(x, [1, 1, 1], query_positions=[0, 1, np.nan, 2], out=x)
    posenc.add_alibi(x, [1, 1, 1], query_positions=[0, 1, np.inf, 2], out=x)
ValueError: key_positions must be finite and below 2**30 in size
    posenc.add_alibi(x, [1, 1, 1], query_positions=[0, 1, 2, 3], key_positions=np.full(8, 2**40), out=x)
ValueError: query_positions must be given where there are more queries (8) than keys (4)
    posenc.add_alibi(x.swapaxes(-1, -2), [1, 1, 1], key_positions=[0, 1, 2, 3])
TypeError: query_positions must be integers, since a difference of positions selects a value; got floats
    posenc.add_t5_bias(x, new(32, 3), bidirectional=True, query_positions=[0.0, 1, 2, 3], out=x)
# queries without positions take the last of the keys': what is wrong is theirs
TypeError: key_positions must be integers, since a difference of positions selects a value; got floats
    posenc.add_t5_bias(x, new(32, 3), bidirectional=True, key_positions=np.arange(8.0), out=x)
TypeError: key_positions must be integers, float32 or float64, got bool
    posenc.add_alibi(x, [1, 1, 1], key_positions=np.ones(8, bool), out=x)
ValueError: key_positions must be finite and below 2**30 in size
    posenc.add_alibi(x, [1, 1, 1], key_positions=np.full(8, 2**40), out=x)
ValueError: key_positions must be integers, float32 or float64: ...inhomogeneous...
    posenc.add_alibi(x, [1, 1, 1], key_positions=[[0, 1], [2]], out=x)
    posenc.alibi_bias([1], 2, 2, key_positions=[[0, 1], [2]])
""")
def test_positions(error: str, text: str, call: str) -> None:
    assert_call_refused(error, text, call)


@refused("""
ValueError: num_buckets must be at least 4, got 0
    posenc.t5_bucket(1, num_buckets=0)
ValueError: num_buckets must be at least 4, got 3
    posenc.t5_bucket(1, True, 3)
ValueError: num_buckets must be at least 2, got -8
    posenc.t5_bucket(1, False, -8)
ValueError: max_distance with 8 exact distances must be at least 9, got 8
    posenc.t5_bucket(1, max_distance=8)
    posenc.add_t5_bias(x, new(32, 3), bidirectional=True, max_distance=8, out=x)
ValueError: max_distance with 16 exact distances must be at least 17, got 0
    posenc.t5_bucket(1, False, max_distance=0)
ValueError: max_distance with 8 exact distances must be at most 16777216, got 16777217
    posenc.t5_bucket(1, max_distance=2**24 + 1)
TypeError: max_distance with 8 exact distances must be an integer, got 20.0
    posenc.t5_bucket(1, max_distance=20.0)
TypeError: bidirectional must be True or False, got 1
    posenc.t5_bucket(1, 1)
ValueError: relative_position must be below 2**63, got 18446744073709551615
    posenc.t5_bucket(np.array([1, 2**64 - 1], np.uint64))
TypeError: relative_position must be integers, got float64
    posenc.t5_bucket(1.5)
TypeError: relative_position must be integers, got bool
    posenc.t5_bucket([True])
ValueError: table must have two axes, buckets_heads, got shape (32,)
    posenc.add_t5_bias(x, new(32), bidirectional=True, out=x)
ValueError: table must have two axes, buckets_heads, got shape ()
    posenc.add_t5_bias(x, None, bidirectional=True, out=x)
ValueError: table must have 16 buckets along axis 0 for order 'buckets_heads', got shape (32, 3)
    posenc.add_t5_bias(x, new(32, 3), bidirectional=True, num_buckets=16, out=x)
ValueError: table must have 32 buckets along axis 1 for order 'heads_buckets', got shape (32, 3)
    posenc.add_t5_bias(x, new(32, 3), bidirectional=True, num_buckets=32, order="heads_buckets")
ValueError: table of shape (32, 4) does not fit scores of shape (2, 3, 4, 8): axis 1 must have length 3
    posenc.add_t5_bias(x, new(32, 4), bidirectional=True, out=x)
ValueError: table of shape (4, 32) does not fit scores of shape (2, 3, 4, 8): axis 0 must have length 3
    posenc.add_t5_bias(x, new(4, 32), bidirectional=True, order="heads_buckets", out=x)
TypeError: table must be float32, float64, float16 or bfloat16 in native byte order, got int64
    posenc.add_t5_bias(x, new(32, 3, dtype=np.int64), bidirectional=True, out=x)
ValueError: order must be one of 'buckets_heads', 'heads_buckets', got 'transformers'
    posenc.add_t5_bias(x, new(32, 3), bidirectional=True, order="transformers")
TypeError: add_t5_bias() missing 1 required keyword-only argument: 'bidirectional'
    posenc.add_t5_bias(x, new(32, 3))
ValueError: out and table overlap in memory; they must be the same array or disjoint
    posenc.add_t5_bias(x, (t := new(32, 3, 4, 8))[:, :, 0, 0], bidirectional=True, out=t[:2])
""")
def test_tables(error: str, text: str, call: str) -> None:
    assert_call_refused(error, text, call)


@refused("""
ValueError: out must have the shape of scores, (2, 3, 4, 8), got (3, 4, 8)
    posenc.add_alibi(x, [1, 1, 1], out=new(3, 4, 8))
    posenc.mask_scores(x, causal=True, out=new(3, 4, 8))
TypeError: out must have the dtype of scores, float32, got float64
    posenc.add_alibi(x, [1, 1, 1], out=new(2, 3, 4, 8, dtype=np.float64))
BufferError: out is read-only
    posenc.add_alibi(x, [1, 1, 1], out=read_only(2, 3, 4, 8))
    posenc.mask_scores((r := read_only(4, 8)), out=r)
    posenc.alibi_bias([1, 1, 1], 4, 8, out=read_only(3, 4, 8))
    posenc.add_t5_bias(x, new(32, 3), bidirectional=True, out=read_only(2, 3, 4, 8))
ValueError: out stores several elements in the same memory (an expanded or overlapping view); pass an array of its own
    posenc.add_alibi(x, [1, 1, 1], out=as_strided(y, strides=(0, 128, 32, 4)))
    posenc.alibi_bias([1, 1, 1], 4, 8, out=as_strided(y[0], strides=(128, 0, 4)))
ValueError: scores and out overlap in memory; they must be the same array or disjoint
    posenc.mask_scores(part(0), out=part(1))
    posenc.add_alibi(x, [1, 1, 1], out=x[..., ::-1])
    posenc.add_alibi((s := new(4, 4, 4)), [1] * 4, out=s.swapaxes(1, 2))
ValueError: out and query_positions overlap in memory; they must be the same array or disjoint
    posenc.add_alibi((s := new(1, 8, 8, dtype=np.float64)), [1], query_positions=s[0, 0], out=s)
ValueError: out and key_positions overlap in memory; they must be the same array or disjoint
    posenc.mask_scores((s := new(8, 8, dtype=np.float64)), query_positions=np.arange(8), key_positions=s[0], out=s)
TypeError: out must be a NumPy array or a torch CPU tensor, got <class 'int'>
    posenc.mask_scores(x, out=5)
""")
def test_out(error: str, text: str, call: str) -> None:
    assert_call_refused(error, text, call)


@refused("""
ValueError: grad must have shape (.., heads, queries, keys), got (4, 8)
    posenc.bias.gradients.of_slopes(x[0, 0])
ValueError: grad must have shape (.., heads, queries, keys), got 5
    posenc.bias.gradients.of_slopes(5)
ValueError: grad must have shape (batch, .., heads, queries, keys) for slopes of batch rows, got (3, 4, 8)
    posenc.bias.gradients.of_slopes(x[0], per_batch=True)
ValueError: sides need form 'distance': a key's position has no side
    posenc.bias.gradients.of_slopes(x, form="key", sides=True)
TypeError: gradient must be float32, float64, float16 or bfloat16 in native byte order, got int64
    posenc.bias.gradients.of_slopes(new(1, 2, 2, dtype=np.int64))
TypeError: out must be a float64 array, got ndarray of shape (3,) and dtype float32
    posenc.bias.gradients.of_slopes(x, out=new(3))
ValueError: out must have shape (3,), got (2,)
    posenc.bias.gradients.of_slopes(x, out=new(2, dtype=np.float64))
BufferError: out is read-only
    posenc.bias.gradients.of_slopes(x, out=np.frombuffer(bytes(24)))
TypeError: out must be a pair of arrays, one for each side
    posenc.bias.gradients.of_slopes(x, sides=True, out=new(3, dtype=np.float64))
ValueError: out[0] and out[1] overlap in memory
    posenc.bias.gradients.of_slopes(x, sides=True, out=((s := new(3, dtype=np.float64)), s))
ValueError: out must have shape (32, 3), got (3, 32)
    posenc.bias.gradients.of_t5_table(x, bidirectional=True, out=new(3, 32, dtype=np.float64))
""")
def test_gradients(error: str, text: str, call: str) -> None:
    assert_call_refused(error, text, call)


@refused("""
ValueError: attention_mask must have shape (batch, keys), got (3,)
    posenc.bias.bloom_positions([0, 1, 1])
ValueError: attention_mask must hold 0 and 1
    posenc.bias.bloom_positions([[0, 2, 1]])
    posenc.bias.falcon_alibi([[0.5, 1]], 2)
ValueError: head_dim must be at least 1, got 0
    posenc.bias.falcon_alibi([[1, 1]], 2, head_dim=0)
ValueError: num_heads must be at least 1, got 0
    posenc.bias.mpt_alibi(0, 4)
    posenc.bias.bloom_alibi([[1]], 0)
""")
def test_families(error: str, text: str, call: str) -> None:
    assert_call_refused(error, text, call)


def test_tensors_without_parts_are_refused_where_a_call_would_be_split(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(posenc.runtime, "SPLIT_BYTES", 8)
    monkeypatch.setattr(posenc.runtime, "get_num_threads", lambda: 2)
    for grad in (torch.ones(1, 3, 8, 8).to_sparse(), torch.ones(1, 3, 8, 8).to_mkldnn()):
        with pytest.raises(TypeError, match="gradient must be a dense torch tensor in CPU memory"):
            posenc.bias.gradients.of_slopes(grad)
