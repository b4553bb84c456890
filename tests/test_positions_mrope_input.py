"""What the M-RoPE builders are given: token types of processors, cases that systems read differently, wrong input."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from transformers.models.glm4v.processing_glm4v import Glm4vProcessor
from transformers.processing_utils import ProcessorMixin

from conftest import assert_refused
from posenc import positions

# ---- token types ----


def test_token_types_as_processors_make_them() -> None:
    ids = [[5, 90, 90, 6, 91, 91, 90], [91, 90, 5, 5, 5, 5, 91]]
    it = SimpleNamespace(image_token_ids=[90], video_token_ids=[91], audio_token_ids=[])
    wanted = ProcessorMixin.create_mm_token_type_ids(it, ids)
    assert positions.token_types(ids, 90, 91).tolist() == wanted


def test_token_types_of_glm4v() -> None:
    """Frames are written with the image token, between the tokens that begin and end a video."""
    rng = np.random.default_rng(10)
    it = SimpleNamespace(image_token_id=90, video_start_id=80, video_end_id=81)
    for _ in range(20):
        pieces = [[80, 90, 90, 7, 90, 81], [90, 90], [5, 6], [80, 81]]
        rows = [[token for i in rng.integers(0, 4, 6) for token in pieces[i]] for _ in range(2)]
        for row in rows:
            wanted = Glm4vProcessor.create_mm_token_type_ids(it, [row])
            assert positions.token_types([row], 90, video_span=(80, 81)).tolist() == wanted


# ---- where systems disagree ----


def test_long_videos() -> None:
    """Five grid steps of one token: text goes on at 5 ("largest") or at 1 ("extent"); without a word, neither."""
    how: dict[str, Any] = {"scheme": "qwen2_vl", "video_grid_thw": [[5, 2, 2]]}
    types = [2] * 5 + [0]
    assert positions.mrope(types, **how, advance="largest").positions[0, -1] == 5
    assert positions.mrope(types, **how, advance="extent").positions[0, -1] == 1
    with pytest.raises(ValueError, match="advance must be given: video 0 reaches 5 positions in time, but 1 in height"):
        positions.mrope(types, **how)
    wide = positions.mrope([2] * 10 + [0], scheme="qwen2_vl", video_grid_thw=[[2, 2, 10]])  # both say 5
    assert wide.positions[0, -1] == 5


def test_padding() -> None:
    found, delta = positions.mrope(
        [0, 0, 1, 0], scheme="qwen3_vl", image_grid_thw=[[1, 2, 2]], attention_mask=[0, 1, 1, 1], padding_position=1
    )
    assert found.tolist() == [[1, 0, 1, 2]] * 3
    assert delta == 0
    none = positions.mrope(np.empty((0, 5), int), scheme="qwen3_vl")
    assert (none.positions.shape, none.delta.shape) == ((3, 0, 5), (0,))
    empty = positions.mrope([[0, 0]], scheme="qwen3_vl", attention_mask=[[0, 0]])
    assert empty.positions.tolist() == [[[0, 0]]] * 3
    assert empty.delta.tolist() == [0]


def test_items_that_touch() -> None:
    """Two images without text between them: each takes the tokens of its grid."""
    types = [1] * 1 + [1] * 4
    found, _ = positions.mrope(types, scheme="qwen2_vl", image_grid_thw=[[1, 2, 2], [1, 4, 4]])
    assert found.tolist() == [[0, 1, 1, 1, 1], [0, 1, 1, 2, 2], [0, 1, 2, 1, 2]]


def build(types: Any, scheme: str = "qwen2_vl", **more: Any) -> Any:
    return positions.mrope(types, scheme=scheme, **more)


def test_kind_in_is_kind_out() -> None:
    """One row: a torch scalar or a NumPy one for the delta."""
    for types in ([0, 0], torch.tensor([0, 0])):
        found = positions.mrope(types, scheme="qwen3_vl")
        assert {type(x) for x in found} == {torch.Tensor if isinstance(types, torch.Tensor) else np.ndarray}
        assert found.positions.shape == (3, 2)
        assert found.delta.shape == ()


def hunyuan(types: Any, grids: Any, **more: Any) -> Any:
    return positions.hunyuan_vl(types, image_grid_thw=grids, **{"axes": 4, **more})


TIMED: dict[str, Any] = {"scheme": "qwen2_5_vl", "video_grid_thw": [[1, 2, 2]]}
REFUSED = [
    (lambda: build([0], "qwen"), ValueError, "scheme must be one of 'qwen2_vl', 'qwen2_5_vl'"),
    (lambda: build([0, 3]), ValueError, "token_types must be 0 (text), 1 (image) or 2 (video), got 0 to 3"),
    (lambda: build([[[0]]]), ValueError, "token_types must have shape (seq,) or (batch, seq), got (1, 1, 1)"),
    (lambda: build([0.0]), TypeError, "token_types must be integers, got float64"),
    (lambda: build([1]), ValueError, "image_grid_thw must have a grid for every image of token_types, got too few"),
    (lambda: build([2]), ValueError, "video_grid_thw must have a grid for every video of token_types, got too few"),
    (lambda: build([0], image_grid_thw=[[1, 2, 2]]), ValueError, "image 0 has no tokens"),
    (
        lambda: build([1, 1, 0], image_grid_thw=[[1, 4, 4]]),
        ValueError,
        "image 0 must have 4 tokens for its grid, token_types has 2 of them",
    ),
    (lambda: build([1, 1, 2, 2], image_grid_thw=[[1, 4, 4]]), ValueError, "token_types has 2 of them"),
    (lambda: build([2, 0, 2], "glm4v", video_grid_thw=[[2, 2, 4]]), ValueError, "video 0, frame 0 must have 2 tokens"),
    (
        lambda: build([1], image_grid_thw=[[1, 3, 2]]),
        ValueError,
        "image_grid_thw[0] must be positive, with height and width multiples of spatial_merge_size (2), got [1, 3, 2]",
    ),
    (lambda: build([1], image_grid_thw=[[0, 2, 2]]), ValueError, "image_grid_thw[0] must be positive"),
    (lambda: build([1], image_grid_thw=[[2, 2]]), ValueError, "image_grid_thw must have shape (items, 3), got (1, 2)"),
    (lambda: build([1], image_grid_thw=[1, 2, 2]), ValueError, "image_grid_thw must have shape (items, 3), got (3,)"),
    (lambda: build([1], spatial_merge_size=0), ValueError, "spatial_merge_size must be at least 1"),
    (lambda: build([0], temporal_merge_size=2), ValueError, "temporal_merge_size must not be given for 'qwen2_vl'"),
    (
        lambda: build([0], tokens_per_second=2),
        ValueError,
        "tokens_per_second must not be given for 'qwen2_vl', which does not use it",
    ),
    (
        lambda: build([2], "ernie4_5_vl", video_grid_thw=[[2, 2, 2]]),
        ValueError,
        "temporal_merge_size must be given for videos of 'ernie4_5_vl'",
    ),
    (
        lambda: build([2], "ernie4_5_vl", video_grid_thw=[[3, 2, 2]], temporal_merge_size=2),
        ValueError,
        "a multiple of temporal_merge_size (2), got 3",
    ),
    (
        lambda: build([2], **TIMED, tokens_per_second=2),
        ValueError,
        "second_per_grid_ts must be given for videos of 'qwen2_5_vl'",
    ),
    (lambda: build([2], **TIMED, second_per_grid_ts=[1]), ValueError, "tokens_per_second must be given for videos"),
    (
        lambda: build([2], **TIMED, second_per_grid_ts=[1, 2], tokens_per_second=2),
        ValueError,
        "second_per_grid_ts must have shape (1,), one per video, got (2,)",
    ),
    (
        lambda: build([2], **TIMED, second_per_grid_ts=[np.nan], tokens_per_second=2),
        ValueError,
        "second_per_grid_ts must be finite and at least 0",
    ),
    (
        lambda: build([2], **TIMED, second_per_grid_ts=[-1], tokens_per_second=2),
        ValueError,
        "second_per_grid_ts must be finite and at least 0",
    ),
    (
        lambda: build([2], **TIMED, second_per_grid_ts=[1], tokens_per_second=0),
        ValueError,
        "tokens_per_second must be positive",
    ),
    (
        lambda: build([2], **TIMED, second_per_grid_ts=np.ones(1, np.float16), tokens_per_second=2),
        TypeError,
        "second_per_grid_ts must be float32 or float64, got float16",
    ),
    (lambda: build([0], advance="max"), ValueError, "advance must be one of 'largest', 'extent', got 'max'"),
    (
        lambda: build([0, 0], attention_mask=[1]),
        ValueError,
        "attention_mask must have the shape of token_types, (2,), got (1,)",
    ),
    (lambda: build([0, 0], attention_mask=[1, 2]), ValueError, "attention_mask must hold 0 and 1 only"),
    (lambda: build([0], padding_position=-1), ValueError, "padding_position must be at least 0"),
    (
        lambda: positions.mrope_next([1, 2], [1, 2, 3]),
        ValueError,
        "length and delta must have the same shape, got (2,) and (3,)",
    ),
    (lambda: positions.mrope_next(1.5, 0), TypeError, "length must be integers, got float64"),
    (lambda: positions.mrope_next(1, 0, -1), ValueError, "count must be at least 0"),
    (
        lambda: positions.token_types([1], 1, 2, video_span=(3, 4)),
        ValueError,
        "video_span and video_token_id exclude each other",
    ),
    (lambda: positions.token_types([1], None), TypeError, "image_token_id must be an integer, got None"),
    (lambda: hunyuan([2], None), ValueError, "token_types must be 0 (text) or 1 (image) for HunYuan-VL, got 2 (video)"),
    (lambda: hunyuan([1, 1, 1], [[1, 2, 2]]), ValueError, "image 0 must have 2 or 4 tokens for its grid, got 3"),
    (lambda: hunyuan([1] * 6, [[1, 2, 2]]), ValueError, "image 0 must have 2 or 4 tokens for its grid, got 6"),
    (lambda: hunyuan([1], [[1, 2, 2]]), ValueError, "image 0 must have 2 or 4 tokens for its grid, got 1"),
    (lambda: hunyuan([1, 1], [[2, 2, 2]]), ValueError, "image_grid_thw must have a time of 1, got 2"),
    (lambda: hunyuan([1, 1], None), ValueError, "image_grid_thw must have a grid for every image"),
    (lambda: hunyuan([0], [[1, 2, 2]]), ValueError, "more grids than token_types, image 0 has no tokens"),
    (lambda: hunyuan([0], None, axes=2), ValueError, "axes must be at least 3, got 2"),
    (lambda: positions.mrope_next(1, 0, axes=0), ValueError, "axes must be at least 1, got 0"),
]


@pytest.mark.parametrize(("call", "error", "message"), REFUSED, ids=[message for _, _, message in REFUSED])
def test_refuses(call: Any, error: type[Exception], message: str) -> None:
    assert_refused(error, message, call)
