"""Small pictures for notebooks, drawn without a plotting library: one panel, a few curves."""

from __future__ import annotations

import html
import math
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

    Floats = npt.NDArray[np.float64]

    from posenc.checks.attention import AttentionReport

#: blue, vermilion and green of Okabe and Ito, which all eyes tell apart; grey for what is compared with
COLOURS, GREY, EVEN = ("#0072b2", "#d55e00", "#009e73"), "#767676", "even attention"
#: distances that a smaller share of the rows see are noise
FEWEST_ROWS = 0.05
_WIDTH, _HEIGHT, _LEFT, _BOTTOM, _EDGE = 560, 240, 64, 44, 14
_MOST_POINTS = 300


def curves_svg(curves: list[tuple[str, Floats, Floats]], x_label: str, y_label: str) -> str:
    """Return curves (name, x, y) on logarithmic axes as an <svg> element; points that are not positive are left out."""
    kept = [(name, *_positive(x, y)) for name, x, y in curves]
    kept = [curve for curve in kept if len(curve[1]) > 1]
    if not kept:
        return ""
    xs, ys = (np.concatenate([curve[i] for curve in kept]) for i in (1, 2))
    x_range, y_range = _range(xs), _range(ys)
    parts = [_axis(x_range, y_range, x_label, y_label)]
    for i, (name, x, y) in enumerate(kept):
        colour = GREY if name == EVEN else COLOURS[i % len(COLOURS)]
        points = " ".join(f"{_x(a, x_range):.1f},{_y(b, y_range):.1f}" for a, b in zip(x, y, strict=True))
        parts.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="1.8"/>')
        at = _EDGE + 14 + 16 * i
        parts.append(
            f'<text x="{_WIDTH - _EDGE}" y="{at}" text-anchor="end" fill="{colour}">{html.escape(name)}</text>'
        )
    style = "font:12px sans-serif;max-width:100%"
    size = f'viewBox="0 0 {_WIDTH} {_HEIGHT}" width="{_WIDTH}" height="{_HEIGHT}"'
    title = f"<title>{html.escape(y_label)} against {html.escape(x_label)}</title>"
    return f'<svg xmlns="http://www.w3.org/2000/svg" role="img" {size} style="{style}">{title}{"".join(parts)}</svg>'


def attention_svg(report: AttentionReport) -> str:
    """Return weight by distance, relative to even attention; distances that few rows see are left out."""
    sides = [("past", report.past)] + ([("future", report.future)] if report.future else [])
    curves: list[tuple[str, Floats, Floats]] = []
    for name, side in sides:
        often = side.counts >= FEWEST_ROWS * side.counts.max(initial=0.0)
        curves.append((name, side.distances[often] + 1.0, side.relative[often]))
    longest = max(float(x.max(initial=1.0)) for _, x, _ in curves)
    curves.append((EVEN, np.array([1.0, max(longest, 2.0)]), np.ones(2)))
    return curves_svg(curves, "distance + 1 (tokens)", "weight, even attention = 1")


def _positive(x: Floats, y: Floats) -> tuple[Floats, Floats]:
    """Return the points that a logarithmic axis has, at most some hundreds of them, evenly spaced along it."""
    keep = np.flatnonzero((x > 0) & (y > 1e-12))
    if len(keep) > _MOST_POINTS:
        keep = keep[np.unique(np.geomspace(1, len(keep), _MOST_POINTS).astype(int) - 1)]
    return x[keep], y[keep]


def _range(values: Floats) -> tuple[float, float]:
    low, high = math.log10(values.min()), math.log10(values.max())
    return (low, high) if high - low > 0.3 else (low - 0.5, high + 0.5)


def _x(value: float, over: tuple[float, float]) -> float:
    return _LEFT + (math.log10(value) - over[0]) / (over[1] - over[0]) * (_WIDTH - _LEFT - _EDGE)


def _y(value: float, over: tuple[float, float]) -> float:
    return _HEIGHT - _BOTTOM - (math.log10(value) - over[0]) / (over[1] - over[0]) * (_HEIGHT - _BOTTOM - _EDGE)


def _axis(x_range: tuple[float, float], y_range: tuple[float, float], x_label: str, y_label: str) -> str:
    """Return the frame, with a tick at each power of ten."""
    bottom, right = _HEIGHT - _BOTTOM, _WIDTH - _EDGE
    parts = [f'<path d="M{_LEFT} {_EDGE}V{bottom}H{right}" fill="none" stroke="currentColor" opacity="0.6"/>']
    for power in range(math.ceil(x_range[0]), math.floor(x_range[1]) + 1):
        at = _x(10.0**power, x_range)
        parts.append(f'<path d="M{at:.1f} {bottom}v4" stroke="currentColor"/>')
        parts.append(
            f'<text x="{at:.1f}" y="{bottom + 17}" text-anchor="middle" fill="currentColor">{10**power:,}</text>'
        )
    powers = range(math.ceil(y_range[0]), math.floor(y_range[1]) + 1)
    for power in powers[:: max(1, len(powers) // 5)]:
        at = _y(10.0**power, y_range)
        parts.append(f'<path d="M{_LEFT} {at:.1f}h-4" stroke="currentColor"/>')
        parts.append(
            f'<text x="{_LEFT - 7}" y="{at + 4:.1f}" text-anchor="end" fill="currentColor">{10.0**power:g}</text>'
        )
    middle = (bottom + _EDGE) / 2
    parts.append(
        f'<text x="{(right + _LEFT) / 2}" y="{_HEIGHT - 8}" text-anchor="middle" fill="currentColor">'
        f"{html.escape(x_label)}</text>"
        f'<text transform="translate(14 {middle}) rotate(-90)" text-anchor="middle" fill="currentColor">'
        f"{html.escape(y_label)}</text>"
    )
    return "".join(parts)
