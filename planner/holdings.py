"""What a session holds of its own budget for calls that have not come back: the ledger's law, in memory.

`spent + held + free == total` at every instant. What is used is a fact and booked in full; what is held comes back when
the call is settled, was not made, or has not been heard of for `LEASE_S`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from apportion.planner.ledger import Balance
from apportion.planner.ledger.records import LEASE_S, Amounts

if TYPE_CHECKING:
    from collections.abc import Callable


class Holdings:
    """The budget of one session.

    Args:
        total: Its limits; `None`: no limit.
        timer: Tells seconds that never go back.
    """

    def __init__(self, total: tuple[int | None, int | None], timer: Callable[[], float]) -> None:
        self._total = total
        self._timer = timer
        self._spent = Amounts()
        self._held: dict[int, tuple[Amounts, float]] = {}
        self._sums = [0, 0]
        self._next = float("inf")  # when the next lease ends, or earlier

    @property
    def tokens(self) -> Balance:
        """How the tokens stand."""
        return self._balance(0)

    @property
    def cost_nusd(self) -> Balance:
        """How the nano-dollars stand."""
        return self._balance(1)

    def hold(self, number: int, amounts: Amounts) -> bool:
        """Hold amounts for a step, and say whether there was enough."""
        self._take_back_expired()
        for unit in (0, 1):
            free = self.free(unit)
            if free is not None and free < amounts[unit]:
                return False
        ends = self._timer() + LEASE_S
        self.release(number)
        self._held[number] = (amounts, ends)
        self._sums = [self._sums[0] + amounts.tokens, self._sums[1] + amounts.cost_nusd]
        self._next = min(self._next, ends)
        return True

    def free(self, unit: int) -> int | None:
        """Return what may still be held: 0 for tokens, 1 for nano-dollars; `None`: no limit."""
        self._take_back_expired()
        total = self._total[unit]
        return None if total is None else total - self._spent[unit] - self._sums[unit]

    def settle(self, number: int | None, used: Amounts) -> None:
        """Book what was used; what was held for the step comes back."""
        if number is not None:
            self.release(number)
        self._spent = Amounts(self._spent.tokens + used.tokens, self._spent.cost_nusd + used.cost_nusd)

    def release(self, number: int) -> None:
        """Give back what was held for a step."""
        amounts, _ = self._held.pop(number, (Amounts(), 0.0))
        self._sums = [self._sums[0] - amounts.tokens, self._sums[1] - amounts.cost_nusd]

    def renew(self, number: int) -> None:
        """Let the lease of a step begin anew, also where it has ended and nobody has taken it back yet."""
        if number in self._held:
            self._held[number] = (self._held[number][0], self._timer() + LEASE_S)

    def held(self, number: int) -> Amounts:
        """Return what is held for a step."""
        return self._held[number][0] if number in self._held else Amounts()

    def top_up(self, more: Amounts) -> None:
        """Raise the limits, where there are any."""
        tokens, cost = (None if total is None else total + one for total, one in zip(self._total, more, strict=True))
        self._total = (tokens, cost)

    def _balance(self, unit: int) -> Balance:
        self._take_back_expired()
        return Balance(total=self._total[unit], spent=self._spent[unit], held=self._sums[unit])

    def _take_back_expired(self) -> None:
        now = self._timer()
        if now < self._next:
            return
        for number in [number for number, (_, ends) in self._held.items() if ends <= now]:
            self.release(number)
        self._next = min((ends for _, ends in self._held.values()), default=float("inf"))
