"""Every field of TRL's `GRPOConfig` (1.15 to 1.16, Transformers 5.10 to 5.17): ours, passed on, or owned by the run.

The fields with a default or a check of this package are in `GrpoSection`; these are the rest. The tests compare these
tables with the installed TRL.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from grpo_dist.config.base import NonNegative, Positive

LossType = Literal["grpo", "dr_grpo", "dapo", "bnpo", "cispo", "sapo", "luspo", "vespo"]

SchedulerName = Literal[
    "linear",
    "cosine",
    "cosine_with_restarts",
    "polynomial",
    "constant",
    "constant_with_warmup",
    "inverse_sqrt",
    "cosine_with_min_lr",
    "cosine_warmup_with_min_lr",
    "warmup_stable_decay",
]
"""Transformers' schedulers, less `reduce_lr_on_plateau` and `greedy`: they need evaluation during training."""

OptimizerName = Literal[
    "adamw_torch",
    "adamw_torch_fused",
    "adamw_torch_xla",
    "adamw_torch_npu_fused",
    "adafactor",
    "adamw_anyprecision",
    "adamw_torch_4bit",
    "adamw_torch_8bit",
    "ademamix",
    "sgd",
    "adagrad",
    "adamw_bnb_8bit",
    "adamw_8bit",
    "ademamix_8bit",
    "lion_8bit",
    "lion_32bit",
    "paged_adamw_32bit",
    "paged_adamw_8bit",
    "paged_ademamix_32bit",
    "paged_ademamix_8bit",
    "paged_lion_32bit",
    "paged_lion_8bit",
    "rmsprop",
    "rmsprop_bnb",
    "rmsprop_bnb_8bit",
    "rmsprop_bnb_32bit",
    "galore_adamw",
    "galore_adamw_8bit",
    "galore_adafactor",
    "galore_adamw_layerwise",
    "galore_adamw_8bit_layerwise",
    "galore_adafactor_layerwise",
    "lomo",
    "adalomo",
    "grokadamw",
    "schedule_free_radam",
    "schedule_free_adamw",
    "schedule_free_sgd",
    "apollo_adamw",
    "apollo_adamw_layerwise",
    "stable_adamw",
]

CorrectionMode = Literal["token_truncate", "token_mask", "sequence_truncate", "sequence_mask"]

LogLevel = Literal["detail", "debug", "info", "warning", "error", "critical", "passive"]
CacheName = Literal[
    "static",
    "offloaded_static",
    "sliding_window",
    "hybrid",
    "hybrid_chunked",
    "offloaded_hybrid",
    "offloaded_hybrid_chunked",
    "dynamic",
    "offloaded",
    "quantized",
    "paged",
]

Above0 = Annotated[float, Field(gt=0)]
AtLeast0 = Annotated[float, Field(ge=0)]
Below1 = Annotated[float, Field(ge=0, lt=1)]
Arguments = dict[str, Any]

PASSED_ON: dict[str, Any] = {
    # optimizer and schedule
    "lr_scheduler_kwargs": Arguments | None,
    "optim_args": str | None,
    "optim_target_modules": str | list[str] | None,
    "adam_beta1": Below1,
    "adam_beta2": Below1,
    "adam_epsilon": Above0,
    "average_tokens_across_devices": bool,
    "neftune_noise_alpha": AtLeast0 | None,
    # loss
    "importance_sampling_level": Literal["token", "sequence"],
    "multi_objective_aggregation": Literal["sum_then_normalize", "normalize_then_sum"],
    "delta": Above0 | None,
    "epsilon_high": Above0 | None,
    "sapo_temperature_neg": Above0,
    "sapo_temperature_pos": Above0,
    "vespo_k_pos": Above0,
    "vespo_lambda_pos": Above0,
    "vespo_k_neg": Above0,
    "vespo_lambda_neg": Above0,
    "top_entropy_quantile": Annotated[float, Field(gt=0, le=1)],
    "entropy_coef": float,
    "use_adaptive_entropy": bool,
    "entropy_coef_min": float,
    "entropy_coef_max": float,
    "entropy_coef_delta": AtLeast0,
    "entropy_target": AtLeast0,
    "off_policy_mask_threshold": Above0 | None,
    "use_bias_correction_kl": bool,
    "router_aux_loss_coef": AtLeast0 | None,
    # model and memory
    "gradient_checkpointing_kwargs": Arguments | None,
    "disable_dropout": bool,
    "cast_lm_head_to_fp32": bool,
    "use_cache": bool,
    "tf32": bool | None,
    "torch_compile": bool,
    "torch_compile_backend": str | None,
    "torch_compile_mode": str | None,
    "torch_empty_cache_steps": Positive | None,
    "use_liger_kernel": bool,
    "liger_kernel_config": dict[str, bool] | None,
    # generation
    "generation_kwargs": Arguments | None,
    "chat_template_kwargs": Arguments | None,
    "repetition_penalty": Above0,
    "cache_implementation": CacheName | None,
    "use_transformers_continuous_batching": bool,
    "transformers_continuous_batching_config": Arguments | None,
    "pad_to_multiple_of": Positive | None,
    "shuffle_dataset": bool | None,
    # loading data
    "dataloader_drop_last": bool,
    "dataloader_num_workers": NonNegative,
    "dataloader_pin_memory": bool,
    "dataloader_persistent_workers": bool,
    "dataloader_prefetch_factor": Positive | None,
    "dataloader_multiprocessing_context": Literal["fork", "spawn", "forkserver"] | None,
    "dataloader_in_order": bool,
    # processes
    "ddp_bucket_cap_mb": Positive | None,
    "ddp_broadcast_buffers": bool | None,
    "ddp_static_graph": bool | None,
    "ddp_timeout": Positive,
    "full_determinism": bool,
    # what is logged
    "logging_first_step": bool,
    "logging_nan_inf_filter": bool,
    "log_on_each_node": bool,
    "log_level": LogLevel,
    "log_level_replica": LogLevel,
    "log_unique_prompts": bool,
    "include_num_input_tokens_seen": Literal["all", "non_padding", "no"] | bool,
    "skip_memory_metrics": bool,
    "debug": Literal["underflow_overflow", "tpu_metrics_debug"] | list[str],
    "project": str,
    "trackio_space_id": str | None,
    "trackio_bucket_id": str | None,
    "trackio_static_space_id": str | Literal[False] | None,
}
"""Field → its type; set under `grpo:` it reaches `GRPOConfig` unchanged."""

_BATCH = (
    "follows from grpo.prompts_per_step × grpo.num_generations; "
    "for less memory set distributed.max_per_device_train_batch_size"
)
_PROCESSES = "the launcher decides how processes work together; set distributed.num_processes or cluster.gpus_per_node"
_PRECISION = "follows from the model; set model.dtype"
_GENERATION = "rollout.backend says who generates; remove it"
_EVALUATION = "base and trained model are compared after training; see evaluation.enabled and evaluation.num_problems"
_BEST = "nothing is evaluated during training, so the last checkpoint counts; remove it"
_EXPORT = "a run writes to its own directory alone; remove it and upload the adapter afterwards"
_RESUME = "a run that is resumed continues exactly where it stopped; remove it"
_STAGE = "a run always trains, then compares; remove it (evaluation.enabled: false leaves the comparison out)"
_REFERENCE = "with LoRA the reference is the model without its adapter, nothing to synchronise; remove it"
_SAMPLING = "GRPO draws whole groups of completions per prompt in its own order; remove it"
_NO_LABELS = "GRPO learns from rewards, not labels; remove it"

OWNED: dict[str, str] = {
    "per_device_train_batch_size": _BATCH,
    "gradient_accumulation_steps": _BATCH,
    "steps_per_generation": _BATCH,
    "generation_batch_size": _BATCH,
    "auto_find_batch_size": _BATCH,
    "per_device_eval_batch_size": "set evaluation.batch_size",
    "num_generations_eval": "set evaluation.num_samples",
    "output_dir": "the run directory is not part of a configuration; give --output DIR on the command line",
    "run_name": "a run is named after its directory; give --output DIR on the command line",
    "report_to": "set tracking, for example tracking: [trackio]",
    "resume_from_checkpoint": "give --resume on the command line",
    "deepspeed": _PROCESSES,
    "fsdp": _PROCESSES,
    "fsdp_config": _PROCESSES,
    "accelerator_config": _PROCESSES,
    "parallelism_config": _PROCESSES,
    "ddp_backend": _PROCESSES,
    "ddp_find_unused_parameters": _PROCESSES,
    "local_rank": _PROCESSES,
    "ds3_gather_for_generation": _PROCESSES,
    "use_cpu": "set cluster.gpus_per_node: 0",
    "bf16": _PRECISION,
    "fp16": _PRECISION,
    "bf16_full_eval": _PRECISION,
    "fp16_full_eval": _PRECISION,
    "model_init_kwargs": "set model.model_init_kwargs",
    "trust_remote_code": "set model.trust_remote_code",
    "reward_weights": "a weight is set with its function; set rewards.functions.0.weight",
    "use_vllm": _GENERATION,
    "vllm_mode": _GENERATION,
    "vllm_model_impl": _GENERATION,
    "vllm_enable_sleep_mode": _GENERATION,
    "vllm_structured_outputs_regex": _GENERATION,
    "vllm_gpu_memory_utilization": _GENERATION,
    "vllm_max_model_length": _GENERATION,
    "vllm_tensor_parallel_size": _GENERATION,
    "vllm_server_base_url": _GENERATION,
    "vllm_server_host": _GENERATION,
    "vllm_server_port": _GENERATION,
    "vllm_server_timeout": _GENERATION,
    "vllm_group_port": _GENERATION,
    "vllm_importance_sampling_cap": "renamed by TRL; set grpo.vllm_importance_sampling_clip_max",
    "use_transformers_paged": "renamed by TRL; set grpo.use_transformers_continuous_batching",
    "do_train": _STAGE,
    "do_eval": _STAGE,
    "do_predict": _STAGE,
    "eval_strategy": _EVALUATION,
    "eval_steps": _EVALUATION,
    "eval_delay": _EVALUATION,
    "eval_on_start": _EVALUATION,
    "eval_do_concat_batches": _EVALUATION,
    "eval_use_gather_object": _EVALUATION,
    "eval_accumulation_steps": _EVALUATION,
    "batch_eval_metrics": _EVALUATION,
    "include_for_metrics": _EVALUATION,
    "prediction_loss_only": _EVALUATION,
    "load_best_model_at_end": _BEST,
    "metric_for_best_model": _BEST,
    "greater_is_better": _BEST,
    "logging_strategy": "metrics are written every few optimizer steps; set grpo.logging_steps",
    "save_strategy": "checkpoints are written every few optimizer steps; set grpo.save_steps",
    "save_only_model": "a checkpoint without its optimizer cannot be resumed; remove it",
    "save_on_each_node": "a run has one directory; remove it",
    "enable_jit_checkpoint": "a run that is stopped continues from its last checkpoint; set grpo.save_steps",
    "ignore_data_skip": _RESUME,
    "restore_callback_states_from_checkpoint": _RESUME,
    "data_seed": "one seed fixes everything random in a run; set grpo.seed",
    "train_sampling_strategy": _SAMPLING,
    "length_column_name": _SAMPLING,
    "label_names": _NO_LABELS,
    "label_smoothing_factor": _NO_LABELS,
    "remove_unused_columns": "reward functions read the other columns, so all are kept; remove it",
    "sync_ref_model": _REFERENCE,
    "ref_model_mixup_alpha": _REFERENCE,
    "ref_model_sync_steps": _REFERENCE,
    "max_tool_calling_iterations": "completions call no tools here; remove it",
    "log_completions": "completions are always kept, in the run directory; remove it",
    "num_completions_to_print": "completions are kept in the run directory and shown in its report; remove it",
    "log_multimodal": "prompts and completions are text alone; remove it",
    "log_completions_hub_repo": _EXPORT,
    "push_to_hub": _EXPORT,
    "hub_token": _EXPORT,
    "hub_private_repo": _EXPORT,
    "hub_model_id": _EXPORT,
    "hub_strategy": _EXPORT,
    "hub_always_push": _EXPORT,
    "hub_revision": _EXPORT,
    "disable_tqdm": "progress is shown by grpo-dist itself; remove it",
}
"""Field → why it cannot be set under `grpo:`, and what to set instead."""
