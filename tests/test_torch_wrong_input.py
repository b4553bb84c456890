"""What posenc.torch is given and cannot use: the right exception, which names the argument and says what came."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

import posenc
import posenc.torch as pt
from posenc import scaling

ROPE = posenc.Rope(8, layout="half")
DYNAMIC = posenc.Rope(8, layout="half", scaling=scaling.DynamicNTK(2.0, 4))
X, SCORES = torch.ones(2, 3, 4, 8), torch.ones(1, 2, 4, 4)
COS = torch.ones(4, 4)
LISTS: Any = [[1.0] * 8] * 4

LEARNED = pt.RotaryEmbedding(ROPE, learnable_frequencies=True)
MIXED = pt.MixedRotaryEmbedding(8, np.ones((2, 3, 4)), layout="half")
WHERE = torch.ones(2, 4)

#: what no tensor of floats is, and how a message shows it
KINDS: list[tuple[Any, str]] = [
    (LISTS, r"must be a tensor, got \[\["),
    (None, "must be a tensor, got None"),
    (3, "must be a tensor, got 3"),
    (np.ones((4, 8), np.float32), r"must be a tensor, got ndarray of shape \(4, 8\) and dtype float32"),
    (torch.ones(4, 8, dtype=torch.int32), r"must be float32, float64, float16 or bfloat16, got torch\.int32"),
    (torch.ones(4, 8, dtype=torch.complex64), r"must be float32, .*, got torch\.complex64"),
    (torch.ones(4, 8).to(torch.float8_e4m3fn), r"must be float32, .*, got torch\.float8_e4m3fn"),
]
TENSORS: list[tuple[str, Callable[[Any], Any]]] = [
    ("q", lambda x: pt.rotate(ROPE, x)),
    ("q", lambda x: LEARNED(x)),
    ("q", lambda x: MIXED(x, positions=WHERE)),
    ("x", lambda x: pt.apply_rotary_emb(x, COS, COS, layout="half")),
    ("cos", lambda x: pt.apply_rotary_emb(X, x, COS, layout="half")),
    ("sin", lambda x: pt.apply_rotary_emb(X, COS, x, layout="half")),
    ("inv_freq", lambda x: pt.rotary_table(torch.arange(4), x)),
    ("slopes", lambda x: pt.add_alibi(SCORES, x)),
    ("scores", lambda x: pt.add_alibi(x, torch.ones(2))),
    ("scores", lambda x: pt.Kerple(2)(x)),
    ("table", lambda x: pt.add_t5_bias(SCORES, x, bidirectional=True)),
    ("scores", lambda x: pt.add_disentangled_bias(x, c2p=torch.ones(1, 2, 4, 8))),
    ("scores", lambda x: pt.add_transformer_xl_bias(x, X, X)),
    ("q", lambda x: pt.add_transformer_xl_bias(SCORES, x, X)),
    ("r", lambda x: pt.add_transformer_xl_bias(SCORES, X, x)),
    ("q", lambda x: pt.TransformerXLScores(2, 8)(x, X)),
    ("k", lambda x: pt.TransformerXLScores(2, 8)(X, x)),
    ("q", lambda x: pt.DisentangledBias(2, 8, 4)(SCORES, x, X)),
    ("x", lambda x: pt.SinusoidalEmbedding()(x)),
    ("x", lambda x: pt.LearnedPositions(4, 8)(x)),
]


@pytest.mark.parametrize(("given", "text"), KINDS, ids=lambda p: p if isinstance(p, str) else "")
@pytest.mark.parametrize(("name", "call"), TENSORS, ids=[f"{i} {name}" for i, (name, _) in enumerate(TENSORS)])
def test_what_is_no_tensor_of_floats(name: str, call: Callable[[Any], Any], given: Any, text: str) -> None:
    with pytest.raises(TypeError, match=f"^{name} {text}"):
        call(given)


def alibi(**options: Any) -> torch.Tensor:
    return pt.ALiBi(2)(SCORES, **options)


WRONG: list[tuple[type[Exception], str, Callable[[], Any]]] = [
    (TypeError, "rope must be a posenc.Rope, got 8", lambda: pt.rotate(8, X)),
    (TypeError, "rope must be a posenc.Rope, got 8", lambda: pt.rotate_(8, X)),
    (TypeError, r"k must be a tensor, got \[\[", lambda: pt.rotate(ROPE, X, LISTS)),
    (TypeError, "k must be a NumPy array or a torch CPU tensor", lambda: pt.rotate_(ROPE, X, LISTS)),
    (TypeError, "inverse must be True or False, got 'no'", lambda: pt.rotate(ROPE, X, inverse="no")),
    (TypeError, "inverse must be True or False, got 1", lambda: LEARNED(X, inverse=1)),
    (TypeError, "seq_len must be an integer, got 'x'", lambda: pt.rotate(ROPE, X, seq_len="x")),
    (ValueError, "seq_len must be at least 1, got 0", lambda: pt.rotate(ROPE, X, seq_len=0)),
    (TypeError, "seq_axis must be an integer, got ", lambda: pt.rotate(ROPE, X, seq_axis=None)),
    (TypeError, "seq_axis must be an integer, got 1.0", lambda: pt.rotate(DYNAMIC, X, seq_axis=1.0)),
    (ValueError, "seq_axis must be at most 3, got 9", lambda: LEARNED(X, seq_axis=9)),
    (ValueError, "seq_axis must be at most 3, got 4", lambda: pt.SinusoidalEmbedding()(X, seq_axis=4)),
    (ValueError, "seq_axis must not be the last axis", lambda: pt.LearnedPositions(9, 8)(X, seq_axis=-1)),
    (ValueError, "must have two axes at least", lambda: pt.SinusoidalEmbedding()(torch.ones(4))),
    (ValueError, "must have two axes at least", lambda: LEARNED(torch.ones(8))),
    (TypeError, r"positions must be what torch can make a tensor of, got \{1\}", lambda: LEARNED(X, positions={1})),
    (TypeError, r"query_positions must be integers, .*, got torch.bool", lambda: alibi(query_positions=[True] * 4)),
    (TypeError, "key_positions must be what torch can", lambda: alibi(key_positions=[[0, 1], [0]])),
    (TypeError, "attention_mask must be what torch can", lambda: alibi(attention_mask={1})),
    (TypeError, "offset must be what torch can", lambda: LEARNED(X, offset=None)),
    (ValueError, "offset must be at most 2147483648, got an integer of", lambda: alibi(offset=1 << 101)),
    (ValueError, "positions must be finite, got inf", lambda: pt.rotate(DYNAMIC, X, positions=[0, 1, 2, np.inf])),
    (ValueError, r"slopes must have shape \(2,\), got \(3,\)", lambda: pt.ALiBi(2, slopes=[1.0, 1, 1])),
    (TypeError, "head_axis must be an integer, got 1.5", lambda: MIXED(X, positions=WHERE, head_axis=1.5)),
    (ValueError, "head_axis must be at most 3, got 4", lambda: MIXED(X, positions=WHERE, head_axis=4)),
    (TypeError, "conjugate must be", lambda: pt.apply_rotary_emb(X, COS, COS, layout="half", conjugate="no")),
    (TypeError, "rotary_offset must", lambda: pt.apply_rotary_emb(X, COS, COS, layout="half", rotary_offset=0.5)),
    (TypeError, "positions must be a tensor, got 4", lambda: pt.rotary_table(4, COS[0])),
    (ValueError, "scale must be finite, got nan", lambda: pt.rotary_table(WHERE[0], COS[0], scale=np.nan)),
    (TypeError, "bidirectional must be", lambda: pt.add_t5_bias(SCORES, torch.ones(32, 2), bidirectional=1)),
    (TypeError, "right_slopes must be a tensor", lambda: pt.add_alibi(SCORES, torch.ones(2), right_slopes=[1.0, 1])),
    (TypeError, "scale must be a number", lambda: pt.add_disentangled_bias(SCORES, c2p=SCORES, scale=SCORES)),
    (ValueError, "scale must be finite", lambda: pt.add_transformer_xl_bias(SCORES, X, X, scale=np.inf)),
    (ValueError, "two axes at least", lambda: pt.add_transformer_xl_bias(SCORES, X, torch.ones(8))),
    (ValueError, r"key_positions must have shape \(4,\)", lambda: pt.ALiBi(2)(SCORES, key_positions=3)),
    (ValueError, r"key_positions must have shape \(4,\)", lambda: pt.ALiBi(2)(SCORES, key_positions=[0, 1])),
    (ValueError, "terms must be", lambda: pt.DisentangledBias(2, 8, 4, terms="c2p")),
    (ValueError, "terms must be", lambda: pt.DisentangledBias(2, 8, 4, terms=())),
    (ValueError, r"\(.., 2, seq, 8\), got \(4, 8\)", lambda: pt.TransformerXLScores(2, 8)(X[0, 0], X[0, 0])),
    (ValueError, "causal must be", lambda: pt.TransformerXLScores(2, 8, causal="")),
]


@pytest.mark.parametrize(("error", "text", "call"), WRONG, ids=[f"{i} {text}" for i, (_, text, _) in enumerate(WRONG)])
def test_wrong_arguments(error: type[Exception], text: str, call: Callable[[], Any]) -> None:
    with pytest.raises(error, match=text):
        call()
