"""Write docs/report.md from the schema and the definitions of the report, or check it with `--check`."""

from __future__ import annotations

import inspect
import re
import sys
import types
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel

from apportion.planner.report.definitions import STATUS_DEFINITIONS
from apportion.planner.report.figures import breakable
from apportion.planner.report.schema import ReplayReport

PAGE = Path(__file__).with_name("report.md")

INTRODUCTION = """\
# The report of a replay

<!-- Written by docs/update_report.py from schema.py and definitions.py in planner/report; renewed by `make docs`. -->

`apportion replay LOGS --json report.json` writes the exact figures; the terminal and `--html report.html` show the same
ones, rounded. Later versions add fields and never change the meaning of one, so a reader must ignore fields that it
does not know.

- A figure is `null` where the logs do not allow one, never 0 in its place.
- Shares are in [0, 1]. A `saved_share` may be negative: then planning needs more than doing nothing.
- Tokens are whole numbers, added up over all calls; money is in US dollars.
- *Baseline* is the workflow as logged, *planned* the same workflow with planning.
- Only workflows whose models all have a known price have a bill: `priced_workflows` counts them, `unpriced_models`
  names the models that lack one. See
  [where prices and token counts come from](replay.md#where-prices-and-token-counts-come-from).
- In the terminal and in HTML, `~` before a figure says that a part of it is estimated; the line under the ledgers says
  for how many workflows, and why.

From Python:

```python
from apportion.planner.report.schema import ReplayReport


def bill_saved(path: str) -> float | None:
    with open(path, encoding="utf-8") as file:
        report = ReplayReport.model_validate_json(file.read())
    return report.ledgers.bill_usd.saved_share


def why_tokens_were_saved(report: ReplayReport) -> dict[str, int]:
    saved: dict[str, int] = {}
    for row in report.actions:
        saved[row.reason] = saved.get(row.reason, 0) + row.saved_tokens
    return saved
```

## The page

`--html report.html` writes one file that loads nothing: no network, no fonts, no second file. It can be sent as it is.

- It starts with the result and the five ledgers, then shows where tokens and money went per agent and stage, what the
  plans did and why, what was left out, forecasts beside what came, and every workflow.
- Long tables are sorted by a click on a header, or with Tab and Enter, and searched for words; what is unknown stays
  last. Without JavaScript all figures are there, as tables.
- It prints: of a long table the first 40 rows. It follows the light or dark setting of the browser.
- It holds names of agents, tools, models and files as logged, and **no content**, unless `--show-content` was given:
  then each piece that was left out opens with how it begins, up to 1,500 characters.
- With `--keep-originals`, these pieces are kept in the store of originals on this machine, and the page names the
  command that gives each back: `apportion expand h:3fa9c2d1`.
- Shown one by one are the 50 pieces that saved most, in the JSON report 200, of a workflow 20; the sums cover all.
"""

SCALARS = {int: "whole number", float: "number", str: "string", bool: "true or false", types.NoneType: "null"}


def page() -> str:
    """Return the whole page."""
    return INTRODUCTION + "".join(f"\n{_section(model)}" for model in _models(ReplayReport)) + f"\n{_statuses()}"


def _statuses() -> str:
    rows = "".join(f"| `{status}` | {breakable(meaning)} |\n" for status, meaning in STATUS_DEFINITIONS.items())
    return (
        "## Plan statuses\n\nBefore each invocation there is one plan of the budget, with one of these statuses.\n\n"
        f"| status | meaning |\n|---|---|\n{rows}"
    )


def _models(model: type[BaseModel]) -> list[type[BaseModel]]:
    """Return a model and those that it mentions, in the order of their first mention."""
    found: dict[type[BaseModel], None] = {model: None}
    queue = [model]
    while queue:
        for field in queue.pop(0).model_fields.values():
            for mentioned in _mentioned(field.annotation):
                if mentioned not in found:
                    found[mentioned] = None
                    queue.append(mentioned)
    return list(found)


def _mentioned(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for part in get_args(annotation) for model in _mentioned(part)]


def _section(model: type[BaseModel]) -> str:
    meanings = _meanings(model)
    rows = []
    for name, field in model.model_fields.items():
        written = field.alias or name
        rows.append(f"| `{written}` | {_type(field.annotation)} | {meanings[written]} |")
    summary = _as_json_words((inspect.getdoc(model) or "").split("\n\nAttributes:")[0])
    return f"## {model.__name__}\n\n{summary}\n\n| field | type | meaning |\n|---|---|---|\n" + "\n".join(rows) + "\n"


def _meanings(model: type[BaseModel]) -> dict[str, str]:
    """Return what the `Attributes:` of a class and its bases say about each field."""
    meanings: dict[str, str] = {}
    for base in reversed(model.__mro__):
        _, _, attributes = inspect.cleandoc(base.__doc__ or "").partition("Attributes:\n")
        for name, text in re.findall(r"^    (\w+): (.+(?:\n {8}.+)*)", attributes, re.MULTILINE):
            meanings[name] = _as_json_words(" ".join(text.split()))
    return meanings


def _as_json_words(text: str) -> str:
    return text.replace("`None`", "`null`")


def _type(annotation: Any) -> str:
    if annotation in SCALARS:
        return SCALARS[annotation]
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return f"[{annotation.__name__}](#{annotation.__name__.lower()})"
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return " or ".join(f'`"{value}"`' for value in arguments)
    if origin is list:
        return f"list of {_type(arguments[0])}"
    if origin is dict:
        return f"object of {_type(arguments[1])}"
    if origin in {Union, types.UnionType}:
        return " or ".join(_type(argument) for argument in arguments)
    raise TypeError(f"no words for {annotation}")


def main() -> int:
    """Write the page, or compare it."""
    text = page()
    if "--check" not in sys.argv[1:]:
        PAGE.write_text(text, encoding="utf-8")
        return 0
    if PAGE.read_text(encoding="utf-8") == text:
        return 0
    print("docs/report.md is not what the schema says: run `make docs`", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
