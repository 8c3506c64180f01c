"""What the telemetry store gives back: workflows with or without their contents, and summaries.

By default a store keeps no content, only its size and a keyed hash. A stored workflow says so (`captured`), and
nothing here ever puts an empty text in place of one that was not kept.
"""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path  # noqa: TC003  (pydantic resolves it)
from typing import Any, Literal, NamedTuple, Self

from pydantic import AwareDatetime, Field, NonNegativeFloat, NonNegativeInt, model_validator

from apportion.errors import StoreError
from apportion.records import Kind, Record, Tokens, Usage
from apportion.telemetry.events import Event, WorkflowLog


class Added(StrEnum):
    """What became of a workflow that was given to the store.

    `UNCHANGED`: it is stored already, or an older copy of what is stored (the same events, fewer of them).
    `REPLACED`: another version was stored under its id, for example before the log grew, or one without contents.
    """

    NEW = "new"
    REPLACED = "replaced"
    UNCHANGED = "unchanged"


class StoredEvent(Record):
    """An `Event` as it is stored; all attributes that are not listed here mean the same as there.

    Attributes:
        content: The text, with `[redacted: KIND]` in place of each secret, or `None` where contents are not captured.
        content_hash: Keyed hash of the text, 64 hexadecimal digits; equal texts have equal hashes within one store,
            and nobody without the store's key can test a guess. Hash, bytes and tokens are those of the logged text.
        content_bytes: Length of the text in UTF-8.
        content_tokens: Tokens of the text, as counted when it was stored.
    """

    step: NonNegativeInt
    stage: NonNegativeInt
    agent: str
    agent_run: str
    parent_agent: str | None
    kind: Kind
    name: str | None
    content: str | None
    content_hash: str
    content_bytes: NonNegativeInt
    content_tokens: NonNegativeInt
    model: str | None
    call: NonNegativeInt | None
    usage: Usage | None
    prompt_steps: tuple[int, ...] | None
    started_at: AwareDatetime | None
    duration_ms: NonNegativeFloat | None
    cost_usd: NonNegativeFloat | None
    link: str | None
    is_error: bool
    compaction: bool


class WorkflowSummary(Record):
    """One stored workflow in numbers.

    Attributes:
        id: Its identifier.
        source: Where its log comes from.
        framework: Tool that wrote the log.
        origin: Path of the log, or `None`.
        imported_at: When it was stored.
        started_at: First time in the log, or `None` where it gives none.
        ended_at: Last time in the log, or `None`.
        events: Number of events.
        calls: Number of model completions.
        agents: Number of agent runs.
        content_tokens: Tokens of all contents, each counted once.
        captured: Whether the contents are kept.
        redactions: How many secrets were taken out of them.
    """

    id: str
    source: str
    framework: str
    origin: str | None
    imported_at: AwareDatetime
    started_at: AwareDatetime | None
    ended_at: AwareDatetime | None
    events: int
    calls: int
    agents: int
    content_tokens: int
    captured: bool
    redactions: int


class StoredWorkflow(Record):
    """One stored workflow with its events.

    Attributes:
        summary: The workflow in numbers.
        events: Its events in order; their `content` is `None` where contents are not captured.
        outcome: What the log says about success; where contents are not captured, only its safe part.
        meta: Further facts about the workflow; where contents are not captured, only their safe part.
    """

    summary: WorkflowSummary
    events: tuple[StoredEvent, ...] = Field(min_length=1)
    outcome: dict[str, Any] | None
    meta: dict[str, Any]

    @property
    def captured(self) -> bool:
        """Whether the contents are kept; if not, `to_log` raises."""
        return self.summary.captured

    def to_log(self) -> WorkflowLog:
        """Return the workflow as it was logged, except for the secrets, which were taken out of texts.

        Raises:
            StoreError: Its contents are not captured.
        """
        if not self.captured:
            raise StoreError(
                f"the contents of workflow {self.summary.id} are not captured",
                hint="Import its log again with --capture-content, or use the counts in the stored events",
            )
        return WorkflowLog(
            id=self.summary.id,
            source=self.summary.source,
            framework=self.summary.framework,
            origin=self.summary.origin,
            events=tuple(Event(**{name: getattr(event, name) for name in Event.model_fields}) for event in self.events),
            outcome=self.outcome,
            meta=self.meta,
        )


class Outcome(Record):
    """What was forecast of an agent run in a stage before it began, beside what it used.

    Attributes:
        agent_run: The agent run.
        agent: Its agent type.
        stage: Number of the stage.
        level: What was forecast; so far always a run in a stage.
        low_tokens: 10 % quantile of the forecast.
        median_tokens: Its median.
        likely_tokens: Its 90 % quantile.
        used_tokens: Prompt and output tokens over all calls, at least 1.
        version: Version of the models that forecast it.
    """

    agent_run: str
    agent: str
    stage: NonNegativeInt
    level: Literal["run"] = "run"
    low_tokens: Tokens
    median_tokens: Tokens
    likely_tokens: Tokens
    used_tokens: Tokens = Field(gt=0)
    version: str = Field(min_length=1, max_length=64)

    @model_validator(mode="after")
    def _quantiles_do_not_decrease(self) -> Self:
        if not self.low_tokens <= self.median_tokens <= self.likely_tokens:
            raise ValueError("quantiles of a forecast must not decrease")
        return self


class StoredOutcome(Outcome):
    """An `Outcome` as it is stored.

    Attributes:
        workflow: Identifier of the workflow.
        framework: Tool that ran it.
        recorded_at: When it was stored.
    """

    workflow: str
    framework: str
    recorded_at: AwareDatetime


class UsageTotals(Record):
    """Usage added up over model completions; `None` where no log says anything about a column.

    Attributes:
        calls: Number of completions.
        calls_with_usage: Number of them with any usage in the log.
        input_uncached: Tokens of prompts outside the cache.
        cache_read: Tokens read from the cache.
        cache_write_5m: Tokens written to the cache for five minutes.
        cache_write_1h: Tokens written to the cache for an hour.
        output: Tokens of output, including reasoning.
        reasoning: Tokens of reasoning.
        estimated: Columns to which an estimate contributes.
        cost_usd: What the logs say it cost.
    """

    calls: int
    calls_with_usage: int
    input_uncached: int | None
    cache_read: int | None
    cache_write_5m: int | None
    cache_write_1h: int | None
    output: int | None
    reasoning: int | None
    estimated: tuple[str, ...]
    cost_usd: float | None


class ModelSummary(UsageTotals):
    """Usage of one model in the workflows of one source; `model` is `None` where the log does not name it."""

    model: str | None


class SourceSummary(Record):
    """All stored workflows of one source and framework.

    Attributes:
        source: Where the logs come from.
        framework: Tool that wrote them.
        workflows: Number of workflows.
        agents: Number of agent runs.
        events: Number of events.
        content_tokens: Tokens of all contents, each counted once per workflow event.
        usage: Usage over all models.
        models: Usage per model, the one with most calls first.
    """

    source: str
    framework: str
    workflows: int
    agents: int
    events: int
    content_tokens: int
    usage: UsageTotals
    models: tuple[ModelSummary, ...]


class StoreSummary(Record):
    """What is in a store.

    Attributes:
        path: The file.
        size_bytes: Its size on disk, including the write-ahead log.
        schema_version: Version of its schema.
        journal_mode: `"wal"`, or what SQLite uses where the file system does not support that.
        capture_content: Whether contents are captured for workflows added now.
        captured_workflows: Number of workflows whose contents are kept.
        redactions: How many secrets were taken out of those contents.
        workflows: Number of workflows.
        calls: Number of model completions.
        agents: Number of agent runs.
        events: Number of events.
        first_at: First time in any log, or `None`.
        last_at: Last time in any log, or `None`.
        usage: Usage over everything.
        sources: The same per source and framework, ordered by name.
    """

    path: Path
    size_bytes: int
    schema_version: int
    journal_mode: str
    capture_content: bool
    captured_workflows: int
    redactions: int
    workflows: int
    calls: int
    agents: int
    events: int
    first_at: AwareDatetime | None
    last_at: AwareDatetime | None
    usage: UsageTotals
    sources: tuple[SourceSummary, ...]


class FileGroup(NamedTuple):
    """Log files that are read together, as they were before they were read.

    Attributes:
        path: The first of them.
        size: Bytes of all of them.
        modified_ns: When the newest was modified, in nanoseconds since 1970.
        fingerprint: Changes with any of the files, and with what reads them.
    """

    path: str
    size: int
    modified_ns: int
    fingerprint: bytes


class GroupRecord(NamedTuple):
    """What an import found in a group of files.

    Attributes:
        workflows: Number of workflows.
        calls: Number of model completions.
        skipped: Number of files and lines that could not be read.
    """

    workflows: int
    calls: int
    skipped: int
