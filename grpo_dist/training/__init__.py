"""The only package that imports torch, trl, transformers and peft; and unsloth, when it is the backend.

Each stage of a run is a process of its own: `python -m grpo_dist.training.stages.prepare RUN`,
`accelerate launch -m grpo_dist.training RUN`, `python -m grpo_dist.training.stages.compare RUN`.
"""
