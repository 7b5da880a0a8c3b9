"""Supervises the rollout servers of a node: starts them, checks them, replaces those that fail, ends them all.

Each replica has a thread of its own (`ReplicaSupervisor`), which lives as long as the replica: a server ends with the
thread that started it. If a server fails, the errors in its log that are known (`CAUSES`) give cause and hint.
"""

from __future__ import annotations

import os
import random
import re
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType

from grpo_dist.config.cluster import TimeoutSection
from grpo_dist.errors import GrpoDistError, RolloutError
from grpo_dist.inference.registry import (
    ReplicaEntry,
    make_key,
    read_replicas,
    remove_key,
    remove_replica,
    write_replica,
)
from grpo_dist.inference.server import (
    UNREACHED,
    Address,
    ReplicaProcess,
    ServerSettings,
    argv,
    environment,
    healthy,
    make_scratch,
    mismatch,
    status,
    warm_up,
)
from grpo_dist.plan.topology import Topology
from grpo_dist.procs.ports import free_port

TAIL_LINES = 12


@dataclass(frozen=True)
class KnownError:
    """A known error: the pattern in the log, what it means, and what helps."""

    pattern: str
    what: str
    hint: str


PORT_TAKEN = KnownError(
    r"[Aa]ddress already in use|Errno 98", "its port was taken by another program", "start it again: it takes another"
)
CAUSES = (
    PORT_TAKEN,
    KnownError(
        r"(?m)No module named '?vllm'?$|PackageNotFoundError: .*vllm",
        "vLLM is not installed for this Python",
        "pip install 'grpo-dist[vllm]'",
    ),
    KnownError(
        r"cache is needed, which is larger than the available|No available memory for the cache blocks",
        "the KV cache does not hold one text of the longest length",
        "raise rollout.gpu_memory_utilization (on a CPU: VLLM_CPU_KVCACHE_SPACE, in GiB), or lower "
        "data.max_prompt_length or grpo.max_completion_length",
    ),
    KnownError(
        r"is less than requested memory for kv",
        "this machine's memory is used by something else",
        "free some: a replica on CPU takes VLLM_CPU_KVCACHE_SPACE GiB (1 unless set) in addition to the model",
    ),
    KnownError(
        r"OutOfMemoryError|out of memory|less than desired GPU memory utilization|Cannot allocate memory",
        "the device's memory is too small for it, or used by something else",
        "--set rollout.gpu_memory_utilization=0.8 or lower, or more GPUs for a replica: "
        "--set rollout.tensor_parallel_size=2",
    ),
    KnownError(
        r"greater than the derived max_model_len|max_model_len.*max_position_embeddings",
        "texts are planned longer than the model's positions",
        "lower model.max_length, data.max_prompt_length or grpo.max_completion_length",
    ),
    KnownError(
        r"contains custom code which must be executed|pass the argument `trust_remote_code",
        "the model brings its own Python code",
        "read it, then --set model.trust_remote_code=true",
    ),
    KnownError(
        r"is not a valid model identifier|Repository Not Found|does not appear to have a file named"
        r"|Can't load the configuration|couldn't connect to|LocalEntryNotFoundError|OfflineModeIsEnabled",
        "the model cannot be found or reached",
        "check model.name_or_path; on a machine without network fill the cache beforehand: hf download MODEL",
    ),
    KnownError(
        r"are not supported for now|has no vLLM implementation|Model architectures .* (failed|not supported)",
        "vLLM does not serve models of this architecture",
        "--set rollout.backend=transformers",
    ),
)


def known_error(log: str) -> KnownError | None:
    """The first entry of CAUSES that matches. vLLM logs its own message before the tracebacks that follow from it."""
    return next((cause for cause in CAUSES if re.search(cause.pattern, log)), None)


def tail(log: str) -> str:
    """The last lines, as a quotation."""
    return "\n".join(f"  | {line}" for line in log.splitlines()[-TAIL_LINES:])


POLL_SECONDS = 0.5
SILENCE = 3
"""A server that does not answer for this many times `timeouts.connect` counts as frozen."""
PORT_ATTEMPTS = 5


@dataclass(frozen=True)
class PlannedReplica:
    """A replica as planned."""

    name: str
    gpus: tuple[int, ...]
    """Indices of its GPUs on the node; empty on CPU."""


@dataclass(frozen=True)
class NodeSettings:
    """Where the servers of one node run, and how long things may take."""

    topology: Topology
    registry: Path
    """`RunDirectory.replicas`."""
    logs: Path
    host: str
    """Address at which they listen and the trainers reach them."""
    timeouts: TimeoutSection
    max_restarts: int
    """Failures in a row after which a replica that was ready once is dropped."""


@dataclass
class SupervisorContext:
    """What the replica supervisors of a node share."""

    settings: ServerSettings
    node: NodeSettings
    environ: Mapping[str, str]
    say: Callable[[str], None]
    """Called from any thread with messages for the user."""
    program: Callable[[ServerSettings, str, int], list[str]]
    """Settings, host, port → the command of a server."""
    key: str = ""
    stopping: threading.Event = field(default_factory=threading.Event)
    changed: threading.Condition = field(default_factory=threading.Condition)
    """Notified whenever a replica's entry changes."""


class _Failed(Exception):
    """An incarnation failed to start or stopped serving; the message says why."""

    def __init__(self, why: str, hint: str | None = None, *, port_taken: bool = False) -> None:
        super().__init__(why)
        self.hint, self.port_taken = hint, port_taken


class ReplicaSupervisor(threading.Thread):
    """Keeps one replica running, from `start` until `context.stopping` is set."""

    def __init__(self, replica: PlannedReplica, context: SupervisorContext) -> None:
        super().__init__(name=f"replica {replica.name}", daemon=True)
        self.replica, self.context, self.node = replica, context, context.node
        self.log = self.node.logs / f"replica-{replica.name}.log"
        self.entry = ReplicaEntry(replica.name, "", self.node.host, 0, 0, "starting", str(self.log))
        self.failure: RolloutError | None = None
        self.process: ReplicaProcess | None = None
        self.port: int | None = None
        # Two runs that start on a machine at the same time should try different ports first.
        self.rng = random.Random(f"{self.node.registry.absolute()} {replica.name} {os.getpid()}")

    @property
    def state(self) -> str:
        return self.entry.state

    def terminate(self) -> None:
        if (process := self.process) is not None:
            process.terminate()

    def run(self) -> None:
        try:
            self._supervise()
        except GrpoDistError as error:
            self._give_up(error.message, error.hint)
        except Exception as error:  # a bug, or a full disk: nothing else would report it
            self._give_up(f"{type(error).__name__}: {error}", None)

    def _supervise(self) -> None:
        failures = ports = 0
        served = False
        while not self.context.stopping.is_set():
            try:
                self._serve()
                return
            except _Failed as failed:
                if self.context.stopping.is_set():
                    return
                if failed.port_taken and ports < PORT_ATTEMPTS:
                    ports, self.port = ports + 1, None
                    continue
                served = served or self.state == "ready"
                failures = 1 if self.state == "ready" else failures + 1
                if not served or failures > self.node.max_restarts:
                    return self._give_up(str(failed), failed.hint)
                self._update(state="down", pid=0)
                self.context.say(f"replica {self.replica.name} is started again: {failed}")
                self.entry = replace(self.entry, incarnation=self.entry.incarnation + 1)

    def _serve(self) -> None:
        """Run one incarnation until the supervisor is stopped.

        Raises:
            _Failed: it did not become ready, or failed later.
        """
        try:
            self.port = free_port(self.node.host, self.rng, self.port)
        except OSError as error:
            raise _Failed(f"no port at {self.node.host}: {error}", "give an address of this machine: --host") from error
        address = Address(self.node.host, self.port, self.context.key)
        process = self.process = self._launch()
        try:
            self._update(state="starting", pid=process.pid, url=address.url)
            self._become_ready(process, address)
            self._update(state="ready")
            self.context.say(f"replica {self.replica.name} is ready at {address.url}")
            self._watch(process, address)
        finally:
            if self.context.stopping.is_set():
                process.terminate()
                process.wait()
            process.kill()
            self.process = None

    def _launch(self) -> ReplicaProcess:
        context, scratch = self.context, make_scratch()
        try:
            env = environment(
                context.settings,
                self.node.topology,
                self.replica.gpus,
                context.environ,
                key=context.key,
                scratch=scratch,
                incarnation=self.entry.incarnation,
            )
            return ReplicaProcess(context.program(context.settings, self.node.host, self.port), env, self.log, scratch)
        except BaseException:
            scratch.rmdir()
            raise

    def _become_ready(self, process: ReplicaProcess, address: Address) -> None:
        limit = self.node.timeouts.ready
        deadline = time.monotonic() + limit
        while not self._answers(process, address):
            if time.monotonic() > deadline:
                raise self._failed(process, f"it is not ready after {limit:g} s (rollout.timeouts.ready)")
            if self.context.stopping.wait(POLL_SECONDS):
                raise _Failed("it was told to stop")
        try:
            found = status(address, self.node.timeouts.connect * SILENCE)
            if (wrong := mismatch(self.context.settings, found)) is not None:
                raise _Failed(wrong, "start the servers with the Python and configuration of the run")
            warm_up(address, max(1.0, deadline - time.monotonic()))
        except UNREACHED as error:
            raise self._failed(process, f"it does not generate: {error}") from error

    def _answers(self, process: ReplicaProcess, address: Address) -> bool:
        self._check_running(process)
        try:
            return healthy(address, self.node.timeouts.connect)
        except UNREACHED:
            return False

    def _watch(self, process: ReplicaProcess, address: Address) -> None:
        """Check the server regularly; return when the supervisor is stopped.

        Raises:
            _Failed: it ended, froze, or has requests and produces no output.
        """
        timeouts = self.node.timeouts
        answered = time.monotonic()
        while not self.context.stopping.wait(POLL_SECONDS):
            self._check_running(process)
            try:
                stalled = status(address, timeouts.connect)["stalled_seconds"]
                answered = time.monotonic()
            except UNREACHED as error:
                if time.monotonic() - answered > SILENCE * timeouts.connect:
                    raise _Failed(f"it has not answered for {time.monotonic() - answered:.0f} s ({error})") from error
                continue
            if stalled > timeouts.progress:
                raise _Failed(f"it has work and put nothing out for {stalled:.0f} s (rollout.timeouts.progress)")

    def _check_running(self, process: ReplicaProcess) -> None:
        if (code := process.ended) is not None:
            raise self._failed(process, f"it ended with exit code {code}")

    def _failed(self, process: ReplicaProcess, what: str) -> _Failed:
        """The error, with the known cause or the last lines of the log."""
        printed = process.printed()
        if (cause := known_error(printed)) is None:
            return _Failed(f"{what}; the last lines of its log:\n{tail(printed)}")
        return _Failed(
            f"{what}: {cause.what}; the last lines of its log:\n{tail(printed)}",
            cause.hint,
            port_taken=cause is PORT_TAKEN,
        )

    def _give_up(self, why: str, hint: str | None) -> None:
        self.failure = RolloutError(f"rollout replica {self.replica.name}: {why}\n  log: {self.log}", hint=hint)
        self._update(state="dropped", pid=0)
        self.context.say(f"replica {self.replica.name} is given up: {why}")

    def _update(self, **changes: object) -> None:
        """Change the entry, here and in the registry, and notify all waiting threads."""
        with self.context.changed:
            self.entry = replace(self.entry, **changes)
            write_replica(self.node.registry, self.entry)
            self.context.changed.notify_all()


def replicas_of_node(topology: Topology, node: int) -> tuple[PlannedReplica, ...]:
    """The replicas of a node; their names are numbers that count over all nodes."""
    return tuple(
        PlannedReplica(str(number), planned.gpus)
        for number, planned in enumerate(topology.replicas)
        if planned.node == node
    )


class Supervisor:
    """The replicas of one node, from `start` until `stop`; also a context manager.

    Args:
        say: called from any thread with messages for the user.
        program: settings, host, port → the command of a server.
    """

    def __init__(
        self,
        settings: ServerSettings,
        replicas: Sequence[PlannedReplica],
        node: NodeSettings,
        *,
        environ: Mapping[str, str] = os.environ,
        say: Callable[[str], None] = lambda _: None,
        program: Callable[[ServerSettings, str, int], list[str]] = argv,
    ) -> None:
        self.node, self.context = node, SupervisorContext(settings, node, environ, say, program)
        self.replica_supervisors = tuple(ReplicaSupervisor(replica, self.context) for replica in replicas)

    @property
    def key(self) -> str:
        """The key the servers require; set by `start`."""
        return self.context.key

    def start(self) -> None:
        """Start all replicas and return when all are ready.

        Raises:
            RolloutError: a replica failed; all are stopped. The message says which one, why, and what helps.
        """
        self.node.registry.mkdir(parents=True, exist_ok=True)
        self.node.logs.mkdir(parents=True, exist_ok=True)
        self.context.key = make_key(self.node.registry)
        try:
            for supervisor in self.replica_supervisors:
                supervisor.start()
            with self.context.changed:
                self.context.changed.wait_for(
                    lambda: self.context.stopping.is_set() or self._failures() or self._ready()
                )
            for failure in self._failures():
                raise failure
            if not self._ready():
                raise RolloutError("the rollout servers were stopped while they started")
        except BaseException:
            self.stop()
            raise

    def wait(self) -> None:
        """Block as long as any replica is left.

        Raises:
            RolloutError: the last one was dropped.
        """
        with self.context.changed:
            self.context.changed.wait_for(
                lambda: all(supervisor.state == "dropped" for supervisor in self.replica_supervisors)
            )
        raise self.replica_supervisors[-1].failure or RolloutError("no rollout server is left")

    def stop(self) -> None:
        """End all replicas; return when no process, shared memory, scratch directory or registry entry is left."""
        with self.context.changed:
            self.context.stopping.set()
            self.context.changed.notify_all()
        for supervisor in self.replica_supervisors:
            supervisor.terminate()
        for supervisor in self.replica_supervisors:
            if supervisor.ident is not None:
                supervisor.join()
            remove_replica(self.node.registry, supervisor.replica.name)
        if not read_replicas(self.node.registry):
            remove_key(self.node.registry)

    def entries(self) -> tuple[ReplicaEntry, ...]:
        """The current registry entries of the replicas."""
        return tuple(supervisor.entry for supervisor in self.replica_supervisors)

    def _ready(self) -> bool:
        return all(supervisor.state == "ready" for supervisor in self.replica_supervisors)

    def _failures(self) -> list[RolloutError]:
        return [supervisor.failure for supervisor in self.replica_supervisors if supervisor.failure is not None]

    def __enter__(self) -> Supervisor:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
