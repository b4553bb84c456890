"""Threads, instruction sets, and what is in use.

C cuts a large call into pieces of its arrays, which a pool of threads shares with the caller (csrc/core/pool.c). A call
of some ten microseconds and more is one where it finds the workers awake, as it does in a loop of such calls. Same bits
for any number of threads, since every row of the result depends on its own inputs alone, and sums are cut where their
size says. A forked child (a data-loader worker) runs serially.
"""

import functools
import os
import re
import sys
from collections.abc import Callable
from typing import Any

from posenc import _core
from posenc import _parameters as check

#: Calls of more bytes than this are split, where there is more than one thread.
SPLIT_BYTES = 4 << 20
#: More threads than any machine has processors for are a mistake, and would be started.
MAX_THREADS = 1024
#: "Do not defer": no array is this large.
NEVER = sys.maxsize

_COUNT = re.compile("0*[1-9][0-9]{0,3}")
_requested: int | None = None
_serial = False  # in a forked child


def set_num_threads(n: int | None) -> None:
    """Set how many threads large calls use, and calls of half a MiB and more in a loop, for the whole process.

    Parameters
    ----------
    n : int or None
        From 1 to 1024. None goes back to the default (see `get_num_threads`).

    Raises
    ------
    TypeError, ValueError
        If `n` is not an integer, or not among these.

    Examples
    --------
    >>> import posenc
    >>> posenc.set_num_threads(2)
    >>> posenc.get_num_threads()
    2
    >>> posenc.set_num_threads(None)
    """
    global _requested
    _requested = None if n is None else check.integer("n", n, 1, most=MAX_THREADS)
    _core.forget_threads()


def get_num_threads() -> int:
    """Return how many threads a large call would use now.

    The first of: `set_num_threads`; the environment variables POSENC_NUM_THREADS and OMP_NUM_THREADS; torch's own
    number where torch is loaded; the processors this process may use (affinity, cgroup quota). In a forked child
    always 1. A loop of calls below 4 MiB asks every hundredth of a second, and after `set_num_threads`.

    Returns
    -------
    int
        From 1 to 1024.

    Raises
    ------
    ValueError
        If POSENC_NUM_THREADS is not an integer among these.
    """
    if _serial:
        return 1
    if _requested is not None:
        return _requested
    for name in ("POSENC_NUM_THREADS", "OMP_NUM_THREADS"):
        value = os.environ.get(name, "").split(",")[0].strip()
        if _COUNT.fullmatch(value) and int(value) <= MAX_THREADS:
            return int(value)
        if value and name == "POSENC_NUM_THREADS":
            raise ValueError(f"POSENC_NUM_THREADS must be an integer from 1 to {MAX_THREADS}, got {check.shown(value)}")
    torch = sys.modules.get("torch")
    if torch is not None and hasattr(torch, "get_num_threads"):
        return min(MAX_THREADS, int(torch.get_num_threads()))
    return min(MAX_THREADS, _available_processors())


def _available_processors() -> int:
    has_affinity = hasattr(os, "sched_getaffinity")
    processors = len(os.sched_getaffinity(0)) if has_affinity else os.cpu_count() or 1
    return max(1, min(processors, _cgroup_quota()))


@functools.cache
def _cgroup_quota() -> int:
    """Return how many processors the cgroup's time quota amounts to."""
    try:
        with open("/sys/fs/cgroup/cpu.max", encoding="ascii") as file:
            quota, period = file.read().split()[:2]
        return max(1, round(int(quota) / int(period)))
    except (OSError, ValueError):
        return sys.maxsize


def show_runtime() -> None:
    """Print the version, the instruction set in use and those this processor has, and the threads.

    The environment variable POSENC_ISA, read at import, forces a level by name.

    Examples
    --------
    >>> import posenc
    >>> posenc.show_runtime()  # doctest: +ELLIPSIS
    posenc ...
    """
    from posenc import __version__

    level, levels = _core.runtime()
    print(f"posenc {__version__}")
    print(f"instruction set: {level} (this processor: {', '.join(levels)})")
    print(f"threads: {get_num_threads()}")


def call(core: Callable[..., Any], *arguments: Any) -> Any:
    """Call a function of `_core`, on all threads where its work is large."""
    result = core(*arguments, SPLIT_BYTES, 1)
    return on_threads(core, *arguments) if type(result) is int else result


def on_threads(core: Callable[..., Any], *arguments: Any) -> Any:
    """Do what a function of `_core` has deferred, on all threads: cut into pieces in C, which has checked it whole."""
    return core(*arguments, NEVER, get_num_threads())


def _after_fork_in_child() -> None:
    global _serial
    _serial = True


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
