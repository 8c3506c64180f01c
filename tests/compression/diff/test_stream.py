from __future__ import annotations

import random

import pytest

from apportion.compression.diff import Context, ContextReceiver, ContextSender, Form, Reason, Section
from apportion.compression.diff.stream import KEPT, Receipt


def turn(number: int) -> Context:
    """The context of a turn: a message more than before, and now and then an old one replaced by a stub."""
    sections = []
    for each in range(number + 1):
        old = each < number - 5 and each % 3 == 0
        text = b"[left out]" if old else b"message %d\n" % each + b"some words that fill a line\n" * (each % 7)
        sections.append(Section("user" if each % 2 else "assistant", content=text))
    return Context(tuple(sections))


@pytest.mark.parametrize("form", [Form.DELTA, Form.ZSTD, Form.FULL])
def test_each_context_of_a_stream_arrives(form: Form) -> None:
    sender, receiver = ContextSender(form=form), ContextReceiver()
    forms = []
    for number in range(12):
        envelope = sender.send(turn(number))
        forms.append(envelope.form)
        sender.answer(receiver.receive(envelope.to_text()))
        assert receiver.current == turn(number)
    assert set(forms[4:]) == {form}
    assert forms[0] is Form.FULL


def test_without_answers_nothing_is_built_on() -> None:
    sender, receiver = ContextSender(), ContextReceiver()
    for number in range(3):
        envelope = sender.send(turn(number))
        assert (envelope.form, envelope.reason) == (Form.FULL, Reason.NO_BASE)
        receiver.receive(envelope)
    assert receiver.current == turn(2)


def test_a_message_that_arrives_twice_or_late_changes_nothing() -> None:
    sender, receiver = ContextSender(), ContextReceiver()
    first, second = sender.send(turn(1)), sender.send(turn(2))
    assert receiver.receive(second).digest == turn(2).digest
    for late in (first, second):
        receipt = receiver.receive(late)
        assert (receipt.reason, receipt.needs_whole) == (Reason.STALE, False)
        sender.answer(receipt)
    assert receiver.current == turn(2)


def test_a_receiver_that_forgot_is_sent_the_whole() -> None:
    sender, receiver = ContextSender(), ContextReceiver()
    sender.answer(receiver.receive(sender.send(turn(8))))
    receiver.forget()
    assert receiver.current is None
    receipt = receiver.receive(sender.send(turn(9)))
    assert (receipt.reason, receipt.needs_whole) == (Reason.NO_BASE, True)
    sender.answer(receipt)
    envelope = sender.send(turn(9))
    assert (envelope.form, envelope.reason) == (Form.FULL, Reason.ASKED)
    assert receiver.receive(envelope).digest == turn(9).digest


def test_a_compaction_ends_what_can_be_built_on_and_late_answers_do_not_bring_it_back() -> None:
    sender, receiver = ContextSender(), ContextReceiver()
    receipt = receiver.receive(sender.send(turn(8)))
    sender.forget(Reason.BASE_EXPIRED)
    sender.answer(receipt)
    assert sender.send(turn(9)).reason is Reason.BASE_EXPIRED


def test_answers_of_nothing_that_was_sent_do_no_harm() -> None:
    sender = ContextSender()
    sender.send(turn(1))
    sender.answer(Receipt(1, "0" * 32))
    sender.answer(Receipt(99, turn(1).digest))
    assert sender.send(turn(2)).reason is Reason.NO_BASE


def test_a_base_that_the_receiver_has_given_up_is_noticed() -> None:
    sender, receiver = ContextSender(), ContextReceiver()
    sender.answer(receiver.receive(sender.send(turn(6))))
    for number in range(7, 7 + KEPT):
        receiver.receive(sender.send(turn(number)))  # its answers are lost
    receipt = receiver.receive(sender.send(turn(20)))
    assert (receipt.reason, receiver.current) == (Reason.NO_BASE, turn(6 + KEPT))


def test_chains_with_losses_doubles_replays_and_damage_end_right() -> None:
    chance = random.Random(3)  # noqa: S311  (reproducible, no secret)
    for chain in range(20):
        sender, receiver = ContextSender(form=(Form.DELTA, Form.ZSTD)[chain % 2]), ContextReceiver()
        past: list[bytes] = []
        newest = -1
        for number in range(50):
            message = sender.send(turn(number)).to_bytes()
            past.append(message)
            fate = chance.random()
            if fate < 0.15:
                continue  # lost
            if fate < 0.25:
                damaged = bytearray(message)
                damaged[chance.randrange(len(damaged))] ^= 1 << chance.randrange(8)
                before = receiver.current
                receipt = receiver.receive(bytes(damaged))
                assert receiver.current == before or receiver.current == turn(number)
                sender.answer(receipt)
                newest = number if receipt.digest == turn(number).digest else newest
                continue
            receipt = receiver.receive(message)
            newest = number if receipt.reason is None else newest
            if chance.random() < 0.8:
                sender.answer(receipt)
            if chance.random() < 0.3:
                sender.answer(receiver.receive(chance.choice(past)))  # doubled, or replayed much later
            assert receiver.current == (turn(newest) if newest >= 0 else None)
        sender.answer(receiver.receive(sender.send(turn(50))))
        receiver.receive(sender.send(turn(50)))
        assert receiver.current == turn(50)
