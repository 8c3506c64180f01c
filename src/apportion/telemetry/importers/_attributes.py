"""What span attributes say about a model call: one table of names for all conventions.

GenAI attributes of OpenTelemetry in their generations (`gen_ai.*`, still in development; now kept in
open-telemetry/semantic-conventions-genai), OpenInference (`llm.*`), OpenLLMetry (`gen_ai.prompt.N.*`, `traceloop.*`)
and the Vercel AI SDK (`ai.*`). Input counts of all of them include cached tokens.
"""

from __future__ import annotations

import math
import re
from enum import StrEnum
from typing import TYPE_CHECKING, Any, NamedTuple

from apportion.records import Kind, Usage
from apportion.telemetry.importers._base import as_int, unstated_lifetime
from apportion.telemetry.importers._completions import Piece, known_usage, uncached
from apportion.telemetry.importers._fields import compact, mapping, sequence, string
from apportion.telemetry.importers._messages import (
    answer_pieces,
    definition_pieces,
    parsed,
    request_pieces,
    system_pieces,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

Attributes = dict[str, Any]
"""Attributes of a span, resource or event by their full names; values as plain Python values."""


class Role(StrEnum):
    """What a span stands for."""

    LLM = "llm"
    AGENT = "agent"
    CHAIN = "chain"
    TOOL = "tool"
    OTHER = "other"


class SpanEvent(NamedTuple):
    """An event on a span, or a log record that belongs to it."""

    name: str
    attributes: Attributes


_ROLES: dict[str, dict[str, Role]] = {
    "openinference.span.kind": {"llm": Role.LLM, "agent": Role.AGENT, "chain": Role.CHAIN, "tool": Role.TOOL},
    "gen_ai.operation.name": {
        "chat": Role.LLM,
        "generate_content": Role.LLM,
        "text_completion": Role.LLM,
        "completion": Role.LLM,
        "invoke_agent": Role.AGENT,
        "invoke_workflow": Role.CHAIN,
        "execute_tool": Role.TOOL,
    },
    "langfuse.observation.type": {
        "generation": Role.LLM,
        "agent": Role.AGENT,
        "chain": Role.CHAIN,
        "span": Role.CHAIN,
        "tool": Role.TOOL,
    },
    "llm.request.type": {"chat": Role.LLM, "completion": Role.LLM},
    "traceloop.span.kind": {"agent": Role.AGENT, "workflow": Role.CHAIN, "task": Role.CHAIN, "tool": Role.TOOL},
    "ai.operationId": {
        "ai.generateText.doGenerate": Role.LLM,
        "ai.streamText.doStream": Role.LLM,
        "ai.generateObject.doGenerate": Role.LLM,
        "ai.streamObject.doStream": Role.LLM,
        "ai.generateText": Role.AGENT,
        "ai.streamText": Role.AGENT,
        "ai.toolCall": Role.TOOL,
    },
}
_INPUT = (
    "gen_ai.usage.input_tokens",
    "gen_ai.usage.prompt_tokens",
    "llm.token_count.prompt",
    "llm.usage.prompt_tokens",
    "ai.usage.inputTokens",
    "ai.usage.promptTokens",
)
_OUTPUT = (
    "gen_ai.usage.output_tokens",
    "gen_ai.usage.completion_tokens",
    "llm.token_count.completion",
    "llm.usage.completion_tokens",
    "ai.usage.outputTokens",
    "ai.usage.completionTokens",
)
_CACHE_READ = (
    "gen_ai.usage.cache_read.input_tokens",
    "gen_ai.usage.cache_read_input_tokens",
    "gen_ai.usage.cached_input_tokens",
    "gen_ai.usage.cached_tokens",
    "gen_ai.usage.details.cache_read_tokens",
    "gen_ai.usage.details.cached_tokens",
    "llm.token_count.prompt_details.cache_read",
    "llm.token_count.prompt_details.cache_input",
    "ai.usage.cachedInputTokens",
)
_CACHE_WRITE = (
    "gen_ai.usage.cache_creation.input_tokens",
    "gen_ai.usage.cache_write.input_tokens",
    "gen_ai.usage.cache_creation_input_tokens",
    "gen_ai.usage.details.cache_write_tokens",
    "llm.token_count.prompt_details.cache_write",
)
_REASONING = (
    "gen_ai.usage.reasoning.output_tokens",
    "gen_ai.usage.reasoning_tokens",
    "gen_ai.usage.details.reasoning_tokens",
    "gen_ai.usage.thoughts_tokens",
    "llm.token_count.completion_details.reasoning",
    "ai.usage.reasoningTokens",
)
_PROMPT = (
    "gen_ai.input.messages",
    "llm.input_messages",
    "gen_ai.prompt",
    "ai.prompt.messages",
    "ai.prompt",
    "llm.prompts",
    "input.value",
)
_ANSWER = ("gen_ai.output.messages", "llm.output_messages", "gen_ai.completion", "output.value")
_MODEL = (
    "gen_ai.response.model",
    "llm.response.model_name",
    "llm.model_name",
    "gen_ai.request.model",
    "llm.request.model_name",
    "ai.model.id",
)
_COST = ("llm.cost.total", "operation.cost", "gen_ai.usage.cost", "gen_ai.usage.total_cost", "gen_ai.cost.total")
_AGENT = ("gen_ai.agent.name", "agent.name", "agent_name", "lc_agent_name")
_SESSION = ("session.id", "gen_ai.conversation.id", "traceloop.association.properties.session_id")
_TOOL = ("gen_ai.tool.name", "tool.name", "ai.toolCall.name", "traceloop.entity.name", "tool_name")
_TOOL_LINK = ("gen_ai.tool.call.id", "tool_call.id", "ai.toolCall.id", "tool.call_id")
_TOOL_ARGUMENTS = ("gen_ai.tool.call.arguments", "input.value", "ai.toolCall.args", "traceloop.entity.input")
_TOOL_RESULT = ("gen_ai.tool.call.result", "output.value", "ai.toolCall.result", "traceloop.entity.output")
_NAME_FRAMES = (
    re.compile(r"^(?:invoke_agent|agent_run|invocation|invoke_workflow|execute_tool|running tool:) \[?(.+?)\]?$"),
    re.compile(r"^(.+?) run$"),
)


def role(attributes: Attributes) -> Role | None:
    """Return what the attributes say the span is, or `None` where they do not say."""
    for name, roles in _ROLES.items():
        value = string(attributes.get(name))
        if value is not None:
            return roles.get(value, roles.get(value.lower(), Role.OTHER))
    if _first_int(attributes, (*_INPUT, *_OUTPUT)) is not None and _first_text(attributes, _AGENT) is None:
        return Role.LLM if _first_text(attributes, _MODEL) else None
    return Role.AGENT if _first_text(attributes, ("agent_name", "gen_ai.agent.name")) else None


def usage(attributes: Attributes) -> Usage | None:
    """Return the usage of a call in the canonical columns, or `None` where the span has none.

    Cache writes without a time to live count as those of five minutes, the shortest and the default of Anthropic.
    """
    read = _first_int(attributes, _CACHE_READ)
    written = _first_int(attributes, _CACHE_WRITE)
    counted = known_usage(
        input_uncached=uncached(_first_int(attributes, _INPUT), read, written),
        cache_read=read,
        cache_write_5m=written,
        output=_first_int(attributes, _OUTPUT),
        reasoning=_first_int(attributes, _REASONING),
    )
    return unstated_lifetime(counted)


def cost_usd(attributes: Attributes) -> float | None:
    """Return what the call cost, or `None` where the span does not say."""
    for name in _COST:
        try:
            cost = float(attributes[name])
        except (KeyError, TypeError, ValueError, OverflowError):
            continue
        if 0 <= cost < math.inf:
            return cost
    return None


def model(attributes: Attributes) -> str | None:
    """Return the model that answered, or the one that was asked for."""
    return _first_text(attributes, _MODEL)


def prompt(attributes: Attributes, events: Sequence[SpanEvent] = ()) -> list[Piece]:
    """Return the pieces of the request that the span or its events record; empty where they record none."""
    return framed(_request(attributes) or _request_of_events(events), attributes)


def framed(request: list[Piece], attributes: Attributes) -> list[Piece]:
    """Complete a request by the tool schemas and system instructions that the span records beside it."""
    if not request:
        return []
    kinds = {piece.kind for piece in request}
    if Kind.SYSTEM not in kinds:
        instructions = system_pieces(attributes.get("gen_ai.system_instructions"))
        schemas = [piece for piece in request if piece.kind is Kind.TOOL_DEFINITIONS]
        request = [*schemas, *instructions, *(piece for piece in request if piece.kind is not Kind.TOOL_DEFINITIONS)]
    return request if Kind.TOOL_DEFINITIONS in kinds else tool_definitions(attributes) + request


def answer(attributes: Attributes, events: Sequence[SpanEvent] = ()) -> list[Piece]:
    """Return the pieces of the answer that the span or its events record; empty where they record none."""
    for name in _ANSWER:
        pieces = answer_pieces(_flattened_or_plain(attributes, name))
        if pieces:
            return pieces
    vercel = {
        "content": attributes.get("ai.response.text"),
        "tool_calls": parsed(attributes.get("ai.response.toolCalls")),
    }
    return answer_pieces([vercel]) or _answer_of_events(events)


def tool_definitions(attributes: Attributes) -> list[Piece]:
    """Return the piece that stands for the tool schemas of the request; nothing where the span has none."""
    for name in ("gen_ai.tool.definitions", "ai.prompt.tools"):
        if attributes.get(name):
            return definition_pieces(attributes[name])
    parameters = mapping(parsed(attributes.get("model_request_parameters")))
    pydantic_ai = [*sequence(parameters.get("function_tools")), *sequence(parameters.get("output_tools"))]
    openinference = [mapping(item.get("tool")) for item in _nested(attributes, "llm.tools")]
    schemas = [tool.get("json_schema", tool) for tool in openinference]
    return definition_pieces(schemas or pydantic_ai or _nested(attributes, "llm.request.functions"))


def agent_name(attributes: Attributes, of_role: Role) -> str | None:
    """Return the agent that the span itself names, or `None`.

    LangGraph writes its node into the metadata of every span below it. Inside a sub-graph, the node of the outermost
    graph is the agent; the inner node is a step of it.
    """
    name = _first_text(attributes, _AGENT)
    if name is None and of_role is Role.AGENT:
        name = _first_text(attributes, ("graph.node.id", "traceloop.entity.name", "ai.telemetry.functionId"))
    return name or _graph_node(attributes)


def plain_name(span_name: str) -> str:
    """Return a span's name without what instrumentations put around the agent's: `"invoke_agent X"` is `"X"`."""
    for frame in _NAME_FRAMES:
        match = frame.match(span_name)
        if match:
            return match.group(1)
    return span_name


def session(attributes: Attributes) -> str | None:
    """Return the session to which the span belongs, or `None`."""
    return _first_text(attributes, _SESSION)


def thread(attributes: Attributes) -> str | None:
    """Return the conversation that the provider or the framework keeps, or `None`."""
    return _first_text(attributes, ("gen_ai.conversation.id",))


def keeps_state(output: Any) -> bool:
    """Whether a recorded answer of the OpenAI Responses API continues what the provider remembers."""
    answered = mapping(parsed(output))
    return bool(answered.get("previous_response_id") or answered.get("conversation"))


def tool(attributes: Attributes) -> tuple[str | None, str | None, str | None, str | None]:
    """Return name, call identifier, arguments and result of a tool span; `None` for what it does not say."""
    arguments, result = (
        next((compact(attributes[name]) for name in names if attributes.get(name) is not None), None)
        for names in (_TOOL_ARGUMENTS, _TOOL_RESULT)
    )
    return _first_text(attributes, _TOOL), _first_text(attributes, _TOOL_LINK), arguments, result


def is_langgraph(attributes: Attributes) -> bool:
    """Whether LangGraph left its node in the attributes."""
    return _graph_node(attributes) is not None


def _graph_node(attributes: Attributes) -> str | None:
    for prefix in ("", "metadata.", "traceloop.association.properties."):
        node = string(attributes.get(f"{prefix}langgraph_node"))
        if node is not None:
            path = string(attributes.get(f"{prefix}langgraph_checkpoint_ns")) or node
            return path.split("|")[0].split(":")[0] or node
    metadata = parsed(attributes.get("metadata"))
    return _graph_node(metadata) if isinstance(metadata, dict) else None


def _request(attributes: Attributes) -> list[Piece]:
    for name in _PROMPT:
        pieces = request_pieces(_flattened_or_plain(attributes, name))
        if pieces:
            return pieces
    return []


def _flattened_or_plain(attributes: Attributes, name: str) -> Any:
    return [_message(item) for item in _nested(attributes, name)] or attributes.get(name)


def _request_of_events(events: Sequence[SpanEvent]) -> list[Piece]:
    messages: list[Any] = []
    for event in events:
        if event.name == "gen_ai.client.inference.operation.details":
            return prompt(event.attributes)
        if event.name == "gen_ai.content.prompt":
            return request_pieces(event.attributes.get("gen_ai.prompt"))
        match = re.fullmatch(r"gen_ai\.(system|user|assistant|tool)\.message", event.name)
        if match:
            messages.append({"role": match.group(1), **_event_body(event)})
    return request_pieces(messages)


def _answer_of_events(events: Sequence[SpanEvent]) -> list[Piece]:
    pieces: list[Piece] = []
    for event in events:
        if event.name == "gen_ai.client.inference.operation.details":
            return answer(event.attributes)
        if event.name == "gen_ai.content.completion":
            return answer_pieces(event.attributes.get("gen_ai.completion"))
        if event.name == "gen_ai.choice":
            body = _event_body(event)
            pieces += answer_pieces([{"role": "assistant", **mapping(parsed(body.get("message", body)))}])
    return pieces


def _event_body(event: SpanEvent) -> Attributes:
    """Return the message in an event: its body, the JSON in `gen_ai.event.content`, or its attributes."""
    body = mapping(parsed(event.attributes.get("body", event.attributes.get("gen_ai.event.content"))))
    fields = body or event.attributes
    return {name: parsed(value) if name in {"tool_calls", "message"} else value for name, value in fields.items()}


def _nested(attributes: Attributes, prefix: str) -> list[Attributes]:
    """Return the list that is flattened into names like `prefix.0.message.role`, by its indices."""
    items: dict[int, Attributes] = {}
    for name, value in attributes.items():
        if name.startswith(prefix + "."):
            index, _, rest = name[len(prefix) + 1 :].partition(".")
            if index.isascii() and index.isdigit() and rest:
                _set(items.setdefault(int(index), {}), rest.split("."), value)
    return [_with_lists(items[index]) for index in sorted(items)]


def _set(record: Attributes, path: list[str], value: Any) -> None:
    for part in path[:-1]:
        deeper = record.setdefault(part, {})
        if not isinstance(deeper, dict):
            return  # a value and a record under one name: the first one stays
        record = deeper
    record.setdefault(path[-1], value)


def _with_lists(record: Any) -> Any:
    if not isinstance(record, dict):
        return record
    values = {name: _with_lists(value) for name, value in record.items()}
    if values and all(name.isascii() and name.isdigit() for name in values):
        return [values[name] for name in sorted(values, key=int)]
    return values


def _message(item: Attributes) -> Attributes:
    """Take an OpenInference message out of its wrappers: `message`, `message_content`, `tool_call`."""
    message = mapping(item.get("message")) or mapping(item.get("prompt")) or item
    contents = [mapping(content.get("message_content")) for content in sequence(message.get("contents"))]
    calls = [call.get("tool_call", call) for call in sequence(message.get("tool_calls")) if isinstance(call, dict)]
    legacy = {
        "name": message.get("function_call_name"),
        "arguments": message.get("function_call_arguments_json"),
    }
    return {
        **{name: value for name, value in message.items() if name != "contents"},
        **({"content": contents} if contents else {}),
        **({"tool_calls": calls} if calls else {}),
        **({"function_call": legacy} if legacy["name"] else {}),
    }


def _first_int(attributes: Attributes, names: Iterable[str]) -> int | None:
    return next((count for count in (as_int(attributes.get(name)) for name in names) if count is not None), None)


def _first_text(attributes: Attributes, names: Iterable[str]) -> str | None:
    return next((text for text in (string(attributes.get(name)) for name in names) if text is not None), None)
