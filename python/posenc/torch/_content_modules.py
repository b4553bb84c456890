"""Transformer-XL's relative scores and DeBERTa's disentangled bias as modules."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from posenc import _parameters as check
from posenc.bias.deberta import index_of
from posenc.bias.transformer_xl import CONVENTIONS
from posenc.torch._arguments import tensors
from posenc.torch._bias_modules import Masks
from posenc.torch._content_ops import relative_rows
from posenc.torch._functions import add_disentangled_bias, add_transformer_xl_bias

_TERMS = (("c2p",), ("p2c",), ("c2p", "p2c"), ("p2c", "c2p"))


class TransformerXLScores(nn.Module):
    """Attention scores of Transformer-XL: scale * ((q + u) . k + (q + v) . R of the distance).

    Dai et al., arXiv:1901.02860, section 3.3: u and v are learned biases of each head, and R the projection of the
    sinusoidal rows of distances. The second term is added to the first in one pass: no product of queries with all
    rows is built, and nothing is shifted.

    Parameters
    ----------
    num_heads, head_dim : int
    dim : int, optional
        Of the rows before their projection; default num_heads * head_dim.
    convention : {"transformer_xl", "xlnet", "conformer"}
        As in `posenc.bias.relative_position_table`.
    clamp_len, base
        As there.
    scale : float, optional
        Default: head_dim ** -0.5.
    causal, window, sinks
        As in `posenc.bias.add_transformer_xl_bias`; causal has the convention's default. For "transformer_xl" that is
        "skip", keys after the query keep the first term and must be masked.

    Attributes
    ----------
    u, v : Parameter, shape (num_heads, head_dim)
        `r_w_bias` and `r_r_bias` of Transformer-XL and XLNet, `pos_bias_u` and `pos_bias_v` of Conformer. Start at
        normal deviates times 0.02.
    projection : nn.Linear
        Of dim to num_heads * head_dim, without a bias (`r_net`, `linear_pos`).

    Examples
    --------
    >>> import torch, posenc.torch
    >>> scores_of = posenc.torch.TransformerXLScores(2, 4, causal=True)
    >>> scores = scores_of(torch.randn(1, 2, 3, 4), torch.randn(1, 2, 5, 4))
    >>> scores.softmax(-1).square().sum().backward()
    >>> scores_of.v.grad.shape
    torch.Size([2, 4])
    """

    def __init__(
        self,
        num_heads: int,
        head_dim: int,
        *,
        dim: int | None = None,
        convention: str = "transformer_xl",
        clamp_len: int | None = None,
        base: float = 10000.0,
        scale: float | None = None,
        causal: bool | str | None = None,
        window: Any = None,
        sinks: int = 0,
    ) -> None:
        super().__init__()
        heads, width = check.integer("num_heads", num_heads, 1), check.integer("head_dim", head_dim, 1)
        self.dim = heads * width if dim is None else check.integer("dim", dim, 2)
        self.convention = check.choice("convention", convention, CONVENTIONS)
        self.clamp_len, self.base = clamp_len, check.base(base)
        relative_rows(1, self.dim, 1, convention, clamp_len, self.base, False)  # checks
        self.scale = width**-0.5 if scale is None else check.finite("scale", scale)
        self.causal, self.window, self.sinks = causal, window, sinks
        Masks(False if causal is None else causal, window, sinks)  # checks
        self.u, self.v = (nn.Parameter(0.02 * torch.randn(heads, width)) for _ in range(2))
        self.projection = nn.Linear(self.dim, heads * width, bias=False)

    def forward(self, q: Tensor, k: Tensor) -> Tensor:
        """Return scores (..., heads, queries, keys) of q (..., heads, queries, head_dim) and k, queries at the end."""
        tensors(q=q, k=k)
        heads, width = self.u.shape
        if any(x.ndim < 3 or x.shape[-3] not in (1, heads) or x.shape[-1] != width for x in (q, k)):
            shapes = f"{(*q.shape,)} and {(*k.shape,)}"
            raise ValueError(f"q and k must have shape (.., {heads}, seq, {width}), got {shapes}")
        queries, keys = q.shape[-2], k.shape[-2]
        weight = self.projection.weight
        how = (self.convention, self.clamp_len, self.base, weight.dtype == torch.float64)
        rows = relative_rows(keys, self.dim, queries, *how).to(weight.device, weight.dtype)
        r = self.projection(rows).unflatten(-1, self.u.shape).transpose(0, 1)
        scores = ((q + self.u[:, None]) * self.scale) @ k.mT
        masks: dict[str, Any] = {"causal": self.causal, "window": self.window, "sinks": self.sinks}
        v = self.v[:, None]
        return add_transformer_xl_bias(scores, q, r, v, convention=self.convention, scale=self.scale, **masks)

    def extra_repr(self) -> str:
        """Show the parameters."""
        return f"{self.u.shape[0]}, {self.u.shape[1]}, convention={self.convention!r}, causal={self.causal!r}"


class DisentangledBias(Masks):
    """Add DeBERTa's relative terms to scores: content to position, position to content, gathered on the way.

    He et al., arXiv:2006.03654, equation 4. Scores come scaled by 1 / sqrt(head_dim * (1 + terms)), and so are the two.

    Parameters
    ----------
    num_heads, head_dim : int
    span : int
        Half the number of relative embeddings: `position_buckets` of v2 and v3, of v1 the largest distance that counts.
    hidden_size : int, optional
        Of the relative embeddings; default num_heads * head_dim.
    num_buckets, max_distance, beyond
        As in `posenc.bias.add_disentangled_bias`.
    terms : tuple of {"c2p", "p2c"}
    causal, window, sinks
        Masks in the same pass, as in `posenc.mask_scores`.

    Attributes
    ----------
    rel_embeddings : Parameter, shape (2 * span, hidden_size)
        As in transformers' `rel_embeddings.weight`; starts at normal deviates times 0.02. Layers that share them assign
        one module's parameter to the others.
    pos_key_proj, pos_query_proj : nn.Linear
        Their projections to keys and to queries, where the term is wanted.

    Examples
    --------
    >>> import torch, posenc.torch
    >>> bias = posenc.torch.DisentangledBias(2, 4, 8)
    >>> q, k = torch.randn(2, 1, 2, 5, 4)
    >>> bias(q @ k.mT * bias.scale, q, k).softmax(-1).square().sum().backward()
    >>> bias.rel_embeddings.grad.shape
    torch.Size([16, 8])
    """

    def __init__(
        self,
        num_heads: int,
        head_dim: int,
        span: int,
        *,
        hidden_size: int | None = None,
        num_buckets: int | None = None,
        max_distance: int = 512,
        beyond: str = "transformers",
        terms: tuple[str, ...] = ("c2p", "p2c"),
        causal: bool | str = False,
        window: Any = None,
        sinks: int = 0,
    ) -> None:
        super().__init__(causal, window, sinks)
        heads, width = check.integer("num_heads", num_heads, 1), check.integer("head_dim", head_dim, 1)
        span = check.integer("span", span, 1)
        if num_buckets is not None and num_buckets != span:
            raise ValueError(f"span must be num_buckets ({num_buckets}), got {span}")
        index_of(span, num_buckets, max_distance, check.choice("beyond", beyond, ("transformers", "microsoft")))
        if not isinstance(terms, (list, tuple)) or tuple(terms) not in _TERMS:
            raise ValueError(f"terms must be ('c2p',), ('p2c',) or ('c2p', 'p2c'), got {check.shown(terms)}")
        self.heads, self.head_dim, self.terms = heads, width, tuple(terms)
        self.scale = (width * (1 + len(terms))) ** -0.5
        self._buckets: dict[str, Any] = {
            "num_buckets": num_buckets,
            "max_distance": max_distance,
            "beyond": beyond,
        }
        hidden = heads * width if hidden_size is None else check.integer("hidden_size", hidden_size, 1)
        self.rel_embeddings = nn.Parameter(0.02 * torch.randn(2 * span, hidden))
        self.pos_key_proj = nn.Linear(hidden, heads * width) if "c2p" in terms else None
        self.pos_query_proj = nn.Linear(hidden, heads * width) if "p2c" in terms else None

    def forward(
        self,
        scores: Tensor,
        q: Tensor,
        k: Tensor,
        *,
        query_positions: Any = None,
        key_positions: Any = None,
        offset: Any = None,
        attention_mask: Any = None,
    ) -> Tensor:
        """Return scores (..., heads, queries, keys) with the terms.

        Parameters
        ----------
        scores : Tensor
        q, k : Tensor, shape (..., heads, queries, head_dim) and (..., heads, keys, head_dim)
            Those of the scores, not scaled.
        query_positions, key_positions, offset, attention_mask
            As in `ALiBi.forward`, of integers.

        Returns
        -------
        Tensor
            New, like scores.

        Raises
        ------
        TypeError, ValueError
        """
        tensors(scores=scores, q=q, k=k)
        if any(x.ndim < 2 or x.shape[-1] != self.head_dim for x in (q, k)):
            shapes = f"{(*q.shape,)} and {(*k.shape,)}"
            raise ValueError(f"q and k must have shape (.., {self.heads}, seq, {self.head_dim}), got {shapes}")
        c2p = None if self.pos_key_proj is None else q @ self._heads(self.pos_key_proj).mT
        p2c = None if self.pos_query_proj is None else k @ self._heads(self.pos_query_proj).mT
        return add_disentangled_bias(
            scores,
            c2p=c2p,
            p2c=p2c,
            scale=self.scale,
            causal=self.causal,
            window=self.window,
            sinks=self.sinks,
            query_positions=query_positions,
            key_positions=key_positions,
            offset=offset,
            attention_mask=attention_mask,
            **self._buckets,
        )

    def _heads(self, projection: nn.Linear) -> Tensor:
        return projection(self.rel_embeddings).unflatten(-1, (self.heads, -1)).transpose(0, 1)  # type: ignore[no-any-return]

    def extra_repr(self) -> str:
        """Show the parameters."""
        span = len(self.rel_embeddings) // 2
        return f"{self.heads}, span={span}, terms={self.terms}, {self._shown()}"
