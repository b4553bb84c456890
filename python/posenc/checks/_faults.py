"""What goes wrong with rotations, biases and tables: each fault's name, what it means, and what usually causes it."""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import NamedTuple


class Fault(NamedTuple):
    """What a fault means, and what usually causes it."""

    meaning: str
    cause: str


@dataclass(frozen=True)
class Finding:
    """A fault that was found.

    Attributes
    ----------
    fault : str
        A key of `FAULTS`.
    detail : str
        The numbers of this case.
    residual : float
        What is left between the function and the one that has this fault and no other; relative to the largest input.
    """

    fault: str
    detail: str
    residual: float

    @property
    def meaning(self) -> str:
        """What it means."""
        return FAULTS[self.fault].meaning

    @property
    def cause(self) -> str:
        """What usually causes it."""
        return FAULTS[self.fault].cause

    def __str__(self) -> str:
        return f"{self.fault}: {self.detail} (residual {self.residual:.1e})"


FAULTS = MappingProxyType(
    {
        # numbers of 16 bits
        "half_frequencies": Fault(
            "the frequencies are rounded to 16 bits, so angles are wrong by a part of themselves and grow wrong with "
            "the position",
            "inv_freq is a buffer, and .half(), .to(bfloat16), autocast or DeepSpeed cast it with the model",
        ),
        "half_positions": Fault(
            "positions are rounded to 16 bits: neighbouring tokens get the same rotation beyond 256 (bfloat16) or 2048 "
            "(float16), and float16 has no number above 65504",
            "position ids or torch.arange made in the model's dtype",
        ),
        "half_angles": Fault(
            "angles are rounded to 16 bits, so neighbouring tokens get the same rotation in the fast pairs beyond 256 "
            "(bfloat16) or 2048 (float16), and slow pairs turn in steps",
            "positions * inv_freq computed in the model's dtype, as autocast does with an einsum or a matmul",
        ),
        "half_tables": Fault(
            "cosines and sines are rounded to 16 bits, so norms and angles are off by up to 0.4 % (bfloat16)",
            "the table is cast to the activations' dtype; harmless only where the model was trained so",
        ),
        "half_arithmetic": Fault(
            "the input or the result is rounded to 16 bits",
            "the function casts to a 16-bit dtype and back, or ignores that its input is float32",
        ),
        "float32_angles": Fault(
            "angles are products of float32, off by about position * 6e-8 radians",
            "positions.float() * inv_freq, as most model code has it: right for models that were trained so",
        ),
        # pairs
        "layout": Fault(
            "other elements form the pairs, so the model reads other numbers than it was trained for",
            "weights of one convention (Meta, GPT-J: neighbours) run by code of the other (rotate_half), or converted "
            "twice",
        ),
        "tables_of_other_layout": Fault(
            "pairs are formed one way and the doubled table the other, so the two elements of a pair turn by different "
            "angles: norms change, and scores depend on more than the distance",
            "torch.cat((freqs, freqs), -1) beside rotate_every_two, or repeat_interleave(2) beside rotate_half",
        ),
        "axes_within_pairs": Fault(
            "the two elements of a pair are turned by different position axes: no rotation",
            "sections of the doubled width taken from cat((freqs, freqs)) without regard to the pairs",
        ),
        "pairs_over_head": Fault(
            "pairs are formed over the whole head, though frequencies are those of the rotary part",
            "rotate_half is given the whole head where only rotary_dim elements should be split",
        ),
        "frequencies_over_head": Fault(
            "the exponents divide by head_dim and not by rotary_dim",
            "inv_freq made from head_dim, then cut to the rotary part",
        ),
        "rotary_range": Fault(
            "more, fewer or other elements are rotated than should be",
            "partial_rotary_factor ignored or applied twice, or leading elements rotated instead of trailing ones",
        ),
        # direction and angle
        "clockwise": Fault(
            "the rotation goes the other way; q.k of both rotated so is the same, cached keys and mixed code are not",
            "the minus sign of rotate_half on the wrong half, or sin negated (the inverse, the conjugate)",
        ),
        "swapped_cos_sin": Fault(
            "cosine and sine are exchanged", "arguments in the order (sin, cos), which GPT-J and some tables have"
        ),
        "missing_minus": Fault(
            "both elements of a pair get a plus sign: no rotation, norms grow and shrink",
            "rotate_half without its minus sign",
        ),
        "overwritten_in_place": Fault(
            "the second element of a pair is computed from the first one after it was overwritten",
            "an in-place loop without a temporary",
        ),
        "rotated_twice": Fault(
            "the angle is doubled", "rotated in the projection and again in attention, or in place twice"
        ),
        "not_rotated": Fault(
            "nothing is rotated",
            "inv_freq uninitialised or zero after meta-device loading or to_empty(), or the result thrown away",
        ),
        "cosine_only": Fault("the sine's part is missing", "rotate_half(x) * sin left out or multiplied by zero"),
        # positions
        "offset": Fault(
            "every position is off by the same number",
            "counting from 1, RoBERTa's padding_idx + 1, or a cache length added twice or not at all",
        ),
        "positions_ignored": Fault(
            "the positions given are not used: tokens count from 0 in every call",
            "decoding, packed documents, left padding and context-parallel chunks all need the positions",
        ),
        "scaled_positions": Fault(
            "positions are multiplied by a factor",
            "linear scaling applied to a model without it, or twice, or not at all",
        ),
        "clamped_positions": Fault(
            "positions beyond a length are taken for its last one", "a table of fixed length, indexed with a clamp"
        ),
        "wrapped_positions": Fault("positions beyond a length start again at 0", "an index modulo the table's length"),
        "unrotated_beyond": Fault(
            "positions beyond a length are not rotated at all",
            "a kernel that masks rows outside its table with cos = 1, sin = 0 (FlashAttention's)",
        ),
        "heads_for_positions": Fault(
            "the head's number is taken for the position",
            "(batch, seq, heads, head_dim) given to code for (batch, heads, seq, head_dim), or the reverse",
        ),
        # base and scaling
        "base": Fault(
            "the frequencies are those of another base",
            "rope_theta ignored or read under another key, or the base of another layer type (local, global)",
        ),
        "scaling": Fault(
            "another frequency scaling, or none, is in use",
            "rope_scaling ignored, its key spelt otherwise (type, rope_type), or a scaling of the same name elsewhere",
        ),
        "length": Fault(
            "the frequencies are those of a sequence of another length",
            "dynamic scaling that keeps the largest length it has seen, the short list of LongRoPE beyond its length, "
            "or one sequence of a batch that decides for all",
        ),
        "state": Fault(
            "a long call changes what later short calls give",
            "frequencies cached in the module and not reset when the length falls again",
        ),
        "attention_factor": Fault(
            "the result is multiplied by another factor; q.k by its square",
            "YaRN's or LongRoPE's attention factor dropped, applied twice, or applied in the softmax too",
        ),
        "xpos": Fault(
            "elements grow or shrink with their position, as in xPos",
            "scale_base set, or keys scaled as queries are",
        ),
        # several axes
        "swapped_axes": Fault(
            "position axes are exchanged", "(w, h) given where (h, w) is expected, or x and y taken for h and w"
        ),
        "one_axis": Fault("one position axis turns every pair", "1-D position ids broadcast, or sections ignored"),
        "sections": Fault(
            "the axes turn other pairs than they should",
            "chunked sections taken for interleaved ones or the reverse, or sections of another model",
        ),
        # tables and biases
        "convention": Fault(
            "the table follows another convention of sinusoidal encodings",
            "sine and cosine concatenated or interleaved, or exponents over d/2 - 1 (tensor2tensor) and not d/2",
        ),
        "transposed": Fault("rows and columns are exchanged", "query and key axes swapped"),
        "sign": Fault("the sign is reversed", "distances subtracted the other way round"),
        "slope_order": Fault("heads have each other's slopes", "slopes reversed, or those of other heads on this rank"),
        "slopes": Fault(
            "the slopes follow another rule",
            "heads that are no power of two, slopes that start at 1, or another max_bias",
        ),
        "half_slopes": Fault(
            "the slopes or the bias are rounded to 16 bits", "slopes registered as a buffer of a 16-bit model"
        ),
        "bias_form": Fault(
            "each row differs by a constant: the softmax is the same, the numbers are not",
            "the key form +m * j beside the distance form -m * |i - j|",
        ),
        "alignment": Fault(
            "queries are aligned to the first keys and not to the last, or the reverse",
            "a bias of (query_len, key_len) built without the length of the cache",
        ),
        "mask": Fault(
            "entries above the diagonal are masked in one and not in the other", "the causal mask added twice or never"
        ),
        "factor": Fault(
            "all entries are multiplied by one factor", "the bias divided by sqrt(head_dim) with the scores"
        ),
        "rows_differ": Fault(
            "each row differs by a constant of its own", "another reference point; the softmax is the same"
        ),
        "buckets": Fault(
            "relative positions fall into other buckets",
            "bidirectional and causal buckets exchanged, query - key for key - query, or another max_distance",
        ),
    }
)
