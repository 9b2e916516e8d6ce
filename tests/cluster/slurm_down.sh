#!/bin/bash
# Stop the Slurm that slurm_up.sh has started in DIR, with all of its jobs.
D=${1:?folder}; export SLURM_CONF=$D/slurm.conf
scancel --state=PENDING -u "$(id -un)" 2>/dev/null
scancel -u "$(id -un)" 2>/dev/null
for _ in $(seq 100); do [ -z "$(squeue -h 2>/dev/null)" ] && break; sleep .2; done
for p in "$D"/run/slurmd.pid "$D"/run/slurmctld.pid "$D"/munge/pid; do
  [ -f "$p" ] && kill "$(cat "$p")"
done
