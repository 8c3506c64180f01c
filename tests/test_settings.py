from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import platformdirs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from apportion import settings as module
from apportion.errors import SettingsError
from apportion.records import Feature, Record
from apportion.settings import (
    FIELDS,
    LoadedSettings,
    Settings,
    find_project_file,
    load_settings,
    parse_value,
    set_setting,
    settings_files,
    user_file,
)

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository with a sub-folder, and a user's folder of its own."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    root = tmp_path / "repository"
    (root / ".git").mkdir(parents=True)
    (root / "deep" / "down").mkdir(parents=True)
    return root


def load(project: Path, environ: dict[str, str] | None = None, **overrides: Any) -> LoadedSettings:
    named = {key.replace("__", "."): value for key, value in overrides.items()}
    return load_settings(project_dir=project / "deep" / "down", environ=environ or {}, overrides=named)


def test_without_any_source_the_defaults_hold(project: Path) -> None:
    loaded = load(project)
    assert loaded.settings == Settings()
    assert loaded.settings.token_optimization.enabled is True
    assert {loaded.origin(key) for key in FIELDS} == {"default"}


def test_argument_beats_environment_beats_project_beats_user_beats_default(project: Path) -> None:
    user = user_file()
    user.parent.mkdir(parents=True)
    environ = {"APPORTION_REPLAY__JOBS": "4"}
    seen = [load(project)]
    user.write_text("[replay]\njobs = 2\n")
    seen.append(load(project))
    (project / "apportion.toml").write_text("[replay]\njobs = 3\n")
    seen.append(load(project))
    seen.append(load(project, environ))
    seen.append(load(project, environ, replay__jobs=5))
    assert [loaded.get("replay.jobs") for loaded in seen] == [None, 2, 3, 4, 5]
    assert [loaded.origin("replay.jobs") for loaded in seen] == [
        "default",
        f"user file {user}",
        f"project file {project / 'apportion.toml'}",
        "environment APPORTION_REPLAY__JOBS",
        "argument",
    ]


def test_sources_are_merged_setting_by_setting(project: Path) -> None:
    (project / "apportion.toml").write_text("[token_optimization]\nenabled = false\n")
    loaded = load(project, {"APPORTION_TOKEN_OPTIMIZATION__TARGET_REDUCTION": "0.4"})
    assert loaded.settings.token_optimization.enabled is False
    assert loaded.settings.token_optimization.target_reduction == 0.4


def test_an_argument_of_none_counts_as_not_given(project: Path) -> None:
    assert load(project, {"APPORTION_REPLAY__JOBS": "4"}, replay__jobs=None).get("replay.jobs") == 4


def test_the_environment_can_unset_what_a_file_sets(project: Path) -> None:
    (project / "apportion.toml").write_text("[replay]\njobs = 3\n")
    loaded = load(project, {"APPORTION_REPLAY__JOBS": "none"})
    assert loaded.get("replay.jobs") is None
    assert loaded.origin("replay.jobs") == "environment APPORTION_REPLAY__JOBS"


def test_the_nearest_project_file_counts_and_the_repository_is_the_limit(project: Path) -> None:
    (project.parent / "apportion.toml").write_text("[replay]\njobs = 9\n")
    assert find_project_file(project / "deep") is None
    (project / "apportion.toml").write_text("[replay]\njobs = 3\n")
    (project / "deep" / "apportion.toml").write_text("[replay]\njobs = 7\n")
    assert load(project).get("replay.jobs") == 7


def test_the_search_ends_at_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path / "home"
    (home / "work").mkdir(parents=True)
    (tmp_path / "apportion.toml").write_text("")
    monkeypatch.setenv("HOME", str(home))
    assert find_project_file(home / "work") is None


def test_pyproject_serves_as_a_project_file_where_it_has_our_table(project: Path) -> None:
    pyproject = project / "pyproject.toml"
    pyproject.write_text('[project]\nname = "x"\n')
    assert find_project_file(project) is None
    pyproject.write_text('[project]\nname = "x"\n\n[tool.apportion.replay]\njobs = 6  # few\n')
    assert load(project).get("replay.jobs") == 6
    assert set_setting("replay.jobs", 8, project_dir=project).path == pyproject
    assert pyproject.read_text() == '[project]\nname = "x"\n\n[tool.apportion.replay]\njobs = 8  # few\n'


def test_a_relative_path_counts_from_the_file_that_states_it(project: Path) -> None:
    (project / "apportion.toml").write_text('[telemetry]\nstore_path = "data/a.db"\n')
    assert load(project).settings.telemetry.database == project / "data" / "a.db"


def test_the_store_is_in_the_users_data_folder_unless_said_otherwise(project: Path) -> None:
    expected = platformdirs.user_data_path("apportion", appauthor=False) / "apportion.db"
    assert load(project).settings.telemetry.database == expected


@pytest.mark.parametrize(
    ("text", "place", "hint"),
    [
        ("[replay]\njbos = 3\n", "replay.jbos", "replay.jobs"),
        ("[token_optimisation]\nenabled = true\n", "token_optimisation", "token_optimization.enabled"),
        ("enabled = true\n", "enabled", "token_optimization.enabled"),
    ],
)
def test_an_unknown_key_is_an_error_that_names_the_nearest(project: Path, text: str, place: str, hint: str) -> None:
    file = project / "apportion.toml"
    file.write_text(text)
    with pytest.raises(SettingsError) as caught:
        load(project)
    assert caught.value.message == f"unknown setting '{place}' in project file {file}"
    assert caught.value.hint == f"Did you mean '{hint}'?"


def test_an_unknown_variable_is_an_error_too(project: Path) -> None:
    with pytest.raises(SettingsError, match=r"APPORTION_REPLAY__JBOS\. Did you mean 'replay\.jobs'"):
        load(project, {"APPORTION_REPLAY__JBOS": "3"})
    with pytest.raises(SettingsError, match=r"Known settings: token_optimization\.enabled"):
        load(project, {"APPORTION_XYZZY": "3"})


@pytest.mark.parametrize(
    ("variable", "value", "reason"),
    [
        ("APPORTION_REPLAY__JOBS", "0", "greater than or equal to 1"),
        ("APPORTION_REPLAY__JOBS", "many", "valid integer"),
        ("APPORTION_TOKEN_OPTIMIZATION__TARGET_REDUCTION", "1.5", "less than or equal to 1"),
        ("APPORTION_TOKEN_OPTIMIZATION__TARGET_REDUCTION", "nan", "finite"),
        ("APPORTION_TOKEN_OPTIMIZATION__ENABLED", "none", "valid boolean"),
    ],
)
def test_a_bad_value_is_an_error_that_says_where_and_why(project: Path, variable: str, value: str, reason: str) -> None:
    with pytest.raises(SettingsError, match=reason) as caught:
        load(project, {variable: value})
    assert variable in str(caught.value)


def test_a_file_that_is_not_toml_is_an_error(project: Path) -> None:
    (project / "apportion.toml").write_text("[replay\n")
    with pytest.raises(SettingsError, match=r"apportion\.toml is not TOML"):
        load(project)


def test_origins_and_values_of_unknown_settings_are_refused(project: Path) -> None:
    loaded = load(project)
    for ask in (loaded.origin, loaded.get):
        with pytest.raises(SettingsError, match=r"unknown setting 'replay\.job'\. Did you mean 'replay\.jobs'"):
            ask("replay.job")


def test_settings_are_frozen_and_every_one_is_described() -> None:
    with pytest.raises(ValueError, match="frozen"):
        Settings().replay.jobs = 3  # type: ignore[misc]
    assert issubclass(Settings, Record)
    assert all(field.description for field in FIELDS.values())


def test_setting_a_value_keeps_comments_and_layout(project: Path) -> None:
    file = project / "apportion.toml"
    file.write_text("# ours\n\n[replay]   # how\njobs = 3     # few\n\n[token_optimization]\nenabled = true\n")
    assert set_setting("replay.jobs", 4, project_dir=project / "deep") == (file, True)
    assert (
        file.read_text() == "# ours\n\n[replay]   # how\njobs = 4     # few\n\n[token_optimization]\nenabled = true\n"
    )
    set_setting("telemetry.capture_content", value=True, project_dir=project)
    assert "# few" in file.read_text()
    assert load(project).settings.telemetry.capture_content is True


def test_setting_none_removes_the_setting(project: Path) -> None:
    set_setting("replay.jobs", 4, project_dir=project)
    set_setting("replay.jobs", None, project_dir=project)
    assert load(project).origin("replay.jobs") == "default"


def test_removing_what_is_not_there_changes_and_creates_nothing(project: Path) -> None:
    file = project / "apportion.toml"
    assert set_setting("replay.jobs", None, project_dir=project) == (file, False)
    assert not file.exists()
    file.write_bytes(b"[replay]\r\njobs = 3\r\n")
    assert set_setting("telemetry.capture_content", None, project_dir=project) == (file, False)
    assert set_setting("replay.jobs", 3, project_dir=project) == (file, False)
    assert file.read_bytes() == b"[replay]\r\njobs = 3\r\n"


def test_an_empty_variable_counts_as_unset(project: Path) -> None:
    (project / "apportion.toml").write_text("[replay]\njobs = 3\n")
    loaded = load(project, {"APPORTION_REPLAY__JOBS": "", "APPORTION_TOKEN_OPTIMIZATION__ENABLED": ""})
    assert loaded.get("replay.jobs") == 3
    assert loaded.origin("token_optimization.enabled") == "default"


@pytest.mark.parametrize(
    ("content", "place"),
    [(b"[replay]\njobs = \n", "line 2"), (b"# fine\n\nx = '\xff'\n", "line 3"), (b"x = [1,", "the end")],
)
def test_a_broken_file_is_named_with_the_line_to_mend(project: Path, content: bytes, place: str) -> None:
    file = project / "apportion.toml"
    file.write_bytes(content)
    with pytest.raises(SettingsError, match="is not TOML") as raised:
        load(project)
    assert str(raised.value.hint).startswith(f"Mend {place} of {file}")


def test_a_broken_pyproject_stands_in_the_way_only_where_it_mentions_us(project: Path) -> None:
    (project / "pyproject.toml").write_text("[tool.other]\nx = \n")
    assert load(project).get("replay.jobs") is None
    (project / "pyproject.toml").write_text("[tool.apportion.replay]\njobs = \n")
    with pytest.raises(SettingsError, match=r"pyproject\.toml is not TOML"):
        load(project)


def test_the_files_that_count_are_told_with_their_problems(project: Path) -> None:
    file = project / "apportion.toml"
    here = project / "deep"
    assert settings_files(here) == [("project", file, None), ("user", user_file(), None)]
    for content, problem in (("x", "not TOML"), ("[replay]\njbos = 1\n", "unknown"), ("[replay]\njobs = 0\n", "0")):
        file.write_text(content)
        found = settings_files(here)[0]
        assert found.problem is not None
        assert problem in found.problem


@pytest.mark.parametrize("key", FIELDS)
def test_a_wrong_value_is_refused_with_a_hint_at_right_ones(project: Path, key: str) -> None:
    section, _, name = key.partition(".")
    (project / "apportion.toml").write_text(f"[{section}]\n{name} = [1]\n")
    with pytest.raises(SettingsError) as raised:
        load(project)
    assert str(raised.value.hint).startswith("Give ")


def test_a_new_project_file_goes_to_the_root_of_the_repository(project: Path) -> None:
    change = set_setting("replay.jobs", 4, project_dir=project / "deep" / "down")
    assert change.path == project / "apportion.toml"
    assert set_setting("replay.jobs", 5, scope="user").path == user_file()
    assert load(project).get("replay.jobs") == 4


@pytest.mark.parametrize(("key", "value"), [("replay.jobs", 0), ("replay.job", 3), ("token_optimization.enabled", "x")])
def test_nothing_is_written_where_the_new_value_is_wrong(project: Path, key: str, value: object) -> None:
    file = project / "apportion.toml"
    file.write_text("# mine\n")
    with pytest.raises(SettingsError):
        set_setting(key, value, project_dir=project)
    assert file.read_text() == "# mine\n"


def test_a_file_with_a_mistake_is_not_edited(project: Path) -> None:
    file = project / "apportion.toml"
    file.write_text("[replay]\njbos = 3\n")
    with pytest.raises(SettingsError, match=r"replay\.jbos"):
        set_setting("replay.jobs", 4, project_dir=project)
    assert file.read_text() == "[replay]\njbos = 3\n"


def test_an_interrupted_write_leaves_the_old_file_and_no_rest(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    set_setting("replay.jobs", 4, project_dir=project)
    before = (project / "apportion.toml").read_text()

    def fail(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", fail)
    with pytest.raises(SettingsError, match=r"cannot write .*apportion\.toml: No space left"):
        set_setting("replay.jobs", 5, project_dir=project)
    assert (project / "apportion.toml").read_text() == before
    assert sorted(path.name for path in project.iterdir()) == [".git", "apportion.toml", "deep"]


@given(st.sampled_from(["replay.jobs", "token_optimization.target_reduction"]), st.integers(1, 1024), st.floats(0, 1))
def test_what_is_shown_can_be_read_back(key: str, whole: int, share: float) -> None:
    value = whole if key == "replay.jobs" else share
    assert parse_value(key, str(value)) == value
    assert parse_value(key, "none") is None


def test_pydantic_settings_is_loaded_only_where_variables_are_set(tmp_path: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from apportion.settings import load_settings;"
        f"load_settings(project_dir=Path({str(tmp_path)!r}), environ={{}});"
        "assert 'pydantic_settings' not in sys.modules, 'imported for nothing';"
        f"load_settings(project_dir=Path({str(tmp_path)!r}), environ={{'APPORTION_REPLAY__JOBS': '1'}});"
        "assert 'pydantic_settings' in sys.modules"
    )
    environment = {**os.environ, "XDG_CONFIG_HOME": str(tmp_path)}
    subprocess.run([sys.executable, "-c", script], check=True, env=environment, timeout=300)


def test_the_keys_are_pinned() -> None:
    assert list(FIELDS) == [
        "token_optimization.enabled",
        "token_optimization.target_reduction",
        *(f"token_optimization.{feature}" for feature in Feature),
        "telemetry.store_path",
        "telemetry.capture_content",
        "telemetry.models_path",
        "replay.jobs",
    ]
    assert sorted(module._PATH_KEYS) == ["telemetry.models_path", "telemetry.store_path"]


def test_the_models_lie_beside_the_store_unless_a_setting_says_otherwise(project: Path) -> None:
    telemetry = load(project, telemetry__store_path=project / "a.db").settings.telemetry
    assert telemetry.models_folder == project / "a.db.models"
    chosen = load(project, telemetry__store_path=project / "a.db", telemetry__models_path=project / "m")
    assert chosen.settings.telemetry.models_folder == project / "m"
