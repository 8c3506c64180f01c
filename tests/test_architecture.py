"""The rules of the house, checked in the syntax trees of all modules, and each check tried on code that breaks it."""

from __future__ import annotations

import ast
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT = Path(__file__).parents[1]
FOLDERS = {"apportion": ROOT / "src" / "apportion"} | {
    f"apportion.{name}": ROOT / name for name in ("planner", "models", "compression")
}

ALLOWED = {
    "ground": {"ground"},
    "models": {"ground", "models"},
    "compression": {"ground", "compression"},
    "planner": {"ground", "models", "compression", "planner"},
    "doors": {"ground", "models", "compression", "planner", "doors"},
}
"""Which layer may import which: ground <- models, compression <- planner <- doors."""

ONLY_IN: dict[str, Callable[[str], bool]] = {
    "ortools": lambda module: layer(module) == "planner",
    "sklearn": lambda module: layer(module) == "models",
    "skops": lambda module: layer(module) == "models",
    "sentence_transformers": lambda module: module == "apportion.embeddings",
    "torch": lambda module: module == "apportion.embeddings",
    "genai_prices": lambda module: module == "apportion._flatten_prices",
    "opentelemetry": lambda module: module == "apportion.telemetry.otel",
    **dict.fromkeys(("pickle", "joblib", "cloudpickle", "dill", "shelve", "marshal"), lambda _module: False),
}
"""Third-party packages and the only modules that may import them; formats that run code when loaded are for none."""

INDOORS = ("apportion.planner.doors",)
"""Where output to a person's terminal belongs."""


class Module(NamedTuple):
    """One module of the package: dotted name, whether it is a package's `__init__`, and its syntax tree."""

    name: str
    is_package: bool
    tree: ast.Module


@cache
def modules() -> tuple[Module, ...]:
    """All modules of the package, found in the four folders and not through symbolic links."""
    return tuple(_parsed())


def _parsed() -> Iterator[Module]:
    for package, folder in FOLDERS.items():
        for path in sorted(folder.rglob("*.py")):
            relative = path.relative_to(folder)
            if package == "apportion" and relative.parts[0] in {"planner", "models", "compression"}:
                continue
            parts = [package, *relative.with_suffix("").parts]
            is_package = parts[-1] == "__init__"
            yield Module(".".join(parts[:-1] if is_package else parts), is_package, ast.parse(path.read_text("utf-8")))


def layer(module: str) -> str:
    """The layer to which a module belongs."""
    parts = module.split(".")
    if parts[:3] == ["apportion", "planner", "doors"]:
        return "doors"
    return parts[1] if len(parts) > 1 and parts[1] in ALLOWED else "ground"


def imports(module: Module) -> Iterator[tuple[str, int]]:
    """Dotted names that a module imports anywhere, lazily or for type checking too, with their lines."""
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = _absolute(module, node)
            yield from ((f"{base}.{alias.name}", node.lineno) for alias in node.names)
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith(("import_module", "__import__")):
            yield from ((str(arg.value), node.lineno) for arg in node.args[:1] if isinstance(arg, ast.Constant))


def _absolute(module: Module, node: ast.ImportFrom) -> str:
    if node.level == 0:
        return node.module or ""
    parts = module.name.split(".")
    above = parts[: len(parts) - node.level + (1 if module.is_package else 0)]
    return ".".join([*above, node.module] if node.module else above)


def wrong_directions(module: Module) -> Iterator[str]:
    """Imports against the direction in which data flows; the front doors alone may name everything.

    One of them is that of authors of plug-ins: `apportion.testing`.
    """
    if module.name in {"apportion", "apportion.__main__", "apportion.testing"}:
        return
    for name, line in imports(module):
        if name.partition(".")[0] == "apportion" and layer(name) not in ALLOWED[layer(module.name)]:
            yield f"{module.name}:{line}: {layer(module.name)} imports {name}"


def misplaced_packages(module: Module) -> Iterator[str]:
    """Third-party packages imported where they do not belong."""
    for name, line in imports(module):
        allowed = ONLY_IN.get(name.partition(".")[0])
        if allowed is not None and not allowed(module.name):
            yield f"{module.name}:{line}: {name}"


def prints(module: Module) -> Iterator[str]:
    """Output to the terminal from library code."""
    if module.name.startswith(INDOORS):
        return
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print":
            yield f"{module.name}:{node.lineno}: print()"
        if isinstance(node, ast.Attribute) and ast.unparse(node) in {"sys.stdout", "sys.stderr"}:
            yield f"{module.name}:{node.lineno}: {ast.unparse(node)}"


def environment_reads(module: Module) -> Iterator[str]:
    """Library code that reads the environment: settings arrive as an object."""
    if module.name.startswith(INDOORS) or module.name == "apportion.settings":
        return
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Attribute) and ast.unparse(node) in {"os.environ", "os.getenv"}:
            yield f"{module.name}:{node.lineno}: {ast.unparse(node)}"


CHECKS = [wrong_directions, misplaced_packages, prints, environment_reads]

BREAKING = [
    (wrong_directions, "apportion.records", "from apportion.planner.budgets.problem import BudgetProblem"),
    (wrong_directions, "apportion.telemetry.store", "def f():\n    import apportion.models.demand"),
    (wrong_directions, "apportion.models.demand", "from apportion.compression.actions import x"),
    (wrong_directions, "apportion.models.demand", "from apportion import compression"),
    (wrong_directions, "apportion.models.demand", "from ..compression import store"),
    (wrong_directions, "apportion.compression.store", "if TYPE_CHECKING:\n    from apportion.models import demand"),
    (wrong_directions, "apportion.compression.store", "from apportion.planner import plan"),
    (wrong_directions, "apportion.planner.budgets.solver", "from apportion.planner.doors.cli import app"),
    (wrong_directions, "apportion.planner.budgets.solver", "importlib.import_module('apportion.planner.doors.cli')"),
    (misplaced_packages, "apportion.records", "import ortools.sat.python.cp_model"),
    (misplaced_packages, "apportion.planner.doors.cli", "from ortools.sat.python import cp_model"),
    (misplaced_packages, "apportion.planner.budgets.solver", "from sklearn.linear_model import QuantileRegressor"),
    (misplaced_packages, "apportion.planner.doors.cli.models", "import skops.io"),
    (misplaced_packages, "apportion.models.demand", "import sentence_transformers"),
    (misplaced_packages, "apportion.models.demand", "def f():\n    import pickle"),
    (misplaced_packages, "apportion.models.demand", "from joblib import dump"),
    (prints, "apportion.planner.budgets.solver", "print('solving')"),
    (prints, "apportion.models.demand", "import sys\nsys.stderr.write('x')"),
    (environment_reads, "apportion.planner.budgets.solver", "import os\nos.environ['X']"),
]
"""Each check, with a module name and a content that it must refuse."""

KEEPING = [
    (wrong_directions, "apportion.planner.doors.cli", "from apportion.planner.replay.engine import replay"),
    (wrong_directions, "apportion.planner.budgets.solver", "from apportion.models.demand import f\nfrom . import plan"),
    (misplaced_packages, "apportion.planner.budgets.solver", "from ortools.sat.python import cp_model"),
    (misplaced_packages, "apportion.models.demand", "import sklearn"),
    (prints, "apportion.planner.doors.cli.replay", "print('done')"),
    (prints, "apportion.planner.report.terminal", "console.print('x')"),
]
"""The same checks on contents that they must let pass."""


@pytest.mark.parametrize("check", CHECKS)
def test_the_rules_hold_in_every_module(check: Callable[[Module], Iterator[str]]) -> None:
    assert [problem for module in modules() for problem in check(module)] == []


@pytest.mark.parametrize(("check", "name", "code"), BREAKING)
def test_each_check_notices_a_breach(check: Callable[[Module], Iterator[str]], name: str, code: str) -> None:
    assert list(check(Module(name, is_package=False, tree=ast.parse(code))))


@pytest.mark.parametrize(("check", "name", "code"), KEEPING)
def test_each_check_lets_right_code_pass(check: Callable[[Module], Iterator[str]], name: str, code: str) -> None:
    assert list(check(Module(name, is_package=False, tree=ast.parse(code)))) == []


def test_all_modules_are_looked_at() -> None:
    names = [module.name for module in modules()]
    assert len(names) == len(set(names)) > 40
    assert {layer(name) for name in names} == set(ALLOWED)
    assert {"apportion", "apportion.planner", "apportion.planner.doors.cli.config", "apportion.tokens"} <= set(names)


def test_the_folder_compression_cannot_shadow_the_standard_library() -> None:
    assert not (ROOT / "compression" / "__init__.py").exists()


@pytest.mark.parametrize("name", ["planner", "models", "compression"])
def test_the_three_folders_are_linked_into_the_package(name: str) -> None:
    link = ROOT / "src" / "apportion" / name
    assert link.is_symlink()
    assert link.resolve() == ROOT / name


def test_nothing_but_the_package_is_installed_at_the_top_level(tmp_path: Path) -> None:
    script = (
        "import importlib.util as u\n"
        "assert u.find_spec('apportion') is not None\n"
        "assert [name for name in ('planner', 'models', 'src', 'tests', 'benchmarks') if u.find_spec(name)] == []\n"
        "found = u.find_spec('compression')\n"  # a package of the standard library from Python 3.14 on
        "assert found is None or 'site-packages' not in str(found.origin)"
    )
    subprocess.run([sys.executable, "-c", script], check=True, cwd=tmp_path, timeout=300)
