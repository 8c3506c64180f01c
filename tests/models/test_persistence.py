"""Saved models: what was saved comes back exactly, and nothing else is ever loaded."""

from __future__ import annotations

import hashlib
import io
import json
import os
import zipfile
from datetime import UTC, datetime
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from apportion.errors import InputError
from apportion.models import persistence
from apportion.models.next_agent import NextAgentModel, NextToolModel
from apportion.models.persistence import (
    CURRENT,
    MANIFEST,
    MAX_UNPACKED_BYTES,
    current_version,
    load_models,
    load_or_priors,
    read_manifest,
    save_models,
    versions,
)
from apportion.models.trails import END, Step
from apportion.models.training import TRAINABLE, TrainingData

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
DATA = TrainingData(fingerprint="ab" * 32, workflows=20, without_content=0, sources={"tests": 20})
STEPS = [
    Step(f"w{nth}", "tests", None, history, "do it", name)
    for nth in range(20)
    for history, name in (((), "plan"), (("plan",), "code"), (("plan", "code"), END))
]


@cache
def models() -> dict[str, Any]:
    return {"next_agent": NextAgentModel().fit_steps(STEPS), "next_tool": NextToolModel().fit_steps(STEPS)}


@pytest.fixture(autouse=True)
def only_models_of_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two kinds of models are enough to test how any are saved."""
    for name in {*TRAINABLE} - {"next_agent", "next_tool"}:
        monkeypatch.delitem(TRAINABLE, name)


def save(folder: Path, **options: Any) -> persistence.Manifest:
    return save_models(folder, **{"models": models(), "data": DATA, "created_at": NOON, **options})


def file_of(folder: Path, name: str = "next_agent") -> Path:
    return folder / str(current_version(folder)) / f"{name}.skops"


def rewrite_manifest(folder: Path, **changes: Any) -> None:
    """Write a manifest with changes and with the checksum that belongs to it, as a forger would."""
    path = folder / str(current_version(folder)) / MANIFEST
    body = json.loads(path.read_text())["manifest"] | changes
    path.write_text(json.dumps({"manifest": body, "sha256": persistence._hash_of(body)}))


def exchange(folder: Path, content: bytes, name: str = "next_agent") -> None:
    """Put another content in a file's place and make the manifest fit it."""
    file_of(folder, name).write_bytes(content)
    files = json.loads((folder / str(current_version(folder)) / MANIFEST).read_text())["manifest"]["files"]
    files[name] = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    rewrite_manifest(folder, files=files)


def refused(folder: Path, message: str) -> None:
    """Assert that the strict door refuses with a message and a hint, and the lenient one gives priors and says so."""
    with pytest.raises(InputError, match=message) as error:
        load_models(folder)
    assert error.value.hint
    loaded = load_or_priors(folder)
    assert loaded.manifest is None
    assert loaded.degraded == (str(error.value),)
    assert {*loaded.models} == {*TRAINABLE}
    assert loaded.models["next_agent"].predict(["plan"]).abstention == "nothing was learned yet"


# ------------------------------------------------------------------ what goes in comes out


def test_saved_models_forecast_byte_for_byte_the_same(tmp_path: Path) -> None:
    manifest = save(tmp_path, metrics={"next_agent": [{"top_1": 0.5}]})
    loaded = load_models(tmp_path)
    assert (loaded.manifest, loaded.degraded) == (manifest, ())
    assert manifest.version == "0001-abababab"
    assert manifest.created_at == NOON
    assert manifest.metrics == {"next_agent": [{"top_1": 0.5}]}
    for name, model in models().items():
        for history in ([], ["plan"], ["plan", "code"], ["other"]):
            mine = model.predict(history, task_text="do it", source="tests")
            theirs = loaded.models[name].predict(history, task_text="do it", source="tests")
            assert mine.model_dump_json() == theirs.model_dump_json()


def test_versions_are_kept_and_the_latest_is_used(tmp_path: Path) -> None:
    save(tmp_path)
    save(tmp_path, data=DATA.model_copy(update={"fingerprint": "cd" * 32}))
    assert versions(tmp_path) == ["0001-abababab", "0002-cdcdcdcd"]
    assert current_version(tmp_path) == "0002-cdcdcdcd"
    first = load_models(tmp_path, "0001-abababab").manifest
    assert first is not None
    assert first.data == DATA
    with pytest.raises(InputError, match=r"no version '0003-abababab' .* Versions: 0001-abababab, 0002-cdcdcdcd"):
        read_manifest(tmp_path, "0003-abababab")
    with pytest.raises(InputError, match=r"no version '\.\./x'"):
        load_models(tmp_path, "../x")


def test_a_model_that_was_not_trained_has_a_prior_and_says_so(tmp_path: Path) -> None:
    save(tmp_path, models={"next_agent": models()["next_agent"]}, untrained={"next_tool": "no tools"})
    loaded = load_models(tmp_path)
    assert loaded.degraded == ("next_tool: no tools",)
    assert loaded.models["next_tool"].predict([]).expected is None
    assert loaded.models["next_agent"].predict(["plan"], source="tests").sample_size == 20


def test_the_folder_and_its_files_are_the_users_alone(tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "models"
    save(folder)
    assert folder.stat().st_mode & 0o077 == 0
    assert (folder / "0001-abababab").stat().st_mode & 0o077 == 0


# ------------------------------------------------------------------ damaged


def test_every_changed_byte_is_noticed(tmp_path: Path) -> None:
    save(tmp_path)
    for path in (file_of(tmp_path), tmp_path / "0001-abababab" / MANIFEST, tmp_path / CURRENT):
        whole = path.read_bytes()
        places = np.random.default_rng(0).integers(0, len(whole), 25) if len(whole) > 100 else range(len(whole) - 1)
        for place in map(int, places):
            path.write_bytes(whole[:place] + bytes([whole[place] ^ 4]) + whole[place + 1 :])
            assert load_or_priors(tmp_path).degraded, (path.name, place)
        path.write_bytes(whole)
    assert load_or_priors(tmp_path).degraded == ()


@pytest.mark.parametrize("left", [0, 1, 100, -1])
def test_a_truncated_file_is_refused(tmp_path: Path, left: int) -> None:
    save(tmp_path)
    path = file_of(tmp_path)
    path.write_bytes(path.read_bytes()[:left])
    refused(tmp_path, r"next_agent\.skops: is not the file that was saved")


def test_files_that_were_swapped_are_refused(tmp_path: Path) -> None:
    save(tmp_path)
    one, other = file_of(tmp_path), file_of(tmp_path, "next_tool")
    contents = one.read_bytes(), other.read_bytes()
    other.write_bytes(contents[0])
    one.write_bytes(contents[1])
    refused(tmp_path, "damaged or was exchanged")


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    refused(tmp_path / "none", "no models were trained yet")
    save(tmp_path)
    file_of(tmp_path, "next_tool").unlink()
    refused(tmp_path, r"next_tool\.skops: is missing")
    (tmp_path / "0001-abababab" / MANIFEST).unlink()
    refused(tmp_path, r"manifest\.json: is missing")
    (tmp_path / CURRENT).write_text("0007-abababab\n")
    refused(tmp_path, "no version '0007-abababab'")
    (tmp_path / CURRENT).write_bytes(b"\xff../../etc")
    refused(tmp_path, "names no version")


def test_a_pipe_in_place_of_a_file_does_not_block(tmp_path: Path) -> None:
    save(tmp_path)
    file_of(tmp_path).unlink()
    os.mkfifo(file_of(tmp_path))
    refused(tmp_path, "is no file")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is no manifest"),
        (b"[]", "is no manifest"),
        (b'{"manifest": {}, "sha256": ""}', "is no manifest"),
        (b"[" * 100_000, "is no manifest"),
        (b'{"manifest": {"format": 1}, "sha256": "0"}', "differs from its checksum"),
    ],
)
def test_what_is_no_manifest_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    save(tmp_path)
    (tmp_path / "0001-abababab" / MANIFEST).write_bytes(content)
    refused(tmp_path, message)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": 2}, "is of format 2; this apportion reads up to 1"),
        ({"version": "0009-abababab"}, "belongs to version 0009-abababab"),
        ({"created_at": "yesterday"}, "is no manifest of models"),
        ({"files": {"../../evil": {"bytes": 1, "sha256": "0" * 64}}}, "holds unknown models"),
        ({"files": {"next_agent": {"bytes": 10**12, "sha256": "0" * 64}}}, "is no manifest of models"),
        ({"more": 1}, "is no manifest of models"),
    ],
)
def test_manifests_of_another_kind_are_refused(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    save(tmp_path)
    rewrite_manifest(tmp_path, **changes)
    with pytest.raises(InputError, match=message):
        load_models(tmp_path)
    assert load_or_priors(tmp_path).degraded


# ------------------------------------------------------------------ hostile


def archive(parts: dict[str, bytes], *, compression: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as whole:
        for name, content in parts.items():
            whole.writestr(name, content)
    return buffer.getvalue()


def schema(**fields: Any) -> bytes:
    return json.dumps({"protocol": 2, "_skops_version": "0.16.0", **fields}).encode()


PLAIN = {"__class__": "dict", "__module__": "builtins", "__loader__": "DictNode", "content": {}}

HOSTILE = {
    "no archive": (b"PK\x03\x04" + b"\0" * 50, "is no file of a model"),
    "no schema": (archive({"1.npy": b""}), "lacks one"),
    "a path out": (archive({"schema.json": schema(**PLAIN), "../../x.npy": b""}), "a part that no model has"),
    "an absolute path": (archive({"schema.json": schema(**PLAIN), "/etc/passwd": b""}), "a part that no model has"),
    "another file": (archive({"schema.json": schema(**PLAIN), "run.py": b"import os"}), "a part that no model has"),
    "bzip2": (archive({"schema.json": schema(**PLAIN)}, compression=zipfile.ZIP_BZIP2), "packed in an unknown way"),
    "a bomb": (archive({"schema.json": schema(**PLAIN), "1.npy": b"\0" * (MAX_UNPACKED_BYTES + 1)}), "unpacks to more"),
    "no json": (archive({"schema.json": b"{"}), "is no file of a model"),
    "deep json": (archive({"schema.json": b"[" * 200_000}), "is no file of a model"),
    "a function": (
        archive({"schema.json": schema(__class__="function", __module__="os", __loader__="FunctionNode", content={})}),
        r"a type that no model has: os\.function",
    ),
    "os.system as type": (
        archive({"schema.json": schema(__class__="system", __module__="os", __loader__="TypeNode", content={})}),
        r"a type that no model has: os\.system",
    ),
    "a method of a plain type": (
        archive({"schema.json": schema(__class__="dict", __module__="builtins", __loader__="MethodNode", content={})}),
        "built in a way that no model is: MethodNode",
    ),
    "a plain dict": (archive({"schema.json": schema(**PLAIN)}), "cannot be loaded|does not fit"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_files_are_refused_though_their_hashes_are_right(tmp_path: Path, case: str) -> None:
    content, message = HOSTILE[case]
    save(tmp_path)
    exchange(tmp_path, content)
    refused(tmp_path, message)


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_part_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as whole:
        whole.writestr("schema.json", schema(**PLAIN))
        whole.writestr("schema.json", schema(**PLAIN))
    save(tmp_path)
    exchange(tmp_path, buffer.getvalue())
    refused(tmp_path, "holds parts twice")


@pytest.mark.parametrize("value", [partial(os.system, "echo"), os.system, {"a": partial(print)}, Path("/etc/passwd")])
def test_skops_files_that_name_code_are_refused_without_running_it(tmp_path: Path, value: Any) -> None:
    import skops.io

    save(tmp_path)
    exchange(tmp_path, skops.io.dumps(value))
    refused(tmp_path, "a type that no model has|built in a way")


def estimator(kind: str) -> Any:
    """Return an estimator of scikit-learn that has learned a little, or a part of one."""
    from sklearn.ensemble import HistGradientBoostingRegressor
    from sklearn.isotonic import IsotonicRegression
    from sklearn.linear_model import LogisticRegression, QuantileRegressor

    values = np.linspace(0, 1, 60)
    boosting = HistGradientBoostingRegressor(loss="quantile", quantile=0.9, max_iter=2).fit(values[:, None], values)
    return {
        "boosting": boosting,
        "tree": boosting._predictors[0][0],
        "isotonic": IsotonicRegression().fit(values, values),
        "logistic": LogisticRegression().fit(values[:, None], values > 0.5),
        "quantile": QuantileRegressor(quantile=0.9).fit(values[:, None], values),
    }[kind]


@pytest.mark.parametrize("kind", ["boosting", "tree", "isotonic", "logistic", "quantile"])
def test_a_file_that_names_an_estimator_is_refused_and_none_is_written(tmp_path: Path, kind: str) -> None:
    import skops.io

    class Holder:
        def to_state(self) -> Any:
            return models()["next_agent"].to_state() | {"estimator": estimator(kind)}

    save(tmp_path)
    exchange(tmp_path, skops.io.dumps(Holder().to_state()))
    refused(tmp_path, r"a type that no model has: (sklearn|numpy)\.|built in a way that no model is")
    with pytest.raises(InputError, match=r"a type that no model has|built in a way"):
        save(tmp_path / "other", models={"next_agent": Holder()})


def test_types_are_checked_before_saving_too(tmp_path: Path) -> None:
    class Strange:
        def to_state(self) -> Any:
            return {"when": partial(print)}

    with pytest.raises(InputError, match="holds a type that no model has"):
        save(tmp_path, models={"next_agent": Strange()})
    with pytest.raises(InputError, match="cannot be the name of a model"):
        save(tmp_path, models={"../x": models()["next_agent"]})
    assert list(tmp_path.iterdir()) == []


def test_a_state_with_wrong_numbers_is_refused_by_the_model(tmp_path: Path) -> None:
    import skops.io

    state = models()["next_agent"].to_state()
    state["mixture"]["weights"] = state["mixture"]["weights"] * -1
    save(tmp_path)
    exchange(tmp_path, skops.io.dumps(state))
    refused(tmp_path, "does not fit its model .*weights of the experts")


# ------------------------------------------------------------------ interrupted


CALLS = ["fsync", "rename", "replace"]


@pytest.mark.parametrize("nth", range(12))
def test_whatever_interrupts_saving_the_old_version_stays_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, nth: int
) -> None:
    """Fail at the n-th call that writes; beyond the last one, saving succeeds."""
    save(tmp_path)
    old = load_models(tmp_path).manifest
    left = [nth]

    def failing(real: Any) -> Any:
        def call(*args: Any, **options: Any) -> Any:
            left[0] -= 1
            if left[0] == -1:
                raise KeyboardInterrupt
            return real(*args, **options)

        return call

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", failing(os.fsync))
        patched.setattr(Path, "rename", failing(Path.rename))
        patched.setattr(Path, "replace", failing(Path.replace))
        try:
            new = save(tmp_path, data=DATA.model_copy(update={"fingerprint": "cd" * 32}))
        except KeyboardInterrupt:
            new = None
    loaded = load_models(tmp_path)
    assert loaded.degraded == ()
    assert loaded.manifest == (new or old)
    assert (new is None) == (left[0] < 0)
    for name in versions(tmp_path):
        load_models(tmp_path, name)
    assert not list(tmp_path.glob(".saving-*"))


def test_what_a_killed_process_left_is_ignored_and_removed_once_it_is_old(tmp_path: Path) -> None:
    young, old = tmp_path / ".saving-young", tmp_path / ".saving-old"
    for folder in (young, old):
        folder.mkdir()
        (folder / "next_agent.skops").write_bytes(b"half")
    os.utime(old, (0, 0))
    assert versions(tmp_path) == []
    save(tmp_path)
    assert young.exists()
    assert not old.exists()
    assert load_or_priors(tmp_path).degraded == ()
