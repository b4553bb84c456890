"""Run the benchmarks: python -m benchmarks [--quick] [--only PATTERN ...] [--threads N ...]."""

import argparse
import dataclasses
import fnmatch
import gc
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks import add, attention, bias, harness, machine, relative, rotate, scaled, summary, tables, train
from benchmarks.harness import Bench, Effort, Result, Row

RESULTS = Path(__file__).with_name("results")


def _builders() -> dict[str, Any]:
    makers = (rotate, tables, scaled, add, attention, bias, relative, train)
    return {name: builder for maker in makers for name, builder in maker.builders().items()}


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one short round, nothing written")
    parser.add_argument("--only", nargs="+", default=["*"], metavar="PATTERN", help="bench names")
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--rounds", type=int, help=f"default {Effort.rounds}")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder for figures.*")
    parser.add_argument("--list", action="store_true", help="print the names of the benches")
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args()


def _effort(arguments: argparse.Namespace) -> Effort:
    effort = harness.QUICK if arguments.quick else Effort()
    rounds = arguments.rounds or effort.rounds
    return dataclasses.replace(effort, rounds=rounds)


# ---- the child: one number of threads, one process ----


def _forget_compiled() -> None:
    if "torch" in sys.modules:
        sys.modules["torch"]._dynamo.reset()
    gc.collect()


def _run_child(arguments: argparse.Namespace) -> None:
    """Measure the benches of `--only`, and append each result to the file as a line of JSON."""
    (threads,) = arguments.threads
    builders = _builders()
    for name in arguments.only:
        print(f"{name}, threads: {threads}", file=sys.stderr, flush=True)
        bench: Bench = builders[name](threads)
        result = harness.measure(bench, threads, _effort(arguments))
        with arguments.child.open("a") as file:
            file.write(json.dumps(dataclasses.asdict(result)) + "\n")
        del bench
        _forget_compiled()


# ---- the parent ----


def _environment(threads: int) -> dict[str, str]:
    count = str(threads)
    return {**os.environ, "OMP_NUM_THREADS": count, "NUMBA_NUM_THREADS": count}


def _spawn(arguments: argparse.Namespace, names: list[str], threads: int, file: Path) -> bool:
    """Run a child on its own processors; False if it died."""
    command = [sys.executable, "-m", "benchmarks", "--child", str(file), "--only", *names]
    command += ["--threads", str(threads), "--rounds", str(_effort(arguments).rounds)]
    command += ["--quick"] if arguments.quick else []
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, sorted(allowed)[-threads:])  # what the child inherits
    try:
        ended = subprocess.run(command, env=_environment(threads), cwd=Path(__file__).parents[1])
    finally:
        os.sched_setaffinity(0, allowed)
    return ended.returncode == 0


def _result(loaded: dict[str, Any]) -> Result:
    return Result(**{**loaded, "rows": [Row(**row) for row in loaded["rows"]]})


def _read(file: Path) -> list[Result]:
    lines = file.read_text().splitlines() if file.exists() else []
    return [_result(json.loads(line)) for line in lines]


def _measure(arguments: argparse.Namespace, names: list[str], threads: int) -> list[Result]:
    """Measure at one number of threads; a bench in which the child dies is left out, loudly."""
    results: list[Result] = []
    while names:
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "results.jsonl"
            survived = _spawn(arguments, names, threads, file)
            found = _read(file)
        results += found
        if survived:
            break
        dead = {"everybody": "the process died in this bench"}
        name = names[len(found)]
        results.append(Result(name, name, threads, [], dead))
        names = names[len(found) + 1 :]
    return results


def _merge(folder: Path, results: list[Result]) -> list[Result]:
    """Return the results with those of an earlier run that were not measured again."""
    file = folder / "figures.json"
    earlier = json.loads(file.read_text())["results"] if file.exists() else []
    found = {(each["name"], each["threads"]): _result(each) for each in earlier}
    found |= {(each.name, each.threads): each for each in results}
    order = list(_builders())
    known = [each for each in found.values() if each.name in order]
    return sorted(known, key=lambda each: (order.index(each.name), each.threads))


def _write(folder: Path, results: list[Result], facts: dict[str, str]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    results = _merge(folder, results)
    (folder / "figures.md").write_text(summary.markdown(results, facts))
    content = {"machine": facts, "results": [dataclasses.asdict(each) for each in results]}
    (folder / "figures.json").write_text(json.dumps(content, indent=1) + "\n")


def main() -> int:
    """Run the command line; return 1 if somebody computed a wrong result or died."""
    arguments = _arguments()
    if arguments.child:
        _run_child(arguments)
        return 0
    names = [name for name in _builders() if any(fnmatch.fnmatch(name, pattern) for pattern in arguments.only)]
    if arguments.list:
        print("\n".join(names))
        return 0
    facts = machine.facts()
    results: list[Result] = []
    for threads in arguments.threads:
        results += _measure(arguments, names, threads)
        if not arguments.quick:
            _write(arguments.results, results, facts)
    print(summary.markdown(results, facts))
    reasons = [why for each in results for why in each.missing.values()]
    return int(any("WRONG RESULT" in why or "died" in why for why in reasons))


if __name__ == "__main__":
    sys.exit(main())
