"""The pytest plugin of posenc: its asserts as fixtures. `-p no:posenc` leaves it out.

It stands beside the package and not in it, and imports posenc when a fixture is asked for: a run of pytest that uses
none of them does not load NumPy.
"""

from typing import Any

import pytest


def _fixture(name: str) -> Any:
    def fixture() -> Any:
        from posenc import testing

        return getattr(testing, name)

    fixture.__doc__ = f"posenc.testing.{name}: raises with a diagnosis."
    return pytest.fixture(scope="session", name=name)(fixture)


assert_rope = _fixture("assert_rope")
assert_rope_matches = _fixture("assert_rope_matches")
assert_relative = _fixture("assert_relative")
assert_isometry = _fixture("assert_isometry")
assert_offset_equals_prefill = _fixture("assert_offset_equals_prefill")
assert_packed_equals_separate = _fixture("assert_packed_equals_separate")
assert_left_padding = _fixture("assert_left_padding")
assert_attention_decays = _fixture("assert_attention_decays")
assert_explained = _fixture("assert_explained")
