"""Rotation over several position axes: multimodal text, images, video, audio.

>>> from posenc import axes
>>> text = axes.mrope(128, [16, 24, 24], layout="half", base=1e6)
>>> vision = axes.axial(80, layout="half")
"""

from posenc.axes._assemble import axial, from_bands
from posenc.axes.audio import musicflamingo, musicflamingo_positions
from posenc.axes.bands import period_bands, pixel_bands
from posenc.axes.blocks import BlockRope, axial_blocks
from posenc.axes.grids import cogvideox, dinov3, ltx_video, pixtral, wan
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
    "vjepa2",
    "wan",
]
