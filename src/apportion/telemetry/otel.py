"""Events of sessions as OpenTelemetry traces and metrics, by the GenAI names where there are some.

    telemetry = Telemetry.to_store(path, sinks=[OpenTelemetrySink()])

Needs the extra `otel`. Where spans and metrics go is what the application has configured, as always with OpenTelemetry:
the sink takes the providers that it is given, or the global ones. No text of any content is exported.

A session is one trace. In it, a call is a span `chat MODEL`, a plan for one a span `apportion.plan AGENT`, and all else
a span `apportion.KIND`. `NAMES` is the one table of names. GenAI counts cached tokens as input, and so do events; the
conventions are still in development, hence `CONVENTIONS`, the version that the table follows.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Any

from apportion.errors import MissingExtraError
from apportion.telemetry.live_events import LOSSES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from opentelemetry.metrics import MeterProvider
    from opentelemetry.trace import Span, TracerProvider

    from apportion.telemetry.live_events import LiveEvent

EXTRA = "otel"
"""The extra of this package that brings OpenTelemetry."""

CONVENTIONS = "1.44.0, gen_ai in development"
"""Version of the semantic conventions that the names follow."""

CHAT = "chat"
"""`gen_ai.operation.name` of a call of a model."""

NAMES = {
    "agent": "gen_ai.agent.name",
    "workflow": "gen_ai.conversation.id",
    "model": "gen_ai.request.model",
    "provider": "gen_ai.provider.name",
    "input_tokens": "gen_ai.usage.input_tokens",
    "output_tokens": "gen_ai.usage.output_tokens",
    "cache_read_tokens": "gen_ai.usage.cache_read.input_tokens",
    "cache_write_tokens": "gen_ai.usage.cache_creation.input_tokens",
    "reasoning_tokens": "gen_ai.usage.reasoning.output_tokens",
    "tool": "gen_ai.tool.name",
    "run_id": "apportion.run.id",
    "stage": "apportion.plan.stage",
    "number": "apportion.plan.step",
    "decision": "apportion.plan.decision",
    "reasons": "apportion.plan.reasons",
    "confidence": "apportion.plan.confidence",
    "allocated_tokens": "apportion.plan.allocated_tokens",
    "used_tokens": "apportion.plan.used_tokens",
    "variance_tokens": "apportion.plan.variance_tokens",
    "saved_tokens": "apportion.plan.saved_tokens",
    "cost_usd": "apportion.cost.usd",
    "saved_usd": "apportion.cost.saved_usd",
}
"""What a field of an event is called; any other one is `apportion.KIND.FIELD`."""

TOKEN_USAGE = "gen_ai.client.token.usage"  # noqa: S105  (tokens of text)
"""Histogram of the tokens of calls, by `gen_ai.token.type`."""

TOKEN_BUCKETS = tuple(4**power for power in range(14))
"""Its limits, as the conventions have them: 1 to 67,108,864."""

SAVED = "apportion.tokens.saved"
"""Counter of prompt tokens that were not sent."""

LOOKUPS = "apportion.cache.lookups"
"""Counter of lookups, by `apportion.cache` and `apportion.cache.hit`."""

LOST = "apportion.telemetry.lost"
"""Counter of events that are missing, by `reason`."""

MAX_SESSIONS = 1_000
"""Traces that are open at most; the one that was silent for longest is ended first."""


class OpenTelemetrySink:
    """Turns events into spans and metrics.

    Args:
        tracer_provider: Where spans go; the global one by default.
        meter_provider: Where metrics go; the global one by default.

    Raises:
        MissingExtraError: OpenTelemetry is not installed.
    """

    def __init__(
        self, tracer_provider: TracerProvider | None = None, meter_provider: MeterProvider | None = None
    ) -> None:
        try:
            from opentelemetry import metrics, trace
        except ImportError as error:
            raise MissingExtraError("the export to OpenTelemetry", extra=EXTRA) from error
        self._trace = trace
        self._tracer = trace.get_tracer("apportion", tracer_provider=tracer_provider)
        meter = metrics.get_meter("apportion", meter_provider=meter_provider)
        self._usage = meter.create_histogram(
            TOKEN_USAGE,
            unit="{token}",
            description="Tokens of calls, input with cached ones.",
            explicit_bucket_boundaries_advisory=TOKEN_BUCKETS,
        )
        self._saved = meter.create_counter(SAVED, unit="{token}", description="Prompt tokens that were not sent.")
        self._lookups = meter.create_counter(LOOKUPS, unit="{lookup}", description="Lookups in caches.")
        self._lost = meter.create_counter(LOST, unit="{event}", description="Events that are missing.")
        self._sessions: OrderedDict[str, tuple[Span, int]] = OrderedDict()

    def write(self, events: Sequence[LiveEvent]) -> None:
        """Export some events."""
        for event in events:
            if event.kind == LOSSES:
                for name in ("dropped", "malformed", "failed"):
                    self._lost.add(max(0, event.data[name]), {"reason": name})
                continue
            self._measure(event)
            self._span(event)

    def close(self) -> None:
        """End the traces that are open."""
        for workflow in list(self._sessions):
            self._end(workflow)

    def _span(self, event: LiveEvent) -> None:
        if event.kind == "session" and event.data.get("status") == "ended" and event.workflow is not None:
            self._session(event)
            self._end(event.workflow)
            return
        attributes = _attributes(event)
        name, kind = f"apportion.{event.kind}", self._trace.SpanKind.INTERNAL
        if event.kind == "usage":
            name, kind = " ".join(filter(None, (CHAT, event.data.get("model")))), self._trace.SpanKind.CLIENT
        elif event.kind == "step":
            name = " ".join(filter(None, ("apportion.plan", event.agent)))
        duration = event.data.get("duration_ms")
        began = event.at_ns - round(duration * 1e6) if isinstance(duration, int | float) and duration > 0 else None
        context = None if event.workflow is None else self._trace.set_span_in_context(self._session(event))
        span = self._tracer.start_span(
            name, context=context, kind=kind, attributes=attributes, start_time=began or event.at_ns
        )
        if event.kind == "degraded":
            span.set_status(self._trace.Status(self._trace.StatusCode.ERROR, str(event.data.get("reason", ""))))
        span.end(event.at_ns)

    def _session(self, event: LiveEvent) -> Span:
        """Return the span of the session that an event belongs to."""
        assert event.workflow is not None
        known = self._sessions.pop(event.workflow, None)
        if known is None:
            if len(self._sessions) >= MAX_SESSIONS:
                self._end(next(iter(self._sessions)))
            span = self._tracer.start_span(
                "apportion.session",
                context=self._trace.set_span_in_context(self._trace.INVALID_SPAN),
                attributes={NAMES["workflow"]: event.workflow},
                start_time=event.at_ns,
            )
        else:
            span = known[0]
        self._sessions[event.workflow] = span, event.at_ns
        return span

    def _end(self, workflow: str) -> None:
        span, last_ns = self._sessions.pop(workflow)
        span.end(last_ns)

    def _measure(self, event: LiveEvent) -> None:
        data = event.data
        if event.kind == "usage":
            whose = {"gen_ai.operation.name": CHAT}
            whose |= {NAMES[name]: data[name] for name in ("model", "provider") if name in data}
            for kind in ("input", "output"):
                if isinstance(number := data.get(f"{kind}_tokens"), int):
                    self._usage.record(number, {**whose, "gen_ai.token.type": kind})
            if isinstance(saved := data.get("saved_tokens"), int) and saved > 0:
                self._saved.add(saved, {NAMES["agent"]: event.agent or ""})
        elif event.kind == "cache":
            for name, hit in (("hits", True), ("misses", False)):
                if isinstance(number := data.get(name), int) and number > 0:
                    self._lookups.add(number, {"apportion.cache": str(data.get("cache")), "apportion.cache.hit": hit})


def _attributes(event: LiveEvent) -> dict[str, Any]:
    fields: dict[str, Any] = {"workflow": event.workflow, "agent": event.agent, "run_id": event.run_id, **event.data}
    if event.kind == "usage":
        used = sum(
            value for name in ("input_tokens", "output_tokens") if isinstance(value := event.data.get(name), int)
        )
        fields["used_tokens"] = used
        if isinstance(allocated := event.data.get("allocated_tokens"), int):
            fields["variance_tokens"] = used - allocated
    named = {NAMES.get(name, f"apportion.{event.kind}.{name}"): value for name, value in fields.items()}
    if event.kind == "usage":
        named["gen_ai.operation.name"] = CHAT
    return {name: value for name, value in named.items() if value is not None}
