"""The examples of docs/adapters.md, each where its framework is installed."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[4] / "docs" / "adapters.md"
FOUND = re.findall(
    r"^```python framework=(\w+)\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL
)
EXAMPLES = {framework: code for framework, code in FOUND if "Variants(" not in code}
(SIMPLIFIED,) = [code for _, code in FOUND if "Variants(" in code]


@pytest.mark.needs_litellm
@pytest.mark.filterwarnings("ignore:.*`ReadOnly` qualifier:UserWarning")  # LiteLLM's own types
def test_the_example_for_litellm_works(capsys: pytest.CaptureFixture[str]) -> None:
    os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")
    run("litellm", capsys)


@pytest.mark.parametrize("framework", ["langchain", "agents", "pydantic_ai"])
def test_each_example_works_and_sends_less(framework: str, capsys: pytest.CaptureFixture[str]) -> None:
    run(framework, capsys)


def test_the_example_of_a_simplified_variant_calls_the_other_model(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("langchain")
    exec(compile(SIMPLIFIED, str(PAGE), "exec"), {"__name__": "example"})  # noqa: S102  (our own page)
    assert capsys.readouterr().out.startswith("In short. simplified: runs as 'simplified'")


def run(framework: str, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip(framework)
    exec(compile(EXAMPLES[framework], str(PAGE), "exec"), {"__name__": "example"})  # noqa: S102  (our own page)
    found = re.search(r"^Three orders are late\. Tokens not sent: ([0-9]+)$", capsys.readouterr().out, re.MULTILINE)
    assert found is not None
    assert int(found.group(1)) > 500


def test_there_is_an_example_for_each_framework() -> None:
    assert set(EXAMPLES) == {"langchain", "agents", "pydantic_ai", "litellm"}
