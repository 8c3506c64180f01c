"""The decisions of the joint model.

    run[m]      in {0, 1}            agent runs in mode m; all modes of an agent at 0: it is deferred
    x[m, s, o]  in {0, 1}            slot s of mode m gets option o
    seg[m, k]   in 0 .. length       work quanta that mode m gets from its k-th segment
    h[m, j]     in {0, 1}            the cached prefix of mode m stays intact through slot j
    made[f]     in {0, 1}            shared form f is made
    preload[a]  in {0, 1}            the files of agent a are loaded in advance

A slot with one option has no variable of its own: its `x` is `run`. The slopes of a mode's segments fall strictly, so
an optimal plan fills them in order without being told to.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from apportion.planner.choice import DEFERRED, Choice, consumption, filled, made
from apportion.planner.compiled import KEEP

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray
    from ortools.sat.python.cp_model_helper import CpModelProto

    from apportion.planner.compiled import Compiled

    Ints = NDArray[np.int64]

NONE = -1
"""The index of a variable that does not exist."""


class Variables:
    """Creates the variables of a model and knows where they are.

    Args:
        model: The model that the variables join.
        compiled: The problem as arrays.

    Attributes:
        run: Shape (modes,).
        option: Shape (modes, slots, options); `NONE` where there is no such option.
        segment: Shape (modes, segments); `NONE` where there is no such segment.
        intact: Shape (modes, slots); `NONE` behind the last slot whose credit counts.
        made: Shape (shared forms,).
        preload: Shape (agents,); `NONE` where loading in advance saves nothing.
    """

    def __init__(self, model: CpModelProto, compiled: Compiled) -> None:
        self._model = model
        self._compiled = compiled
        self._count = 0
        self.run = self._add(np.ones(len(compiled.modes), dtype=np.int64))
        self.option = self._add_options()
        self.segment = self._add_where(compiled.quanta > 0, compiled.quanta)
        self.intact = self._add_where(_counting(compiled), 1)
        self.made = self._add(np.ones(len(compiled.shared), dtype=np.int64))
        self.preload = self._add_where(compiled.preload_ticks > 0, 1)

    def add_integer(self, most: int) -> int:
        """Add one more variable from 0 to `most`, and return its index."""
        return int(self._add(np.array([most], dtype=np.int64))[0])

    def hint(self, choice: Choice, others: Mapping[int, int] | None = None) -> None:
        """Start the search at a known choice, and at given values of variables that are no part of it."""
        values = np.zeros(self._count, dtype=np.int64)
        compiled = self._compiled
        running = [mode for mode in choice.modes if mode != DEFERRED]
        values[self.run[running]] = 1
        for mode, options, quanta in zip(choice.modes, choice.options, choice.quanta, strict=True):
            if mode != DEFERRED:
                values[self.option[mode, np.arange(len(options)), options]] = 1
                _set(values, self.segment[mode], filled(compiled.quanta[[mode]], np.array([quanta]))[0])
        for agent, length in enumerate(consumption(compiled, choice).intact):
            _set(values, self.intact[choice.modes[agent]][:length], 1)
        values[self.made[list(made(compiled, choice))]] = 1
        _set(values, self.preload, np.array(choice.preloads, dtype=np.int64))
        for variable, amount in (others or {}).items():
            values[variable] = amount
        self._model.solution_hint.vars.extend(range(self._count))
        self._model.solution_hint.values.extend(values.tolist())

    def read(self, solution: Sequence[int]) -> Choice:
        """Return a solution as a choice."""
        values = np.array([*solution, 0], dtype=np.int64)  # the last one is what does not exist
        modes, options, quanta = [], [], []
        for agent in range(len(self._compiled.problem.agents)):
            chosen = [mode for mode in self._compiled.modes_of(agent) if values[self.run[mode]]]
            mode = chosen[0] if chosen else DEFERRED
            modes.append(mode)
            slots = values[self.option[mode]].argmax(axis=1) if chosen else np.zeros(self.option.shape[1], np.int64)
            options.append(tuple(slots.tolist()))
            quanta.append(int(values[self.segment[mode]].sum()) if chosen else 0)
        preloads = values[self.preload].astype(np.bool_).tolist()
        return Choice(tuple(modes), tuple(options), tuple(quanta), tuple(preloads))

    def _add_options(self) -> Ints:
        """A slot with one option shares the variable of its mode."""
        exists = self._compiled.exists
        option = np.where(exists, self.run[:, None, None], NONE)
        own = exists & (exists.sum(axis=2) > 1)[:, :, None]
        option[own] = self._add(np.ones(int(own.sum()), dtype=np.int64))
        return option

    def _add_where(self, mask: NDArray[np.bool_], most: Ints | int) -> Ints:
        indices = np.full(mask.shape, NONE, dtype=np.int64)
        indices[mask] = self._add(np.broadcast_to(most, mask.shape)[mask])
        return indices

    def _add(self, most: Ints) -> Ints:
        """Add variables from 0 to `most`, and return their indices."""
        add = self._model.variables.add
        for upper in most.tolist():
            add().domain.extend((0, upper))
        self._count += len(most)
        return np.arange(self._count - len(most), self._count, dtype=np.int64)


def _counting(compiled: Compiled) -> NDArray[np.bool_]:
    """Return the slots up to the last one whose credit counts: an intact prefix beyond it saves nothing."""
    credit = np.where(compiled.exists[:, :, KEEP], compiled.credit, 0)
    behind = np.cumsum(credit[:, ::-1], axis=1)[:, ::-1]
    counting: NDArray[np.bool_] = behind > 0
    return counting


def _set(values: Ints, indices: Ints, amounts: Ints | int) -> None:
    """Set the variables that exist."""
    there = indices != NONE
    values[indices[there]] = np.broadcast_to(amounts, indices.shape)[there]
