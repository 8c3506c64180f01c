"""Aborting: what does not fit is an error."""

from __future__ import annotations

from typing import TYPE_CHECKING

from apportion.planner.policies.types import BasePolicy

if TYPE_CHECKING:
    from apportion.errors import InfeasiblePlanError


class Abort(BasePolicy):
    """Raise an error where the mandatory part does not fit, instead of returning what is missing.

    The error names a minimal conflict (`conflict`) and the missing amounts (`missing`).
    """

    name = "abort"

    def conclude(self, error: InfeasiblePlanError) -> None:
        """Raise the error."""
        raise error
