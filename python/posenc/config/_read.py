"""Reading one config: its family, its rope parameters, its layers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from posenc import _parameters as check
from posenc._frequencies import PRECISIONS
from posenc.axes import UnequalRope
from posenc.config import _attention, _axes, _gguf, _parts, _scaling, _sizes, _source, _spelling
from posenc.config._families import FAMILIES
from posenc.config._family import ALL, Entry, Family, Kind, Other, Refused, Switch, rotary
from posenc.config._model import ModelPositions
from posenc.config._report import Report
from posenc.rotary import Rope
from posenc.scaling import InverseFrequencies
from posenc.tables import LAYOUTS

if TYPE_CHECKING:
    from posenc.config._axes import Rotation
    from posenc.config._family import Config

NAMES_OF_LAYERS = ("layer_types", "layers_block_type", "block_types", "mlp_layer_types")
NUMBERS_OF_LAYERS = (
    *("full_attn_idxs", "attn_layer_indices", "cross_attention_layers", "rope_scaling_layers", "compress_ratios"),
)
MOST_LAYERS = 100_000  # beyond that, a file is broken rather than deep
#: Types of layers in which nothing attends, so that nothing turns.
NO_ATTENTION = frozenset({"linear_attention", "conv", "mamba", "mamba2", "recurrent", "moe", "mlp"})


def read(
    source: Any,
    *,
    part: str | None = None,
    family: str | None = None,
    layout: str | None = None,
    precision: str = "exact",
    strict: bool = True,
) -> ModelPositions:
    """Read what a model config says about positions.

    Parameters
    ----------
    source : path, mapping or object with to_dict()
        A config.json or its directory, its contents, a config object of transformers, or the metadata of a GGUF file
        as a dictionary (`general.architecture`, `llama.rope.freq_base`, ...).
    part : str, optional
        Which part of a composite model: "text", "vision", "audio", ...; see `ModelPositions.parts`. Default: its text
        decoder.
    family : str, optional
        Read as this model_type, whatever the config says.
    layout : {"half", "interleaved", "interleaved_to_half"}, optional
        For a family that is not known: how its pairs lie (see `posenc.Rope`). Its rope parameters are then read by
        their common spellings, without defaults of a family.
    precision : {"exact", "float32"}
        Of the Ropes; "float32" repeats the arithmetic that checkpoints were trained with.
    strict : bool
        Keys that contradict each other or look positional and are not known are errors; else they are warned of
        (`ConfigWarning`), noted, and read as transformers does: what stands inside a rope dictionary wins.

    Returns
    -------
    ModelPositions

    Raises
    ------
    FileNotFoundError
        For a path where nothing is.
    TypeError, ValueError
        For an unknown family, and for keys that are missing, unknown, contradicting, of a wrong kind or out of range:
        the message names the key, what came and what was expected.

    Examples
    --------
    >>> from posenc import config
    >>> gemma = {"model_type": "gemma3_text", "hidden_size": 2304, "num_attention_heads": 8, "num_hidden_layers": 6}
    >>> positions = config.read(gemma)
    >>> positions.layers[4:]
    ('sliding_attention', 'full_attention')
    >>> positions.rope("full_attention").base
    1000000.0
    """
    check.choice("precision", precision, PRECISIONS)
    if layout is not None:
        check.choice("layout", layout, LAYOUTS)
    report = Report(check.flag("strict", strict))
    config = _source.load(source)
    if _gguf.is_metadata(config):
        if part is not None or family is not None:
            raise ValueError("part and family are for a config: the metadata of a GGUF file name their architecture")
        name, entry, config = _gguf.translated(config, layout, report)
        return _positions(name, entry, config, precision, report)
    chosen = _parts.choose(config, part, family, known=layout is not None)
    name = chosen.family
    entry = _entry(name, layout)
    return replace(_positions(name, entry, chosen.config, precision, report), part=chosen.part, parts=chosen.parts)


def _entry(name: str, layout: str | None) -> Entry:
    """Return the table's entry; or a plain family of a given layout for an unknown one."""
    if name in FAMILIES:
        if layout is not None:
            raise ValueError(f"layout is for families that are not known; {name!r} is, leave it out")
        return FAMILIES[name]
    if layout is None:
        raise ValueError(
            f"family {name!r} is not known. Pass layout='half', 'interleaved' or 'interleaved_to_half' if you know how "
            "its pairs lie (a wrong one fits every shape and ruins the model), or family= for one that it equals"
        )
    return rotary(layout, base=None, partial=1.0)


def _positions(name: str, entry: Entry, config: Config, precision: str, report: Report) -> ModelPositions:
    while isinstance(entry, Switch):
        value = config.get(entry.key, entry.default)
        if not isinstance(value, (str, bool, type(None))) or value not in entry.cases:
            raise ValueError(f"{entry.key} must be one of {', '.join(map(repr, entry.cases))}, got {value!r}")
        entry = entry.cases[value]
    if isinstance(entry, Refused):
        raise ValueError(f"no Rope can do what {name} does: {entry.reason}")
    report.note(entry.note)
    if isinstance(entry, Other):
        return _without_rotation(name, entry, config, report)
    return _rotating(name, entry, config, precision, report)


def _without_rotation(name: str, entry: Other, config: Config, report: Report) -> ModelPositions:
    details = {}
    for what, (key, default) in entry.details.items():
        value = _spelling.number(_spelling.opened(config, entry.inside), key)
        details[what] = default if value is None else value
    return ModelPositions(
        name,
        entry.kind,
        max_position_embeddings=_length(config),
        details=details,
        notes=tuple(report.notes),
    )


def _rotating(name: str, family: Family, config: Config, precision: str, report: Report) -> ModelPositions:
    layers = _layers(config, family)
    every = _spelling.canonical(config, family, report)
    if family.bases_by_layer:
        family, every, layers = _split_by_base(config, family, every, layers)
    used = {kind for kind in layers if kind is not None}
    ropes: dict[str, Rotation] = {}
    scaling, parameters = None, {}
    for kind, own in every.items():
        if own is None or (used and kind not in used):
            continue
        if own["rope_theta"] is None:
            raise ValueError(f"{own['where']}: rope_theta is missing, and {name} has no usual one")
        parameters = own
        ropes[kind], scaling = _rotation(config, family, kind, own, layers, precision, report)
    return ModelPositions(
        name,
        "unequal" if any(isinstance(rope, UnequalRope) for rope in ropes.values()) else "rope",
        ropes,
        tuple(kind if kind in ropes else None for kind in layers),
        _length(config),
        _attention.QUERY_SCALES[family.query_scale](config, parameters) if family.query_scale else None,
        _attention.softmax_scale(parameters, scaling) if family.softmax_mscale else 1.0,
        _axes.rows(family.axes) if family.axes else "",
        notes=tuple(report.notes),
    )


def _rotation(
    config: Config,
    family: Family,
    name: str,
    parameters: Mapping[str, Any],
    layers: Sequence[str | None],
    precision: str,
    report: Report,
) -> tuple[Rotation, Any]:
    """Return the rotation of one kind of layers, and its scaling."""
    kind = family.kinds[name]
    length = _sizes.head_dim(config, family, kind, name, layers)
    width = _sizes.rotary_dim(config, family, kind, length, parameters, report)
    context = _scaling.Context(width, _length(config))
    scaling = _scaling.build(parameters, context, family.keys | _AXES_KEYS[bool(family.axes)], report)
    head = _axes.Head(
        length,
        width,
        family.layout,
        check.positive(f"{parameters['where']}: rope_theta", parameters["rope_theta"]),
        scaling if kind.scales else None,
        _sections(parameters, family),
        precision,
        config,
    )
    try:
        return _axes.build(family.axes, head) if family.axes else _plain(head, family), scaling
    except (TypeError, ValueError) as error:
        raise type(error)(f"{parameters['where']}: {error}") from None


def _plain(head: _axes.Head, family: Family) -> Rope:
    offset = head.head_dim - head.rotary_dim if family.trailing else 0
    options: dict[str, Any] = {"base": head.base, "scaling": head.scaling}
    width = head.rotary_dim
    if width % 2 and width != head.head_dim:
        raise ValueError(
            f"partial_rotary_factor must turn an even number of elements, got {width} of {head.head_dim}: no pairs can "
            "be made of them"
        )
    options["rotary_dim"] = None if width == head.head_dim else width
    if family.clockwise:
        options = _clockwise(Rope(head.head_dim, layout=head.layout, precision=head.precision, **options))
    return Rope(head.head_dim, layout=head.layout, rotary_offset=offset, precision=head.precision, **options)


def _clockwise(forward: Rope) -> dict[str, Any]:
    """Return what makes a Rope turn the other way."""
    if forward.scaling is None:
        return {"inv_freq": -forward.inv_freq}
    if forward.scaling.depends_on_length:
        raise ValueError(f"a model that turns clockwise has no scaling that depends on the length: {forward.scaling!r}")
    negative = InverseFrequencies(tuple((-forward.inv_freq).tolist()), forward.attention_factor)
    return {"scaling": negative, "rotary_dim": forward.rotary_dim}


_AXES_KEYS = {
    True: frozenset({"mrope_section", "mrope_interleaved"}),
    False: frozenset(),
}


def _sections(parameters: Mapping[str, Any], family: Family) -> tuple[int, ...]:
    given = parameters.get("mrope_section")
    where = parameters["where"]
    if given is None:
        if not family.sections and family.axes in _axes.NEED_SECTIONS:
            raise ValueError(f"{where}: mrope_section is missing")
        return family.sections
    if not isinstance(given, (list, tuple)):
        raise TypeError(f"{where}: mrope_section must be a list of integers, got {given!r}")
    return tuple(check.integer(f"{where}: mrope_section[{i}]", n, 0) for i, n in enumerate(given))


def _length(config: Config) -> Any:
    value = _spelling.number(config, "max_position_embeddings")
    return None if value is None else int(check.positive("max_position_embeddings", value))


def _layers(config: Config, family: Family) -> list[str | None]:
    """Return the kind of rotation of each layer, or None where nothing turns; nothing where the count is not known."""
    count = _spelling.number(config, "num_hidden_layers")
    if count is None:
        return []
    count = check.integer("num_hidden_layers", count, 0, most=MOST_LAYERS)
    _check_lists(config)
    if family.layers is None:
        return [ALL] * count if ALL in family.kinds else []
    found = [_kind(type_, family.kinds) for type_ in family.layers(config, count)]
    if len(found) != count:
        raise ValueError(f"num_hidden_layers is {count}, and the config describes {len(found)} layers")
    return found


def _check_lists(config: Config) -> None:
    """Everything that describes layers one by one is a list of names or of numbers."""
    for keys, kind, what in ((NAMES_OF_LAYERS, str, "names"), (NUMBERS_OF_LAYERS, int, "integers")):
        for key in keys:
            given = config.get(key)
            if given is None:
                continue
            if not isinstance(given, (list, tuple)) or not all(isinstance(one, kind) for one in given):
                raise TypeError(f"{key} must be a list of {what}, got {given!r}")


def _kind(layer_type: str | None, kinds: Mapping[str, Kind]) -> str | None:
    if layer_type is None or layer_type in NO_ATTENTION:
        return None
    if layer_type in kinds:
        return layer_type
    if ALL in kinds:
        return ALL
    raise ValueError(f"layer_types must be {', '.join(map(repr, kinds))}, got {layer_type!r}")


def _split_by_base(
    config: Config, family: Family, every: dict[str, Any], layers: list[str | None]
) -> tuple[Family, dict[str, Any], list[str | None]]:
    """Return a family with a rotation for each base of `layer_rope_theta`, where 0 means none."""
    bases = config.get("layer_rope_theta")
    if bases is None:
        return family, every, layers
    if not isinstance(bases, (list, tuple)) or (layers and len(bases) != len(layers)):
        raise ValueError(f"layer_rope_theta must be a list of {len(layers)} numbers, got {bases!r}")
    checked = [check.not_negative(f"layer_rope_theta[{i}]", base) for i, base in enumerate(bases)]
    distinct = sorted({base for base in checked if base})
    names = {base: ALL if len(distinct) == 1 else f"rope_theta={base:g}" for base in distinct}
    own = {name: {**every[ALL], "rope_theta": base} for base, name in names.items()}
    kinds = dict.fromkeys(names.values(), family.kinds[ALL])
    return replace(family, kinds=kinds), own, [names.get(base) for base in checked]
