"""A path, a dictionary or a config object -> one plain dictionary."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def load(source: Any) -> dict[str, Any]:
    """Return a config as a dictionary.

    Parameters
    ----------
    source : path, mapping or object with to_dict()
        A config.json or the directory that holds one; its contents; a config of transformers; the metadata of a GGUF
        file as a dictionary.

    Raises
    ------
    FileNotFoundError
        For a path where nothing is.
    TypeError, ValueError
        For other things, and for files that hold no JSON object.
    """
    if isinstance(source, Mapping):
        return _plain(source)
    if isinstance(source, (str, os.PathLike)):
        return _read(Path(source))
    to_dict = getattr(source, "to_dict", None)
    if callable(to_dict) and not isinstance(source, type):
        result = to_dict()
        if isinstance(result, Mapping):
            return _plain(result)
    own = "; pass its .config" if hasattr(getattr(source, "config", None), "to_dict") else ""
    raise TypeError(
        "source must be a path of a config.json, a dictionary, or a config object with to_dict(), got "
        f"{type(source).__name__}{own}"
    )


def _plain(source: Mapping[Any, Any]) -> dict[str, Any]:
    """Return a copy whose keys are strings, down to the dictionaries of parts."""
    for key, value in source.items():
        if not isinstance(key, str):
            raise TypeError(f"source must have strings for keys, got {key!r}")
        if isinstance(value, Mapping) and key.endswith("_config") and key != "per_layer_config":
            _plain(value)
    return dict(source)


def _read(path: Path) -> dict[str, Any]:
    if path.is_dir():
        path = path / "config.json"
    if not path.is_file():
        raise FileNotFoundError(f"source {str(path)!r} is no file")
    try:
        config = json.loads(path.read_text(encoding="utf-8-sig"))
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ValueError(f"source {str(path)!r} holds no JSON: {error}") from None
    if not isinstance(config, dict):
        raise ValueError(f"source {str(path)!r} must hold a JSON object, got {type(config).__name__}")
    return config
