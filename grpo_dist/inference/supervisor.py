"""One replica of a run, kept serving: started, asked how it is, replaced when it fails.

A process on a leash dies with the thread that started it, so a replica's thread lives as long as the replica.

Start the rollout servers of a node, see them kept, and leave nothing behind.

Why a rollout server ended, told from the last lines of its log.
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
    """A known end, and what helps."""

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
        "vLLM is not installed beside this Python",
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
        "free some: a replica on CPU takes VLLM_CPU_KVCACHE_SPACE GiB (1 unless set) beside the model",
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
    """The first known cause the text shows; vLLM's own words stand above the tracebacks they lead to."""
    return next((cause for cause in CAUSES if re.search(cause.pattern, log)), None)


def tail(log: str) -> str:
    """The last lines, marked as quoted."""
    return "\n".join(f"  | {line}" for line in log.splitlines()[-TAIL_LINES:])


POLL_SECONDS = 0.5
SILENCE = 3
"""A server that answers nothing for this many times `timeouts.connect` counts as frozen."""
PORT_ATTEMPTS = 5


@dataclass(frozen=True)
class PlannedReplica:
    """A replica of the plan."""

    name: str
    gpus: tuple[int, ...]
    """Its GPUs by their number on the node; none on CPU."""


@dataclass(frozen=True)
class NodeSettings:
    """Where the servers of one node run, and what they may take."""

    topology: Topology
    registry: Path
    """`RunDirectory.replicas`."""
    logs: Path
    host: str
    """Address they listen at, by which the trainers reach them."""
    timeouts: TimeoutSection
    max_restarts: int
    """Failures in a row after which a replica that once was ready is dropped."""


@dataclass
class SupervisorContext:
    """What the keepers of a node have in common."""

    settings: ServerSettings
    site: NodeSettings
    environ: Mapping[str, str]
    say: Callable[[str], None]
    """Told, from any thread, what a person should know."""
    program: Callable[[ServerSettings, str, int], list[str]]
    """Settings, host, port → the command of a server."""
    key: str = ""
    stopping: threading.Event = field(default_factory=threading.Event)
    changed: threading.Condition = field(default_factory=threading.Condition)
    """Notified whenever a replica's entry changes."""


class _Failed(Exception):
    """An incarnation that does not, or no longer, serve; the message says why."""

    def __init__(self, why: str, hint: str | None = None, *, port_taken: bool = False) -> None:
        super().__init__(why)
        self.hint, self.port_taken = hint, port_taken


class ReplicaSupervisor(threading.Thread):
    """Keeps one replica serving, from `start` until `orders.stopping`."""

    def __init__(self, replica: PlannedReplica, orders: SupervisorContext) -> None:
        super().__init__(name=f"replica {replica.name}", daemon=True)
        self.replica, self.orders, self.site = replica, orders, orders.site
        self.log = self.site.logs / f"replica-{replica.name}.log"
        self.entry = ReplicaEntry(replica.name, "", self.site.host, 0, 0, "starting", str(self.log))
        self.failure: RolloutError | None = None
        self.process: ReplicaProcess | None = None
        self.port: int | None = None
        # Two runs that start on one machine at a time look at different ports first.
        self.rng = random.Random(f"{self.site.registry.absolute()} {replica.name} {os.getpid()}")

    @property
    def state(self) -> str:
        return self.entry.state

    def terminate(self) -> None:
        if (process := self.process) is not None:
            process.terminate()

    def run(self) -> None:
        try:
            self._keep()
        except GrpoDistError as error:
            self._give_up(error.message, error.hint)
        except Exception as error:  # of ours, or the disk's: nobody else would hear of it
            self._give_up(f"{type(error).__name__}: {error}", None)

    def _keep(self) -> None:
        failures = ports = 0
        served = False
        while not self.orders.stopping.is_set():
            try:
                self._serve()
                return
            except _Failed as failed:
                if self.orders.stopping.is_set():
                    return
                if failed.port_taken and ports < PORT_ATTEMPTS:
                    ports, self.port = ports + 1, None
                    continue
                served = served or self.state == "ready"
                failures = 1 if self.state == "ready" else failures + 1
                if not served or failures > self.site.max_restarts:
                    return self._give_up(str(failed), failed.hint)
                self._show(state="down", pid=0)
                self.orders.say(f"replica {self.replica.name} is started again: {failed}")
                self.entry = replace(self.entry, incarnation=self.entry.incarnation + 1)

    def _serve(self) -> None:
        """One incarnation, from its start until we are told to stop.

        Raises:
            _Failed: it did not become ready, or did not stay so.
        """
        try:
            self.port = free_port(self.site.host, self.rng, self.port)
        except OSError as error:
            raise _Failed(f"no port at {self.site.host}: {error}", "give an address of this machine: --host") from error
        address = Address(self.site.host, self.port, self.orders.key)
        process = self.process = self._launch()
        try:
            self._show(state="starting", pid=process.pid, url=address.url)
            self._become_ready(process, address)
            self._show(state="ready")
            self.orders.say(f"replica {self.replica.name} is ready at {address.url}")
            self._watch(process, address)
        finally:
            if self.orders.stopping.is_set():
                process.terminate()
                process.wait()
            process.kill()
            self.process = None

    def _launch(self) -> ReplicaProcess:
        orders, scratch = self.orders, make_scratch()
        try:
            env = environment(
                orders.settings,
                self.site.topology,
                self.replica.gpus,
                orders.environ,
                key=orders.key,
                scratch=scratch,
                incarnation=self.entry.incarnation,
            )
            return ReplicaProcess(orders.program(orders.settings, self.site.host, self.port), env, self.log, scratch)
        except BaseException:
            scratch.rmdir()
            raise

    def _become_ready(self, process: ReplicaProcess, address: Address) -> None:
        limit = self.site.timeouts.ready
        deadline = time.monotonic() + limit
        while not self._answers(process, address):
            if time.monotonic() > deadline:
                raise self._failed(process, f"it is not ready after {limit:g} s (rollout.timeouts.ready)")
            if self.orders.stopping.wait(POLL_SECONDS):
                raise _Failed("it was told to stop")
        try:
            found = status(address, self.site.timeouts.connect * SILENCE)
            if (wrong := mismatch(self.orders.settings, found)) is not None:
                raise _Failed(wrong, "start the servers with the Python and configuration of the run")
            warm_up(address, max(1.0, deadline - time.monotonic()))
        except UNREACHED as error:
            raise self._failed(process, f"it does not generate: {error}") from error

    def _answers(self, process: ReplicaProcess, address: Address) -> bool:
        self._still_runs(process)
        try:
            return healthy(address, self.site.timeouts.connect)
        except UNREACHED:
            return False

    def _watch(self, process: ReplicaProcess, address: Address) -> None:
        """Return when we are told to stop.

        Raises:
            _Failed: it ended, froze, or has work and does nothing.
        """
        timeouts = self.site.timeouts
        heard = time.monotonic()
        while not self.orders.stopping.wait(POLL_SECONDS):
            self._still_runs(process)
            try:
                stalled = status(address, timeouts.connect)["stalled_seconds"]
                heard = time.monotonic()
            except UNREACHED as error:
                if time.monotonic() - heard > SILENCE * timeouts.connect:
                    raise _Failed(f"it has not answered for {time.monotonic() - heard:.0f} s ({error})") from error
                continue
            if stalled > timeouts.progress:
                raise _Failed(f"it has work and put nothing out for {stalled:.0f} s (rollout.timeouts.progress)")

    def _still_runs(self, process: ReplicaProcess) -> None:
        if (code := process.ended) is not None:
            raise self._failed(process, f"it ended with exit code {code}")

    def _failed(self, process: ReplicaProcess, what: str) -> _Failed:
        """What happened, with what its log tells."""
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
        self._show(state="dropped", pid=0)
        self.orders.say(f"replica {self.replica.name} is given up: {why}")

    def _show(self, **changes: object) -> None:
        """Change the entry, here, in the registry and for whoever waits."""
        with self.orders.changed:
            self.entry = replace(self.entry, **changes)
            write_replica(self.site.registry, self.entry)
            self.orders.changed.notify_all()


def replicas_of_node(topology: Topology, node: int) -> tuple[PlannedReplica, ...]:
    """The replicas a node runs; names are numbers over all nodes."""
    return tuple(
        PlannedReplica(str(number), planned.gpus)
        for number, planned in enumerate(topology.replicas)
        if planned.node == node
    )


class Supervisor:
    """The replicas of one node, from `start` until `stop`; as a context manager, the time in between.

    Args:
        say: told, from any thread, what a person should know.
        program: settings, host, port → the command of a server.
    """

    def __init__(
        self,
        settings: ServerSettings,
        replicas: Sequence[PlannedReplica],
        site: NodeSettings,
        *,
        environ: Mapping[str, str] = os.environ,
        say: Callable[[str], None] = lambda _: None,
        program: Callable[[ServerSettings, str, int], list[str]] = argv,
    ) -> None:
        self.site, self.orders = site, SupervisorContext(settings, site, environ, say, program)
        self.keepers = tuple(ReplicaSupervisor(replica, self.orders) for replica in replicas)

    @property
    def key(self) -> str:
        """What its servers ask for, once they are started."""
        return self.orders.key

    def start(self) -> None:
        """Start all and return when all are ready; otherwise all are stopped.

        Raises:
            RolloutError: one cannot serve; it says which, why, and what helps.
        """
        self.site.registry.mkdir(parents=True, exist_ok=True)
        self.site.logs.mkdir(parents=True, exist_ok=True)
        self.orders.key = make_key(self.site.registry)
        try:
            for keeper in self.keepers:
                keeper.start()
            with self.orders.changed:
                self.orders.changed.wait_for(lambda: self.orders.stopping.is_set() or self._failures() or self._ready())
            for failure in self._failures():
                raise failure
            if not self._ready():
                raise RolloutError("the rollout servers were stopped while they started")
        except BaseException:
            self.stop()
            raise

    def wait(self) -> None:
        """Return never while one serves.

        Raises:
            RolloutError: the last one is dropped.
        """
        with self.orders.changed:
            self.orders.changed.wait_for(lambda: all(keeper.state == "dropped" for keeper in self.keepers))
        raise self.keepers[-1].failure or RolloutError("no rollout server is left")

    def stop(self) -> None:
        """End all; return when no process, file of shared memory, scratch directory or registry entry is left."""
        with self.orders.changed:
            self.orders.stopping.set()
            self.orders.changed.notify_all()
        for keeper in self.keepers:
            keeper.terminate()
        for keeper in self.keepers:
            if keeper.ident is not None:
                keeper.join()
            remove_replica(self.site.registry, keeper.replica.name)
        if not read_replicas(self.site.registry):
            remove_key(self.site.registry)

    def entries(self) -> tuple[ReplicaEntry, ...]:
        """How the replicas are now."""
        return tuple(keeper.entry for keeper in self.keepers)

    def _ready(self) -> bool:
        return all(keeper.state == "ready" for keeper in self.keepers)

    def _failures(self) -> list[RolloutError]:
        return [keeper.failure for keeper in self.keepers if keeper.failure is not None]

    def __enter__(self) -> Supervisor:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
