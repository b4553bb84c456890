"""What a sinusoidal table's columns hold: the conventions of the field by name.

All of them are cosines and sines of position * frequency. They differ in the exponent of the frequencies, in the order
of the columns, and in what becomes of an odd number of columns. Mixing two of them up fits every shape.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from posenc import _core
from posenc import _parameters as check
from posenc._frequencies import PRECISIONS as PRECISIONS

if TYPE_CHECKING:
    import numpy.typing as npt

#: order of the columns -> its code in C
ORDERS = {"interleaved": 0, "sin_cos": 1, "cos_sin": 2}
SPACINGS = ("dim", "half", "half_minus_one", "rounded_up")
ODDS = ("longer", "zero", "refused")


class Convention(NamedTuple):
    """How the columns of a sinusoidal table are filled.

    Parameters
    ----------
    order : {"interleaved", "sin_cos", "cos_sin"}
        s0 c0 s1 c1 .., or all sines and then all cosines, or the other way round.
    spacing : {"dim", "half", "half_minus_one", "rounded_up"}
        Frequency i is base ** -e, with e = 2i/dim, i/(dim//2), i/(dim//2 - 1), or 2i/(dim + dim % 2).
    odd : {"longer", "zero", "refused"}
        An odd dim: what comes first has one column more; or the last column is zero; or it is an error.
    scale : float, optional
        Multiplies sines and cosines; None is sqrt(2/dim).
    fastest : float
        Multiplies every frequency: the first one, in radians per position.
    base : float, optional
        Overrides the `base` of a call.
    least_dim : int
        The smallest dim that the source computes.

    Examples
    --------
    >>> posenc.additive.CONVENTIONS["fairseq"].order
    'sin_cos'
    """

    order: str = "interleaved"
    spacing: str = "dim"
    odd: str = "longer"
    scale: float | None = 1.0
    fastest: float = 1.0
    base: float | None = None
    least_dim: int = 1

    def checked(self) -> Convention:
        """Return the convention itself, all of whose parts mean something.

        Raises
        ------
        TypeError, ValueError
            For a part that does not.
        """
        check.choice("order", self.order, ORDERS)
        check.choice("spacing", self.spacing, SPACINGS)
        check.choice("odd", self.odd, ODDS)
        check.optional(check.finite, "scale", self.scale)
        check.positive("fastest", self.fastest)
        if self.base is not None:
            check.base(self.base)
        check.integer("least_dim", self.least_dim, 1)
        return self

    def pairs(self, dim: int) -> int:
        """Return how many frequencies dim columns hold."""
        least = max(self.least_dim, 1 if self.odd == "longer" else 2)
        if dim < least:
            raise ValueError(f"dim must be at least {least} for this convention, got {dim}")
        if dim % 2 and self.odd == "refused":
            raise ValueError(f"dim must be even for this convention, got {dim}")
        return (dim + 1) // 2 if self.odd == "longer" else dim // 2

    def inv_freq(self, dim: int, base: float = 10000.0) -> npt.NDArray[np.float64]:
        """Return the frequencies, in radians per position; the nearest float64 where `fastest` is 1.

        Parameters
        ----------
        dim : int
            Columns.
        base : float

        Returns
        -------
        ndarray of float64
        """
        base = check.base(base if self.base is None else self.base)
        pairs = self.pairs(check.integer("dim", dim, 1))
        if self.spacing == "dim" and dim % 2:
            return self.fastest * _core.inv_freq(base, 2 * dim)[::2][:pairs]
        half = {"dim": dim // 2, "half": dim // 2, "half_minus_one": dim // 2 - 1, "rounded_up": pairs}[self.spacing]
        return self.fastest * geometric(base, pairs, max(half, 1))


_LONGEST_SERIES = 1 << 26  # beyond, C would make far more frequencies than are asked for


def geometric(base: float, count: int, divisor: float) -> npt.NDArray[np.float64]:
    """Return base ** (-i/divisor) for i < count, the nearest float64 for whole divisors."""
    if divisor != math.floor(divisor) or not count - 1 <= divisor < _LONGEST_SERIES:
        from posenc import _exact  # decimal takes a while to import

        return np.array([_exact.power(base, -i / divisor) for i in range(count)])
    series = _core.inv_freq(base, 2 * int(divisor))[:count]
    return np.append(series, 1 / base) if count > len(series) else series


#: The conventions that have a name. Sources: "paper", Vaswani et al., arXiv:1706.03762, section 3.5; "concatenated",
#: Marian, RoFormer and Transformer-XL (transformers' modeling_marian.py); "tensor2tensor", get_timing_signal_1d;
#: "fairseq", SinusoidalPositionalEmbedding, and after it M2M-100, XGLM, SpeechToText, Whisper; "cos_first",
#: guided-diffusion's timestep_embedding and ggml's; "mlx", nn.SinusoidalPositionalEncoding; "positional_encodings",
#: PositionalEncoding1D of the package of that name.
CONVENTIONS: dict[str, Convention] = {
    "paper": Convention(),
    "concatenated": Convention("sin_cos"),
    "tensor2tensor": Convention("sin_cos", "half_minus_one", "zero", least_dim=2),
    "fairseq": Convention("sin_cos", "half_minus_one", "zero", least_dim=4),
    "cos_first": Convention("cos_sin", "half", "zero", least_dim=2),
    "mlx": Convention("sin_cos", "half_minus_one", "refused", scale=None, least_dim=4),
    "positional_encodings": Convention("interleaved", "rounded_up"),
}


def mlx(
    *,
    min_freq: float = 0.0001,
    max_freq: float = 1.0,
    scale: float | None = None,
    cos_first: bool = False,
    full_turns: bool = False,
) -> Convention:
    """Return MLX's convention with its parameters: nn.SinusoidalPositionalEncoding.

    Parameters
    ----------
    min_freq, max_freq : float
        Radians per position, or turns with `full_turns`.
    scale : float, optional
        Multiplies sines and cosines; default sqrt(2/dim).
    cos_first : bool
        Cosines before sines.
    full_turns : bool
        Multiply the frequencies by 2 pi.

    Returns
    -------
    Convention

    Examples
    --------
    >>> table = posenc.sinusoidal_table(3, 8, convention=posenc.additive.mlx(cos_first=True))
    >>> table[0].tolist()
    [0.5, 0.5, 0.5, 0.5, 0.0, 0.0, 0.0, 0.0]
    """
    from posenc._exact import TWO_PI

    fastest = check.positive("max_freq", max_freq)
    return Convention(
        "cos_sin" if check.flag("cos_first", cos_first) else "sin_cos",
        "half_minus_one",
        "refused",
        scale=check.optional(check.finite, "scale", scale),
        fastest=fastest * TWO_PI if check.flag("full_turns", full_turns) else fastest,
        base=fastest / check.positive("min_freq", min_freq),
        least_dim=4,
    )


def convention_of(convention: Any) -> Convention:
    """Return a convention by name, or itself."""
    if isinstance(convention, Convention):
        return convention.checked()
    return CONVENTIONS[check.choice("convention", convention, CONVENTIONS)]


@lru_cache(maxsize=128)
def made(convention: Any, dim: int, base: float, precision: str) -> tuple[Any, int]:
    """Return the spec and the order's code of a checked convention, for C."""
    scale = math.sqrt(2 / dim) if convention.scale is None else convention.scale
    return spec_of(convention.inv_freq(dim, base), convention.order, dim, scale, precision)


def spec_of(inv_freq: npt.NDArray[np.float64], order: str, dim: int, scale: float, precision: str) -> tuple[Any, int]:
    """Return the spec and the order's code for C."""
    as_float32 = check.choice("precision", precision, PRECISIONS) == "float32"
    rounded = np.ascontiguousarray(check.rounded(inv_freq, precision))
    return _core.spec(rounded, None, 0, dim, 0, scale, as_float32), ORDERS[order]
