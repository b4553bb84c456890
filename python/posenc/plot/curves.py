"""Curves: decay by distance, wavelengths against a context, and what float32 recipes cost by position."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from posenc import _parameters as check
from posenc.checks.decay import DecayReport
from posenc.plot._axes import COLOURS, GREY, axes_for, check_report, finish, style, tokens
from posenc.rotary import Rope, as_rope

if TYPE_CHECKING:
    import numpy.typing as npt
    from matplotlib.axes import Axes

    Floats = npt.NDArray[np.float64]

_BINS_PER_DECADE, _ALONE = 32, 32  # distances below _ALONE are drawn one by one


def decay(report: DecayReport, *, what: str | None = None, ax: Axes | None = None) -> Axes:
    """Draw the curves of `posenc.checks.rotary_decay`.

    Parameters
    ----------
    report : DecayReport
        Where values swing within less than a line's width, the line is their mean and a band shows their range.
    what : {"expectation", "bound", "bias"}, optional
        Rotary encodings have the expectation of q.k and Su's upper bound, both relative to distance 0; biases have what
        they add to a score, all heads. Default: the expectation where there is a rotary encoding.
    ax : Axes, optional

    Returns
    -------
    Axes

    Examples
    --------
    >>> from posenc.checks import rotary_decay
    >>> ax = decay(rotary_decay(posenc.Rope(64, layout="half"), 512))
    >>> ax.get_xlabel()
    'distance (tokens)'
    """
    check_report(report, DecayReport, "rotary_decay")
    kinds = {curve.kind for curve in report.curves}
    what = check.choice(
        "what", what or ("expectation" if "rotary" in kinds else "bias"), ("expectation", "bound", "bias")
    )
    ax = axes_for(ax)
    kind = "bias" if what == "bias" else "rotary"
    curves = [curve for curve in report.curves if curve.kind == kind]
    if not curves:
        raise ValueError(f"the report has no {kind} curves; its kinds: {', '.join(sorted(kinds))}")
    for i, curve in enumerate(curves):
        if curve.bound is None:
            values = curve.values.T
            lines = ax.plot(report.distances, values, **style(i), alpha=1 if values.shape[1] == 1 else 0.7)
            lines[0].set_label(curve.name)
        else:
            y = curve.values if what == "expectation" else curve.bound / curve.bound[0]
            x, mean, low, high = binned(report.distances, y)
            ax.fill_between(x, low, high, color=style(i)["color"], alpha=0.13, linewidth=0)
            ax.plot(x, mean, **style(i), label=curve.name)
    if what != "bias":
        ax.set_xscale("symlog", linthresh=1, linscale=0.3)
        tokens(ax)
    ax.set_xlim(report.distances[0], report.distances[-1])
    if what == "expectation":
        ax.axhline(0, color=GREY, linewidth=0.8)
    title, label = {
        "expectation": (
            "Expected q\N{DOT OPERATOR}k by distance",
            "q\N{DOT OPERATOR}k, relative to unscaled at distance 0",
        ),
        "bound": ("Upper bound of q\N{DOT OPERATOR}k by distance (RoFormer, eq. 37)", "bound, relative to distance 0"),
        "bias": ("Bias of the scores by distance", "added to the score (logits)"),
    }[what]
    return finish(ax, title, "distance (tokens)", label)


def binned(x: Floats, y: Floats) -> tuple[Floats, Floats, Floats, Floats]:
    """Return x, and mean, least and largest y over narrow bins of a logarithmic axis; few points stay as they are.

    Sums of cosines swing faster than a picture has points: their mean is the line, their range the band behind it.
    """
    if len(x) <= _BINS_PER_DECADE:
        return x, y, y, y
    which = np.where(x < _ALONE, x, _ALONE + np.floor(_BINS_PER_DECADE * np.log10(np.maximum(x, 1) / _ALONE)))
    starts = np.flatnonzero(np.diff(which, prepend=-1.0))
    count = np.diff(starts, append=len(x))
    middle = np.add.reduceat(x, starts) / count
    return middle, np.add.reduceat(y, starts) / count, np.minimum.reduceat(y, starts), np.maximum.reduceat(y, starts)


def wavelengths(ropes: Any, *, context: int | None = None, trained: int | None = None, ax: Axes | None = None) -> Axes:
    """Draw the wavelength of each pair against the length of the context, with what a scaling does to it.

    Parameters
    ----------
    ropes : Rope, or mapping of names to Ropes
        The first is the one to compare with. Those that depend on the length are taken at `context`.
    context, trained : int, optional
        Tokens; drawn as lines. Pairs above a line never complete a turn within it; those above `trained` had not in
        training.
    ax : Axes, optional

    Returns
    -------
    Axes
    """
    named = ropes if isinstance(ropes, Mapping) else {"wavelength": ropes}
    ax = axes_for(ax)
    most = 0.0
    for i, (name, rope) in enumerate(named.items()):
        if not isinstance(rope, Rope):
            raise TypeError(f"ropes must be a posenc.Rope or a mapping of names to them, got {check.shown(rope)}")
        lengths = (rope if context is None else rope.at(context)).wavelengths
        pairs = np.arange(len(lengths))
        marker = {"marker": "o", "markersize": 3} if len(lengths) <= 64 else {}
        ax.plot(pairs, lengths, **style(i), **marker, label=str(name))  # type: ignore[arg-type]
        most = max(most, float(lengths[np.isfinite(lengths)].max(initial=1.0)))
    ax.set_yscale("log")
    right = len(pairs) - 0.5
    for length, text, colour in ((trained, "trained on", GREY), (context, "context", COLOURS[-1])):
        if length is not None:
            ax.axhline(length, color=colour, linewidth=1, linestyle=(0, (3, 2)))
            ax.annotate(
                f"{text} {length:,} tokens",
                (0, length),
                xytext=(2, 3),
                textcoords="offset points",
                fontsize=9,
                color=colour,
            )
    if context is not None:
        ax.axhspan(context, max(2 * most, 4 * context), color=GREY, alpha=0.12, linewidth=0)
        ax.annotate(
            "pairs here never complete a turn",
            (0, max(2 * most, 4 * context)),
            xytext=(2, -4),
            textcoords="offset points",
            va="top",
            fontsize=9,
            color=GREY,
        )
        ax.set_ylim(top=max(2 * most, 4 * context))
    ax.set_xlim(-0.5, right)
    tokens(ax, axis="y")
    ax = finish(ax, "Wavelength of each pair", "pair (fast to slow)", "wavelength (tokens per turn)")
    if (legend := ax.get_legend()) is not None:
        legend.set_loc("lower right")
    return ax


def table_error(
    rope: Rope, positions: Any = None, *, precisions: Sequence[str] = ("exact", "float32"), ax: Axes | None = None
) -> Axes:
    """Draw the largest error of a row of cosines and sines, by position, for the exact recipe and the float32 one.

    The truth is the cosine of position * base ** (-2i/rotary_dim) in float64, made without rounding the frequency.

    Parameters
    ----------
    rope : Rope
        One position axis; a base, so that other precisions can be made, and scalings that do not depend on length.
    positions : array_like of int, optional
        In tokens. Default: 400 of them, evenly spaced on a logarithmic axis up to a million.
    precisions : sequence of {"exact", "float32"}
    ax : Axes, optional

    Returns
    -------
    Axes
    """
    as_rope(rope)
    if positions is None:
        positions = np.geomspace(1, 1e6, 400).round()
    where = np.unique(check.plain_array("positions", positions))
    ax = axes_for(ax)
    true_cos, true_sin = rope._replace(precision="exact").table(where, dtype=np.float64)
    for i, precision in enumerate(precisions):
        cos, sin = rope._replace(precision=check.choice("precisions", precision, ("exact", "float32"))).table(where)
        error = np.maximum(np.abs(cos - true_cos).max(1), np.abs(sin - true_sin).max(1))
        ax.plot(where, np.maximum(error, 1e-12), **style(i), label=f'precision="{precision}"')
    ends = (
        (2.0**-9, "half an ulp of bfloat16 at 1", 0, "left"),
        (2.0**-25, "half an ulp of float32 below 1", -1, "right"),
    )
    for ulp, name, end, side in ends:
        ax.axhline(ulp, color=GREY, linewidth=0.8, linestyle=(0, (3, 2)))
        at = (max(float(where[end]), 1.0), ulp)
        ax.annotate(name, at, xytext=(0, 3), textcoords="offset points", fontsize=8, color=GREY, ha=side)
    ax.set_xscale("log")
    ax.set_yscale("log")
    tokens(ax)
    return finish(ax, "Error of cosines and sines by position", "position (tokens)", "largest error in the row")
