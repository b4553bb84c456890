"""Every spelling of rope parameters -> one dictionary of canonical keys for each kind of rotation.

Where keys may stand is read from transformers 5.23 (modeling_rope_utils.py, `RotaryEmbeddingConfigMixin`, and the
`convert_rope_params_to_dict` of the families), vLLM 0.33 (model_executor/layers/rotary_embedding/__init__.py,
`get_rope`), and the config.json files of the model hub.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from posenc.config._family import Config, Family, Kind
    from posenc.config._report import Report

#: Canonical name -> spellings beside the rope dictionary.
TOP_LEVEL = {
    "rope_theta": (
        "rope_theta",
        "rotary_emb_base",
        "rotary_embedding_base",
        "global_rope_theta",
        "rope_base",
        "rope_freq_base",
    ),
    "local_rope_theta": ("local_rope_theta", "rope_local_base_freq", "swa_rope_theta"),
    "compress_rope_theta": ("compress_rope_theta",),
    "uid_rope_base_frequency": ("uid_rope_base_frequency",),
    "partial_rotary_factor": (
        "partial_rotary_factor",
        "rotary_pct",
        "rotary_percent",
        "rope_pct",
        "rotary_emb_fraction",
    ),
    "rotary_dim": ("rotary_dim", "rotary_ndims"),
    "original_max_position_embeddings": ("original_max_position_embeddings",),
    "mrope_section": ("mrope_section",),
}
#: Canonical name -> spellings inside it.
INSIDE = {
    "rope_type": ("rope_type", "type"),
    "rope_theta": ("rope_theta", "base", "theta"),
    "partial_rotary_factor": ("partial_rotary_factor", "rotary_pct"),
    "rotary_dim": ("rotary_dim", "rope_dim"),
    "original_max_position_embeddings": ("original_max_position_embeddings", "original_context_length"),
    "mrope_section": ("mrope_section", "xdrope_section"),
}
#: Names of the same scaling.
TYPES = {"su": "longrope", "mrope": "default", "axial": "default", "none": "default"}
#: Sizes that some families call otherwise.
SIZES = {
    "hidden_size": ("hidden_size", "n_embd", "d_model"),
    "num_attention_heads": ("num_attention_heads", "n_head", "n_heads", "num_heads"),
    "num_hidden_layers": ("num_hidden_layers", "n_layer", "n_layers", "num_layers", "depth", "encoder_layers"),
    "max_position_embeddings": (
        "max_position_embeddings",
        "n_positions",
        "max_seq_len",
        "max_sequence_length",
        "model_max_length",
        "n_ctx",
    ),
}
_LOOKS_POSITIONAL = re.compile(r"rope|rotary|alibi|(^|_)ntk|yarn|xpos|mscale")
#: Keys of config.json files that look positional and are read elsewhere, or change no position.
_READ_ELSEWHERE = frozenset(
    {
        *(name for names in TOP_LEVEL.values() for name in names),
        *("rope_parameters", "rope_scaling", "rope_interleave", "qk_rope_head_dim", "qk_nope_head_dim"),
        *("no_rope_layers", "no_rope_layer_interval", "nope_layer_interval", "layer_rope_theta"),
        *("rope_scaling_layers", "alibi", "alibi_bias_max", "use_mem_rope", "use_rotary_embedding", "rotary_value"),
        *("memory_attention_rope_dropout", "memory_attention_rope_feat_sizes", "memory_attention_rope_k_sizes"),
        *("memory_attention_rope_theta", "spatial_rope_base_frequency", "uid_rope_base_frequency"),
        *("num_spatial_rope_pairs_per_axis", "num_uid_rope_pairs", "swa_qk_rope_head_dim", "position_embedding_type"),
        *("rotary", "rotary_emb_interleaved", "indexer_rope_interleave"),
    }
)

Parameters = dict[str, Any]


def number(config: Config, key: str) -> Any:
    """Return a size under any of its names, or None."""
    for name in SIZES.get(key, (key,)):
        value = config.get(name)
        if value is not None:
            return value
    return None


def opened(config: Config, inside: str) -> Config:
    """Return a config with the entries of one of its dictionaries beside its own."""
    own = config.get(inside) if inside else None
    return {**own, **config} if isinstance(own, Mapping) else config


def canonical(config: Config, family: Family, report: Report) -> dict[str, Parameters | None]:
    """Return the rope parameters of each kind of a family under canonical keys; None for a kind that turns nothing."""
    config = opened(config, family.inside)
    _refuse_unknown(config, report)
    _refuse_other_layout(config, family, report)
    beside = {name: _one(config, name, spellings, report) for name, spellings in TOP_LEVEL.items()}
    where, given = _dictionary(config, report)
    nested = _nested(given, where, family, report)
    result: dict[str, Parameters | None] = {}
    for name, kind in family.kinds.items():
        path, own = _own(name, kind, nested, where if given else "config", given)
        result[name] = None if own is None else _completed(own, path, kind, beside, family, report)
    _refuse_strangers(nested, family, where, report)
    _refuse_other_bases(config, family, beside, report)
    return result


def _dictionary(config: Config, report: Report) -> tuple[str, Mapping[str, Any]]:
    """Return the rope dictionary and the key that it stands under."""
    found: list[tuple[str, Mapping[str, Any]]] = []
    for key in ("rope_parameters", "rope_scaling"):
        value = config.get(key)
        if value is None:
            continue
        if not isinstance(value, Mapping):
            raise TypeError(f"{key} must be a dictionary or null, got {value!r}")
        if value:
            found.append((key, value))
    if len(found) == 2 and found[0][1] != found[1][1]:
        report.wrong(
            f"rope_parameters and rope_scaling contradict each other: {found[0][1]!r} and {found[1][1]!r}; "
            "rope_scaling is the older name of the same thing, keep one"
        )
    return found[-1] if found else ("rope_parameters", {})


def _nested(given: Mapping[str, Any], where: str, family: Family, report: Report) -> Mapping[str, Any] | None:
    """Return the part of a rope dictionary that is nested by layer type, or None for a flat one."""
    inner: dict[str, Any] = {key: value for key, value in given.items() if isinstance(value, Mapping)}
    if not inner:
        return None
    for key, value in given.items():
        if key in inner:
            continue
        if value is None:
            inner[key] = None
        elif key in family.kinds:
            raise TypeError(f"{where}[{key!r}] must be a dictionary or null, got {value!r}")
        elif (
            not isinstance(value, str) or TYPES.get(value, value) != "default"
        ):  # some files keep a flat rope_type "default" beside
            report.wrong(f"{where} is nested by layer type, and has {key}={value!r} beside")
    return inner


def _own(
    name: str, kind: Kind, nested: Mapping[str, Any] | None, where: str, given: Mapping[str, Any]
) -> tuple[str, Mapping[str, Any] | None]:
    """Return the rope dictionary of one kind and where it stands; None where it is null."""
    if nested is None:
        return where, given if kind.takes_flat else {}
    if name not in nested:
        return f"{where}[{name!r}]", {}
    return f"{where}[{name!r}]", nested[name]


def _completed(
    own: Mapping[str, Any],
    path: str,
    kind: Kind,
    beside: Mapping[str, Any],
    family: Family,
    report: Report,
) -> Parameters:
    """Return one kind's parameters under canonical keys, with what stands beside them and what the family implies."""
    found = _renamed(own, path, report)
    found["where"] = path
    for name, outer in (
        ("rope_theta", beside[kind.key]),
        ("partial_rotary_factor", beside["partial_rotary_factor"]),
        ("rotary_dim", beside["rotary_dim"]),
        ("mrope_section", beside["mrope_section"]),
    ):
        _fill(found, name, outer, path, report)
    if not own:
        found = {**kind.missing, **found}
    found["rope_type"] = _type(found.get("rope_type", kind.rope_type), path, family)
    if found["rope_type"] in ("yarn", "longrope", "llama3", "deepseek_yarn"):
        name = "original_max_position_embeddings"
        _fill(found, name, beside[name], path, report)
    found.setdefault("rope_theta", kind.base)
    _settle_part(found, kind, family, report)
    return {**kind.implied.get(found["rope_type"], {}), **found}


def _settle_part(found: Parameters, kind: Kind, family: Family, report: Report) -> None:
    """Keep the rotated part where the family reads it; a whole head needs none."""
    given = found.get("partial_rotary_factor")
    if kind.partial is None and found["rope_type"] != "proportional":
        if given not in (None, 1.0) and not family.latent:
            report.wrong(f"{found['where']}: partial_rotary_factor={given!r}, and this family turns whole heads")
            del found["partial_rotary_factor"]
    elif found.get("rotary_dim") is None and kind.partial is not None:
        found.setdefault("partial_rotary_factor", kind.partial)


def _renamed(own: Mapping[str, Any], path: str, report: Report) -> Parameters:
    """Return a rope dictionary under canonical keys, without what is null."""
    spelled = {name for names in INSIDE.values() for name in names}
    found = {key: value for key, value in own.items() if key not in spelled and value is not None}
    for name, spellings in INSIDE.items():
        value = _one(own, name, spellings, report, path)
        if value is not None:
            found[name] = value
    return found


def _one(given: Mapping[str, Any], name: str, spellings: tuple[str, ...], report: Report, path: str = "") -> Any:
    """Return the value under any spelling; spellings that disagree are a contradiction."""
    found = [(key, given[key]) for key in spellings if given.get(key) is not None]
    if not found:
        return None
    distinct = {
        TYPES.get(value, value) if name == "rope_type" and isinstance(value, str) else repr(value) for _, value in found
    }
    if len(distinct) > 1:
        listed = ", ".join(f"{key}={value!r}" for key, value in found)
        report.wrong(f"{f'{path}: ' if path else ''}{listed} contradict each other")
    return found[0][1]


def _fill(found: Parameters, name: str, outer: Any, path: str, report: Report) -> None:
    """Put what stands beside a rope dictionary into it; a different value inside is a contradiction."""
    if outer is None:
        return
    inner = found.setdefault(name, outer)
    if inner is not outer and inner != outer:  # NaN differs from itself
        report.wrong(f"{name} is {outer!r} beside {path} and {inner!r} in it")


def _type(given: Any, path: str, family: Family) -> str:
    if not isinstance(given, str):
        raise TypeError(f"{path}: rope_type must be a string, got {given!r}")
    return family.aliases.get(given, TYPES.get(given, given))


def _refuse_unknown(config: Config, report: Report) -> None:
    for key, value in config.items():
        if key not in _READ_ELSEWHERE and value is not None and _LOOKS_POSITIONAL.search(key):
            report.wrong(f"{key}={value!r} is no key that is known to say something about positions")


def _refuse_other_layout(config: Config, family: Family, report: Report) -> None:
    """A config that says how its pairs lie must say what its family does."""
    given = config.get("rotary_emb_interleaved")
    if given is not None and bool(given) != family.layout.startswith("interleaved"):
        report.wrong(f"rotary_emb_interleaved={given!r} contradicts this family's layout {family.layout!r}")


def _refuse_strangers(nested: Mapping[str, Any] | None, family: Family, where: str, report: Report) -> None:
    """Layer types that a family does not have."""
    for name in nested or ():
        if name not in family.kinds and nested is not None and nested[name] is not None:
            report.wrong(f"{where} has {name!r}, and this family's rotations are {', '.join(map(repr, family.kinds))}")


def _refuse_other_bases(config: Config, family: Family, beside: Mapping[str, Any], report: Report) -> None:
    """A base for a kind of layers that a family does not have."""
    known = {kind.key for kind in family.kinds.values()} | {"rope_theta"}
    for name in ("local_rope_theta", "compress_rope_theta"):
        if beside[name] is not None and name not in known:
            spelling = next(key for key in TOP_LEVEL[name] if config.get(key) is not None)
            report.wrong(f"{spelling}={beside[name]!r} belongs to families whose layers turn differently, not to this")
