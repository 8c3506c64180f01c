"""Small improvements of a plan that fits: what is left over is given away."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from apportion.planner.choice import DEFERRED, Choice, usage
from apportion.planner.compiled import NO_LIMIT

if TYPE_CHECKING:
    from apportion.planner.compiled import Compiled


def fill_work(compiled: Compiled, choice: Choice) -> Choice:
    """Give what is left of the limits to the agents as work quanta, the most valuable first.

    The limits are checked for each agent that gets more; a plan that fits still fits.
    """
    left = [limit.amount - used for limit, used in zip(compiled.limits, usage(compiled, choice).tolist(), strict=True)]
    quanta = list(choice.quanta)
    open_segments = []
    for agent, mode in enumerate(choice.modes):
        if mode == DEFERRED:
            continue
        taken = quanta[agent]
        for slope, length in zip(compiled.slopes[mode].tolist(), compiled.quanta[mode].tolist(), strict=True):
            room = length - min(taken, length)
            taken -= min(taken, length)
            if room and slope > 0:
                open_segments.append((-slope, agent, room))
    charged = [
        [(row, amount) for row, amount in rows if row != NO_LIMIT]
        for rows in zip(*[
            zip(limits.tolist(), amounts.tolist(), strict=True)
            for limits, amounts in compiled.work_rows(np.maximum(choice.modes, 0))
        ], strict=True)
    ]  # fmt: skip
    blocked: set[int] = set()
    for _, agent, room in sorted(open_segments):
        if agent in blocked:
            continue
        rows = charged[agent]
        most = min([room, *[left[row] // amount for row, amount in rows if amount]])
        if most < room:
            blocked.add(agent)
        if most > 0:
            quanta[agent] += most
            for row, amount in rows:
                left[row] -= most * amount
    return choice._replace(quanta=tuple(quanta))


def preload_what_helps(compiled: Compiled, choice: Choice) -> Choice:
    """Load in advance what saves most time per byte, as far as the memory reaches; nobody else loses anything."""
    left = compiled.problem.max_preload_bytes
    left -= int(compiled.preload_bytes[np.array(choice.preloads, dtype=np.bool_)].sum())
    preloads = list(choice.preloads)
    helpful = [
        agent
        for agent, mode in enumerate(choice.modes)
        if mode != DEFERRED and not preloads[agent] and compiled.preload_ticks[agent] > 0
    ]
    saved = compiled.preload_ticks * compiled.tick_ms
    for agent in sorted(helpful, key=lambda a: (-int(saved[a]) / max(1, int(compiled.preload_bytes[a])), a)):
        needed = int(compiled.preload_bytes[agent])
        if needed <= left:
            preloads[agent] = True
            left -= needed
    return choice._replace(preloads=tuple(preloads))
