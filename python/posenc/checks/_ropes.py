"""Ropes like another one."""

from __future__ import annotations

from typing import Any

import numpy as np

from posenc.rotary import Rope
from posenc.scaling import InverseFrequencies


def changed(rope: Rope, **changes: Any) -> Rope:
    return rope._replace(**changes)


def given(rope: Rope, inv_freq: Any, factor: float | None = None) -> Rope:
    numbers = InverseFrequencies(tuple(np.asarray(inv_freq, np.float64).tolist()), factor or rope.attention_factor)
    arguments = {key: value for key, value in rope._arguments().items() if key not in ("inv_freq", "base", "scaling")}
    return Rope(**{**arguments, "rotary_dim": rope.rotary_dim}, scaling=numbers)


def with_axes(rope: Rope, axis_of_freq: Any) -> Rope:
    return rope._replace(axis_of_freq=axis_of_freq)
