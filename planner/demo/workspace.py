"""The tools of the demo's agents: they list, read, search, outline, check and change files that live in memory."""

from __future__ import annotations

import ast
import json
from typing import TYPE_CHECKING, Any

import re2

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_BRANCHES = (ast.If, ast.For, ast.While, ast.Try, ast.With, ast.IfExp, ast.BoolOp)
_SHADOWED = frozenset({"all", "id", "input", "list", "dict", "type", "filter", "next", "row_type"})


class Workspace:
    """Files in memory, and what the tools say of them.

    Args:
        files: Text by path.
    """

    def __init__(self, files: dict[str, str]) -> None:
        self.files = dict(files)
        self._tools: dict[str, Callable[..., str]] = {
            "list_files": self._list_files,
            "read_file": self._read_file,
            "search": self._search,
            "outline": self._outline,
            "imports": self._imports,
            "run_checks": self._run_checks,
            "write_file": self._write_file,
            "edit_file": self._edit_file,
        }

    def call(self, tool: str, arguments: dict[str, Any]) -> str:
        """Return what a tool answers.

        Raises:
            KeyError: There is no such tool or file.
        """
        return self._tools[tool](**arguments)

    def _list_files(self) -> str:
        rows = ((path, text.count("\n"), len(text.encode())) for path, text in sorted(self.files.items()))
        return "\n".join(f"{lines:6} lines {size:8} bytes  {path}" for path, lines, size in rows)

    def _read_file(self, path: str) -> str:
        return "\n".join(f"{number:6}\t{line}" for number, line in enumerate(self.files[path].splitlines(), 1))

    def _search(self, pattern: str) -> str:
        found = re2.compile(pattern)
        hits = (
            f"{path}:{number}:{line}"
            for path, text in sorted(self.files.items())
            for number, line in enumerate(text.splitlines(), 1)
            if found.search(line)
        )
        return "\n".join(hits) or "no match"

    def _outline(self) -> str:
        rows = [row for path, tree in self._trees() for row in _definitions(path, tree)]
        return json.dumps(rows, indent=1)

    def _imports(self) -> str:
        rows = [row for path, tree in self._trees() for row in _imports(path, tree)]
        return json.dumps(rows, indent=1)

    def _run_checks(self, path: str | None = None) -> str:
        chosen = [path] if path else sorted(self.files)
        rows = [row for name in chosen for row in _check(name, self.files[name])]
        return json.dumps({"checked": len(chosen), "hits": rows}, indent=1)

    def _write_file(self, path: str, content: str) -> str:
        self.files[path] = content
        return f"wrote {path}: {content.count(chr(10))} lines"

    def _edit_file(self, path: str, old: str, new: str) -> str:
        count = self.files[path].count(old)
        if count != 1:
            return f"error: the text occurs {count} times in {path}; nothing was changed"
        self.files[path] = self.files[path].replace(old, new)
        return f"changed {path}"

    def _trees(self) -> Iterator[tuple[str, ast.Module]]:
        for path, text in sorted(self.files.items()):
            yield path, ast.parse(text)


def _definitions(path: str, tree: ast.Module) -> Iterator[dict[str, Any]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield {
                "path": path,
                "name": node.name,
                "kind": "class" if isinstance(node, ast.ClassDef) else "function",
                "line": node.lineno,
                "lines": (node.end_lineno or node.lineno) - node.lineno + 1,
                "arguments": [] if isinstance(node, ast.ClassDef) else [one.arg for one in node.args.args],
                "branches": sum(isinstance(part, _BRANCHES) for part in ast.walk(node)),
                "docstring": ast.get_docstring(node) is not None,
            }


def _imports(path: str, tree: ast.Module) -> Iterator[dict[str, Any]]:
    for node in ast.walk(tree):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import | ast.ImportFrom) else []
        source = node.module if isinstance(node, ast.ImportFrom) else None
        for name in names:
            module = source or name
            yield {
                "path": path,
                "line": node.lineno,  # type: ignore[attr-defined]  # only imports have names
                "module": module,
                "name": name if source else None,
                "within": module.split(".")[0] == "dataset",
            }


def _check(path: str, text: str) -> Iterator[dict[str, Any]]:
    try:
        tree = ast.parse(text)
    except SyntaxError as error:
        yield {"path": path, "line": error.lineno, "rule": "syntax", "message": error.msg}
        return
    lines = text.splitlines()
    for node in ast.walk(tree):
        rule = _rule(node, in_tests="test" in path)
        if rule is not None:
            line = node.lineno  # type: ignore[attr-defined]  # all nodes with a rule have one
            yield {"path": path, "line": line, "rule": rule, "code": lines[line - 1].strip()}


def _rule(node: ast.AST, *, in_tests: bool) -> str | None:
    """Return the rule that a piece of code breaks, if any."""
    if isinstance(node, ast.Assert) and not in_tests:
        return "assertion-as-check"
    if isinstance(node, ast.ExceptHandler) and node.type is None:
        return "bare-except"
    if isinstance(node, ast.FunctionDef) and any(isinstance(one, ast.List | ast.Dict) for one in node.args.defaults):
        return "mutable-default"
    if isinstance(node, ast.arg) and node.arg in _SHADOWED:
        return "shadowed-name"
    if isinstance(node, ast.Compare) and any(
        isinstance(one, ast.Constant) and (one.value is True or one.value is False or one.value is None)
        for one, operator in zip(node.comparators, node.ops, strict=True)
        if isinstance(operator, ast.Eq | ast.NotEq)
    ):
        return "comparison-with-singleton"
    return None
