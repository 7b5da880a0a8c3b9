"""Bytes of optimizer states, by the name Transformers gives the optimizer; and how N processes share all states.

Sources: `transformers/trainer_optimizer.py` (which class a name means, and its arguments) and the state each class
creates. Scalars such as the step counter are left out: 4 bytes per tensor, on the CPU in most optimizers.

Sharing: Rajbhandari et al. 2020 (ZeRO), section 5 and figure 1; DeepSpeed 0.19 `runtime/zero/stage_1_and_2.py`,
`stage3.py` and `partition_parameters.py`; the values Transformers fills in for `auto`
(`integrations/deepspeed.py::trainer_config_finalize`); Accelerate 1.15 `utils/fsdp_utils.py::fsdp2_prepare_model`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import prod
from typing import Literal

from grpo_dist.errors import PlanError

TensorShapes = Iterable[tuple[tuple[int, ...], int]]
"""(shape, how many tensors have it)."""

BLOCK = 256
"""Weights that share one float32 scale in an 8-bit or 4-bit state, in bitsandbytes and torchao alike."""
SMALLEST_QUANTIZED = 4096
"""Smaller tensors keep float32 states (`min_8bit_size`; torchao has the same bound)."""


@dataclass(frozen=True)
class States:
    """State tensors per parameter tensor."""

    count: float
    """How many of the parameter's own size."""
    bits: Literal["parameter", 32, 8, 4]
    """Width of an element; `parameter`: the parameter's dtype."""
    source: str
    factored: bool = False
    """A matrix has one row and one column of statistics instead of a state of its size."""


def _torch(count: int, what: str) -> States:
    return States(count, "parameter", f"torch: {what} in the parameter's dtype")


def _bnb(count: int, bits: Literal[32, 8], what: str) -> States:
    return States(count, bits, f"bitsandbytes: {what}, {bits}-bit")


_ADAM = "exp_avg and exp_avg_sq"
_GALORE = States(2, "parameter", "upper bound: full-rank AdamW states; the low-rank projections hold less")
_GALORE_8BIT = States(2, 8, "upper bound: full-rank 8-bit AdamW states; the low-rank projections hold less")
_FACTORED = States(0, 32, "Adafactor: a row and a column of float32 statistics per matrix", factored=True)
_PAGED = "; paged to the host when the GPU is full, counted as if it stayed"

OPTIMIZERS: dict[str, States] = {
    "adamw_torch": _torch(2, _ADAM),
    "adamw_torch_fused": _torch(2, _ADAM),
    "adamw_torch_xla": _torch(2, _ADAM),
    "adamw_torch_npu_fused": _torch(2, _ADAM),
    "adamw_anyprecision": States(2, 32, "torchdistx: momentum and variance in float32"),
    "adamw_torch_8bit": States(2, 8, f"torchao: {_ADAM}, 8-bit"),
    "adamw_torch_4bit": States(2, 4, f"torchao: {_ADAM}, 4-bit"),
    "adafactor": _FACTORED,
    "sgd": _torch(0, "no state without momentum"),
    "adagrad": _torch(1, "sum"),
    "rmsprop": _torch(1, "square_avg"),
    "adamw_8bit": _bnb(2, 8, "two moments"),
    "adamw_bnb_8bit": _bnb(2, 8, "two moments"),
    "paged_adamw_8bit": _bnb(2, 8, "two moments" + _PAGED),
    "paged_adamw_32bit": _bnb(2, 32, "two moments" + _PAGED),
    "ademamix": _bnb(3, 32, "two fast moments and a slow one"),
    "ademamix_8bit": _bnb(3, 8, "two fast moments and a slow one"),
    "paged_ademamix_8bit": _bnb(3, 8, "two fast moments and a slow one" + _PAGED),
    "paged_ademamix_32bit": _bnb(3, 32, "two fast moments and a slow one" + _PAGED),
    "lion_8bit": _bnb(1, 8, "one moment"),
    "lion_32bit": _bnb(1, 32, "one moment"),
    "paged_lion_8bit": _bnb(1, 8, "one moment" + _PAGED),
    "paged_lion_32bit": _bnb(1, 32, "one moment" + _PAGED),
    "rmsprop_bnb": _bnb(1, 32, "one moment"),
    "rmsprop_bnb_8bit": _bnb(1, 8, "one moment"),
    "rmsprop_bnb_32bit": _bnb(1, 32, "one moment"),
    "galore_adamw": _GALORE,
    "galore_adamw_8bit": _GALORE_8BIT,
    "galore_adafactor": _FACTORED,
    "galore_adamw_layerwise": _GALORE,
    "galore_adamw_8bit_layerwise": _GALORE_8BIT,
    "galore_adafactor_layerwise": _FACTORED,
    "apollo_adamw": _GALORE,
    "apollo_adamw_layerwise": _GALORE,
    "lomo": States(0, 32, "LOMO: updates during backward, no state"),
    "adalomo": _FACTORED,
    "grokadamw": _torch(3, "exp_avg, exp_avg_sq and grok_ema"),
    "schedule_free_radam": _torch(2, "z and exp_avg_sq"),
    "schedule_free_adamw": _torch(2, "z and exp_avg_sq"),
    "schedule_free_sgd": _torch(1, "z"),
    "stable_adamw": _torch(2, "two moments"),
}
"""Transformers' optimizer name → its states."""

FOREACH = ("adamw_torch",)
"""Without `fused`, torch steps all tensors together and holds sqrt(exp_avg_sq) of all of them
(`torch/optim/adam.py::_multi_tensor_adam`)."""


def optimizer_states(name: str) -> States:
    """Raises: PlanError: no optimizer of this name."""
    if name not in OPTIMIZERS:
        raise PlanError(f"grpo.optim: no optimizer is called {name!r}", hint=f"choose one of {', '.join(OPTIMIZERS)}")
    return OPTIMIZERS[name]


def optimizer_bytes(name: str, tensors: TensorShapes, parameter_bytes: int) -> int:
    """States of these parameter tensors once the first step has been taken.

    Args:
        parameter_bytes: bytes per element of the parameters the optimizer steps.

    Raises:
        PlanError: see `optimizer_states`.
    """
    states = optimizer_states(name)
    return sum(count * _tensor_bytes(states, shape, parameter_bytes) for shape, count in tensors)


def step_bytes(name: str, parameters: int, parameter_bytes: int) -> int:
    """What a step needs beside parameters, gradients and states."""
    return parameters * parameter_bytes if name in FOREACH else 0


def _tensor_bytes(states: States, shape: tuple[int, ...], parameter_bytes: int) -> int:
    elements = prod(shape)
    if states.factored:
        return 4 * (elements if len(shape) < 2 else elements // shape[-1] + elements // shape[-2])
    if states.bits == "parameter":
        return int(states.count * elements * parameter_bytes)
    if states.bits == 32 or elements < SMALLEST_QUANTIZED:
        return int(states.count * elements * 4)
    return int(states.count * (-(-elements * states.bits // 8) + 4 * -(-elements // BLOCK)))


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
