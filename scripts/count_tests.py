#!/usr/bin/env python3
"""Reads what a ctest run left behind and prints it as words for scripts/test.sh.

    scripts/count_tests.py JUNIT.xml GTEST_DIRECTORY

First line: PASSED FAILED (programs, as ctest counts them). Second line: how many single cases ran in them. Then one
line for each case that was skipped, with the reason that it gave, and for each program that failed.
"""
import pathlib
import sys
import xml.etree.ElementTree as ElementTree


def main():
    suite = ElementTree.parse(sys.argv[1]).getroot()
    passed, lines = 0, []
    failed = 0
    for case in suite.iter("testcase"):
        if case.get("status") == "run" and case.find("failure") is None:
            passed += 1
        elif case.get("status") in {"disabled", "notrun"} and case.find("failure") is None and case.find("error") is None:
            lines.append(f"not run: {case.get('name')}")
        else:
            failed += 1
            lines.append(f"FAILED: {case.get('name')}")
    cases, skipped = 0, 0
    for file in sorted(pathlib.Path(sys.argv[2]).glob("*.xml")):
        try:
            root = ElementTree.parse(file).getroot()
        except ElementTree.ParseError:
            continue  # the program died while it wrote; ctest counts it as failed
        for case in root.iter("testcase"):
            cases += 1
            skip = case.find("skipped")
            if skip is not None:
                skipped += 1
                reason = (skip.get("message") or skip.text or "no reason given").strip().splitlines()[-1]
                lines.append(f"skipped: {case.get('classname')}.{case.get('name')}: {reason}")
    print(passed, failed)
    print(f"{cases} cases" + (f", {skipped} skipped" if skipped else ""))
    print("\n".join(lines))


if __name__ == "__main__":
    main()
