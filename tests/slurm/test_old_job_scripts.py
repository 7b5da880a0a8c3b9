"""Job scripts that were rendered before the package was re-arranged still find what they call."""

from __future__ import annotations

import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    ("old", "new", "arguments"),
    [
        ("grpo_dist.cluster.job", "grpo_dist.slurm.job", ["no-such-verb"]),
    ],
)
def test_an_old_address_ends_as_the_new_one_does(old, new, arguments, tmp_path):
    ends = [
        subprocess.run([sys.executable, "-m", name, *arguments], capture_output=True, text=True, cwd=tmp_path)
        for name in (old, new)
    ]
    assert ends[0].returncode == ends[1].returncode == 2
    assert ends[0].stderr == ends[1].stderr != ""


def test_the_old_address_of_a_node_has_its_supervisor():
    code = "import grpo_dist.cluster.node as old, grpo_dist.supervisor.node as new; print(old.main is new.main)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "True\n"
