"""A small orchestrator: a lead agent, three reviewers in parallel, one budget, and a model that is only pretended.

    python docs/examples/orchestrator.py [FOLDER]

The context is real: the Python files of a folder. The model is a function that answers in the shape of a provider's
response, so that the example runs without a network; put a call of yours there. Everything else is as in live use:
the planner is asked before each call, told after it, and the ledger sees to it that the reviewers together never spend
what one of them has already been given.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from apportion import Budget, ContextItem, Ledger, Planner, Usage
from apportion.records import Kind
from apportion.tokens import count_tokens

if TYPE_CHECKING:
    from apportion import Session, Step

MODEL = "claude-sonnet-4-5"
QUESTIONS = ("Which functions have no test?", "Which names mislead?", "Which errors are swallowed?")


class Answer(NamedTuple):
    """What a provider returns: the text, and what it cost."""

    text: str
    usage: Usage


def pretended_model(step: Step) -> Answer:
    """Answer with the first line of the last piece; counts tokens as a provider would."""
    text = f"Seen: {step.contents[-1].splitlines()[0][:80]}"
    prompt = sum(count_tokens(content) for content in step.contents)
    return Answer(text, Usage(input_uncached=prompt, output=count_tokens(text)))


async def ask(session: Session, agent: str, items: list[ContextItem], **options: bool) -> str:
    """Plan a call, make it if the budget holds it, and say what was used."""
    step = await session.abefore(agent, items, model=MODEL, task=items[0].content, **options)
    if not step.runs:
        return f"({step.decision}: {'; '.join(step.reasons)})"
    answer = pretended_model(step)
    await session.aafter(step, answer.usage, output=answer.text)
    return answer.text


async def review(session: Session, question: str, files: list[Path]) -> str:
    """One reviewer: reads the files one by one, and keeps them all in its context."""
    history = [ContextItem(question)]
    answer = ""
    for number, file in enumerate(files):
        link = str(number)
        history.append(ContextItem(f'{{"file_path": "{file.name}"}}', Kind.TOOL_CALL, "Read", link))
        history.append(ContextItem(file.read_text(encoding="utf-8"), Kind.TOOL_RESULT, "Read", link))
        answer = await ask(session, question, history, sub_agent=True, mandatory=False)
        history.append(ContextItem(answer, Kind.ASSISTANT))
    session.finished(question)
    return answer


async def main(files: list[Path]) -> None:
    """Run the workflow and print what became of it."""
    with tempfile.TemporaryDirectory() as place, Ledger(Path(place) / "ledger.db") as ledger:
        planner = Planner(ledger=ledger)
        async with planner.session("review", budget=Budget(max_tokens=120_000)) as session:
            found = await asyncio.gather(*(review(session, question, files) for question in QUESTIONS))
            notes = [ContextItem(text, Kind.HANDOFF_RESULT) for text in found]
            summary = await ask(session, "lead", [ContextItem("Sum up the findings."), *notes])
            done = session.hand_back
        books = ledger.account("review").tokens
    print(f"lead: {summary}")
    print(f"{done.steps} calls, {done.used_tokens:,} tokens used, {done.saved_tokens:,} not sent")
    print(f"deferred: {', '.join(done.deferred) or 'nobody'}")
    print(f"ledger: spent {books.spent:,} + held {books.held:,} + free {books.free:,} = {books.total:,}")


if __name__ == "__main__":
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parents[2] / "compression"
    asyncio.run(main(sorted(folder.glob("*.py"))[:4]))
