"""What a config says about positions: the answer of `posenc.config.read`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from posenc import _parameters as check

if TYPE_CHECKING:
    from posenc.config._axes import Rotation


@dataclass(frozen=True)
class ModelPositions:
    """The position encoding of one model, or of one part of it.

    Attributes
    ----------
    family : str
        The model_type that was read.
    kind : str
        "rope"; "unequal" for what transformers turns by unequal angles, which is no rotation (V-JEPA 2, HunYuan-VL);
        "alibi", "learned", "sinusoidal", "relative" or "none".
    ropes : mapping of str to Rope
        One for all layers under "all", or one for each type of layer under its name. `posenc.axes.BlockRope` for Gemma
        4's vision tower, `posenc.axes.UnequalRope` where `kind` is "unequal".
    layers : tuple of str or None
        For each layer the key of its rope, or None where nothing is turned; empty where the config has no layer count.
    max_position_embeddings : int or None
        What the config says; no Rope is limited to it.
    query_scale : QueryScale or None
        What queries are multiplied by as positions grow, see `posenc.query_scale`: Llama 4's on layers without RoPE,
        Ministral 3's and Mistral 4's on all.
    softmax_scale : float
        What the softmax scale is multiplied by, besides the attention factor that is in cosine and sine
        (`attention_factor` of each Rope, q.k grows by its square): DeepSeek's mscale squared.
    axes : str
        What the rows of the positions are, or "" for one axis.
    details : mapping
        Numbers of encodings that are no rope: heads, offsets, lengths.
    part : str
        Which part of a composite model this is, "" for a model of one part.
    parts : tuple of str
        All parts that can be asked for.
    notes : tuple of str
        What a user has to know: remarks of the family, and with strict=False what was wrong.
    """

    family: str
    kind: str
    ropes: Mapping[str, Rotation] = field(default_factory=dict)
    layers: tuple[str | None, ...] = ()
    max_position_embeddings: int | None = None
    query_scale: Any = None
    softmax_scale: float = 1.0
    axes: str = ""
    details: Mapping[str, Any] = field(default_factory=dict)
    part: str = ""
    parts: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Make the mappings read-only."""
        for name in ("ropes", "details"):
            object.__setattr__(self, name, MappingProxyType(dict(getattr(self, name))))

    def __hash__(self) -> int:
        """Return a hash: mappings have none of their own."""
        return hash((self.family, self.kind, tuple(self.ropes.items()), self.layers, self.part))

    def __getstate__(self) -> dict[str, Any]:
        """Return what is pickled and copied: read-only views of dictionaries cannot be."""
        return {**vars(self), "ropes": dict(self.ropes), "details": dict(self.details)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Put it back."""
        for name, value in state.items():
            object.__setattr__(self, name, value)
        self.__post_init__()

    def rope(self, layer_type: str | None = None) -> Rotation:
        """Return the rotation of a type of layer.

        Parameters
        ----------
        layer_type : str, optional
            A key of `ropes`; may be left out where there is one.

        Returns
        -------
        Rope
            Or a `posenc.axes.BlockRope` or `posenc.axes.UnequalRope`, see `ropes`.

        Raises
        ------
        ValueError
            Where the model rotates nothing, where layers differ and none is named, and for a name that it has not.
        """
        if not self.ropes:
            raise ValueError(f"{self.family} rotates nothing ({self.kind}): {'; '.join(self.notes)}")
        names = ", ".join(map(repr, self.ropes))
        if layer_type is None:
            if len(self.ropes) > 1:
                raise ValueError(f"the layers of {self.family} turn differently; layer_type must be one of {names}")
            return next(iter(self.ropes.values()))
        if not isinstance(layer_type, str) or layer_type not in self.ropes:
            raise ValueError(f"layer_type must be one of {names}, got {check.shown(layer_type)}")
        return self.ropes[layer_type]
