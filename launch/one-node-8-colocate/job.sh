#!/usr/bin/env bash
#SBATCH --job-name=grpo-Qwen3-4B-Base
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=64
#SBATCH --gpus-per-node=8
#SBATCH --time=12:00:00
#SBATCH --output=slurm-%j.out
#SBATCH --open-mode=append
#SBATCH --requeue
#
# Written by `grpo-dist render`. With RUN the directory of this script, on a file system all nodes see:
#
#   sbatch --chdir=RUN RUN/job.sh
#
# cluster.setup and the training run in the directory sbatch is called from. Submitted again, or requeued, the job does
# what is left to do: training continues from the newest complete checkpoint.
set -euo pipefail

refuse() {
  echo "$1" >&2
  exit 2
}

: "${SLURM_JOB_ID:?submit this script with sbatch}"
run=$PWD nodes=1
[ -e "$run/plan.json" ] || refuse "$run holds no plan.json: sbatch --chdir=RUN RUN/job.sh"
[ "$SLURM_JOB_NUM_NODES" -eq "$nodes" ] ||
  refuse "planned for $nodes nodes, allocated $SLURM_JOB_NUM_NODES: set cluster.nodes and render again"
exec 9>>"$run/.lock"
flock --nonblock 9 || refuse "$run: this run is still going on"

attempt=1
while [ -e "$run/logs/attempt-$attempt" ]; do attempt=$((attempt + 1)); done
logs=$run/logs/attempt-$attempt
mkdir -p "$logs"

# Trackers write into the run directory; a resumed run continues its own record.
export TRACKIO_DIR=${TRACKIO_DIR-$run/trackio} TENSORBOARD_LOGGING_DIR=${TENSORBOARD_LOGGING_DIR-$run/tensorboard}
export WANDB_DIR=${WANDB_DIR-$run} WANDB_PROJECT=${WANDB_PROJECT-grpo-dist} WANDB_RESUME=${WANDB_RESUME-allow}
run_id=$(printf %s "$run" | sha256sum)
export WANDB_RUN_ID=${WANDB_RUN_ID-${run_id:0:16}}
[ -n "${WANDB_API_KEY:-}" ] || grep -qs api.wandb.ai ~/.netrc || export WANDB_MODE=${WANDB_MODE-offline}

# Rank 0 is the first node. The port is the job's own, and below the range the system gives away.
mapfile -t hosts < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
port=$((20000 + SLURM_JOB_ID % 10000))

# What each node runs. Quoted: its variables, the rank first of all, are read on the node.
IFS= read -r -d '' on_node <<'NODE' || true
set -euo pipefail
cd "$SLURM_SUBMIT_DIR"
export TOKENIZERS_PARALLELISM=false
export PYTHONUNBUFFERED=1
if [ "$1" = launch ]; then
  set -- accelerate.commands.launch --machine_rank "$SLURM_NODEID" "${@:2}"
fi
exec python -m "$@" </dev/null
NODE

# stage NAME RESULT NODES MODULE [ARGUMENT]...: run a Python module on so many nodes, unless its result stands.
stage() {
  [ ! -e "$run/$2" ] || return 0
  echo "$(date +%FT%T) $1: $logs/$1.log"
  srun --nodes="$3" --ntasks="$3" --ntasks-per-node=1 --cpus-per-task="$SLURM_CPUS_PER_TASK" --export=ALL \
    --kill-on-bad-exit=1 --label --open-mode=append --output="$logs/$1.log" \
    bash -c "$on_node" node "${@:4}"
  [ -e "$run/$2" ] || refuse "$1 ended without $run/$2"
}

stage prepare prepared.json 1 grpo_dist.training.prepare "$run"
stage train adapter "$nodes" launch --config_file "$run/accelerate.yaml" \
  --gpu_ids all --main_process_ip "${hosts[0]}" --main_process_port "$port" \
  -m grpo_dist.training "$run"
stage compare comparison.json 1 grpo_dist.training.compare "$run"
stage report report.html 1 grpo_dist report "$run"
