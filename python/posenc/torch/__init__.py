"""posenc inside torch: autograd, modules, torch.compile, and models of transformers.

Functions and modules that record gradients, whose forward and backward passes on the CPU are posenc's kernels. Tensors
of other devices run torch's own operations with the same exact tables.

>>> import torch, posenc.torch
>>> rope = posenc.Rope(64, layout="half")
>>> q = torch.randn(1, 8, 16, 64, requires_grad=True)
>>> posenc.torch.rotate(rope, q).square().sum().backward()
"""

from posenc.torch._additive_modules import LearnedPositions, SinusoidalEmbedding
from posenc.torch._bias_modules import ALiBi, Kerple, T5RelativeBias
from posenc.torch._content_modules import DisentangledBias, TransformerXLScores
from posenc.torch._functions import (
    add_alibi,
    add_alibi_,
    add_disentangled_bias,
    add_disentangled_bias_,
    add_t5_bias,
    add_t5_bias_,
    add_transformer_xl_bias,
    add_transformer_xl_bias_,
)
from posenc.torch._patch import Patch, Replacement, patch
from posenc.torch._rotary import apply_rotary_emb, rotary_table, rotate, rotate_
from posenc.torch._rotary_modules import MixedRotaryEmbedding, RotaryEmbedding

__all__ = [
    "ALiBi",
    "DisentangledBias",
    "Kerple",
    "LearnedPositions",
    "MixedRotaryEmbedding",
    "Patch",
    "Replacement",
    "RotaryEmbedding",
    "SinusoidalEmbedding",
    "T5RelativeBias",
    "TransformerXLScores",
    "add_alibi",
    "add_alibi_",
    "add_disentangled_bias",
    "add_disentangled_bias_",
    "add_t5_bias",
    "add_t5_bias_",
    "add_transformer_xl_bias",
    "add_transformer_xl_bias_",
    "apply_rotary_emb",
    "patch",
    "rotary_table",
    "rotate",
    "rotate_",
]
