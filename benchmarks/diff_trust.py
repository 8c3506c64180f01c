"""Whether deltas can be trusted: round trips, streams with losses, and damage, by the thousand.

    python benchmarks/diff_trust.py [--quick] [--json FILE]

Round trips take random contexts with lone surrogates, NUL, CR LF, right-to-left text, bytes that are no UTF-8 and, in
some, a line of 10 MB. A chain is a stream of 50 contexts of which messages are lost, damaged, doubled and replayed; it
ends right if the receiver never has a context that was not sent, and has the last one in the end. A damaged message is
handled right if it is refused, or gives the very context that it names.
"""

from __future__ import annotations

import random
import time
from typing import TYPE_CHECKING, Any

from _harness import Mark, arguments, report
from apportion.compression.diff import (
    Context,
    ContextReceiver,
    ContextSender,
    Envelope,
    Form,
    Section,
    apply_delta,
    enclose,
    make_delta,
    open_envelope,
)
from apportion.errors import DeltaError

if TYPE_CHECKING:
    from collections.abc import Callable

PIECES = [
    b"a line of words\n", b"\n", b"}\n", b"\r\n", b"\r", b"\0", b"\xed\xa0\x80", "שלום عالم\n".encode(),
    "e\u0301👩‍👧".encode(), b"\xff\xfe", b'{"a":[1,2.50,null],"b":"c"}', b"x, y, z, ", b"word ", b"\xef\xbb\xbf",
    b"the same line in many sections, long enough to be worth a reference\n",
]  # fmt: skip
TURNS = 50
LONG_LINE = b"x" * 10_000_000


def main() -> None:
    """Measure and report."""
    asked = arguments(__doc__ or "", quick="a hundredth of everything")
    share = 100 if asked.quick else 1
    parts: list[tuple[str, Callable[[random.Random], bool], int]] = [
        ("round trips, byte for byte", round_trip, 10_000 // share),
        ("round trips with a line of 10 MB", long_round_trip, max(1, 20 // share)),
        (f"chains of {TURNS} turns that end right", chain, 1_000 // share),
        ("damaged deltas refused or harmless", damaged_text, 10_000 // share),
        ("damaged messages refused or harmless", damaged_message, 10_000 // share),
    ]
    rows: list[dict[str, Any]] = []
    marks: list[Mark] = []
    for name, check, count in parts:
        chance = random.Random(name)  # noqa: S311  (reproducible, no secret)
        start = time.process_time()
        right = sum(check(chance) for _ in range(count))
        rows.append({"what": name, "executions": count, "right": right, "cpu_s": time.process_time() - start})
        marks.append(Mark(name, right, f"of {count:,}", "all", right == count))
    report("diff_trust", rows, marks, packages=["apportion", "zstandard"], file=asked.json, notes=[asked.cut])


def content(chance: random.Random) -> bytes:
    """Return random bytes of the awkward kinds."""
    pieces = [chance.choice(PIECES) for _ in range(chance.randint(0, 30))]
    return b"".join(pieces) + chance.randbytes(chance.choice((0, 0, 5)))


def context(chance: random.Random) -> Context:
    """Return a random context."""
    kinds, names = ("user", "tool_result", "state", "agent"), ("", "read", "a b", '"', "\ud800", "\n")
    sections = [
        Section(chance.choice(kinds), chance.choice(names), content(chance)) for _ in range(chance.randint(0, 8))
    ]
    return Context(tuple(sections))


def changed(base: Context, chance: random.Random) -> Context:
    """Return a context made of another by changes of all kinds, or one that has nothing to do with it."""
    if chance.random() < 0.1:
        return context(chance)
    target: list[Section] = []
    for section in base.sections:
        what = chance.randrange(7)
        if what == 0:
            continue
        if what == 1:
            at = chance.randint(0, len(section.content))
            edited = section.content[:at] + content(chance)[:20] + section.content[at + chance.randint(0, 9) :]
            target.append(Section(section.kind, section.name, edited))
        elif what == 2:
            target += [section, Section("user", content=content(chance))]
        else:
            target.append(section)
    if chance.random() < 0.2:
        chance.shuffle(target)
    return Context(tuple(target))


def round_trip(chance: random.Random) -> bool:
    """Make and apply a delta."""
    base = context(chance)
    target = changed(base, chance)
    delta = make_delta(base, target)
    return apply_delta(delta.data, base, target.digest, size=target.size).sections == target.sections


def long_round_trip(chance: random.Random) -> bool:
    """Make and apply a delta of a long line."""
    at = chance.randrange(len(LONG_LINE))
    base, target = (Context.of_text(LONG_LINE[:at] + new + LONG_LINE[at:]) for new in (b"old", content(chance)))
    delta = make_delta(base, target)
    return apply_delta(delta.data, base, target.digest, size=target.size).sections == target.sections


def chain(chance: random.Random) -> bool:
    """Send a stream of contexts over a bad connection."""
    sender, receiver = ContextSender(form=chance.choice((Form.DELTA, Form.ZSTD))), ContextReceiver()
    sent: list[Context] = []
    messages: list[bytes] = []
    current = context(chance)
    for _ in range(TURNS):
        current = changed(current, chance) if current.sections else context(chance)
        sent.append(current)
        messages.append(sender.send(current).to_bytes())
        fate = chance.random()
        if fate < 0.2:
            continue
        message = damage(messages[-1], chance) if fate < 0.3 else messages[-1]
        receipt = receiver.receive(message)
        if chance.random() < 0.8:
            sender.answer(receipt)
        if chance.random() < 0.2:
            sender.answer(receiver.receive(chance.choice(messages)))
        if receiver.current is not None and receiver.current not in sent:
            return False
    for _ in range(2):
        sender.answer(receiver.receive(sender.send(current).to_bytes()))
    return receiver.current == current


def damage(data: bytes, chance: random.Random) -> bytes:
    """Return bytes with a few changes."""
    hurt = bytearray(data)
    for _ in range(chance.randint(1, 4)):
        at = chance.randrange(len(hurt) + 1)
        what = chance.randrange(5)
        if what == 0 and at < len(hurt):
            hurt[at] ^= 1 << chance.randrange(8)
        elif what == 1:
            del hurt[at : at + chance.choice((1, 2, 50))]
        elif what == 2:
            hurt[at:at] = hurt[at : at + chance.choice((1, 2, 50))]
        elif what == 3:
            hurt[at:at] = chance.choice((b"-1", b"99999999999", b"=1-9\n", b"\0", b"+", b"@2:1", b'"', b"\xff", b"~1 "))
        else:
            del hurt[at:]
    return bytes(hurt)


def damaged_text(chance: random.Random) -> bool:
    """Damage the text of a delta."""
    base = context(chance)
    target = changed(base, chance)
    data = damage(make_delta(base, target).data, chance)
    try:
        return apply_delta(data, base, target.digest, size=target.size).sections == target.sections
    except DeltaError:
        return True


def damaged_message(chance: random.Random) -> bool:
    """Damage a whole message, in either form and spelling."""
    base = context(chance)
    target = changed(base, chance)
    envelope = enclose(target, base, form=chance.choice((Form.DELTA, Form.ZSTD)))
    try:
        if chance.random() < 0.5:
            read = Envelope.from_bytes(damage(envelope.to_bytes(), chance))
        else:
            read = Envelope.from_text(damage(envelope.to_text().encode(), chance))
        return open_envelope(read, {base.digest: base}) == target
    except DeltaError:
        return True


if __name__ == "__main__":
    main()
