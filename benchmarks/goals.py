"""What posenc set out to reach, and whether a run reached it."""

import fnmatch
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from benchmarks.harness import Result, Row, median, ratio

TABLES, ROPE = "posenc, tables, in place", "posenc, Rope, in place"
TABLES_GIVEN, ROPE_GIVEN = "posenc, tables, given", "posenc, Rope, given"
TORCH, MADE = "posenc, Rope on torch tensors, in place", "posenc, rotary_table, given"
SCALE, STREAM, FILL = "in-place scale", "copy, non-temporal stores", "fill"
VLLM, GGML = "vLLM C++ operator, in place", "ggml, in place"
EAGER, REWRITE = "transformers, new", "torch.compile of an in-place rewrite, in place"
COMPILED = "transformers, torch.compile, new"
ORT = ("onnxruntime, com.microsoft, given", "onnxruntime, ai.onnx 23, given")
NUMBA = ("numba loop, in place", "numba loop, blocked, in place")
COMPLEX, TORCHTUNE = "torch complex (Meta's), new", "torchtune, new"
ATTENTION, ONE_PASS = "posenc, position_sanity_check", "one pass over the memory (NumPy's max)"
WITH_AVX512, WITHOUT = 2.5, 3.8


@dataclass(frozen=True)
class Goal:
    """A bound on mine / theirs, or on mine alone in microseconds where theirs is empty.

    Attributes
    ----------
    benches : str
        Names of benches, a shell pattern.
    threads : tuple of int
    mine, theirs : str
        Labels of rows.
    most : float
        The bound; of mine / theirs.
    """

    benches: str
    threads: tuple[int, ...]
    mine: str
    theirs: str
    most: float


def _against_limits() -> Iterator[Goal]:
    f32 = "prefill-float32"
    yield Goal(f"{f32}-half-*", (2,), TABLES, SCALE, 1.25)
    yield Goal(f"{f32}-interleaved-BSHD", (2,), TABLES, SCALE, 1.25)
    yield Goal(f"{f32}-interleaved-BHSD", (2,), TABLES, SCALE, 1.5)
    yield Goal(f"{f32}-*", (1,), TABLES, SCALE, 1.4)
    yield Goal("large-*", (1, 2), TABLES, SCALE, 1.4)
    yield Goal(f"{f32}-*", (2,), ROPE, SCALE, 1.5)
    yield Goal(f"{f32}-*", (1,), ROPE, SCALE, 1.55)
    yield Goal("prefill-float16-half-*", (1, 2), TABLES, SCALE, 1.4)
    yield Goal("prefill-float16-interleaved-*", (1, 2), TABLES, SCALE, 1.7)
    yield Goal("prefill-bfloat16-*", (1, 2), TABLES, SCALE, 1.4)
    yield Goal(f"{f32}-*", (1, 2), TABLES_GIVEN, STREAM, 1.2)
    yield Goal("attention-*", (1, 2), ATTENTION, ONE_PASS, 2.0)
    yield Goal("decode-*", (1, 2), ROPE, "", 1.2)
    yield Goal("decode-*", (1, 2), TORCH, "", 1.8)
    yield Goal("batched-float32-*", (1, 2), ROPE, SCALE, 1.3)


def _against_peers() -> Iterator[Goal]:
    both, f32 = (1, 2), "prefill-float32"
    for numba in NUMBA:
        yield Goal(f"{f32}-*", both, TABLES, numba, 1.1)
    yield Goal(f"{f32}-*", both, TABLES, VLLM, 1.0)
    yield Goal(f"{f32}-half-*", both, ROPE, GGML, 1 / 3)
    yield Goal(f"{f32}-half-*", both, ROPE, COMPILED, 1 / 10)
    yield Goal(f"{f32}-half-*", both, ROPE, EAGER, 1 / 25)
    for ort in ORT:
        yield Goal(f"{f32}-*", both, TABLES_GIVEN, ort, 1 / 2.5)
    for dtype in ("float16", "bfloat16"):
        yield Goal(f"prefill-{dtype}-*", both, TABLES, VLLM, 1 / 1.25)
        yield Goal(f"prefill-{dtype}-*", both, TABLES, REWRITE, 1 / 9)
    yield Goal(f"{f32}-interleaved-*", both, TABLES, COMPLEX, 1 / 5)
    yield Goal(f"{f32}-interleaved-*", both, TABLES, TORCHTUNE, 1 / 25)


def _tables(avx512: bool) -> Iterator[Goal]:
    both = (1, 2)
    yield Goal("table-*", both, MADE, FILL, WITH_AVX512 if avx512 else WITHOUT)
    yield Goal("table-*", both, MADE, EAGER, 1 / 20)
    yield Goal("table-*", both, MADE, COMPILED, 1 / 10)
    yield Goal("table-*", both, MADE, "NumPy float32, given", 1 / 4)


def _add() -> Iterator[Goal]:
    both = (1, 2)
    made, added = "posenc, sinusoidal_table, given", "posenc, add_positions, in place"
    yield Goal("add-table-*", both, made, FILL, 2.7)
    for peer in ("torch, given", "transformers, M2M-100, new"):
        yield Goal("add-table-*", both, made, peer, 1 / 4.5)
    yield Goal("add-positions", both, added, SCALE, 1.25)
    yield Goal("add-positions", both, added, "torch add_, in place", 1 / 1.3)


def _scaled() -> Iterator[Goal]:
    """A scaling costs nothing: 1.1 is room for noise, not for work."""
    for scaling in ("Llama3", "Yarn"):
        yield Goal("scaled-*", (1,), f"posenc, {scaling}", "posenc, not scaled", 1.1)
    for scaling in ("LongRope by length", "DynamicNTK"):
        yield Goal("scaled-table", (1,), f"posenc, {scaling}", "posenc, not scaled", 1.1)
    for config in ("llama3", "DeepSeek-V3", "Phi-3.5"):
        yield Goal("config", (1,), f"posenc, {config}", "", 200)


def _biases() -> Iterator[Goal]:
    both, mine, ready = (1, 2), "posenc, in place", "torch add_ of a ready bias, in place"
    for bench, most in (("plain", 1.05), ("causal", 1.05), ("skip", 0.75)):
        yield Goal(f"bias-alibi-{bench}", both, mine, SCALE, most)
        yield Goal(f"bias-alibi-{bench}", both, mine, ready, 1 / 2)
        yield Goal(f"bias-alibi-{bench}", both, mine, "torch builds and adds, in place", 1 / 8)
    yield Goal("bias-t5", both, mine, SCALE, 1.5)
    yield Goal("bias-deberta-*", both, mine, SCALE, 1.5)
    yield Goal("bias-relative-shift", both, mine, "torch add_ of the shifted view, in place", 1.0)
    yield Goal("bias-alibi-built", both, "posenc, given", "fill, non-temporal stores", 1.1)
    yield Goal("bias-alibi-built", both, "posenc, given", "NumPy, given", 1 / 5)
    yield Goal("bias-alibi-built", both, "posenc, given", "torch, new", 1 / 9)


def _training() -> Iterator[Goal]:
    for peer, most in (("transformers, new", 1 / 5), (COMPILED, 1 / 2)):
        yield Goal("train-float32", (1, 2), "posenc.torch, new", peer, most)


def goals(avx512: bool) -> list[Goal]:
    """Return all goals."""
    return [*_against_limits(), *_against_peers(), *_tables(avx512), *_scaled(), *_add(), *_biases(), *_training()]


def measured(results: Iterable[Result], avx512: bool) -> Iterator[tuple[Goal, Result, dict[str, Row]]]:
    """Yield every goal with a bench that measured both of its rows, and the bench's rows by label."""
    for result in results:
        rows = {row.label: row for row in result.rows}
        for goal in goals(avx512):
            wanted = {goal.mine, goal.theirs or goal.mine}
            if fnmatch.fnmatch(result.name, goal.benches) and result.threads in goal.threads and wanted <= rows.keys():
                yield goal, result, rows


def is_met(goal: Goal, rows: dict[str, Row]) -> bool:
    """Return whether a run reached it."""
    mine = rows[goal.mine]
    return (ratio(mine, rows[goal.theirs]) if goal.theirs else 1e6 * median(mine)) <= goal.most
