#!/bin/bash

# Parameters
#SBATCH --account=lab
#SBATCH --array=0-2%2
#SBATCH --constraint=a100
#SBATCH --cpus-per-task=8
#SBATCH --exclude='bad[1-2]'
#SBATCH --gpus-per-node=2
#SBATCH --job-name=recaption-scenes
#SBATCH --licenses=fs:1
#SBATCH --mem=64G
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --open-mode=append
#SBATCH --output=HERE/run/.recaption/logs/%A_%a_0_log.out
#SBATCH --partition=gpu
#SBATCH --qos=low
#SBATCH --requeue
#SBATCH --signal=USR2@120
#SBATCH --time=1440

# setup
unset "${!SBATCH_@}"
[ -z "$SLURM_CPUS_PER_TASK" ] || export SRUN_CPUS_PER_TASK=$SLURM_CPUS_PER_TASK
trap 'code=$?; [ ${#BASH_SOURCE[@]} -gt 1 ] || { echo "recaption: line $((LINENO - begin)) of slurm.setup failed with exit code $code, so the task is not started"; exit 1; }' ERR; begin=$LINENO
module load cuda
export A=1
trap - ERR

# command
export SUBMITIT_EXECUTOR=slurm
srun --unbuffered --output HERE/run/.recaption/logs/%A_%a_%t_log.out --container-image=/i.sqsh PYTHON -u -m submitit.core._submit HERE/run/.recaption/logs


# teardown
code=$? again=
task="${SLURM_ARRAY_JOB_ID:-$SLURM_JOB_ID}${SLURM_ARRAY_TASK_ID:+_$SLURM_ARRAY_TASK_ID}"
kills=HERE/run/.recaption/logs/${task}_kills
case "$code" in
75 | 140) again=1 ;;
137 | 253)
  echo "$code" >>"$kills"
  [ "$(wc -l <"$kills")" -ge 5 ] || again=1
  [ "$again" ] || echo "recaption: this task was killed again and again before it began, as it seems for want of memory: recaption.retry with a larger slurm.mem goes on with it" ;;
esac
if [ "$again" ]; then
  scontrol requeue "$task" && sleep 60
  echo "recaption: this task could not be requeued; recaption.retry goes on with it"
fi
exit "$code"