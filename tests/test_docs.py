from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from apportion.planner.report.definitions import LEDGER_NAMES, STATUS_DEFINITIONS

if TYPE_CHECKING:
    from types import ModuleType

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]
PAGE_IDS = [str(page.relative_to(ROOT)) for page in PAGES]


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


def script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / "docs" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(ROOT / "docs"))  # as for a script
    try:
        spec.loader.exec_module(module)
    finally:
        sys.path.pop(0)
    return module


def importer_names() -> set[str]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return set(project["entry-points"]["apportion.importers"])


@pytest.mark.parametrize("page", PAGES, ids=PAGE_IDS)
def test_python_blocks_run_as_far_as_they_define_things(page: Path) -> None:
    for block in blocks(page, "python"):
        if page.name == "README.md":  # runs as a script below
            continue
        exec(compile(block, str(page), "exec"), {"__name__": "not_main"})  # noqa: S102  (our own pages)


def test_the_pages_build_without_a_warning(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "docs", tmp_path / "docs", ignore=shutil.ignore_patterns("site"))
    command = [
        sys.executable,
        "-m",
        "zensical",
        "build",
        "--strict",
        "--config-file",
        str(tmp_path / "docs/mkdocs.yml"),
    ]
    built = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert built.returncode == 0, built.stdout + built.stderr
    pages = {page.stem for page in (ROOT / "docs").glob("*.md")}
    assert pages <= {page.stem for page in (tmp_path / "docs" / "site").glob("*.html")}


def test_every_page_is_in_the_navigation() -> None:
    text = (ROOT / "docs" / "mkdocs.yml").read_text(encoding="utf-8")
    assert set(re.findall(r": (\S+\.md)$", text, re.MULTILINE)) == {page.name for page in (ROOT / "docs").glob("*.md")}


def test_the_list_of_benchmarks_is_up_to_date() -> None:
    page, update = (ROOT / "docs" / "benchmarks.md").read_text(encoding="utf-8"), script("update_benchmarks")
    assert update.renewed(page) == page, "run `make docs`"


def test_the_plug_ins_of_the_guide_keep_the_laws() -> None:
    names: dict[str, Any] = {"__name__": "guide"}
    for block in blocks(ROOT / "docs" / "extending.md", "python"):
        exec(compile(block, "extending.md", "exec"), names)  # noqa: S102  (our own page)
    names["test_short_folder"]()
    names["test_defer_reviews"]()
    trace = b"".join(b'File "/usr/lib/python3/dist-packages/m%d.py", line %d' % (line, line) for line in range(60))
    item = names["Item"](trace)
    outcome = names["ShortFolder"]().execute(item, None, names["Query"]())
    assert outcome.tokens < outcome.original_tokens


@pytest.mark.parametrize("page", PAGES, ids=PAGE_IDS)
def test_links_lead_to_files_that_exist(page: Path) -> None:
    links = re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", page.read_text(encoding="utf-8"))
    for link in links:
        assert link.startswith("https://") or (page.parent / link).exists(), link


@pytest.mark.parametrize(
    ("number", "printed"),
    [
        (0, r"^bill saved: -?[0-9.e-]+$"),
        (1, r"^architect runs as full with [0-9,]+ work tokens"),
        (2, r"^output tokens at most: [1-9][0-9]*$"),
    ],
)
def test_the_python_examples_of_the_readme_work_as_scripts(number: int, printed: str, tmp_path: Path) -> None:
    examples = blocks(ROOT / "README.md", "python")
    assert len(examples) == 3
    script = tmp_path / "example.py"
    script.write_text(examples[number].replace("fixtures/logs", "fixtures/logs/pi"), encoding="utf-8")
    run = subprocess.run([sys.executable, str(script)], cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert re.search(printed, run.stdout, re.MULTILINE), run.stdout


def test_the_reference_of_the_report_says_what_the_schema_says() -> None:
    assert (ROOT / "docs" / "report.md").read_text(encoding="utf-8") == script("update_report").page()


def test_the_what_if_example_prints_what_the_page_says() -> None:
    page = (ROOT / "docs" / "planning.md").read_text(encoding="utf-8")
    assert page == script("update_planning").renewed(page), "run: make docs"


def test_the_commands_of_the_compression_page_print_what_it_says() -> None:
    page = (ROOT / "docs" / "compression.md").read_text(encoding="utf-8")
    assert page == script("update_compression").renewed(page), "run: make docs"


def test_every_field_of_the_report_has_a_meaning_in_its_reference() -> None:
    rows = re.findall(r"^\| `\w+` \| .+ \| (.*) \|$", script("update_report").page(), re.MULTILINE)
    assert len(rows) > 100
    assert all(len(meaning) > 3 for meaning in rows)


def test_the_reference_of_the_report_explains_every_status_of_a_plan() -> None:
    text = (ROOT / "docs" / "report.md").read_text(encoding="utf-8").partition("## Plan statuses\n")[2]
    assert re.findall(r"^\| `([A-Z]+)` \| .{20,} \|$", text, re.MULTILINE) == list(STATUS_DEFINITIONS)


def test_the_readme_names_all_ledgers_in_their_order() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8").partition("ledgers mean\n")[2].partition("\n## ")[0]
    table = re.findall(r"^\| ([a-z ]+) \| [A-Z]", text, re.MULTILINE)
    assert table == [name.lower() for name in LEDGER_NAMES.values()]


def test_every_importer_is_described() -> None:
    page = (ROOT / "docs" / "telemetry.md").read_text(encoding="utf-8")
    table = page.partition("| importer |")[2].partition("\n\n")[0]
    rows = re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)
    assert len(rows) == len(set(rows))
    assert set(rows) == importer_names()


def test_the_readme_lists_as_many_formats_as_there_are_importers() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8").partition("## Supported logs")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| (?!format|---)(.+?) \|", text, re.MULTILINE)
    assert len(rows) == len(importer_names())


def test_every_make_target_in_a_page_exists() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    for page in PAGES:
        named = re.findall(r"(?:^\$ |`)make ([a-z]+)", page.read_text(encoding="utf-8"), re.MULTILINE)
        assert set(named) <= targets, page


def test_the_demo_creates_the_folder_it_writes_to(tmp_path: Path) -> None:
    (tmp_path / "venv" / "bin").mkdir(parents=True)
    for mark in (".created", ".installed-demo"):
        (tmp_path / "venv" / mark).touch()
    program = tmp_path / "venv" / "bin" / "apportion"
    program.write_text('#!/bin/sh\n[ "$1" = demo ] || echo "$@" > "$4.arguments"\n')
    program.chmod(0o755)
    out = tmp_path / "new folder" / "deep"
    command = ["make", "demo", f"VENV={tmp_path / 'venv'}", f"OUT={out}"]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, timeout=300)
    written = (out / "report.json.arguments").read_text()
    assert written == f"replay fixtures/logs --json {out}/report.json --html {out}/report.html\n"


def test_every_folder_in_the_layout_exists() -> None:
    folders = re.findall(
        r"^\| `([a-z/]+)/` \|", (ROOT / "docs" / "layout.md").read_text(encoding="utf-8"), re.MULTILINE
    )
    assert len(folders) > 8
    assert all((ROOT / folder).is_dir() for folder in folders)


def test_the_demo_block_can_be_renewed_any_number_of_times() -> None:
    tool, text = script("update_readme"), "saved \\1 nothing"
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    once = tool.replaced(readme, "demo", tool.section(text))
    assert text in once
    assert tool.replaced(once, "demo", tool.section(text)) == once
    assert once.partition("<!-- demo:begin -->")[0] == readme.partition("<!-- demo:begin -->")[0]


def test_messages_that_troubleshooting_quotes_are_said_somewhere() -> None:
    folders = ("planner", "compression", "models", "src/apportion/telemetry")
    files = [file for folder in folders for file in (ROOT / folder).rglob("*.py")]
    said = "\n".join(file.read_text(encoding="utf-8") for file in (*files, *(ROOT / "src" / "apportion").glob("*.py")))
    quoted = re.findall(r'\*"(.+?)"\*', (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8"))
    parts = [part.strip(" :()") for quote in quoted for part in re.split(r"\.\.\.|\(|: |\d+", quote)]
    assert len(quoted) > 6
    assert [part for part in parts if part not in said] == []


def test_what_is_renewed_needs_its_markers_exactly_once() -> None:
    replaced = script("_marked").replaced
    marked = "<!-- a:begin -->\nold\n<!-- a:end -->\n"
    assert replaced(f"x\n{marked}y", "a", "") == "x\n<!-- a:begin -->\n<!-- a:end -->\ny"
    for page in ("no markers", marked * 2, marked.replace("end", "stop"), f"`{marked}`"):
        with pytest.raises(ValueError, match="a:begin and a:end once"):
            replaced(page, "a", "text")


def test_pins_fit_the_declared_requirements() -> None:
    from packaging.requirements import Requirement

    lines = (ROOT / "constraints-dev.txt").read_text(encoding="utf-8").splitlines()
    pins = dict(line.lower().split("==") for line in lines if line and not line.startswith("#"))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    declared = [
        *project["dependencies"],
        *(each for extra in project["optional-dependencies"].values() for each in extra),
    ]
    for requirement in map(Requirement, declared):
        if requirement.name != "apportion":
            assert requirement.specifier.contains(pins[requirement.name.lower()]), requirement


def test_the_ci_script_is_executable_and_well_formed() -> None:
    assert os.access(ROOT / ".ci" / "run", os.X_OK)
    subprocess.run(["bash", "-n", str(ROOT / ".ci" / "run")], check=True)


def test_no_script_assumes_an_unversioned_python() -> None:
    for name in ("Makefile", ".ci/run"):
        text = (ROOT / name).read_text(encoding="utf-8")
        assert not re.search(r"(?<![/\w$.{-])python (?!3)", re.sub(r"^\s*#.*$", "", text, flags=re.MULTILINE)), name
