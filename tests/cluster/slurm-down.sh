#!/usr/bin/env bash
# Stops the cluster of DIR by the pids its daemons wrote; KEEP=1 leaves the folder.
set -uo pipefail
BASE=$(realpath -m "$1")
[ -d "$BASE/pid" ] || exit 0
export SLURM_CONF=$BASE/etc/slurm.conf PATH=/usr/sbin:/usr/bin:/sbin:/bin
# ours: the pid still is that program; a zombie counts as gone
ours() {
  [[ "$(cat "/proc/$1/comm" 2>/dev/null)" == "$2"* ]] &&
    ! grep -q '^State:.Z' "/proc/$1/status" 2>/dev/null
}
stop() { # stop NAME PIDFILE...: TERM all, wait 10 s, KILL
  local name=$1 f pid left pids=(); shift
  for f in "$@"; do
    [ -s "$f" ] && pid=$(cat "$f") && ours "$pid" "$name" && pids+=("$pid") && kill "$pid"
  done
  for _ in $(seq 200); do
    left=0
    for pid in "${pids[@]}"; do ours "$pid" "$name" && left=1; done
    [ $left = 0 ] && return 0
    sleep 0.05
  done
  for pid in "${pids[@]}"; do ours "$pid" "$name" && kill -9 "$pid"; done
}
if [ -s "$SLURM_CONF" ] && timeout 5 scontrol ping >/dev/null 2>&1; then
  scancel --user="$(id -un)" 2>/dev/null # let the job steps go first
  for _ in $(seq 150); do [ -z "$(squeue -h 2>/dev/null)" ] && break; sleep 0.1; done
fi
stop slurmd "$BASE"/pid/slurmd-*
stop slurmctld "$BASE/pid/slurmctld"
stop slurmdbd "$BASE/pid/slurmdbd"
stop mariadbd "$BASE/pid/mariadbd"
stop munged "$BASE/pid/munged"
# proctrack/linuxproc, unlike cgroups, loses a process whose parent was killed before it
for environment in /proc/[0-9]*/environ; do
  grep -qzF "PATH=$BASE/bin:" "$environment" 2>/dev/null || continue
  pid=${environment#/proc/}
  kill -9 "${pid%/environ}" 2>/dev/null
done
[ "${KEEP:-}" ] || rm -rf "$BASE"
