"""Handing work from one agent to another: a message that Mycelium's agents read, and deltas for those who know them.

    message = write_handoff(handoff, receiver=Capabilities.of(their_last_message), bases=contexts)
    received = read_handoff(message, held=contexts)
    received.context or received.reason        # the context, or why the sender is asked for the whole

Who does not say that it understands deltas gets the whole context, in members that every reader of the schema knows.
"""

from apportion.compression.handoff.capabilities import NOTHING, Capabilities
from apportion.compression.handoff.message import Handoff, Party, ReceivedHandoff, read_handoff, write_handoff

__all__ = ["NOTHING", "Capabilities", "Handoff", "Party", "ReceivedHandoff", "read_handoff", "write_handoff"]
