"""Positions: which number each token or patch gets, for every way that sequences are padded, packed, cut and continued.

>>> from posenc import positions
>>> packed = positions.from_cu_seqlens([0, 3, 5])
>>> patches = positions.grid((14, 14))
"""

from posenc.positions._modalities import MRope
from posenc.positions.diagnosis import Finding, Report, diagnose
from posenc.positions.extension import DualChunk, SelfExtend, dual_chunk, self_extend
from posenc.positions.grids import grid, with_prefix
from posenc.positions.hunyuan import hunyuan_vl
from posenc.positions.learned import bart, opt, roberta
from posenc.positions.multimodal import mrope, mrope_next, token_types
from posenc.positions.parallel import context_parallel, context_parallel_index, context_parallel_inverse
from posenc.positions.sequences import (
    from_attention_mask,
    from_cu_seqlens,
    from_document_ids,
    to_cu_seqlens,
    with_offsets,
)

__all__ = [
    "DualChunk",
    "Finding",
    "MRope",
    "Report",
    "SelfExtend",
    "bart",
    "context_parallel",
    "context_parallel_index",
    "context_parallel_inverse",
    "diagnose",
    "dual_chunk",
    "from_attention_mask",
    "from_cu_seqlens",
    "from_document_ids",
    "grid",
    "hunyuan_vl",
    "mrope",
    "mrope_next",
    "opt",
    "roberta",
    "self_extend",
    "to_cu_seqlens",
    "token_types",
    "with_offsets",
    "with_prefix",
]
