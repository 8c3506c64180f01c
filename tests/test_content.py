from __future__ import annotations

import json

import pytest

from apportion.content import SAMPLE_CHARS, ContentClass, _sample, cjk_chars, classify, non_latin_chars

PROSE = """The planner decides before each call how many tokens an agent may use. When the budget does not suffice,
the plan says what is deferred and why. A saving is quoted together with its baseline, because averages prove little.
"""
CODE = '''def add(self, key: str, value: int) -> None:
    """Store a value."""
    if key in self._items:
        raise KeyError(key)
    self._items[key] = value
    return None
'''
LOGS = """2026-11-02 10:15:31,102 INFO server started on port 8080
2026-11-02 10:15:32,417 WARN slow request: 812 ms
2026-11-02 10:15:33,090 ERROR connection reset by peer
"""
CHAT = """user: Please change my flight to Friday.
assistant: I can do that. May I have your booking number?
user: It is H4XK2P.
assistant: Thank you, the new flight leaves at 9:40.
"""
RECORD = {"id": 17, "name": "widget", "price": {"amount": 1.5, "currency": "EUR"}, "tags": ["a", "b"]}

EXAMPLES = {
    ContentClass.PROSE: PROSE,
    ContentClass.CODE: CODE,
    ContentClass.LOGS: LOGS,
    ContentClass.TRANSCRIPT: CHAT,
    ContentClass.JSON_MINIFIED: json.dumps([RECORD] * 3, separators=(",", ":")),
    ContentClass.JSON_PRETTY: json.dumps([RECORD] * 3, indent=2),
    ContentClass.CJK: "计划在每次调用之前决定每个代理可以使用多少令牌。予算が足りない場合、計画はその理由を示します。",
    ContentClass.NON_LATIN: "План решает, сколько токенов может использовать агент. Бюджет ограничен.",
}


@pytest.mark.parametrize("kind", EXAMPLES)
def test_typical_texts_are_told_apart(kind: ContentClass) -> None:
    assert classify(EXAMPLES[kind]) == kind


@pytest.mark.parametrize("kind", EXAMPLES)
def test_a_long_text_is_told_by_its_sample(kind: ContentClass) -> None:
    repeats = 40_000 // len(EXAMPLES[kind])
    text = json.dumps([RECORD] * 500, indent=2) if kind is ContentClass.JSON_PRETTY else EXAMPLES[kind] * repeats
    assert classify(text) == kind


def test_numbered_lines_of_code_are_code() -> None:
    numbered = "\n".join(f"{number:6d}→{line}" for number, line in enumerate(CODE.splitlines(), 1))
    assert classify(numbered) == ContentClass.CODE


def test_an_empty_text_has_a_class_too() -> None:
    assert classify("") == ContentClass.PROSE


def test_characters_outside_latin_script_are_counted() -> None:
    assert cjk_chars("abc 你好。") == 3
    assert non_latin_chars("abc 你好。Привет") == 9
    assert non_latin_chars("Grüße – naïve café €") == 0


def test_only_a_sample_of_a_long_text_is_looked_at() -> None:
    text = (PROSE + CODE) * 3000
    assert len(text) > 500_000
    assert len(_sample(text)) <= 3 * SAMPLE_CHARS + 2
    assert classify(text) == classify(_sample(text))
