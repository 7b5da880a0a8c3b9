"""The sections of a configuration: model, adapter, warm start, data, rewards, evaluation, run."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field, model_validator

from grpo_dist.config import generators
from grpo_dist.config.base import EMBEDDED, Conflict, Fraction, Name, NonNegative, Positive, Section
from grpo_dist.config.cluster import ClusterSection, DistributedSection, RolloutSection
from grpo_dist.config.generation_fields import OWN_IN_BOTH, TAKEN, unknown_to
from grpo_dist.config.grpo import LEAST_TEMPERATURE, GrpoSection
from grpo_dist.config.known_data import KNOWN_DATA, KnownName, with_known
from grpo_dist.config.trl_fields import OptimizerName, SchedulerName


class SourceSection(Section):
    """One data set: on the Hub, in local files, or embedded in the package."""

    name_or_path: Name
    """Hub data set id; local JSONL, JSON, CSV or Parquet file, glob or directory; `reasoning_gym/NAME` for a generator
    of reasoning-gym; or `embedded`."""
    like: KnownName | None = None
    """A known data set of which this is a copy, in a file or under another name: its columns and answer extractor apply
    unless set otherwise. A known data set on the Hub needs only its own name."""
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
        """The known data set whose schema the rows have; None if it is unknown."""
        return self.like or (self.name_or_path if self.name_or_path in KNOWN_DATA else None)

    def conflicts(self) -> Iterator[Conflict]:
        for name in ("like", "config", "revision", "columns"):
            if getattr(self, name) and self.name_or_path == EMBEDDED:
                yield (name,), f"the embedded data has no {name}; remove it"
            elif getattr(self, name) and generators.is_generated(self.name_or_path):
                yield (name,), f"generated data has no {name}; remove it"


RECIPE, TOKENIZER = "recipe", "tokenizer"
"""Chat templates that are no files: ours, which goes with the system prompt of that name, and that of the model."""


class DataSection(SourceSection):
    """The problems GRPO is trained on.

    Required columns: `prompt`, and `answer` for rewards and a comparison that read it.
    """

    system_prompt: str | None = RECIPE
    """`recipe`, `none`, the text itself, or a path to a text file. `recipe` asks for the four tags."""
    chat_template: str = RECIPE
    """`recipe` (prefills the opening working-out tag), `tokenizer` (the model's own), or a path to a Jinja file."""
    answer_extractor: Literal["none", "gsm8k", "boxed"] = "none"
    """How the answer is read from its column: unchanged, after the last `####`, or inside the last `\\boxed{}`."""
    eval_split: str | None = None
    """Split held out for the comparison of base and trained model."""
    eval_fraction: Fraction | None = None
    """Fraction of the split held out instead, chosen by `grpo.seed`; 0.05 if neither is set."""
    generator: dict[Name, Any] = Field(default_factory=dict)
    """For `reasoning_gym/NAME`: the generator's own settings, as reasoning-gym spells them; `size` (500) is the number
    of training problems, `seed` (0) chooses them. `reasoning_gym/composite` mixes several:
    `datasets: [{name: chain_sum, weight: 2, config: {max_terms: 3}}, {name: maze, weight: 1}]`."""
    max_samples: Positive | None = None
    """Use only this many training problems, chosen by `grpo.seed`."""
    max_prompt_length: Positive | None = None
    """Longer prompts (tokens, generation prompt included) are dropped."""
    max_prompt_length_quantile: Annotated[float, Field(gt=0, le=1)] | None = None
    """Drop prompts longer than this quantile of all prompt lengths; the recipe uses 0.9."""

    def conflicts(self) -> Iterator[Conflict]:
        yield from super().conflicts()
        yield from self._generator_conflicts()
        if self.name_or_path == EMBEDDED and self.eval_split is not None:
            yield ("eval_split",), "the embedded data has one split, train; remove it"
        elif self.eval_split is not None and self.eval_fraction is not None:
            yield ("eval_fraction",), "problems are held out by eval_split already; remove one of the two"
        if self.eval_split == self.split:
            yield ("eval_split",), f"{self.split} is the training split; name another, or set eval_fraction: 0.05"
        if self.max_prompt_length is not None and self.max_prompt_length_quantile is not None:
            yield ("max_prompt_length_quantile",), "max_prompt_length is set already; remove one of the two"

    def _generator_conflicts(self) -> Iterator[Conflict]:
        if generators.is_generated(self.name_or_path):
            yield from generators.wrong_settings(self.name_or_path, self.generator)
        elif self.generator:
            yield ("generator",), "is for data.name_or_path: reasoning_gym/NAME; remove it"


RECIPE_TARGET_MODULES = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")

ATTENTION = ("eager", "sdpa", "flash_attention_2", "flash_attention_3", "flash_attention_4", "flex_attention")
"""Transformers' own implementations; it also accepts kernels of the Hub, `owner/name`."""

OWN_ARGUMENTS = {
    "dtype": "set model.dtype instead",
    "torch_dtype": "set model.dtype instead",
    "attn_implementation": "set model.attn_implementation instead",
    "revision": "set model.revision instead",
    "trust_remote_code": "set model.trust_remote_code instead",
    "device_map": "each process holds the model on its own device; remove it",
}
"""`from_pretrained` arguments that are settings of this package."""


BITS = dict.fromkeys(
    ("load_in_4bit", "load_in_8bit"),
    "not an argument of from_pretrained; write model_init_kwargs: {quantization_config: {load_in_4bit: true}}",
)
"""Spellings of bitsandbytes that `from_pretrained` took before Transformers 5."""


class ModelSection(Section):
    """Which causal language model is trained, and how it is loaded."""

    name_or_path: Name
    """Hugging Face model id, local directory, or `embedded` for the tiny model generated from the seed."""
    revision: str | None = None
    """Branch, tag or commit on the Hub; default: `main`."""
    dtype: Literal["bfloat16", "float16", "float32"] = "bfloat16"
    """Dtype of the frozen base weights and of the computation. LoRA weights are kept in float32."""
    attn_implementation: str | None = None
    """Transformers' attention, e.g. `sdpa` or `flash_attention_2`; default: Transformers' own choice."""
    trust_remote_code: bool = False
    """Run Python code that comes with the model repository. Off unless you have read that code."""
    max_length: Positive | None = None
    """Context length for prompt plus completion, in tokens; default: the model's `max_position_embeddings`."""
    adapter: Name | None = None
    """Continue training this adapter instead of a new one: the directory of a LoRA adapter, or a run, a checkpoint or
    an export of this program. It must fit `lora:` and this model. In the comparison, base is the model without it."""
    model_init_kwargs: dict[str, Any] = Field(default_factory=dict)
    """Further arguments of `from_pretrained`. `env:NAME` stands for that variable of the environment, for secrets."""
    backend: Literal["auto", "unsloth", "trl"] = "auto"
    """Training backend: `unsloth`, `trl` (with PEFT), or `auto`: Unsloth for one process on a GPU if it is installed.
   """

    @property
    def requires_unsloth(self) -> bool:
        return self.backend == "unsloth"

    def conflicts(self) -> Iterator[Conflict]:
        if self.name_or_path == EMBEDDED and self.revision is not None:
            yield ("revision",), "the embedded model is made from grpo.seed and has no revisions; remove it"
        attention = self.attn_implementation
        if attention is not None and not self.trust_remote_code and not _is_attention(attention):
            known = f"one of Transformers' {', '.join(ATTENTION)}, or a kernel of the Hub (owner/name)"
            yield ("attn_implementation",), f"must be {known}, not {attention!r}"
        for name in self.model_init_kwargs:
            if name in OWN_ARGUMENTS:
                yield ("model_init_kwargs", name), OWN_ARGUMENTS[name]
            elif name in BITS:
                yield ("model_init_kwargs", name), BITS[name]


def _is_attention(name: str) -> bool:
    return "/" in name or name.removeprefix("paged|") in ATTENTION


class LoraSection(Section):
    """Low-rank adapter (PEFT's `LoraConfig` spellings)."""

    r: Positive = 32
    """Rank."""
    lora_alpha: Positive = 64
    """Scale; the update is multiplied by lora_alpha / r."""
    lora_dropout: float = Field(default=0.0, ge=0, lt=1)
    """Dropout on the adapter's input. GRPO scores in train mode: anything but 0 distorts its ratios."""
    target_modules: Literal["all-linear"] | Annotated[tuple[Name, ...], Field(min_length=1)] = RECIPE_TARGET_MODULES
    """Names of the adapted linear layers, or `all-linear`."""
    use_rslora: bool = False
    """Rank-stabilised scaling, lora_alpha / sqrt(r)."""

    def conflicts(self) -> Iterator[Conflict]:
        if "lm_head" in self.target_modules:
            yield ("target_modules",), "TRL trains no adapter on lm_head; remove it from the list"


class WarmStartSection(Section):
    """Supervised fine-tuning of the adapter on a few well-formed answers, before GRPO (TRL's `SFTConfig` spellings)."""

    data: SourceSection
    """The data set of the examples. Columns: `prompt` and `completion`, or `prompt`, `reasoning` and `answer`."""
    numeric_answers: bool = False
    """Leave out examples whose answer is not a plain number, as the recipe does; needs the column `answer`."""
    num_train_epochs: float = Field(default=2.0, gt=0)
    """Passes over the examples."""
    max_steps: int = Field(default=-1, ge=-1)
    """Optimizer steps; overrides num_train_epochs when positive."""
    learning_rate: float = Field(default=2e-4, gt=0)
    """Peak learning rate."""
    warmup_steps: NonNegative = 5
    """Optimizer steps of linear warm-up."""
    weight_decay: float = Field(default=0.001, ge=0)
    """AdamW weight decay."""
    lr_scheduler_type: SchedulerName = "linear"
    """Transformers' scheduler name."""
    optim: OptimizerName = "adamw_torch"
    """Transformers' optimizer name."""
    per_device_train_batch_size: Positive = 1
    """Examples per optimizer step."""
    max_length: Positive = 1024
    """Examples of more tokens are left out, none is cut; prompt, completion and end token count."""

    def conflicts(self) -> Iterator[Conflict]:
        if self.max_steps == 0:
            yield ("max_steps",), "0 steps teach nothing; state how many, -1 for all examples, or leave out warm_start"


Allowable = Literal[
    "reward-fails",
    "reward-stalls",
    "reward-crashes",
    "never-varies",
    "gold-below-wrong",
    "gold-like-wrong",
    "unparsable-gold",
    "prefilled-tag",
    "tags-lost",
    "scorer-blind",
]
"""Errors of the reward preflight (`grpo_dist.rewards.preflight.checks`)."""


class RewardFunction(Section):
    """One reward: a built-in name, or a function of yours."""

    takes: ClassVar[str] = "the name of a function or a group of settings"

    name: Name
    """A name in `grpo_dist.rewards.REWARDS`, a set of them (`notebook`, `strict`), or a function of yours:
    `package.module:function` or `path/file.py:function`.
    """
    weight: float = 1.0
    """Factor in the sum of rewards (TRL's `reward_weights`)."""
    kwargs: dict[str, Any] = Field(default_factory=dict)
    """Keyword arguments bound to the function. `env:NAME` stands for that variable of the environment, for secrets."""


def as_function(value: Any) -> Any:
    """`notebook` → `{name: notebook}`; anything else unchanged."""
    return {"name": value} if isinstance(value, str) else value


def as_functions(value: Any) -> Any:
    """One function, not in a list → a list of one; anything else unchanged."""
    return [value] if isinstance(value, (str, dict)) else value


FunctionOrName = Annotated[RewardFunction, BeforeValidator(as_function)]


class RewardsSection(Section):
    """The rewards of a completion are the weighted sum of these functions."""

    functions: Annotated[tuple[FunctionOrName, ...], BeforeValidator(as_functions)] = Field(
        default=(RewardFunction(name="notebook"),), min_length=1
    )
    """Functions in order; a plain string stands for `{name: string}`."""
    allow: tuple[Allowable, ...] = ()
    """Errors of the reward preflight that do not stop a run, by name."""
    gold_completion: Name | None = None
    """A correct completion with `{answer}` in the place of the answer, for the preflight; by default it tries the usual
    forms (tags, a box, `####`, fenced code, words) and takes the one that is paid best."""
    preflight_samples: NonNegative = 0
    """Problems for which the untrained model also writes completions in the preflight; 0 does not load it."""

    def conflicts(self) -> Iterator[Conflict]:
        if self.gold_completion is not None and "{answer}" not in self.gold_completion:
            yield ("gold_completion",), "does not say where the answer goes; write {answer} there"
        if not any(function.weight for function in self.functions):
            yield ("functions",), "every function weighs 0, so nothing would be learnt; give one of them a weight"


class EvaluationSection(Section):
    """Greedy pass@1, and mean@k and pass@k over samples, for both models on the same problems."""

    enabled: bool = True
    """Off: no problems are held out and no comparison is made."""
    num_problems: Positive = 256
    """Held-out problems used; all of them if there are fewer."""
    num_samples: NonNegative = 8
    """k: sampled completions per problem for mean@k and pass@k; 0 omits them."""
    temperature: float | None = Field(default=None, ge=LEAST_TEMPERATURE)
    """Temperature of the samples; default: `grpo.temperature`."""
    max_completion_length: Positive | None = None
    """Longest completion, in tokens; default: `grpo.max_completion_length`."""
    batch_size: Positive = 64
    """Completions generated at a time."""
    scorer: FunctionOrName = RewardFunction(name="accuracy")
    """Function that judges a completion; a plain string stands for `{name: string}`. `accuracy` compares the last
    marked answer, else the last number, with the column `answer`. Where `code` is among the rewards it is the default:
    right is what passes all tests. Any other notion of correctness needs a function of yours."""
    threshold: float = 1.0
    """A completion is correct when its score is at least this."""
    confidence: Fraction = 0.95
    """Confidence level of the intervals."""

    def conflicts(self) -> Iterator[Conflict]:
        if self.num_samples == 0 and self.temperature is not None:
            yield ("temperature",), "nothing is sampled with evaluation.num_samples 0; remove it, or set num_samples: 8"


READ_BY = {
    "project": ("trackio", "wandb"),
    **dict.fromkeys(("trackio_space_id", "trackio_bucket_id", "trackio_static_space_id"), ("trackio",)),
}
"""Field of `GRPOConfig` → the trackers that read it."""
Tracker = Literal["trackio", "tensorboard", "wandb"]


def as_trackers(value: Any) -> Any:
    """`none` or nothing → no tracker; one name → a list of one; anything else unchanged."""
    if value in (None, "none"):
        return ()
    return (value,) if isinstance(value, str) else value


def with_scorer(stated: dict[str, Any]) -> dict[str, Any]:
    """`stated` settings of a run, with the scorer that goes with the reward `code` unless another is set."""
    rewards, evaluation = (stated.get(name) for name in ("rewards", "evaluation"))
    if not isinstance(rewards, dict) or not isinstance(evaluation or {}, dict) or (evaluation or {}).get("scorer"):
        return stated
    functions = as_functions(rewards.get("functions"))
    for function in map(as_function, functions if isinstance(functions, list | tuple) else ()):
        if isinstance(function, dict) and function.get("name") == "code":
            kwargs = function.get("kwargs") or {}
            kept = {name: value for name, value in kwargs.items() if name != "pay"} if isinstance(kwargs, dict) else {}
            return {**stated, "evaluation": {**(evaluation or {}), "scorer": {"name": "code", "kwargs": kept}}}
    return stated


class RunConfig(Section):
    """One run: what to train, and the machines to train it on. Nothing is derived here."""

    model: ModelSection
    lora: LoraSection = LoraSection.model_construct()
    data: DataSection
    rewards: RewardsSection = RewardsSection.model_construct()
    warm_start: WarmStartSection | None = None
    """Supervised warm start for the format; null goes straight to GRPO."""
    grpo: GrpoSection = GrpoSection.model_construct()
    rollout: RolloutSection = RolloutSection.model_construct()
    distributed: DistributedSection = DistributedSection.model_construct()
    cluster: ClusterSection = ClusterSection.model_construct()
    evaluation: EvaluationSection = EvaluationSection.model_construct()
    tracking: Annotated[tuple[Tracker, ...], BeforeValidator(as_trackers)] = ()
    """Experiment trackers that receive the metrics in addition to `metrics.jsonl`; `none` for none."""

    @model_validator(mode="before")
    @classmethod
    def _fill_in_who_judges(cls, stated: Any) -> Any:
        return with_scorer(generators.with_own_grades(stated)) if isinstance(stated, dict) else stated

    def conflicts(self) -> Iterator[Conflict]:
        if self.model.dtype == "float16" and self.cluster.gpus_per_node == 0:
            yield ("model", "dtype"), "float16 needs a GPU; set float32 or bfloat16, or cluster.gpus_per_node=1"
        if self.rollout.uses_vllm and "quantization_config" in self.model.model_init_kwargs:
            what = "vLLM would sample from the weights as they are stored; set rollout.backend: transformers, or name "
            yield ("model", "model_init_kwargs"), f"{what}a model that is stored that way in model.name_or_path"
        yield from self._ineffective()
        yield from self._generation_conflicts()
        room, completion = self.model.max_length, self.grpo.max_completion_length
        prompt = self.data.max_prompt_length or 1
        if room is not None and prompt + completion > room:
            longest = f"data.max_prompt_length {prompt}" if prompt > 1 else "any prompt"
            both = f"{longest} and grpo.max_completion_length {completion}"
            yield ("model", "max_length"), f"{room} tokens do not hold {both}; set at least {prompt + completion}"

    def _ineffective(self) -> Iterator[Conflict]:
        """Settings that nothing would read."""
        extra = self.grpo.model_extra or {}
        for name, value in extra.items():
            readers = READ_BY.get(name, ())
            if value and readers and not set(readers) & set(self.tracking):
                what = f"nothing reads it without {' or '.join(readers)}; set tracking: [{readers[0]}], or remove it"
                yield ("grpo", name), what
        if extra.get("chat_template_kwargs") and self.data.chat_template == RECIPE:
            what = "the template `recipe` reads no arguments; set data.chat_template: tokenizer, or remove them"
            yield ("grpo", "chat_template_kwargs"), what

    def _generation_conflicts(self) -> Iterator[Conflict]:
        """Names unknown to the generating backend: vLLM refuses them in the first step, Transformers never does."""
        backend = self.rollout.backend
        for name in self.generation_kwargs:
            if name not in TAKEN[backend] and name not in OWN_IN_BOTH:
                yield ("grpo", "generation_kwargs", name), unknown_to(backend, name)

    @property
    def generation_kwargs(self) -> dict[str, Any]:
        """Generation settings beside the fields of `grpo:`, as the generating backend names them."""
        return (self.grpo.model_extra or {}).get("generation_kwargs") or {}
