from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apportion.compression.summary import MAX_SUMMARY, summarise

PYTEST = b"""....F.F
FAILED tests/test_app.py::test_a - AssertionError
FAILED tests/test_app.py::test_b[1-2]
=========== 2 failed, 58 passed in 3.21s ===========
"""
GO = b"""=== RUN   TestOne
--- FAIL: TestOne (0.00s)
FAIL
"""
GREP = b"src/app.py:3:def run():\nsrc/app.py:90:    run()\nsrc/web/views.py:12:run()\n"
DIFF = b"diff --git a/x.py b/x.py\n--- a/x.py\n+++ b/x.py\n@@ -1,2 +1,3 @@\n a\n-b\n+c\n+d\n"
READ = "     1→import os\n     2→\n     3→class App:\n     4→    def run(self):\n     5→        pass\n".encode()


@pytest.mark.parametrize(
    ("content", "name", "path", "said"),
    [
        (PYTEST, "Bash", None, "tests: 2 failed, 58 passed: test_a, test_b 1-2"),
        (GO, "Bash", None, "tests: 1 failed: TestOne"),
        (b"Tests:       2 failed, 58 passed, 60 total\n", "Bash", None, "tests: 2 failed, 58 passed"),
        (GREP, "Grep", None, "3 matches in 2 files: src/app.py, src/web/views.py"),
        (DIFF, "Bash", None, "diff of 1 file, +2 -1: x.py"),
        (b'[{"id": 1, "name": "a"}, {"id": 2}]', None, None, "JSON list of 2 items with id, name"),
        (b'{"a": 1, "b": 2, "c": 3, "d": 4, "e": 5}', None, None, "JSON object with a, b, c, d and 1 more"),
        (READ, "Read", "src/app.py", "src/app.py lines 1-5: class App, def run"),
        (b"one\ntwo\n", "Bash", None, "Bash: 2 lines, the first: one"),
        (b"one\nValueError: no\n", "Bash", None, "Bash: 2 lines, 1 error, the first: ValueError: no"),
        (b"", "Bash", None, "nothing"),
    ],
)
def test_a_summary_says_what_is_there(content: bytes, name: str | None, path: str | None, said: str) -> None:
    assert summarise(content, name=name, path=path) == said


@given(st.binary(max_size=300), st.none() | st.text(max_size=200))
def test_a_summary_is_one_short_line_that_ends_no_stub(content: bytes, path: str | None) -> None:
    said = summarise(content, name="Read", path=path)
    assert said.isprintable()
    assert len(said) <= MAX_SUMMARY
    assert not set(said) & set("[]")


def test_a_summary_of_a_large_content_looks_at_its_beginning() -> None:
    assert summarise(b"x" * 10_000_000) == f"1 line, the first: {'x' * 100}…"
