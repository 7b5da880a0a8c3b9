"""Why a rollout server ended, told from the last lines of its log."""

from __future__ import annotations

import re
from dataclasses import dataclass

TAIL_LINES = 12


@dataclass(frozen=True)
class Cause:
    """A known end, and what helps."""

    pattern: str
    what: str
    hint: str


PORT_TAKEN = Cause(
    r"[Aa]ddress already in use|Errno 98", "its port was taken by another program", "start it again: it takes another"
)
CAUSES = (
    PORT_TAKEN,
    Cause(
        r"(?m)No module named '?vllm'?$|PackageNotFoundError: .*vllm",
        "vLLM is not installed beside this Python",
        "pip install 'grpo-dist[vllm]'",
    ),
    Cause(
        r"cache is needed, which is larger than the available|No available memory for the cache blocks",
        "the KV cache does not hold one text of the longest length",
        "raise rollout.gpu_memory_utilization (on a CPU: VLLM_CPU_KVCACHE_SPACE, in GiB), or lower "
        "data.max_prompt_length or grpo.max_completion_length",
    ),
    Cause(
        r"is less than requested memory for kv",
        "this machine's memory is used by something else",
        "free some: a replica on CPU takes VLLM_CPU_KVCACHE_SPACE GiB (1 unless set) beside the model",
    ),
    Cause(
        r"OutOfMemoryError|out of memory|less than desired GPU memory utilization|Cannot allocate memory",
        "the device's memory is too small for it, or used by something else",
        "--set rollout.gpu_memory_utilization=0.8 or lower, or more GPUs for a replica: "
        "--set rollout.tensor_parallel_size=2",
    ),
    Cause(
        r"greater than the derived max_model_len|max_model_len.*max_position_embeddings",
        "texts are planned longer than the model's positions",
        "lower model.max_length, data.max_prompt_length or grpo.max_completion_length",
    ),
    Cause(
        r"contains custom code which must be executed|pass the argument `trust_remote_code",
        "the model brings its own Python code",
        "read it, then --set model.trust_remote_code=true",
    ),
    Cause(
        r"is not a valid model identifier|Repository Not Found|does not appear to have a file named"
        r"|Can't load the configuration|couldn't connect to|LocalEntryNotFoundError|OfflineModeIsEnabled",
        "the model cannot be found or reached",
        "check model.name_or_path; on a machine without network fill the cache beforehand: hf download MODEL",
    ),
    Cause(
        r"are not supported for now|has no vLLM implementation|Model architectures .* (failed|not supported)",
        "vLLM does not serve models of this architecture",
        "--set rollout.backend=transformers",
    ),
)


def cause_of(log: str) -> Cause | None:
    """The first known cause the text shows; vLLM's own words stand above the tracebacks they lead to."""
    return next((cause for cause in CAUSES if re.search(cause.pattern, log)), None)


def tail(log: str) -> str:
    """The last lines, marked as quoted."""
    return "\n".join(f"  | {line}" for line in log.splitlines()[-TAIL_LINES:])
