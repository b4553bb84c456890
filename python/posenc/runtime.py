"""Threads, instruction sets, and what is in use.

There are no threads in C. A large call is split into the same call on slices of its arrays, which plain worker threads
run; C releases the GIL, so they run side by side. Same bits for any number of threads, since every row of the result
depends on its own inputs alone. A forked child (a data-loader worker) has no workers and runs serially.
"""

import atexit
import functools
import os
import queue
import re
import sys
import threading
from collections import deque
from collections.abc import Callable

from posenc import _core
from posenc import _parameters as check

#: Calls of more bytes than this are split, where there is more than one thread.
SPLIT_BYTES = 4 << 20
#: Results of more bytes than this are written past the caches; the same limit as in C, for the whole of a split call.
STREAM_BYTES = 32 << 20
#: The same for tables: making rows takes longer than writing them, and up to here ordinary stores hide behind it.
STREAM_TABLE_BYTES = 512 << 20
#: A slice is at most this large, so that an interrupt never waits long for the slices under way.
SLICE_BYTES = 16 << 20
#: More threads than any machine has processors for are a mistake, and would be started.
MAX_THREADS = 1024
#: "Do not defer": no array is this large.
NEVER = sys.maxsize

_COUNT = re.compile("0*[1-9][0-9]{0,3}")
_requested: int | None = None
_serial = False  # in a forked child, and once the interpreter ends
_tasks: "queue.SimpleQueue[_Job | None]" = queue.SimpleQueue()
_workers: list[threading.Thread] = []


def set_num_threads(n: int | None) -> None:
    """Set how many threads large calls use, for the whole process.

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


def get_num_threads() -> int:
    """Return how many threads a large call would use now.

    The first of: `set_num_threads`; the environment variables POSENC_NUM_THREADS and OMP_NUM_THREADS; torch's own
    number where torch is loaded; the processors this process may use (affinity, cgroup quota). In a forked child
    always 1.

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


class _Job:
    """Parts of one call, claimed one by one by whoever is free.

    An interrupt can strike the caller at any line, even between a lock and its release. So the caller takes no lock: it
    claims by an atomic popleft, and only the workers, which no interrupt reaches, count themselves.
    """

    def __init__(self, run: Callable[[int], object], parts: int) -> None:
        self._run = run
        self._parts = deque(range(parts))
        self._count_lock = threading.Lock()
        self._busy = 0
        self._idle = threading.Event()
        self._idle.set()
        self.error: BaseException | None = None

    def work(self) -> None:
        """Do parts until none are left."""
        while True:
            try:
                part = self._parts.popleft()
            except IndexError:
                return
            self._run(part)

    def help(self) -> None:
        """Do parts until none are left, in a worker; an exception is kept for the caller and ends the job.

        A worker counts as busy before it claims: one that comes after the last part, or after cancel, finds nothing.
        """
        self._count(1)
        try:
            self.work()
        except BaseException as error:
            self.error = self.error or error
            self.cancel()
        finally:
            self._count(-1)

    def _count(self, change: int) -> None:
        with self._count_lock:
            self._busy += change
            if self._busy:
                self._idle.clear()
            else:
                self._idle.set()

    def cancel(self) -> None:
        """Let nobody start another part."""
        self._parts.clear()

    def wait(self) -> None:
        """Return when no worker is at a part."""
        self._idle.wait()


def run_parts(run: Callable[[int], object], parts: int, threads: int) -> None:
    """Call run(0) .. run(parts - 1), on this thread and up to threads - 1 workers.

    Returns when all are done. On an exception, here or in a worker, or an interrupt, no other part is started, those
    under way are waited for, and it is raised.
    """
    job = _Job(run, parts)
    try:
        helpers = min(threads, parts) - 1
        _start_workers(helpers)
        for _ in range(helpers):
            _tasks.put(job)
        job.work()
        job.wait()
    except BaseException:
        job.cancel()
        job.wait()
        raise
    if job.error is not None:
        raise job.error


def _start_workers(wanted: int) -> None:
    """Start what is missing; two callers at once may start a few more than that, which then wait with the others."""
    if wanted > 0 and not _workers:
        atexit.register(_stop_workers)
    while len(_workers) < wanted:
        worker = threading.Thread(target=_serve, args=(_tasks,), daemon=True, name="posenc")
        worker.start()
        _workers.append(worker)


def _serve(tasks: "queue.SimpleQueue[_Job | None]") -> None:
    while (job := tasks.get()) is not None:
        job.help()
        del job  # and with it the last reference to the call's arrays, perhaps
    tasks.put(None)  # for the next worker, counted or not: an interrupt can strike between a start and its count


def _stop_workers() -> None:
    """End the workers before the interpreter does: one stopped inside a C++ destructor would take the process along."""
    global _serial
    _serial = True
    _tasks.put(None)
    for worker in _workers:
        worker.join()
    _workers.clear()


def _after_fork_in_child() -> None:
    """Forget the workers, which stayed in the parent, and their queue, in whatever state it was."""
    global _serial, _workers, _tasks
    _serial = True
    _workers = []
    _tasks = queue.SimpleQueue()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
