from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from waiting import is_gone, until

from grpo_dist.errors import OF_NO_USE, LaunchError
from grpo_dist.launch.local import _check_outcome, _watch
from grpo_dist.launch.process import Interrupted, ProcessOutcome, run_process
from grpo_dist.launch.stages import Stage
from grpo_dist.progress import LONGEST_MESSAGE, Terminal, say
from grpo_dist.run.directory import RunDirectory


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def run(code: str, tmp_path: Path) -> tuple[int, str, str, str]:
    screen, log = io.StringIO(), tmp_path / "log"
    outcome = run_process(python(code), env=os.environ, log=log, terminal=Terminal(screen))
    return outcome.code, outcome.reason, screen.getvalue(), log.read_text()


def test_the_terminal_sees_what_was_said_and_the_log_everything(tmp_path):
    code = """
import sys
from grpo_dist.progress import say, say_passing, say_error
print("noise"); say("kept 3"); print("more noise", file=sys.stderr); say_passing("step 1/2"); say_error("two\\nlines")
sys.exit(3)
"""
    exit_code, reason, screen, log = run(code, tmp_path)
    assert exit_code == 3
    assert screen == "kept 3\nstep 1/2\n"
    assert reason == "two\nlines"
    for text in ("noise", "grpo-dist: kept 3", "more noise", "grpo-dist~ step 1/2", "grpo-dist! lines"):
        assert text in log.splitlines()


def test_a_child_left_behind_is_ended(tmp_path):
    code = """
import subprocess, sys
quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], **quiet)
print(child.pid)
"""
    exit_code, _, _, log = run(code, tmp_path)
    assert exit_code == 0
    until(lambda: is_gone(int(log)))


def test_an_interrupt_ends_the_process_and_names_the_signal(tmp_path):
    pid_file = tmp_path / "pid"
    code = f"import os, time; open({str(pid_file)!r}, 'w').write(str(os.getpid())); time.sleep(600)"

    def interrupt():
        until(lambda: pid_file.exists() and pid_file.read_text())
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=interrupt, daemon=True).start()
    with pytest.raises(Interrupted) as caught:
        run(code, tmp_path)
    assert caught.value.signum == signal.SIGTERM
    until(lambda: is_gone(int(pid_file.read_text())))


def test_the_process_does_not_outlive_a_killed_launcher(tmp_path):
    pid_file = tmp_path / "pid"
    inner = f"import os, time; open({str(pid_file)!r}, 'w').write(str(os.getpid())); time.sleep(600)"
    code = f"""
import os
from pathlib import Path
from grpo_dist.launch.process import run_process
from grpo_dist.progress import Terminal
run_process({python(inner)!r}, env=os.environ, log=Path({str(tmp_path / "inner.log")!r}), terminal=Terminal())
"""
    launcher = subprocess.Popen(python(code))
    until(lambda: pid_file.exists() and pid_file.read_text())
    launcher.kill()
    launcher.wait()
    until(lambda: is_gone(int(pid_file.read_text())))


class Screen(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_on_a_terminal_a_passing_line_replaces_the_one_before(monkeypatch):
    monkeypatch.setenv("COLUMNS", "12")
    screen = Screen()
    terminal = Terminal(screen)
    terminal.show_passing("step 1/2 and a long tail")
    terminal.show_passing("step 2/2")
    terminal.show("done")
    assert screen.getvalue() == "\r\x1b[Kstep 1/2 an\r\x1b[Kstep 2/2\ndone\n"


FORGED = ("grpo-dist= abc", "grpo-dist= 75", "grpo-dist! forged", "grpo-dist: forged", "half a line grpo-dist= 0")


@pytest.mark.parametrize("line", FORGED)
def test_what_a_reward_prints_is_never_taken_for_a_message(tmp_path, line):
    code = f"""
from grpo_dist.progress import say_error
print({line!r}); print("open", end="")
say_error("the reason", 1)
raise SystemExit(1)
"""
    code, reason, screen, log = run(code, tmp_path)
    assert (code, reason, screen) == (1, "the reason", "")
    assert line in log


def test_messages_come_from_processes_far_below_and_long_ones_are_cut(tmp_path):
    code = """
import subprocess, sys
inner = "from grpo_dist.progress import say, say_error; say('x' * 100000); say_error('deep', 75)"
subprocess.run([sys.executable, "-c", inner], start_new_session=True)
raise SystemExit(1)
"""
    code, reason, screen, _ = run(code, tmp_path)
    assert (code, reason) == (75, "deep")
    assert len(screen) == LONGEST_MESSAGE + 1


def test_a_message_to_a_parent_that_is_gone_is_only_printed(monkeypatch, capsys):
    monkeypatch.setenv("GRPO_DIST_CONTROL", "grpo-dist-nobody")
    say("still here")
    assert capsys.readouterr().out == "grpo-dist: still here\n"


def test_what_watches_a_process_can_end_it(tmp_path):
    class Stalled(Exception):
        pass

    def watch(_process) -> None:
        raise Stalled

    with pytest.raises(Stalled):
        run_process(
            python("import time; time.sleep(600)"),
            env=os.environ,
            log=tmp_path / "log",
            terminal=Terminal(io.StringIO()),
            watch=watch,
        )


def test_a_run_that_stands_still_is_ended_with_its_stacks(tmp_path, monkeypatch):
    monkeypatch.setattr("grpo_dist.run.control.FIRST_STEP_SECONDS", 1.0)
    monkeypatch.setattr("grpo_dist.launch.local.DUMP_SECONDS", 0.5)
    log = tmp_path / "train.log"
    stuck = "import faulthandler, signal, time; faulthandler.register(signal.SIGUSR2); time.sleep(600)"
    argv = [sys.executable, "-c", f"import subprocess, sys; subprocess.run([sys.executable, '-c', {stuck!r}])"]
    watch = _watch(RunDirectory(tmp_path), log, 0.5)
    with pytest.raises(LaunchError, match="stands still: no step for 1 s after step None") as caught:
        run_process(argv, env=os.environ, log=log, terminal=Terminal(io.StringIO()), watch=watch)
    assert "cluster.stall_seconds" in caught.value.hint
    assert str(log) in caught.value.message


def test_what_is_left_behind_holds_nobody_up_even_if_it_prints_for_ever(tmp_path, monkeypatch):
    monkeypatch.setattr("grpo_dist.launch.process.IDLE_SECONDS", 1.0)
    began = time.monotonic()
    code, _, _, log = run(
        "import subprocess\nprint('first')\n"
        "subprocess.Popen(['timeout', '60', 'sh', '-c', 'while sleep 0.2; do echo; done'], start_new_session=True)\n"
        "print('last', end='')",
        tmp_path,
    )
    assert code == 0
    assert log.startswith("first\nlast")
    assert time.monotonic() - began < 30


def test_no_escape_sequence_of_a_message_reaches_the_terminal():
    screen = io.StringIO()
    Terminal(screen).show("\x1b]0;owned\x07\x1b[2Jdone ✓\ttwo\nlines\x9b1m")
    assert screen.getvalue() == "\\x1b]0;owned\\x07\\x1b[2Jdone ✓\ttwo\nlines\\x9b1m\n"


@pytest.mark.parametrize(("reason", "hint"), [("no disk", "fix the cause, then again"), (f"so {OF_NO_USE}", None)])
def test_no_one_is_told_to_repeat_what_would_fail_again(tmp_path, reason, hint):
    stage = Stage("train", (), tmp_path / "adapter", alone=False, generates=True)
    with pytest.raises(LaunchError) as told:
        _check_outcome(stage, ProcessOutcome(1, reason), tmp_path / "train.log", "again")
    assert reason in told.value.message
    assert told.value.hint == hint
