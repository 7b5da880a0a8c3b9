"""The same of vLLM, Transformers, Accelerate, and what else we reach into, in the order of docs/hooks.md."""

from __future__ import annotations

from hooks import Hook, Place
from hooks_trl import GRPO

TRAINER, CALLBACKS = "transformers/trainer.py", "transformers/trainer_callback.py"
MODELS, LLM = "vllm/entrypoints/openai/models/serving.py", "vllm/entrypoints/llm.py"
ASYNC_LLM = "vllm/v1/engine/async_llm.py"

VLLM = (
    Hook(
        "--middleware",
        "inference/server.py, inference/middleware.py",
        [
            Place(
                "vllm/entrypoints/serve/middleware/register.py",
                says=["for middleware in args.middleware:", "app.add_middleware(imported)"],
            )
        ],
    ),
    Hook(
        "app.state",
        "inference/engine.py, inference/middleware.py",
        [
            Place(
                "vllm/entrypoints/launchers/api_server/app_state.py",
                says=["state.engine_client = engine_client", "state.openai_serving_models = OpenAIServingModels("],
            )
        ],
    ),
    Hook(
        "OpenAIServingModels.lora_requests",
        "inference/engine.py",
        [
            Place(
                MODELS,
                "OpenAIServingModels.__init__",
                says=["self.lora_requests: dict[str, LoRARequest] = {}", "self.base_model_paths = base_model_paths"],
            )
        ],
    ),
    Hook(
        "OpenAIServingModels.load_lora_adapter",
        "inference/engine.py",
        [
            Place(
                MODELS,
                "OpenAIServingModels.load_lora_adapter",
                accepts="request",
                says=["await self.engine_client.add_lora(", "self.lora_requests[lora_name] = lora_request"],
            ),
            Place("vllm/entrypoints/serve/lora/protocol.py", "LoadLoRAAdapterRequest", says=["lora_name", "lora_path"]),
        ],
    ),
    Hook(
        "OpenAIServingModels.unload_lora_adapter",
        "inference/engine.py",
        [
            Place(
                MODELS,
                "OpenAIServingModels.unload_lora_adapter",
                accepts="request",
                says=["del self.lora_requests[lora_name]"],
            ),
            Place(
                "vllm/entrypoints/serve/lora/protocol.py", "UnloadLoRAAdapterRequest", says=["lora_name", "lora_int_id"]
            ),
        ],
    ),
    Hook(
        "AsyncLLM.generate",
        "inference/engine.py",
        [Place(ASYNC_LLM, "AsyncLLM.generate", accepts="prompt, sampling_params, request_id, lora_request")],
    ),
    Hook(
        "AsyncLLM.remove_lora",
        "inference/engine.py",
        [Place(ASYNC_LLM, "AsyncLLM.remove_lora", takes="self, lora_id")],
    ),
    Hook(
        "AsyncLLM.errored",
        "inference/engine.py",
        [
            Place(ASYNC_LLM, "AsyncLLM.errored", takes="self", says=["@property"]),
            Place(
                ASYNC_LLM,
                "AsyncLLM.__init__",
                says=["self.vllm_config = vllm_config", "self.model_config = vllm_config."],
            ),
        ],
    ),
    Hook(
        "EngineDeadError, EngineGenerateError",
        "inference/engine.py",
        [
            Place("vllm/v1/engine/exceptions.py", "EngineDeadError"),
            Place("vllm/v1/engine/exceptions.py", "EngineGenerateError"),
            Place(
                ASYNC_LLM, "AsyncLLM.generate", says=["except EngineDeadError:", "raise EngineGenerateError() from e"]
            ),
        ],
    ),
    Hook(
        "MsgpackEncoder, MsgpackDecoder",
        "inference/engine.py",
        [
            Place("vllm/v1/serial_utils.py", "MsgpackEncoder.encode", accepts="obj"),
            Place("vllm/v1/serial_utils.py", "MsgpackDecoder.__init__", accepts="t"),
            Place("vllm/v1/serial_utils.py", "MsgpackDecoder.decode", accepts="bufs"),
        ],
    ),
    Hook(
        "SamplingParams",
        "inference/engine.py, training/rollouts/colocate.py",
        [
            Place(
                "vllm/sampling_params.py",
                "SamplingParams",
                says=[
                    "seed: ",
                    "logprobs: ",
                    "output_kind: ",
                    "detokenize: ",
                    "structured_outputs: ",
                    "stream_interval: ",
                    "def clone(self)",
                ],
            ),
            Place("vllm/sampling_params.py", "RequestOutputKind.DELTA"),
            Place("vllm/sampling_params.py", "StructuredOutputsParams"),
        ],
    ),
    Hook(
        "ParentRequest._get_child_sampling_params",
        "inference/engine.py",
        [
            Place(
                "vllm/v1/engine/parallel_sampling.py",
                "ParentRequest._get_child_sampling_params",
                says=["child_sampling_params.seed = seed + index"],
            )
        ],
    ),
    Hook(
        "LoRARequest",
        "training/rollouts/colocate.py, training/models/comparison_parts.py",
        [
            Place(
                "vllm/lora/request.py",
                "LoRARequest",
                says=["lora_name: str\n    lora_int_id: int\n    lora_path: str"],
            )
        ],
    ),
    Hook(
        "LLM.llm_engine",
        "training/rollouts/colocate.py",
        [
            Place(LLM, "LLM.__init__", says=["self.llm_engine = "]),
            Place("vllm/v1/engine/llm_engine.py", "LLMEngine.add_lora", takes="self, lora_request"),
            Place("vllm/v1/engine/llm_engine.py", "LLMEngine.remove_lora", takes="self, lora_id"),
        ],
    ),
    Hook(
        "LLM.generate",
        "training/rollouts/colocate.py, training/models/comparison_parts.py",
        [Place(LLM, "LLM.generate", accepts="prompts, sampling_params, use_tqdm, lora_request")],
    ),
    Hook(
        "LLM.sleep, LLM.wake_up",
        "training/rollouts/colocate.py",
        [Place(LLM, "LLM.sleep", accepts="level"), Place(LLM, "LLM.wake_up", accepts="tags")],
    ),
    Hook(
        "get_mp_context",
        "inference/cpu_serve.py",
        [
            Place(
                "vllm/v1/engine/utils.py",
                "CoreEngineProcManager.__init__",
                says=["context = get_mp_context()", "context.Process("],
            ),
            Place("vllm/entrypoints/cli/main.py", "main", takes=""),
            Place("vllm/v1/engine/core.py", "EngineCoreProc.run_engine_core"),
        ],
    ),
    Hook(
        "vllm.envs",
        "inference/server.py, training/models/comparison_parts.py",
        [
            Place(
                "vllm/envs.py",
                says=[
                    "'VLLM_RPC_BASE_PATH'",
                    "'VLLM_API_KEY'",
                    "'VLLM_ALLOW_RUNTIME_LORA_UPDATING'",
                    "'VLLM_SERVER_DEV_MODE'",
                    "'VLLM_ENABLE_V1_MULTIPROCESSING'",
                    "'VLLM_CPU_KVCACHE_SPACE'",
                    "'VLLM_CPU_OMP_THREADS_BIND'",
                ],
            )
        ],
    ),
)

TRANSFORMERS = (
    Hook(
        "Trainer._get_grad_norm",
        "training/trainer/divergence.py",
        [
            Place(TRAINER, "Trainer._get_grad_norm", takes="self, model, grad_norm", says=["return grad_norm"]),
            Place(TRAINER, "Trainer._run_epoch", says=["grad_norm = self._get_grad_norm(model, grad_norm=grad_norm)"]),
        ],
    ),
    Hook(
        "Trainer._save_checkpoint",
        "training/trainer/divergence.py, training/trainer/trainer.py",
        [
            Place(
                TRAINER, "Trainer._save_checkpoint", takes="self, model, trial", says=["self._get_output_dir(trial="]
            ),
            Place(GRPO, "GRPOTrainer._save_checkpoint", takes="self, model, trial"),
        ],
    ),
    Hook(
        "Trainer._get_output_dir",
        "training/trainer/trainer.py",
        [Place(TRAINER, "Trainer._get_output_dir", takes="self, trial")],
    ),
    Hook(
        "CallbackHandler.callbacks",
        "training/stages/train.py, training/trainer/callbacks.py",
        [
            Place(CALLBACKS, "CallbackHandler.call_event", says=["for callback in self.callbacks:"]),
            Place(
                TRAINER, "Trainer.log", says=["self.callback_handler.on_log(self.args, self.state, self.control, logs)"]
            ),
        ],
    ),
    Hook(
        "integrations.is_wandb_available",
        "training/common/process.py",
        [
            Place("transformers/integrations/integration_utils.py", "is_wandb_available", takes=""),
            Place(GRPO, "is_wandb_available"),
        ],
    ),
    Hook(
        "PACKAGE_DISTRIBUTION_MAPPING",
        "training/common/process.py",
        [
            Place(
                "transformers/utils/import_utils.py",
                says=["PACKAGE_DISTRIBUTION_MAPPING = importlib.metadata.packages_distributions()"],
            ),
            Place(
                "trl/import_utils.py",
                says=["PACKAGE_DISTRIBUTION_MAPPING = importlib.metadata.packages_distributions()"],
            ),
        ],
    ),
)

ACCELERATE = (
    Hook(
        "utils.is_wandb_available",
        "training/common/process.py",
        [
            Place("accelerate/utils/__init__.py", "is_wandb_available"),
            Place("trl/trainer/callbacks.py", "is_wandb_available"),
        ],
    ),
    Hook(
        "launch.simple_launcher",
        "training/common/forks.py",
        [
            Place("accelerate/commands/launch.py", "simple_launcher", takes="args"),
            Place("accelerate/commands/launch.py", "launch_command", says=["simple_launcher(args)"]),
            Place("accelerate/commands/launch.py", "prepare_simple_launcher_cmd_env"),
            Place(
                "accelerate/utils/launch.py",
                "prepare_simple_launcher_cmd_env",
                takes="args",
                says=["return (cmd, current_env)"],
            ),
        ],
    ),
    Hook(
        "PartialState, AcceleratorState",
        "training/common/world.py",
        [
            Place("accelerate/state.py", "PartialState.__init__", accepts="cpu"),
            Place(
                "accelerate/state.py",
                "AcceleratorState.__init__",
                says=[
                    "os.environ.get('ACCELERATE_USE_DEEPSPEED', 'false')",
                    "os.environ.get('ACCELERATE_USE_FSDP', 'false')",
                    "self.distributed_type = DistributedType.DEEPSPEED",
                    "self.distributed_type = DistributedType.FSDP",
                ],
            ),
        ],
    ),
    Hook(
        "Accelerator.scaler",
        "training/trainer/divergence.py",
        [Place("accelerate/accelerator.py", "Accelerator.__init__", says=["self.scaler = None"])],
    ),
)

OTHERS = (
    Hook(
        "torch.distributed.run.config_from_args",
        "training/common/forks.py",
        [
            Place("torch/distributed/run.py", "config_from_args", takes="args"),
            Place("torch/distributed/run.py", "run", says=["config, cmd, cmd_args = config_from_args(args)"]),
            Place("torch/distributed/launcher/api.py", "LaunchConfig", says=["start_method: str = 'spawn'"]),
        ],
    ),
    Hook(
        "_checkpoint_wrapped_module",
        "training/models/adapter.py",
        [
            Place(
                "torch/distributed/algorithms/_checkpoint/checkpoint_wrapper.py",
                says=["_CHECKPOINT_WRAPPED_MODULE = '_checkpoint_wrapped_module'"],
            )
        ],
    ),
    Hook(
        "deepspeed.ops.__compatible_ops__",
        "training/common/world.py",
        [
            Place("deepspeed/ops/__init__.py", says=["'__compatible_ops__'"]),
            Place(
                "deepspeed/comm/torch.py",
                "build_shm_op",
                says=["deepspeed.ops.__compatible_ops__.get(builder.NAME, False)"],
            ),
            Place("deepspeed/ops/op_builder/cpu/comm.py", "ShareMemCommBuilder", says=["NAME = 'deepspeed_shm_comm'"]),
        ],
    ),
    Hook(
        "__post_init__._unsloth_cpu",
        "training/common/unsloth_arguments.py",
        [Place("unsloth_zoo/cpu/trainer.py", says=["__post_init__._unsloth_cpu = True", "@functools.wraps(original)"])],
    ),
)
