"""Invented reports: a large one with realistic proportions, and one in which nothing is known."""

from __future__ import annotations

import fcntl
import json
import os
import random
import shutil
import subprocess
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from apportion.planner.report.schema import (
    ActionRow,
    AgainstRow,
    AgainstSource,
    AgentRow,
    BudgetUse,
    CallPoint,
    ConfidenceBin,
    Dearer,
    Facts,
    KindRow,
    Ledger,
    Ledgers,
    LeftOutRow,
    LoggedUsage,
    NextAgentPair,
    NextAgentRow,
    Percentiles,
    PlanSummary,
    ReplayReport,
    Simulator,
    Skipped,
    SourceRow,
    Stability,
    StageRow,
    Variance,
    VarianceFigures,
    WorkflowRow,
    WorstWorkflow,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

SOURCES = {"claude-code": 197, "codex": 113, "opencode": 211, "swe-agent": 80, "ag2": 60, "crewai": 29}
AGENTS = ("main", "Explore", "general-purpose", "code-reviewer", "planner", "test-writer")
KINDS = (
    "system",
    "tool_definitions",
    "user",
    "assistant",
    "thinking",
    "tool_call",
    "tool_result",
    "handoff",
    "overhead",
)
RANGES = ((1, 1), (2, 2), (3, 4), (5, 8), (9, 16), (17, 32), (33, 64), (65, 128), (129, 256))


def _ledger(baseline: float | None, saved: float) -> Ledger:
    if baseline is None:
        return Ledger(baseline=None, planned=None, saved_share=None)
    planned = baseline * (1 - saved)
    return Ledger(baseline=baseline, planned=planned, saved_share=1 - planned / baseline if baseline else None)


def _total(ledgers: Sequence[Ledger]) -> Ledger:
    known = [ledger for ledger in ledgers if ledger.baseline is not None]
    baseline = sum(ledger.baseline or 0 for ledger in known)
    planned = sum(ledger.planned or 0 for ledger in known)
    return Ledger(baseline=baseline, planned=planned, saved_share=1 - planned / baseline) if known else _ledger(None, 0)


def _sum(parts: Sequence[Ledgers]) -> Ledgers:
    return Ledgers(
        visible_tokens=_total([part.visible_tokens for part in parts]),
        real_prompt_tokens=_total([part.real_prompt_tokens for part in parts]),
        transmitted_tokens=_total([part.transmitted_tokens for part in parts]),
        bill_usd=_total([part.bill_usd for part in parts]),
        prefix_stability=Stability(baseline=0.991, planned=0.957),
    )


def _facts(calls: int) -> Facts:
    expansions = calls // 24
    return Facts(
        visible_share=0.7812,
        recoverable_share=1.0,
        next_action_visible=0.9741,
        next_action_after_expansion=0.9894,
        next_action_recoverable=1.0,
        expansions=expansions,
        expansions_per_100_calls=100 * expansions / calls,
    )


def _workflow(rng: random.Random, source: str, number: int) -> WorkflowRow:
    calls = max(2, int(rng.lognormvariate(2.9, 0.9)))
    visible = calls * rng.lognormvariate(10.2, 0.7)
    saved = min(0.75, max(-0.004, rng.gauss(0.33, 0.15)))
    bill = None if source == "ag2" else visible * 1.1e-6 * rng.uniform(0.8, 1.6)
    ledgers = Ledgers(
        visible_tokens=_ledger(round(visible), saved),
        real_prompt_tokens=_ledger(round(visible + calls * 30_000), saved * 0.5),
        transmitted_tokens=_ledger(round(visible * 0.04), -0.03),
        bill_usd=_ledger(bill, saved * 0.45 + rng.gauss(-0.01, 0.015)),
        prefix_stability=Stability(baseline=0.991, planned=0.957),
    )
    usage = LoggedUsage(
        input_uncached=calls * 210,
        cache_read=int(visible),
        cache_write_5m=calls * 2_400,
        cache_write_1h=None,
        output=calls * 480,
        reasoning=None,
        estimated=["output"] if source == "claude-code" else [],
    )
    return WorkflowRow(
        id=f"{source}/{rng.getrandbits(64):016x}/session-{number:04d}",
        source=source,
        framework=source,
        workflows=1,
        priced_workflows=int(bill is not None),
        calls=calls,
        agents=1 + rng.getrandbits(2),
        usage=usage,
        ledgers=ledgers,
        facts=_facts(calls),
    )


def _dearer(rows: Sequence[WorkflowRow]) -> tuple[Dearer, WorstWorkflow | None]:
    priced = {row.id: row.ledgers.bill_usd.saved_share for row in rows if row.ledgers.bill_usd.saved_share is not None}
    if not priced:
        return Dearer(workflows=0, of=0, share=None), None
    worst = min(priced, key=lambda name: priced[name])
    count = sum(share < 0 for share in priced.values())
    dearer = Dearer(workflows=count, of=len(priced), share=count / len(priced))
    return dearer, WorstWorkflow(id=worst, bill_saved_share=priced[worst])


PLAN = PlanSummary(
    count=17_321,
    ms=Percentiles(p50=0.016, p95=1.43),
    gap=Percentiles(p50=0.0, p95=0.0028),
    status={"STANDING": 16_904, "OPTIMAL": 396, "FEASIBLE": 21},
    degraded={"no price for the model": 312},
)
VARIANCE = Variance(
    count=4_120,
    coverage=0.893,
    width=2.41,
    bias=0.31,
    by_agent={
        "main": VarianceFigures(count=3_120, coverage=0.901, width=2.2, bias=0.25),
        **{f"helper-{nth}": VarianceFigures(count=50, coverage=0.87, width=3.5, bias=None) for nth in range(20)},
    },
)
SIMULATOR = Simulator(
    read_share_simulated=0.942, read_share_logged=0.963, bill_usd_simulated=104.2, bill_usd_logged=98.7
)


def _source(name: str, rows: Sequence[WorkflowRow]) -> SourceRow:
    dearer, worst = _dearer(rows)
    calls = sum(row.calls for row in rows)
    return SourceRow(
        source=name,
        framework=name,
        workflows=len(rows),
        priced_workflows=dearer.of,
        unnamed_model_workflows=len(rows) if name == "ag2" else 0,
        calls=calls,
        agents=sum(row.agents for row in rows),
        usage=rows[0].usage,
        ledgers=_sum([row.ledgers for row in rows]),
        facts=_facts(calls),
        dearer=dearer,
        worst_workflow=worst,
        simulator=SIMULATOR,
        plan=PLAN,
        variance=VARIANCE,
    )


def _agent(rng: random.Random, source: str, agent: str) -> AgentRow:
    calls = rng.randint(20, 4_000)
    visible = calls * rng.uniform(8_000, 60_000)
    return AgentRow(
        source=source,
        agent=agent,
        runs=calls // 18 + 1,
        calls=calls,
        visible_tokens=_ledger(round(visible), rng.uniform(0.05, 0.6)),
        bill_usd=_ledger(None if source == "ag2" else visible * 1.2e-6, rng.uniform(-0.02, 0.3)),
        allocated_tokens=int(visible * 1.3),
        used_tokens=int(visible),
        likely_tokens=int(visible * rng.uniform(0.8, 3)),
    )


STAGES = ((0, 0), (1, 1), (2, 2), (3, 3), (4, 4), (5, 7), (8, 12), (13, 20))
REASONS = {
    "mask": ("the cache was cold: nothing had to be written anew", "later calls repay what is written anew behind it"),
    "structure": ("the same in fewer tokens: grep_groups", "the same in fewer tokens: json_columns, repeats"),
    "reference": ("the prompt holds the same bytes already",),
}


def _stage(rng: random.Random, source: str, agent: str, stages: tuple[int, int]) -> StageRow:
    calls = rng.randint(5, 900)
    visible = calls * rng.uniform(8_000, 60_000)
    return StageRow(
        source=source,
        agent=agent,
        first_stage=stages[0],
        last_stage=stages[1],
        calls=calls,
        visible_tokens=_ledger(round(visible), rng.uniform(0.05, 0.6)),
        bill_usd=_ledger(None if source == "ag2" else visible * 1.2e-6, rng.uniform(-0.02, 0.3)),
        likely_tokens=int(visible * 2),
        allocated_tokens=None if source == "ag2" else int(visible * 2.2),
        used_tokens=int(visible * 1.1),
    )


def _action(rng: random.Random, source: str, agent: str, action: str, reason: str) -> ActionRow:
    pieces = rng.randint(1, 900)
    return ActionRow(
        source=source,
        agent=agent,
        action=action,
        reason=reason,
        pieces=pieces,
        tokens=pieces * 2_100,
        sent_tokens=pieces * 24,
        saved_tokens=pieces * rng.randint(2_000, 90_000),
        fetched=pieces // 9 if action == "mask" else 0,
    )


def _left_out(rng: random.Random, row: WorkflowRow) -> LeftOutRow:
    tokens = rng.randint(200, 30_000)
    return LeftOutRow(
        workflow=row.id,
        agent="main",
        call=rng.randint(2, 90),
        kind="tool_result",
        tool=rng.choice(("Read", "Bash", "Grep", None)),
        action="mask",
        reason=REASONS["mask"][0],
        tokens=tokens,
        sent_tokens=24,
        saved_tokens=tokens * rng.randint(2, 60),
        fetched=rng.random() < 0.2,
    )


def _large() -> ReplayReport:
    rng = random.Random(7)  # noqa: S311  (invented figures, no secret)
    workflows = [_workflow(rng, source, n) for source, size in SOURCES.items() for n in range(size)]
    per_source = [_source(name, [row for row in workflows if row.source == name]) for name in SOURCES]
    dearer, worst = _dearer(workflows)
    calls = sum(row.calls for row in workflows)
    weights = dict(zip(KINDS, (0.02, 0.05, 0.04, 0.09, 0.01, 0.08, 0.46, 0.05, 0.2), strict=True))
    total = sum(row.ledgers.real_prompt_tokens.baseline or 0 for row in workflows)
    return ReplayReport(
        version="0.1.0",
        complete=True,
        seconds=212.4,
        peak_memory_mb=611.0,
        settings={"horizon": "rest of the run", "cache_ttl_s": 300, "max_tokens": None, "preload": True},
        skipped=Skipped(
            files=2,
            lines=3,
            messages=[
                "logs/notes.bin: binary file",
                "logs/empty.jsonl: empty file",
                "logs/codex/rollout-17.jsonl:88: not JSON: Expecting value: line 1 column 1 (char 0)",
                "logs/codex/rollout-17.jsonl:91: not JSON: Unterminated string starting at: line 1 column 17 (char 16)",
                "logs/claude/session-3.jsonl:1204: not JSON: Expecting ',' delimiter: line 1 column 80 (char 79)",
            ],
        ),
        prices_as_of="2026-01-31",
        unpriced_models=[],
        unnamed_model_workflows=SOURCES["ag2"],
        workflows=len(workflows),
        priced_workflows=dearer.of,
        calls=calls,
        agents=sum(row.agents for row in workflows),
        usage=LoggedUsage(
            input_uncached=3_812_004,
            cache_read=812_004_551,
            cache_write_5m=41_220_118,
            cache_write_1h=None,
            output=8_200_113,
            reasoning=None,
            estimated=["output"],
        ),
        ledgers=_sum([row.ledgers for row in workflows]),
        facts=_facts(calls),
        plan=PLAN,
        variance=VARIANCE,
        budget=BudgetUse(
            max_tokens=2_000_000,
            max_usd=None,
            workflows_over_baseline=211,
            workflows_over_planned=140,
            calls_beyond_baseline=2_311,
            calls_beyond_planned=1_202,
        ),
        dearer=dearer,
        worst_workflow=worst,
        simulator=SIMULATOR,
        per_source=per_source,
        per_workflow=workflows,
        per_agent=[_agent(rng, source, agent) for source in SOURCES for agent in AGENTS],
        per_call=[
            CallPoint(
                first_call=first,
                last_call=last,
                calls=6_000 // first,
                visible_tokens_baseline=4_000 + 900 * (first + last) / 2,
                visible_tokens_planned=4_000 + 900 * (first + last) / 2 * (0.95 - 0.06 * position),
                bill_usd_baseline=0.03 + 0.0004 * (first + last) / 2,
                bill_usd_planned=0.03 + 0.00031 * (first + last) / 2,
            )
            for position, (first, last) in enumerate(RANGES)
        ],
        per_stage=[
            _stage(rng, source, agent, stages) for source in SOURCES for agent in AGENTS[:3] for stages in STAGES
        ],
        actions=[
            _action(rng, source, agent, action, reason)
            for source in SOURCES
            for agent in AGENTS
            for action, reasons in REASONS.items()
            for reason in reasons
        ],
        left_out=sorted((_left_out(rng, row) for row in workflows[:200]), key=lambda row: -row.saved_tokens),
        left_out_pieces=4_321,
        per_kind=[
            KindRow(
                kind=kind,
                tokens_baseline=int(total * weight),
                tokens_planned=int(total * weight * (0.52 if kind == "tool_result" else 0.97)),
            )
            for kind, weight in weights.items()
        ],
    )


UNKNOWN_LEDGER = Ledger(baseline=None, planned=None, saved_share=None)


def _unknown() -> ReplayReport:
    """One workflow of one call, and nothing else that is known."""
    return ReplayReport(
        version="0.1.0",
        complete=True,
        seconds=0.2,
        peak_memory_mb=None,
        settings={},
        prices_as_of="2026-01-31",
        unpriced_models=["unheard-of-1"],
        unnamed_model_workflows=0,
        skipped=Skipped(files=0, lines=0),
        workflows=1,
        priced_workflows=0,
        calls=1,
        agents=1,
        usage=LoggedUsage(
            input_uncached=None,
            cache_read=None,
            cache_write_5m=None,
            cache_write_1h=None,
            output=None,
            reasoning=None,
        ),
        ledgers=Ledgers(
            visible_tokens=UNKNOWN_LEDGER,
            real_prompt_tokens=UNKNOWN_LEDGER,
            transmitted_tokens=UNKNOWN_LEDGER,
            bill_usd=UNKNOWN_LEDGER,
            prefix_stability=Stability(baseline=None, planned=None),
        ),
        facts=Facts(
            visible_share=None,
            recoverable_share=None,
            next_action_visible=None,
            next_action_after_expansion=None,
            next_action_recoverable=None,
            expansions=0,
            expansions_per_100_calls=None,
        ),
        plan=PlanSummary(count=0, ms=Percentiles(p50=None, p95=None), gap=Percentiles(p50=None, p95=None), status={}),
        variance=Variance(count=0, coverage=None, width=None, bias=None),
        budget=None,
        dearer=Dearer(workflows=0, of=0, share=None),
        worst_workflow=None,
        simulator=Simulator(read_share_simulated=None, read_share_logged=None),
        per_source=[],
        per_workflow=[],
        per_agent=[],
        per_call=[],
        per_kind=[],
    )


def _tiny() -> ReplayReport:
    """Two workflows of one source, one of them dearer than before."""
    large = _large()
    rows = [
        row.model_copy(update={"ledgers": row.ledgers.model_copy(update={"bill_usd": bill})})
        for row, bill in zip(large.per_workflow[:2], (_ledger(0.0231, 0.12), _ledger(0.0040, -0.018)), strict=True)
    ]
    dearer, worst = _dearer(rows)
    return large.model_copy(
        update={
            "workflows": 2,
            "priced_workflows": 2,
            "unnamed_model_workflows": 0,
            "calls": 14,
            "agents": 3,
            "ledgers": _sum([row.ledgers for row in rows]),
            "skipped": Skipped(files=0, lines=0),
            "budget": None,
            "dearer": dearer,
            "worst_workflow": worst,
            "per_source": [_source("claude-code", rows)],
            "per_workflow": rows,
            "per_agent": large.per_agent[:2],
            "per_stage": [row for row in large.per_stage if row.source == "claude-code"],
            "actions": [row for row in large.actions if row.source == "claude-code"],
            "left_out": large.left_out[:2],
            "left_out_pieces": 2,
            "per_call": large.per_call[:3],
        }
    )


@pytest.fixture(scope="session")
def large_report() -> ReplayReport:
    """690 workflows of six sources, one of them without prices."""
    return _large()


@pytest.fixture(scope="session")
def tiny_report() -> ReplayReport:
    """Two workflows."""
    return _tiny()


@pytest.fixture(scope="session")
def unknown_report() -> ReplayReport:
    """A report in which every figure that may be unknown is unknown."""
    return _unknown()


@pytest.fixture(scope="session")
def ledger() -> Callable[[float | None, float], Ledger]:
    """Return a ledger from its baseline and the share saved."""
    return _ledger


@pytest.fixture(scope="session")
def learned_report(large_report: ReplayReport) -> ReplayReport:
    """The large report of a replay with trained models: with forecasts of the next agent."""
    row = NextAgentRow(
        source="all sources", forecasts=500, coverage=0.4, hit_rate=0.9, calibration_error=0.03, calibration_noise=0.02
    )
    return large_report.model_copy(
        update={
            "next_agent": [row],
            "next_agent_pairs": [
                NextAgentPair(after="", predicted="Explore", forecasts=300, sure=200, confidence=0.83, hits=240),
                NextAgentPair(after="Explore", predicted="(end)", forecasts=200, sure=0, confidence=0.31, hits=66),
            ],
            "next_agent_bins": [
                ConfidenceBin(low=0.3, high=0.4, forecasts=200, confidence=0.31, hit_rate=0.33),
                ConfidenceBin(low=0.8, high=0.9, forecasts=300, confidence=0.83, hit_rate=0.8),
            ],
        }
    )


@pytest.fixture(scope="session")
def against_report(large_report: ReplayReport) -> ReplayReport:
    """The large report with two baselines, which come to what the plan comes to."""

    def compared(row: ReplayReport | SourceRow) -> dict[str, Any]:
        return {name: getattr(row, name) for name in ("ledgers", "facts", "dearer", "worst_workflow")}

    rows = [
        AgainstRow(
            name=name,
            summary="a rule",
            note="of which something is to be said",
            budget=None,
            per_source=[AgainstSource(source=row.source, **compared(row)) for row in large_report.per_source],
            **compared(large_report),
        )
        for name in ("rule-a", "clear-10")
    ]
    return large_report.model_copy(update={"against": rows})


CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)

FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-sync",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-default-apps",
    "--disable-extensions",
    "--remote-debugging-pipe",
)

DRAWN = """new Promise((done) => {
  const look = () => document.documentElement.dataset.drawn ? done() : setTimeout(look, 20);
  look();
})"""
"""Waits until the page has drawn its charts."""

AS_CHROMIUM_WANTS = """
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.dup2(int(sys.argv[2]), 4)
os.execv(sys.argv[3], sys.argv[3:])
"""
"""Chromium reads its orders from file 3 and answers to file 4."""


class Browser:
    """A real Chromium, told what to do over a pipe by the DevTools protocol."""

    def __init__(self, profile: Path) -> None:
        orders, self._out = os.pipe()
        self._in, answers = os.pipe()
        low = (orders, answers)
        given = [fcntl.fcntl(each, fcntl.F_DUPFD, 10) for each in low]
        command = [sys.executable, "-c", AS_CHROMIUM_WANTS, *map(str, given)]
        command += [str(CHROMIUM), *FLAGS, f"--user-data-dir={profile}"]
        self.process = subprocess.Popen(command, pass_fds=given, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        for each in (*low, *given):
            os.close(each)
        self._rest = b""
        self._number = 0
        self.events: list[dict[str, Any]] = []

    def ask(self, method: str, session: str | None = None, **parameters: Any) -> dict[str, Any]:
        """Send an order and return its answer; events that come meanwhile are kept."""
        self._number += 1
        order: dict[str, Any] = {"id": self._number, "method": method, "params": parameters}
        if session is not None:
            order["sessionId"] = session
        os.write(self._out, json.dumps(order).encode() + b"\0")
        while True:
            message = self._read()
            if message.get("id") == self._number:
                assert "error" not in message, message
                result: dict[str, Any] = message["result"]
                return result
            self.events.append(message)

    def wait_for(self, method: str, session: str) -> None:
        """Wait for an event that came since the page was asked for, or will come."""
        while not any(event.get("method") == method and event.get("sessionId") == session for event in self.events):
            self.events.append(self._read())

    def _read(self) -> dict[str, Any]:
        while b"\0" not in self._rest:
            part = os.read(self._in, 1 << 16)
            assert part, "Chromium has ended"
            self._rest += part
        message, _, self._rest = self._rest.partition(b"\0")
        found: dict[str, Any] = json.loads(message)
        return found

    @contextmanager
    def open(self, path: Path, *, width: int = 1280, dark: bool = False) -> Iterator[BrowserPage]:
        """Open a file in a page of its own."""
        target = self.ask("Target.createTarget", url="about:blank")["targetId"]
        session = self.ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        self.events.clear()
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.ask(f"{domain}.enable", session)
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
        self.ask("Emulation.setDeviceMetricsOverride", session, **size)
        scheme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        self.ask("Emulation.setEmulatedMedia", session, features=scheme)
        self.ask("Page.navigate", session, url=path.as_uri())
        self.wait_for("Page.loadEventFired", session)
        page = BrowserPage(self, session)
        page.run(DRAWN)
        try:
            yield page
        finally:
            self.ask("Target.closeTarget", targetId=target)

    def close(self) -> None:
        """End the browser."""
        self.ask("Browser.close")
        self.process.wait(60)
        for each in (self._in, self._out):
            os.close(each)


class BrowserPage:
    """One page in the browser."""

    def __init__(self, browser: Browser, session: str) -> None:
        self._browser, self._session = browser, session

    def run(self, expression: str) -> Any:
        """Return what an expression comes to; a promise is waited for."""
        answer = self._browser.ask(
            "Runtime.evaluate", self._session, expression=expression, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def ask(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Send an order that concerns this page."""
        return self._browser.ask(method, self._session, **parameters)

    @property
    def complaints(self) -> list[dict[str, Any]]:
        """What the page or the browser said in the console, and what went wrong."""
        methods = {"Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded"}
        return [event for event in self._events if event["method"] in methods]

    @property
    def requests(self) -> list[str]:
        """Addresses that were asked for, the page itself first."""
        sent = [event for event in self._events if event["method"] == "Network.requestWillBeSent"]
        return [event["params"]["request"]["url"] for event in sent]

    @property
    def _events(self) -> list[dict[str, Any]]:
        return [event for event in self._browser.events if event.get("sessionId") == self._session]


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """Start a real Chromium, or skip where none is installed."""
    if CHROMIUM is None:
        pytest.skip("needs Chromium")
    started = Browser(tmp_path_factory.mktemp("chromium"))
    yield started
    started.close()
