"""M-RoPE positions of text with images and videos, and how they go on while decoding.

Text counts up by one on all three axes (time, height, width). An image or a video that begins at position p lies at
(p + time, p + row, p + column) of its merged grid, and the text behind it goes on beyond (Qwen2-VL, arXiv:2409.12191,
section 2.1). The decode delta is the largest position + 1 - the number of tokens.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from posenc import _parameters as check
from posenc.positions import _arrays, _modalities
from posenc.positions._modalities import IMAGE, TEXT, VIDEO, MRope

if TYPE_CHECKING:
    import numpy.typing as npt

_NAMES = {IMAGE: "image", VIDEO: "video"}
ADVANCES = ("largest", "extent")


@dataclass(frozen=True)
class _Scheme:
    """What a model does with videos; all treat text and images alike."""

    by_frame: bool = False  # text (time stamps) stands between frames: each is an image of its own
    timed: bool = False  # the time axis counts seconds * tokens_per_second
    merges_time: bool = False  # temporal_merge_size grid steps make one token


SCHEMES = {
    "qwen2_vl": _Scheme(),
    "qwen2_5_vl": _Scheme(timed=True),
    "qwen3_vl": _Scheme(by_frame=True),
    "glm4v": _Scheme(by_frame=True),
    "ernie4_5_vl": _Scheme(merges_time=True),
}


@dataclass(frozen=True)
class _Item:
    """One image, video or frame: its merged grid, and how far apart its grid steps in time are."""

    name: str
    shape: tuple[int, int, int]
    times: npt.NDArray[np.int64]

    @property
    def tokens(self) -> int:
        t, h, w = self.shape
        return t * h * w

    @property
    def extent(self) -> int:
        return max(self.shape[1:])

    @property
    def largest(self) -> int:
        return max(int(self.times.max()) + 1, self.extent)

    def positions(self, start: int) -> _arrays.Integers:
        _, h, w = self.shape
        axes = np.meshgrid(self.times, np.arange(h), np.arange(w), indexing="ij")
        return np.stack(axes).reshape(3, -1) + start


def mrope(
    token_types: Any,
    *,
    scheme: str,
    image_grid_thw: Any = None,
    video_grid_thw: Any = None,
    spatial_merge_size: int = 2,
    temporal_merge_size: int | None = None,
    second_per_grid_ts: Any = None,
    tokens_per_second: float | None = None,
    attention_mask: Any = None,
    advance: str | None = None,
    padding_position: int = 0,
) -> MRope:
    """Return M-RoPE positions of a batch, and its decode delta.

    Equal to get_rope_index of transformers 5.23 with the advance "extent": Qwen2VLModel (PaddleOCR-VL too),
    Qwen2_5_VLModel, Qwen3VLModel (Qwen3.5, Cosmos 3 too), Glm4vModel (GLM-4.6V, GLM-OCR too), Ernie4_5_VLMoeModel.

    Parameters
    ----------
    token_types : array_like of int, shape (seq,) or (batch, seq)
        0 for text, 1 for image and 2 for video tokens: mm_token_type_ids of transformers' processors; `token_types`
        makes them from token ids. Items may touch each other: each takes as many tokens as its grid has.
    scheme : {"qwen2_vl", "qwen2_5_vl", "qwen3_vl", "glm4v", "ernie4_5_vl"}
        What becomes of a video. "qwen2_vl": one block, time counts grid steps. "qwen2_5_vl": one block, time counts
        tokens_per_second. "qwen3_vl", "glm4v": every frame a block of its own, as text stands between them.
        "ernie4_5_vl": one block, temporal_merge_size grid steps are one.
    image_grid_thw, video_grid_thw : array_like of int, shape (items, 3), optional
        Time, height and width of each grid in patches, before merging, in the order of the batch.
    spatial_merge_size : int
        Patches that become one token along height, and along width; 2 in the released models.
    temporal_merge_size : int, optional
        For "ernie4_5_vl" with videos (2 in the released models); else not given.
    second_per_grid_ts, tokens_per_second : array_like of float, shape (videos,), and float, optional
        For "qwen2_5_vl" with videos: seconds between two grid steps, and time positions per second (2 in the released
        Qwen2.5-VL). Time is the whole part of step * (tokens_per_second * seconds), rounded as transformers rounds
        it: the product in the kind of the seconds (float64 for Python's), times the step in float32, or in float64
        where the seconds are a float64 array.
    attention_mask : array_like of 0 and 1, shape of token_types, optional
        0 for padding on either side, which is left out.
    advance : {"largest", "extent"}, optional
        Where text goes on behind a video that begins at p. "largest": one more than the largest position, p + max(t, h,
        w) as Qwen2-VL's paper has it, transformers 4 and vLLM. "extent": p + max(h, w) as transformers 5,
        so that a video longer than it is wide shares time positions with the text behind it. Only where the two differ
        it must be given.
    padding_position : int
        What padding gets: 0 in transformers 5, 1 in transformers 4.

    Returns
    -------
    MRope
        positions : ndarray of int64, shape (3, seq) or (3, batch, seq), or torch tensor where token_types is one;
        delta : the same kind, shape () or (batch,).

    Raises
    ------
    TypeError, ValueError
        For grids that do not divide, too few or too many of them for the tokens, and arguments a scheme does not use.

    Examples
    --------
    >>> positions, delta = posenc.positions.mrope([0, 1, 1, 1, 1, 0], scheme="qwen2_vl", image_grid_thw=[[1, 4, 4]])
    >>> positions
    array([[0, 1, 1, 1, 1, 3],
           [0, 1, 1, 2, 2, 3],
           [0, 1, 2, 1, 2, 3]])
    >>> int(delta)  # the next token, number 6, has position 4
    -2
    """
    types, mask = _modalities.types_and_mask(token_types, attention_mask)
    kind = SCHEMES[check.choice("scheme", scheme, SCHEMES)]
    merge = check.integer("spatial_merge_size", spatial_merge_size, 1)
    videos = _modalities.grids("video_grid_thw", video_grid_thw, merge)
    queues = {
        IMAGE: iter(_images(_modalities.grids("image_grid_thw", image_grid_thw, merge))),
        VIDEO: iter(_videos(scheme, kind, videos, temporal_merge_size, second_per_grid_ts, tokens_per_second)),
    }
    advance = None if advance is None else check.choice("advance", advance, ADVANCES)
    rows = [_row(r[m == 1], queues, advance) for r, m in zip(np.atleast_2d(types), np.atleast_2d(mask), strict=True)]
    for modality, queue in queues.items():
        _modalities.refuse_left_over(f"{_NAMES[modality]}_grid_thw", (item.name for item in queue))
    return _modalities.batch_of(rows, 3, mask, padding_position, token_types)


def mrope_next(length: Any, delta: Any, count: int = 1, *, axes: int = 3) -> Any:
    """Return the M-RoPE positions of the next tokens of each row: length + delta, and so on, on all axes.

    As compute_3d_position_ids of transformers 5.23 does with rope_deltas.

    Parameters
    ----------
    length : int, or array_like of int, shape (batch,)
        Tokens of each row so far, generated ones too, padding not counted.
    delta : int, or array_like of int, shape (batch,)
        From `mrope` or `hunyuan_vl`.
    count : int
        How many tokens.
    axes : int
        How many position axes.

    Returns
    -------
    ndarray of int64, shape (axes, count) or (axes, batch, count), or torch tensor where length or delta is one

    Raises
    ------
    TypeError, ValueError
        For other kinds and shapes.

    Examples
    --------
    >>> posenc.positions.mrope_next(6, -2, 3)
    array([[4, 5, 6],
           [4, 5, 6],
           [4, 5, 6]])
    """
    lengths = _arrays.integers("length", length, "() or (batch,)", 0, 1)
    deltas = _arrays.integers("delta", delta, "() or (batch,)", 0, 1)
    if lengths.shape and deltas.shape and lengths.shape != deltas.shape:
        raise ValueError(f"length and delta must have the same shape, got {lengths.shape} and {deltas.shape}")
    ahead = (lengths + deltas)[..., None] + np.arange(check.integer("count", count, 0))
    return _arrays.like(
        np.repeat(ahead[None], check.integer("axes", axes, 1, most=check.MAX_AXES), axis=0), length, delta
    )


def token_types(
    input_ids: Any, image_token_id: int, video_token_id: int | None = None, *, video_span: tuple[int, int] | None = None
) -> Any:
    """Return which tokens are text (0), image (1) and video (2).

    As create_mm_token_type_ids of transformers' processors.

    Parameters
    ----------
    input_ids : array_like of int, shape (seq,) or (batch, seq)
    image_token_id, video_token_id : int
        The placeholder tokens of images and videos.
    video_span : (int, int), optional
        The tokens that begin and end a video, for models that write its frames with the image token (GLM-4V);
        excludes video_token_id.

    Returns
    -------
    ndarray of int64, shape of input_ids, or torch tensor where input_ids is one

    Raises
    ------
    TypeError, ValueError
        For other kinds and shapes.

    Examples
    --------
    >>> posenc.positions.token_types([5, 90, 90, 6, 91, 91], image_token_id=90, video_token_id=91)
    array([0, 1, 1, 0, 2, 2])
    """
    ids = _arrays.integers("input_ids", input_ids, "(seq,) or (batch, seq)", 1, 2)
    types = (ids == check.integer("image_token_id", image_token_id, 0)).astype(np.int64)
    if video_span is not None:
        if video_token_id is not None:
            raise ValueError("video_span and video_token_id exclude each other")
        begin, end = (check.integer("video_span", token, 0) for token in video_span)
        inside = np.cumsum(ids == begin, axis=-1) > np.cumsum(ids == end, axis=-1)
        types[inside & (types == IMAGE)] = VIDEO
    elif video_token_id is not None:
        types[ids == check.integer("video_token_id", video_token_id, 0)] = VIDEO
    return _arrays.like(types, input_ids)


def _item(name: str, t: int, h: int, w: int, times: npt.NDArray[np.int64] | None = None) -> _Item:
    return _Item(name, (int(t), int(h), int(w)), np.arange(t) if times is None else times)


def _images(grids: _arrays.Integers) -> Iterator[_Item]:
    for i, (t, h, w) in enumerate(grids):
        yield _item(f"image {i}", t, h, w)


def _videos(
    scheme: str, kind: _Scheme, grids: _arrays.Integers, merge: Any, seconds: Any, per_second: Any
) -> list[_Item]:
    steps: list[npt.NDArray[np.int64] | None] = [None] * len(grids)
    _expect(scheme, kind.merges_time, len(grids), temporal_merge_size=merge)
    _expect(scheme, kind.timed, len(grids), second_per_grid_ts=seconds, tokens_per_second=per_second)
    if kind.merges_time and len(grids):
        grids = _merge_time(grids, check.integer("temporal_merge_size", merge, 1))
    if kind.timed and len(grids):
        steps = _steps(grids, seconds, check.positive("tokens_per_second", per_second))
    if kind.by_frame:
        return [_item(f"video {i}, frame {f}", 1, h, w) for i, (t, h, w) in enumerate(grids) for f in range(t)]
    return [_item(f"video {i}", t, h, w, times) for i, ((t, h, w), times) in enumerate(zip(grids, steps, strict=True))]


def _expect(scheme: str, used: bool, videos: int, **given: Any) -> None:
    for name, value in given.items():
        if value is None and used and videos:
            raise ValueError(f"{name} must be given for videos of {scheme!r}")
        if value is not None and not used:
            raise ValueError(f"{name} must not be given for {scheme!r}, which does not use it")


def _merge_time(grids: _arrays.Integers, merge: int) -> _arrays.Integers:
    wrong = grids[:, 0] % merge != 0
    if wrong.any():
        i = int(np.argmax(wrong))
        raise ValueError(
            f"video_grid_thw[{i}] must have a time that is a multiple of temporal_merge_size ({merge}), "
            f"got {grids[i, 0]}"
        )
    return grids // (merge, 1, 1)


def _steps(grids: _arrays.Integers, seconds: Any, per_second: float) -> list[npt.NDArray[np.int64] | None]:
    """Return the time of each grid step of each video, in transformers' arithmetic."""
    values = _arrays.array("second_per_grid_ts", seconds)
    if values.shape != (len(grids),):
        raise ValueError(f"second_per_grid_ts must have shape ({len(grids)},), one per video, got {values.shape}")
    if values.dtype == np.float16:
        raise TypeError("second_per_grid_ts must be float32 or float64, got float16")
    if not (np.isfinite(values).all() and (values >= 0).all()):
        raise ValueError("second_per_grid_ts must be finite and at least 0")
    single = values.dtype == np.float32
    intervals = values * np.float32(per_second) if single else values.astype(np.float64) * per_second
    is_array = hasattr(seconds, "dtype") and values.dtype.kind == "f"
    kind = np.float64 if is_array and not single else np.float32
    return [(np.arange(t, dtype=kind) * kind(x)).astype(np.int64) for t, x in zip(grids[:, 0], intervals, strict=True)]


def _row(types: _arrays.Integers, queues: dict[int, Iterator[_Item]], advance: str | None) -> _arrays.Integers:
    """Return the positions of one row without padding, shape (3, tokens)."""
    parts: list[_arrays.Integers] = []
    index = position = 0
    while index < len(types):
        kind = int(types[index])
        if kind == TEXT:
            rest = np.flatnonzero(types[index:] != TEXT)
            tokens = int(rest[0]) if len(rest) else len(types) - index
            parts.append(np.repeat(np.arange(position, position + tokens)[None], 3, axis=0))
            position += tokens
        else:
            item = _take(queues[kind], kind, types[index:])
            tokens = item.tokens
            parts.append(item.positions(position))
            position += _advance(item, advance)
        index += tokens
    return np.concatenate([np.empty((3, 0), np.int64), *parts], axis=1)


def _take(queue: Iterator[_Item], kind: int, types: _arrays.Integers) -> _Item:
    """Return the next item, whose tokens are the first ones of types."""
    item = next(queue, None)
    if item is None:
        raise ValueError(
            f"{_NAMES[kind]}_grid_thw must have a grid for every {_NAMES[kind]} of token_types, got too few"
        )
    found = int(np.argmin(np.append(types[: item.tokens] == kind, False)))
    if found < item.tokens:
        raise ValueError(f"{item.name} must have {item.tokens} tokens for its grid, token_types has {found} of them")
    return item


def _advance(item: _Item, advance: str | None) -> int:
    if advance is None and item.extent != item.largest:
        raise ValueError(
            f"advance must be given: {item.name} reaches {item.largest} positions in time, but {item.extent} in height "
            "and width, and text goes on behind the one in transformers 4 and vLLM ('largest'), behind the other "
            "in transformers 5 ('extent')"
        )
    return item.extent if advance == "extent" else item.largest
