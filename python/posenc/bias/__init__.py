"""Biases of attention scores: added in one pass, in place or not, and never built unless asked for."""

from posenc.bias.alibi import add_alibi, alibi_bias, alibi_slopes
from posenc.bias.masks import mask_scores

__all__ = ["add_alibi", "alibi_bias", "alibi_slopes", "mask_scores"]
