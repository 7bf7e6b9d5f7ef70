#!/usr/bin/env bash
# Ends what volume-up.sh started in VOLUME_DIR. With --wipe its directory goes, too.
set -uo pipefail
# shellcheck source=slurm/common.sh
. "$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)/common.sh"

for place in "$VOLUME_DIR"/shared "$VOLUME_DIR"/node*; do
  mountpoint -q "$place" && { umount "$place" 2>/dev/null || umount -l "$place"; }
done
for pidfile in "$VOLUME_DIR"/run/*.pid; do end "$pidfile"; done
for place in "$VOLUME_DIR"/shared "$VOLUME_DIR"/node*; do
  mountpoint -q "$place" && die 1 "$place is still mounted"
done
[ "${1:-}" != --wipe ] || rm -rf --one-file-system "$VOLUME_DIR"
exit 0
