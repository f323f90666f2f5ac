"""Trials in several processes: the same results, nothing read twice, nothing left when the command is killed."""

from __future__ import annotations

import concurrent.futures.process
import multiprocessing
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch
from small_problem import SETTINGS, small_problem

from fastzsl.data.dataset import ZeroShotDataset
from fastzsl.data.held_out import HeldOutClasses
from fastzsl.errors import UserError
from fastzsl.protocol.trials import Source, Trial, TrialTable
from fastzsl.protocol.workers import run_trials

on_linux = pytest.mark.skipif(sys.platform != "linux", reason="forks, which end with their parent")


def trial_of(settings, held_out=None):
    return Trial.of(settings, small_problem(Source.of(settings)), held_out)


def test_two_processes_give_the_very_scores_of_one(tmp_path):
    trials = [trial_of(SETTINGS.changed(seed=s), HeldOutClasses(s)) for s in range(3)] + [trial_of(SETTINGS)]
    one, two = TrialTable(tmp_path / "one"), TrialTable(tmp_path / "two")
    run_trials(trials, one, workers=1, load=small_problem)
    run_trials(trials, two, workers=2, load=small_problem)
    for trial in trials:
        assert torch.equal(one[trial].scores.unseen_scores, two[trial].scores.unseen_scores)
        assert one[trial].diagnostics["loss"] == two[trial].diagnostics["loss"]


@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=on_linux)])
def test_a_data_set_at_hand_is_not_read_again(tmp_path: Path, workers: int) -> None:
    trials = [trial_of(SETTINGS.changed(seed=s), HeldOutClasses(s)) for s in range(2)]
    table = TrialTable(tmp_path)
    run_trials(trials, table, workers=workers, load=never_read, data=small_problem())
    assert all(trial in table for trial in trials)


def never_read(source: object) -> ZeroShotDataset:
    raise AssertionError("read again")


KILLED = """
import os, signal, sys, time
from fastzsl.protocol.workers import _pool

if __name__ == "__main__":
    with _pool(2, forked=sys.argv[1] == "forked") as pool:
        waiting = [pool.submit(time.sleep, 600) for _ in range(2)]
        while not all(w.running() for w in waiting):
            time.sleep(.1)
        time.sleep(2)
        print(*pool._processes, flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
"""


@on_linux
@pytest.mark.parametrize("how", ["forked", "spawned"])
def test_a_killed_command_leaves_no_process(tmp_path: Path, how: str) -> None:
    """Processes that wait for work once waited for ever."""
    program = tmp_path / "killed.py"
    program.write_text(KILLED)
    ended = subprocess.run(
        [sys.executable, program, how], capture_output=True, text=True, timeout=120, check=False
    )
    assert ended.returncode == -signal.SIGKILL, ended.stderr
    left = ended.stdout.split()
    assert len(left) == 2
    until = time.monotonic() + 30
    while alive := [pid for pid in left if Path("/proc", pid, "task").exists() and not zombie(pid)]:
        assert time.monotonic() < until, f"still there: {alive}"
        time.sleep(0.1)


def zombie(pid: str) -> bool:
    """Dead, but not yet collected by whoever adopted it."""
    try:
        return Path("/proc", pid, "stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


@on_linux
def test_without_memory_for_its_own_threads_it_ends_with_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recwarn: pytest.WarningsRecorder
) -> None:
    def no_memory(self: object) -> None:
        raise MemoryError

    monkeypatch.setattr(
        concurrent.futures.process._ExecutorManagerThread, "wait_result_broken_or_wakeup", no_memory
    )
    monkeypatch.setattr(threading, "excepthook", lambda arguments: None)
    trials = [trial_of(SETTINGS.changed(seed=s)) for s in range(2)]
    before = set(multiprocessing.active_children())
    with pytest.raises(UserError, match="memory"):
        run_trials(trials, TrialTable(tmp_path), workers=2, load=small_problem)
    assert set(multiprocessing.active_children()) <= before
