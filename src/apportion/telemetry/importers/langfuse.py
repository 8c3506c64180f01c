"""Langfuse: traces exported as JSON.

Read are the export of one trace (`{"trace": ..., "observations": [...]}`), the trace of the public API (which holds
its observations), and lists or JSON lines of either or of single observations. Generations are calls; their requests
are true prompts. Fields may be encoded as JSON within the JSON, and `"null"` may stand for nothing.
"""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING, Any

from apportion.records import Usage
from apportion.telemetry.events import LogBuilder
from apportion.telemetry.importers import _attributes
from apportion.telemetry.importers._attributes import Attributes, Role
from apportion.telemetry.importers._base import SingleFileImporter, as_int, unstated_lifetime
from apportion.telemetry.importers._fields import amount, compact, head_records, mapping, moment, sequence, string
from apportion.telemetry.importers._frameworks import framework
from apportion.telemetry.importers._messages import answer_pieces, parsed, request_pieces
from apportion.telemetry.importers._spans import Span, read_span
from apportion.telemetry.importers._traces import add_spans

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from apportion.telemetry.events import WorkflowLog
    from apportion.telemetry.reading import LogSource, SkipLog

_ROLES = {"GENERATION": Role.LLM, "AGENT": Role.AGENT, "CHAIN": Role.CHAIN, "SPAN": Role.CHAIN, "TOOL": Role.TOOL}
_TYPES = {*_ROLES, "EVENT", "RETRIEVER", "EVALUATOR", "EMBEDDING", "GUARDRAIL"}
_CACHE_READ = (
    "input_cache_read",
    "input_cached_tokens",
    "cache_read_input_tokens",
    "prompt_details.cache_read",
    "prompt_details.cached_tokens",
)
_CACHE_WRITE_5M = ("input_cache_creation_5m", "cache_creation.ephemeral_5m_input_tokens")
_CACHE_WRITE_1H = ("input_cache_creation_1h", "cache_creation.ephemeral_1h_input_tokens")
_CACHE_WRITE = ("input_cache_creation", "cache_creation_input_tokens", "prompt_details.cache_write")
_REASONING = (
    "output_reasoning",
    "output_reasoning_tokens",
    "completion_details.reasoning",
    "completion_details.reasoning_tokens",
)
_INPUT = ("input", "promptTokens", "prompt_tokens", "input_tokens")
_OUTPUT = ("output", "completionTokens", "completion_tokens", "output_tokens")
_TOTAL = ("total", "totalTokens", "total_tokens")


class LangfuseImporter(SingleFileImporter):
    """Reads traces exported from Langfuse."""

    name = "langfuse"
    title = "Langfuse"

    def sniff(self, source: LogSource) -> float:
        """Return 1 for a trace with observations, 0.9 for a trace or an observation alone, else 0."""
        first = next((record for value in head_records(source)[:1] for record in _records(value)), None)
        if not isinstance(first, dict):
            return 0.0
        if _is_trace(first) and first["observations"]:
            return 1.0
        of_export = mapping(first.get("trace"))  # alone where it fills the head
        return 0.9 if _is_observation(first) or {"id", "timestamp", "projectId"} <= of_export.keys() else 0.0

    def read(self, sources: Sequence[LogSource], skipped: SkipLog) -> Iterator[WorkflowLog]:
        """Yield one workflow per trace that holds a generation."""
        for source in sources:
            loose: dict[str, tuple[int, list[Attributes]]] = {}
            for line, value in source.documents(skipped):
                for record in _records(value):
                    if _is_trace(record):
                        trace = mapping(parsed(record.get("trace"))) or record
                        observations = [mapping(item) for item in record["observations"]]
                        yield from _usable(source, line, trace, observations, skipped)
                    elif _is_observation(record):
                        loose.setdefault(record["traceId"], (line, []))[1].append(record)
                    else:
                        skipped.line(source.label, line, "neither a Langfuse trace nor an observation")
            for identifier, (line, observations) in loose.items():
                yield from _usable(source, line, {"id": identifier}, observations, skipped)


def _records(value: Any) -> list[Any]:
    """Return the traces or observations of a document: one, a list, or a page of the public API."""
    if isinstance(value, dict) and isinstance(value.get("data"), list):
        return list(value["data"])
    return value if isinstance(value, list) else [value]


def _is_trace(record: Any) -> bool:
    if not isinstance(record, dict) or not isinstance(record.get("observations"), list):
        return False
    named = isinstance(record.get("trace"), dict | str) or {"id", "timestamp"} <= record.keys()
    return named and all(_is_observation(item) for item in record["observations"][:3])


def _is_observation(record: Any) -> bool:
    return (
        isinstance(record, dict)
        and isinstance(record.get("traceId"), str)
        and string(record.get("type")) in _TYPES
        and {"id", "startTime"} <= record.keys()
    )


def _usable(
    source: LogSource, line: int, trace: Attributes, observations: list[Attributes], skipped: SkipLog
) -> Iterator[WorkflowLog]:
    identifier = string(trace.get("id")) or next((string(item.get("traceId")) for item in observations), None)
    reason = "trace without an identifier"
    if identifier is not None:
        try:
            log = _workflow(identifier, trace, observations, source)
        except (ValueError, RecursionError) as error:
            reason = f"trace {identifier} cannot be used: {error}"
        else:
            if log is not None:
                yield log
                return
            reason = f"trace {identifier} holds no model call: none of its {len(observations)} observations generates"
    skipped.line(source.label, line, reason)


def _workflow(identifier: str, trace: Attributes, records: list[Attributes], source: LogSource) -> WorkflowLog | None:
    builder = LogBuilder(
        f"langfuse:{identifier}",
        source="langfuse",
        framework=_framework(trace, records) or "langfuse",
        origin=source.label if source.path else None,
    )
    if not add_spans(builder, [_span(record) for record in records]):
        return None
    known = {
        "trace_name": _given(trace.get("name")),
        "session_id": _given(trace.get("sessionId")),
        "environment": _given(trace.get("environment")),
        "tags": _tags(trace),
    }
    builder.meta = {name: value for name, value in known.items() if value}
    builder.outcome = _outcome(trace, records)
    return builder.build()


def _span(record: Attributes) -> Span:
    attributes = _attributes_of(record)
    kind = record.get("type")
    role = _ROLES.get(str(kind), Role.OTHER)
    if kind == "SPAN":  # the type of whatever Langfuse did not know better when it was written
        role = _attributes.role(attributes) or role
    started, ended = moment(record.get("startTime")), moment(record.get("endTime"))
    fields: dict[str, Any] = {
        "role": role,
        "failed": record.get("level") == "ERROR",
        "started_at": started,
        "duration_ms": max(0.0, (ended - started).total_seconds() * 1000) if started and ended else None,
    }
    if role is Role.LLM:
        fields |= _call_fields(record, attributes)
    elif role is Role.TOOL:
        said = {"arguments": record.get("input"), "result": record.get("output")}
        fields |= {name: compact(value) for name, value in said.items() if value is not None}
    return read_span(
        attributes,
        span_id=str(record.get("id")),
        parent=string(record.get("parentObservationId")),
        name=string(record.get("name")) or "",
        **fields,
    )


def _call_fields(record: Attributes, attributes: Attributes) -> dict[str, Any]:
    """Return what the observation itself says about a call; Langfuse takes most of it out of the attributes."""
    fields: dict[str, Any] = {"keeps_state": _attributes.keeps_state(record.get("output"))}
    request = _attributes.prompt(attributes)
    if not request:
        request = _attributes.framed(request_pieces(record.get("input")), attributes)
    fields["prompt"] = request
    fields["answer"] = _attributes.answer(attributes) or answer_pieces(record.get("output"))
    own = {
        "usage": _usage(record, attributes),
        "model": _given(record.get("model")),
        "cost_usd": _cost(record),
    }
    return fields | {name: value for name, value in own.items() if value is not None}


def _attributes_of(record: Attributes) -> Attributes:
    """Return the attributes of the span that became the observation, with the metadata beside them."""
    metadata = mapping(parsed(record.get("metadata")))
    beside = {name: value for name, value in metadata.items() if isinstance(value, str | int | float)}
    return beside | mapping(parsed(metadata.get("attributes")))


def _usage(record: Attributes, attributes: Attributes) -> Usage | None:
    """Return the usage of a generation in the canonical columns, or `None` where there is none.

    Keys named `input_*` and `output_*` stand beside `input` and `output`; keys named `*_details.*` stand for a part of
    them. Where both differ, the total decides. Counts that the application did not send, Langfuse estimated.
    """
    counts = mapping(parsed(record.get("usageDetails"))) or mapping(parsed(record.get("usage")))
    given, answered = _first(counts, _INPUT), _first(counts, _OUTPUT)
    if given is None and answered is None:
        return None
    read, reasoning = _first(counts, _CACHE_READ), _first(counts, _REASONING)
    written_5m, written_1h = _cache_writes(counts)
    cached = sum(tokens or 0 for tokens in (read, written_5m, written_1h))
    cached_within, reasoning_within = _what_is_within(counts, given or 0, answered or 0, cached, reasoning or 0)
    if given is not None and cached_within:
        given = max(0, given - cached)
    if answered is not None and not reasoning_within:
        answered += reasoning or 0
    guessed = _attributes.role(attributes) is Role.LLM and _attributes.usage(attributes) is None
    counted = Usage(
        input_uncached=given,
        cache_read=read,
        cache_write_5m=written_5m,
        cache_write_1h=written_1h,
        output=answered,
        reasoning=reasoning,
        estimated=frozenset({"input_uncached", "output"} if guessed else ()),
    )
    return unstated_lifetime(counted) if written_5m != _first(counts, _CACHE_WRITE_5M) else counted


def _what_is_within(counts: Attributes, given: int, answered: int, cached: int, reasoning: int) -> tuple[bool, bool]:
    """Return whether `input` includes the cached tokens, and `output` those of reasoning."""
    by_name = any("prompt_details." in name for name in counts), any("completion_details." in name for name in counts)
    total = _first(counts, _TOTAL)
    fitting = [
        (with_cached, with_reasoning)
        for with_cached, with_reasoning in product((True, False), repeat=2)
        if total == given + answered + (0 if with_cached else cached) + (0 if with_reasoning else reasoning)
    ]
    return by_name if by_name in fitting or not fitting else fitting[0]


def _cache_writes(counts: Attributes) -> tuple[int | None, int | None]:
    """Return the tokens written to the cache for five minutes and for one hour.

    A count without a time to live is the sum of both, or what is left beside them; alone, it counts as five minutes.
    """
    five_minutes, one_hour = _first(counts, _CACHE_WRITE_5M), _first(counts, _CACHE_WRITE_1H)
    other = _first(counts, _CACHE_WRITE)
    if other is None or other == (five_minutes or 0) + (one_hour or 0) != 0:
        return five_minutes, one_hour
    return (five_minutes or 0) + other, one_hour


def _cost(record: Attributes) -> float | None:
    """Return what the call cost; 0 stands for an unknown price as well, so it counts only where it is itemised."""
    itemised = amount(mapping(parsed(record.get("costDetails"))).get("total"))
    if itemised is not None:
        return itemised
    return next(
        (cost for cost in map(amount, (record.get("totalCost"), record.get("calculatedTotalCost"))) if cost), None
    )


def _framework(trace: Attributes, records: list[Attributes]) -> str | None:
    metadata = [mapping(parsed(record.get("metadata"))) for record in records]
    scopes = [str(mapping(parsed(data.get("scope"))).get("name", "")) for data in metadata]
    of_graph = any(_attributes.is_langgraph(_attributes_of(record)) for record in records)
    name = _given(trace.get("name"))
    return framework([*(["langgraph"] if of_graph else []), *scopes, *_tags(trace), *([name] if name else [])])


def _outcome(trace: Attributes, records: list[Attributes]) -> dict[str, Any] | None:
    """Return the scores of the trace, and the error of its root; `None` where it has neither."""
    scores = {
        score["name"]: next(value for value in (score.get("value"), score.get("stringValue")) if value is not None)
        for score in map(mapping, sequence(parsed(trace.get("scores"))))
        if string(score.get("name"))
        and not score.get("observationId")
        and not (score.get("value") is None and score.get("stringValue") is None)
    }
    roots = [record for record in records if not record.get("parentObservationId")]
    errors = [string(root.get("statusMessage")) or "error" for root in roots if root.get("level") == "ERROR"]
    outcome = ({"scores": scores} if scores else {}) | ({"error": errors[0]} if errors else {})
    return outcome or None


def _tags(trace: Attributes) -> list[str]:
    return [tag for tag in sequence(parsed(trace.get("tags"))) if isinstance(tag, str)]


def _given(value: Any) -> str | None:
    """Return a text field; exports write the text `null` for nothing."""
    text = string(value)
    return None if text == "null" else text


def _first(counts: Attributes, names: Iterable[str]) -> int | None:
    return next((count for count in (as_int(counts.get(name)) for name in names) if count is not None), None)
