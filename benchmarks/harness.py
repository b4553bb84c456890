"""Time candidates against each other in one process, so that their ratios mean something.

Candidates take turns, block by block: every round gives each of them one block, and a ratio is
formed within a round, from two medians that were measured within seconds of each other. What is
reported is the median over the rounds. Each block begins with fresh data and with a warm-up, so
that neither the values (denormals are slow) nor another library's spinning threads nor a cold
cache of the candidate before it are measured.
"""

import gc
import itertools
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

Run = Callable[[], Any]
Output = Literal["in place", "given", "new", ""]
Angles = Literal["ready", "made", ""]


class Unavailable(Exception):  # noqa: N818, it is a state and no error
    """A candidate that can't run here, or not on this work; the message says why."""


@dataclass(frozen=True)
class Candidate:
    """Something that does the work.

    Attributes
    ----------
    name : str
        As the table shows it.
    output : {"in place", "given", "new", ""}
        Where the result goes: over the input, into an array that exists and was touched before,
        or into one that the call makes (and pays the fresh pages of). "" for a limit.
    angles : {"ready", "made", ""}
        Whether cosines and sines are given or made in the call.
    setup : callable
        Makes what the call needs and returns the call. The call returns the results, or None
        where they lie in the work's own arrays. Raises `Unavailable` where it can't run.
    """

    name: str
    output: Output
    angles: Angles
    setup: Callable[[], Run]

    @property
    def label(self) -> str:
        """The name that tells it from every other candidate of the same work."""
        return f"{self.name}, {self.output}" if self.output else self.name


@dataclass(frozen=True)
class Bench:
    """Work, and who does it; labels of candidates differ.

    Attributes
    ----------
    name : str
        Unique, for the command line and the results.
    title : str
        What it is, for the reader.
    candidates : tuple of Candidate
    refresh : callable
        Puts the work's arrays into their first state; before every block.
    verify : callable
        Takes a candidate and what its call returned; raises AssertionError if that is wrong.
    """

    name: str
    title: str
    candidates: tuple[Candidate, ...]
    refresh: Callable[[], None]
    verify: Callable[[Candidate, Any], None]


@dataclass(frozen=True)
class Effort:
    """How long to measure.

    Attributes
    ----------
    rounds : int
    seconds : float
        Of one block, warm-up left out.
    warm_up : float
        Seconds, and at least one call.
    samples : int
        The fewest of a block.
    sample_seconds : float
        A sample is as many calls as fill this time, at least one.
    """

    rounds: int = 7
    seconds: float = 0.1
    warm_up: float = 0.02
    samples: int = 3
    sample_seconds: float = 1e-4


QUICK = Effort(rounds=1, seconds=0.005, warm_up=0.0, samples=1)


@dataclass
class Row:
    """What was measured of one candidate: the median of each round, in seconds."""

    name: str
    label: str
    output: str
    angles: str
    rounds: list[float] = field(default_factory=list)


@dataclass
class Result:
    """All rows of one bench at one number of threads, and who is missing from it, and why."""

    name: str
    title: str
    threads: int
    rows: list[Row]
    missing: dict[str, str]


def _calls(run: Run, count: int) -> float:
    start = time.perf_counter()
    for _ in itertools.repeat(None, count):
        run()
    return time.perf_counter() - start


def _warm_up(run: Run, seconds: float) -> float:
    """Call until the time is up; return the time of the last call, in seconds."""
    end = time.perf_counter() + seconds
    while True:
        last = _calls(run, 1)
        if time.perf_counter() >= end:
            return last


def time_block(run: Run, effort: Effort) -> float:
    """Return the median time of a call over one block, in seconds."""
    once = _warm_up(run, effort.warm_up)
    count = max(1, round(effort.sample_seconds / max(once, 1e-7)))
    samples = max(effort.samples, round(effort.seconds / max(once * count, 1e-7)))
    return statistics.median(_calls(run, count) / count for _ in range(samples))


def _prepare(bench: Bench, candidate: Candidate) -> Run:
    """Set a candidate up and see that it computes the right thing."""
    bench.refresh()
    try:
        run = candidate.setup()
        result = run()
    except Unavailable:
        raise
    except Exception as error:  # a peer's own failure is a row, not the end of the run
        message = (str(error) or repr(error)).splitlines()[0]
        raise Unavailable(f"{type(error).__name__}: {message}"[:200]) from error
    bench.verify(candidate, result)
    return run


def _prepare_all(bench: Bench, missing: dict[str, str]) -> Iterator[tuple[Row, Run]]:
    for candidate in bench.candidates:
        try:
            run = _prepare(bench, candidate)
        except Unavailable as reason:
            missing[candidate.label] = str(reason)
        except AssertionError as error:
            missing[candidate.label] = f"WRONG RESULT: {error}"
        else:
            row = Row(candidate.name, candidate.label, candidate.output, candidate.angles)
            yield row, run


def measure(bench: Bench, threads: int, effort: Effort) -> Result:
    """Verify, then time, all candidates of a bench.

    Parameters
    ----------
    bench : Bench
    threads : int
        For the record; the candidates were made for it.
    effort : Effort

    Returns
    -------
    Result
    """
    labels = [candidate.label for candidate in bench.candidates]
    if len(set(labels)) < len(labels):
        raise ValueError(f"two candidates of {bench.name} have the same label")
    missing: dict[str, str] = {}
    ready = list(_prepare_all(bench, missing))
    gc.collect()
    gc.disable()
    try:
        for turn in range(effort.rounds):
            first = turn * len(ready) // effort.rounds  # nobody has the same neighbour always
            for row, run in ready[first:] + ready[:first]:
                bench.refresh()
                row.rounds.append(time_block(run, effort))
    finally:
        gc.enable()
    return Result(bench.name, bench.title, threads, [row for row, _ in ready], missing)


def median(row: Row) -> float:
    """Return a row's time in seconds: the median over the rounds."""
    return statistics.median(row.rounds)


def ratio(row: Row, reference: Row) -> float:
    """Return the median over the rounds of row / reference."""
    pairs = zip(row.rounds, reference.rounds, strict=True)
    return statistics.median(mine / its for mine, its in pairs)


def spread(row: Row) -> float:
    """Return how far the rounds of a row lie apart: (largest - smallest) / median."""
    return (max(row.rounds) - min(row.rounds)) / median(row)
