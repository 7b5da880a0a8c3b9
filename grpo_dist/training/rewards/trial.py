"""Runs reward functions on cases: each function in its own process, each call with a time limit."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from multiprocessing import Pipe
from typing import Any

from grpo_dist.config.sections import RewardFunction
from grpo_dist.findings import Finding
from grpo_dist.rewards.guard import Batch
from grpo_dist.rewards.load import LoadedReward
from grpo_dist.rewards.preflight.cases import Case
from grpo_dist.rewards.preflight.trial import RewardResult, Values
from grpo_dist.training.rewards.worker import Answer

CALL_SECONDS = 120.0
START_SECONDS = 300.0
"""Seconds for the user's imports."""

ToBatch = Callable[[Case], Batch]


class RewardWorker:
    """The process of one function; `call` never raises and never exceeds its time limit by much."""

    def __init__(self, functions: Sequence[RewardFunction], index: int, name: str, *, limit_s: float) -> None:
        self.name, self.limit_s, self.ready = name, limit_s, False
        self.fate: Finding | None = None
        self.link, theirs = Pipe()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "grpo_dist.training.rewards.worker", str(theirs.fileno())],
            pass_fds=(theirs.fileno(),),
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
        theirs.close()
        with contextlib.suppress(OSError):  # it has already exited; the first call reports it
            self.link.send((tuple(functions), index))

    def call(self, case: str, batch: Batch) -> Answer:
        """The result of the function for a case; once its process has exited, always the reason it exited."""
        if self.fate is None:
            try:
                return self._asked(case, batch)
            except (EOFError, OSError):
                self.fate = self._crashed(case)
        return self.fate

    def _asked(self, case: str, batch: Batch) -> Answer:
        if not self.ready and self._reply(START_SECONDS) is None:
            self.fate = self._stalled(case, f"was not imported within {START_SECONDS:g} s")
            return self.fate
        self.ready = True
        self.link.send(batch)
        answer = self._reply(self.limit_s)
        if answer is None:
            what = f"did not return within {self.limit_s:g} s for {len(batch)} completions"
            answer = self.fate = self._stalled(case, what)
        elif isinstance(answer, Finding):
            answer = replace(answer, what=_placed(answer.what, case))
        return answer

    def _reply(self, limit_s: float) -> Any:
        """None when there is none in time."""
        return self.link.recv() if self.link.poll(limit_s) else None

    def _stalled(self, case: str, what: str) -> Finding:
        self.end()
        return Finding(
            "reward-stalls",
            "error",
            _placed(f"{self.name} delays the run: it {what}", case),
            f"give {self.name} a time-out of its own: a run would wait forever",
        )

    def end(self) -> None:
        """Processes it started end with it."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self.link.close()

    def _crashed(self, case: str) -> Finding:
        self.link.close()
        code = self.process.wait()
        how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        return Finding(
            "reward-crashes",
            "error",
            _placed(f"{self.name} ended its process ({how})", case),
            f"look for os._exit, or for a native library that crashes, in {self.name}",
        )


@dataclass
class RewardRunner:
    """All functions of a configuration, each with its process; a context manager, so that none stays behind."""

    functions: Sequence[RewardFunction]
    rewards: Sequence[LoadedReward]
    to_batch: ToBatch
    limit_s: float = CALL_SECONDS

    def __enter__(self) -> RewardRunner:
        self.workers = [
            RewardWorker(self.functions, index, reward.name, limit_s=self.limit_s)
            for index, reward in enumerate(self.rewards)
        ]
        return self

    def __exit__(self, *_: object) -> None:
        for worker in self.workers:
            worker.end()

    def fresh(self) -> list[RewardResult]:
        """Each function before it was called."""
        return [
            RewardResult(reward.name, reward.weight, {}, 0.0, asks_for_columns=reward.asks_for_columns)
            for reward in self.rewards
        ]

    def tried(self, before: Sequence[RewardResult], cases: Sequence[Case]) -> list[RewardResult]:
        """`before`, extended by what each function paid in these cases."""
        return [self._tried(one, worker, cases) for one, worker in zip(before, self.workers, strict=True)]

    def _tried(self, one: RewardResult, worker: RewardWorker, cases: Sequence[Case]) -> RewardResult:
        for case in cases:
            answer = worker.call(case.name, self.to_batch(case))
            if isinstance(answer, Finding):
                one = replace(one, failures=(*one.failures, answer))
            else:
                one = _with(one, case, *answer)
            if worker.fate is not None:
                break
        return one


def _placed(what: str, case: str) -> str:
    return f"{what}\n  in the case `{case}`"


def _with(one: RewardResult, case: Case, values: list[Any], seconds: float) -> RewardResult:
    paid: dict[str, Values] = {**one.paid, case.name: tuple(values)}
    slowest = max(one.seconds_per_completion, seconds / max(1, len(values)))
    return replace(one, paid=paid, seconds_per_completion=slowest)
