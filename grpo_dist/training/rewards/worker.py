"""A process that calls one reward function, so that nothing the function does can end or block its caller.

`python -m grpo_dist.training.rewards.worker FD`: receives (functions, index), answers
`READY` when the function is loaded, then each `Batch` with (values, seconds) or with a `Finding`.
"""

from __future__ import annotations

import asyncio
import sys
import time
from multiprocessing.connection import Connection
from types import SimpleNamespace

from grpo_dist.errors import GrpoDistError
from grpo_dist.findings import Finding
from grpo_dist.procs.tree import die_with_parent
from grpo_dist.rewards.guard import Batch
from grpo_dist.rewards.load import AsyncLoadedReward, LoadedReward, load_rewards

FAILS = "reward-fails"
READY = "ready"
Answer = tuple[list[float | None], float] | Finding


def main() -> None:
    die_with_parent()
    link = Connection(int(sys.argv[1]))
    functions, index = link.recv()
    reward = load_rewards(functions)[index]
    link.send(READY)
    while True:
        try:
            batch = link.recv()
        except EOFError:
            return
        link.send(_call(reward, batch))


def _call(reward: LoadedReward, batch: Batch) -> Answer:
    began = time.perf_counter()
    columns = {**batch.columns, **_from_trl()}
    try:
        values = reward(prompts=batch.prompts, completions=batch.completions, **columns)
        if isinstance(reward, AsyncLoadedReward):
            values = asyncio.run(values)
    except GrpoDistError as error:
        return Finding(FAILS, "error", error.message, error.hint)
    except BaseException as error:  # SystemExit too: under TRL it would end the run silently
        return Finding(
            FAILS,
            "error",
            f"reward '{reward.name}' raised {type(error).__name__}: {error}",
            f"fix {reward.name}; in training it would stop the run",
        )
    return values, time.perf_counter() - began


def _from_trl() -> dict[str, object]:
    """The arguments TRL passes besides columns and token ids; logging does nothing here."""
    return {
        "trainer_state": SimpleNamespace(global_step=0, max_steps=1, epoch=0.0),
        "log_extra": _ignore,
        "log_metric": _ignore,
    }


def _ignore(*args: object, **kwargs: object) -> None:
    """Replaces TRL's log functions."""


if __name__ == "__main__":
    main()
