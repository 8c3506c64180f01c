"""What deltas saved, what they cost, and how often and why the whole was sent instead.

    tally = DiffTally()
    tally.sent(envelope, make_ms=0.4)
    tally.summary().as_json()       # the `diff` part of a status or report

Numbers and reasons only: no content, no digest.
"""

from __future__ import annotations

import threading
from collections import Counter, deque
from dataclasses import asdict, dataclass
from math import ceil
from typing import TYPE_CHECKING, Any

from apportion.compression.diff.envelope import Form

if TYPE_CHECKING:
    from collections.abc import Sequence

    from apportion.compression.diff.envelope import Envelope
    from apportion.compression.diff.types import Reason

MAX_TIMES = 4096
"""How many of the newest times quantiles are taken from."""


@dataclass(frozen=True, slots=True)
class Times:
    """Times in milliseconds; `None` where none were measured."""

    p50_ms: float | None = None
    p95_ms: float | None = None
    max_ms: float | None = None

    @classmethod
    def of(cls, times: Sequence[float]) -> Times:
        """Return the quantiles of some times."""
        ordered = sorted(times)
        if not ordered:
            return cls()
        p50, p95 = (ordered[ceil(share * len(ordered)) - 1] for share in (0.5, 0.95))
        return cls(p50, p95, ordered[-1])


@dataclass(frozen=True, slots=True)
class DiffSummary:
    """What became of all contexts that were sent or received.

    Attributes:
        sent: Contexts sent.
        deltas: Those of them that were sent as text deltas.
        frames: Those of them that were sent as zstd frames.
        whole_bytes: Bytes of the contexts.
        sent_bytes: Bytes that were sent instead.
        whole_tokens: Tokens of the contexts that were counted, or `None`.
        sent_tokens: Tokens that were sent instead, or `None`.
        model_tokens_saved: Tokens saved where the receiving model itself held the base; elsewhere only transport was.
        received: Contexts rebuilt and found right.
        fallbacks: How often the whole was sent, or asked for, by reason.
        make: Times to make a delta and to try it.
        rebuild: Times to rebuild a context and compare its digest.
    """

    sent: int
    deltas: int
    frames: int
    whole_bytes: int
    sent_bytes: int
    whole_tokens: int | None
    sent_tokens: int | None
    model_tokens_saved: int
    received: int
    fallbacks: dict[str, int]
    make: Times
    rebuild: Times

    @property
    def saved_share(self) -> float | None:
        """Share of the bytes that was saved; `None` where nothing was sent."""
        return 1 - self.sent_bytes / self.whole_bytes if self.whole_bytes else None

    def as_json(self) -> dict[str, Any]:
        """Return the summary as JSON values."""
        return asdict(self) | {"saved_share": self.saved_share}


class DiffTally:
    """Counts; safe to share between threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._forms: Counter[Form] = Counter()
        self._reasons: Counter[str] = Counter()
        self._whole_bytes = self._sent_bytes = self._received = self._model_saved = 0
        self._whole_tokens: int | None = None
        self._sent_tokens: int | None = None
        self._make: deque[float] = deque(maxlen=MAX_TIMES)
        self._rebuild: deque[float] = deque(maxlen=MAX_TIMES)

    def sent(
        self,
        envelope: Envelope,
        *,
        make_ms: float,
        whole_tokens: int | None = None,
        sent_tokens: int | None = None,
        model_holds_base: bool = False,
    ) -> None:
        """Take note of a context that was sent.

        Args:
            envelope: What was sent.
            make_ms: How long it took to make.
            whole_tokens: Tokens of the context, where they were counted.
            sent_tokens: Tokens of what was sent, where they were counted.
            model_holds_base: Whether the base stands in the prompt of the receiving model, so that model tokens are
                saved; false where only the receiving program holds it.
        """
        with self._lock:
            self._forms[envelope.form] += 1
            self._whole_bytes += envelope.size
            self._sent_bytes += len(envelope.data)
            if whole_tokens is not None and sent_tokens is not None:
                self._whole_tokens = (self._whole_tokens or 0) + whole_tokens
                self._sent_tokens = (self._sent_tokens or 0) + sent_tokens
                if model_holds_base and envelope.form is Form.DELTA:
                    self._model_saved += whole_tokens - sent_tokens
            if envelope.reason is not None:
                self._reasons[envelope.reason.value] += 1
            self._make.append(make_ms)

    def received(self, *, rebuild_ms: float) -> None:
        """Take note of a context that was rebuilt and found right."""
        with self._lock:
            self._received += 1
            self._rebuild.append(rebuild_ms)

    def refused(self, reason: Reason) -> None:
        """Take note of a message that was not used."""
        with self._lock:
            self._reasons[reason.value] += 1

    def summary(self) -> DiffSummary:
        """Return all counts."""
        with self._lock:
            return DiffSummary(
                self._forms.total(),
                self._forms[Form.DELTA],
                self._forms[Form.ZSTD],
                self._whole_bytes,
                self._sent_bytes,
                self._whole_tokens,
                self._sent_tokens,
                self._model_saved,
                self._received,
                dict(sorted(self._reasons.items())),
                Times.of(self._make),
                Times.of(self._rebuild),
            )
