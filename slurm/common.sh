# shellcheck shell=bash disable=SC2034
# Settings and small functions shared by the scripts here. Every setting is an environment variable.

LAB_DIR=${LAB_DIR:-/tmp/slurm-lab}            # everything the lab writes; keep it short (Unix sockets live in it)
LAB_PORT=${LAB_PORT:-21000}                   # ports LAB_PORT .. LAB_PORT+9+LAB_NODES on 127.0.0.1
LAB_NODES=${LAB_NODES:-4}                     # virtual nodes node1 .. nodeN, each with a slurmd of its own
LAB_CPUS=${LAB_CPUS:-32}                      # CPUs that each node claims to have
LAB_MEM=${LAB_MEM:-262144}                    # MB that each node claims to have
LAB_GPUS=${LAB_GPUS:-4}                       # pretended GPUs per node
LAB_MAX_ARRAY=${LAB_MAX_ARRAY:-1001}          # MaxArraySize (the largest index is one less)
LAB_CRED_EXPIRE=${LAB_CRED_EXPIRE:-5}         # a requeued job waits this long and a second more
LAB_SLURMD_TIMEOUT=${LAB_SLURMD_TIMEOUT:-10}  # seconds until a silent node is taken for lost
LAB_KILL_WAIT=${LAB_KILL_WAIT:-2}             # seconds between TERM and KILL
LAB_GRACE=${LAB_GRACE:-5}                     # grace of partition low when it is preempted
LAB_ACCOUNTING=${LAB_ACCOUNTING:-0}           # 1: slurmdbd on a private MariaDB, so that sacct works
LAB_PROCTRACK=${LAB_PROCTRACK:-}              # proctrack/cgroup or proctrack/linuxproc; empty: whatever works here

LAB_SHARED=${LAB_SHARED:-}                    # VOLUME_DIR of volume-up.sh: each node has a client of its own

VOLUME_DIR=${VOLUME_DIR:-/tmp/gluster-volume} # everything of the network file system
VOLUME_PORT=${VOLUME_PORT:-24700}             # port of its brick on 127.0.0.1
VOLUME_NODES=${VOLUME_NODES:-4}               # clients node1 .. nodeN beside this machine's own
VOLUME_CACHE=${VOLUME_CACHE:-1}               # seconds for which a client trusts what it knows

LAB_DIR=$(realpath -m "$LAB_DIR")
VOLUME_DIR=$(realpath -m "$VOLUME_DIR")
SLURM_CONF=$LAB_DIR/etc/slurm.conf
MUNGE_SOCKET=$LAB_DIR/run/munge.socket
STAMP=$LAB_DIR/.recaption-slurm-lab           # tells down.sh --wipe that this directory may go

EXIT_PORT=76                                  # a port is taken: another LAB_PORT will do
EXIT_SKIP=77                                  # no Slurm can be had here: tests skip

die() { # CODE MESSAGE
  echo "slurm lab: $2" >&2
  exit "$1"
}

# A process that nobody reaps keeps its pid; what has no executable any more does not run.
runs() { # PIDFILE
  local pid
  pid=$(cat "$1" 2>/dev/null) && [ -n "$pid" ] && readlink -e "/proc/$pid/exe" >/dev/null
}

# Daemons get a bare environment, a session of their own and none of our file descriptors.
daemon() { # NAME COMMAND...
  local name=$1
  shift
  (
    cd / || exit 1
    exec 8>&- 9>&-
    exec setsid env -i HOME=/root PATH=/usr/sbin:/usr/bin:/sbin:/bin SLURM_CONF="$SLURM_CONF" "$@" \
      </dev/null >>"$LAB_DIR/log/$name.out" 2>&1
  )
}

end() { # PIDFILE: TERM, then KILL after 10 s; never a process that is not one of ours
  local pid
  if runs "$1"; then
    pid=$(cat "$1")
    case $(readlink "/proc/$pid/exe") in
      */slurm* | */munged | */mariadbd | */mysqld | */glusterfsd) ;;
      *) rm -f "$1"; return 0 ;;
    esac
    kill -TERM "$pid" 2>/dev/null
    for _ in $(seq 200); do
      runs "$1" || break
      sleep 0.05
    done
    runs "$1" && kill -KILL "$pid" 2>/dev/null
  fi
  rm -f "$1"
}

# A node sees the shared file system through its own client, under the path that all of them have it at.
start_node() { # NAME
  local command=(slurmd -N "$1" -f "$SLURM_CONF")
  mkdir -p "$LAB_DIR/spool/$1"
  if [ -n "$LAB_SHARED" ]; then
    # shellcheck disable=SC2016
    command=(unshare -m --propagation private sh -c 'mount --bind "$0" "$1" && shift && exec "$@"'
      "$LAB_SHARED/$1" "$LAB_SHARED/shared" "${command[@]}")
  fi
  daemon "slurmd.$1" "${command[@]}"
}

install_packages() { # "DEBIAN PACKAGES" "PROGRAMS": what is missing, where apt-get can; 77 where it cannot be had
  local missing=() name policy=/usr/sbin/policy-rc.d log
  if ! command -v dpkg-query >/dev/null || ! command -v apt-get >/dev/null; then
    # Somebody else's packaging: what matters is that the programs are there.
    for name in $2; do
      command -v "$name" >/dev/null || die "$EXIT_SKIP" "no $name here, and no apt-get to install it with"
    done
    return 0
  fi
  mkdir -p /run/lock
  exec 9>/run/lock/recaption-slurm-lab
  flock 9                                     # two labs may start at once
  for name in $1; do
    [ "$(dpkg-query -W -f '${db:Status-Status}' "$name" 2>/dev/null)" = installed ] || missing+=("$name")
  done
  if [ ${#missing[@]} -gt 0 ]; then
    log=$(mktemp)
    if [ ! -e $policy ]; then                 # keeps the packages from starting their own daemons
      printf '#!/bin/sh\nexit 101\n' >$policy
      chmod 755 $policy
      trap 'rm -f /usr/sbin/policy-rc.d' EXIT
    fi
    get() { DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=300 "$@" </dev/null >>"$log" 2>&1 9>&-; }
    if ! get install -y --no-install-recommends "${missing[@]}"; then
      { get update && get install -y --no-install-recommends "${missing[@]}"; } ||
        die "$EXIT_SKIP" "apt-get could not install ${missing[*]}: $(grep '^E:' "$log" | tail -1)"
    fi
    rm -f "$log"
    if [ -n "$(trap -p EXIT)" ]; then
      rm -f $policy
      trap - EXIT
    fi
  fi
  exec 9>&-
}
