"""Rotation over several position axes: multimodal text, images, video, audio.

>>> from posenc import axes
>>> text = axes.mrope(128, [16, 24, 24], layout="half", base=1e6)
>>> vision = axes.axial(80, layout="half")
"""

from posenc.axes._assemble import axial, from_bands
from posenc.axes.text import mrope

__all__ = ["axial", "from_bands", "mrope"]
