"""The command `posenc`, also `python -m posenc`."""

import argparse
import os
import sys
from collections.abc import Sequence

from posenc import __version__
from posenc.commands import check, demo, explain, golden, identify, plot, runtime


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; return its exit code. Input that cannot be used is a message and exit code 2, not a traceback."""
    parser = argparse.ArgumentParser(prog="posenc", description="Position encodings for transformers.")
    parser.add_argument("--version", action="version", version=f"posenc {__version__}")
    commands = parser.add_subparsers(dest="command", required=True)
    for command in (demo, explain, check, identify, plot, golden, runtime):
        command.add(commands)
    chosen = parser.parse_args(arguments)
    try:
        code = int(chosen.run(chosen))
        sys.stdout.flush()
    except BrokenPipeError:  # whoever read this has read enough (| head)
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (ImportError, OSError, TypeError, ValueError) as error:
        print(f"posenc {chosen.command}: {error}", file=sys.stderr)
        return 2
    return code


if __name__ == "__main__":
    sys.exit(main())
