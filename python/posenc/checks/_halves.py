"""What a right rotation becomes where some of its numbers have 16 bits, or 32."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from posenc.checks._ropes import changed, given
from posenc.checks._rounding import HALVES
from posenc.checks._sample import Sample, Variant, pairs_of

if TYPE_CHECKING:
    import numpy.typing as npt

    Floats = npt.NDArray[np.float64]
    Rounding = Callable[[Floats], Floats]


def of_halves(sample: Sample) -> Iterator[Variant]:
    """Yield frequencies, positions, angles, tables and results of 16 bits; and float32 angles."""
    rope = sample.rope
    ins, outs = pairs_of(rope)
    yield Variant("float32_angles", "", partial(sample.by, changed, rope, precision="float32"))
    for name, rounded in HALVES.items():
        yield Variant(
            "half_frequencies", f"inv_freq in {name}", partial(sample.by, given, rope, rounded(rope.inv_freq))
        )
        yield Variant("half_positions", f"positions in {name}", partial(sample.turned, None, rounded(sample.positions)))

        def tables(r: Rounding = rounded) -> Floats:
            cos, sin = (r(t) for t in sample.table())
            return sample.by_pairs(ins, outs, (cos, sin), (cos, sin))

        yield Variant("half_tables", f"cos and sin in {name}", tables)
        angles = [
            (f"positions * inv_freq in {name}", _angles_in(sample, rounded, kept=False)),
            (f"positions, inv_freq and their product in {name}", _angles_in(sample, rounded, kept=True)),
        ]
        for detail, made in angles:
            for tables_too in (False, True):
                text = f"{detail}, cos and sin too" if tables_too else detail
                yield Variant("half_angles", text, partial(_by_angles, sample, made, rounded if tables_too else None))
        yield Variant("half_arithmetic", f"results in {name}", partial(_results_in, sample, rounded))
        yield Variant(
            "half_arithmetic",
            f"input, tables and results in {name}",
            partial(_all_in, sample, rounded, ins, outs),
        )


def _angles_in(sample: Sample, rounded: Rounding, *, kept: bool) -> Floats:
    """Return the angles of every token and pair, rounded; `kept`: of numbers that were rounded before."""
    rope, where, freq = sample.rope, sample.positions, sample.rope.inv_freq
    if kept:
        where, freq = rounded(where), rounded(freq)
    by_pair = where[..., None] if rope.axes == 1 else np.moveaxis(where[rope.axis_of_freq], 0, -1)
    with np.errstate(invalid="ignore"):  # float16 has infinite positions
        return rounded(by_pair * freq)


def _by_angles(sample: Sample, angles: Floats, rounded: Rounding | None) -> Floats:
    """Return x turned by given angles, NaN where one is infinite; cosines and sines rounded where asked for."""
    factor = sample.rope.attention_factor
    tables = [factor * np.cos(angles), factor * np.sin(angles)]
    if rounded is not None:
        tables = [rounded(table) for table in tables]
    cos, sin = (sample.spread(table) for table in tables)
    return sample.by_pairs(*pairs_of(sample.rope), (cos, sin), (cos, sin))


def _results_in(sample: Sample, rounded: Rounding) -> Floats:
    return rounded(sample.turned())


def _all_in(sample: Sample, rounded: Rounding, ins: Any, outs: Any) -> Floats:
    """X * cos + rotate_half(x) * sin with every step rounded, as eager code of a 16-bit dtype does it."""
    x, (cos, sin) = rounded(sample.x), (rounded(t) for t in sample.table())
    i, o = np.array(ins), np.array(outs)
    a, b, y = x[..., i[:, 0]], x[..., i[:, 1]], x.copy()
    y[..., o[:, 0]] = rounded(rounded(a * cos) + rounded(-b * sin))
    y[..., o[:, 1]] = rounded(rounded(b * cos) + rounded(a * sin))
    return y
