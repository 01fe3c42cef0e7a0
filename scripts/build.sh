#!/usr/bin/env bash
# Builds EPIC's release preset; the programs lie in build/release/bin afterwards.
#
#   scripts/build.sh [TARGET...]       builds everything, or the named targets only
#
# Installs missing Debian packages first. Running it again builds what changed.
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

case "${1:-}" in
  -h | --help) sed -n '2,6s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; exit 0 ;;
  -*) die "unknown option '$1': expected names of build targets." ;;
esac

"$EPIC_ROOT/scripts/install_deps.sh"
say "configuring the release preset"
configure_preset release
say "building build/release with $(build_jobs) jobs"
build_preset release "$@" || die "the build failed; the first line with 'error:' above says where."
say "built; the programs lie in build/release/bin"
