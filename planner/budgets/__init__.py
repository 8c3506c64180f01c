"""Budgets alone: the separable special case, exact by greedy and proven by CP-SAT in a millisecond."""
