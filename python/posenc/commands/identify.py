"""`posenc identify`: which convention a function follows."""

import argparse
from typing import Any

from posenc.commands import _subject


def add(commands: Any) -> None:
    """Describe the command."""
    parser = commands.add_parser("identify", help="name the convention of a position encoding (module:function)")
    parser.add_argument("subject", help="module:function, or module:module_of_transformers")
    parser.add_argument("--kind", default="rotation", choices=["rotation", "bias", "table"], help="(rotation)")
    parser.add_argument("--axes", type=int, help="position axes (those of what it should be, else 1)")
    _subject.add_expected(parser)
    _subject.add_function(parser)
    parser.set_defaults(run=run)


def run(chosen: argparse.Namespace) -> int:
    """Identify it."""
    from posenc import checks

    fn, rope = _subject.function(chosen), _subject.expected(chosen)
    if chosen.kind == "rotation" and chosen.head_dim is None and rope is None:
        raise ValueError("the length of a head is missing: give --head-dim, --config or --rope")
    found = checks.identify(
        fn, chosen.head_dim, kind=chosen.kind, expected=rope,
        axes=chosen.axes, heads=chosen.heads, like="torch" if chosen.torch else None, max_position=chosen.max_position,
    )  # fmt: skip
    return _subject.show(found, chosen.json)
