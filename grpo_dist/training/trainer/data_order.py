"""A resumed run reads its problems in the same order as an uninterrupted one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from trl import GRPOTrainer
from trl.trainer.utils import RepeatSampler


class KeepsDataOrder(GRPOTrainer):
    """TRL's sampler draws one order after the other from a generator: after a resume again the first one.

    That is TRL 1.16. Without this class, a run that is resumed in its second epoch repeats the order of the first.
    """

    def _get_train_sampler(self, dataset: Any = None) -> RepeatSampler:
        sampler = super()._get_train_sampler(dataset)
        sampler.__class__ = ForwardedSampler  # whatever arguments TRL's versions pass to it
        sampler.epochs_done = lambda: self._epochs_done(len(sampler))
        return sampler

    def _epochs_done(self, completions: int) -> int:
        """Complete passes done, each of this many completions."""
        per_step = self.args.per_device_train_batch_size * self.args.gradient_accumulation_steps
        steps = max(1, completions // (per_step * self.accelerator.num_processes))
        return self.state.global_step // steps


class ForwardedSampler(RepeatSampler):
    """Leaves out the orders of the epochs that are done when its first is asked for.

    `RepeatSampler.__iter__` of TRL 1.16 draws `randperm(num_samples)` from its `generator` once per epoch, if
    `shuffle`. If it draws anything else, a resumed run silently reads its problems in another order.
    """

    epochs_done: Callable[[], int] | None = None

    def __iter__(self) -> Iterator[int]:
        if self.epochs_done is not None and self.shuffle:
            for _ in range(self.epochs_done()):
                torch.randperm(self.num_samples, generator=self.generator)
        self.epochs_done = None
        return super().__iter__()
