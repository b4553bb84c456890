"""Forked children: data-loader workers, and forks under load.

What can take the whole test run down (hang, crash) happens in a child process with a time limit.
"""

from __future__ import annotations

from conftest import run_python

LOADER = """
import sys, warnings
import numpy as np, torch
import posenc

class Rows(torch.utils.data.Dataset):
    def __len__(self):
        return 8
    def __getitem__(self, i):
        assert posenc.get_num_threads() == 1
        return rope(large, offset=i)

torch.set_num_threads(2)
(torch.ones(700, 700) @ torch.ones(700, 700)).relu().sum()      # torch's own threads have run
posenc.set_num_threads(2)
rope, large = posenc.Rope(128, layout="half"), torch.ones(4, 8, 1024, 128)
whole = [rope(large, offset=i) for i in range(8)]               # and so have ours
warnings.simplefilter("ignore")                                 # of forking with threads, from Python 3.12 on
loader = torch.utils.data.DataLoader(Rows(), num_workers=2, multiprocessing_context="fork")
print(all(torch.equal(found[0], wanted) for found, wanted in zip(loader, whole, strict=True)))
"""


def test_data_loader() -> None:
    """Workers forked after torch and posenc ran in parallel rotate large arrays, alone, to the same bits, and end."""
    assert run_python(LOADER, timeout=60) == "True"


FORKS = """
import os, threading, time, warnings
import numpy as np, posenc
warnings.simplefilter("ignore")
posenc.set_num_threads(2)
rope, x = posenc.Rope(64, layout="half"), np.ones((4, 4, 2048, 64), np.float32)
expected, stop = rope(x), threading.Event()

def hammer():
    y = x.copy()
    while not stop.is_set():
        rope(y, out=y)

def child():
    fine = posenc.get_num_threads() == 1 and np.array_equal(rope(x), expected)
    posenc.set_num_threads(4)
    os._exit(0 if fine and posenc.get_num_threads() == 1 and np.array_equal(rope(x), expected) else 1)

def reap(pid):
    for _ in range(2000):
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.005)
    os.kill(pid, 9)
    os.waitpid(pid, 0)
    return "stuck"

threading.Thread(target=hammer, daemon=True).start()
codes = []
for _ in range(20):
    pid = os.fork()
    if pid == 0:
        child()
    codes.append(reap(pid))
stop.set()
print(codes == [0] * 20 and np.array_equal(rope(x), expected), codes)
"""


def test_forks_under_load() -> None:
    """Forked while another thread's call is split: the child has one thread and lives; the parent goes on."""
    assert run_python(FORKS, timeout=60).startswith("True")


UNDER_WAY = """
import os, signal, warnings
import numpy as np, posenc
warnings.simplefilter("ignore")
posenc.set_num_threads(2)
rope, x = posenc.Rope(2, layout="half"), np.ones((1 << 24, 2), np.float16)   # one pair: little memory for much work
expected, forked, result = rope(x), [], "done"
signal.signal(signal.SIGALRM, lambda number, frame: forked.append(os.fork()))
signal.setitimer(signal.ITIMER_REAL, 0.01)
try:
    same = np.array_equal(rope(x), expected)
except RuntimeError as error:
    result = str(error)
if forked == [0]:
    os._exit(7 if "forked while other threads" in result and np.array_equal(rope(x), expected) else 1)
print(result, same, os.waitstatus_to_exitcode(os.waitpid(forked[0], 0)[1]))
"""


def test_a_handler_that_forks() -> None:
    """Forked by a signal's handler under way: the child learns that parts are missing, its parent has all."""
    assert run_python(UNDER_WAY, timeout=60) == "done True 7"
