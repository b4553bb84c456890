"""Whether a rotation gives the same logits in one prefill, in chunks and token by token."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from posenc import _parameters as check
from posenc.rotary import Rope

if TYPE_CHECKING:
    import numpy.typing as npt

    Logits = npt.NDArray[np.float64]

#: Called as scheme(q, k, positions=...): a Rope, an XPos, or a function with or without a memory.
Scheme = Callable[..., Any]


_PATHS = ("chunked", "stepwise", "recomputed", "cache")
_FINEST = 2.0**-44  # products are summed in float64, in another order for another number of keys


@dataclass(frozen=True)
class Drift:
    """The largest difference between the logits of two ways to compute them.

    Attributes
    ----------
    path : str
        "chunked", "stepwise" or "recomputed", each against one prefill; or "cache", stepwise against recomputed.
    relative : float
        |difference of q.k| / (|q| |k|), the largest of all heads and all keys up to the query.
    absolute : float
        |difference of q.k| there (the softmax scale not multiplied in).
    query, key : int
        The positions where that is.
    """

    path: str
    relative: float
    absolute: float
    query: int
    key: int


@dataclass(frozen=True)
class DecodeConsistency:
    """What `decode_consistency` found; its str is a report.

    Attributes
    ----------
    scheme : str
    prompt, steps, chunk : int
        In tokens.
    cached : {"rotated", "raw"}
    tolerance : float
        Largest relative drift that counts as rounding.
    drifts : tuple of Drift
        Of the paths "chunked" and "stepwise", with the cache as asked for; of "recomputed", where every step rotates
        all raw keys again, so that what is left comes from the length alone; and of "cache", stepwise against
        recomputed: what the cache alone is to blame for.
    advice : tuple of str
        What to do, one line each.
    """

    scheme: str
    prompt: int
    steps: int
    chunk: int
    cached: str
    tolerance: float
    drifts: tuple[Drift, ...]
    advice: tuple[str, ...]

    @property
    def consistent(self) -> bool:
        """Whether both cached paths agree with the prefill up to rounding."""
        return all(self[path].relative <= self.tolerance for path in ("chunked", "stepwise"))

    def __getitem__(self, path: str) -> Drift:
        """Return the drift of a path by its name."""
        return next(drift for drift in self.drifts if drift.path == check.choice("path", path, _PATHS))

    def __str__(self) -> str:
        """Return the report."""
        name = self.scheme if len(self.scheme) <= 120 else f"{self.scheme[:117]}..."
        lines = [
            f"decode consistency of {name}",
            f"  {self.prompt} tokens of prompt, {self.steps} steps, chunks of {self.chunk}, cached {self.cached} keys",
        ]
        for drift in self.drifts:
            where = f" at query {drift.query}, key {drift.key}" if drift.relative else ""
            lines.append(f"  {drift.path:<10} {drift.relative:.1e} of |q||k|, {drift.absolute:.1e} in q.k{where}")
        verdict = "consistent" if self.consistent else "NOT CONSISTENT"
        lines.append(f"  {verdict} (more than {self.tolerance:.1e} of |q||k| is not rounding)")
        return "\n".join([*lines, *(f"  - {line}" for line in self.advice)])


def decode_consistency(
    scheme: Scheme,
    q: Any = None,
    k: Any = None,
    *,
    prompt: int,
    steps: int,
    chunk: int = 16,
    cached: str = "rotated",
    tolerance: float | None = None,
    head_dim: int | None = None,
) -> DecodeConsistency:
    """Compare the logits q.k of one prefill with those of decoding the same tokens from a cache of keys.

    The same prompt + steps tokens are rotated in one call ("prefill"), in chunks of `chunk` ("chunked"), and the prompt
    in one call and the rest one by one ("stepwise"). A fixed rotation gives the same logits in all three up to
    rounding. One whose frequencies depend on the length of the call (dynamic NTK, LongRoPE's switch), whose centre
    does (xPos), or which remembers earlier calls does not: cached keys were turned by other angles than the queries
    that meet them. Nothing crashes then; output degrades where a sequence grows (transformers issues 25104 and 33129).

    Parameters
    ----------
    scheme : Rope, XPos or callable
        Called as scheme(q, k, positions=...) with the new tokens of a step, shapes (heads, tokens, head_dim) and
        (tokens,); returns both rotated. Every path gets a deep copy of it, memory included.
    q, k : NumPy array or torch tensor, shape (heads, prompt + steps, head_dim), optional
        Raw queries and keys; the number of query heads a multiple of that of key heads. Default: normal random numbers,
        the same in every call, float32.
    prompt, steps, chunk : int
        Tokens; at least 1.
    cached : {"rotated", "raw"}
        What the cache holds. Raw keys are all rotated again in every call, together with the queries.
    tolerance : float, optional
        The largest drift, relative to |q| |k|, that is rounding; default: the spacing of q's dtype at 1, and 2**-44 for
        float64.
    head_dim : int, optional
        Of the random numbers, where the scheme has no `head_dim`, nor a `rope` that has one.

    Returns
    -------
    DecodeConsistency
        Print it; or assert its `consistent`.

    Raises
    ------
    TypeError, ValueError
        For shapes and numbers that do not fit, and whatever the scheme raises.

    Notes
    -----
    Some arrays of heads * (prompt + steps) ** 2 float64 are made on the way; a few hundred tokens show what there is.

    Examples
    --------
    >>> import posenc
    >>> from posenc.consistency import decode_consistency
    >>> decode_consistency(posenc.Rope(64, layout="half"), prompt=40, steps=20).consistent
    True
    >>> rope = posenc.Rope(64, layout="half", scaling=posenc.scaling.DynamicNTK(4.0, 48))
    >>> report = decode_consistency(rope, prompt=40, steps=20)
    >>> report.consistent, report["cache"].relative > 0.01
    (False, True)
    >>> decode_consistency(rope.at(60), prompt=40, steps=20).consistent
    True
    """
    prompt, steps = check.integer("prompt", prompt, 1), check.integer("steps", steps, 1)
    chunk, cached = check.integer("chunk", chunk, 1), check.choice("cached", cached, ("rotated", "raw"))
    total = prompt + steps
    q, k = _inputs(scheme, q, k, total, head_dim)
    limit = _spacing(q) if tolerance is None else check.not_negative("tolerance", tolerance)
    one_by_one = [(0, prompt), *((n, n + 1) for n in range(prompt, total))]
    in_chunks = [(n, min(n + chunk, total)) for n in range(0, total, chunk)]
    prefill, chunked, stepwise, recomputed = (
        _logits(scheme, q, k, calls, keeps)
        for calls, keeps in (([(0, total)], cached), (in_chunks, cached), (one_by_one, cached), (one_by_one, "raw"))
    )
    pairs = ((chunked, prefill), (stepwise, prefill), (recomputed, prefill), (stepwise, recomputed))
    norms = _norms(q, k)
    drifts = tuple(_drift(path, one - other, norms) for path, (one, other) in zip(_PATHS, pairs, strict=True))
    drifting = any(drift.relative > limit for drift in drifts[:2])
    ends = sorted({stop for _, stop in one_by_one + in_chunks})
    advice = _advice(scheme, drifts, limit, ends, cached) if drifting else ()
    return DecodeConsistency(_name(scheme), prompt, steps, chunk, cached, limit, drifts, advice)


def _inputs(scheme: Scheme, q: Any, k: Any, total: int, head_dim: int | None) -> tuple[Any, Any]:
    if not callable(scheme):
        raise TypeError(f"scheme must be a Rope, an XPos or a callable(q, k, positions=...), got {scheme!r}")
    if (q is None) != (k is None):
        raise ValueError("q and k must be given together, or neither")
    if q is None:
        own = getattr(scheme, "head_dim", None) or getattr(getattr(scheme, "rope", None), "head_dim", None)
        if head_dim is None and own is None:
            raise ValueError("head_dim must be given for random q and k: the scheme does not say it")
        width = check.integer("head_dim", own if head_dim is None else head_dim, 1)
        made = np.random.default_rng(0).standard_normal((2, 1, total, width), np.float32)
        return made[0], made[1]
    for name, x in (("q", q), ("k", k)):
        if getattr(x, "ndim", 0) != 3 or x.shape[1] != total:
            shape = tuple(getattr(x, "shape", ()))
            raise ValueError(f"{name} must have shape (heads, prompt + steps = {total}, head_dim), got {shape}")
    if q.shape[0] % max(1, k.shape[0]) or not k.shape[0] or q.shape[2] != k.shape[2]:
        raise ValueError(
            f"q must have a multiple of k's heads and its head_dim, got {tuple(q.shape)} and {tuple(k.shape)}"
        )
    return q, k


def _numbers(x: Any) -> Logits:
    """Return an array or tensor of any float dtype as float64."""
    return np.asarray(x.detach().double().numpy() if hasattr(x, "detach") else x, np.float64)


def _spacing(x: Any) -> float:
    """Return the distance from 1 to the next number of a dtype, or what sums in float64 leave of it."""
    bits = {"float64": 52, "float32": 23, "float16": 10, "bfloat16": 7}
    name = str(x.dtype).removeprefix("torch.")
    if name not in bits:
        raise TypeError(f"q must be float64, float32, float16 or bfloat16, got {name}")
    return max(2.0 ** -bits[name], _FINEST)


def _logits(scheme: Scheme, q: Any, k: Any, calls: list[tuple[int, int]], cached: str) -> Logits:
    """Return q.k of every head, query and key, where the tokens come in some calls; zero above the diagonal."""
    scheme = copy.deepcopy(scheme)  # a path starts without memory of the others
    total = q.shape[1]
    keys = np.zeros(k.shape)
    logits = np.zeros((q.shape[0], total, total))
    for start, stop in calls:
        first = start if cached == "rotated" else 0
        turned = scheme(q[:, first:stop], k[:, first:stop], positions=np.arange(first, stop))
        queries, keys[:, first:stop] = _numbers(turned[0])[:, start - first :], _numbers(turned[1])
        by_head = np.repeat(keys[:, :stop], q.shape[0] // k.shape[0], axis=0)
        logits[:, start:stop, :stop] = queries @ by_head.transpose(0, 2, 1)
    return np.tril(logits)


def _norms(q: Any, k: Any) -> Logits:
    """Return |q| |k| of every head, query and key; at least the smallest number that can divide."""
    of_q, of_k = (np.sqrt(np.sum(_numbers(x) ** 2, axis=-1)) for x in (q, k))
    of_k = np.repeat(of_k, len(of_q) // len(of_k), axis=0)
    return np.asarray(np.maximum(of_q[:, :, None] * of_k[:, None, :], np.finfo(np.float64).tiny))


def _drift(path: str, difference: Logits, norms: Logits) -> Drift:
    relative = np.abs(difference) / norms
    where = np.unravel_index(int(np.argmax(relative)), relative.shape)
    return Drift(path, float(relative[where]), float(abs(difference[where])), int(where[1]), int(where[2]))


def _name(scheme: Scheme) -> str:
    named = isinstance(scheme, Rope) or hasattr(scheme, "__dataclass_fields__")
    return repr(scheme) if named else str(getattr(scheme, "__name__", type(scheme).__name__))


def _advice(scheme: Scheme, drifts: tuple[Drift, ...], limit: float, ends: list[int], cached: str) -> tuple[str, ...]:
    """Return what helps, the causes first."""
    recomputed = drifts[2].relative
    raw = "cache raw keys, and rotate all of them in every call"
    if recomputed > limit:
        raw += f": what is left, {recomputed:.1e}, comes from the length, as without any cache"
    if not (isinstance(scheme, Rope) and scheme.scaling is not None and scheme.scaling.depends_on_length):
        cause = "the same position is turned differently by calls of different lengths, or after different calls"
        return (cause, raw) if cached == "rotated" else (cause,)
    changes = [(a, b) for a, b in itertools.pairwise(ends) if scheme.at(a) != scheme.at(b)]
    before, after = changes[0]
    lines = [
        f"the frequencies of {after} tokens differ from those of {before}"
        + (f", and change {len(changes)} times in all" if len(changes) > 1 else ""),
        f"fix the length for all calls: rope.at({ends[-1]})",
    ]
    if cached == "rotated":
        angle = (before - 1) * np.max(np.abs(scheme.at(after).inv_freq - scheme.at(before).inv_freq))
        again = "whenever they change" if len(changes) > 1 else "there"
        lines += [
            f"or {raw}",
            f"or re-rotate the cache {again}, key {before - 1} by up to {angle:.2g} radians: "
            f"rerotate(k, rope.at({before}), rope.at({after}), out=k)",
        ]
    return tuple(lines)
