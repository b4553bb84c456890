"""LongRoPE: a divisor for each pair, found by search; one list for short sequences and one for long ones."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from posenc import _exact
from posenc import _parameters as check
from posenc._frequencies import stretched
from posenc.scaling._protocol import finished, normalise
from posenc.scaling.interpolation import original_length

if TYPE_CHECKING:
    from posenc.scaling._protocol import Frequencies

SWITCHES = ("length", "short", "long")


@dataclass(frozen=True)
class LongRope:
    """LongRoPE ("longrope", once "su", of Phi-3 and Phi-4).

    inv_freq[i] = base ** (-2i/r) / ext[i], where ext is long_factor for more than L tokens and else short_factor; the
    attention factor is sqrt(1 + ln(s) / ln(L)) for s = factor above 1 (Ding et al., arXiv:2402.13753, section 3;
    transformers, modeling_rope_utils.py, `_compute_longrope_parameters`).

    Parameters
    ----------
    short_factor, long_factor : sequence of float, length rotary_dim/2
        Divisors of the frequencies; positive.
    original_max_position_embeddings : int
        L, the length of training in tokens; above 1.
    factor : float, optional
        s; a config's max_position_embeddings / original_max_position_embeddings. Needed unless the attention factor is
        given.
    attention_factor : float, optional
        Used as it is.
    short_mscale, long_mscale : float, optional
        The attention factors of short and of long sequences (vLLM, Phi-3-small); exclude attention_factor.
    switch : {"length", "short", "long"}
        Which list is used. "length": by the length of each call, as transformers does; a cache of rotated keys is wrong
        from token L + 1 on (Phi-3 drops it there). "short", "long": one list for ever: what vLLM decides by
        max_model_len and ggml by n_ctx; mlx-lm always takes the long one.
    """

    short_factor: tuple[float, ...]
    long_factor: tuple[float, ...]
    original_max_position_embeddings: int
    factor: float | None = None
    attention_factor: float | None = None
    short_mscale: float | None = None
    long_mscale: float | None = None
    switch: str = "length"

    def __post_init__(self) -> None:
        normalise(
            self,
            short_factor=check.numbers("short_factor", self.short_factor, check.positive),
            long_factor=check.numbers("long_factor", self.long_factor, check.positive),
            original_max_position_embeddings=original_length(self.original_max_position_embeddings),
            factor=check.optional(check.positive, "factor", self.factor),
            attention_factor=check.optional(check.positive, "attention_factor", self.attention_factor),
            short_mscale=check.optional(check.positive, "short_mscale", self.short_mscale),
            long_mscale=check.optional(check.positive, "long_mscale", self.long_mscale),
            switch=check.choice("switch", self.switch, SWITCHES),
        )
        if len(self.short_factor) != len(self.long_factor):
            raise ValueError(
                f"short_factor and long_factor must have one length, got {len(self.short_factor)} and "
                f"{len(self.long_factor)}"
            )
        self._check_attention()

    def _check_attention(self) -> None:
        mscales = (self.short_mscale, self.long_mscale)
        if self.attention_factor is not None and mscales != (None, None):
            raise ValueError("attention_factor excludes short_mscale and long_mscale")
        if self.attention_factor is None and None in mscales and self.factor is None:
            raise ValueError(
                "LongRope needs factor (max_position_embeddings / original_max_position_embeddings), attention_factor, "
                "or both short_mscale and long_mscale"
            )
        if self.original_max_position_embeddings == 1 and self.attention_factor is None:
            raise ValueError(
                "original_max_position_embeddings must be above 1: the attention factor divides by its log"
            )

    @property
    def depends_on_length(self) -> bool:
        """Whether the list is chosen by the length of a call."""
        return self.switch == "length"

    def _is_long(self, seq_len: int | None) -> bool:
        if self.switch == "length":
            return seq_len is not None and seq_len > self.original_max_position_embeddings
        return self.switch == "long"

    def effective_length(self, seq_len: int) -> int:
        """Return L + 1 where the long list is used, else L."""
        return self.original_max_position_embeddings + self._is_long(seq_len)

    def attention(self, long: bool) -> float:
        """Return what multiplies cosine and sine for short or long sequences."""
        mscale = self.long_mscale if long else self.short_mscale
        given = self.attention_factor if mscale is None else mscale
        if given is not None:
            return given
        factor = 1.0 if self.factor is None else self.factor
        if factor <= 1:
            return 1.0
        return math.sqrt(1 + _exact.log(factor) / _exact.log(self.original_max_position_embeddings))

    def frequencies(
        self, rotary_dim: int, base: float, seq_len: int | None = None, precision: str = "exact"
    ) -> Frequencies:
        """Return (inv_freq, attention_factor) for a length."""
        long = self._is_long(seq_len)
        factors: np.ndarray[Any, Any] = np.array(self.long_factor if long else self.short_factor)
        if len(factors) != rotary_dim // 2:
            raise ValueError(
                f"short_factor and long_factor must have {rotary_dim // 2} numbers for rotary_dim {rotary_dim}, got "
                f"{len(factors)}"
            )
        return finished(stretched(rotary_dim, base, precision, factors), self.attention(long))
