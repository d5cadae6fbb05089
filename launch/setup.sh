# shellcheck shell=bash
# Sourced by demo.sh, live.sh, test.sh, peers.sh and tpu_pod.sh. Changes to the root of the checkout and manages .venv there.
#   install EXTRAS...   installs the checkout with these extras, at the releases in constraints/; quick if nothing changed since
#                       the last time. "$python" then runs the project.
# PYTHON=... names the interpreter. Without it an existing .venv is kept, and a new one uses the first Python below that is usable.

cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit
venv="$PWD/.venv"
python="$venv/bin/python"

# Runs the candidate: the shims of a version manager are on the path even for Pythons that are not installed.
is_usable() {
  "$1" -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1
}

find_python() {
  local candidate
  if [ -n "${PYTHON:-}" ]; then
    is_usable "$PYTHON" && echo "$PYTHON" && return
    echo "error: PYTHON=$PYTHON is not a Python of 3.11 or newer with venv (on Debian: apt-get install python3-venv)" >&2
    return 2
  fi
  for candidate in python3.12 python3.13 python3.11 python3 python; do
    is_usable "$candidate" && echo "$candidate" && return
  done
  echo "error: no Python of 3.11 or newer with venv on $(hostname); install one (on Debian and Ubuntu: apt-get install" \
    "python3.11-venv), or set PYTHON=..." >&2
  return 2
}

make_venv() {
  local base
  if [ -z "${PYTHON:-}" ] && "$python" -m pip --version >/dev/null 2>&1; then
    return
  fi
  base=$(find_python)
  if [ "$("$base" -VV)" != "$("$python" -VV 2>/dev/null)" ] || ! "$python" -m pip --version >/dev/null 2>&1; then
    echo "Making ${venv##*/} with $("$base" -V)"
    "$base" -m venv --clear "$venv"
  fi
}

# Everything that an installation from FILES... depends on. The venv keeps a copy, which shows whether the installation is current.
recipe() {
  printf '%s\n' "$PWD" "$("$python" -VV)"
  cat "$@"
}

install() {
  local extras pins files
  extras=$(IFS=,; echo "$*")
  make_venv
  pins=constraints/py$("$python" -c 'import sys; print("%d%d" % sys.version_info[:2])').txt
  files=(setup.cfg setup.py pyproject.toml)
  if [ -f "$pins" ]; then
    files+=("$pins")
  fi
  if ! recipe "${files[@]}" | cmp -s - "$venv/installed-$extras"; then
    echo "Installing sage_jax[$extras] into .venv (a minute or two, once)"
    if [ -f "$pins" ]; then
      set -- --constraint "$pins"
    else
      echo "There is no $pins: the releases will be the newest that setup.cfg allows" >&2
      set --
    fi
    "$python" -m pip install --quiet --disable-pip-version-check "$@" --editable ".[$extras]"
    recipe "${files[@]}" >"$venv/installed-$extras"
  fi
}
