"""Sinusoidal encodings: tables of them, and their addition without a table."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import numpy as np

from posenc import _core, _views, runtime
from posenc import _parameters as check
from posenc.additive import conventions

if TYPE_CHECKING:
    import numpy.typing as npt

_LARGEST_DIM = 1 << 24  # whatever it came from, a wider row is a mistake, and its frequencies would take memory


def sinusoidal_table(
    positions: Any,
    dim: int,
    *,
    convention: str | conventions.Convention = "paper",
    base: float = 10000.0,
    padding_idx: int | None = None,
    dtype: npt.DTypeLike = np.float32,
    precision: str = "exact",
    out: Any = None,
) -> Any:
    """Return the sinusoidal encoding of positions.

    With the convention "paper", column 2i is sin(position * base ** (-2i/dim)) and column 2i + 1 the cosine of the same
    angle (Vaswani et al., "Attention Is All You Need", arXiv:1706.03762, section 3.5).

    Parameters
    ----------
    positions : int or array_like
        Integers or floats, in tokens; an int n means 0 .. n-1. Shape (seq,) or (batch, seq); |position| < 2**31.
    dim : int
        Columns.
    convention : str or Convention
        "paper" (interleaved), "concatenated" (Marian, RoFormer: sines, then cosines), "tensor2tensor" and "fairseq"
        (the same order, but the exponent is i/(dim/2 - 1)), "cos_first" (guided-diffusion), "mlx",
        "positional_encodings"; see `posenc.additive.CONVENTIONS`. "concatenated" and "fairseq" differ by up to 2 at
        positions of some thousands.
    base : float
        Longest wavelength over 2 pi, 10000 in the paper.
    padding_idx : int, optional
        The row of this position is zero, as fairseq has it (whose tokens start at padding_idx + 1).
    dtype : float32 or float64
    precision : {"exact", "float32"}
        "exact": within 0.501 ulp of float32 (1 ulp of float64) of the sine and cosine of position * inv_freq, for the
        float64 inv_freq of the convention. "float32": inv_freq and angle rounded to float32, as models compute them;
        off by about position * 6e-8.
    out : array, optional
        Where to write.

    Returns
    -------
    array of shape (seq, dim) or (batch, seq, dim)
        `out` where given; a torch tensor where positions is one; else a new NumPy array.

    Raises
    ------
    TypeError, ValueError, BufferError
        For parameters, positions and outputs that do not fit.

    Examples
    --------
    >>> print(posenc.sinusoidal_table(2, 4).round(3))
    [[0.    1.    0.    1.   ]
     [0.841 0.54  0.01  1.   ]]
    >>> posenc.sinusoidal_table([0.5, 7], 512, convention="fairseq", padding_idx=1).shape
    (2, 512)
    """
    chosen = conventions.convention_of(convention)
    spec, order = conventions.made(
        chosen, _dim(dim), check.base(base), check.choice("precision", precision, _PRECISIONS)
    )
    return table(spec, order, positions, _padding(padding_idx), dtype, out)


_PRECISIONS = conventions.PRECISIONS


def _dim(dim: Any) -> int:
    return check.integer("dim", dim, 1, most=_LARGEST_DIM)


def _padding(padding_idx: Any) -> int | None:
    return None if padding_idx is None else check.integer("padding_idx", padding_idx, -(1 << 63), most=(1 << 63) - 1)


def table(spec: Any, order: int, positions: Any, padding_idx: int | None, dtype: npt.DTypeLike, out: Any) -> Any:
    """Return the table of a spec, in the kind of the positions."""
    wide = check.is_float64(dtype)
    if isinstance(positions, np.integer):
        positions = int(positions)
    result = runtime.call(_core.sinusoid, spec, order, positions, wide, out, padding_idx)
    torch = sys.modules.get("torch")
    if out is None and torch is not None and isinstance(positions, torch.Tensor):
        return torch.from_numpy(result)
    return result


def add_sinusoidal(
    x: Any,
    *,
    convention: str | conventions.Convention = "paper",
    base: float = 10000.0,
    positions: Any = None,
    offset: Any = 0,
    table_scale: float = 1.0,
    padding_idx: int | None = None,
    precision: str = "exact",
    seq_axis: int = -2,
    out: Any = None,
) -> Any:
    """Return x + table_scale * sinusoidal encoding; no table is built.

    The same bits as `add_positions` with the table that `sinusoidal_table` makes.

    Parameters
    ----------
    x : NumPy array or torch CPU tensor, shape (..., seq, dim)
        Embeddings: float32, float64, float16 or bfloat16; any strides.
    convention, base, precision
        As in `sinusoidal_table`.
    positions : array_like, optional
        Integers or floats, in tokens: shape (seq,), or (batch, seq) with batch 1 or x's first axis.
    offset : int or array_like of int, shape (batch,)
        Short for positions offset, offset + 1, ..; excludes `positions`.
    table_scale : float
        Multiplies the encoding, rounded to float32 (float64 for float64 x) before it is added.
    padding_idx : int, optional
        Tokens of this position stay as they are.
    seq_axis : int
        Which axis of x is the sequence.
    out : array, optional
        Where to write; may be x itself.

    Returns
    -------
    array
        `out` where given, else a new array like x. 16-bit types are computed in float32 and rounded once.

    Raises
    ------
    TypeError, ValueError, BufferError
        As in `Rope.__call__`.

    Examples
    --------
    >>> import numpy as np
    >>> x = np.ones((2, 3, 4), np.float32)
    >>> bool((posenc.add_sinusoidal(x) == x + posenc.sinusoidal_table(3, 4)).all())
    True
    """
    chosen = conventions.convention_of(convention)
    shape = _views.sliceable(x).shape if hasattr(x, "__dlpack__") else ()
    dim = _dim(list(shape)[-1]) if len(shape) else 4  # what is no array is an error of the call
    made = conventions.made(chosen, dim, check.base(base), check.choice("precision", precision, _PRECISIONS))
    how = (check.finite("table_scale", table_scale), _padding(padding_idx))
    return runtime.call(_core.add_sinusoid, *made, x, out, positions, offset, seq_axis, *how)


def timestep_embedding(
    timesteps: Any,
    dim: int,
    *,
    flip_sin_to_cos: bool = False,
    downscale_freq_shift: float = 1.0,
    scale: float = 1.0,
    max_period: float = 10000.0,
    dtype: npt.DTypeLike = np.float32,
    precision: str = "exact",
    out: Any = None,
) -> Any:
    """Return the timestep embedding of diffusion models.

    Sines and cosines of scale * t * max_period ** (-i/(h - shift)), with h = dim // 2 and i counting from 0 below it:
    get_timestep_embedding of diffusers, after Ho et al., "Denoising Diffusion Probabilistic Models", arXiv:2006.11239.
    Stable Diffusion flips and shifts by 0; DDPM shifts by 1;
    guided-diffusion's and ggml's timestep_embedding are flip_sin_to_cos=True, downscale_freq_shift=0.

    Parameters
    ----------
    timesteps : int or array_like
        Integers or fractions, shape (n,) or (batch, n); an int n means 0 .. n-1.
    dim : int
        Columns; the last one of an odd dim is zero.
    flip_sin_to_cos : bool
        Cosines before sines.
    downscale_freq_shift : float
        Subtracted from dim // 2 in the exponent.
    scale : float
        Multiplies the angles.
    max_period : float
        Longest wavelength over 2 pi.
    dtype : float32 or float64
    precision : {"exact", "float32"}
        As in `sinusoidal_table`.
    out : array, optional
        Where to write.

    Returns
    -------
    array of shape (n, dim) or (batch, n, dim)

    Raises
    ------
    TypeError, ValueError, BufferError
        As in `sinusoidal_table`; a shift of dim // 2 or more leaves no exponent.

    Examples
    --------
    >>> posenc.timestep_embedding([0, 999.5], 320, flip_sin_to_cos=True, downscale_freq_shift=0).shape
    (2, 320)
    """
    dim = _dim(dim)
    half = dim // 2
    shift = check.finite("downscale_freq_shift", downscale_freq_shift)
    if half - shift <= 0:
        raise ValueError(f"dim // 2 must be larger than downscale_freq_shift ({shift}), got dim {dim}")
    slowest = check.base(max_period, "max_period")
    inv_freq = check.finite("scale", scale) * conventions.geometric(slowest, half, half - shift)
    order = "cos_sin" if check.flag("flip_sin_to_cos", flip_sin_to_cos) else "sin_cos"
    spec, code = conventions.spec_of(inv_freq, order, dim, 1.0, precision)
    try:
        return table(spec, code, timesteps, None, dtype, out)
    except (TypeError, ValueError) as error:  # C knows the argument as positions
        raise type(error)(str(error).replace("position", "timestep")) from None
