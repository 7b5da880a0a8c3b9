"""Programs that a model may write: paid for passing their tests, for nothing else, and unable to do harm."""

from __future__ import annotations

import base64
import json
import os
import pickle
import time
import zlib
from pathlib import Path
from typing import Any

import pytest

from grpo_dist.errors import RewardError
from grpo_dist.rewards import REWARDS
from grpo_dist.rewards.names import accepted_kwargs
from grpo_dist.rewards.programs import judge, sandbox
from grpo_dist.rewards.programs.confine import Limits, landlock_version
from grpo_dist.rewards.programs.judge import ProgramGrader, program_in
from grpo_dist.rewards.programs.remote import alike
from grpo_dist.rewards.programs.row_tests import Functions, Scripts, read_tests, same_output
from grpo_dist.rewards.programs.sandbox import Sandbox

ADD = "def add(a, b):\n    return a + b\n"
LIMITS = Limits(seconds=1, memory_bytes=256 << 20, output_bytes=1 << 20)


@pytest.fixture(scope="module", params=["bubblewrap", "landlock"])
def confined(request, missing) -> Sandbox:
    if reason := sandbox._refusal(request.param):
        missing(f"{request.param}: {reason}")
    return Sandbox(request.param)


@pytest.fixture
def paid(confined):
    judges = []

    def pay(program: str, tests: Any, *, share: bool = False, limits: Limits = LIMITS) -> float:
        judges.append(ProgramGrader(confined, limits, share=share))
        return judges[-1](program, tests)

    yield pay
    for one in judges:
        one.close()


def functions(*tests: str, setup: str = "") -> Functions:
    return Functions(setup, tuple({"code": one} for one in tests))


def fenced(program: str) -> list[dict[str, str]]:
    return [{"role": "assistant", "content": f"So:\n```python\n{program}\n```"}]


class TestRightPrograms:
    @pytest.mark.parametrize(
        ("program", "tests"),
        [
            (ADD, ["assert add(1, 2) == 3", "assert add([1], [2]) == [1, 2]", "assert add('a', 'b') == 'ab'"]),
            ("def f():\n    yield from (1, 2, 3)", ["assert list(f()) == [1, 2, 3]", "assert sum(f()) == 6"]),
            ("def f():\n    raise ValueError('no')", ["try:\n    f()\n    assert False\nexcept ValueError: pass"]),
            ("class Bad(ValueError): pass\ndef f():\n    raise Bad", ["try:\n    f()\n    assert 0\nexcept Bad: pass"]),
            ("def f(g, x):\n    return g(g(x))", ["assert f(lambda x: x * 3, 2) == 18"]),
            ("import math\ndef f(x):\n    return math.sqrt(x)", ["assert math.isclose(f(2) ** 2, 2)"]),
            (
                "def f():\n    return {(1, 2): {3.5, None}, b'x': 2 + 1j}",
                ["assert f() == {(1,2):{3.5,None},b'x':2+1j}"],
            ),
            ("def f(n):\n    return 10 ** n", ["assert f(6000) == 10 ** 6000"]),
            (
                "from collections import Counter\ndef f(s):\n    return Counter(s)",
                ["assert f('aab') == {'a': 2, 'b': 1}"],
            ),
            ("from fractions import Fraction\ndef f():\n    return Fraction(1, 3)", ["assert f() * 3 == 1"]),
            (
                "class Node:\n    def __init__(self, v):\n        self.v, self.next = v, None\n"
                "def length(n):\n    return 1 + length(n.next) if n else 0",
                ["a = Node(1)\na.next = Node(2)\nassert length(a) == 2 and a.next.v == 2"],
            ),
            ("def f(n):\n    return f(n - 1) + 1 if n else 0", ["assert f(3000) == 3000"]),
            (
                "from dataclasses import dataclass\n@dataclass\nclass P:\n    x: int\n    y: int = 2\n"
                "def f():\n    return P(1)",
                ["assert (f().x, f().y) == (1, 2)"],
            ),
            ("def sum(a, b):\n    return a - b", ["assert sum(3, 1) == 2"]),
            ("big = list(range(10 ** 6))\nobject()\ndef f():\n    return len(big)", ["assert f() == 10 ** 6"]),
            ("def f(n):\n    return range(n), bytearray(b'x')", ["assert f(3) == (range(3), bytearray(b'x'))"]),
            (
                "import datetime\ndef f():\n    return datetime.date(2024, 2, 29)",
                ["import datetime\nassert f() == datetime.date(2024, 2, 29)"],
            ),
        ],
    )
    def test_functions_are_paid(self, paid, program, tests):
        assert paid(program, functions(*tests)) == 1.0

    def test_calls_have_the_imports_of_such_sites(self, paid):
        program = "class Solution:\n    def f(self, x: List[int]) -> Optional[float]:\n        return -inf if x else 0"
        calls = Functions("", ({"call": "f", "arguments": [[1]], "returns": [float("-inf")]},), imports=True)
        assert paid(program, calls) == 1.0

    @pytest.mark.parametrize(
        "program",
        [
            "print(sum(map(int, input().split())))",
            "print(sum(map(int, input().split())))\nexit()",
            "import atexit, io, sys\nsys.stdout = io.StringIO()\n"
            "atexit.register(lambda: sys.__stdout__.write(sys.stdout.getvalue()))\n"
            "print(sum(map(int, input().split())))",
            "out = open(1, 'w')\nout.write(str(sum(map(int, input().split()))))",
            "from dataclasses import dataclass\n@dataclass\nclass P:\n    x: int\n"
            "print(P(sum(map(int, input().split()))).x)\nfrom __main__ import P",
            "import sys\nprint(sum(int(x) for x in sys.stdin.read().split()))",
            "import sys\nsys.stdout.write(str(sum(map(int, sys.stdin.readline().split()))) + '\\n'); sys.exit()",
            "if __name__ == '__main__':\n    a, b = input().split(); print('', int(a) + int(b), '\\n\\n')",
            "import threading\ndef main():\n    print(sum(map(int, input().split())))\nthreading.stack_size(1 << 26)\n"
            "threading.Thread(target=main).start()",
        ],
    )
    def test_scripts_are_paid(self, paid, program):
        assert paid(program, Scripts((("1 2\n", "3\n"), ("40 2", "42")))) == 1.0

    def test_more_input_and_output_than_a_pipe_holds(self, paid):
        numbers = "\n".join(map(str, range(100_000)))
        program = "import sys\nfor line in sys.stdin:\n    print(line.strip())"
        assert paid(program, Scripts(((numbers, numbers),))) == 1.0

    def test_output_may_be_long_where_the_right_one_is(self, paid):
        right = "12345678\n" * 200_000
        assert paid("print('12345678\\n' * 200_000)", Scripts((("", right),))) == 1.0


class TestWrongPrograms:
    @pytest.mark.parametrize(
        "program",
        [
            "def add(a, b):\n    return 3",
            "def add(a, b):",
            "1 / 0",
            "",
            "add = 3",
            "import nothing_of_the_kind",
            "exit()",
        ],
    )
    def test_functions_are_not_paid(self, paid, program):
        assert paid(program, functions("assert add(1, 2) == 3", "assert add(2, 2) == 4")) == 0.0

    @pytest.mark.parametrize("program", ["print(3)", "print(input())", "x", "import sys\nprint(3)\nsys.exit(1)"])
    def test_scripts_are_not_paid(self, paid, program):
        assert paid(program, Scripts((("1 2", "3"), ("2 2", "4")))) == 0.0

    def test_the_share_that_passes_is_paid(self, paid):
        tests = functions("assert add(1, 2) == 3", "assert add(2, 2) == 4", "assert add(0, 3) == 3")
        assert paid("def add(a, b):\n    return 3", tests, share=True) == pytest.approx(2 / 3)
        assert paid("print(3)", Scripts((("1 2", "3"), ("2 2", "4"))), share=True) == 0.5
        hangs = "def add(a, b):\n    while a == 2: pass\n    return a + b"
        assert paid(hangs, tests, share=True) == pytest.approx(1 / 3)


CHEATS = {
    "leaves before the assertions": "import os\ndef add(a, b):\n    os._exit(0)",
    "leaves at once": "import os\nos._exit(0)",
    "raises SystemExit": "def add(a, b):\n    raise SystemExit(0)",
    "equals everything": "class All:\n    __eq__ = lambda *a: True\ndef add(a, b):\n    return All()",
    "is an integer that equals everything": (
        "class All(int):\n    __eq__ = lambda *a: True\n    __bool__ = lambda s: True\ndef add(a, b):\n    return All()"
    ),
    "patches builtins": "import builtins\nbuiltins.AssertionError = ValueError\ndef add(a, b):\n    return None",
    "patches the runner": (
        "import sys\nfor m in list(sys.modules.values()):\n    for n in ('Tests', 'alike', 'send', 'Peer'):\n"
        "        if hasattr(m, n): setattr(m, n, lambda *a, **k: None)\ndef add(a, b):\n    return 0"
    ),
    "looks for the tests in memory": (
        "import gc\ndef add(a, b):\n    for o in gc.get_objects():\n        if isinstance(o, dict) and 'tests' in o:\n"
        "            return 3 if a == 1 else 4\n    return None"
    ),
    "writes verdicts to every descriptor": (
        "import os, json, struct\nm = json.dumps({'failed': None})\nd = json.dumps({'done': True, 'ended': None})\n"
        "for fd in range(64):\n    for one in (m.encode(), m.encode(), d.encode()):\n        try:\n"
        "            os.write(fd, struct.pack('>I', len(one)) + one)\n        except OSError:\n            pass\n"
        "def add(a, b):\n    return None"
    ),
    "reads the tests from files": (
        "import os, sys\ndef add(a, b):\n    for d in ('/proc', '/tmp', '.', '/runner', sys.path[0]):\n"
        "        for f in os.listdir(d):\n            t = open(os.path.join(d, f)).read()\n"
        "            if 'assert add(1' in t: return 3 if a == 1 else 4"
    ),
    "calls what the tests pass to it for more than calling": (
        "def add(a, b):\n    return None\ndef use(f):\n    f.__globals__['add'] = lambda a, b: a + b\n    return 7"
    ),
}


PARENT = "import os\nprint(os.getppid())"
CLOSE = ("import math\nassert abs(f(2) - 4.5) < 1e-6", "assert all([f(2) == 4.5]) and math.isclose(f(2), 4.5)")


@pytest.mark.parametrize(
    "program",
    [
        "abs = lambda x: 0\nall = lambda x: True\ndef f(x):\n    return 0",
        "class math:\n    isclose = lambda *a: True\nall = lambda x: True\nf = abs",
        "import sys\nsys.modules['__main__'].Program.on_execute = lambda s: ['__builtins__', 'f']\ndef f(x): return 0",
        "import gc\nfor o in gc.get_objects():\n    if getattr(o, '__name__', '') == 'Program':\n"
        "        o.on_execute = lambda s: ['__builtins__', 'abs', 'all', 'f']\n"
        "        o.on_name = lambda s, n: ['value', {'__import__': print, 'abs': int, 'all': any}]\n",
    ],
)
def test_names_of_python_keep_their_meaning_in_tests(paid, program):
    assert paid(program, functions(*CLOSE), share=True) == 0.0


def test_each_program_has_a_parent_of_its_own(confined):
    """Which alone has read it: another completion of the same problem may be right, and would be in memory."""
    runner = confined.start()
    try:
        parents = [one["output"] for _ in range(2) for one in runner.printed(PARENT, ["", ""], LIMITS)]
        assert parents[0] == parents[1] != parents[2] == parents[3]
    finally:
        runner.close()


@pytest.mark.parametrize(
    "tests",
    [
        "import os, struct, json\nd = json.dumps('failed').encode()\nfor n in range(3, 64):\n    try:\n"
        "        os.write(n, (struct.pack('>I', len(d)) + d) * 3)\n    except OSError: pass",
        "import os, struct, json\nd = json.dumps({'failed': None}).encode()\nfor n in range(3, 64):\n    try:\n"
        "        os.write(n, (struct.pack('>I', len(d)) + d + b'\\n' + b'null\\n') * 3)\n    except OSError: pass",
    ],
)
def test_tests_that_write_verdicts_reach_no_other_row(confined, tests):
    judged = ProgramGrader(confined, LIMITS, share=True)
    try:
        judged(ADD, functions(tests))
        assert (
            judged("def add(a, b):\n    return 0", functions("assert add(1, 2) == 3", "assert add(0, 0) == 1")) == 0.0
        )
    finally:
        judged.close()


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (5, float("inf"), False),
        (float("inf"), float("inf"), True),
        (float("nan"), 1.5, False),
        (10**400, 1.5, False),
        ({1: 2, "1": 2}, {"1": 2, "2": 2}, False),
        ({1: 2}, {"1": 2}, True),
        ((1, [2]), [1, [2]], True),
        (True, 1, False),
        (0.1 + 0.2, 0.3, True),
    ],
)
def test_values_are_alike_as_in_json(one, other, same):
    assert alike(one, other) is same


def test_an_interrupted_reward_leaves_no_runner(confined, monkeypatch):
    monkeypatch.setattr(judge, "available", lambda: (confined.kind, ""))
    monkeypatch.setattr(judge, "workers", lambda: 2)
    started, start = [], Sandbox.start
    monkeypatch.setattr(Sandbox, "start", lambda self: started.append(start(self)) or started[-1])

    def interrupted(pool, judged, programs, rows):
        pool.submit(judged, programs[0], rows[0])
        while not started:
            time.sleep(0.01)
        raise KeyboardInterrupt

    monkeypatch.setattr(judge.ThreadPoolExecutor, "map", interrupted)
    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        REWARDS["code"]([""], [fenced("import time\ntime.sleep(99)")], tests=[STDIN])
    assert time.monotonic() - began < 30
    assert all(one.process.poll() is not None for one in started)


@pytest.mark.parametrize("name", CHEATS)
def test_a_cheat_is_not_paid(paid, name):
    tests = functions(
        "try:\n    use(lambda x: x)\nexcept Exception: pass", "assert add(1, 2) == 3", "assert add(2, 2) == 4"
    )
    assert paid(CHEATS[name], tests) == 0.0


HARM = {
    "opens a file of the home directory": "open({home!r}).read()",
    "lists the home directory": "import os\nos.listdir(os.path.dirname({home!r}))",
    "lists the root": "import os\nassert set(os.listdir('/')) & {{'home', 'root'}} and open('/etc/passwd').read()",
    "reads a secret of the environment": "import os\nassert os.environ['WANDB_API_KEY']",
    "reads the environment of its parent": "open('/proc/%d/environ' % __import__('os').getppid(), 'rb').read()",
    "reads the environment of the run": "open('/proc/{pid}/environ', 'rb').read()",
    "opens a socket": "import socket\nsocket.socket()",
    "asks for a name": "import socket\nsocket.getaddrinfo('localhost', 80)",
    "kills the run": "import os\nos.kill({pid}, 0)",
    "kills its parent": "import os\nos.kill(os.getppid(), 9)",
    "kills all": "import os\nos.kill(-1, 9)",
    "starts a process": "import subprocess\nsubprocess.run(['/bin/true'], check=True)",
    "forks": "import os\nos.fork()",
    "replaces itself": "import os\nos.execv('/bin/sh', ['sh', '-c', 'exit 0'])",
    "writes outside": "open('/tmp/grpo-dist-escaped', 'w').write('x')",
    "writes where it is": "open('escaped', 'w').write('x')",
    "writes to what the run keeps": "open({home!r}, 'a').write('x')",
    "changes the mode of a file": "import os\nos.chmod({home!r}, 0)",
    "removes a file": "import os\nos.remove({home!r})",
    "traces its parent": "import ctypes, os\nassert ctypes.CDLL(None).ptrace(16, os.getppid(), 0, 0) == 0",
    "outlives its parent": "import ctypes\nassert ctypes.CDLL(None).prctl(1, 0, 0, 0, 0) == 0",
    "takes memory that no limit counts": "import os\nos.memfd_create('x')",
    "raises its limits": "import resource\nresource.setrlimit(resource.RLIMIT_CPU, (1000, 1000))",
    "limits another process": "import resource\nresource.prlimit(1, resource.RLIMIT_CPU, (1, 1))",
    "has a signal sent to the run": "import fcntl, os\nfcntl.fcntl(os.pipe()[0], fcntl.F_SETOWN, {pid})",
    "chooses a signal to be sent": "import fcntl, os\nfcntl.fcntl(os.pipe()[0], 10, 9)",
    "empties a file": "import os\nos.truncate({home!r}, 0)",
    "empties a file of Python": "import os\nos.open(os.__file__, os.O_RDONLY | os.O_TRUNC)",
    "watches the home directory": (
        "import ctypes, os\nc = ctypes.CDLL(None)\n"
        "assert c.inotify_add_watch(c.inotify_init(), os.path.dirname({home!r}).encode(), 4095) >= 0"
    ),
    "opens in a way that no filter sees": (
        "import ctypes\nassert ctypes.CDLL(None).syscall(437, -100, b'/dev/null', (ctypes.c_ulong * 3)(), 24) >= 0"
    ),
    "makes a namespace": "import ctypes\nassert ctypes.CDLL(None).unshare(0x10000000) == 0",
}


@pytest.mark.parametrize("name", HARM)
def test_harm_fails(confined, name, tmp_path, monkeypatch):
    """What it may not do raises, so that nothing is printed for it."""
    monkeypatch.setenv("WANDB_API_KEY", "secret")
    secret = tmp_path / "secret"
    secret.write_text("kept")
    program = HARM[name].format(home=str(secret), pid=os.getpid()) + "\nprint('done')"
    with ProgramGrader(confined, LIMITS, share=False)._runner() as runner:
        [found] = runner.printed(program, [""], LIMITS)
        assert found["ended"] and "done" not in found["output"], found
        [after] = runner.printed("print('fine')", [""], LIMITS)
        assert after == {"ended": None, "output": "fine\n"}, "the runner goes on"
        runner.close()
    assert secret.read_text() == "kept"
    assert secret.stat().st_mode & 0o400
    assert not Path("/tmp/grpo-dist-escaped").exists()


BOMBS = {
    "loops": ("while True: pass", "processor time"),
    "loops in C": ("sum(range(10 ** 18))", "processor time"),
    "takes memory": ("x = []\nwhile True: x.append(bytearray(1 << 24))", "MemoryError"),
    "takes memory at once": ("x = ' ' * (1 << 40)", "MemoryError"),
    "writes megabytes": ("while True: print('x' * 10000)", "wrote too much"),
    "forks": ("import os\nwhile True: os.fork()", "PermissionError"),
    "starts threads": (
        "import threading, time\nwhile True: threading.Thread(target=time.sleep, args=(99,), daemon=True).start()",
        "can't start new thread",
    ),
    "crashes": ("import ctypes\nctypes.string_at(0)", "SIGSEGV"),
    "ignores signals": (
        "import signal\nfor s in (2, 15, 24): signal.signal(s, signal.SIG_IGN)\nwhile True: pass",
        "time",
    ),
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_ends_by_itself_with_the_reason(confined, name):
    program, reason = BOMBS[name]
    runner = confined.start()
    try:
        [found] = runner.printed(program, [""], LIMITS)
        assert reason in found["ended"]
        assert len(found["output"]) <= LIMITS.output_bytes + 65536
    finally:
        runner.close()


def test_one_that_sleeps_is_ended_and_leaves_nothing(confined, monkeypatch):
    monkeypatch.setattr(sandbox, "SLOWER_BY", 0.5)
    judged = ProgramGrader(confined, LIMITS, share=False)
    assert judged("import time\ntime.sleep(1000)", Scripts((("", ""),))) == 0.0
    assert judged.idle == [], "its runner is not used again"


class TestWhereTheProgramIs:
    @pytest.mark.parametrize(
        ("text", "program"),
        [
            ("First\n```python\na\n```\nbetter\n```python\nb\n```\n", "b\n"),
            ("```\na\n```", "a\n"),
            ("~~~py\na\n~~~", "a\n"),
            ("<think>```python\nno\n```</think>\n```python\nyes\n```", "yes\n"),
            ("```python\nno\n```</think>\n```python\nyes\n```", "yes\n"),
            ("<think>```python\nnever closed\n```", None),
            ("<SOLUTION>\nprint(1)\n</SOLUTION>", "\nprint(1)\n"),
            ("<answer>```python\nprint(1)\n```</answer>", "print(1)\n"),
            ("    ```python\n    x\n    ```", "    x\n"),
            ("print(1)", None),
            ("```python\nnever closed", None),
            ("```python\n\n```", None),
            ("", None),
        ],
    )
    def test_the_last_block_counts(self, text, program):
        assert program_in(text) == program


ASSERTION = {"code": "assert a"}
CHECK = "def check(c): ..."
STDIN = [{"input": "1 2\n", "output": "3\n", "type": "stdin_stdout"}]
LISTS = {"input": "[1, 2]", "output": "[3]"}
CALLS = {"call": "add", "arguments": [1, 2]}


class TestLayouts:
    @pytest.mark.parametrize(
        ("row", "expected"),
        [
            ({"test_list": ["assert a"], "test_setup_code": "x = 1"}, Functions("x = 1", (ASSERTION,))),
            (
                {"test_list": ["assert a"], "test_imports": ["import m"]},
                Functions("import m\n", ({"code": "assert a"},)),
            ),
            (
                {"test": "def check(c): ...", "entry_point": "f"},
                Functions("def check(c): ...", ({"code": "check(f)"},)),
            ),
            ({"input_output": json.dumps({"inputs": ["1\n"], "outputs": ["2\n"]})}, Scripts((("1\n", "2\n"),))),
            ({"input_output": {"inputs": [["a", "b"]], "outputs": [["c", "d"]]}}, Scripts((("a\nb", "c\nd"),))),
            (
                {"input_output": json.dumps({"fn_name": "add", "inputs": [[1, 2]], "outputs": [[3]]})},
                Functions("", ({**CALLS, "returns": [[3], 3]},)),
            ),
            (
                {"verification_info": json.dumps({"language": "python", "test_cases": STDIN})},
                Scripts((("1 2\n", "3\n"),)),
            ),
            (
                {"verification_info": {"test_cases": [{"type": "function_call", "fn_name": "add", **LISTS}]}},
                Functions("", ({**CALLS, "returns": [[3], 3]},)),
            ),
            ({"tests": json.dumps(STDIN)}, Scripts((("1 2\n", "3\n"),))),
            ({"tests": ["assert a"], "answer": "x"}, Functions("", ({"code": "assert a"},))),
            ({"tests": "assert a\nassert b"}, Functions("", ({"code": "assert a\nassert b"},))),
            (
                {
                    "public_test_cases": json.dumps([{"input": "1\n2", "output": "3", "testtype": "functional"}]),
                    "metadata": json.dumps({"func_name": "add"}),
                },
                Functions("", ({**CALLS, "returns": [3]},)),
            ),
            (
                {"tests": [{"input": [1, 2], "output": 3, "type": "functional", "fn_name": "add"}]},
                Functions("", ({**CALLS, "returns": [3]},)),
            ),
        ],
    )
    def test_are_read(self, row, expected):
        assert read_tests(row) == expected

    def test_private_tests_of_livecodebench_are_unpacked(self):
        packed = base64.b64encode(zlib.compress(pickle.dumps(json.dumps([{"input": "5", "output": "6"}])))).decode()
        assert read_tests({"public_test_cases": STDIN, "private_test_cases": packed}) == Scripts(
            (("1 2\n", "3\n"), ("5", "6"))
        )

    def test_packed_code_is_not_run(self, tmp_path):
        class Harm:
            def __reduce__(self):
                return os.mkdir, (str(tmp_path / "harmed"),)

        packed = base64.b64encode(zlib.compress(pickle.dumps(Harm()))).decode()
        with pytest.raises(RewardError, match=r"posix\.mkdir"):
            read_tests({"private_test_cases": packed})
        assert not (tmp_path / "harmed").exists()

    @pytest.mark.parametrize(
        ("row", "words"),
        [
            ({}, "no tests"),
            ({"tests": []}, "no tests"),
            ({"answer": "3"}, "no tests"),
            ({"tests": [{"in": "1", "output": "2"}]}, "a test has no input or stdin or inputs; it has in, output"),
            ({"verification_info": {"language": "rust", "test_cases": STDIN}}, "rust"),
            ({"input_output": "{"}, "JSONDecodeError"),
            ({"tests": "[" * 200_000}, "cannot be read"),
            ({"private_test_cases": "no base64"}, "cannot be read"),
        ],
    )
    def test_what_is_none_is_told(self, row, words):
        with pytest.raises(RewardError) as told:
            read_tests(row)
        assert words in str(told.value)

    @pytest.mark.parametrize(
        ("printed", "expected", "same"),
        [
            ("3", "3\n\n", True),
            (" 1  2 \n3\n", "1 2\n3", True),
            ("1\n2", "1 2", False),
            ("0.3333333", "0.33333333", True),
            ("0.33", "0.3333", False),
            ("3", "3.0", True),
            ("3.0", "3", False),
            ("nan", "1.5", False),
            ("inf", "1e999", False),
            ("", "x", False),
            ("yes", "YES", False),
        ],
    )
    def test_output_is_compared_by_words_and_lines(self, printed, expected, same):
        assert same_output(printed, expected) is same


class TestReward:
    """`code` as a run calls it."""

    def test_every_completion_is_judged_by_its_own_row(self, confined, monkeypatch):
        monkeypatch.setattr(judge, "available", lambda: (confined.kind, ""))
        rows = [[f"assert add(1, {n}) == {n + 1}"] for n in range(6)]
        programs = [fenced(ADD) if n % 2 else fenced("def add(a, b):\n    return 0") for n in range(6)]
        assert REWARDS["code"]([""] * 6, programs, test_list=rows) == [0.0, 1.0] * 3

    def test_without_a_sandbox_it_refuses_unless_that_is_accepted(self, monkeypatch):
        monkeypatch.setattr(judge, "available", lambda: (None, "bubblewrap: no; landlock: no"))
        with pytest.raises(RewardError, match="cannot be confined on this machine: bubblewrap: no") as told:
            REWARDS["code"]([""], [fenced(ADD)], tests=[["assert add(1, 2) == 3"]])
        assert "{sandbox: none}" in told.value.hint
        assert REWARDS["code"]([""], [fenced(ADD)], tests=[["assert add(1, 2) == 3"]], sandbox="none") == [1.0]

    @pytest.mark.parametrize("wrong", [{"pay": "some"}, {"seconds": 0}, {"memory_mb": 1.5}, {"sandbox": "off"}])
    def test_odd_arguments_are_told(self, wrong):
        with pytest.raises(RewardError, match=next(iter(wrong))):
            REWARDS["code"]([""], [fenced(ADD)], tests=[["assert 1"]], **wrong)

    def test_columns_are_no_keyword_arguments_of_a_configuration(self):
        assert accepted_kwargs("code") == {"pay", "seconds", "memory_mb", "sandbox"}


def test_training_processes_share_the_cores(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: set(range(12)))
    assert sandbox.workers() == 12
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "5")
    assert sandbox.workers() == 2
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "64")
    assert sandbox.workers() == 1


def test_a_kernel_without_landlock_is_told(monkeypatch):
    monkeypatch.setattr(sandbox, "landlock_version", lambda: 0)
    assert "this kernel has no Landlock" in sandbox._refusal("landlock")
    assert landlock_version() >= 0


def test_a_sandbox_that_does_not_start_says_why(monkeypatch):
    monkeypatch.setattr(Sandbox, "_command", lambda self: ["/bin/sh", "-c", "echo it is forbidden >&2; exit 1"])
    assert sandbox._refusal("landlock") == "it does not start: it is forbidden"
    with pytest.raises(RewardError, match="landlock did not start: it is forbidden"):
        ProgramGrader(Sandbox("landlock"), LIMITS, share=False)("1", Scripts((("", ""),)))
