# Sourced by demo.sh, test.sh, peers.sh and tpu_pod.sh: goes to the root of the checkout, whatever the caller's folder, and keeps a .venv there.
#   install EXTRAS...   afterwards "$python" runs the project; quick where nothing changed since the last time
# PYTHON=... names the interpreter; without it .venv stays as it is, and a new one is of the first Python here that will do.

cd "$(dirname "${BASH_SOURCE[0]}")/.."
venv="$PWD/.venv"
python="$venv/bin/python"

# A candidate is run, not only looked up: a version manager's shim is on the path even where it leads nowhere.
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

# All that an installation of what FILES... ask for depends on: a copy of it, kept in the venv, says whether it still holds.
recipe() {
  printf '%s\n' "$PWD" "$("$python" -VV)"
  cat "$@"
}

install() {
  local extras
  extras=$(IFS=,; echo "$*")
  make_venv
  if ! recipe setup.cfg pyproject.toml | cmp -s - "$venv/installed-$extras"; then
    echo "Installing sage_jax[$extras] into .venv (a minute or two, once)"
    "$python" -m pip install --quiet --disable-pip-version-check --editable ".[$extras]"
    recipe setup.cfg pyproject.toml >"$venv/installed-$extras"
  fi
}
