"""Whatever comes in, out comes a problem or an error that names the field; never anything else.

5,000 payloads, made from good ones by one to three changes each; the same ones in every run.
"""

from __future__ import annotations

import json
import random
import re
import time
from typing import TYPE_CHECKING, Any

import pytest

from apportion.errors import InputError
from apportion.planner.problem import (
    Agent,
    Form,
    HandBack,
    Item,
    ItemUse,
    Model,
    Preload,
    PriceTier,
    Problem,
    Stage,
    Variant,
)
from apportion.planner.validate import validate_plan
from apportion.records import Demand

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from apportion.planner.plan import Plan

PAYLOADS = 5_000
BATCH = 500

HUGE = [2**53 + 1, 2**63, -(2**63), 10**30, 10**400, 10**5000]
WRONG: list[Any] = [
    *[-1, 0, 1, -(10**9), 2**53, True, 0.5, -0.0, float("nan"), float("inf"), float("-inf"), 1e400, None],
    *[
        "",
        " ",
        "x",
        "\0",
        "\ud800",
        "é",
        "e\u0301",
        "👩‍👧",
        "\u202eabc",
        "a" * 201,
        "a" * 10**5,
        "NaN",
        "12",
        "1e3",
        "5m",
    ],
    *[[], {}, [[]], [{}], {"id": "x"}, [1, 2], ["a0"], b"x", object(), 3 + 4j, {1, 2}, (), Ellipsis, int],
    *HUGE,
]
"""Values of the wrong type, size or sign; some are right where they happen to land."""

FIELDS = {
    name
    for record in (Problem, Model, PriceTier, Stage, Agent, Variant, ItemUse, HandBack, Preload, Item, Form, Demand)
    for name in record.model_fields
}


def _somewhere(payload: Any, rng: random.Random) -> tuple[Any, Any]:
    """Return a container in a payload, and a key of it, at any depth."""
    parent, key = payload, rng.choice(list(payload))
    for _ in range(6):
        inner = parent[key]
        if not inner or not isinstance(inner, dict | list) or rng.random() < 0.12:
            break
        parent, key = inner, rng.choice(list(inner) if isinstance(inner, dict) else range(len(inner)))
    return parent, key


def _nested(depth: int) -> Any:
    value: Any = 0
    for _ in range(depth):
        value = [value] if depth % 2 else {"a": value}
    return value


def _loop() -> list[Any]:
    loop: list[Any] = []
    loop.append(loop)
    return loop


NESTED = [_nested(10), _nested(2_001), _nested(20_000), _loop()]


def _change(payload: dict[str, Any], rng: random.Random) -> None:
    """Change one thing anywhere in a payload."""
    parent, last = _somewhere(payload, rng)
    kind = rng.randrange(10)
    if kind == 0:
        del parent[last]
    elif kind == 1 and isinstance(parent, list):
        parent.insert(rng.randrange(len(parent) + 1), parent[last])  # an id that is there twice
    elif kind == 1:
        parent[rng.choice(["extra", "tokens", "", "é", 7, None])] = rng.choice(WRONG)
    elif kind == 2:
        parent[last] = rng.choice(NESTED)
    elif kind == 3 and isinstance(parent[last], int) and abs(parent[last]) < 10**300:
        parent[last] = rng.choice([*HUGE, -parent[last], parent[last] * 10**12, str(parent[last]), float(parent[last])])
    elif kind == 4 and isinstance(parent[last], str):
        parent[last] = rng.choice([parent[last] + "x", parent[last].upper(), "a0", "i0", "s0", "m0", "nobody"])
    else:
        parent[last] = rng.choice(WRONG)


def _tangle(payload: dict[str, Any], rng: random.Random) -> None:
    """Break what records say of each other."""
    agents, stages = payload["agents"], payload["stages"]
    one, other = rng.choice(agents), rng.choice(agents)
    kind = rng.randrange(12)
    if kind == 0:
        one["after"], other["after"] = [other["id"]], [one["id"]]
    elif kind == 1:
        one["reports_to"], other["reports_to"] = other["id"], one["id"]
    elif kind == 2:
        first, last = rng.choice(stages), rng.choice(stages)
        first["after"], last["after"] = [last["id"]], [first["id"]]
    elif kind == 3:
        payload["agents"] = []
    elif kind == 4:
        payload["stages"], payload["models"], payload["items"] = [], [], []
    elif kind == 5:
        payload["max_tokens"] = payload["reserve_tokens"] = 0
        payload["max_cost_nusd"] = 0
    elif kind == 6:
        for variant in one["variants"]:
            variant["calls"], variant["weight"] = 10**6, 10**6
            variant["demand"]["tokens"] = [2**53] * len(variant["demand"]["tokens"])
    elif kind == 7:
        one["hand_backs"] = [{"id": "h", "tokens": 2**50}]
        one["reports_to"] = other["id"]
        other["variants"][0]["calls"] = 10**6
    elif kind == 8:
        for item in payload["items"]:
            item["tokens"] = 2**53
    elif kind == 9:
        payload["models"][0]["output"] = payload["models"][0]["cache_write_1h"] = 10**12
        one["variants"][0]["calls"] = 10**6
    elif kind == 10:
        stages[0]["max_latency_ms"] = 0
    else:
        one["cached_uses"] = 99


def _payload(seed: int, good: list[str]) -> Any:
    rng = random.Random(seed)  # noqa: S311  (for examples, not for secrets)
    payload = json.loads(good[seed % len(good)])
    if seed % 50 == 0:
        return rng.choice([*WRONG, *NESTED, [payload], json.dumps(payload)])
    if rng.random() < 0.3:
        _tangle(payload, rng)
    for _ in range(rng.randint(0 if rng.random() < 0.3 else 1, 3)):
        _change(payload, rng)
    return payload


@pytest.fixture(scope="module")
def good(planned: Callable[[int], tuple[Problem, Plan]]) -> list[str]:
    return [planned(seed)[0].model_dump_json() for seed in range(20)]


def _parse(payload: Any) -> Problem | None:
    """Return the problem, or `None` after an error that says where and what."""
    try:
        return Problem.parse(payload)
    except InputError as refused:
        error = refused
    text = str(error)
    assert len(text) < 2_000
    assert text.isprintable()
    words = set(re.findall(r"[a-z_]+", error.message))
    named = words & FIELDS or {f"{word}s" for word in words} & FIELDS
    assert named or re.match(r"\S+: ", error.message), text
    return None


@pytest.mark.parametrize("start", range(0, PAYLOADS, BATCH))
def test_a_payload_gives_a_problem_or_an_error_that_names_the_field(start: int, good: list[str]) -> None:
    problems = [_parse(_payload(seed, good)) for seed in range(start, start + BATCH)]
    refused = problems.count(None)
    assert 0.5 * BATCH < refused < BATCH  # both happen, or these payloads would show nothing
    for problem in problems:
        if problem is not None:
            assert Problem.parse(problem.model_dump(mode="json")) == problem


@pytest.mark.parametrize(
    ("payload", "said"),
    [
        ({}, "models: Field required (and 2 more)"),
        ({"models": [], "stages": [], "agents": []}, "a problem needs at least one agent. Add an entry to agents"),
        ([], "problem: Input should be a valid dictionary or instance of Problem"),
        ({"é\n": 1}, "é\\n: Extra inputs are not permitted"),
    ],
)
def test_messages_are_for_people(payload: Any, said: str) -> None:
    with pytest.raises(InputError) as refused:
        Problem.parse(payload)
    assert said in str(refused.value) or re.search(r"and \d more", str(refused.value))


def test_a_contradiction_within_a_record_is_placed(good: list[str]) -> None:
    payload = json.loads(good[0])
    payload["agents"][0]["variants"][-1] |= {"floor_tokens": 9, "max_tokens": 8}
    number = len(payload["agents"][0]["variants"]) - 1
    with pytest.raises(InputError, match=rf"^agents\.0\.variants\.{number}: variant '\w+' must get 9 tokens"):
        Problem.parse(payload)
    payload = json.loads(good[0])
    payload["items"][1]["forms"] = [{"action": "keep", "tokens": 1}]
    with pytest.raises(InputError, match=r"^items\.1\.forms\.0: a form must not keep the piece whole"):
        Problem.parse(payload)


def test_sums_of_accepted_problems_are_exact(overflowing: Callable[[int, int], tuple[Problem, Plan] | None]) -> None:
    """The arrays count in 64 bits, the validator in as many as it takes: where one overflowed, they would differ."""
    tried = 0
    for seed in range(60):
        for digits in range(1, 10):
            found = overflowing(seed, digits)
            if found is not None:
                assert validate_plan(*found) == ()
                tried += 1
    assert tried > 60


def test_a_result_that_is_too_long_for_the_calls_of_its_receiver_is_refused(good: list[str]) -> None:
    payload = json.loads(good[1])
    one, other = payload["agents"][:2]
    one |= {"hand_backs": [{"id": "h", "tokens": 2**45}], "reports_to": other["id"]}
    other["reports_to"] = None
    other["variants"] = [other["variants"][0] | {"calls": 10**6}]
    with pytest.raises(InputError, match=r"add up to [\d,]+ tokens, more than 2\^53"):
        Problem.parse(payload)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("nan.json", b'{"models": [], "stages": [], "agents": [], "max_tokens": NaN}'),
        ("deep.json", b"[" * 100_000),
        ("deep.toml", b"a = " + b"[" * 5_000),
        ("number.json", b'{"max_tokens": ' + b"9" * 5_000 + b"}"),
        ("number.toml", b"max_tokens = " + b"9" * 5_000),
        ("latin.toml", b"a = '\xe9'"),
        ("empty.json", b""),
        ("empty.toml", b""),
        ("null.toml", b"\0"),
        ("twice.toml", b"a = 1\na = 2"),
        ("table.json", b"[]"),
    ],
)
def test_a_bad_file_gives_an_error_that_names_it(name: str, content: bytes, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError) as refused:
        Problem.load(tmp_path / name)
    assert str(refused.value).startswith(str(tmp_path / name))


def test_ten_thousand_agents_are_parsed_in_time() -> None:
    demand = {"probabilities": [0.5, 0.9], "tokens": [1000, 2000]}
    agents = [
        {"id": f"a{number}", "stage_id": "s", "variants": [{"model_id": "m", "demand": demand}]}
        for number in range(10_000)
    ]
    prices = dict.fromkeys(("input", "output", "cache_read", "cache_write_5m", "cache_write_1h"), 10**6)
    payload = {"models": [{"id": "m", **prices}], "stages": [{"id": "s"}], "agents": agents}
    before = time.process_time()
    assert len(Problem.parse(payload).agents) == 10_000
    agents[-1]["after"] = ["a9999"]
    with pytest.raises(InputError, match="'a9999' waits for itself"):
        Problem.parse(payload)
    assert time.process_time() - before < 10
