"""Single events of GitHub Copilot CLI logs: who wrote them, which model call they belong to, what it used."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from apportion.telemetry.importers._base import as_int, unstated_lifetime
from apportion.telemetry.importers._completions import known_usage, uncached
from apportion.telemetry.importers._fields import amount, mapping, string

if TYPE_CHECKING:
    from collections.abc import Sequence

    from apportion.records import Usage


def is_event(value: Any) -> bool:
    """Tell whether a parsed record has the envelope of an event."""
    return isinstance(value, dict) and isinstance(value.get("type"), str) and isinstance(value.get("data"), dict)


def agent_id(event: dict[str, Any]) -> str | None:
    """Return the sub-agent that an event comes from, `None` for the main agent."""
    if event["type"].startswith("subagent."):
        return None  # about a sub-agent, not from it
    return string(event.get("agentId")) or string(event["data"].get("parentToolCallId"))


def agent_names(events: Sequence[tuple[int, dict[str, Any]]]) -> dict[str, str]:
    """Return the names of the sub-agents, by the tool call that started them."""
    names = {}
    for _, event in events:
        link = string(event["data"].get("toolCallId"))
        if event["type"] == "subagent.started" and link is not None:
            names[link] = string(event["data"].get("agentName")) or "subagent"
    return names


def message_id(event: dict[str, Any]) -> str | int:
    """Return what the copies of one message have in common."""
    return string(event["data"].get("messageId")) or string(event.get("id")) or id(event)


def call_key(event: dict[str, Any]) -> tuple[Any, ...]:
    """Return what the messages of one model call have in common.

    Local servers number their API calls at random and repeat themselves, so the turn belongs to the key.
    """
    data = event["data"]
    turn = (agent_id(event), string(data.get("interactionId")), string(data.get("turnId")))
    names = (string(data.get(name)) for name in ("apiCallId", "requestId", "messageId"))
    return (*turn, next((name for name in names if name is not None), string(event.get("id")) or id(event)))


def usages(events: Sequence[tuple[int, dict[str, Any]]]) -> dict[tuple[Any, ...], tuple[Usage | None, float | None]]:
    """Return usage and duration of each model call: all that the log says about it, taken together."""
    details: dict[str, dict[str, Any]] = {}
    outputs: dict[tuple[Any, ...], int | None] = {}
    api_calls: dict[tuple[Any, ...], str | None] = {}
    for _, event in events:
        data = event["data"]
        api_call = string(data.get("apiCallId"))
        if event["type"] == "assistant.usage" and api_call is not None:
            details[api_call] = data
        elif event["type"] == "assistant.message":
            key = call_key(event)
            known = [tokens for tokens in (outputs.get(key), as_int(data.get("outputTokens"))) if tokens is not None]
            outputs[key] = max(known, default=None)
            api_calls[key] = api_call
    return {key: _call_usage(output, details.get(api_calls[key] or "", {})) for key, output in outputs.items()}


def _call_usage(output: int | None, detail: dict[str, Any]) -> tuple[Usage | None, float | None]:
    columns = _columns(detail)
    if columns["output"] is None:
        columns["output"] = output
    return unstated_lifetime(known_usage(**columns)), amount(detail.get("duration"))


def _columns(counts: dict[str, Any]) -> dict[str, int | None]:
    read, written = as_int(counts.get("cacheReadTokens")), as_int(counts.get("cacheWriteTokens"))
    return {
        "input_uncached": uncached(as_int(counts.get("inputTokens")), read, written),
        "cache_read": read,
        "cache_write_5m": written,
        "output": as_int(counts.get("outputTokens")),
        "reasoning": as_int(counts.get("reasoningTokens")),
    }


def model_metrics(metric: dict[str, Any]) -> dict[str, Any]:
    """Return what `session.shutdown` says about one model, in the canonical columns."""
    columns = _columns(mapping(metric.get("usage")))
    columns["requests"] = as_int(mapping(metric.get("requests")).get("count"))
    return {name: count for name, count in columns.items() if count is not None}
