"""What a scaling is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

    Frequencies = tuple[npt.NDArray[np.float64], float]


@runtime_checkable
class Scaling(Protocol):
    """What a `Rope` needs of its `scaling`: hashable, comparable, with a repr that rebuilds it."""

    @property
    def depends_on_length(self) -> bool:
        """Whether the frequencies change with the sequence length."""
        ...

    def frequencies(
        self, rotary_dim: int, base: float, seq_len: int | None = None, precision: str = "exact"
    ) -> Frequencies:
        """Return (inv_freq, attention_factor).

        Parameters
        ----------
        rotary_dim : int
            Even: how many elements of a head are rotated.
        base : float
        seq_len : int, optional
            Tokens; read only where `depends_on_length`. Without it: the frequencies of a short sequence.
        precision : {"exact", "float32"}
            "exact": the formula in float64. "float32": the arithmetic of transformers, step by step in float32.

        Returns
        -------
        inv_freq : ndarray of float64, shape (rotary_dim/2,)
            In radians per token.
        attention_factor : float
            Multiplies cosine and sine.
        """
        ...


@runtime_checkable
class LengthScaling(Scaling, Protocol):
    """A scaling whose `depends_on_length` is set."""

    def effective_length(self, seq_len: int) -> int:
        """Return one length for all that have the frequencies of seq_len."""
        ...


def finished(inv_freq: npt.NDArray[Any], attention_factor: float = 1.0) -> Frequencies:
    """Return what `Scaling.frequencies` does, of a working array in float32 or float64."""
    return inv_freq.astype(np.float64), float(attention_factor)


def normalise(scaling: Any, **checked: Any) -> None:
    """Put checked values into a frozen dataclass, from its __post_init__."""
    for name, value in checked.items():
        object.__setattr__(scaling, name, value)
