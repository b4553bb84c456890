"""Which system rotates its grids how: one line a system, each built by the functions of this package."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType
from typing import Any, NamedTuple

from posenc import _parameters as check
from posenc.axes._assemble import axial
from posenc.axes.blocks import BlockRope, axial_blocks
from posenc.axes.grids import cogvideox, dinov3, ltx_video, pixtral, thirds, wan
from posenc.axes.unequal import UnequalRope, vjepa2
from posenc.rotary import Rope


class System(NamedTuple):
    """How a system rotates: what builds it from a head_dim, its positions, and where that is written."""

    build: Callable[..., Rope | BlockRope | UnequalRope]
    positions: str
    source: str


def _wan_halves(head_dim: int, **parameters: Any) -> Rope:
    """Return the widths of Wan with half-split pairs."""
    side = 2 * (check.integer("head_dim", head_dim, 6) // 6)
    return axial(head_dim, layout="half", axes=3, widths=(head_dim - 2 * side, side, side), **parameters)


_HALF = partial(axial, layout="half")
_XY = partial(axial, layout="interleaved", axes=(1, 0))  # the block of x before that of y
_FLUX = partial(axial, layout="interleaved", axes=3, widths=(16, 56, 56))
_MODELS = "transformers, models/"
_DIFFUSERS = "diffusers, models/transformers/transformer_"

#: name -> how it rotates; bases are the defaults of each system, a checkpoint's own config goes before them
SYSTEMS: Mapping[str, System] = MappingProxyType(
    {
        # images
        "qwen2_vl_vision": System(_HALF, "(h, w)", _MODELS + "qwen2_vl/modeling_qwen2_vl.py"),
        "pixtral": System(pixtral, "(h, w)", _MODELS + "pixtral/modeling_pixtral.py"),
        "gemma4_vision": System(partial(axial_blocks, base=100.0), "(x, y)", _MODELS + "gemma4/modeling_gemma4.py"),
        "llama4_vision": System(_XY, "(h + 1, w + 1), class token (0, 0), last", _MODELS + "llama4/modeling_llama4.py"),
        "kimi_k25_vision": System(
            partial(_HALF, axes=(1, 0), order="alternating"), "(h, w)", _MODELS + "kimi_k25/modeling_kimi_k25.py"
        ),
        "step3p7_vision": System(partial(_HALF, axes=(1, 0)), "(h, w)", _MODELS + "step3p7/modeling_step3p7.py"),
        "inkling2_vision": System(_XY, "(h + 1, w + 1), no image (0, 0)", _MODELS + "inkling2/modeling_inkling2.py"),
        "rope_vit": System(partial(_XY, base=100.0), "(h, w)", "naver-ai/rope-vit, models/vit_rope.py"),
        "sam2": System(_XY, "(h, w)", _MODELS + "sam2_video/modeling_sam2_video.py"),
        "sam3": System(_XY, "(h, w) times window / grid in global layers", _MODELS + "sam3/modeling_sam3.py"),
        "eva02": System(
            partial(axial, layout="interleaved"),
            "(h, w) times trained grid / grid",
            "timm, models/eva.py, with layers/pos_embed_sincos.py",
        ),
        "dinov3": System(dinov3, "patch centres (h, w) in [-1, 1]", _MODELS + "dinov3_vit/modeling_dinov3_vit.py"),
        "efficientloftr": System(
            partial(axial, layout="interleaved", order="alternating"),
            "(h + 1, w + 1)",
            _MODELS + "efficientloftr/modeling_efficientloftr.py",
        ),
        # videos
        "minimax_m3_vision": System(
            partial(thirds, layout="half"), "(t, h, w)", _MODELS + "minimax_m3_vl/modeling_minimax_m3_vl.py"
        ),
        "vjepa2": System(vjepa2, "(t, h, w)", _MODELS + "vjepa2/modeling_vjepa2.py"),
        # diffusion
        "flux": System(_FLUX, "(0, h, w), text (0, 0, 0)", _DIFFUSERS + "flux.py"),
        "flux2": System(
            partial(axial, layout="interleaved", axes=4, base=2000.0), "(t, h, w, l)", _DIFFUSERS + "flux2.py"
        ),
        "qwen_image": System(_FLUX, "(t, h, w), centred on 0 where scale_rope", _DIFFUSERS + "qwenimage.py"),
        "hunyuan_video": System(partial(_FLUX, base=256.0), "(t, h, w)", _DIFFUSERS + "hunyuan_video.py"),
        "cogvideox": System(cogvideox, "(t, h, w)", "diffusers, models/embeddings.py, get_3d_rotary_pos_embed"),
        "cogview4": System(_HALF, "(h, w) scaled to the trained grid", _DIFFUSERS + "cogview4.py"),
        "wan": System(wan, "(t, h, w)", _DIFFUSERS + "wan.py"),
        "cosmos": System(_wan_halves, "(t * 24 / fps, h, w)", _DIFFUSERS + "cosmos.py"),
        "allegro": System(
            partial(axial_blocks, axes=3), "(t, h, w)", "diffusers, models/embeddings.py, apply_rotary_emb_allegro"
        ),
        "ltx_video": System(ltx_video, "2 * (t, h, w) / trained extent - 1", _DIFFUSERS + "ltx.py"),
    }
)


def named(system: str, head_dim: int, **parameters: Any) -> Rope | BlockRope | UnequalRope:
    """Return the rotation of a system by its name.

    Parameters
    ----------
    system : str
        A key of `SYSTEMS`, whose entry says what the positions are and where the system defines them.
    head_dim : int
        Length of a head (of the hidden vector in LTX-Video and EfficientLoFTR).
    **parameters
        What the building function takes beside it: base, precision, scaling and so on, in place of the system's own.

    Returns
    -------
    Rope, BlockRope or UnequalRope

    Raises
    ------
    ValueError
        For a name that is not there; else as the building function does.

    Examples
    --------
    >>> from posenc import axes
    >>> rope = axes.named("flux", 128)
    >>> rope.axes, rope.layout
    (3, 'interleaved')
    """
    return SYSTEMS[check.choice("system", system, SYSTEMS)].build(head_dim, **parameters)
