"""Rotation over several position axes: multimodal text, images, video, audio.

`mrope` shares the frequencies of a text decoder out among axes; `axial` gives every axis frequencies of its own, and
`from_bands` given ones. All return a plain `posenc.Rope`, as long as each pair of elements has one axis and the pairs
are those of a layout. Beyond that: `axial_blocks` (pairs inside each axis' block), `MixedRope` (sums over the axes, and
frequencies of every head), `UnequalRope` (what is no rotation, see `NOT_ROTATIONS`), which are called the same way.
`SYSTEMS` says which system has what, and `named` builds it.

Positions have a leading axes axis, (axes, seq) or (axes, batch, seq), with rows t, h, w, or h, w unless said otherwise.

>>> from posenc import axes
>>> text = axes.mrope(128, [16, 24, 24], layout="half", base=1e6)
>>> vision = axes.axial(80, layout="half")
"""

from posenc.axes._assemble import axial, from_bands
from posenc.axes.audio import musicflamingo, musicflamingo_positions
from posenc.axes.bands import period_bands, pixel_bands
from posenc.axes.blocks import BlockRope, axial_blocks
from posenc.axes.grids import cogvideox, dinov3, ltx_video, pixtral, thirds, wan
from posenc.axes.mixed import MixedRope, mixed_frequencies
from posenc.axes.systems import SYSTEMS, System, named
from posenc.axes.text import mrope
from posenc.axes.unequal import NOT_ROTATIONS, UnequalRope, hunyuan_vl, vjepa2

__all__ = [
    "NOT_ROTATIONS",
    "SYSTEMS",
    "BlockRope",
    "MixedRope",
    "System",
    "UnequalRope",
    "axial",
    "axial_blocks",
    "cogvideox",
    "dinov3",
    "from_bands",
    "hunyuan_vl",
    "ltx_video",
    "mixed_frequencies",
    "mrope",
    "musicflamingo",
    "musicflamingo_positions",
    "named",
    "period_bands",
    "pixel_bands",
    "pixtral",
    "thirds",
    "vjepa2",
    "wan",
]
