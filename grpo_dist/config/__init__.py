"""The user's configuration, checked field by field; no arithmetic, no side effects."""

from grpo_dist.config.load import config_differences, dump_config, load_config, load_site
from grpo_dist.config.sections import RunConfig

__all__ = ["RunConfig", "config_differences", "dump_config", "load_config", "load_site"]
