#!/usr/bin/env bash
# Makes the virtual environment: torch first and pinned, then FastVLA with its extras.
# Usage: setup.sh VENV EXTRAS      (EXTRAS: "" or "[test]")
# PYTHON chooses the interpreter; TORCH_INDEX_URL chooses another package index for torch alone.
set -euo pipefail
venv=$1 extras=$2
root=$(cd "$(dirname "$0")/../.." && pwd)
constraints=$root/config/setup/constraints.txt
say() { printf '\033[1m[setup]\033[0m %s\n' "$*"; }
die() { printf '[setup] %s\n' "$*" >&2; exit 1; }

${PYTHON:-python3} -c 'import sys; sys.exit(not (3, 10) <= sys.version_info < (3, 14))' ||
    die "Python 3.10 to 3.13 is needed; choose one with PYTHON=python3.12 make ..."
if [ ! -x "$venv/bin/python" ]; then
    say "creating $venv"
    ${PYTHON:-python3} -m venv "$venv" ||
        die "python3 -m venv failed; on Debian and Ubuntu: sudo apt-get install python3-venv"
fi
python=$venv/bin/python
export PIP_DISABLE_PIP_VERSION_CHECK=1

upgrade_pip() {
    # Older resolvers try hundreds of versions where the newer ones see at once what fits.
    "$python" - <<'PY' || "$python" -m pip install --quiet --upgrade "pip>=24"
import sys, pip
sys.exit(int(pip.__version__.split(".")[0]) < 24)
PY
}

install_torch() {
    local index=() torch_pin
    torch_pin=$(grep '^torch==' "$constraints")
    [ -n "${TORCH_INDEX_URL:-}" ] && index=(--index-url "$TORCH_INDEX_URL")
    "$python" -c 'import torch' 2>/dev/null && return 0
    if [ ! -e /dev/nvidiactl ] && [ ! -e /proc/driver/nvidia ]; then
        # Without a GPU the CUDA build is gigabytes of nothing: look before taking it.
        local report
        report=$("$python" -m pip install --dry-run --quiet --report - "${index[@]}" "$torch_pin") ||
            die "pip cannot find $torch_pin for $("$python" --version)"
        if grep -qE '"name": *"(nvidia-|cuda-)' <<<"$report"; then
            die "this machine has no NVIDIA GPU, but pip would download the CUDA build of torch" \
                "(gigabytes). Set TORCH_INDEX_URL to PyTorch's index of CPU wheels (see" \
                "'Get started' on PyTorch's site) and run make again."
        fi
    fi
    say "installing $torch_pin"
    "$python" -m pip install --quiet "${index[@]}" "$torch_pin"
}

install_gl() {
    "$python" - <<'PY' 2>/dev/null && return 0
import os
os.environ.setdefault("MUJOCO_GL", "egl")
import mujoco
context = mujoco.GLContext(16, 16)
context.make_current()
context.free()
PY
    local packages="libegl1 libgl1-mesa-dri libgl1"
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        say "installing a software OpenGL for the simulator: $packages"
        apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq $packages >/dev/null
    else
        die "the simulator needs OpenGL: sudo apt-get install $packages"
    fi
}

upgrade_pip
install_torch
say "installing FastVLA$extras and what it needs (a minute)"
"$python" -m pip install --quiet -c "$constraints" -e "$root$extras"
install_gl
say "ready"
