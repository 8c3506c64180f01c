"""Real contents by family, taken from logs and files by a rule that leaves nothing to choose.

Tool results of 1,500 to 80,000 characters are sorted into families by what they look like (`family_of`); main
conversations of 20,000 to 160,000 characters with a tool result are chats. Files under the given paths that end in
`.json`, `.log`, `.txt`, `.md`, `.diff`, `.py` or `.ts` and have that size are contents as well. Equal contents count
once. Of each family those are taken whose SHA-256 is smallest, at most two of one workflow and a quarter of one source;
a file is a source of its own.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

from apportion.content import ContentClass, classify
from apportion.records import Kind, content_hash
from apportion.telemetry.importers import read_logs
from apportion.telemetry.reading import SkipLog

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    from apportion.telemetry.events import WorkflowLog

FAMILIES = ("json", "logs", "grep", "chats", "diffs", "code", "docs")
MIN_CHARS, MAX_CHARS = 1_500, 80_000
MIN_CHAT_CHARS, MAX_CHAT_CHARS = 20_000, 160_000
PER_WORKFLOW = 2
SUFFIXES = frozenset({".json", ".log", ".txt", ".md", ".diff", ".py", ".ts"})


class Message(NamedTuple):
    """One message of a chat.

    Attributes:
        content: What stands in it.
        rewritable: Whether neither the receiver nor a person wrote it.
        name: Tool that produced it, or `None`.
        call: Number of the completion of which it is a part; `None` where the receiver did not write it.
    """

    content: bytes
    rewritable: bool
    name: str | None = None
    call: int | None = None


class Content(NamedTuple):
    """One input: a single message, or those of a chat in order; `task` is what a person asked for first."""

    family: str
    source: str
    workflow: str
    messages: tuple[Message, ...]
    task: str = ""

    @property
    def digest(self) -> str:
        """Hash of the content, by which inputs are chosen."""
        return content_hash(b"\0".join(message.content for message in self.messages))


def family_of(text: str) -> str:
    """Return the family of a tool result or file by its looks: most of the lines decide, or of the text for JSON."""
    lines = [line for line in text.split("\n") if line.strip()]
    starts = [line.lstrip(" \t0123456789→:|")[:1] for line in lines]
    kind = classify(text)
    if text.lstrip()[:1] in {"{", "["} and kind in {ContentClass.JSON_MINIFIED, ContentClass.JSON_PRETTY}:
        return "json"
    if starts.count("{") > 0.6 * len(lines):
        return "json"
    if sum(map(_is_hit, lines)) > 0.6 * len(lines):
        return "grep"
    if sum(line.startswith("@@ -") for line in lines) and ("\n+++ " in text or "\ndiff --git" in text):
        return "diffs"
    if kind is ContentClass.LOGS:
        return "logs"
    return "code" if kind is ContentClass.CODE else "docs"


def _is_hit(line: str) -> bool:
    path, _, rest = line.partition(":")
    return "." in path and " " not in path and rest.partition(":")[0].isdigit()


def find_contents(paths: Sequence[Path], *, per_family: int) -> list[Content]:
    """Return up to `per_family` inputs of each family, chosen by the rule above."""
    found: dict[str, dict[str, Content]] = {family: {} for family in FAMILIES}
    for content in _all_contents(paths):
        found[content.family].setdefault(content.digest, content)
    return [content for family in FAMILIES for content in _chosen(found[family], per_family)]


def _chosen(contents: dict[str, Content], limit: int) -> Iterator[Content]:
    workflows: Counter[str] = Counter()
    sources: Counter[str] = Counter()
    taken = 0
    for digest in sorted(contents):
        content = contents[digest]
        if (
            workflows[content.workflow] < PER_WORKFLOW
            and sources[content.source] < max(1, limit // 4)
            and taken < limit
        ):
            workflows[content.workflow] += 1
            sources[content.source] += 1
            taken += 1
            yield content


def _all_contents(paths: Sequence[Path]) -> Iterator[Content]:
    for path in paths:
        yield from _files(path)
    for log in read_logs(paths, SkipLog()):
        source = log.id.partition(":")[0]
        task = next((event.content for event in log.events if event.kind is Kind.USER), "")
        for event in log.events:
            if event.kind is Kind.TOOL_RESULT and MIN_CHARS <= len(event.content) <= MAX_CHARS:
                message = _message(event.content, name=event.name)
                yield Content(family_of(event.content), source, log.id, (message,), task)
        chat = tuple(_chat(log))
        size = sum(len(message.content) for message in chat)
        if MIN_CHAT_CHARS <= size <= MAX_CHAT_CHARS and any(message.rewritable for message in chat):
            yield Content("chats", source, log.id, chat, task)


def _files(path: Path) -> Iterator[Content]:
    files: Iterable[Path] = sorted(path.rglob("*")) if path.is_dir() else [path]
    for file in files:
        if file.suffix in SUFFIXES and MIN_CHARS <= file.stat().st_size <= MAX_CHARS:
            text = file.read_bytes().decode("utf-8", "replace")
            yield Content(family_of(text), str(file), str(file), (_message(text),))


def _chat(log: WorkflowLog) -> Iterator[Message]:
    foreign = {Kind.TOOL_RESULT, Kind.HANDOFF_RESULT}
    for event in log.events:
        if event.agent_run == "main":
            call = event.call if event.kind.written_by_model else None
            yield _message(event.content, rewritable=event.kind in foreign, name=event.name, call=call)


def _message(text: str, *, rewritable: bool = True, name: str | None = None, call: int | None = None) -> Message:
    return Message(text.encode("utf-8", "surrogatepass"), rewritable, name, call)
