#!/usr/bin/env bash
# Installs the Debian packages that EPIC needs and this machine lacks.
#
#   scripts/install_deps.sh            what a build and a run need
#   scripts/install_deps.sh --tests    also what scripts/test.sh needs
#
# Works as root and as a user with sudo; running it again changes nothing and takes no time.
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

packages=("${EPIC_BUILD_PACKAGES[@]}" "${EPIC_MODEL_PACKAGES[@]}")
case "${1:-}" in
  "") ;;
  --tests) packages+=("${EPIC_TEST_PACKAGES[@]}") ;;
  -h | --help) sed -n '2,7s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; exit 0 ;;
  *) die "unknown argument '$1': expected nothing or --tests." ;;
esac

ensure_packages "${packages[@]}"
say "every Debian package that is needed is installed"
