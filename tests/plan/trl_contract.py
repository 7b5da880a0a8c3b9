"""Run by test_trl_contract.py with one TRL or another: batches from standard input through its `GRPOConfig`."""

from __future__ import annotations

import json
import sys
from importlib import metadata
from typing import Any

DERIVED = ("generation_batch_size", "steps_per_generation", "num_generations")


def verdict(case: dict[str, Any]) -> dict[str, Any]:
    """What `GRPOConfig` derives on a world of so many processes, or why it refuses."""
    from trl import GRPOConfig

    class Config(GRPOConfig):
        world_size = case["world_size"]

    try:
        config = Config(output_dir="unused", use_cpu=True, report_to="none", **case["arguments"])
    except ValueError as refused:
        return {"refused": str(refused)}
    return {name: getattr(config, name) for name in DERIVED}


if __name__ == "__main__":
    import trl

    verdicts = [verdict(case) for case in json.load(sys.stdin)]
    json.dump({"file": trl.__file__, "version": metadata.version("trl"), "verdicts": verdicts}, sys.stdout)
