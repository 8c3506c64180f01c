"""`apportion ledger`, run as users run it."""

from __future__ import annotations

import json
import sqlite3
import sys
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest

from apportion.planner.doors.cli import main
from apportion.planner.ledger import Ledger

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.fixture
def run(place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Run `apportion ledger`, and return exit code, output and complaints."""

    def run_it(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["apportion", "ledger", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        printed = capsys.readouterr()
        return int(ended.value.code or 0), printed.out, printed.err

    return run_it


@pytest.fixture
def file(place: Path) -> str:
    """A ledger with a few accounts, and two calls under way."""
    path = place / "ledger.db"
    with Ledger(path) as ledger:
        ledger.open_account("team", tokens=5_000_000, cost_nusd=20_000_000_000, window_s=86_400)
        ledger.open_account("run-17", parent="team", tokens=200_000)
        ledger.open_account("reviewer", parent="run-17", tokens=50_000)
        for key, account, tokens in (
            ("call-1", "reviewer", 30_000),
            ("call-2", "reviewer", 12_000),
            ("call-3", "run-17", 8_000),
        ):
            assert ledger.reserve(account, tokens=tokens, cost_nusd=90_000_000, key=key).granted
        ledger.settle("call-1", tokens=21_345, cost_nusd=64_000_000)
    return str(path)


def test_show_lists_accounts_below_one_another_and_what_is_held(run: Any, file: str) -> None:
    code, out, err = run("show", "--ledger", file)
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[0] == f"ledger: {file}"
    assert lines[4:10] == [
        "team (per day)  tokens  5,000,000  21,345  20,000  4,958,655",
        "                   USD    20.0000  0.0640  0.1800    19.7560",
        "  run-17        tokens    200,000  21,345  20,000    158,655",
        "                   USD          -  0.0640  0.1800          -",
        "    reviewer    tokens     50,000  21,345  12,000     16,655",
        "                   USD          -  0.0640  0.0900          -",
    ]
    assert [line.split()[0] for line in lines[-2:]] == ["call-2", "call-3"]
    assert "in 8" in lines[-1] or "in 9" in lines[-1]


def test_show_of_one_account_shows_what_is_below_it(run: Any, file: str) -> None:
    code, out, _ = run("show", "run-17", "--ledger", file, "--json")
    data = json.loads(out)
    assert (code, data["schema"], data["ledger"]) == (0, "apportion.ledger/1", file)
    assert [account["id"] for account in data["accounts"]] == ["run-17", "reviewer"]
    assert data["accounts"][1]["tokens"] == {"total": 50_000, "spent": 21_345, "held": 12_000, "free": 16_655}
    assert [one["id"] for one in data["reservations"]] == ["call-2", "call-3"]


def test_top_up_raises_a_limit_once_per_key(run: Any, file: str) -> None:
    for _ in range(2):
        code, out, _ = run("top-up", "run-17", "--tokens", "50000", "--key", "monday", "--ledger", file)
        assert (code, out) == (0, "run-17: 250,000 tokens in total, 208,655 free\n")
    code, out, _ = run("top-up", "team", "--usd", "2.50", "--ledger", file, "--json")
    assert json.loads(out)["account"]["cost_nusd"]["total"] == 22_500_000_000


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["top-up", "run-17"], "error: a top-up needs an amount\nhint: Give --tokens, --usd or both"),
        (
            ["top-up", "run-17", "--tokens", "50k"],
            "error: --tokens must be a whole number, not '50k'\nhint: Write 50000",
        ),
        (["top-up", "run-17", "--usd", "nan"], "error: --usd must be above 0"),
        (["top-up", "run-17", "--usd", "1"], "error: account 'run-17' does not limit money"),
        (["top-up", "nobody", "--tokens", "1"], "error: there is no account 'nobody'"),
        (["show", "nobody"], "error: there is no account 'nobody'"),
        (["release"], "error: give reservations, or an account"),
        (["release", "call-2", "--account", "team"], "error: give reservations, or an account"),
        (["release", "nothing"], "error: there is no reservation 'nothing'"),
        (["release", "call-1"], "error: reservation 'call-1' was settled"),
        (["show", "\x1b[31m"], "error: account cannot be"),
    ],
)
def test_mistakes_are_told_in_one_message(run: Any, file: str, arguments: list[str], said: str) -> None:
    code, out, err = run(*arguments, "--ledger", file)
    assert (code, out) == (2, "")
    assert err.startswith(said)
    assert "\x1b[31m" not in err.replace("\x1b[31merror", "")


def test_release_gives_back_one_reservation_or_all_of_an_account(run: Any, file: str) -> None:
    code, out, _ = run("release", "call-3", "--ledger", file)
    assert (code, out) == (0, "call-3: released, 8,000 tokens and $0.0900 free again\n")
    code, out, _ = run("release", "--account", "team", "--ledger", file, "--json")
    assert [one["id"] for one in json.loads(out)["released"]] == ["call-2"]
    assert run("release", "--account", "team", "--ledger", file)[1] == "nothing is held there\n"


def test_audit_says_that_the_books_add_up_or_where_they_do_not(run: Any, file: str) -> None:
    code, out, err = run("audit", "--ledger", file)
    assert (code, out, err) == (0, f"ledger: {file}\nthe books add up\n", "")
    with closing(sqlite3.connect(file)) as connection:
        connection.execute("UPDATE accounts SET tokens_held = tokens_held + 5 WHERE id = 'team'")
        connection.commit()
    code, out, err = run("audit", "--ledger", file)
    assert code == 3
    assert "wrong: account 'team': 20,005 tokens are booked as held, its reservations hold 20,000" in out
    assert err.startswith("error: the books contradict themselves in 1 places")
    code, out, _ = run("audit", "--ledger", file, "--json")
    assert (code, json.loads(out)["ok"], json.loads(out)["findings"][0]["account"]) == (3, False, "team")


def test_looking_at_a_ledger_that_does_not_exist_makes_none(run: Any, place: Path) -> None:
    for arguments in (["show"], ["audit"], ["show", "--ledger", str(place / "other.db")]):
        code, out, err = run(*arguments)
        assert (code, out) == (2, "")
        assert err.startswith("error: there is no ledger")
    assert not list(place.glob("**/*.db"))


def test_without_an_option_the_ledger_beside_the_telemetry_store_is_meant(run: Any, place: Path) -> None:
    with Ledger(place / "data" / "apportion" / "ledger.db"):
        pass
    assert run("show")[1].endswith("ledger.db\nno account has been opened yet\n")


def test_help_shows_examples(run: Any) -> None:
    for command in ("show", "top-up", "release", "audit"):
        code, out, _ = run(command, "--help")
        assert code == 0
        assert f"apportion ledger {command}" in out
