"""Frequencies of your own, by the three names under which systems pass them.

MLX and MaxText call periods `freqs` and `timescale`, transformers calls inverse frequencies `inv_freq`, ggml's
`freq_factors` divide the ordinary frequencies: the same numbers mean three different things.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from posenc import _parameters as check
from posenc._frequencies import stretched
from posenc.scaling._protocol import finished, normalise

if TYPE_CHECKING:
    from posenc.scaling._protocol import Frequencies


@dataclass(frozen=True)
class InverseFrequencies:
    """Inverse frequencies, and an attention factor, as given.

    Parameters
    ----------
    inv_freq : sequence of float, length rotary_dim/2
        In radians per token; 0 for a pair that does not turn, negative for one that turns clockwise.
    attention_factor : float
        Multiplies cosine and sine; positive.
    """

    inv_freq: tuple[float, ...]
    attention_factor: float = 1.0
    depends_on_length: ClassVar[bool] = False

    def __post_init__(self) -> None:
        normalise(
            self,
            inv_freq=check.numbers("inv_freq", self.inv_freq, check.finite),
            attention_factor=check.positive("attention_factor", self.attention_factor),
        )

    def frequencies(
        self, rotary_dim: int, base: float, seq_len: int | None = None, precision: str = "exact"
    ) -> Frequencies:
        """Return what was given; the base is not read."""
        return _as_many("inv_freq", self.inv_freq, rotary_dim), self.attention_factor


@dataclass(frozen=True)
class Periods:
    """Periods: inv_freq[i] = 1 / periods[i] (`freqs` of MLX's fast.rope, `timescale` of MaxText).

    Parameters
    ----------
    periods : sequence of float, length rotary_dim/2
        In tokens per radian; positive. Infinite for a pair that does not turn, as mlx-lm's ProportionalRoPE has it.
    """

    periods: tuple[float, ...]
    depends_on_length: ClassVar[bool] = False

    def __post_init__(self) -> None:
        normalise(self, periods=check.numbers("periods", self.periods, _period))

    def frequencies(
        self, rotary_dim: int, base: float, seq_len: int | None = None, precision: str = "exact"
    ) -> Frequencies:
        """Return (1 / periods, 1.0); the base is not read."""
        return finished(1 / _as_many("periods", self.periods, rotary_dim))


@dataclass(frozen=True)
class Divisors:
    """Divisors of the ordinary frequencies: inv_freq[i] = base ** (-2i/r) / divisors[i] (`freq_factors` of ggml).

    Parameters
    ----------
    divisors : sequence of float, length rotary_dim/2
        Positive. llama.cpp stores those of Llama 3.1 as the tensor rope_freqs.weight.
    """

    divisors: tuple[float, ...]
    depends_on_length: ClassVar[bool] = False

    def __post_init__(self) -> None:
        normalise(self, divisors=check.numbers("divisors", self.divisors, check.positive))

    def frequencies(
        self, rotary_dim: int, base: float, seq_len: int | None = None, precision: str = "exact"
    ) -> Frequencies:
        """Return (inv_freq, 1.0)."""
        return finished(stretched(rotary_dim, base, precision, _as_many("divisors", self.divisors, rotary_dim)))


def _period(name: str, value: float) -> float:
    return float("inf") if value == float("inf") else check.positive(name, value)


def _as_many(name: str, values: tuple[float, ...], rotary_dim: int) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    if len(values) != rotary_dim // 2:
        raise ValueError(f"{name} must have {rotary_dim // 2} numbers for rotary_dim {rotary_dim}, got {len(values)}")
    return np.array(values, np.float64)
