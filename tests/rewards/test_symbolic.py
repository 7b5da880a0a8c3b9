"""math-verify in its own process: right, bounded, and gone when its parent is."""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from waiting import is_gone, until

from grpo_dist.errors import RewardError
from grpo_dist.rewards import symbolic
from grpo_dist.rewards.builtin import same_answer
from grpo_dist.rewards.symbolic import MAX_CHARS, symbolically_equal

PATIENT_S = 60.0  # a busy machine must not turn a right answer into a time-out
SLOW = r"\binom{10000000}{5000000}"

needs_math_verify = pytest.mark.skipif(
    importlib.util.find_spec("math_verify") is None, reason="math-verify is not installed"
)


@pytest.fixture
def judge():
    """A judge of its own, with no worker yet; stopped afterwards."""
    judge = symbolic._Judge()
    yield judge
    judge.stop()


@needs_math_verify
@pytest.mark.parametrize(
    ("guess", "truth", "expected"),
    [
        ("1+x", "x+1", True),
        ("x^2+2x+1", "(x+1)^2", True),
        (r"\frac{\sqrt{2}}{2}", r"\frac{1}{\sqrt{2}}", True),
        (r"\{2,1\}", r"\{1,2\}", True),
        (r"\left(\frac12, 1\right)", "(0.5,1)", True),
        ("1+2x", "y=2x+1", True),
        ("[1,2]", "(1,2)", False),
        ("(2,1)", "(3,1)", False),
        ("x+2", "x+1", False),
        ("1.41421356", r"\sqrt{2}", False),
        ("3.141593", r"\pi", False),
        (r"34}{35", r"\sqrt{1156}", False),
        (r"34 \quad 35", r"\sqrt{4761}", False),
        ("x=34 or x=35", "x=35", False),
    ],
)
def test_expressions(guess, truth, expected):
    assert same_answer(guess, truth, timeout_s=PATIENT_S) is expected


HARMLESS = (
    "9**9**9**9",
    "\0x",
    "\ud800",
    "x\n{",
    "\\sqrt" * 300 + "2",
    "__import__('os').system('exit')",
    '"}{"equal": true}',
    "(" * 1_000_000,
)
EXPENSIVE = (
    SLOW,
    "9^{9^{9^9}}",
    "x^{99999}-1",
    "(" * MAX_CHARS,
    "{" * 900 + "x" + "}" * 900,
    r"\frac{1}{" * 200 + "x" + "}" * 200,
)


@needs_math_verify
@pytest.mark.parametrize("hostile", HARMLESS, ids=range(len(HARMLESS)))
def test_hostile_expressions_are_not_equal(hostile):
    assert not symbolically_equal(hostile, "x+1", timeout_s=PATIENT_S)
    assert symbolically_equal("1+x", "x+1", timeout_s=PATIENT_S)


@needs_math_verify
@pytest.mark.parametrize(
    "hostile",
    [SLOW, *(pytest.param(text, marks=pytest.mark.heavy) for text in EXPENSIVE[1:])],
    ids=range(len(EXPENSIVE)),
)
@pytest.mark.timeout(120)
def test_expensive_expressions_are_not_equal_and_the_next_is_judged(judge, hostile):
    assert not judge.equal(hostile, "x+1", 0.5)
    assert judge.equal("1+x", "x+1", PATIENT_S)


@needs_math_verify
def test_a_time_out_costs_the_next_comparison_nothing(judge):
    assert judge.equal("1+x", "x+1", PATIENT_S)
    first = judge.worker.process.pid
    assert not judge.equal(SLOW, "x", 0.2)
    assert 0.15 < judge.spent_s < 0.6
    assert judge.equal("2x", "x+x", PATIENT_S)
    assert judge.worker.process.pid == first


@needs_math_verify
def test_the_limit_is_processor_time_not_time_by_the_clock(judge):
    assert judge.equal("1+x", "x+1", PATIENT_S)
    worker = judge.worker.process.pid
    stopper = threading.Timer(0.1, os.kill, (worker, signal.SIGSTOP))
    goer = threading.Timer(1.5, os.kill, (worker, signal.SIGCONT))
    stopper.start()
    goer.start()
    stopper.join()
    assert judge.equal("1+x", "x+1", 0.5)
    goer.join()


@needs_math_verify
def test_a_spent_budget_ends_the_comparing_of_a_batch(monkeypatch, judge):
    monkeypatch.setattr(symbolic, "_judge", judge)
    with symbolic.budget(0.3):
        assert not any(symbolically_equal(SLOW, "x", timeout_s=0.2) for _ in range(4))
        assert not symbolically_equal("1+x", "x+1", timeout_s=PATIENT_S)
    assert symbolically_equal("1+x", "x+1", timeout_s=PATIENT_S)


@needs_math_verify
def test_a_worker_that_was_killed_is_replaced(judge):
    assert judge.equal("1+x", "x+1", PATIENT_S)
    judge.worker.process.send_signal(signal.SIGKILL)
    until(lambda: is_gone(judge.worker.process.pid), 60)
    assert judge.equal("1+x", "x+1", PATIENT_S)


@needs_math_verify
def test_a_worker_that_crashes_means_not_equal(judge):
    assert judge.equal("1+x", "x+1", PATIENT_S)
    timer = threading.Timer(0.3, judge.worker.process.kill)
    timer.start()
    assert not judge.equal(SLOW, "x", PATIENT_S)
    assert judge.equal("1+x", "x+1", PATIENT_S)


@needs_math_verify
def test_threads_take_turns(judge):
    pairs = [(f"x+{i}", f"{i % 5}+x") for i in range(40)]
    with ThreadPoolExecutor(8) as pool:
        verdicts = list(pool.map(lambda pair: judge.equal(*pair, PATIENT_S), pairs))
    assert verdicts == [i == i % 5 for i in range(40)]


@needs_math_verify
def test_a_forked_child_has_its_own_worker():
    """Forked while another thread holds the lock, which no thread of the child will ever release."""
    assert symbolically_equal("1+x", "x+1", timeout_s=PATIENT_S)
    parents = symbolic._judge.worker.process.pid
    with symbolic._judge.lock:
        child = os.fork()
        if child == 0:
            right = symbolically_equal("1+x", "x+1", timeout_s=PATIENT_S)
            right = right and symbolic._judge.worker.process.pid != parents
            symbolic._judge.stop()
            os._exit(0 if right else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert symbolically_equal("2x", "x+x", timeout_s=PATIENT_S)
    assert symbolic._judge.worker.process.pid == parents


@needs_math_verify
@pytest.mark.parametrize("busy", [False, pytest.param(True, marks=pytest.mark.heavy)], ids=["idle", "busy"])
def test_the_worker_ends_with_its_parent(busy):
    program = f"""if True:
        import threading
        from grpo_dist.rewards import symbolic
        symbolic.symbolically_equal("1+x", "x+1", timeout_s={PATIENT_S})
        if {busy}:
            threading.Thread(target=symbolic._judge.equal, args=({SLOW!r}, "x", 3.0)).start()
        print(symbolic._judge.worker.process.pid, flush=True)
        threading.Event().wait()
    """
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    parent = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, env=environment)
    with parent:
        worker = int(parent.stdout.readline())
        assert not is_gone(worker)
        time.sleep(0.5)
        parent.kill()
    until(lambda: is_gone(worker), 60)


def test_long_texts_are_refused_without_a_worker(monkeypatch, judge):
    monkeypatch.setattr(symbolic, "_judge", judge)
    assert not symbolically_equal("x" * (MAX_CHARS + 1), "x")
    assert judge.worker is None


def test_without_math_verify_the_error_says_what_to_install(monkeypatch, tmp_path, judge):
    (tmp_path / "math_verify.py").write_text("raise ImportError('not here')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(RewardError, match="not here") as raised:
        judge.equal("1+x", "x+1", PATIENT_S)
    assert raised.value.hint == "pip install 'grpo-dist[train]'"


def test_a_worker_that_cannot_start_is_an_error(monkeypatch, tmp_path, judge):
    (tmp_path / "math_verify.py").write_text("import os; os._exit(1)")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(RewardError, match="while starting"):
        judge.equal("1+x", "x+1", PATIENT_S)


@needs_math_verify
def test_what_is_printed_at_start_does_not_disturb_the_replies(monkeypatch, tmp_path, judge):
    (tmp_path / "sitecustomize.py").write_text("print('welcome to this cluster')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    assert judge.equal("1+x", "x+1", PATIENT_S)
