from __future__ import annotations

import json
import random
from dataclasses import replace

import pytest
import zstandard

from apportion.compression.diff import (
    EMPTY,
    Context,
    Envelope,
    Form,
    Reason,
    Section,
    enclose,
    enclose_all,
    open_envelope,
)
from apportion.compression.diff.compact import pack
from apportion.errors import DeltaError

TEXT = b"".join(b"line %d of the text that both of them have\n" % number for number in range(60))
BASE = Context((Section("system", content=b"You are careful.\n"), Section("tool_result", "read", TEXT)))
TARGET = Context((*BASE.sections, Section("user", content="weiter, \u05e9\u05dc\u05d5\u05dd\0\r\n".encode())))
HELD = {BASE.digest: BASE}
FORMS = [Form.DELTA, Form.ZSTD, Form.FULL]


@pytest.mark.parametrize("form", FORMS)
def test_what_is_enclosed_comes_out_by_json_and_by_bytes(form: Form) -> None:
    envelope = enclose(TARGET, BASE, form=form, number=3)
    assert envelope.form is form
    for read in (Envelope.from_text(envelope.to_text()), Envelope.from_bytes(envelope.to_bytes())):
        assert open_envelope(read, HELD) == TARGET
        assert (read.number, read.base) == (3, None if form is Form.FULL else BASE.digest)


def test_the_hashes_stand_in_the_envelope_and_not_in_what_a_model_reads() -> None:
    envelope = enclose(TARGET, BASE)
    assert BASE.digest.encode() not in envelope.data
    assert TARGET.digest.encode() not in envelope.data
    assert len(envelope.data) < 40


def test_content_that_is_no_text_travels_in_base_64() -> None:
    target = Context((*BASE.sections, Section("user", content=b"\xff\xfe\xed\xa0\x80")))
    envelope = enclose(target, BASE)
    assert "data64" in envelope.to_json()
    assert open_envelope(Envelope.from_text(envelope.to_text()), HELD) == target


@pytest.mark.parametrize(
    ("target", "base", "given", "reason"),
    [
        (TARGET, None, {}, Reason.NO_BASE),
        (TARGET, None, {"reason": Reason.BASE_EXPIRED}, Reason.BASE_EXPIRED),
        (TARGET, BASE, {"form": Form.FULL, "reason": Reason.NOT_UNDERSTOOD}, Reason.NOT_UNDERSTOOD),
        (TARGET, BASE, {"max_bytes": 10}, Reason.TOO_LARGE),
        (Context.of_text(b"all of this is new"), BASE, {}, Reason.NOT_WORTH_IT),
        (Context.of_text(random.Random(1).randbytes(500)), BASE, {"form": Form.ZSTD}, Reason.NOT_WORTH_IT),  # noqa: S311
    ],
)
def test_the_whole_is_sent_with_the_reason(
    target: Context, base: Context | None, given: dict[str, object], reason: Reason
) -> None:
    envelope = enclose(target, base, **given)  # type: ignore[arg-type]
    assert (envelope.form, envelope.reason) == (Form.FULL, reason)
    assert open_envelope(Envelope.from_text(envelope.to_text()), {}) == target
    assert Envelope.from_text(envelope.to_text()).reason is reason


def test_several_contexts_are_enclosed_against_one_base() -> None:
    targets = [TARGET, BASE, Context.of_text(b"new")]
    envelopes = enclose_all(targets, BASE)
    assert [open_envelope(envelope, HELD) for envelope in envelopes] == targets
    assert [envelope.form for envelope in envelopes] == [Form.DELTA, Form.DELTA, Form.FULL]


@pytest.mark.parametrize(
    ("changes", "held", "reason"),
    [
        ({}, {}, Reason.NO_BASE),
        ({"base": None}, HELD, Reason.NO_BASE),
        ({"base": TARGET.digest}, HELD, Reason.NO_BASE),
        ({}, {BASE.digest: TARGET}, Reason.WRONG_BASE),
        ({"target": "0" * 32}, HELD, Reason.HASH_MISMATCH),
        ({"target": BASE.digest}, HELD, Reason.HASH_MISMATCH),
        ({"size": TARGET.size - 1}, HELD, Reason.TOO_LARGE),
        ({"size": 2**50}, HELD, Reason.TOO_LARGE),
        ({"data": b"=1-9\n"}, HELD, Reason.MALFORMED),
        ({"data": b""}, HELD, Reason.HASH_MISMATCH),
    ],
)
@pytest.mark.parametrize("form", [Form.DELTA, Form.ZSTD])
def test_an_envelope_that_cannot_be_right_is_refused(
    form: Form, changes: dict[str, object], held: dict[str, Context], reason: Reason
) -> None:
    envelope = replace(enclose(TARGET, BASE, form=form), **changes)  # type: ignore[arg-type]
    with pytest.raises(DeltaError) as caught:
        open_envelope(envelope, held)
    expected = {reason} if form is Form.DELTA else {reason, Reason.MALFORMED}
    assert caught.value.reason in expected


def test_another_version_is_named_as_such() -> None:
    good = enclose(TARGET, BASE)
    for value in (good.to_json() | {"v": 2}, {}, {"v": True}):
        with pytest.raises(DeltaError) as caught:
            Envelope.from_json(value)
        assert caught.value.reason == Reason.UNKNOWN_VERSION
    with pytest.raises(DeltaError) as caught:
        Envelope.from_bytes(b"\xa9dlt\x02" + good.to_bytes()[5:])
    assert caught.value.reason == Reason.UNKNOWN_VERSION


GOOD = enclose(TARGET, BASE).to_json()


@pytest.mark.parametrize(
    "damage",
    [
        {"form": "other"}, {"form": None}, {"base": 7}, {"base": "abc"}, {"base": BASE.digest.upper()},
        {"target": None}, {"number": 7}, {"seal": None}, {"seal": "0" * 16},
        {"size": -1}, {"size": 1.5}, {"size": True}, {"size": "9"}, {"number": -1}, {"number": 2**60}, {"data": None},
        {"data": "\ud800"}, {"data": None, "data64": "%%%"}, {"data": None, "data64": "a"},
    ],
)  # fmt: skip
def test_a_damaged_envelope_is_refused(damage: dict[str, object]) -> None:
    with pytest.raises(DeltaError) as caught:
        Envelope.from_json(GOOD | damage)
    assert caught.value.reason == Reason.MALFORMED


@pytest.mark.parametrize("text", ["", "[]", "7", '"x"', "{", "[" * 100_000, b"\xff\xfe"])
def test_text_that_is_no_envelope_is_refused(text: str | bytes) -> None:
    with pytest.raises(DeltaError) as caught:
        Envelope.from_text(text)
    assert caught.value.reason == Reason.MALFORMED


def test_members_that_are_not_known_are_ignored_and_an_unknown_reason_too() -> None:
    read = Envelope.from_json(GOOD | {"more": [1], "reason": "something new"})
    assert read.reason is None
    assert open_envelope(read, HELD) == TARGET


def test_a_frame_that_would_unpack_to_more_than_was_announced_is_refused_before_it_is() -> None:
    bomb = zstandard.ZstdCompressor(level=3).compress(b"\0" * 50_000_000)
    unsized = zstandard.ZstdCompressor(write_content_size=False).compress(b"\0" * 5_000_000)
    for frame, reason in ((bomb, Reason.TOO_LARGE), (unsized, Reason.MALFORMED)):
        envelope = replace(enclose(TARGET, BASE, form=Form.ZSTD), data=frame)
        with pytest.raises(DeltaError) as caught:
            open_envelope(envelope, HELD)
        assert caught.value.reason == reason


def test_a_frame_can_only_be_unpacked_with_its_base() -> None:
    other = Context.of_text(TEXT.replace(b"line", b"LINE"))
    envelope = enclose(TARGET, BASE, form=Form.ZSTD)
    with pytest.raises(DeltaError):
        open_envelope(replace(envelope, base=other.digest), {other.digest: other})
    assert len(envelope.data) < len(pack(TARGET, EMPTY)) / 3


@pytest.mark.parametrize("form", FORMS)
def test_mutated_messages_never_crash_and_never_give_another_context(form: Form) -> None:
    chance = random.Random(form.value)  # noqa: S311  (reproducible, no secret)
    data = enclose(TARGET, BASE, form=form).to_bytes()
    for _ in range(2_000):
        changed = bytearray(data)
        for _ in range(chance.randint(1, 3)):
            at = chance.randrange(len(changed))
            if chance.random() < 0.5:
                changed[at] ^= 1 << chance.randrange(8)
            else:
                del changed[at : at + chance.choice((1, 4, 40))]
            if not changed:
                break
        try:
            given = open_envelope(Envelope.from_bytes(bytes(changed)), HELD)
        except DeltaError:
            continue
        assert given in (TARGET, BASE), "only what the digest in the message names"
        assert given.digest == bytes(changed[22:38]).hex()


def test_an_envelope_is_one_line_of_json() -> None:
    text = enclose(TARGET, BASE).to_text()
    assert "\n" not in text
    assert json.loads(text)["target"] == TARGET.digest
