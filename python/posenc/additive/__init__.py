"""Add: position encodings that are added to embeddings, sinusoidal and learned."""

from posenc.additive.conventions import CONVENTIONS, Convention, mlx
from posenc.additive.grids import GRIDS, sinusoidal_grid
from posenc.additive.learned import LEARNED, LearnedTable, add_positions, learned_table, position_table_gradient
from posenc.additive.resize import resize_table
from posenc.additive.sinusoidal import add_sinusoidal, sinusoidal_table, timestep_embedding

__all__ = [
    "CONVENTIONS",
    "GRIDS",
    "LEARNED",
    "Convention",
    "LearnedTable",
    "add_positions",
    "add_sinusoidal",
    "learned_table",
    "mlx",
    "position_table_gradient",
    "resize_table",
    "sinusoidal_grid",
    "sinusoidal_table",
    "timestep_embedding",
]
