"""The tables of the ledger, for SQLite and PostgreSQL from the same text.

A step is never edited once released: a change of the schema is a further step.
"""

from __future__ import annotations

APPLICATION_ID = int.from_bytes(b"appl", "big")
"""Marks a SQLite file as a ledger (`PRAGMA application_id`)."""

STEPS: tuple[tuple[str, ...], ...] = (
    (
        """
        CREATE TABLE accounts (
            id TEXT NOT NULL PRIMARY KEY,
            parent TEXT REFERENCES accounts (id),
            root TEXT NOT NULL,                      -- the topmost account above, or itself
            depth {integer} NOT NULL,                -- accounts above
            window_us {integer},                     -- NULL: everything ever spent counts
            opened_us {integer} NOT NULL,            -- microseconds since 1970, as all times
            closed_us {integer},
            tokens_opened {integer},                 -- limit when opened; NULL: no limit
            cost_opened {integer},                   -- nano-dollars, as all costs
            tokens_total {integer},                  -- limit now
            cost_total {integer},
            tokens_spent {integer} NOT NULL DEFAULT 0 CHECK (tokens_spent >= 0),
            cost_spent {integer} NOT NULL DEFAULT 0 CHECK (cost_spent >= 0),
            tokens_held {integer} NOT NULL DEFAULT 0 CHECK (tokens_held >= 0),
            cost_held {integer} NOT NULL DEFAULT 0 CHECK (cost_held >= 0),
            tokens_passed {integer} NOT NULL DEFAULT 0,   -- spent before the window began
            cost_passed {integer} NOT NULL DEFAULT 0,
            tokens_brought {integer} NOT NULL DEFAULT 0,  -- of what was spent: by reservations that were deleted since
            cost_brought {integer} NOT NULL DEFAULT 0
        ){table}
        """,
        "CREATE INDEX accounts_by_root ON accounts (root)",
        """
        CREATE TABLE reservations (
            id TEXT NOT NULL PRIMARY KEY,
            account TEXT NOT NULL REFERENCES accounts (id),
            root TEXT NOT NULL,                      -- of the account
            state TEXT NOT NULL CHECK (state IN ('open', 'settled', 'released', 'expired')),
            tokens {integer} NOT NULL CHECK (tokens >= 0),
            cost {integer} NOT NULL CHECK (cost >= 0),
            used_tokens {integer} CHECK (used_tokens >= 0),
            used_cost {integer} CHECK (used_cost >= 0),
            late {integer} NOT NULL DEFAULT 0,       -- settled after it had gone back
            lease_us {integer} NOT NULL,
            dated_us {integer} NOT NULL,             -- when the lease began
            expires_us {integer} NOT NULL,
            ended_us {integer},
            CHECK ((state = 'settled') = (used_tokens IS NOT NULL AND used_cost IS NOT NULL))
        ){table}
        """,
        "CREATE INDEX open_by_expiry ON reservations (root, expires_us) WHERE state = 'open'",
        "CREATE INDEX open_by_date ON reservations (root, dated_us) WHERE state = 'open'",
        """
        CREATE TABLE spends (                        -- what accounts with a window spent, per sixtieth of it
            account TEXT NOT NULL REFERENCES accounts (id),
            ends_us {integer} NOT NULL,
            tokens {integer} NOT NULL,
            cost {integer} NOT NULL,
            PRIMARY KEY (account, ends_us)
        ){table}
        """,
        """
        CREATE TABLE top_ups (
            id TEXT NOT NULL PRIMARY KEY,
            account TEXT NOT NULL REFERENCES accounts (id),
            tokens {integer} NOT NULL,
            cost {integer} NOT NULL,
            at_us {integer} NOT NULL
        ){table}
        """,
    ),
)
"""The steps; each is one transaction."""

SQLITE_STEPS = (
    (
        f"PRAGMA application_id = {APPLICATION_ID}",
        *(text.format(integer="INTEGER", table=" STRICT, WITHOUT ROWID") for text in STEPS[0]),
    ),
    *(tuple(text.format(integer="INTEGER", table=" STRICT, WITHOUT ROWID") for text in step) for step in STEPS[1:]),
)
"""The steps as SQLite has them."""

POSTGRES_STEPS = tuple(tuple(text.format(integer="BIGINT", table="") for text in step) for step in STEPS)
"""The steps as PostgreSQL has them."""
