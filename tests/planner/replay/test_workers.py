from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from concurrent.futures.process import BrokenProcessPool

import pytest

from apportion.planner.replay.workers import _signals_held, worker_pool

pytestmark = pytest.mark.skipif(os.name == "nt", reason="signals are POSIX signals")


def test_a_worker_is_deaf_to_ctrl_c_from_its_start(capfd: pytest.CaptureFixture[str]) -> None:
    with worker_pool(2) as pool:
        futures = [pool.submit(os.getpid) for _ in range(2)]
        workers = list(pool._processes)
        for _ in range(20):  # while it imports, and afterwards
            for worker in workers:
                os.kill(worker, signal.SIGINT)
            time.sleep(0.02)
        assert {future.result(timeout=300) for future in futures} <= set(workers)
    assert capfd.readouterr().err == ""


def test_a_worker_that_works_can_be_asked_to_end() -> None:
    with worker_pool(1) as pool:
        pid = pool.submit(os.getpid).result(timeout=300)
        busy = pool.submit(time.sleep, 300)
        os.kill(pid, signal.SIGTERM)
        with pytest.raises(BrokenProcessPool):
            busy.result(timeout=300)


def test_the_starting_process_hears_ctrl_c_as_before() -> None:
    before = (signal.pthread_sigmask(signal.SIG_BLOCK, ()), signal.getsignal(signal.SIGINT))
    with worker_pool(1) as pool:
        pool.submit(os.getpid)
        assert (signal.pthread_sigmask(signal.SIG_BLOCK, ()), signal.getsignal(signal.SIGINT)) == before


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_wait_while_a_process_is_started(number: signal.Signals) -> None:
    heard: list[str] = []
    before = signal.signal(number, lambda _number, _frame: heard.append("signal"))
    with _signals_held():
        os.kill(os.getpid(), number)
        heard.append("started")
    signal.signal(number, before)
    assert heard == ["started", "signal"]


@pytest.mark.parametrize("reason", [KeyboardInterrupt, SystemExit, ZeroDivisionError, GeneratorExit])
def test_whatever_ends_the_block_ends_the_workers_at_once(reason: type[BaseException]) -> None:
    busy = []
    with pytest.raises(reason), worker_pool(2) as pool:  # noqa: PT012  (leaving the block is what is tested)
        busy += [pool.submit(time.sleep, 300) for _ in range(4)]
        raise reason
    assert all(future.cancelled() or future.exception() for future in busy)  # no worker was waited for
    assert multiprocessing.active_children() == []


KILLED = """
import time
from apportion.planner.replay.workers import worker_pool

if __name__ == "__main__":
    with worker_pool(2) as pool:
        busy = [pool.submit(time.sleep, 0.01) for _ in range(2)]
        [one.result() for one in busy]
        print("ready", flush=True)
        time.sleep(300)
"""


def test_workers_do_not_outlive_a_killed_parent() -> None:
    process = subprocess.Popen([sys.executable, "-c", KILLED], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    process.kill()
    process.communicate(timeout=300)  # ends when the last process that holds its standard output has ended
    assert process.returncode == -signal.SIGKILL
