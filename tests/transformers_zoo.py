"""Every rotary module of the installed transformers: found by reading its source, called as its own model calls it."""

from __future__ import annotations

import ast
import functools
import importlib
import inspect
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers

Tensor = torch.Tensor
MODELS = Path(transformers.__file__).parent / "models"
ROTARY = re.compile(r"(Rotary|Rope|RoPE)\w*Embedding$")
ROTATES = re.compile(r"^(apply_(rotary|multidimensional_rope)|rotate_(every_two|half|pairwise|queries))")
BATCH, SEQ, HEADS = 2, 40, 3


@dataclass(frozen=True)
class Case:
    """One rotary class of one modeling file, with one of the configs that its users build it from."""

    folder: str
    file: str
    rotary: str
    config: str
    axial: bool

    def __str__(self) -> str:
        return f"{self.folder}.{self.rotary}({self.config})"

    @property
    def module(self) -> Any:
        return importlib.import_module(f"transformers.models.{self.folder}.{self.file}")

    @property
    def config_class(self) -> Any:
        if hasattr(self.module, self.config):
            return getattr(self.module, self.config)
        for path in sorted((MODELS / self.folder).glob("configuration_*.py")):
            found = importlib.import_module(f"transformers.models.{self.folder}.{path.stem}")
            if hasattr(found, self.config):
                return getattr(found, self.config)
        raise LookupError(f"{self.config} of {self}")


@functools.cache
def cases() -> tuple[Case, ...]:
    """Return all of them, in the order of the files."""
    return tuple(case for path in sources() for case in _cases_of(path))


@functools.cache
def sources() -> tuple[Path, ...]:
    mentions = re.compile(r"rotary|rope|rotate_", re.IGNORECASE)
    return tuple(path for path in sorted(MODELS.glob("*/modeling_*.py")) if mentions.search(path.read_text()))


def files_that_rotate_without_a_class() -> set[str]:
    """Return the folders of files that define a function that rotates, and no rotary class."""
    found = set()
    for path in sources():
        names = re.findall(r"^(?:def|class) (\w+)", path.read_text(), re.MULTILINE)
        if any(map(ROTATES.search, names)) and not any(map(ROTARY.search, names)):
            found.add(path.parent.name)
    return found


def _cases_of(path: Path) -> Iterator[Case]:
    text = path.read_text()
    classes = [node for node in ast.parse(text).body if isinstance(node, ast.ClassDef)]
    for node in classes:
        if ROTARY.search(node.name):
            axial = "compute_axial_rope_parameters" in ast.unparse(node)
            for config in _configs_of(node, classes, text.splitlines()):
                yield Case(path.parent.name, path.stem, node.name, config, axial)


def _configs_of(rotary: ast.ClassDef, classes: list[ast.ClassDef], lines: list[str]) -> list[str]:
    """Return the config classes of those that build a rotary module of their own `config`."""
    found: list[str] = []
    for user in classes:
        if not any(rotary.name in line for line in lines[user.lineno : user.end_lineno]):
            continue  # most of a file: walking through it is what takes time
        for call in ast.walk(user):
            if isinstance(call, ast.Call) and ast.unparse(call.func) == rotary.name:
                given = [*call.args, *(keyword.value for keyword in call.keywords)]
                if ast.unparse(given[0]) in ("config", "self.config"):
                    found.append(_annotation(user) or "")
    found = [name for name in dict.fromkeys(found) if name not in ("", "PreTrainedConfig")]
    return found or [own for own in [_annotation(rotary), *map(_attribute, classes)] if own][:1]


def _attribute(node: ast.ClassDef) -> str | None:
    """Return the type of a class attribute `config`, as a model's base class has it."""
    for line in node.body:
        if isinstance(line, ast.AnnAssign) and ast.unparse(line.target) == "config":
            return ast.unparse(line.annotation)
    return None


def _annotation(node: ast.ClassDef) -> str | None:
    """Return the type of __init__'s config."""
    for function in node.body:
        if isinstance(function, ast.FunctionDef) and function.name == "__init__":
            for argument in function.args.args[1:]:
                if "config" in argument.arg and argument.annotation is not None:
                    return ast.unparse(argument.annotation).strip("'\"").split("|")[0].strip()
    return None


# ---- configs that can be built

#: Configs whose class has no model_type of its own.
UNNAMED = {
    "SaProtConfig": "evolla_saprot",
    "EsmFold2AtomEncoderConfig": "esmfold2_atom_encoder",
    "Qwen3OmniMoeCode2WavConfig": "qwen3_omni_moe_code2wav",
}
#: What a default config lacks before its rotary module can be built and run, or turns anything.
NEEDED: dict[str, dict[str, Any]] = {
    # the default turns nothing
    "EsmConfig": {"position_embedding_type": "rotary"},
    "GraniteMoeHybridConfig": {"position_embedding_type": "rope", "layer_types": ["attention"] * 32},
    "Zamba2Config": {"use_mem_rope": True},
    "SeamlessM4TConfig": {"position_embeddings_type": "rotary"},
    "Wav2Vec2BertConfig": {"position_embeddings_type": "rotary"},
    "Wav2Vec2ConformerConfig": {"position_embeddings_type": "rotary"},
    # KeyError 'full_attention': its default has no rope parameters at all
    "CohereCompassTextConfig": {
        "rope_parameters": {"full_attention": {"rope_type": "default", "rope_theta": 50_000.0}},
    },
    # the default sections have the sum 32, its default head 64 pairs: torch.split fails in forward
    "Glm4vTextConfig": {"partial_rotary_factor": 0.5},
    "GlmImageTextConfig": {"partial_rotary_factor": 0.5},
    # len(None): the default has no mrope_section
    "HunYuanVLTextConfig": {"rope_parameters": {"rope_type": "default", "mrope_section": [16, 16, 16, 16]}},
    # the default head is odd (2048 / 28): its 74 columns do not fit 73 elements
    "Qwen3OmniMoeTextConfig": {"num_attention_heads": 16},
    # the default rotates an odd part, 21 of 42 elements: see test_an_odd_part_is_refused
    "Glm4MoeConfig": {"head_dim": 128},
    "Glm4vMoeTextConfig": {"head_dim": 128},
    # transformers does not read its own default rotary_dim=64: see test_minimax_m3_ignores_its_rotary_dim
    "MiniMaxM3VLTextConfig": {"partial_rotary_factor": 0.5},
}
#: Rotary modules that are built from a part of the config that their annotation names.
BUILT_FROM = {"T5GemmaConfig": lambda config: config.decoder}


@functools.cache
def built(case: Case) -> tuple[Any, Any]:
    """Return a config and the rotary module that it builds."""
    own = case.config_class(**NEEDED.get(case.config, {}))
    own = BUILT_FROM.get(case.config, lambda config: config)(own)
    return own, getattr(case.module, case.rotary)(own).eval()


# ---- tables as the module makes them


@dataclass
class Tables:
    """A module's cosines and sines, as it returns them and per pair, with the positions that it was given."""

    raw: tuple[Any, ...]
    cos: np.ndarray
    sin: np.ndarray
    positions: np.ndarray  # as posenc takes them


def some_positions(count: int, seed: int, most: int = 4096) -> np.ndarray:
    """0, 1, most, and others between, so that no two rows of a table are alike."""
    rng = np.random.default_rng(seed)
    return np.concatenate([[0, 1, most], rng.choice(np.arange(2, most), count - 3, replace=False)])


def tables(module: Any, case: Case, config: Any, pairs: int, axes: int, layer_type: str | None) -> Tables:
    """Run the module's own forward."""
    names = list(inspect.signature(type(module).forward).parameters)[1:]
    if names[:2] != ["x", "position_ids"]:
        raw, positions = SPECIAL[case.rotary](module, config)
    else:
        given, positions = _position_ids(case, axes)
        extra = {"layer_type": layer_type} if "layer_type" in names else {}
        raw = module(torch.zeros(1), given, **extra)
    cos, sin = _per_pair(raw, pairs)
    return Tables(raw if isinstance(raw, tuple) else (raw,), cos, sin, positions)


def _position_ids(case: Case, axes: int) -> tuple[Tensor, np.ndarray]:
    if case.axial:
        rows = np.stack([some_positions(SEQ, seed) for seed in range(axes)])
        given = torch.from_numpy(rows.T.copy())
        return (given[None].expand(BATCH, -1, -1) if case.folder == "gemma4" else given), rows
    if axes == 1:
        rows = np.stack([some_positions(SEQ, seed) for seed in range(BATCH)])
        return torch.from_numpy(rows), rows
    rows = np.stack([[some_positions(SEQ, BATCH * a + b) for b in range(BATCH)] for a in range(axes)])
    return torch.from_numpy(rows), rows


def _per_pair(raw: Any, pairs: int) -> tuple[np.ndarray, np.ndarray]:
    """Return cos and sin of one column a pair, from complex, half-width, doubled or repeated tables."""
    if isinstance(raw, tuple):
        cos, sin = (table.numpy() for table in raw)
    else:
        cos, sin = raw.real.numpy(), raw.imag.numpy()
    if cos.shape[-1] == pairs:
        return cos, sin
    assert cos.shape[-1] == 2 * pairs, f"{cos.shape[-1]} columns for {pairs} pairs"
    columns = np.arange(2 * pairs)
    for first, second in (  # halves, neighbours, halves of two blocks
        (columns[:pairs], columns[pairs:]),
        (columns[0::2], columns[1::2]),
        tuple(columns.reshape(2, 2, -1).transpose(1, 0, 2).reshape(2, -1)) if pairs % 2 == 0 else ((), ()),
    ):
        if np.array_equal(cos[..., first], cos[..., second]) and np.array_equal(sin[..., first], sin[..., second]):
            return cos[..., first], sin[..., first]
    raise AssertionError("the two elements of a pair have different tables")


def _sequential(module: Any, config: Any) -> tuple[Any, np.ndarray]:
    found = module(torch.zeros(1, SEQ, 8))
    if found.ndim == 3:  # Clvp: angles
        angles = found[0]
        return (angles.cos(), angles.sin()), np.arange(SEQ)
    return (found[0, :, 0, 0], found[1, :, 0, 0]), np.arange(SEQ)


def _patches(module: Any, config: Any) -> tuple[Any, np.ndarray]:
    """DINOv3: patch centres in [-1, 1]."""
    patch = config.patch_size if isinstance(config.patch_size, int) else config.patch_size[0]
    rows, columns = 5, 8
    grid = np.indices((rows, columns)).reshape(2, -1)
    centres = (grid + 0.5) / np.array([[rows], [columns]]) * 2 - 1
    return module(torch.zeros(1, 3, rows * patch, columns * patch)), centres


def _grid_from_one(module: Any, config: Any) -> tuple[Any, np.ndarray]:
    """EfficientLoFTR: rows and columns from 1."""
    step, size = config.q_aggregation_stride, config.q_aggregation_kernel_size
    cos, sin = module(torch.zeros(1, 8, 4 * step + size, 6 * step + size))
    return (cos[0].flatten(0, 1), sin[0].flatten(0, 1)), np.indices((5, 7)).reshape(2, -1) + 1


def _llama4_vision(module: Any, config: Any) -> tuple[Any, np.ndarray]:
    """Rows and columns from 1, the class token last, at 0."""
    side = config.image_size // config.patch_size
    grid = np.indices((side, side)).reshape(2, -1) + 1
    return module(torch.zeros(1))[:, 0], np.concatenate([grid, np.zeros((2, 1), np.int64)], axis=1)


def _atoms(module: Any, config: Any) -> tuple[Any, np.ndarray]:
    rng = np.random.default_rng(0)
    where, residue = rng.uniform(-50, 50, (SEQ, 3)).astype(np.float32), rng.integers(0, 500, SEQ)
    raw = module(torch.from_numpy(where)[None], torch.from_numpy(residue)[None], torch.float32)
    return raw, np.concatenate([where.T, residue[None]]).astype(np.float64)[:, None]


def _audio_time(module: Any, config: Any) -> tuple[Any, np.ndarray]:
    """MusicFlamingo: the angle is -2 pi t times (window | frame of the window), each times inv_freq."""
    length, frames = module.max_seq_len_cached, SEQ
    window = config.audio_frame_step * 4 * frames
    start = np.array([0.0, 3 * window], np.float32)
    stamps = (start[:, None] + np.arange(frames) * config.audio_frame_step * 4).astype(np.float32)
    raw = module(torch.from_numpy(stamps), frames)
    turns = -2 * np.pi * stamps.astype(np.float64)
    windows = turns * (np.round(start / window) / length)[:, None]
    return raw, np.stack([windows, turns * np.arange(frames) / length * 2 * np.pi])


SPECIAL: dict[str, Callable[[Any, Any], tuple[Any, np.ndarray]]] = {
    "ClvpRotaryPositionalEmbedding": _sequential,
    "SeamlessM4TConformerRotaryPositionalEmbedding": _sequential,
    "Wav2Vec2BertRotaryPositionalEmbedding": _sequential,
    "Wav2Vec2ConformerRotaryPositionalEmbedding": _sequential,
    "DINOv3ViTRopePositionEmbedding": _patches,
    "EomtDinov3RotaryEmbedding": _patches,
    "Sapiens2RopePositionEmbedding": _patches,
    "EfficientLoFTRRotaryEmbedding": _grid_from_one,
    "Llama4VisionRotaryEmbedding": _llama4_vision,
    "EsmFold2RotaryEmbedding": _atoms,
    "MusicFlamingoRotaryEmbedding": _audio_time,
}


# ---- rotations as the file applies them


def rotated(
    function: Callable[..., Any], case: Case, tables: Tables, q: Tensor, k: Tensor, width: int
) -> tuple[Tensor | None, Tensor | None]:
    """Call a file's own function on (batch, heads, seq, head_dim), with the shapes that it expects."""
    names = list(inspect.signature(function).parameters)
    source = inspect.getsource(function)
    if q.shape[-1] > width and not re.search(r"_pass\b|_nope|passthrough|:-rope_dim", source):  # attention splits it
        turned = [None if x is None else x[..., :width] for x in (q, k)]
        found = rotated(function, case, tables, *turned, width)
        return tuple(torch.cat([a, x[..., width:]], -1) for a, x in zip(found, (q, k), strict=True))  # type: ignore[return-value]
    cos, sin = tables.raw if len(tables.raw) == 2 else (tables.raw[0], None)
    heads_last = [x.transpose(1, 2) for x in (q, k)]
    if sin is None:  # complex
        if "freqs_ci" in names or case.folder == "llama4":
            turned = function(*heads_last, cos if cos.ndim > 2 else cos[:, None])
            return tuple(x.transpose(1, 2) for x in turned)  # type: ignore[return-value]
        return function(q, k, cos)
    if names[0] == "hidden_states":
        return tuple(torch.stack([function(head, cos, sin) for head in x.unbind(1)], 1) for x in (q, k))  # type: ignore[return-value]
    if names[0] == "x":
        if "position_ids" in names:
            ids = torch.from_numpy(tables.positions.T.copy())[None].expand(len(cos), -1, -1)
            turned = [function(x.expand(len(cos), -1, -1, -1).transpose(1, 2), cos, sin, ids) for x in (q, k)]
            return tuple(x.transpose(1, 2)[:1] for x in turned)  # type: ignore[return-value]
        return function(q, cos, sin), function(k, cos, sin)
    if "v" in names:
        return function(q, k, k, cos, sin, torch.arange(q.shape[2])[None])[:2]
    if (names == ["q", "k", "cos", "sin"] and "unsqueeze(-2)" in source) or "cos[:, None, :]" in source:
        turned = function(*(x[0] for x in heads_last), cos, sin)  # (seq, heads, head_dim)
        return tuple(x.transpose(0, 1)[None] for x in turned)  # type: ignore[return-value]
    if cos.ndim == 2 and "unsqueeze_dim" in names:
        cos, sin = cos[None], sin[None]
    return function(q, k, cos, sin)
