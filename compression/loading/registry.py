"""What can be loaded: an index of agents, skills and tools, whose contents are read when they are asked for.

    registry = Registry()
    registry.add("~/.claude")                    # agents and skills
    registry.add("tools.json")                   # what tools/list of an MCP server answered
    entry = registry.find("code-reviewer")
    registry.load(entry)                         # its bytes, compared with its hash

A content is known by its hash. It is kept in memory while there is room, least recently used first out; what is read
again is hashed again. A file that changed meanwhile has another hash: `load` refuses to pass it off as the old one,
and `current` or `refresh` take note of the new one. Everything together stays below `max_bytes`.
"""

from __future__ import annotations

import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import re2

from apportion.compression.cache.memory import Cache, CacheCounts
from apportion.compression.loading.files import Stamp, read_inside, stamp_of, walk
from apportion.compression.loading.parsing import INDEX_FILE, SKILL_FILE, entries_of, index_of
from apportion.compression.loading.types import Changes, Entry, EntryKind, LoadLimits, Skipped
from apportion.errors import InputError, StoreError
from apportion.records import content_hash

if TYPE_CHECKING:
    from collections.abc import Iterable

MAX_BYTES = 100_000_000
"""Bytes that a registry takes at most: index, contents, and what was made of them."""

INDEX_SHARE = 0.1
"""Share of them that is set aside for the index."""

KEPT_REASONS = 1_000
"""Messages about skipped files that are kept; the count goes on."""

AGENT_FOLDER = "agents"
"""In a folder, Markdown below a folder of this name is an agent; elsewhere it is somebody's notes."""


class _File:
    """A file that entries came from."""

    __slots__ = ("entries", "extra", "path", "root", "stamp")

    def __init__(self, root: Path, path: Path, stamp: Stamp | None, extra: dict[str, Any] | None) -> None:
        self.root = root
        self.path = path
        self.stamp = stamp
        self.extra = extra
        self.entries: tuple[Entry, ...] = ()


class Registry:
    """Agents, skills and tools by name and by hash; safe to share between threads.

    Args:
        max_bytes: Bytes of index, contents and what `keep` keeps, together.
        limits: How much is read at most.

    Raises:
        InputError: A limit is too small.
    """

    def __init__(self, *, max_bytes: int = MAX_BYTES, limits: LoadLimits | None = None) -> None:
        if max_bytes < 0:
            raise InputError(f"a registry of {max_bytes} bytes holds nothing", hint="Give 0 or more.")
        self.max_bytes = max_bytes
        self.limits = limits or LoadLimits()
        self._index_limit = int(max_bytes * INDEX_SHARE)
        self._cache = Cache(max_bytes=max_bytes - self._index_limit, max_entries=1_000_000)
        self._lock = threading.RLock()
        self._files: dict[Path, _File] = {}
        self._folders: list[Path] = []
        self._by_digest: dict[str, Entry] = {}
        self._by_name: dict[tuple[EntryKind, str], Entry] = {}
        self._index_bytes = 0
        self._skipped: dict[tuple[Path, str], None] = {}
        self._skips = 0

    def __len__(self) -> int:
        return len(self._by_name)

    @property
    def size(self) -> int:
        """Bytes in use, of `max_bytes`."""
        with self._lock:
            return self._index_bytes + self._cache.size

    @property
    def skipped(self) -> tuple[Skipped, ...]:
        """What could not be used, and why; the first `KEPT_REASONS`."""
        with self._lock:
            return tuple(Skipped(*each) for each in self._skipped)

    @property
    def skips(self) -> int:
        """How many files, or parts of files, could not be used."""
        return self._skips

    def counts(self) -> CacheCounts:
        """Return how often a content was asked for, and how often it was in memory."""
        return self._cache.counts()

    def add(self, path: str | Path) -> int:
        """Take in a file, or what is found in a folder, and return how many entries that brought.

        In a folder these are Markdown files below a folder named `agents`, files named `SKILL.md`, indexes of agents
        (`index.json`), and JSON files with `tools` in their name. A file that is named itself is taken for what it
        holds. A damaged file is skipped, and `skipped` says why.

        Raises:
            InputError: There is no such file or folder.
        """
        given = Path(path).expanduser()
        if not given.exists():
            raise InputError("does not exist", path=given, hint="Name a file or folder of agents, skills or tools.")
        with self._lock:
            before = len(self._by_name)
            if given.is_dir():
                if given not in self._folders:
                    self._folders.append(given)
                self._scan(given)
            else:
                self._read(given.parent, given)
            return len(self._by_name) - before

    def entries(self, kind: EntryKind | None = None) -> list[Entry]:
        """Return all entries, or those of a kind, by kind and name."""
        with self._lock:
            found = [entry for entry in self._by_name.values() if kind is None or entry.kind is kind]
        return sorted(found, key=lambda entry: (entry.kind, entry.name))

    def find(self, name: str, kind: EntryKind | None = None) -> Entry | None:
        """Return the entry of a name, or of a hash or its beginning of 8 digits or more; `None` where there is none."""
        with self._lock:
            for each in (kind,) if kind else EntryKind:
                if (each, name) in self._by_name:
                    return self._by_name[each, name]
            if len(name) < 8:
                return None
            found = [entry for digest, entry in self._by_digest.items() if digest.startswith(name)]
        return found[0] if len(found) == 1 and kind in {None, found[0].kind} else None

    def search(self, text: str, *, limit: int = 10) -> list[Entry]:
        """Return entries that hold words of a text, the best first: in the name counts most, then in other words."""
        words = _words(text)
        ranked = [(_matches(entry, words), entry) for entry in self.entries()]
        ranked = sorted((pair for pair in ranked if pair[0]), key=lambda pair: -pair[0])
        return [entry for _, entry in ranked[:limit]]

    def load(self, entry: Entry | str) -> bytes:
        """Return the content of an entry, or of a hash, compared with that hash; read at most once at a time.

        Raises:
            StoreError: The hash is unknown, or its file is gone, changed or damaged.
        """
        return self.fetch(entry)[0]

    def fetch(self, entry: Entry | str) -> tuple[bytes, bool]:
        """Return the same as `load`, and whether this call had to read it.

        Raises:
            StoreError: The hash is unknown, or its file is gone, changed or damaged.
        """
        digest = entry if isinstance(entry, str) else entry.digest
        with self._lock:
            known = self._by_digest.get(digest, None if isinstance(entry, str) else entry)
        if known is None:
            content = self._cache.get(digest.encode())  # of an earlier version of a file
            if content is None:
                raise StoreError(
                    f"unknown hash {digest[:16]!r}", hint="See what there is: apportion registry list PATH"
                )
            return content, False
        read: list[bool] = []

        def compute() -> bytes:
            read.append(True)
            return self._fetched(known)

        return self._cache.get_or_compute(digest.encode(), compute), bool(read)

    def current(self, name: str, kind: EntryKind | None = None) -> Entry | None:
        """Return the entry of a name after a look at its file: a changed one is read anew."""
        with self._lock:
            entry = self.find(name, kind)
            if entry is None:
                return None
            file = self._files.get(entry.path)
            if file is not None and stamp_of(file.path) != file.stamp:
                self._reread(file)
                return self.find(name, kind)
            return entry

    def refresh(self) -> Changes:
        """Look at all files and folders again, and say what was added, changed and removed."""
        with self._lock:
            before = {key: entry.digest for key, entry in self._by_name.items()}
            for file in list(self._files.values()):
                if stamp_of(file.path) != file.stamp:
                    self._reread(file)
            for folder in self._folders:
                self._scan(folder)
            after = {key: entry.digest for key, entry in self._by_name.items()}
        return Changes(
            tuple(sorted(name for kind, name in after.keys() - before.keys())),
            tuple(sorted(key[1] for key in before.keys() & after.keys() if before[key] != after[key])),
            tuple(sorted(name for kind, name in before.keys() - after.keys())),
        )

    def keep(self, key: bytes, value: bytes) -> None:
        """Keep what was made of a content, such as a shorter form, within the same limit. Never raises."""
        self._cache.put(b"\x00" + key, value)

    def kept(self, key: bytes) -> bytes | None:
        """Return what `keep` was given, or `None` where it is gone."""
        return self._cache.get(b"\x00" + key)

    # What is done under the lock.

    def _scan(self, folder: Path) -> None:
        try:
            paths = [path for path in walk(folder, self.limits) if path not in self._files]
        except InputError as error:
            self._skip(folder, error.message)
            return
        extras: dict[Path, dict[str, Any]] = {}
        for path in paths:
            if path.name == INDEX_FILE:
                extras.update(self._indexed(folder, path))
        for path in dict.fromkeys([*paths, *extras]):
            if path in self._files or path.name == INDEX_FILE:
                continue
            if path in extras or _wanted(folder, path):
                self._read(folder, path, extras.get(path))

    def _indexed(self, folder: Path, path: Path) -> dict[Path, dict[str, Any]]:
        try:
            content, _ = read_inside(folder, path, self.limits.file_bytes)
            return index_of(path, content) or {}
        except InputError as error:
            self._skip(path, error.message)
            return {}

    def _read(self, root: Path, path: Path, extra: dict[str, Any] | None = None) -> None:
        file = _File(root, path, stamp_of(path), extra)
        try:
            content, file.stamp = read_inside(root, path, self.limits.file_bytes)
            if path.name == INDEX_FILE and (agents := index_of(path, content)) is not None:
                for agent, said in agents.items():
                    self._read(root, agent, said)
                return
            found = entries_of(path, content, extra=extra)
        except InputError as error:
            self._skip(path, error.message)
        else:
            for reason in found.reasons:
                self._skip(path, reason)
            file.entries = tuple(self._taken(found.entries))
        self._files[path] = file

    def _taken(self, entries: Iterable[Entry]) -> Iterable[Entry]:
        for entry in entries:
            key = (entry.kind, entry.name)
            if key in self._by_name:
                self._skip(entry.path, f"{entry.kind} {entry.name!r} is in {self._by_name[key].path} as well")
                continue
            if self._index_bytes + entry.index_bytes > self._index_limit:
                self._skip(entry.path, f"the index is full: no room for {entry.kind} {entry.name!r}")
                continue
            self._by_name[key] = entry
            self._by_digest[entry.digest] = entry
            self._index_bytes += entry.index_bytes
            yield entry

    def _reread(self, file: _File) -> None:
        for entry in file.entries:
            del self._by_name[entry.kind, entry.name]
            self._index_bytes -= entry.index_bytes
            others = (each for each in self._by_name.values() if each.digest == entry.digest)
            other = next(others, None)
            if other is None:
                self._by_digest.pop(entry.digest, None)
            else:
                self._by_digest[entry.digest] = other
        del self._files[file.path]
        if stamp_of(file.path) is not None:
            self._read(file.root, file.path, file.extra)

    def _skip(self, path: Path, reason: str) -> None:
        self._skips += 1
        if len(self._skipped) < KEPT_REASONS:
            self._skipped[path, reason] = None

    # Without the lock: others may look things up meanwhile.

    def _fetched(self, entry: Entry) -> bytes:
        file = self._files.get(entry.path)
        root = file.root if file is not None else entry.path.parent
        hint = "Take note of its new content: registry.refresh()"
        try:
            content, _ = read_inside(root, entry.path, self.limits.file_bytes)
        except InputError as error:
            raise StoreError(f"{entry.kind} {entry.name!r} cannot be loaded: {error}", hint=hint) from error
        own = content if entry.place is None else content[slice(*entry.place)]
        if content_hash(own) != entry.digest:
            raise StoreError(f"{entry.kind} {entry.name!r} has changed in {entry.path}", hint=hint)
        return own


def _wanted(folder: Path, path: Path) -> bool:
    suffix = path.suffix.lower()
    if suffix == ".md":
        above = path.relative_to(folder).parts[:-1]
        return path.name == SKILL_FILE or AGENT_FOLDER in {*above, folder.name}
    return suffix == ".json" and "tools" in path.stem.lower()


def _matches(entry: Entry, words: set[str]) -> int:
    name, rest = _words(entry.name), _words(" ".join((entry.description, *entry.words)))
    return sum(4 * (word in name) + (word in rest) for word in words)


def _words(text: str) -> set[str]:
    return set(_WORD.sub(" ", text.lower()).split())


_WORD = re2.compile(r"[^\p{L}\p{N}]+")
