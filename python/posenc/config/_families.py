"""All families by model_type."""

from __future__ import annotations

from posenc.config import _families_other, _families_special, _families_text, _families_vision
from posenc.config._family import Entry

FAMILIES: dict[str, Entry] = {
    **_families_text.FAMILIES,
    **_families_special.FAMILIES,
    **_families_vision.FAMILIES,
    **_families_other.FAMILIES,
}
