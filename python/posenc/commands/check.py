"""`posenc check`: whether a function is a right rotation, or an attention map falls with distance."""

import argparse
from typing import Any

from posenc.commands import _subject


def add(commands: Any) -> None:
    """Describe the command."""
    parser = commands.add_parser("check", help="check a rotation (module:function) or an attention map (file.npy)")
    parser.add_argument("subject", help="module:function of fn(x, positions), or attention maps in a .npy file")
    _subject.add_expected(parser)
    _subject.add_function(parser)
    parser.set_defaults(run=run)


def run(chosen: argparse.Namespace) -> int:
    """Check it."""
    from posenc import checks

    if chosen.subject.endswith(".npy"):
        import numpy as np

        maps = np.load(chosen.subject, mmap_mode="r", allow_pickle=False)
        return _subject.show(checks.position_sanity_check(maps), chosen.json)
    fn, rope = _subject.function(chosen), _subject.expected(chosen)
    if rope is None:
        raise ValueError("what it should be: give --config, --rope, or --layout and --head-dim")
    report = checks.check_rope(
        fn, rope, like="torch" if chosen.torch else None, heads=chosen.heads,
        max_position=chosen.max_position,
    )  # fmt: skip
    return _subject.show(report, chosen.json)
