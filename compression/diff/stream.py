"""A stream of contexts between two agents: each is sent as a delta against the newest one that surely arrived.

    sender, receiver = ContextSender(), ContextReceiver()
    receipt = receiver.receive(sender.send(context))
    sender.answer(receipt)

Messages may be lost, arrive twice, late or damaged. The receiver then has the context it had before, never a wrong one;
the sender keeps what was not answered, and sends the whole where the receiver needs it.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from apportion.compression.diff.delta import MAX_BYTES
from apportion.compression.diff.envelope import Envelope, Form, enclose, open_envelope
from apportion.compression.diff.types import Reason
from apportion.errors import DeltaError

if TYPE_CHECKING:
    from apportion.compression.diff.types import Context

KEPT = 8
"""How many contexts either side keeps: so many answers may be on their way at once."""


@dataclass(frozen=True, slots=True)
class Receipt:
    """What a receiver answers.

    Attributes:
        number: The message that is answered; 0 where it could not be read.
        digest: The context that the receiver now holds because of it, or `None`.
        reason: Why the message was not used, or `None`.
    """

    number: int
    digest: str | None = None
    reason: Reason | None = None

    @property
    def needs_whole(self) -> bool:
        """Whether the receiver needs the whole context; not where the message was an old one."""
        return self.reason is not None and self.reason is not Reason.STALE


class ContextSender:
    """Sends the contexts of one stream. Not for several threads at once.

    Args:
        form: `Form.DELTA` for models, `Form.ZSTD` for machines, `Form.FULL` where the receiver knows no deltas.
        max_bytes: Bytes of the largest context that is compared.
    """

    def __init__(self, *, form: Form = Form.DELTA, max_bytes: int = MAX_BYTES) -> None:
        self._form = form
        self._max_bytes = max_bytes
        self._number = 0
        self._sent: OrderedDict[int, Context] = OrderedDict()
        self._base: tuple[int, Context] | None = None
        self._reason = Reason.NO_BASE if form is not Form.FULL else Reason.NOT_UNDERSTOOD

    def send(self, context: Context) -> Envelope:
        """Return the next message."""
        self._number += 1
        self._sent[self._number] = context
        while len(self._sent) > KEPT:
            self._sent.popitem(last=False)
        base = None if self._base is None else self._base[1]
        return enclose(
            context, base, reason=self._reason, form=self._form, number=self._number, max_bytes=self._max_bytes
        )

    def answer(self, receipt: Receipt) -> None:
        """Take note of a receiver's answer; answers that are late, doubled or of nothing that was sent do no harm."""
        if receipt.needs_whole:
            self.forget(Reason.ASKED)
            return
        context = self._sent.get(receipt.number)
        newer = self._base is None or receipt.number > self._base[0]
        if context is not None and receipt.digest == context.digest and newer:
            self._base = receipt.number, context
            for number in [number for number in self._sent if number <= receipt.number]:
                del self._sent[number]

    def forget(self, reason: Reason) -> None:
        """Build on nothing that the receiver held until now: its run ended, was compacted, or it asks for the whole.

        Answers to earlier messages are no longer trusted either.
        """
        self._base = None
        self._sent.clear()
        self._reason = reason


class ContextReceiver:
    """Receives the contexts of one stream. Not for several threads at once.

    Args:
        max_bytes: Bytes of the largest context that is rebuilt.
    """

    def __init__(self, *, max_bytes: int = MAX_BYTES) -> None:
        self._max_bytes = max_bytes
        self._held: OrderedDict[str, Context] = OrderedDict()
        self._number = 0
        self.current: Context | None = None
        """The newest context that was received whole and right."""

    def receive(self, message: Envelope | bytes | str) -> Receipt:
        """Take a message and return the answer; never raises.

        Args:
            message: An envelope, or one as bytes or as JSON text.
        """
        number = 0
        try:
            envelope = _read(message)
            number = envelope.number
            if number <= self._number:
                return Receipt(number, reason=Reason.STALE)
            context = open_envelope(envelope, self._held, max_bytes=self._max_bytes)
        except DeltaError as error:
            return Receipt(number, reason=Reason(error.reason))
        self._number = number
        self.current = context
        self._held[context.digest] = context
        self._held.move_to_end(context.digest)
        while len(self._held) > KEPT:
            self._held.popitem(last=False)
        return Receipt(number, digest=context.digest)

    def forget(self) -> None:
        """Give up all that is held, as a compaction does."""
        self._held.clear()
        self.current = None


def _read(message: Envelope | bytes | str) -> Envelope:
    if isinstance(message, Envelope):
        return message
    return Envelope.from_bytes(message) if isinstance(message, bytes) else Envelope.from_text(message)
