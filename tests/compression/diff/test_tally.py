from __future__ import annotations

import json

from apportion.compression.diff import Context, DiffTally, Form, Reason, enclose

BASE = Context.of_text(b"some words that fill a line\n" * 40)
TARGET = Context((*BASE.sections, *Context.of_text(b"one more\n").sections))


def test_what_was_sent_saved_and_refused_is_counted() -> None:
    tally = DiffTally()
    delta = enclose(TARGET, BASE)
    tally.sent(delta, make_ms=2.0, whole_tokens=300, sent_tokens=10, model_holds_base=True)
    tally.sent(delta, make_ms=1.0, whole_tokens=300, sent_tokens=10)
    tally.sent(enclose(TARGET, BASE, form=Form.ZSTD), make_ms=3.0)
    tally.sent(enclose(TARGET, None), make_ms=0.0)
    tally.received(rebuild_ms=0.5)
    tally.refused(Reason.HASH_MISMATCH)
    summary = tally.summary()
    assert (summary.sent, summary.deltas, summary.frames, summary.received) == (4, 2, 1, 1)
    assert (summary.whole_tokens, summary.sent_tokens, summary.model_tokens_saved) == (600, 20, 290)
    assert summary.whole_bytes == 4 * TARGET.size
    assert summary.fallbacks == {"hash_mismatch": 1, "no_base": 1}
    assert (summary.make.p50_ms, summary.make.p95_ms, summary.make.max_ms) == (1.0, 3.0, 3.0)
    assert summary.saved_share is not None
    assert 0.5 < summary.saved_share < 0.75
    assert json.loads(json.dumps(summary.as_json()))["rebuild"] == {"p50_ms": 0.5, "p95_ms": 0.5, "max_ms": 0.5}


def test_what_was_never_measured_is_unknown_and_not_zero() -> None:
    summary = DiffTally().summary()
    assert summary.saved_share is None
    assert summary.whole_tokens is None
    assert summary.make.p50_ms is None
