"""The nouns of the ledger: accounts with balances, reservations, refusals, and what an audit finds.

Tokens are total tokens (prompt plus output); money is nano-dollars (`*_nusd`), as in plans. Both are integers.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Literal, NamedTuple

MOST = 2**53
"""The largest number of tokens, or nano-dollars (9 million dollars), in a limit or a booking."""

LEASE_S = 900.0
"""How long a reservation holds, in seconds: more than the ten minutes after which SDKs of model providers give up."""

MOST_LEASE_S = 30 * 86_400.0
"""The longest lease: thirty days, in seconds."""

HOUR_S = 3600
"""A rolling window of an hour, in seconds."""

DAY_S = 86_400
"""A rolling window of a day, in seconds."""

MOST_WINDOW_S = 366 * DAY_S
"""The longest rolling window: a year, in seconds."""

MOST_DEPTH = 64
"""How many accounts may stand above one another."""

State = Literal["open", "settled", "released", "expired"]
"""What became of a reservation: it holds; it was used; the call was not made; its lease ended."""

Unit = Literal["tokens", "cost_nusd"]
"""What is booked."""


class Amounts(NamedTuple):
    """Tokens and money together.

    Attributes:
        tokens: Total tokens.
        cost_nusd: Nano-dollars.
    """

    tokens: int = 0
    cost_nusd: int = 0


@dataclass(frozen=True, slots=True)
class Balance:
    """How one unit of an account stands: `spent + held + free == total`.

    Attributes:
        total: The limit, or `None` where there is none.
        spent: What was used; in an account with a window, what was used within it.
        held: What is reserved for calls that have not come back.
    """

    total: int | None
    spent: int
    held: int

    @property
    def free(self) -> int | None:
        """What may still be reserved; negative where calls used more than they had reserved, `None` without a limit."""
        return None if self.total is None else self.total - self.spent - self.held


@dataclass(frozen=True, slots=True)
class Account:
    """A budget as it stands at one instant. What is booked on it is booked on every account above it too.

    Attributes:
        id: Its name.
        parent: The account whose remainder it draws on, or `None`.
        window_s: Length of its rolling window in seconds, or `None` where everything ever spent counts.
        closed: Whether nothing more can be reserved on it or below.
        tokens: Its tokens.
        cost_nusd: Its nano-dollars.
        passed: What was spent before its window began.
        reservations: How many hold, on it and below.
    """

    id: str
    parent: str | None
    window_s: int | None
    closed: bool
    tokens: Balance
    cost_nusd: Balance
    passed: Amounts
    reservations: int


@dataclass(frozen=True, slots=True)
class Reservation:
    """An amount held for one call, and what became of it.

    Attributes:
        id: Its name, by which a retry is recognised.
        account: The account on which it was made.
        state: What became of it.
        tokens: Tokens held.
        cost_nusd: Nano-dollars held.
        used_tokens: Tokens used, or `None` until it is settled.
        used_cost_nusd: Nano-dollars used, or `None` until it is settled.
        expires_us: When its lease ends or ended, in microseconds since 1970.
        late: Whether it was settled after what it held had gone back, or without any reservation.
        degraded: Why the store does not know of this, or `None` where it does.
        granted: That there is a reservation.
    """

    id: str
    account: str
    state: State
    tokens: int
    cost_nusd: int
    used_tokens: int | None = None
    used_cost_nusd: int | None = None
    expires_us: int = 0
    late: bool = False
    degraded: str | None = None
    granted: Literal[True] = field(default=True, init=False)

    @property
    def expires_at(self) -> datetime:
        """When its lease ends or ended, UTC."""
        return datetime.fromtimestamp(self.expires_us / 1e6, UTC)


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why nothing was reserved. It is an expected outcome, hence a value.

    Attributes:
        account: The account that refuses: the one asked, or one above it.
        unit: What it lacks, or `None` where it is closed.
        asked: How much was asked for.
        free: How much was free.
        held: How much is held there, and may come free.
        retry_after_s: Seconds until the next lease ends, or the next spend leaves the window, if nothing happens
            before; `None` where nothing comes free by itself.
        granted: That there is no reservation.
    """

    account: str
    unit: Unit | None
    asked: int = 0
    free: int = 0
    held: int = 0
    retry_after_s: float | None = None
    granted: Literal[False] = field(default=False, init=False)

    @property
    def reason(self) -> str:
        """The refusal in words."""
        if self.unit is None:
            return f"account '{self.account}' is closed"
        unit = "tokens" if self.unit == "tokens" else "nano-dollars"
        held = f"; {self.held:,} are held" if self.held else ""
        return f"account '{self.account}' has {self.free:,} {unit} free, {self.asked:,} were asked for{held}"


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that an audit found.

    Attributes:
        kind: "wrong" where the books contradict themselves; "overdrawn" or "overdue" where they tell of something.
        account: The account concerned.
        text: What it is, in words.
    """

    kind: Literal["wrong", "overdrawn", "overdue"]
    account: str
    text: str
