#!/usr/bin/env bash
# Installs the peers of the benchmark into .venv-peers: 6 GB on Linux, where torch includes CUDA. Does nothing if they are current.
# Where a package cannot be installed, it lists the peers that are left out, and fails only if none is left.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
venv="$PWD/.venv-peers"
python="$venv/bin/python"
requirements=third_party/peers/requirements.txt

if recipe "$requirements" 2>/dev/null | cmp -s - "$venv/installed"; then
  exit
fi
make_venv
pip=("$python" -m pip install --quiet --disable-pip-version-check)
echo "Installing the peers into .venv-peers (some minutes, once)"
if "${pip[@]}" --requirement "$requirements"; then
  recipe "$requirements" >"$venv/installed"
  exit
fi

echo "Not all packages can be installed together; trying one after the other" >&2
left=" $(sed -n 's/^[^#].*# //p' "$requirements" | tr ' ' '\n' | sort -u | tr '\n' ' ')"
while IFS='#' read -r package peers; do
  package=${package// /}
  if [ -n "$package" ] && ! "${pip[@]}" "$package" </dev/null; then
    echo "error: $package cannot be installed: this leaves out$peers" >&2
    for peer in $peers; do
      left=${left/ $peer / }
    done
  fi
done <"$requirements"
if [ -z "${left// /}" ]; then
  echo "error: no peer is left" >&2
  exit 1
fi
echo "Peers that are left:$left"
