"""Events of sessions while they run: their kinds, their fields, and what is kept of them.

An event is a mapping with its kind under `kind`; what it does not know it leaves out. By default names, numbers and
short reasons are kept, and no text of any content: `Cleaner` says how. Numbers may stand under any name.

| kind | recorded when | fields besides `workflow`, `agent`, `run_id`, `stage` and `number` |
|---|---|---|
| `session` | a session begins or ends | `status` (`started`, `ended`), `max_tokens`, `max_usd` |
| `step` | an invocation was planned | `decision`, `reasons`, `allocated_tokens`, `prompt_tokens`, `saved_tokens` |
| `usage` | it was carried out | `allocated_tokens`, `input_tokens` (with cached ones), `cache_read_tokens`, |
| | | `cache_write_tokens`, `output_tokens`, `reasoning_tokens`, `saved_tokens`, `cost_usd`, `saved_usd`, |
| | | `duration_ms`, `model`, `provider` |
| `action` | a piece was changed | `action`, `strategy`, `tokens_before`, `tokens_after`, `original`, `shown` |
| `cache` | results were looked up | `cache` (`compression`, `prompt`, ...), `hits`, `misses` |
| `expansion` | a reader had something back | `handle`, `tokens`, `found` |
| `loading` | what a run loads was settled, or it loaded more | `status` (`settled`, `miss`, `loaded`), `tokens`, |
| | | `whole_tokens`, `whole`, `brief`, `line`, `unlisted`, `tool`, `reasons` |
| `diff` | a context was handed on | `mode` (`delta`, `whole`), `whole_tokens`, `sent_tokens`, `in_prompt`, `reason` |
| `preload` | an agent came, or was prepared and did not come | `status` (`hit`, `miss`, `wasted`), `used`, `bytes`, |
| | | `peak_bytes`, `confidence` |
| `degraded` | something was not as it should be | `component`, `reason` |

`original` and `shown` are handles in the store of originals: of what a piece was, and of what stood in its place. With
both of them, `apportion optimization validate` can look again at what an agent was given.
"""

from __future__ import annotations

import math
import re
import secrets
from typing import TYPE_CHECKING, Any, NamedTuple

from apportion.errors import InputError
from apportion.telemetry._privacy import Hasher
from apportion.telemetry.redaction import redact

if TYPE_CHECKING:
    from collections.abc import Mapping

NAMES = frozenset(
    {
        "action",
        "cache",
        "component",
        "decision",
        "framework",
        "handle",
        "level",
        "mode",
        "model",
        "original",
        "policy",
        "provider",
        "shown",
        "source",
        "status",
        "strategy",
        "tool",
        "variant",
    }
)
"""Fields whose text is a name: one short line without a secret; anything else is replaced by its hash."""

SENTENCES = frozenset({"reason", "reasons"})
"""Fields whose text is a sentence of ours, or several: secrets are taken out, and messages of foreign errors."""

LOSSES = "losses"
"""Kind of the event that tells how many others were lost."""

MAX_SENTENCE_CHARS = 300
"""Longest sentence that is kept."""

MAX_SENTENCES = 20
"""Most sentences of one event."""

MAX_FIELDS = 60
"""Most fields of one event."""

MAX_TEXT_CHARS = 100_000
"""Longest text that is kept where contents are captured."""

_WORD = re.compile(r"[a-z][a-z0-9_.]{0,39}")
_ERROR_NAME = re.compile(r"(?:(?<!\w)_*[A-Z]\w*|(?<=: )\w+|Error|Exception|Warning): ")  # any class may be an error


class LiveEvent(NamedTuple):
    """An event, cleaned.

    Attributes:
        at_ns: When, in nanoseconds since 1970.
        kind: What it tells.
        workflow: Name of the session or workflow, or `None`.
        agent: Type name of the agent, or `None`.
        run_id: Its context window, or `None`.
        data: All other fields: numbers, truth values, names, lists of sentences.
    """

    at_ns: int
    kind: str
    workflow: str | None
    agent: str | None
    run_id: str | None
    data: dict[str, Any]


def loss_event(at_ns: int, dropped: int, malformed: int, failed: int, reason: str | None = None) -> LiveEvent:
    """Return the event that tells how many others were lost: no room, no event, or not written, and why not."""
    numbers: dict[str, Any] = {"dropped": dropped, "malformed": malformed, "failed": failed}
    return LiveEvent(at_ns, LOSSES, None, None, None, numbers | ({} if reason is None else {"reason": reason}))


class Cleaner:
    """Makes events of what was recorded, without what must not be kept.

    Args:
        hasher: Hashes what does not look like a name; by default with a key that nobody keeps.
        capture_content: Keep other texts too, secrets taken out.
    """

    def __init__(self, hasher: Hasher | None = None, *, capture_content: bool = False) -> None:
        self._hasher = hasher or Hasher(secrets.token_bytes(32))
        self._capture_content = capture_content

    def clean(self, at_ns: int, fields: Mapping[str, object]) -> LiveEvent:
        """Return the event of what was recorded.

        Raises:
            InputError: It has no kind, or that is no word.
        """
        kind = fields.get("kind")
        if not isinstance(kind, str) or not _WORD.fullmatch(kind):
            raise InputError("an event needs its kind, one word in small letters")
        data: dict[str, Any] = {}
        for name, value in fields.items():
            if name in {"kind", "workflow", "agent", "run_id"} or len(data) >= MAX_FIELDS:
                continue
            if isinstance(name, str) and _WORD.fullmatch(name) and (kept := self._value(name, value)) is not None:
                data[name] = kept
        workflow, agent, run_id = (self._name(fields.get(name)) for name in ("workflow", "agent", "run_id"))
        return LiveEvent(at_ns, kind, workflow, agent, run_id, data)

    def _name(self, value: object) -> str | None:
        return None if value is None else self._hasher.name(str(value))

    def _value(self, name: str, value: object) -> Any:
        """Return what is kept of a value, or `None` for nothing."""
        if isinstance(value, bool):
            return value
        if isinstance(value, int):
            return int(value) if abs(value) < 2**63 else None
        if isinstance(value, float):
            return float(value) if math.isfinite(value) else None
        if isinstance(value, str):
            return self._text(name, value)
        if isinstance(value, list | tuple) and name in SENTENCES:
            return [self._text(name, each) for each in value[:MAX_SENTENCES] if isinstance(each, str)]
        return None

    def _text(self, name: str, text: str) -> str | None:
        if name in NAMES:
            return self._hasher.name(str(text))
        if name in SENTENCES:
            return _redacted(text if self._capture_content else _without_foreign_message(text))[:MAX_SENTENCE_CHARS]
        return _redacted(text[:MAX_TEXT_CHARS]) if self._capture_content else None


def _redacted(text: str) -> str:
    return redact(text.encode("utf-8", "surrogatepass"))[0].decode("utf-8", "replace")


def _without_foreign_message(text: str) -> str:
    """Return a reason up to the type of an error that it quotes: the message may hold anything of a content."""
    line = text.partition("\n")[0]
    named = _ERROR_NAME.search(line)
    return line[: named.end() - len(": ")] if named else line
