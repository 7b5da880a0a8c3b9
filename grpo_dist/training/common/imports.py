"""Import the training stack without the optional packages a run does not use.

It stands on Transformers 5.10 to 5.17 and TRL 1.15 to 1.16, which ask `is_…_available` while they are imported and
import the whole of what is there. Where they ask elsewhere, this saves nothing and breaks nothing.

Read in TRL 1.16, Transformers 5.17 and Accelerate 1.15. TRL's modules take `is_vllm_available` from `trl.import_utils`,
and `is_wandb_available` from `transformers` and `accelerate.utils`, each when it is first imported.
"""

from __future__ import annotations

import functools
import importlib.metadata

from grpo_dist.launch.forks import has_engine_in_training
from grpo_dist.training.common.process import Run


def import_lean(run: Run) -> None:
    """Before the first import of TRL or Transformers: they will not import vLLM or wandb if the run uses neither."""
    # Transformers and TRL each read the metadata of all installed packages into a PACKAGE_DISTRIBUTION_MAPPING, half a
    # second of processor time.
    importlib.metadata.packages_distributions = functools.cache(importlib.metadata.packages_distributions)

    from accelerate import utils
    from transformers import integrations
    from trl import import_utils

    if not has_engine_in_training(run.plan, run.config):
        import_utils.is_vllm_available = lambda **_: False
    if "wandb" not in run.config.tracking:
        integrations.is_wandb_available = utils.is_wandb_available = lambda: False
