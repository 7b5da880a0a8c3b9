"""Data sets whose schema is known, for which the name is enough."""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal


@dataclass(frozen=True)
class KnownData:
    """A data set on the Hub: which of its rows are used, and the names of its columns."""

    columns: Mapping[str, str]
    """Our column name → theirs."""
    answer_extractor: str = "none"
    config: str | None = None
    split: str = "train"
    eval_split: str | None = None


_MATH = KnownData({"prompt": "problem", "answer": "solution"}, answer_extractor="boxed", eval_split="test")

KNOWN_DATA: dict[str, KnownData] = {
    "open-r1/DAPO-Math-17k-Processed": KnownData({"answer": "solution"}, config="en"),
    "unsloth/OpenMathReasoning-mini": KnownData(
        {"prompt": "problem", "reasoning": "generated_solution", "answer": "expected_answer"}, split="cot"
    ),
    "openai/gsm8k": KnownData({"prompt": "question"}, answer_extractor="gsm8k", config="main", eval_split="test"),
    "DigitalLearningGmbH/MATH-lighteval": _MATH,
    "EleutherAI/hendrycks_math": _MATH,  # one configuration for each of the seven subjects
    "HuggingFaceH4/MATH-500": KnownData({"prompt": "problem"}, split="test"),
    "google-research-datasets/mbpp": KnownData({"prompt": "text", "answer": "code"}, config="full", eval_split="test"),
    "openai/openai_humaneval": KnownData({"prompt": "prompt"}, split="test"),
    "open-r1/verifiable-coding-problems-python": KnownData(
        {"prompt": "problem_statement", "answer": "gold_standard_solution"}
    ),
    "agentica-org/DeepCoder-Preview-Dataset": KnownData({"prompt": "problem"}, config="primeintellect"),
}
"""Hub id → its schema."""

KnownName = Literal[*KNOWN_DATA]


def with_known(stated: Mapping[str, Any], settings: Container[str]) -> dict[str, Any]:
    """`stated` settings of a data set, completed with what is known about it; explicit settings win.

    Configuration and splits are only filled in for the data set on the Hub: a copy that is `like` it has its own.
    Explicit columns are added to the known ones.

    Args:
        settings: names of the existing settings; others are not filled in.
    """
    return {**stated, **{name: value for name, value in _filled_in(stated) if name in settings}}


def _filled_in(stated: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    name = stated.get("name_or_path")
    on_hub = KNOWN_DATA.get(name) if isinstance(name, str) else None
    like = stated.get("like")
    schema = KNOWN_DATA.get(like) if isinstance(like, str) else on_hub
    if schema is not None:
        columns = stated.get("columns") or {}
        if isinstance(columns, Mapping):
            yield "columns", {**schema.columns, **columns}
        if stated.get("answer_extractor") is None:
            yield "answer_extractor", schema.answer_extractor
    if on_hub is not None:
        split = stated.get("split") or on_hub.split
        yield "split", split
        if stated.get("config") is None:
            yield "config", on_hub.config
        held = on_hub.eval_split
        if held and held not in str(split) and stated.get("eval_split") is None and stated.get("eval_fraction") is None:
            yield "eval_split", held
