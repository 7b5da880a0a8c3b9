"""The decision as a table: each question, what follows from each answer, why, and the source.

Pure. The picture in the documentation is drawn from the same table.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

FEW, MANY = 100, 100_000
"""Labels below the first are few: Predibase's rule of thumb. From the second on they are many (our own figure)."""

OURS = "our own rule of thumb"
PREDIBASE = (
    "Addair and Garg 2025, https://predibase.com/blog/"
    "how-reinforcement-learning-beats-supervised-fine-tuning-when-data-is-scarce"
)
DPO = "Rafailov et al. 2023, https://arxiv.org/abs/2305.18290"
DAPO = "Yu et al. 2025, section 3.2, https://arxiv.org/abs/2503.14476"
LIMITS = "Yue et al. 2025, https://arxiv.org/abs/2504.13837"
DIFFICULTY = "Bae et al. 2025, https://arxiv.org/abs/2504.03380"


@dataclass(frozen=True)
class Branch:
    """What follows from one answer: the next step or an outcome, by its name."""

    to: str
    why: str
    source: str


@dataclass(frozen=True)
class Step:
    """One question; `fact` names what it asks for, which several steps may ask."""

    fact: str
    question: str
    branches: Mapping[str, Branch]


@dataclass(frozen=True)
class Recommendation:
    title: str
    what: str
    next: tuple[str, ...]
    """What to do, in order."""


@dataclass(frozen=True)
class Reason:
    """One answered question on the path."""

    fact: str
    question: str
    answer: str
    why: str
    source: str


@dataclass(frozen=True)
class Advice:
    name: str
    """In `OUTCOMES`."""
    outcome: Recommendation
    reasons: tuple[Reason, ...]


CHECKABLE = "Can a program tell a right answer from a wrong one?"
REASONING = "Are answers much better when the model reasons first?"
BASE = "Does the base model sometimes solve the problems?"

START = "labels"
STEPS: dict[str, Step] = {
    "labels": Step(
        "labels",
        "How many labels are there (answers, or examples to imitate)?",
        {
            "none": Branch("checkable-unlabelled", "There is nothing to imitate.", PREDIBASE),
            "few": Branch("checkable-few", f"Fewer than {FEW} are too few to imitate well.", PREDIBASE),
            "some": Branch("checkable-some", f"{FEW} to {MANY:,} serve either way.", OURS),
            "many": Branch("sft", f"{MANY:,} or more cover the task: imitating them is cheaper.", OURS),
        },
    ),
    "checkable-unlabelled": Step(
        "verifiable",
        CHECKABLE,
        {
            "yes": Branch("base", "A check is all that RFT needs: it learns without a single label.", PREDIBASE),
            "no": Branch("preference", "What cannot be checked can still be compared, by people.", DPO),
        },
    ),
    "checkable-few": Step(
        "verifiable",
        CHECKABLE,
        {
            "yes": Branch("base", "RFT gets a signal from every sample it draws, not from labels alone.", PREDIBASE),
            "no": Branch("sft", "Without a check there is no reward, and there are examples, if few.", OURS),
        },
    ),
    "checkable-some": Step(
        "verifiable",
        CHECKABLE,
        {
            "yes": Branch("reasoning", "Both ways are open.", OURS),
            "no": Branch("sft", "Without a check there is no reward, and there are examples to imitate.", OURS),
        },
    ),
    "reasoning": Step(
        "reasoning",
        REASONING,
        {
            "yes": Branch("base", "RFT finds the reasoning itself; labels rarely spell it out.", PREDIBASE),
            "no": Branch("sft", "There is no reasoning to find, and imitating is simpler.", PREDIBASE),
        },
    ),
    "base": Step(
        "base",
        BASE,
        {
            "sometimes": Branch("rft", "Right and wrong answers to one problem are what GRPO learns from.", DIFFICULTY),
            "never": Branch("warm-start", "GRPO strengthens what is sampled, and nothing right is.", LIMITS),
            "always": Branch("harder", "Where all answers are right, no reward is above the mean.", DAPO),
            "unknown": Branch("rft", "Not measured: see that it is so before a long run.", DIFFICULTY),
        },
    ),
}

OUTCOMES: dict[str, Recommendation] = {
    "rft": Recommendation(
        "RFT: reinforcement fine-tuning with GRPO",
        "The model tries, a reward judges, and what did better becomes likelier.",
        (
            "grpo-dist rewards CONFIG: whether the rewards tell right from wrong",
            "grpo-dist filter CONFIG: the problems that the base model sometimes solves",
            "grpo-dist run CONFIG",
        ),
    ),
    "warm-start": Recommendation(
        "SFT first, then RFT",
        "The base model has to succeed now and then before rewards can teach it anything.",
        (
            "warm_start: in the configuration, with a few worked answers in the right form",
            "or easier problems, a larger base model, longer completions (grpo.max_completion_length)",
            "then ask again: grpo-dist advise --config CONFIG --samples 8",
        ),
    ),
    "harder": Recommendation(
        "Harder problems",
        "There is nothing left to learn from these.",
        ("take problems that the base model fails at times: grpo-dist filter CONFIG shows how many there are",),
    ),
    "sft": Recommendation(
        "SFT: supervised fine-tuning",
        "The model imitates the labels.",
        (
            "TRL's SFTTrainer: https://huggingface.co/docs/trl/sft_trainer",
            "this program does SFT only as the warm start before GRPO (warm_start:)",
        ),
    ),
    "preference": Recommendation(
        "Preference tuning: DPO or RLHF",
        "People say which of two answers is better, and the model learns to give such.",
        (
            "without judged answers yet: let people say which of two answers of the model is better",
            "with pairs of a chosen and a rejected answer, TRL's DPOTrainer: https://huggingface.co/docs/trl/dpo_trainer",
            "with answers that are each good or bad, TRL's KTOTrainer: https://huggingface.co/docs/trl/kto_trainer",
        ),
    ),
}


def label_answer(count: int) -> str:
    """The answer to `labels` for a number of them."""
    if count == 0:
        return "none"
    if count < FEW:
        return "few"
    return "some" if count < MANY else "many"


def decide(known: Mapping[str, str]) -> Advice | Step:
    """The advice that follows from what is known (fact → answer), or the step whose answer is missing."""
    name, reasons = START, []
    while name in STEPS:
        step = STEPS[name]
        if step.fact not in known:
            return step
        answer = known[step.fact]
        branch = step.branches[answer]
        reasons.append(Reason(step.fact, step.question, answer, branch.why, branch.source))
        name = branch.to
    return Advice(name, OUTCOMES[name], tuple(reasons))
