"""Images and videos whose blocks or frequencies no plain axial Rope has: each under the name of its system."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from posenc import _exact
from posenc import _parameters as check
from posenc._frequencies import unscaled
from posenc.axes._assemble import axial, from_bands
from posenc.axes.bands import kind_of, linspace, period_bands

if TYPE_CHECKING:
    from posenc.rotary import Rope
    from posenc.scaling import Scaling


def pixtral(head_dim: int, *, base: float = 10000.0, precision: str = "exact") -> Rope:
    """Return Pixtral's vision Rope: the frequencies of the whole head, even ones for h, odd ones for w.

    With f[i] = base ** (-2i / head_dim), the pairs are [f[0], f[2], ... by h, f[1], f[3], ... by w], split in halves
    over the head (transformers, models/pixtral/modeling_pixtral.py, `PixtralVisionRotaryEmbedding`). So h turns faster
    than w, unlike in `axial`.

    Parameters
    ----------
    head_dim : int
        A multiple of 4.
    base : float
    precision : {"exact", "float32"}
        As in `posenc.Rope`.

    Returns
    -------
    Rope
        Called with positions (h, w) of shape (2, seq) or (2, batch, seq).

    Raises
    ------
    TypeError, ValueError
        For another head_dim.

    Examples
    --------
    >>> from posenc import axes
    >>> axes.pixtral(8).inv_freq.tolist(), axes.pixtral(8).axis_of_freq.tolist()
    ([1.0, 0.01, 0.1, 0.001], [0, 0, 1, 1])
    """
    frequencies = unscaled(_multiple(head_dim, 4), check.base(base), precision)
    return from_bands(head_dim, [frequencies[0::2], frequencies[1::2]], layout="half", precision=precision)


def dinov3(
    head_dim: int,
    *,
    base: float | None = None,
    min_period: float | None = None,
    max_period: float | None = None,
    layout: str = "half",
    precision: str = "exact",
) -> Rope:
    """Return DINOv3's Rope, whose positions are patch centres in [-1, 1].

    inv_freq = 2 pi / period by `period_bands`, head_dim/4 of them for h and the same for w. A patch k of N has the
    coordinate 2 * (k + 0.5) / N - 1, N the number of patches along its axis (or the smaller or larger of both);
    class and register tokens are not rotated: coordinate 0 (facebookresearch/dinov3,
    dinov3/layers/rope_position_encoding.py; transformers, models/dinov3_vit/modeling_dinov3_vit.py; timm,
    layers/pos_embed_sincos.py, `RotaryEmbeddingDinoV3`).

    Parameters
    ----------
    head_dim : int
        A multiple of 4.
    base : float, optional
        100 in the released models; default 100 where no periods are given.
    min_period, max_period : float, optional
        Exclude `base`.
    layout : {"half", "interleaved"}
        "half" in DINOv3; timm has both.
    precision : {"exact", "float32"}
        As in `posenc.Rope`.

    Returns
    -------
    Rope
        Called with positions (h, w) of shape (2, seq) or (2, batch, seq).

    Raises
    ------
    TypeError, ValueError
        For another head_dim, or a base beside periods.

    Examples
    --------
    >>> import numpy as np
    >>> from posenc import axes
    >>> rope = axes.dinov3(64)
    >>> h, w = (2 * (np.indices((14, 16)).reshape(2, -1) + 0.5).T / (14, 16) - 1).T
    >>> q = np.ones((1, 6, 1 + 14 * 16, 64), np.float32)
    >>> rope(q, positions=np.pad(np.stack([h, w]), ((0, 0), (1, 0)))).shape  # a class token in front
    (1, 6, 225, 64)
    """
    if base is None and min_period is None and max_period is None:
        base = 100.0
    band = period_bands(
        _multiple(head_dim, 4) // 4, base=base, min_period=min_period, max_period=max_period, precision=precision
    )
    return from_bands(head_dim, [band, band], layout=layout, precision=precision)


def cogvideox(head_dim: int, *, base: float = 10000.0, precision: str = "exact") -> Rope:
    """Return CogVideoX's Rope: a quarter of the head for t, three eighths each for h and w, interleaved pairs.

    (diffusers, models/embeddings.py, `get_3d_rotary_pos_embed`.) Positions of h and w are linspace(start, stop *
    (n - 1) / n, n) of the crop, so fractional at other resolutions than the trained one.

    Parameters
    ----------
    head_dim : int
        A multiple of 16.
    base : float
    precision : {"exact", "float32"}
        As in `posenc.Rope`.

    Returns
    -------
    Rope
        Called with positions (t, h, w) of shape (3, seq) or (3, batch, seq).

    Raises
    ------
    TypeError, ValueError
        For another head_dim.

    Examples
    --------
    >>> from posenc import axes
    >>> import numpy as np
    >>> np.bincount(axes.cogvideox(64).axis_of_freq).tolist()
    [8, 12, 12]
    """
    share = _multiple(head_dim, 16) // 8
    widths = (2 * share, 3 * share, 3 * share)
    return axial(head_dim, layout="interleaved", axes=3, widths=widths, base=base, precision=precision)


def thirds(
    head_dim: int, *, layout: str, base: float = 10000.0, scaling: Scaling | None = None, precision: str = "exact"
) -> Rope:
    """Return a Rope of three blocks of 2 * (head_dim // 3 // 2) elements; what they leave of the head passes through.

    MiniMax-M3's vision tower, with half-split pairs (transformers, models/minimax_m3_vl/modeling_minimax_m3_vl.py,
    `MiniMaxM3VLVisionRotaryEmbedding`).

    Parameters
    ----------
    head_dim : int
        At least 6.
    layout : {"half", "interleaved", "interleaved_to_half"}
        As in `from_bands`.
    base, scaling, precision
        As in `axial`.

    Returns
    -------
    Rope
        Called with positions (t, h, w) of shape (3, seq) or (3, batch, seq).

    Raises
    ------
    TypeError, ValueError
        As `axial` does.

    Examples
    --------
    >>> from posenc import axes
    >>> axes.thirds(80, layout="half").rotary_dim
    78
    """
    widths = (2 * (check.integer("head_dim", head_dim, 6) // 3 // 2),) * 3
    return axial(head_dim, layout=layout, axes=3, widths=widths, base=base, scaling=scaling, precision=precision)


def wan(head_dim: int, *, base: float = 10000.0, precision: str = "exact") -> Rope:
    """Return Wan's Rope: 2 * (head_dim // 6) elements each for h and w, the rest for t, interleaved pairs.

    (diffusers, models/transformers/transformer_wan.py, `WanRotaryPosEmbed`, which computes in float64: so does
    precision "exact".) SkyReels-V2 and ChronoEdit share it; Cosmos has the same widths with half-split pairs.

    Parameters
    ----------
    head_dim : int
        Even, at least 6.
    base : float
    precision : {"exact", "float32"}
        As in `posenc.Rope`.

    Returns
    -------
    Rope
        Called with positions (t, h, w) of shape (3, seq) or (3, batch, seq).

    Raises
    ------
    TypeError, ValueError
        For another head_dim.

    Examples
    --------
    >>> from posenc import axes
    >>> import numpy as np
    >>> np.bincount(axes.wan(128).axis_of_freq).tolist()
    [22, 21, 21]
    """
    side = 2 * (check.integer("head_dim", head_dim, 6) // 6)
    widths = (_multiple(head_dim, 2) - 2 * side, side, side)
    return axial(head_dim, layout="interleaved", axes=3, widths=widths, base=base, precision=precision)


def ltx_video(hidden_size: int, *, base: float = 10000.0, precision: str = "exact") -> Rope:
    """Return LTX-Video's Rope, which turns the hidden vector of all heads together, before they are split.

    inv_freq = pi/2 * base ** linspace(0, 1, hidden_size // 6), growing up to base; t, h and w take turns, interleaved
    pairs, and the first hidden_size % 6 elements pass through. A position is 2 * x - 1, x the coordinate as a share of
    the trained extent (diffusers, models/transformers/transformer_ltx.py, `LTXVideoRotaryPosEmbed`). At base 10000 the
    last pair turns by 15,708 radians over half an extent, where diffusers' own float32 tables are off by up to 3e-3.

    Parameters
    ----------
    hidden_size : int
        Length of the vector that is rotated: heads * head_dim.
    base : float
    precision : {"exact", "float32"}
        As in `posenc.Rope`.

    Returns
    -------
    Rope
        Of head_dim hidden_size; called with (batch, seq, hidden_size) and positions (t, h, w) of shape (3, seq) or
        (3, batch, seq).

    Raises
    ------
    TypeError, ValueError
        For a hidden_size that is odd or below 12.

    Examples
    --------
    >>> from posenc import axes
    >>> rope = axes.ltx_video(2048)
    >>> rope.rotary_offset, rope.axis_of_freq[:4].tolist()
    (2, [0, 1, 2, 0])
    """
    count = check.integer("hidden_size", hidden_size, 12) // 6
    kind, base = kind_of(precision), check.base(base)
    powers = np.array([_exact.power(base, float(e)) for e in linspace(0.0, 1.0, count, kind)], kind)
    band = (powers * kind(_exact.TWO_PI / 2) / kind(2)).astype(np.float64)
    offset = _multiple(hidden_size, 2, "hidden_size") % 6
    return from_bands(
        hidden_size,
        [band] * 3,
        layout="interleaved",
        order="alternating",
        rotary_offset=offset,
        precision=precision,
    )


def _multiple(size: int, of: int, name: str = "head_dim") -> int:
    if check.integer(name, size, of) % of:
        raise ValueError(f"{name} must be a multiple of {of}, got {size}")
    return size
