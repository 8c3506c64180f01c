"""The commands `apportion ledger show | top-up | release | audit`."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from apportion.planner.doors.cli._common import complain, print_json, say
from apportion.planner.doors.cli._numbers import amount, whole_number
from apportion.planner.doors.cli._tables import table

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from apportion.planner.ledger import Account, Balance, Ledger, Reservation

WRONG = 3
"""Exit code of `audit` when the books contradict themselves."""

MOST_TOKENS = 2**53
"""Largest top-up in tokens."""

MOST_USD = 1_000_000.0
"""Largest top-up in US dollars."""

RESERVATIONS = 20
"""Open reservations that are shown; JSON has all of them."""

SCHEMA = "apportion.ledger/1"
"""Name and version of the JSON that is written."""

AccountArgument = Annotated[str, typer.Argument(metavar="ACCOUNT", help="The account.", show_default=False)]
LedgerOption = Annotated[
    str | None,
    typer.Option(
        "--ledger",
        metavar="FILE|ADDRESS",
        help="The ledger: a file, or postgresql://...; default: ledger.db beside the telemetry store.",
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]

commands = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    short_help="Show and change budgets at run time.",
    help="""Show and change budgets at run time: what was spent, what is held for calls under way, and what is free.

A ledger is a file, shared by the processes of one machine, or a PostgreSQL database (postgresql://USER@HOST/DATABASE;
keep the password in ~/.pgpass or PGPASSWORD). Whoever runs agents opens accounts and reserves before each call.

\b
Examples:
  apportion ledger show
  apportion ledger top-up run-17 --tokens 50000
  apportion ledger release --account run-17
  apportion ledger audit --ledger postgresql://planner@db/budgets

Exit codes: 0 done; 2 a mistake, or a ledger that cannot be used; 3 an audit found books that contradict themselves.
""",
)


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    app.add_typer(commands, name="ledger")


@commands.command(short_help="Show how accounts stand.")
def show(
    account: Annotated[
        str | None,
        typer.Argument(metavar="[ACCOUNT]", help="Show only this account and those below it.", show_default=False),
    ] = None,
    *,
    ledger: LedgerOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show how accounts stand, and which reservations are open.

    Total is what was spent, is held and is free together; "-" means no limit. In an account with a rolling window only
    what was spent within it counts. Free is negative where calls used more than they had reserved.

    \b
    Examples:
      apportion ledger show
      apportion ledger show run-17 --json
    """  # noqa: D301  (\b keeps the lines of the examples apart)
    with _opened(ledger) as opened:
        accounts = opened.accounts(account)
        reservations = opened.reservations(account)
        name = opened.name
    if as_json:
        listed = [_reservation_json(one) for one in reservations]
        print_json(_json(name, {"accounts": [account_json(one) for one in accounts], "reservations": listed}))
        return
    say(_plain(f"ledger: {name}"))
    if not accounts:
        say("no account has been opened yet")
        return
    say()
    for line in table(["Account", "Unit", "Total", "Spent", "Held", "Free"], list(account_rows(accounts))):
        say(line)
    _show_reservations(reservations)


@commands.command("top-up", short_help="Raise the limit of an account.")
def top_up(
    account: AccountArgument,
    *,
    tokens: Annotated[
        int | None,
        typer.Option(parser=whole_number("--tokens", most=MOST_TOKENS), metavar="NUMBER", help="Tokens to add."),
    ] = None,
    usd: Annotated[
        float | None,
        typer.Option(parser=amount("--usd", most=MOST_USD), metavar="AMOUNT", help="US dollars to add."),
    ] = None,
    key: Annotated[
        str | None,
        typer.Option("--key", metavar="NAME", help="Name of this top-up: the same name again adds nothing."),
    ] = None,
    ledger: LedgerOption = None,
    as_json: JsonOption = False,
) -> None:
    """Raise the limit of an account, in tokens, US dollars or both.

    Accounts above it keep their limits, and its calls must fit those too.

    \b
    Examples:
      apportion ledger top-up run-17 --tokens 50000
      apportion ledger top-up team --usd 2.50 --key monday
    """  # noqa: D301
    from apportion.errors import InputError

    if not (tokens or usd):
        raise InputError("a top-up needs an amount", hint="Give --tokens, --usd or both")
    with _opened(ledger) as opened:
        opened.top_up(account, tokens=tokens or 0, cost_nusd=round((usd or 0) * 1e9), key=key)
        stands = opened.account(account)
        name = opened.name
    if as_json:
        print_json(_json(name, {"account": account_json(stands)}))
        return
    for row in account_rows([stands]):
        if row[2] != _NONE:
            say(_plain(f"{account}: {row[2]} {row[1]} in total, {row[5]} free"))


@commands.command(short_help="Give back what reservations hold.")
def release(
    reservations: Annotated[
        list[str] | None,
        typer.Argument(metavar="[RESERVATION]...", help="Reservations to release.", show_default=False),
    ] = None,
    *,
    account: Annotated[
        str | None,
        typer.Option("--account", metavar="ACCOUNT", help="Release all that are open on this account and below it."),
    ] = None,
    ledger: LedgerOption = None,
    as_json: JsonOption = False,
) -> None:
    """Give back what reservations hold whose calls will not be made, before their leases end.

    A call that is settled all the same afterwards is booked in full.

    \b
    Examples:
      apportion ledger release 5f0c8e...
      apportion ledger release --account run-17
    """  # noqa: D301
    from apportion.errors import InputError

    if bool(reservations) == (account is not None):
        raise InputError("give reservations, or an account", hint="apportion ledger show lists both")
    with _opened(ledger) as opened:
        names = reservations or [one.id for one in opened.reservations(account)]
        released = [opened.release(one) for one in names]
        name = opened.name
    if as_json:
        print_json(_json(name, {"released": [_reservation_json(one) for one in released]}))
        return
    for one in released:
        say(_plain(f"{one.id}: {one.state}, {_amounts(one)} free again"))
    if not released:
        say("nothing is held there")


@commands.command(short_help="Check that the books add up.")
def audit(*, ledger: LedgerOption = None, as_json: JsonOption = False) -> None:
    """Check that the books of every account agree with the reservations, spends and top-ups behind them.

    Accounts that are overdrawn, and leases that have ended, are told too; they are no mistake of the books.

    Example: apportion ledger audit --json
    """
    with _opened(ledger) as opened:
        findings = opened.audit()
        name = opened.name
    wrong = [finding for finding in findings if finding.kind == "wrong"]
    if as_json:
        listed = [{"kind": one.kind, "account": one.account, "text": one.text} for one in findings]
        print_json(_json(name, {"ok": not wrong, "findings": listed}))
    else:
        say(_plain(f"ledger: {name}"))
        for finding in findings:
            say(_plain(f"{finding.kind}: {finding.text}"))
        if not wrong:
            say("the books add up")
    if wrong:
        complain(f"the books contradict themselves in {len(wrong):,} places", "Book nothing more, and keep a copy")
        raise typer.Exit(WRONG)


def _opened(address: str | None) -> Ledger:
    """Open a ledger that exists: looking at one must not make it.

    Raises:
        StoreError: There is none, or it cannot be used.
    """
    from apportion.planner.ledger import Ledger
    from apportion.settings import load_settings

    default = load_settings().settings.telemetry.database.with_name("ledger.db")
    return Ledger(address or default, create=False)


_NONE = "-"


def account_rows(accounts: Sequence[Account]) -> Iterator[list[str]]:
    """Yield the rows of a table of accounts: account, unit, total, spent, held, free."""
    above: dict[str, int] = {}
    for account in accounts:
        above[account.id] = above.get(account.parent or "", -1) + 1
        name = "  " * above[account.id] + account.id + _remark(account)
        for unit, balance, write in (("tokens", account.tokens, _tokens), ("USD", account.cost_nusd, _usd)):
            if unit == "tokens" or balance.total is not None or balance.spent or balance.held:
                yield [name, unit, *map(write, (balance.total, balance.spent, balance.held, balance.free))]
                name = ""


def _remark(account: Account) -> str:
    window = "" if account.window_s is None else f" (per {_duration(account.window_s)})"
    return f"{window}{' (closed)' if account.closed else ''}"


def _duration(seconds: int) -> str:
    for size, unit in ((86_400, "day"), (3600, "hour"), (60, "minute")):
        if seconds % size == 0:
            return unit if seconds == size else f"{seconds // size:,} {unit}s"
    return f"{seconds:,} s"


def _tokens(value: int | None) -> str:
    return _NONE if value is None else f"{value:,}"


def _usd(value: int | None) -> str:
    return _NONE if value is None else f"{value / 1e9:,.4f}"


def _amounts(one: Reservation) -> str:
    return f"{one.tokens:,} tokens" + (f" and ${_usd(one.cost_nusd)}" if one.cost_nusd else "")


def _show_reservations(reservations: Sequence[Reservation]) -> None:
    if not reservations:
        return
    say()
    rows = [
        [one.id, one.account, f"{one.tokens:,}", _usd(one.cost_nusd), _until(one)]
        for one in reservations[:RESERVATIONS]
    ]
    for line in table(["Open reservation", "Account", "Tokens", "USD", "Lease ends"], rows):
        say(line)
    if len(reservations) > RESERVATIONS:
        say(f"and {len(reservations) - RESERVATIONS:,} more; --json lists them")


def _until(one: Reservation) -> str:
    left = (one.expires_at - datetime.now(UTC)).total_seconds()
    return "ended" if left <= 0 else f"in {left:,.0f} s"


def _json(name: str, content: dict[str, Any]) -> dict[str, Any]:
    return {"schema": SCHEMA, "ledger": name, **content}


def account_json(account: Account) -> dict[str, Any]:
    """Return an account as JSON has it."""
    return {
        "id": account.id,
        "parent": account.parent,
        "window_s": account.window_s,
        "closed": account.closed,
        "tokens": _balance_json(account.tokens),
        "cost_nusd": _balance_json(account.cost_nusd),
        "passed": account.passed._asdict(),
        "reservations": account.reservations,
    }


def _balance_json(balance: Balance) -> dict[str, int | None]:
    return {"total": balance.total, "spent": balance.spent, "held": balance.held, "free": balance.free}


def _reservation_json(one: Reservation) -> dict[str, Any]:
    return {
        "id": one.id,
        "account": one.account,
        "state": one.state,
        "tokens": one.tokens,
        "cost_nusd": one.cost_nusd,
        "expires_at": one.expires_at.isoformat(),
    }


def _plain(text: str) -> str:
    from apportion.planner.report.figures import plain

    return plain(text)
