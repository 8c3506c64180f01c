from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from apportion.compression.similarity import gate as gate_module
from apportion.compression.similarity.gate import Gate
from apportion.compression.similarity.stated import state
from apportion.compression.similarity.vectors import Vectors

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pytest
    from numpy.typing import NDArray

ORIGINAL = b"The bridge was built in 1869. It is made of iron. Nobody may cross it at night.\n" * 3
PART = ORIGINAL.replace(b" It is made of iron.", b"")


class Lengths:
    """An embedder that sees nothing but lengths."""

    name = digest = "lengths"
    ready = False

    def warm(self) -> None:
        """Do nothing."""

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        rows = np.array([[len(text), 100.0] for text in texts])
        return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), np.float32)


def test_a_text_of_which_a_part_is_left_is_measured() -> None:
    found = state(ORIGINAL, PART, Gate(Vectors(Lengths())))
    assert found.similarity is not None
    assert found.least is not None
    assert 0 < found.least <= found.similarity < 1
    assert not found.reason


def test_while_the_model_is_loaded_it_says_so() -> None:
    found = state(ORIGINAL, PART, Gate(Vectors(Lengths()), seconds=1.0))
    assert (found.similarity, found.least) == (None, None)
    assert found.reason == "not measured: not yet: the model is being loaded. Ask again later."


def test_without_the_extra_it_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gate_module, "is_installed", lambda: False)
    found = state(ORIGINAL, PART)
    assert found.similarity is None
    assert "semantic" in found.reason
    assert state(ORIGINAL, ORIGINAL).similarity == 1  # what is the same needs no model
