"""Every name allowed in `grpo.generation_kwargs`, by backend, and what to use instead of the others.

The names of Transformers' `GenerationConfig` (5.10 to 5.17) and of vLLM's `SamplingParams` (0.20 to 0.31). The tests
compare these tables with the installed packages.
"""

from __future__ import annotations

from grpo_dist.text import closest

_LENGTH = "set grpo.max_completion_length instead"
_COUNT = "set grpo.num_generations instead"
_ENDS = "completions end where the model and its tokenizer end a turn; remove it"
_IDS = "the tokenizer states it; remove it"
_SAMPLED = "GRPO learns from completions that are sampled from the model itself; remove it"
_READ = "training reads what the sampler returns, in the form it expects; remove it"
_MACHINE = "it changes how generation runs, not what is sampled, and gets in the way of training; remove it"

_FIELDS = {
    name: f"set grpo.{name} instead" for name in ("temperature", "top_p", "top_k", "min_p", "repetition_penalty")
}

OWN_IN_BOTH: dict[str, str] = {
    **_FIELDS,
    "max_new_tokens": _LENGTH,
    "max_length": _LENGTH,
    "max_tokens": _LENGTH,
    "n": _COUNT,
    "num_return_sequences": _COUNT,
    "best_of": _COUNT,
    "seed": "set grpo.seed instead",
    "do_sample": "completions are always sampled; for less variety set grpo.temperature instead",
    "cache_implementation": "set grpo.cache_implementation instead",
    "continuous_batching_config": "set grpo.transformers_continuous_batching_config instead",
    **dict.fromkeys(
        ("stop", "stop_token_ids", "ignore_eos", "include_stop_str_in_output", "stop_strings", "forced_eos_token_id"),
        _ENDS,
    ),
    **dict.fromkeys(
        ("eos_token_id", "pad_token_id", "bos_token_id", "decoder_start_token_id", "forced_bos_token_id"), _IDS
    ),
    **dict.fromkeys(
        (
            "num_beams",
            "num_beam_groups",
            "early_stopping",
            "length_penalty",
            "diversity_penalty",
            "constraints",
            "force_words_ids",
            "penalty_alpha",
            "dola_layers",
            "low_memory",
            "use_mtp",
            "is_assistant",
            "num_assistant_tokens",
            "num_assistant_tokens_schedule",
            "assistant_confidence_threshold",
            "assistant_early_exit",
            "assistant_lookbehind",
            "assistant_ensemble_weight",
            "target_lookbehind",
            "prompt_lookup_num_tokens",
            "max_matching_ngram_size",
            "speculation_type",
            "token_healing",
            "max_time",
        ),
        _SAMPLED,
    ),
    **dict.fromkeys(
        (
            "logprobs",
            "prompt_logprobs",
            "prompt_logprob_token_ids",
            "prompt_logprob_start",
            "logprob_token_ids",
            "flat_logprobs",
            "detokenize",
            "skip_special_tokens",
            "spaces_between_special_tokens",
            "output_kind",
            "output_scores",
            "output_logits",
            "output_attentions",
            "output_hidden_states",
            "return_dict_in_generate",
            "routed_experts_prompt_start",
            "trace_decode_token_ids",
        ),
        _READ,
    ),
    **dict.fromkeys(
        (
            "use_cache",
            "compile_config",
            "disable_compile",
            "stream_interval",
            "skip_clone",
            "output_text_buffer_length",
            "transformers_version",
            "streamer",
        ),
        _MACHINE,
    ),
}
"""Name → why it cannot be given, and what to type; for either backend, so that these are reported first."""

TRANSFORMERS = frozenset(
    {
        "min_length",
        "min_new_tokens",
        "cache_config",
        "max_cache_len",
        "top_h",
        "typical_p",
        "epsilon_cutoff",
        "eta_cutoff",
        "encoder_repetition_penalty",
        "no_repeat_ngram_size",
        "encoder_no_repeat_ngram_size",
        "bad_words_ids",
        "renormalize_logits",
        "remove_invalid_values",
        "exponential_decay_length_penalty",
        "suppress_tokens",
        "begin_suppress_tokens",
        "sequence_bias",
        "guidance_scale",
        "watermarking_config",
        "prefill_chunk_size",
    }
)
"""Further names that Transformers accepts."""

VLLM = frozenset(
    {
        "presence_penalty",
        "frequency_penalty",
        "watermarking",
        "min_tokens",
        "structured_outputs",
        "logit_bias",
        "allowed_token_ids",
        "extra_args",
        "bad_words",
        "skip_reading_prefix_cache",
        "thinking_token_budget",
        "repetition_detection",
    }
)
"""Further names that vLLM accepts."""

TAKEN = {"transformers": TRANSFORMERS, "vllm": VLLM}
"""rollout.backend → further names."""

NAMES = {"transformers": "Transformers", "vllm": "vLLM"}
SAME = {"min_tokens": "min_new_tokens", "logit_bias": "sequence_bias", "bad_words": "bad_words_ids"}
"""vLLM's name → Transformers' for the same."""
FORMS_OF_SAME = {
    "logit_bias": "{token id: bias}, such as {42: -1.5}",
    "sequence_bias": "pairs of token ids and bias, such as [[[42, 7], -1.5]]",
    "bad_words": "a list of words, such as [foo, bar]",
    "bad_words_ids": "the token ids of each word, such as [[42, 7], [9]]",
}
"""How the value is written, where the two differ."""

SAMPLED_ONLY = frozenset({"top_h", "typical_p", "epsilon_cutoff", "eta_cutoff"})
"""Settings that shape the sampling distribution, and have no effect on greedy decoding."""
SHORTEST = ("min_tokens", "min_new_tokens")


def unknown_to(backend: str, name: str) -> str:
    """What is wrong with a name that the backend does not take; what to type."""
    same = {**SAME, **{theirs: ours for ours, theirs in SAME.items()}}.get(name)
    other = next((other for other, names in TAKEN.items() if name in names), None)
    if same in TAKEN[backend]:
        form = f" and takes {FORMS_OF_SAME[same]}" if same in FORMS_OF_SAME else ""
        return f"{NAMES[backend]}, which generates here, calls it {same}{form}; write that"
    if other is not None:
        only = f"{NAMES[other]} has it, and {NAMES[backend]} generates here"
        return f"{only}; remove it, or set rollout.backend: {other}"
    close = closest(name, (*TAKEN[backend], *OWN_IN_BOTH))
    if close in OWN_IN_BOTH:
        return f"{NAMES[backend]} has no such setting; if {close} is meant: {OWN_IN_BOTH[close]}"
    hint = f"did you mean {close}?" if close else f"it has {', '.join(sorted(TAKEN[backend]))}"
    return f"{NAMES[backend]} has no such setting; {hint}"
