#!/usr/bin/env bash
# Installs what is missing, builds EPIC and runs every test and every check of the source.
#
#   scripts/test.sh                    everything; what CI runs
#   scripts/test.sh --fast             release build, unit tests and the checks of the source
#   scripts/test.sh --stage NAME...    these stages only
#
# Stages: install, model, includes, contract, format, release, documentation, tests, asan-ubsan, tsan, thread-safety,
# fuzz, tidy.
# The last line is `N passed, N failed`; the exit code is 0 only where nothing failed.
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
exec </dev/null

all_stages=(install model includes contract format release documentation tests asan-ubsan tsan thread-safety fuzz tidy)
stages=("${all_stages[@]}")
test_arguments=()
case "${1:-}" in
  "") ;;
  --fast)
    stages=(install model includes contract format release documentation tests)
    test_arguments=(-L unit)
    ;;
  --stage)
    stages=("${@:2}")
    [[ ${#stages[@]} -gt 0 ]] || die "--stage needs a name: ${all_stages[*]}."
    for stage in "${stages[@]}"; do
      [[ " ${all_stages[*]} " == *" $stage "* ]] || die "unknown stage '$stage': expected one of ${all_stages[*]}."
    done
    ;;
  -h | --help) sed -n '2,10s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; exit 0 ;;
  *) die "unknown argument '$1': expected nothing, --fast or --stage NAME." ;;
esac

results="$EPIC_ROOT/build/test-results"
mkdir -p "$results"
passed=0
failed=0
table=()
notes=()

# Debian's sanitizer libraries expect fewer random address bits than new kernels use; without randomness they always
# start. Where the machine forbids switching it off, they run as they are.
fixed_addresses=()
setarch "$(uname -m)" -R true 2>/dev/null && fixed_addresses=(setarch "$(uname -m)" -R)

our_git() { git -c safe.directory="$EPIC_ROOT" -C "$EPIC_ROOT" "$@"; }

# Our C++ files, known to git or new, that still exist.
cpp_files() {
  our_git ls-files --cached --others --exclude-standard -- '*.cc' '*.h' | while read -r file; do
    [[ -f $file ]] && echo "$file"
  done
}

# C++ sources that differ from the branch that this work leaves from, or from the commit before on that branch itself.
changed_sources() {
  local base
  base=$(our_git merge-base HEAD origin/main 2>/dev/null || true)
  [[ -z $base || $base == "$(our_git rev-parse HEAD)" ]] && base=HEAD~1
  our_git diff --name-only --diff-filter=d "$base" -- '*.cc' 2>/dev/null || true
}

# run_ctest FOLDER TITLE [ctest arguments]: runs the tests there and adds to the counts; `detail` says what ran.
run_ctest() {
  local folder=$1 title=$2
  shift 2
  local junit="$results/$title.xml" cases="$results/$title-cases"
  rm -rf "$junit" "$cases"
  mkdir -p "$cases"
  local ok=0
  GTEST_OUTPUT="xml:$cases/" "${fixed_addresses[@]}" ctest --test-dir "$folder" -j "$(nproc)" --output-on-failure \
    --no-tests=error --output-junit "$junit" "$@" || ok=1
  [[ -s $junit ]] || return 1
  local counted ran bad
  mapfile -t counted < <(python3 "$EPIC_ROOT/scripts/count_tests.py" "$junit" "$cases")
  read -r ran bad <<<"${counted[0]}"
  passed=$((passed + ran))
  failed=$((failed + bad))
  detail="$ran programs passed, $bad failed (${counted[1]})"
  local line
  for line in "${counted[@]:2}"; do notes+=("$title: $line"); done
  [[ $ok -eq 0 && $bad -eq 0 && $ran -gt 0 ]] && return 0
  [[ $bad -gt 0 ]] && counts_itself=1  # its failures are in the counts already
  return 1
}

# Every stage_* function is one stage. It may set `detail`; it returns non-zero where the stage failed.
stage_install() { "$EPIC_ROOT/scripts/install_deps.sh" --tests; }

stage_model() {
  local out
  out=$("$EPIC_ROOT/scripts/fetch_model.sh") || return 1
  detail=$(basename "$(tail -n 1 <<<"$out")")
}

stage_includes() {
  python3 "$EPIC_ROOT/scripts/check_includes.py" --self-test && python3 "$EPIC_ROOT/scripts/check_includes.py"
}

stage_contract() {
  /usr/bin/python3 "$EPIC_ROOT/scripts/check_proto.py" --self-test && /usr/bin/python3 "$EPIC_ROOT/scripts/check_proto.py"
}

stage_format() { cpp_files | xargs -r clang-format-14 --dry-run -Werror --ferror-limit=3; }

stage_release() { configure_preset release && build_preset release; }

# What the documentation shows is what the programs say.
stage_documentation() {
  stage_release || return 1
  python3 "$EPIC_ROOT/scripts/make_configuration_doc.py" --check
}

stage_tests() {
  stage_release || return 1
  local model
  model=$("$EPIC_ROOT/scripts/fetch_model.sh" | tail -n 1) || return 1
  EPIC_MODEL="$model" run_ctest "$EPIC_ROOT/build/release" tests "${test_arguments[@]}"
}

stage_asan-ubsan() {
  configure_preset asan-ubsan && build_preset asan-ubsan || return 1
  run_ctest "$EPIC_ROOT/build/asan-ubsan" asan-ubsan -LE slow
}

stage_tsan() {
  configure_preset tsan || return 1
  local targets
  mapfile -t targets < <(ctest --test-dir "$EPIC_ROOT/build/tsan" -L thread --show-only=json-v1 \
    | python3 -c 'import json, sys; print("\n".join(t["name"] for t in json.load(sys.stdin)["tests"]))')
  [[ -n ${targets[0]:-} ]] || { echo "error: no test carries the label thread." >&2; return 1; }
  build_preset tsan "${targets[@]}" || return 1
  run_ctest "$EPIC_ROOT/build/tsan" tsan -L thread
}

stage_thread-safety() { configure_preset clang -DEPIC_BUILD_TESTS=OFF && build_preset clang; }

# run_fuzzer TARGET: a minute from the committed corpus. What it finds on the way stays under build/; an input that it
# stops at is printed, so that a log is enough to repeat it.
run_fuzzer() {
  local target=$1 folder="$EPIC_ROOT/build/fuzz/runs/$1"
  rm -rf "$folder"
  mkdir -p "$folder/corpus"
  if ASAN_OPTIONS=detect_leaks=1 "${fixed_addresses[@]}" "$EPIC_ROOT/build/fuzz/bin/${target}_fuzzer" \
      -max_total_time=60 -timeout=25 -rss_limit_mb=2048 -max_len=65536 -print_final_stats=1 \
      -artifact_prefix="$folder/" "$folder/corpus" "$EPIC_ROOT/tests/fuzz/corpus/$target" >"$folder/log" 2>&1; then
    echo "$target: $(awk '/number_of_executed_units/ {print $2}' "$folder/log") inputs"
    return
  fi
  tail -n 60 "$folder/log"
  local input
  for input in "$folder"/crash-* "$folder"/leak-* "$folder"/oom-* "$folder"/timeout-*; do
    [[ -f $input ]] || continue
    echo "error: the $target fuzzer stopped at this input, here in base64; give it to build/fuzz/bin/${target}_fuzzer:"
    base64 "$input"
  done
  return 1
}

stage_fuzz() {
  configure_preset fuzz && build_preset fuzz fuzzers || return 1
  local targets=(gguf safetensors model_folder chat_template kv_block) first second ok=0
  # Two at a time, as many as CI has cores.
  for ((first = 0; first < ${#targets[@]}; first += 2)); do
    : >"$results/fuzz-second"
    if ((first + 1 < ${#targets[@]})); then
      run_fuzzer "${targets[first + 1]}" >"$results/fuzz-second" 2>&1 &
    else
      true &
    fi
    second=$!
    run_fuzzer "${targets[first]}" || ok=1
    wait "$second" || ok=1
    cat "$results/fuzz-second"
  done
  detail="a minute each: ${targets[*]}"
  return "$ok"
}

stage_tidy() {
  configure_preset clang -DEPIC_BUILD_TESTS=OFF || return 1
  # core and engine always, elsewhere what changed; only files that the clang preset compiles have a command line.
  local files
  mapfile -t files < <(
    { cpp_files | grep -E '^(core|engine)/.*\.cc$'; changed_sources; } | sort -u \
      | python3 -c '
import json, os, sys
known = {os.path.realpath(e["file"]) for e in json.load(open("build/clang/compile_commands.json"))}
print("\n".join(f for f in map(str.strip, sys.stdin) if os.path.realpath(f) in known))'
  )
  [[ -n ${files[0]:-} ]] || { echo "error: no file to check." >&2; return 1; }
  detail="${#files[@]} files"
  printf '%s\n' "${files[@]}" | xargs -P "$(nproc)" -n 1 clang-tidy-14 -p "$EPIC_ROOT/build/clang" --quiet 2>/dev/null
}

for stage in "${stages[@]}"; do
  say "stage $stage"
  begun=$SECONDS
  detail=
  counts_itself=
  if "stage_$stage"; then outcome=passed; else outcome=FAILED; fi
  took=$((SECONDS - begun))
  # A stage that runs no tests of its own counts as one.
  case "$stage" in tests | asan-ubsan | tsan) own_count= ;; *) own_count=1 ;; esac
  if [[ $outcome == passed ]]; then
    [[ -n $own_count ]] && passed=$((passed + 1))
  else
    [[ -n $counts_itself ]] || failed=$((failed + 1))
  fi
  table+=("$(printf '%-14s %-7s %5d s  %s' "$stage" "$outcome" "$took" "$detail")")
  say "stage $stage $outcome after $took s"
  # Without packages or a build there is nothing to go on with.
  [[ $outcome == FAILED && ($stage == install || $stage == release) ]] && break
done

echo
printf '%s\n' "stage          outcome    time  what ran" "${table[@]}"
if [[ ${#notes[@]} -gt 0 ]]; then
  echo
  printf '%s\n' "${notes[@]}"
fi
echo
echo "$passed passed, $failed failed"
[[ $failed -eq 0 ]]
