"""The fractions of the hardware's peaks that programs reach: named factors, each with its publication.

Every factor can be replaced by the user, and `calibrate` fits the scales to an earlier run.
"""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Assumption:
    """One number that an estimate depends on."""

    name: str
    value: float
    source: str


@dataclass(frozen=True)
class Efficiencies:
    """Fractions of a peak, fixed costs in seconds, and scales (measured over estimated seconds)."""

    decode_bandwidth: float = 0.72
    """Fraction of memory bandwidth a decode step reaches while it reads weights and KV cache."""
    matmul: float = 0.78
    """Fraction of peak FLOP/s of a large matrix product, in training and prefill."""
    attention: float = 0.55
    """The same of attention in training."""
    streaming: float = 0.85
    """Fraction of memory bandwidth that plain copies and elementwise kernels reach."""
    activation_passes: float = 100.0
    """Times a layer's (hidden + MLP) activations go through memory per pass, outside matrix products."""
    eager_layer_seconds: float = 0.77e-3
    """Least time of one layer run kernel by kernel from Python, without LoRA."""
    eager_lora_layer_seconds: float = 1.74e-3
    """The same with LoRA on all its projections; also of one layer's backward."""
    decode_step_seconds: float = 0.2e-3
    """Scheduling and sampling per vLLM decode step, not hidden behind the GPU."""
    lora_layer_seconds: float = 60e-6
    """Extra time per layer and vLLM decode step while an unmerged adapter is served."""
    eager_score_bytes: float = 24.0
    """Bytes moved per attention score and pass where attention is `eager`: written, scaled, masked, normalised in
    float32, cast and read."""
    sleep_bytes_per_second: float = 2.6e9
    """bytes/s at which the weights of a colocated engine move to host memory or back."""
    link: float = 0.82
    """Fraction of a link's line rate that NCCL reaches."""
    collective_seconds: float = 6.8e-6
    """Fixed time of one NCCL collective."""
    adapter_load_seconds: float = 0.2
    """Time a vLLM server takes to load an adapter from its disk."""
    generation_scale: float = 1.0
    """Measured over estimated seconds of generation."""
    training_scale: float = 1.0
    """Measured over estimated seconds of everything else in a step."""
    other_seconds: float = 0.0
    """Seconds of a step outside generation, training and synchronisation: rewards, logging, the optimizer."""
    replaced: tuple[tuple[str, str], ...] = ()
    """(factor, source of its value) for those that differ from the published ones."""

    def assumptions(self) -> tuple[Assumption, ...]:
        """Every factor with its value and source."""
        sources = {**SOURCES, **dict(self.replaced)}
        return tuple(Assumption(name, getattr(self, name), sources[name]) for name in SOURCES)

    def layer_launch(self, lora: bool) -> float:
        """Least seconds of one eager layer."""
        return self.eager_lora_layer_seconds if lora else self.eager_layer_seconds

    def with_values(self, source: str, **values: float) -> Efficiencies:
        """A copy with some factors replaced, remembering where the new values come from."""
        replaced = {**dict(self.replaced), **dict.fromkeys(values, source)}
        return replace(self, **values, replaced=tuple(replaced.items()))


_QWEN = "Qwen README, LoRA on one A100-80GB"
_FITTED = "fitted to LoRA runs of the Qwen README, prime-rl and TRL's AsyncGRPO: docs/published.md"

SOURCES = {
    "decode_bandwidth": "Llama-7B on an A100, bf16: PyTorch blog, Accelerating Generative AI II (2023)",
    "matmul": "best shapes reach 0.78 on a B200, 0.80 on an H100, 0.87 on an A100: stas00/ml-engineering, MAMF table",
    "attention": _FITTED,
    "streaming": "copying memory stays below 0.85: PyTorch blog, Accelerating Generative AI II (2023)",
    "activation_passes": _FITTED,
    "eager_layer_seconds": "Qwen README, bf16 generation on one A100: 54, 41, 32 tokens/s with 24, 32, 40 layers",
    "eager_lora_layer_seconds": f"{_QWEN}: 1.0 s however short the text, Qwen-1.8B, 24 layers × 3 passes × 8",
    "decode_step_seconds": "our own figure: what asynchronous scheduling leaves of some tenths of a millisecond",
    "lora_layer_seconds": "our own figure: 2.2 ms a token over the 36 layers of an 8B model, on H200",
    "eager_score_bytes": "counted in Transformers' `eager_attention_forward`, 16 bit",
    "sleep_bytes_per_second": "12.8 s to sleep and wake an 8B model at level 1: vLLM issue 48337",
    "link": "370 of 450 GB/s on NVLink 4: NCCL's authors, nccl-tests issue 212",
    "collective_seconds": "baseLatencies (tree, LL) of NCCL's src/graph/tuning.cc",
    "adapter_load_seconds": "about 200 ms per adapter-only synchronisation: axolotl's documentation, vLLM serving",
    "generation_scale": "1: not calibrated",
    "training_scale": "1: not calibrated",
    "other_seconds": "0: not calibrated",
}

DEFAULTS = Efficiencies()
