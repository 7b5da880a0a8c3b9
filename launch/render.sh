#!/bin/sh
# The worked examples beside this file and slurm/grpo.sh, each with the command that writes it. Run from the root of the repository.
set -e
grpo-dist render configs/qwen3-4b-notebook.yaml --output launch/one-gpu
grpo-dist render configs/qwen3-4b.yaml --output launch/one-node-8-colocate --set cluster.nodes=1
grpo-dist render configs/qwen3-4b.yaml --output launch/2x8-rollout-node --set rollout.mode=server --set rollout.nodes=1
grpo-dist render configs/qwen3-4b.yaml --output launch/4x8 --set cluster.nodes=4
grpo-dist render configs/qwen3-32b.yaml --output launch/zero3-16x8
grpo-dist render configs/qwen3-4b.yaml --script slurm/grpo.sh
