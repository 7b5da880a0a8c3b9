"""TRL's parts that we override, patch or call, in the order of docs/hooks.md, and what they have to look like."""

from __future__ import annotations

from hooks import Hook, Place

GRPO, UTILS = "trl/trainer/grpo_trainer.py", "trl/trainer/utils.py"
GENERATION, CLIENT = "trl/generation/vllm_generation.py", "trl/generation/vllm_client.py"
SCORE = "GRPOTrainer._generate_and_score_completions"

TRL = (
    Hook(
        "GRPOTrainer.__init__",
        "training/trainer/trainer.py",
        [
            Place(GRPO, "VLLMGeneration"),
            Place(GRPO, "GRPOTrainer.__init__", says=["self.vllm_generation = VLLMGeneration(", "max_num_seqs="]),
        ],
    ),
    Hook(
        "GRPOTrainer.training_step",
        "training/trainer/divergence.py, training/trainer/trainer.py",
        [Place(GRPO, "GRPOTrainer.training_step", takes="self, model, inputs, num_items_in_batch")],
    ),
    Hook(
        "GRPOTrainer._get_train_sampler",
        "training/trainer/trainer.py",
        [Place(GRPO, "GRPOTrainer._get_train_sampler", takes="self, dataset", says=["return RepeatSampler("])],
    ),
    Hook(
        "RepeatSampler.__iter__",
        "training/trainer/trainer.py",
        [
            Place(
                UTILS,
                "RepeatSampler.__iter__",
                takes="self",
                says=["if self.shuffle:", "torch.randperm(self.num_samples, generator=self.generator)"],
            ),
            Place(UTILS, "RepeatSampler.__init__", says=["self.generator.manual_seed(seed)"]),
        ],
    ),
    Hook(
        "GRPOTrainer._prepare_inputs",
        "training/trainer/micro_batches.py, training/trainer/trainer.py",
        [
            Place(
                GRPO,
                "GRPOTrainer._prepare_inputs",
                takes="self, generation_batch",
                says=[
                    "self._buffered_inputs = [",
                    "inputs = self._buffered_inputs[self._step % self.args.steps_per_generation]",
                ],
            )
        ],
    ),
    Hook(
        "GRPOTrainer._buffered_inputs",
        "training/trainer/micro_batches.py",
        [Place(GRPO, "GRPOTrainer.__init__", says=["self._buffered_inputs = None"])],
    ),
    Hook(
        "GRPOTrainer._step",
        "training/trainer/micro_batches.py, training/trainer/trainer.py",
        [
            Place(GRPO, "GRPOTrainer.__init__", says=["self._step = 0"]),
            Place(GRPO, "GRPOTrainer.training_step", says=["self._step += 1"]),
        ],
    ),
    Hook(
        "GRPOTrainer._entropy_bonus_enabled",
        "training/trainer/micro_batches.py",
        [
            Place(
                GRPO,
                "GRPOTrainer.__init__",
                says=["self._entropy_bonus_enabled =", "self.aux_loss_enabled =", "self.top_entropy_quantile ="],
            )
        ],
    ),
    Hook(
        "split_tensor_dict",
        "training/trainer/micro_batches.py",
        [Place(UTILS, "split_tensor_dict", takes="tensor_dict, num_chunks")],
    ),
    Hook(
        "GRPOTrainer._generate",
        "training/trainer/deferred_scoring.py",
        [
            Place(GRPO, "GRPOTrainer._generate", takes="self, prompts"),
            Place(GRPO, SCORE, says=["self._generate(prompts)"]),
        ],
    ),
    Hook(
        "GRPOTrainer._generate_and_score_completions",
        "training/trainer/deferred_scoring.py, training/trainer/dynamic_sampling.py, training/trainer/correction.py",
        [
            Place(
                GRPO,
                SCORE,
                takes="self, inputs",
                says=[
                    "old_per_token_logps, _, _ = self._get_per_token_logps_and_entropies(",
                    "output['old_per_token_logps'] = old_per_token_logps",
                    "output['importance_sampling_ratio'] = vllm_importance_sampling_ratio",
                    "output['sampling_per_token_logps'] = sampling_per_token_logps",
                    "'sampling/sampling_logp_difference/mean'",
                    "'sampling/sampling_logp_difference/max'",
                    "'sampling/importance_sampling_ratio/min'",
                    "'sampling/importance_sampling_ratio/mean'",
                    "'sampling/importance_sampling_ratio/max'",
                    "['sequence_truncate', 'token_truncate']",
                    "['sequence_mask', 'token_mask']",
                    "'num_items_in_batch': num_items_in_batch",
                ],
            )
        ],
    ),
    Hook(
        "GRPOTrainer._get_per_token_logps_and_entropies",
        "training/trainer/deferred_scoring.py",
        [
            Place(
                GRPO,
                "GRPOTrainer._get_per_token_logps_and_entropies",
                accepts="model, input_ids, attention_mask, logits_to_keep",
                says=[
                    "def _get_per_token_logps_and_entropies(self, model, input_ids, attention_mask, logits_to_keep, "
                ],
            )
        ],
    ),
    Hook(
        "GRPOTrainer._compute_loss",
        "training/trainer/deferred_scoring.py",
        [
            Place(
                GRPO,
                "GRPOTrainer._compute_loss",
                takes="self, model, inputs",
                says=[
                    "per_token_logps, entropies, aux_loss = self._get_per_token_logps_and_entropies(",
                    "per_token_logps.detach() if old_per_token_logps is None else old_per_token_logps",
                    "inputs['importance_sampling_ratio']",
                ],
            )
        ],
    ),
    Hook(
        "GRPOTrainer._calculate_rewards",
        "training/trainer/dynamic_sampling.py, training/rewards/silent.py",
        [
            Place(
                GRPO,
                "GRPOTrainer._calculate_rewards",
                takes="self, inputs, prompts, completions, completion_ids_list",
                says=["gather(rewards_per_func)"],
            ),
            Place(GRPO, SCORE, says=["self._calculate_rewards(inputs, prompts, completions, completion_ids_list)"]),
        ],
    ),
    Hook(
        "GRPOTrainer._generate_single_turn",
        "training/trainer/trainer.py",
        [
            Place(
                GRPO,
                "GRPOTrainer._generate_single_turn",
                takes="self, prompt_ids, images, multimodal_fields, num_generations, has_tool_images",
                says=[
                    "if self.state.global_step != self._last_loaded_step:",
                    "self.vllm_generation.sync_weights()",
                    "_, completion_ids, logprobs, _ = self.vllm_generation.generate("
                    "prompts=prompt_ids, images=images, num_generations=num_generations, profiler=",
                    "[lp[0] for lp in seq]",
                ],
            )
        ],
    ),
    Hook(
        "GRPOTrainer._last_loaded_step",
        "training/trainer/trainer.py",
        [
            Place(
                GRPO,
                "GRPOTrainer._generate_single_turn",
                says=["if self.state.global_step != self._last_loaded_step:"],
            )
        ],
    ),
    Hook(
        "GRPOTrainer._tokenize_prompts",
        "training/trainer/trainer.py",
        [
            Place(
                GRPO,
                "GRPOTrainer._tokenize_prompts",
                takes="self, prompts",
                says=["return (prompt_ids, images, multimodal_fields)"],
            )
        ],
    ),
    Hook(
        "GRPOTrainer._metrics",
        "training/trainer/trainer.py, training/trainer/dynamic_sampling.py, training/trainer/deferred_scoring.py",
        [
            Place(GRPO, "GRPOTrainer.__init__", says=["self._metrics = {'train': defaultdict(list)"]),
            Place(GRPO, "GRPOTrainer._generate", says=["self._metrics[mode]['num_tokens'] = ["]),
        ],
    ),
    Hook(
        "GRPOTrainer.log",
        "training/trainer/trainer.py, training/trainer/callbacks.py",
        [
            Place(
                GRPO,
                "GRPOTrainer.log",
                takes="self, logs, start_time",
                says=[
                    "logs.update(metrics)",
                    "super().log(logs, start_time)",
                    "self._metrics[mode].clear()",
                    "pd.DataFrame(table)",
                    "df_base.to_parquet(",
                ],
            ),
            Place(GRPO, "pd"),
        ],
    ),
    Hook(
        "GRPOTrainer._logs",
        "training/trainer/dynamic_sampling.py",
        [
            Place(
                GRPO,
                "GRPOTrainer.__init__",
                says=["'prompt': deque(", "'completion': deque(", "'rewards': defaultdict(", "'extra': defaultdict("],
            )
        ],
    ),
    Hook(
        "GRPOTrainer._log_completion_extra",
        "training/trainer/trainer.py",
        [Place(GRPO, "GRPOTrainer._log_completion_extra", takes="self, column, values")],
    ),
    Hook(
        "GRPOTrainer._tokenizer",
        "training/trainer/dynamic_sampling.py",
        [Place(GRPO, "GRPOTrainer.__init__", says=["self._tokenizer = processing_class"])],
    ),
    Hook(
        "pad",
        "training/trainer/dynamic_sampling.py",
        [Place(UTILS, "pad", takes="tensors, padding_value, padding_side, pad_to_multiple_of")],
    ),
    Hook(
        "GRPOTrainer.reward_funcs",
        "training/stages/train.py",
        [Place(GRPO, "GRPOTrainer._calculate_rewards", says=["zip(self.reward_funcs, "])],
    ),
    Hook(
        "GRPOTrainer.create_model_card",
        "training/trainer/trainer.py",
        [Place(GRPO, "GRPOTrainer._save_checkpoint", says=["self.create_model_card(model_name=model_name)"])],
    ),
    Hook(
        "import_utils.is_vllm_available",
        "training/common/process.py",
        [
            Place("trl/import_utils.py", "is_vllm_available", takes="min_version"),
            Place(GENERATION, "is_vllm_available"),
            Place(CLIENT, "is_vllm_available"),
        ],
    ),
    Hook(
        "VLLMGeneration.__init__",
        "training/trainer/trainer.py, training/rollouts/base.py, training/rollouts/merged.py",
        [
            Place(
                GENERATION,
                "VLLMGeneration.__init__",
                accepts="max_num_seqs, server_base_url",
                says=["self._init_vllm()", "self.structured_outputs_regex =", "self.generation_kwargs ="],
            )
        ],
    ),
    Hook(
        "VLLMGeneration._init_vllm",
        "training/rollouts/server.py, training/rollouts/colocate.py",
        [
            Place(
                GENERATION,
                "VLLMGeneration._init_vllm",
                takes="self",
                says=["self.llm = LLM(", "max_num_batched_tokens=", "self.vllm_client = VLLMClient(base_url="],
            )
        ],
    ),
    Hook(
        "VLLMGeneration.sync_weights",
        "training/rollouts/base.py, training/rollouts/merged.py, training/rollouts/colocate.py",
        [
            Place(
                GENERATION,
                "VLLMGeneration.sync_weights",
                takes="self",
                says=["empty_cache()", "self.llm.wake_up(tags=['weights'])", "self._llm_weights_sleeping = False"],
            )
        ],
    ),
    Hook(
        "VLLMGeneration.generate",
        "training/rollouts/server.py",
        [
            Place(
                GENERATION,
                "VLLMGeneration.generate",
                takes="self, prompts, images, num_generations, profiler",
                says=["return (prompt_ids, completion_ids, logprobs, logprob_token_ids)"],
            )
        ],
    ),
    Hook(
        "vllm_generation.LLM",
        "training/rollouts/colocate.py",
        [
            Place(GENERATION, "LLM"),
            Place(
                GENERATION,
                "VLLMGeneration.generate",
                says=[
                    "self.llm.generate(vllm_prompts, sampling_params=sampling_params, use_tqdm=False)",
                    "self.llm.sleep(level=2)",
                ],
            ),
        ],
    ),
    Hook("vllm_generation.VLLMClient", "training/rollouts/merged.py", [Place(GENERATION, "VLLMClient")]),
    Hook("vllm_generation.empty_cache", "training/rollouts/colocate.py", [Place(GENERATION, "empty_cache", takes="")]),
    Hook(
        "VLLMGeneration._llm_weights_sleeping",
        "training/rollouts/colocate.py",
        [
            Place(
                GENERATION,
                "VLLMGeneration.generate",
                says=["self.enable_sleep_mode and self._llm_weights_sleeping:", "self._llm_weights_sleeping = True"],
            )
        ],
    ),
    Hook(
        "VLLMClient.get_server_info",
        "training/rollouts/server.py",
        [
            Place(CLIENT, "VLLMClient.get_server_info", takes="self"),
            Place(
                GRPO, "GRPOTrainer.__init__", says=["vllm_client.get_server_info()['model_config']['logprobs_mode']"]
            ),
        ],
    ),
    Hook(
        "VLLMClient._get",
        "training/rollouts/merged.py",
        [
            Place(CLIENT, "VLLMClient._get", takes="self, url, **kwargs", says=["self.session.get(url, **kwargs)"]),
            Place(CLIENT, "VLLMClient.__init__", says=["self.session = requests.Session()", "self._get("]),
        ],
    ),
)
