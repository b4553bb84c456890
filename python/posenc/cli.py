"""The command `posenc`, also `python -m posenc`."""

import argparse
import json
import sys
from collections.abc import Sequence

from posenc import __version__, runtime


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; return its exit code."""
    parser = argparse.ArgumentParser(prog="posenc", description="Position encodings for transformers.")
    parser.add_argument("--version", action="version", version=f"posenc {__version__}")
    commands = parser.add_subparsers(dest="command", required=True)
    demo = commands.add_parser("demo", help="rotate a real model's queries and keys in place, and measure it")
    demo.add_argument("--json", action="store_true", help="print the measurements as JSON")
    commands.add_parser("runtime", help="show the instruction set and the threads in use")
    chosen = parser.parse_args(arguments)
    if chosen.command == "runtime":
        runtime.show_runtime()
        return 0
    from posenc import demo as demonstration

    measured = demonstration.run()
    print(json.dumps(measured, indent=2) if chosen.json else demonstration.show(measured))
    return 0 if measured["in_place"]["same_pointers"] else 1


if __name__ == "__main__":
    sys.exit(main())
