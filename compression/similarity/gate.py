"""The similarity gate: how much of each chunk's meaning survived, and whether that is enough.

    gate = Gate(Vectors(SentenceModel()))
    verdict, coverage = gate.check(outcome)
    coverage.mean, coverage.minimum

*Coverage* is aligned by provenance: each chunk of the original is compared with the text that survived of that same
chunk, never with the whole result, whose cosine stays near 1 while half of a document is deleted. A chunk that is whole
covers 1, one of which nothing is left covers 0, and only the others need an embedding. The mean is weighted by length.

What the gate decides about is loss. Text behind a handle is not lost for a receiver that can expand it, because
`expand` returns it byte for byte; it counts as covered in `recoverable_mean` and not in `mean`, and both are stated.
A result is accepted if `recoverable_mean` reaches the threshold; with `visible=True`, only if `mean` does. So cuts
behind handles need no model, and cuts for good are refused without one.

Coverage is necessary and not sufficient: no embedding sees a changed number or a negation. The fact check does.
"""

from __future__ import annotations

import time
from enum import StrEnum
from typing import TYPE_CHECKING, NamedTuple

from apportion.compression.similarity.alignment import chunks_with_rest
from apportion.compression.similarity.chunks import chunks_of
from apportion.compression.similarity.vectors import Ingest, Vectors, chunk_text
from apportion.compression.strategies.types import Span, Verdict
from apportion.embeddings import EXTRA, SentenceModel, is_installed
from apportion.errors import ApportionError, InputError, MissingExtraError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from apportion.compression.strategies.types import Outcome

THRESHOLD = 0.95
"""Weighted mean coverage from which a result is accepted."""

MAX_CHUNKS = 2000
"""Chunks of which a part survived that are compared; more would take minutes, and the original is sent."""


class Coverage(NamedTuple):
    """How much of an original survived, chunk by chunk.

    Attributes:
        mean: Mean coverage of what is visible, weighted by length, in [0, 1].
        minimum: Least coverage of any chunk by what is visible.
        recoverable_mean: The same mean, text behind handles counted as covered.
        chunks: Chunks of the original.
        whole: Chunks that are visible as a whole.
        gone: Chunks of which nothing is visible.
        embedded: Texts that were embedded for this; the vectors of all others were there.
    """

    mean: float
    minimum: float
    recoverable_mean: float
    chunks: int
    whole: int
    gone: int
    embedded: int


class Warmth(StrEnum):
    """Whether meaning can be compared at once."""

    READY = "ready"
    """It can."""
    LOADING = "loading"
    """The model is being loaded, or is loaded when it is first needed."""
    NOT_INSTALLED = "not installed"
    """The extra `semantic` is missing."""
    FAILED = "failed"
    """The model cannot be loaded, or gives no vectors."""


class NotValidatedError(InputError):
    """A result was not compared with its original, so it cannot be accepted."""


class Gate:
    """Accepts results that keep the meaning of their originals.

    Args:
        vectors: Where vectors come from; those of the default model where none are given.
        threshold: Least mean coverage, in [0, 1].
        least: Least coverage of any chunk, in [0, 1], or `None` for no such limit.
        visible: Whether text behind handles counts as lost.
        seconds: Time that making vectors may take in one check; `None`: as long as it takes. What cannot be compared in
            that time is not validated yet: it is refused, and had embedded in the background for the next time.
        clock: Tells the seconds.

    Attributes:
        failure: What was wrong with the model when it was last used, or `None`.

    Raises:
        InputError: A limit is outside [0, 1].
    """

    def __init__(
        self,
        vectors: Vectors | None = None,
        *,
        threshold: float = THRESHOLD,
        least: float | None = None,
        visible: bool = False,
        seconds: float | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        for limit in (threshold, least if least is not None else threshold):
            if not 0 <= limit <= 1:
                raise InputError(f"a coverage of {limit} is outside 0..1", hint="Give a share, for example 0.95.")
        self.vectors = Vectors(SentenceModel()) if vectors is None else vectors
        self.ingest = Ingest(self.vectors)
        self.threshold = threshold
        self.least = least
        self.visible = visible
        self.seconds = seconds
        self.failure: str | None = None
        self._clock = clock

    @property
    def warmth(self) -> Warmth:
        """Whether meaning can be compared at once."""
        if self.failure is not None:
            return Warmth.FAILED
        if self.vectors.embedder.ready:
            return Warmth.READY
        if isinstance(self.vectors.embedder, SentenceModel) and not is_installed():
            return Warmth.NOT_INSTALLED
        return Warmth.FAILED if self.ingest.failed else Warmth.LOADING

    def warm_up(self) -> str | None:
        """Load the model now, and return what is wrong with it, or `None`; takes seconds, and never raises."""
        try:
            self.vectors.of("warm")
        except Exception as error:  # noqa: BLE001  (whatever it is, results are refused for it and it is said)
            self.failure = _said(error)
        else:
            self.failure = None
        return self.failure

    def check(self, result: Outcome) -> tuple[Verdict, Coverage | None]:
        """Say whether a result may be sent, and how much of its original it covers; never raises.

        Returns:
            The verdict, and the coverage, or `None` where it was not measured.
        """
        if not result.changed:
            return Verdict(accepted=True), Coverage(1.0, 1.0, 1.0, 0, 0, 0, 0)
        if not result.gaps:
            return Verdict(accepted=False, reason="not validated: nothing tells what was left out where"), None
        if result.handles and not self.visible:
            return Verdict(accepted=True), None
        try:
            coverage = self.measure(result)
        except Exception as error:  # noqa: BLE001  (whatever goes wrong, what was not compared is not accepted)
            return Verdict(accepted=False, reason=f"not validated: {error}"), None
        return self._verdict(coverage), coverage

    def measure(self, result: Outcome) -> Coverage:
        """Return how much of its original a result covers.

        Raises:
            MissingExtraError: sentence-transformers or the weights are not installed.
            NotValidatedError: Too much has to be embedded, or more than there is time for.
            InputError: The model cannot be loaded.
        """
        chunks = list(_survivals(result.original, [gap.span for gap in result.gaps]))
        return self._measured(chunks, result.original, recoverable=bool(result.handles))

    def compare(self, original: bytes, compressed: bytes) -> Coverage:
        """Return how much of an original a text covers of which nobody tells what was left out; see `alignment`.

        Raises:
            MissingExtraError: sentence-transformers or the weights are not installed.
            NotValidatedError: Too much has to be embedded, or more than there is time for.
            InputError: The model cannot be loaded.
        """
        chunks = [_Survival(text, _worth(rest), len(text)) for text, rest in chunks_with_rest(original, compressed)]
        return self._measured(chunks, original, recoverable=False)

    def _measured(self, chunks: Sequence[_Survival], original: bytes, *, recoverable: bool) -> Coverage:
        parts = [chunk for chunk in chunks if chunk.part]
        texts = [text for chunk in parts for text in (chunk.original, chunk.survived)]
        embedded = self._embed(original, texts) if texts else 0
        total = sum(chunk.size for chunk in chunks) or 1
        covered = [self._coverage(chunk) for chunk in chunks]
        mean = sum(each * chunk.size for each, chunk in zip(covered, chunks, strict=True)) / total if chunks else 1.0
        return Coverage(
            mean,
            min(covered, default=1.0),
            1.0 if recoverable else mean,
            len(chunks),
            sum(chunk.original == chunk.survived for chunk in chunks),
            sum(not chunk.survived for chunk in chunks),
            embedded,
        )

    def _verdict(self, coverage: Coverage) -> Verdict:
        mean = coverage.mean if self.visible else coverage.recoverable_mean
        said = f"mean coverage {mean:.3f}, minimum {coverage.minimum:.3f}"
        if mean < self.threshold:
            return Verdict(accepted=False, reason=f"{said}: the mean is below {self.threshold}")
        if self.least is not None and coverage.minimum < self.least:
            return Verdict(accepted=False, reason=f"{said}: the minimum is below {self.least}")
        return Verdict(accepted=True)

    def _coverage(self, chunk: _Survival) -> float:
        if not chunk.part:
            return 1.0 if chunk.survived else 0.0
        return min(1.0, max(0.0, float(self.vectors.of(chunk.original) @ self.vectors.of(chunk.survived))))

    def _embed(self, original: bytes, texts: Sequence[str]) -> int:
        """Make the vectors that are missing, as far as there is time, and return how many they were."""
        if isinstance(self.vectors.embedder, SentenceModel) and not is_installed():
            raise MissingExtraError("comparing texts in meaning", extra=EXTRA)
        if len(texts) > 2 * MAX_CHUNKS:
            raise NotValidatedError(f"{len(texts) // 2} chunks are too many to compare", hint="Shorten it in parts.")
        if self.seconds is not None and not self.vectors.embedder.ready:
            failure = self.failure or self.ingest.error
            if failure is not None:
                raise NotValidatedError(f"the model cannot be loaded: {failure}")
            self.vectors.embedder.warm()
            self.ingest.add(original)
            raise NotValidatedError("not yet: the model is being loaded", hint="Ask again later.")
        missing = [text for text, known in zip(texts, self.vectors.known(texts), strict=True) if known is None]
        start = self._clock()
        for nth, text in enumerate(missing):
            if self.seconds is not None and self._clock() - start >= self.seconds:
                self.ingest.add(original)
                raise NotValidatedError(f"not yet: {len(missing) - nth} vectors are missing", hint="Ask again later.")
            try:
                self.vectors.of(text)
            except Exception as error:
                self.failure = _said(error)
                raise
        if missing:
            self.failure = None
        return len(missing)


class _Survival(NamedTuple):
    """A chunk of an original, and what survived of it."""

    original: str
    survived: str
    size: int

    @property
    def part(self) -> bool:
        """Whether a part of it survived, neither all nor nothing."""
        return bool(self.survived) and self.survived != self.original


def _survivals(original: bytes, gaps: Sequence[Span]) -> Iterator[_Survival]:
    """Yield each chunk of an original that holds anything, with what gaps left of it."""
    nth = 0
    for chunk in chunks_of(original):
        text = chunk_text(original[chunk.start : chunk.end])
        while nth < len(gaps) and gaps[nth].end <= chunk.start:
            nth += 1
        kept: list[bytes] = []
        position, each = chunk.start, nth
        while each < len(gaps) and gaps[each].start < chunk.end:
            kept.append(original[position : max(position, gaps[each].start)])
            position = min(gaps[each].end, chunk.end)
            each += 1
        survived = chunk_text(b"".join([*kept, original[position : chunk.end]]))
        if text:
            yield _Survival(text, _worth(survived), len(text))


def _worth(survived: str) -> str:
    """Return what survived of a chunk, or nothing where it is marks alone."""
    return survived if any(map(str.isalnum, survived)) else ""


def _said(error: Exception) -> str:
    """Say what went wrong: in our own words where it is ours."""
    return str(error) if isinstance(error, ApportionError) else f"{type(error).__name__}: {error}"
