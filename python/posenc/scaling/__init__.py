"""Frequency scaling: what turns a base into frequencies and an attention factor.

Each scaling is a frozen dataclass with the members of `Scaling`; a `Rope` asks it once, or once per sequence length
where `depends_on_length` is set, and keeps numbers only. Numbers are made with + - * / and correctly rounded
logarithms and powers: the same bits on every machine.

>>> rope = posenc.Rope(128, layout="half", base=500_000.0, scaling=posenc.scaling.Llama3(factor=8.0))
>>> inv_freq, attention_factor = posenc.scaling.Linear(4.0).frequencies(128, 10_000.0)
"""

from posenc.scaling._protocol import LengthScaling, Scaling
from posenc.scaling.bands import Llama3, Proportional
from posenc.scaling.given import Divisors, InverseFrequencies, Periods
from posenc.scaling.interpolation import NTK, DynamicLinear, DynamicNTK, Linear, NTKByParts
from posenc.scaling.longrope import LongRope
from posenc.scaling.lookalikes import DiffusersNTK, KerasDynamic, VllmNTK
from posenc.scaling.names import NAMES, REFUSED, by_name
from posenc.scaling.yarn import DynamicYarn, Yarn, mscale_of

__all__ = [
    "NAMES",
    "NTK",
    "REFUSED",
    "DiffusersNTK",
    "Divisors",
    "DynamicLinear",
    "DynamicNTK",
    "DynamicYarn",
    "InverseFrequencies",
    "KerasDynamic",
    "LengthScaling",
    "Linear",
    "Llama3",
    "LongRope",
    "NTKByParts",
    "Periods",
    "Proportional",
    "Scaling",
    "VllmNTK",
    "Yarn",
    "by_name",
    "mscale_of",
]
