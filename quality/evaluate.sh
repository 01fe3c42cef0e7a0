#!/bin/bash
# Evaluates every linker on all data sets through a running EPIC (epic up --config quality/models/NAME.yaml), then judges
# the linkers. A run that was cut off goes on with the same command.
#
#   quality/evaluate.sh NAME DATA_FOLDER [HOST:PORT]
#
# DATA_FOLDER holds LongBench's files 2wikimqa.jsonl, musique.jsonl, hotpotqa.jsonl, samsum.jsonl and multi_news.jsonl, and a
# folder essays/ of texts for the needle. What is not there is left out, with a message. EXAMPLES (100) says how many of each.
set -euo pipefail
if [ $# -lt 2 ]; then
  sed -n '2,8s/^# \{0,1\}//p' "$0" >&2
  exit 2
fi
name=$1
data=$2
server=${3:-127.0.0.1:7400}
examples=${EXAMPLES:-100}
failed=0
if [ ! -d "$data" ]; then
  echo "$0: there is no folder $data" >&2
  exit 2
fi
evaluate() {
  local task=$1 path=$2
  shift 2
  if [ ! -e "$path" ]; then
    echo "$0: there is no $path: $task is left out" >&2
    return
  fi
  epic --server "$server" eval --via router --task "$task" --data "$path" --examples "$examples" \
    --out "quality/runs/$name/$task" "$@" || failed=1
}
for task in 2wikimqa musique hotpotqa samsum multi_news; do
  evaluate "$task" "$data/$task.jsonl"
done
evaluate needle "$data/essays" --needle-words 1000,3000,6000
epic --server "$server" eval gate --via router --run "quality/runs/$name/gate" || failed=1
epic eval report quality/runs/"$name"/*/ || failed=1
exit "$failed"
