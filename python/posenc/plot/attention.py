"""Attention by distance, as `posenc.checks.position_sanity_check` finds it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from posenc.checks._svg import FEWEST_ROWS
from posenc.checks.attention import AttentionReport
from posenc.plot._axes import COLOURS, GREY, axes_for, check_report, finish, plain_numbers, style, tokens

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_EVERY_TICK = 12  # heads and layers up to which each has its number
_MOST_HEADS = 400  # thin lines beyond which more would only be ink


def attention_by_distance(
    report: AttentionReport, *, heads: bool = True, law: bool = True, ax: Axes | None = None
) -> Axes:
    """Draw weight by distance, freed of row lengths: 1 where attention is even.

    Parameters
    ----------
    report : AttentionReport
    heads : bool
        Also draw every head, in thin lines.
    law : bool
        Also draw the better of the exponential and the power law.
    ax : Axes, optional

    Returns
    -------
    Axes
    """
    check_report(report, AttentionReport, "position_sanity_check")
    ax = axes_for(ax)
    past = report.past
    x = past.distances + 1.0
    if heads and len(report.profiles) > 1:
        for profile in report.profiles[:_MOST_HEADS]:
            ax.plot(x, _shown(profile), color=GREY, linewidth=0.5, alpha=min(0.6, 8 / len(report.profiles)))
    ax.plot(x, _shown(past.relative), **style(0), label="past" if report.future else "all heads")
    if report.future is not None:
        ax.plot(report.future.distances + 1.0, _shown(report.future.relative), **style(1), label="future")
    overall = report.overall
    if law and overall.law != "none":
        rate = getattr(overall, overall.law).rate
        fall = -rate * past.distances if overall.law == "exponential" else -rate * np.log1p(past.distances)
        curve = np.exp(fall - fall.max())
        used = past.relative > 0
        curve *= past.relative[used].sum() / curve[used].sum()
        text = f"$e^{{{-rate:.3g}\\,d}}$" if overall.law == "exponential" else f"$(1+d)^{{{-rate:.3g}}}$"
        ax.plot(x, _shown(curve), **style(3), label=f"{overall.law} law, {text}")
    ax.axhline(1, color=COLOURS[-1], linewidth=0.8, linestyle=(0, (3, 2)), label="even attention")
    ax.set_xscale("log")
    ax.set_yscale("log")
    often = x[past.counts >= FEWEST_ROWS * past.counts.max(initial=0)]
    ax.set_xlim(1, often[-1] if len(often) > 1 else 2)
    _limit(ax, past.relative)
    tokens(ax)
    plain_numbers(ax)
    title = f"Attention by distance: {overall.verdict}, locality {overall.locality:+.2f}"
    return finish(ax, title, "distance + 1 (tokens)", "weight, relative to even attention")


def attention_heads(report: AttentionReport, *, ax: Axes | None = None) -> Axes:
    """Draw the locality of every head: a column for each head, a row for each layer.

    Parameters
    ----------
    report : AttentionReport
        Of (layers, heads, queries, keys), or of one layer.
    ax : Axes, optional

    Returns
    -------
    Axes
    """
    check_report(report, AttentionReport, "position_sanity_check")
    from matplotlib.ticker import FixedLocator, MaxNLocator

    labels = [head.head for head in report.heads]
    rows = sorted({label[:-1] for label in labels})
    columns = 1 + max(label[-1] if label else 0 for label in labels)
    values = np.full((len(rows), columns), np.nan)
    ax = axes_for(ax, (max(4.0, 1.8 + 0.38 * columns), max(3.2, 1.4 + 0.3 * len(rows))))
    for head in report.heads:
        row, column = rows.index(head.head[:-1]), head.head[-1] if head.head else 0
        values[row, column] = head.locality
        if head.verdict != "decays":
            ax.plot(column, row, marker="x", color="black", markersize=5, markeredgewidth=1.2)
    image = ax.imshow(values, cmap="PuOr", vmin=-1, vmax=1, interpolation="nearest", aspect="auto")
    bar = ax.figure.colorbar(image, ax=ax, shrink=0.85)
    bar.set_label("locality (1 near, 0 even, \N{MINUS SIGN}1 far)")
    bar.outline.set_visible(False)
    count = sum(head.verdict == "decays" for head in report.heads)
    title = f"{count} of {len(report.heads)} heads decay (crosses: not)"
    for axis, n in ((ax.xaxis, columns), (ax.yaxis, len(rows))):
        axis.set_major_locator(FixedLocator(range(n)) if n <= _EVERY_TICK else MaxNLocator(integer=True))
    ax = finish(ax, title, "head", "layer", legend=False, grid=False)
    ax.spines[:].set_visible(False)
    return ax


def _shown(values: np.ndarray) -> np.ndarray:
    """Return values with gaps where a logarithmic axis has no place for them."""
    return np.where(values > 0, values, np.nan)


def _limit(ax: Axes, relative: np.ndarray) -> None:
    """Show six powers of ten at most: beyond that is the rounding of the weights."""
    used = relative[relative > 0]
    if len(used):
        top = max(2.0, float(used.max()) * 2)
        ax.set_ylim(max(float(used.min()) / 2, top * 1e-6) if used.min() < 0.5 else 0.5, top)
