"""Vectors by content, and a thread that makes them before they are needed.

    vectors = Vectors(SentenceModel())
    ingest = Ingest(vectors)
    ingest.add(content)              # returns at once
    vectors.known(["a text"])        # what is there already

A vector is known by the hash of its text and that of the model, so another model never finds it.
"""

from __future__ import annotations

import math
import queue
import threading
from collections import OrderedDict
from typing import TYPE_CHECKING

import xxhash

from apportion.compression.similarity.chunks import chunks_of
from apportion.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

    from apportion.embeddings import Embedder

MAX_VECTOR_BYTES = 64 * 2**20
"""Memory for vectors: about 40,000 of the default model, or 8 million tokens of text."""

MAX_WAITING_BYTES = 16 * 2**20
"""Content that may wait to be embedded; what comes on top is dropped and counted."""


class Vectors:
    """An embedder that remembers; safe to share between threads.

    Args:
        embedder: Makes vectors.
        max_bytes: Memory for vectors; the least recently used ones go first.

    Attributes:
        hits: Texts whose vectors were there.
        misses: Texts whose vectors were not.
    """

    def __init__(self, embedder: Embedder, *, max_bytes: int = MAX_VECTOR_BYTES) -> None:
        if max_bytes <= 0:
            raise InputError(f"max_bytes is {max_bytes}", hint="Give at least one byte.")
        self.embedder = embedder
        self.max_bytes = max_bytes
        self.hits = 0
        self.misses = 0
        self._lock = threading.Lock()
        self._vectors: OrderedDict[tuple[str, bytes], NDArray[np.float32]] = OrderedDict()
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._vectors)

    @property
    def size(self) -> int:
        """Bytes of vectors held."""
        return self._bytes

    def known(self, texts: Sequence[str]) -> list[NDArray[np.float32] | None]:
        """Return the vector of each text that is there already, and `None` for the others."""
        digest = self.embedder.digest
        return [self._get((digest, _hash(text))) for text in texts]

    def of(self, text: str) -> NDArray[np.float32]:
        """Return the vector of a text, made now where it is not there.

        Raises:
            MissingExtraError: sentence-transformers or the weights are not installed.
            InputError: The model cannot be loaded, or makes no vector but NaN or nothing.
        """
        key = (self.embedder.digest, _hash(text))
        found = self._get(key)
        if found is None:
            found = self.embedder.embed([text])[0]
            if not _is_vector(found):
                raise InputError(
                    f"the embedding model {self.embedder.name!r} has made no vector of a text, but {found[:3]}...",
                    hint="Use another model: nothing can be compared with this one.",
                )
            self._put(key, found)
        return found

    def _get(self, key: tuple[str, bytes]) -> NDArray[np.float32] | None:
        with self._lock:
            found = self._vectors.get(key)
            if found is None:
                self.misses += 1
            else:
                self.hits += 1
                self._vectors.move_to_end(key)
            return found

    def _put(self, key: tuple[str, bytes], vector: NDArray[np.float32]) -> None:
        with self._lock:
            if key not in self._vectors and vector.nbytes <= self.max_bytes:
                self._vectors[key] = vector
                self._bytes += vector.nbytes
            while self._bytes > self.max_bytes:
                self._bytes -= self._vectors.popitem(last=False)[1].nbytes


class Ingest:
    """Embeds the chunks of contents in a background thread, so that validation only has to look them up.

    Adding a content never blocks and never raises: what does not fit is dropped, and what fails is counted.

    Args:
        vectors: Where the vectors go.
        max_waiting_bytes: Content that may wait.

    Attributes:
        dropped: Contents that were not taken because too much was waiting.
        failed: Contents that could not be embedded.
        error: What went wrong last, or `None`.
    """

    def __init__(self, vectors: Vectors, *, max_waiting_bytes: int = MAX_WAITING_BYTES) -> None:
        self.vectors = vectors
        self.max_waiting_bytes = max_waiting_bytes
        self.dropped = 0
        self.failed = 0
        self.error: str | None = None
        self._lock = threading.Lock()
        self._idle = threading.Condition(self._lock)
        self._waiting = 0
        self._contents: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._closed = False

    def add(self, content: bytes) -> bool:
        """Have a content embedded, and say whether it was taken."""
        with self._lock:
            if self._closed or self._waiting + len(content) > self.max_waiting_bytes:
                self.dropped += 1
                return False
            self._waiting += len(content)
            self._contents.put(content)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="apportion-ingest", daemon=True)
                self._thread.start()
            return True

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until all that was added is embedded, at most `timeout` seconds, and say whether it is."""
        with self._lock:
            return self._idle.wait_for(lambda: self._waiting == 0, timeout)

    def close(self) -> None:
        """Take nothing more, and let the thread end after what it is at."""
        with self._lock:
            self._closed = True
            self._contents.put(None)

    def _run(self) -> None:
        while (content := self._contents.get()) is not None:
            try:
                if not self._closed:
                    self._embed(content)
            except Exception as error:  # noqa: BLE001  (a thread that ends would stop all that follows)
                self.failed += 1
                self.error = f"{type(error).__name__}: {error}"
            finally:
                with self._lock:
                    self._waiting -= len(content)
                    self._idle.notify_all()

    def _embed(self, content: bytes) -> None:
        for start, end in chunks_of(content):
            if self._closed:
                return
            text = chunk_text(content[start:end])
            if text:
                self.vectors.of(text)


def chunk_text(chunk: bytes) -> str:
    """Return what is embedded of a chunk: its text without white space around it."""
    return chunk.decode("utf-8", "replace").strip()


def _hash(text: str) -> bytes:
    return xxhash.xxh3_128_digest(text.encode("utf-8", "surrogatepass"))


def _is_vector(found: NDArray[np.float32]) -> bool:
    """Say whether a vector has a direction: every number is one, and not all are 0."""
    size = float(found @ found)
    return 0.0 < size < math.inf  # false for NaN, too
