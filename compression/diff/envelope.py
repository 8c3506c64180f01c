"""What goes from a sender to a receiver: a delta, or the whole context and why.

    envelope = enclose(target, base)
    open_envelope(Envelope.from_json(envelope.to_json()), {base.digest: base}) == target

The hashes stand in the envelope, not in the text that a model reads. Whoever opens an envelope gets exactly the context
that was meant, or an error whose `reason` says why the whole context is needed.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import struct
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final

from apportion.compression.diff.compact import pack, unpack
from apportion.compression.diff.delta import MAX_BYTES, apply_delta, make_delta
from apportion.compression.diff.types import DIGEST_DIGITS, EMPTY, Reason
from apportion.compression.diff.wire import write_whole
from apportion.errors import DeltaError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from apportion.compression.diff.delta import Changes
    from apportion.compression.diff.types import Context

VERSION = 1
"""Version of the wire format. A receiver refuses any other and asks for the whole context."""

WORTH = 0.8
"""A delta that is longer than this share of the context is not worth a receiver's trouble."""

MAX_NUMBER = 2**53
"""Largest number of a message."""

_MAGIC: Final = b"\xa9dlt"
_HEADER: Final = struct.Struct(">4sBB16s16sQQ8s")


class Form(StrEnum):
    """How a context is written in an envelope."""

    DELTA = "delta"
    """As text against a base: a model that holds the base can read it."""
    ZSTD = "zstd"
    """As a zstd frame with the base as dictionary: for machines only."""
    FULL = "full"
    """As a whole."""


_CODES: Final = (Form.FULL, Form.DELTA, Form.ZSTD)


@dataclass(frozen=True, slots=True)
class Envelope:
    """A context on its way.

    Attributes:
        form: How it is written.
        target: Digest of the context.
        size: Bytes of its contents.
        data: The delta, frame or whole.
        base: Digest of what the receiver must hold; `None` where that is nothing.
        reason: Why it is sent whole; `None` for a delta, and on the receiver's side where it was not passed on.
        number: Which message of a stream it is, from 1; 0 outside streams.
        version: Version of the format.
        changes: What changed, for the sender's records; not sent.
    """

    form: Form
    target: str
    size: int
    data: bytes
    base: str | None = None
    reason: Reason | None = None
    number: int = 0
    version: int = VERSION
    changes: Changes | None = None

    @property
    def seal(self) -> bytes:
        """Eight bytes over all that is sent but the reason: they tell a damaged message, even a wrong number."""
        said = f"{self.version} {self.form.value} {self.base} {self.target} {self.size} {self.number} ".encode()
        return hashlib.sha256(said + self.data).digest()[:8]

    def to_json(self) -> dict[str, Any]:
        """Return the envelope as JSON values; data that is no UTF-8 text is written in base 64."""
        shown: dict[str, Any] = {"v": self.version, "form": self.form.value}
        if self.base is not None:
            shown["base"] = self.base
        shown |= {"target": self.target, "size": self.size}
        if self.number:
            shown["number"] = self.number
        if self.reason is not None:
            shown["reason"] = self.reason.value
        shown["seal"] = self.seal.hex()
        try:
            shown["data"] = self.data.decode()
        except UnicodeDecodeError:
            shown["data64"] = base64.b64encode(self.data).decode()
        return shown

    @classmethod
    def from_json(cls, value: Any) -> Envelope:
        """Read an envelope from JSON values; members that are not known are ignored.

        Raises:
            DeltaError: It is damaged, or of a version that is not known.
        """
        if not isinstance(value, dict):
            raise _malformed("an envelope is an object")
        version = value.get("v")
        if version != VERSION or isinstance(version, bool):
            raise DeltaError(f"version {str(version)[:20]!r} of the format", reason=Reason.UNKNOWN_VERSION)
        form, reason = value.get("form"), value.get("reason")
        if form not in tuple(Form):
            raise _malformed("no such form")
        envelope = cls(
            Form(form),
            _digest(value.get("target")),
            _whole(value.get("size")),
            _data(value),
            None if value.get("base") is None else _digest(value["base"]),
            Reason(reason) if reason in tuple(Reason) else None,
            _whole(value.get("number", 0)),
        )
        return envelope._sealed_with(value.get("seal"))

    def to_text(self) -> str:
        """Return the envelope as one line of JSON."""
        return json.dumps(self.to_json(), ensure_ascii=False, separators=(",", ":"))

    @classmethod
    def from_text(cls, text: str | bytes) -> Envelope:
        """Read an envelope from JSON text.

        Raises:
            DeltaError: It is damaged, or of a version that is not known.
        """
        try:
            value = json.loads(text)
        except (ValueError, RecursionError):
            raise _malformed("not JSON") from None
        return cls.from_json(value)

    def to_bytes(self) -> bytes:
        """Return the envelope in bytes: a header of fixed length, and the data."""
        base = bytes(16) if self.base is None else bytes.fromhex(self.base)
        form = _CODES.index(self.form) | (0 if self.base is None else 0x80)
        target = bytes.fromhex(self.target)
        header = _HEADER.pack(_MAGIC, self.version, form, base, target, self.size, self.number, self.seal)
        return header + self.data

    @classmethod
    def from_bytes(cls, data: bytes) -> Envelope:
        """Read an envelope from bytes.

        Raises:
            DeltaError: It is damaged, or of a version that is not known.
        """
        if len(data) < _HEADER.size or not data.startswith(_MAGIC):
            raise _malformed("not an envelope")
        _, version, form, base, target, size, number, seal = _HEADER.unpack_from(data)
        if version != VERSION:
            raise DeltaError(f"version {version} of the format", reason=Reason.UNKNOWN_VERSION)
        if form & 0x7F >= len(_CODES) or number > MAX_NUMBER:
            raise _malformed("no such form")
        held = base.hex() if form & 0x80 else None
        envelope = cls(_CODES[form & 0x7F], target.hex(), size, data[_HEADER.size :], held, number=number)
        return envelope._sealed_with(seal.hex())

    def _sealed_with(self, seal: Any) -> Envelope:
        if seal != self.seal.hex():
            raise _malformed("its seal is broken")
        return self


def enclose(
    target: Context,
    base: Context | None,
    *,
    reason: Reason = Reason.NO_BASE,
    form: Form = Form.DELTA,
    number: int = 0,
    max_bytes: int = MAX_BYTES,
) -> Envelope:
    """Return the shortest envelope of a context that a receiver can open; never raises.

    Args:
        target: The context.
        base: What the receiver holds, or `None`.
        reason: Why there is no base, where there is none.
        form: `Form.DELTA` for models, `Form.ZSTD` for machines, `Form.FULL` to send the whole.
        number: Which message of a stream it is.
        max_bytes: Bytes of the largest context that is compared.
    """
    if form is Form.FULL or base is None:
        return whole(target, reason, number=number)
    if max(base.size, target.size) > max_bytes:
        return whole(target, Reason.TOO_LARGE, number=number)
    changes = None
    try:
        if form is Form.ZSTD:
            data = pack(target, base)
        else:
            delta = make_delta(base, target)
            data, changes = delta.data, delta.changes
    except Exception:  # noqa: BLE001  (whatever a content provokes, it is sent as it is)
        return whole(target, Reason.NOT_REPRODUCED, number=number)
    if len(data) > WORTH * target.size:
        return whole(target, Reason.NOT_WORTH_IT, number=number)
    return Envelope(form, target.digest, target.size, data, base.digest, number=number, changes=changes)


def enclose_all(targets: Iterable[Context], base: Context | None, *, form: Form = Form.DELTA) -> list[Envelope]:
    """Return an envelope for each of several contexts, all against the same base."""
    return [enclose(target, base, form=form) for target in targets]


def whole(target: Context, reason: Reason | None, *, number: int = 0) -> Envelope:
    """Return the envelope of a whole context."""
    return Envelope(Form.FULL, target.digest, target.size, write_whole(target), reason=reason, number=number)


def open_envelope(envelope: Envelope, held: Mapping[str, Context], *, max_bytes: int = MAX_BYTES) -> Context:
    """Return the context of an envelope, compared with its digest.

    Args:
        envelope: What was received.
        held: What the receiver holds, by digest; each digest is computed anew, whatever it is filed under.
        max_bytes: Bytes of the largest context that is rebuilt.

    Raises:
        DeltaError: The base is not held, or the envelope is damaged; the whole context is to be asked for.
    """
    base = EMPTY
    if envelope.form is not Form.FULL:
        found = held.get(envelope.base) if envelope.base is not None else None
        if found is None:
            raise DeltaError("the base of a delta is not held", reason=Reason.NO_BASE)
        if found.digest != envelope.base:
            raise DeltaError("the delta is against another base", reason=Reason.WRONG_BASE)
        base = found
    opened = unpack if envelope.form is Form.ZSTD else apply_delta
    return opened(envelope.data, base, envelope.target, size=envelope.size, max_bytes=max_bytes)


def _malformed(what: str) -> DeltaError:
    return DeltaError(f"damaged envelope: {what}", reason=Reason.MALFORMED)


def _digest(value: Any) -> str:
    digits = frozenset("0123456789abcdef")
    if not isinstance(value, str) or len(value) != DIGEST_DIGITS or not digits.issuperset(value):
        raise _malformed("no digest")
    return value


def _whole(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= MAX_NUMBER:
        raise _malformed("no whole number")
    return value


def _data(value: dict[str, Any]) -> bytes:
    text, encoded = value.get("data"), value.get("data64")
    try:
        if isinstance(text, str):
            return text.encode()
        if isinstance(encoded, str):
            return base64.b64decode(encoded, validate=True)
    except (UnicodeEncodeError, binascii.Error, ValueError):
        raise _malformed("unreadable data") from None
    raise _malformed("no data")
