"""Solving the joint problem: prices bound it, columns and CP-SAT plan it, a validator and the bound judge the plan.

    1. Prices on limits and links: a bound on every plan, and columns on the way (`dual`, `columns`).
    2. If what the agents do at no price fits, nothing is better, and no solver is needed.
    3. The linear relaxation of the master problem moves the prices; the dynamic programs of the agents turn them into
       a tighter bound and better columns (`master`, column generation).
    4. CP-SAT is asked for a plan within the wanted gap of the bound. If it refuses, the pool is widened.
    5. Second phase: among plans of nearly that value, CP-SAT looks for a cheap one.
    6. Whatever comes out passes a validator that shares no code with this.

A plan that fits always exists or its absence is proved (`elastic`). Nothing depends on the clock but the deadline, and
a plan that the deadline cut short says so.
"""

from __future__ import annotations

DEADLINE_MS = 50.0
"""A planner that is asked before every invocation must not be waited for longer."""

GAP = 0.01
"""Certified gap at which the first answer is good enough."""

TOLERANCE = 0.005
"""Share of the bound that may be given up for a lower bill: demand forecasts are not sharper than that."""
