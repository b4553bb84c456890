"""`posenc demo`: the three verbs over a real model's queries and keys where they lie, and every claim measured."""

import timeit
import tracemalloc
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib import resources
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from posenc.additive import add_sinusoidal
from posenc.bias import add_alibi, alibi_slopes
from posenc.rotary import Rope
from posenc.tables import rotary_table

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Activations:
    """Queries and keys before the rotation, and after the one that transformers computed."""

    sentence: str
    layer: int
    base: float
    q: Floats
    k: Floats
    q_reference: Floats
    k_reference: Floats


def load() -> Activations:
    """Read the activations of SmolLM2-135M that ship with the package."""
    path = resources.files("posenc.data") / "smollm2_qk.npz"
    with path.open("rb") as file, np.load(file, allow_pickle=False) as data:
        return Activations(
            sentence=str(data["sentence"]),
            layer=int(data["layer"]),
            base=float(data["rope_theta"]),
            q=data["q"],
            k=data["k"],
            q_reference=data["q_rotated"],
            k_reference=data["k_rotated"],
        )


def run() -> dict[str, Any]:
    """Do everything; return what was measured."""
    real = load()
    trained = Rope(64, layout="half", base=real.base, precision="float32")
    rope = Rope(64, layout="half", base=real.base)
    return {
        "activations": {
            "model": "SmolLM2-135M-Instruct",
            "layer": real.layer,
            "sentence": real.sentence,
            "q": list(real.q.shape),
            "k": list(real.k.shape),
        },
        "convention": repr(trained),
        "in_place": measure_in_place(trained, real),
        "add": measure_add(real),
        "bias": measure_bias(trained, real),
        "reference": {
            name: max(
                largest(r(real.q) - real.q_reference),
                largest(r(real.k) - real.k_reference),
            )
            for name, r in (("float32", trained), ("exact", rope))
        },
        "relative": measure_relative(rope, real),
        "norms": measure_norms(rope, real),
        "table_error": {n: measure_table_error(rope, n) for n in (4096, 131_072, 1_048_576)},
        "time_us": measure_time(rope, real),
    }


def largest(x: npt.NDArray[Any]) -> float:
    """Return the largest magnitude."""
    return float(np.abs(x).max())


def write_over(call: Callable[..., Any], *originals: Floats) -> tuple[dict[str, Any], tuple[Floats, ...]]:
    """Let `call` write over copies; return where the results lie and what was allocated, and the results."""
    arrays = tuple(x.copy() for x in originals)
    before = [x.ctypes.data for x in arrays]
    call(*arrays)  # warm
    for x, original in zip(arrays, originals, strict=True):
        x[...] = original
    tracemalloc.start()
    results = call(*arrays)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    results = results if isinstance(results, tuple) else (results,)
    place = {
        "bytes": sum(x.nbytes for x in arrays),
        "same_pointers": [y.ctypes.data for y in results] == before
        and all(y is x for x, y in zip(arrays, results, strict=True)),
        "changed": not any(map(np.array_equal, arrays, originals)),
        "peak_bytes_allocated": peak,
    }
    return place, results


def measure_in_place(rope: Rope, real: Activations) -> dict[str, Any]:
    """Rotate queries and keys in place."""
    return write_over(lambda q, k: rope(q, k, out=(q, k)), real.q, real.k)[0]


def measure_add(real: Activations) -> dict[str, Any]:
    """Add sinusoidal rows to the tokens in place, and compare with the formula in float64 and plain NumPy."""
    heads, tokens, dim = real.q.shape[1:]
    x = np.ascontiguousarray(real.q[0].transpose(1, 0, 2)).reshape(1, tokens, heads * dim)
    place, (y,) = write_over(lambda x: add_sinusoidal(x, out=x), x)
    angles = np.arange(tokens)[:, None] / 10000.0 ** (np.arange(0, heads * dim, 2) / (heads * dim))
    rows = np.stack([np.sin(angles), np.cos(angles)], -1).reshape(tokens, -1)
    return {**place, "shape": list(x.shape), "difference": largest(y - (x + rows))}


def measure_bias(rope: Rope, real: Activations) -> dict[str, Any]:
    """Add ALiBi and a causal mask to the real scores in place, and compare the attention with one of plain NumPy."""
    q, k = rope(real.q, real.k)
    heads, tokens, dim = q.shape[1:]
    scores = np.matmul(q, np.repeat(k, heads // k.shape[1], 1).swapaxes(2, 3)) / np.float32(np.sqrt(dim))
    slopes = alibi_slopes(heads)
    place, (biased,) = write_over(lambda scores: add_alibi(scores, slopes, causal=True, out=scores), scores)
    distance = np.arange(tokens)[:, None] - np.arange(tokens)
    expected = np.where(distance >= 0, scores - slopes[:, None, None] * distance, -np.inf)
    return {
        **place,
        "shape": list(scores.shape),
        "slopes": [float(slopes[0]), float(slopes[-1])],
        "difference": largest(attention(biased.astype(np.float64)) - attention(expected)),
    }


def attention(scores: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return the softmax of the scores over the keys."""
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    return cast("npt.NDArray[np.float64]", weights / weights.sum(-1, keepdims=True))


def measure_relative(rope: Rope, real: Activations) -> float:
    """Return the largest |(R_i q) . (R_j k) - (R_(i-j) q) . k| over all tokens i, j, relative to |q| |k|."""
    seq = real.q.shape[2]
    q, k = real.q[0, 0].astype(np.float64), real.k[0, 0].astype(np.float64)
    rotated_q, rotated_k = rope(real.q)[0, 0].astype(np.float64), rope(real.k)[0, 0].astype(np.float64)
    scores = rotated_q @ rotated_k.T
    i, j = np.arange(seq)[:, None], np.arange(seq)
    distances = np.broadcast_to(real.q[0, 0][:, None, :], (seq, seq, 64))  # q_i, once for every j
    by_distance = rope(distances, positions=(i - j))
    expected = np.einsum("ijd,jd->ij", by_distance.astype(np.float64), k)
    scale = np.linalg.norm(q, axis=1)[:, None] * np.linalg.norm(k, axis=1)
    return largest((scores - expected) / scale)


def measure_norms(rope: Rope, real: Activations) -> float:
    """Return the largest relative change of a head's norm."""
    before = np.linalg.norm(real.q.astype(np.float64), axis=-1)
    after = np.linalg.norm(rope(real.q).astype(np.float64), axis=-1)
    return largest(after / before - 1)


def measure_table_error(rope: Rope, positions: int) -> dict[str, float]:
    """Return the largest error of cosines and sines below a position, against extended precision.

    The truth is the cosine of position * base ** (-2i/d) in the widest float that NumPy has here.
    """
    wide = np.longdouble
    some = np.unique(np.concatenate([np.arange(16), np.linspace(0, positions - 1, 2048).astype(np.int64)]))
    exponents = np.arange(0, rope.rotary_dim, 2).astype(wide) / rope.rotary_dim
    angles = some.astype(wide)[:, None] * wide(rope.base) ** -exponents
    errors = {}
    for name in ("exact", "float32"):
        frequencies = Rope(rope.head_dim, layout=rope.layout, base=float(rope.base or 0), precision=name).inv_freq
        cos, sin = rotary_table(some, frequencies, precision=name)
        errors[name] = max(largest(cos - np.cos(angles)), largest(sin - np.sin(angles)))
    return errors


def numpy_rotation(x: Floats, cos: Floats, sin: Floats) -> Floats:
    """Rotate with plain NumPy: x * cos + rotate_half(x) * sin."""
    half = x.shape[-1] // 2
    swapped = np.concatenate([-x[..., half:], x[..., :half]], -1)
    return cast(Floats, x * cos + swapped * sin)


def measure_time(rope: Rope, real: Activations) -> dict[str, dict[str, float]]:
    """Return microseconds for the sentence, and for it repeated to 4096 tokens; NumPy gets its tables for free."""
    times = {}
    for tokens in (real.q.shape[2], 4096):
        repeats = -(-tokens // real.q.shape[2])
        q, k = (np.ascontiguousarray(np.tile(x, (1, 1, repeats, 1))[:, :, :tokens]) for x in (real.q, real.k))
        cos, sin = (np.concatenate([t, t], -1) for t in rope.table(tokens))
        times[str(tokens)] = {
            "posenc": best(partial(rope, q, k, out=(q, k))),
            "numpy": best(partial(numpy_rotation, q, cos, sin)) + best(partial(numpy_rotation, k, cos, sin)),
        }
    return times


def best(call: Callable[[], object]) -> float:
    """Return the least of several timings, in microseconds."""
    timer = timeit.Timer(call)
    number = max(1, int(0.02 / max(timer.timeit(1), 1e-7)))
    return min(timer.repeat(5, number)) / number * 1e6


def show(measured: dict[str, Any]) -> str:
    """Return the measurements as one screen of text."""
    a, place, times = measured["activations"], measured["in_place"], measured["time_us"]
    add, bias = measured["add"], measured["bias"]
    lines = [
        f"{a['model']}, layer {a['layer']}: real queries {tuple(a['q'])} and keys {tuple(a['k'])}, float32",
        f'  "{a["sentence"][:74]}..."',
        "",
        f"convention      {measured['convention']}",
        "                pairs (i, i + 32) turn together, as in Llama on transformers; angles as it was trained with",
        f"in place        {place['bytes']:,} bytes rotated; same memory before and after: "
        f"{'yes' if place['same_pointers'] else 'NO'}; allocated meanwhile: {place['peak_bytes_allocated']:,} bytes",
        f"reference       largest difference to transformers {measured['reference']['float32']:.1e} "
        f'with precision="float32", {measured["reference"]["exact"]:.1e} with "exact"',
        f"relative        R_i R_j^T = R_(i-j) holds within {measured['relative']:.1e} of |q||k|, all pairs of tokens",
        f"norms           kept within {measured['norms']:.1e}",
        f"add             sinusoidal rows onto {tuple(add['shape'])} in place: allocated "
        f"{add['peak_bytes_allocated']:,} bytes, {add['difference']:.1e} from the formula",
        f"bias            ALiBi and causal mask onto scores {tuple(bias['shape'])} in place: allocated "
        f"{bias['peak_bytes_allocated']:,} bytes, attention {bias['difference']:.1e} off",
        "",
        "error of cos and sin against extended precision, positions below",
        "                     exact    float32 recipe of most model code",
    ]
    for positions, error in measured["table_error"].items():
        lines.append(f"  {positions:>12,}   {error['exact']:.1e}    {error['float32']:.1e}")
    lines += ["", "time            posenc in place    plain NumPy with ready tables"]
    for tokens, t in times.items():
        ratio = t["numpy"] / t["posenc"]
        lines.append(f"  {int(tokens):>5,} tokens  {t['posenc']:>10,.1f} us   {t['numpy']:>12,.1f} us   ({ratio:.0f}x)")
    return "\n".join(lines)
