#!/usr/bin/env bash
# Kills EPIC without warning 200 times and checks after each restart that everything acknowledged is still there.
#
#   scripts/kill_rounds.sh [--rounds N] [--seed S] [--model PATH] [--keep]
#
# The tests of scripts/test.sh do the same for 20 rounds. Without --seed a new one is drawn; it is printed, and repeats
# the run.
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
exec </dev/null

rounds=200
seed=$((RANDOM * 32768 + RANDOM))
arguments=()
while [[ $# -gt 0 ]]; do
  case "$1" in
    -h | --help) sed -n '2,7s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; exit 0 ;;
    --keep) arguments+=("$1"); shift ;;
    --rounds | --seed | --model)
      [[ $# -ge 2 ]] || die "$1 needs a value."
      case "$1" in
        --rounds) rounds=$2 ;;
        --seed) seed=$2 ;;
        *) arguments+=("$1" "$2") ;;
      esac
      shift 2
      ;;
    *) die "unknown argument '$1': expected --rounds N, --seed S, --model PATH or --keep." ;;
  esac
done
for number in "$rounds" "$seed"; do
  [[ $number =~ ^[0-9]+$ ]] || die "'$number' is not a whole number."
done

configure_preset release
build_preset release epic epic-router epic-cache-node epic-inference-worker
say "$rounds rounds with seed $seed"
export EPIC_SOURCE_DIR=$EPIC_ROOT EPIC_BINARY_DIR=$EPIC_ROOT/build/release
python3 "$EPIC_ROOT/tests/durability/kill_rounds.py" --rounds "$rounds" --seed "$seed" "${arguments[@]}"
