"""An answer when numbers disagree: checks whose reports say what failed, what it means and what usually causes it.

Loaded on first use. Every report has `ok`, prints itself, gives a dictionary (`to_dict`) and a table in a notebook.
"""

import importlib
from typing import Any

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


def __getattr__(name: str) -> Any:
    if name in _WHERE:
        return getattr(importlib.import_module(f"posenc.checks.{_WHERE[name]}"), name)
    raise AttributeError(f"module 'posenc.checks' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(set(globals()) | set(_WHERE))
