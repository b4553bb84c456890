"""Relative biases of image windows: Swin, SwinV2, BEiT.

Tokens of a window count row by row. Which entry of a table belongs to two of them is index arithmetic; the entry is
added to the scores on the way, for every window and image of the batch.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from posenc import _exact
from posenc import _parameters as check
from posenc.bias import _scores
from posenc.bias.objects import Bias

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy.typing as npt

KINDS = ("swin", "beit")
LARGEST_SIDE = 1 << 10


def window_index(window: Any, *, kind: str = "swin") -> npt.NDArray[np.int64]:
    """Return which entry of the table belongs to query token i and key token j of a window.

    (dh + H - 1) * (2W - 1) + (dw + W - 1), with (dh, dw) the query's row and column minus the key's.

    Parameters
    ----------
    window : int or (int, int)
        Height H and width W in tokens.
    kind : {"swin", "beit"}
        "beit": a cls token comes first, with three more entries at the end: cls to tokens, tokens to cls, cls to
        itself.

    Returns
    -------
    ndarray of int64, shape (H * W, H * W), or one more either way for "beit"

    Raises
    ------
    TypeError, ValueError

    Notes
    -----
    Liu et al., arXiv:2103.14030, and `relative_position_index` of its code, timm and transformers; for BEiT
    `gen_relative_position_index` with class token.

    Examples
    --------
    >>> from posenc.bias import window_index
    >>> window_index((1, 2)), window_index((1, 2), kind="beit")
    (array([[1, 0],
           [2, 1]]), array([[5, 3, 3],
           [4, 1, 0],
           [4, 2, 1]]))
    """
    height, width = sides_of("window", window)
    return _index(height, width, check.choice("kind", kind, KINDS)).astype(np.int64)


def sides_of(name: str, value: Any) -> tuple[int, int]:
    """Return height and width in tokens, checked."""
    sides = tuple(value) if isinstance(value, (tuple, list)) else (value, value)
    if len(sides) != 2:
        raise ValueError(f"{name} must be an int or a pair (height, width), got {check.shown(value)}")
    height, width = (check.integer(f"{name}[{i}]", side, 1, LARGEST_SIDE) for i, side in enumerate(sides))
    return height, width


@lru_cache(maxsize=16)
def _index(height: int, width: int, kind: str) -> npt.NDArray[np.int32]:
    """Return it as C takes it; kept, since it is as large as the scores of one head."""
    row, column = np.divmod(np.arange(height * width, dtype=np.int32), np.int32(width))
    dh, dw = (at[:, None] - at + side - 1 for at, side in ((row, height), (column, width)))
    index = np.asarray(dh * (2 * width - 1) + dw)
    if kind == "beit":
        entries = (2 * height - 1) * (2 * width - 1)
        index = np.pad(index, ((1, 0), (1, 0)))
        index[0], index[:, 0], index[0, 0] = entries, entries + 1, entries + 2
    index.flags.writeable = False
    return index


def swinv2_coordinates(window: Any, *, pretrained_window: Any = None) -> npt.NDArray[np.float32]:
    """Return SwinV2's log-spaced coordinates of each relative position, the input of its small network.

    sign(x) * log2(1 + 8 * abs(x) / (side - 1)) / 3 along each axis, with side that of the window the model was
    trained on.

    Parameters
    ----------
    window : int or (int, int)
    pretrained_window : int or (int, int), optional
        The window of pretraining, where it was another one. Default (and 0): window.

    Returns
    -------
    ndarray of float32, shape (2H - 1, 2W - 1, 2)
        Correctly rounded. Where a side is 1, all is 0 along it.

    Raises
    ------
    TypeError, ValueError

    Notes
    -----
    Liu et al., arXiv:2111.09883, equation 4; `relative_coords_table` of its code, timm and transformers.

    Examples
    --------
    >>> from posenc.bias import swinv2_coordinates
    >>> swinv2_coordinates((1, 3))[0, :, 1].round(3)
    array([-1.057, -0.774,  0.   ,  0.774,  1.057], dtype=float32)
    """
    sides = sides_of("window", window)
    given = pretrained_window is None or pretrained_window in (0, (0, 0), [0, 0])
    trained = sides if given else sides_of("pretrained_window", pretrained_window)
    axes = [_log_spaced(side, other) for side, other in zip(sides, trained, strict=True)]
    return np.stack(np.meshgrid(*axes, indexing="ij"), -1).astype(np.float32)


def _log_spaced(side: int, trained: int) -> npt.NDArray[np.float64]:
    if side == 1:
        return np.zeros(1)
    if trained == 1:
        raise ValueError("pretrained_window must have sides of 2 at least where window has, got 1")
    far = [_exact.log(1 + 8 * x / (trained - 1)) / (3 * _exact.log(2.0)) for x in range(1, side)]
    return np.array([*(-x for x in reversed(far)), 0.0, *far])


def add_window_bias(scores: Any, table: Any, window: Any, *, kind: str = "swin", out: Any = None) -> Any:
    """Add a window's relative bias to scores in one pass: table[window_index[i, j], head], looked up on the way.

    Parameters
    ----------
    scores : NumPy array or torch CPU tensor, shape (..., heads, tokens, tokens)
        float32, float64, float16 or bfloat16; any strides.
    table : array, shape (entries, heads)
        `relative_position_bias_table`; of SwinV2 what its network and 16 * sigmoid make of it. (2H - 1) * (2W - 1)
        entries, three more for "beit".
    window, kind
        As in `window_index`.
    out : array, optional
        Where to write; may be scores itself.

    Returns
    -------
    array
        `out` where given, else a new array like scores.

    Raises
    ------
    TypeError, ValueError, BufferError

    Examples
    --------
    >>> import numpy as np
    >>> from posenc.bias import add_window_bias
    >>> add_window_bias(np.zeros((1, 2, 2), np.float32), np.array([[10.0], [20.0], [30.0]]), (1, 2))
    array([[[20., 10.],
            [30., 20.]]], dtype=float32)
    """
    height, width = sides_of("window", window)
    index = _index(height, width, check.choice("kind", kind, KINDS))
    shape, own = _scores.shape_of(scores), _scores.shape_of(table)
    entries = (2 * height - 1) * (2 * width - 1) + (3 if kind == "beit" else 0)
    if len(own) != 2 or own[0] != entries:
        raise ValueError(f"table must have shape ({entries}, heads) for window ({height}, {width}), got {own}")
    where = _scores.where_of(shape, None, None)
    return _scores.add(scores, out, where, _scores.mask_of(False, None, 0), (table, "nh", index, 0, 1.0))


class WindowBias(Bias):
    """A window's relative bias as a value; positions are tokens of the window, counted row by row.

    Parameters
    ----------
    table : array, shape (entries, heads)
    window, kind
        As in `window_index`.

    Examples
    --------
    >>> import numpy as np
    >>> from posenc.bias import WindowBias
    >>> WindowBias(np.arange(9.0)[:, None], 2)([0], [3])
    array([[0.]])
    """

    def __init__(self, table: Any, window: Any, *, kind: str = "swin") -> None:
        self._index = window_index(window, kind=kind)
        values = check.plain_array("table", table)
        if values.ndim != 2 or len(values) != self._index.max() + 1:
            raise ValueError(f"table must have shape ({self._index.max() + 1}, heads), got {values.shape}")
        self._table, self._options = table, {"window": window, "kind": kind}
        self._values = values.astype(np.float64)
        self.heads = self._values.shape[1]

    def __call__(self, query_positions: Any, key_positions: Any) -> npt.NDArray[np.float64]:
        """Return the table's values; see `Bias`."""
        query, key = np.asarray(query_positions), np.asarray(key_positions)
        if query.dtype.kind not in "iu" or key.dtype.kind not in "iu":
            raise TypeError("positions must be integers: tokens of the window")
        if min(query.min(initial=0), key.min(initial=0)) < 0:
            raise IndexError("positions must not be negative: tokens of the window")
        return np.asarray(np.moveaxis(self._values[self._index[query, key]], -1, 0))

    def add(self, scores: Any, **options: Any) -> Any:
        """Call `posenc.bias.add_window_bias`, of the whole window; see `Bias`."""
        return add_window_bias(scores, self._table, **self._options, **options)

    def score_mod(self, offset: int = 0) -> Callable[[Any, Any, Any, Any, Any], Any]:
        """Return a score function; see `Bias`."""
        import torch

        table, index = torch.from_numpy(self._values.astype(np.float32)), torch.from_numpy(self._index)
        first = check.integer("offset", offset, 0, 1 << 20)

        def score_mod(score: Any, batch: Any, head: Any, query: Any, key: Any) -> Any:
            return score + table[index[query + first, key], head]

        return score_mod
