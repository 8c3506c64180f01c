"""What may be stored of a workflow whose contents are not captured. Of one whose contents are, only secrets are hidden.

- Contents: their size in bytes and tokens, and a keyed hash (HMAC-SHA-256). A bare hash of a short text, say a
  password, could be guessed; here a guess needs the key, which lies beside the store in a file of its own.
- Names (agent, tool, model, link): as they are while they look like names, that is one short line without a secret;
  else their hash.
- `outcome` and `meta`: numbers, truth values, and text only under the few keys of `TEXT_KEYS` and while it looks
  like an identifier, without secrets. Everything else is left out.
- `id`, `source`, `framework` and `origin` (a path) are kept: without them a workflow could not be found again.
"""

from __future__ import annotations

import hmac
import math
import re
import secrets
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from apportion.errors import StoreError
from apportion.telemetry.redaction import redact

if TYPE_CHECKING:
    import sqlite3
    from pathlib import Path

    from apportion.telemetry._database import Database

TEXT_KEYS = frozenset(
    {
        "benchmark",
        "cli_version",
        "dataset",
        "exit_status",
        "format",
        "instance_id",
        "model",
        "provider",
        "result",
        "split",
        "status",
        "task_id",
        "version",
    }
)
"""Keys of `outcome` and `meta` under which a short identifier is kept as text."""

MAX_NAME_CHARS = 120
"""Longest text that still counts as a name; CrewAI's roles are sentences of up to some 80."""

_KEY = re.compile(r"[A-Za-z][A-Za-z_]{0,39}[0-9]{0,2}")
_IDENTIFIER = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._:/+-]{0,63}")
_MAX_DEPTH = 4
_KEY_BYTES = 32


class Hasher:
    """Hashes contents with the key of one store.

    Args:
        key: The store's secret.
    """

    def __init__(self, key: bytes) -> None:
        self._key = key

    def digest(self, content: str | bytes) -> bytes:
        """Return the keyed hash of a text, or of its bytes in UTF-8: 32 bytes."""
        return hmac.digest(self._key, as_bytes(content) if isinstance(content, str) else content, "sha256")

    def name(self, text: str) -> str:
        """Return a name as it is, or its hash where it is too long, not one printable line, or holds a secret."""
        return text if _is_name(text) else self._hidden(text)

    def unless_secret(self, text: str) -> str:
        """Return a text as it is, or its hash where it holds a secret."""
        return self._hidden(text) if _holds_secret(text) else text

    def _hidden(self, text: str) -> str:
        return f"hash:{self.digest(text).hex()[:32]}"


@lru_cache(maxsize=4096)
def _is_name(text: str) -> bool:
    return len(text) <= MAX_NAME_CHARS and text.isprintable() and redact(text.encode())[1] == 0


@lru_cache(maxsize=4096)
def _holds_secret(text: str) -> bool:
    return redact(as_bytes(text))[1] > 0


def as_bytes(text: str) -> bytes:
    """Return a text as UTF-8; lone surrogates, which JSON can carry, are kept."""
    return text.encode("utf-8", "surrogatepass")


def safe_part(values: dict[str, Any], *, depth: int = _MAX_DEPTH) -> dict[str, Any]:
    """Return the part of `outcome` or `meta` that may be stored without capturing contents."""
    kept = {}
    for key, value in values.items():
        if not isinstance(key, str) or not _KEY.fullmatch(key):
            continue
        if isinstance(value, dict):
            if depth > 1 and (inner := safe_part(value, depth=depth - 1)):
                kept[key] = inner
        elif _is_safe(key, value):
            kept[key] = value
    return kept


def _is_safe(key: str, value: Any) -> bool:
    if isinstance(value, str):
        return key in TEXT_KEYS and _IDENTIFIER.fullmatch(value) is not None
    if isinstance(value, float):
        return math.isfinite(value)
    return isinstance(value, int) and abs(value) < 2**63


def load_hasher(database: Database) -> Hasher:
    """Return the hasher of a store; the first use creates its key, with mode 0600.

    Raises:
        StoreError: The key file is missing or belongs to another store: new hashes would not match the stored ones.
    """
    path = database.path.with_name(database.path.name + ".key")
    with database.reading() as connection:
        check = _stored_check(connection)
    if check is None:
        with database.writing() as connection:
            check = _stored_check(connection) or _create_key(connection, path)
    key = _read_key(path)
    if key is None or not hmac.compare_digest(_check(key), check):
        what = "is missing" if key is None else "belongs to another store"
        raise StoreError(
            f"the key of the store, {path}, {what}",
            hint="Put the right file back, or import into a new store; what is stored can be read without it",
        )
    return Hasher(key)


def _stored_check(connection: sqlite3.Connection) -> bytes | None:
    row = connection.execute("SELECT value FROM properties WHERE name = 'key_check'").fetchone()
    return None if row is None else bytes(row["value"])


def _create_key(connection: sqlite3.Connection, path: Path) -> bytes:
    """Write a new key while the store is locked, or take over one left by a creation that was interrupted."""
    key = _read_key(path)
    if key is None:
        key = secrets.token_bytes(_KEY_BYTES)
        new = path.with_name(path.name + ".new")
        new.unlink(missing_ok=True)
        new.touch(mode=0o600)
        new.write_text(key.hex(), encoding="ascii")
        new.replace(path)
    connection.execute("INSERT INTO properties (name, value) VALUES ('key_check', ?)", (_check(key),))
    return _check(key)


def _read_key(path: Path) -> bytes | None:
    try:
        key = bytes.fromhex(path.read_text(encoding="ascii"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise StoreError(
            f"the key of the store, {path}, cannot be read: {error}",
            hint="Put the right file back, or import into a new store; what is stored can be read without it",
        ) from error
    return key if len(key) == _KEY_BYTES else None


def _check(key: bytes) -> bytes:
    return hmac.digest(key, b"apportion telemetry store", "sha256")
