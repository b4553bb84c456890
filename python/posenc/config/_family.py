"""What a model family says about positions that its config.json does not: the vocabulary of the family tables."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from posenc import _parameters as check

Config = Mapping[str, Any]
LayerRule = Callable[[Config, int], "Sequence[str | None]"]

#: The name of the rotation of families whose layers all turn alike.
ALL = "all"


@dataclass(frozen=True, kw_only=True)
class Kind:
    """One of the rotations of a family; most have one, some have one for each type of layer.

    Parameters
    ----------
    base : float, optional
        Where a config names none; without it, a config must.
    key : str
        The canonical key beside the rope dictionary that holds its base (`_spelling.TOP_LEVEL`).
    partial : float, optional
        The rotated part of a head where a config says nothing; without it, the family turns whole heads and its code
        reads no partial_rotary_factor.
    head_key : str
        Where its head_dim is written.
    head_dim : int, optional
        Where that key is missing; without it, hidden size over number of heads.
    rope_type : str
        The scaling where a rope dictionary names none.
    missing : mapping
        The rope dictionary of a config that has none at all.
    implied : mapping of str to mapping
        What a scaling of that name has where its dictionary does not say.
    takes_flat : bool
        Whether a rope dictionary that is not nested by layer type is meant for it.
    scales : bool
        Whether a scaling applies to it.
    rotated : callable, optional
        (config, head_dim) -> how many elements turn, or None for the usual keys.
    """

    base: float | None = 10_000.0
    key: str = "rope_theta"
    partial: float | None = None
    head_key: str = "head_dim"
    head_dim: int | None = None
    rope_type: str = "default"
    missing: Mapping[str, Any] = field(default_factory=dict)
    implied: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    takes_flat: bool = True
    scales: bool = True
    rotated: Callable[[Config, int], int | None] | None = None


@dataclass(frozen=True, kw_only=True)
class Family:
    """A family that rotates queries and keys.

    Parameters
    ----------
    layout : str
        As in `posenc.Rope`.
    kinds : mapping of str to Kind
        Its rotations by name.
    sizes : tuple of str
        The keys of hidden size and number of heads, whose ratio is head_dim; of more numbers, the first by all others.
    latent : bool
        Multi-head latent attention: what turns is a head of its own of `qk_rope_head_dim` elements.
    trailing : bool
        The last elements of a head turn, not the first.
    clockwise : bool
        Turned the other way: negative frequencies.
    axes : str
        How several position axes share the frequencies (`_axes.SCHEMES`), or "" for one axis.
    sections : tuple of int
        `mrope_section` where a config has none.
    layers : callable, optional
        (config, number of layers) -> for each layer the kind of its rotation, or None where nothing turns.
    bases_by_layer : bool
        Whether `layer_rope_theta` lists a base for each layer, 0 for none.
    aliases : mapping of str to str
        Names of scalings that mean another one here.
    keys : frozenset of str
        Keys of its own in a rope dictionary.
    query_scale : str
        Name of the growing scale of its queries (`_attention.QUERY_SCALES`).
    softmax_mscale : bool
        Whether YaRN's mscale_all_dim also scales the softmax, as in DeepSeek-V2.
    inside : str
        A dictionary of the config whose entries count as its own.
    note : str
        What a user has to know.
    """

    layout: str
    kinds: Mapping[str, Kind]
    sizes: tuple[str, ...] = ("hidden_size", "num_attention_heads")
    latent: bool = False
    trailing: bool = False
    clockwise: bool = False
    axes: str = ""
    sections: tuple[int, ...] = ()
    layers: LayerRule | None = None
    bases_by_layer: bool = False
    aliases: Mapping[str, str] = field(default_factory=dict)
    keys: frozenset[str] = frozenset()
    query_scale: str = ""
    softmax_mscale: bool = False
    inside: str = ""
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class Other:
    """A family that rotates nothing.

    Parameters
    ----------
    kind : str
        "alibi", "learned", "sinusoidal", "relative" or "none".
    note : str
        What it does instead, and with which posenc function.
    details : mapping of str to (str, default)
        Numbers of the config that matter, by the key they have there ("" for the family's own number).
    inside : str
        A dictionary of the config whose entries count as its own.
    """

    kind: str
    note: str
    details: Mapping[str, tuple[str, Any]] = field(default_factory=dict)
    inside: str = ""


@dataclass(frozen=True, kw_only=True)
class Refused:
    """A family whose positions no Rope can express, and why."""

    reason: str


@dataclass(frozen=True, kw_only=True)
class Switch:
    """A family that is one thing or another by a key of its config."""

    key: str
    default: Any
    cases: Mapping[Any, Family | Other | Refused]


Entry = Family | Other | Refused | Switch


def rotary(layout: str, *, base: float | None = 10_000.0, **options: Any) -> Family:
    """Return a family with one rotation; options are those of `Kind` and of `Family`."""
    own = {name: options.pop(name) for name in tuple(options) if name in Kind.__dataclass_fields__}
    return Family(layout=layout, kinds={ALL: Kind(base=base, **own)}, **options)


def every(
    period: int,
    here: str | None = "full_attention",
    others: str | None = "sliding_attention",
    *,
    key: str = "",
    first: bool = False,
    last: bool = False,
) -> LayerRule:
    """Return the rule by which one layer of each period is `here`: its last one, or its first one.

    `key` may give another period, `last` makes the model's last layer `here` besides. A config's own `layer_types`
    wins.
    """

    def types(config: Config, number: int) -> Sequence[str | None]:
        given = config.get("layer_types")
        if given is not None:
            return list(given)
        length: Any = config.get(key) if key else None
        if isinstance(length, str):  # EXAONE: "LLLG", local and global
            if not length or set(length) - {"L", "G"}:
                raise ValueError(f"{key} must be a number or letters L (local) and G (global), got {length!r}")
            found = [here if length[i % len(length)] == "G" else others for i in range(number)]
        else:
            length = period if length is None else check.integer(key, length, 1)
            at = 0 if first else length - 1
            found = [here if i % length == at else others for i in range(number)]
        if last and found:
            found[-1] = here
        return found

    return types


def listed(pattern: Callable[[int, int], str | None]) -> LayerRule:
    """Return the rule that takes `layer_types`, or else pattern(layer, number of layers)."""

    def types(config: Config, number: int) -> Sequence[str | None]:
        given = config.get("layer_types")
        return [pattern(i, number) for i in range(number)] if given is None else list(given)

    return types


def renamed(rule: LayerRule, names: Mapping[str, str | None]) -> LayerRule:
    """Return a rule whose types of layers are called otherwise; None for types that turn nothing."""

    def types(config: Config, number: int) -> Sequence[str | None]:
        return [names.get(kind, kind) if kind is not None else None for kind in rule(config, number)]

    return types


def at_indices(key: str, here: str | None, others: str | None, missing: Sequence[int] = ()) -> LayerRule:
    """Return the rule by which the layers whose numbers config[key] lists are `here`."""

    def types(config: Config, number: int) -> Sequence[str | None]:
        given = config.get("layer_types")
        if given is not None:
            return list(given)
        indices = config.get(key)
        chosen = set(missing if indices is None else indices)
        return [here if i in chosen else others for i in range(number)]

    return types


def nope_list(default_interval: int = 4) -> LayerRule:
    """Return the rule of `no_rope_layers`, where 1 means RoPE; by default every so many layers go without."""

    def types(config: Config, number: int) -> Sequence[str | None]:
        given = config.get("no_rope_layers")
        if not given:
            interval = config.get("no_rope_layer_interval")
            interval = default_interval if interval is None else check.integer("no_rope_layer_interval", interval, 1)
            given = [int((i + 1) % interval != 0) for i in range(number)]
        if not isinstance(given, (list, tuple)) or any(turns not in (0, 1) for turns in given):
            raise TypeError(f"no_rope_layers must be a list of 0 (without RoPE) and 1 (with RoPE), got {given!r}")
        return [ALL if turns else None for turns in given]

    return types
