"""The export to OpenTelemetry, through the real SDK into its exporters in memory."""

from __future__ import annotations

import re
import subprocess
import sys
import textwrap
from typing import TYPE_CHECKING, Any

import pytest

pytest.importorskip("opentelemetry.sdk")
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.semconv._incubating.attributes import gen_ai_attributes
from opentelemetry.semconv._incubating.metrics import gen_ai_metrics
from opentelemetry.trace import SpanKind, StatusCode

from apportion.telemetry.otel import CHAT, NAMES, TOKEN_USAGE, OpenTelemetrySink
from apportion.telemetry.queue import Telemetry

if TYPE_CHECKING:
    from collections.abc import Iterator

    from opentelemetry.sdk.trace import ReadableSpan

USAGE = {
    "kind": "usage",
    "workflow": "notes",
    "agent": "writer",
    "model": "claude-sonnet-4-5",
    "provider": "anthropic",
    "allocated_tokens": 1_000,
    "input_tokens": 900,
    "cache_read_tokens": 600,
    "output_tokens": 150,
    "saved_tokens": 300,
    "duration_ms": 250.0,
}


class Exported:
    """What the SDK was given."""

    def __init__(self) -> None:
        self._spans, self._metrics = InMemorySpanExporter(), InMemoryMetricReader()
        self._tracers, self._meters = TracerProvider(), MeterProvider([self._metrics])
        self._tracers.add_span_processor(SimpleSpanProcessor(self._spans))
        self.sink = OpenTelemetrySink(self._tracers, self._meters)

    def tell(self, *events: dict[str, Any]) -> None:
        """Record events and end."""
        with Telemetry([self.sink]) as telemetry:
            for event in events:
                telemetry.record(event)
            telemetry.flush()
            assert telemetry.counts.problem is None

    def span(self, name: str) -> ReadableSpan:
        """The only span of that name."""
        (found,) = (span for span in self._spans.get_finished_spans() if span.name == name)
        return found

    def points(self, metric: str) -> list[Any]:
        """The data points of a metric."""
        data = self._metrics.get_metrics_data()
        found = [
            one
            for resource in (data.resource_metrics if data else ())
            for scope in resource.scope_metrics
            for one in scope.metrics
        ]
        return [point for one in found if one.name == metric for point in one.data.data_points]

    def shut_down(self) -> None:
        """End the providers."""
        self._tracers.shutdown()
        self._meters.shutdown()


@pytest.fixture
def exported() -> Iterator[Exported]:
    """What the SDK is given."""
    found = Exported()
    yield found
    found.shut_down()


def test_a_call_is_a_client_span_by_genai_names_with_its_variance(exported: Exported) -> None:
    exported.tell(USAGE)
    span = exported.span("chat claude-sonnet-4-5")
    assert span.kind is SpanKind.CLIENT
    assert span.end_time is not None
    assert span.start_time is not None
    assert span.end_time - span.start_time == 250_000_000
    assert dict(span.attributes or {}) == {
        "gen_ai.operation.name": "chat",
        "gen_ai.conversation.id": "notes",
        "gen_ai.agent.name": "writer",
        "gen_ai.request.model": "claude-sonnet-4-5",
        "gen_ai.provider.name": "anthropic",
        "gen_ai.usage.input_tokens": 900,
        "gen_ai.usage.cache_read.input_tokens": 600,
        "gen_ai.usage.output_tokens": 150,
        "apportion.plan.allocated_tokens": 1_000,
        "apportion.plan.used_tokens": 1_050,
        "apportion.plan.variance_tokens": 50,
        "apportion.plan.saved_tokens": 300,
        "apportion.usage.duration_ms": 250.0,
    }


def test_the_genai_names_are_those_of_the_installed_conventions() -> None:
    known = {value for name, value in vars(gen_ai_attributes).items() if name.startswith("GEN_AI_")}
    ours = {name for name in NAMES.values() if name.startswith("gen_ai.")}
    assert ours <= known
    assert TOKEN_USAGE == gen_ai_metrics.GEN_AI_CLIENT_TOKEN_USAGE
    assert gen_ai_attributes.GenAiOperationNameValues.CHAT.value == CHAT


def test_the_histogram_of_tokens_has_input_and_output_apart(exported: Exported) -> None:
    exported.tell(USAGE, {**USAGE, "output_tokens": 50})
    points = {point.attributes["gen_ai.token.type"]: point for point in exported.points(TOKEN_USAGE)}
    assert {name: (point.count, point.sum) for name, point in points.items()} == {
        "input": (2, 1_800),
        "output": (2, 200),
    }
    assert points["input"].explicit_bounds[:3] == (1, 4, 16)
    assert points["input"].explicit_bounds[-1] == 67_108_864
    assert points["input"].attributes["gen_ai.provider.name"] == "anthropic"


def test_a_session_is_one_trace_and_two_are_two(exported: Exported) -> None:
    step = {"kind": "step", "workflow": "notes", "agent": "writer", "decision": "defer", "reasons": ["no budget left"]}
    exported.tell(
        {"kind": "session", "workflow": "notes", "status": "started"},
        step,
        USAGE,
        {**USAGE, "workflow": "other", "model": "gpt-5"},
        {"kind": "session", "workflow": "notes", "status": "ended"},
    )
    plan, call, other = (
        exported.span(name) for name in ("apportion.plan writer", "chat claude-sonnet-4-5", "chat gpt-5")
    )
    assert plan.context is not None
    assert call.context is not None
    assert other.context is not None
    assert plan.context.trace_id == call.context.trace_id != other.context.trace_id
    assert plan.parent is not None
    assert call.parent is not None
    assert plan.parent.span_id == call.parent.span_id
    assert (plan.attributes or {})["apportion.plan.reasons"] == ("no budget left",)


def test_what_is_degraded_is_an_error_and_lookups_and_losses_are_counted(exported: Exported) -> None:
    exported.tell(
        {"kind": "degraded", "component": "embedder", "reason": "missing"},
        {"kind": "cache", "cache": "compression", "hits": 3, "misses": 1},
        {"no": "kind"},
    )
    span = exported.span("apportion.degraded")
    assert (span.status.status_code, span.status.description) == (StatusCode.ERROR, "missing")
    lookups = {
        point.attributes["apportion.cache.hit"]: point.value for point in exported.points("apportion.cache.lookups")
    }
    assert lookups == {True: 3, False: 1}
    lost = {point.attributes["reason"]: point.value for point in exported.points("apportion.telemetry.lost")}
    assert lost == {"dropped": 0, "malformed": 1, "failed": 0}


def test_no_planted_secret_and_no_text_is_exported(exported: Exported) -> None:
    secret = "gh" + "p_" + "a1B2" * 9
    event = {**USAGE, "workflow": secret, "agent": f"for {secret}", "prompt": "my diary", "reason": f"no {secret}"}
    exported.tell(event, {**event, "kind": "step"})
    shown = "".join(span.to_json() for span in exported._spans.get_finished_spans())
    assert secret not in shown
    assert "diary" not in shown
    assert len(re.findall("hash:[0-9a-f]{32}", shown)) >= 4  # the names are there, hashed


def test_without_opentelemetry_the_sink_names_the_extra() -> None:
    script = """
        import sys
        sys.modules["opentelemetry"] = None
        from apportion.errors import MissingExtraError
        from apportion.telemetry.otel import OpenTelemetrySink
        try:
            OpenTelemetrySink()
        except MissingExtraError as error:
            assert error.extra == "otel"
        else:
            raise SystemExit("no error")
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(script)], check=True, timeout=120)
