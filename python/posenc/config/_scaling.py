"""Canonical rope parameters -> a frequency scaling, with every key checked for its kind of scaling."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from posenc import _parameters as check
from posenc import scaling

if TYPE_CHECKING:
    from posenc.config._report import Report

#: Keys that are read before a scaling is built, whatever it is.
COMMON = frozenset({"rope_type", "rope_theta", "partial_rotary_factor", "rotary_dim", "where"})


@dataclass(frozen=True)
class Context:
    """What a scaling reads besides its own keys."""

    rotary_dim: int
    max_position_embeddings: Any


@dataclass(frozen=True)
class Rule:
    """One rope_type: which keys it needs, which it knows, what builds it."""

    build: Callable[[Mapping[str, Any], Context], Any]
    required: tuple[str, ...] = ()
    optional: tuple[str, ...] = ()


def build(parameters: Mapping[str, Any], context: Context, own_keys: frozenset[str], report: Report) -> Any:
    """Return the scaling of canonical rope parameters, or None for unscaled frequencies.

    Raises
    ------
    ValueError, TypeError
        For a rope_type that is unknown, keys that it lacks or does not know, and values of a wrong kind or range.
    """
    where, name = parameters["where"], parameters["rope_type"]
    if name not in RULES:
        known = ", ".join(sorted(RULES))
        raise ValueError(f"{where}: rope_type must be one of {known}, got {name!r}{_ADVICE.get(name, '')}")
    rule = RULES[name]
    missing = [key for key in rule.required if parameters.get(key) is None]
    if missing:
        raise ValueError(f"{where}: rope_type {name!r} needs {' and '.join(missing)}")
    known_keys = COMMON | own_keys | set(rule.required) | set(rule.optional)
    for key in parameters:
        if key not in known_keys:
            report.wrong(f"{where}: rope_type {name!r} has no key {key}={parameters[key]!r}; {_listed(rule)}")
    try:
        return rule.build(parameters, context)
    except (TypeError, ValueError) as error:
        raise type(error)(f"{where}: {error}") from None


def _listed(rule: Rule) -> str:
    keys = [*rule.required, *rule.optional]
    return f"it has {', '.join(keys)}" if keys else "it has none but rope_theta and partial_rotary_factor"


def _length(parameters: Mapping[str, Any], context: Context) -> int:
    """Return the length of training: its own key, else max_position_embeddings as transformers takes it."""
    given = parameters.get("original_max_position_embeddings")
    if given is None:
        given = context.max_position_embeddings
    if given is None:
        raise ValueError("original_max_position_embeddings is missing, and so is max_position_embeddings")
    return check.integer("original_max_position_embeddings", given, 1)


def _ratio(parameters: Mapping[str, Any], context: Context) -> float:
    """Return factor, or by how much max_position_embeddings is beyond the length of training."""
    if parameters.get("factor") is not None:
        return check.positive("factor", parameters["factor"])
    if None in (context.max_position_embeddings, parameters.get("original_max_position_embeddings")):
        raise ValueError(
            "factor is missing, and it follows only where both max_position_embeddings and "
            "original_max_position_embeddings are there"
        )
    return check.integer("max_position_embeddings", context.max_position_embeddings, 1) / _length(parameters, context)


def _linear(parameters: Mapping[str, Any], context: Context) -> scaling.Linear:
    return scaling.Linear(check.at_least_one("factor", parameters["factor"]))


def _dynamic(parameters: Mapping[str, Any], context: Context) -> scaling.DynamicNTK | scaling.NTK:
    """`alpha` makes it the fixed NTK-aware base (HunYuan); else it depends on the length."""
    if parameters.get("alpha"):
        return scaling.NTK(check.positive("alpha", parameters["alpha"]))
    if parameters.get("factor") is None:
        raise ValueError("rope_type 'dynamic' needs factor, or alpha")
    if context.max_position_embeddings is None:
        raise ValueError("rope_type 'dynamic' needs max_position_embeddings")
    length = check.integer("max_position_embeddings", context.max_position_embeddings, 1)
    return scaling.DynamicNTK(check.at_least_one("factor", parameters["factor"]), length)


def _yarn(parameters: Mapping[str, Any], context: Context) -> scaling.Yarn:
    names = ("attention_factor", "mscale", "mscale_all_dim", "attn_factor", "extrapolation_factor", "truncate")
    own = {name: parameters[name] for name in names if name in parameters}
    own |= {name: parameters[name] for name in ("beta_fast", "beta_slow") if parameters.get(name)}
    if own.get("attention_factor") is not None:  # it wins over the coefficients, as in transformers
        own = {name: value for name, value in own.items() if not name.startswith("mscale")}
    rule = parameters.get("mscale_rule", "transformers")
    return scaling.Yarn(_ratio(parameters, context), _length(parameters, context), mscale_rule=rule, **own)


def _deepseek_yarn(parameters: Mapping[str, Any], context: Context) -> scaling.Yarn:
    return _yarn({**parameters, "mscale_rule": "deepseek"}, context)


def _divisors(parameters: Mapping[str, Any], context: Context) -> scaling.Divisors:
    return scaling.Divisors(tuple(parameters["divisors"]))


def _longrope(parameters: Mapping[str, Any], context: Context) -> scaling.LongRope:
    for name in ("short_factor", "long_factor"):
        values = parameters[name]
        if not isinstance(values, (list, tuple)):
            raise TypeError(f"{name} must be a list of {context.rotary_dim // 2} numbers, got {values!r}")
        if len(values) != context.rotary_dim // 2:
            raise ValueError(
                f"{name} must have {context.rotary_dim // 2} numbers for {context.rotary_dim} rotated elements, got "
                f"{len(values)}"
            )
    short, long, attention = (parameters.get(name) for name in ("short_mscale", "long_mscale", "attention_factor"))
    factor = _ratio(parameters, context) if attention is None and None in (short, long) else None
    return scaling.LongRope(
        tuple(parameters["short_factor"]),
        tuple(parameters["long_factor"]),
        _length(parameters, context),
        factor=factor,
        attention_factor=attention,
        short_mscale=short,
        long_mscale=long,
    )


def _llama3(parameters: Mapping[str, Any], context: Context) -> scaling.Llama3:
    names = ("factor", "low_freq_factor", "high_freq_factor")
    return scaling.Llama3(
        **{name: parameters[name] for name in names},
        original_max_position_embeddings=_length(parameters, context),
    )


def _proportional(parameters: Mapping[str, Any], context: Context) -> scaling.Proportional:
    return scaling.Proportional(
        parameters.get("partial_rotary_factor", 1.0), check.positive("factor", parameters.get("factor", 1.0))
    )


def _ntk(parameters: Mapping[str, Any], context: Context) -> scaling.VllmNTK:
    return scaling.VllmNTK(check.positive("factor", parameters["factor"]), parameters.get("mixed_b"))


_YARN_KEYS = (
    *("factor", "original_max_position_embeddings", "attention_factor", "beta_fast", "beta_slow"),
    *("mscale", "mscale_all_dim", "mscale_rule", "truncate", "attn_factor", "extrapolation_factor", "finetuned"),
)
_LLAMA3_KEYS = ("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings")
RULES = {
    "default": Rule(lambda parameters, context: None),
    "linear": Rule(_linear, ("factor",)),
    "dynamic": Rule(_dynamic, (), ("factor", "alpha", "original_max_position_embeddings")),
    "yarn": Rule(_yarn, (), _YARN_KEYS),
    "deepseek_yarn": Rule(_deepseek_yarn, (), _YARN_KEYS),
    "longrope": Rule(
        _longrope,
        ("short_factor", "long_factor"),
        ("factor", "attention_factor", "original_max_position_embeddings", "short_mscale", "long_mscale"),
    ),
    "llama3": Rule(_llama3, _LLAMA3_KEYS[:3], _LLAMA3_KEYS[3:]),
    "proportional": Rule(_proportional, (), ("factor",)),
    "freq_factors": Rule(_divisors, ("divisors",)),
    "ntk": Rule(_ntk, ("factor",), ("mixed_b",)),
}
_ADVICE = {
    "xdrope": "; xdrope of HunYuan-VL gives the two elements of a pair different axes, which is no rotation",
    "fope": "; FoPE mixes frequencies by learned matrices, which a Rope has no place for",
}
