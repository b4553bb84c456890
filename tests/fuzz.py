"""Random arguments for every public function: nothing may come out but the documented exceptions, and never a crash.

    python tests/fuzz.py --calls 1000000 --seed 7

A scene is a set of arguments that fit together, laid out in memory in every way that NumPy and torch know. A call
takes its arguments from the scene, and now and then one from the junk. A fraction of the calls is looked at closely: a
refused call may not have changed a byte, a successful one only the elements of its output, and the numbers must be
those of posenc._reference. Made to run under AddressSanitizer. After a crash, the same seed with --trace names the
call. The verbs and their calls are in the folder fuzzing.
"""

from __future__ import annotations

import argparse
import sys
import time
from typing import Any

import posenc
from conftest import memory_of
from fuzzing import add_calls, bias_calls, gradient_calls, relative_calls, rotate_calls, tally_calls
from fuzzing.call import Call, Verb, assert_close, assert_unwritten, in_memory, reference_of
from fuzzing.junk import OwnError, junk
from fuzzing.memory import Choices
from posenc import Rope, _core, runtime

VERBS: tuple[Verb, ...] = (
    rotate_calls.VERB,
    add_calls.VERB,
    relative_calls.VERB,
    bias_calls.VERB,
    gradient_calls.VERB,
    tally_calls.VERB,
)
DOCUMENTED = (TypeError, ValueError, IndexError, BufferError)
CALLS_OF_A_SCENE = 500


class Fuzzer:
    """Makes calls from a seed, and judges what they do."""

    def __init__(self, seed: int, checked: float, verbs: tuple[Verb, ...] = VERBS) -> None:
        self.choose, self.checked, self.verbs = Choices(seed, junk()), checked, verbs
        self.successes = self.compared = self.calls = 0

    def run(self, calls: int, trace: bool = False) -> None:
        """Make that many calls; the first that does what it must not raises AssertionError naming it."""
        for self.calls in range(calls):
            if self.calls % CALLS_OF_A_SCENE == 0:
                self.begin_scene()
            call = self.choose.pick(self.makers)(self.choose, self.scene)
            if trace:
                print(self.calls, call, flush=True)
            try:
                if self.choose.random() < self.checked:
                    self.check(call)
                else:
                    self.make(call)
            except AssertionError as error:
                raise AssertionError(f"call {self.calls}: {call}\n{error}") from error

    def begin_scene(self) -> None:
        """Take new arguments; some scenes have calls split among threads, however small they are."""
        verb = self.verbs[self.calls // CALLS_OF_A_SCENE % len(self.verbs)]
        self.scene = verb.scene(self.choose)
        self.makers = [call for often, call in verb.calls for _ in range(often)]
        split = self.choose.maybe(0.1)
        runtime.SPLIT_BYTES = 64 if split else 4 << 20
        Rope.__call__ = _core.rotate_call(Rope.__call__, Rope._fixed_spec, runtime.SPLIT_BYTES)  # type: ignore[method-assign]
        posenc.set_num_threads(self.choose.pick((1, 2, 3)) if split else 1)

    def make(self, call: Call) -> Any:
        """Return the result, or the exception if it is one that is documented."""
        try:
            result = call.function(*call.arguments, **call.named)
        except (*DOCUMENTED, OwnError) as error:
            return error
        except Exception as error:
            raise AssertionError(f"undocumented {type(error).__name__}: {error}") from error
        self.successes += 1
        return result

    def check(self, call: Call) -> None:
        arrays = in_memory(self.scene.arrays())
        before = [memory_of(a) for a in arrays]
        wanted = reference_of(call)  # computed first: the call may overwrite its input
        result = self.make(call)
        written = [] if isinstance(result, BaseException) else call.outputs()
        for a, old in zip(arrays, before, strict=True):
            assert_unwritten(a, old, written)
        if wanted is not None and not isinstance(result, BaseException):
            if isinstance(wanted, Exception):
                raise AssertionError(f"the call succeeded, but its reference failed: {wanted!r}") from wanted
            results = result if isinstance(result, tuple) else (result,)
            for found, (numbers, tolerance) in zip(results, wanted, strict=True):
                assert_close(found, numbers, tolerance)
            self.compared += 1


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--checked", type=float, default=0.01, help="fraction of the calls that is looked at closely")
    parser.add_argument("--trace", action="store_true", help="print each call before it is made")
    options = parser.parse_args()
    print(f"{options.calls} calls, seed {options.seed}", flush=True)
    fuzzer, start = Fuzzer(options.seed, options.checked), time.perf_counter()
    try:
        fuzzer.run(options.calls, options.trace)
    except AssertionError as error:
        print(f"FAILED with seed {options.seed}, {error}")
        return 1
    seconds = time.perf_counter() - start
    print(f"{fuzzer.successes} succeeded, {fuzzer.compared} compared with the reference, {seconds:.1f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
