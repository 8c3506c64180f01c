"""The examples of the documentation, run as a reader would."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

EXAMPLES = Path(__file__).parents[1] / "docs" / "examples"


def test_the_orchestrator_stays_within_its_budget() -> None:
    done = subprocess.run(
        [sys.executable, EXAMPLES / "orchestrator.py"], capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stderr
    numbers = re.search(r"spent ([\d,]+) \+ held ([\d,]+) \+ free ([\d,]+) = ([\d,]+)", done.stdout)
    assert numbers is not None, done.stdout
    spent, held, free, total = (int(number.replace(",", "")) for number in numbers.groups())
    assert spent + held + free == total == 120_000
    assert held == 0 < spent <= total
    assert "not sent" in done.stdout
