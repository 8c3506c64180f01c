from __future__ import annotations

import json
import uuid
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apportion.errors import InputError, LedgerError, StoreError
from apportion.planner.ledger import Ledger
from apportion.planner.ledger.records import DAY_S, HOUR_S, MOST, MOST_DEPTH

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def free(ledger: Ledger, account: str) -> tuple[int | None, int | None]:
    stands = ledger.account(account)
    return stands.tokens.free, stands.cost_nusd.free


def test_what_is_reserved_is_held_and_what_is_not_used_is_free_again(ledger: Ledger, reserved: Any) -> None:
    ledger.open_account("run", tokens=1000, cost_nusd=50)
    held = reserved(ledger, "run", 600, cost_nusd=20)
    assert (free(ledger, "run"), ledger.account("run").reservations) == ((400, 30), 1)
    used = ledger.settle(held, tokens=450, cost_nusd=5)
    assert (used.state, used.used_tokens, used.used_cost_nusd, used.late) == ("settled", 450, 5, False)
    assert (free(ledger, "run"), ledger.account("run").reservations) == ((550, 45), 0)


def test_a_refusal_says_who_lacks_what_and_when_something_may_come_free(
    ledger: Ledger, reserved: Any, clock: Any
) -> None:
    ledger.open_account("team", tokens=1000)
    ledger.open_account("run", parent="team", tokens=900, cost_nusd=10)
    reserved(ledger, "run", 700, cost_nusd=4, lease_s=60)
    clock.now += 20
    refused = ledger.reserve("run", tokens=400, cost_nusd=1)
    assert not refused.granted
    assert (refused.account, refused.unit, refused.asked, refused.free, refused.held) == (
        "team",
        "tokens",
        400,
        300,
        700,
    )
    assert refused.retry_after_s == pytest.approx(40)
    assert refused.reason == "account 'team' has 300 tokens free, 400 were asked for; 700 are held"
    refused = ledger.reserve("run", tokens=250, cost_nusd=7)
    assert not refused.granted
    assert (refused.account, refused.unit) == ("run", "tokens")
    refused = ledger.reserve("run", tokens=1, cost_nusd=7)
    assert not refused.granted
    assert (refused.account, refused.unit, refused.free) == ("run", "cost_nusd", 6)


def test_nothing_comes_free_by_itself_where_nothing_is_held(ledger: Ledger) -> None:
    ledger.open_account("run", tokens=10)
    refused = ledger.reserve("run", tokens=11)
    assert not refused.granted
    assert refused.retry_after_s is None


def test_a_refused_reservation_holds_nothing_anywhere(ledger: Ledger) -> None:
    ledger.open_account("team", tokens=1000)
    ledger.open_account("run", parent="team", tokens=100)
    assert not ledger.reserve("run", tokens=101).granted
    assert [account.tokens.held for account in ledger.accounts()] == [0, 0]
    assert ledger.reservations() == []


def test_a_hundred_calls_of_ten_cents_at_a_cap_of_five_dollars_let_exactly_fifty_pass(ledger: Ledger) -> None:
    ledger.open_account("key", cost_nusd=5_000_000_000)
    assert sum(ledger.reserve("key", cost_nusd=100_000_000).granted for _ in range(100)) == 50
    assert ledger.account("key").cost_nusd.free == 0


def test_children_share_what_their_parent_has_left(ledger: Ledger, reserved: Any) -> None:
    ledger.open_account("run", tokens=1000)
    for child in ("a", "b"):
        ledger.open_account(child, parent="run")
    reserved(ledger, "a", 700)
    refused = ledger.reserve("b", tokens=700)
    assert not refused.granted
    assert (refused.account, refused.free) == ("run", 300)
    reserved(ledger, "b", 300)
    assert ledger.account("run").tokens.held == 1000


def test_an_account_without_limits_counts_all_the_same(ledger: Ledger, reserved: Any) -> None:
    ledger.open_account("free")
    ledger.settle(reserved(ledger, "free", MOST), tokens=7, cost_nusd=3)
    stands = ledger.account("free")
    assert (stands.tokens.spent, stands.cost_nusd.spent, stands.tokens.free) == (7, 3, None)


def test_an_unknown_amount_does_not_pass_where_it_is_limited(ledger: Ledger) -> None:
    ledger.open_account("team", cost_nusd=10)
    ledger.open_account("run", parent="team", tokens=10)
    with pytest.raises(InputError, match="tokens must be given: account 'run'"):
        ledger.reserve("run", cost_nusd=1)
    with pytest.raises(InputError, match="cost_nusd must be given: account 'run', or one above it"):
        ledger.reserve("run", tokens=1)


def test_an_unknown_use_counts_as_all_that_was_held(ledger: Ledger, reserved: Any) -> None:
    ledger.open_account("run", tokens=1000, cost_nusd=50)
    ledger.settle(reserved(ledger, "run", 600, cost_nusd=20), cost_nusd=5)
    assert free(ledger, "run") == (400, 45)


def test_more_than_was_held_is_booked_in_full_and_stops_further_calls(ledger: Ledger, reserved: Any) -> None:
    ledger.open_account("run", tokens=1000)
    ledger.settle(reserved(ledger, "run", 900), tokens=1200)
    assert free(ledger, "run") == (-200, None)
    assert not ledger.reserve("run", tokens=0).granted
    assert [finding.kind for finding in ledger.audit()] == ["overdrawn"]
    ledger.top_up("run", tokens=300)
    assert reserved(ledger, "run", 100).tokens == 100


def test_settling_twice_with_the_same_amounts_books_once(ledger: Ledger, reserved: Any) -> None:
    ledger.open_account("run", tokens=1000)
    held = reserved(ledger, "run", 600)
    first = ledger.settle(held, tokens=450)
    assert ledger.settle(held.id, tokens=450) == first == ledger.settle(held)
    assert free(ledger, "run") == (550, None)
    with pytest.raises(LedgerError, match=r"was settled already, with 450 tokens"):
        ledger.settle(held, tokens=451)
    assert free(ledger, "run") == (550, None)


def test_reserving_twice_with_one_key_holds_once(ledger: Ledger, reserved: Any) -> None:
    ledger.open_account("run", tokens=1000)
    ledger.open_account("other", tokens=1000)
    first = reserved(ledger, "run", 600, key="call-1")
    assert reserved(ledger, "run", 600, key="call-1") == first
    assert free(ledger, "run") == (400, None)
    for account, tokens in (("run", 601), ("other", 600)):
        with pytest.raises(LedgerError, match="reservation 'call-1' exists, for 600 tokens"):
            ledger.reserve(account, tokens=tokens, key="call-1")


def test_reserving_again_what_was_settled_says_so_and_holds_nothing(ledger: Ledger, reserved: Any) -> None:
    ledger.open_account("run", tokens=1000)
    ledger.settle(reserved(ledger, "run", 600, key="call-1"), tokens=10)
    again = reserved(ledger, "run", 600, key="call-1")
    assert (again.state, again.used_tokens) == ("settled", 10)
    assert free(ledger, "run") == (990, None)


def test_what_a_released_reservation_held_is_free_again_once(ledger: Ledger, reserved: Any) -> None:
    ledger.open_account("run", tokens=1000)
    held = reserved(ledger, "run", 600)
    assert [ledger.release(held).state, ledger.release(held.id).state] == ["released", "released"]
    assert free(ledger, "run") == (1000, None)
    used = ledger.settle(held, tokens=5)  # the call was made after all
    assert (used.late, free(ledger, "run")) == (True, (995, None))
    with pytest.raises(LedgerError, match="was settled: its call was made"):
        ledger.release(held)


def test_what_nobody_settles_comes_back_when_its_lease_ends(ledger: Ledger, reserved: Any, clock: Any) -> None:
    ledger.open_account("team", tokens=1000)
    ledger.open_account("run", parent="team")
    held = reserved(ledger, "run", 1000, lease_s=60)
    clock.now += 59
    assert not ledger.reserve("run", tokens=1).granted
    clock.now += 1
    assert free(ledger, "team") == (1000, None)  # before any booking has noticed
    assert [finding.kind for finding in ledger.audit()] == ["overdue", "overdue"]
    reserved(ledger, "run", 1000)
    assert ledger.reservation(held.id).state == "expired"
    assert [account.tokens.held for account in ledger.accounts()] == [1000, 1000]


def test_a_call_that_comes_back_after_its_lease_is_booked_all_the_same(
    ledger: Ledger, reserved: Any, clock: Any
) -> None:
    ledger.open_account("run", tokens=1000)
    slow = reserved(ledger, "run", 800, lease_s=60)
    clock.now += 60
    reserved(ledger, "run", 900)
    used = ledger.settle(slow, tokens=700)
    assert (used.late, free(ledger, "run")) == (True, (-600, None))
    assert [finding.kind for finding in ledger.audit()] == ["overdrawn"]


def test_a_lease_that_is_renewed_ends_later(ledger: Ledger, reserved: Any, clock: Any) -> None:
    ledger.open_account("run", tokens=1000)
    held = reserved(ledger, "run", 800, lease_s=60)
    clock.now += 50
    assert ledger.renew(held, lease_s=60).expires_us == held.expires_us + 50_000_000
    clock.now += 50
    assert not ledger.reserve("run", tokens=900).granted
    clock.now += 10
    reserved(ledger, "run", 900)
    with pytest.raises(LedgerError, match="is expired"):
        ledger.renew(held)


def test_a_clock_that_is_set_back_delays_a_lease_by_no_more_than_its_length(
    ledger: Ledger, reserved: Any, clock: Any
) -> None:
    ledger.open_account("run", tokens=1000)
    reserved(ledger, "run", 1000, lease_s=60)
    clock.now -= 365 * DAY_S
    assert not ledger.reserve("run", tokens=1).granted  # and the lease begins now
    clock.now += 59
    assert not ledger.reserve("run", tokens=1).granted
    clock.now += 1
    reserved(ledger, "run", 1000)


def test_a_clock_that_jumps_forward_loses_no_use(ledger: Ledger, reserved: Any, clock: Any) -> None:
    ledger.open_account("run", tokens=1000)
    held = reserved(ledger, "run", 600)
    clock.now += DAY_S
    assert ledger.reserve("run", tokens=400).granted
    clock.now -= DAY_S
    ledger.settle(held, tokens=500)
    assert free(ledger, "run") == (100, None)


def test_only_what_was_spent_within_the_window_counts(ledger: Ledger, reserved: Any, clock: Any) -> None:
    ledger.open_account("hourly", tokens=1000, window_s=HOUR_S)
    clock.now = 1_800_000_000.0
    ledger.settle(reserved(ledger, "hourly", 700), tokens=700)
    clock.now += HOUR_S / 2
    ledger.settle(reserved(ledger, "hourly", 300), tokens=300)
    refused = ledger.reserve("hourly", tokens=1)
    assert not refused.granted
    assert refused.retry_after_s is not None
    assert HOUR_S / 2 <= refused.retry_after_s <= HOUR_S / 2 + 60
    clock.now += HOUR_S / 2 - 1
    assert not ledger.reserve("hourly", tokens=1).granted  # never early
    clock.now += 61  # a sixtieth of the window late at most
    assert free(ledger, "hourly") == (700, None)
    reserved(ledger, "hourly", 700)
    stands = ledger.account("hourly")
    assert (stands.tokens.spent, stands.passed.tokens) == (300, 700)
    assert ledger.audit() == []


def test_a_window_of_a_day_above_one_of_an_hour_limits_both(ledger: Ledger, reserved: Any, clock: Any) -> None:
    ledger.open_account("daily", tokens=1500, window_s=DAY_S)
    ledger.open_account("hourly", parent="daily", tokens=1000, window_s=HOUR_S)
    ledger.settle(reserved(ledger, "hourly", 1000))
    clock.now += HOUR_S + 60
    refused = ledger.reserve("hourly", tokens=600)
    assert not refused.granted
    assert refused.account == "daily"
    ledger.settle(reserved(ledger, "hourly", 500))
    clock.now += DAY_S + DAY_S / 60
    reserved(ledger, "hourly", 1000)


def test_a_window_whose_clock_was_set_back_opens_no_later_than_its_length(
    ledger: Ledger, reserved: Any, clock: Any
) -> None:
    ledger.open_account("hourly", tokens=1000, window_s=HOUR_S)
    ledger.settle(reserved(ledger, "hourly", 1000))
    clock.now -= 365 * DAY_S
    assert not ledger.reserve("hourly", tokens=1).granted
    clock.now += HOUR_S + 60
    reserved(ledger, "hourly", 1000)
    assert ledger.audit() == []


@settings(max_examples=settings().max_examples // 4)
@given(
    spends=st.lists(st.tuples(st.integers(0, 50), st.integers(1, 400)), max_size=60),
    seconds=st.sampled_from([7, 60, 3600]),
)
def test_no_stretch_of_a_windows_length_holds_more_than_its_limit(
    spends: list[tuple[int, int]], seconds: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    now = 1_000_000.0
    booked: list[tuple[float, int]] = []
    path = tmp_path_factory.mktemp("window") / "ledger.db"
    with Ledger(path, clock=lambda: now) as ledger:
        ledger.open_account("w", tokens=1000, window_s=seconds)
        for steps, tokens in spends:
            now += steps * seconds / 40
            made = ledger.reserve("w", tokens=tokens)
            if made.granted:
                ledger.settle(made)
                booked.append((now, tokens))
    for end, _ in booked:
        assert sum(tokens for time, tokens in booked if end - seconds < time <= end) <= 1000


def test_use_without_a_reservation_is_booked_once_per_key(ledger: Ledger) -> None:
    ledger.open_account("run", tokens=1000)
    for _ in range(2):
        booked = ledger.spend("run", tokens=1100, key="found-later")
    assert (booked.late, free(ledger, "run")) == (True, (-100, None))
    with pytest.raises(LedgerError, match="with other amounts"):
        ledger.spend("run", tokens=1, key="found-later")


def test_a_top_up_raises_the_limit_once_per_key(ledger: Ledger) -> None:
    ledger.open_account("run", tokens=1000)
    for _ in range(2):
        ledger.top_up("run", tokens=500, key="monday")
    assert ledger.account("run").tokens.total == 1500
    with pytest.raises(LedgerError, match="was made already, with other amounts"):
        ledger.top_up("run", tokens=501, key="monday")
    with pytest.raises(LedgerError, match="does not limit money"):
        ledger.top_up("run", cost_nusd=1)
    with pytest.raises(InputError, match="needs an amount"):
        ledger.top_up("run")
    ledger.open_account("run", tokens=1000)  # is what it was opened with
    assert ledger.audit() == []


def test_a_closed_account_takes_no_reservations_and_settles_what_it_held(ledger: Ledger, reserved: Any) -> None:
    ledger.open_account("run", tokens=1000)
    ledger.open_account("agent", parent="run")
    held = reserved(ledger, "agent", 600)
    ledger.close_account("run")
    refused = ledger.reserve("agent", tokens=1)
    assert not refused.granted
    assert (refused.unit, refused.reason) == (None, "account 'run' is closed")
    with pytest.raises(LedgerError, match="account 'run' is closed"):
        ledger.open_account("late", parent="agent")
    ledger.settle(held, tokens=10)
    assert ledger.account("run").closed
    assert free(ledger, "run") == (990, None)


def test_opening_an_account_again_changes_nothing_and_never_silently_another_limit(ledger: Ledger) -> None:
    ledger.open_account("run", tokens=1000)
    ledger.open_account("run", tokens=1000)
    others: list[dict[str, Any]] = [
        {"tokens": 1001},
        {"tokens": 1000, "cost_nusd": 1},
        {"tokens": 1000, "window_s": 60},
    ]
    for other in others:
        with pytest.raises(LedgerError, match="exists with another parent, window or limit"):
            ledger.open_account("run", **other)
    with pytest.raises(LedgerError, match="there is no account 'nobody'"):
        ledger.open_account("child", parent="nobody")


def test_accounts_come_with_parents_first_and_can_be_asked_for_below_one(ledger: Ledger) -> None:
    for name, parent in (("z", None), ("a", "z"), ("m", "z"), ("b", "a"), ("y", None)):
        ledger.open_account(name, parent=parent, tokens=1)
    assert [account.id for account in ledger.accounts()] == ["y", "z", "a", "b", "m"]
    assert [account.id for account in ledger.accounts("a")] == ["a", "b"]


def test_open_reservations_are_listed_the_next_to_expire_first(ledger: Ledger, reserved: Any) -> None:
    ledger.open_account("run", tokens=1000)
    ledger.open_account("agent", parent="run")
    ledger.open_account("other", tokens=1000)
    late, soon = reserved(ledger, "agent", 1, lease_s=90), reserved(ledger, "run", 2, lease_s=30)
    reserved(ledger, "other", 3)
    assert ledger.reservations("run") == [soon, late]
    assert [one.tokens for one in ledger.reservations()] == [2, 1, 3]
    assert soon.expires_at < late.expires_at


def test_accounts_may_stand_only_so_deep(ledger: Ledger, reserved: Any) -> None:
    ledger.open_account("0", tokens=10)
    for depth in range(1, MOST_DEPTH):
        ledger.open_account(str(depth), parent=str(depth - 1))
    with pytest.raises(LedgerError, match=f"would stand below {MOST_DEPTH} others"):
        ledger.open_account("too deep", parent=str(MOST_DEPTH - 1))
    ledger.settle(reserved(ledger, str(MOST_DEPTH - 1), 10), tokens=4)
    assert free(ledger, "0") == (6, None)


@pytest.mark.parametrize("bad", [-1, MOST + 1, 1.0, float("nan"), True, "5", 10**400])
@pytest.mark.parametrize("unit", ["tokens", "cost_nusd"])
def test_amounts_that_are_none_are_refused_and_change_nothing(tmp_path: Path, unit: str, bad: Any) -> None:
    with Ledger(tmp_path / "ledger.db") as ledger:
        ledger.open_account("run", tokens=100, cost_nusd=100)
        held = ledger.reserve("run", tokens=1, cost_nusd=1)
        assert held.granted
        before = ledger.accounts()
        asked: list[Callable[[], Any]] = [
            lambda: ledger.reserve("run", **({"tokens": 1, "cost_nusd": 1} | {unit: bad})),
            lambda: ledger.settle(held, **{unit: bad}),
            lambda: ledger.spend("run", **{unit: bad}),
            lambda: ledger.top_up("run", **{unit: bad}),
            lambda: ledger.open_account("new", **{unit: bad}),
        ]
        for ask in asked:
            with pytest.raises(InputError, match=f"{unit} must be a whole number from 0"):
                ask()
        assert ledger.accounts() == before


@pytest.mark.parametrize("bad", ["", "a" * 201, "a\0b", "line\nend", "\ud800", "\u202eabc", 7, None])
def test_names_that_cannot_be_printed_are_refused(tmp_path: Path, bad: Any) -> None:
    with Ledger(tmp_path / "ledger.db") as ledger:
        ledger.open_account("run", tokens=100)
        for ask in (
            lambda: ledger.open_account(bad),
            lambda: ledger.reserve(bad, tokens=1),
            lambda: ledger.spend(bad, tokens=1),
            lambda: ledger.top_up(bad, tokens=1),
            lambda: ledger.account(bad),
            lambda: ledger.close_account(bad),
            lambda: ledger.reservation(bad),
        ):
            with pytest.raises(InputError, match="cannot be"):
                ask()


@pytest.mark.parametrize("bad", [0, -1, float("nan"), float("inf"), 31 * DAY_S, True, "60"])
def test_leases_that_are_none_are_refused(tmp_path: Path, bad: Any) -> None:
    with Ledger(tmp_path / "ledger.db") as ledger:
        ledger.open_account("run", tokens=100)
        with pytest.raises(InputError, match="lease_s must be above 0"):
            ledger.reserve("run", tokens=1, lease_s=bad)


@pytest.mark.parametrize("bad", [0, -1, 1.5, 10**12, True])
def test_windows_that_are_none_are_refused(tmp_path: Path, bad: Any) -> None:
    with Ledger(tmp_path / "ledger.db") as ledger, pytest.raises(InputError, match="window_s must be from 1"):
        ledger.open_account("run", window_s=bad)


def test_a_reservation_is_booked_on_no_other_account_than_its_own(ledger: Ledger, reserved: Any) -> None:
    for name in ("run", "other"):
        ledger.open_account(name, tokens=1000)
    wrong = replace(reserved(ledger, "run", 100), account="other")
    for ask in (ledger.settle, ledger.release, ledger.renew):
        with pytest.raises(LedgerError, match="is of account 'run', not of 'other'"):
            ask(wrong)
    assert [account.tokens.free for account in ledger.accounts()] == [1000, 900]
    assert ledger.audit() == []


def test_what_does_not_exist_is_an_error_that_says_so(ledger: Ledger) -> None:
    unknown = uuid.uuid4().hex
    for ask in (ledger.settle, ledger.release, ledger.renew, ledger.reservation):
        with pytest.raises(LedgerError, match=f"there is no reservation '{unknown}'"):
            ask(unknown)
    for account in (
        lambda: ledger.reserve("nobody", tokens=1),
        lambda: ledger.spend("nobody", tokens=1),
        lambda: ledger.top_up("nobody", tokens=1),
        lambda: ledger.close_account("nobody"),
        lambda: ledger.account("nobody"),
        lambda: ledger.reservations("nobody"),
    ):
        with pytest.raises(LedgerError, match="there is no account 'nobody'"):
            account()


def test_amounts_as_large_as_allowed_are_booked_exactly(ledger: Ledger, reserved: Any) -> None:
    ledger.open_account("run", tokens=MOST, cost_nusd=MOST)
    ledger.settle(reserved(ledger, "run", MOST, cost_nusd=MOST), tokens=MOST - 1, cost_nusd=MOST)
    assert free(ledger, "run") == (1, 0)


def test_a_use_too_large_to_add_up_is_an_error_and_books_nothing(ledger: Ledger) -> None:
    ledger.open_account("run")
    for _ in range(1023):
        ledger.spend("run", tokens=MOST)
    with pytest.raises(StoreError):
        ledger.spend("run", tokens=MOST)
    assert [finding.kind for finding in ledger.audit()] == []


def test_what_ended_long_ago_can_be_forgotten_without_changing_a_balance(
    ledger: Ledger, reserved: Any, clock: Any
) -> None:
    ledger.open_account("team", tokens=1000, window_s=HOUR_S)
    ledger.open_account("run", parent="team", cost_nusd=1000)
    old = [reserved(ledger, "run", 100, cost_nusd=9, lease_s=10 * HOUR_S) for _ in range(3)]
    ledger.settle(old[0], tokens=70)
    ledger.release(old[1])
    clock.now += HOUR_S
    recent = ledger.settle(reserved(ledger, "team", 50))
    before = ledger.accounts()
    assert ledger.prune(older_than_s=HOUR_S) == 2
    assert ledger.accounts() == before
    assert ledger.audit() == []
    with pytest.raises(LedgerError, match="there is no reservation"):
        ledger.settle(old[0])
    assert ledger.settle(old[2]).state == ledger.reservation(recent.id).state == "settled"
    clock.now += 1
    assert ledger.prune(older_than_s=0) == 2
    assert ledger.audit() == []
    for bad in (-1, float("nan"), float("inf"), "1"):
        with pytest.raises(InputError, match="older_than_s must be"):
            ledger.prune(older_than_s=bad)  # type: ignore[arg-type]


def test_records_can_be_written_as_json(ledger: Ledger, reserved: Any) -> None:
    ledger.open_account("run", tokens=10)
    records = [ledger.account("run"), reserved(ledger, "run", 10), ledger.reserve("run", tokens=1)]
    assert [json.loads(json.dumps(asdict(record))) for record in records]
