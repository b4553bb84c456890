"""Frequency scaling: what turns a base into frequencies and an attention factor.

A scaling is any frozen object with the members of `Scaling`. A `Rope` asks it once, or once per sequence length where
`depends_on_length` is set, and keeps numbers only.
"""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt


@runtime_checkable
class Scaling(Protocol):
    """What a `Rope` needs of its `scaling`: hashable, comparable, with a repr that rebuilds it."""

    @property
    def depends_on_length(self) -> bool:
        """Whether the frequencies change with the sequence length."""
        ...

    def frequencies(self, rotary_dim: int, base: float, seq_len: int | None) -> tuple[npt.NDArray[np.float64], float]:
        """Return (inv_freq, attention_factor).

        inv_freq is float64 of shape (rotary_dim // 2,), in radians per token; attention_factor multiplies cosine and
        sine. seq_len is None unless `depends_on_length`.
        """
        ...


@dataclass(frozen=True)
class Fixed:
    """Frequencies and an attention factor, as given.

    Parameters
    ----------
    inv_freq : tuple of float
        In radians per token, one for each pair.
    attention_factor : float
        Multiplies cosine and sine; positive.
    """

    inv_freq: tuple[float, ...]
    attention_factor: float = 1.0
    depends_on_length: bool = False

    def frequencies(self, rotary_dim: int, base: float, seq_len: int | None) -> tuple[npt.NDArray[np.float64], float]:
        """Return what was given."""
        return np.array(self.inv_freq, np.float64), self.attention_factor
