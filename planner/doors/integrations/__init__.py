"""The planner within agent frameworks: each module needs the framework of its name, and nothing else imports it.

A framework keeps its whole history; before each call of a model the session decides what of it is sent. `calls.py` is
what all have in common.
"""
