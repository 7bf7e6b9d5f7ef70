# shellcheck shell=bash
# Sourced by up.sh when LAB_ACCOUNTING=1: a private MariaDB (LAB_PORT+3) under a private slurmdbd (LAB_PORT+2).

db=$LAB_DIR/db
as_root() { "$1" --no-defaults --user=root --socket="$LAB_DIR/run/mysql.sock" "${@:2}"; }

if ! runs "$LAB_DIR/run/mariadbd.pid"; then
  if [ ! -d "$db/mysql" ]; then
    mkdir -p "$db"
    mariadb-install-db --no-defaults --user=root --datadir="$db" --skip-test-db \
      --auth-root-authentication-method=normal >"$LAB_DIR/log/mariadb-install.out" 2>&1 ||
      die 1 "mariadb-install-db failed, see $LAB_DIR/log/mariadb-install.out"
  fi
  daemon mariadbd "$(command -v mariadbd || command -v mysqld)" --no-defaults --user=root --datadir="$db" \
    --socket="$LAB_DIR/run/mysql.sock" --pid-file="$LAB_DIR/run/mariadbd.pid" \
    --bind-address=127.0.0.1 --port=$((LAB_PORT + 3)) \
    --skip-log-bin --innodb-buffer-pool-size=64M --innodb-flush-log-at-trx-commit=0 \
    --log-error="$LAB_DIR/log/mariadbd.log" </dev/null >/dev/null 2>&1 &
  disown
  for _ in $(seq 150); do
    as_root mariadb-admin ping >/dev/null 2>&1 && break
    sleep 0.1
  done
  as_root mariadb -e "CREATE DATABASE IF NOT EXISTS lab; GRANT ALL ON lab.* TO lab@'127.0.0.1' IDENTIFIED BY 'lab'; GRANT ALL ON lab.* TO lab@localhost IDENTIFIED BY 'lab'" ||
    die 1 "MariaDB does not answer, see $LAB_DIR/log/mariadbd.log"
fi

if ! runs "$LAB_DIR/run/slurmdbd.pid"; then
  (umask 077 && cat >"$LAB_DIR/etc/slurmdbd.conf") <<CONF
DbdHost=localhost
DbdPort=$((LAB_PORT + 2))
SlurmUser=root
AuthType=auth/munge
AuthInfo=$MUNGE_SOCKET
PidFile=$LAB_DIR/run/slurmdbd.pid
LogFile=$LAB_DIR/log/slurmdbd.log
StorageType=accounting_storage/mysql
StorageHost=127.0.0.1
StoragePort=$((LAB_PORT + 3))
StorageUser=lab
StoragePass=lab
StorageLoc=lab
CONF
  daemon slurmdbd slurmdbd || die 1 "slurmdbd does not start: $(tail -1 "$LAB_DIR/log/slurmdbd.out")"
fi
clusters=
for _ in $(seq 100); do
  clusters=$(timeout 5 sacctmgr -nP show cluster format=cluster 2>/dev/null) && break
  sleep 0.1
done
if ! grep -qx lab <<<"$clusters"; then
  timeout 20 sacctmgr -i add cluster lab >"$LAB_DIR/log/sacctmgr.out" 2>&1 ||
    die 1 "sacctmgr: $(tail -1 "$LAB_DIR/log/sacctmgr.out")"
fi
