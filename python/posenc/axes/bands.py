"""Frequencies of images that are not a power series of tokens: pixel bands, and periods between two bounds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from posenc import _exact
from posenc import _parameters as check
from posenc._frequencies import PRECISIONS, unscaled

if TYPE_CHECKING:
    import numpy.typing as npt

_PI = 3.141592653589793  # the float64 nearest to pi


def pixel_bands(
    count: int, max_freq: float, *, spacing: str = "linear", precision: str = "exact"
) -> npt.NDArray[np.float64]:
    """Return frequencies for coordinates in [-1, 1], from half a turn over the image up to max_freq/2 half turns.

    "linear": pi * linspace(1, max_freq/2, count) (rotary-embedding-torch, freqs_for="pixel"; timm,
    layers/pos_embed_sincos.py, `pixel_freq_bands`). "log2": pi * 2 ** linspace(0, log2(max_freq) - 1, count) (timm with
    linear_bands=False, its default).

    Parameters
    ----------
    count : int
        Pairs of one axis.
    max_freq : float
        Positive: `max_freq` of rotary-embedding-torch (10 by default), `max_res` of timm (224).
    spacing : {"linear", "log2"}
    precision : {"exact", "float32"}
        "float32": step by step in float32, as torch.linspace does it.

    Returns
    -------
    ndarray of float64, shape (count,)
        In radians per unit of coordinate.

    Raises
    ------
    TypeError, ValueError
        For numbers outside these bounds.

    Examples
    --------
    >>> from posenc import axes
    >>> (axes.pixel_bands(3, 10.0) / 3.141592653589793).tolist()
    [1.0, 3.0, 5.0]
    """
    count, max_freq = check.integer("count", count, 1), check.positive("max_freq", max_freq)
    kind = kind_of(precision)
    if check.choice("spacing", spacing, ("linear", "log2")) == "linear":
        bands = linspace(1.0, max_freq / 2, count, kind)
    else:
        exponents = linspace(0.0, _exact.log(max_freq) / _exact.log(2.0) - 1, count, kind)
        bands = np.array([_exact.power(2.0, float(e)) for e in exponents], kind)
    return np.asarray(bands * kind(_PI), np.float64)


def period_bands(
    count: int,
    *,
    base: float | None = None,
    min_period: float | None = None,
    max_period: float | None = None,
    precision: str = "exact",
) -> npt.NDArray[np.float64]:
    """Return 2 pi / periods, the periods a power series up to a base, or between two bounds.

    Either periods[i] = base ** (i / count), or min_period * (max_period / min_period) ** (i / (count - 1)), the two
    ways of DINOv3 (facebookresearch/dinov3, dinov3/layers/rope_position_encoding.py; timm,
    layers/pos_embed_sincos.py, `RotaryEmbeddingDinoV3`; transformers, models/dinov3_vit/modeling_dinov3_vit.py).

    Parameters
    ----------
    count : int
        Pairs of one axis, head_dim/4 in DINOv3.
    base : float, optional
        Excludes the periods.
    min_period, max_period : float, optional
        In units of coordinate per turn.
    precision : {"exact", "float32"}
        "float32": rounded after every step.

    Returns
    -------
    ndarray of float64, shape (count,)
        In radians per unit of coordinate.

    Raises
    ------
    TypeError, ValueError
        For both ways or neither, and for numbers that are not positive.

    Examples
    --------
    >>> from posenc import axes
    >>> (6.283185307179586 / axes.period_bands(3, min_period=0.5, max_period=2.0)).tolist()
    [0.5, 1.0, 2.0]
    """
    count, kind = check.integer("count", count, 1), kind_of(precision)
    if base is not None and min_period is None and max_period is None:
        inverse = unscaled(2 * count, check.base(base), precision)
    elif base is None and min_period is not None and max_period is not None:
        low, high = check.positive("min_period", min_period), check.positive("max_period", max_period)
        powers = [_exact.power(high / low, float(e)) for e in linspace(0.0, 1.0, count, kind)]
        inverse = 1 / (kind(low) * np.array(powers, kind))
    else:
        raise ValueError("give either base, or min_period and max_period")
    return np.asarray(kind(_exact.TWO_PI) * inverse, np.float64)


def kind_of(precision: str) -> Any:
    """Return the NumPy type that a precision computes in."""
    return np.float32 if check.choice("precision", precision, PRECISIONS) == "float32" else np.float64


def linspace(start: float, stop: float, count: int, kind: Any) -> npt.NDArray[Any]:
    """Return torch.linspace: forwards in the first half, backwards from the end in the second."""
    if count == 1:
        return np.array([start], kind)
    first, last, index = kind(start), kind(stop), np.arange(count)
    step = (last - first) / kind(count - 1)
    forwards, backwards = first + step * index.astype(kind), last - step * (count - 1 - index).astype(kind)
    return np.asarray(np.where(index < count // 2, forwards, backwards))
