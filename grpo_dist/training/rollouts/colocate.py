"""Generation on a vLLM engine inside each training process, the adapter loaded beside the base model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from trl.generation import vllm_generation
from vllm import LLM, CompletionOutput, RequestOutput, SamplingParams
from vllm.lora.request import LoRARequest

from grpo_dist.inference.client import Policy, Prompt, Sampled
from grpo_dist.plan.memory.vllm import served_rank
from grpo_dist.training.rollouts.base import AdapterRollouts, replaced

ON_CPU = {"enforce_eager": True, "enable_chunked_prefill": False, "max_num_batched_tokens": None}
"""As servers are started on CPU (`inference/server.py`); a whole prompt must then fit into one engine step."""


class ColocatedRollouts(AdapterRollouts):
    """TRL's colocate mode with a different sync; `generate` is TRL's."""

    def _init_vllm(self) -> None:
        adapter = {
            "enable_lora": True,
            "max_lora_rank": served_rank(self.run.config.lora.r),
            "max_loras": 1,
            "dtype": self.run.config.model.dtype,
            "revision": self.run.config.model.revision,
            **(ON_CPU if self.accelerator.device.type == "cpu" else {}),
        }
        # TRL's `_init_vllm` (TRL 1.16) makes whatever its module calls LLM. If it looks elsewhere, it gets an engine
        # without LoRA, and the first sync fails.
        with replaced(vllm_generation, "LLM", lambda **settings: ColocatedEngine(LLM(**{**settings, **adapter}))):
            super()._init_vllm()
        self.llm.seed = self._first_seed

    def sync_weights(self) -> None:
        # As TRL's own `sync_weights` begins (TRL 1.16). If `_llm_weights_sleeping` stays True, `generate` syncs again;
        # without `empty_cache` there may not be enough memory for the weights.
        if self.enable_sleep_mode:
            vllm_generation.empty_cache()
            self.llm.wake_up(tags=["weights"])
            self._llm_weights_sleeping = False
        super().sync_weights()

    def _deliver(self, policy: Policy) -> None:
        self.llm.adapt(policy)

    def _canary_answers(self) -> dict[str, list[Sampled]]:
        if self.enable_sleep_mode:
            self.llm.wake_up(tags=["kv_cache"])
        answers = self.llm.answer(self.canary.prompts, self.canary.sampling)
        return {f"the engine of process {self.accelerator.process_index}": answers}

    def _first_seed(self, prompts: int) -> int:
        """With tensor parallelism the processes of an engine sample the same completions, those of all of them."""
        return self.next_seed(0) + self.accelerator.process_index // self.tensor_parallel_size * prompts


class ColocatedEngine:
    """vLLM's `LLM` as TRL uses it, always with the newest adapter, each completion with a seed of its own.

    TRL 1.16 passes one `sampling_params` for all prompts, and calls `sleep(level=2)`; vLLM 0.31 also takes a list of
    them, with one `lora_request` for all. If TRL calls `LLM` in another way, it gets the base model, without an
    adapter.
    """

    seed: Callable[[int], int]

    def __init__(self, llm: LLM) -> None:
        self._llm = llm
        self._request: LoRARequest | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._llm, name)

    def adapt(self, policy: Policy) -> None:
        """Use this adapter from now on, and unload the previous one."""
        before = self._request
        if before is not None and before.lora_name == policy.name:
            return
        # vLLM 0.31 tells adapters apart by `lora_int_id`: with a number used before, it serves the older adapter, and
        # only the canary notices. `LLM` itself has no method to add or remove one, so this goes through its
        # `llm_engine`.
        number = 1 if before is None else before.lora_int_id + 1
        self._request = LoRARequest(policy.name, number, str(policy.directory))
        if before is not None:
            self._llm.llm_engine.remove_lora(before.lora_int_id)
        self._llm.llm_engine.add_lora(self._request)

    def generate(
        self, prompts: Sequence[Any], sampling_params: SamplingParams, use_tqdm: bool = False
    ) -> list[RequestOutput]:
        first, each = self.seed(len(prompts)), []
        for number in range(len(prompts)):
            parameters = sampling_params.clone()
            parameters.seed = first + number
            each.append(parameters)
        return self._llm.generate(prompts, sampling_params=each, use_tqdm=use_tqdm, lora_request=self._request)

    def answer(self, prompts: Sequence[Prompt], sampling: dict[str, Any]) -> list[Sampled]:
        """One completion of each prompt."""
        outputs = self._llm.generate(
            [{"prompt_token_ids": list(prompt.token_ids)} for prompt in prompts],
            sampling_params=[SamplingParams(**sampling, seed=prompt.seed, logprobs=0) for prompt in prompts],
            use_tqdm=False,
            lora_request=self._request,
        )
        return [_sampled(output.outputs[0]) for output in outputs]

    def sleep(self, level: int) -> None:
        """Always level 1: level 2 discards the base model, which an adapter sync does not restore."""
        self._llm.sleep(level=1)


def _sampled(output: CompletionOutput) -> Sampled:
    ids = list(output.token_ids)
    logprobs = [place[token].logprob for token, place in zip(ids, output.logprobs, strict=True)]
    return Sampled(ids, logprobs, output.finish_reason == "length")
