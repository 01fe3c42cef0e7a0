#!/usr/bin/env python3
"""Breaks the linkers in ways that others have broken theirs, and shows which tests notice.

Each mutation replaces one piece of source text, builds the linker tests, runs them and puts the source back. A mutation that no
test notices is an error. Usage: tests/mutations/run.py [--build DIR] [NAME ...]
"""

import argparse
import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
TESTS = ["link_plan_test", "linker_golden_test", "linker_invariants_test", "model_golden_test"]

# name, file, text that must stand there exactly once, what replaces it
MUTATIONS = [
    ("offset off by one", "engine/cpu/cpu_attention.cc",
     "view.info().first_position - shared.offset,", "view.info().first_position - shared.offset + 1,"),
    ("stale head kept", "engine/link_plan.cc",
     "plan.shared.push_back({static_cast<int32_t>(s), head, end});", "plan.shared.push_back({static_cast<int32_t>(s), 0, end});"),
    ("heads see their own tail", "engine/cpu/cpu_attention.cc",
     "std::clamp(batch.positions[task.row_begin + r] - segment.offset + 1, 0, segment.row_end)",
     "(batch.positions[task.row_begin + r] >= segment.offset ? segment.row_end : 0)"),
    ("query left out of the recompute set", "engine/link_plan.cc",
     "    if (!reused) {\n      AddRange(offsets[s], offsets[s + 1], plan.positions);",
     "    if (!reused) {\n      AddRange(s + 1 == prompt.size() ? offsets[s + 1] - 1 : offsets[s], offsets[s + 1], plan.positions);"),
    ("rows unsorted", "engine/link_plan.cc",
     "  std::sort(chosen.begin(), chosen.end());\n", ""),
    ("rotation pairs swapped", "engine/cpu/cpu_backend.cc",
     "is_rotated && file.RotationPairsAreAdjacent()", "is_rotated && !file.RotationPairsAreAdjacent()"),
]


def run_tests(build):
    """Builds, runs and returns the names of the tests that failed (or 'does not build')."""
    built = subprocess.run(["ninja", "-C", str(build), *TESTS], capture_output=True, text=True)
    if built.returncode != 0:
        sys.exit("the mutated source does not build:\n" + built.stdout[-3000:])
    failed = []
    for test in TESTS:
        try:
            result = subprocess.run([str(build / "tests_bin" / test)], capture_output=True, text=True, cwd=ROOT, timeout=900)
        except subprocess.TimeoutExpired:
            failed.append(test + " (does not end)")
            continue
        names = sorted(set(re.findall(r"^\[  FAILED  \] ([\w/]+\.[\w/]+)", result.stdout, re.M)))
        if result.returncode != 0:
            failed += names or [test + " (crashed)"]
    return failed


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--build", type=pathlib.Path, default=ROOT / "build" / "release", help="a configured build folder")
    parser.add_argument("names", nargs="*", help="mutations to run; default: all")
    arguments = parser.parse_args()
    chosen = [m for m in MUTATIONS if not arguments.names or m[0] in arguments.names]
    unnoticed = []
    print("| mutation | where | tests that fail |\n|---|---|---|", flush=True)
    for name, path, old, new in chosen:
        source = ROOT / path
        original = source.read_text()
        if original.count(old) != 1:
            sys.exit(f"{path}: the text of mutation '{name}' stands there {original.count(old)} times, expected once")
        try:
            source.write_text(original.replace(old, new))
            failed = run_tests(arguments.build)
        finally:
            source.write_text(original)
        shown = ", ".join(f"`{f}`" for f in failed) or "**none**"
        print(f"| {name} | `{path}` | {shown} |", flush=True)
        if not failed:
            unnoticed.append(name)
    if run_tests(arguments.build):
        sys.exit("the unmutated source fails its tests")
    if unnoticed:
        sys.exit("not noticed by any test: " + ", ".join(unnoticed))


if __name__ == "__main__":
    main()
