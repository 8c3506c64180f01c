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
        for balance, amount in zip((self.tokens, self.cost_nusd), amounts, strict=True):
            if balance.free is not None and balance.free < amount:
                return False
        self._held[number] = (amounts, self._timer() + LEASE_S)
        return True

    def settle(self, number: int | None, used: Amounts) -> None:
        """Book what was used; what was held for the step comes back."""
        self._held.pop(number if number is not None else -1, None)
        self._spent = Amounts(self._spent.tokens + used.tokens, self._spent.cost_nusd + used.cost_nusd)

    def release(self, number: int) -> None:
        """Give back what was held for a step."""
        self._held.pop(number, None)

    def held(self, number: int) -> Amounts:
        """Return what is held for a step."""
        return self._held[number][0] if number in self._held else Amounts()

    def top_up(self, more: Amounts) -> None:
        """Raise the limits, where there are any."""
        tokens, cost = (None if total is None else total + one for total, one in zip(self._total, more, strict=True))
        self._total = (tokens, cost)

    def _balance(self, unit: int) -> Balance:
        self._take_back_expired()
        held = sum(amounts[unit] for amounts, _ in self._held.values())
        return Balance(total=self._total[unit], spent=self._spent[unit], held=held)

    def _take_back_expired(self) -> None:
        if self._held:
            now = self._timer()
            for number in [number for number, (_, ends) in self._held.items() if ends <= now]:
                del self._held[number]
