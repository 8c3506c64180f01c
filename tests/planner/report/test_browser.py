"""The report in a real browser: what a person sees, and what happens to what they press."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest

from apportion.planner.report import figures
from apportion.planner.report.charts import all_charts, forecast_chart
from apportion.planner.report.html import PRINTED, write_html
from apportion.planner.report.schema import LeftOutRow, NextAgentRow, WorstWorkflow

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path
    from typing import Protocol

    from apportion.planner.report.schema import ReplayReport

    class Page(Protocol):
        complaints: list[dict[str, Any]]
        requests: list[str]

        def run(self, expression: str) -> Any: ...
        def ask(self, method: str, **parameters: Any) -> dict[str, Any]: ...

    class Browser(Protocol):
        open: Callable[..., AbstractContextManager[Page]]


pytestmark = pytest.mark.needs_chromium

EVIL = "<img src=x onerror=\"document.title='broken'\"><script>document.title='broken'</script>"

SEEN = "const seen = (place) => place.checkVisibility() && place.getBoundingClientRect().height > 0;"

CONTRAST = """(() => {
  const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const rgba = (colour) => {
    canvas.clearRect(0, 0, 1, 1);
    canvas.fillStyle = colour;
    canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data];
  };
  const light = (colour) => {
    const [r, g, b] = rgba(colour).map((part) => part / 255).map((part) =>
      part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = (place) => {
    for (; place; place = place.parentElement) {
      const colour = getComputedStyle(place).backgroundColor;
      if (rgba(colour)[3] === 255) return colour;
    }
    return "white";
  };
  const worst = new Map();
  for (const place of document.querySelectorAll("body *:not(script, style)")) {
    if (![...place.childNodes].some((node) => node.nodeType === 3 && node.data.trim())) continue;
    const style = getComputedStyle(place);
    const drawn = place instanceof SVGElement;
    if (drawn && style.fill === "none") continue;
    const [one, other] = [light(drawn ? style.fill : style.color), light(behind(place))].sort((a, b) => b - a);
    const ratio = (one + 0.05) / (other + 0.05);
    const what = place.tagName + "." + place.getAttribute("class");
    if (ratio < (worst.get(what) ?? 99)) worst.set(what, ratio);
  }
  return [...worst].sort((a, b) => a[1] - b[1])[0];
})()"""
"""The worst contrast of any text, as WCAG 2 defines it, and where it is."""


def everything(report: ReplayReport) -> ReplayReport:
    """Add content and handles to what was left out."""
    pieces = [row.model_copy(update={"head": "first\nsecond", "handle": "h:12345678"}) for row in report.left_out]
    return report.model_copy(update={"left_out": pieces})


@pytest.fixture(scope="module")
def page(browser: Browser, learned_report: ReplayReport, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    """690 workflows, with everything that a report can show."""
    path = tmp_path_factory.mktemp("page") / "report.html"
    write_html(everything(learned_report), path)
    with browser.open(path) as opened:
        yield opened


def test_the_browser_has_nothing_to_complain_of_and_asks_for_nothing(page: Page) -> None:
    assert page.complaints == []
    assert [address.rpartition("/")[2] for address in page.requests] == ["report.html"]


def test_all_charts_are_drawn(page: Page, learned_report: ReplayReport) -> None:
    charts = [*all_charts(learned_report), forecast_chart(learned_report)]
    widths = page.run("[...document.querySelectorAll('.chart svg')].map((each) => each.getBoundingClientRect().width)")
    assert len(widths) == sum(chart.spec is not None for chart in charts) == len(charts)
    assert min(widths) > 100
    rows = page.run("document.querySelectorAll('#chart-agent-bill_usd [aria-roledescription=bar]').length")
    assert rows == 2 * 20


def test_the_ledgers_and_cards_show_what_the_json_says(page: Page, learned_report: ReplayReport) -> None:
    shown = page.run("[...document.querySelectorAll('.ledgers tbody tr:not(.definition)')].map((row) => row.innerText)")
    ledgers = learned_report.ledgers
    for line, name, write in (
        (shown[0], "visible_tokens", figures.tokens),
        (shown[1], "real_prompt_tokens", figures.tokens),
        (shown[2], "transmitted_tokens", figures.tokens),
        (shown[3], "bill_usd", figures.usd),
    ):
        ledger = getattr(ledgers, name)
        wanted = [write(ledger.baseline), write(ledger.planned), figures.percent(ledger.saved_share)]
        assert [cell.removeprefix("~") for cell in line.split("\t")[1:]] == wanted
    cards = page.run("[...document.querySelectorAll('.cards dd')].map((each) => each.innerText)")
    assert cards[:2] == [figures.percent(each.saved_share) for each in (ledgers.bill_usd, ledgers.visible_tokens)]


def test_the_figures_behind_the_table_of_workflows_are_those_of_the_json(
    page: Page, learned_report: ReplayReport
) -> None:
    rows = page.run(
        "[...document.querySelectorAll('#workflows tbody tr')].map((row) => "
        "[row.cells[0].innerText, ...[2, 3, 6, 8].map((nth) => row.cells[nth].dataset.value)])"
    )
    told = {name: [float(each) if each else None for each in values] for name, *values in rows}
    for row in learned_report.per_workflow:
        bill, visible = row.ledgers.bill_usd, row.ledgers.visible_tokens
        assert told.pop(row.id) == [row.calls, visible.baseline, bill.baseline, bill.saved_share]
    assert told == {}


def test_a_table_is_sorted_by_the_key_and_what_is_unknown_stays_last(page: Page, learned_report: ReplayReport) -> None:
    bills = [row.ledgers.bill_usd.baseline for row in learned_report.per_workflow]
    known = sorted(bill for bill in bills if bill is not None)
    for sort, wanted in (("descending", known[::-1]), ("ascending", known)):
        page.run("document.querySelectorAll('#workflows thead button')[6].focus()")
        for kind in ("keyDown", "keyUp"):
            page.ask("Input.dispatchKeyEvent", type=kind, key="Enter", text="\r", windowsVirtualKeyCode=13)
        state = page.run("[...document.querySelectorAll('#workflows thead th')].map((each) => each.ariaSort)")
        assert state == [None] * 6 + [sort] + [None] * 4
        rows = "[...document.querySelectorAll('#workflows tbody tr')]"
        order = page.run(f"{rows}.map((row) => row.cells[6].dataset.value)")
        assert [float(each) for each in order if each] == wanted
        assert order[len(wanted) :] == [""] * (len(bills) - len(wanted))


def test_a_search_leaves_what_holds_all_words(page: Page, learned_report: ReplayReport) -> None:
    found = page.run(
        "{ const tool = document.querySelector('[data-of=workflows-rows]'), field = tool.querySelector('input');"
        "  field.value = 'CODEX session-001'; field.dispatchEvent(new Event('input'));"
        "  [tool.querySelector('[role=status]').innerText,"
        "   [...document.querySelectorAll('#workflows tbody tr')].filter((row) => row.checkVisibility()).length] }"
    )
    wanted = sum("codex" in row.id and "session-001" in row.id for row in learned_report.per_workflow)
    assert 0 < wanted < 20
    assert found == [f"{wanted} of 690 workflows", wanted]
    page.run("{ const field = document.querySelector('[data-of=workflows-rows] input'); field.value = '';"
             " field.dispatchEvent(new Event('input')) }")  # fmt: skip


def test_what_was_left_out_opens_with_its_reason_and_how_to_expand_it(page: Page) -> None:
    script = f"""{{ {SEEN}
      const piece = document.querySelector(".piece"), text = piece.querySelector("pre");
      const before = seen(text);
      piece.querySelector("summary").click();
      [before, seen(text), text.innerText, piece.innerText] }}"""
    before, after, text, everything_said = page.run(script)
    assert (before, after) == (False, True)
    assert text.strip() == "first\nsecond"
    assert "apportion expand h:12345678" in everything_said
    assert "the cache was cold: nothing had to be written anew" in everything_said


def test_tables_controls_and_regions_have_names_for_a_screen_reader(page: Page) -> None:
    nodes = page.ask("Accessibility.getFullAXTree")["nodes"]
    wanted = {"table", "button", "searchbox", "region", "navigation", "columnheader", "link", "graphics-document"}
    named: dict[str, list[str]] = {role: [] for role in wanted}
    for node in nodes:
        role = node.get("role", {}).get("value")
        if not node.get("ignored") and role in wanted:
            named[role].append(node.get("name", {}).get("value", ""))
    assert all(named[role] for role in wanted - {"graphics-document"})
    assert [role for role, names in named.items() if not all(names)] == []
    levels = page.run("[...document.querySelectorAll('h1, h2, h3')].map((each) => +each.tagName[1])")
    assert levels[0] == 1
    assert all(after - before <= 1 for before, after in pairwise(levels))


def test_rows_beyond_the_first_ones_are_not_printed(page: Page) -> None:
    page.ask("Emulation.setEmulatedMedia", media="print")
    try:
        script = "(all) => [...document.querySelectorAll(all)].filter((each) => each.checkVisibility()).length"
        assert page.run(f"({script})('#workflows tbody tr')") == PRINTED
        assert page.run(f"({script})('.search, nav')") == 0
        assert page.run(f"({script})('.print-only')") > 0
    finally:
        page.ask("Emulation.setEmulatedMedia", media="")


@pytest.fixture(scope="module")
def smaller(against_report: ReplayReport, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of a report with baselines, and with a long name where one can be."""
    source = against_report.per_source[0].model_copy(update={"framework": "agno, autogen, google-adk, langgraph"})
    update = {"per_source": [source], "per_workflow": against_report.per_workflow[:5]}
    path = tmp_path_factory.mktemp("smaller") / "report.html"
    write_html(everything(against_report).model_copy(update=update), path)
    return path


@pytest.mark.parametrize("dark", [False, True])
def test_text_stands_out_from_what_is_behind_it(browser: Browser, smaller: Path, *, dark: bool) -> None:
    with browser.open(smaller, dark=dark) as opened:
        opened.run("document.querySelectorAll('details').forEach((each) => { each.open = true; })")
        where, ratio = opened.run(CONTRAST)
        assert opened.run("matchMedia('(prefers-color-scheme: dark)').matches") is dark
    assert ratio >= 4.5, where


@pytest.mark.parametrize("width", [390, 800, 1280])
def test_nothing_is_wider_than_a_phone_or_a_laptop(browser: Browser, smaller: Path, width: int) -> None:
    with browser.open(smaller, width=width) as opened:
        right, broken = opened.run("""{
          const all = (selector) => [...document.querySelectorAll(selector)];
          const rights = all(".ledgers td, .sources td, .pairs td").map((each) => each.getBoundingClientRect().right);
          const names = all(".sources tbody th, .ledgers tbody th");
          [Math.max(document.documentElement.scrollWidth, ...rights),
           names.filter((name) => name.scrollWidth > name.clientWidth).length] }""")
    assert right <= width
    assert broken == 0


def test_a_hostile_log_runs_nothing_and_a_report_of_nothing_is_quiet(
    browser: Browser, tiny_report: ReplayReport, unknown_report: ReplayReport, tmp_path: Path
) -> None:
    names = {"agent": EVIL, "source": EVIL}
    piece = LeftOutRow.model_construct(
        **tiny_report.left_out[0].model_dump()
        | dict.fromkeys(("workflow", "agent", "tool", "reason", "handle", "head"), EVIL)
    )
    forecast = NextAgentRow(
        source=EVIL, forecasts=1, coverage=1.0, hit_rate=1.0, calibration_error=0.0, calibration_noise=0.0
    )
    bad = tiny_report.model_copy(
        update={
            "per_agent": [row.model_copy(update=names) for row in tiny_report.per_agent],
            "per_stage": [row.model_copy(update=names) for row in tiny_report.per_stage[:3]],
            "actions": [row.model_copy(update=names | {"reason": EVIL}) for row in tiny_report.actions[:3]],
            "per_workflow": [
                row.model_copy(update={"id": f"{nth}{EVIL}", "source": EVIL})
                for nth, row in enumerate(tiny_report.per_workflow)
            ],
            "per_kind": [row.model_copy(update={"kind": EVIL}) for row in tiny_report.per_kind],
            "left_out": [piece],
            "next_agent": [forecast],
            "worst_workflow": WorstWorkflow(id=EVIL, bill_saved_share=-0.5),
        }
    )
    for report in (bad, unknown_report):
        write_html(report, tmp_path / "report.html")
        with browser.open(tmp_path / "report.html") as opened:
            assert opened.complaints == []
            assert len(opened.requests) == 1
            assert opened.run("document.title").startswith("apportion: replay of")
            assert opened.run("document.querySelectorAll('img').length") == 0
            assert "could not be drawn" not in opened.run("document.body.innerText")
