#!/usr/bin/env bash
# Trains on every host of a TPU slice, and resumes after the slice was preempted. The commands are the same for one host and for many.
#
#   bash launch/tpu_pod.sh NAME ZONE create v5litepod-16    # a slice, as a spot instance
#   bash launch/tpu_pod.sh NAME ZONE install                # this checkout, at its commit, with its dependencies, on every host
#   bash launch/tpu_pod.sh NAME ZONE preprocess --config=configs/sage.py:base --workdir=/shared/runs/base    # on one host
#   bash launch/tpu_pod.sh NAME ZONE train --config=configs/sage.py:base --workdir=/shared/runs/base
#   bash launch/tpu_pod.sh NAME ZONE delete
#
# --workdir is on a disk that all hosts share, such as a Filestore share mounted at /shared (MOUNT=SERVER:/SHARE for install).
# `install` clones the origin of this checkout, or REPOSITORY=URL, so the commit must be pushed there. DRY=1 before the command only
# shows what it would run. VERSION=... names the TPU software version; without it `create` takes that of the type. PYTHON=python3.12
# before `install` names the hosts' Python, 3.11 or newer; without it `install` takes the first one that launch/setup.sh finds there.
set -euo pipefail

usage() { sed -n '2,13s/^# \{0,1\}//p' "$0" >&2; exit 2; }
[[ $# -ge 3 ]] || usage
name=$1 zone=$2 step=$3
shift 3
repository=$(git -C "$(dirname "$0")/.." remote get-url origin 2>/dev/null || true)
commit=$(git -C "$(dirname "$0")/.." rev-parse HEAD)

show_or_run() {
  if [[ -n ${DRY:-} ]]; then printf '%q ' "$@"; echo; else "$@"; fi
}

fail() {
  echo "error: $1" >&2
  exit 2
}

# Runs one command on a host, by number, or on all. Fails if it fails on any host.
on_host() {
  show_or_run gcloud compute tpus tpu-vm ssh "$name" --zone="$zone" --worker="$1" --command="$2"
}

# The TPU software that goes with an accelerator type.
version_of() {
  case $1 in
    v5litepod-*) echo v2-alpha-tpuv5-lite ;;
    v5p-*) echo v2-alpha-tpuv5 ;;
    v6e-*) echo v2-alpha-tpuv6e ;;
    v4-*) echo tpu-ubuntu2204-base ;;
    *) fail "no TPU software is known for type $1; name it: VERSION=..." ;;
  esac
}

case $step in
  create)
    [[ $# -eq 1 ]] || usage
    version=${VERSION:-$(version_of "$1")}
    show_or_run gcloud compute tpus tpu-vm create "$name" --zone="$zone" --accelerator-type="$1" --version="$version" --spot
    ;;
  install)
    url=${REPOSITORY:-$repository}
    [[ -n $url ]] || fail "this checkout has no origin; name the repository: REPOSITORY=URL"
    [[ -z ${REPOSITORY:-} && -e $url ]] && fail "the origin $url is a folder of this machine; name the repository: REPOSITORY=URL"
    if [[ -n ${MOUNT:-} ]]; then
      on_host all "sudo apt-get install -y nfs-common && sudo mkdir -p /shared && sudo mount $(printf %q "$MOUNT") /shared"
    fi
    # launch/setup.sh of the clone makes .venv with a Python that is new enough, or reports in one line what to install.
    on_host all "git clone $(printf %q "$url") sage_jax || git -C sage_jax fetch; cd sage_jax && git checkout $commit \
&& PYTHON=$(printf %q "${PYTHON:-}") bash -c 'set -e; . launch/setup.sh; install train tpu'"
    ;;
  preprocess)
    [[ $# -gt 0 ]] || fail "preprocess needs --workdir=FOLDER, which all hosts share"
    on_host 0 "cd sage_jax && .venv/bin/python -m launch.preprocess $(printf '%q ' "$@")"
    ;;
  train)
    [[ $# -gt 0 ]] || fail "train needs --workdir=FOLDER, which all hosts share"
    # SIGTERM reaches every host when a spot slice is preempted: the hosts agree on a step, save the run and exit with 143.
    on_host all "cd sage_jax && .venv/bin/python -m launch.train --coordinator=auto $(printf '%q ' "$@")"
    ;;
  delete) show_or_run gcloud compute tpus tpu-vm delete "$name" --zone="$zone" --quiet ;;
  *) fail "unknown step $step; choose one of create, install, preprocess, train, delete" ;;
esac
