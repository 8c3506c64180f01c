"""What a policy is, and what it offers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, runtime_checkable

from apportion.planner.problem import Model, Variant  # noqa: TC001  (pydantic reads them)
from apportion.records import Record

if TYPE_CHECKING:
    from apportion.errors import InfeasiblePlanError
    from apportion.planner.problem import Agent, Problem


class Offer(Record):
    """Choices that a plan gets for one agent; it takes them where that is worth most.

    Attributes:
        may_defer: Whether the agent need not run now.
        variants: Other ways of running it, with ids of their own.
        models: The models that these name, as far as the problem lacks them.
    """

    may_defer: bool = False
    variants: tuple[Variant, ...] = ()
    models: tuple[Model, ...] = ()


@runtime_checkable
class Policy(Protocol):
    """What a plan may do where the budget does not suffice for everything.

    Attributes:
        name: The name under which it is asked for.
    """

    name: str

    def offer(self, agent: Agent, problem: Problem) -> Offer:
        """Return the choices for one agent; the same for the same problem, and none that the agent has already."""
        ...

    def conclude(self, error: InfeasiblePlanError) -> None:
        """Take note that the mandatory part does not fit even so; raise the error to abort."""
        ...


class BasePolicy:
    """A policy that offers nothing and aborts nothing: the start of every other one."""

    name = "none"

    def offer(self, agent: Agent, problem: Problem) -> Offer:  # noqa: ARG002  (for others to use)
        """Offer nothing."""
        return Offer()

    def conclude(self, error: InfeasiblePlanError) -> None:
        """Leave it at that: the outcome says what is missing."""
