"""Which part of a head turns: head_dim and rotary_dim out of a config's numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from posenc import _parameters as check
from posenc.config._spelling import number

if TYPE_CHECKING:
    from posenc.config._family import Config, Family, Kind
    from posenc.config._report import Report

LONGEST_HEAD = 1 << 24  # elements; also of hidden sizes: beyond that, a file is broken rather than large


def head_dim(config: Config, family: Family, kind: Kind, name: str, types: Sequence[str | None]) -> int:
    """Return the length of a head: its key, the same key for one layer, the family's number, or a ratio of sizes."""
    own = _of_layer(config, kind, name, types)
    key = kind.head_key
    given = number(config, key) if own is None else own
    if given is None:
        given = kind.head_dim
    if given is not None:
        return check.integer(key, given, 1, most=LONGEST_HEAD)
    return _ratio(config, family)


def _ratio(config: Config, family: Family) -> int:
    values = []
    for key in family.sizes:
        value = number(config, key)
        if value is None:
            raise ValueError(f"{key} is missing, and so is head_dim, which it would give")
        values.append(check.integer(key, value, 1, most=LONGEST_HEAD))
    whole, *parts = values
    for part in parts:
        whole //= part
    if whole < 1:
        raise ValueError(f"{' / '.join(family.sizes)} must be at least 1, got {' / '.join(map(str, values))}")
    return whole


def _of_layer(config: Config, kind: Kind, name: str, types: Sequence[str | None]) -> Any:
    """Return the head_dim of the first layer of a kind, where a config says so for single layers."""
    layers = config.get("per_layer_config")
    if layers is None or name not in types:
        return None
    if not isinstance(layers, Mapping) or not all(isinstance(own, Mapping) for own in layers.values()):
        raise TypeError(f"per_layer_config must be a dictionary of a dictionary for each layer, got {layers!r}")
    key = "head_dim" if kind.head_key == "global_head_dim" else kind.head_key
    numbers = {str(layer).lstrip("0") or "0": own for layer, own in layers.items()}  # "05" in files of transformers
    own = numbers.get(str(types.index(name)))
    return None if own is None else own.get(key)


def rotary_dim(
    config: Config, family: Family, kind: Kind, length: int, parameters: Mapping[str, Any], report: Report
) -> int:
    """Return how many elements of a head turn.

    int(head_dim * partial_rotary_factor) as transformers has it; all of a latent head; all of a proportional one, whose
    frequencies say what does not turn.
    """
    where, given = parameters["where"], parameters.get("rotary_dim")
    special = None if kind.rotated is None else kind.rotated(config, length)
    if special is not None:
        return check.integer("rotary_dim", special, 1, most=length)
    if family.latent:
        _check_latent(config, length, parameters, report)
        return length
    partial = parameters.get("partial_rotary_factor")
    width = None if partial is None else int(length * check.positive("partial_rotary_factor", partial))
    if parameters["rope_type"] == "proportional":
        return length
    if given is not None:
        given = check.integer(f"{where}: rotary_dim", given, 1, most=length)
        if kind.partial is None and given != length:
            report.wrong(f"{where}: rotary_dim={given}, and this family turns whole heads ({length})")
            return length
        if width is not None and width != given:
            report.wrong(f"{where}: rotary_dim={given} and partial_rotary_factor={partial} of {length} contradict")
        return given
    if width is None:
        return length
    most = LONGEST_HEAD if family.axes == "grid_over_all_heads" else length  # which counts the heads together
    if not 1 <= width <= most:
        raise ValueError(f"{where}: partial_rotary_factor must rotate 1 to {most} elements, got {check.shown(partial)}")
    return width


def _check_latent(config: Config, width: int, parameters: Mapping[str, Any], report: Report) -> None:
    """A latent head turns as a whole; a partial_rotary_factor beside it only repeats its share of the query."""
    partial = parameters.get("partial_rotary_factor")
    if partial in (None, 1.0):
        return
    partial = check.positive(f"{parameters['where']}: partial_rotary_factor", partial)
    whole = [number(config, "head_dim"), (number(config, "qk_nope_head_dim") or 0) + width]
    if all(size is None or int(size * partial) != width for size in whole):
        report.wrong(
            f"{parameters['where']}: partial_rotary_factor={partial} is no share of a query of which {width} elements "
            f"turn (qk_rope_head_dim)"
        )
