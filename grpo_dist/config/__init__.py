"""What the user states, checked field by field; no arithmetic, no effects."""

from grpo_dist.config.dump import config_differences, dump_config
from grpo_dist.config.loader import load_config, load_site
from grpo_dist.config.run import RunConfig

__all__ = ["RunConfig", "config_differences", "dump_config", "load_config", "load_site"]
