"""Scalings that treat pairs by their wavelength or their number: Llama 3 and Gemma 4."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from posenc import _exact
from posenc import _parameters as check
from posenc._frequencies import divide, unscaled
from posenc.scaling._protocol import finished, normalise
from posenc.scaling.interpolation import original_length

if TYPE_CHECKING:
    from posenc.scaling._protocol import Frequencies


@dataclass(frozen=True)
class Llama3:
    """The scaling of Llama 3.1: short wavelengths kept, long ones interpolated, a smooth step between.

    For wavelength w = 2 pi / inv_freq and L = original_max_position_embeddings: kept where w < L / high_freq_factor,
    divided by `factor` where w > L / low_freq_factor, else (1 - t) * inv_freq / factor + t * inv_freq with
    t = (L / w - low_freq_factor) / (high_freq_factor - low_freq_factor) (meta-llama/llama-models,
    models/llama3/model.py, `apply_scaling`; continuous at both ends).

    Parameters
    ----------
    factor : float
        Positive: 8 in Llama 3.1, 32 in Llama 3.2.
    low_freq_factor, high_freq_factor : float
        Turns within L up to which a pair is interpolated, and from which it is kept; high at least low. Where they are
        the same (Llama 4 Scout) it is a step, at which vLLM interpolates and transformers would divide 0 by 0.
    original_max_position_embeddings : int
        L, the length of training in tokens.

    Examples
    --------
    >>> rope = posenc.Rope(128, layout="half", base=500_000.0, scaling=Llama3(factor=8.0))
    >>> rope.inv_freq[0], float(rope.wavelengths[-1]) > 2e7
    (np.float64(1.0), True)
    """

    factor: float = 8.0
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0
    original_max_position_embeddings: int = 8192
    depends_on_length: ClassVar[bool] = False

    def __post_init__(self) -> None:
        normalise(
            self,
            factor=check.positive("factor", self.factor),
            low_freq_factor=check.positive("low_freq_factor", self.low_freq_factor),
            high_freq_factor=check.positive("high_freq_factor", self.high_freq_factor),
            original_max_position_embeddings=original_length(self.original_max_position_embeddings),
        )
        if self.high_freq_factor < self.low_freq_factor:
            raise ValueError(
                f"high_freq_factor must be at least low_freq_factor ({self.low_freq_factor}), got "
                f"{self.high_freq_factor}"
            )

    def frequencies(
        self, rotary_dim: int, base: float, seq_len: int | None = None, precision: str = "exact"
    ) -> Frequencies:
        """Return (inv_freq, 1.0)."""
        low, high, length = self.low_freq_factor, self.high_freq_factor, self.original_max_position_embeddings
        kept = unscaled(rotary_dim, base, precision)
        wavelength = divide(_exact.TWO_PI, kept)
        t = (divide(length, wavelength) - low) / (high - low) if high > low else np.zeros_like(kept)
        between = (1 - t) * kept / self.factor + t * kept
        scaled = np.where(wavelength > length / low, kept / self.factor, between)
        return finished(np.where(wavelength < length / high, kept, scaled))


@dataclass(frozen=True)
class Proportional:
    """Proportional RoPE (p-RoPE): the slow pairs do not turn at all.

    With a = floor(partial_rotary_factor * r / 2): inv_freq[i] = base ** (-2i/r) / factor for i < a, and 0 for the
    other pairs (Barbero et al., "Round and Round We Go!", arXiv:2410.06205, section 6; Gemma 4, transformers,
    modeling_rope_utils.py, `_compute_proportional_rope_parameters`). The exponent keeps the whole width r, and pairs
    are formed over it: not the same as a Rope with a smaller rotary_dim, which the same config key means elsewhere.

    Parameters
    ----------
    partial_rotary_factor : float
        Share of the pairs that turn, 0 to 1: 0.25 in Gemma 4.
    factor : float
        Positive; divides the frequencies.
    """

    partial_rotary_factor: float
    factor: float = 1.0
    depends_on_length: ClassVar[bool] = False

    def __post_init__(self) -> None:
        normalise(
            self,
            partial_rotary_factor=check.fraction("partial_rotary_factor", self.partial_rotary_factor),
            factor=check.positive("factor", self.factor),
        )

    def frequencies(
        self, rotary_dim: int, base: float, seq_len: int | None = None, precision: str = "exact"
    ) -> Frequencies:
        """Return (inv_freq, 1.0)."""
        inv_freq = unscaled(rotary_dim, base, precision) / self.factor
        inv_freq[math.floor(self.partial_rotary_factor * rotary_dim / 2) :] = 0
        return finished(inv_freq)
