"""Loading from the Hub in a fresh process, because its address and its offline switch are read at import."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from fake_hub import fake_hub

CARD = """---
configs:
- config_name: main
  data_files: [{split: train, path: main/train-*}, {split: test, path: main/test-*}]
- config_name: socratic
  data_files: [{split: train, path: socratic/train-*}]
---
"""

LOAD = """
import json, sys
from grpo_dist.config.sections import DataSection
from grpo_dist.data.sources import load_rows
from grpo_dist.errors import DataError
for case in json.loads(sys.argv[1]):
    split = case.pop("split", "train")
    try:
        print(json.dumps(load_rows(DataSection(**case), split)["question"][:]))
    except DataError as error:
        print(json.dumps(str(error)))
"""


def load(home: Path, endpoint: str, *cases: dict[str, str], **environment: str) -> list[str | list[str]]:
    """Questions that each case loads, or its error message."""
    variables = {**os.environ, "HF_HOME": str(home), "HF_ENDPOINT": endpoint, **environment}
    result = subprocess.run(
        [sys.executable, "-c", LOAD, json.dumps(cases)], env=variables, capture_output=True, text=True, timeout=120
    )
    assert result.returncode == 0, result.stderr
    return [json.loads(line) for line in result.stdout.splitlines()]


def write_gsm8k(folder: Path) -> None:
    for config, split in (("main", "train"), ("main", "test"), ("socratic", "train")):
        rows = [{"question": f"{config} {split} {number}", "answer": f"#### {number}"} for number in range(3)]
        path = folder / config / f"{split}-00000-of-00001.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "README.md").write_text(CARD)


@pytest.fixture(scope="module")
def filled(tmp_path_factory):
    """(home, answers): a cache filled from a Hub that is gone by now, and what was loaded from it."""
    root, home = tmp_path_factory.mktemp("hub"), tmp_path_factory.mktemp("home")
    write_gsm8k(root / "openai" / "gsm8k")
    write_gsm8k(root / "school" / "sums")
    gsm8k = {"name_or_path": "openai/gsm8k"}
    with fake_hub(root) as endpoint:
        answers = load(
            home,
            endpoint,
            gsm8k | {"config": "main"},
            gsm8k | {"config": "main", "split": "test[:2]", "revision": "main"},
            {"name_or_path": "school/sums"},
            gsm8k | {"config": "mian"},
            gsm8k | {"config": "main", "split": "val"},
            gsm8k | {"revision": "v9"},
            {"name_or_path": "openai/gsm9k"},
            {"name_or_path": "openai/gated"},
            gsm8k,
        )
    return home, answers


def test_loads_configuration_and_slice(filled):
    train, test, *_, known = filled[1]
    assert train == ["main train 0", "main train 1", "main train 2"]
    assert test == ["main test 0", "main test 1"]
    assert known == train


@pytest.mark.parametrize(
    ("case", "said"),
    [
        (2, "data.config: school/sums: Config name is missing"),
        (2, "['main', 'socratic']"),
        (3, "BuilderConfig 'mian' not found. Available: ['main', 'socratic']\n  → --set data.config=NAME"),
        (4, "data.split: openai/gsm8k: Unknown split \"val\". Should be one of ['train', 'test']."),
        (5, "data.revision: openai/gsm8k has no revision 'v9' on the Hub\n  → --set data.revision=main"),
        (6, "no data set 'openai/gsm9k' on the Hub, and no such local path"),
        (7, "'openai/gated' is a gated dataset on the Hub"),
        (7, "accept its conditions on https://huggingface.co/datasets/openai/gated, then: export HF_TOKEN="),
    ],
)
def test_what_the_hub_lacks(filled, case, said):
    assert said in filled[1][case]


@pytest.mark.parametrize("offline", [{}, {"HF_HUB_OFFLINE": "1"}], ids=["no network", "HF_HUB_OFFLINE"])
def test_falls_back_to_the_cache_or_says_how_to_get_the_data(filled, offline):
    cached, revision, other = load(
        filled[0],
        f"http://127.0.0.1:{closed_port()}",
        {"name_or_path": "openai/gsm8k", "config": "main"},
        {"name_or_path": "openai/gsm8k", "config": "main", "revision": "main"},
        {"name_or_path": "open-r1/DAPO-Math-17k-Processed"},
        **offline,
    )
    assert cached == ["main train 0", "main train 1", "main train 2"]
    assert "the local cache cannot tell revision 'main' from others" in revision
    assert "the Hub cannot be reached for 'open-r1/DAPO-Math-17k-Processed' (" in other
    assert (
        "hf download --repo-type dataset open-r1/DAPO-Math-17k-Processed --local-dir DAPO-Math-17k-Processed" in other
    )
    copy = "./DAPO-Math-17k-Processed --set data.like=open-r1/DAPO-Math-17k-Processed --set data.config=en"
    assert f"--set data.name_or_path={copy}" in other
    assert "HF_HUB_OFFLINE=1" in other


def test_a_name_without_network_at_all(tmp_path):
    (answer,) = load(tmp_path, "https://huggingface.co.invalid", {"name_or_path": "openai/gsm8k"})
    assert "the Hub cannot be reached for 'openai/gsm8k'" in answer


def closed_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.mark.heavy
def test_a_hub_that_never_answers_is_given_up_on(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        (answer,) = load(
            tmp_path, f"http://127.0.0.1:{silent.getsockname()[1]}", {"name_or_path": "openai/gsm8k", "config": "main"}
        )
    assert "the Hub cannot be reached for 'openai/gsm8k' (" in answer
