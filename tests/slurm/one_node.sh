#!/bin/sh
# A Slurm cluster of this machine alone, as root, for tests: one_node.sh start FOLDER, one_node.sh stop FOLDER.
# All that it writes lies in FOLDER; its clients need SLURM_CONF=FOLDER/slurm.conf. It has Debian's slurm-wlm and munge,
# two places for jobs, and two partitions: jobs of "high" pre-empt those of "low", which go back to the queue.
set -eu
folder=$2
if [ "$1" = stop ]; then
  for daemon in slurmd slurmctld munged; do
    if [ -f "$folder/$daemon.pid" ]; then kill "$(cat "$folder/$daemon.pid")" 2>/dev/null || true; fi
  done
  exit 0
fi

mkdir -p "$folder/state" "$folder/spool"
host=$(hostname -s)
cat > "$folder/slurm.conf" <<END
ClusterName=one
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=16817
SlurmdPort=16818
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket=$folder/munge.socket,cred_expire=5
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/spool
SlurmctldPidFile=$folder/slurmctld.pid
SlurmdPidFile=$folder/slurmd.pid
SlurmctldLogFile=$folder/slurmctld.log
SlurmdLogFile=$folder/slurmd.log
MpiDefault=none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerParameters=sched_interval=5,bf_interval=5
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
KillWait=5
ReturnToService=2
NodeName=$host NodeAddr=127.0.0.1 CPUs=2 State=UNKNOWN
PartitionName=low Nodes=$host Default=YES PriorityTier=1
PartitionName=high Nodes=$host PriorityTier=2 PreemptMode=OFF
END
head -c 128 /dev/urandom > "$folder/munge.key"
chmod 400 "$folder/munge.key"
munged --force --key-file="$folder/munge.key" --socket="$folder/munge.socket" --pid-file="$folder/munged.pid" \
  --log-file="$folder/munged.log" --seed-file="$folder/munged.seed"
slurmctld -f "$folder/slurm.conf"
slurmd -f "$folder/slurm.conf"
export SLURM_CONF="$folder/slurm.conf"
for _ in $(seq 60); do
  if [ "$(sinfo --noheader --format=%t --partition=low 2>/dev/null)" = idle ]; then exit 0; fi
  sleep 1
done
echo "the node did not come up; see $folder/slurmctld.log and slurmd.log" >&2
exit 1
