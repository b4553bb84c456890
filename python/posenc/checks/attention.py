"""`position_sanity_check`: whether attention falls with distance, head by head."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from posenc import _parameters as check
from posenc.checks import _laws, _maps, _sinks
from posenc.checks._heads import HeadDecay, judge
from posenc.checks._report import Line, Report, plain
from posenc.checks._sums import HeadSums, Side, empty_heads, tally_heads

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)  # of arrays
class Profile:
    """Weight by distance on one side of the queries.

    Attributes
    ----------
    distances : ndarray of int64, shape (n,)
        From 0 for the past, from 1 for the future; in tokens.
    counts : ndarray of float64, shape (n,)
        How many rows see that distance, over all heads.
    mean_weight : ndarray of float64, shape (n,)
        The plain mean of the weights at that distance. It falls for even attention too, since long rows spread thinner.
    relative : ndarray of float64, shape (n,)
        The same freed of row lengths: 1 everywhere for even attention.
    """

    distances: npt.NDArray[np.int64]
    counts: Floats
    mean_weight: Floats
    relative: Floats


@dataclass(frozen=True, eq=False)
class AttentionReport(Report):
    """What `position_sanity_check` found; `ok` where attention as a whole falls with distance.

    Attributes
    ----------
    overall : HeadDecay
        All heads' weights together.
    heads : tuple of HeadDecay
        In the order of what was passed; made when first asked for.
    causal : bool
        No weight lies on the future.
    past, future : Profile
        Of all heads together; `future` is None where causal.
    profiles : ndarray of float64, shape (heads, n)
        Each head's `relative` of the past; made when first asked for.
    windows : tuple of (int, float, float)
        A window in tokens, the share of the weight within it, and the share if attention were even.
    row_sums : tuple of (float, float)
        The least and the largest sum of a row with any weight, sinks and padding included.
    notes : tuple of str
        What was left out, and what was odd.
    """

    overall: HeadDecay
    causal: bool
    past: Profile
    future: Profile | None
    windows: tuple[tuple[int, float, float], ...]
    row_sums: tuple[float, float]
    notes: tuple[str, ...]
    _sums: tuple[HeadSums, ...] = field(repr=False)

    @cached_property
    def heads(self) -> tuple[HeadDecay, ...]:
        """What is said of each head."""
        return tuple(judge(head, len(self.past.distances)) for head in self._sums)

    @cached_property
    def profiles(self) -> Floats:
        """Each head's weight by distance on the past, relative to even attention."""
        return np.array([_profile(head.past, 0, len(self.past.distances)).relative for head in self._sums])

    @property
    def ok(self) -> bool:  # type: ignore[override]
        """Whether the weights of all heads together fall with distance."""
        return self.overall.verdict == "decays"

    def title(self) -> str:
        """Return the question and the answer."""
        kind = "causal" if self.causal else "bidirectional"
        n = len(self._sums)
        return f"attention by distance, {n} {kind} head{'s' * (n != 1)}: {self.overall.verdict}"

    def lines(self) -> list[Line]:
        """Return the evidence."""
        whole = self.overall
        found = [
            Line(
                "locality",
                f"{whole.locality:+.3f} +- {whole.locality_error:.2g} (1 nearest key only, 0 even, -1 farthest only)",
                self.ok,
            ),
            Line("ranks", f"{whole.rank_correlation:+.3f} (-1 where weight falls at every step)"),
            Line("exponential", _rate(whole.exponential, "weight falls as exp(-rate * distance)")),
            Line("power", _rate(whole.power, "as (1 + distance) ** -rate")),
            Line("linear", _rate(whole.linear, "of the logits per token, ALiBi's slope")),
        ]
        shares = ", ".join(f"{w:,}: {share:.0%} ({even:.0%})" for w, share, even in self.windows)
        found.append(Line("windows", f"share of the weight within n tokens (if even): {shares}"))
        counts = Counter(head.verdict for head in self.heads)
        found.append(Line("heads", ", ".join(f"{n} {verdict}" for verdict, n in counts.most_common())))
        return found + [Line("note", note) for note in self.notes]

    def to_dict(self) -> dict[str, Any]:
        """Return everything but the profiles of single heads, ready for JSON."""
        own = {f.name: plain(getattr(self, f.name)) for f in fields(self) if f.name != "_sums"}
        return {"check": type(self).__name__, "ok": self.ok, **own, "heads": plain(self.heads)}

    def svg(self) -> str | None:
        """Return the curve of weight by distance."""
        from posenc.checks._svg import attention_svg

        return attention_svg(self)


def position_sanity_check(
    attention: Any,
    *,
    mask: Any = None,
    causal: bool | None = None,
    sinks: int | tuple[int, int] | None = None,
    batch_axis: int | None = None,
) -> AttentionReport:
    """Say whether attention weights fall with distance: by how much, by which law, in which heads, and how surely.

    Every map is read once, where it lies.

    Parameters
    ----------
    attention : NumPy array or torch CPU tensor, shape (..., queries, keys), or a sequence of them
        Weights after softmax: one map, (heads, queries, keys), (layers, heads, queries, keys), or the tuple of
        (batch, heads, queries, keys) that transformers returns with output_attentions=True. float32, float64, float16
        or bfloat16, any strides. Queries are the last tokens: query i stands at key i + keys - queries.
    mask : array_like, shape (keys,) or (batch, keys), optional
        1 for a token, 0 for padding, at either end. Keys at the end that get no weight at all are left out anyway.
    causal : bool, optional
        Whether weight on the future is an error. Default: as found.
    sinks : int or (int, int), optional
        How many keys at the start (and at the end) to set apart. Default: those of the first and last four that draw
        four times the weight of the keys beside them, in any head (attention sinks: Xiao et al., arXiv:2309.17453).
    batch_axis : int, optional
        Which of the leading axes holds samples of the same head. Default: none; for a tuple of layers with four axes
        1, the first axis of a layer.

    Returns
    -------
    AttentionReport
        Its truth value is `ok`; `str` and `to_dict` show it, and a notebook draws it.

    Raises
    ------
    TypeError
        For another kind or dtype, and for tensors that require gradients.
    ValueError
        For shapes and masks that do not fit, and for a weight that is negative, NaN or infinite, with its place.

    Notes
    -----
    The check that tutorials show is one number, ``np.tril(attention).mean()`` or the like. It cannot answer: with rows
    that sum to one, the lower triangle of every causal map of n tokens sums to n, so its mean is 2 / (n + 1) whatever
    the weights; for other maps it measures how causal they are. A mean by distance is better and still wrong: row i of
    an even causal map holds 1 / (i + 1), and distance d is seen by rows from d on, so the mean falls from ln(n) / n to
    1 / n. Here rows are compared within themselves:

    * locality is 1 - 2 * E[(d + 1/2) / n], expectation by the weights of each row over the n distances it sees: 0 for
      even attention of any length;
    * the profile is the estimate of Lynden-Bell for truncated data (MNRAS 155, 1971, 95), flat for even attention and
      exact where every row follows one law;
    * rates are maximum likelihood, each row normalised over what it sees.

    A limit of any single map: exp(-r * (query - key)) is a factor by query times a factor by key. A causal map whose
    later keys are heavier at a steady rate is the same map as one that decays. The error of `locality` counts blocks of
    keys, so that a few heavy keys are not taken for decay.

    Examples
    --------
    >>> import numpy as np
    >>> from posenc.checks import position_sanity_check
    >>> distance = np.arange(256)[:, None] - np.arange(256)
    >>> weights = np.where(distance >= 0, np.exp(-0.05 * np.abs(distance)), 0.0)
    >>> report = position_sanity_check(weights / weights.sum(1, keepdims=True))
    >>> report.overall.verdict, report.overall.law, round(report.overall.exponential.rate, 4)
    ('decays', 'exponential', 0.05)
    >>> even = np.tril(np.ones((256, 256))) / np.arange(1, 257)[:, None]
    >>> position_sanity_check(even).overall.verdict
    'flat'
    """
    heads, padding = _maps.heads_of(attention, batch_axis, mask)
    heads, unnamed = _without_idle_keys(heads) if mask is None else (heads, 0)
    leading, trailing, shares = _sink_counts(sinks, heads)
    found = tally_heads(heads, leading, trailing)
    for head, share in zip(found, shares, strict=True):
        head.sinks = share
    ahead = any(head.future.sums.any() for head in found)
    if causal is not None and check.flag("causal", causal) and ahead:
        which = next(head for head in found if head.future.sums.any())
        raise ValueError(f"attention must give no weight to the future where causal=True; head {which.label} does")
    whole = _together(found)
    lengths = int(np.flatnonzero(whole.past.counts)[-1]) if whole.past.counts.any() else 0
    return AttentionReport(
        overall=judge(whole, lengths),
        causal=not ahead,
        past=_profile(whole.past, 0, lengths),
        future=_profile(whole.future, 1, _laws.support(whole.future)) if ahead else None,
        windows=_windows(whole, ahead),
        row_sums=whole.row_sums,
        notes=tuple(_notes(whole, found, (leading, trailing), padding, unnamed)),
        _sums=tuple(found),
    )


def _without_idle_keys(heads: list[Any]) -> tuple[list[Any], int]:
    idle = _sinks.trailing_padding(heads)
    if idle:
        heads = [(label, [replace(s, stop=s.stop - idle) for s in samples]) for label, samples in heads]
    return heads, idle


def _sink_counts(sinks: Any, heads: list[Any]) -> tuple[int, int, list[dict[int, float]]]:
    if sinks is None:
        return _sinks.find_sinks(heads)
    pair = sinks if isinstance(sinks, tuple) and len(sinks) == 2 else (sinks, 0)
    leading, trailing = (check.integer("sinks", n, 0) for n in pair)
    return leading, trailing, _sinks.shares_of(heads, leading, trailing)


def _together(found: Sequence[HeadSums]) -> HeadSums:
    """Return the sums of all heads."""
    (whole,) = empty_heads([()], found[0].past.sums.shape[1])
    for head in found:
        whole.add(head)
    return whole


def _profile(side: Side, start: int, n: int) -> Profile:
    rows = side.counts[::-1].cumsum()[::-1][1 : n + 1]
    used = _laws.support(side)
    relative = np.zeros(n)
    relative[:used] = np.exp(_laws.log_profile(side)) * max(used, 1)
    weight = side.sums.sum(0)[:n] / np.maximum(rows, 1)
    return Profile(np.arange(start, start + n), rows, weight, relative)


def _windows(whole: HeadSums, ahead: bool) -> tuple[tuple[int, float, float], ...]:
    past, future = whole.past.sums.sum(0), whole.future.sums.sum(0)
    total = float(past.sum() + future.sum())
    n = np.arange(len(whole.past.counts))
    reach = max(_laws.support(whole.past), _laws.support(whole.future) + 1)
    found, width = [], 1
    while width < reach and total > 0:
        share = float(past[:width].sum() + future[: width - 1].sum()) / total
        near, far = np.minimum(n, width), np.minimum(n, width - 1)
        if ahead:
            seen = whole.past.counts @ near + whole.future.counts @ far
            even = float(seen / (whole.past.counts @ n + whole.future.counts @ n))
        else:
            even = float(whole.past.counts[1:] @ (near[1:] / n[1:]) / whole.past.counts[1:].sum())
        found.append((width, share, even))
        width *= 4
    return tuple(found)


def _notes(whole: HeadSums, found: Sequence[HeadSums], ends: tuple[int, int], padding: int, unnamed: int) -> list[str]:
    notes = []
    if any(ends):
        where = " and ".join(
            f"the {name} {f'{n} keys' if n > 1 else 'key'}"
            for n, name in zip(ends, ("first", "last"), strict=True)
            if n
        )
        shares = [sum(head.sinks.values()) for head in found]
        notes.append(f"set apart as sinks: {where}, with {np.mean(shares):.0%} of the weight, up to {max(shares):.0%}")
    if padding:
        notes.append(f"padding left out, keys and queries: {padding:,} of all maps")
    if unnamed:
        notes.append(
            f"the last {unnamed} keys get no weight at all and were taken for padding"
            if unnamed > 1
            else "the last key gets no weight at all and was taken for padding"
        )
    if whole.off:
        least, most = whole.row_sums
        notes.append(f"{whole.off:,} of {whole.rows:,} rows do not sum to 1 (from {least:.4g} to {most:.4g})")
    if whole.empty:
        notes.append(f"{whole.empty:,} of {whole.rows:,} rows have no weight")
    return notes


def _rate(fit: _laws.Fit, what: str) -> str:
    if not math.isfinite(fit.rate):
        return "too few distances"
    gain = f", {fit.gain:.2g} bits a row" if fit.gain else ""
    return f"{fit.rate:.4g} +- {fit.error:.1g} ({what}{gain})"
