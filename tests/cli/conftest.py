"""Stand-ins for Slurm's programs, and a home without settings of a site."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import pytest

SBATCH = """\
for argument; do printf '%s\\t' "$argument"; done >>"$BOX/sbatch"; echo >>"$BOX/sbatch"
[ ! -e "$BOX/refuse" ] || [[ "$*" != *"$(cat "$BOX/only")"* ]] || { cat "$BOX/refuse" >&2; exit 1; }
tasks= directory=$PWD
for argument; do
  case $argument in
    --test-only) cat >"$BOX/script"; echo "sbatch: Job 9 to start at noon in partition gpu" >&2; exit 0 ;;
    --array=*) tasks=${argument#--array=0-}; tasks=${tasks%%%*} ;;
    --chdir=*) directory=${argument#--chdir=} ;;
  esac
done
id=$(($(cat "$BOX/id" 2>/dev/null || echo 40) + 1)); echo "$id" >"$BOX/id"
row='PENDING|Priority|10:00||2026-11-30T17:00:00|0|box'
if [ -z "$tasks" ]; then echo "$id|$row|$directory|" >>"$BOX/queue"; fi
for ((task = 0; task <= ${tasks:--1}; task++)); do
  echo "${id}_$task|$row|$directory|" >>"$BOX/queue"
done
echo "$id;box"
"""
SQUEUE = """\
[ ! -e "$BOX/down" ] || { echo "slurm_load_jobs error: Unable to contact slurm controller" >&2; exit 1; }
[ -z "$SQUEUE_STATES" ] || exit 3
cat "$BOX/queue" 2>/dev/null || true
"""
SCANCEL = """\
echo "$1" >>"$BOX/scancel"
sed -i -E "s/^($1(_[0-9]+)?)\\|[A-Z]+\\|[^|]*/\\1|CANCELLED|None/" "$BOX/queue"
"""
SCONTROL = """\
directory=$(sed -n -E "s/^$4(_0)?\\|.*box\\|(.*)\\|$/\\2/p" "$BOX/queue")
echo "JobId=$4 JobState=PENDING SubmitTime=2026-11-30T17:00:00 WorkDir=$directory StdOut=$directory/slurm-$4.out"
"""
SINFO = "printf 'gpu long\\ncpu\\n'"
PROGRAMS = {"sbatch": SBATCH, "squeue": SQUEUE, "scancel": SCANCEL, "sinfo": SINFO, "scontrol": SCONTROL}


@dataclass(frozen=True)
class StubSlurm:
    """What the stand-ins were asked, and what they answer."""

    box: Path

    def refuse(self, words: str, only: str = "") -> None:
        """sbatch says this from now on, to calls with such an option."""
        (self.box / "refuse").write_text(words)
        (self.box / "only").write_text(only)

    def is_down(self) -> None:
        (self.box / "down").touch()

    def queue(self, *lines: str) -> None:
        """Replace what squeue shows: `id|state|reason|time left|nodes|directory`, submitted on the same day.

        `submitted|restarts|cluster` may stand before the directory.
        """
        rows = [line if line.count("|") > 5 else line.replace("|/", "|2026-11-30T17:00:00|0|box|/") for line in lines]
        (self.box / "queue").write_text("".join(f"{row}|\n" for row in rows))

    def submissions(self) -> list[list[str]]:
        """The arguments of each call of sbatch but for questions."""
        path = self.box / "sbatch"
        lines = path.read_text().splitlines() if path.exists() else []
        calls = [line.split("\t")[:-1] for line in lines]
        return [call for call in calls if "--test-only" not in call]

    def cancelled(self) -> list[str]:
        return (self.box / "scancel").read_text().split()


@pytest.fixture
def slurm(tmp_path, monkeypatch):
    box = tmp_path / "slurm"
    (box / "bin").mkdir(parents=True)
    for name, text in PROGRAMS.items():
        program = box / "bin" / name
        program.write_text(f"#!/usr/bin/env bash\nBOX={box}\n{text}")
        program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{box / 'bin'}{os.pathsep}{os.environ['PATH']}")
    return StubSlurm(box)


@pytest.fixture(autouse=True)
def no_site(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "no settings of a site"))
    monkeypatch.delenv("GRPO_DIST_SITE", raising=False)


@pytest.fixture
def workplace(tmp_path, monkeypatch):
    """A directory to work in, with a configuration, under a name no shell would forgive."""
    place = tmp_path / "it's a home"
    place.mkdir()
    (place / "tiny.yaml").write_text(
        "model: {name_or_path: embedded}\ndata: {name_or_path: embedded}\ncluster: {gpus_per_node: 0}\n"
        "grpo: {prompts_per_step: 4, num_generations: 4, max_completion_length: 8, max_steps: 30}\n"
    )
    monkeypatch.chdir(place)
    return place
