#!/usr/bin/env bash
# One sweep as one Slurm job: a Ray head and workers for as long as the job runs, and the driver beside the head.
#
#     sbatch --export=ALL,FILE=search_spaces/alpha.yaml,NAME=alpha,TRACKING_URI=http://mlflow.example.org:5000 slurm.sh
#
# The same job is started again by Slurm after a pre-emption, the failure of a node or the end of its time; then it goes
# on with the sweep instead of beginning it. Submitting it again by hand does the same. To end the sweep for good:
# wsl-sweep stop NAME --storage STORAGE; the job then ends by itself and is not started again.
#
# To change: the lines with #SBATCH (partition, account, nodes, cards, time), and the five settings below them, which can
# also be given by --export.

#SBATCH --job-name=wsl-sweep
#SBATCH --nodes=4
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=16
#SBATCH --gpus-per-node=4
#SBATCH --mem=0
#SBATCH --time=24:00:00
#SBATCH --output=%x-%j.log
#SBATCH --open-mode=append
# The job may be started again, and outlives a node that fails:
#SBATCH --requeue
#SBATCH --no-kill
# 90 s before the end of its time (and before a pre-emption, where the site has PreemptParameters=send_user_signal) this
# script gets SIGTERM. Trials have 30 s to save, and where MLflow does not answer the driver waits for it for 30 s more.
#SBATCH --signal=B:TERM@90

set -euo pipefail

FILE=${FILE:-search_spaces/alpha.yaml}      # the search-space file
NAME=${NAME:-alpha}                         # the sweep's name: one that goes on keeps it
STORAGE=${STORAGE:-$HOME/runs}              # a folder that every node sees
VENV=${VENV:-$HOME/wsl-sweep/.venv}         # has wsl-sweep; on a folder that every node sees
: "${TRACKING_URI:=${MLFLOW_TRACKING_URI:?set TRACKING_URI to the MLflow server}}"

export PATH="$VENV/bin:$PATH"
case $STORAGE in
  *://*) echo "slurm.sh: STORAGE must be a folder; for an object store see start.sh in rayjob.yaml" >&2; exit 2 ;;
esac

# The first SIGTERM goes to the driver, which has its trials save; a second one would end it at once. They are counted, so
# that a wait that a signal has cut short can be told from the end of the driver.
terms=0
driver=
steps=()
token=$HOME/.wsl-sweep-ray-token-$SLURM_JOB_ID    # the home folder is one that every node sees

on_term() {
  terms=$((terms + 1))
  if [[ -n $driver ]] && ((terms == 1)); then
    kill -TERM "$driver" 2>/dev/null || true
  fi
}

clean_up() {
  rm -f -- "$token"
  if ((${#steps[@]})); then
    kill "${steps[@]}" 2>/dev/null || true
  fi
}

requeue() {
  rm -f -- "$token"
  echo "slurm.sh: stopped by SIGTERM, the job is put back into the queue"
  scontrol requeue "$SLURM_JOB_ID"
}

trap on_term TERM
trap clean_up EXIT

# Ray listens on all addresses of a node. This token, which nobody else can read, is what keeps others out.
rm -f -- "$token"
(umask 077 && od -An -N32 -tx1 /dev/urandom | tr -d ' \n' > "$token")
export RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH="$token"

# A node that hangs is noticed after about 5 s instead of 65 s.
export RAY_health_check_initial_delay_ms=1000 RAY_health_check_period_ms=1000
export RAY_health_check_timeout_ms=1000 RAY_health_check_failure_threshold=3

# This script runs on the first node of the job; the head is started there, too. HEAD_IP is for nodes with several
# networks: the address by which the other nodes reach this one.
nodes=()
while IFS= read -r node; do nodes+=("$node"); done < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
head_node=${nodes[0]}
head_ip=${HEAD_IP:-$(hostname -I | awk '{print $1}')}
port=$((20000 + SLURM_JOB_ID % 10000))            # two jobs on one node do not meet
export RAY_ADDRESS=$head_ip:$port

cpus=${SLURM_CPUS_PER_TASK:-1}
head_cpus=$((cpus > 2 ? cpus - 2 : 1))            # the driver and Ray's own processes need some
common=(--num-gpus="${SLURM_GPUS_ON_NODE:-0}" --temp-dir="/tmp/ray-$SLURM_JOB_ID" --disable-usage-stats --block)
step=(srun --export=ALL --no-kill --kill-on-bad-exit=0 --cpus-per-task="$cpus")

"${step[@]}" --nodes=1 --ntasks=1 --nodelist="$head_node" \
  ray start --head --node-ip-address="$head_ip" --port="$port" --num-cpus="$head_cpus" --include-dashboard=false \
  "${common[@]}" &
steps+=("$!")

tries=0
until ray status --address "$RAY_ADDRESS" > /dev/null 2>&1; do
  tries=$((tries + 1))
  if ((terms)); then requeue; exit 143; fi
  if ((tries > 60)); then echo "slurm.sh: no Ray head on $head_node after two minutes" >&2; exit 1; fi
  sleep 2
done

if ((${#nodes[@]} > 1)); then
  others=$((${#nodes[@]} - 1))
  "${step[@]}" --nodes="$others" --ntasks="$others" --exclude="$head_node" \
    ray start --address="$RAY_ADDRESS" --num-cpus="$cpus" "${common[@]}" &
  steps+=("$!")
fi

if ((terms)); then requeue; exit 143; fi
if [[ -f $STORAGE/$NAME/plan.json ]]; then
  wsl-sweep resume "$NAME" --storage "$STORAGE" --tracking-uri "$TRACKING_URI" --address "$RAY_ADDRESS" &
else
  wsl-sweep run "$FILE" --name "$NAME" --storage "$STORAGE" --tracking-uri "$TRACKING_URI" --address "$RAY_ADDRESS" &
fi
driver=$!
if ((terms)); then kill -TERM "$driver" 2>/dev/null || true; fi   # it came while the driver was being started

# A signal ends `wait` before the driver ends; then it is waited for again.
while :; do
  before=$terms
  status=0
  wait "$driver" || status=$?
  if ((terms == before)); then break; fi
done

if ((terms && status)); then
  requeue
fi
exit "$status"
