"""Saving trained models as skops files, and loading them without ever running what a file says.

    folder/current                      names the version in use
    folder/0003-5f1c09ab/manifest.json  what it is: versions of software, data, figures, a SHA-256 of each file
    folder/0003-5f1c09ab/next_agent.skops

What is saved is state, not objects: a model gives its parts as dicts, lists, text, numbers and arrays (`to_state`), and
builds itself anew from them with all checks of its own (`from_state`). That is safest and simplest: no class need be
trusted by name, classes can be moved or renamed, and a file can at worst hold wrong numbers. What scikit-learn has
learned is copied into arrays; a file that names an estimator is refused.

A file is used only if all of these hold, in this order:

1. its length and SHA-256 are those of the manifest, and the manifest's own are those written beside it;
2. it is a plain archive of the few parts that skops writes, and not large when unpacked;
3. every type that its schema names is in `TYPES`, and every way of building one in `LOADERS`;
4. skops finds nothing untrusted in it;
5. the model accepts its state.

The hashes find damage. They do not prove who wrote a folder: against a hostile one stand 2 to 5.

A version is written into a folder of another name beside, forced to disk and renamed; `current` is replaced in one step
after that. What is left of an interrupted saving is never looked at, and removed by a later one.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import platform
import re
import shutil
import tempfile
import time
import warnings
import zipfile
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from pydantic import AwareDatetime, Field, ValidationError

from apportion.errors import InputError
from apportion.files import write_atomically
from apportion.models.training import TRAINABLE, TrainingData
from apportion.records import Record

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from datetime import datetime

FORMAT = 1
"""Version of the format of a saved version."""

CURRENT = "current"
MANIFEST = "manifest.json"
SUFFIX = ".skops"

LEFT_OVER_S = 3600
"""What has lain unfinished for so many seconds is of a saving that was interrupted."""

MAX_MANIFEST_BYTES = 8 * 2**20
MAX_FILE_BYTES = 256 * 2**20
MAX_UNPACKED_BYTES = 512 * 2**20

_PLAIN = ("builtins." + name for name in ("dict", "list", "tuple", "str", "int", "float", "bool", "NoneType"))
_ARRAYS = ("numpy." + name for name in ("ndarray", "bool", "float32", "float64", "int32", "int64", "uint8", "uint64"))
TYPES = frozenset((*_PLAIN, *_ARRAYS))
"""The only types that a file may name: plain values and arrays."""

LOADERS = frozenset(f"{name}Node" for name in ("Dict", "Json", "List", "NdArray", "Tuple", "Type"))
"""The only ways of building them; those that name objects, functions or methods are not among them."""

_PART = re.compile(r"schema\.json|[0-9]{1,20}\.npy")
_VERSION = re.compile(r"[0-9]{4,9}-[0-9a-f]{8}")
_MODEL_NAME = re.compile(r"[a-z][a-z0-9_]{0,63}")
_LEFT_OVER = ".saving-"
_TRAIN_AGAIN = "Train again: apportion train"


class SavedFile(Record):
    """A file of a version: its length and SHA-256."""

    bytes: int = Field(ge=0, le=MAX_FILE_BYTES)
    sha256: str = Field(pattern="^[0-9a-f]{64}$")


class Manifest(Record):
    """What a saved version is.

    Attributes:
        format: Version of the format.
        version: Name of the version, for example `"0003-5f1c09ab"`; its end is that of the data's fingerprint.
        created_at: When it was trained.
        software: Versions of Python, apportion and what else matters.
        data: What it was trained on.
        files: Its files by model.
        metrics: What the models say of their own quality, on workflows that they had not seen.
        untrained: Models that could not be trained, and why.
    """

    format: int
    version: str = Field(pattern=f"^{_VERSION.pattern}$")
    created_at: AwareDatetime
    software: dict[str, str]
    data: TrainingData
    files: dict[str, SavedFile]
    metrics: dict[str, list[dict[str, Any]]]
    untrained: dict[str, str]


class ModelSet(NamedTuple):
    """Models that were loaded, or priors in their place.

    Attributes:
        models: One for each name in `TRAINABLE`.
        manifest: The version that was loaded, or `None` where there is none.
        degraded: Why priors stand in, for each that does.
    """

    models: dict[str, Any]
    manifest: Manifest | None
    degraded: tuple[str, ...]


def save_models(
    folder: Path,
    models: Mapping[str, Any],
    data: TrainingData,
    *,
    created_at: datetime,
    metrics: Mapping[str, list[dict[str, Any]]] | None = None,
    untrained: Mapping[str, str] | None = None,
) -> Manifest:
    """Save models as a new version and make it the current one.

    Args:
        folder: Where versions are kept; it is created with mode 0700 where it does not exist.
        models: Models by name.
        data: What they were trained on.
        created_at: The time of training.
        metrics: Figures to keep with them.
        untrained: Models that could not be trained, and why.

    Raises:
        InputError: A model holds what may not be saved.
        OSError: The folder cannot be written; `current` and all versions are as they were.
    """
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    _remove_left_over(folder)
    contents = {name: _dump(name, model) for name, model in models.items()}
    beside = Path(tempfile.mkdtemp(prefix=_LEFT_OVER, dir=folder))
    try:
        for name, content in contents.items():
            _write(beside / f"{name}{SUFFIX}", content)
        manifest = Manifest(
            format=FORMAT,
            version=f"{_next_number(folder):04d}-{data.fingerprint[:8]}",
            created_at=created_at,
            software=software(),
            data=data,
            files={name: _described(content) for name, content in contents.items()},
            metrics=dict(metrics or {}),
            untrained=dict(untrained or {}),
        )
        _write(beside / MANIFEST, _manifest_text(manifest).encode())
        _sync_folder(beside)
        beside.rename(folder / manifest.version)  # fails where another process was faster with the same version
    except BaseException:
        shutil.rmtree(beside, ignore_errors=True)
        raise
    _sync_folder(folder)
    write_atomically(folder / CURRENT, manifest.version + "\n")
    return manifest


def prepare_folder(folder: Path) -> None:
    """Create the folder of models where it is missing, and see that it can be written before anything long begins.

    Raises:
        InputError: It cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        tempfile.TemporaryDirectory(prefix=_LEFT_OVER, dir=folder).cleanup()
    except OSError as error:
        reason = "is no folder" if folder.is_file() else error.strerror or error
        hint = "Give another folder: --models DIR"
        raise InputError(f"models cannot be saved there: {reason}", path=folder, hint=hint) from error


def versions(folder: Path) -> list[str]:
    """Return the names of all saved versions, the oldest first, whether they can be loaded or not."""
    if not folder.is_dir():
        return []
    return sorted(path.name for path in folder.iterdir() if _VERSION.fullmatch(path.name) and path.is_dir())


def find_version(folder: Path, beginning: str) -> str:
    """Return the version whose name begins so; a name that no version has comes back as it is.

    Raises:
        InputError: Several names begin so.
    """
    known = versions(folder)
    found = [beginning] if beginning in known else [name for name in known if name.startswith(beginning)]
    if len(found) > 1:
        raise InputError(
            f"{len(found)} versions of the models begin with {beginning!r}",
            path=folder,
            hint=f"Give one of: {', '.join(found)}",
        )
    return found[0] if found else beginning


def current_version(folder: Path) -> str | None:
    """Return the name of the version in use, or `None` where nothing was ever saved.

    Raises:
        InputError: What is written there is no name of a version.
    """
    path = folder / CURRENT
    try:
        with path.open("rb") as file:
            name = file.read(100).decode("ascii", "replace").strip()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror or error}", path=path, hint=_TRAIN_AGAIN) from error
    if not _VERSION.fullmatch(name):
        raise InputError("names no version of the models", path=path, hint=_TRAIN_AGAIN)
    return name


def read_manifest(folder: Path, version: str | None = None) -> Manifest:
    """Return the manifest of a version, of the current one by default.

    Raises:
        InputError: There is none, it is damaged, or of a newer format.
    """
    name = version if version is not None else current_version(folder)
    if name is None:
        raise InputError("no models were trained yet", path=folder, hint="Train them: apportion train")
    if name not in versions(folder):
        known = ", ".join(versions(folder)) or "none"
        raise InputError(f"there is no version {name!r} of the models", path=folder, hint=f"Versions: {known}")
    path = folder / name / MANIFEST
    manifest = _parsed_manifest(path, _read(path, MAX_MANIFEST_BYTES))
    if manifest.version != name:
        raise InputError(f"belongs to version {manifest.version}", path=path, hint=_TRAIN_AGAIN)
    return manifest


def load_models(folder: Path, version: str | None = None) -> ModelSet:
    """Return the models of a version, of the current one by default, after all checks.

    Raises:
        InputError: There is no such version, or a file is missing, damaged, foreign or of a newer format.
    """
    manifest = read_manifest(folder, version)
    unknown = [name for name in manifest.files if name not in TRAINABLE]
    if unknown:
        raise InputError(f"holds unknown models: {', '.join(unknown)}", path=folder / manifest.version)
    loaded = {
        name: _load(folder / manifest.version / f"{name}{SUFFIX}", saved, TRAINABLE[name].make)
        for name, saved in manifest.files.items()
    }
    missing = {name: manifest.untrained.get(name, "was not trained") for name in TRAINABLE if name not in loaded}
    return ModelSet(
        models={name: loaded[name] if name in loaded else kind.prior() for name, kind in TRAINABLE.items()},
        manifest=manifest,
        degraded=tuple(f"{name}: {reason}" for name, reason in missing.items()),
    )


def load_or_priors(folder: Path, version: str | None = None) -> ModelSet:
    """Return the models of a version, or priors for all where it cannot be loaded; never raises for what is saved.

    `degraded` says why priors stand in.
    """
    try:
        return load_models(folder, version)
    except InputError as error:
        return ModelSet({name: kind.prior() for name, kind in TRAINABLE.items()}, None, (str(error),))


def software() -> dict[str, str]:
    """Return the versions of Python, apportion and what models are made with."""
    packages = ("apportion", "numpy", "scikit-learn", "skops")
    return {"python": platform.python_version()} | {name: installed_version(name) for name in packages}


def _dump(name: str, model: Any) -> bytes:
    import skops.io

    if not _MODEL_NAME.fullmatch(name):
        raise InputError(f"{name!r} cannot be the name of a model", hint="Use small letters, digits and underscores")
    content: bytes = skops.io.dumps(model.to_state(), compression=zipfile.ZIP_DEFLATED)
    _refuse_foreign(Path(f"{name}{SUFFIX}"), content)
    return content


def _load(path: Path, saved: SavedFile, make: type[Any]) -> Any:
    content = _read(path, MAX_FILE_BYTES)
    if len(content) != saved.bytes or hashlib.sha256(content).hexdigest() != saved.sha256:
        raise InputError("is not the file that was saved: it is damaged or was exchanged", path=path, hint=_TRAIN_AGAIN)
    _refuse_foreign(path, content)
    return _restored(path, make, _unpacked(path, content))


def _unpacked(path: Path, content: bytes) -> Any:
    """Return the state in a file whose types are all known."""
    import skops.io

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # what is odd enough for a warning is nothing that we saved
            return skops.io.loads(content)  # raises for types that are not trusted
    except Exception as error:
        raise _refusal(path, "cannot be loaded", error) from error


def _restored(path: Path, make: type[Any], state: Any) -> Any:
    """Return a model built from its state."""
    try:
        return make.from_state(state)
    except Exception as error:
        raise _refusal(path, "does not fit its model", error) from error


def _refuse_foreign(path: Path, content: bytes) -> None:
    """Refuse an archive that is not what skops writes, or names types that are not ours."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            problem = _archive_problem(archive.infolist())
            schema = None if problem else json.loads(archive.read("schema.json"))
        if problem is None:
            problem = _schema_problem(schema)
    except Exception as error:
        raise _refusal(path, "is no file of a model", error) from error
    if problem is not None:
        raise InputError(problem, path=path, hint=_TRAIN_AGAIN)


def _archive_problem(parts: Sequence[zipfile.ZipInfo]) -> str | None:
    names = [part.filename for part in parts]
    foreign = next((name for name in names if not _PART.fullmatch(name)), None)
    if foreign is not None:
        return f"holds a part that no model has: {foreign[:80]!r}"
    if len(set(names)) < len(names) or "schema.json" not in names:
        return "holds parts twice, or lacks one"
    if any(
        part.compress_type not in {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED} or part.flag_bits & 1 for part in parts
    ):
        return "is packed in an unknown way"
    if sum(part.file_size for part in parts) > MAX_UNPACKED_BYTES:
        return f"unpacks to more than {MAX_UNPACKED_BYTES // 2**20:,} MiB"
    return None


def _schema_problem(schema: Any) -> str | None:
    for node in _nodes(schema):
        kind, loader = f"{node.get('__module__')}.{node.get('__class__')}", node.get("__loader__")
        if kind not in TYPES:
            return f"holds a type that no model has: {kind[:120]}"
        if loader not in LOADERS:
            return f"is built in a way that no model is: {str(loader)[:120]}"
    return None


def _nodes(schema: Any) -> Iterator[dict[str, Any]]:
    """Yield every part of a schema that names a type or a way of building."""
    waiting = [schema]
    while waiting:
        found = waiting.pop()
        if isinstance(found, dict):
            if not found.keys().isdisjoint({"__class__", "__module__", "__loader__"}):
                yield found
            waiting.extend(found.values())
        elif isinstance(found, list):
            waiting.extend(found)


def _refusal(path: Path, what: str, error: Exception) -> InputError:
    reason = " ".join(str(error).split())[:200]
    return InputError(f"{what} ({type(error).__name__}: {reason})", path=path, hint=_TRAIN_AGAIN)


def _read(path: Path, limit: int) -> bytes:
    try:
        if not path.is_file():  # a pipe would wait for ever
            raise InputError("is missing" if not path.exists() else "is no file", path=path, hint=_TRAIN_AGAIN)
        with path.open("rb") as file:
            content = file.read(limit + 1)
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror or error}", path=path, hint=_TRAIN_AGAIN) from error
    if len(content) > limit:
        raise InputError(f"is larger than {limit // 2**20:,} MiB", path=path, hint=_TRAIN_AGAIN)
    return content


def _manifest_text(manifest: Manifest) -> str:
    body = manifest.model_dump(mode="json")
    return json.dumps({"manifest": body, "sha256": _hash_of(body)}, indent=1) + "\n"


def _hash_of(body: Any) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()


def _parsed_manifest(path: Path, content: bytes) -> Manifest:
    try:
        whole = json.loads(content)
        body, written = whole["manifest"], whole["sha256"]
        number = body["format"]
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise InputError("is no manifest of models", path=path, hint=_TRAIN_AGAIN) from error
    if isinstance(number, int) and number > FORMAT:
        hint = "Update apportion, or train again: apportion train"
        raise InputError(f"is of format {number}; this apportion reads up to {FORMAT}", path=path, hint=hint)
    if _hash_of(body) != written:
        raise InputError("is damaged: it differs from its checksum", path=path, hint=_TRAIN_AGAIN)
    try:
        return Manifest.model_validate_json(json.dumps(body))
    except ValidationError as error:
        raise _refusal(path, "is no manifest of models", error) from error


def _described(content: bytes) -> SavedFile:
    return SavedFile(bytes=len(content), sha256=hashlib.sha256(content).hexdigest())


def _next_number(folder: Path) -> int:
    return max((int(name.partition("-")[0]) for name in versions(folder)), default=0) + 1


def _remove_left_over(folder: Path) -> None:
    """Remove what savings that were interrupted have left; what is young may be written by another process now."""
    for path in folder.glob(f"{_LEFT_OVER}*"):
        with contextlib.suppress(OSError):
            if time.time() - path.stat().st_mtime > LEFT_OVER_S:
                shutil.rmtree(path, ignore_errors=True)


def _write(path: Path, content: bytes) -> None:
    with path.open("xb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    """Force the names in a folder to disk, where the system can."""
    if not hasattr(os, "O_DIRECTORY"):
        return
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
