"""Start the rollout servers of a node, see them kept, and leave nothing behind."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType

from grpo_dist.errors import RolloutError
from grpo_dist.plan.topology import Topology
from grpo_dist.rollout.command import ServerSettings, argv
from grpo_dist.rollout.keeper import Keeper, Orders, PlannedReplica, Site
from grpo_dist.rollout.registry import ReplicaEntry, make_key, read_replicas, remove_key, remove_replica


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
        site: Site,
        *,
        environ: Mapping[str, str] = os.environ,
        say: Callable[[str], None] = lambda _: None,
        program: Callable[[ServerSettings, str, int], list[str]] = argv,
    ) -> None:
        self.site, self.orders = site, Orders(settings, site, environ, say, program)
        self.keepers = tuple(Keeper(replica, self.orders) for replica in replicas)

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
