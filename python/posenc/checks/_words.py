"""A rotation that was named, as facts and as one line."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from posenc.checks import _pairs
    from posenc.checks._naming import Named


def direction_of(named: Named) -> int:
    """Return -1 for a clockwise rotation, 1 for the usual one, 0 where pairs differ."""
    signs = set(np.sign(named.inv_freq[named.inv_freq != 0]).tolist())
    return int(signs.pop()) if len(signs) == 1 else 0


def facts_of(
    layout: _pairs.Layout,
    named: Named,
    rope: Any,
    factor: float,
    origin: float,
    sign: int,
    other: float,
    gap: float,
    precision: str,
) -> dict[str, Any]:
    distinct = gap < 0.2 * other
    return {
        "layout": layout.name,
        "rotary_dim": layout.rotary_dim,
        "rotary_offset": layout.rotary_offset,
        "direction": {1: "counterclockwise", -1: "clockwise", 0: "both"}[sign],
        "base": named.base,
        "scaling": None if named.scaling is None else repr(named.scaling),
        "attention_factor": factor,
        "position_offset": origin,
        "axes": rope.axes,
        "sections": named.sections,
        "axes_order": named.order,
        "axis_of_freq": None if getattr(rope, "axis_of_freq", None) is None else rope.axis_of_freq.tolist(),
        "angles": precision if distinct else "exact or float32: no probe tells them apart",
        "table_precision": None,
    }


def words_of(
    layout: _pairs.Layout, named: Named, head_dim: int, factor: float, origin: float, facts: dict[str, Any]
) -> str:
    parts = [layout.name]
    if layout.rotary_dim != head_dim:
        at = f" from element {layout.rotary_offset}" if layout.rotary_offset else ""
        parts.append(f"{layout.rotary_dim} of {head_dim} elements{at}")
    parts.append(named.words)
    if facts["direction"] != "counterclockwise":
        parts.append(facts["direction"])
    if factor != 1:
        parts.append(f"attention factor {factor:.8g}")
    if origin:
        parts.append(f"positions {origin:+g}")
    return ", ".join(parts)
