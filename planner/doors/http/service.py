"""What the operations do: sessions by their ids, and the planner behind them; safe to call from several threads."""

from __future__ import annotations

import secrets
import threading
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal, cast

from apportion.errors import ApportionError, InputError
from apportion.planner.doors.http import messages

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from apportion.planner.ledger import Balance
    from apportion.planner.live import ContextItem
    from apportion.planner.offers import Loading, Offered
    from apportion.planner.policies import Policy
    from apportion.planner.session import Planner, Session
    from apportion.planner.steps import Step
    from apportion.records import Budget

MAX_SESSIONS = 1_000
"""Sessions that may be open at the same time."""


class UnknownSessionError(InputError):
    """There is no session of this id: it was never opened, or it was closed."""


class Service:
    """The resident planner.

    Args:
        planner: Makes the sessions, or makes what does; that is done when it is first needed.
        tools: Plans whole problems and validates (`planner.doors.mcp.service.Service`); made when it is first needed.
        embeddings: Whether the model by which meaning is compared is loaded before anybody asks for it.
    """

    def __init__(
        self, planner: Planner | Callable[[], Planner], *, tools: Any = None, embeddings: bool = False
    ) -> None:
        self._make = planner if callable(planner) else None
        self._planner = None if callable(planner) else planner
        self._making = threading.Lock()
        self._making_tools = threading.Lock()
        self.embeddings = embeddings
        self.warm = False
        self.degraded: list[str] = []
        self._tools = tools
        self._sessions: dict[str, Session] = {}
        self._given: dict[tuple[str, str], tuple[ContextItem, ...]] = {}
        self._keys: dict[str, str] = {}
        self._lock = threading.Lock()

    @property
    def planner(self) -> Planner:
        """What makes the sessions."""
        with self._making:
            if self._planner is None:
                assert self._make is not None
                self._planner = self._make()
            return self._planner

    @property
    def tools(self) -> Any:
        """What plans whole problems and validates."""
        with self._making_tools:
            if self._tools is None:
                from apportion.planner.doors.mcp.service import Service as Tools

                self._tools = Tools()
            return self._tools

    def warm_embeddings(self) -> None:
        """Load the model by which meaning is compared, where it is wanted and installed; takes seconds."""
        from apportion.compression.similarity.gate import Warmth

        if self.embeddings and self.tools.gate.warmth is not Warmth.NOT_INSTALLED:
            self.tools.gate.warm_up()

    def health(self) -> messages.Health:
        """Say whether the planner works."""
        from importlib.metadata import version

        from apportion.compression.similarity.gate import Warmth

        ahead = None if self._planner is None else self._planner.ahead
        failed = [] if ahead is None or not ahead.failures else [f"{ahead.failures:,} pieces of background work failed"]
        gate = None if self._tools is None else self._tools.gate
        if gate is not None and gate.failure is not None:
            failed.append(f"meaning cannot be compared, so nothing is cut for good: {gate.failure}")
        loading, off = Warmth.LOADING.value, "off"
        embeddings = off if not self.embeddings else loading if gate is None else gate.warmth.value
        return messages.Health(
            status="ok" if self.warm else "warming",
            version=version("apportion"),
            sessions=len(self._sessions),
            degraded=[*self.degraded, *failed],
            warm={"planner": "ready" if self.warm else loading, "embeddings": embeddings},
        )

    # Sessions.

    def open_session(self, given: messages.OpenSession) -> messages.SessionOpened:
        """Open the session of a workflow, and return its id.

        Raises:
            InputError: Too many are open, or there is no such policy.
            LedgerError: The account of the workflow exists with other limits.
        """
        from apportion.records import Budget

        policies = _policies(given.policies)
        budget = Budget(max_tokens=given.max_tokens, max_usd=given.max_usd)
        with self._lock:
            if given.key is not None and self._keys.get(given.key) in self._sessions:
                return messages.SessionOpened(session_id=self._keys[given.key])
            self._refuse_more()
            if given.checkpoint is not None:
                session = self.planner.resume(given.checkpoint, policies=policies)
            else:
                session = self._made(given.workflow, budget, given.parent, policies, enabled=given.enabled)
            key = secrets.token_hex(8)
            self._sessions[key] = session
            if given.key is not None:
                self._keys[given.key] = key
            return messages.SessionOpened(session_id=key)

    def session(self, session_id: str) -> Session:
        """Return an open session.

        Raises:
            UnknownSessionError: There is none.
        """
        found = self._sessions.get(session_id)
        if found is None:
            raise UnknownSessionError("there is no such session", hint="Open one: POST /v1/sessions")
        return found

    def named_session(self, name: str, *, budget: Budget | None = None, parent: str | None = None) -> Session:
        """Return the session of a name, such as that of a conversation; it is opened where there is none.

        Raises:
            InputError: Too many are open.
            LedgerError: The account of that name exists with other limits.
        """
        key = f"name:{name}"
        with self._lock:
            if key not in self._sessions:
                self._refuse_more()
                self._sessions[key] = self.planner.session(name, budget=budget, parent=parent)
            return self._sessions[key]

    def before(self, session_id: str, given: messages.Before) -> messages.StepAnswer:
        """Plan one invocation.

        Raises:
            InputError: There is nothing to send, or `unchanged` counts more than was sent before.
            BudgetExhaustedError: It does not fit, and a policy says to abort.
            StoreError: The ledger cannot be used.
        """
        session = self.session(session_id)
        run_id = given.run_id or given.agent
        known = self._given.get((session_id, run_id), ())
        if given.unchanged > len(known):
            raise InputError(
                f"{given.unchanged:,} pieces are said to be unchanged, but {len(known):,} are known",
                hint="Send all pieces, with unchanged 0",
            )
        items = (*known[: given.unchanged], *_items(given.items))
        step = session.before(
            given.agent,
            items,
            model=given.model,
            task=given.task,
            run_id=run_id,
            sub_agent=given.sub_agent,
            expands=given.expands,
            folds=given.folds,
            mandatory=given.mandatory,
            parent=given.parent,
            priority=given.priority,
            key=given.key,
            offered=None if given.offered is None else _offered(given.offered),
        )
        self._given[session_id, run_id] = items
        return _answer(step, given.loaded)

    def after(self, session_id: str, given: messages.After) -> messages.Done:
        """Take note of what a step used.

        Raises:
            InputError: There is no such step.
            LedgerError: Something else was said of it before.
            StoreError: The ledger cannot be used: say it again later.
        """
        from apportion.planner.steps import Decision, Step

        session = self.session(session_id)
        step = session.step(given.number) or Step("", "", given.number, Decision.RUN)
        session.after(step, None if given.usage is None else _usage(given.usage), output=given.output)
        return messages.Done()

    def spend(self, session_id: str, given: messages.Spend) -> messages.Done:
        """Take note of what an agent used without having asked."""
        session = self.session(session_id)
        session.spend(_usage(given.usage), agent=given.agent, model=given.model, key=given.key)
        return messages.Done()

    def ingest(self, session_id: str, given: messages.Ingest) -> messages.Done:
        """Work out shorter forms in the background."""
        session = self.session(session_id)
        session.ingest_soon(_items(given.items), task=given.task, model=given.model, run_id=given.run_id)
        return messages.Done()

    def ready(self, session_id: str, given: messages.Wait) -> messages.StepsAnswer:
        """Return what was deferred and fits now."""
        session = self.session(session_id)
        steps = session.wait(given.timeout_s) if given.timeout_s else session.ready()
        return messages.StepsAnswer(steps=[_answer(step) for step in steps])

    def state(self, session_id: str) -> messages.StateAnswer:
        """Return what is done and what is left."""
        session = self.session(session_id)
        told = session.hand_back
        tokens, cost = session.balance
        return messages.StateAnswer(
            used_tokens=told.used_tokens,
            used_usd=told.used_usd,
            saved_tokens=told.saved_tokens,
            steps=told.steps,
            deferred=list(told.deferred),
            aborted=list(told.aborted),
            finished=list(told.finished),
            pending=list(told.pending),
            tokens=_balance(tokens),
            cost_nusd=_balance(cost),
        )

    def close_session(self, session_id: str, pending: str) -> messages.StateAnswer:
        """End a session, and return what is done and what is left."""
        session = self.session(session_id)
        session.close(cast("Literal['expire', 'used', 'released']", pending))
        told = self.state(session_id)
        with self._lock:
            self._sessions.pop(session_id, None)
            for key in [key for key in self._given if key[0] == session_id]:
                self._given.pop(key, None)
        return told

    # Whole problems.

    def plan(self, given: Any) -> Any:
        """Plan a workflow; see `plan_budget` of the MCP server.

        Raises:
            InputError: The problem cannot be used.
        """
        return self.tools.plan(given)

    def validate(self, given: Any) -> Any:
        """Compare a shortened text with its original; see `validate_compression` of the MCP server.

        Raises:
            InputError: A text is too long.
        """
        return self.tools.validate(given)

    def close(self) -> None:
        """Close all sessions: calls that have not come back count as used, because what nobody knows is not free."""
        with self._lock:
            sessions, self._sessions = list(self._sessions.values()), {}
        for session in sessions:
            with suppress(ApportionError):
                session.close("used")
        if self._planner is not None:
            self._planner.close()
        if self._tools is not None:
            self._tools.close()

    def _made(
        self, workflow: str, budget: Budget, parent: str | None, policies: Sequence[Policy], *, enabled: bool
    ) -> Session:
        if enabled or not self.planner.options.enabled:
            return self.planner.session(workflow, budget=budget, parent=parent, policies=policies)
        from apportion.planner.session import Session

        options = replace(self.planner.options, enabled=False, budget=budget)
        return Session(self.planner, workflow, options, parent=parent, policies=policies)

    def _refuse_more(self) -> None:
        if len(self._sessions) >= MAX_SESSIONS:
            raise InputError(f"{MAX_SESSIONS:,} sessions are open", hint="Close those that have ended")


def _policies(names: Sequence[str]) -> list[Policy]:
    if not names:
        return []
    from apportion.planner.policies import load_policies, named_policies

    return named_policies(load_policies()[0], names)


def _items(given: Sequence[messages.Piece]) -> tuple[ContextItem, ...]:
    from apportion.planner.live import ContextItem
    from apportion.records import Kind

    try:
        kinds = [Kind(piece.kind) for piece in given]
    except ValueError:
        raise InputError("there is no such kind of piece", hint=f"Give one of {', '.join(Kind)}") from None
    return tuple(
        ContextItem(piece.content, kind, piece.name, piece.link, piece.pinned)
        for piece, kind in zip(given, kinds, strict=True)
    )


def _usage(given: messages.UsageGiven) -> Any:
    from apportion.records import Usage

    return Usage(**dict(given))


def _offered(given: Sequence[messages.OfferedThing]) -> tuple[Offered, ...]:
    from apportion.compression.loading import EntryKind
    from apportion.planner.offers import Offered

    return tuple(Offered(one.name, one.content, EntryKind(one.kind), one.description, one.pinned) for one in given)


def _loading(loading: Loading | None, known: int | None) -> messages.LoadingAnswer | None:
    if loading is None:
        return None
    new = known != loading.number
    return messages.LoadingAnswer(
        number=loading.number,
        tools=list(loading.tools) if new else None,
        files=dict(loading.files) if new else None,
        forms={name: form.value for name, form in loading.forms.items()},
        tokens=loading.tokens,
        whole_tokens=loading.whole_tokens,
        reasons=list(loading.reasons),
    )


def _answer(step: Step, loaded: int | None = None) -> messages.StepAnswer:
    from apportion.records import Action

    return messages.StepAnswer(
        number=step.number,
        agent=step.agent,
        run_id=step.run_id,
        decision=step.decision.value,
        changed=[
            messages.SentPiece(
                position=position,
                content=item.content,
                action=item.action.value,
                handle=None if item.handle is None else str(item.handle),
            )
            for position, item in enumerate(step.items)
            if item.action is not Action.KEEP
        ],
        max_output_tokens=step.max_output_tokens,
        allocated_tokens=step.allocated_tokens,
        loading_budget_tokens=step.loading_budget_tokens,
        saved_tokens=step.saved_tokens,
        model=step.model,
        variant=step.variant,
        effort_share=step.effort_share,
        final=step.final,
        notice=step.notice,
        reasons=list(step.reasons),
        degraded=list(step.degraded),
        offers_expand=step.offers_expand,
        loading=_loading(step.loading, loaded),
    )


def _balance(balance: Balance) -> messages.BalanceAnswer:
    return messages.BalanceAnswer(total=balance.total, spent=balance.spent, held=balance.held, free=balance.free)
