"""Maps: what ALiBi and T5 add to scores, and tables of cosines."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from posenc import _parameters as check
from posenc.bias import Alibi, Bias
from posenc.plot._axes import axes_for, finish
from posenc.rotary import Rope, as_rope

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def bias_map(bias: Any, length: int = 64, *, head: int = 0, causal: bool = False, ax: Axes | None = None) -> Axes:
    """Draw what a bias adds to the scores of one head.

    Parameters
    ----------
    bias : Bias, or array_like of ALiBi slopes
        `posenc.bias.Alibi`, `posenc.bias.T5` or the like.
    length : int
        Queries and keys, in tokens.
    head : int
    causal : bool
        Leave out what lies behind the query.
    ax : Axes, optional

    Returns
    -------
    Axes

    Examples
    --------
    >>> ax = bias_map(posenc.alibi_slopes(8), 32, head=2, causal=True)
    >>> ax.get_title("left")
    'Bias of head 2'
    """
    if not isinstance(bias, Bias):
        bias = Alibi(bias)
    n = check.integer("length", length, 1)
    head = check.integer("head", head, 0, bias.heads - 1)
    values = np.asarray(bias(np.arange(n)[:, None], np.arange(n))[head])
    if check.flag("causal", causal):
        values = np.ma.masked_where(np.arange(n)[:, None] < np.arange(n), values)
    ax = axes_for(ax, (5.6, 4.6))
    low, high = float(values.min()), float(values.max())
    if low < 0 < high:
        limit = max(-low, high)
        image = ax.imshow(values, cmap="PuOr", vmin=-limit, vmax=limit, interpolation="nearest")
    else:
        image = ax.imshow(values, cmap="cividis", interpolation="nearest")
    _bar(ax, image, "added to the score (logits)")
    return finish(
        ax, f"Bias of head {head}", "key position (tokens)", "query position (tokens)", legend=False, grid=False
    )


def rotation_table(rope: Rope, positions: Any = 256, *, part: str = "cos", ax: Axes | None = None) -> Axes:
    """Draw a table of cosines (or sines): a row for each position, a column for each pair.

    Parameters
    ----------
    rope : Rope
        Of one position axis.
    positions : int or array_like, shape (n,)
        An int n means 0 .. n-1.
    part : {"cos", "sin"}
    ax : Axes, optional

    Returns
    -------
    Axes
    """
    as_rope(rope)
    part = check.choice("part", part, ("cos", "sin"))
    where = np.arange(positions) if isinstance(positions, int) else check.plain_array("positions", positions)
    values = rope.table(where)[("cos", "sin").index(part)]
    ax = axes_for(ax, (5.6, 4.6))
    limit = float(rope.attention_factor)
    edges = np.append(where, where[-1] + (where[-1] - where[-2] if len(where) > 1 else 1))
    image = ax.pcolormesh(np.arange(values.shape[1] + 1), edges, values, cmap="PuOr", vmin=-limit, vmax=limit)
    ax.invert_yaxis()
    _bar(ax, image, {"cos": "cosine", "sin": "sine"}[part])
    name = {"cos": "Cosines", "sin": "Sines"}[part]
    return finish(ax, f"{name} of each pair", "pair (fast to slow)", "position (tokens)", legend=False, grid=False)


def _bar(ax: Axes, image: Any, label: str) -> None:
    bar = ax.figure.colorbar(image, ax=ax, shrink=0.85)
    bar.set_label(label)
    bar.outline.set_visible(False)
