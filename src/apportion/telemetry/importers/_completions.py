"""What all importers of chat logs do alike: pieces of messages, links between calls and results, completions."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any, NamedTuple

from apportion.records import Kind, Usage
from apportion.telemetry.importers._base import as_int, as_text, unstated_lifetime
from apportion.telemetry.importers._fields import compact, mapping, sequence, string

if TYPE_CHECKING:
    from collections.abc import Sequence

    from apportion.telemetry.events import LogBuilder

_ROLES = {"system": Kind.SYSTEM, "developer": Kind.SYSTEM, "assistant": Kind.ASSISTANT, "model": Kind.ASSISTANT}
_TOOL_ROLES = {"tool", "function"}


class Piece(NamedTuple):
    """One piece of a prompt or of an answer, in the form in which `LogBuilder.prompt` takes it."""

    kind: Kind
    content: str
    name: str | None = None
    link: str | None = None


class _OpenCall(NamedTuple):
    given: str | None
    name: str | None
    link: str


class Links:
    """Ties tool calls to their results, also where a log gives no identifier or uses one more than once.

    Args:
        prefix: Precedes invented identifiers, so that those of two agent runs differ.
    """

    def __init__(self, prefix: str = "") -> None:
        self._prefix = prefix
        self._calls = 0
        self._used: Counter[str] = Counter()
        self._open: list[_OpenCall] = []

    def call(self, given: Any, name: str | None = None) -> str:
        """Return the link of a new call: the given identifier, made unique, or an invented one."""
        base = string(given) or f"{self._prefix}call-{self._calls}"
        self._calls += 1
        self._used[base] += 1
        link = base if self._used[base] == 1 else f"{base}#{self._used[base]}"
        self._open.append(_OpenCall(string(given), name, link))
        return link

    def result(self, given: Any = None, name: str | None = None) -> tuple[str | None, str | None]:
        """Return link and tool name of the call that a result answers: the oldest open one that fits."""
        wanted = string(given)
        for index, call in enumerate(self._open):
            if call.given == wanted if wanted else name in {None, call.name}:
                del self._open[index]
                return call.link, name or call.name
        return wanted, name


def message_pieces(message: dict[str, Any], links: Links) -> list[Piece]:
    """Return the pieces of one chat message, as the OpenAI or the Anthropic API writes it.

    An assistant's message gives at least one piece, even if it says nothing: the completion took place.
    """
    role = string(message.get("role"))
    if role in _TOOL_ROLES:
        link, name = links.result(message.get("tool_call_id"), string(message.get("name")))
        return [Piece(Kind.TOOL_RESULT, as_text(message.get("content")), name, link)]
    kind = _ROLES.get(role or "", Kind.USER)
    pieces = _thinking(message) + content_pieces(message.get("content"), kind, links)
    refusal = string(message.get("refusal"))
    if refusal:
        pieces.append(Piece(kind, refusal))
    pieces += _tool_calls(message, links)
    return pieces or [Piece(kind, "")]


def content_pieces(content: Any, kind: Kind, links: Links) -> list[Piece]:
    """Return the pieces of a message's content: text as one piece, and each tool or thinking block as its own."""
    if not isinstance(content, list):
        text = as_text(content)
        return [Piece(kind, text)] if text else []
    pieces: list[Piece] = []
    plain: list[Any] = []
    for block in [*content, None]:
        special = _special_block(block, links) if isinstance(block, dict) else None
        if special is None and block is not None:
            plain.append(block)
            continue
        if plain:
            pieces.append(Piece(kind, as_text(plain)))
            plain = []
        if special is not None:
            pieces.append(special)
    return pieces


def _special_block(block: dict[str, Any], links: Links) -> Piece | None:
    name = string(block.get("name"))
    match block.get("type"):
        case "tool_use" | "server_tool_use":
            return Piece(Kind.TOOL_CALL, compact(block.get("input", {})), name, links.call(block.get("id"), name))
        case "tool_result":
            link, name = links.result(block.get("tool_use_id"))
            return Piece(Kind.TOOL_RESULT, as_text(block.get("content")), name, link)
        case "thinking":
            return Piece(Kind.THINKING, as_text(block.get("thinking")))
        case "redacted_thinking":
            return Piece(Kind.THINKING, "")
        case _:
            return None


def _thinking(message: dict[str, Any]) -> list[Piece]:
    text = string(message.get("reasoning_content")) or string(message.get("reasoning"))
    if text:
        return [Piece(Kind.THINKING, text)]
    blocks = [mapping(block) for block in sequence(message.get("thinking_blocks"))]
    return [Piece(Kind.THINKING, as_text(block["thinking"])) for block in blocks if block.get("thinking")]


def _tool_calls(message: dict[str, Any], links: Links) -> list[Piece]:
    calls = sequence(message.get("tool_calls"))
    if isinstance(message.get("function_call"), dict):
        calls = [*calls, {"function": message["function_call"]}]
    return [_tool_call(call, links) for call in calls if isinstance(call, dict)]


def _tool_call(call: dict[str, Any], links: Links) -> Piece:
    function = mapping(call.get("function")) or mapping(call.get("custom"))
    name = string(function.get("name"))
    arguments = function.get("arguments", function.get("input", ""))
    return Piece(Kind.TOOL_CALL, compact(arguments), name, links.call(call.get("id"), name))


def tool_definitions(*definitions: Any) -> list[Piece]:
    """Return the piece that stands for the tool schemas of a request; nothing where it has none."""
    return [Piece(Kind.TOOL_DEFINITIONS, compact(tools)) for tools in definitions if isinstance(tools, list) and tools]


def linked(pieces: Sequence[Piece], links: Links) -> list[Piece]:
    """Tie calls to results in pieces that carry the identifiers of the log, or none."""
    return [_linked(piece, links) for piece in pieces]


def _linked(piece: Piece, links: Links) -> Piece:
    if piece.kind is Kind.TOOL_CALL:
        return piece._replace(link=links.call(piece.link, piece.name))
    if piece.kind is Kind.TOOL_RESULT:
        link, name = links.result(piece.link, piece.name)
        return piece._replace(link=link, name=name)
    return piece


def add_completion(
    builder: LogBuilder,
    pieces: Sequence[Piece],
    *,
    agent: str,
    agent_run: str,
    usage: Usage | None = None,
    prompt_steps: tuple[int, ...] | None = None,
    cost_usd: float | None = None,
    duration_ms: float | None = None,
    **fields: Any,
) -> int:
    """Add the events of one model completion and return its call index.

    Usage, true prompt, cost and duration go to the first event, as `Event` defines.
    """
    call = builder.next_call()
    once: dict[str, Any] = {
        "usage": usage,
        "prompt_steps": prompt_steps,
        "cost_usd": cost_usd,
        "duration_ms": duration_ms,
    }
    for piece in pieces or [Piece(Kind.ASSISTANT, "")]:
        builder.add(
            piece.kind,
            piece.content,
            agent=agent,
            agent_run=agent_run,
            call=call,
            name=piece.name,
            link=piece.link,
            **once,
            **fields,
        )
        once = {}
    return call


def chat_usage(usage: Any) -> Usage | None:
    """Read the usage of the OpenAI chat API, whose prompt count includes cached tokens; `None` where it says nothing.

    LiteLLM reports other providers in the same form, with Anthropic's counts of cache reads and writes beside it.
    """
    given = mapping(usage)
    details = mapping(given.get("prompt_tokens_details"))
    read = _first(
        details.get("cached_tokens"), given.get("cache_read_input_tokens"), given.get("prompt_cache_hit_tokens")
    )
    written = _first(given.get("cache_creation_input_tokens"), details.get("cache_write_tokens"))
    counted = known_usage(
        input_uncached=uncached(as_int(given.get("prompt_tokens")), read, written),
        cache_read=read,
        cache_write_5m=written,
        output=as_int(given.get("completion_tokens")),
        reasoning=as_int(mapping(given.get("completion_tokens_details")).get("reasoning_tokens")),
    )
    return unstated_lifetime(counted)


def uncached(prompt: int | None, *cached: int | None) -> int | None:
    """Return what is left of a prompt count that includes cached tokens.

    A count smaller than its cached part cannot include it and is taken as it stands.
    """
    if prompt is None:
        return None
    part = sum(tokens for tokens in cached if tokens is not None)
    return prompt - part if part <= prompt else prompt


def known_usage(**columns: int | None) -> Usage | None:
    """Return a usage record, or `None` where no column is known."""
    return Usage(**columns) if any(tokens is not None for tokens in columns.values()) else None


def _first(*values: Any) -> int | None:
    return next((tokens for tokens in map(as_int, values) if tokens is not None), None)
