"""How fast deltas of real contexts are made, how short they are, and whether every one gives its context back.

    python benchmarks/diff.py PATH [PATH ...] [--quick] [--json FILE]

PATHs are logs. The prompt of each logged call is a context; a pair is a base, which the receiver holds, and a target:

    append      the prompt before and this one, which only adds to it
    edited      the prompt before and this one, where the log shows that earlier parts of it changed
    masked      appended prompts in which all but the last five tool results are stubs, so that one more becomes one
    compaction  the prompt before and this one, which shares no beginning with it
    handoff     the prompt of the agent that hands off and the first one of its sub-agent; the sub-agent's model holds
                nothing, so this saves transport only
    state       a JSON tool result, and the same after five edits that keep its style
    first       nothing, and the first prompt: sent whole

Of each kind those are taken whose SHA-256 is smallest, at most four of one agent run. *Delta tokens* are those of the
text that a model would read; the hashes stand in the envelope. The character-level reference is the shortest of four
spellings of what `fast-diff-match-patch` finds (two clean-ups, as JSON and as plain operations). Peers are left out
where they are not installed. Times are CPU milliseconds; *make* includes trying the delta once.
"""

from __future__ import annotations

import difflib
import importlib
import json
import time
from collections import Counter, defaultdict
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple

from _harness import Mark, arguments, percentile, report
from apportion.compression.diff import EMPTY, Context, Form, Section, enclose, make_delta, open_envelope
from apportion.compression.diff.envelope import Envelope, whole
from apportion.compression.strategies.types import count_bytes
from apportion.planner.replay.context import logged_calls
from apportion.records import Kind, content_hash
from apportion.telemetry.importers import read_logs
from apportion.telemetry.reading import SkipLog

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from apportion.telemetry.events import Event, WorkflowLog

KINDS = ("append", "edited", "masked", "compaction", "handoff", "state", "first")
PER_RUN = 4
KEPT_RESULTS = 5
TEN_THOUSAND = (5_000, 15_000)
"""Tokens of the contexts for which the marks of time hold."""

MIN_STATE = 2_000
"""Characters of the shortest JSON result that is edited."""

MAX_CHARS = 600_000
"""Contexts with more characters are left out: some peers take minutes on them."""


class Pair(NamedTuple):
    """A base and a target."""

    kind: str
    run: str
    base: Context
    target: Context


class Result(NamedTuple):
    """What became of a pair."""

    kind: str
    tokens: int
    delta_tokens: int
    reference_tokens: int | None
    frame_bytes: int
    bytes: int
    full: bool
    exact: bool
    make_ms: float
    open_ms: float


def main() -> None:
    """Measure and report."""
    asked = arguments(__doc__ or "", quick="at most 6 pairs of each kind", paths=True)
    per_kind = 6 if asked.quick else 60
    pairs = choose(asked.paths, per_kind)
    results = [measure(pair) for pair in pairs]
    rows = [row(kind, [each for each in results if each.kind == kind]) for kind in KINDS]
    rows = [each for each in rows if each["pairs"]]
    peer_rows, missing = peers(pairs, 2 if asked.quick else 10)
    notes = [asked.cut, "of a first call nothing is saved: it is sent whole"]
    notes += [f"not installed: {name}" for name in missing]
    report(
        "diff", rows + peer_rows, marks(results), packages=["apportion", "tiktoken", "zstandard"], file=asked.json,
        notes=notes,
    )  # fmt: skip


def choose(paths: Sequence[Any], per_kind: int) -> list[Pair]:
    """Return the pairs of all logs that are taken, by the rule above."""
    found: dict[str, dict[str, Pair]] = defaultdict(dict)
    for log in read_logs(paths, SkipLog()):
        for pair in pairs_of(log):
            if pair.target.size <= MAX_CHARS and pair.base.size <= MAX_CHARS:
                key = content_hash(f"{pair.base.digest}{pair.target.digest}")
                found[pair.kind][key] = pair
                if len(found[pair.kind]) > 6 * per_kind:
                    del found[pair.kind][max(found[pair.kind])]
    chosen: list[Pair] = []
    for kind in KINDS:
        runs: Counter[str] = Counter()
        taken = 0
        for _, pair in sorted(found[kind].items(), key=lambda item: item[0]):
            if runs[pair.run] < PER_RUN and taken < per_kind:
                runs[pair.run] += 1
                taken += 1
                chosen.append(pair)
    return chosen


def pairs_of(log: WorkflowLog) -> Iterator[Pair]:
    """Yield the pairs of a workflow."""
    held: dict[str, list[Event]] = {}
    newest: dict[str, Context] = {}
    sections = {event.step: _section(event.kind, event.name, event.content) for event in log.events}
    for call in logged_calls(log):
        run = call.first.agent_run
        name = f"{log.id} {run}"
        before = held.get(run)
        events = [*(before or [])[: call.kept], *(log.events[each] for each in call.added)]
        target = Context(tuple(sections[each.step] for each in events))
        if before is None:
            yield Pair("first", name, EMPTY, target)
            parent = newest.get(call.first.parent_agent or "")
            if parent is not None:
                yield Pair("handoff", name, parent, target)
        elif call.kept == len(before):
            yield Pair("append", name, newest[run], target)
            old, new = _masked(before, sections), _masked(events, sections)
            if new.sections[: len(old.sections)] != old.sections:
                yield Pair("masked", name, old, new)
        else:
            yield Pair("compaction" if call.fresh else "edited", name, newest[run], target)
        held[run], newest[run] = events, target
    for event in log.events:
        if event.kind is Kind.TOOL_RESULT and event.content[:1] in {"{", "["} and len(event.content) > MIN_STATE:
            with suppress(ValueError, RecursionError):
                yield from _state_pair(f"{log.id} {event.agent_run}", event.content)


def _section(kind: Kind, name: str | None, content: str) -> Section:
    return Section(kind.value, (name or "")[:200], content.encode("utf-8", "replace"))


def _masked(events: Sequence[Event], sections: dict[int, Section]) -> Context:
    """Return a prompt in which all but the last tool results are stubs."""
    results = [number for number, event in enumerate(events) if event.kind is Kind.TOOL_RESULT]
    old = {number for number in results[:-KEPT_RESULTS] if len(events[number].content) > 160}
    return Context(
        tuple(
            _section(each.kind, each.name, "[old result left out]") if number in old else sections[each.step]
            for number, each in enumerate(events)
        )
    )


def _state_pair(run: str, content: str) -> Iterator[Pair]:
    """Yield a JSON text and the same with five leaves changed, where it is written in a style of its own."""
    base = json.loads(content)
    leaves = list(_leaves(base))
    if len(leaves) < 20:
        return
    for style in ({"separators": (",", ":")}, {}, {"indent": 2}):
        if json.dumps(base, ensure_ascii=False, **style) == content:
            for number in range(5):
                place, key = leaves[(number * 2 + 1) * len(leaves) // 10]
                place[key] = {"edited": number} if number == 2 else f"edited {number}" if number % 2 else number * 111
            target = json.dumps(base, ensure_ascii=False, **style)
            yield Pair("state", run, *(Context.of_text(each.encode("utf-8", "replace")) for each in (content, target)))
            return


def _leaves(value: Any) -> Iterator[tuple[Any, Any]]:
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
        if isinstance(inner, dict | list):
            yield from _leaves(inner)
        else:
            yield value, key


def measure(pair: Pair) -> Result:
    """Make the delta of a pair, open it again, and count."""
    base = None if pair.kind == "first" else pair.base
    held = {} if base is None else {base.digest: base}
    make_ms, open_ms = [], []
    envelope = enclose(pair.target, base)
    sent = envelope.to_text()
    context = EMPTY
    for _ in range(5):
        # A target of its own, down to the bytes, as a new prompt is; the base has been held since the last one.
        fresh = copied(pair.target)
        start = time.process_time_ns()
        envelope = enclose(fresh, base)
        made = time.process_time_ns()
        context = open_envelope(envelope, held)
        opened = time.process_time_ns()
        make_ms.append((made - start) / 1e6)
        open_ms.append((opened - made) / 1e6)
    exact = context.sections == pair.target.sections
    exact &= open_envelope(Envelope.from_text(sent), held).sections == pair.target.sections
    frame = whole(pair.target, None) if base is None else enclose(pair.target, base, form=Form.ZSTD)
    exact &= open_envelope(Envelope.from_bytes(frame.to_bytes()), held).sections == pair.target.sections
    delta = envelope.data if base is None else make_delta(base, pair.target).data
    return Result(
        pair.kind,
        pair.target.tokens(count_bytes),
        count_bytes(delta),
        None if base is None else reference_tokens(pair),
        len(frame.data),
        pair.target.size,
        envelope.form is Form.FULL,
        exact,
        percentile(make_ms, 0.5),
        percentile(open_ms, 0.5),
    )


def copied(context: Context) -> Context:
    """Return an equal context that shares nothing with it."""
    return Context(tuple(Section(each.kind, each.name, bytes(bytearray(each.content))) for each in context.sections))


def flat(context: Context) -> str:
    """Return a context as one text, each section behind a line that says what it is."""
    return "".join(f"{each.kind}:{each.name}\n{each.content.decode('utf-8', 'replace')}\n" for each in context.sections)


def reference_tokens(pair: Pair) -> int | None:
    """Return the tokens of a character-level difference in its shortest spelling; `None` without the package."""
    module = _optional("fast_diff_match_patch")
    if module is None:
        return None
    old, new = flat(pair.base), flat(pair.target)
    counts = []
    for cleanup in ("Semantic", "Efficiency"):
        found = module.diff(old, new, timelimit=2, checklines=True, cleanup=cleanup, counts_only=False)
        ops = [text if op == "+" else len(text) if op == "=" else -len(text) for op, text in found]
        counts.append(count_bytes(json.dumps(ops, ensure_ascii=False, separators=(",", ":")).encode()))
        plain = "".join(f"+{len(text)}:{text}" if op == "+" else f"{op}{len(text)}" for op, text in found)
        counts.append(count_bytes(plain.encode()))
    return min(counts)


def _optional(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError:
        return None


def peers(pairs: Sequence[Pair], per_kind: int) -> tuple[list[dict[str, Any]], list[str]]:
    """Return the rows of other ways to compare the same pairs, and which are not installed."""
    rivals: dict[str, Callable[[Pair], bytes] | None] = {
        "apportion": lambda pair: make_delta(pair.base, pair.target).data,
        "difflib": _difflib,
        "fast-diff-match-patch": _with("fast_diff_match_patch", _characters),
        "jsonpatch": _with("jsonpatch", _jsonpatch),
        "deepdiff": _with("deepdiff", _deepdiff),
        "zstd, base as dictionary": lambda pair: enclose(pair.target, pair.base, form=Form.ZSTD).data,
    }
    rows: list[dict[str, Any]] = []
    for kind in KINDS[:-1]:
        some = [pair for pair in pairs if pair.kind == kind][:per_kind]
        for name, rival in rivals.items():
            if rival is None or not some:
                continue
            times, tokens, sizes = [], [], []
            for pair in some:
                start = time.process_time_ns()
                made = rival(pair)
                times.append((time.process_time_ns() - start) / 1e6)
                tokens.append(0 if name.startswith("zstd") else count_bytes(made))
                sizes.append(len(made))
            blank = dict.fromkeys(row("", []), "-")
            rows.append(
                blank
                | {
                    "kind": f"{kind}: {name}",
                    "pairs": len(some),
                    "delta p50": percentile(tokens, 0.5) or "-",
                    "make ms p50": percentile(times, 0.5),
                    "make ms p95": percentile(times, 0.95),
                    "zstd bytes p50": percentile(sizes, 0.5) if name.startswith("zstd") else "-",
                }
            )
    return rows, [name for name, rival in rivals.items() if rival is None]


def _with(package: str, rival: Callable[[Any, Pair], bytes]) -> Callable[[Pair], bytes] | None:
    module = _optional(package)
    return None if module is None else lambda pair: rival(module, pair)


def _difflib(pair: Pair) -> bytes:
    old, new = flat(pair.base).splitlines(keepends=True), flat(pair.target).splitlines(keepends=True)
    matcher = difflib.SequenceMatcher(None, old, new, autojunk=False)
    ops = [
        [first, last] if tag == "equal" else "".join(new[start:end])
        for tag, first, last, start, end in matcher.get_opcodes()
        if tag != "delete"
    ]
    return json.dumps(ops, ensure_ascii=False, separators=(",", ":")).encode()


def _characters(module: Any, pair: Pair) -> bytes:
    found = module.diff(flat(pair.base), flat(pair.target), timelimit=2, checklines=True, counts_only=False)
    ops = [text if op == "+" else len(text) if op == "=" else -len(text) for op, text in found]
    return json.dumps(ops, ensure_ascii=False, separators=(",", ":")).encode()


def _tree(context: Context) -> Any:
    if len(context.sections) == 1 and context.sections[0].content[:1] in {b"{", b"["}:
        return json.loads(context.sections[0].content)
    return [[each.kind, each.name, each.content.decode("utf-8", "replace")] for each in context.sections]


def _jsonpatch(module: Any, pair: Pair) -> bytes:
    return module.make_patch(_tree(pair.base), _tree(pair.target)).to_string().encode()  # type: ignore[no-any-return]


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), default=str)


def _deepdiff(module: Any, pair: Pair) -> bytes:
    found = module.DeepDiff(_tree(pair.base), _tree(pair.target))
    return module.Delta(found, serializer=_json).dumps().encode()  # type: ignore[no-any-return]


def row(kind: str, results: Sequence[Result]) -> dict[str, Any]:
    """Return a row of the table."""
    if not results:
        results, count = [Result(kind, 1, 1, None, 0, 0, full=False, exact=True, make_ms=0, open_ms=0)], 0
    else:
        count = len(results)
    saved = [100 - 100 * each.delta_tokens / max(1, each.tokens) for each in results]
    compared = [(each.delta_tokens, each.reference_tokens) for each in results if each.reference_tokens is not None]
    ratios = [delta / max(1, reference) for delta, reference in compared]
    return {
        "kind": kind,
        "pairs": count,
        "tokens p50": percentile([each.tokens for each in results], 0.5),
        "tokens p95": percentile([each.tokens for each in results], 0.95),
        "delta p50": percentile([each.delta_tokens for each in results], 0.5),
        "saved % p50": percentile(saved, 0.5),
        "saved % p10": percentile(saved, 0.1),
        "saved % all": 100 - 100 * sum(e.delta_tokens for e in results) / max(1, sum(e.tokens for e in results)),
        "of chars p50": percentile(ratios, 0.5) if ratios else "-",
        "of chars all": sum(delta for delta, _ in compared) / max(1, sum(ref for _, ref in compared))
        if compared
        else "-",
        "sent whole": sum(each.full for each in results),
        "exact": sum(each.exact for each in results) if count else 0,
        "make ms p50": percentile([each.make_ms for each in results], 0.5),
        "make ms p95": percentile([each.make_ms for each in results], 0.95),
        "open ms p50": percentile([each.open_ms for each in results], 0.5),
        "open ms p95": percentile([each.open_ms for each in results], 0.95),
        "zstd bytes p50": percentile([each.frame_bytes for each in results], 0.5),
    }


def marks(results: Sequence[Result]) -> list[Mark]:
    """Return the marks."""
    compared = [each for each in results if each.kind != "first"]
    low, high = TEN_THOUSAND
    sized = [each.make_ms for each in compared if low <= each.tokens <= high]
    found: list[Mark] = []
    if sized:
        p50, p95 = percentile(sized, 0.5), percentile(sized, 0.95)
        what = f"make a delta, {low:,} to {high:,} tokens, {len(sized)} pairs"
        found += [Mark(f"{what}, p50", p50, "ms", "< 1", p50 < 1), Mark(f"{what}, p95", p95, "ms", "< 5", p95 < 5)]
    exact = 100 * sum(each.exact for each in results) / max(1, len(results))
    found.append(Mark(f"exact, {len(results)} pairs in 3 forms", exact, "%", "100", exact == 100))
    for kind in KINDS[:-1]:
        some = [each for each in compared if each.kind == kind]
        ratios = [(each.delta_tokens, each.reference_tokens) for each in some if each.reference_tokens is not None]
        if ratios:
            ratio = sum(delta for delta, _ in ratios) / max(1, sum(reference for _, reference in ratios))
            found.append(Mark(f"tokens against a character-level diff, {kind}", ratio, "x", "<= 1.1", ratio <= 1.1))
        if some and kind in {"append", "edited", "masked", "state"}:
            saved = 100 - 100 * sum(each.delta_tokens for each in some) / max(1, sum(each.tokens for each in some))
            found.append(Mark(f"saved against resending, {kind}", saved, "%", "> 70", saved > 70))
    return found


if __name__ == "__main__":
    main()
