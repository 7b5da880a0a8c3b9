"""What a step is estimated to consist of."""

from __future__ import annotations

import pytest
from planning import COLOCATE, cluster, planned

LIGER = {"use_liger_kernel": True}


@pytest.mark.parametrize(
    ("rollout", "grpo", "forwards"),
    [
        (COLOCATE, {}, 0),
        (COLOCATE, {"beta": 0.04}, 1),
        (COLOCATE, {"num_iterations": 2}, 1),
        (COLOCATE, {"num_iterations": 2, "beta": 0.04}, 2),
        (COLOCATE, {"loss_type": "vespo"}, 1),
        (COLOCATE, LIGER, 1),
        (COLOCATE, {**LIGER, "vllm_importance_sampling_correction": False}, 0),
        ({"backend": "transformers"}, {"loss_type": "vespo"}, 0),
    ],
)
def test_completions_are_scored_apart_only_where_the_loss_cannot_do_it(rollout, grpo, forwards):
    plan = planned(cluster=cluster(1, 8), rollout=rollout, grpo=grpo)
    scoring = [part["how"] for part in plan.time["parts"] if part["name"] == "scoring"]
    assert scoring == [f"forwards without gradient: {forwards}"] * bool(forwards)
