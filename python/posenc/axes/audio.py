"""Audio: positions that are times in seconds, multiplied with places in a window."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from posenc import _exact
from posenc import _parameters as check
from posenc.axes._assemble import axial

if TYPE_CHECKING:
    import numpy.typing as npt

    from posenc.rotary import Rope


def musicflamingo(head_dim: int, *, rotary_dim: int, base: float, precision: str = "exact") -> Rope:
    """Return Music Flamingo's Rope over audio frames: two axes of rotary_dim elements each, interleaved pairs.

    Both axes have inv_freq[i] = base ** (-2i / rotary_dim); their positions are those of `musicflamingo_positions`. It
    turns hidden vectors, not queries and keys (transformers, models/musicflamingo/modeling_musicflamingo.py,
    `MusicFlamingoRotaryEmbedding`, `apply_rotary_time_emb`).

    Parameters
    ----------
    head_dim : int
        Length of the vector that is rotated, the audio encoder's hidden size.
    rotary_dim : int
        Elements of one axis, int(head_dim * partial_rotary_factor); twice as many are rotated.
    base : float
        `rope_theta` of the config.
    precision : {"exact", "float32"}
        As in `posenc.Rope`.

    Returns
    -------
    Rope
        Called with positions (window, time) of shape (2, seq) or (2, batch, seq).

    Raises
    ------
    TypeError, ValueError
        For widths that do not fit.

    Examples
    --------
    >>> from posenc import axes
    >>> axes.musicflamingo(1280, rotary_dim=256, base=1200.0).rotary_dim
    512
    """
    width = check.integer("rotary_dim", rotary_dim, 2)
    return axial(head_dim, layout="interleaved", widths=(width, width), base=base, precision=precision)


def musicflamingo_positions(
    timestamps: npt.ArrayLike, max_positions: int, *, frame_step: float = 0.01
) -> npt.NDArray[np.float64]:
    """Return the positions of audio frames, in windows of as many frames as a row has.

    With t the time of frame k and t0 that of the window's first frame: -2 pi t * round(t0 / duration) / max_positions
    along the window axis, and -2 pi t * 2 pi k / max_positions along the time axis; duration = 4 * frame_step * frames,
    rounded half to even (transformers, models/musicflamingo/modeling_musicflamingo.py,
    `MusicFlamingoRotaryEmbedding.forward`). The signs turn clockwise.

    Parameters
    ----------
    timestamps : array_like of float, shape (windows, frames)
        In seconds.
    max_positions : int
        `max_position_embeddings` of the config, to which transformers sets rope_theta.
    frame_step : float
        Seconds a frame of the encoder's input; four make one of its output.

    Returns
    -------
    ndarray of float64, shape (2, windows, frames)

    Raises
    ------
    TypeError, ValueError
        For timestamps of another shape, more frames than positions, or numbers that are not positive.

    Examples
    --------
    >>> import numpy as np
    >>> from posenc import axes
    >>> axes.musicflamingo_positions(0.04 * np.arange(1500).reshape(2, 750), 1200).shape
    (2, 2, 750)
    """
    times = check.plain_array("timestamps", timestamps)
    if times.ndim != 2 or not times.size or times.dtype.kind not in "iuf":
        raise ValueError(f"timestamps must be numbers of shape (windows, frames), got {times.dtype} of {times.shape}")
    frames, most = times.shape[1], check.integer("max_positions", max_positions, 1)
    if frames > most:
        raise ValueError(f"max_positions must be at least the number of frames ({frames}), got {most}")
    turned: Any = -times.astype(np.float64) * _exact.TWO_PI
    window = np.round(times[:, :1] / (check.positive("frame_step", frame_step) * 4 * frames)) / most
    return np.stack([turned * window, turned * (np.arange(frames) / most * _exact.TWO_PI)])
