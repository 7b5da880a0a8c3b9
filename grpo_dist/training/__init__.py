"""The only package that imports torch, trl, transformers and peft; and unsloth, when it is the backend.

Each stage of a run is a process of its own: `python -m grpo_dist.training prepare RUN`,
`accelerate launch -m grpo_dist.training train RUN`.
"""
