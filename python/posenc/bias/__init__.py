"""Biases of attention scores: added in one pass, in place or not, and never built unless asked for."""

from posenc.bias import gradients
from posenc.bias.alibi import add_alibi, alibi_bias, alibi_slopes
from posenc.bias.families import bloom_alibi, bloom_positions, falcon_alibi, mpt_alibi
from posenc.bias.masks import mask_scores
from posenc.bias.objects import T5, Alibi, Bias
from posenc.bias.t5 import add_t5_bias, t5_bias, t5_bucket

__all__ = [
    "T5",
    "Alibi",
    "Bias",
    "add_alibi",
    "add_t5_bias",
    "alibi_bias",
    "alibi_slopes",
    "bloom_alibi",
    "bloom_positions",
    "falcon_alibi",
    "gradients",
    "mask_scores",
    "mpt_alibi",
    "t5_bias",
    "t5_bucket",
]
