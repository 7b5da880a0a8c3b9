"""One attempt of a job, from its first node: check the nodes, start the tasks in order, decide how it ended."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from grpo_dist.config import load_config
from grpo_dist.inference.registry import clear, note_started, note_starting, remove_replica
from grpo_dist.inference.supervisor import replicas_of_node
from grpo_dist.plan.comparison import comparing_processes
from grpo_dist.plan.launch import read_plan
from grpo_dist.procs.ports import free_ports
from grpo_dist.progress import Terminal
from grpo_dist.run.checkpoints import newest_sealed, newest_step
from grpo_dist.run.control import (
    DONE,
    REFUSED,
    TRY_AGAIN,
    AttemptOutcome,
    Watchdog,
    Why,
    request_stop,
    running_rewards,
    step_in,
    stop_requested,
    stopped_at,
)
from grpo_dist.run.directory import RunDirectory, write_json
from grpo_dist.supervisor import shared_fs_check
from grpo_dist.supervisor.deadline import Deadline
from grpo_dist.supervisor.failure import Failure, failure_of, first_cause
from grpo_dist.supervisor.preflight import NodeInfo, problems, warnings
from grpo_dist.supervisor.rpc import LOST, CoordinatorServer, Event

JOIN_SECONDS = 300.0
"""For all nodes to connect. Slurm starts a job's tasks together, but a node may first have to mount its disks."""
LATE_SECONDS = 10.0
"""The same for a job that is asked to stop. Nodes that connected end in order; those that come later are killed."""
TICK_SECONDS = 0.5
REMIND_SECONDS = 30.0
SETTLE_SECONDS = 2.0
"""After a first failure, to collect other reports about it."""
DUMP_SECONDS = 3.0
GONE_SECONDS = 10.0
"""For a run directory that a file server does not show for a moment."""
STOP_SECONDS = 20.0


class AttemptEnded(Exception):
    """The attempt is over before its last task."""

    def __init__(self, outcome: int, why: str) -> None:
        super().__init__(why)
        self.outcome, self.why = outcome, why


class TaskFailed(Exception):
    """A task or a node failed; `Coordinator.failures` says which."""


class Coordinator:
    """One attempt of a run on the nodes of a job.

    Args:
        kill_wait: asks Slurm in how many seconds it kills the job (None: it does not). The call may take long.
        time_left: asks Slurm how many seconds are left of the running job (None: no limit, or no answer). As above.
    """

    def __init__(
        self,
        run: RunDirectory,
        attempt: Path,
        server: CoordinatorServer,
        ports: range,
        kill_wait: Callable[[], float | None],
        time_left: Callable[[], float | None],
    ) -> None:
        self.run, self.attempt, self.server, self.ports = run, attempt, server, ports
        self.config = load_config(run.config)
        self.deadline = Deadline(run, attempt, self.config.cluster.signal_seconds, kill_wait, time_left)
        self.plan = read_plan(run)
        self.terminal = Terminal()
        self.began = self.there_at = time.monotonic()
        self.nodes: dict[int, NodeInfo] = {}
        self.received_at: dict[int, float] = {}
        self.shared_fs_problems: dict[int, str | None] = {}
        self.running: set[tuple[int, str]] = set()
        self.ready: set[int] = set()
        self.awaited: set[int] = set()
        """Nodes whose servers are starting."""
        self.failures: list[Failure] = []
        self.refusals: list[str] = []
        self.stopping: set[str] = set()
        self.terminated = False
        self.watchdog: Watchdog | None = None

    async def run_attempt(self) -> AttemptOutcome:
        """Run the attempt until all tasks on all nodes have ended; failures of nodes and tasks do not raise."""
        code, why = DONE, "done"
        try:
            await self._run_tasks()
        except AttemptEnded as ended:
            code, why = ended.outcome, ended.why
        except TaskFailed:
            # Before anything is stopped: from then on the end of a part is no failure, and its cause would be lost.
            code, why = await self._failed()
        await self._stop({task for _, task in self.running})
        clear(self.run.replicas)
        if code == DONE and self.config.evaluation.enabled and not self.run.comparison.exists():
            command = f"grpo-dist run {self.run.config} --output {self.run.path} --resume"
            why = f"done, but for the comparison, for which no time was left: {command}"
        return AttemptOutcome(code, why, newest_step(self.run.checkpoints))

    async def _run_tasks(self) -> None:
        # Servers and training load what `prepare` has made, so both wait for it. Servers on nodes of their own start
        # together with training; others first, since their start would take the processors of training's. The
        # comparison asks the same servers, so they stop after it. An attempt that finds a result starts at the next
        # task.
        await self._gather()
        await self._preflight()
        self._check_stop("prepare")
        await self._run_task("prepare", [0], self.run.prepared)
        trained, compared = self.run.adapter.exists(), self.run.comparison.exists()
        if not trained or (self.config.evaluation.enabled and not compared):
            self._serve()
            if trained or not self._serves_elsewhere():
                await self._served()
        if not trained:
            await self._train()
        if self.config.evaluation.enabled and not self._is_ending():
            shared = comparing_processes(self.config, self.plan.topology) > 1
            nodes = range(self.plan.topology.trainer_nodes) if shared else [0]
            await self._run_task("compare", nodes, self.run.comparison)
        await self._stop({"serve"})
        await self._run_task("report", [0], self.run.report)

    async def _gather(self) -> None:
        expected = range(self.plan.topology.nodes)

        def missing() -> str:
            return "nodes " + ", ".join(str(node) for node in expected if node not in self.nodes)

        await self._until(lambda: len(self.nodes) == len(expected), JOIN_SECONDS, missing)

    async def _preflight(self) -> None:
        nodes = [self.nodes[node] for node in sorted(self.nodes)]
        for warning in warnings(nodes, lambda node: self.received_at[node.node]):
            self.terminal.show(f"warning: {warning}")
        found = list(problems(nodes, self.plan, self.run.path, self._checkpoint_bytes()))
        if not found:
            found = await self._check_shared_fs()
        if found:
            raise AttemptEnded(
                REFUSED, "the nodes cannot run this together:\n" + "\n".join(f"  {line}" for line in found)
            )
        hosts = ", ".join(node.host for node in nodes)
        self.terminal.show(f"nodes: {hosts}; {self.plan.topology.reason}")

    async def _check_shared_fs(self) -> list[str]:
        nonce = secrets.token_hex(8)
        await asyncio.to_thread(shared_fs_check.ask, self.attempt, nonce)
        self.server.send({"prove": nonce})
        limit = 2 * shared_fs_check.LAG_SECONDS
        await self._until(
            lambda: len(self.shared_fs_problems) == len(self.nodes), limit, lambda: "proof of a shared run directory"
        )
        found = []
        for node, problem in sorted(self.shared_fs_problems.items()):
            seen = problem or await asyncio.to_thread(shared_fs_check.check, self.attempt, node, nonce)
            if seen:
                found.append(f"{self.nodes[node].host}: {seen}")
        shared_fs_check.clean(self.attempt)
        return found

    async def _run_task(self, name: str, nodes: Iterable[int], result: Path) -> None:
        """Run a task whose result is a file, unless the file exists."""
        if result.exists():
            return
        self._start(name, nodes)
        await self._until(lambda: not self._is_running(name))
        if not result.exists() and name not in self.stopping:
            self._fail(0, name, DONE, f"ended without {result}", ())

    def _serve(self) -> None:
        self.awaited = {replica.node for replica in self.plan.topology.replicas}
        if not self.awaited:
            return
        self._check_stop("serve")
        clear(self.run.replicas)
        note_starting(self.run.replicas)
        self._start("serve", sorted(self.awaited))

    def _serves_elsewhere(self) -> bool:
        """Whether no node both serves and trains."""
        return min(self.awaited, default=0) >= self.plan.topology.trainer_nodes

    async def _served(self) -> None:
        """Wait until all servers are ready; training may be waiting too."""
        if not self.awaited:
            return
        limit = self.config.rollout.timeouts.ready * (1 + self.config.rollout.max_restarts) + SETTLE_SECONDS
        await self._until(lambda: self.ready >= self.awaited, limit, lambda: "rollout servers to be ready")
        note_started(self.run.replicas)
        self.awaited = set()

    async def _train(self) -> None:
        self._check_stop("train")
        self._start("train", range(self.plan.topology.trainer_nodes))
        await self._served()
        self.watchdog = Watchdog(self.config.cluster.stall_seconds, time.monotonic())
        await self._until(lambda: not self._is_running("train"))
        self.watchdog = None
        if self.run.adapter.exists():
            return
        if (step := stopped_at(self.attempt)) is not None:
            raise AttemptEnded(TRY_AGAIN, f"saved after step {step} and stopped: {_describe(stop_requested(self.run))}")
        self._fail(0, "train", DONE, f"ended without {self.run.adapter}", ())

    def _start(self, name: str, nodes: Iterable[int]) -> None:
        nodes = list(nodes)
        port = next(free_ports(self.ports), None)
        if port is None:
            self._fail(0, name, None, "no port of this job is free: Address already in use", ())
        self.running |= {(node, name) for node in nodes}
        self.server.send({"start": name, "address": self._address(), "port": port}, nodes)
        where = ", ".join(self.nodes[node].host for node in nodes)
        self.terminal.show(f"{time.strftime('%H:%M:%S')} {name} on {where}: {self.attempt / name}*.log")

    def _address(self) -> str:
        """The address at which other nodes reach this one."""
        others = [connection.local_address for node, connection in self.server.nodes.items() if node != 0]
        return others[0] if others else "127.0.0.1"

    def _is_running(self, name: str) -> bool:
        return any(task == name for _, task in self.running)

    async def _until(
        self, done: Callable[[], bool], limit: float | None = None, what: Callable[[], str] = lambda: ""
    ) -> None:
        """Handle events until done.

        Raises:
            AttemptEnded, TaskFailed: the attempt is over.
        """
        began = reminded = time.monotonic()
        while not done():
            await self._handle_next(TICK_SECONDS)
            if self.refusals:
                raise AttemptEnded(REFUSED, "\n".join(self.refusals))
            if done():  # before the deadlines: what is done needs no stop
                return
            now = time.monotonic()
            if limit is not None and now - began > limit:
                self._fail(0, "wait", None, f"waited {limit:.0f} s for {what()}", ())
            if limit is not None and now - reminded > REMIND_SECONDS:
                self.terminal.show(f"waiting for {what()}, {now - began:.0f} of at most {limit:.0f} s")
                reminded = now
            self.deadline.watch(now)
            await self._check_directory(now)
            await self._check_deadline(now, await asyncio.to_thread(stop_requested, self.run))
            await self._check_stall(now)

    async def _handle_next(self, seconds: float) -> None:
        """Handle the next event, if one arrives within this many seconds."""
        try:
            node, message = await asyncio.wait_for(self.server.events.get(), seconds)
        except TimeoutError:
            return
        self._handle((node, message))
        if self.failures:  # for every further event too: whoever collects or stops continues by catching it
            raise TaskFailed

    def _handle(self, event: Event) -> None:
        node, message = event
        match message["event"]:
            case "hello" if "refused" in message:
                self.refusals.append(f"node {node}: {message['refused']}")
            case "hello":
                self.nodes[node] = NodeInfo.from_dict(message["facts"])
                self.received_at[node] = time.time()
            case "proved":
                self.shared_fs_problems[node] = message["problem"]
            case "ready":
                self.ready.add(node)
            case "signal":
                self._on_signal()
            case "ended":
                self._on_task_ended(node, message)
            case unexpected if unexpected == LOST:
                self.running = {(other, task) for other, task in self.running if other != node}
                self._add_failure(
                    failure_of(node, self._host(node), "node", None, "is silent or its supervisor ended", ())
                )

    def _on_task_ended(self, node: int, message: dict) -> None:
        task, code = message["part"], message["code"]
        self.running.discard((node, task))
        if task in self.stopping:  # we ended it, whatever its code
            return
        if task == "serve" and node in self.ready:
            self._remove_servers(node)
            self.terminal.show(failure_of(node, self._host(node), task, code, message["reason"], ()).text())
        elif code != 0 or task == "serve":
            why = message["reason"] or ("ended before it was ready" if code == 0 else "") or self._running_reward(task)
            self._add_failure(failure_of(node, self._host(node), task, code, why, message["tail"]))

    def _running_reward(self, task: str) -> str:
        """The reward function that was running in a training process that ended silently or makes no progress."""
        running = running_rewards(self.attempt) if task == "train" else ""
        return f"in {running}" if running else ""

    def _remove_servers(self, node: int) -> None:
        """Remove a node's servers from the registry; training continues with the others, or saves and stops."""
        for replica in replicas_of_node(self.plan.topology, node):
            remove_replica(self.run.replicas, replica.name)

    def _on_signal(self) -> None:
        """Slurm is ending the job, or about to. A reason that the batch script wrote is more exact, so it is kept.

        Which of the two comes first is open. LIMIT must not become TERMINATED here: where Slurm does not give the state
        of the job, only LIMIT puts it back in the queue.
        """
        self.terminated = True
        self.deadline.on_signal()
        if stop_requested(self.run) is None:
            with contextlib.suppress(OSError):  # a full disk: there is no saving anyway
                request_stop(self.run, Why.TERMINATED)

    def _add_failure(self, failure: Failure) -> None:
        self.failures.append(failure)

    def _fail(self, node: int, role: str, code: int | None, why: str, tail: Iterable[str]) -> None:
        self._add_failure(failure_of(node, self._host(node), role, code, why, tail))
        raise TaskFailed

    def _host(self, node: int) -> str:
        return self.nodes[node].host if node in self.nodes else f"node {node}"

    def _check_stop(self, name: str) -> None:
        """Start nothing in a job that is about to end."""
        if (why := stop_requested(self.run)) is not None:
            raise AttemptEnded(TRY_AGAIN, f"stopped before {name}: {_describe(why)}")

    async def _check_deadline(self, now: float, why: Why | None) -> None:
        """Training stops by itself at the next step, but a job whose time is over does not wait for that step.

        A run that is trained counts as done, with or without the comparison.
        """
        if why is None:
            return
        # The comparison first: servers run beside it, and without training they would end the attempt below.
        if self._is_running("compare"):
            if why is not Why.ASKED:
                await self._stop({"compare"})
        elif not self.running and now - self.began < LATE_SECONDS:
            return
        elif self.awaited or not self._is_running("train"):  # training that waits for servers has nothing to save
            if not self.running or self._is_running("prepare") or self._is_running("serve"):
                raise AttemptEnded(TRY_AGAIN, f"stopped: {_describe(why)}")
        elif self.deadline.passed(now, why):
            what = "the time limit" if why is Why.LIMIT else "Slurm kills the job"
            raise AttemptEnded(TRY_AGAIN, f"no step ended before {what}; what was saved before is kept")

    def _is_ending(self) -> bool:
        return stop_requested(self.run) in (Why.LIMIT, Why.TERMINATED)

    async def _check_directory(self, now: float) -> None:
        """End an attempt whose run directory is gone: nothing is to be made anew in its place."""
        if await asyncio.to_thread(self.run.exists):
            self.there_at = now
        elif now - self.there_at > GONE_SECONDS:
            why = f"{self.run.path}: the run directory is gone, or its config.yaml\n  → put it back, then submit again"
            raise AttemptEnded(REFUSED, why)

    async def _check_stall(self, now: float) -> None:
        if self.watchdog is None:
            return
        self.watchdog.observe(await asyncio.to_thread(step_in, self.run.heartbeat), now)
        if not self.watchdog.overdue(now):
            return
        self.server.send({"dump": True})  # before the failure, which ends the ranks whose stacks are wanted
        await asyncio.sleep(DUMP_SECONDS)
        step = self.watchdog.step
        why = f"no step for {self.watchdog.limit:.0f} s after step {step}; the stacks of all ranks are in the logs"
        why = ": ".join(filter(None, (why, self._running_reward("train"))))
        self._fail(0, "watchdog", None, why, ())

    async def _failed(self) -> tuple[int, str]:
        """Collect further reports for a moment, and record the failure that came first."""
        until = time.monotonic() + SETTLE_SECONDS
        while (left := until - time.monotonic()) > 0:
            try:
                await self._handle_next(left)
            except TaskFailed:
                continue
        failure = first_cause(self.failures)
        # A job that Slurm is ending loses parts in any order: no failure is recorded, which a next attempt would count.
        if self.terminated or stop_requested(self.run) is not None:
            return TRY_AGAIN, f"ended by Slurm: {failure.role} on {failure.host}"
        others = [other.to_dict() for other in self.failures if other is not failure]
        record = {**failure.to_dict(), "attempt": self.attempt.name, "time": time.time(), "others": others}
        try:
            write_json(self.run.failure, record)
            write_json(self.attempt / self.run.failure.name, record)
        except OSError as error:  # a full disk may be what failed
            self.terminal.show(f"{self.run.failure} cannot be written: {error.strerror}")
        return failure.outcome, failure.text()

    async def _stop(self, tasks: set[str]) -> None:
        """End these tasks on all nodes, and wait until they are gone."""
        self.stopping |= tasks  # from here on their ends are no failures
        for task in tasks:
            self.server.send({"stop": task}, {node for node, name in self.running if name == task})
        until = time.monotonic() + STOP_SECONDS
        while any(self._is_running(task) for task in tasks) and time.monotonic() < until:
            try:
                await self._handle_next(TICK_SECONDS)
            except TaskFailed:
                continue

    def _checkpoint_bytes(self) -> int:
        checkpoint = newest_sealed(self.run.checkpoints)
        files = [] if checkpoint is None else checkpoint.rglob("*")
        return sum(file.stat().st_size for file in files if file.is_file())


def _describe(why: Why | None) -> str:
    return {
        Why.LIMIT: "the time limit is near",
        Why.TERMINATED: "Slurm is ending the job",
        Why.ASKED: "somebody asked for it with `grpo-dist checkpoint`",
        None: "asked to",
    }[why]
