"""Measure how many Claude tokens a text has per OpenAI token, and write `src/apportion/data/token_factors.json`.

    pip install ctok                      # needs Python >= 3.12
    python benchmarks/token_factors.py TEXTS... [--quick] [--json FILE] [--write]

Claude's tokenizers are not published; ctok reconstructs their counts offline. TEXTS are files, or folders of text
files, of the kinds that agents read and write. Windows of random length are cut from them, classified, and counted
three ways. For each class the table holds the total ratio, its 5 % quantile, and the slope of an upper bound
`high * n + slack * sqrt(n)` that holds for 99 % of the windows of each size, and for all of them outside Latin script;
short texts scatter more, hence the root.
"""

from __future__ import annotations

import json
import math
import random
from collections import defaultdict
from datetime import date
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path
from typing import Any

from _harness import arguments, report
from apportion.content import ContentClass, classify
from apportion.encodings import exact_count, replace_surrogates
from apportion.tokens import yardstick

TABLE = Path(__file__).parents[1] / "src" / "apportion" / "data" / "token_factors.json"
WINDOWS = (40, 150, 600, 2000, 4000, 12000)
WINDOWS_PER_FILE = 8
QUICK_WINDOWS = 500
SIZES = (0, 100, 400, 1000, 10**9)  # in tokens
SLACK = 1.5
FAMILIES = {"claude_3": ("3.0", 7), "claude_4_7": ("4.8", 6)}  # version asked of ctok, tokens of its message frame

# Agents' own logs are of few kinds. These come from the 2,000-line samples of ten systems in logpai/loghub, counted the
# same way in windows of 4 KB.
LOGHUB = {"claude_3": [1.22, 0.99, 1.51], "claude_4_7": [1.54, 1.02, 1.9]}

# Nobody has measured these here: wide on purpose.
ASSUMED = {
    "gemini": {"default": [1.1, 0.85, 1.6], "cjk": [0.75, 0.4, 1.3], "non_latin": [0.6, 0.3, 1.3]},
    "other": {"default": [1.2, 0.85, 2.0], "cjk": [1.0, 0.5, 2.0], "non_latin": [1.0, 0.4, 2.0]},
}


def windows(paths: list[Path], rng: random.Random) -> list[str]:
    """Cut windows of random length from random places of the files."""
    files = [file for path in paths for file in ([path] if path.is_file() else sorted(path.rglob("*")))]
    cut = []
    for file in files:
        text = replace_surrogates(file.read_text(encoding="utf-8", errors="replace")) if file.is_file() else ""
        for _ in range(WINDOWS_PER_FILE if len(text) > 40 else 0):
            size = rng.choice(WINDOWS)
            start = rng.randrange(max(1, len(text) - size + 1))
            cut.append(text[start : start + size])
    return cut


def quantile(values: list[float], share: float) -> float:
    """The smallest value that is not exceeded by a share of all."""
    return sorted(values)[min(len(values) - 1, math.ceil(share * len(values)))]


def fit(kind: ContentClass, pairs: list[tuple[int, int]]) -> list[float]:
    """Return central, low and high factor from pairs of (o200k tokens, tokens of the family)."""
    central = sum(tokens for _, tokens in pairs) / sum(base for base, _ in pairs)
    low = quantile([tokens / base for base, tokens in pairs], 0.05)
    share = 0.99 if kind not in {ContentClass.CJK, ContentClass.NON_LATIN} else 1.0
    high = max(
        quantile([(tokens - SLACK * math.sqrt(base)) / base for base, tokens in group], share)
        for above, below in pairwise(SIZES)
        if len(group := [pair for pair in pairs if above <= pair[0] < below]) >= 30
    )
    return [round(central, 3), round(min(low, central), 3), round(max(high, central), 3)]


def measure(texts: list[str]) -> dict[str, Any]:
    """Count all windows and fit the table."""
    from ctok import token_count

    pairs: dict[tuple[str, ContentClass], list[tuple[int, int]]] = defaultdict(list)
    for text in texts:
        kind = classify(text)
        base = exact_count(text, yardstick(kind))
        for family, (asked, frame) in FAMILIES.items():
            pairs[family, kind].append((base, token_count(text, asked) - frame))
    families: dict[str, dict[str, list[float]]] = {family: {} for family in FAMILIES}
    counts: dict[str, int] = {}
    for (family, kind), found in sorted(pairs.items()):
        families[family][kind] = fit(kind, found)
        counts[kind] = len(found)
    for family, factors in LOGHUB.items():
        families[family][ContentClass.LOGS] = factors
    counts.pop(ContentClass.LOGS, None)
    return {
        "source": f"ctok {version('ctok')} against tiktoken; logs: loghub; gemini and other: assumptions",
        "measured": date.today().isoformat(),  # noqa: DTZ011  (a day is enough)
        "windows": counts,
        "slack": SLACK,
        "families": families | ASSUMED,
    }


def main() -> None:
    """Measure, print, and write where asked to."""
    asked = arguments(__doc__ or "", paths=True, writes=TABLE.name, quick=f"only {QUICK_WINDOWS} windows")
    found = windows(asked.paths, random.Random(0))  # noqa: S311  (no secret)
    table = measure(found[:QUICK_WINDOWS] if asked.quick else found)
    rows = [
        {"family": family, "class": kind, "factor": central, "low": low, "high": high}
        for family, factors in table["families"].items()
        for kind, (central, low, high) in factors.items()
    ]
    report("token_factors", rows, packages=("tiktoken",), file=asked.json, notes=(asked.cut,))
    if asked.write:
        TABLE.write_text(json.dumps(table, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
