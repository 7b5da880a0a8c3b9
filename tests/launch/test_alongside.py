from __future__ import annotations

import io
from pathlib import Path

import pytest

from grpo_dist.config import load_config
from grpo_dist.errors import LaunchError, RunDirectoryError
from grpo_dist.launch.local import run_alongside
from grpo_dist.plan import plan_run
from grpo_dist.progress import Terminal
from grpo_dist.render.files import render_files
from grpo_dist.run.directory import RunDirectory

WORKER = """
import json, os, sys
from pathlib import Path
from grpo_dist.progress import say
request = json.loads(sys.argv[1])
say("CUDA %r" % os.environ.get("CUDA_VISIBLE_DEVICES"))
print("noise")
Path(request["result"]).write_text("done") if request["works"] else sys.exit(3)
"""


@pytest.fixture
def run(tmp_path, monkeypatch) -> Path:
    (tmp_path / "worker_beside.py").write_text(WORKER)
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{Path(__file__).parent.parent.parent}")
    config = tmp_path / "x.yaml"
    config.write_text("model: {name_or_path: embedded, dtype: float32}\ndata: {name_or_path: embedded}\n")
    stated = load_config(config, ["cluster.gpus_per_node=0"])
    RunDirectory(tmp_path / "run").create(render_files(stated, plan_run(stated)))
    return tmp_path / "run"


def work(run: Path, result: Path, *, works: bool) -> str:
    screen, request = io.StringIO(), {"result": str(result), "works": works}
    run_alongside("worker_beside", request, run=run, result=result, terminal=Terminal(screen))
    return screen.getvalue()


def test_it_works_on_the_device_of_the_plan_and_leaves_the_result_alone(run, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5")
    assert work(run, run / "made" / "it", works=True) == "CUDA ''\n"
    assert [path.name for path in (run / "made").iterdir()] == ["it"]


def test_its_log_stays_when_it_fails(run):
    with pytest.raises(LaunchError, match=r"(?s)exit code 3.*noise.*log: .*it\.log") as caught:
        work(run, run / "made" / "it", works=False)
    assert (run / "made" / "it.log").is_file()
    assert str(run / "made" / "it.log") in str(caught.value)


def test_a_place_that_cannot_be_made_is_told(run):
    with pytest.raises(RunDirectoryError, match="cannot be written"):
        work(run, run / "config.yaml" / "it", works=True)
