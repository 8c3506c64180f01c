"""Everything that apportion raises, in one tree.

    ApportionError
    ├── InputError                a log, problem or option that cannot be used
    │   ├── UnsupportedFormatError    no importer recognises the content
    │   ├── NothingToReplayError      the paths hold no workflow at all
    │   └── DeltaError                a delta that cannot be applied
    ├── SettingsError             a setting is unknown, malformed or cannot be written
    ├── MissingExtraError         the feature needs an optional dependency
    ├── PlanError                 no valid plan can be given
    │   ├── ProblemError              the problem contradicts itself
    │   ├── InfeasiblePlanError       the mandatory part does not fit
    │   └── BudgetExhaustedError      the policy is to abort where a budget is used up
    ├── LedgerError               a booking contradicts what the ledger holds
    └── StoreError                a store cannot be opened, read or written

Every error says what happened, where, and what to do next; the facts are attributes.
Running out of budget is an expected outcome with a policy, hence a value: it is an error only where the policy is to
abort.
"""

from __future__ import annotations

from pathlib import Path  # noqa: TC003  (documents a public attribute)
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping


class ApportionError(Exception):
    """Base of all errors raised by apportion.

    Args:
        message: What happened, in one sentence without a full stop.
        hint: What the user can do next, or `None`.
    """

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}. {self.hint}" if self.hint else self.message


class InputError(ApportionError):
    """A log, problem file or option cannot be used.

    Args:
        message: What is wrong.
        path: The file concerned, or `None`.
        line: The line concerned, counted from 1, or `None`.
        hint: What to do next, or `None`.
    """

    def __init__(
        self, message: str, *, path: Path | str | None = None, line: int | None = None, hint: str | None = None
    ) -> None:
        super().__init__(message, hint=hint)
        self.path = path
        self.line = line

    def __str__(self) -> str:
        where = "" if self.path is None else f"{self.path}: " if self.line is None else f"{self.path}:{self.line}: "
        return where + super().__str__()


class UnsupportedFormatError(InputError):
    """No importer recognises the content of a file."""


class NothingToReplayError(InputError):
    """The given paths hold no workflow that could be replayed."""


class DeltaError(InputError):
    """A delta cannot be applied: the receiver needs the whole context.

    Args:
        message: What is wrong.
        reason: The same as one word, from `apportion.compression.diff.Reason`.
    """

    def __init__(self, message: str, *, reason: str) -> None:
        super().__init__(message, hint="Ask for the whole context.")
        self.reason = reason


class SettingsError(ApportionError):
    """A setting is unknown, malformed or cannot be written."""


class MissingExtraError(ApportionError):
    """A feature needs an optional dependency that is not installed.

    Args:
        feature: What was asked for.
        extra: The extra of this package that brings it.
    """

    def __init__(self, feature: str, *, extra: str) -> None:
        hint = f"Install it from the clone of apportion: pip install '/path/to/the/clone[{extra}]'"
        super().__init__(f"{feature} needs the extra '{extra}'", hint=hint)
        self.feature = feature
        self.extra = extra


class PlanError(ApportionError):
    """No valid plan can be given."""


class ProblemError(PlanError):
    """A planning problem contradicts itself."""


class InfeasiblePlanError(PlanError):
    """The mandatory part of a problem does not fit its limits.

    Args:
        message: What does not fit.
        missing_tokens: How many tokens are missing at least, or `None` where unknown.
        conflict: Limits that cannot all hold; without any one of them there would be a plan.
        missing: What limits lack, in the units of each.
        hint: What to do next, or `None`.
    """

    def __init__(
        self,
        message: str,
        *,
        missing_tokens: int | None = None,
        conflict: tuple[str, ...] = (),
        missing: Mapping[str, int] | None = None,
        hint: str | None = None,
    ) -> None:
        super().__init__(message, hint=hint)
        self.missing_tokens = missing_tokens
        self.conflict = conflict
        self.missing = dict(missing or {})


class BudgetExhaustedError(PlanError):
    """The budget does not hold the next call, and the policy is to abort.

    Args:
        message: What is lacking.
        reasons: The same, one by one.
        hand_back: What is done and what is left (`planner.steps.HandBack`).
    """

    def __init__(self, message: str, *, reasons: tuple[str, ...], hand_back: Any) -> None:
        super().__init__(message, hint="Hand back what is done, or top the budget up")
        self.reasons = reasons
        self.hand_back = hand_back


class LedgerError(ApportionError):
    """A booking contradicts what the ledger holds: an unknown account, or a reservation settled twice, differently."""


class StoreError(ApportionError):
    """A store cannot be opened, read or written."""
