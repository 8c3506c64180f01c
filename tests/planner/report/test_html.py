from __future__ import annotations

import base64
import hashlib
import json
import re
import stat
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from pydantic import BaseModel

from apportion.errors import InputError, MissingExtraError
from apportion.planner.report.charts import AGENTS, WORKFLOWS, _bin_label, _bins, all_charts, forecast_chart
from apportion.planner.report.definitions import STATUS_DEFINITIONS
from apportion.planner.report.figures import NO_BREAK, breakable
from apportion.planner.report.html import _script, available, to_html, write_html
from apportion.planner.report.schema import (
    ConfidenceBin,
    NextAgentPair,
    NextAgentRow,
    ReplayReport,
    Skipped,
    VarianceFigures,
    WorstWorkflow,
)
from apportion.planner.report.tables import Cell, sections

if TYPE_CHECKING:
    from collections.abc import Callable

    from apportion.planner.report.schema import Ledger

EVIL = "</script><script>document.title='broken'</script>"
EVIL += "<img src=x onerror=\"document.title='broken'\">{{70007*7}}'\"&amp;"

EVIL_PIECE = dict.fromkeys(("workflow", "agent", "tool", "kind", "reason", "handle", "head"), EVIL)

FORECAST: dict[str, Any] = {
    "forecasts": 1,
    "coverage": 1.0,
    "hit_rate": 1.0,
    "calibration_error": 0.0,
    "calibration_noise": 0.0,
}

FIGURES: dict[str, Any] = {"count": 1, "coverage": 1.0, "width": 2.0, "bias": 0.5}


class Page(HTMLParser):
    """Elements, attributes, text and scripts of a page, as a parser sees them."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.text = ""
        self._open = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self._open = tag
        if tag == "script":
            self.scripts.append("")

    def handle_endtag(self, tag: str) -> None:  # noqa: ARG002  (the base class passes it)
        self._open = ""

    def handle_data(self, data: str) -> None:
        if self._open == "script":
            self.scripts[-1] += data
        elif self._open != "style":
            self.text += data.replace(NO_BREAK, " ")

    @property
    def policy(self) -> str:
        return next(attrs["content"] or "" for tag, attrs in self.elements if tag == "meta" and "http-equiv" in attrs)

    @property
    def specs(self) -> dict[str, Any]:
        specs = json.loads(self.scripts[0])
        assert isinstance(specs, dict)
        return specs


def hostile(report: ReplayReport) -> ReplayReport:
    """Put a string that attacks the page wherever a log can put one."""
    agents = [row.model_copy(update={"agent": EVIL, "source": EVIL}) for row in report.per_agent]
    workflows = [row.model_copy(update={"id": f"{row.id}{EVIL}", "source": EVIL}) for row in report.per_workflow]
    kinds = [row.model_copy(update={"kind": EVIL}) for row in report.per_kind]
    sources = [row.model_copy(update={"source": EVIL, "framework": EVIL}) for row in report.per_source]
    return report.model_copy(
        update={
            "per_agent": agents,
            "per_workflow": workflows,
            "per_kind": kinds,
            "per_source": sources,
            "settings": {EVIL: EVIL},
            "worst_workflow": WorstWorkflow(id=EVIL, bill_saved_share=-0.5),
            "skipped": Skipped(files=1, lines=0, messages=[EVIL]),
            "per_stage": [row.model_copy(update={"agent": EVIL, "source": EVIL}) for row in report.per_stage[:2]],
            "actions": [
                row.model_copy(update={"agent": EVIL, "source": EVIL, "reason": EVIL}) for row in report.actions[:2]
            ],
            "left_out": [row.model_copy(update=EVIL_PIECE) for row in report.left_out[:2]],
            "next_agent": [NextAgentRow(source=EVIL, **FORECAST)],
            "next_agent_pairs": [
                NextAgentPair(after=EVIL, predicted=EVIL, forecasts=1, sure=1, confidence=1.0, hits=1)
            ],
            "next_agent_bins": [ConfidenceBin(low=0.9, high=1.0, forecasts=1, confidence=1.0, hit_rate=1.0)],
            "plan": report.plan.model_copy(update={"status": {EVIL: 1}, "degraded": {EVIL: 1}}),
            "variance": report.variance.model_copy(update={"by_agent": {EVIL: VarianceFigures(**FIGURES)}}),
        }
    )


def test_it_is_one_file_that_loads_nothing(large_report: ReplayReport, tmp_path: Path) -> None:
    write_html(large_report, tmp_path / "report.html")
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    page = Page(text)
    assert not [tag for tag, _ in page.elements if tag in {"link", "iframe", "object", "embed", "base", "img"}]
    assert not [name for _, attributes in page.elements for name in attributes if name in {"src", "srcset"}]
    assert all((attributes.get("href") or "#").startswith("#") for _, attributes in page.elements)
    assert "@import" not in text
    assert page.policy.startswith("default-src 'none'; ")
    assert len(text.encode()) < 2_500_000


def test_planned_is_set_against_used_by_agent_type(large_report: ReplayReport, unknown_report: ReplayReport) -> None:
    text = " ".join(Page(to_html(large_report)).text.split())
    assert "Planned against used (15 of 21 agent types)" in text
    assert "main3,12090.1 %2.20 times1.25 times" in text
    assert "Planned against used" not in Page(to_html(unknown_report)).text


def test_the_policy_allows_exactly_the_scripts_in_the_file(tiny_report: ReplayReport) -> None:
    page = Page(to_html(tiny_report))
    hashes = [base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in page.scripts[1:]]
    assert re.findall(r"'sha256-([^']+)'", page.policy) == hashes
    assert "unsafe-eval" not in page.policy


def test_all_charts_are_there_and_limited_to_the_largest(large_report: ReplayReport) -> None:
    specs = Page(to_html(large_report)).specs
    assert set(specs) == {f"chart-{chart.id}" for chart in [*all_charts(large_report), forecast_chart(large_report)]}
    assert len(specs["chart-workflow-bill_usd"]["data"]["values"]) == WORKFLOWS
    assert len(specs["chart-agent-visible_tokens"]["data"]["values"]) == AGENTS


def test_the_statuses_of_plans_are_explained(tiny_report: ReplayReport) -> None:
    text = Page(to_html(tiny_report)).text
    assert all(f"{status}{breakable(meaning)}" in text for status, meaning in STATUS_DEFINITIONS.items())


def test_estimates_prices_and_missing_models_are_said(large_report: ReplayReport) -> None:
    text = Page(to_html(large_report)).text
    assert "~ estimated in part: in 197 of 690 workflows the log has placeholders or estimates (output)." in text
    assert "list prices of 2026-01-31" in text
    assert "60 of 690 workflows: no model is named" in text


def test_a_source_names_its_framework_only_where_that_differs(tiny_report: ReplayReport) -> None:
    rows = [
        tiny_report.per_source[0].model_copy(update={"source": source, "framework": framework})
        for source, framework in (("swe_agent", "swe-agent"), ("notes", "agno, langgraph"))
    ]
    page = Page(to_html(tiny_report.model_copy(update={"per_source": rows})))
    assert sum(tag == "small" for tag, _ in page.elements) == 1
    assert "agno, langgraph" in page.text
    assert "swe-agent" not in page.text


def test_each_chart_has_its_figures_as_a_table_too(large_report: ReplayReport) -> None:
    page = Page(to_html(large_report))
    assert sum(tag == "details" and "class" not in attributes for tag, attributes in page.elements) == len(page.specs)
    largest = max(large_report.per_workflow, key=lambda row: row.ledgers.bill_usd.baseline or 0)
    assert largest.id in page.text


def test_ledgers_and_their_definitions_and_the_worst_case_are_in_the_text(large_report: ReplayReport) -> None:
    text = Page(to_html(large_report)).text
    for name in ("Visible tokens", "Real prompt tokens", "Transmitted tokens", "Bill", "Prefix stability"):
        assert name in text
    assert "cache reads, cache writes" in text
    assert large_report.worst_workflow is not None
    assert f"dearer than doing nothing: {large_report.worst_workflow.id}" in text
    assert all(message in text for message in large_report.skipped.messages)


def test_the_unknown_is_a_dash_and_draws_nothing(unknown_report: ReplayReport) -> None:
    page = Page(to_html(unknown_report))
    assert page.specs == {}
    assert page.text.count("Nothing to draw") == len(all_charts(unknown_report))
    assert "None" not in page.text
    assert "$0" not in page.text


def test_a_partial_report_says_so(tiny_report: ReplayReport) -> None:
    assert "PARTIAL REPORT" in Page(to_html(tiny_report.model_copy(update={"complete": False}))).text


def test_a_limited_report_says_so(tiny_report: ReplayReport) -> None:
    limited = tiny_report.model_copy(update={"limited": True, "settings": {"limit": 2}})
    assert "Limited to the first 2 workflows" in Page(to_html(limited)).text


def test_strings_from_logs_stay_text_wherever_they_stand(tiny_report: ReplayReport) -> None:
    page = Page(to_html(hostile(tiny_report)))
    assert len(page.scripts) == 3
    assert not [tag for tag, _ in page.elements if tag == "img"]
    assert not [name for _, attributes in page.elements for name in attributes if name.startswith("on")]
    assert page.text.count(EVIL) > 10
    assert "490049" not in page.text.replace(EVIL, "")
    assert page.specs["chart-agent-bill_usd"]["data"]["values"][0]["Agent"] == EVIL


def test_expressions_in_charts_hold_no_strings_from_logs(tiny_report: ReplayReport) -> None:
    for chart in all_charts(hostile(tiny_report)):
        assert chart.spec is not None
        without_data = {name: part for name, part in chart.spec.items() if name != "data"}
        assert "broken" not in json.dumps(without_data)


def test_a_library_that_names_the_end_of_a_script_cannot_end_it() -> None:
    source = _script('a = "</Script>";\r\nb = "<!--<script>";')
    page = Page(f"<script>{source}</script>after")
    assert page.scripts == ['a = "<\\/Script>";\nb = "<\\!--<script>";']
    assert page.text == "after"


def test_what_did_not_change_or_has_no_share_is_not_called_a_saving(
    tiny_report: ReplayReport, ledger: Callable[[float | None, float], Ledger]
) -> None:
    rows = [
        tiny_report.per_agent[0].model_copy(update={"agent": name, "visible_tokens": tokens})
        for name, tokens in (("same", ledger(100, 0.0)), ("none", ledger(0, 0.0)), ("dearer", ledger(50, -0.5)))
    ]
    spec = Page(to_html(tiny_report.model_copy(update={"per_agent": rows}))).specs["chart-agent-visible_tokens"]
    notes = {value["Agent"]: (value["note"], value["dearer"]) for value in spec["data"]["values"]}
    assert notes == {"same": ("same", False), "none": ("", False), "dearer": (f"50.0{NO_BREAK}% MORE", True)}


def test_equal_names_are_drawn_as_rows_of_their_own(tiny_report: ReplayReport) -> None:
    spec = Page(to_html(hostile(tiny_report))).specs["chart-agent-bill_usd"]
    labels = [value["label"] for value in spec["data"]["values"]]
    assert len(set(labels)) == len(tiny_report.per_agent)


def test_the_histogram_counts_every_priced_workflow_and_splits_at_zero(large_report: ReplayReport) -> None:
    values = next(chart.spec for chart in all_charts(large_report) if chart.id == "spread") or {}
    bins = values["data"]["values"]
    shares = [row.ledgers.bill_usd.saved_share for row in large_report.per_workflow]
    known = [share for share in shares if share is not None]
    assert sum(each["workflows"] for each in bins) == len(known)
    assert sum(each["workflows"] for each in bins if each["dearer"]) == sum(share < 0 for share in known)


def test_the_histogram_has_no_empty_rows_and_one_for_exactly_no_change() -> None:
    bins = _bins([-30.0, -0.5, 0.0, 0.0, 0.1, 40.0])
    assert bins == [(-30.0, -25.0, 1), (-5.0, 0.0, 1), (0.0, 0.0, 2), (0.0, 5.0, 1), (40.0, 45.0, 1)]
    assert [_bin_label(low, high) for low, high, _ in bins[1:4]] == ["-5 to 0 %", "0 %, the same", "0 to 5 %"]
    assert _bins([0.0]) == [(0.0, 0.0, 1)]
    assert _bins([]) == []


def test_workflows_that_did_not_change_share_one_row(
    large_report: ReplayReport, ledger: Callable[[float | None, float], Ledger]
) -> None:
    same = dict.fromkeys(("visible_tokens", "real_prompt_tokens", "transmitted_tokens", "bill_usd"), ledger(1e9, 0.0))
    rows = [
        row.model_copy(update={"ledgers": row.ledgers.model_copy(update=same)}) if number % 2 else row
        for number, row in enumerate(large_report.per_workflow)
    ]
    charts = {chart.id: chart for chart in all_charts(large_report.model_copy(update={"per_workflow": rows}))}
    chart = charts["workflow-visible_tokens"]
    assert chart.rows[-1][0] == "345 workflows unchanged"
    assert len(chart.rows) == WORKFLOWS + 1
    assert "The 50 largest of 345 changed workflows" in chart.caption
    assert "The last row holds all that planning left as they were." in chart.caption


def test_the_file_appears_whole_or_not_at_all(tiny_report: ReplayReport, tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    path.write_text("old")
    path.chmod(0o644)
    write_html(tiny_report, path)
    assert path.read_text(encoding="utf-8").endswith("</html>\n")
    assert stat.S_IMODE(path.stat().st_mode) & 0o444
    assert list(tmp_path.iterdir()) == [path]


def test_a_link_is_followed_and_not_replaced(tiny_report: ReplayReport, tmp_path: Path) -> None:
    (tmp_path / "real.html").write_text("old")
    (tmp_path / "link.html").symlink_to("real.html")
    write_html(tiny_report, tmp_path / "link.html")
    assert (tmp_path / "link.html").is_symlink()
    assert "old" not in (tmp_path / "real.html").read_text(encoding="utf-8")[:100]


@pytest.mark.parametrize("name", ["file/report.html", "folder"])
def test_a_place_that_cannot_be_written_is_an_input_error(tiny_report: ReplayReport, tmp_path: Path, name: str) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    with pytest.raises(InputError, match=r"cannot write|not a regular file"):
        write_html(tiny_report, tmp_path / name)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder"]


def test_devices_are_never_replaced(tiny_report: ReplayReport) -> None:
    with pytest.raises(InputError, match="not a regular file"):
        write_html(tiny_report, Path("/dev/null"))
    assert Path("/dev/null").is_char_device()


@pytest.mark.parametrize("module", ["altair", "jinja2", "vl_convert"])
def test_without_the_extra_the_error_names_it(
    tiny_report: ReplayReport, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: str
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    assert not available()
    with pytest.raises(MissingExtraError, match=r"pip install '/path/to/the/clone\[report\]'"):
        write_html(tiny_report, tmp_path / "report.html")
    assert list(tmp_path.iterdir()) == []


def test_importing_the_module_imports_no_chart_library() -> None:
    code = "import sys, apportion.planner.report.html; print({'altair', 'jinja2', 'vl_convert'} & set(sys.modules))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "set()"


def test_baselines_stand_beside_the_plan_for_everything_and_for_each_source(
    against_report: ReplayReport, large_report: ReplayReport
) -> None:
    page = Page(to_html(against_report))
    assert page.text.count("rule-a") == 2 + len(against_report.per_source)
    assert "Against simple rules" in page.text
    assert "Against simple rules" not in Page(to_html(large_report)).text


def test_content_and_handles_are_shown_only_where_the_report_holds_them(tiny_report: ReplayReport) -> None:
    piece = tiny_report.left_out[0]
    without = Page(to_html(tiny_report)).text
    assert "not in this report; replay with --show-content" in without
    assert "not kept; replay with --keep-originals" in without
    assert "apportion expand h:" not in without
    held = piece.model_copy(update={"head": "first line\n\tsecond <b>line</b>", "handle": "h:1234abcd"})
    page = Page(to_html(tiny_report.model_copy(update={"left_out": [held], "left_out_pieces": 1})))
    assert "first line\n    second <b>line</b>\n" in page.text
    assert "apportion expand h:1234abcd" in page.text
    assert "--show-content" not in page.text
    assert not [tag for tag, _ in page.elements if tag == "b"]


def test_what_plans_did_is_told_with_its_reasons(large_report: ReplayReport) -> None:
    text = Page(to_html(large_report)).text
    for row in large_report.actions:
        assert row.reason in text
    assert f"and {large_report.left_out_pieces - 50:,} more pieces" in text
    pieces = sum(row.pieces for row in large_report.actions if row.action == "mask")
    assert f"{pieces:,} pieces of context" in text


def test_parts_that_have_nothing_to_show_are_not_there(tiny_report: ReplayReport, unknown_report: ReplayReport) -> None:
    for report in (tiny_report, unknown_report):
        page = Page(to_html(report))
        places = {attributes["id"] for _, attributes in page.elements if "id" in attributes}
        links = [attributes["href"] or "" for tag, attributes in page.elements if tag == "a"]
        assert {link.removeprefix("#") for link in links} <= places
    assert "next" not in places
    assert "done" not in places


def test_sections_that_other_parts_of_the_program_add_are_shown_by_the_names_of_their_fields(
    large_report: ReplayReport,
) -> None:
    class Row(BaseModel):
        """A row of something."""

        saved_share_of_bill: float = 0.12
        source: str = "x"
        sent_tokens: float = 12_345.6
        sure: bool = False

    class Later(BaseModel):
        """What was loaded when needed."""

        visible_tokens_saved: int = 12_345
        hit_rate: float | None = 0.25
        unknown: float | None = None
        fallbacks: dict[str, int] = {"a <b>reason</b>": 2, "another": 30}
        rows: list[dict[str, Any]] = [{"calls": 3, "agent": "main", "bill_usd": 0.5}]

    class LaterReport(ReplayReport):
        later: Later
        many: list[Row]

    report = LaterReport.model_construct(**dict(large_report), later=Later(), many=[Row(), Row(sure=True)])
    section, listed = sections(report)
    assert (listed.id, listed.pairs) == ("many", [])
    assert listed.summary == "A row of something."
    assert listed.tables[0].headers == ("Source", "Sure", "Saved share of bill", "Sent tokens")
    assert [cell.text for cell in listed.tables[0].rows[1]] == ["x", "yes", f"12.0{NO_BREAK}%", f"12.3{NO_BREAK}k"]
    assert (section.id, section.title) == ("later", "Later")
    assert section.summary == "What was loaded when needed."
    assert section.pairs == [
        ("Visible tokens saved", f"12.3{NO_BREAK}k"),
        ("Hit rate", f"25.0{NO_BREAK}%"),
        ("Unknown", "-"),
        ("Fallbacks", "another: 30\na <b>reason</b>: 2"),
    ]
    (table,) = section.tables
    assert table.headers == ("Agent", "Calls", "Bill")
    assert table.rows == [[Cell("main"), Cell("3", 3.0), Cell("$0.500", 0.5)]]
