"""Pictures of position encodings, with matplotlib (the extra `plot`): every function takes `ax=` and returns an Axes.

Nothing is shown, no global setting is changed, and no figure is left in pyplot's list: without `ax` a figure is made
that only the returned Axes holds (`ax.figure.savefig("name.png")`). Colours are those of Okabe and Ito, maps are in
cividis or from purple to orange: all eyes tell them apart. Curves differ by their dashes too.
"""

from posenc.plot.attention import attention_by_distance, attention_heads
from posenc.plot.curves import decay, table_error, wavelengths
from posenc.plot.maps import bias_map, rotation_table

__all__ = [
    "attention_by_distance",
    "attention_heads",
    "bias_map",
    "decay",
    "rotation_table",
    "table_error",
    "wavelengths",
]
