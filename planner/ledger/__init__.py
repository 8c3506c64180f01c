"""The ledger: amounts are reserved before a call, and settled, released or taken back by lease after it.

with Ledger("ledger.db") as ledger:
    ledger.open_account("run", tokens=100_000)
    held = ledger.reserve("run", tokens=4_000)
    if held.granted:
        ...  # the call
        ledger.settle(held, tokens=3_100)
"""

from apportion.planner.ledger.ledger import Ledger, OnStoreFailure
from apportion.planner.ledger.records import Account, Amounts, Balance, Finding, Refusal, Reservation

__all__ = ["Account", "Amounts", "Balance", "Finding", "Ledger", "OnStoreFailure", "Refusal", "Reservation"]
