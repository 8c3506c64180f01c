"""The embedding model; tests that need the extra `semantic` are skipped, and say so, where it is not installed."""

from __future__ import annotations

import threading
from importlib.util import find_spec
from typing import TYPE_CHECKING

import pytest

from apportion import embeddings
from apportion.embeddings import DEFAULT_MODEL, Embedder, SentenceModel, check_files
from apportion.errors import InputError, MissingExtraError

if TYPE_CHECKING:
    from pathlib import Path

needs_extra = pytest.mark.skipif(not embeddings.is_installed(), reason="the extra 'semantic' is not installed")


def test_a_model_that_is_not_needed_is_not_loaded() -> None:
    model = SentenceModel()
    assert isinstance(model, Embedder)
    assert not model.ready
    assert model.digest == embeddings.FILE_HASHES["model.safetensors"]


def test_without_the_extra_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embeddings, "is_installed", lambda: False)
    with pytest.raises(MissingExtraError, match=r"\[semantic\]"):
        SentenceModel().embed(["text"])


def test_other_files_than_the_published_ones_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot read a file of the embedding model"):
        check_files(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"others")
    with pytest.raises(InputError, match=r"SHA-256 is .* Reinstall it"):
        check_files(tmp_path)


def test_warming_up_swallows_what_the_first_use_will_raise(tmp_path: Path) -> None:
    model = SentenceModel(folder=tmp_path)
    model.warm()
    for thread in threading.enumerate():
        if thread.name == "apportion-embeddings":
            thread.join(60)
    assert not model.ready


@needs_extra
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_the_packaged_weights_are_the_published_ones_and_tell_likeness() -> None:
    assert find_spec(embeddings.PACKAGE) is not None
    model = SentenceModel()
    first, second, other, odd, empty = model.embed(
        ["The bridge was built in 1869.", "They finished the bridge in 1869.", "Cats sleep all day.", "\ud800x", ""]
    )
    assert model.ready
    assert model.name == DEFAULT_MODEL
    assert first @ second > 0.7
    assert first @ other < 0.3
    assert all(abs(vector @ vector - 1) < 1e-5 for vector in (first, odd, empty))
    ends = [f"{'The weather was fine. ' * 200}{end}" for end in ("", "Ice melts at zero degrees, says physics. " * 20)]
    long, longer = model.embed(ends)
    assert long @ longer < 0.999  # what stands beyond the window counts


@needs_extra
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_a_model_that_is_not_there_is_an_input_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be loaded"):
        SentenceModel(str(tmp_path / "none")).embed(["text"])
