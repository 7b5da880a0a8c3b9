"""The doctor on machines that lack something: other programs and packages are stand-ins, the doctor is the real one."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import resource
import socket
import threading
from collections.abc import Iterator
from configparser import ConfigParser
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from grpo_dist.config import RunConfig
from grpo_dist.doctor import devices, doctor_context, examine, host, hub, packages, slurm
from grpo_dist.findings import Finding, any_error
from grpo_dist.plan import plan_run

ROOT = Path(__file__).parents[2]
CPU = {"cluster": {"gpus_per_node": 0}}
TWO_GPUS = {"cluster": {"gpus_per_node": 2}}

TORCH = """
__version__ = "2.13.0"
class version: cuda = "13.0"
class cuda:
    is_available = lambda: True
    device_count = lambda: 2
    class nccl: version = lambda: (2, 29, 3)
    is_bf16_supported = lambda including_emulation=True: {bfloat16}
    get_device_name = lambda index: "NVIDIA H100"
    mem_get_info = lambda index: ({free}, 85 * 10**9)
"""
SMI = """case "$*" in
  *driver*) echo 580.95.05 ;;
  *) echo "4711, /usr/bin/python someone-elses.py, 61000 MiB" ;;
esac"""
PARTITIONS = "short|up|2:00:00|4|gpu:h100:8(S:0-1)\nlong|up|7-00:00:00|2|gpu:4,craynetwork:4\ncpu|up|infinite|9|(null)"


def config(**sections: Any) -> RunConfig:
    embedded = {"name_or_path": "embedded"}
    return RunConfig.model_validate({"model": embedded, "data": embedded, **sections})


def case(tmp_path: Path, environ: dict[str, str] | None = None, **sections: Any):
    stated = config(**sections)
    return doctor_context(
        stated, plan_run(stated), environ={**os.environ, **(environ or {})}, directory=tmp_path / "runs"
    )


def by_name(found: Iterator[Finding]) -> dict[str, Finding]:
    return {finding.name: finding for finding in found}


@pytest.fixture
def programs(tmp_path, monkeypatch):
    """Puts a program of this name, a shell script, in front of all others."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")

    def add(name: str, script: str) -> None:
        (folder / name).write_text(f"#!/bin/sh\n{script}\n")
        (folder / name).chmod(0o755)

    add("sinfo", "exit 1")
    add("nvidia-smi", "exit 9")
    return add


@pytest.fixture
def package(tmp_path, monkeypatch):
    """Installs the metadata of another version of a package."""
    folder = tmp_path / "packages"
    folder.mkdir()
    monkeypatch.syspath_prepend(str(folder))

    def add(name: str, version: str) -> None:
        place = folder / f"{name}-{version}.dist-info"
        place.mkdir()
        (place / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")

    return add


def with_torch(tmp_path: Path, source: str) -> dict[str, str]:
    """An environment in which `import torch` gives this."""
    (tmp_path / "torch.py").write_text(source)
    return {"PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}


def test_the_tested_ranges_are_those_of_the_package():
    parser = ConfigParser()
    parser.read(ROOT / "setup.cfg")
    stated = {line for extra in parser["options.extras_require"].values() for line in extra.split("\n") if ">=" in line}
    assert {f"{one.name}{one.requirement}" for one in packages.TESTED} == {line.strip() for line in stated}


def test_versions_that_were_not_tested_and_packages_that_are_missing(tmp_path, package, monkeypatch):
    package("transformers", "6.0.1")
    package("trl", "1.15.0")
    monkeypatch.setattr(packages, "TESTED", (*packages.TESTED, packages.Tested("wombat", "train", "1")))
    found = by_name(packages.findings(case(tmp_path, **CPU)))
    assert found["transformers"].status == "warning"
    assert found["transformers"].hint == "pip install 'transformers>=5.10,<5.18'"
    assert found["trl"].status == "ok"
    assert found["trl-on-cpu"].status == "error"
    assert (found["wombat"].status, found["wombat"].hint) == ("error", "pip install 'grpo-dist[train]'")
    flash = {"model": {"name_or_path": "embedded", "attn_implementation": "flash_attention_2"}}
    attention = by_name(packages.findings(case(tmp_path, **CPU, **flash)))["attention"]
    assert (attention.status, attention.hint) == ("error", "--set model.attn_implementation=sdpa")
    assert "wombat" not in by_name(packages.findings(doctor_context(None, None)))


def test_an_unsloth_that_is_asked_for_and_cannot_train_here(tmp_path, package):
    package("unsloth", "2026.10.8")
    asked = {"model": {"name_or_path": "embedded", "backend": "unsloth"}}
    found = by_name(packages.findings(case(tmp_path, **CPU, **asked)))["backend"]
    assert (found.status, found.what) == (
        "error",
        "model.backend: Unsloth 2026.10.8 needs a GPU; 2026.10.9 is the first that does not",
    )
    assert found.hint == "pip install 'grpo-dist[unsloth]', or --set model.backend=trl"
    assert "backend" not in by_name(packages.findings(case(tmp_path, **CPU)))


def test_gpus_that_are_there_and_free(tmp_path, programs):
    programs("nvidia-smi", SMI)
    environ = with_torch(tmp_path, TORCH.format(bfloat16=True, free=84 * 10**9))
    found = by_name(devices.findings(case(tmp_path, environ, **TWO_GPUS)))
    assert not any_error(found.values())
    assert found["driver"].what == "NVIDIA driver 580.95.05"
    assert found["cuda"].what == "PyTorch 2.13.0, CUDA 13.0, NCCL 2.29.3"
    assert found["gpu-1"].status == "ok"


def test_gpus_that_others_use_are_too_few_or_cannot_do_it(tmp_path, programs):
    programs("nvidia-smi", SMI)
    environ = with_torch(tmp_path, TORCH.format(bfloat16=False, free=10**6))
    found = by_name(devices.findings(case(tmp_path, environ, cluster={"gpus_per_node": 4})))
    assert "the plan needs" in found["gpu-0"].what
    assert "4711 /usr/bin/python someone-elses.py, 61000 MiB" in found["gpu-0"].hint.replace("4711,", "4711")
    assert found["gpus"].what == "2 of the 4 GPUs planned for this machine are seen"
    assert found["gpus"].hint == "--set cluster.gpus_per_node=2"
    assert found["dtype"].status == "error"
    alone = by_name(devices.findings(doctor_context(None, None, environ={**os.environ, **environ})))
    assert alone["gpu-0"].status == "warning"
    assert not any_error(alone.values())


def test_no_driver_and_a_torch_for_cpus_or_none_that_works(tmp_path, programs):
    found = by_name(devices.findings(case(tmp_path, **TWO_GPUS)))
    assert {name for name, finding in found.items() if finding.status == "error"} == {"driver", "cuda", "gpus"}
    assert not any_error(devices.findings(case(tmp_path, **CPU)))
    broken = with_torch(tmp_path, "raise ImportError('libcudart.so.13: cannot open shared object file')")
    found = by_name(devices.findings(case(tmp_path, broken, **CPU)))
    assert "libcudart.so.13: cannot open shared object file" in found["torch-import"].what


def test_disks_and_shared_memory_that_are_too_small(tmp_path, monkeypatch):
    monkeypatch.setattr(host, "RUN_BYTES", 2**60)
    monkeypatch.setattr(host, "SHARED_PER_PROCESS", 2**60)
    found = by_name(host.findings(case(tmp_path, **TWO_GPUS)))
    assert found["run-directory"].status == "error"
    assert found["hub-cache"].status == "ok"
    assert "--shm-size" in found["shared-memory"].hint


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EPERM])
def test_a_file_system_without_locks_is_found(tmp_path, monkeypatch, number):
    def refuse(*_):
        raise OSError(number, os.strerror(number))

    where = replace(case(tmp_path, **TWO_GPUS), directory=tmp_path / "runs" / "new")
    assert by_name(host.findings(where))["file-locks"].status == "ok"
    monkeypatch.setattr(fcntl, "flock", refuse)
    found = by_name(host.findings(where))["file-locks"]
    assert found.status == "error"
    assert str(tmp_path) in found.what
    assert "-o flock" in found.hint


def test_limits_that_are_low():
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (1024, before[1]))
    try:
        low = by_name(host.limit_findings(doctor_context(None, None)))["open-files"]
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    assert (low.status, low.what, low.hint) == ("warning", "1,024, fewer than 4,096", "ulimit -n 4096")


def test_a_limit_that_only_root_can_raise(monkeypatch):
    monkeypatch.setattr(resource, "getrlimit", lambda _: (256, 256))
    low = by_name(host.limit_findings(doctor_context(None, None)))["open-files"]
    assert low.hint == "only root can raise it: `* hard nofile 4096` in /etc/security/limits.conf"


def test_a_port_that_is_taken_and_an_interface_that_is_not_there(tmp_path, programs):
    with socket.create_server(("", 0)) as taken:
        environ = {"MASTER_PORT": str(taken.getsockname()[1]), "NCCL_SOCKET_IFNAME": "ib7"}
        found = by_name(host.network_findings(case(tmp_path, environ, **TWO_GPUS)))
    assert "cannot be had: Address already in use" in found["port"].what
    assert found["interface-pin"].status == "error"
    assert "there is no interface ib7" in found["interface-pin"].what
    assert "port" not in by_name(host.network_findings(case(tmp_path, **CPU)))


@pytest.mark.parametrize(
    ("text", "minutes"),
    [("90", 90), ("1:30:00", 90), ("90:30", 90.5), ("1-0", 1440), ("2-12:30", 3630), ("infinite", float("inf"))],
)
def test_times_as_slurm_writes_them(text, minutes):
    assert slurm.minutes_of(text) == minutes


@pytest.mark.parametrize(
    ("cluster", "name", "hint"),
    [
        ({"partition": "shrot"}, "partition", "--set cluster.partition=short"),
        ({"partition": "long", "gpus_per_node": 8}, "gres", "--set cluster.gpus_per_node=4"),
        ({"partition": "long", "gpus_per_node": 4, "nodes": 4}, "nodes", "--set cluster.nodes=2"),
        ({"partition": "short", "time": "1-00:00:00"}, "time-limit", "--set cluster.time=2:00:00"),
    ],
)
def test_what_no_partition_offers(tmp_path, programs, cluster, name, hint):
    programs("sinfo", f"cat <<'END'\n{PARTITIONS}\nEND")
    where = case(tmp_path, cluster={"time": "1:00:00", **cluster})
    assert not where.here
    errors = [finding for finding in slurm.findings(where) if finding.status == "error"]
    assert [(error.name, error.hint) for error in errors] == [(name, hint)]


def test_a_login_node_needs_no_gpu_and_a_node_of_the_job_does(tmp_path, programs):
    programs("sinfo", f"cat <<'END'\n{PARTITIONS}\nEND")
    assert not any_error(devices.findings(case(tmp_path, **TWO_GPUS)))
    assert any_error(devices.findings(case(tmp_path, {"SLURM_JOB_ID": "7"}, **TWO_GPUS)))
    assert not any_error(slurm.findings(case(tmp_path, cluster={"nodes": 2, "gpus_per_node": 4})))


def test_slurm_that_does_not_answer_matters_to_several_nodes_only(tmp_path, programs):
    assert [finding.status for finding in slurm.findings(case(tmp_path, cluster={"nodes": 2}))] == ["error"]
    assert list(slurm.findings(case(tmp_path, **CPU))) == []


@pytest.fixture
def answering_hub():
    """Knows `owner/there`, and what it was asked for in the header Authorization."""
    seen: list[str | None] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            seen.append(self.headers.get("Authorization"))
            self.send_response(200 if self.path.endswith("owner/there") or "limit=1" in self.path else 404)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *args: Any) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}", seen
    server.shutdown()
    server.server_close()


def snapshot(home: Path, *files: str) -> None:
    folder = home / "hub" / "models--owner--model" / "snapshots" / "c0ffee"
    folder.mkdir(parents=True, exist_ok=True)
    references = folder.parents[1] / "refs"
    references.mkdir(exist_ok=True)
    (references / "main").write_text("c0ffee")
    for name in files:
        (folder / name).write_text("{}")
    index = {"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def test_what_is_in_the_cache_in_part_or_nowhere(tmp_path, answering_hub):
    home = tmp_path / "home"
    offline = {"HF_HOME": str(home), "HF_HUB_OFFLINE": "1", "HF_HUB_CACHE": ""}
    sections = {"model": {"name_or_path": "owner/model"}, **CPU}

    def look(environ: dict[str, str], **more: Any) -> dict[str, Finding]:
        now = config(**{**sections, **more})
        return by_name(hub.findings(doctor_context(now, None, environ=environ)))

    snapshot(home, "config.json", "tokenizer.json", "model-00001-of-00002.safetensors")
    partly = look(offline)["model"]
    assert partly.status == "error"
    assert "is in the cache but for model-00002-of-00002.safetensors" in partly.what
    assert "HF_HUB_OFFLINE is set" in partly.what
    assert "grpo-dist prefetch" in partly.hint
    snapshot(home, "model-00002-of-00002.safetensors")
    assert look(offline)["model"].what == "owner/model is in the cache"

    both = home / "hub" / "models--owner--model" / "snapshots" / "c0ffee" / "pytorch_model.bin.index.json"
    both.write_text(json.dumps({"weight_map": {"a": "pytorch_model.bin"}}))
    assert look(offline)["model"].status == "ok"

    data = {"name_or_path": "owner/My-Data", "config": "main"}
    assert look(offline, data=data)["data"].status == "error"
    made = home / "datasets" / "owner___my-data" / "main" / "0.0.0" / "c0ffee"
    made.mkdir(parents=True)
    assert look(offline, data=data)["data"].status == "error"
    (made / "dataset_info.json").write_text("{}")
    assert look(offline, data=data)["data"].what == "owner/My-Data is in the cache"
    assert look(offline, data={**data, "config": "other"})["data"].status == "error"
    assert "may not be v2" in look(offline, data={**data, "revision": "v2"})["data"].what

    online = {"HF_HOME": str(home), "HF_ENDPOINT": answering_hub[0], "HF_TOKEN": "hf_verysecret"}
    there = look(online, data={"name_or_path": "owner/there"})["data"]
    assert (there.status, there.what) == ("ok", "owner/there is not in the cache; the Hub has it")
    nowhere = look(online, data={"name_or_path": "owner/nowhere"})["data"]
    assert nowhere.status == "error"
    assert "check the spelling and HF_TOKEN" in nowhere.what
    assert answering_hub[1] == ["Bearer hf_verysecret"] * 2
    local = look(online, data={"name_or_path": str(tmp_path / "none.jsonl")})["data"]
    assert local.status == "error"


def test_no_secret_is_shown(tmp_path, programs, monkeypatch):
    environ = {"HF_TOKEN": "hf_verysecret", "WANDB_API_KEY": "wandbverysecret", "HF_HUB_OFFLINE": "1"}
    where = case(tmp_path, environ, tracking=["wandb"], **CPU)
    found = examine(where)
    assert "verysecret" not in json.dumps([finding.to_dict() for finding in found])
    assert by_name(host.secret_findings(where))["wandb-key"].what == "there"
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    assert by_name(host.secret_findings(case(tmp_path, tracking=["wandb"], **CPU)))["wandb-key"].status == "warning"
    assert all(finding.hint for finding in found if finding.status != "ok")


def test_an_examination_that_breaks_stops_no_other(tmp_path, programs, monkeypatch):
    programs("sinfo", "echo 'a|up|sometimes|4|gpu:8'")
    found = by_name(examine(case(tmp_path, **CPU)))
    assert found["slurm"].what.startswith("the examination itself failed: ValueError")
    assert "hub-token" in found
