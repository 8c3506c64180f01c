"""The operations over HTTP, in this process."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import jsonschema
import pytest

from apportion.compression.similarity.gate import Gate
from apportion.compression.similarity.vectors import Vectors
from apportion.planner.doors._guards import MAX_BODY_BYTES
from apportion.planner.doors.http.app import AT_ONCE
from apportion.planner.doors.http.openapi import description
from apportion.planner.doors.http.operations import OPERATIONS, Operation
from apportion.planner.doors.http.service import Service
from apportion.planner.doors.mcp.service import Service as Tools
from apportion.planner.ledger import Ledger
from apportion.planner.session import Planner

if TYPE_CHECKING:
    from collections.abc import Mapping


ROOT = Path(__file__).parents[4]
TABLE = json.dumps([{"id": number, "state": "open", "value": number * 7919} for number in range(120)])
MODEL = "claude-sonnet-4-5"


def opened(client: Any, **more: Any) -> str:
    """The path of a new session."""
    answer = client.post("/v1/sessions", {"workflow": "w", **more})
    assert answer.status == 201, answer
    return f"/v1/sessions/{answer.json['session_id']}"


def test_a_workflow_goes_through_from_the_first_question_to_the_end(client: Any) -> None:
    path = opened(client, max_tokens=100_000)
    result = {"content": TABLE, "kind": "tool_result", "name": "lookup", "link": "1"}
    assert client.post(f"{path}/ingest", {"items": [result], "model": MODEL}).status == 202
    asked = {"agent": "main", "items": [{"content": "look"}, result], "model": MODEL, "expands": True}
    step = client.post(f"{path}/before", asked).json
    assert (step["decision"], step["number"], step["model"]) == ("run", 1, MODEL)
    (changed,) = step["changed"]
    assert (changed["position"], changed["action"]) == (1, "structure")
    assert len(changed["content"]) < len(TABLE)
    told = {"number": 1, "usage": {"input_uncached": 900, "output": 40}, "output": "next"}
    for _ in range(2):
        assert client.post(f"{path}/after", told).json == {"done": True}
    assert client.post(f"{path}/after", told | {"usage": None}).status == 409
    more = {"agent": "main", "unchanged": 2, "items": [{"content": "go on", "kind": "assistant"}], "model": MODEL}
    again = client.post(f"{path}/before", more).json
    assert again["changed"] == [changed]  # what was sent stays as it was
    client.post(f"{path}/after", {"number": 2, "usage": None})
    client.post(f"{path}/finished", {"run_id": "main"})
    client.post(f"{path}/next-stage", {})
    client.post(f"{path}/spend", {"usage": {"output": 60}, "agent": "other", "key": "x"})
    state = client.delete(path).json
    assert (state["used_tokens"], state["steps"], state["finished"]) == (1_000, 2, ["main"])
    tokens = state["tokens"]
    assert tokens["spent"] + tokens["held"] + tokens["free"] == tokens["total"] == 100_000
    assert client.get(path).status == 404


def test_what_waits_is_offered_after_a_top_up(client: Any) -> None:
    path = opened(client, max_tokens=2_000)
    asked = {"agent": "late", "items": [{"content": "word " * 3_000}], "mandatory": False}
    assert client.post(f"{path}/before", asked).json["decision"] == "defer"
    assert client.post(f"{path}/ready", {}).json == {"steps": []}
    for _ in range(2):
        client.post(f"{path}/top-up", {"tokens": 50_000, "key": "more"})
    (step,) = client.post(f"{path}/ready", {"timeout_s": 1.0}).json["steps"]
    assert (step["agent"], step["decision"]) == ("late", "run")
    assert client.get(path).json["tokens"]["total"] == 52_000


def test_aborting_is_a_problem_that_says_why(client: Any) -> None:
    path = opened(client, max_tokens=100, policies=["abort"])
    answer = client.post(f"{path}/before", {"agent": "main", "items": [{"content": "word " * 900}]})
    assert (answer.status, answer.kind) == (409, "application/problem+json")
    assert answer.json["type"] == "urn:apportion:BudgetExhaustedError"
    assert "budget used up" in answer.json["detail"]
    assert answer.json["hint"]


def test_the_same_key_is_the_same_step_and_the_same_session(client: Any) -> None:
    header = (b"idempotency-key", b"once")
    base = [(b"host", b"localhost"), (b"authorization", b"Bearer a-token-of-these-tests-alone")]
    ids = {client.post("/v1/sessions", {"workflow": "w"}, [*base, header]).json["session_id"] for _ in range(2)}
    assert len(ids) == 1
    path = f"/v1/sessions/{ids.pop()}"
    asked = {"agent": "main", "items": [{"content": "look"}]}
    numbers = [client.post(f"{path}/before", asked, [*base, header]).json["number"] for _ in range(2)]
    assert numbers == [1, 1]
    assert client.post(f"{path}/before", asked | {"key": "other"}).json["number"] == 2


def test_every_character_comes_through_both_ways(client: Any) -> None:
    path = opened(client, enabled=False)
    nasty = "\ud800 \udfff\ud800 \0 \r\n \ufeff \u202e e\u0301"
    step = client.post(f"{path}/before", {"agent": "main", "items": [{"content": nasty}]}).json
    assert (step["decision"], step["changed"]) == ("run", [])
    late = opened(client, max_tokens=10)
    client.post(f"{late}/before", {"agent": "late", "items": [{"content": nasty}], "mandatory": False})
    saved = client.get(f"{late}/checkpoint").json
    assert saved["deferred"][0]["items"][0]["content"] == nasty
    resumed = opened(client, checkpoint=saved)
    assert client.get(resumed).json["deferred"] == ["late"]


def test_handles_lead_back_over_http(client: Any) -> None:
    handle = client.service.planner.store.put(b"what was left out\nand more")
    path = opened(client)
    assert client.post(f"{path}/expand", {"handle": str(handle), "range": "2"}).json == {"content": "and more"}
    missing = client.post(f"{path}/expand", {"handle": "h:00000000"})
    assert (missing.status, missing.json["title"]) == (503, "StoreError")
    binary = client.post(f"{path}/expand", {"handle": str(client.service.planner.store.put(b"\xff\xfe"))})
    assert (binary.status, binary.json["title"]) == (422, "InputError")
    assert "Give a range" in binary.json["hint"]


def test_what_to_load_is_sent_once_and_what_was_left_out_comes_back(client: Any) -> None:
    path = opened(client)
    tool = json.dumps({"name": "look", "description": "Looks.", "input_schema": {}})
    skill = {"name": "brew", "kind": "skill", "content": "Pour hot water. " * 80, "description": "Brews coffee."}
    asked = {"agent": "main", "items": [{"content": "go"}], "offered": [{"name": "look", "content": tool}, skill]}
    first = client.post(f"{path}/before", asked).json["loading"]
    assert first["forms"] == {"look": "whole", "brew": "line"}
    assert (first["tools"][0], first["files"]) == (tool, {})
    assert first["tokens"] < first["whole_tokens"]
    more = {"agent": "main", "items": [{"content": "go"}], "loaded": first["number"]}
    again = client.post(f"{path}/before", more).json["loading"]
    assert again == first | {"tools": None, "files": None}
    loaded = client.post(f"{path}/load", {"run_id": "main", "name": "brew"}).json
    assert loaded == {"content": skill["content"]}
    assert client.post(f"{path}/load", {"run_id": "main", "name": "tea"}).status >= 400
    assert client.post(f"{path}/before", {"agent": "other", "items": [{"content": "go"}]}).json["loading"] is None


def test_a_whole_problem_is_planned_also_with_no_time_at_all(client: Any) -> None:
    problem = {
        "max_tokens": 20_000,
        "models": [
            {
                "id": "m",
                "input": 3_000_000,
                "output": 15_000_000,
                "cache_read": 300_000,
                "cache_write_5m": 3_750_000,
                "cache_write_1h": 6_000_000,
            }
        ],
        "stages": [{"id": "s"}],
        "agents": [
            {
                "id": "a",
                "stage_id": "s",
                "variants": [{"model_id": "m", "demand": {"probabilities": [0.5, 0.9], "tokens": [2_000, 5_000]}}],
            }
        ],
    }
    for deadline in (None, 0):
        answer = client.post("/v1/plan", {"problem": problem, "deadline_ms": deadline})
        assert answer.status == 200, answer
        assert answer.json["feasible"]
        assert answer.json["agents"][0]["work_tokens"] >= 2_000


MISTAKES: list[tuple[str, Any, int]] = [
    ("/v1/sessions", {}, 422),
    ("/v1/sessions", {"workflow": "w", "more": 1}, 422),
    ("/v1/sessions", {"workflow": "w", "max_tokens": -1}, 422),
    ("/v1/sessions", {"workflow": "w", "max_tokens": "9"}, 422),
    ("/v1/sessions", {"workflow": "w", "policies": ["nobody's"]}, 422),
    ("/v1/sessions", {"workflow": "w", "checkpoint": {}}, 422),
    ("/v1/sessions", b'{"workflow":"w","max_usd":NaN}', 422),
    ("/v1/sessions", b"[]", 422),
    ("/v1/sessions", b'"\xff"', 422),
    ("/v1/sessions", b"[" * 100_000, 422),
    ("/v1/sessions", b'{"workflow":"w","max_tokens":' + b"9" * 5_000 + b"}", 422),
    ("/v1/sessions/none/before", {"agent": "a", "items": [{"content": "x"}]}, 404),
    ("/v1/sessions/none/close", {"pending": "maybe"}, 422),
    ("/v1/nothing", {}, 404),
    ("/v1/plan", {"problem": {}}, 422),
]


@pytest.mark.parametrize(("path", "body", "status"), MISTAKES)
def test_mistakes_are_problems_with_a_way_out(client: Any, path: str, body: Any, status: int) -> None:
    answer = client.post(path, body)
    assert (answer.status, answer.kind) == (status, "application/problem+json")
    assert answer.json["status"] == status
    assert answer.json["detail"]
    assert b"Traceback" not in answer.body


def test_mistakes_within_a_session(client: Any) -> None:
    path = opened(client, max_tokens=50_000)
    for body, words in (
        ({"agent": "a", "items": []}, "without any piece"),
        ({"agent": "a", "items": [], "unchanged": 3}, "0 are known"),
        ({"agent": "a", "items": [{"content": "x", "kind": "poem"}]}, "no such kind"),
    ):
        answer = client.post(f"{path}/before", body)
        assert answer.status == 422
        assert words in answer.json["detail"]
    assert client.post(f"{path}/after", {"number": 9, "usage": {"output": 1}}).status == 422
    assert client.post(f"{path}/after", {"number": 1, "usage": {"output": -1}}).status == 422
    assert client.post(f"{path}/top-up", {}).status == 422


def test_a_store_that_fails_is_a_problem_and_not_a_crash(client_of: Any, tmp_path: Path) -> None:
    with Ledger(tmp_path / "ledger.db", wait_s=0.02) as ledger:
        client = client_of(Service(Planner(ledger=ledger, ahead=False)))
        path = opened(client, max_tokens=50_000)
        ledger._store._database._connection.execute("PRAGMA query_only = ON")  # type: ignore[attr-defined]
        answer = client.post(f"{path}/before", {"agent": "a", "items": [{"content": "x"}]})
        assert (answer.status, answer.json["title"]) == (503, "StoreError")
        ledger._store._database._connection.execute("PRAGMA query_only = OFF")  # type: ignore[attr-defined]


def test_a_defect_says_nothing_of_what_was_sent(client_of: Any) -> None:
    def broken(_service: Service, given: Any, _path: Mapping[str, str]) -> Any:
        raise RuntimeError(f"secret {given}")

    client = client_of(Service(Planner()), more=[Operation("POST", "/hooks/broken", "Break", broken)])
    answer = client.post("/hooks/broken", {"content": "secret"})
    assert (answer.status, answer.json["title"]) == (500, "RuntimeError")
    assert b"secret" not in answer.body


def test_a_hook_is_mounted_with_the_session_of_a_conversation(client_of: Any) -> None:
    def answer(service: Service, given: Any, _path: Mapping[str, str]) -> Any:
        session = service.named_session(given["session_id"])
        return {"workflow": session.workflow, "same": session is service.named_session(given["session_id"])}

    client = client_of(Service(Planner()), more=[Operation("POST", "/hooks/claude-code", "Answer a hook", answer)])
    assert client.post("/hooks/claude-code", {"session_id": "c-1"}).json == {"workflow": "c-1", "same": True}
    assert client.post("/hooks/claude-code", {}).status == 500
    assert client.get("/hooks/claude-code").status == 405


def test_those_who_wait_for_budget_keep_out_nobody_who_gives_it_back(client: Any) -> None:
    path = opened(client, max_tokens=6_000, policies=["defer"])
    asked = {"agent": "a", "items": [{"content": "x"}], "model": MODEL}
    first = client.post(f"{path}/before", asked).json
    large = {**asked, "agent": "b", "mandatory": False, "items": [{"content": "y " * 4_000}]}
    assert client.post(f"{path}/before", large).json["decision"] == "defer"
    base = [(b"host", b"localhost"), (b"authorization", b"Bearer a-token-of-these-tests-alone")]
    found: list[Any] = []

    async def main() -> None:
        async def wait() -> None:
            found.append((await client.ask("POST", f"{path}/ready", b'{"timeout_s": 30}', base)).json)

        with anyio.fail_after(10):
            async with anyio.create_task_group() as group:
                for _ in range(AT_ONCE):
                    group.start_soon(wait)
                await anyio.sleep(0.3)  # all of them wait
                told = json.dumps({"number": first["number"], "usage": {"input_uncached": 10, "output": 1}}).encode()
                assert (await client.ask("POST", f"{path}/after", told, base)).status == 200

    anyio.run(main)
    assert sum(len(each["steps"]) for each in found) == 1


def test_too_large_a_body_is_refused_whatever_its_length_claims(client: Any) -> None:
    base = [(b"host", b"localhost"), (b"authorization", b"Bearer a-token-of-these-tests-alone")]

    async def main() -> None:
        told = await client.ask("POST", "/v1/sessions", b"{}", [*base, (b"content-length", b"9" * 30)])
        large = b" " * (MAX_BODY_BYTES + 1)
        lying = await client.ask("POST", "/v1/sessions", large, [*base, (b"content-length", b"2")], parts=64)
        assert (told.status, lying.status) == (413, 413)

    anyio.run(main)


def test_the_description_is_the_one_in_the_docs_and_fits_the_messages(client: Any) -> None:
    told = client.get("/openapi.json").json
    assert told == description(OPERATIONS)
    kept = (ROOT / "docs" / "openapi.json").read_text(encoding="utf-8")
    assert kept == json.dumps(told, indent=1) + "\n", "run: python docs/update_openapi.py"
    assert set(told["paths"]) == {operation.path for operation in OPERATIONS}
    path = opened(client)
    step = client.post(f"{path}/before", {"agent": "a", "items": [{"content": "x"}]}).json
    schema = {"$ref": "#/components/schemas/StepAnswer", "components": told["components"]}
    jsonschema.validate(step, schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**step, "number": "1"}, schema)


FUZZED = 10_000


def test_malformed_messages_never_crash_the_application(client: Any) -> None:
    rng = random.Random(7)  # noqa: S311  (no secret)
    path = opened(client, max_tokens=10_000)
    paths = [operation.path.replace("/v1/sessions/{session_id}", path) for operation in OPERATIONS]
    paths = [one for one in paths if not one.endswith(("/close", "/wait"))] + ["/", "//", "/v1/../health", "/v1/%00"]
    good = [
        b'{"agent":"a","items":[{"content":"x","kind":"user"}],"unchanged":0,"key":"k"}',
        b'{"number":1,"usage":{"output":3,"input_uncached":4},"output":"said"}',
        b'{"workflow":"w","max_tokens":1000,"policies":["defer"]}',
        b'{"handle":"h:00000000","range":"1-2"}',
        b'{"problem":{"agents":[]}}',
    ]
    base = [(b"host", b"localhost"), (b"authorization", b"Bearer a-token-of-these-tests-alone")]

    def mangled(data: bytes) -> bytes:
        kind = rng.randrange(6)
        at = rng.randrange(len(data) + 1)
        if kind == 0:
            return data[:at]
        if kind == 1:
            return data[:at] + rng.randbytes(rng.randrange(1, 9)) + data[at:]
        if kind == 2:
            return (
                data[:at] + rng.choice([b"null", b"-1", b"1e999", b'"\\ud800"', b"[]", b"{}", b"true"]) + data[at + 1 :]
            )
        if kind == 3:
            return data.replace(b'"', rng.choice([b"'", b"", b'""']), rng.randrange(1, 4))
        if kind == 4:
            return rng.randbytes(rng.randrange(60))
        return data + data

    statuses: dict[int, int] = {}

    async def main() -> None:
        for number in range(FUZZED):
            method = rng.choice(["POST", "POST", "POST", "GET", "DELETE", "PUT", "x"])
            target = rng.choice(paths)
            if method == "DELETE" and target == path:
                continue
            answer = await client.ask(method, target, mangled(rng.choice(good)), base, parts=rng.choice([1, 2]))
            statuses[answer.status] = statuses.get(answer.status, 0) + 1
            assert answer.status != 500, (number, method, target, answer)
            assert b"Traceback" not in answer.body
            assert answer.status < 400 or answer.kind == "application/problem+json", answer

    anyio.run(main)
    assert client.get("/health").status == 200
    assert sum(statuses.values()) > 0.9 * FUZZED
    assert {200, 404, 405, 422} <= set(statuses)


@pytest.mark.parametrize(
    ("made", "said"),
    [(float("nan"), "has made no vector of a text"), (OSError("weights are gone"), "weights are gone")],
)
def test_embeddings_that_fail_are_said_in_the_health_and_in_the_answer(
    client_of: Any, failing_embedder: Any, made: object, said: str
) -> None:
    gate = Gate(Vectors(failing_embedder(made)), seconds=60.0)
    service = Service(Planner(), tools=Tools(gate=gate), embeddings=True)
    client = client_of(service)
    assert client.get("/health").json["warm"] == {"planner": "loading", "embeddings": "ready"}
    service.warm_embeddings()
    health = client.get("/health").json
    assert health["warm"]["embeddings"] == "failed"
    assert said in health["degraded"][0]
    texts = {"original": "The bridge is long. It is made of iron.", "compressed": "The bridge is long."}
    found = client.post("/v1/validate", texts).json
    assert (found["accepted"], found["similarity"]) == (False, None)
    assert said in found["similarity_reason"]


def test_without_the_extra_the_health_says_so_and_nothing_is_degraded(
    client_of: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("apportion.compression.similarity.gate.is_installed", lambda: False)
    service = Service(Planner(), embeddings=True)
    service.warm_embeddings()
    health = client_of(service).get("/health").json
    assert (health["warm"]["embeddings"], health["degraded"]) == ("not installed", [])
