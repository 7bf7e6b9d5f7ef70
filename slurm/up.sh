#!/usr/bin/env bash
# Starts a private, real Slurm cluster on this one machine, as root. Settings: see common.sh.
# Prints a line to source. Safe to repeat: what runs already with these settings is left alone.
# Exit codes: 0 every node is up; 76 a port is taken; 77 Slurm can't be installed here; 1 it did not start.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=slurm/common.sh
. "$here/common.sh"

check_port() { # PORT PIDFILE: taken, and not by the daemon of ours that runs already
  runs "$LAB_DIR/run/$2.pid" && return 0
  if (exec 8<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; then
    die "$EXIT_PORT" "port $1 is taken (set LAB_PORT)"
  fi
}

check_ports() {
  local i
  check_port "$LAB_PORT" slurmctld
  if [ "$LAB_ACCOUNTING" = 1 ]; then
    check_port $((LAB_PORT + 2)) slurmdbd
    check_port $((LAB_PORT + 3)) mariadbd
  fi
  for ((i = 1; i <= LAB_NODES; i++)); do check_port $((LAB_PORT + 9 + i)) "slurmd.node$i"; done
}

# The v1 freezer kills every descendant of a step, as real clusters do. Without it, linuxproc follows parents
# and misses what was adopted by init.
choose_proctrack() {
  [ -z "$LAB_PROCTRACK" ] || return 0
  local probe=/sys/fs/cgroup/freezer/recaption-probe-$$
  if mkdir "$probe" 2>/dev/null && rmdir "$probe"; then
    LAB_PROCTRACK=proctrack/cgroup
  else
    LAB_PROCTRACK=proctrack/linuxproc
  fi
}

configuration() {
  local host accounting=accounting_storage/none
  host=$(hostname -s)
  [ "$LAB_ACCOUNTING" = 1 ] && accounting=accounting_storage/slurmdbd
  cat <<CONF
ClusterName=lab
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=$LAB_PORT
SlurmdPort=$((LAB_PORT + 1))
SlurmUser=root
SlurmdUser=root
# Cgroups are named by node and job: labs that run side by side must not share job ids.
FirstJobId=$(((LAB_PORT - 1024) * 1000 + 1))

AuthType=auth/munge
AuthInfo=socket=$MUNGE_SOCKET,cred_expire=$LAB_CRED_EXPIRE
CredType=cred/munge

SlurmctldPidFile=$LAB_DIR/run/slurmctld.pid
SlurmctldLogFile=$LAB_DIR/log/slurmctld.log
StateSaveLocation=$LAB_DIR/state
SlurmdPidFile=$LAB_DIR/run/slurmd.%n.pid
SlurmdLogFile=$LAB_DIR/log/slurmd.%n.log
SlurmdSpoolDir=$LAB_DIR/spool/%n
SlurmctldDebug=verbose
SlurmdDebug=verbose

# One machine plays many: no pinning, no accounting of real use, and nodes as big as they say they are.
SlurmdParameters=config_overrides
ProctrackType=$LAB_PROCTRACK
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
JobAcctGatherType=jobacct_gather/none
MailProg=/bin/true
ReturnToService=2

SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
DefMemPerCPU=100
SchedulerType=sched/backfill
SchedulerParameters=bf_interval=1,bf_continue,sched_interval=1,sched_min_interval=0,batch_sched_delay=0
MaxArraySize=$LAB_MAX_ARRAY
MaxJobCount=20000

JobRequeue=1
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SlurmctldParameters=preempt_send_user_signal

KillWait=$LAB_KILL_WAIT
SlurmdTimeout=$LAB_SLURMD_TIMEOUT
SlurmctldTimeout=30
BatchStartTimeout=10
MessageTimeout=5
CompleteWait=0
MinJobAge=600

AccountingStorageType=$accounting
CONF
  [ "$LAB_ACCOUNTING" = 1 ] && cat <<CONF
AccountingStorageHost=127.0.0.1
AccountingStoragePort=$((LAB_PORT + 2))
AccountingStoragePass=$MUNGE_SOCKET
AccountingStorageTRES=gres/gpu
CONF
  cat <<CONF

GresTypes=gpu
NodeName=node[1-$LAB_NODES] NodeHostname=$host NodeAddr=127.0.0.1 Port=$((LAB_PORT + 10))-$((LAB_PORT + 9 + LAB_NODES)) CPUs=$LAB_CPUS Boards=1 SocketsPerBoard=1 CoresPerSocket=$LAB_CPUS ThreadsPerCore=1 RealMemory=$LAB_MEM Gres=gpu:$LAB_GPUS
PartitionName=DEFAULT Nodes=ALL MaxTime=INFINITE DefaultTime=60 State=UP
PartitionName=low Default=YES PriorityTier=1 PreemptMode=REQUEUE GraceTime=$LAB_GRACE
PartitionName=low0 PriorityTier=1 PreemptMode=REQUEUE GraceTime=0
PartitionName=high PriorityTier=10 PreemptMode=OFF
CONF
}

configure() { # returns 1 when nothing changed
  local fresh=$LAB_DIR/etc/new i
  mkdir -p "$LAB_DIR"/{etc,dev,log,run,state,spool}
  touch "$STAMP"
  chmod 755 "$LAB_DIR" "$LAB_DIR/run"         # munged insists that everybody can reach its socket
  for ((i = 0; i < LAB_GPUS; i++)); do       # a second /dev/null passes for a GPU; a plain file does too, with a complaint
    [ -e "$LAB_DIR/dev/nvidia$i" ] || mknod "$LAB_DIR/dev/nvidia$i" c 1 3 2>/dev/null || touch "$LAB_DIR/dev/nvidia$i"
  done
  printf 'CgroupPlugin=autodetect\n' >"$LAB_DIR/etc/cgroup.conf"
  printf 'AutoDetect=off\nNodeName=node[1-%d] Name=gpu File=%s/dev/nvidia[0-%d]\n' \
    "$LAB_NODES" "$LAB_DIR" $((LAB_GPUS - 1)) >"$LAB_DIR/etc/gres.conf"
  configuration >"$fresh"
  if cmp -s "$fresh" "$SLURM_CONF"; then
    rm "$fresh"
    return 1
  fi
  mv "$fresh" "$SLURM_CONF"
}

start_munge() {
  local key=$LAB_DIR/etc/munge.key
  runs "$LAB_DIR/run/munged.pid" && return 0
  rm -f "$MUNGE_SOCKET" "$MUNGE_SOCKET.lock"
  [ -s "$key" ] || (umask 077 && head -c 128 /dev/urandom >"$key")
  daemon munged munged --key-file="$key" --socket="$MUNGE_SOCKET" --pid-file="$LAB_DIR/run/munged.pid" \
    --log-file="$LAB_DIR/log/munged.log" --seed-file="$LAB_DIR/run/munged.seed" ||
    die 1 "munged does not start: $(tail -1 "$LAB_DIR/log/munged.out")"
}

start_slurm() {
  local i
  runs "$LAB_DIR/run/slurmctld.pid" || daemon slurmctld slurmctld -f "$SLURM_CONF" || true
  for ((i = 1; i <= LAB_NODES; i++)); do
    runs "$LAB_DIR/run/slurmd.node$i.pid" || start_node "node$i" || true
  done
}

await_nodes() {
  local up=0 until=$((SECONDS + 30))
  while [ $SECONDS -lt $until ]; do
    up=$(timeout 5 sinfo -h -N -p high -o %T 2>/dev/null | grep -cxE 'idle|mixed|allocated|completing' || true)
    [ "$up" -ge "$LAB_NODES" ] && return 0
    if ! runs "$LAB_DIR/run/slurmctld.pid" && grep -qi 'address already in use' "$LAB_DIR"/log/slurmctld.*; then
      die "$EXIT_PORT" "port $LAB_PORT is taken (set LAB_PORT)"
    fi
    sleep 0.1
  done
  die 1 "$up of $LAB_NODES nodes came up: $(cat "$LAB_DIR"/log/*.log | grep -iE 'error|fatal' | tail -1)"
}

[ "$(id -u)" = 0 ] || die "$EXIT_SKIP" "a private Slurm needs root"
[ "$LAB_GPUS" -ge 1 ] || die 2 "LAB_GPUS must be at least 1"
[ ${#LAB_DIR} -le 60 ] || die 2 "LAB_DIR is too long for Unix sockets: $LAB_DIR"
if [ ! -e "$STAMP" ] && [ -n "$(ls -A "$LAB_DIR" 2>/dev/null)" ]; then
  die 2 "$LAB_DIR is not empty and no lab's"
fi
packages=(slurm-wlm munge)
[ "$LAB_ACCOUNTING" = 1 ] && packages+=(slurmdbd slurm-wlm-mysql-plugin mariadb-server)
install_packages "${packages[*]}" "slurmctld slurmd munged"
choose_proctrack
export SLURM_CONF
check_ports
if configure; then                            # running jobs survive a restart of Slurm's daemons
  for pidfile in "$LAB_DIR"/run/slurmctld.pid "$LAB_DIR"/run/slurmd.*.pid; do end "$pidfile"; done
fi
start_munge
if [ "$LAB_ACCOUNTING" = 1 ]; then
  # shellcheck source=slurm/accounting.sh
  . "$here/accounting.sh"
fi
start_slurm
await_nodes
echo "export SLURM_CONF=$SLURM_CONF"
