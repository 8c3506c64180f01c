from __future__ import annotations

import io
import re
from typing import TYPE_CHECKING

import pytest
from rich.console import Console

from apportion.planner.replay.results import NO_OUTPUT_USAGE, NO_PROMPT_USAGE
from apportion.planner.report.schema import Dearer, NextAgentRow, Skipped, WorstWorkflow
from apportion.planner.report.terminal import render

if TYPE_CHECKING:
    from collections.abc import Callable

    from apportion.planner.report.schema import Ledger, ReplayReport, WorkflowRow


def show(report: ReplayReport, *, width: int = 80, verbose: bool = False, colours: bool = False) -> str:
    stream = io.StringIO()
    console = Console(file=stream, width=width, force_terminal=colours, color_system="standard" if colours else None)
    render(report, console, verbose=verbose)
    return stream.getvalue()


def words(text: str) -> str:
    return " ".join(text.split())


def with_bill(report: ReplayReport, bill: Ledger) -> ReplayReport:
    return report.model_copy(update={"ledgers": report.ledgers.model_copy(update={"bill_usd": bill})})


def test_the_first_sentence_says_what_was_saved(large_report: ReplayReport) -> None:
    bill = large_report.ledgers.bill_usd
    sentence = rf"would have cost \${bill.planned:,.2f} instead of \${bill.baseline:,.2f}: 14\.\d % less"
    assert re.search(sentence, words(show(large_report)))


def test_a_bill_that_stays_the_same_is_told_once(
    large_report: ReplayReport, ledger: Callable[[float | None, float], Ledger]
) -> None:
    shown = words(show(with_bill(large_report, ledger(3.32, 0.0))))
    assert "with a known price would have cost $3.32: no change." in shown
    assert "instead" not in shown


def test_a_loss_is_said_as_plainly_as_a_saving(
    large_report: ReplayReport, ledger: Callable[[float | None, float], Ledger]
) -> None:
    shown = words(show(with_bill(large_report, ledger(100.0, -0.125))))
    assert "would have cost $112.50 instead of $100.00: 12.5 % MORE" in shown
    assert "Planning would have made the 630 of 690 workflows with a known price dearer." in shown


def test_the_first_sentence_claims_a_bill_only_for_workflows_with_a_price(large_report: ReplayReport) -> None:
    shown = words(show(large_report))
    assert "With planning, the 630 of 690 workflows with a known price would have cost $" in shown
    assert re.search(r"The prompts of all 690 would have held \d+\.\d % less visible text\.", shown)
    assert "No price 60 of 690 workflows: no model is named" in shown
    assert "Prices list prices of 2026-01-31" in shown


def test_the_price_of_the_logged_usage_stands_beside_the_simulated_bill(
    large_report: ReplayReport, unknown_report: ReplayReport
) -> None:
    shown = words(show(large_report))
    assert "Bill as logged $98.70 by the usage in the logs; simulated for the same calls $104.20" in shown
    assert "Bill as logged" not in words(show(unknown_report))


def test_time_and_memory_are_told(large_report: ReplayReport, unknown_report: ReplayReport) -> None:
    assert "replayed in 212.4 s, at most 611 MB of memory" in words(show(large_report))
    assert "memory" not in words(show(unknown_report)).split("No price")[0]


def test_a_bill_for_all_needs_no_words_about_prices(tiny_report: ReplayReport) -> None:
    shown = words(show(tiny_report))
    assert "With planning, these 2 workflows would have cost $" in shown
    assert "known price would have" not in shown
    assert "No price" not in shown


def test_one_workflow_is_this_workflow(tiny_report: ReplayReport) -> None:
    one = tiny_report.model_copy(update={"workflows": 1, "priced_workflows": 1})
    assert "With planning, this workflow would have cost $" in words(show(one))


def test_equal_visible_text_is_just_as_much(
    tiny_report: ReplayReport, ledger: Callable[[float | None, float], Ledger]
) -> None:
    ledgers = tiny_report.ledgers.model_copy(update={"visible_tokens": ledger(100.0, 0.0)})
    shown = words(show(tiny_report.model_copy(update={"ledgers": ledgers})))
    assert "the prompts would have held just as much visible text." in shown


def test_models_without_a_price_are_named_with_what_to_do(
    large_report: ReplayReport, ledger: Callable[[float | None, float], Ledger]
) -> None:
    names = [f"model-{number}" for number in range(7)]
    update = {"unpriced_models": names, "unnamed_model_workflows": 3, "priced_workflows": 0}
    shown = words(show(with_bill(large_report, ledger(None, 0)).model_copy(update=update)))
    missing = (
        "no known price for model-0, model-1, model-2, model-3, model-4 and 2 more; no model is named in 3 of them"
    )
    assert f"The bill is unknown: {missing}." in shown
    assert f"No price 690 of 690 workflows: {missing}" in shown
    assert "The prices are those of 2026-01-31: a later version may know these models." in shown
    assert "A bill needs logs that name the model of each call." in shown


def test_planning_that_was_switched_off_is_said_first(large_report: ReplayReport) -> None:
    shown = words(show(large_report.model_copy(update={"settings": {"enabled": False}})))
    assert "Planning was switched off: the figures show these 690 workflows as logged." in shown
    assert "would have cost" not in shown
    assert "Planning was switched off" not in words(show(large_report))


@pytest.mark.parametrize(
    ("target", "text"), [(0.1, "10.0 % fewer visible tokens: met, "), (0.9, "90.0 % fewer visible tokens: NOT met, ")]
)
def test_a_target_is_said_to_be_met_or_not(large_report: ReplayReport, target: float, text: str) -> None:
    report = large_report.model_copy(update={"settings": {"target_reduction": target}})
    met = sum((row.ledgers.visible_tokens.saved_share or 0) >= target for row in report.per_workflow)
    shown = words(show(report))
    assert f"Target {text}" in shown
    assert f"% reached; {met} of 690 workflows met it" in shown
    assert "Target" not in show(large_report)


def test_figures_that_rest_on_estimates_are_marked(large_report: ReplayReport, tiny_report: ReplayReport) -> None:
    shown = show(large_report)
    assert re.search(r"^Bill +~\$[\d,.]+ +~\$[\d,.]+ +\d", shown, re.MULTILINE)
    assert re.search(r"^Real prompt tokens +\d", shown, re.MULTILINE)
    assert "~ estimated in part: in 197 of 690 workflows the log has placeholders or estimates (output)." in words(
        shown
    )
    rows = [
        row.model_copy(
            update={"degraded": degraded, "usage": row.usage.model_copy(update={"estimated": []})},
        )
        for row, degraded in zip(
            tiny_report.per_workflow, ([NO_PROMPT_USAGE], [NO_PROMPT_USAGE, NO_OUTPUT_USAGE]), strict=True
        )
    ]
    degraded = tiny_report.plan.model_copy(update={"degraded": {NO_PROMPT_USAGE: 2, NO_OUTPUT_USAGE: 1}})
    shown = show(tiny_report.model_copy(update={"per_workflow": rows, "plan": degraded}))
    assert re.search(r"^Real prompt tokens +~\d", shown, re.MULTILINE)
    assert re.search(r"^Visible tokens +\d", shown, re.MULTILINE)
    said = "in 2 of 2 workflows the log has no prompt usage (its invisible part counts as 0), in 1 no output usage"
    assert said in words(shown)
    assert "Degraded" not in shown


def test_nothing_estimated_needs_no_mark(tiny_report: ReplayReport) -> None:
    rows = [
        row.model_copy(update={"usage": row.usage.model_copy(update={"estimated": []})})
        for row in tiny_report.per_workflow
    ]
    assert "~" not in show(tiny_report.model_copy(update={"per_workflow": rows}))


def test_estimates_of_workflows_without_a_price_do_not_mark_the_bill(large_report: ReplayReport) -> None:
    rows = [
        row.model_copy(
            update={
                "usage": row.usage.model_copy(update={"estimated": []}),
                "degraded": [NO_PROMPT_USAGE] if row.source == "ag2" else [],
            }
        )
        for row in large_report.per_workflow
    ]
    shown = show(large_report.model_copy(update={"per_workflow": rows}))
    assert re.search(r"^Real prompt tokens +~", shown, re.MULTILINE)
    assert re.search(r"^Bill +\$", shown, re.MULTILINE)


def test_the_cache_simulation_is_set_beside_the_log(large_report: ReplayReport) -> None:
    assert "Read from cache 94.2 % simulated, 96.3 % as logged" in words(show(large_report))


def test_forecasts_are_told_in_times_and_as_what_they_are(large_report: ReplayReport) -> None:
    variance = large_report.variance.model_copy(update={"bias": 147.91, "weighted_width": 1.52, "weighted_bias": 0.31})
    shown = words(show(large_report.model_copy(update={"variance": variance}), verbose=True))
    assert "The forecast was 1.52 times what was used by all together, and 2.41 times in the median stage." in shown
    assert "Allocated was 1.31 times what was used, and 149 times in the median stage." in shown
    assert "Most stages here are short" not in shown
    assert "documented priors of coding agents: they have learned nothing from these logs" in shown


def test_forecasts_of_trained_models_are_not_called_priors(large_report: ReplayReport) -> None:
    settings = large_report.settings | {"models": "models"}
    shown = words(show(large_report.model_copy(update={"settings": settings}), verbose=True))
    assert (
        "The forecasts are those of the models in models, or documented priors where a reason under Degraded" in shown
    )
    assert "they have learned nothing from these logs" not in shown
    assert "Demand forecast by the models in models" in shown


def test_planned_is_set_against_used_by_agent_type(large_report: ReplayReport, unknown_report: ReplayReport) -> None:
    shown = show(large_report, verbose=True)
    assert "Planned against used (15 of 21 agent types)" in words(shown)
    assert re.search(r"^main +3,120 +90\.1.% +2\.20.times +1\.25.times$", shown, re.MULTILINE)
    assert re.search(r"^helper-13 +50 +87\.0.% +3\.50.times +-$", shown, re.MULTILINE)
    assert "helper-14" not in shown
    assert "Planned against used" not in show(large_report)
    assert "Planned against used" not in show(unknown_report, verbose=True)


def test_an_unknown_bill_is_said_and_not_shown_as_zero(
    large_report: ReplayReport, ledger: Callable[[float | None, float], Ledger]
) -> None:
    shown = show(with_bill(large_report, ledger(None, 0)))
    assert "The bill is unknown" in words(shown)
    assert re.search(r"^Bill +- +- +-", shown, re.MULTILINE)
    assert "$0" not in shown


def test_the_five_ledgers_stand_side_by_side(large_report: ReplayReport) -> None:
    lines = [line.split("  ")[0].strip() for line in show(large_report).splitlines()]
    start = lines.index("Ledger")
    assert lines[start + 2 : start + 7] == [
        "Visible tokens",
        "Real prompt tokens",
        "Transmitted tokens",
        "Bill",
        "Prefix stability",
    ]


def test_worst_workflow_and_dearer_share_are_always_shown(large_report: ReplayReport) -> None:
    bad = large_report.model_copy(
        update={
            "dearer": Dearer(workflows=63, of=630, share=0.1),
            "worst_workflow": WorstWorkflow(id="codex/worst", bill_saved_share=-0.42),
        }
    )
    shown = words(show(bad))
    assert "Dearer than doing nothing 63 of 630 workflows with a known price, 10.0 %" in shown
    assert "Worst workflow 42.0 % dearer than doing nothing: codex/worst" in shown


def test_nothing_known_is_shown_as_dashes(unknown_report: ReplayReport) -> None:
    shown = words(show(unknown_report, verbose=True))
    assert "Nothing can be compared" in shown
    assert "Visible tokens - - -" in shown
    assert "Worst workflow -" in shown
    assert "Plans none made" in shown
    assert "0 %" not in shown.replace("90 % quantile", "")


@pytest.mark.parametrize("verbose", [False, True])
def test_it_fits_80_columns(large_report: ReplayReport, *, verbose: bool) -> None:
    shown = show(large_report, verbose=verbose)
    assert max(map(len, shown.splitlines())) <= 80
    for row in large_report.per_source:
        assert re.search(rf"^{row.source} +{row.workflows:,} +{row.calls:,} ", shown, re.MULTILINE)


@pytest.mark.parametrize("width", [36, 48, 60, 70])
def test_columns_that_do_not_fit_are_left_out_with_what_explains_them(large_report: ReplayReport, width: int) -> None:
    shown = show(large_report, width=width, verbose=True)
    assert max(map(len, shown.splitlines())) <= width
    assert "…" not in shown
    headers = " ".join(shown.partition("Source")[0].splitlines()[-1:]) + shown.partition("Source")[2].partition("\n")[0]
    for name in ("Dearer", "Worst"):
        assert (name in headers) == (f"{name}:" in shown)
    assert re.search(r"^claude-code +.*\d %", shown, re.MULTILINE)
    assert re.search(r"^Bill +.*\d %$", shown, re.MULTILINE)


@pytest.mark.parametrize("width", range(40, 81, 4))
def test_no_line_begins_with_a_unit(large_report: ReplayReport, width: int) -> None:
    shown = show(large_report, width=width, verbose=True)
    assert not re.search(r"^ *(?:%|[kMBT]|ms|s|MB|points|times)\b", shown, re.MULTILINE)
    assert not re.search(r"^ *%", shown, re.MULTILINE)


def test_no_colour_codes_where_there_is_no_terminal(large_report: ReplayReport) -> None:
    assert "\x1b" not in show(large_report, verbose=True)
    assert "\x1b[" in show(large_report, colours=True)


def test_plans_are_shown_with_their_time_status_and_degradations(large_report: ReplayReport) -> None:
    shown = words(show(large_report))
    assert "Plans 17,321; each took 0.016 ms (median), 1.4 ms (p95)" in shown
    assert "Plan status STANDING 16,904, OPTIMAL 396, FEASIBLE 21" in shown
    assert "Degraded 312 workflows: no price for the model" in shown


def test_reasons_for_degraded_plans_are_limited_to_ten_lines(large_report: ReplayReport) -> None:
    plan = large_report.plan.model_copy(update={"degraded": {f"reason {number:02}": 1 for number in range(14)}})
    shown = show(large_report.model_copy(update={"plan": plan}))
    assert shown.count("1 workflow: reason") == 10
    assert "reason 09" in shown
    assert re.search(r"^ +\.\.\. 4 more$", shown, re.MULTILINE)


def test_a_budget_is_shown_with_what_it_stopped(large_report: ReplayReport) -> None:
    shown = words(show(large_report))
    assert "2.00 M tokens per workflow: 211 workflows over it without planning, 140 with" in shown
    assert "A replay counts and does not enforce: the logged calls are made anyway." in shown
    assert "Expansions come early" not in shown


def test_more_calls_beyond_a_budget_with_planning_are_explained(large_report: ReplayReport) -> None:
    assert large_report.budget is not None
    budget = large_report.budget.model_copy(update={"calls_beyond_planned": 2_312})
    assert "Expansions come early and savings late" in words(show(large_report.model_copy(update={"budget": budget})))


def test_a_saving_in_the_worst_workflow_is_no_loss(large_report: ReplayReport) -> None:
    worst = WorstWorkflow(id="pi/1", bill_saved_share=0.03)
    shown = words(show(large_report.model_copy(update={"worst_workflow": worst})))
    assert "Worst workflow 3.0 % cheaper than doing nothing: pi/1" in shown
    same = WorstWorkflow(id="pi/1", bill_saved_share=0.0)
    shown = words(show(large_report.model_copy(update={"worst_workflow": same})))
    assert "Worst workflow no dearer than doing nothing" in shown
    assert "pi/1" not in shown


def test_a_partial_report_says_so(large_report: ReplayReport) -> None:
    assert "PARTIAL REPORT" not in show(large_report)
    assert "PARTIAL REPORT" in show(large_report.model_copy(update={"complete": False}))


def test_forecasts_far_above_the_median_use_are_explained(large_report: ReplayReport) -> None:
    variance = large_report.variance.model_copy(update={"width": 70.4, "weighted_width": 1.5})
    shown = words(show(large_report.model_copy(update={"variance": variance}), verbose=True))
    assert "Most stages here are short, and the forecasts are meant for long coding sessions." in shown


def test_how_many_workflows_changed_is_said(
    large_report: ReplayReport, tiny_report: ReplayReport, ledger: Callable[[float | None, float], Ledger]
) -> None:
    assert "Workflows changed 690 of 690 " in words(show(large_report))
    first, second = tiny_report.per_workflow
    some = tiny_report.model_copy(update={"per_workflow": [first, unchanged(second, ledger)]})
    assert "Workflows changed 1 of 2; the others stayed the same" in words(show(some))
    none = tiny_report.model_copy(update={"per_workflow": [unchanged(first, ledger), unchanged(second, ledger)]})
    assert "Workflows changed 0 of 2; all stayed the same" in words(show(none))
    off = large_report.model_copy(update={"settings": {"enabled": False}})
    assert "Workflows changed" not in show(off)


def unchanged(row: WorkflowRow, ledger: Callable[[float | None, float], Ledger]) -> WorkflowRow:
    same = dict.fromkeys(("visible_tokens", "real_prompt_tokens", "transmitted_tokens", "bill_usd"), ledger(100.0, 0.0))
    return row.model_copy(update={"ledgers": row.ledgers.model_copy(update=same)})


def test_a_limited_report_says_so(large_report: ReplayReport) -> None:
    assert "Limited" not in show(large_report)
    limited = large_report.model_copy(update={"limited": True, "settings": {"limit": 690}})
    assert "Limited to the first 690 workflows: other logs were not looked at." in words(show(limited))


def test_the_first_messages_about_skipped_input_are_shown(large_report: ReplayReport) -> None:
    messages = [f"logs/{number}.jsonl: empty file" for number in range(9)]
    report = large_report.model_copy(update={"skipped": Skipped(files=9, lines=100, messages=messages)})
    shown = show(report)
    assert "Not read: 9 files and 100 lines." in shown
    assert messages[4] in shown
    assert messages[5] not in shown
    assert "... 104 more" in shown
    assert messages[8] in show(report, verbose=True)


@pytest.mark.parametrize(
    ("skipped", "text"),
    [
        (Skipped(files=1, lines=0), "Not read: 1 file."),
        (Skipped(files=2, lines=1), "Not read: 2 files and 1 line."),
        (Skipped(files=3, lines=0, unused=1), "Not read: 2 files. Nothing to replay in 1 file or workflow: no model"),
        (Skipped(files=4, lines=0, unused=4), "Nothing to replay in 4 files or workflows: no model calls"),
    ],
)
def test_what_holds_nothing_to_replay_is_told_from_what_could_not_be_read(
    tiny_report: ReplayReport, skipped: Skipped, text: str
) -> None:
    shown = show(tiny_report.model_copy(update={"skipped": skipped}))
    assert text in words(shown)
    assert ("Not read" in shown) == (skipped.files > skipped.unused)


def test_nothing_skipped_needs_no_words(tiny_report: ReplayReport) -> None:
    assert "Not read" not in show(tiny_report)


def test_strings_from_logs_cannot_style_or_steer_the_terminal(large_report: ReplayReport) -> None:
    evil = "[bold red]name[/] \x1b[2J\x1b]0;title\x07 :smile:"
    source = large_report.per_source[0].model_copy(update={"source": evil})
    worst = WorstWorkflow(id=evil, bill_saved_share=0.1)
    shown = show(large_report.model_copy(update={"per_source": [source], "worst_workflow": worst}), width=200)
    assert "\x1b" not in shown
    assert "\x07" not in shown
    assert "[bold red]name[/]" in shown
    assert ":smile:" in shown


def test_a_terminal_without_unicode_gets_the_result_all_the_same(large_report: ReplayReport) -> None:
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding="ascii")
    source = large_report.per_source[0].model_copy(update={"source": "調査"})
    render(large_report.model_copy(update={"per_source": [source]}), Console(file=stream, width=80), verbose=True)
    stream.flush()
    assert b"Visible tokens" in raw.getvalue()


def test_verbose_shows_agents_kinds_and_settings(large_report: ReplayReport) -> None:
    shown = show(large_report, verbose=True)
    assert "Agents with the most visible tokens (15 of 36)" in shown
    assert "tool_result" in shown
    assert "cache_ttl_s=300" in shown
    assert "Agents with" not in show(large_report)


def test_baselines_stand_beside_the_plan_at_any_width(against_report: ReplayReport) -> None:
    for width in (40, 80, 120):
        shown = show(against_report, width=width)
        assert "Against" in shown
        assert all(name in shown for name in ("apportion", "rule-a", "clear-10"))
        assert max(map(len, shown.splitlines())) <= width
    assert "Against, on codex" in show(against_report, width=120, verbose=True)


def test_without_baselines_nothing_is_said_of_them(large_report: ReplayReport) -> None:
    assert "Against" not in show(large_report, verbose=True)


def test_forecasts_of_the_next_agent_are_told_where_models_were_given(large_report: ReplayReport) -> None:
    assert "Next agent" not in show(large_report, verbose=True)
    row = NextAgentRow(
        source="all sources", forecasts=500, coverage=0.4, hit_rate=0.9, calibration_error=0.03, calibration_noise=0.02
    )
    shy = row.model_copy(update={"source": "shy", "forecasts": 5, "coverage": 0.0, "hit_rate": None})
    one = large_report.model_copy(update={"next_agent": [row, row.model_copy(update={"source": "one"})]})
    shown = words(show(one, verbose=True))
    told = "500 forecasts: 40.0 % were sure, and 90.0 % of these came true; calibration error 0.030 (0.020 by chance"
    assert told in shown
    assert "one: 500" not in shown
    two = one.model_copy(update={"next_agent": [*one.next_agent, shy]})
    shown = words(show(two, verbose=True))
    assert "one: 500 forecasts" in shown
    assert "shy: 5 forecasts: none of them was sure; calibration error" in shown


def test_what_plans_did_is_told_and_in_detail_where_that_is_asked_for(large_report: ReplayReport) -> None:
    shown = words(show(large_report))
    for action, done in (("mask", "left out behind a handle"), ("structure", "rewritten without loss")):
        rows = [row for row in large_report.actions if row.action == action]
        assert f"{done}: {sum(row.pieces for row in rows):,} pieces, " in shown
    assert "json_columns" not in shown
    shown = words(show(large_report, verbose=True))
    assert "json_columns" in shown
    assert "Where tokens and money went, per agent and stage (15 of 144)" in shown
    assert "Forecast, allocated and used, per agent (15 of 36)" in shown
    piece = large_report.left_out[0]
    assert f"{piece.tool or 'tool result'}, main, before call {piece.call}: " in shown
    assert f"... {large_report.left_out_pieces - 5:,} more" in shown
    assert "apportion expand" not in shown


def test_handles_of_what_was_left_out_are_named_where_originals_are_kept(large_report: ReplayReport) -> None:
    piece = large_report.left_out[0].model_copy(update={"handle": "h:1234abcd", "head": "secret"})
    shown = words(show(large_report.model_copy(update={"left_out": [piece]}), verbose=True))
    assert "; apportion expand h:1234abcd" in shown
    assert "secret" not in shown


@pytest.mark.parametrize("width", [40, 80, 120])
def test_all_details_fit_any_width_without_colours_where_nobody_sees_them(
    learned_report: ReplayReport, width: int
) -> None:
    shown = show(learned_report, width=width, verbose=True)
    assert max(map(len, shown.splitlines())) <= width
    assert "\x1b" not in shown
    assert "Came" in shown
    assert "\x1b" in show(learned_report, width=width, verbose=True, colours=True)
