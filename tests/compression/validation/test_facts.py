from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apportion.compression.validation.facts import (
    MAX_ERROR_LINE,
    MAX_QUOTE,
    MAX_RUN,
    error_lines,
    extract_facts,
    missing_facts,
)

if TYPE_CHECKING:
    from collections.abc import Callable

JSON_RESULT = """{"orderId": "ord_81723", "items": [{"sku": "SKU-40912", "price": 129.95, "qty": 3},
 {"sku": "B77x", "price": 1250}], "created_at": "2025-03-14T09:26:53Z", "total": 1639.85,
 "callback": "https://shop.example.com/api/v2/orders/81723?full=1"}"""
LOG = """2025-03-14 09:26:53,112 INFO  [worker-7] app.jobs.sync_orders: fetched 4,812 rows in 318ms (cache 97.5%)
2025-03-14 09:26:54,001 ERROR [worker-7] app.jobs.sync_orders: ConnectionError: 10.4.0.17:5432 refused after 30s
2025-03-14 09:27:01,950 WARN  [worker-12] retryPolicy=expBackoff attempt 12 of 15, trace 9f86d081884c7d65"""
CODE = """def load_settings(path: Path, *, max_retries: int = 25) -> AppSettings:
    raw = path.read_text(encoding="utf-8")
    if len(raw) > MAX_BYTES or raw.startswith('-- disabled'):
        raise SettingsError(f"cannot use {path}")  # see docs/settings.md:118
    return AppSettings.model_validate_json(raw, context={"retries": max_retries})"""
MARKDOWN = """## Release v2.14.0-rc.1 (2025-02-28)
Run `make release VERSION=2.14.0` in ./tools/release, never on /srv/prod/www. Budget: $12,500.00, at most 1,500 calls.

```toml
[tool.pytest.ini_options]
addopts = "--import-mode=importlib"
```
The id is 3f2b8c1e-9d47-4a55-8e0c-1b2a3c4d5e6f; the commit is 7d3ac01; HttpClient replaces urllib3.PoolManager."""
GREP = """src/core/engine.go:217:	if err := store.SaveCheckpoint(ctx, runID); err != nil {
src/core/engine.go:231:	log.Printf("checkpoint %s saved in %d ms", runID, elapsedMs)
pkg/util/clock_test.go:45:	require.Equal(t, int64(1700000123), fakeClock.Unix())"""
TEXTS = {"json": JSON_RESULT, "log": LOG, "code": CODE, "markdown": MARKDOWN, "grep": GREP}


@pytest.mark.parametrize(
    ("text", "facts"),
    [
        (
            "took 318ms, 97.5% of 4096 in -12 steps at 1e-5 for $12.50",
            {"318ms", "97.5%", "4096", "-12", "1e-5", "$12.50"},
        ),
        ("7 of 9 were fine", set()),
        (
            "max_tokens maxTokens HttpClient HTTPServer MAX_TOKENS __init__ sha256 Word word",
            {"max_tokens", "maxTokens", "HttpClient", "HTTPServer", "MAX_TOKENS", "__init__", "sha256"},
        ),
        ("os.path.join, docker-compose.yml; gpt-4.1-mini", {"os.path.join", "docker-compose.yml", "gpt-4.1-mini"}),
        (
            "/etc/app/a.conf ./run.sh ../x/y ~/notes src/a.py cmd/entire/cli and/or",
            {"/etc/app/a.conf", "./run.sh", "../x/y", "~/notes", "src/a.py", "cmd/entire/cli"},
        ),
        ("opened C:\\Users\\nora\\new.txt", {"C:\\Users\\nora\\new.txt"}),
        (
            "see [it](https://a.example/b/c?d=12&e=f#g). Or (http://b.example/).",
            {"https://a.example/b/c?d=12&e=f#g", "http://b.example/"},
        ),
        (
            "id 3f2b8c1e-9d47-4a55-8e0c-1b2a3c4d5e6f at 9f86d081884c7d65",
            {"3f2b8c1e-9d47-4a55-8e0c-1b2a3c4d5e6f", "9f86d081884c7d65"},
        ),
        (
            "2025-03-14T09:26:53Z 2025-03-14 05/15/2024 09:26:53 v1.2.3-rc.1 10.4.0.17:5432",
            {"2025-03-14", "09:26:53Z", "05/15/2024", "09:26:53", "v1.2.3-rc.1", "10.4.0.17", "5432"},
        ),
        ("it's 'in order' and \"not yet\" or `never again`, don't", {"in order", "not yet", "never again"}),
        ("file.py:120:45: ValueError: no", {"file.py", "120", "45", "ValueError", "file.py:120:45: ValueError: no"}),
        ("Write to jo.doe+x@mail.example.org or 'jo@example.com'", set()),
        ("größe_max übung_x 共12个 → 34", {"größe_max", "übung_x", "12", "34"}),
    ],
)
def test_finds_what_counts_as_a_fact_and_nothing_else(text: str, facts: set[str]) -> None:
    assert extract_facts(text) == facts


def test_a_number_inside_a_longer_one_is_not_the_same_fact() -> None:
    assert "12" not in extract_facts("123 and 0.125 and x12")


@pytest.mark.parametrize(
    ("text", "facts"),
    [
        ("[100,200,300]", {"100", "200", "300"}),
        ("(100,200)", {"100", "200"}),
        ("10,20,30", {"10", "20", "30"}),
        ('{"a":41,"b":42}', {"41", "42"}),
        ("1,234 rows (5,678 more), 1,234,567.89 in all.", {"1234", "5678", "1234567.89"}),
        ("$1,250.00", {"$1250.00"}),
    ],
)
def test_commas_separate_numbers_unless_they_group_thousands(text: str, facts: set[str]) -> None:
    assert extract_facts(text) == facts


def test_code_fences_hide_nothing() -> None:
    facts = extract_facts("before 11\n```python\nrun_it(22)\n```\nbetween 33\n```\nlast_one = 44\n```\nafter 55 ``` 66")
    assert {"11", "22", "33", "44", "55", "66", "run_it", "last_one"} <= facts
    assert not any("\n" in fact for fact in facts)


def test_an_odd_quote_spoils_only_its_own_line() -> None:
    assert extract_facts('a 5" disk\nsay "hello there"\n') == {"hello there"}


@pytest.mark.parametrize(("length", "is_fact"), [(2, False), (3, True), (MAX_QUOTE, True), (MAX_QUOTE + 1, False)])
@pytest.mark.parametrize("mark", ['"', "'", "`"])
@pytest.mark.parametrize("letter", ["z", "字"])
def test_quotes_have_3_to_80_characters(mark: str, letter: str, length: int, *, is_fact: bool) -> None:
    assert (letter * length in extract_facts(f"see {mark}{letter * length}{mark} there")) == is_fact


def test_text_inside_json_strings_is_read_like_the_text_itself() -> None:
    plain = 'first_name\tset to "Ada Byron"\nnext_step'
    assert extract_facts(plain) == {"first_name", "Ada Byron", "next_step"}
    escaped = '{"out": "first_name\\tset to \\"Ada Byron\\"\\nnext_step"}'
    assert extract_facts(escaped) == extract_facts(plain) | {"out"}
    twice = escaped.replace("\\", "\\\\").replace('"', '\\"')
    assert extract_facts(plain) <= extract_facts(twice)


def test_terminal_colours_are_not_part_of_a_word() -> None:
    assert extract_facts("\x1b[31mexit_code\x1b[0m \\u001b[1m77\\u001b[0m") == {"exit_code", "77"}


def test_an_error_line_is_a_fact_as_a_whole_and_capped() -> None:
    line = "E   ConnectionError: refused by the peer"
    assert line in extract_facts(f"ok\n   {line}  \nok")
    long = "Error: " + "x y " * 1000
    assert long[:MAX_ERROR_LINE] in extract_facts(long)


@pytest.mark.parametrize("name", TEXTS)
def test_every_changed_fact_is_noticed(name: str) -> None:
    text = TEXTS[name]
    changes = 0
    for fact in extract_facts(text):
        for position in (position for position, mark in enumerate(fact) if mark.isascii() and mark.isalnum()):
            damaged = text.replace(fact, fact[:position] + _other(fact[position]) + fact[position + 1 :])
            if damaged != text:  # a canonical form may differ from the spelling
                changes += 1
                assert fact not in extract_facts(damaged)
    assert changes > 100


@pytest.mark.parametrize("name", TEXTS)
def test_every_dropped_fact_is_noticed(name: str) -> None:
    text = TEXTS[name]
    facts = extract_facts(text)
    for fact in facts:
        if fact in text:
            assert facts - extract_facts(text.replace(fact, " "))


def test_canonical_forms_notice_a_change_as_well() -> None:
    assert extract_facts("4,812 rows") != extract_facts("4,813 rows")
    assert extract_facts("4,812 rows") == extract_facts("4812 rows")
    assert extract_facts("2025-03-14T09:26:53Z") - extract_facts("2025-03-14T09:26:54Z") == {"09:26:53Z"}


def test_all_kinds_of_white_space_around_a_fact_are_alike() -> None:
    assert extract_facts(" ".join(CODE.split())) >= {"max_retries", "25", "AppSettings", "docs/settings.md", "118"}


_PARTS = st.sampled_from(
    [" ", "\n", "\r", "\t", "\\", "\\n", '\\"', '"', "'", "`", "```", "a", "Z", "é", "字", "→", "7", "42", "_", "-",
     ".", "/", ":", ",", "@", "%", "$", "(", "]", "\x1b[0m", "\0", "\ud800", "foo_bar", "x.py", "1,234", "C:\\",
     "Error:", "https://", "2025-03-14T"]
)  # fmt: skip
_TEXTS = st.lists(_PARTS, max_size=25).map("".join)


@given(_TEXTS, _TEXTS)
def test_the_facts_of_lines_are_those_of_each_line(first: str, second: str) -> None:
    assert extract_facts(f"{first}\n{second}") == extract_facts(first) | extract_facts(second)


@given(st.text(st.characters(), max_size=200))
def test_any_text_has_facts_without_line_ends_or_white_space_around_them(text: str) -> None:
    for fact in extract_facts(text):
        assert fact
        assert "\n" not in fact
        assert fact.strip(" \t\r\n") == fact


def test_a_run_that_is_too_long_for_a_fact_hides_none_beside_it() -> None:
    blob = "A1" * MAX_RUN
    assert {"foo_bar", "42"} <= extract_facts(f'{{"blob":"{blob}","foo_bar":42}}')


def test_a_long_line_without_spaces_has_the_facts_of_its_parts() -> None:
    part = '{"at":"10:30","rows":4711,"ids":[100,200],"path":"/a/b.py","total":"1,234"}'
    assert extract_facts("[" + ",".join([part] * 100) + "]") == extract_facts(part)


ADVERSARIAL = [
    "1", "a1+", "12-", "12/", "a.", "1.", "a/", "/a", "~/a", "../", "a-1-", "_", "aA", "'", '"', "\\", '\\"', "a@",
    "a.b@c.", "error:", "Error: ", "1,", "1,234,", "0123abcd-", "https://", "12:34:", "2024-01-01T", "\x1b[", "→12",
    "共12个", "C:\\a",
]  # fmt: skip


@pytest.mark.parametrize("pattern", ADVERSARIAL)
def test_time_grows_in_proportion_to_the_text(
    pattern: str, growth: Callable[[Callable[[int], Callable[[], object]], int], float]
) -> None:
    extract_facts("warm_up 42")

    def extraction(size: int) -> Callable[[], object]:
        text = (pattern * (size // len(pattern) + 1))[:size]
        return lambda: extract_facts(text)

    assert growth(extraction, 20_000) < 40


def test_a_line_of_ten_megabytes_is_read() -> None:
    line = "abc def_12 /x/y,'z' (4.5) " * 400_000
    assert extract_facts(line) == extract_facts(line[:26])


def test_facts_do_not_depend_on_the_hash_seed() -> None:
    program = "from apportion.compression.validation.facts import extract_facts; print(sorted(extract_facts('''%s''')))"
    outputs = {
        subprocess.run(
            [sys.executable, "-c", program % GREP], env={"PYTHONHASHSEED": seed}, capture_output=True, check=True
        ).stdout
        for seed in ("1", "2")
    }
    assert len(outputs) == 1


def _other(mark: str) -> str:
    return {"9": "1", "z": "a", "Z": "A"}.get(mark) or chr(ord(mark) + 1)


def test_context_lines_of_a_search_hold_a_path_and_a_number() -> None:
    text = "/home/me/cli/state.go-96-\tif x {\nsrc/a-1.b/app.py-107-    return None"
    assert extract_facts(text) == {"/home/me/cli/state.go", "96", "src/a-1.b/app.py", "107"}
    assert extract_facts("docker-compose-2-x.yml") == {"docker-compose-2-x.yml"}


def test_error_lines_are_whole_lines() -> None:
    assert error_lines("fine\n  ERROR: it failed\nfine") == {"ERROR: it failed"}


def test_a_fact_is_missing_unless_it_stands_alone_somewhere() -> None:
    facts = extract_facts('{"name": "Ada Byron", "size": 1234, "path": "src/app.py"}')
    assert not missing_facts(facts, "name|Ada Byron|size|1234|path|src/app.py")
    assert missing_facts(facts, "xname|Ada Byrons|size|12345|path|src/app.py2") == facts - {"size", "path"}
    assert missing_facts([], "") == frozenset()
