#!/bin/bash
# Start a Slurm of one node, in a folder of its own, without systemd: slurm_up.sh DIR PORT [CPUS]
# PORT and PORT + 1 must be free. Debian 12: apt-get install slurm-wlm slurm-wlm-basic-plugins munge
set -eu
D=${1:?folder}; PORT=${2:?port}; CPUS=${3:-8}; H=$(hostname -s)
mkdir -p "$D"/{munge,ctld,spool,log,run}; chmod 700 "$D/munge"
[ -s "$D/munge/key" ] || { head -c 1024 /dev/urandom > "$D/munge/key"; chmod 400 "$D/munge/key"; }
munged --force --key-file="$D/munge/key" --socket="$D/munge/sock" --pid-file="$D/munge/pid" \
  --log-file="$D/munge/log" --seed-file="$D/munge/seed"
# The node claims more cores than there are, so that the jobs of small machines run side by side.
# proctrack/linuxproc would leave orphans. What ends stays visible for MinJobAge seconds.
cat > "$D/slurm.conf" <<CONF
ClusterName=test
SlurmctldHost=$H(127.0.0.1)
SlurmctldPort=$PORT
SlurmdPort=$((PORT + 1))
SlurmUser=$(id -un)
SlurmdUser=$(id -un)
AuthType=auth/munge
AuthInfo=socket=$D/munge/sock
CredType=cred/munge
StateSaveLocation=$D/ctld
SlurmdSpoolDir=$D/spool
SlurmctldPidFile=$D/run/slurmctld.pid
SlurmdPidFile=$D/run/slurmd.pid
SlurmctldLogFile=$D/log/slurmctld.log
SlurmdLogFile=$D/log/slurmd.log
SlurmdParameters=config_overrides
ProctrackType=proctrack/pgid
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MpiDefault=none
SwitchType=switch/none
SchedulerType=sched/backfill
SchedulerParameters=bf_interval=1,sched_min_interval=100000
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
DefMemPerCPU=64
JobRequeue=1
KillWait=30
MinJobAge=600
ReturnToService=2
NodeName=$H NodeAddr=127.0.0.1 CPUs=$CPUS RealMemory=4000 State=UNKNOWN
PartitionName=main Nodes=$H Default=YES MaxTime=1:00:00 DefaultTime=10 State=UP
CONF
export SLURM_CONF="$D/slurm.conf"
slurmctld -f "$D/slurm.conf"
slurmd -f "$D/slurm.conf" -N "$H"
for _ in $(seq 150); do
  [ "$(sinfo -h -p main -o %T 2>/dev/null)" = idle ] && exit 0
  sleep .2
done
echo "the node is not idle after 30 s; see $D/log" >&2
exit 1
