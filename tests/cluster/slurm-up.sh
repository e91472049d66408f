#!/usr/bin/env bash
# Throwaway SLURM cluster on this one machine, without systemd or /etc/slurm.
#   NODES=4  virtual nodes n1..nN, each its own slurmd
#   CPUS=8 MEM=16000 GPUS=2  what each node claims to have
#   PREEMPT=REQUEUE  or CANCEL: what happens to jobs of partition scav
#   PREEMPT_BY=partition_prio  or qos
#   ACCT=none  or dbd: accounting through slurmdbd and mariadb; account lab, at most 50 jobs
# usage: slurm-up.sh DIR; then SLURM_CONF=DIR/etc/slurm.conf PATH=DIR/bin:$PATH; slurm-down.sh DIR,
# which knows by that PATH what belongs to DIR
set -euo pipefail
BASE=$(realpath -m "$1")
NODES=${NODES:-4} CPUS=${CPUS:-8} MEM=${MEM:-16000} GPUS=${GPUS:-2} PREEMPT=${PREEMPT:-REQUEUE}
ACCT=${ACCT:-none} PREEMPT_BY=${PREEMPT_BY:-partition_prio}
PATH=/usr/sbin:/usr/bin:/sbin:/bin
[ -e "$BASE/etc" ] && { echo "slurm-up.sh: $BASE already holds a cluster" >&2; exit 2; }
ME=$(id -un) HOST=$(hostname -s)
# NoInAddrAny binds the daemons to what the host's own name resolves to; that has to be loopback
if ! getent ahostsv4 "$HOST" | head -1 | grep -q '^127\.'; then
  [ -w /etc/hosts ] || { echo "slurm-up.sh: $HOST does not resolve to 127.x" >&2; exit 2; }
  printf '127.0.0.1 %s\n%s\n' "$HOST" "$(cat /etc/hosts)" > /tmp/hosts.$$
  cat /tmp/hosts.$$ > /etc/hosts; rm /tmp/hosts.$$
fi
umask 022
# a failed start leaves logs and no daemons
trap 'rc=$?; [ $rc = 0 ] || KEEP=1 "$(dirname "$0")/slurm-down.sh" "$BASE"; exit $rc' EXIT
mkdir -p "$BASE"/{etc,log,pid,state,spool,munge,gpu,bin}
chmod 711 "$BASE/munge"

# free loopback ports, all held open together so that they differ
ports() { python3 - "$1" <<'PY'
import socket, sys
s = [socket.socket() for _ in range(int(sys.argv[1]))]
for x in s: x.bind(("127.0.0.1", 0))
print(*(x.getsockname()[1] for x in s))
PY
}
read -r CTLD DBD SQL NODEPORTS <<<"$(ports $((3 + NODES)))"
read -ra NP <<<"$NODEPORTS"

wait_for() { # wait_for SECONDS WHAT CMD...
  local end=$((SECONDS + $1)) what=$2; shift 2
  until "$@" >/dev/null 2>&1; do
    (( SECONDS < end )) || { echo "slurm-up.sh: no $what; see $BASE/log" >&2; exit 1; }
    sleep 0.05
  done
}

# munge with a key and a socket of its own; --force: a parent folder of mode 0700 is only warned of
head -c 1024 /dev/urandom > "$BASE/munge/key"; chmod 400 "$BASE/munge/key"
munged --force --key-file="$BASE/munge/key" --socket="$BASE/munge/sock" \
       --pid-file="$BASE/munge/pid" --log-file="$BASE/munge/log" \
       --seed-file="$BASE/munge/seed" --num-threads=4 2>"$BASE/log/munged.start"
cp "$BASE/munge/pid" "$BASE/pid/munged"
wait_for 10 munge munge -n -S "$BASE/munge/sock"

ACCTCONF=AccountingStorageType=accounting_storage/none
if [ "$ACCT" = dbd ]; then
  mkdir -m 700 "$BASE/db"
  mariadb-install-db --no-defaults --user="$ME" --datadir="$BASE/db/data" \
    --auth-root-authentication-method=normal --skip-test-db >"$BASE/log/mariadb-install" 2>&1
  setsid mariadbd --no-defaults --user="$ME" --datadir="$BASE/db/data" --socket="$BASE/db/sock" \
    --pid-file="$BASE/pid/mariadbd" --bind-address=127.0.0.1 --port="$SQL" --skip-log-bin \
    --innodb-buffer-pool-size=64M --innodb-log-file-size=16M --innodb-lock-wait-timeout=900 \
    --innodb-flush-log-at-trx-commit=0 --performance-schema=OFF \
    </dev/null >"$BASE/log/mariadbd" 2>&1 &
  sql() { mariadb --no-defaults -uroot -S "$BASE/db/sock" -e "$1"; }
  wait_for 60 mariadb sql 'select 1'
  PASS=$(head -c 16 /dev/urandom | od -An -tx1 | tr -d ' \n')
  sql 'create database slurm_acct'
  for host in 127.0.0.1 localhost; do
    sql "create user 'slurm'@'$host' identified by '$PASS'"
    sql "grant all on slurm_acct.* to 'slurm'@'$host'"
  done
  cat > "$BASE/etc/slurmdbd.conf" <<X
AuthType=auth/munge
AuthInfo=socket=$BASE/munge/sock
DbdHost=$HOST
DbdAddr=127.0.0.1
DbdPort=$DBD
CommunicationParameters=NoInAddrAny
SlurmUser=$ME
LogFile=$BASE/log/slurmdbd
PidFile=$BASE/pid/slurmdbd
DebugLevel=info
StorageType=accounting_storage/mysql
StorageHost=127.0.0.1
StoragePort=$SQL
StorageUser=slurm
StoragePass=$PASS
StorageLoc=slurm_acct
CommitDelay=1
X
  chmod 600 "$BASE/etc/slurmdbd.conf"
  ACCTCONF="AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=127.0.0.1
AccountingStoragePort=$DBD
AccountingStoragePass=$BASE/munge/sock
AccountingStorageEnforce=associations,limits,qos
AccountingStorageTRES=gres/gpu
AccountingStoreFlags=job_comment"
fi

cat > "$BASE/etc/slurm.conf" <<X
ClusterName=probe
SlurmctldHost=$HOST(127.0.0.1)
SlurmctldPort=$CTLD
AuthType=auth/munge
# cred_expire: a job fails that takes longer from here to its node, one that is put back into the
# queue waits that long; by default two minutes
AuthInfo=socket=$BASE/munge/sock,cred_expire=20
CredType=cred/munge
SlurmUser=$ME
SlurmdUser=$ME
StateSaveLocation=$BASE/state
SlurmdSpoolDir=$BASE/spool/%n
SlurmctldPidFile=$BASE/pid/slurmctld
SlurmdPidFile=$BASE/pid/slurmd-%n
SlurmctldLogFile=$BASE/log/slurmctld
SlurmdLogFile=$BASE/log/slurmd-%n
SlurmctldDebug=info
SlurmdDebug=info
# everything on loopback only
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherParams=OverMemoryKill
JobAcctGatherFrequency=task=1
SwitchType=switch/none
MpiDefault=none
ReturnToService=2
SlurmdParameters=config_overrides
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=1,bf_interval=1,batch_sched_delay=0
KillWait=5
SlurmdTimeout=15
PreemptType=preempt/$PREEMPT_BY
PreemptMode=REQUEUE
MinJobAge=600
OverTimeLimit=0
InactiveLimit=0
RebootProgram=/bin/true
Prolog=$BASE/bin/prolog
GresTypes=gpu,lscratch
$ACCTCONF
JobCompType=jobcomp/filetxt
JobCompLoc=$BASE/log/jobcomp.txt
$(for i in $(seq 1 "$NODES"); do
  echo "NodeName=n$i NodeHostname=$HOST NodeAddr=127.0.0.1 Port=${NP[$((i-1))]}" \
       "CPUs=$CPUS RealMemory=$MEM Gres=lscratch:800,gpu:$GPUS State=UNKNOWN"
done)
PartitionName=DEFAULT Nodes=ALL MaxTime=1:00:00 DefaultTime=10:00 DefMemPerCPU=100 State=UP
PartitionName=cpu Default=YES PriorityTier=10 PreemptMode=OFF
PartitionName=gpu PriorityTier=10 PreemptMode=OFF
PartitionName=scav PriorityTier=1 PreemptMode=$PREEMPT GraceTime=5
X
# a node fails to start jobs while this file is there
printf '#!/bin/sh\n[ ! -e %s/prolog-fails ]\n' "$BASE/etc" > "$BASE/bin/prolog"
chmod +x "$BASE/bin/prolog"
echo "ConstrainRAMSpace=no" > "$BASE/etc/cgroup.conf"
# File= must be a device: twins of /dev/null as root, else terminals, which are only looked at
r=0; [ "$GPUS" -gt 1 ] && r="[0-$((GPUS-1))]"
if [ "$(id -u)" = 0 ] && mknod "$BASE/gpu/nvidia0" c 1 3; then
  for i in $(seq 1 $((GPUS-1))); do mknod "$BASE/gpu/nvidia$i" c 1 3; done
  f="$BASE/gpu/nvidia$r"
else f="/dev/tty$r"; fi
printf 'AutoDetect=off\nName=gpu File=%s\n' "$f" > "$BASE/etc/gres.conf"
echo 'Name=lscratch Count=800 Flags=CountOnly' >> "$BASE/etc/gres.conf"

export SLURM_CONF=$BASE/etc/slurm.conf
if [ "$ACCT" = dbd ]; then
  slurmdbd
  wait_for 30 slurmdbd sacctmgr -n show cluster
  sacctmgr -i add cluster probe >/dev/null
  sacctmgr -i add account lab Cluster=probe >/dev/null
  sacctmgr -i add user "$ME" Account=lab DefaultAccount=lab MaxSubmitJobs=50 >/dev/null
fi
slurmctld -c
wait_for 30 slurmctld scontrol ping
for i in $(seq 1 "$NODES"); do slurmd -N "n$i"; done
idle() { [ "$(sinfo -h -p cpu -o '%D %T' | awk '$2 == "idle" {s += $1} END {print s + 0}')" = "$NODES" ]; }
wait_for 30 "idle nodes" idle
