"""Where problems come from and how they become prompts."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from grpo_dist.config.known_data import KNOWN_DATA, KnownName, with_known
from grpo_dist.config.section import EMBEDDED, Conflict, Fraction, Name, Positive, Section


class SourceSection(Section):
    """One data set: on the Hub, in local files, or embedded in the package."""

    name_or_path: Name
    """Hub data set id; local JSONL, JSON, CSV or Parquet file, glob or directory; or `embedded`."""
    like: KnownName | None = None
    """A known data set of which this is a copy, in a file or under another name: its columns and answer extractor hold
    where nothing else is stated. A known data set on the Hub needs only its own name."""
    config: str | None = None
    """Hub data set configuration (subset)."""
    revision: str | None = None
    """Branch, tag or commit on the Hub."""
    split: Name = "train"
    """Split to train on. Local files that name no split are all `train`."""
    columns: dict[Name, Name] = Field(default_factory=dict)
    """Our column name → theirs, e.g. `{prompt: question, answer: solution}`; a dotted path reads inside a column, as
    `reward_model.ground_truth`. A name not listed maps to itself."""

    @model_validator(mode="before")
    @classmethod
    def _fill_in_what_is_known(cls, stated: Any) -> Any:
        return with_known(stated, cls.model_fields) if isinstance(stated, dict) else stated

    @property
    def known_as(self) -> KnownName | None:
        """The known data set whose schema the rows have; None when nothing is known of them."""
        return self.like or (self.name_or_path if self.name_or_path in KNOWN_DATA else None)

    def conflicts(self) -> Iterator[Conflict]:
        if self.name_or_path == EMBEDDED:
            for name in ("like", "config", "revision", "columns"):
                if getattr(self, name):
                    yield (name,), f"the embedded data has no {name}; remove it"


class DataSection(SourceSection):
    """The problems GRPO is trained on.

    Needed columns: `prompt`, and `answer` for rewards and a comparison that read it.
    """

    system_prompt: str | None = "recipe"
    """`recipe`, `none`, the text itself, or a path to a text file. `recipe` asks for the four tags."""
    chat_template: str = "recipe"
    """`recipe` (prefills the opening working-out tag), `tokenizer` (the model's own), or a path to a Jinja file."""
    answer_extractor: Literal["none", "gsm8k", "boxed"] = "none"
    """How the answer is read from its column: as it is, after the last `####`, or inside the last `\\boxed{}`."""
    eval_split: str | None = None
    """Split held out for the comparison of base and trained model."""
    eval_fraction: Fraction | None = None
    """Fraction of the split held out instead, chosen by `grpo.seed`; 0.05 when neither is given."""
    max_samples: Positive | None = None
    """Use only this many training problems, chosen by `grpo.seed`."""
    max_prompt_length: Positive | None = None
    """Longer prompts (tokens, generation prompt included) are dropped."""
    max_prompt_length_quantile: Annotated[float, Field(gt=0, le=1)] | None = None
    """Drop prompts longer than this quantile of all prompt lengths; the recipe uses 0.9."""

    def conflicts(self) -> Iterator[Conflict]:
        yield from super().conflicts()
        if self.name_or_path == EMBEDDED and self.eval_split is not None:
            yield ("eval_split",), "the embedded data has one split, train; remove it"
        elif self.eval_split is not None and self.eval_fraction is not None:
            yield ("eval_fraction",), "problems are held out by eval_split already; remove one of the two"
        if self.eval_split == self.split:
            yield ("eval_split",), f"{self.split} is the training split; name another, or set eval_fraction: 0.05"
        if self.max_prompt_length is not None and self.max_prompt_length_quantile is not None:
            yield ("max_prompt_length_quantile",), "max_prompt_length is set already; remove one of the two"
