"""The command `posenc`, also `python -m posenc`."""

import argparse
import json
import os
import sys
from collections.abc import Sequence

from posenc import __version__, runtime
from posenc.commands import check, golden, identify, plot


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; return its exit code."""
    parser = argparse.ArgumentParser(prog="posenc", description="Position encodings for transformers.")
    parser.add_argument("--version", action="version", version=f"posenc {__version__}")
    commands = parser.add_subparsers(dest="command", required=True)
    demo = commands.add_parser("demo", help="rotate a real model's queries and keys in place, and measure it")
    demo.add_argument("--json", action="store_true", help="print the measurements as JSON")
    commands.add_parser("runtime", help="show the instruction set and the threads in use")
    explain = commands.add_parser("explain", help="say what a model's config means for positions")
    explain.add_argument("config", help="a config.json, or its directory")
    explain.add_argument("--part", help='of a composite model: "text", "vision", ..')
    explain.add_argument("--lenient", action="store_true", help="warn of unknown and contradicting keys, and go on")
    explain.add_argument("--diff", action="store_true", help="also list where other systems read it differently")
    explain.add_argument("--json", action="store_true", help="print JSON")
    for command in (check, identify, plot, golden):
        command.add(commands)
    chosen = parser.parse_args(arguments)
    try:
        code = _run(chosen) if hasattr(chosen, "run") else _COMMANDS[chosen.command](chosen)
        sys.stdout.flush()
    except BrokenPipeError:  # whoever read this has read enough (| head)
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return code


def _run(chosen: argparse.Namespace) -> int:
    """Input that cannot be used is a message and exit code 2, not a traceback."""
    try:
        return int(chosen.run(chosen))
    except (ImportError, OSError, TypeError, ValueError) as error:
        print(f"posenc {chosen.command}: {error}", file=sys.stderr)
        return 2


def _demo(chosen: argparse.Namespace) -> int:
    from posenc import demo

    measured = demo.run()
    print(json.dumps(measured, indent=2) if chosen.json else demo.show(measured))
    return 0 if measured["in_place"]["same_pointers"] else 1


def _runtime(chosen: argparse.Namespace) -> int:
    runtime.show_runtime()
    return 0


def _explain(chosen: argparse.Namespace) -> int:
    """A config that cannot be read is a message and exit code 2, not a traceback."""
    from posenc import config

    part, strict = chosen.part, not chosen.lenient
    try:
        found = config.explain(chosen.config, part=part, strict=strict)
        differences = config.diff(chosen.config, part=part, strict=strict) if chosen.diff else ()
    except (OSError, TypeError, ValueError) as error:
        print(f"posenc explain: {error}", file=sys.stderr)
        return 2
    if chosen.json:
        listed = {"differences": [str(each) for each in differences]} if chosen.diff else {}
        print(json.dumps({**found.as_dict(), **listed}, indent=2, allow_nan=False))
        return 0
    print(found)
    for each in differences:
        print(f"  read differently: {each}")
    return 0


_COMMANDS = {"demo": _demo, "runtime": _runtime, "explain": _explain}


if __name__ == "__main__":
    sys.exit(main())
