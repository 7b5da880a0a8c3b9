from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from engines import node_settings, server_config
from waiting import is_gone, until

from grpo_dist.config.cluster import TimeoutSection
from grpo_dist.errors import RolloutError
from grpo_dist.inference.registry import read_key, read_replicas
from grpo_dist.inference.server import server_settings
from grpo_dist.inference.supervisor import Supervisor, known_error, replicas_of_node
from grpo_dist.plan import plan_run
from grpo_dist.procs.ports import PORTS
from grpo_dist.procs.tree import become_subreaper

STUB = Path(__file__).with_name("stub_server.py")
TIMEOUTS = TimeoutSection(ready=30.0, connect=0.5, progress=5.0)


def supervisor(directory: Path, *behaviour: str, replicas: int = 1, max_restarts: int = 3, ready: float = 30.0):
    config = server_config(directory, replicas=replicas)
    plan = plan_run(config)
    settings = server_settings(config, plan, "the/model", "the/tokenizer")
    timeouts = TIMEOUTS.model_copy(update={"ready": ready})
    where = replace(node_settings(config, plan, directory), timeouts=timeouts, max_restarts=max_restarts)
    return Supervisor(
        settings,
        replicas_of_node(plan.topology, 0),
        where,
        program=lambda _, host, port: [sys.executable, str(STUB), host, str(port), *behaviour],
    )


def entry(kept: Supervisor):
    return read_replicas(kept.node.registry)[0]


@pytest.fixture(autouse=True)
def own_temporary_directory(monkeypatch, tmp_path):
    """A short one of the test's own, so that what is left in it is the test's (tmp_path lies elsewhere by now)."""
    with tempfile.TemporaryDirectory(prefix="t-", dir="/tmp") as directory:
        monkeypatch.setattr(tempfile, "tempdir", directory)
        monkeypatch.setenv("TMPDIR", directory)
        yield


@contextmanager
def nothing_left(directory: Path):
    """No scratch directory, no registry entry, no key."""
    yield
    assert list(Path(tempfile.gettempdir()).iterdir()) == []
    assert [path.name for path in (directory / "replicas").iterdir()] == []


def test_servers_are_ready_registered_and_gone_without_a_trace(tmp_path):
    pid_file, segment = tmp_path / "worker", Path(f"/dev/shm/grpo-dist-test-{os.getpid()}")
    become_subreaper()  # what has ended and is collected by no one would come to us
    with nothing_left(tmp_path):
        with supervisor(tmp_path, "late=0.3", f"worker={pid_file}", f"shared={segment}", replicas=2) as kept:
            found = read_replicas(kept.node.registry)
            assert [(one.name, one.state, one.incarnation) for one in found] == [("0", "ready", 0), ("1", "ready", 0)]
            assert len({one.url for one in found}) == 2
            assert all(int(one.url.rpartition(":")[2]) in PORTS for one in found)
            assert read_key(kept.node.registry) == kept.key
            assert all("serving" in Path(one.log).read_text() for one in found)
            worker = int(pid_file.read_text())
            assert not is_gone(worker)
            assert segment.exists()
        assert not Path(f"/proc/{worker}").exists()
        assert all(is_gone(one.pid) for one in found)
        assert not segment.exists()


def test_a_semaphore_is_found_though_its_mapping_has_another_name(tmp_path):
    semaphore = Path(f"/dev/shm/sem.grpo-dist-test-{os.getpid()}")
    with supervisor(tmp_path, f"semaphore=/{semaphore.name.removeprefix('sem.')}") as kept:
        assert semaphore.exists()
        assert semaphore.name not in Path(f"/proc/{entry(kept).pid}/maps").read_text()
    assert not semaphore.exists()


@pytest.mark.parametrize("signum", [signal.SIGKILL, signal.SIGSTOP])
def test_a_killed_or_frozen_replica_is_replaced_at_the_same_port(tmp_path, signum):
    with nothing_left(tmp_path), supervisor(tmp_path) as kept:
        before = entry(kept)
        os.kill(before.pid, signum)
        after = until(lambda: (now := entry(kept)).incarnation == 1 and now.state == "ready" and now)
        assert is_gone(before.pid)
        assert after.url == before.url


def test_a_replica_that_has_work_and_does_nothing_is_replaced(tmp_path):
    stall = tmp_path / "stall"
    with supervisor(tmp_path, f"stalls={stall}") as kept:
        before = entry(kept)
        stall.touch()
        until(lambda: (now := entry(kept)).incarnation == 1 and now.state == "ready")
        assert is_gone(before.pid)


def test_a_port_taken_meanwhile_is_exchanged(tmp_path):
    taken = tmp_path / "port"
    with supervisor(tmp_path, f"port-taken={taken}") as kept:
        assert entry(kept).incarnation == 0
        assert not entry(kept).url.endswith(taken.read_text())


def test_a_port_in_use_is_not_chosen(tmp_path):
    with supervisor(tmp_path) as kept:
        first = entry(kept)
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind(("127.0.0.1", int(first.url.rpartition(":")[2])))
        other.listen()
        with supervisor(tmp_path) as kept:
            assert entry(kept).url != first.url


def test_a_server_that_cannot_start_is_named_with_cause_and_cure(tmp_path):
    with nothing_left(tmp_path), pytest.raises(RolloutError) as caught:
        supervisor(tmp_path, "dies=torch.OutOfMemoryError: CUDA out of memory").start()
    message = str(caught.value)
    assert "rollout replica 0" in message
    assert "CUDA out of memory" in message
    assert str(tmp_path / "logs" / "replica-0.log") in message
    assert "--set rollout.gpu_memory_utilization" in caught.value.hint


@pytest.mark.parametrize(
    ("status", "words"),
    [
        ('{"model": "another/model"}', "serves model 'another/model', planned is 'the/model'"),
        ('{"dtype": "bfloat16"}', "serves dtype 'bfloat16', planned is 'float32'"),
        ('{"max_lora_rank": 8}', "adapters up to rank 8, needed is 32"),
        ('{"logprobs_mode": "raw_logprobs"}', "logprobs_mode 'raw_logprobs'"),
        ('{"vllm_version": "0.40.1"}', "it is vLLM 0.40.1; supported are 0.22 to 0.31"),
    ],
)
def test_a_server_that_is_not_the_one_planned_is_refused(tmp_path, status, words):
    with nothing_left(tmp_path), pytest.raises(RolloutError, match=words):
        supervisor(tmp_path, f"status={status}").start()


def test_a_server_that_never_answers_is_given_up_in_time(tmp_path):
    with nothing_left(tmp_path), pytest.raises(RolloutError, match=r"not ready after 0\.5 s"):
        supervisor(tmp_path, "late=600", ready=0.5).start()


def test_a_replica_that_cannot_restart_is_dropped_the_last_ends_all(tmp_path):
    with nothing_left(tmp_path), supervisor(tmp_path, "restart-dies=no more", max_restarts=2) as kept:
        os.kill(entry(kept).pid, signal.SIGKILL)
        with pytest.raises(RolloutError, match="no more"):
            kept.wait()
        assert (entry(kept).state, entry(kept).incarnation) == ("dropped", 2)


def test_stop_does_not_wait_for_a_server_that_is_still_starting(tmp_path):
    with nothing_left(tmp_path):
        kept = supervisor(tmp_path, "late=600", ready=600.0)
        registry = kept.node.registry
        started = threading.Thread(target=lambda: until(lambda: any(one.pid for one in read_replicas(registry))))
        stopper = threading.Thread(target=lambda: (started.join(), kept.stop()))
        started.start()
        stopper.start()
        with pytest.raises(RolloutError, match="stopped while they started"):
            kept.start()
        stopper.join()


def test_nothing_outlives_a_killed_supervisor(tmp_path):
    pid_file = tmp_path / "worker"
    code = f"""
import sys
sys.path[:0] = {[str(STUB.parent), str(STUB.parent.parent)]!r}
from pathlib import Path
from test_supervisor import supervisor
with supervisor(Path({str(tmp_path)!r}), "worker={pid_file}") as kept:
    print(kept.entries()[0].pid, flush=True)
    kept.wait()
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as process:
        pid = int(process.stdout.readline())
        worker = int(pid_file.read_text())
        assert not is_gone(pid)
        assert not is_gone(worker)
        assert list(Path(tempfile.gettempdir()).iterdir()) != []
        process.kill()
    until(lambda: is_gone(pid) and is_gone(worker))
    until(lambda: list(Path(tempfile.gettempdir()).iterdir()) == [])


def test_a_killed_reaper_ends_its_server_and_the_replica_is_replaced(tmp_path):
    with nothing_left(tmp_path), supervisor(tmp_path) as kept:
        before = entry(kept)
        reaper = int(Path(f"/proc/{before.pid}/stat").read_text().rpartition(")")[2].split()[1])
        os.kill(reaper, signal.SIGKILL)
        until(lambda: (now := entry(kept)).incarnation == 1 and now.state == "ready")
        assert is_gone(before.pid)


@pytest.mark.parametrize(
    ("log", "hint"),
    [
        ("OSError: [Errno 98] Address already in use", "another"),
        ("ValueError: No available memory for the cache blocks. Try increasing `gpu_memory_utilization`", "KVCACHE"),
        (
            "To serve at least one request ..., 4.5 GiB KV cache is needed, which is larger than the available",
            "KVCACHE",
        ),
        ("ValueError: Free memory on device (3.1/80 GiB) is less than desired GPU memory utilization", "utilization"),
        ("OSError: no/where is not a local folder and is not a valid model identifier", "model.name_or_path"),
        ("/usr/bin/python: No module named vllm", "pip install"),
    ],
)
def test_known_ends_are_told_from_the_log(log, hint):
    assert hint in known_error(f"INFO starting\n{log}\nRuntimeError: Engine core initialization failed").hint


def test_an_unknown_end_is_told_in_its_own_words():
    assert known_error("AssertionError: something new") is None
