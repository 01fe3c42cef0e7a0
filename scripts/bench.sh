#!/usr/bin/env bash
# Builds EPIC and runs one benchmark.
#
#   scripts/bench.sh                                        lists the benchmarks
#   scripts/bench.sh NAME [--format table|json] [ARGUMENT...]
#
# With --format json standard output holds the benchmark's JSON alone; it ends with
# "bars": [{"name", "value", "bar", "holds"}]. What the script itself does goes to standard error.
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

name=${1:-}
case "$name" in
  -h | --help) sed -n '2,8s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; exit 0 ;;
  -*) die "the first argument is the benchmark's name, not '$name'; run scripts/bench.sh alone for the list." ;;
esac
"$EPIC_ROOT/scripts/build.sh" >&2

bin="$EPIC_ROOT/build/release/bin"
names=()
for program in "$bin"/bench-*; do
  [[ -x $program ]] && names+=("${program##*/bench-}")
done
[[ ${#names[@]} -gt 0 ]] || die "the build made no benchmarks in build/release/bin."
if [[ -z $name ]]; then
  printf '%s\n' "${names[@]}"
  exit 0
fi
[[ -x $bin/bench-$name ]] || die "there is no benchmark '$name'; there are: ${names[*]}."
# These measure the store alone and need no model.
case "$name" in
  disk-layouts | eviction | tiers) exec "$bin/bench-$name" "${@:2}" ;;
esac
EPIC_MODEL=$("$EPIC_ROOT/scripts/fetch_model.sh" | tail -n 1)
export EPIC_MODEL
# prefill is a comparison: a driver takes turns between our program and the peers that scripts/peers.sh installed.
if [[ $name == prefill ]]; then
  exec python3 benchmarks/compare_prefill.py --epic "$bin/bench-prefill" "${@:2}"
fi
exec "$bin/bench-$name" "${@:2}"
