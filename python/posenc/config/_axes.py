"""How several position axes share the frequencies of a head, by the names that the family tables use."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from posenc import _parameters as check
from posenc import axes
from posenc._frequencies import unscaled
from posenc.axes import BlockRope, UnequalRope
from posenc.rotary import Rope

Rotation = Rope | BlockRope | UnequalRope


@dataclass(frozen=True)
class Head:
    """What turns: the numbers that every scheme needs."""

    head_dim: int
    rotary_dim: int
    layout: str
    base: float
    scaling: Any
    sections: tuple[int, ...]
    precision: str
    config: Mapping[str, Any]


def _mrope(order: str) -> Callable[[Head], Rope]:
    def build(head: Head) -> Rope:
        return axes.mrope(
            head.head_dim,
            head.sections,
            layout=head.layout,
            order=order,
            base=head.base,
            rotary_dim=head.rotary_dim,
            scaling=head.scaling,
            precision=head.precision,
        )

    return build


def _rows_and_columns(head: Head) -> Rope:
    """Return NeoMME's: two axes take turns over the whole rotated part."""
    pairs = head.rotary_dim // 2
    return _mrope("interleaved")(replace(head, sections=(pairs - pairs // 2, pairs // 2)))


def _axial(which: tuple[int, ...], order: str = "blocks") -> Callable[[Head], Rope]:
    def build(head: Head) -> Rope:
        return axes.axial(
            head.head_dim,
            layout=head.layout,
            axes=which,
            base=head.base,
            order=order,
            scaling=head.scaling,
            precision=head.precision,
        )

    return build


def _thirds(head: Head) -> Rope:
    """Return MiniMax-M3's: three blocks of an even width, the rest of the head passes through."""
    width = 2 * (head.head_dim // 3 // 2)
    return axes.axial(
        head.head_dim,
        layout=head.layout,
        axes=3,
        widths=(width,) * 3,
        base=head.base,
        scaling=head.scaling,
        precision=head.precision,
    )


def _pixtral(head: Head) -> Rope:
    return axes.pixtral(head.head_dim, base=head.base, precision=head.precision)


def _audio_time(head: Head) -> Rope:
    """Return MusicFlamingo's: two axes with the same frequencies, one block after the other."""
    inv_freq = unscaled(head.rotary_dim, head.base, head.precision)
    return axes.from_bands(head.head_dim, [inv_freq, inv_freq], layout=head.layout, precision=head.precision)


def _grid_over_all_heads(head: Head) -> Rope:
    """Return EfficientLoFTR's: rows and columns take turns over the hidden size, before it is split into heads."""
    inv_freq = unscaled(head.rotary_dim, head.base, head.precision)
    return axes.from_bands(
        2 * head.rotary_dim, [inv_freq, inv_freq], layout=head.layout, order="alternating", precision=head.precision
    )


def _dinov3(head: Head) -> Rope:
    return axes.dinov3(head.head_dim, base=head.base, layout=head.layout, precision=head.precision)


def _blocks(head: Head) -> BlockRope:
    return axes.axial_blocks(head.head_dim, base=head.base, scaling=head.scaling, precision=head.precision)


def _vjepa2(head: Head) -> UnequalRope:
    return axes.vjepa2(head.head_dim, precision=head.precision)


def _hunyuan_vl(head: Head) -> UnequalRope:
    return axes.hunyuan_vl(head.head_dim, head.sections, base=head.base, scaling=head.scaling, precision=head.precision)


def _atoms(head: Head) -> Rope:
    """Return ESMFold2's: three axes of space with frequencies of their own, then the number of the residue."""
    space = check.integer(
        "num_spatial_rope_pairs_per_axis", head.config.get("num_spatial_rope_pairs_per_axis", 2), 1, most=1024
    )
    residue = check.integer("num_uid_rope_pairs", head.config.get("num_uid_rope_pairs", 10), 1, most=1024)
    near = unscaled(2 * space, check.base(head.config.get("spatial_rope_base_frequency", 20.0)), head.precision)
    far = unscaled(2 * residue, head.base, head.precision)
    return axes.from_bands(head.head_dim, [near, near, near, far], layout=head.layout, precision=head.precision)


#: Scheme -> (what builds it, the rows of its positions)
SCHEMES: dict[str, tuple[Callable[[Head], Rotation], str]] = {
    "mrope": (_mrope("chunked"), "t, h, w"),
    "mrope_interleaved": (_mrope("interleaved"), "t, h, w"),
    "mrope_interleaved_ggml": (_mrope("interleaved_ggml"), "t, h, w, e"),
    "mrope_clamped": (_mrope("interleaved_clamped"), "t, h, w"),
    "ernie": (_mrope("hw_then_t"), "t, h, w"),
    "rows_columns": (_rows_and_columns, "row, column"),
    "axial": (_axial((0, 1)), "h, w"),
    "axial_wh": (_axial((1, 0)), "h, w"),
    "axial_wh_alternating": (_axial((1, 0), "alternating"), "h, w"),
    "thirds": (_thirds, "t, h, w"),
    "pixtral": (_pixtral, "h, w"),
    "blocks": (_blocks, "h, w"),
    "dinov3": (_dinov3, "y, x, each from -1 to 1: ((k + 0.5) / n) * 2 - 1"),
    "grid_over_all_heads": (_grid_over_all_heads, "row, column, from 1"),
    "vjepa2": (_vjepa2, "t, h, w"),
    "hunyuan_vl": (_hunyuan_vl, "one for each entry of mrope_section"),
    "atoms": (_atoms, "x, y, z, residue"),
    "audio_time": (_audio_time, "-2 pi t w and -2 pi t (2 pi i / n) for the window w and the frame i"),
}
#: Schemes that `mrope_section` belongs to.
NEED_SECTIONS = frozenset({"ernie", "hunyuan_vl", *(name for name in SCHEMES if name.startswith("mrope"))})
#: Schemes whose frequencies are their own, so that no scaling can be applied.
UNSCALABLE = frozenset({"pixtral", "dinov3", "grid_over_all_heads", "audio_time", "vjepa2", "atoms"})


def build(scheme: str, head: Head) -> Rotation:
    """Return the rotation of a head over several position axes.

    Raises
    ------
    ValueError
        For a scaling that the scheme has no place for, and for sections that do not fit.
    """
    if head.scaling is not None and scheme in UNSCALABLE:
        raise ValueError(f"frequencies of the axes {scheme!r} cannot be scaled, got {head.scaling!r}")
    return SCHEMES[scheme][0](head)


def rows(scheme: str) -> str:
    """Return what the rows of the positions are."""
    return SCHEMES[scheme][1]
