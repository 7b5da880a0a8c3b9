"""Checks that the engines sample from the policy being trained: the trainer must score their tokens as they did.

A failed sync stops nothing by itself: the engines continue with the base model or an old adapter, and the run learns
from completions that are not its own.

vLLM 0.31 cannot score a given text under an adapter (its `prompt_logprobs` takes the indices of the sampled tokens for
those of the prompt, and crashes the engine); so the engines generate a few texts and the trainer scores them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice

import torch
from accelerate import Accelerator
from datasets import Dataset
from peft import PeftModel

from grpo_dist.errors import RolloutError
from grpo_dist.inference.client import Prompt, Sampled
from grpo_dist.training.models.prompts import PromptRenderer

PROMPTS = 4
LONGEST_PROMPT = 256
COMPLETION_TOKENS = 32
SEED = 20_230
SAMPLING = {"temperature": 1.0, "top_p": 1.0, "top_k": 0, "min_p": 0.0, "repetition_penalty": 1.0}
"""Nothing between the model and its probabilities."""
TOLERANCE = {"float32": 1e-3, "bfloat16": 0.1, "float16": 0.1}
"""Largest mean difference of log-probabilities, by the model's dtype.

Float32 on CPU gave 3e-7 with the right adapter and 0.06 with none. In 16 bits the two programs round differently in
every layer. Bfloat16 on CPU gave, with 16 random adapters on the embedded model and about 66 tokens each:

    the right adapter   0.003 on average, 0.005 at most; a single token up to 0.12
    none                0.007 to 0.19
    0.6 of it           0.003 to 0.11
    doubled lora_alpha  0.006 to 0.89

So 0.1 detects another model, but not a missing adapter with a smaller effect. `_serves_base` does, by comparison: it
detected all 16 missing adapters and raised no false alarm for 20 right ones. `_serves_a_share` detects a wrong scale
once the adapter changes log-probabilities by several times the rounding. An adapter one step old is nearly the newest,
and passes until it is 0.1 off. Larger models and GPUs were not measured; 0.1 leaves a margin for them.
"""
NOTHING = 0.15
"""An effect of the adapter smaller than this is rounding."""
TELLING_TOKENS = 24
"""Fewer tokens may be nearer to the base model by chance."""
WRONG_SHARE = 0.25
"""An adapter whose effect is larger or smaller by this much is not the one that is trained."""
DEVIATIONS = 5.0
"""Standard errors beyond which a share is not due to chance; a run has thousands of checks."""


Text = tuple[tuple[int, ...], tuple[int, ...]]
"""Token ids of a prompt and of its completion."""


@dataclass(frozen=True)
class CanaryScores:
    """Log-probabilities of an engine's tokens, one after the other: its own, and the trainer's with and without the
    adapter; each of shape (tokens,)."""

    served: torch.Tensor
    trained: torch.Tensor
    base: torch.Tensor


class Canary:
    """A few fixed prompts that are checked repeatedly.

    Args:
        dtype: the model's, a key of TOLERANCE.
        max_tokens: of a completion in training; the canary's are no longer.
    """

    def __init__(
        self,
        model: PeftModel,
        renderer: PromptRenderer,
        accelerator: Accelerator,
        dataset: Dataset,
        *,
        dtype: str,
        max_tokens: int,
    ) -> None:
        self.model, self.accelerator, self.tolerance = model, accelerator, TOLERANCE[dtype]
        self.prompts = [
            Prompt(tuple(ids), 1, SEED + number)
            for number, ids in enumerate(islice(_prompts(dataset, renderer), PROMPTS))
        ]
        self.sampling = {**SAMPLING, "max_tokens": min(max_tokens, COMPLETION_TOKENS)}

    def score(self, answers: Mapping[str, list[Sampled]]) -> dict[str, CanaryScores]:
        """Each engine's answers, scored; every process must call it with the same."""
        texts = {
            text: None for sampled in answers.values() for text in self._texts(sampled)
        }  # in the same order in every process
        trained = {text: self._logprobs(*text) for text in texts}
        with self.model.disable_adapter():
            base = {text: self._logprobs(*text) for text in texts}
        return {name: self._scores(sampled, trained, base) for name, sampled in answers.items()}

    def _texts(self, sampled: list[Sampled]) -> list[Text]:
        return [(p.token_ids, tuple(one.token_ids)) for p, one in zip(self.prompts, sampled, strict=True)]

    def _scores(
        self, sampled: list[Sampled], trained: Mapping[Text, torch.Tensor], base: Mapping[Text, torch.Tensor]
    ) -> CanaryScores:
        texts = self._texts(sampled)
        served = torch.tensor([logprob for one in sampled for logprob in one.logprobs])
        return CanaryScores(
            served, torch.cat([trained[text] for text in texts]), torch.cat([base[text] for text in texts])
        )

    def check(self, scores: Mapping[str, CanaryScores], policy: str) -> float:
        """The largest mean difference between an engine and the trainer.

        Raises:
            RolloutError: it is beyond the tolerance, or that of the base model; with both numbers and the likely cause.
        """
        differences = {name: _distance(score.served, score.trained) for name, score in scores.items()}
        # NaN is no agreement.
        agree = {name for name, one in differences.items() if one <= self.tolerance and not _is_another(scores[name])}
        for name, difference in differences.items():
            if name in agree:
                continue
            served, trained = scores[name].served.mean(), scores[name].trained.mean()
            raise RolloutError(
                f"{name} does not serve {policy}: of {len(scores[name].served)} tokens it sampled, the mean "
                f"log-probability is {served:.6f} there and {trained:.6f} in the trainer; they differ by "
                f"{difference:.2g} on average, tolerance {self.tolerance:g}. {_cause(scores[name])}"
                + (f"; {len(agree)} others agree" if agree else ""),
                hint="nothing was trained on its completions; fix the cause, then continue with --resume",
            )
        return max(differences.values())

    @torch.no_grad()
    def _logprobs(self, prompt: tuple[int, ...], completion: tuple[int, ...]) -> torch.Tensor:
        """Of the completion's tokens, unscaled; one text at a time: logits of a large vocabulary take memory."""
        was_training = self.model.training
        self.model.eval()
        ids = torch.tensor([prompt + completion], device=self.accelerator.device)
        with self.accelerator.autocast():
            logits = self.model(input_ids=ids).logits[0, len(prompt) - 1 : -1].float()
        self.model.train(was_training)
        return torch.log_softmax(logits, -1).gather(-1, ids[0, len(prompt) :, None])[:, 0].cpu()


def _is_another(scores: CanaryScores) -> bool:
    """Errors that pass the tolerance but show in a comparison."""
    return len(scores.served) >= TELLING_TOKENS and (_serves_base(scores) or _serves_a_share(scores))


def _serves_base(scores: CanaryScores) -> bool:
    """Twice as near to the base model as to the trained one, which rounding alone does not cause."""
    to_base, to_trained = (_distance(scores.served, one) for one in (scores.base, scores.trained))
    return 2 * to_base < to_trained


def _serves_a_share(scores: CanaryScores) -> bool:
    """The engine deviates in the direction of the learnt change: by regression over all tokens.

    The trainer's own rounding is part of the learnt change too, and makes the right adapter look smaller by the ratio
    of its variance to that of the change; the unexplained rest bounds it.
    """
    learnt, off = scores.trained - scores.base, scores.served - scores.trained
    power = float(learnt @ learnt)
    if not power > 0:
        return False
    share = float(off @ learnt) / power
    unexplained = (off - share * learnt) ** 2
    error = float(unexplained @ learnt**2) ** 0.5 / power
    return abs(share) > max(WRONG_SHARE, float(unexplained.sum()) / power + DEVIATIONS * error)


def _cause(scores: CanaryScores) -> str:
    far = _distance(scores.served, scores.trained)
    learnt, shown = scores.trained - scores.base, scores.served - scores.base
    scale = float(shown @ learnt / (learnt @ learnt)) if learnt.any() else 1.0
    if scale < NOTHING and _distance(scores.served, scores.base) < far / 2:
        return "It serves the base model: the adapter did not arrive"
    if _distance(shown, scale * learnt) < far / 2:
        return (
            f"It shows about {scale:.2g} times what the adapter has learnt: an older adapter, or a wrong scale "
            f"(lora_alpha, use_rslora)"
        )
    return "The weights differ in another way: an older adapter, another model or revision, dtype or quantisation"


def _distance(one: torch.Tensor, other: torch.Tensor) -> float:
    return float((one - other).abs().mean())


def _prompts(dataset: Dataset, renderer: PromptRenderer) -> Iterator[list[int]]:
    """The first prompts of the training data, as the model reads them; of long ones the end."""
    for row in dataset:
        yield renderer.ids(row["prompt"])[-LONGEST_PROMPT:]
