"""YaRN: fast pairs kept, slow pairs interpolated, a ramp between; and attention sharpened for the longer context.

Peng et al., "YaRN: Efficient Context Window Extension of Large Language Models", arXiv:2309.00071. The frequencies are
the same in every system; the attention factor is not, so its rule has a name.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

from posenc import _exact
from posenc import _parameters as check
from posenc._frequencies import stretched, unscaled
from posenc.scaling._protocol import finished, normalise
from posenc.scaling._ramp import correction_range, ramp
from posenc.scaling.interpolation import original_length

if TYPE_CHECKING:
    from collections.abc import Callable

    from posenc.scaling._protocol import Frequencies


def mscale_of(factor: float, mscale: float = 1.0, slope: float = 0.1) -> float:
    """Return slope * mscale * ln(factor) + 1, or 1 for a factor up to 1 (arXiv:2309.00071, equation 22)."""
    factor, mscale = check.positive("factor", factor), check.finite("mscale", mscale)
    return 1.0 if factor <= 1 else check.finite("slope", slope) * mscale * _exact.log(factor) + 1.0


def _transformers(factor: float, mscale: float | None, mscale_all_dim: float | None) -> float:
    if mscale and mscale_all_dim:
        return mscale_of(factor, mscale) / mscale_of(factor, mscale_all_dim)
    return mscale_of(factor)


def _deepseek(factor: float, mscale: float | None, mscale_all_dim: float | None) -> float:
    over = 1.0 if mscale is None else mscale
    under = 0.0 if mscale_all_dim is None else mscale_all_dim
    return mscale_of(factor, over) / mscale_of(factor, under)


def _ggml(factor: float, mscale: float | None, mscale_all_dim: float | None) -> float:
    return 1.0 + 0.1 * _exact.log(factor)


def _telechat3(factor: float, mscale: float | None, mscale_all_dim: float | None) -> float:
    return mscale_of(factor, slope=0.07)


#: Who reads mscale and mscale_all_dim how. "transformers" (also vLLM's "yarn"): both or neither. "deepseek" (also
#: Megatron, vLLM's "deepseek_yarn", MLX): mscale 1 and mscale_all_dim 0 where absent. "ggml" and "telechat3" have none.
MSCALE_RULES: dict[str, Callable[[float, float | None, float | None], float]] = {
    "transformers": _transformers,
    "deepseek": _deepseek,
    "ggml": _ggml,
    "telechat3": _telechat3,
}


@dataclass(frozen=True)
class Yarn:
    """YaRN.

    With d(n) = r * ln(L / (2 pi n)) / (2 ln base), the pair that turns n times within L tokens, and a ramp t from 0 at
    pair floor(d(beta_fast)) to 1 at pair ceil(d(beta_slow))::

        inv_freq[i] = t[i] * base ** (-2i/r) / factor + (1 - t[i]) * base ** (-2i/r)

    (arXiv:2309.00071, equations 17 to 23; the code of jquesnelle/yarn, which transformers, vLLM and ggml share). Where
    the ramp is empty because both ends meet, it is a step.

    The attention factor multiplies cosine and sine, so q.k grows by its square. DeepSeek-V2 and V3 besides multiply
    their softmax scale by mscale_of(factor, mscale_all_dim) ** 2: that belongs to attention, not to a Rope.

    Parameters
    ----------
    factor : float
        At least 1: how many times longer the context becomes.
    original_max_position_embeddings : int
        L, the length of training in tokens.
    beta_fast, beta_slow : float
        Turns within L from which a pair is kept, and up to which it is interpolated.
    truncate : bool
        Round the ends of the ramp to whole pairs; false in gpt-oss.
    attention_factor : float, optional
        Used as it is. Excludes mscale, mscale_all_dim and attn_factor.
    mscale, mscale_all_dim : float, optional
        Coefficients, read by `mscale_rule`.
    mscale_rule : {"transformers", "deepseek", "ggml", "telechat3"}
        Who computes the attention factor how, see `MSCALE_RULES`. The first two differ where only one of the
        coefficients is given, or one of them is 0: mscale 0.707, mscale_all_dim 0 and factor 32 give 1.3466 and 1.2450.
    attn_factor : float
        Multiplies the computed attention factor (jquesnelle/yarn, ggml; not the same as attention_factor).
    extrapolation_factor : float
        0 to 1; multiplies (1 - t) (jquesnelle/yarn, `ext_factor` of ggml): 0 is plain interpolation.

    Examples
    --------
    >>> rope = posenc.Rope(64, layout="half", base=150000.0, scaling=Yarn(32.0, 4096, truncate=False))   # gpt-oss
    >>> round(rope.attention_factor, 4)
    1.3466
    """

    factor: float
    original_max_position_embeddings: int
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    truncate: bool = True
    attention_factor: float | None = None
    mscale: float | None = None
    mscale_all_dim: float | None = None
    mscale_rule: str = "transformers"
    attn_factor: float = 1.0
    extrapolation_factor: float = 1.0
    depends_on_length: ClassVar[bool] = False

    def __post_init__(self) -> None:
        normalise(
            self,
            factor=check.at_least_one("factor", self.factor),
            original_max_position_embeddings=original_length(self.original_max_position_embeddings),
            beta_fast=check.positive("beta_fast", self.beta_fast),
            beta_slow=check.positive("beta_slow", self.beta_slow),
            truncate=check.flag("truncate", self.truncate),
            attention_factor=check.optional(check.positive, "attention_factor", self.attention_factor),
            mscale=check.optional(check.not_negative, "mscale", self.mscale),
            mscale_all_dim=check.optional(check.not_negative, "mscale_all_dim", self.mscale_all_dim),
            mscale_rule=check.choice("mscale_rule", self.mscale_rule, MSCALE_RULES),
            attn_factor=check.positive("attn_factor", self.attn_factor),
            extrapolation_factor=check.fraction("extrapolation_factor", self.extrapolation_factor),
        )
        if self.beta_fast < self.beta_slow:
            raise ValueError(f"beta_fast must be at least beta_slow ({self.beta_slow}), got {self.beta_fast}")
        self._check_attention()

    def _check_attention(self) -> None:
        coefficients = (self.mscale, self.mscale_all_dim) != (None, None)
        if self.attention_factor is not None and (coefficients or self.attn_factor != 1.0):
            raise ValueError(
                "attention_factor excludes mscale, mscale_all_dim and attn_factor: it is the number that they would "
                "give"
            )
        if coefficients and self.mscale_rule not in ("transformers", "deepseek"):
            raise ValueError(f"mscale_rule {self.mscale_rule!r} has no mscale and no mscale_all_dim")

    def attention(self) -> float:
        """Return what multiplies cosine and sine."""
        if self.attention_factor is not None:
            return self.attention_factor
        rule = MSCALE_RULES[self.mscale_rule]
        return self.attn_factor * rule(self.factor, self.mscale, self.mscale_all_dim)

    def frequencies(
        self, rotary_dim: int, base: float, seq_len: int | None = None, precision: str = "exact"
    ) -> Frequencies:
        """Return (inv_freq, attention_factor); the base must be above 1."""
        slow = stretched(rotary_dim, base, precision, self.factor)
        fast = unscaled(rotary_dim, base, precision)
        low, high = correction_range(
            self.beta_fast, self.beta_slow, rotary_dim, base, self.original_max_position_embeddings, self.truncate
        )
        keep = (1 - ramp(low, high, rotary_dim // 2, fast.dtype)) * self.extrapolation_factor
        return finished(slow * (1 - keep) + fast * keep, self.attention())


@dataclass(frozen=True)
class DynamicYarn:
    """YaRN with the factor of the current length: seq_len / L beyond L * factor tokens.

    Up to there it is `Yarn` of `factor`, and with factor 1 the unscaled frequencies (jquesnelle/yarn,
    scaled_rope/LlamaDynamicYaRNScaledRotaryEmbedding.py; factor above 1 is its `finetuned`). A pure function of the
    length.

    Parameters
    ----------
    original_max_position_embeddings : int
        L, the length of training in tokens.
    factor : float
        At least 1: the factor of a model that was fine-tuned with YaRN.
    beta_fast, beta_slow, attn_factor, extrapolation_factor
        As in `Yarn`.
    """

    original_max_position_embeddings: int
    factor: float = 1.0
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    attn_factor: float = 1.0
    extrapolation_factor: float = 1.0
    depends_on_length: ClassVar[bool] = True

    def __post_init__(self) -> None:
        fixed = self._of_factor(self.factor)
        normalise(self, **{name: getattr(fixed, name) for name in ("factor", "beta_fast", "beta_slow", "attn_factor")})
        normalise(self, extrapolation_factor=fixed.extrapolation_factor)
        normalise(self, original_max_position_embeddings=fixed.original_max_position_embeddings)

    def _of_factor(self, factor: float) -> Yarn:
        return Yarn(
            factor,
            self.original_max_position_embeddings,
            self.beta_fast,
            self.beta_slow,
            attn_factor=self.attn_factor,
            extrapolation_factor=self.extrapolation_factor,
        )

    def frequencies(
        self, rotary_dim: int, base: float, seq_len: int | None = None, precision: str = "exact"
    ) -> Frequencies:
        """Return (inv_freq, attention_factor) for a length."""
        needed = 1.0 if seq_len is None else seq_len / self.original_max_position_embeddings
        factor = max(self.factor, needed)
        if factor == 1:
            return finished(unscaled(rotary_dim, base, precision))
        return replace(self._of_factor(self.factor), factor=factor).frequencies(rotary_dim, base, None, precision)

    def effective_length(self, seq_len: int) -> int:
        """Return seq_len, or L up to there."""
        return max(seq_len, self.original_max_position_embeddings)
