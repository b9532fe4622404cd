#!/usr/bin/env bash
# slurm.sh VLM [--time_limit]: scripts/train.sbatch under a real Slurm (Debian: slurm-wlm, munge), a cluster of this
# machine alone in a folder of its own. A job that Slurm signals saves, requeues itself, and ends with the log and the
# weights of a run that was never stopped: one task; two tasks over sockets; two over PMIx where Slurm and vlm have it.
# --time_limit: the signal comes before the end of the job's time, as in earnest (a minute more); else it is sent at once.
# Any user can run it; 77 (skipped) without Slurm.
set -euo pipefail
vlm=$(realpath "$1")
by_time_limit=${2:-}
cd "$(dirname "$0")/.."
export PATH=$PATH:/usr/sbin OMP_NUM_THREADS=1 OMP_WAIT_POLICY=passive
for program in slurmctld slurmd munged sbatch; do
    command -v $program >/dev/null && continue
    echo "slurm: SKIPPED: there is no $program on this system (Debian: apt-get install slurm-wlm munge)" >&2
    exit 77
done

work=$(mktemp -d)
chmod 755 "$work" # munge wants its folders closed to writers, and Slurm's clients read it
daemons=()

# ---- the cluster ----

# Daemons are children of this shell: they end by their ids, in the reverse of their order.
stop_cluster() {
    local i
    scancel --user="$(id -un)" 2>/dev/null || true
    for ((i = ${#daemons[@]} - 1; i >= 0; i--)); do
        kill "${daemons[i]}" 2>/dev/null || true
        wait "${daemons[i]}" 2>/dev/null || true
    done
    [ -n "${KEEP:-}" ] || rm -rf "$work"
}
trap stop_cluster EXIT

start() { # start NAME PROGRAM …
    "${@:2}" >"$work/$1.out" 2>&1 &
    daemons+=($!)
}

die() {
    echo "slurm: $*" >&2
    tail -n 15 "$work"/*.log "$work"/*.out >&2 2>/dev/null || true
    exit 1
}

# until_true SECONDS WHAT COMMAND …
until_true() {
    local end=$((SECONDS + $1)) what=$2
    shift 2
    until "$@" >/dev/null 2>&1; do
        [ $SECONDS -lt $end ] || die "$what takes too long"
        sleep 0.1
    done
}

free_port() {
    python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'
}

# CPUs is a fiction that lets all jobs run at once. cred_expire is also how long a requeued job waits; Slurm takes no less than 6 seconds.
write_config() {
    local host user
    host=$(hostname -s) user=$(id -un)
    cat >"$work/slurm.conf" <<END
ClusterName=alone
SlurmctldHost=$host(127.0.0.1)
SlurmdParameters=config_overrides
SlurmUser=$user
SlurmdUser=$user
SlurmctldPort=$(free_port)
SlurmdPort=$(free_port)
AuthType=auth/munge
AuthInfo=socket=$work/munge.socket,cred_expire=6
StateSaveLocation=$work/state
SlurmdSpoolDir=$work/spool
SlurmctldPidFile=$work/slurmctld.pid
SlurmdPidFile=$work/slurmd.pid
SlurmctldLogFile=$work/slurmctld.log
SlurmdLogFile=$work/slurmd.log
ProctrackType=proctrack/pgid
TaskPlugin=task/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerParameters=sched_interval=1,batch_sched_delay=0
ReturnToService=2
KillWait=2
NodeName=$host NodeAddr=127.0.0.1 CPUs=8 State=UNKNOWN
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
END
    printf 'CgroupPlugin=autodetect\n' >"$work/cgroup.conf"
}

node_is_idle() {
    [ "$(sinfo -h -o %t)" = idle ]
}

start_cluster() {
    mkdir "$work/state" "$work/spool"
    head -c 128 /dev/urandom >"$work/munge.key"
    chmod 600 "$work/munge.key"
    write_config
    export SLURM_CONF=$work/slurm.conf
    start munged munged --foreground --force --num-threads=2 --socket="$work/munge.socket" --key-file="$work/munge.key" \
        --log-file="$work/munged.log" --pid-file="$work/munged.pid" --seed-file="$work/munged.seed"
    until_true 10 "munged's socket" test -S "$work/munge.socket"
    start slurmctld slurmctld -D
    start slurmd slurmd -D
    until_true 30 'the node' node_is_idle
}

# ---- jobs ----

# Of a tiny model, a few seconds long.
flags=(--preset tiny --vit_n_blocks 1 --lm_n_blocks 1 --lm_max_length 128 --max_sample_length 128 --batch_size 2
    --gradient_accumulation_steps 2 --val_size 20 --eval_interval 50 --stats_log_interval 7 --threads 1 --num_workers 1
    --keep_checkpoints 2 --train_dataset_path "$work/data/train" --lm_tokenizer tests/golden/model/tokenizer
    --vlm_checkpoint_path "$work/runs")

job_is() { # job_is JOB STATE
    scontrol show job "$1" | grep -q "JobState=$2 "
}

job_ends() { # a state that a job does not leave by itself
    scontrol show job "$1" | grep -qE 'JobState=(COMPLETED|FAILED|CANCELLED|TIMEOUT|NODE_FAIL|DEADLINE) '
}

has_lines() { # has_lines RUN NUMBER
    [ "$(wc -l 2>/dev/null <"$work/runs/$1/log.jsonl")" -ge "$2" ]
}

requeues() {
    scontrol show job "$1" | sed -n 's/.*Restarts=\([0-9]*\).*/\1/p'
}

# submit NAME STEPS [options of sbatch]: prints the job's number.
submit() {
    local name=$1 steps=$2
    shift 2
    VLM=$vlm sbatch --parsable --output="$work/$name.out" "$@" scripts/train.sbatch --run_name "$name" \
        --max_training_steps "$steps" "${flags[@]}"
}

# What clocks say is left out.
same_run() {
    python3 - "$work/runs/$1" "$work/runs/$2" "$3" <<'END' || die "$1 is not $2"
import json, sys
a, b, steps = sys.argv[1:]
def lines(run):
    return [{k: v for k, v in json.loads(line).items() if "images" in k or not ("second" in k or "time" in k or "duration" in k)}
            for line in open(run + "/log.jsonl")]
x, y = lines(a), lines(b)
last = f"/step_{int(steps) - 1}/"
different = [i for i, pair in enumerate(zip(x, y)) if pair[0] != pair[1]]
if len(x) != len(y) or different:
    sys.exit(f"{len(x)} and {len(y)} lines; different: {different[:5]}")
for name in "model.safetensors", "state-rank0.safetensors":
    if open(a + last + name, "rb").read() != open(b + last + name, "rb").read():
        sys.exit(name + " differs")
END
}

# All jobs run beside one another: requeued ones only wait most of the time.
declare -A jobs
begin() { # begin NAME STEPS [options of sbatch]
    jobs[$1]=$(submit "$@")
}

finish() { # finish NAME: the job has come to its end, and to a good one
    local job=${jobs[$1]}
    until_true 200 "$1" job_ends "$job"
    job_is "$job" COMPLETED || die "$1: $(scontrol show job "$job")"
}

# Finishes a job that was signalled and compares it with one that was not.
finish_requeued() { # finish_requeued NAME REFERENCE STEPS
    finish "$1"
    grep -q 'vlm saved and ended with 138' "$work/$1.out" || die "$1 was not stopped"
    [ "$(requeues "${jobs[$1]}")" -ge 1 ] || die "$1 was not requeued"
    grep -q 'bit for bit' "$work/$1.out" || die "$1 did not go on bit for bit"
    same_run "$1" "$2" "$3"
    echo "slurm: $1: stopped, requeued $(requeues "${jobs[$1]}") times, the same log and weights as a run never stopped"
}

has_pmix() {
    srun --mpi=list 2>&1 | grep -q pmix && "$vlm" version | grep -q '^MPI  *Open MPI'
}

start_cluster
"$vlm" synth --out "$work/data" --rows 200 --test_rows 0 --seed 3 >/dev/null
if [ "$by_time_limit" ]; then
    begin whole_1 4000
    begin time_limit 4000 --time=1 --signal=B:USR1@15
    finish whole_1
    finish_requeued time_limit whole_1 4000
    exit
fi
begin whole_1 250
begin whole_2 250 --ntasks=2
begin one_task 250
begin two_tasks 250 --ntasks=2
stopped=(one_task two_tasks)
if has_pmix; then
    SLURM_MPI_TYPE=pmix begin two_tasks_pmix 250 --ntasks=2
    stopped+=(two_tasks_pmix)
else
    echo "slurm: PMIx: SKIPPED: this Slurm or this vlm has none" >&2
fi
for name in "${stopped[@]}"; do
    until_true 60 "the beginning of $name" has_lines "$name" 20
    scancel --batch --signal=USR1 "${jobs[$name]}"
done
finish whole_1
finish whole_2
finish_requeued one_task whole_1 250
for name in "${stopped[@]:1}"; do finish_requeued "$name" whole_2 250; done
