#!/usr/bin/env bash
# Makes build/peers, a Python environment with what EPIC is compared with: llama.cpp (as llama-cpp-python, built from
# its source for this processor), PyTorch with transformers, and matplotlib for the plots.
#
#   scripts/peers.sh
#
# Takes 10 to 20 minutes on two cores and about 7 GB; instant when it is there already. Needs PyPI, a compiler and
# python3-venv. scripts/bench.sh prefill finds the environment by itself; benchmarks/plot.py runs with its Python.
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

case "${1:-}" in
  "") ;;
  -h | --help) sed -n '2,8s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; exit 0 ;;
  *) die "scripts/peers.sh takes no arguments, but got '$1'; see --help." ;;
esac

environment="$EPIC_ROOT/build/peers"
requirements="$EPIC_ROOT/benchmarks/peers_requirements.txt"
if cmp -s "$requirements" "$environment/installed.txt"; then
  say "the peers stand in ${environment#"$EPIC_ROOT"/}"
  exit 0
fi
ensure_packages build-essential cmake ninja-build ca-certificates python3 python3-venv

rm -f "$environment/installed.txt"
python3 -m venv "$environment"
log="$EPIC_ROOT/build/peers.log"
say "installing $(grep -c '==' "$requirements") pinned packages; the log is ${log#"$EPIC_ROOT"/}"
# GGML_NATIVE: llama.cpp compiled for every instruction that this processor has, as EPIC chooses them at run time.
CMAKE_ARGS="-DGGML_NATIVE=ON" CMAKE_BUILD_PARALLEL_LEVEL=$(build_jobs) \
  "$environment/bin/python" -m pip install --no-binary llama-cpp-python -r "$requirements" >"$log" 2>&1 \
  || { tail -n 5 "$log" >&2; die "pip could not install the peers; its own words stand above and in ${log#"$EPIC_ROOT"/}."; }
cp "$requirements" "$environment/installed.txt"
say "the peers stand in ${environment#"$EPIC_ROOT"/}"
