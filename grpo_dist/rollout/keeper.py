"""One replica of a run, kept serving: started, asked how it is, replaced when it fails.

A process on a leash dies with the thread that started it, so a replica's thread lives as long as the replica.
"""

from __future__ import annotations

import os
import random
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from grpo_dist.config.cluster import TimeoutSection
from grpo_dist.errors import GrpoDistError, RolloutError
from grpo_dist.plan.topology import Topology
from grpo_dist.rollout.causes import PORT_TAKEN, cause_of, tail
from grpo_dist.rollout.command import ServerSettings, environment
from grpo_dist.rollout.ports import free_port
from grpo_dist.rollout.probe import UNREACHED, Address, healthy, mismatch, status, warm_up
from grpo_dist.rollout.process import ReplicaProcess, make_scratch
from grpo_dist.rollout.registry import ReplicaEntry, write_replica

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
class Site:
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
class Orders:
    """What the keepers of a node have in common."""

    settings: ServerSettings
    site: Site
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


class Keeper(threading.Thread):
    """Keeps one replica serving, from `start` until `orders.stopping`."""

    def __init__(self, replica: PlannedReplica, orders: Orders) -> None:
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
        if (cause := cause_of(printed)) is None:
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
