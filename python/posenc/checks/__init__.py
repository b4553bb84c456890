"""An answer when numbers disagree: checks whose reports say what failed, what it means and what usually causes it.

Loaded on first use. Every report has `ok`, prints itself, gives a dictionary (`to_dict`) and a table in a notebook.
"""

import importlib
from typing import Any

#: public name -> the module that has it; each is loaded when it is first asked for
_WHERE: dict[str, str] = {
    "Identification": "identification",
    "Line": "_report",
    "Report": "_report",
    "Mismatch": "mismatch",
    "explain_mismatch": "mismatch",
    "identify": "identification",
    "wrap_hf": "transformers_module",
}

__all__ = list(_WHERE)


def __getattr__(name: str) -> Any:
    if name in _WHERE:
        return getattr(importlib.import_module(f"posenc.checks.{_WHERE[name]}"), name)
    raise AttributeError(f"module 'posenc.checks' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(set(globals()) | set(_WHERE))
