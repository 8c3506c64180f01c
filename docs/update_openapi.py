"""Writes the OpenAPI description of the resident planner anew.

python docs/update_openapi.py
"""

from __future__ import annotations

import json
from pathlib import Path

from apportion.planner.doors.http.openapi import description
from apportion.planner.doors.http.operations import OPERATIONS

PAGE = Path(__file__).parent / "openapi.json"

if __name__ == "__main__":
    PAGE.write_text(json.dumps(description(OPERATIONS), indent=1) + "\n", encoding="utf-8")
