"""Benches of the verb rotate: prefill, decode and batched decode of queries and keys."""

import functools
from collections.abc import Callable, Iterator

from benchmarks import limits, peers
from benchmarks.harness import Bench, Candidate, Run
from benchmarks.work import BASE, Array, Data, Work, as_torch

Builder = Callable[[int], Bench]

DTYPES = ("float32", "float16", "bfloat16")
LAYOUTS = ("half", "interleaved")
AXES = ("BHSD", "BSHD")
FAST = ("numba", "vLLM", "ggml")  # the peers that are worth 320 MiB

SCALE, COPY, COPY_STREAM = "in-place scale", "copy", "copy, non-temporal stores"
FLOOR = "empty C call"


# ---- limits ----


def limit_candidates(data: Data) -> list[Candidate]:
    """Return what memory allows: the same bytes, scaled in place and copied."""
    given, source = (data.q_out, data.k_out), (data.q, data.k)
    threads = data.threads if data.q.nbytes > peers.SMALL else 1

    def setup(kind: str) -> Run:
        if kind == "scale":
            return limits.call("scale", source, threads=threads)
        return limits.call(kind, given, source, threads)

    kinds = [("scale", SCALE), ("copy", COPY)]
    if not data.work.shift:
        kinds.append(("copy_stream", COPY_STREAM))
    return [Candidate(name, "", "", functools.partial(setup, kind)) for kind, name in kinds]


# ---- posenc ----


def _rope(data: Data, output: str) -> Run:
    """Set up a Rope, rows made in the call; "torch" means tensors over the same memory, in place."""
    posenc = peers.load("posenc")
    posenc.set_num_threads(data.threads)
    rope = posenc.Rope(data.work.dim, layout=data.work.layout, base=BASE)
    q, k = (as_torch(data.q), as_torch(data.k)) if output == "torch" else (data.q, data.k)
    axis, first, positions = data.work.seq_axis, data.work.first, data.positions
    out = {"new": None, "given": (data.q_out, data.k_out)}.get(output, (q, k))
    if data.work.stride:
        return lambda: rope(q, k, positions=positions, seq_axis=axis, out=out)
    if not first:
        return lambda: rope(q, k, seq_axis=axis, out=out)
    if axis == -2:
        return lambda: rope(q, k, offset=first, out=out)
    return lambda: rope(q, k, offset=first, seq_axis=axis, out=out)


def _tables(data: Data, output: str) -> Run:
    """Set up apply_rotary_emb, rows ready; one call for q, one for k."""
    posenc = peers.load("posenc")
    posenc.set_num_threads(data.threads)
    apply, q, k, (cos, sin) = posenc.apply_rotary_emb, data.q, data.k, data.rows
    if not data.work.stride:
        cos, sin = cos[0], sin[0]
    out = {"new": (None, None), "given": (data.q_out, data.k_out)}.get(output, (q, k))
    (q_out, k_out), layout, axis = out, data.work.layout, data.work.seq_axis

    def run() -> tuple[Array, Array]:
        return (
            apply(q, cos, sin, layout=layout, seq_axis=axis, out=q_out),
            apply(k, cos, sin, layout=layout, seq_axis=axis, out=k_out),
        )

    return run


def posenc_candidates(data: Data) -> list[Candidate]:
    """Return posenc in every way that it can do the work."""
    bind = functools.partial
    return [
        Candidate("posenc, tables", "in place", "ready", bind(_tables, data, "in place")),
        Candidate("posenc, Rope", "in place", "made", bind(_rope, data, "in place")),
        Candidate("posenc, Rope on torch tensors", "in place", "made", bind(_rope, data, "torch")),
        Candidate("posenc, tables", "given", "ready", bind(_tables, data, "given")),
        Candidate("posenc, Rope", "given", "made", bind(_rope, data, "given")),
        Candidate("posenc, Rope", "new", "made", bind(_rope, data, "new")),
    ]


# ---- benches ----


def _bench(name: str, title: str, work: Work, names: tuple[str, ...], floor: bool, threads: int) -> Bench:
    data = Data(work, threads)
    found = [*limit_candidates(data), *posenc_candidates(data), *peers.candidates(data, names)]
    if floor:
        found.insert(0, Candidate(FLOOR, "", "", limits.empty_c_call))
    return Bench(name, title, tuple(found), data.refresh, data.verify)


def _builder(
    name: str, title: str, work: Work, names: tuple[str, ...] = (), floor: bool = False
) -> tuple[str, Builder]:
    return name, functools.partial(_bench, name, title, work, names, floor)


def _prefill() -> Iterator[tuple[str, Builder]]:
    for dtype in DTYPES:
        for layout in LAYOUTS:
            for axes in AXES:
                shape = "q (1,32,4096,128), k (1,8,4096,128)"
                if axes == "BSHD":
                    shape = "q (1,4096,32,128), k (1,4096,8,128)"
                yield _builder(
                    f"prefill-{dtype}-{layout}-{axes}",
                    f"Prefill, {dtype}, {layout}, {shape}",
                    Work(layout=layout, axes=axes, dtype=dtype),  # type: ignore[arg-type]
                )


def _large() -> Iterator[tuple[str, Builder]]:
    for layout, axes in (("half", "BHSD"), ("half", "BSHD"), ("interleaved", "BHSD")):
        yield _builder(
            f"large-float32-{layout}-{axes}",
            f"Prefill of 16,384 tokens (320 MiB), float32, {layout}, {axes}",
            Work(layout=layout, axes=axes, seq=16384),  # type: ignore[arg-type]
            FAST,
        )


def _decode() -> Iterator[tuple[str, Builder]]:
    for layout, dtype in (("half", "float32"), ("interleaved", "float32"), ("half", "bfloat16")):
        work = Work(layout=layout, dtype=dtype, seq=1, first=4096)  # type: ignore[arg-type]
        yield _builder(
            f"decode-{dtype}-{layout}",
            f"Decode, one token at position 4096, {dtype}, {layout}, q (1,32,1,128), k (1,8,1,128)",
            work,
            floor=True,
        )


def _batched() -> Iterator[tuple[str, Builder]]:
    for dtype in DTYPES:
        yield _builder(
            f"batched-{dtype}-half",
            f"Batched decode, 64 rows with their own positions, {dtype}, half",
            Work(dtype=dtype, batch=64, seq=1, first=4096, stride=61),
        )


def builders() -> dict[str, Builder]:
    """Return how to make each bench, by name; a builder takes the number of threads."""
    shifted = _builder(
        "shifted-float32-half-BHSD",
        "Prefill, float32, half, arrays at 16 bytes past a multiple of 64 (as NumPy gives them)",
        Work(shift=16),
        ("numba",),
    )
    return dict([*_prefill(), *_large(), shifted, *_decode(), *_batched()])
