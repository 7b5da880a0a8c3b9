"""Finds the programs in completions, runs them in the sandbox and pays what passes."""

from __future__ import annotations

import re
from collections.abc import Generator, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from typing import Any

from grpo_dist.errors import RewardError
from grpo_dist.rewards.preflight.forms import texts
from grpo_dist.rewards.programs.confine import Limits
from grpo_dist.rewards.programs.row_tests import Functions, Tests, read_tests, same_output
from grpo_dist.rewards.programs.sandbox import NotStarted, ProgramEnded, Runner, Sandbox, available, workers

TOO_LONG = "took too long"
"""What the runner says of a program that sleeps."""
_FENCE = re.compile(r"^[ \t]*(```+|~~~+)[^\n`]*\n(.*?)^[ \t]*\1[ \t]*$", re.DOTALL | re.MULTILINE)
_THOUGHTS = re.compile(r"<think>.*?(?:</think>|\Z)", re.DOTALL)
_TAGS = re.compile(r"<(SOLUTION|answer)>(.*?)</\1>", re.DOTALL)


def program_in(text: str) -> str | None:
    """The program in a completion: the last fenced block, of the last tagged solution if there is one, else that whole
    solution. Fences inside `<think>` do not count. None without a program."""
    text = _THOUGHTS.sub("", text)
    if "</think>" in text:  # the opening tag may be part of the prompt
        text = text.rpartition("</think>")[2]
    tagged = _TAGS.findall(text)
    if tagged:
        text = tagged[-1][1]
    fences = _FENCE.findall(text if text.endswith("\n") else text + "\n")
    program = fences[-1][1] if fences else text if tagged else ""
    return program if program.strip() else None


def paid(
    completions: Sequence[Any],
    columns: Mapping[str, Sequence[Any]],
    *,
    pay: str,
    seconds: int,
    memory_mb: int,
    sandbox: str,
) -> list[float | None]:
    """The reward of each completion; the columns are those that hold tests."""
    rows = [read_tests({name: values[i] for name, values in columns.items()}) for i in range(len(completions))]
    programs = [program_in(text) for text in texts(completions)]
    judge = ProgramGrader(_sandbox(sandbox), _limits(seconds, memory_mb), share=_is_share(pay))
    with closing(judge), ThreadPoolExecutor(workers(), thread_name_prefix="code") as pool:
        try:
            return list(pool.map(judge, programs, rows))
        except BaseException:
            judge.stop()  # or the pool waits for what still runs
            raise


def _sandbox(asked: str) -> Sandbox:
    if asked not in ("required", "none"):
        raise RewardError(f"reward 'code': sandbox is {asked!r}", hint="sandbox: required, or none")
    kind, reasons = available()
    if kind is None and asked == "required":
        raise RewardError(
            f"reward 'code': programs cannot be confined on this machine: {reasons}",
            hint="install bubblewrap and allow user namespaces; or accept that whatever the model writes runs with "
            "your rights: kwargs: {sandbox: none}",
        )
    return Sandbox(kind or "none")


def _limits(seconds: int, memory_mb: int) -> Limits:
    for name, value, least in (("seconds", seconds, 1), ("memory_mb", memory_mb, 64)):
        if not (isinstance(value, int) and value >= least):
            raise RewardError(f"reward 'code': {name} is {value!r}", hint=f"a whole number from {least} on")
    return Limits(seconds=seconds, memory_bytes=memory_mb << 20)


def _is_share(pay: str) -> bool:
    if pay not in ("all", "share"):
        raise RewardError(f"reward 'code': pay is {pay!r}", hint="pay: all, or share")
    return pay == "share"


class ProgramGrader:
    """Runs programs and pays them. Unless the share counts, a program ends with the first test that it fails."""

    def __init__(self, sandbox: Sandbox, limits: Limits, *, share: bool) -> None:
        self.sandbox, self.limits, self.share = sandbox, limits, share
        self.idle: list[Runner] = []
        self.busy: set[Runner] = set()
        self.stopped = False

    def __call__(self, program: str | None, tests: Tests) -> float:
        if program is None:
            return 0.0
        total, passed = len(tests), 0
        with suppress(ProgramEnded), self._runner() as runner, closing(self._verdicts(runner, program, tests)) as each:
            for good in each:
                if not (good or self.share):
                    break
                passed += good
        return passed / total if self.share else float(passed == total)

    @contextmanager
    def _runner(self) -> Iterator[Runner]:
        """One that waits, or a new one. It is not used again if a program brought it down."""
        try:
            runner = self.idle.pop()
        except IndexError:
            runner = self._started()
        self.busy.add(runner)
        try:
            if self.stopped:
                raise ProgramEnded("nothing more is judged")
            yield runner
        except BaseException:
            runner.close()
            raise
        finally:
            self.busy.discard(runner)
        self.idle.append(runner)

    def _started(self) -> Runner:
        try:
            return self.sandbox.start()
        except NotStarted as error:
            raise RewardError(
                f"reward 'code': {self.sandbox.kind} did not start: {error}",
                hint="see what this machine can enforce: grpo-dist doctor",
            ) from None

    def _verdicts(self, runner: Runner, program: str, tests: Tests) -> Generator[bool]:
        if isinstance(tests, Functions):
            failures, _ = runner.verdicts(program, tests, self.limits, until_failure=not self.share)
            yield from (failed is None for failed in failures)
            return
        longest = max(len(expected.encode(errors="replace")) for _, expected in tests.cases)
        limits = self.limits._replace(output_bytes=max(self.limits.output_bytes, 2 * longest))
        with closing(runner.printed(program, (given for given, _ in tests.cases), limits)) as found:
            for (_, expected), one in zip(tests.cases, found, strict=False):
                yield one["ended"] is None and same_output(one["output"], expected)
                if one["ended"] == TOO_LONG:
                    return  # it sleeps, and would do so for each input

    def stop(self) -> None:
        """End what runs now, from another thread, and run nothing more."""
        self.stopped = True
        for runner in list(self.busy):
            runner.process.kill()

    def close(self) -> None:
        for runner in self.idle:
            runner.close()
