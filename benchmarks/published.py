"""What others measured, beside what the planner says for the same: writes docs/published.md.

    python benchmarks/published.py

Needs neither a GPU nor the training stack.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from math import exp, log
from pathlib import Path
from statistics import fmean

from grpo_dist.plan.specs import Architecture, architecture_of
from grpo_dist.plan.specs.hardware import gpu, link
from grpo_dist.plan.time import (
    Layout,
    Lengths,
    Workload,
    gather_time,
    generation_time,
    step_time,
    training_time,
    transformers_time,
)

PRIME_RL = "https://github.com/PrimeIntellect-ai/prime-rl"
PAGE = Path(__file__).parent.parent / "docs" / "published.md"
POOL = 100e9
"""Bytes of KV cache where nothing is said of it: more than is needed."""


def first_qwen(hidden: int, mlp: int, layers: int) -> Architecture:
    """The first Qwen's shape: no grouped keys, untied head."""
    heads = hidden // 128
    return Architecture("qwen", hidden, mlp, layers, heads, heads, 128, 151_936, 8192)


QWEN3_06B, QWEN3_4B, QWEN3_8B, QWEN3_32B = (
    architecture_of(f"Qwen/Qwen3-{size}") for size in ("0.6B", "4B", "8B", "32B")
)
QWEN_1_8B, QWEN_7B = first_qwen(2048, 5504, 24), first_qwen(4096, 11_008, 32)
QWEN_14B, QWEN_72B = first_qwen(5120, 13_696, 40), first_qwen(8192, 24_576, 80)
QWEN25_1_5B = Architecture("qwen2", 1536, 8960, 28, 12, 2, 128, 151_936, 4096, tie_word_embeddings=True)
LLAMA_8B = Architecture("llama", 4096, 14_336, 32, 32, 8, 128, 128_256, 131_072)
RANK_16_OF_4B, RANK_128_OF_8B = 33_030_144, 349_175_808
"""Parameters of adapters on all projections."""


@dataclass(frozen=True)
class Published:
    """One measurement of others, and the planner's seconds for the same work."""

    what: str
    source: str
    seconds: float
    planned: float
    fitted: bool = False
    """Whether factors of the planner were fitted to it."""
    guessed: str = ""
    """What the publication does not say and was chosen."""

    @cached_property
    def ratio(self) -> float:
        """Planned over published; below 1 the planner hopes for too much."""
        return self.planned / self.seconds


def runs() -> Iterator[Published]:
    """All of them, by what they measure."""
    yield from _qwen_readme()
    yield from _prime_rl()
    yield from _async_grpo()
    yield from _generation()
    yield from _steps()


def _qwen_readme() -> Iterator[Published]:
    source = "[Qwen README](https://github.com/QwenLM/Qwen), profiling"
    measured = {
        "Qwen-1.8B": (QWEN_1_8B, (1.0, 1.0, 1.1, 1.7, 3.3, 6.8)),
        "Qwen-7B": (QWEN_7B, (1.2, 1.5, 2.8, 5.2, 10.1, 21.3)),
        "Qwen-14B": (QWEN_14B, (1.6, 2.4, 4.4, 8.4, 17.0, 36.0)),
    }
    for name, (model, all_seconds) in measured.items():
        for tokens, seconds in zip((256, 512, 1024, 2048, 4096, 8192), all_seconds, strict=True):
            planned = _trained(model, "a100-80gb", tokens, 8)
            yield Published(f"LoRA, {name}, 8 × {tokens:,} tokens, A100", source, seconds, planned, fitted=True)
    nvlink = link("nvlink3")
    for tokens, seconds in zip((256, 1024, 8192), (17.6, 29.4, 161.5), strict=True):
        gathered = 8 * 2 * gather_time(2 * QWEN_72B.parameters(), 4, 1, nvlink, nvlink)
        planned = _trained(QWEN_72B, "a100-80gb", tokens, 8) + gathered
        yield Published(f"LoRA, ZeRO-3, Qwen-72B, 8 × {tokens:,} tokens, 4 A100", source, seconds, planned)


def _prime_rl() -> Iterator[Published]:
    source = f"[prime-rl]({PRIME_RL}/blob/main/benchmarks/results/BENCHMARKS.md), February 2026"
    table = (
        ("4B", QWEN3_4B, "h100", 1, 16_384, 6_230, True),
        ("4B", QWEN3_4B, "h100", 1, 65_536, 4_160, True),
        ("4B", QWEN3_4B, "rtx-a6000", 1, 16_384, 1_230, True),
        ("4B", QWEN3_4B, "h100", 8, 16_384, 48_720, False),
        ("4B", QWEN3_4B, "h100", 8, 65_536, 32_800, False),
        ("4B", QWEN3_4B, "h200", 8, 16_384, 52_380, False),
        ("4B", QWEN3_4B, "h200", 8, 65_536, 33_430, False),
        ("4B", QWEN3_4B, "b200", 8, 16_384, 51_210, False),
        ("0.6B", QWEN3_06B, "h100", 1, 16_384, 13_340, False),
        ("0.6B", QWEN3_06B, "h100", 1, 65_536, 9_970, False),
        ("0.6B", QWEN3_06B, "rtx-a6000", 1, 16_384, 2_410, False),
        ("0.6B", QWEN3_06B, "rtx-a6000", 1, 65_536, 1_990, False),
    )
    for size, model, name, gpus, tokens, per_second, fitted in table:
        where = f"{gpus} {name.upper()}" if gpus > 1 else name.upper()
        planned = _trained(model, name, tokens, 1)
        yield Published(
            f"LoRA r 16, Qwen3-{size}, {tokens:,} tokens a GPU, {where}",
            source,
            gpus * tokens / per_second,
            planned,
            fitted,
        )


def _async_grpo() -> Iterator[Published]:
    source = "[TRL's AsyncGRPO with LoRA](https://huggingface.co/blog/asyncgrpo-lora-hfjobs)"
    lengths = Lengths(prompt=135, mean=1065, longest=1065)
    for checkpointing, seconds in ((True, 5.6), (False, 4.6)):
        planned = training_time(
            QWEN25_1_5B, gpu("h200"), lengths, completions=78, micro_batch=13, checkpointing=checkpointing
        )
        how = "with" if checkpointing else "without"
        what = f"LoRA r 1, Qwen2.5-1.5B, 94,000 tokens {how} checkpointing, H200"
        yield Published(what, source, seconds, planned.seconds, fitted=True)
    planned = _served(QWEN25_1_5B, "h200", lengths, 128, group=8, replicas=2) / 0.75
    guessed = "a quarter of the time paused"
    yield Published(
        "Generation, Qwen2.5-1.5B, 128 × 1,065 tokens, 2 H200", source, 128 * 1065 / 26e3, planned, False, guessed
    )


def _generation() -> Iterator[Published]:
    lengths = Lengths(prompt=150, mean=512, longest=512)
    planned = _served(QWEN3_4B, "b200", lengths, 32, group=1, replicas=1)
    source = "[Unsloth, pull request 5108](https://github.com/unslothai/unsloth/pull/5108)"
    yield Published("Generation with LoRA r 32, Qwen3-4B, 32 × 512 tokens, B200", source, 32 * 512 / 7_500, planned)
    source = "[Qwen README](https://github.com/QwenLM/Qwen), inference"
    lengths = Lengths(prompt=1, mean=2048, longest=2048)
    for name, model, rate in (("1.8B", QWEN_1_8B, 54.09), ("7B", QWEN_7B, 40.93), ("14B", QWEN_14B, 32.22)):
        one = transformers_time(model, gpu("a100-80gb"), lengths, completions=1, processes=1, lora=False)
        what = f"Transformers generates 2,048 tokens, Qwen-{name}, A100"
        yield Published(what, source, 2048 / rate, one.seconds, fitted=True)


def _steps() -> Iterator[Published]:
    whole = Workload(QWEN3_4B, 32, 8, Lengths(150, 1800, 2048), QWEN3_4B.parameters(), lora=False, micro_batch=8)
    four_and_four = step_time(_without_scoring(whole), _machines("h100", 1, trainers=4, rollouts=4))
    source = "vime, issue 244"
    guessed = "mean length 1,800"
    for part, seconds in (("generation", 23.8), ("training", 16.8)):
        what = f"GRPO, all weights, Qwen3-4B, 256 × 2,048 tokens, 4 + 4 H800: {part}"
        yield Published(what, source, seconds, four_and_four.part(part), False, guessed)
    yield from _nemo()
    source = f"[prime-rl, alphabet-sort]({PRIME_RL}/tree/main/examples/basic/alphabet-sort)"
    lengths, guessed = Lengths(prompt=300, mean=300, longest=768), "lengths; just over an hour is 37 s a step"
    sorting = Workload(QWEN3_4B, 16, 16, lengths, RANK_16_OF_4B * 2, micro_batch=4)
    planned = step_time(sorting, _machines("h100", 1, gpus=1)).seconds
    yield Published("GRPO, LoRA r 32, Qwen3-4B, 256 completions, H100: a step", source, 37.0, planned, False, guessed)


def _nemo() -> Iterator[Published]:
    """On policy, NeMo-RL 0.4, Megatron: 2,048 completions for four optimizer steps of 512."""
    source = "[NeMo-RL](https://github.com/NVIDIA-NeMo/RL/blob/main/docs/about/performance-summary.md) 0.4"
    for name, model, nodes, tokens, size, seconds in (
        ("Llama-3.1-8B", LLAMA_8B, 2, 1_060, 1, 97.7),
        ("Qwen3-32B", QWEN3_32B, 4, 3_206, 4, 393.0),
    ):
        lengths = Lengths(prompt=150, mean=tokens - 150, longest=4096 - 150)
        work = Workload(model, 64, 32, lengths, model.parameters(), lora=False)
        planned = step_time(work, _machines("h100", nodes, tensor_parallel=size)).seconds
        what = f"GRPO, all weights, {name}, 2,048 completions, {8 * nodes} H100: a step"
        yield Published(what, source, seconds, planned, False, "prompts of 150 tokens")


def _trained(model: Architecture, name: str, tokens: int, sequences: int) -> float:
    """LoRA with checkpointing, one sequence at a time."""
    lengths = Lengths(prompt=0, mean=tokens, longest=tokens)
    return training_time(model, gpu(name), lengths, completions=sequences, micro_batch=1).seconds


def _served(model: Architecture, name: str, lengths: Lengths, completions: int, *, group: int, replicas: int) -> float:
    return generation_time(
        model,
        gpu(name),
        lengths,
        completions=completions,
        num_generations=group,
        replicas=replicas,
        kv_pool_bytes=POOL,
        link=link("nvlink4"),
    ).seconds


def _without_scoring(work: Workload) -> Workload:
    return Workload(**{**vars(work), "scoring_forwards": 0})


def _machines(
    name: str, nodes: int, *, gpus: int = 8, trainers: int = 0, rollouts: int = 0, tensor_parallel: int = 1
) -> Layout:
    intra, inter = link(gpu(name).link), link("infiniband-ndr")
    shared = {"rollout_gpus": rollouts, "tensor_parallel": tensor_parallel, "syncs_adapter": gpus == 1}
    return Layout(gpu(name), intra, inter, nodes, gpus, trainer_gpus=trainers or nodes * gpus, **shared)


def page() -> str:
    """docs/published.md."""
    found = list(runs())
    held = [run for run in found if not run.fitted]
    worst = max(held, key=lambda run: abs(log(run.ratio)))
    near = sum(0.8 <= run.ratio <= 1.25 for run in held)
    return f"""\
# The plan's times against published runs

<!-- written by benchmarks/published.py -->

Nothing in this project was measured on a GPU yet. `grpo-dist plan` estimates time from data sheets and a few
efficiencies, and this page holds the estimate against what others measured. A ratio below 1 means that the planner
hopes for too much: 0.80 says 8 s where 10 s were measured.

Of the {len(held)} figures that no efficiency was fitted to, {near} are within a quarter (0.80 to 1.25); their geometric
mean is {_mean(held):.2f}. The worst is **{worst.what}**, with {worst.ratio:.2f}. Most of those that are off by more are
of two kinds:

- B200 was measured with FlashAttention 2, which is not made for it: eight B200 are no faster than eight H200.
- prime-rl trains an adapter of Qwen3-0.6B hardly faster than all its weights, and on an A6000 slower. That points to
  its code for adapters, not to the GPU.

Left out are mixtures of experts, GPUs of other vendors (miles, 154 s a step on eight MI355X), and runs of which no
seconds were published (torchtitan's DAPO).

`grpo-dist plan --calibrate RUN` replaces the estimate by measurements of your own machines.

{_table("Held out from the fit", held)}
{_table("Fitted", [run for run in found if run.fitted])}"""


def _mean(found: list[Published]) -> float:
    return exp(fmean(log(run.ratio) for run in found))


def _table(title: str, found: list[Published]) -> str:
    lines = [
        f"## {title}",
        "",
        "| run | published, s | planned, s | ratio | source |",
        "| --- | --- | --- | --- | --- |",
    ]
    for run in found:
        source = f"{run.source}; assumed: {run.guessed}" if run.guessed else run.source
        lines.append(f"| {run.what} | {run.seconds:.3g} | {run.planned:.3g} | {run.ratio:.2f} | {source} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
