"""The only room that imports torch, trl, transformers and peft; and unsloth, where it is the back end.

Each stage of a run is a process of its own: `python -m grpo_dist.training.stages.prepare RUN`,
`accelerate launch -m grpo_dist.training RUN`, `python -m grpo_dist.training.stages.compare RUN`.
"""
