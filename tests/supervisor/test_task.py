"""A task of a run on a node: it ends with everything below it, and leaves nothing in /dev/shm."""

from __future__ import annotations

import asyncio
import io
import os
import signal
import subprocess
import sys
import time
from multiprocessing import resource_tracker
from multiprocessing.shared_memory import SharedMemory
from pathlib import Path

from waiting import is_gone

from grpo_dist.launch.process import ProgressRelay
from grpo_dist.procs.shared_memory import LOOK_SECONDS, LOOKS
from grpo_dist.procs.shared_memory import SharedMemory as SharedFiles
from grpo_dist.procs.tree import Process, become_subreaper, descendants, dump_stacks, end
from grpo_dist.progress import Terminal
from grpo_dist.supervisor.task import Task, TaskCommand, TaskEnd

ORPHANS = """
import os, subprocess, sys, time
from multiprocessing.shared_memory import SharedMemory
code = "import os, time; from multiprocessing.shared_memory import SharedMemory as S; s = S({name!r}); " \\
       "open('pid', 'w').write(str(os.getpid())); time.sleep(600)"
held = SharedMemory(create=True, size=64)
print(held.name, flush=True)
subprocess.Popen([sys.executable, "-c", code.format(name=held.name)], start_new_session=True)
{then}
"""


def run(tmp_path: Path, code: str, act=None, *, ends_on_sigterm: bool = False) -> tuple[TaskEnd, str]:
    """Start code as a task, do something to it when its child is there, and wait for its end."""

    async def scene() -> TaskEnd:
        command = TaskCommand("x", (sys.executable, "-c", code), os.environ, tmp_path / "log", ends_on_sigterm)
        task = await Task.start(command, ProgressRelay(Terminal(io.StringIO())), lambda _: None, lambda: known)
        ended = asyncio.create_task(task.ended())
        while not ((tmp_path / "pid").exists() and (tmp_path / "pid").read_text()):
            await asyncio.sleep(0.02)
        if act is not None:
            await act(task)
        return await asyncio.wait_for(ended, 30)

    become_subreaper()
    resource_tracker.ensure_running()
    known = {process.pid for process in descendants(os.getpid())}
    before = os.getcwd()
    os.chdir(tmp_path)
    try:
        return asyncio.run(scene()), (tmp_path / "log").read_text()
    finally:
        os.chdir(before)


def test_a_killed_task_takes_its_orphans_and_shared_memory_along(tmp_path):
    async def kill(task: Task) -> None:
        task.process.kill()

    ended, log = run(tmp_path, ORPHANS.replace("{then}", "time.sleep(600)"), kill)
    assert ended.code == -signal.SIGKILL
    assert is_gone(int((tmp_path / "pid").read_text()))
    assert not Path("/dev/shm", log.split()[0]).exists()


def test_what_another_program_shares_is_left_to_it(tmp_path):
    shared = []

    async def share_and_stop(task: Task) -> None:
        shared.append(SharedMemory(create=True, size=64))  # as another job of ours on the node would
        await task.stop()

    try:
        run(tmp_path, ORPHANS.replace("{then}", "time.sleep(600)"), share_and_stop)
        assert Path("/dev/shm", shared[0].name).exists()
    finally:
        shared[0].close()
        shared[0].unlink()


def test_what_nobody_holds_open_is_left_to_whoever_made_it(tmp_path):
    foreign = Path("/dev/shm", f"grpo-dist-test-{os.getpid()}")

    async def leave_a_file_and_stop(task: Task) -> None:
        foreign.write_text("of another job, between two of its processes")
        await asyncio.sleep(LOOKS * LOOK_SECONDS)
        await task.stop()

    try:
        _, log = run(tmp_path, ORPHANS.replace("{then}", "time.sleep(600)"), leave_a_file_and_stop)
        assert foreign.exists()
        assert not Path("/dev/shm", log.split()[0]).exists()
    finally:
        foreign.unlink()


def test_what_is_made_under_the_name_of_a_removed_file_is_another_file(tmp_path):
    """Seen in the hands of this process; then it goes, and another program takes its name."""
    path = Path("/dev/shm", f"grpo-dist-test-{os.getpid()}")
    shared = SharedFiles(lambda: [Process(os.getpid(), "")])
    try:
        with open(path, "w"):
            shared.look()
        path.unlink()
        path.touch()
        shared.remove()
        assert path.exists()
        with open(path):
            shared.look()
            shared.remove()
            assert path.exists()
        shared.remove()
        assert not path.exists()
    finally:
        path.unlink(missing_ok=True)


def test_sigterm_is_kept_away_from_a_task_until_it_is_stopped(tmp_path):
    async def terminate(task: Task) -> None:
        for process in task.processes():
            if process.pid == task.process.pid:
                os.kill(process.pid, signal.SIGTERM)
        await asyncio.sleep(0.3)
        assert task.process.returncode is None
        await task.stop()

    ended, _ = run(tmp_path, ORPHANS.replace("{then}", "time.sleep(600)"), terminate)
    assert ended.code == -signal.SIGKILL


def test_a_task_that_handles_sigterm_ends_by_itself(tmp_path):
    then = "import signal; signal.signal(signal.SIGTERM, lambda *_: (held.unlink(), sys.exit(7)))\ntime.sleep(600)"

    async def stop(task: Task) -> None:
        await task.stop()

    ended, _ = run(tmp_path, ORPHANS.replace("{then}", then), stop, ends_on_sigterm=True)
    assert ended.code == 7
    assert is_gone(int((tmp_path / "pid").read_text()))


def test_another_process_with_the_same_number_is_never_meant():
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    try:
        end([Process(child.pid, "1")])
        assert child.poll() is None
    finally:
        end(process for process in descendants(os.getpid()) if process.pid == child.pid)
    assert child.wait() == -signal.SIGKILL


def test_stacks_are_asked_of_those_only_that_know_what_it_means(tmp_path):
    code = """
import faulthandler, signal, subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
def standing_still():
    open("pid", "w").write(str(child.pid))
    time.sleep(600)
faulthandler.register(signal.SIGUSR2)
standing_still()
"""

    async def dump(task: Task) -> None:
        dump_stacks(task.processes())
        until = time.monotonic() + 10
        while "standing_still" not in (tmp_path / "log").read_text() and time.monotonic() < until:
            await asyncio.sleep(0.05)
        assert not is_gone(int((tmp_path / "pid").read_text()))
        await task.stop()

    _, log = run(tmp_path, code, dump)
    assert "in standing_still" in log
