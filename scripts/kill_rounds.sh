#!/usr/bin/env bash
# Kills EPIC without warning 200 times and checks after each restart that everything acknowledged is still there.
#
#   scripts/kill_rounds.sh [--rounds N] [--seed S] [--model PATH] [--log FILE] [--no-build] [--keep]
#
# The tests of scripts/test.sh do the same for 20 rounds. Without --seed a new one is drawn; it is printed, and repeats
# the run. --log also writes what is printed to a file; docs/durability/README.md says how to read it. --no-build takes
# the binaries of EPIC_BINARY_DIR/bin, by default build/release, as they are.
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
exec </dev/null

rounds=200
seed=$((RANDOM * 32768 + RANDOM))
log=/dev/null
build=true
arguments=()
while [[ $# -gt 0 ]]; do
  case "$1" in
    -h | --help) sed -n '2,8s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; exit 0 ;;
    --keep) arguments+=("$1"); shift ;;
    --no-build) build=false; shift ;;
    --rounds | --seed | --model | --log)
      [[ $# -ge 2 ]] || die "$1 needs a value."
      case "$1" in
        --rounds) rounds=$2 ;;
        --seed) seed=$2 ;;
        --log) log=$2 ;;
        *) arguments+=("$1" "$2") ;;
      esac
      shift 2
      ;;
    *) die "unknown argument '$1': expected --rounds N, --seed S, --model PATH, --log FILE, --no-build or --keep." ;;
  esac
done
for number in "$rounds" "$seed"; do
  [[ $number =~ ^[0-9]+$ ]] || die "'$number' is not a whole number."
done

export EPIC_SOURCE_DIR=$EPIC_ROOT EPIC_BINARY_DIR=${EPIC_BINARY_DIR:-$EPIC_ROOT/build/release}
if $build; then
  export EPIC_BINARY_DIR=$EPIC_ROOT/build/release
  configure_preset release
  build_preset release epic epic-router epic-cache-node epic-inference-worker
fi
{
  printf 'scripts/kill_rounds.sh --rounds %s --seed %s\n' "$rounds" "$seed"
  printf '%s, commit %s\n' "$(date -u +%Y-%m-%d)" "$(git describe --always --dirty 2>/dev/null || echo unknown)"
  python3 -B "$EPIC_ROOT/tests/durability/kill_rounds.py" --rounds "$rounds" --seed "$seed" "${arguments[@]}" 2>&1
} | tee "$log"
