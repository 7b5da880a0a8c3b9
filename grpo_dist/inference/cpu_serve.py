"""`vllm serve` on a CPU, with an engine that is forked from the API server instead of importing vLLM once more.

That import takes fifteen seconds of processor time, half the start of a replica.
"""

from __future__ import annotations

import multiprocessing

import vllm.v1.engine.core  # noqa: F401  the engine needs it: imported before the fork
from vllm.entrypoints.cli.main import main
from vllm.v1.engine import utils

if __name__ == "__main__":
    # On a CPU vLLM 0.31 always spawns, because threads of OpenMP do not survive a fork
    # (`CpuPlatform.check_and_update_config`); the API server has started none. If this name moves, the engine is
    # spawned as before.
    utils.get_mp_context = lambda: multiprocessing.get_context("fork")
    main()
