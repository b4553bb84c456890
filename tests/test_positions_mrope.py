"""M-RoPE positions: the examples of its authors, and get_rope_index of every model of transformers 5.23 with one."""

import importlib
import inspect
import pkgutil
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
import transformers.models

from posenc import positions

Tensor = torch.Tensor


# ---- the authors' examples ----


def test_qwen2_5_vl_video() -> None:
    """The docstring of get_rope_index in transformers 4.57: 3 grid steps of 2 by 2, 25 tokens a second, 1 fps."""
    found, delta = positions.mrope(
        [2] * 12 + [0] * 5,
        scheme="qwen2_5_vl",
        video_grid_thw=[[3, 4, 4]],
        second_per_grid_ts=[2.0],
        tokens_per_second=25,
        advance="largest",
    )
    assert found[0].tolist() == [0] * 4 + [50] * 4 + [100] * 4 + [101, 102, 103, 104, 105]
    assert found[1].tolist() == [0, 0, 1, 1] * 3 + [101, 102, 103, 104, 105]
    assert found[2].tolist() == [0, 1, 0, 1] * 3 + [101, 102, 103, 104, 105]
    assert delta == 106 - 17


def test_qwen2_vl_video() -> None:
    """The docstring of get_rope_index in transformers 4.45: the same video, time in grid steps, text from 3."""
    found, _ = positions.mrope([2] * 12 + [0] * 5, scheme="qwen2_vl", video_grid_thw=[[3, 4, 4]], advance="largest")
    assert found[0].tolist() == [0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 4, 5, 6, 7]
    assert found[1].tolist() == [0, 0, 1, 1, 0, 0, 1, 1, 0, 0, 1, 1, 3, 4, 5, 6, 7]
    assert found[2].tolist() == [0, 1, 0, 1, 0, 1, 0, 1, 0, 1, 0, 1, 3, 4, 5, 6, 7]


def test_text_counts_on_all_axes() -> None:
    found, delta = positions.mrope([[0, 0, 0], [0, 0, 0]], scheme="qwen3_vl")
    assert found.tolist() == [[[0, 1, 2]] * 2] * 3
    assert delta.tolist() == [0, 0]


# ---- transformers ----


class Model(NamedTuple):
    """A model of transformers, and what its config says about grids."""

    scheme: str
    config: dict[str, int]


MODELS = {
    "qwen2_vl": Model("qwen2_vl", {"spatial_merge_size": 2}),
    "paddleocr_vl": Model("qwen2_vl", {"spatial_merge_size": 2}),
    "qwen2_5_vl": Model("qwen2_5_vl", {"spatial_merge_size": 2, "tokens_per_second": 2}),
    "ernie4_5_vl_moe": Model("ernie4_5_vl", {"spatial_merge_size": 2, "temporal_merge_size": 2}),
    "glm4v": Model("glm4v", {"spatial_merge_size": 2}),
    "glm4v_moe": Model("glm4v", {"spatial_merge_size": 2}),
    "glm46v": Model("glm4v", {"spatial_merge_size": 2}),
    "glm_ocr": Model("glm4v", {"spatial_merge_size": 2}),
    "qwen3_vl": Model("qwen3_vl", {"spatial_merge_size": 2}),
    "qwen3_vl_moe": Model("qwen3_vl", {"spatial_merge_size": 3}),
    "qwen3_5": Model("qwen3_vl", {"spatial_merge_size": 2}),
    "qwen3_5_moe": Model("qwen3_vl", {"spatial_merge_size": 1}),
    "qwen4_exp": Model("qwen3_vl", {"spatial_merge_size": 2}),
    "cohere_compass": Model("qwen3_vl", {"spatial_merge_size": 2}),
    "cosmos3_edge": Model("qwen3_vl", {"spatial_merge_size": 2}),
    "cosmos3_omni": Model("qwen3_vl", {"spatial_merge_size": 2}),
}
#: one of each scheme; the others are part of the broad tier
FIRST = {model.scheme: name for name, model in reversed(MODELS.items())}.values()
#: builds positions that are none of the schemes, and why
OTHERS = {
    "glm_image": "positions of images that are generated",
    "hunyuan_vl": "image numbers for an axis; posenc.positions.hunyuan_vl, below",
    "minicpmv4_7": "crops laid over a canvas",
    "qwen2_5_omni": "audio between the frames of a video",
    "qwen3_omni_moe": "audio between the frames of a video, fractional time",
}


def model_file(name: str) -> Any:
    return importlib.import_module(f"transformers.models.{name}.modeling_{name}")


def test_no_model_is_forgotten() -> None:
    """Every modeling file with a get_rope_index is compared below, or named with its reason."""
    found = set()
    for module in pkgutil.iter_modules(transformers.models.__path__):
        for path in transformers.models.__path__:
            try:
                with open(f"{path}/{module.name}/modeling_{module.name}.py", encoding="utf-8") as file:
                    if "def get_rope_index(" in file.read():
                        found.add(module.name)
            except FileNotFoundError:
                continue
    assert found == MODELS.keys() | OTHERS.keys()


def model_class(name: str) -> Any:
    """Return the class of a model that builds positions."""
    (owner,) = (
        c
        for _, c in inspect.getmembers(model_file(name), inspect.isclass)
        if "get_rope_index" in vars(c) and c.__module__.endswith(f".modeling_{name}")
    )
    return owner


def their_index(name: str, **inputs: Any) -> tuple[Tensor, Tensor]:
    """Call a model's own get_rope_index, on an object that holds nothing but its config."""
    owner = model_class(name)
    it = SimpleNamespace(config=SimpleNamespace(vision_config=SimpleNamespace(**MODELS[name].config)))
    it.get_vision_position_ids = lambda *a, **k: owner.get_vision_position_ids(it, *a, **k)
    found, delta = owner.get_rope_index(it, **inputs)
    return found, delta[:, 0]


class Batch(NamedTuple):
    types: Tensor
    mask: Tensor
    images: Tensor | None
    videos: Tensor | None
    seconds: Tensor | None


def random_row(rng: np.random.Generator, model: Model, images: list[Any], videos: list[Any]) -> list[int]:
    """Return token types of text with images and videos in it, whose grids are appended."""
    merge = model.config["spatial_merge_size"]
    row = [0] * int(rng.integers(1, 5))
    for _ in range(int(rng.integers(0, 4))):
        h, w = (merge * rng.integers(1, 5, 2)).tolist()
        tokens = h * w // merge**2
        if rng.random() < 0.5:
            images.append([1, h, w])
            row += [1] * tokens
        else:
            t = int(rng.integers(1, 6)) * model.config.get("temporal_merge_size", 1)
            videos.append([t, h, w])
            if model.scheme in ("qwen3_vl", "glm4v"):  # a time stamp before each frame
                for _ in range(t):
                    row += [0] * int(rng.integers(1, 4)) + [2] * tokens
            else:
                row += [2] * (t // model.config.get("temporal_merge_size", 1) * tokens)
        row += [0] * int(rng.integers(1, 5))
    return row


def padded(rows: list[list[int]], side: str, more: int) -> tuple[Tensor, Tensor]:
    """Return rows in one tensor, some tokens longer than the longest, and where they are."""
    seq = max(map(len, rows)) + more
    types, mask = torch.zeros(len(rows), seq, dtype=torch.long), torch.zeros(len(rows), seq, dtype=torch.long)
    for i, row in enumerate(rows):
        where = slice(seq - len(row), seq) if side == "left" else slice(0, len(row))
        types[i, where] = torch.tensor(row)
        mask[i, where] = 1
    return types, mask


def random_batch(rng: np.random.Generator, model: Model, side: str) -> Batch:
    images: list[Any] = []
    videos: list[Any] = []
    rows = [random_row(rng, model, images, videos) for _ in range(int(rng.integers(1, 4)))]
    types, mask = padded(rows, side, int(rng.integers(0, 3)))
    seconds = torch.tensor(rng.choice([0.5, 1.0, 2.0, 1 / 3, 0.7, 1.9833], len(videos)), dtype=torch.float32)
    return Batch(
        types,
        mask,
        torch.tensor(images) if images else None,
        torch.tensor(videos) if videos else None,
        seconds if videos else None,
    )


def ours(model: Model, batch: Batch, mask: Tensor | None, seconds: Any, advance: str | None) -> positions.MRope:
    """The same batch in posenc's words."""
    videos = batch.videos is not None
    config = {name: value for name, value in model.config.items() if name == "spatial_merge_size" or videos}
    if model.scheme == "qwen2_5_vl" and videos:
        config["second_per_grid_ts"] = seconds
    return positions.mrope(
        batch.types,
        scheme=model.scheme,
        image_grid_thw=batch.images,
        video_grid_thw=batch.videos,
        attention_mask=mask,
        advance=advance,
        **config,
    )


@pytest.mark.parametrize("side", ["left", "right", "none"])
@pytest.mark.parametrize("name", [pytest.param(m, marks=() if m in FIRST else pytest.mark.broad) for m in MODELS])
def test_as_in_transformers(name: str, side: str) -> None:
    """Thirty batches each, seeded by the case: several images and videos in a row, both paddings, and no mask."""
    model = MODELS[name]
    rng = np.random.default_rng([8, list(MODELS).index(name), ["left", "right", "none"].index(side)])
    for _ in range(30):
        batch = random_batch(rng, model, side)
        mask = None if side == "none" else batch.mask
        inputs: dict[str, Any] = {
            "input_ids": batch.types,
            "mm_token_type_ids": batch.types,
            "image_grid_thw": batch.images,
            "video_grid_thw": batch.videos,
            "attention_mask": mask,
        }
        if model.scheme == "qwen2_5_vl":
            inputs["second_per_grid_ts"] = batch.seconds
        wanted, wanted_delta = their_index(name, **inputs)
        found, delta = ours(model, batch, mask, batch.seconds, "extent")
        assert torch.equal(found, wanted)
        assert torch.equal(delta, wanted_delta)


@pytest.mark.parametrize("kind", ["float32", "float64", "list"])
def test_seconds_are_rounded_as_in_transformers(kind: str) -> None:
    """0.29 s at 10 a second: every tenth step lies on an integer, where each way of rounding shows."""
    values = [0.7, 0.1, 1.1, 1 / 3, 0.29, 1.9833]
    seconds: Any = values if kind == "list" else torch.tensor(values, dtype=getattr(torch, kind))
    grids = torch.tensor([[40, 2, 2]] * len(values))
    types = torch.tensor([([2] * 40 + [0]) * len(values)])
    model = model_class("qwen2_5_vl")
    it = SimpleNamespace(
        config=SimpleNamespace(vision_config=SimpleNamespace(spatial_merge_size=2, tokens_per_second=10))
    )
    it.get_vision_position_ids = lambda *a, **k: model.get_vision_position_ids(it, *a, **k)
    wanted, _ = model.get_rope_index(it, types, types, video_grid_thw=grids, second_per_grid_ts=seconds)
    found, _ = positions.mrope(
        types,
        scheme="qwen2_5_vl",
        video_grid_thw=grids,
        second_per_grid_ts=seconds,
        tokens_per_second=10,
        advance="extent",
    )
    assert torch.equal(found, wanted)


def test_the_roundings_differ() -> None:
    """Else the test above would not tell them apart."""

    def times(seconds: Any) -> list[int]:
        grids, types = [[60, 2, 2]], [2] * 60
        found = positions.mrope(
            types,
            scheme="qwen2_5_vl",
            video_grid_thw=grids,
            second_per_grid_ts=seconds,
            tokens_per_second=10,
            advance="extent",
        )
        return found.positions[0].tolist()

    values = np.array([0.29])
    assert times(values.astype(np.float32)) != times(values)


# ---- decoding ----


@pytest.mark.parametrize("name", ["qwen2_vl", "qwen2_5_vl", "qwen3_vl", "glm4v", "ernie4_5_vl_moe"])
def test_decoding_goes_on(name: str) -> None:
    """compute_3d_position_ids with a cache, three tokens after a left-padded prompt."""
    model = MODELS[name]
    rng = np.random.default_rng([9, list(MODELS).index(name)])
    for _ in range(10):
        batch = random_batch(rng, model, "left")
        found, delta = ours(model, batch, batch.mask, batch.seconds, "extent")
        rows = len(batch.types)
        longer = torch.cat([batch.mask, torch.ones(rows, 3, dtype=torch.long)], dim=1)
        it = SimpleNamespace(rope_deltas=delta[:, None])
        wanted = model_class(name).compute_3d_position_ids(
            it,
            input_ids=None,
            inputs_embeds=torch.zeros(rows, longer.shape[1], 1),
            image_grid_thw=None,
            video_grid_thw=None,
            attention_mask=longer,
            past_key_values=SimpleNamespace(get_seq_length=lambda n=batch.mask.shape[1]: n),
        )[..., -3:]
        assert torch.equal(positions.mrope_next(batch.mask.sum(-1), delta, 3), wanted)
        largest = torch.stack([found[:, i, batch.mask[i] == 1].max() for i in range(rows)])
        assert torch.equal(wanted[0, :, 0], largest + 1)


def test_decoding_one_row() -> None:
    found = positions.mrope_next([6, 9], [-2, 0], 2)
    assert found.tolist() == [[[4, 5], [9, 10]]] * 3
    assert positions.mrope_next(6, [-2, 0]).shape == (3, 2, 1)


# ---- HunYuan-VL ----


@pytest.mark.parametrize("side", ["left", "right", "none"])
@pytest.mark.parametrize("axes", [3, 4])
def test_hunyuan_vl(axes: int, side: str) -> None:
    """Its own get_rope_index; images with and without a token before and behind the grid."""
    owner = model_class("hunyuan_vl")
    config = SimpleNamespace(
        vision_config=SimpleNamespace(spatial_merge_size=2),
        text_config=SimpleNamespace(rope_parameters={"mrope_section": [1] * axes}),
    )
    it = SimpleNamespace(config=config)
    it.get_vision_position_ids = lambda *a, **k: owner.get_vision_position_ids(it, *a, **k)
    rng = np.random.default_rng([12, axes, ["left", "right", "none"].index(side)])
    for _ in range(30):
        grids: list[list[int]] = []
        rows = []
        for _ in range(int(rng.integers(1, 4))):
            row = [0] * int(rng.integers(0, 3))
            for _ in range(int(rng.integers(0, 3))):
                h, w = rng.integers(1, 4, 2).tolist()
                grids.append([1, 2 * h, 2 * w])
                row += [1] * (h * (w + 1) + 2 * int(rng.integers(0, 2))) + [0] * int(rng.integers(1, 4))
            rows.append([*row, 0])
        types, mask = padded(rows, side, 0)
        given = None if side == "none" else mask
        images = torch.tensor(grids) if grids else None
        wanted, wanted_delta = owner.get_rope_index(it, types, types, image_grid_thw=images, attention_mask=given)
        found, delta = positions.hunyuan_vl(types, axes=axes, image_grid_thw=images, attention_mask=given)
        assert torch.equal(found, wanted)
        assert torch.equal(delta, wanted_delta[:, 0])


def test_hunyuan_vl_decodes_on() -> None:
    _, delta = positions.hunyuan_vl([0, 1, 1, 1, 0], axes=4, image_grid_thw=[[1, 2, 4]])
    assert positions.mrope_next(5, delta, axes=4).tolist() == [[5]] * 4
