"""Rotations with one mistake each, as users report them, written out in plain NumPy: nothing of posenc is used.

Each is the right one, `right`, with its mistake. Cosines are computed in float64 unless the mistake is about that.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import ml_dtypes
import numpy as np

Array = np.ndarray
HEAD, BASE = 64, 10000.0


def frequencies(width: int, base: float = BASE) -> Array:
    return base ** (-np.arange(0, width, 2) / width)


def llama3(freq: Array, factor: float = 8.0, low: float = 1.0, high: float = 4.0, length: int = 8192) -> Array:
    turns = length * freq / (2 * np.pi)
    smooth = np.clip((turns - low) / (high - low), 0, 1)
    return (1 - smooth) * freq / factor + smooth * freq


def yarn(freq: Array, base: float, factor: float = 4.0, length: int = 4096) -> Array:
    width = 2 * len(freq)
    low, high = (width * np.log(length / (n * 2 * np.pi)) / (2 * np.log(base)) for n in (32, 1))
    low, high = max(np.floor(low), 0), min(np.ceil(high), width - 1)
    ramp = np.clip((np.arange(len(freq)) - low) / (high - low), 0, 1)
    return freq / factor * ramp + freq * (1 - ramp)


YARN_FACTOR = 0.1 * np.log(4.0) + 1


def half(x: Array, cos: Array, sin: Array) -> Array:
    """x * cos + rotate_half(x) * sin, tables of full width."""
    n = x.shape[-1] // 2
    return x * cos + np.concatenate([-x[..., n:], x[..., :n]], -1) * sin


def neighbours(x: Array, cos: Array, sin: Array) -> Array:
    """x * cos + rotate_every_two(x) * sin, tables of full width."""
    turned = np.stack([-x[..., 1::2], x[..., 0::2]], -1).reshape(x.shape)
    return x * cos + turned * sin


def doubled(angles: Array) -> tuple[Array, Array]:
    full = np.concatenate([angles, angles], -1)
    return np.cos(full), np.sin(full)


def repeated(angles: Array) -> tuple[Array, Array]:
    full = np.repeat(angles, 2, -1)
    return np.cos(full), np.sin(full)


def bf16(x: Array) -> Array:
    return np.asarray(x).astype(ml_dtypes.bfloat16).astype(np.float64)


def fp16(x: Array) -> Array:
    with np.errstate(over="ignore"):
        return np.asarray(x).astype(np.float16).astype(np.float64)


def right(x: Array, p: Array, freq: Array | None = None, factor: float = 1.0) -> Array:
    cos, sin = doubled(np.outer(p, frequencies(HEAD) if freq is None else freq))
    return (half(x.astype(np.float64), factor * cos, factor * sin)).astype(np.float32)


@dataclass(frozen=True)
class Broken:
    """A mistake: its complaint (of those users report), what it should be called, what it should have been."""

    name: str
    complaint: str
    fault: str
    fn: Callable[[Array, Array], Array]
    expected: dict[str, Any] = field(default_factory=dict)  # arguments of the Rope that it should be
    intrinsic: bool = False  # whether it shows without knowing what it should be

    def __str__(self) -> str:
        return self.name


BROKEN: list[Broken] = []


def broken(complaint: str, fault: str, *, intrinsic: bool = False, **expected: Any) -> Callable[[Any], Any]:
    def register(fn: Callable[[Array, Array], Array]) -> Callable[[Array, Array], Array]:
        BROKEN.append(Broken(fn.__name__, complaint, fault, fn, expected, intrinsic))
        return fn

    return register


# ---- 16 bits


@broken("inv_freq cast by .half()", "half_frequencies", intrinsic=True)
def frequencies_in_bfloat16(x: Array, p: Array) -> Array:
    return right(x, p, bf16(frequencies(HEAD)))


@broken("inv_freq cast by .half()", "half_frequencies", intrinsic=True)
def frequencies_in_float16(x: Array, p: Array) -> Array:
    return right(x, p, fp16(frequencies(HEAD)))


@broken("positions start at 65536 and collapse", "half_positions", intrinsic=True)
def positions_in_bfloat16(x: Array, p: Array) -> Array:
    return right(x, bf16(p))


@broken("positions cast to float16", "half_positions", intrinsic=True)
def positions_in_float16(x: Array, p: Array) -> Array:
    with np.errstate(invalid="ignore"):
        return right(x, fp16(p))


def turned_by(x: Array, angles: Array) -> Array:
    cos, sin = doubled(angles)
    return half(x.astype(np.float64), cos, sin).astype(np.float32)


@broken("freqs computed under autocast", "half_angles", intrinsic=True)
def angles_in_bfloat16(x: Array, p: Array) -> Array:
    return turned_by(x, bf16(np.outer(bf16(p), bf16(frequencies(HEAD)))))


@broken("freqs cast before cos()", "half_angles", intrinsic=True)
def exact_angles_cast_to_bfloat16(x: Array, p: Array) -> Array:
    return turned_by(x, bf16(np.outer(p, frequencies(HEAD))))


@broken("everything in float16", "half_angles", intrinsic=True)
def angles_and_tables_in_float16(x: Array, p: Array) -> Array:
    with np.errstate(invalid="ignore"):
        cos, sin = doubled(fp16(np.outer(fp16(p), fp16(frequencies(HEAD)))))
    return half(x.astype(np.float64), fp16(cos), fp16(sin)).astype(np.float32)


@broken("table dtype differs between sibling classes", "half_tables")
def tables_in_bfloat16(x: Array, p: Array) -> Array:
    cos, sin = doubled(np.outer(p, frequencies(HEAD)))
    return half(x.astype(np.float64), bf16(cos), bf16(sin)).astype(np.float32)


@broken("float32 angles at 131k", "float32_angles")
def angles_in_float32(x: Array, p: Array) -> Array:
    freq = (1 / BASE ** (np.arange(0, HEAD, 2, dtype=np.float32) / np.float32(HEAD))).astype(np.float32)
    cos, sin = doubled((p.astype(np.float32)[:, None] * freq).astype(np.float64))
    return half(x.astype(np.float64), cos, sin).astype(np.float32)


# ---- scaling


@broken("a long call changes later short calls", "state", intrinsic=True, scaling=("DynamicNTK", 4.0, 2048))
class KeepsTheLongestLength:
    """Dynamic NTK whose longest length is never forgotten; made anew for each test."""

    def __init__(self) -> None:
        self.longest = 2048

    def __call__(self, x: Array, p: Array) -> Array:
        self.longest = max(self.longest, int(p.max()) + 1)
        alpha = 4.0 * self.longest / 2048 - 3.0
        return right(x, p, frequencies(HEAD, BASE * alpha ** (HEAD / (HEAD - 2))))


@broken("the cache is not scaled: no dynamic NTK", "length", scaling=("DynamicNTK", 4.0, 2048))
def dynamic_never_sets_in(x: Array, p: Array) -> Array:
    return right(x, p)


LONG = tuple(np.linspace(1, 8, HEAD // 2).tolist())


@broken("LongRoPE: always the long list", "length",
        scaling=("LongRope", (1.0,) * (HEAD // 2), LONG, 4096, None, 1.0))  # fmt: skip
def always_the_long_list(x: Array, p: Array) -> Array:
    return right(x, p, frequencies(HEAD) / np.array(LONG))


@broken("YaRN's attention factor dropped", "attention_factor", scaling=("Yarn", 4.0, 4096))
def no_attention_factor(x: Array, p: Array) -> Array:
    return right(x, p, yarn(frequencies(HEAD), BASE))


@broken("YaRN's attention factor applied twice", "attention_factor", scaling=("Yarn", 4.0, 4096))
def attention_factor_squared(x: Array, p: Array) -> Array:
    return right(x, p, yarn(frequencies(HEAD), BASE), YARN_FACTOR**2)


@broken("mscale ignored", "attention_factor", scaling=("Yarn", 4.0, 4096))
def another_mscale(x: Array, p: Array) -> Array:
    return right(x, p, yarn(frequencies(HEAD), BASE), 0.1 * 0.707 * np.log(4.0) + 1)


@broken("rope_theta ignored", "base", base=500000.0)
def rope_theta_ignored(x: Array, p: Array) -> Array:
    return right(x, p)


@broken("a typing error", "base")
def a_base_one_off(x: Array, p: Array) -> Array:
    return right(x, p, frequencies(HEAD, 10001.0))


@broken("the base of the other layers", "base", base=1000000.0)
def the_local_base(x: Array, p: Array) -> Array:
    return right(x, p, frequencies(HEAD, 123456.0))


@broken("rope_type not read", "scaling", base=500000.0, scaling=("Llama3", 8.0))
def scaling_ignored(x: Array, p: Array) -> Array:
    return right(x, p, frequencies(HEAD, 500000.0))


@broken("dynamic read as linear", "scaling", base=500000.0, scaling=("Llama3", 8.0))
def linear_for_llama3(x: Array, p: Array) -> Array:
    return right(x, p, frequencies(HEAD, 500000.0) / 8)


# ---- pairs


@broken("layout confusion", "layout")
def neighbours_for_halves(x: Array, p: Array) -> Array:
    return neighbours(x.astype(np.float64), *repeated(np.outer(p, frequencies(HEAD)))).astype(np.float32)


@broken("rotate one way, table the other", "tables_of_other_layout", intrinsic=True)
def rotate_half_with_a_repeated_table(x: Array, p: Array) -> Array:
    return half(x.astype(np.float64), *repeated(np.outer(p, frequencies(HEAD)))).astype(np.float32)


@broken("rotate one way, table the other", "tables_of_other_layout", intrinsic=True, layout="interleaved")
def rotate_every_two_with_a_doubled_table(x: Array, p: Array) -> Array:
    return neighbours(x.astype(np.float64), *doubled(np.outer(p, frequencies(HEAD)))).astype(np.float32)


def partial(x: Array, p: Array, freq: Array) -> Array:
    width = 2 * len(freq)
    return np.concatenate([right(x[..., :width], p, freq), x[..., width:]], -1)


@broken("frequencies over head_dim", "frequencies_over_head", rotary_dim=32)
def exponents_over_the_head(x: Array, p: Array) -> Array:
    return partial(x, p, frequencies(HEAD)[:16])


@broken("pairs over head_dim", "pairs_over_head", rotary_dim=32)
def pairs_over_the_head(x: Array, p: Array) -> Array:
    return right(x, p, np.concatenate([frequencies(32), np.zeros(16)]))


@broken("partial factor dropped", "rotary_range", rotary_dim=32)
def the_whole_head_rotated(x: Array, p: Array) -> Array:
    return right(x, p)


@broken("the wrong end of the head", "rotary_range", rotary_dim=32, rotary_offset=32)
def the_first_part_for_the_last(x: Array, p: Array) -> Array:
    return partial(x, p, frequencies(32))


# ---- positions


@broken("packed documents: positions not reset", "positions_ignored", intrinsic=True)
def positions_are_ignored(x: Array, p: Array) -> Array:
    return right(x, np.arange(x.shape[-2]))


@broken("RoBERTa's offset", "offset")
def counts_from_two(x: Array, p: Array) -> Array:
    return right(x, p + 2)


@broken("left padding counted", "offset")
def padding_counted(x: Array, p: Array) -> Array:
    return right(x, p - 19)


@broken("table too short: rows outside are not rotated", "unrotated_beyond", intrinsic=True)
def unrotated_beyond_the_table(x: Array, p: Array) -> Array:
    return np.where((p < 4096)[:, None], right(x, p), x)


@broken("table too short: clamped", "clamped_positions", intrinsic=True)
def clamped_to_the_table(x: Array, p: Array) -> Array:
    return right(x, np.minimum(p, 2047))


@broken("table too short: modulo", "wrapped_positions", intrinsic=True)
def around_the_table(x: Array, p: Array) -> Array:
    return right(x, p % 8192)


@broken("(B, S, H, D) taken for (B, H, S, D)", "heads_for_positions")
def heads_taken_for_tokens(x: Array, p: Array) -> Array:
    return right(x.swapaxes(1, 2), np.arange(x.shape[1])).swapaxes(1, 2)


@broken("cached keys rotated again", "rotated_twice")
def rotated_twice(x: Array, p: Array) -> Array:
    return right(right(x, p), p)


# ---- sine and cosine


@broken("conjugate", "clockwise")
def clockwise(x: Array, p: Array) -> Array:
    return right(x, -p)


@broken("sin, cos for cos, sin", "swapped_cos_sin", intrinsic=True)
def sine_for_cosine(x: Array, p: Array) -> Array:
    cos, sin = doubled(np.outer(p, frequencies(HEAD)))
    return half(x.astype(np.float64), sin, cos).astype(np.float32)


@broken("rotate_half without its minus", "missing_minus", intrinsic=True)
def no_minus(x: Array, p: Array) -> Array:
    cos, sin = doubled(np.outer(p, frequencies(HEAD)))
    n = HEAD // 2
    return (x * cos + np.concatenate([x[..., n:], x[..., :n]], -1) * sin).astype(np.float32)


@broken("in place without a temporary", "overwritten_in_place", intrinsic=True)
def overwritten(x: Array, p: Array) -> Array:
    angles, y, n = np.outer(p, frequencies(HEAD)), x.astype(np.float64), HEAD // 2
    y[..., :n] = y[..., :n] * np.cos(angles) - y[..., n:] * np.sin(angles)
    y[..., n:] = y[..., n:] * np.cos(angles) + y[..., :n] * np.sin(angles)
    return y.astype(np.float32)


@broken("uninitialised inv_freq", "not_rotated", intrinsic=True)
def frequencies_of_zero(x: Array, p: Array) -> Array:
    return right(x, p, np.zeros(HEAD // 2))


@broken("keys scaled as queries", "xpos")
def xpos_as_a_query(x: Array, p: Array) -> Array:
    cos, sin = doubled(np.outer(p, frequencies(HEAD)))
    zeta = (np.arange(0, HEAD, 2) + 0.4 * HEAD) / (1.4 * HEAD)
    size = np.tile(zeta ** (p[:, None] / 512), 2)
    return half(x.astype(np.float64), cos * size, sin * size).astype(np.float32)


# ---- several axes: positions are (t, h, w)


def sections(order: str) -> Array:
    if order == "chunked":
        return np.repeat([0, 1, 2], [16, 8, 8])
    axis = np.zeros(32, int)
    axis[1:24:3], axis[2:24:3] = 1, 2
    return axis


def multimodal(x: Array, p: Array, axis: Array) -> Array:
    cos, sin = doubled(p.T[:, axis] * frequencies(HEAD))
    return half(x.astype(np.float64), cos, sin).astype(np.float32)


@broken("height and width exchanged", "swapped_axes", axis_of_freq=sections("chunked"))
def height_for_width(x: Array, p: Array) -> Array:
    return multimodal(x, p[[0, 2, 1]], sections("chunked"))


@broken("chunked for interleaved axes", "sections", axis_of_freq=sections("interleaved"))
def chunked_for_interleaved(x: Array, p: Array) -> Array:
    return multimodal(x, p, sections("chunked"))


@broken("mrope_section in another order", "sections", axis_of_freq=sections("chunked"))
def sections_in_another_order(x: Array, p: Array) -> Array:
    return multimodal(x, p, np.repeat([0, 1, 2], [8, 16, 8]))


@broken("1-D position ids for M-RoPE", "one_axis", axis_of_freq=sections("chunked"))
def time_for_all_axes(x: Array, p: Array) -> Array:
    return multimodal(x, p[[0, 0, 0]], sections("chunked"))


@broken("the doubled width split by doubled sections", "axes_within_pairs", intrinsic=True,
        axis_of_freq=sections("chunked"))  # fmt: skip
def doubled_sections(x: Array, p: Array) -> Array:
    axis = np.repeat([0, 1, 2], [32, 16, 16])
    full = np.concatenate([frequencies(HEAD)] * 2)
    angles = p.T[:, axis] * full
    return half(x.astype(np.float64), np.cos(angles), np.sin(angles)).astype(np.float32)
