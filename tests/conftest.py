"""Settings for all tests: hypothesis judges what code does, benchmarks judge how fast.

No test holds a clock against a limit: a busy machine would fail it. Where time matters, a test compares two sizes in
one run (`growth`), and a benchmark has the limit. Time-outs of subprocesses are for hangs alone, and generous.

Examples are the same in every run, so that a test fails where it is broken and nowhere else. `make thorough` tries four
times as many. A law that is dear to try says which part of them it takes, as `settings().max_examples // 4`. To look
for new ones:

    HYPOTHESIS_PROFILE=explore python -m pytest
"""

from __future__ import annotations

import gc
import math
import os
import random
import signal
import string
import time
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import HealthCheck, settings

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

settings.register_profile("repeat", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("thorough", settings.get_profile("repeat"), max_examples=400)
settings.register_profile("explore", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "repeat"))

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell that starts the tests in the background ignores Ctrl-C, and what they start would inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)


CLEARLY_LINEAR = 20
"""Every test that uses `growth` allows more."""


class FailingEmbedder:
    """An embedder that is there, and makes something else than vectors.

    Args:
        made: What stands in place of each number, or what is raised.
    """

    name = digest = "failing"
    ready = True

    def __init__(self, made: object) -> None:
        self.made = made

    def warm(self) -> None:
        """Be ready as it is."""

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return an array of the right shape, or raise."""
        if isinstance(self.made, Exception):
            raise self.made
        return np.full((len(texts), 4), self.made, np.float32)


@pytest.fixture
def failing_embedder() -> type[FailingEmbedder]:
    """Return the class of embedders that fail."""
    return FailingEmbedder


@pytest.fixture
def growth() -> Callable[[Callable[[int], Callable[[], object]], int], float]:
    """Return how many times as long work takes at ten times the size: about 10 if it is linear, 100 if quadratic.

    It is given what prepares the work of a size, and the smaller size. The best of three runs counts, in processor
    time, and work of less than a millisecond counts as one: what else the machine does disturbs that least. The larger
    work is repeated only where it took more than 20 times as long: further runs could make that less, but not more.
    """

    def seconds(work: Callable[[], object]) -> float:
        start = time.process_time()
        work()
        return time.process_time() - start

    def measure(prepare: Callable[[int], Callable[[], object]], size: int) -> float:
        short, long = prepare(size), prepare(10 * size)
        gc.disable()
        try:
            least = max(1e-3, min(seconds(short) for _ in range(3)))
            best = math.inf
            for _ in range(3):
                best = min(best, seconds(long) / least)
                if best < CLEARLY_LINEAR:
                    break
        finally:
            gc.enable()
        return best

    return measure


@pytest.fixture(scope="session")
def planted_secrets() -> dict[str, str]:
    """Return 300 made-up secrets of ten forms, each with the part that must show nowhere; none stands in any file."""
    rng = random.Random(7)  # noqa: S311  (nobody is to believe in these)

    def some(length: int, alphabet: str = string.ascii_letters + string.digits) -> str:
        return "".join(rng.choices(alphabet, k=length))

    planted: dict[str, str] = {}
    for _ in range(30):
        capitals, password, line = some(16, string.ascii_uppercase + "234567"), some(20), some(64)
        whole = (
            "AK" + "IA" + capitals,
            "gh" + "p_" + some(36),
            "sk-" + "proj-" + some(60),
            "sk-ant-" + "api03-" + some(80),
            "ey" + "J" + some(20) + ".ey" + "J" + some(40) + "." + some(40),
            f"{some(9, string.ascii_lowercase)}@{some(8, string.ascii_lowercase)}.net",
            "xo" + "xb-" + some(40),
            "AI" + "za" + some(35),
        )
        planted |= dict(zip(whole, whole, strict=True))
        planted[f"postgres://app:{password}@db/x"] = password
        planted["-----BEGIN " + f"RSA PRIVATE KEY-----\n{line}\n{some(64)}\n-----END " + "RSA PRIVATE KEY-----"] = line
    return planted
