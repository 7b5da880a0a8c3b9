"""How N training processes share weights, gradients and optimizer states.

Sources: Rajbhandari et al. 2020 (ZeRO), section 5 and figure 1; DeepSpeed 0.19 `runtime/zero/stage_1_and_2.py`,
`stage3.py` and `partition_parameters.py`; the values Transformers fills in for `auto`
(`integrations/deepspeed.py::trainer_config_finalize`); Accelerate 1.15 `utils/fsdp_utils.py::fsdp2_prepare_model`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from grpo_dist.errors import PlanError

ShardingKind = Literal["ddp", "zero1", "zero2", "zero3", "fsdp2"]

MAX_LIVE_PARAMETERS = 1_000_000_000
"""DeepSpeed's default of `stage3_max_live_parameters`: gathered parameters are kept for reuse up to this many."""


@dataclass(frozen=True)
class Sharding:
    """A strategy and its number of processes. One process is `Sharding("ddp", 1)`."""

    kind: ShardingKind = "ddp"
    num_processes: int = 1

    def __post_init__(self) -> None:
        if self.num_processes < 1:
            raise PlanError(
                f"{self.num_processes} training processes share the memory of a step", hint="give at least 1"
            )

    @property
    def is_deepspeed(self) -> bool:
        return self.kind.startswith("zero")

    @property
    def shards_weights(self) -> bool:
        return self.kind in ("zero3", "fsdp2")

    @property
    def shards_gradients(self) -> bool:
        return self.kind in ("zero2", "zero3", "fsdp2")

    @property
    def shards_optimizer(self) -> bool:
        return self.kind != "ddp"

    def share(self, elements: int) -> int:
        """Elements of one process's partition; the last is padded to the size of the others."""
        return -(-elements // self.num_processes)

    def weights(self, elements: int) -> int:
        return self.share(elements) if self.shards_weights else elements

    def gradients(self, elements: int) -> int:
        return self.share(elements) if self.shards_gradients else elements

    def optimizer(self, elements: int) -> int:
        return self.share(elements) if self.shards_optimizer else elements


ONE_PROCESS = Sharding()
