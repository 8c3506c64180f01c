"""Usage as model APIs report it, in the canonical columns.

The OpenAI APIs and Gemini include cached tokens in the prompt count, Anthropic and Bedrock do not.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from apportion.telemetry.importers._base import as_int, unstated_lifetime
from apportion.telemetry.importers._completions import chat_usage, known_usage, uncached
from apportion.telemetry.importers._fields import mapping

if TYPE_CHECKING:
    from apportion.records import Usage


def usage_of(api: str, response: dict[str, Any]) -> Usage | None:
    """Return the usage of a response of one of the APIs that `_exchanges` knows; `None` where it has none."""
    match api:
        case "responses":
            return responses_usage(response.get("usage"))
        case "anthropic":
            return anthropic_usage(response.get("usage"))
        case "gemini":
            return gemini_usage(response.get("usageMetadata"))
        case "bedrock":
            return bedrock_usage(response.get("usage"))
        case _:
            return chat_usage(response.get("usage"))


def responses_usage(usage: Any) -> Usage | None:
    """Read the usage of the OpenAI Responses API."""
    given = mapping(usage)
    read = as_int(mapping(given.get("input_tokens_details")).get("cached_tokens"))
    return known_usage(
        input_uncached=uncached(as_int(given.get("input_tokens")), read),
        cache_read=read,
        output=as_int(given.get("output_tokens")),
        reasoning=as_int(mapping(given.get("output_tokens_details")).get("reasoning_tokens")),
    )


def anthropic_usage(usage: Any) -> Usage | None:
    """Read the usage of Anthropic's messages; cache writes count as those of five minutes unless they say more."""
    given = mapping(usage)
    written = mapping(given.get("cache_creation"))
    short = as_int(written.get("ephemeral_5m_input_tokens"))
    counted = known_usage(
        input_uncached=as_int(given.get("input_tokens")),
        cache_read=as_int(given.get("cache_read_input_tokens")),
        cache_write_5m=as_int(given.get("cache_creation_input_tokens")) if short is None else short,
        cache_write_1h=as_int(written.get("ephemeral_1h_input_tokens")),
        output=as_int(given.get("output_tokens")),
    )
    return unstated_lifetime(counted) if short is None else counted


def gemini_usage(usage: Any) -> Usage | None:
    """Read Gemini's usage: thoughts are not among the candidates' tokens, nor tool results among the prompt's."""
    given = mapping(usage)
    read = as_int(given.get("cachedContentTokenCount"))
    thoughts = as_int(given.get("thoughtsTokenCount"))
    prompt = _sum(as_int(given.get("promptTokenCount")), as_int(given.get("toolUsePromptTokenCount")))
    return known_usage(
        input_uncached=uncached(prompt, read),
        cache_read=read,
        output=_sum(as_int(given.get("candidatesTokenCount")), thoughts),
        reasoning=thoughts,
    )


def bedrock_usage(usage: Any) -> Usage | None:
    """Read the usage of Bedrock's converse API."""
    given = mapping(usage)
    counted = known_usage(
        input_uncached=as_int(given.get("inputTokens")),
        cache_read=as_int(given.get("cacheReadInputTokens")),
        cache_write_5m=as_int(given.get("cacheWriteInputTokens")),
        output=as_int(given.get("outputTokens")),
    )
    return unstated_lifetime(counted)


def _sum(*counts: int | None) -> int | None:
    known = [count for count in counts if count is not None]
    return sum(known) if known else None
