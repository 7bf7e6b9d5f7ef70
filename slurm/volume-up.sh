#!/usr/bin/env bash
# Starts a real network file system on this one machine, as root: a GlusterFS brick, and clients that share nothing,
# one for this machine (VOLUME_DIR/shared) and one per virtual node (VOLUME_DIR/node1 ...). What one creates, another
# sees after a look-up of its own. LAB_SHARED=VOLUME_DIR slurm/up.sh gives each node its client's view under the path
# VOLUME_DIR/shared. Exit codes: 0 it is mounted; 76 the port is taken; 77 it can't be had here; 1 it did not start.
set -euo pipefail
# shellcheck source=slurm/common.sh
. "$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)/common.sh"

brick_volume() {
  cat <<CONF
volume posix
  type storage/posix
  option directory $VOLUME_DIR/brick
end-volume
volume locks
  type features/locks
  subvolumes posix
end-volume
volume server
  type protocol/server
  option transport-type tcp
  option transport.socket.bind-address 127.0.0.1
  option transport.socket.listen-port $VOLUME_PORT
  option auth.addr.locks.allow *
  subvolumes locks
end-volume
CONF
}

client_volume() {
  cat <<CONF
volume remote
  type protocol/client
  option transport-type tcp
  option remote-host 127.0.0.1
  option remote-port $VOLUME_PORT
  option remote-subvolume locks
end-volume
volume readahead
  type performance/read-ahead
  subvolumes remote
end-volume
volume writebehind
  type performance/write-behind
  subvolumes readahead
end-volume
volume mdcache
  type performance/md-cache
  option md-cache-timeout $VOLUME_CACHE
  subvolumes writebehind
end-volume
CONF
}

await() { # SECONDS COMMAND...
  local until=$((SECONDS + $1))
  shift
  until "$@"; do
    [ $SECONDS -lt $until ] || return 1
    sleep 0.05
  done
}

answers() { (exec 8<>"/dev/tcp/127.0.0.1/$VOLUME_PORT") 2>/dev/null; }

mount_client() { # NAME
  mountpoint -q "$VOLUME_DIR/$1" && return 0
  mkdir -p "$VOLUME_DIR/$1"
  glusterfs -f "$VOLUME_DIR/etc/client.vol" -l "$VOLUME_DIR/log/$1.log" --pid-file="$VOLUME_DIR/run/$1.pid" \
    --attribute-timeout="$VOLUME_CACHE" --entry-timeout="$VOLUME_CACHE" "$VOLUME_DIR/$1" || true
  await 10 mountpoint -q "$VOLUME_DIR/$1" || {
    "${BASH_SOURCE[0]%-up.sh}-down.sh"
    die "$EXIT_SKIP" "GlusterFS cannot be mounted here: $(grep ' E ' "$VOLUME_DIR/log/$1.log" | tail -1)"
  }
}

[ "$(id -u)" = 0 ] || die "$EXIT_SKIP" "mounting a file system needs root"
[ -c /dev/fuse ] || die "$EXIT_SKIP" "no /dev/fuse here, which mounting GlusterFS needs"
unshare -m --propagation private true 2>/dev/null || die "$EXIT_SKIP" "no mount namespaces here"
install_packages "glusterfs-server" "glusterfs glusterfsd"
mkdir -p "$VOLUME_DIR"/{brick,etc,log,run}
if ! runs "$VOLUME_DIR/run/brick.pid"; then
  answers && die "$EXIT_PORT" "port $VOLUME_PORT is taken (set VOLUME_PORT)"
  brick_volume >"$VOLUME_DIR/etc/brick.vol"
  client_volume >"$VOLUME_DIR/etc/client.vol"
  glusterfsd -f "$VOLUME_DIR/etc/brick.vol" -l "$VOLUME_DIR/log/brick.log" -p "$VOLUME_DIR/run/brick.pid" || true
  await 10 answers || die 1 "the brick does not start: $(grep ' E ' "$VOLUME_DIR/log/brick.log" | tail -1)"
fi
mount_client shared
for ((i = 1; i <= VOLUME_NODES; i++)); do mount_client "node$i"; done
echo "export LAB_SHARED=$VOLUME_DIR"
