"""What other systems call ntk or dynamic and compute differently: each under the name of its system."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from posenc import _exact
from posenc import _parameters as check
from posenc._frequencies import unscaled
from posenc.scaling._protocol import finished, normalise

if TYPE_CHECKING:
    from posenc.scaling._protocol import Frequencies


@dataclass(frozen=True)
class DiffusersNTK:
    """The `ntk_factor` of diffusers: base' = base * factor, without the exponent of `NTK`.

    (diffusers, models/embeddings.py, `get_1d_rotary_pos_embed`.) At factor 8 and width 128 the last wavelength grows
    7.7 times instead of 8.

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
        """Return (inv_freq, 1.0)."""
        return finished(unscaled(rotary_dim, check.base(base * self.factor), precision))


@dataclass(frozen=True)
class VllmNTK:
    """The rope_type "ntk" of vLLM: another NTK scaling, in which the first pair changes too.

    Without mixed_b: inv_freq[i] = (base * factor) ** (-2i/r) / factor ** (2/r). With it: inv_freq[i] = base ** (-2i/r)
    / exp(a * (i + 1) ** mixed_b), a = ln(factor) / (r/2) ** mixed_b (vLLM, rotary_embedding/ntk_scaling_rope.py; Su,
    kexue.fm/archives/9706).

    Parameters
    ----------
    factor : float
        Positive.
    mixed_b : float, optional
        Positive.
    """

    factor: float
    mixed_b: float | None = None
    depends_on_length: ClassVar[bool] = False

    def __post_init__(self) -> None:
        normalise(
            self,
            factor=check.positive("factor", self.factor),
            mixed_b=check.optional(check.positive, "mixed_b", self.mixed_b),
        )

    def frequencies(
        self, rotary_dim: int, base: float, seq_len: int | None = None, precision: str = "exact"
    ) -> Frequencies:
        """Return (inv_freq, 1.0)."""
        if self.mixed_b is None:
            inv_freq = unscaled(rotary_dim, check.base(base * self.factor), precision)
            return finished(inv_freq / _exact.power(self.factor, 2 / rotary_dim))
        pairs, rate = rotary_dim // 2, _exact.log(self.factor)
        shares = (_exact.power((i + 1) / pairs, self.mixed_b) for i in range(pairs))
        divisors = np.array([_exact.power(self.factor, share) if rate else 1.0 for share in shares])
        inv_freq = unscaled(rotary_dim, base, precision)
        return finished(inv_freq / divisors.astype(inv_freq.dtype))


@dataclass(frozen=True)
class KerasDynamic:
    """The rope_type "dynamic" of KerasHub: every frequency divided by factor ** (r / (r - 2)), whatever the length.

    (keras_hub/src/layers/modeling/rotary_embedding.py.) `DynamicNTK` is what the word means elsewhere.

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
        if rotary_dim <= 2:
            raise ValueError(f"KerasDynamic needs a rotary_dim above 2 (its exponent is r / (r - 2)), got {rotary_dim}")
        by = _exact.power(self.factor, rotary_dim / (rotary_dim - 2))
        return finished(unscaled(rotary_dim, base, precision) / by)
