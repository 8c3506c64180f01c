"""What an importer is, and what all of them share."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from apportion.records import Usage
    from apportion.telemetry.events import WorkflowLog
    from apportion.telemetry.reading import LogSource, SkipLog


@runtime_checkable
class Importer(Protocol):
    """Turns the log files of one tool into workflows.

    Importers join through the entry point `apportion.importers`, ours and third parties' alike.
    They are chosen by content: the one with the highest `sniff` above 0 reads the file.
    """

    name: str
    """Short name, unique among importers, for example `"claude_code"`."""

    title: str
    """The tool's name as users know it, for example `"Claude Code"`."""

    def sniff(self, source: LogSource) -> float:
        """Return how sure it is that the content is its format, in [0, 1]; looks at `source.head`, never raises."""
        ...

    def group(self, sources: Sequence[LogSource]) -> Iterable[Sequence[LogSource]]:
        """Partition files of this format into groups that belong together, for example a session and its sub-agents."""
        ...

    def read(self, sources: Sequence[LogSource], skipped: SkipLog) -> Iterator[WorkflowLog]:
        """Yield the workflows of one group.

        What cannot be used is counted in `skipped` with file and line. An `InputError` ends the group and is counted
        by the caller.
        """
        ...


class SingleFileImporter:
    """Base for formats where each file stands alone."""

    def group(self, sources: Sequence[LogSource]) -> Iterable[Sequence[LogSource]]:
        """Put each file into a group of its own."""
        return [[source] for source in sources]


def as_text(content: Any) -> str:
    """Return a content field as text: strings as they are, block lists joined, anything else as compact JSON."""
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    if isinstance(content, list) and all(isinstance(block, dict | str) for block in content):
        return "\n".join(_block_text(block) for block in content)
    return json.dumps(content, ensure_ascii=False, separators=(",", ":"))


def _block_text(block: dict[str, Any] | str) -> str:
    if isinstance(block, str):
        return block
    for key in ("text", "content", "input_text", "output_text"):
        if isinstance(block.get(key), str):
            return str(block[key])
    if str(block.get("type")) in {"image", "image_url", "input_image", "file", "document", "audio", "input_audio"}:
        return omitted_media(block)
    return json.dumps(block, ensure_ascii=False, separators=(",", ":"))


def omitted_media(block: dict[str, Any]) -> str:
    """Return the numbered-size marker that stands for an image or file: its bytes are not text and not tokens."""
    size = len(json.dumps(block, ensure_ascii=False))
    return f"[{block.get('type', 'media')} omitted: {size} chars]"


def unstated_lifetime(usage: Usage | None) -> Usage | None:
    """Mark cache writes of which the log does not say how long they live: their column is then an assumption.

    They stand as those of five minutes, the default of most providers; a replay may find that they lived longer.
    """
    if usage is None or not usage.cache_write_5m:
        return usage
    return usage.model_copy(update={"estimated": usage.estimated | {"cache_write_5m"}})


def as_int(value: Any) -> int | None:
    """Return a token count as a non-negative whole number, or `None` where it is missing, malformed or absurd."""
    if isinstance(value, bool) or value is None:
        return None
    try:
        number = int(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return number if 0 <= number <= 2**53 else None  # the bound of `records.Tokens`
