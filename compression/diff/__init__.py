"""Deltas: what changed from a context that somebody holds to the one that is wanted, exactly.

    from apportion.compression.diff import Context, Section, enclose, open_envelope

    envelope = enclose(target, base)                       # a delta, or the whole context and why
    open_envelope(envelope, {base.digest: base})           # the target, byte for byte, or an error that says why not

A delta saves model tokens only where the receiving model has the base in its prompt. Elsewhere it saves transport.
"""

from apportion.compression.diff.delta import Changes, Delta, apply_delta, make_delta
from apportion.compression.diff.envelope import Envelope, Form, enclose, enclose_all, open_envelope
from apportion.compression.diff.reading import read_context
from apportion.compression.diff.stream import ContextReceiver, ContextSender, Receipt
from apportion.compression.diff.tally import DiffSummary, DiffTally
from apportion.compression.diff.types import EMPTY, Context, Reason, Section

__all__ = [
    "EMPTY",
    "Changes",
    "Context",
    "ContextReceiver",
    "ContextSender",
    "Delta",
    "DiffSummary",
    "DiffTally",
    "Envelope",
    "Form",
    "Reason",
    "Receipt",
    "Section",
    "apply_delta",
    "enclose",
    "enclose_all",
    "make_delta",
    "open_envelope",
    "read_context",
]
