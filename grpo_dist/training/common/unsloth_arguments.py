"""Keep TRL's configurations as TRL defines them: Unsloth changes defaults, and some of the values that are set."""

from __future__ import annotations

from dataclasses import MISSING, fields
from inspect import signature
from typing import Any, TypeVar

from transformers import TrainingArguments

Arguments = TypeVar("Arguments", bound=TrainingArguments)


def build(config_class: type[Arguments], **stated: Any) -> Arguments:
    """An instance whose fields are those of TRL's class with the same settings.

    On a GPU Unsloth replaces TRL's class by a subclass of the same name, with its own defaults (learning_rate, optim,
    seed, …) and an `__init__` that overwrites settings (`models/rl.py`, unsloth 2026.10). So every field is passed, and
    then set again to the intended value.

    Args:
        config_class: TRL's class, or the one Unsloth replaced it with.
    """
    original = [one for one in config_class.__mro__ if one.__name__ == config_class.__name__][-1]
    meant = original(**stated)
    if original is config_class:
        return meant
    taken = signature(config_class).parameters
    defaults = {field.name: _default(field) for field in fields(original) if field.init and field.name in taken}
    arguments = config_class(**{**defaults, **stated})
    for field in fields(original):
        setattr(arguments, field.name, getattr(meant, field.name))
    return arguments


def keep_arguments() -> None:
    """Take back what Unsloth's CPU backend does to the configurations: another optimizer, no bfloat16, …

    Unsloth 2026.10 wraps `__post_init__` with `functools.wraps` and marks the wrapper: `_unsloth_cpu`. Under another
    mark the wrapper stays, and the run silently trains with other settings than were stated.
    """
    from trl import GRPOConfig, SFTConfig

    for config_class in (GRPOConfig, SFTConfig, TrainingArguments):
        wrapper = vars(config_class).get("__post_init__")
        if getattr(wrapper, "_unsloth_cpu", False):
            config_class.__post_init__ = wrapper.__wrapped__


def _default(field: Any) -> Any:
    return field.default if field.default_factory is MISSING else field.default_factory()
