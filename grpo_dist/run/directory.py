"""The run directory, which holds the whole state of a run: the path of each file, its creation, its lock."""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import yaml

from grpo_dist.errors import RunDirectoryError
from grpo_dist.masking import plain_secrets

LOCK_TRIES, LOCK_PAUSE_SECONDS = 4, 0.1
ATTEMPT_VARIABLE = "GRPO_DIST_ATTEMPT"
"""Environment variable with the log directory of the attempt a process belongs to."""


@dataclass(frozen=True)
class RunDirectory:
    """Paths of one run. Only the methods that say so read or create anything."""

    path: Path

    @property
    def config(self) -> Path:
        return self.path / "config.yaml"

    @property
    def started(self) -> Path:
        """The configuration the run is trained with. `config.yaml` must say the same."""
        return self.path / "started.yaml"

    @property
    def started_digest(self) -> Path:
        """SHA-256 of `started.yaml`, as `sha256sum --check` reads it."""
        return self.path / "started.sha256"

    @property
    def plan(self) -> Path:
        return self.path / "plan.json"

    @property
    def prepared(self) -> Path:
        """Written last by the prepare stage: what was kept and dropped."""
        return self.path / "prepared.json"

    @property
    def train_data(self) -> Path:
        return self.path / "data" / "train.parquet"

    @property
    def heldout_data(self) -> Path:
        return self.path / "data" / "heldout.parquet"

    @property
    def warm_start_data(self) -> Path:
        """What the warm start was trained on: messages, texts, token ids and which of them count in the loss."""
        return self.path / "data" / "warm_start.parquet"

    @property
    def source_rows(self) -> Path:
        """Of a filter: the original rows of its problems."""
        return self.path / "data" / "source.parquet"

    @property
    def pass_rates(self) -> Path:
        """Of a filter: one line for each problem the model has answered."""
        return self.path / "pass_rates.jsonl"

    @property
    def sampled(self) -> Path:
        """Of a filter: written when the model has answered all problems."""
        return self.path / "sampled.json"

    @property
    def model(self) -> Path:
        """The embedded model; other models stay where they are."""
        return self.path / "model"

    @property
    def tokenizer(self) -> Path:
        return self.path / "tokenizer"

    @property
    def warm_start(self) -> Path:
        """The adapter after the supervised warm start."""
        return self.path / "warm_start"

    @property
    def rewards_preflight(self) -> Path:
        """What the rewards returned for completions of known quality, before training."""
        return self.path / "rewards_preflight.json"

    @property
    def metrics(self) -> Path:
        return self.path / "metrics.jsonl"

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def replicas(self) -> Path:
        """The registry of rollout servers: one file each, and the key they require."""
        return self.path / "replicas"

    @property
    def policies(self) -> Path:
        """Adapters for the rollout servers to load; the newest is kept until the next one."""
        return self.path / "policies"

    @property
    def adapter(self) -> Path:
        """The trained adapter; it exists only once training has ended."""
        return self.path / "adapter"

    @property
    def finished(self) -> Path:
        """Results from before the run was extended: `step-N/` with adapter, comparison, report, metrics."""
        return self.path / "finished"

    @property
    def comparison(self) -> Path:
        return self.path / "comparison.json"

    @property
    def comparison_parts(self) -> Path:
        """Answers of each process; removed once the comparison is written."""
        return self.path / ".comparison"

    @property
    def report(self) -> Path:
        return self.path / "report.html"

    @property
    def job(self) -> Path:
        """The Slurm job it was last submitted as."""
        return self.path / "job.json"

    @property
    def environment(self) -> Path:
        """What the run uses: packages, devices, and the chosen backend."""
        return self.path / "environment.json"

    @property
    def unsloth_cache(self) -> Path:
        """Where Unsloth writes the code it generates from TRL."""
        return self.path / "unsloth_compiled_cache"

    @property
    def debug(self) -> Path:
        """Of a debug run: what was changed, and its findings."""
        return self.path / "debug.json"

    @property
    def longest_batch(self) -> Path:
        """Of a debug run: the result of a step with the longest prompts and full completions."""
        return self.path / "longest_batch.json"

    @property
    def logs(self) -> Path:
        return self.path / "logs"

    @property
    def heartbeat(self) -> Path:
        """The last finished step and its time; written by training."""
        return self.path / "heartbeat.json"

    @property
    def stop_request(self) -> Path:
        """Asks training to save at the next step and stop; the text says why."""
        return self.path / "stop-request"

    @property
    def failure(self) -> Path:
        """Why the last attempt failed; absent if it did not."""
        return self.path / "failure.json"

    def exists(self) -> bool:
        return self.config.is_file()

    def create(self, files: Mapping[str, str]) -> None:
        """Create the directory with these files (relative path → text), all of them or nothing.

        Raises:
            RunDirectoryError: the path exists already, or cannot be written.
        """
        draft = self.path.with_name(f".{self.path.name}.{uuid.uuid4().hex[:8]}")
        try:
            draft.mkdir(parents=True)
            for name, text in files.items():
                (draft / name).parent.mkdir(parents=True, exist_ok=True)
                write_atomically(draft / name, text, mode_of(name, text))
            # Fails unless the target is absent or an empty directory, so of two runs only one succeeds.
            os.rename(draft, self.path)
        except OSError as error:
            shutil.rmtree(draft, ignore_errors=True)
            raise RunDirectoryError(
                f"{self.path}: the run directory cannot be made ({error.strerror})",
                hint="choose another place with --output DIR",
            ) from error

    def attempts(self) -> list[Path]:
        """The log directories of all attempts, in their order."""
        found = (re.fullmatch(r"attempt-(\d+)", path.name) for path in self.logs.glob("attempt-*"))
        return [self.logs / f"attempt-{number}" for number in sorted(int(match[1]) for match in found if match)]

    def new_attempt(self) -> Path:
        """Create and return the log directory of the next attempt."""
        last = self.attempts()[-1:]
        attempt = self.logs / f"attempt-{int(last[0].name.rpartition('-')[2]) + 1 if last else 1}"
        attempt.mkdir(parents=True)
        return attempt

    @contextmanager
    def locked(self, owner: str = "") -> Iterator[None]:
        """Lock the run; `owner` is shown to others.

        The kernel releases the lock when the process ends, so a killed run never blocks its own resume.

        Raises:
            RunDirectoryError: another process holds it.
        """
        with open(self.path / ".lock", "a+") as handle:
            try:
                _lock(handle)
            except BlockingIOError as error:
                who = self.owner()
                raise RunDirectoryError(
                    f"{self.path}: this run is still going on{f' ({who})' if who else ''}",
                    hint="wait for it, or stop it first",
                ) from error
            handle.truncate(0)
            handle.write(owner)
            handle.flush()
            yield

    def is_idle(self) -> bool:
        """Whether no process holds the lock."""
        try:
            with open(self.path / ".lock", "a+") as handle:
                fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def owner(self) -> str:
        """Who held the lock last."""
        try:
            return (self.path / ".lock").read_text(encoding="utf-8")
        except OSError:
            return ""


def mode_of(name: str, text: str) -> int:
    """The permissions of a rendered file, less the umask: only its owner reads a configuration that states a secret."""
    return 0o600 if name.endswith(".yaml") and any(plain_secrets(yaml.safe_load(text))) else 0o666


def _lock(handle: IO[str]) -> None:
    """Lock the file; one who looks whether it is locked holds it for an instant as well."""
    for _ in range(LOCK_TRIES - 1):
        with suppress(BlockingIOError):
            return fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        time.sleep(LOCK_PAUSE_SECONDS)
    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)


def write_atomically(path: Path, text: str, mode: int = 0o666) -> None:
    """Write a file so that readers, even after a crash, see either the old or the new text, never a part of it."""
    draft = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
    try:
        with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "w", encoding="utf-8") as handle:
            handle.write(text)
            handle.flush()
            os.fsync(handle.fileno())
        os.replace(draft, path)
    finally:
        draft.unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
    """Write JSON atomically; NaN is refused."""
    write_atomically(path, json.dumps(value, indent=2, allow_nan=False, ensure_ascii=False) + "\n")
