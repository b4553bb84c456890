"""`posenc golden`: test vectors for engines in other languages."""

import argparse
import json
from typing import Any

from posenc.commands import _subject


def add(commands: Any) -> None:
    """Describe the command."""
    parser = commands.add_parser("golden", help="write small test vectors (npz, safetensors, JSON) for other engines")
    parser.add_argument("folder", help="where to write; made if it is not there")
    parser.add_argument("--name", default="rope", help="of the files of a given rotation (rope)")
    _subject.add_expected(parser)
    parser.add_argument("--json", action="store_true", help="print the names of the files as JSON")
    parser.set_defaults(run=run)


def run(chosen: argparse.Namespace) -> int:
    """Write them."""
    from posenc import golden

    rope = _subject.expected(chosen)
    written = golden.write_all(chosen.folder) if rope is None else golden.write(chosen.folder, chosen.name, rope)
    print(json.dumps([str(path) for path in written], indent=2) if chosen.json else "\n".join(map(str, written)))
    return 0
