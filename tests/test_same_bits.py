"""The same bits on every processor: one committed hash for each group of outputs, reached in every way there is.

Tables, rotations, biases, additions and all gradients are computed from inputs that integer arithmetic makes, and
hashed. The hashes in tests/data/hashes.json must come out at every instruction set of this processor, with one thread
and with two, from aligned and misaligned memory, from the whole and from slices of it. Where a change of the numbers is
meant, write the file again, from the scalar level, and say in the commit which numbers moved and why:

    python tests/test_same_bits.py --write
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import bits_of_rotations as of
import bits_of_sums as and_of
import posenc
from bits_of_rotations import KINDS, Array, Way, bits_of, numbers
from posenc import _core, runtime

HASHES = Path(__file__).resolve().parent / "data" / "hashes.json"
LEVELS = _core.runtime()[1]

WAYS = (Way(), Way(shift=1), Way(shift=3, pieces=4), Way(shift=2, threads=2), Way(pieces=3, threads=2))

GROUPS: dict[str, Callable[[Way], Iterator[Array]]] = {
    "frequencies": lambda _: (
        posenc.Rope(width, layout="half", base=base, precision=precision).inv_freq
        for base in (1e2, 1e4, 1.5e5, 5e5, 1e6, 12345.5)
        for width in (2, 64, 80, 128, 510)
        for precision in ("exact", "float32")
    ),
    "tables float32": lambda way: of.table_arrays(way, np.float32),
    "tables float64": lambda way: of.table_arrays(way, np.float64),
    "tables float32 recipe": lambda way: of.table_arrays(way, np.float32, precision="float32"),
    "tables float64 of float32 recipe": lambda way: of.table_arrays(way, np.float64, precision="float32"),
    "tables scaled": lambda way: of.table_arrays(way, np.float32, scale=1.3465735902799727),
    "tables out float32": lambda way: of.table_arrays_out(way, np.float32),
    "tables out float64": lambda way: of.table_arrays_out(way, np.float64),
    **{f"rotations {kind}": lambda way, kind=kind: of.rotations(way, kind) for kind in KINDS},
    **{f"strided {kind}": lambda way, kind=kind: of.strided(way, kind) for kind in KINDS},
    **{f"own positions {kind}": lambda way, kind=kind: of.own_positions(way, kind) for kind in KINDS},
    **{f"by tables {kind}": lambda way, kind=kind: of.by_tables(way, kind) for kind in KINDS},
    **{f"biases {kind}": lambda way, kind=kind: and_of.biases(way, kind) for kind in KINDS},
    **{f"large {kind}": lambda way, kind=kind: of.large(way, kind) for kind in KINDS},
    "large tables": of.large_tables,
    "sinusoids": and_of.sinusoids,
    **{f"sums {kind}": lambda way, kind=kind: and_of.sums(way, kind) for kind in KINDS},
    **{f"gradients {kind}": lambda way, kind=kind: and_of.of_rotations(way, kind) for kind in KINDS},
    **{f"gradients of biases {kind}": lambda way, kind=kind: and_of.of_biases(way, kind) for kind in KINDS},
}
STREAMED = {"streamed": of.streamed}


def digest(arrays: Iterator[Array]) -> str:
    """Hash the bits in little-endian order, with width and shape."""
    sha = hashlib.sha256()
    for x in arrays:
        words = bits_of(x)
        sha.update(f"{words.itemsize}{words.shape}".encode())
        sha.update(words.astype(words.dtype.newbyteorder("<"), copy=False))
    return sha.hexdigest()


def digests(way: Way, groups: dict[str, Callable[[Way], Iterator[Array]]]) -> dict[str, str]:
    posenc.set_num_threads(way.threads)
    try:
        return {name: digest(group(way)) for name, group in groups.items()}
    finally:
        posenc.set_num_threads(None)


def at_level(level: str, *arguments: str) -> Any:
    """Run this file in a process of its own at an instruction set, and return what it prints."""
    environment = {**os.environ, "POSENC_ISA": level, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, "-W", "error", __file__, *arguments]
    process = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert process.returncode == 0, process.stderr
    return json.loads(process.stdout)


def committed() -> dict[str, str]:
    return json.loads(HASHES.read_text(encoding="utf-8"))


def assert_same(found: dict[str, str], wanted: dict[str, str]) -> None:
    """A failure names the groups whose bits differ."""
    assert found.keys() == wanted.keys()
    different = [name for name in found if found[name] != wanted[name]]
    assert not different, f"other bits in: {', '.join(different)}"


def part_of(names: dict[str, Any]) -> dict[str, str]:
    return {name: value for name, value in committed().items() if name in names}


def test_every_group_is_committed() -> None:
    assert committed().keys() == {*GROUPS, *STREAMED}


@pytest.mark.parametrize(
    "way", [WAYS[-1], *(pytest.param(way, marks=pytest.mark.broad) for way in WAYS[:-1])], ids=repr
)
def test_every_way(way: Way) -> None:
    """In this process, at the level it runs at."""
    assert_same(digests(way, GROUPS), part_of(GROUPS))


@pytest.mark.parametrize("threads", [1, 2])
def test_results_written_past_the_caches(threads: int) -> None:
    assert_same(digests(Way(shift=1, threads=threads), STREAMED), part_of(STREAMED))


@pytest.mark.broad
@pytest.mark.parametrize("level", LEVELS)
def test_every_instruction_set(level: str) -> None:
    """In a process of its own: everything whole with two threads, and everything small from misaligned slices."""
    shown = at_level(level, "--show")
    assert shown["level"] == level
    assert_same(shown["whole"], committed())
    assert_same(shown["sliced"], part_of(shown["sliced"]))
    assert len(shown["sliced"]) > 20


@pytest.mark.parametrize("kind", KINDS)
def test_large_calls_are_shared(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With two threads every call of the groups named large is given to both."""
    seen: list[int] = []
    on_threads = runtime.on_threads

    def counting(core: Callable[..., Any], *arguments: Any) -> Any:
        seen.append(runtime.get_num_threads())
        return on_threads(core, *arguments)

    monkeypatch.setattr(runtime, "on_threads", counting)
    digests(Way(threads=2), {kind: GROUPS[f"large {kind}"], "tables": GROUPS["large tables"]})
    assert seen == [2] * (7 + 4)


def test_a_hash_sees_one_bit() -> None:
    """One unit in the last place of one element, a zero's sign, a shape: each changes the digest."""
    x = numbers("float32", (3, 4), key=70)
    other, turned = x.copy(), x.reshape(4, 3)
    other[2, 3] = np.nextafter(other[2, 3], np.float32(9))
    zeros = np.zeros(2, np.float32)
    assert len({digest(iter([a])) for a in (x, other, turned, zeros, -zeros)}) == 5
    with pytest.raises(AssertionError, match="other bits in: b"):
        assert_same({"a": "0", "b": "1"}, {"a": "0", "b": "2"})


def show() -> dict[str, Any]:
    small = {name: group for name, group in GROUPS.items() if not name.startswith("large")}
    return {
        "level": _core.runtime()[0],
        "whole": digests(Way(threads=2), {**GROUPS, **STREAMED}),
        "sliced": digests(Way(shift=3, pieces=3), small),
    }


def write() -> None:
    HASHES.write_text(json.dumps(at_level("scalar", "--show")["whole"], indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    if sys.argv[1:] == ["--show"]:
        print(json.dumps(show()))
    elif sys.argv[1:] == ["--write"]:
        write()
    else:
        sys.exit(__doc__)
