"""Settings: one frozen object, put together from five places and passed in where it is needed.

    loaded = load_settings()
    loaded.settings.token_optimization.enabled
    loaded.origin("token_optimization.enabled")     # "default", "environment APPORTION_...", ...

An argument wins over the environment (`APPORTION_TOKEN_OPTIMIZATION__ENABLED=false`), that over the project's file
(`apportion.toml`, or `[tool.apportion]` in `pyproject.toml`), that over the user's file, and that over the default.
Only the doors load settings; everything else is given a `Settings`.
"""

from __future__ import annotations

import difflib
import os
import re
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple

import platformdirs
from pydantic import Field, ValidationError

from apportion._settings_file import edit, not_toml
from apportion.errors import SettingsError
from apportion.records import Feature, Record, Share

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from pydantic.fields import FieldInfo

ENV_PREFIX = "APPORTION_"
"""Prefix of environment variables; `__` separates the levels."""

PROJECT_FILE = "apportion.toml"
"""Name of the project's settings file."""

USER_FILE = "config.toml"
"""Name of the user's settings file, in the platform's folder for configuration."""

Scope = Literal["project", "user"]
"""Which file a setting is written to."""


class TokenOptimizationSettings(Record):
    """Whether and how far context is shortened."""

    enabled: bool = Field(
        default=True, description="Whether to plan at all; false sends, and counts, every prompt as it is."
    )
    target_reduction: Share | None = Field(
        default=None,
        description="Share of visible prompt tokens to save; unset means as much as pays for itself.",
    )
    structure: bool = Field(default=True, description="Write new results shorter without losing anything.")
    elide: bool = Field(default=True, description="Put old results behind handles where that pays.")
    select: bool = Field(default=True, description="Leave parts of new results out behind handles, where asked for.")
    diff: bool = Field(default=True, description="Hand over what changed where the receiver holds the rest.")
    reference: bool = Field(default=True, description="Name the copy of a result that the agent already has.")
    lazy: bool = Field(default=True, description="Load tools, skills and agent files when they are needed.")
    preload: bool = Field(default=True, description="Load in advance what is likely to be needed.")

    @property
    def off(self) -> frozenset[Feature]:
        """The kinds of action that are switched off."""
        return frozenset(feature for feature in Feature if not getattr(self, feature.value))


class TelemetrySettings(Record):
    """What is remembered about past workflows, and where."""

    store_path: Path | None = Field(
        default=None, description="File of the telemetry store; unset means the platform's folder for user data."
    )
    capture_content: bool = Field(
        default=False, description="Keep the text of imported logs (redacted), not only hashes and counts."
    )
    models_path: Path | None = Field(
        default=None, description="Folder of the trained models; unset means beside the telemetry store."
    )

    @property
    def database(self) -> Path:
        """The file of the store, wherever it is."""
        default = platformdirs.user_data_path("apportion", appauthor=False) / "apportion.db"
        return (self.store_path or default).expanduser()

    @property
    def models_folder(self) -> Path:
        """The folder of trained models, wherever it is."""
        return (self.models_path or self.database.with_name(f"{self.database.name}.models")).expanduser()


class ReplaySettings(Record):
    """How recorded workflows are replayed."""

    jobs: Annotated[int, Field(ge=1, le=1024)] | None = Field(
        default=None, description="Processes that replay in parallel; unset means one per processor core."
    )


class Settings(Record):
    """All settings."""

    token_optimization: TokenOptimizationSettings = TokenOptimizationSettings()
    telemetry: TelemetrySettings = TelemetrySettings()
    replay: ReplaySettings = ReplaySettings()


class LoadedSettings(NamedTuple):
    """Settings, and where each of them comes from."""

    settings: Settings
    origins: Mapping[str, str]

    def get(self, key: str) -> Any:
        """Return the value of a setting by its dotted key.

        Raises:
            SettingsError: There is no such setting.
        """
        require_key(key)
        section, _, name = key.partition(".")
        return getattr(getattr(self.settings, section), name)

    def origin(self, key: str) -> str:
        """Return where a setting comes from: "default", "user file ...", "environment APPORTION_..." and so on.

        Raises:
            SettingsError: There is no such setting.
        """
        require_key(key)
        return self.origins.get(key, "default")


def _fields() -> dict[str, FieldInfo]:
    return {
        f"{section}.{name}": field
        for section, part in Settings.model_fields.items()
        for name, field in type(part.default).model_fields.items()
    }


FIELDS = _fields()
"""All settings by dotted key, in the order in which they are shown."""


def require_key(key: str) -> None:
    """Check that a setting exists.

    Raises:
        SettingsError: It does not; the hint names the nearest one that does.
    """
    if key not in FIELDS:
        raise SettingsError(f"unknown setting '{key}'", hint=_nearest(key))


def _nearest(key: str) -> str:
    section, _, name = key.lower().rpartition(".")
    known = [field for field in FIELDS if section and field.startswith(f"{section}.")]
    names = {field.rpartition(".")[2]: field for field in known or FIELDS}
    if not known:
        names |= {field: field for field in FIELDS}
        for field in FIELDS:
            names.setdefault(field.partition(".")[0], field)  # a section alone means its first setting
    close = [] if known else difflib.get_close_matches(key.lower(), names, n=1, cutoff=0.5)
    close = close or difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    return f"Did you mean '{names[close[0]]}'?" if close else f"Known settings: {', '.join(known or FIELDS)}"


class _Layer(NamedTuple):
    """Values of one place by dotted key, with the name of the place of each."""

    values: dict[str, Any]
    origins: dict[str, str]


def load_settings(
    *,
    overrides: Mapping[str, Any] | None = None,
    project_dir: Path | None = None,
    environ: Mapping[str, str] | None = None,
) -> LoadedSettings:
    """Put the settings together from all five places.

    Args:
        overrides: Arguments by dotted key, for example `{"replay.jobs": 2}`; a value of `None` counts as not given.
        project_dir: Folder from which the project's file is searched upwards; the current one by default.
        environ: Environment variables; those of the process by default.

    Raises:
        SettingsError: A file cannot be read, a key is unknown, or a value is out of range. The message says where.
    """
    environ = os.environ if environ is None else environ
    project = find_project_file(project_dir or Path.cwd())
    layers = [_file_layer(user_file(), "user file")]
    if project:
        layers.append(_file_layer(project, "project file"))
    layers += [_environment_layer(environ), _argument_layer(overrides or {})]
    values: dict[str, Any] = {}
    origins: dict[str, str] = {}
    for layer in layers:
        values |= layer.values
        origins |= layer.origins
    return LoadedSettings(_validated(values, origins), origins)


def _validated(values: Mapping[str, Any], origins: Mapping[str, str]) -> Settings:
    tree: dict[str, dict[str, Any]] = {}
    for key, value in values.items():
        section, _, name = key.partition(".")
        tree.setdefault(section, {})[name] = value
    try:
        return Settings.model_validate(tree)
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        key = ".".join(str(part) for part in problem["loc"][:2])
        reason = problem["msg"][:1].lower() + problem["msg"][1:]
        raise SettingsError(
            f"setting '{key}' cannot be {values.get(key)!r} ({origins.get(key, 'default')}): {reason}",
            hint=f"Give {_VALUES[key]}" if key in FIELDS else None,
        ) from error


_VALUES = {
    "token_optimization.enabled": "true or false",
    "token_optimization.target_reduction": "a share from 0 to 1 (0.5 means half), or none",
    **{f"token_optimization.{feature}": "true or false" for feature in Feature},
    "telemetry.store_path": "the path of a file, or none",
    "telemetry.capture_content": "true or false",
    "telemetry.models_path": "the path of a folder, or none",
    "replay.jobs": "a whole number from 1 to 1024, or none",
}
"""What may be given for each setting, for hints."""


def find_project_file(start: Path) -> Path | None:
    """Return the nearest project file from a folder upwards; the search ends at the repository's root or at home.

    In each folder `apportion.toml` goes before a `pyproject.toml` with a table `[tool.apportion]`, or one that is
    broken and mentions us: whoever loads it then learns where.
    """
    for folder in _folders_upwards(start):
        if (folder / PROJECT_FILE).is_file():
            return folder / PROJECT_FILE
        if _has_table(folder / "pyproject.toml"):
            return folder / "pyproject.toml"
    return None


def project_root(start: Path) -> Path:
    """Return the root of the repository around a folder, or the folder itself outside of any."""
    for folder in _folders_upwards(start):
        if (folder / ".git").exists():
            return folder
    return start.resolve()


def user_file() -> Path:
    """Return the path of the user's settings file, whether it exists or not."""
    return platformdirs.user_config_path("apportion", appauthor=False) / USER_FILE


class SettingsFile(NamedTuple):
    """A file from which settings are read.

    Attributes:
        scope: Whose it is.
        path: Where it is, or would be.
        problem: Why its settings cannot be used, or `None`.
    """

    scope: Scope
    path: Path
    problem: str | None


def settings_files(start: Path) -> list[SettingsFile]:
    """Return the files that count in a folder, the stronger one first, whether they exist or not."""
    paths: dict[Scope, Path] = {
        "project": find_project_file(start) or project_root(start) / PROJECT_FILE,
        "user": user_file(),
    }
    return [SettingsFile(scope, path, _problem(path, scope)) for scope, path in paths.items()]


def _problem(path: Path, scope: Scope) -> str | None:
    try:
        layer = _file_layer(path, f"{scope} file")
        _validated(layer.values, layer.origins)
    except SettingsError as error:
        return error.message
    return None


def _folders_upwards(start: Path) -> Iterator[Path]:
    start = start.resolve()
    home = Path.home()
    for folder in (start, *start.parents):
        yield folder
        if folder == home or (folder / ".git").exists():
            return


def _has_table(pyproject: Path) -> bool:
    if not pyproject.is_file():
        return False
    data = _read(pyproject)
    try:
        return "apportion" in tomllib.loads(data.decode()).get("tool", {})
    except ValueError:
        return b"apportion" in data


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise SettingsError(f"cannot read {path}: {error.strerror or error}") from error


def _read_toml(path: Path) -> dict[str, Any]:
    data = _read(path)
    try:
        return tomllib.loads(data.decode())
    except UnicodeDecodeError as error:
        raise not_toml(path, "not UTF-8 text", data.count(b"\n", 0, error.start) + 1) from error
    except tomllib.TOMLDecodeError as error:
        line = re.search(r"at line (\d+)", str(error))
        raise not_toml(path, str(error), int(line[1]) if line else None) from error


def _file_layer(path: Path, place: str) -> _Layer:
    if not path.is_file():
        return _Layer({}, {})
    table = _read_toml(path)
    if path.name == "pyproject.toml":
        table = table.get("tool", {}).get("apportion", {})
    values = flatten(table, where=f"{place} {path}")
    for key, value in values.items():
        if isinstance(value, str) and key in _PATH_KEYS:
            values[key] = path.parent / Path(value).expanduser()  # relative to the file that says so
    return _Layer(values, dict.fromkeys(values, f"{place} {path}"))


def flatten(table: Mapping[str, Any], *, where: str) -> dict[str, Any]:
    """Return the settings of a TOML table by dotted key.

    Raises:
        SettingsError: The table has a key that is no setting.
    """
    values: dict[str, Any] = {}
    for section, part in table.items():
        if section not in Settings.model_fields or not isinstance(part, dict):
            raise SettingsError(f"unknown setting '{section}' in {where}", hint=_nearest(section))
        for name, value in part.items():
            key = f"{section}.{name}"
            if key not in FIELDS:
                raise SettingsError(f"unknown setting '{key}' in {where}", hint=_nearest(key))
            values[key] = value
    return values


_PATH_KEYS = frozenset(key for key, field in FIELDS.items() if "Path" in str(field.annotation))


def _environment_layer(environ: Mapping[str, str]) -> _Layer:
    given = {name.upper(): value for name, value in environ.items() if name.upper().startswith(ENV_PREFIX) and value}
    keys = {name: name.removeprefix(ENV_PREFIX).lower().replace("__", ".") for name in given}
    for name, key in keys.items():
        if key not in FIELDS:
            raise SettingsError(f"unknown setting '{key}' in environment variable {name}", hint=_nearest(key))
    values = _parse_environment(given) if keys else {}
    return _Layer(values, {key: f"environment {name}" for name, key in keys.items() if key in values})


def _parse_environment(given: Mapping[str, str]) -> dict[str, Any]:
    """Let pydantic-settings read the variables; imported here, because that takes longer than all the rest."""
    from pydantic_settings import BaseSettings, EnvSettingsSource

    environment = type("_Environment", (Settings, BaseSettings), {"__module__": __name__})
    source = EnvSettingsSource(environment, env_prefix=ENV_PREFIX, env_nested_delimiter="__")
    source.env_vars = {name.lower(): value for name, value in given.items()}
    values = {f"{section}.{name}": value for section, part in source().items() for name, value in part.items()}
    return {key: None if value == "none" and is_optional(key) else value for key, value in values.items()}


def is_optional(key: str) -> bool:
    """Whether a setting can be unset, which is written as `none`."""
    return FIELDS[key].default is None


def _argument_layer(overrides: Mapping[str, Any]) -> _Layer:
    for key in overrides:
        require_key(key)
    values = {key: value for key, value in overrides.items() if value is not None}
    return _Layer(values, dict.fromkeys(values, "argument"))


def parse_value(key: str, text: str) -> Any:
    """Return the value that a text means for a setting, as in the environment; `none` gives `None`.

    Raises:
        SettingsError: There is no such setting, or the text is no value of its type.
    """
    require_key(key)
    if text.lower() == "none":
        return None
    section, _, name = key.partition(".")
    return getattr(getattr(_validated({key: text}, {key: "argument"}), section), name)


class SettingChange(NamedTuple):
    """What writing a setting did.

    Attributes:
        path: The file.
        changed: Whether it says something else now.
    """

    path: Path
    changed: bool


def set_setting(key: str, value: Any, *, scope: Scope = "project", project_dir: Path | None = None) -> SettingChange:
    """Write one setting to a file, keeping its comments and layout.

    The new content is checked before anything is written, and replaces the old one in a single step.

    Args:
        key: Dotted key, for example `"replay.jobs"`.
        value: The value, of the setting's type; `None` removes the setting from that file.
        scope: `"project"` for the nearest project file (a new one at the repository's root if there is none), `"user"`
            for the user's.
        project_dir: Folder from which the project's file is searched upwards; the current one by default.

    Raises:
        SettingsError: The key is unknown, the value out of range, or the file cannot be read or written.
    """
    require_key(key)
    if scope == "user":
        path = user_file()
    else:
        start = project_dir or Path.cwd()
        path = find_project_file(start) or project_root(start) / PROJECT_FILE
    others = _file_layer(path, f"{scope} file").values
    others.pop(key, None)
    _validated(others if value is None else others | {key: value}, {key: "argument"})
    changed = edit(path, key, str(value) if isinstance(value, Path) else value)
    return SettingChange(path, changed)
