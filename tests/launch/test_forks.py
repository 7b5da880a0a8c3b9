"""A forked stage behaves as one that Python was started for. Here without the training stack, which takes seconds."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from waiting import is_gone, until

from grpo_dist.config import RunConfig
from grpo_dist.launch.forks import LAUNCHER, Forks, can_fork
from grpo_dist.launch.process import Interrupted, ProcessOutcome, run_process
from grpo_dist.plan import plan_run
from grpo_dist.progress import Terminal

SEEN = """
import json, os, random, sys
from grpo_dist.progress import say
json.dump(
    {"argv": sys.argv[1:], "name": __name__, "mine": os.environ.get("MINE"), "theirs": os.environ.get("THEIRS"),
     "leads": os.getsid(0) == os.getpid(), "stdin": sys.stdin.read(), "drawn": random.random(), "pid": os.getpid(),
     "parent": os.getppid()},
    open(sys.argv[1], "w"),
)
say("seen")
print("noise", file=sys.stderr)
"""
SLEEPS = "import os, sys, time; open(sys.argv[1], 'w').write(str(os.getpid())); time.sleep(600)"
LEAVES_A_CHILD = """
import subprocess, sys
print(subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], stdout=-3, stderr=-3).pid)
"""
RANK = """
import atexit, os, signal, sys
import torch.distributed as dist
dist.init_process_group("gloo")
rank, world = dist.get_rank(), dist.get_world_size()
assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
if len(sys.argv) > 2 and rank == 1:
    sys.exit(3)
dist.barrier()
path = os.path.join(sys.argv[1], f"rank-{rank}")
atexit.register(lambda: open(path, "w").write(f"{rank} of {world}, {os.getppid()}"))
"""
ACCELERATE = """
compute_environment: LOCAL_MACHINE
distributed_type: MULTI_GPU
gpu_ids: all
machine_rank: 0
main_process_port: 0
mixed_precision: 'no'
num_machines: 1
num_processes: 2
rdzv_backend: static
use_cpu: false
"""
MODULES = {
    "rank": RANK,
    "seen": SEEN,
    "sleeps": SLEEPS,
    "leaves_a_child": LEAVES_A_CHILD,
    "exits": "import sys; sys.exit(7)",
    "raises": "raise ValueError('the words')",
    "killed": "import os, signal; os.kill(os.getpid(), signal.SIGKILL)",
}


@pytest.fixture
def forks(tmp_path):
    """No run stands there, so that nothing is imported beforehand."""
    for name, text in MODULES.items():
        (tmp_path / f"{name}.py").write_text(text)
    path = os.pathsep.join((str(tmp_path), os.environ.get("PYTHONPATH", "")))
    with Forks(tmp_path / "no run", {**os.environ, "PYTHONPATH": path, "THEIRS": "1"}) as found:
        yield found


def ran(forks: Forks, tmp_path: Path, module: str, *arguments: str, **env: str) -> tuple[ProcessOutcome, str]:
    log, argv = tmp_path / f"{module}.log", [sys.executable, "-m", module, *arguments]
    environ = {"PATH": os.environ["PATH"], **env}
    outcome = run_process(argv, env=environ, log=log, terminal=Terminal(io.StringIO()), start=forks.start)
    return outcome, log.read_text()


def test_a_fork_is_as_a_process_that_was_started(forks, tmp_path):
    found = []
    for number in "12":
        place = tmp_path / number
        outcome, log = ran(forks, tmp_path, "seen", str(place), "a b", MINE=number)
        assert outcome == ProcessOutcome(0, "")
        assert "noise" in log and "grpo-dist: seen" in log
        found.append(json.loads(place.read_text()))
        assert found[-1]["argv"] == [str(place), "a b"]
        assert (found[-1]["name"], found[-1]["mine"], found[-1]["theirs"]) == ("__main__", number, None)
        assert found[-1]["leads"] and found[-1]["stdin"] == ""
    assert found[0]["pid"] != found[1]["pid"] and found[0]["drawn"] != found[1]["drawn"]
    assert found[0]["parent"] == found[1]["parent"] != os.getpid()


@pytest.mark.parametrize(("module", "code"), [("exits", 7), ("raises", 1), ("killed", -signal.SIGKILL)])
def test_its_exit_code_is_told_and_the_next_stage_runs(forks, tmp_path, module, code):
    outcome, log = ran(forks, tmp_path, module)
    assert outcome.code == code
    assert ("ValueError: the words" in log) == (module == "raises")
    assert ran(forks, tmp_path, "seen", str(tmp_path / "next"))[0].code == 0


def test_a_module_that_is_not_there_is_an_error_in_the_log(forks, tmp_path):
    outcome, log = ran(forks, tmp_path, "nowhere")
    assert outcome.code == 1
    assert "nowhere" in log


def test_a_child_that_a_fork_left_behind_is_ended(forks, tmp_path):
    _, log = ran(forks, tmp_path, "leaves_a_child")
    until(lambda: is_gone(int(log)))


def test_an_interrupt_ends_the_fork_and_names_the_signal(forks, tmp_path):
    place = tmp_path / "pid"

    def interrupt() -> None:
        until(lambda: place.exists() and place.read_text())
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=interrupt, daemon=True).start()
    with pytest.raises(Interrupted) as caught:
        ran(forks, tmp_path, "sleeps", str(place))
    assert caught.value.signum == signal.SIGTERM
    until(lambda: is_gone(int(place.read_text())))


def test_an_interrupt_before_the_fork_does_not_wait_for_imports(tmp_path):
    (tmp_path / "trl.py").write_text("import time; time.sleep(600)")
    (tmp_path / "sitecustomize.py").write_text("import time; time.sleep(600)")
    with Forks(tmp_path / "no run", {**os.environ, "PYTHONPATH": str(tmp_path)}) as forks:
        threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT)).start()
        with pytest.raises(Interrupted):
            ran(forks, tmp_path, "seen", str(tmp_path / "never"))
    assert not (tmp_path / "never").exists()


@pytest.mark.parametrize(
    ("ends", "code", "said"),
    [("os._exit(3)", 3, "exit code 3: so it goes"), ("os.kill(os.getpid(), 11)", -11, "SIGSEGV")],
)
def test_a_fork_server_that_ends_early_is_in_log_and_reason(tmp_path, ends, code, said):
    (tmp_path / "sitecustomize.py").write_text(f"import os; os.write(2, b'so it goes\\n'); {ends}")
    with Forks(tmp_path / "no run", {"PATH": os.environ["PATH"], "PYTHONPATH": str(tmp_path)}) as forks:
        outcome, log = ran(forks, tmp_path, "seen", str(tmp_path / "never"))
    assert outcome.code == code
    assert said in outcome.reason
    assert "so it goes" in log


@pytest.mark.parametrize("victim", ["who asks", "who forks"])
def test_no_fork_outlives_who_asked_for_it_nor_who_forked_it(tmp_path, victim):
    (tmp_path / "sleeps.py").write_text(SLEEPS)
    place, code = (
        tmp_path / "pid",
        (
            "import io, os, sys; from pathlib import Path\n"
            "from grpo_dist.launch.forks import Forks; from grpo_dist.launch.process import run_process\n"
            "from grpo_dist.progress import Terminal\n"
            "with Forks(Path('/no run'), os.environ) as forks:\n"
            "    argv, log = [sys.executable, '-m', 'sleeps', sys.argv[1]], Path(sys.argv[1] + '.log')\n"
            "    terminal = Terminal(io.StringIO())\n"
            "    print(run_process(argv, env=os.environ, log=log, terminal=terminal, start=forks.start))\n"
        ),
    )
    path = os.pathsep.join((str(tmp_path), os.environ.get("PYTHONPATH", "")))
    command = [sys.executable, "-c", code, str(place)]
    with subprocess.Popen(command, env={**os.environ, "PYTHONPATH": path}, stdout=subprocess.PIPE, text=True) as asker:
        until(lambda: place.exists() and place.read_text())
        fork = int(place.read_text())
        forker = int(Path(f"/proc/{fork}/stat").read_text().rpartition(")")[2].split()[1])
        os.kill(asker.pid if victim == "who asks" else forker, signal.SIGKILL)
        until(lambda: is_gone(fork) and is_gone(forker))
        told = asker.communicate(timeout=30)[0]
    assert ("code=-9" in told) == (victim == "who forks")


def test_a_temporary_directory_of_who_forks_stays_until_that_one_ends(tmp_path):
    made = tmp_path / "made"
    made.mkdir()
    (tmp_path / "shared.py").write_text(f"import tempfile; THEIRS = tempfile.TemporaryDirectory(dir={str(made)!r})")
    (tmp_path / "sitecustomize.py").write_text("import shared")
    (tmp_path / "own.py").write_text(
        f"import os, shared, tempfile; OWN = tempfile.TemporaryDirectory(dir={str(made)!r})\n"
        f"assert len(os.listdir({str(made)!r})) == 2 and os.path.isdir(shared.THEIRS.name)\n"
    )
    with Forks(
        tmp_path / "no run", {**os.environ, "PYTHONPATH": f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}"}
    ) as forks:
        for _ in range(2):
            outcome, log = ran(forks, tmp_path, "own")
            assert outcome.code == 0, log
            assert len(list(made.iterdir())) == 1
    assert list(made.iterdir()) == []


def launched(forks: Forks, tmp_path: Path, processes: int, module: str, *arguments: str) -> tuple[ProcessOutcome, str]:
    (tmp_path / "accelerate.yaml").write_text(
        ACCELERATE if processes > 1 else ACCELERATE.replace("MULTI_GPU", "'NO'").replace("processes: 2", "processes: 1")
    )
    launch = ("--config_file", str(tmp_path / "accelerate.yaml"), "--gpu_ids", "all", "-m", module)
    return ran(forks, tmp_path, LAUNCHER, *launch, *arguments, CUDA_VISIBLE_DEVICES="", OMP_NUM_THREADS="1")


@pytest.mark.parametrize(
    ("sections", "forked"),
    [
        ({}, True),
        ({"tracking": ["tensorboard", "trackio"]}, True),
        ({"tracking": ["wandb"]}, False),
        ({"model": {"name_or_path": "embedded", "backend": "unsloth"}}, False),
        ({"rollout": {"backend": "vllm", "mode": "colocate"}}, False),
        ({"rollout": {"backend": "vllm", "mode": "server", "replicas": 1}}, True),
        ({"cluster": {"gpus_per_node": 1}}, False),
    ],
)
def test_who_forks_and_who_starts_each_stage_anew(sections, forked):
    base = {"model": {"name_or_path": "embedded"}, "data": {"name_or_path": "embedded"}}
    config = RunConfig.model_validate({**base, "cluster": {"gpus_per_node": 0}, **sections})
    assert can_fork(plan_run(config), config) is forked


@pytest.mark.heavy
def test_what_accelerate_launches_is_forked_as_well(forks, tmp_path):
    place = tmp_path / "alone"
    assert launched(forks, tmp_path, 1, "seen", str(place))[0] == ProcessOutcome(0, "")
    alone = json.loads(place.read_text())
    assert alone["leads"] and alone["argv"] == [str(place)]  # no process between who forks and the stage

    outcome, log = launched(forks, tmp_path, 2, "rank", str(tmp_path))
    assert outcome.code == 0, log
    told = [(tmp_path / f"rank-{rank}").read_text().split(", ") for rank in (0, 1)]
    assert [words for words, _ in told] == ["0 of 2", "1 of 2"]
    assert len({parent for _, parent in told}) == 1

    outcome, log = launched(forks, tmp_path, 2, "rank", str(tmp_path), "fails")
    assert outcome.code == 1
    assert "exitcode" in log
