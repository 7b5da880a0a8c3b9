"""Scaling of a learning rate to more or fewer completions per step."""

from __future__ import annotations

from math import sqrt
from typing import NamedTuple

LINEAR = {"sgd"}
DERIVED = ("adam", "rmsprop")
"""Optimizers, by the start of or a part of their Transformers name, for which the square root rule was derived."""


class LearningRateAdvice(NamedTuple):
    """A starting value, not a rule."""

    learning_rate: float
    factor: float
    text: str
    source: str


def learning_rate_advice(
    learning_rate: float, completions_before: int, completions_after: int, optim: str = "adamw_torch"
) -> LearningRateAdvice:
    """Scale a learning rate with the completions of a step.

    Adam and RMSprop: by the square root (Malladi et al. 2022, On the SDEs and Scaling Rules for Adaptive Gradient
    Algorithms). SGD: linearly (Goyal et al. 2017). Both hold while gradient noise dominates, below the critical batch
    size (McCandlish et al. 2018), and neither was derived for GRPO.
    """
    ratio = completions_after / completions_before
    rule, factor, source = _rule(optim, ratio)
    value = learning_rate * factor
    if ratio == 1:
        text = f"{learning_rate:.3g}: a step has as many completions as before"
    else:
        text = (
            f"{value:.3g} = {learning_rate:.3g} × {factor:.3g} ({rule} of {completions_after} / {completions_before} "
            f"completions); a value to start from, and an upper one once larger batches stop helping"
        )
    return LearningRateAdvice(value, factor, text, source)


def _rule(optim: str, ratio: float) -> tuple[str, float, str]:
    if optim in LINEAR:
        return "linear in the ratio", ratio, "Goyal et al. 2017, Accurate, Large Minibatch SGD (arXiv 1706.02677)"
    source = "Malladi et al. 2022, On the SDEs and Scaling Rules for Adaptive Gradient Algorithms (arXiv 2205.10287)"
    if not any(name in optim for name in DERIVED):
        source += f"; derived for Adam and RMSprop, carried over to {optim}"
    return "square root", sqrt(ratio), source
