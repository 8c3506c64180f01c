"""Deltas: what changed from a context that somebody holds to the one that is wanted, exactly."""
