"""An answer when numbers disagree: checks whose reports say what failed, what it means and what usually causes it.

Loaded on first use. Every report has `ok`, prints itself, gives a dictionary (`to_dict`) and a table in a notebook.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # what type checkers and editors know; `_WHERE` says it again, as a test makes sure
    from posenc.checks._property import Property as Property
    from posenc.checks._report import Line as Line
    from posenc.checks._report import Report as Report
    from posenc.checks.attention import AttentionReport as AttentionReport
    from posenc.checks.attention import position_sanity_check as position_sanity_check
    from posenc.checks.decay import DecayReport as DecayReport
    from posenc.checks.decay import extensions as extensions
    from posenc.checks.decay import rotary_decay as rotary_decay
    from posenc.checks.identification import Identification as Identification
    from posenc.checks.identification import identify as identify
    from posenc.checks.mismatch import Mismatch as Mismatch
    from posenc.checks.mismatch import explain_mismatch as explain_mismatch
    from posenc.checks.rope_checks import RopeCheck as RopeCheck
    from posenc.checks.rope_checks import check_rope as check_rope
    from posenc.checks.rope_checks import dtypes as dtypes
    from posenc.checks.rope_checks import inverse as inverse
    from posenc.checks.rope_checks import isometry as isometry
    from posenc.checks.rope_checks import left_padding as left_padding
    from posenc.checks.rope_checks import offset_equals_prefill as offset_equals_prefill
    from posenc.checks.rope_checks import origin as origin
    from posenc.checks.rope_checks import packed_equals_separate as packed_equals_separate
    from posenc.checks.rope_checks import relative as relative
    from posenc.checks.rope_checks import rope_matches as rope_matches
    from posenc.checks.rope_checks import stateless as stateless
    from posenc.checks.transformers_module import wrap_hf as wrap_hf

#: public name -> the module that has it; each is loaded when it is first asked for
_WHERE: dict[str, str] = {
    "AttentionReport": "attention",
    "DecayReport": "decay",
    "Identification": "identification",
    "Line": "_report",
    "Mismatch": "mismatch",
    "Property": "_property",
    "Report": "_report",
    "RopeCheck": "rope_checks",
    "check_rope": "rope_checks",
    "dtypes": "rope_checks",
    "explain_mismatch": "mismatch",
    "extensions": "decay",
    "identify": "identification",
    "inverse": "rope_checks",
    "isometry": "rope_checks",
    "left_padding": "rope_checks",
    "offset_equals_prefill": "rope_checks",
    "origin": "rope_checks",
    "packed_equals_separate": "rope_checks",
    "position_sanity_check": "attention",
    "relative": "rope_checks",
    "rope_matches": "rope_checks",
    "rotary_decay": "decay",
    "stateless": "rope_checks",
    "wrap_hf": "transformers_module",
}

__all__ = list(_WHERE)


if not TYPE_CHECKING:  # to which every name would be one that exists

    def __getattr__(name: str) -> Any:
        if name in _WHERE:
            return getattr(importlib.import_module(f"posenc.checks.{_WHERE[name]}"), name)
        raise AttributeError(f"module 'posenc.checks' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(set(globals()) | set(_WHERE))
