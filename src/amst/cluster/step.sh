#!/bin/sh
# Runs a command as the step of this SLURM job: step.sh <options of srun> <command>.
# What SLURM set for the job would be taken for options of the step, so only its identity stays, and
# where the site keeps SLURM's settings.
for name in $(env | sed -n 's/^\(SLURM_[A-Za-z0-9_]*\|SRUN_[A-Za-z0-9_]*\|SBATCH_[A-Za-z0-9_]*\)=.*/\1/p'); do
  case $name in
    SLURM_CONF | SLURM_JOB_ID | SLURM_JOBID | SLURM_ARRAY_* | SLURM_CLUSTER_NAME | SLURM_SUBMIT_* | SLURM_RESTART_COUNT) ;;
    *) unset "$name" ;;
  esac
done
exec srun "$@"
