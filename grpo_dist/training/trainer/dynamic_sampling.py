"""DAPO's dynamic sampling: groups without a learning signal are replaced by groups of further prompts."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from math import gcd
from typing import Any

import torch
from accelerate.utils import gather_object
from datasets import Dataset
from trl import GRPOTrainer
from trl.trainer.utils import pad

Row = dict[str, torch.Tensor]
Place = tuple[int, int]
"""(generation batch, index in it), of a group or a row over all processes."""


@dataclass(frozen=True)
class ScoredBatch:
    """One generation batch after scoring. Groups and table are those of all processes, in order."""

    output: dict[str, torch.Tensor]
    """TRL's result for this process's share."""
    informative: list[bool]
    """Per group: whether rewards differ within it."""
    table: dict[tuple[str, ...], list[Any]]
    """Column of the completions table → a value per completion."""


class DynamicSampling(GRPOTrainer):
    """Draws up to `max_num_gen_batches` generation batches per step (verl's name for it).

    The first is TRL's own. Each group whose rewards are all equal is replaced by an informative one from later batches,
    which hold only as many prompts as places are left; if there are too few, it stays. So the shape of the training
    batch never changes.

    `reward` and the other metrics of generation describe the first batch, so they are comparable with those of a run
    without it; the completions table shows what is trained on. Advantages must depend on their group alone.
    """

    def __init__(self, *args: Any, max_num_gen_batches: int = 1, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.max_num_gen_batches = max_num_gen_batches

    def _calculate_rewards(self, *args: Any) -> torch.Tensor:
        # TRL 1.16 returns (completions of all processes, functions), NaN for None. If it returns only this process's,
        # processes draw different numbers of batches, and the run hangs.
        self._scores = super()._calculate_rewards(*args)
        return self._scores

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        if self.max_num_gen_batches == 1 or not self.model.training:
            return super()._generate_and_score_completions(inputs)
        batches = [self._scored(inputs)]
        # TRL 1.16 appends to `_metrics["train"]`, a defaultdict(list), while it generates and scores. If it keeps
        # them elsewhere, the later batches distort the metrics of the step.
        metrics, further = self._metrics["train"], 0.0
        prompts = further_prompts(
            self.train_dataset, batches[0].table[("prompt",)], self.args.seed, self.state.global_step
        )
        while len(batches) < self.max_num_gen_batches and (rows := self._share(prompts, _missing(batches))):
            self._metrics["train"] = defaultdict(list)
            batches.append(self._scored(rows))
            later = self._metrics["train"]
            metrics["num_tokens"] = later["num_tokens"]  # a running total
            for name in ("perf/generation_seconds", "perf/wait_seconds"):
                if seconds := later.get(name):
                    metrics[name][-1] += seconds[-1]
            if share := later.get("perf/replica_utilization"):
                metrics["perf/replica_utilization"][-1:] = share  # of all batches so far
            further += later["completions/mean_length"][-1] * len(batches[-1].informative) * self.num_generations
        self._metrics["train"] = metrics
        metrics["sampling/further_completion_tokens"].append(further)
        self._report(batches)
        places = assign([batch.informative for batch in batches])
        self._rewrite_table(batches, places)
        return self._assembled(batches, places)

    def _scored(self, inputs: list[dict[str, Any]]) -> ScoredBatch:
        for column in self._table().values():
            column.clear()
        # TRL 1.16 returns tensors with one row per completion, or scalars. `_row` fails on anything else.
        output = super()._generate_and_score_completions(inputs)
        informative = groups_that_differ(self._scores, self.reward_weights, self.num_generations)
        return ScoredBatch(output, informative, {name: list(column) for name, column in self._table().items()})

    def _table(self) -> dict[tuple[str, ...], Any]:
        """Columns TRL keeps for the completions table, each with a value per completion.

        TRL 1.16 keeps them in `_logs`. With other keys, the first step ends with a KeyError.
        """
        flat = {(name,): self._logs[name] for name in ("prompt", "completion", "advantages")}
        return flat | {
            (kind, name): column for kind in ("rewards", "extra") for name, column in self._logs[kind].items()
        }

    def _share(self, prompts: Iterator[dict[str, Any]], missing: int) -> list[dict[str, Any]]:
        """This process's rows of the next batch: as many groups as are missing, rounded to divide over processes."""
        processes = self.accelerator.num_processes
        stride = processes // gcd(self.num_generations, processes)
        drawn = list(islice(prompts, -(-missing // stride) * stride))
        drawn = drawn[: len(drawn) // stride * stride]  # at the end of a small data set
        size = len(drawn) * self.num_generations // processes
        first = self.accelerator.process_index * size
        return [drawn[row // self.num_generations] for row in range(first, first + size)]

    def _report(self, batches: list[ScoredBatch]) -> None:
        groups = len(batches[0].informative)
        numbers = {
            "groups_drawn": sum(len(batch.informative) for batch in batches),
            "groups_kept": min(groups, sum(sum(batch.informative) for batch in batches)),
            "generation_batches": len(batches),
        }
        for name, number in numbers.items():
            self._metrics["train"][f"sampling/{name}"].append(float(number))

    def _rewrite_table(self, batches: list[ScoredBatch], places: list[Place]) -> None:
        names = {name for batch in batches for name in batch.table}
        rows = [place for group in places for place in _rows(group, self.num_generations)]
        for name, column in self._table().items():
            column.clear()
            if name in names:
                column.extend(_value(batches[batch].table.get(name), row) for batch, row in rows)

    def _assembled(self, batches: list[ScoredBatch], places: list[Place]) -> dict[str, torch.Tensor]:
        """This process's share of the groups in `places`, padded to equal length, with its new number of tokens."""
        own = batches[0].output
        if not any(batch for batch, _ in places):
            return own
        count = len(own["advantages"])
        first = self.accelerator.process_index * count
        wanted = [place for group in places for place in _rows(group, self.num_generations)]
        moved = self._exchange(batches, {place for place in wanted if place[0]})
        rows = [moved[place] if place[0] else _row(own, place[1] - first) for place in wanted[first : first + count]]
        output = {name: self._padded(name, [row[name] for row in rows]) for name in rows[0]}
        counted = output["completion_mask"] * output.get("tool_mask", 1)
        return {**output, "num_items_in_batch": self.accelerator.gather(counted.sum()).sum()}

    def _exchange(self, batches: list[ScoredBatch], wanted: set[Place]) -> dict[Place, Row]:
        """Rows of the later batches that have a place, from the processes that generated them."""
        mine = []
        for number, batch in enumerate(batches[1:], start=1):
            count = len(batch.output["advantages"])
            first = self.accelerator.process_index * count
            held = [row for row in range(count) if (number, first + row) in wanted]
            mine += [((number, first + row), _row(batch.output, row, "cpu")) for row in held]
        return dict(gather_object(mine))

    def _padded(self, name: str, values: list[torch.Tensor]) -> torch.Tensor:
        values = [value.to(self.accelerator.device) for value in values]
        if not values[0].ndim:
            return torch.stack(values)
        # As `_generate_and_score_completions` of TRL 1.16 pads them (`_tokenizer` is its own). With another padding
        # value, a row from a later batch could differ from what TRL makes of it.
        filling = {"prompt_ids": self._tokenizer.pad_token_id, "completion_ids": self._tokenizer.pad_token_id}
        filling |= {"tool_mask": 1, "importance_sampling_ratio": 1}
        return pad(values, filling.get(name, 0), "left" if name.startswith("prompt_") else "right")


def groups_that_differ(scores: torch.Tensor, weights: torch.Tensor, num_generations: int) -> list[bool]:
    """Whether the rewards of each group differ.

    Args:
        scores: (groups × num_generations, functions), NaN where a function gave none.
        weights: (functions,).
    """
    rewards = (scores * weights.to(scores.device)).nansum(dim=1)
    missing = scores.isnan().all(dim=1)
    low = rewards.masked_fill(missing, torch.inf).view(-1, num_generations).amin(dim=1)
    high = rewards.masked_fill(missing, -torch.inf).view(-1, num_generations).amax(dim=1)
    # Equal sums of weighted rewards may be rounded differently.
    return ((high > low) & ~torch.isclose(high, low)).tolist()


def further_prompts(dataset: Dataset, used: Sequence[Any], seed: int, global_step: int) -> Iterator[dict[str, Any]]:
    """Rows of `dataset` in an order that follows from seed and step, without those whose prompt was used."""
    generator = torch.Generator().manual_seed(random.Random(f"{seed} {global_step}").getrandbits(63))
    seen = set(map(repr, used))
    for index in torch.randperm(len(dataset), generator=generator).tolist():
        row = dataset[index]
        if repr(row["prompt"]) not in seen:
            seen.add(repr(row["prompt"]))
            yield row


def assign(informative: Sequence[Sequence[bool]]) -> list[Place]:
    """Which group takes each place of the first batch: its own, unless it is uninformative and a later one is not.

    Args:
        informative: per generation batch, per group.
    """
    later = (
        (batch, group)
        for batch, flags in enumerate(informative[1:], start=1)
        for group, flag in enumerate(flags)
        if flag
    )
    return [(0, group) if flag else next(later, (0, group)) for group, flag in enumerate(informative[0])]


def _missing(batches: list[ScoredBatch]) -> int:
    return max(0, len(batches[0].informative) - sum(sum(batch.informative) for batch in batches))


def _rows(group: Place, num_generations: int) -> list[Place]:
    batch, index = group
    return [(batch, index * num_generations + i) for i in range(num_generations)]


def _row(output: dict[str, torch.Tensor], index: int, device: str | None = None) -> Row:
    return {name: x[index].to(device) if device else x[index] for name, x in output.items() if x.ndim}


def _value(column: list[Any] | None, row: int) -> Any:
    return None if column is None else column[row]
