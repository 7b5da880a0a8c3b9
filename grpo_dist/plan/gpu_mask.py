"""Which GPUs of a node a program may use, within those the program that asks may see."""

from __future__ import annotations

from grpo_dist.errors import PlanError


def visible_gpus(count: int, visible: str | None) -> list[str]:
    """The first `count` GPUs of those a process may see, by the names `CUDA_VISIBLE_DEVICES` gives them.

    Args:
        visible: that variable; None sees all.

    Raises:
        PlanError: there are fewer.
    """
    if visible is None:
        return [str(index) for index in range(count)]
    devices = [device for device in visible.split(",") if device]
    if len(devices) < count:
        raise PlanError(
            f"cluster.gpus_per_node: {count} planned, but CUDA_VISIBLE_DEVICES shows {len(devices)} ({visible!r})",
            hint=f"--set cluster.gpus_per_node={len(devices)}",
        )
    return devices[:count]
