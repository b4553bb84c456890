"""Position interpolation and the NTK family: a wider context from smaller frequencies or a larger base."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from posenc import _exact
from posenc import _parameters as check
from posenc._frequencies import stretched, unscaled
from posenc.scaling._protocol import finished, normalise
from posenc.scaling._ramp import correction_range, ramp

if TYPE_CHECKING:
    from posenc.scaling._protocol import Frequencies


@dataclass(frozen=True)
class Linear:
    """Position interpolation: every frequency divided by one factor, which is every position divided by it.

    inv_freq[i] = base ** (-2i/r) / factor (Chen et al., arXiv:2306.15595, equation 4). Called "linear" by
    transformers, vLLM and GGUF; `scale = 1/factor` in MLX, `seq_len_interpolation_factor` in Megatron.

    Parameters
    ----------
    factor : float
        Positive; how many times longer the context becomes. Below 1 positions move apart.

    Examples
    --------
    >>> Linear(4.0).frequencies(4, 10000.0)
    (array([0.25  , 0.0025]), 1.0)
    """

    factor: float
    depends_on_length: ClassVar[bool] = False

    def __post_init__(self) -> None:
        normalise(self, factor=check.positive("factor", self.factor))

    def frequencies(
        self, rotary_dim: int, base: float, seq_len: int | None = None, precision: str = "exact"
    ) -> Frequencies:
        """Return (inv_freq, 1.0)."""
        return finished(unscaled(rotary_dim, base, precision) / self.factor)


@dataclass(frozen=True)
class NTK:
    """NTK-aware scaling: a larger base, which keeps the first frequency and divides the last one by the factor.

    base' = base * factor ** (r / (r - 2)) (bloc97, "NTK-Aware Scaled RoPE", r/LocalLLaMA, June 2023; Peng et al.,
    arXiv:2309.00071, equation 16). The same as `alpha` of HunYuan, `theta_rescale_factor` of
    rotary-embedding-torch and `base_rescale_factor` of x-transformers. For what vLLM and diffusers call ntk, which is
    something else, see `VllmNTK` and `DiffusersNTK`.

    Parameters
    ----------
    factor : float
        Positive.
    """

    factor: float
    depends_on_length: ClassVar[bool] = False

    def __post_init__(self) -> None:
        normalise(self, factor=check.positive("factor", self.factor))

    def frequencies(
        self, rotary_dim: int, base: float, seq_len: int | None = None, precision: str = "exact"
    ) -> Frequencies:
        """Return (inv_freq, 1.0); rotary_dim must be above 2."""
        return finished(unscaled(rotary_dim, ntk_base(base, self.factor, rotary_dim), precision))


def ntk_base(base: float, factor: float, rotary_dim: int) -> float:
    """Return base * factor ** (rotary_dim / (rotary_dim - 2))."""
    return check.base(base * _exact.power(factor, _ntk_exponent(rotary_dim)))


def _ntk_exponent(rotary_dim: int) -> float:
    if rotary_dim <= 2:
        raise ValueError(f"NTK scaling needs a rotary_dim above 2 (its exponent is r / (r - 2)), got {rotary_dim}")
    return rotary_dim / (rotary_dim - 2)


@dataclass(frozen=True)
class DynamicNTK:
    """Dynamic NTK: the NTK-aware base of the current length, beyond the length of training.

    For n = max(seq_len, L) tokens: base' = base * (factor * n / L - (factor - 1)) ** (r / (r - 2)) (emozilla,
    r/LocalLLaMA, June 2023; transformers, modeling_rope_utils.py, `_compute_dynamic_ntk_parameters`). Up to L tokens
    nothing changes. A pure function of the length: a long call never changes a later short one.

    Keys cached at one length do not fit queries at another one: see `Rope.shift` and `posenc.consistency`. vLLM builds
    one table for its largest length instead; that is `rope.at(max_model_len)`.

    Parameters
    ----------
    factor : float
        Positive.
    original_max_position_embeddings : int
        L; transformers takes `max_position_embeddings` for it.
    """

    factor: float
    original_max_position_embeddings: int
    depends_on_length: ClassVar[bool] = True

    def __post_init__(self) -> None:
        normalise(
            self,
            factor=check.positive("factor", self.factor),
            original_max_position_embeddings=original_length(self.original_max_position_embeddings),
        )

    def frequencies(
        self, rotary_dim: int, base: float, seq_len: int | None = None, precision: str = "exact"
    ) -> Frequencies:
        """Return (inv_freq, 1.0) for a length; rotary_dim must be above 2."""
        exponent = _ntk_exponent(rotary_dim)
        trained = self.original_max_position_embeddings
        if seq_len is not None and seq_len > trained:
            if precision == "float32":
                base = self._float32_base(base, seq_len, exponent)
            else:
                growth = self.factor * seq_len / trained - (self.factor - 1)
                base = check.base(base * _exact.power(growth, exponent))
        return finished(unscaled(rotary_dim, base, precision))

    def effective_length(self, seq_len: int) -> int:
        """Return seq_len, or L up to there."""
        return max(seq_len, self.original_max_position_embeddings)

    def _float32_base(self, base: float, seq_len: int, exponent: float) -> float:
        """The length is in a tensor in transformers, which makes every step of this float32."""
        narrow = np.float32
        growth = narrow(self.factor) * narrow(seq_len) / narrow(self.original_max_position_embeddings)
        growth -= narrow(self.factor - 1)
        return check.base(float(narrow(base) * narrow(_exact.power(float(growth), float(narrow(exponent))))))


@dataclass(frozen=True)
class DynamicLinear:
    """Dynamic position interpolation: positions squeezed into the length of training as a sequence grows.

    For n > L * factor tokens inv_freq[i] = base ** (-2i/r) * L / n, else base ** (-2i/r) / factor
    (TransformerEngine, transformer_engine/pytorch/attention/rope.py, `RotaryPositionEmbedding`; with factor 1
    jquesnelle/yarn's LlamaDynamicScaledRotaryEmbedding with ntk=False).

    Parameters
    ----------
    original_max_position_embeddings : int
        L, the length of training in tokens.
    factor : float
        Positive; the interpolation factor of training.
    """

    original_max_position_embeddings: int
    factor: float = 1.0
    depends_on_length: ClassVar[bool] = True

    def __post_init__(self) -> None:
        normalise(
            self,
            factor=check.positive("factor", self.factor),
            original_max_position_embeddings=original_length(self.original_max_position_embeddings),
        )

    def frequencies(
        self, rotary_dim: int, base: float, seq_len: int | None = None, precision: str = "exact"
    ) -> Frequencies:
        """Return (inv_freq, 1.0) for a length."""
        needed = 1.0 if seq_len is None else seq_len / self.original_max_position_embeddings
        return finished(unscaled(rotary_dim, base, precision) / max(self.factor, needed))

    def effective_length(self, seq_len: int) -> int:
        """Return seq_len, or L up to there."""
        return max(seq_len, self.original_max_position_embeddings)


@dataclass(frozen=True)
class NTKByParts:
    """NTK by parts: interpolated, NTK-aware and unscaled frequencies, blended by how often each pair turns.

    Two ramps between pair numbers d(n) = r * ln(L / (2 pi n)) / (2 ln base), as in `Yarn`: from linear to NTK-aware
    between 0.75 and 1.25 turns within L, from there to unscaled between 2 and 16 turns
    (jquesnelle/yarn, scaled_rope/LlamaPartNTKScaledRotaryEmbedding.py; bloc97, r/LocalLLaMA, July 2023).

    Parameters
    ----------
    factor : float
        Positive.
    original_max_position_embeddings : int
        L, the length of training in tokens.
    ntk_factor, extrapolation_factor : float
        Weights of the two ramps, 0 to 1; 0 leaves one out.
    """

    factor: float
    original_max_position_embeddings: int
    ntk_factor: float = 1.0
    extrapolation_factor: float = 1.0
    depends_on_length: ClassVar[bool] = False

    def __post_init__(self) -> None:
        normalise(
            self,
            factor=check.positive("factor", self.factor),
            original_max_position_embeddings=original_length(self.original_max_position_embeddings),
            ntk_factor=check.fraction("ntk_factor", self.ntk_factor),
            extrapolation_factor=check.fraction("extrapolation_factor", self.extrapolation_factor),
        )

    def frequencies(
        self, rotary_dim: int, base: float, seq_len: int | None = None, precision: str = "exact"
    ) -> Frequencies:
        """Return (inv_freq, 1.0); rotary_dim must be above 2."""
        blended = stretched(rotary_dim, base, precision, self.factor)
        towards = (
            (ntk_base(base, self.factor, rotary_dim), (1.25, 0.75), self.ntk_factor),
            (base, (16.0, 2.0), self.extrapolation_factor),
        )
        for other_base, turns, weight in towards:
            low, high = correction_range(*turns, rotary_dim, base, self.original_max_position_embeddings)
            mask = (1 - ramp(low, high, rotary_dim // 2, blended.dtype)) * weight
            blended = blended * (1 - mask) + unscaled(rotary_dim, other_base, precision) * mask
        return finished(blended)


def original_length(value: int) -> int:
    """Return a checked length of training."""
    return check.integer("original_max_position_embeddings", value, 1)
