#!/usr/bin/env bash
#SBATCH --job-name=grpo-Qwen3-32B
#SBATCH --nodes=16
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=64
#SBATCH --gpus-per-node=8
#SBATCH --mem=0
#SBATCH --time=24:00:00
#SBATCH --output=slurm-%j.out
#SBATCH --open-mode=append
#SBATCH --signal=B:USR2@300
#SBATCH --requeue
#
# Written by `grpo-dist render`. With RUN the directory of this script, on a file system all nodes see:
#
#   sbatch --chdir=RUN RUN/job.sh
#
# cluster.setup is done in the directory sbatch is called from.
#
# The job plans for the nodes and GPUs it was given. Submitted again, or put back in the queue, it continues the run from
# its newest complete checkpoint, on as many nodes as it has then.
: "${SLURM_JOB_ID:?submit this script with sbatch}"
# srun takes these for options, and sbatch passes on what they were in the job it was typed in. A step without options
# has all its job has.
for name in "${!SLURM_CPU_BIND@}" "${!SLURM_MEM_@}" "${!SLURM_GPUS_PER_@}" "${!SLURM_NTASKS@}" "${!SLURM_STEP@}" \
  SLURM_GPUS SLURM_GPU_BIND SLURM_TRES_PER_TASK SLURM_NPROCS SLURM_DISTRIBUTION GRPO_DIST_JOB GRPO_DIST_ATTEMPT; do
  unset "$name"
done
[ "${SLURM_JOB_ID_HET_GROUP_0:-}" = "$SLURM_JOB_ID" ] || unset SLURM_HET_SIZE
# Slurm sends USR2 to this shell alone, ahead of the time limit or a preemption, and TERM to all when it ends the job.
run='' why=''
stop() {
  why=$1
  [ -z "$run" ] || echo "$why" >"$run/stop-request"
}
trap 'stop limit' USR2
trap 'stop terminated' TERM
work=$PWD
cd "$SLURM_SUBMIT_DIR" || exit
cd "$work" || exit
set -uo pipefail # not before: what makes environments ready seldom bears it

[ $# -gt 0 ] || set -- config.yaml --output .
opened=$(
  trap '' USR2 TERM # it is left to finish, and what came meanwhile is written down after it
  python -m grpo_dist.slurm.job open "$@"
) || {
  code=$?
  python -c 'import grpo_dist' &>/dev/null && exit "$code"
  echo "Error: python here, $(command -v python || echo none at all), has no grpo_dist" >&2
  echo "  → have it found: modules, activate or scratch in ~/.config/grpo-dist/site.yaml, or cluster.setup" >&2
  exit 2
}
run=${opened%$'\n'*} attempt=${opened##*$'\n'}
[ -z "$why" ] || stop "$why"
scontrol write batch_script "$SLURM_JOB_ID" "$attempt/submitted.sh" &>/dev/null # for a job that follows this one

# One supervisor on each node; which one it is, it finds out there. This shell runs on the first. They end together: what
# has not ended 10 s after the first is on a node that is no more.
GRPO_DIST_TOKEN=$(od -An -N32 -tx1 /dev/urandom | tr -d ' \n')
export GRPO_DIST_TOKEN GRPO_DIST_HEAD=${SLURMD_NODENAME:-$(hostname)}
options=(--ntasks-per-node=1 --export=ALL --kill-on-bad-exit=0 --wait=10)
# Told, for Slurm before and after 22.05 differ in what a step takes when it is not.
[ -z "${SLURM_CPUS_PER_TASK:-}" ] || options+=(--cpus-per-task="$SLURM_CPUS_PER_TASK")
[ "${SLURM_HET_SIZE:-1}" -eq 1 ] || options+=(--het-group="0-$((SLURM_HET_SIZE - 1))")
srun "${options[@]}" python -m grpo_dist.supervisor.node "$run" "$attempt" &
step=$! code=0
while kill -0 "$step" 2>/dev/null; do # a trap ends `wait` early
  wait "$step"
  code=$?
done
trap '' USR2 TERM # to the end: nothing is left that could be stopped
exec python -m grpo_dist.slurm.job close "$run" "$attempt" "$code"
