"""`position_sanity_check` on maps whose law is known: rates, verdicts, sinks, padding, and what it refuses."""

from __future__ import annotations

import json
import math
import re
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import torch

from attention_maps import causal, distances, exponential, normalised, power
from posenc import _reference
from posenc.checks import position_sanity_check

N = 256
EVEN = causal(np.zeros((N, N)))


def both_sides(logits: np.ndarray) -> np.ndarray:
    return normalised(np.exp(logits))


# ---- rates ----


@pytest.mark.parametrize("rate", [0.004, 0.0625, 0.5, 2.0])
@pytest.mark.parametrize("form", [causal, both_sides])
def test_exponential_rates_are_recovered(rate: float, form: Any) -> None:
    """0.5, 0.25, .. are ALiBi's slopes; so the linear law, the slope of the logits, is the same number."""
    found = position_sanity_check(form(exponential(rate, N))).overall
    assert found.verdict == "decays"
    assert found.law == "exponential"
    assert found.exponential.rate == pytest.approx(rate, rel=1e-3)
    assert found.linear.rate == pytest.approx(rate, rel=0.01)
    assert found.rank_correlation == pytest.approx(-1)


@pytest.mark.parametrize("rate", [0.5, 1.0, 2.5])
def test_power_rates_are_recovered(rate: float) -> None:
    found = position_sanity_check(causal(power(rate, N))).overall
    assert (found.verdict, found.law) == ("decays", "power")
    assert found.power.rate == pytest.approx(rate, rel=1e-3)


def test_rates_are_recovered_from_noisy_maps(rng: np.random.Generator) -> None:
    """Content moves each logit by a normal deviate; the law is recovered within 2 %, and the error says as much."""
    maps = causal(exponential(0.03, 512) + rng.normal(0, 1, (8, 512, 512)))
    found = position_sanity_check(maps).overall
    assert found.linear.rate == pytest.approx(0.03, rel=0.02)
    assert found.exponential.rate == pytest.approx(0.03, rel=0.02)
    assert found.exponential.error < 0.02 * 0.03


@pytest.mark.parametrize("queries", [1, 40, 128])
def test_queries_are_the_last_tokens(queries: int) -> None:
    """A decode step's rows, against a cache."""
    maps = causal(exponential(0.05, queries, N))
    assert position_sanity_check(maps).overall.exponential.rate == pytest.approx(0.05, rel=1e-3)


@pytest.mark.parametrize("dtype", [np.float64, np.float16, ml_dtypes.bfloat16], ids=lambda d: np.dtype(d).name)
def test_other_dtypes(dtype: type) -> None:
    found = position_sanity_check(causal(exponential(0.0625, N)).astype(dtype)).overall
    assert found.exponential.rate == pytest.approx(0.0625, rel=0.01)
    assert position_sanity_check(EVEN.astype(dtype)).overall.verdict == "flat"


# ---- no decay ----


def shuffled(rng: np.random.Generator) -> np.ndarray:
    """Return maps that decay, each row's weights in random order among the keys it sees."""
    maps = np.repeat(causal(exponential(0.05, N))[None], 4, 0)
    for one in maps:
        for i, row in enumerate(one):
            row[: i + 1] = rng.permutation(row[: i + 1])
    return maps


def test_even_maps_do_not_decay() -> None:
    """Though their mean weight by distance falls from ln(n)/n to 1/n, which is what a plain mean would call decay."""
    report = position_sanity_check(EVEN)
    assert not report
    assert report.overall.verdict == "flat"
    assert abs(report.overall.locality) < 1e-6
    assert report.overall.rank_correlation == 0
    assert report.past.mean_weight[0] / report.past.mean_weight[-1] > 5
    np.testing.assert_allclose(report.past.relative, 1, rtol=1e-4)
    assert position_sanity_check(both_sides(np.zeros((N, N)))).overall.verdict == "flat"


def test_growing_maps_grow() -> None:
    for form in (causal, both_sides):
        found = position_sanity_check(form(-exponential(0.02, N))).overall
        assert found.verdict == "grows"
        assert found.exponential.rate == pytest.approx(-0.02, rel=1e-3)


def test_shuffled_maps_do_not_decay(rng: np.random.Generator) -> None:
    report = position_sanity_check(shuffled(rng))
    assert not report
    assert "decays" not in {head.verdict for head in report.heads}
    assert abs(report.overall.locality) < 0.05


def test_noise_does_not_decay(rng: np.random.Generator) -> None:
    """Even where each row has but a few keys of weight: at most three heads of 64 lean by chance, none all together."""
    report = position_sanity_check(causal(rng.normal(0, 2, (64, 96, 96))))
    verdicts = [head.verdict for head in report.heads]
    assert report.overall.verdict == "flat"
    assert verdicts.count("decays") + verdicts.count("grows") <= 3, verdicts


def test_a_few_heavy_keys_are_not_taken_for_decay(rng: np.random.Generator) -> None:
    """Some keys are liked wherever they are: no lean that the error would not cover, but for some maps of forty."""
    maps = causal(np.repeat(rng.normal(0, 1, (40, 1, 128)), 128, 1))
    verdicts = [head.verdict for head in position_sanity_check(maps, sinks=0).heads]
    assert verdicts.count("decays") + verdicts.count("grows") <= 10, verdicts


def test_the_tutorials_number_is_the_same_for_every_causal_map() -> None:
    for maps in (EVEN, causal(exponential(0.5, N)), causal(-exponential(0.5, N))):
        assert maps[np.tril_indices(N)].mean() == pytest.approx(2 / (N + 1), rel=1e-6)


def test_a_window_is_no_decay_within_it() -> None:
    maps = normalised(np.where((distances(N) >= 0) & (distances(N) < 32), 1.0, 0.0))
    found = position_sanity_check(maps).overall
    assert (found.verdict, found.reach) == ("window", 32)


def test_a_head_that_looks_at_one_offset_is_local(rng: np.random.Generator) -> None:
    maps = causal(np.where(distances(N) == 3, 12.0, rng.normal(0, 1, (N, N))))
    assert position_sanity_check(maps, sinks=0).overall.verdict == "local"


# ---- what the numbers are ----


def test_the_profile_agrees_with_a_plain_one_where_rows_are_long(rng: np.random.Generator) -> None:
    """Against weights divided by what an even row would give: the same for slow laws, which cut rows little."""
    maps = causal(exponential(0.2, N) + rng.normal(0, 0.3, (N, N)))
    report = position_sanity_check(maps)
    plain = _reference.even_share(maps)[:20]
    mine = report.past.relative[:20]
    np.testing.assert_allclose(mine / mine[0], plain / plain[0], rtol=0.35)


def test_counts_and_mean_weights_by_hand() -> None:
    report = position_sanity_check(EVEN[:5, :5])
    assert report.past.counts.tolist() == [5, 4, 3, 2, 1]
    wanted = [np.trace(EVEN[:5, :5], -d) / (5 - d) for d in range(5)]
    np.testing.assert_allclose(report.past.mean_weight, wanted, rtol=1e-6)
    assert report.past.distances.tolist() == [0, 1, 2, 3, 4]


def test_shares_within_windows() -> None:
    """Of even rows the share within a window is the mean of min(n, w) / n."""
    report = position_sanity_check(causal(exponential(0.05, N)))
    assert [w for w, _, _ in report.windows] == [1, 4, 16, 64]
    weights = causal(exponential(0.05, N))
    for window, share, even in report.windows:
        inside = weights[(distances(N) >= 0) & (distances(N) < window)].sum() / N
        assert share == pytest.approx(inside, rel=1e-5)
        rows = np.arange(1, N + 1)
        assert even == pytest.approx((np.minimum(rows, window) / rows).mean(), rel=1e-9)


def test_locality_by_hand() -> None:
    """All weight on the nearest of n keys: relative distance 1/2n, so 1 - 1/n; on the farthest the negative."""
    n, rows = 16, np.arange(1, 17)
    near, far = np.eye(n), np.zeros((n, n))
    far[:, 0] = 1
    wanted = (1 - 1 / rows).mean()
    assert position_sanity_check(near, sinks=0).overall.locality == pytest.approx(wanted)
    assert position_sanity_check(far, sinks=0).overall.locality == pytest.approx(-wanted)


def test_errors_cover_what_differs_between_samples(rng: np.random.Generator) -> None:
    """Rates of independent noisy maps scatter about as widely as their errors say, within a factor of three."""
    maps = causal(exponential(0.03, 256) + rng.normal(0, 1, (24, 256, 256)))
    fits = [head.exponential for head in position_sanity_check(maps).heads]
    scatter, claimed = np.std([fit.rate for fit in fits]), np.median([fit.error for fit in fits])
    assert 1 / 3 < scatter / claimed < 3


# ---- sinks, padding, rows ----


def test_sinks_are_set_apart() -> None:
    logits = exponential(0.05, N)
    logits[:, 0] = 4
    report = position_sanity_check(causal(logits))
    assert report.overall.exponential.rate == pytest.approx(0.05, rel=1e-3)
    assert report.heads[0].sinks.keys() == {0}
    assert report.heads[0].sinks[0] > 0.5
    assert any("sinks: the first key, with" in note for note in report.notes)
    kept = position_sanity_check(causal(logits), sinks=0)
    assert kept.overall.verdict != "decays"
    assert position_sanity_check(causal(logits), sinks=1).overall.exponential == report.overall.exponential


def test_sinks_at_both_ends() -> None:
    """[CLS] and [SEP] of an encoder."""
    logits = exponential(0.05, N)
    logits[:, [0, -1]] = 4
    report = position_sanity_check(both_sides(logits))
    assert report.heads[0].sinks.keys() == {0, -1}
    assert report.overall.exponential.rate == pytest.approx(0.05, rel=1e-3)


@pytest.mark.parametrize("left", [True, False])
def test_padding_is_left_out(left: bool) -> None:
    """A padded row is even over everything, as transformers makes it; the report is that of the tokens alone."""
    tokens = causal(exponential(0.05, 100))
    padded = np.full((N, N), 1 / N, np.float32)
    at = slice(N - 100, N) if left else slice(0, 100)
    padded[at] = 0
    padded[at, at] = tokens
    mask = np.zeros((1, N), int)
    mask[0, at] = 1
    alone = position_sanity_check(tokens)
    report = position_sanity_check(padded[None], mask=mask, batch_axis=0)
    assert report.overall.exponential.rate == pytest.approx(0.05, rel=1e-3)
    assert report.overall.locality == pytest.approx(alone.overall.locality)
    assert any("padding left out, keys and queries: 156" in note for note in report.notes)
    assert position_sanity_check(padded).overall.exponential.rate != pytest.approx(0.05, rel=0.02)


def test_idle_keys_at_the_end_are_padding() -> None:
    padded = np.zeros((N, N), np.float32)
    padded[:, :156] = both_sides(exponential(0.05, N))[:, :156]
    report = position_sanity_check(padded)
    assert any("the last 100 keys get no weight at all" in note for note in report.notes)
    assert report.overall.exponential.rate == pytest.approx(0.05, rel=1e-3)


def test_samples_of_a_batch_are_pooled(rng: np.random.Generator) -> None:
    maps = causal(exponential(0.05, 64) + rng.normal(0, 1, (3, 5, 2, 64, 64)))  # layers, batch, heads
    layers = tuple(maps)
    report = position_sanity_check(layers)
    assert [head.head for head in report.heads] == [(i, j) for i in range(3) for j in range(2)]
    same = position_sanity_check(maps, batch_axis=1)
    assert same.to_dict() == report.to_dict()
    tensors = position_sanity_check([torch.from_numpy(layer) for layer in layers])
    assert tensors.to_dict() == report.to_dict()
    assert len(position_sanity_check(maps).heads) == 30


def test_rows_that_do_not_sum_to_one_are_reported() -> None:
    maps = causal(exponential(0.05, N)) * np.linspace(0.5, 1.5, N, dtype=np.float32)[:, None]
    maps[7] = 0
    report = position_sanity_check(maps)
    assert report.overall.exponential.rate == pytest.approx(0.05, rel=1e-3)
    assert report.row_sums == (pytest.approx(0.5), pytest.approx(1.5))
    assert any("rows do not sum to 1 (from 0.5 to 1.5)" in note for note in report.notes)
    assert any("1 of 256 rows have no weight" in note for note in report.notes)


@pytest.mark.parametrize("shape", [(1, 1), (1, 2), (2, 2), (3, 3), (1, 5)])
def test_tiny_maps_are_answered(shape: tuple[int, int]) -> None:
    report = position_sanity_check(np.full(shape, 1 / shape[1]))
    assert report.overall.verdict in ("empty", "flat", "unclear", "local")
    assert str(report)


def test_maps_without_weight() -> None:
    report = position_sanity_check(np.zeros((2, 16, 16)))
    assert report.overall.verdict == "empty"
    assert json.loads(json.dumps(report.to_dict(), allow_nan=False))["ok"] is False


# ---- the report ----


def test_the_report_in_every_form() -> None:
    report = position_sanity_check(np.stack([EVEN, causal(exponential(0.1, N))])[None])
    text = str(report)
    assert text.startswith("attention by distance, 2 causal heads: ")
    assert "1 flat, 1 decays" in text
    assert max(map(len, text.splitlines())) < 160
    found = json.loads(json.dumps(report.to_dict(), allow_nan=False))
    assert [head["verdict"] for head in found["heads"]] == ["flat", "decays"]
    assert found["heads"][1]["head"] == [0, 1]
    assert report.profiles.shape == (2, N)
    page = report._repr_html_()
    assert page.count("<svg") == page.count("</svg>") == 1
    points = re.findall(r'<polyline points="([^"]+)"', page)
    assert len(points) == 2  # the past, and even attention
    assert all(math.isfinite(float(n)) for line in points for n in line.replace(",", " ").split())


# ---- what is refused ----


@pytest.mark.parametrize(
    ("attention", "keywords", "error", "message"),
    [
        ("text", {}, TypeError, "attention must be a NumPy array or a torch CPU tensor, got 'text'"),
        ([1, 2], {}, TypeError, "attention[0] must be a NumPy array or a torch CPU tensor"),
        ([], {}, ValueError, "attention must not be empty"),
        (np.ones(3), {}, ValueError, "attention must have a query and a key axis"),
        (np.ones((4, 3)), {}, ValueError, "at least as many keys as queries, its last two axes, got (4, 3)"),
        (np.ones((0, 3)), {}, ValueError, "attention holds no weights: its shape is (0, 3)"),
        (np.ones((3, 3), int), {}, TypeError, "attention must be float32, float64, float16 or bfloat16"),
        (np.ones((3, 3)), {"mask": [1, 1]}, ValueError, "mask must have shape (3,) or (batch, 3), got (2,)"),
        (np.ones((3, 3)), {"mask": [1, 0, 1]}, ValueError, "mask must leave one run of tokens in every row"),
        (np.ones((3, 3)), {"mask": [0, 0, 0]}, ValueError, "mask must leave one run of tokens in every row"),
        (np.ones((3, 3)), {"mask": [1.0, 1, 1]}, ValueError, "mask must be booleans or integers"),
        (np.ones((2, 3, 3)), {"mask": np.ones((2, 3), int)}, ValueError, "needs batch_axis="),
        (np.ones((2, 3, 3)), {"batch_axis": 1}, ValueError, "batch_axis must be at most 0, got 1"),
        (np.ones((2, 3, 3)), {"causal": True}, ValueError, "no weight to the future where causal=True; head (0,)"),
        (np.ones((3, 3)), {"causal": 1}, TypeError, "causal must be True or False, got 1"),
        (np.ones((3, 3)), {"sinks": -1}, ValueError, "sinks must be at least 0, got -1"),
        (np.ones((3, 3)), {"sinks": 2}, ValueError, "sinks must leave at least two keys of 3"),
        (torch.ones(3, 3, requires_grad=True), {}, TypeError, "requires grad"),
    ],
)
def test_wrong_input(attention: Any, keywords: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error) as caught:
        position_sanity_check(attention, **keywords)
    assert caught.type is error
    assert message in str(caught.value)


@pytest.mark.parametrize(("value", "hint"), [(math.nan, "mask it"), (math.inf, "mask it"), (-1.0, "softmax")])
def test_what_is_no_weight_is_named(value: float, hint: str) -> None:
    maps = np.repeat(EVEN[None], 3, 0)
    maps[2, 200, 17] = value
    with pytest.raises(ValueError, match=re.escape(f"got {value:g} at [2, 200, 17]; ")) as caught:
        position_sanity_check(maps)
    assert hint in str(caught.value)
