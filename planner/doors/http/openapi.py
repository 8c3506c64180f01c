"""The OpenAPI description of the operations, made from their table."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    from apportion.planner.doors.http.operations import Operation

PROBLEM = {
    "type": "object",
    "required": ["type", "title", "status", "detail"],
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "hint": {"type": ["string", "null"]},
    },
}
"""The schema of errors (RFC 9457), with what to do next in `hint`."""


def description(operations: Sequence[Operation]) -> dict[str, Any]:
    """Return the description of operations, as OpenAPI 3.1."""
    schemas: dict[str, Any] = {"Problem": PROBLEM}
    paths: dict[str, Any] = {}
    for operation in operations:
        paths.setdefault(operation.path, {})[operation.method.lower()] = _described(operation, schemas)
    return {
        "openapi": "3.1.0",
        "info": {"title": "apportion", "version": "1", "description": "The resident planner; see docs/session.md."},
        "security": [{"bearer": []}],
        "paths": paths,
        "components": {"securitySchemes": {"bearer": {"type": "http", "scheme": "bearer"}}, "schemas": schemas},
    }


def _described(operation: Operation, schemas: dict[str, Any]) -> dict[str, Any]:
    told: dict[str, Any] = {
        "summary": operation.summary,
        "operationId": re.sub(r"\W+", "_", f"{operation.method.lower()}{operation.path}").strip("_"),
        "responses": {
            str(operation.status): _content(_schema(operation.gives, schemas), "application/json"),
            "default": _content({"$ref": "#/components/schemas/Problem"}, "application/problem+json"),
        },
    }
    if operation.method == "POST":
        told["requestBody"] = {
            "required": True,
            "content": {"application/json": {"schema": _schema(operation.takes, schemas)}},
        }
    parts = re.findall(r"\{(\w+)\}", operation.path)
    if parts:
        told["parameters"] = [
            {"name": part, "in": "path", "required": True, "schema": {"type": "string"}} for part in parts
        ]
    return told


def _content(schema: dict[str, Any], kind: str) -> dict[str, Any]:
    return {"description": "The answer" if "json" in kind else "", "content": {kind: {"schema": schema}}}


def _schema(record: Any, schemas: dict[str, Any]) -> dict[str, Any]:
    if record is None:
        return {"type": "object"}
    schema = record.model_json_schema(ref_template="#/components/schemas/{model}")
    schemas.update(schema.pop("$defs", {}))
    schemas[record.__name__] = schema
    return {"$ref": f"#/components/schemas/{record.__name__}"}
