"""How a stage process ends."""

from __future__ import annotations

import subprocess
import sys

BEGINS = """
import atexit, threading, time, weakref
from grpo_dist.errors import LaunchError
from grpo_dist.training.common.process import as_process

class Kept:
    def __del__(self):
        print("taken apart")

def late():
    time.sleep(0.3)
    print("a thread has ended")

def work():
    global kept
    kept = Kept()
    weakref.finalize(work, print, "finalized")
    threading.Thread(target=late).start()
    print("worked", end="")

atexit.register(print, "the first to register")
"""


def run(program: str) -> tuple[int, str, str]:
    found = subprocess.run([sys.executable, "-c", BEGINS + program], capture_output=True, text=True)
    return found.returncode, found.stdout, found.stderr


def test_exit_handlers_run_and_modules_are_not_torn_down():
    code, told, _ = run("as_process(work)")
    assert (code, told) == (0, "workeda thread has ended\nfinalized\nthe first to register\n")


def test_an_error_ends_it_with_its_code():
    code, told, _ = run("def fail():\n    raise LaunchError('no GPU')\nas_process(fail)")
    assert code == 1
    assert "no GPU" in told


def test_pytorchs_advice_to_run_a_files_code_never_shows():
    advice = "raise RuntimeError('refused: use `weights_only=False` in `torch.load`')"
    code, told, logged = run(f"def fail():\n    {advice}\nas_process(fail)")
    assert code == 1
    assert "does not load it" in told
    assert "fail" in logged
    assert "weights_only=" not in told + logged.replace(advice, "")
