"""Biases of attention scores: added in one pass, in place or not, and never built unless asked for."""

from posenc.bias import gradients, relative_gradients
from posenc.bias.alibi import add_alibi, alibi_bias, alibi_slopes
from posenc.bias.content import Decomposed, Disentangled, TransformerXL
from posenc.bias.deberta import add_disentangled_bias, deberta_bucket, deberta_index, disentangled_bias
from posenc.bias.decomposed import add_decomposed_bias, decomposed_bias, decomposed_index
from posenc.bias.families import bloom_alibi, bloom_positions, falcon_alibi, mpt_alibi
from posenc.bias.kerple import Kerple
from posenc.bias.masks import mask_scores
from posenc.bias.objects import T5, Alibi, Bias
from posenc.bias.shaw import add_relative_keys, relative_key_index
from posenc.bias.shift import add_relative_shift, relative_shift, relative_shift_valid
from posenc.bias.t5 import add_t5_bias, t5_bias, t5_bucket
from posenc.bias.transformer_xl import add_transformer_xl_bias, relative_position_table, transformer_xl_bias
from posenc.bias.windows import (
    WindowBias,
    add_window_bias,
    swinv2_coordinates,
    window_index,
)

__all__ = [
    "T5",
    "Alibi",
    "Bias",
    "Decomposed",
    "Disentangled",
    "Kerple",
    "TransformerXL",
    "WindowBias",
    "add_alibi",
    "add_decomposed_bias",
    "add_disentangled_bias",
    "add_relative_keys",
    "add_relative_shift",
    "add_t5_bias",
    "add_transformer_xl_bias",
    "add_window_bias",
    "alibi_bias",
    "alibi_slopes",
    "bloom_alibi",
    "bloom_positions",
    "deberta_bucket",
    "deberta_index",
    "decomposed_bias",
    "decomposed_index",
    "disentangled_bias",
    "falcon_alibi",
    "gradients",
    "mask_scores",
    "mpt_alibi",
    "relative_gradients",
    "relative_key_index",
    "relative_position_table",
    "relative_shift",
    "relative_shift_valid",
    "swinv2_coordinates",
    "t5_bias",
    "t5_bucket",
    "transformer_xl_bias",
    "window_index",
]
