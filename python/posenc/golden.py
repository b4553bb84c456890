"""Golden vectors: small, deterministic inputs and results for those who write an engine in another language.

Each family is three files: `name.json` says everything in words and numbers, `name.npz` and `name.safetensors` (where
safetensors is installed) hold the same arrays. The inputs follow a formula that any language can repeat, the results
are correctly rounded, and the same call writes the same bytes on every machine.

>>> import tempfile
>>> from posenc import golden
>>> with tempfile.TemporaryDirectory() as folder:
...     [path.name for path in golden.write(folder, "llama", posenc.Rope(64, layout="half"))][:2]
['llama.json', 'llama.npz']
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from posenc import _parameters as check
from posenc import scaling
from posenc.axes import axial_blocks, mrope
from posenc.rotary import Rope

if TYPE_CHECKING:
    import os

    import numpy.typing as npt

    Floats = npt.NDArray[np.float32]

HEADS = {"q": 2, "k": 1}
POSITIONS = (0, 1, 2, 3, 40, 255, 256, 257, 2047, 4095, 4096, 4097, 8191, 32767, 65535, 131071)

#: name -> the rotation of a family of models
FAMILIES: dict[str, Callable[[], Any]] = {
    "llama2": lambda: Rope(64, layout="half"),
    "llama3_1": lambda: Rope(128, layout="half", base=500000.0, scaling=scaling.Llama3(8.0)),
    "gptj": lambda: Rope(64, layout="interleaved", rotary_dim=32),
    "gpt_neox": lambda: Rope(64, layout="half", rotary_dim=16),
    "deepseek_v3": lambda: Rope(
        96, layout="interleaved_to_half", rotary_dim=64, rotary_offset=32,
        scaling=scaling.Yarn(40.0, 4096, mscale=1.0, mscale_all_dim=1.0),
    ),
    "gpt_oss": lambda: Rope(64, layout="half", base=150000.0, scaling=scaling.Yarn(32.0, 4096, truncate=False)),
    "gemma4_full": lambda: Rope(64, layout="half", base=1e6, scaling=scaling.Proportional(0.25)),
    "nanochat": lambda: Rope(64, layout="half", inv_freq=-Rope(64, layout="half").inv_freq),
    "qwen2_vl": lambda: mrope(128, [16, 24, 24], layout="half", base=1e6),
    "qwen3_vl": lambda: mrope(128, [24, 20, 20], layout="half", base=5e6, order="interleaved"),
    "gemma4_vision": lambda: axial_blocks(64, base=100.0),
}  # fmt: skip


def numbers(count: int, seed: int = 0) -> Floats:
    """Return `count` numbers in [-1, 1): x[i] = int32(h(i + 1 + seed * 65536)) / 2**31 to 16 bits, exact in float32.

    h(n) = n * 2654435769 mod 2**32, then n ^= n >> 15, n = n * 2246822519 mod 2**32, n ^= n >> 13; its upper 16 bits
    count (Knuth's multiplicative hash and two rounds of xxHash's finish).
    """
    n = (np.arange(1, count + 1, dtype=np.uint64) + np.uint64(seed << 16)) * np.uint64(2654435769) % np.uint64(1 << 32)
    n ^= n >> np.uint64(15)
    n = n * np.uint64(2246822519) % np.uint64(1 << 32)
    n ^= n >> np.uint64(13)
    return (((n >> np.uint64(16)).astype(np.int64) - 32768) / 32768).astype(np.float32)


def vectors(rope: Any) -> dict[str, npt.NDArray[Any]]:
    """Return inputs and results of a rotation, by name: q, k, positions, cos, sin, q_rotated, k_rotated, inv_freq.

    Parameters
    ----------
    rope : Rope or BlockRope
        Of fixed length, or one that depends on it: then for the largest position plus one.
    """
    if not hasattr(rope, "table"):
        raise TypeError(f"rope must be a posenc.Rope or a BlockRope, got {check.shown(rope)}")
    row = np.array(POSITIONS, np.int64)
    positions = row if rope.axes == 1 else np.stack([np.roll(row, a) // (1 + 15 * a) for a in range(rope.axes)])
    fixed = rope.at(int(positions.max()) + 1) if isinstance(rope, Rope) else rope
    x = {
        name: numbers(count * len(row) * rope.head_dim, seed).reshape(1, count, len(row), rope.head_dim)
        for seed, (name, count) in enumerate(HEADS.items())
    }
    cos, sin = fixed.table(positions)
    rotated = {f"{name}_rotated": fixed(value, positions=positions) for name, value in x.items()}
    return {**x, "positions": positions, "cos": cos, "sin": sin, **rotated, "inv_freq": np.array(fixed.inv_freq)}


def spec(name: str, rope: Any) -> dict[str, Any]:
    """Return what the vectors mean, ready for JSON."""
    found = vectors(rope)
    ropes = rope.ropes if hasattr(rope, "ropes") else (rope,)
    return {
        "name": name,
        "rope": repr(rope),
        "parts": [_part(each.at(int(found["positions"].max()) + 1)) for each in ropes],
        "position_axes": rope.axes,
        "arrays": {key: {"dtype": str(a.dtype), "shape": list(a.shape)} for key, a in found.items()},
        "input": " ".join((numbers.__doc__ or "").split()),
        "seeds": {key: seed for seed, key in enumerate(HEADS)},
        "rule": "pair i, elements (a, b): a' = a*cos[i] - b*sin[i], b' = b*cos[i] + a*sin[i], in float32, each product "
        "and each sum rounded; cos and sin are correctly rounded and hold the attention factor",
        "tolerance": "cos, sin: 1e-7. rotated: 5e-7 with these tables; engines with float32 angles differ by about "
        "position * inv_freq * 6e-8",
    }


def _part(rope: Rope) -> dict[str, Any]:
    return {
        "layout": rope.layout,
        "head_dim": rope.head_dim,
        "rotary_dim": rope.rotary_dim,
        "rotary_offset": rope.rotary_offset,
        "base": rope.base,
        "scaling": None if rope.scaling is None else repr(rope.scaling),
        "attention_factor": rope.attention_factor,
        "axis_of_freq": None if rope.axis_of_freq is None else rope.axis_of_freq.tolist(),
        "inv_freq": rope.inv_freq.tolist(),
    }


def write(folder: str | os.PathLike[str], name: str, rope: Any) -> list[Path]:
    """Write the vectors of a rotation, and return the paths.

    Parameters
    ----------
    folder : path
        Made if it is not there.
    name : str
        Of the files, without ending.
    rope : Rope or BlockRope

    Returns
    -------
    list of pathlib.Path
        name.json, name.npz and, where safetensors is installed, name.safetensors.
    """
    target, arrays = Path(folder), vectors(rope)
    target.mkdir(parents=True, exist_ok=True)
    paths = [target / f"{name}.json", target / f"{name}.npz"]
    paths[0].write_text(json.dumps(spec(name, rope), indent=1, allow_nan=False) + "\n", encoding="utf-8")
    np.savez(paths[1], allow_pickle=False, **arrays)
    if importlib.util.find_spec("safetensors") is not None:
        from safetensors.numpy import save_file

        paths.append(target / f"{name}.safetensors")
        save_file({key: np.ascontiguousarray(array) for key, array in arrays.items()}, paths[-1])
    return paths


def write_all(folder: str | os.PathLike[str]) -> list[Path]:
    """Write the vectors of every family, and return the paths."""
    return [path for name, build in FAMILIES.items() for path in write(folder, name, build())]
