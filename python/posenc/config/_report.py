"""What is wrong with a config: raised, or warned of where the reading is not strict."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field


class ConfigWarning(UserWarning):
    """A config that contradicts itself or says what is not understood, read all the same (strict=False)."""


@dataclass
class Report:
    """Findings while one config is read."""

    strict: bool
    notes: list[str] = field(default_factory=list)

    def wrong(self, text: str) -> None:
        """Raise ValueError; or warn and go on."""
        if self.strict:
            raise ValueError(f"{text} (strict=False would warn and go on)")
        warnings.warn(text, ConfigWarning, stacklevel=2)
        self.note(text)

    def note(self, text: str) -> None:
        """Keep a remark for the user."""
        if text and text not in self.notes:
            self.notes.append(text)
