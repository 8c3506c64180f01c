"""The same contents in the same run through other tools that shorten context, each in an environment of its own.

    python benchmarks/versus_peers.py PATH [PATH ...] [--peers NAME ...] [--folder FOLDER] [--quick] [--json FILE]

PATHs are logs, files and folders; `_content.py` says which contents are taken. The environments are made under FOLDER
from the package index, once; a peer that cannot be installed or run is listed with the reason. Their code runs in their
own processes (`_peer_worker.py`) and is no part of this project.

*Visible* are facts by our extractor, *words* and *lines* are distinct words of four or more letters and digits and
distinct lines that are still there: measures that no tool here was made by. *Answers* are those of
`fixtures/gold/questions.jsonl` that stand word for word in what is left. *Recoverable* counts as visible what a peer
gave back byte for byte through its handles. *Slower* is the median ratio of its processor time to that of `lossless` on
the same content. In what a peer is better than `lossless` and `recoverable` is listed under *better*; and where it both
saves more and shows more than a level of those that leave out more.
"""

from __future__ import annotations

import argparse
import json
import os
import queue
import re
import subprocess
import sys
import threading
import time
import venv
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any, NamedTuple

from platformdirs import user_cache_dir

from _content import FAMILIES, find_contents
from _harness import report
from _peer_worker import PEERS
from apportion.compression.pipeline import LEVELS, Lossless, apply, recoverable, restore
from apportion.compression.strategies.types import Held, Item, Query
from apportion.compression.validation.facts import extract_facts, missing_facts
from apportion.tokens import count_tokens

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from _content import Content
    from apportion.compression.strategies.types import Outcome, Strategy

PACKAGES = {
    "head and tail": None,
    "cendor-squeeze": "cendor-squeeze==1.1.2",
    "llmtrim": "llmtrim==0.13.7",
    "distil-llm": "distil-llm==1.58.0",
    "headroom-ai": "headroom-ai==0.42.0",
    "llmslim": "llmslim==0.11.2",
    "langchain": "langchain-core==1.8.3",
}
"""What is installed for a peer, by the beginning of its name."""

OURS = ("lossless", *LEVELS)
"""Our strategies that are compared."""

GOLD = Path(__file__).parents[1] / "fixtures" / "gold" / "questions.jsonl"
TASK = "Go on with the work that these results are for."
INSTALL_SECONDS, ANSWER_SECONDS = 1800, 120
OFFLINE = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "LITELLM_LOCAL_MODEL_COST_MAP": "True"}

_WORD = re.compile(r"\w{4,}")


class Result(NamedTuple):
    """What a tool made of one content."""

    family: str
    original_tokens: int
    tokens: int
    facts: int
    visible: int
    recoverable: int
    words: float
    lines: float
    answers: int
    kept: int
    cpu_ms: float


class PeerError(Exception):
    """A peer cannot be installed or run; the message says why."""


class Peer:
    """One peer in a process of its own."""

    def __init__(self, name: str, folder: Path) -> None:
        self.name = name
        python = _environment(name, folder)
        command = [str(python), str(Path(__file__).with_name("_peer_worker.py")), name]
        self._process = subprocess.Popen(  # noqa: S603  (our own command)
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            encoding="utf-8",
            env=_surroundings(),
        )
        self._answers: queue.Queue[str] = queue.Queue()
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        for line in self._process.stdout or ():
            self._answers.put(line)
        self._answers.put("")

    def ask(self, texts: Sequence[str], rewritable: Sequence[bool]) -> dict[str, Any]:
        """Return what the peer makes of a content.

        Raises:
            PeerError: It did not answer in time, ended, or reported an error.
        """
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps({"texts": texts, "rewritable": rewritable, "task": TASK}) + "\n")
            self._process.stdin.flush()
            line = self._answers.get(timeout=ANSWER_SECONDS)
        except queue.Empty:
            raise PeerError(f"no answer within {ANSWER_SECONDS} s") from None
        except OSError as error:
            raise PeerError(f"its process ended: {error}") from error
        if not line:
            raise PeerError("its process ended")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise PeerError(answer["error"])
        return answer

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.wait()


def main() -> None:
    """Measure and report."""
    asked = _arguments()
    contents = find_contents(asked.paths, per_family=2 if asked.quick else 8)
    answers = _gold_answers()
    strategies: dict[str, Strategy] = {"lossless": Lossless(), **{level: recoverable(level) for level in LEVELS}}
    results = {f"ours, {name}": [_ours(strategies[name], content, answers) for content in contents] for name in OURS}
    base = results["ours, lossless"]
    notes: list[str | None] = ["--quick: 2 contents of each family" if asked.quick else None]
    for name in asked.peers:
        try:
            found, failed = _theirs(name, contents, answers, asked.folder)
        except (PeerError, OSError) as error:
            notes.append(f"cannot run: {name}: {error}")
            continue
        notes += [f"{name}: {count} of {len(contents)} contents as they were: {why}" for why, count in failed.items()]
        results[name] = found
    rows = [row(name, found, base) for name, found in results.items()]
    notes += better(rows)
    notes += best_by_family(results)
    report("versus_peers", rows, packages=["apportion", "tiktoken"], file=asked.json, notes=notes)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("paths", nargs="+", type=Path, metavar="PATH", help="logs, files and folders")
    parser.add_argument("--peers", nargs="+", choices=list(PEERS), default=list(PEERS), help="which ones (all)")
    parser.add_argument(
        "--folder", type=Path, default=Path(user_cache_dir("apportion")) / "peers", help="where environments are made"
    )
    parser.add_argument("--quick", action="store_true", help="2 contents of each family")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the result there as well; - prints it only")
    asked = parser.parse_args()
    missing = [str(path) for path in asked.paths if not path.exists()]
    if missing:
        parser.error(f"no such file or directory: {', '.join(missing)}")
    return asked


def _package(name: str) -> str | None:
    return next(package for start, package in PACKAGES.items() if name.startswith(start))


def _environment(name: str, folder: Path) -> Path:
    """Return the interpreter of a peer's environment, which is made first where it is not there."""
    package = _package(name)
    if package is None:
        return Path(sys.executable)
    home = folder / package.partition("==")[0]
    python = home / "bin" / "python"
    if not (home / "ready").exists():
        venv.create(home, with_pip=True, clear=True)
        command = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", package]
        try:
            done = subprocess.run(  # noqa: S603  (our own command)
                command, capture_output=True, text=True, check=False, timeout=INSTALL_SECONDS
            )
        except subprocess.TimeoutExpired:
            raise PeerError(f"{package} was not installed within {INSTALL_SECONDS} s") from None
        if done.returncode:
            raise PeerError(f"{package} cannot be installed: {done.stderr.strip().splitlines()[-1][:200]}")
        (home / "ready").write_text(package)
    return python


def _surroundings() -> dict[str, str]:
    """Return the environment variables of a peer: no Python path of ours, and nothing is fetched."""
    return {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")} | OFFLINE


def _gold_answers() -> dict[str, list[str]]:
    """Return the answers by the digest of their content."""
    found: dict[str, list[str]] = {}
    for line in GOLD.read_text(encoding="utf-8").splitlines() if GOLD.exists() else ():
        one = json.loads(line)
        found.setdefault(one["content_digest"], []).append(one["answer"])
    return found


def _texts(content: Content) -> list[str]:
    return [message.content.decode("utf-8", "replace") for message in content.messages]


def _ours(strategy: Strategy, content: Content, answers: dict[str, list[str]]) -> Result:
    """Apply a strategy of ours, each message at its birth."""
    held: list[Held] = []
    same, cpu = True, 0
    for number, message in enumerate(content.messages):
        sent = message.content
        if message.rewritable:
            item = Item(sent, held=tuple(held))
            start = time.process_time_ns()
            outcome = apply(strategy, item, Query(task=TASK, can_expand=True))
            cpu += time.process_time_ns() - start
            same = same and _comes_back(strategy, outcome, item)
            sent = outcome.content
        held.append(Held(f"#{number}", sent))
    made = [each.content.decode("utf-8", "replace") for each in held]
    return judge(content, made, answers, recovered=same, cpu_ms=cpu / 1e6)


def _comes_back(strategy: Strategy, outcome: Outcome, item: Item) -> bool:
    if outcome.handles:
        return bool(strategy.validate(item, outcome)) and strategy.rollback(outcome) == item.content
    return restore(outcome, [strategy], item.held) == item.content


def _theirs(
    name: str, contents: Sequence[Content], answers: dict[str, list[str]], folder: Path
) -> tuple[list[Result], dict[str, int]]:
    """Return what a peer made of each content, and why it left how many as they were.

    Raises:
        PeerError: It cannot be installed, or failed on every content.
    """
    peer = Peer(name, folder)
    found: list[Result] = []
    failed: dict[str, int] = {}
    try:
        peer.ask(["warm up\n" * 40], [True])
        for content in contents:
            texts = _texts(content)
            try:
                answer = peer.ask(texts, [message.rewritable for message in content.messages])
            except PeerError as error:
                failed[str(error)] = failed.get(str(error), 0) + 1
                answer = {"texts": texts, "recovered": True, "cpu_ms": 0.0}
                if "process ended" in str(error) or "no answer" in str(error):
                    peer.close()
                    peer = Peer(name, folder)
            recovered = bool(answer["recovered"])
            found.append(judge(content, answer["texts"], answers, recovered=recovered, cpu_ms=answer["cpu_ms"]))
    finally:
        peer.close()
    if sum(failed.values()) == len(contents):
        raise PeerError("; ".join(failed))
    return found, failed


def judge(
    content: Content, made: Sequence[str], answers: dict[str, list[str]], *, recovered: bool, cpu_ms: float
) -> Result:
    """Say what is left of a content."""
    before, after = "\n".join(_texts(content)), "\n".join(made)
    facts = frozenset().union(*(extract_facts(text) for text in _texts(content)))
    visible = len(facts) - len(missing_facts(facts, after))
    wanted = answers.get(content.digest, [])
    return Result(
        content.family,
        sum(count_tokens(text) for text in _texts(content)),
        sum(count_tokens(text) for text in made),
        len(facts),
        visible,
        len(facts) if recovered else visible,
        _share(set(_WORD.findall(before)), set(_WORD.findall(after))),
        _share(_lines(before), _lines(after)),
        len(wanted),
        sum(answer in after for answer in wanted),
        cpu_ms,
    )


def _lines(text: str) -> set[str]:
    return {line.strip() for line in text.splitlines() if line.strip()}


def _share(wanted: set[str], found: set[str]) -> float:
    return len(wanted & found) / len(wanted) if wanted else 1.0


def row(name: str, results: Sequence[Result], base: Sequence[Result]) -> dict[str, Any]:
    """Return a row of the table."""
    facts = max(1, sum(result.facts for result in results))
    ratios = [one.cpu_ms / max(0.01, other.cpu_ms) for one, other in zip(results, base, strict=True) if one.cpu_ms]
    return {
        "tool": name,
        "inputs": len(results),
        "saved %": _saved(results),
        "visible %": _visible(results),
        "recoverable %": 100 * sum(result.recoverable for result in results) / facts,
        "words %": 100 * sum(result.words for result in results) / len(results),
        "lines %": 100 * sum(result.lines for result in results) / len(results),
        "answers %": 100 * sum(one.kept for one in results) / max(1, sum(one.answers for one in results)),
        "grown": sum(result.tokens > result.original_tokens for result in results),
        "slower": median(ratios) if ratios else 0.0,
    }


def _saved(results: Sequence[Result]) -> float:
    return 100 - 100 * sum(one.tokens for one in results) / max(1, sum(one.original_tokens for one in results))


def _visible(results: Sequence[Result]) -> float:
    return 100 * sum(one.visible for one in results) / max(1, sum(one.facts for one in results))


def better(rows: Sequence[dict[str, Any]]) -> Iterator[str]:
    """Say in what each peer is better than ours; a peer that is behind in both is not named."""
    for ours in (row for row in rows if row["tool"].startswith("ours")):
        for theirs in (row for row in rows if not row["tool"].startswith("ours")):
            ahead = [
                f"{column} {theirs[column]:.1f} > {ours[column]:.1f}"
                for column in ("saved %", "visible %", "recoverable %", "words %", "lines %", "answers %")
                if theirs[column] > ours[column] + 0.05
            ]
            if theirs["slower"] and theirs["slower"] < ours["slower"]:
                ahead.append(f"quicker, {theirs['slower']:.2f} of the time of lossless")
            both = theirs["saved %"] >= ours["saved %"] and theirs["visible %"] >= ours["visible %"]
            named = ours["tool"] in {"ours, lossless", "ours, recoverable"} or both
            if ahead and named:
                yield f"better than {ours['tool']}{' in both' if both else ''}: {theirs['tool']}: {', '.join(ahead)}"


def best_by_family(results: dict[str, list[Result]]) -> Iterator[str]:
    """Say for each family which tool saves most with at least 99.5 % and 95 % of the facts visible."""
    for family in FAMILIES:
        for least in (99.5, 95.0):
            found = {name: [one for one in some if one.family == family] for name, some in results.items()}
            able = {name: _saved(some) for name, some in found.items() if some and _visible(some) >= least}
            if able:
                name = max(able, key=lambda each: able[each])
                yield f"most saved of {family} with {least} % visible: {name}, {able[name]:.1f} %"


if __name__ == "__main__":
    main()
