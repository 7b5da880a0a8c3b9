"""Less padding: micro-batches of completions of similar length, each cut to its longest."""

from __future__ import annotations

from typing import Any

import torch
from trl import GRPOTrainer
from trl.trainer.utils import split_tensor_dict

Batch = dict[str, torch.Tensor]

OF_PROMPT = ("prompt_ids", "prompt_mask")
OF_COMPLETION = (
    "completion_ids",
    "completion_mask",
    "tool_mask",
    "old_per_token_logps",
    "ref_per_token_logps",
    "sampling_per_token_logps",
    "importance_sampling_ratio",  # (B, 1) for whole sequences: nothing to cut
)
OF_ROW = ("advantages", "num_items_in_batch")
# What TRL 1.16 puts into a text batch. A batch with anything else is left alone: that is slower, but not wrong.
KNOWN = frozenset({*OF_PROMPT, *OF_COMPLETION, *OF_ROW})


class TightMicroBatches(GRPOTrainer):
    """Regroups and cuts the batches TRL has generated, scored, shuffled and split.

    TRL pads all completions of a process to the longest. Cutting columns that hold only padding does not change the
    loss: they are masked, and rotary embeddings depend on distances, not positions. Nor does it matter which
    micro-batch of its optimizer step a completion is in, unless a mean over the tokens of a micro-batch enters the
    loss. (The logged `entropy`, `kl` and `clip_ratio` are such means, averaged over micro-batches: short completions
    weigh more in them here.) Each process regroups its own batches and runs as many forward passes as before.
    """

    def _prepare_inputs(self, generation_batch: Any) -> Any:
        # TRL 1.16 keeps `steps_per_generation` micro-batches in `_buffered_inputs`, makes a new list when it generates,
        # and returns number `_step % steps_per_generation`. If it keeps them elsewhere, this fails or cuts nothing; if
        # it counts differently, one micro-batch is trained on twice and another one never.
        buffered = self._buffered_inputs
        inputs = super()._prepare_inputs(generation_batch)
        if self._buffered_inputs is buffered:  # no new batch, or an evaluation
            return inputs
        self._buffered_inputs = self._tidied(self._buffered_inputs)
        return self._buffered_inputs[self._step % self.args.steps_per_generation]

    def _tidied(self, batches: list[Batch]) -> list[Batch]:
        # vespo's weights include the importance-sampling ratio of padding
        if self.loss_type == "vespo" or not batches[0].keys() <= KNOWN:
            return batches
        size = self._micro_batches_of_a_step(len(batches))
        steps = [batches[first : first + size] for first in range(0, len(batches), size)]
        return [trim_padding(batch, self.pad_to_multiple_of or 1) for step in steps for batch in by_length(step)]

    def _micro_batches_of_a_step(self, generated: int) -> int:
        """How many consecutive micro-batches may exchange completions."""
        # These are the settings of TRL 1.16 with which the loss contains a mean over a micro-batch. If TRL adds another
        # one, moving completions between micro-batches silently changes the loss.
        token_means = self.loss_type == "bnpo" or self._entropy_bonus_enabled or self.aux_loss_enabled
        if token_means or self.top_entropy_quantile < 1.0:
            return 1
        accumulated = self.args.gradient_accumulation_steps
        if accumulated % generated == 0:
            return generated
        return accumulated if generated % accumulated == 0 else 1


def by_length(batches: list[Batch]) -> list[Batch]:
    """The same rows in as many batches, longest first, so that a batch too large for memory fails at once."""
    if len(batches) == 1:
        return batches
    whole = {name: torch.cat([one[name] for one in batches]) if x.ndim else x for name, x in batches[0].items()}
    lengths = whole["prompt_mask"].sum(dim=1) + whole["completion_mask"].sum(dim=1)
    order = lengths.argsort(descending=True, stable=True)
    # TRL 1.16 splits rows into equal parts, in order, and gives a scalar (num_items_in_batch) to each part.
    return split_tensor_dict({name: x[order] if x.ndim else x for name, x in whole.items()}, len(batches))


def trim_padding(batch: Batch, multiple: int) -> Batch:
    """Without the columns that are padding in all rows: left of prompts, right of completions.

    Args:
        batch: tensors of (B, P) and (B, T), as TRL names them.
        multiple: `pad_to_multiple_of`.
    """
    prompt, completion = (_width(batch[name], multiple) for name in ("prompt_mask", "completion_mask"))
    prompts = {name: batch[name][:, -prompt:] for name in OF_PROMPT}
    completions = {name: batch[name][:, :completion] for name in OF_COMPLETION if name in batch}
    return {**batch, **prompts, **completions}


def _width(mask: torch.Tensor, multiple: int) -> int:
    """Number of columns needed; at least one, even if every completion of a batch is masked out of the loss."""
    longest = max(1, int(mask.sum(dim=1).max()))
    return min(mask.size(1), -(-longest // multiple) * multiple)
