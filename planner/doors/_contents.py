"""Contents and their originals, for all doors: the strategies by name, and where originals are kept."""

from __future__ import annotations

import difflib
import logging
from contextlib import contextmanager
from typing import TYPE_CHECKING

from apportion.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from apportion.compression.similarity.gate import Gate
    from apportion.compression.sqlite_store import SqliteHandleStore
    from apportion.compression.store import HandleStore
    from apportion.compression.strategies.types import Strategy

DEFAULT = "lossless"
"""The strategy that is used where none is named: nobody loses anything."""

MAX_ORIGINALS_BYTES = 10**9
"""Bytes that the store of originals takes at most; the oldest go first."""

MAX_ORIGINALS_DAYS = 90
"""Days after which originals go."""

QUICK_S = 0.02
"""Seconds that planning in the live path waits for the store of originals; a busy one leaves contents whole."""

_log = logging.getLogger("apportion.doors")


def chosen(
    names: Sequence[str] | None,
    level: str | None,
    store: HandleStore,
    *,
    gate: Gate | None = None,
    warn: Callable[[str], object] = _log.warning,
) -> Strategy:
    """Return the strategy that was asked for; several are applied one after the other.

    Args:
        names: Strategies or levels by name.
        level: A level by name, instead.
        store: Where originals of what is left out go.
        gate: Judges what is cut for good; `None`: each strategy has its own.
        warn: Told of each strategy that cannot be used.

    Raises:
        InputError: There is no such strategy or level, or both were given.
    """
    from apportion.compression import pipeline
    from apportion.compression.strategies.gated import GatedStrategy
    from apportion.planner.report.figures import plain

    if names and level is not None:
        raise InputError("--level and --strategy cannot both be given", hint="Name the level with --strategy.")
    known, broken = pipeline.load_strategies(store)
    for message in broken:
        warn(plain(message))
    if level is not None and level not in (levels := [DEFAULT, *pipeline.LEVELS]):
        raise InputError(f"there is no level '{plain(level)}'", hint=f"Choose one of {', '.join(levels)}.")
    found: list[Strategy] = []
    for name in names or [level or DEFAULT]:
        if name in pipeline.LEVELS:
            found.append(pipeline.recoverable(name, store))
        elif name in known:
            strategy = known[name]
            if gate is not None and isinstance(strategy, GatedStrategy):  # it was made anew, with our store
                strategy.gate = gate
            found.append(strategy)
        else:
            raise InputError(f"there is no strategy '{plain(name)}'", hint=_nearest(name, [*known, *pipeline.LEVELS]))
    return found[0] if len(found) == 1 else pipeline.Chain(found, name="+".join(one.name for one in found))


def _nearest(name: str, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(name.lower(), known, n=3, cutoff=0.5)
    names = " or ".join(f"'{each}'" for each in close)
    return f"Did you mean {names}?" if close else f"Installed: {', '.join(known) or 'none'}"


def originals_path(store: Path | None) -> Path:
    """Return the file of originals: the one that was named, or the one beside the telemetry store."""
    return beside_database("originals") if store is None else store


def beside_database(kind: str) -> Path:
    """Return a file of ours that lies beside the telemetry store."""
    from apportion.settings import load_settings

    database = load_settings().settings.telemetry.database
    return database.with_name(f"{database.name}.{kind}")


@contextmanager
def opened_originals(path: Path, *, create: bool, wait_s: float | None = None) -> Iterator[SqliteHandleStore]:
    """Open the store of originals.

    Args:
        path: The file.
        create: Whether to make it where there is none.
        wait_s: How long a writer waits for another one; see `SqliteHandleStore`.

    Raises:
        InputError: There is none, and none is to be made.
        StoreError: It cannot be opened.
    """
    from apportion.compression.sqlite_store import SqliteHandleStore

    if not create and not path.exists():
        raise InputError(
            "there is no store of originals", path=path, hint="Name the one that was given to compress with --store."
        )
    max_bytes, max_age_days = (MAX_ORIGINALS_BYTES, MAX_ORIGINALS_DAYS) if create else (None, None)
    with SqliteHandleStore(path, max_bytes=max_bytes, max_age_days=max_age_days, wait_s=wait_s) as store:
        yield store
