"""`grpo-dist prefetch` against a Hub on this machine that answers, breaks off and disappears."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
import yaml
from fake_hub import fake_hub
from test_data_hub import write_gsm8k
from waiting import until

from grpo_dist.config.sections import ModelSection

pytestmark = pytest.mark.heavy

WEIGHTS = "owner/tiny/model.safetensors"
STATED = {
    "model": {"name_or_path": "owner/tiny", "dtype": "float32"},
    "data": {
        "name_or_path": "openai/gsm8k",
        "config": "main",
        "eval_split": "test",
        "columns": {"prompt": "question"},
        "answer_extractor": "gsm8k",
    },
    "cluster": {"gpus_per_node": 0},
}


@pytest.fixture(scope="module")
def hub_root(tmp_path_factory) -> Path:
    from grpo_dist.embedded.model import build_untrained

    root = tmp_path_factory.mktemp("hub")
    build_untrained(root / "owner" / "tiny")
    (root / "owner" / "tiny" / "pytorch_model.bin").write_bytes(b"not wanted")
    write_gsm8k(root / "openai" / "gsm8k")
    return root


class Machine:
    """A machine with a cache of its own."""

    def __init__(self, home: Path) -> None:
        self.home = home
        (home / "config.yaml").write_text(yaml.safe_dump(STATED))

    def start(self, endpoint: str, *arguments: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "grpo_dist", *arguments]
        drop = ("HF_HUB_OFFLINE", "HF_TOKEN", "HF_HUB_CACHE")
        environ = {name: value for name, value in os.environ.items() if name not in drop}
        environ |= {"HF_HOME": str(self.home / "hf"), "HF_ENDPOINT": endpoint}
        pipe = subprocess.PIPE
        return subprocess.Popen(command, cwd=self.home, env=environ, stdout=pipe, stderr=pipe, text=True)

    def __call__(self, endpoint: str, *arguments: str) -> tuple[int, str, str]:
        process = self.start(endpoint, *arguments)
        out, err = process.communicate(timeout=200)
        return process.returncode, out, err

    def findings(self, endpoint: str, code: int) -> dict[str, dict[str, Any]]:
        returned, out, err = self(endpoint, "prefetch", "config.yaml", "--json")
        assert returned == code, f"{out}\n{err}"
        return {finding["name"]: finding for finding in json.loads(out)}

    def parts(self) -> list[int]:
        return [path.stat().st_size for path in (self.home / "hf").rglob("*.part")]


def test_cut_off_in_the_middle_it_goes_on_with_the_byte_where_it_ended(tmp_path, hub_root):
    machine, released, served = Machine(tmp_path), threading.Event(), []
    size = (hub_root / WEIGHTS).stat().st_size
    with fake_hub(hub_root, stuck={WEIGHTS: released}, served=served) as endpoint:
        process = machine.start(endpoint, "prefetch", "config.yaml")
        until(lambda: machine.parts() == [size // 2], 120)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
        assert process.returncode == 128 + signal.SIGINT
        assert "the same command continues where it stopped" in err
        released.set()
        first = len(served)
        found = machine.findings(endpoint, 0)
        again = dict(served[first:])
        assert again[WEIGHTS] == size // 2
        assert "owner/tiny/config.json" not in again
        assert "owner/tiny/pytorch_model.bin" not in dict(served)
        assert machine.parts() == []
        assert set(found) == {"model", "data", "model-offline", "data-offline"}
        assert found["data"]["what"].endswith("; 3 rows in train, 3 rows in test")
        assert "loads without a network" in found["model-offline"]["what"]

        third = len(served)
        machine.findings(endpoint, 0)
        assert [file for file, _ in served[third:] if file.startswith("owner/")] == []

    code, out, _ = machine("http://127.0.0.1:9", "doctor", "config.yaml", "--json")
    doctor = {finding["name"]: finding for finding in json.loads(out)}
    assert code == 0
    assert doctor["model"]["what"] == "owner/tiny is in the cache"
    assert doctor["data"]["what"] == "openai/gsm8k is in the cache"


def test_a_part_that_is_not_what_it_should_be_is_fetched_anew(tmp_path, hub_root):
    machine, released = Machine(tmp_path), threading.Event()
    with fake_hub(hub_root, stuck={WEIGHTS: released}) as endpoint:
        process = machine.start(endpoint, "prefetch", "config.yaml")
        until(lambda: machine.parts() == [(hub_root / WEIGHTS).stat().st_size // 2], 120)
        process.kill()
        process.communicate(timeout=60)
        (part,) = (tmp_path / "hf").rglob("*.part")
        part.write_bytes(b"x" * part.stat().st_size)
        released.set()
        damaged = machine.findings(endpoint, 1)["model"]
        assert "model.safetensors arrived damaged" in damaged["what"]
        assert machine.findings(endpoint, 0)["model"]["status"] == "ok"


def test_what_cannot_be_had_is_named_and_the_rest_is_fetched(tmp_path, hub_root):
    machine = Machine(tmp_path)
    stated = {**STATED, "model": {"name_or_path": "owner/none"}}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(stated))
    with fake_hub(hub_root) as endpoint:
        found = machine.findings(endpoint, 1)
    assert found["model"]["status"] == "error"
    assert "HF_TOKEN" in found["model"]["hint"]
    assert found["data"]["status"] == "ok"
    assert "model-offline" not in found


def test_nothing_is_fetched_for_what_is_embedded(tmp_path):
    (tmp_path / "tiny.yaml").write_text("model: {name_or_path: embedded}\ndata: {name_or_path: embedded}\n")
    code, out, _ = Machine(tmp_path)("http://127.0.0.1:9", "prefetch", "tiny.yaml")
    assert (code, out) == (0, "nothing to fetch: model and data are local or embedded\n")


def test_of_a_model_one_format_of_weights_and_no_code_unless_allowed():
    from grpo_dist.training.stages.prefetch import wanted

    there = ["config.json", "tokenizer.json", "README.md", "model.safetensors", "pytorch_model.bin", "code.py"]
    there += ["original/model.safetensors", "consolidated.safetensors", "training_args.bin"]
    plain = ModelSection(name_or_path="owner/m")
    assert wanted(there, plain) == ["config.json", "tokenizer.json", "model.safetensors"]
    assert "code.py" in wanted(there, plain.model_copy(update={"trust_remote_code": True}))
    assert wanted(["config.json", "pytorch_model.bin"], plain) == ["config.json", "pytorch_model.bin"]
