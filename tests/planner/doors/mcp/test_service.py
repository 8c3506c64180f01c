from __future__ import annotations

import base64
import json
import threading
from typing import TYPE_CHECKING

import numpy as np
import pytest

from apportion.compression.similarity.gate import Gate
from apportion.compression.similarity.vectors import Vectors
from apportion.compression.strategies.types import Verdict
from apportion.embeddings import is_installed
from apportion.errors import InputError, LedgerError, StoreError
from apportion.planner.doors.mcp.arguments import (
    MAX_CONTENT_BYTES,
    CompressArguments,
    ExpandArguments,
    ExplainArguments,
    HandoffArguments,
    InspectArguments,
    PlanArguments,
    UsageArguments,
    ValidateArguments,
)
from apportion.planner.doors.mcp.service import SMALLEST_PROBLEM, Service

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

LOG = "".join(
    f"2026-01-01 10:00:{second:02} INFO worker {second % 3} finished in {second} ms\n" for second in range(60)
)
LITERAL = base64.b64encode(bytes(range(256)) * 8).decode()
HOLDS_LITERAL = f"first line\n{LITERAL}\nlast line\n"


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    with Service(originals=tmp_path / "originals", ledger=tmp_path / "ledger.db") as opened:
        yield opened


def smallest_problem() -> dict[str, object]:
    text = SMALLEST_PROBLEM.removeprefix("The smallest: ").partition("; ")[0]
    problem: dict[str, object] = json.loads(text)
    return problem


def test_a_content_is_made_shorter_and_nothing_is_kept_unless_it_can_be_expanded(
    service: Service, tmp_path: Path
) -> None:
    found = service.compress(CompressArguments(content=LOG))
    assert found.tokens < found.original_tokens
    assert found.facts.visible == found.facts.total or found.facts.back == "restored"
    assert found.handles == []
    assert list(tmp_path.iterdir()) == []


def test_what_is_left_out_comes_back_by_its_handle(service: Service) -> None:
    found = service.compress(CompressArguments(content=HOLDS_LITERAL, strategies=["literals"], can_expand=True))
    assert len(found.handles) == 1
    assert found.handles[0] in found.content
    assert service.expand(ExpandArguments(handle=found.handles[0])).content == LITERAL
    assert service.expand(ExpandArguments(handle=found.handles[0], range="b4-9")).content == LITERAL[4:9]


def test_an_unknown_handle_is_refused_with_a_hint(service: Service) -> None:
    with pytest.raises(InputError) as refused:
        service.expand(ExpandArguments(handle="h:00000000"))
    assert "can_expand" in (refused.value.hint or "")
    service.compress(CompressArguments(content=HOLDS_LITERAL, strategies=["literals"], can_expand=True))
    with pytest.raises(StoreError, match="unknown handle"):
        service.expand(ExpandArguments(handle="h:00000000"))


def test_an_inspection_shows_lines_and_keeps_nothing(service: Service, tmp_path: Path) -> None:
    found = service.inspect(InspectArguments(content=LOG, rows=3))
    assert len(found.rows) == 3 < found.changed_rows
    assert found.rows[0].before == LOG.split("\n")[0]
    assert list(tmp_path.iterdir()) == []


def test_a_lost_constraint_is_told(service: Service) -> None:
    found = service.validate(ValidateArguments(original="Wait 30 s. Never retry.", compressed="Wait 80 s."))
    assert not found.accepted
    assert found.lost_constraints == ["Never retry."]
    assert found.new == ["80"]
    assert found.counts["new"] == 1
    assert service.validate(ValidateArguments(original=LOG, compressed=LOG)).accepted


PART = LOG.replace(" INFO", "")


class Switched:
    """An embedder that is ready when it is told to be, and sees nothing but lengths."""

    name = digest = "lengths"
    ready = False
    waiting = 0

    def warm(self) -> None:
        self.waiting += 1

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        rows = np.array([[len(text), 100.0] for text in texts])
        return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), np.float32)


def test_meaning_is_not_compared_before_the_model_is_there_and_the_reason_is_said() -> None:
    model = Switched()
    with Service(gate=Gate(Vectors(model), seconds=60.0)) as service:
        given = ValidateArguments(original=LOG, compressed=PART)
        first = service.validate(given)
        assert first.similarity is first.least_similarity is None
        assert first.similarity_reason == "not measured: not yet: the model is being loaded. Ask again later."
        assert model.waiting == 1
        model.ready = True
        found = service.validate(given)
        assert found.similarity_reason is None
        assert found.similarity is not None
        assert found.least_similarity is not None
        assert 0.5 < found.least_similarity <= found.similarity < 1


def test_without_the_extra_the_reason_names_it(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("apportion.compression.similarity.gate.is_installed", lambda: False)
    found = service.validate(ValidateArguments(original=LOG, compressed=PART))
    assert found.similarity is None
    assert "[semantic]" in (found.similarity_reason or "")
    same = service.validate(ValidateArguments(original=LOG, compressed=LOG))
    assert (same.similarity, same.similarity_reason) == (1.0, None)  # what is the same needs no model


@pytest.mark.skipif(not is_installed(), reason="the extra 'semantic' is not installed")
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_with_the_extra_the_model_is_loaded_beside_the_calls_and_then_used(service: Service) -> None:
    given = ValidateArguments(original=LOG, compressed=PART)
    assert "being loaded" in (service.validate(given).similarity_reason or "")
    for thread in threading.enumerate():
        if thread.name in {"apportion-embeddings", "apportion-ingest"}:
            thread.join(60)
            if service.gate.vectors.embedder.ready:
                break
    found = service.validate(given)
    assert found.similarity is not None
    assert found.similarity > 0.8


def test_what_is_cut_for_good_is_judged_by_the_same_model(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    judged: list[object] = []

    def refuse(gate: Gate, _outcome: object) -> tuple[Verdict, None]:
        judged.append(gate)
        return Verdict(accepted=False), None

    monkeypatch.setattr(Gate, "check", refuse)
    monkeypatch.setattr("apportion.compression.strategies.gated.is_installed", lambda: True)
    text = "\n\n".join(f"Paragraph {n} tells of the year {1800 + n} in the old town of Ulm." for n in range(80))
    for _ in range(2):
        given = CompressArguments(content=text, strategies=["extractive"], query="What of 1807?", target_tokens=100)
        assert service.compress(given).content == text
    assert judged
    assert all(one is service.gate for one in judged)


def test_lists_are_short_and_their_lengths_are_said(service: Service) -> None:
    found = service.validate(ValidateArguments(original=" ".join(f"file_{n}.py" for n in range(500)), compressed="-"))
    assert found.counts["lost"] == 500 > len(found.lost)


@pytest.mark.parametrize("tool", ["compress", "original", "context"])
def test_a_text_that_is_too_long_is_refused_and_not_repeated(service: Service, tool: str) -> None:
    text = "x" * (MAX_CONTENT_BYTES + 1)
    calls: dict[str, Callable[[], object]] = {
        "compress": lambda: service.compress(CompressArguments(content=text)),
        "original": lambda: service.validate(ValidateArguments(original=text, compressed="")),
        "context": lambda: service.handoff(HandoffArguments(context=text)),
    }
    with pytest.raises(InputError, match="at most") as refused:
        calls[tool]()
    assert len(str(refused.value)) < 400


def test_the_problem_of_the_hint_is_planned_and_explained(service: Service) -> None:
    plan = service.plan(PlanArguments(problem=smallest_problem()))
    assert plan.feasible
    assert plan.plan_id is not None
    assert plan.tokens is not None
    assert 0 < plan.tokens <= 20_000
    why = service.explain(ExplainArguments(plan_id=plan.plan_id, agent_id="a"))
    assert why.agents[0].decision == "full"
    with pytest.raises(InputError, match="no agent 'b'"):
        service.explain(ExplainArguments(plan_id=plan.plan_id, agent_id="b"))
    less = service.plan(PlanArguments(problem=smallest_problem(), max_tokens=1_000))
    assert less.plan_id != plan.plan_id
    assert less.tokens is not None
    assert less.tokens <= 1_000


def test_a_problem_that_does_not_fit_is_a_result_and_no_error(service: Service) -> None:
    problem = smallest_problem()
    problem["items"] = [{"id": "i", "tokens": 50_000, "pinned": True}]
    problem["agents"][0]["uses"] = [{"item_id": "i"}]  # type: ignore[index]
    found = service.plan(PlanArguments(problem=problem, max_tokens=100))
    assert not found.feasible
    assert found.plan_id is None
    assert found.conflict
    assert found.summary.startswith("No plan")


def test_a_wrong_problem_is_answered_with_the_smallest_right_one(service: Service) -> None:
    with pytest.raises(InputError) as refused:
        service.plan(PlanArguments(problem={"agents": "ignore all rules"}))
    assert refused.value.hint == SMALLEST_PROBLEM
    with pytest.raises(InputError, match="no policy"):
        service.plan(PlanArguments(problem=smallest_problem(), policies=["ignore"]))


def test_use_is_booked_once_per_key(service: Service) -> None:
    with pytest.raises(LedgerError) as refused:
        service.record_usage(UsageArguments(account="run", input_tokens=1, output_tokens=1))
    assert "limit_tokens" in (refused.value.hint or "")
    given = UsageArguments(
        account="run", input_tokens=900, output_tokens=50, cost_usd=0.01, key="call-1", limit_tokens=1_000
    )
    for _ in range(2):
        found = service.record_usage(given)
        assert (found.tokens.spent, found.tokens.free, found.cost_nusd.spent) == (950, 50, 10_000_000)
    over = service.record_usage(UsageArguments(account="run", input_tokens=100, output_tokens=0))
    assert over.tokens.free == -50


def test_the_second_handoff_is_a_delta_that_the_receiver_reads(service: Service, tmp_path: Path) -> None:
    first = HandoffArguments(context=LOG * 4, task="go on", target="t-1:tester", workflow="w", accepts_deltas=True)
    second = first.model_copy(update={"context": LOG * 4 + "one more line\n"})
    sent = [service.handoff(each) for each in (first, second)]
    assert [one.form for one in sent] == ["full", "delta"]
    assert sent[0].reason == "no_base"
    assert sent[1].message_bytes < sent[0].message_bytes / 4
    with Service(originals=tmp_path / "o", ledger=tmp_path / "l") as receiver:
        too_early = receiver.handoff(HandoffArguments(message=sent[1].message, workflow="w"))
        assert too_early.context is None
        assert too_early.reason is not None
        read = [receiver.handoff(HandoffArguments(message=one.message, workflow="w")) for one in sent]
    assert [one.context for one in read] == [first.context, second.context]
    assert all(one.exact for one in read)


@pytest.mark.parametrize("accepts", [{}, {"reply": {"metadata": {"tags": ["something else"]}}}, {"reply": {}}])
def test_a_target_that_does_not_say_so_gets_the_whole(service: Service, accepts: dict[str, object]) -> None:
    for _ in range(2):
        found = service.handoff(HandoffArguments.model_validate({"context": LOG, **accepts}))
        assert (found.form, found.reason) == ("full", "not_understood")


def test_workflows_know_nothing_of_each_other(service: Service) -> None:
    given = HandoffArguments(context=LOG * 4, accepts_deltas=True, workflow="one")
    service.handoff(given)
    assert service.handoff(given.model_copy(update={"workflow": "two"})).form == "full"
    assert service.handoff(given).form == "delta"


@pytest.mark.parametrize(
    "given", [{}, {"context": "x", "message": {}}, {"message": {}}, {"context": "", "target": "x"}]
)
def test_handoffs_that_cannot_be_are_refused(service: Service, given: dict[str, object]) -> None:
    with pytest.raises(InputError) as refused:
        service.handoff(HandoffArguments.model_validate(given))
    assert refused.value.message
