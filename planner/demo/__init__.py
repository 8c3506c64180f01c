"""A small workflow of several agents, played twice: with planning off, and with planning on.

Context and tools are real: the agents read, search and check the source of a public library. Only the model is
pretended, since the demo needs no network: an agent takes the same steps each time, and finds what its rules find in
the prompt that it was really sent. So what planning withholds wrongly, it does not find.
"""

from apportion.planner.demo.play import DemoOptions, play
from apportion.planner.demo.report import DemoReport

__all__ = ["DemoOptions", "DemoReport", "play"]
