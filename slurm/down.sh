#!/usr/bin/env bash
# Ends the lab of LAB_DIR: its jobs, its daemons, and what jobs left running. With --wipe its directory goes too.
set -uo pipefail
# shellcheck source=slurm/common.sh
. "$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)/common.sh"
[ -e "$STAMP" ] || { echo "slurm lab: none in $LAB_DIR" >&2; exit 0; }
export SLURM_CONF

if runs "$LAB_DIR/run/slurmctld.pid"; then
  timeout 10 scancel --quiet --state=PENDING,RUNNING,SUSPENDED --user="$(id -un)" 2>/dev/null
  for _ in $(seq 40); do
    [ -z "$(timeout 5 squeue -h 2>/dev/null)" ] && break
    sleep 0.2
  done
fi
for pidfile in "$LAB_DIR"/run/{slurmctld,slurmd.*,slurmdbd,mariadbd,munged}.pid; do
  end "$pidfile"
done

# Step daemons of this lab, and every process of its jobs that outlived them: their environment names the lab.
for proc in /proc/[0-9]*; do
  pid=${proc#/proc/}
  [ "$pid" != $$ ] || continue
  { environment=$(tr '\0' '\n' <"$proc/environ"); } 2>/dev/null || continue
  grep -qxF "SLURM_CONF=$SLURM_CONF" <<<"$environment" || continue
  if [ "$(cat "$proc/comm" 2>/dev/null)" = slurmstepd ] || grep -q '^SLURM_JOB_ID=' <<<"$environment"; then
    kill -KILL "$pid" 2>/dev/null
  fi
done
for group in /sys/fs/cgroup/freezer/slurm_node*; do
  [ -d "$group" ] && find "$group" -depth -type d -exec rmdir {} + 2>/dev/null
done

[ "${1:-}" != --wipe ] || rm -rf "$LAB_DIR"
exit 0
