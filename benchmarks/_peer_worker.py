"""Runs one peer in its own environment: JSON lines come in on standard input, JSON lines go out on standard output.

    ENVIRONMENT/bin/python benchmarks/_peer_worker.py NAME
    -> {"texts": ["..."], "rewritable": [true], "task": "..."}
    <- {"texts": ["..."], "cpu_ms": 1.5, "recovered": true}        or        <- {"error": "..."}

This file imports nothing of ours, as the environment holds the peer alone. *Recovered* says whether each text came
back byte for byte through the handles that the peer gave out; it is `null` where the peer gives out none that can be
followed in this process.
"""

from __future__ import annotations

import json
import os
import sys
import time
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

Made = tuple[list[str], "bool | None"]


def main() -> None:
    """Answer each line until there are no more."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # whatever the peer prints goes elsewhere
    run: Callable[[dict[str, Any]], Made] | None = None
    for line in sys.stdin:
        request = json.loads(line)
        try:
            run = run or PEERS[sys.argv[1]]()
            start = time.process_time_ns()
            texts, recovered = run(request)
            answer = {"texts": texts, "cpu_ms": (time.process_time_ns() - start) / 1e6, "recovered": recovered}
        except Exception as error:  # noqa: BLE001  (a peer may raise anything)
            answer = {"error": f"{type(error).__name__}: {error}"[:300]}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


def as_messages(request: dict[str, Any]) -> list[dict[str, Any]]:
    """Return a chat in which each text that may be rewritten is the result of a tool call."""
    messages: list[dict[str, Any]] = [{"role": "user", "content": request["task"]}]
    for number, (text, rewritable) in enumerate(zip(request["texts"], request["rewritable"], strict=True)):
        if not rewritable:
            messages.append({"role": "assistant", "content": text})
            continue
        call = {"id": f"call_{number}", "type": "function", "function": {"name": "run", "arguments": "{}"}}
        messages.append({"role": "assistant", "content": "", "tool_calls": [call]})
        messages.append({"role": "tool", "tool_call_id": call["id"], "content": text})
    messages.append({"role": "user", "content": "Go on."})
    return messages


def texts_of(messages: list[dict[str, Any]], request: dict[str, Any]) -> list[str]:
    """Return what became of each text of a request; an empty one where it is gone."""
    by_call = {message.get("tool_call_id"): _text(message) for message in messages if message.get("role") == "tool"}
    spoken = [_text(one) for one in messages if one.get("role") == "assistant" and not one.get("tool_calls")]
    gone = request["rewritable"].count(False) - len(spoken)
    kept = iter([""] * gone + spoken)  # trimming begins with the oldest
    return [
        by_call.get(f"call_{number}", "") if rewritable else next(kept)
        for number, rewritable in enumerate(request["rewritable"])
    ]


def _text(message: dict[str, Any]) -> str:
    content = message.get("content")
    if isinstance(content, str):
        return content
    return "".join(str(part.get("text", "")) for part in content or [] if isinstance(part, dict))


def each(request: dict[str, Any], change: Callable[[str], str]) -> list[str]:
    """Return the texts of a request, those changed that may be rewritten."""
    return [
        change(text) if rewritable else text
        for text, rewritable in zip(request["texts"], request["rewritable"], strict=True)
    ]


def head_and_tail() -> Callable[[dict[str, Any]], Made]:
    """Keep the first and the last 30 % of the lines, and say how many are gone: what many agents do."""

    def cut(text: str) -> str:
        lines = text.splitlines(keepends=True)
        keep = max(1, round(0.3 * len(lines)))
        if 2 * keep >= len(lines):
            return text
        return "".join([*lines[:keep], f"[{len(lines) - 2 * keep} lines left out]\n", *lines[-keep:]])

    return lambda request: (each(request, cut), None)


def cendor(fidelity: str) -> Callable[[], Callable[[dict[str, Any]], Made]]:
    """Return what runs cendor-squeeze on each text."""

    def load() -> Callable[[dict[str, Any]], Made]:
        compress = import_module("cendor.squeeze").compress

        def run(request: dict[str, Any]) -> Made:
            same = True

            def change(text: str) -> str:
                nonlocal same
                small, handle = compress(text, fidelity=fidelity)
                same = same and handle.expand() == text
                return str(small)

            return each(request, change), same

        return run

    return load


def llmtrim(preset: str) -> Callable[[], Callable[[dict[str, Any]], Made]]:
    """Return what runs llmtrim on the whole request."""

    def load() -> Callable[[dict[str, Any]], Made]:
        module = import_module("llmtrim")

        def run(request: dict[str, Any]) -> Made:
            body = json.dumps({"model": "gpt-4o", "messages": as_messages(request)})
            made = module.compress(body, module.Provider.OPEN_AI, preset)
            return texts_of(json.loads(made.request_json)["messages"], request), None

        return run

    return load


def distil(*, verbatim: bool) -> Callable[[], Callable[[dict[str, Any]], Made]]:
    """Return what runs distil-llm on the whole chat."""

    def load() -> Callable[[dict[str, Any]], Made]:
        module = import_module("distil")

        def run(request: dict[str, Any]) -> Made:
            made = module.compress_messages(as_messages(request), verbatim=verbatim)
            texts = texts_of(made.messages, request)
            changed = [old for old, new in zip(request["texts"], texts, strict=True) if old != new]
            restored = {module.expand_handle(handle) for handle in made.handles}
            return texts, set(changed) <= restored if made.handles else None

        return run

    return load


def headroom() -> Callable[[dict[str, Any]], Made]:
    """Return what runs headroom-ai on the whole chat, without its models."""
    module = import_module("headroom")

    def run(request: dict[str, Any]) -> Made:
        made = module.compress(as_messages(request), model="gpt-4o", protect_recent=0)
        return texts_of(made.messages, request), None

    return run


def llmslim() -> Callable[[dict[str, Any]], Made]:
    """Return what runs llmslim on each text, at the half that is its default."""
    compress = import_module("llmslim").compress
    return lambda request: (
        each(
            request, lambda text: str(compress(text, target_ratio=0.5, query=request["task"] or None).compressed_text)
        ),
        None,
    )


def langchain() -> Callable[[dict[str, Any]], Made]:
    """Return what trims the chat to half of its tokens, the oldest messages first."""
    core = import_module("langchain_core.messages")

    def run(request: dict[str, Any]) -> Made:
        messages = core.convert_to_messages(as_messages(request))
        count = core.utils.count_tokens_approximately
        kept = core.trim_messages(
            messages, max_tokens=count(messages) // 2, token_counter=count, strategy="last", allow_partial=True
        )
        return texts_of(core.convert_to_openai_messages(kept), request), None

    return run


PEERS: dict[str, Callable[[], Callable[[dict[str, Any]], Made]]] = {
    "head and tail": head_and_tail,
    "cendor-squeeze balanced": cendor("balanced"),
    "cendor-squeeze lossless": cendor("lossless"),
    "llmtrim agent": llmtrim("agent"),
    "llmtrim safe": llmtrim("safe"),
    "distil-llm digest": distil(verbatim=False),
    "distil-llm verbatim": distil(verbatim=True),
    "headroom-ai": headroom,
    "llmslim": llmslim,
    "langchain trimming": langchain,
}


if __name__ == "__main__":
    main()
