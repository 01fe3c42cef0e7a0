#!/usr/bin/env python3
"""Whether the chat templates of published packages are recognised as the layouts that they are.

Fetches the two smallest packages of tests/golden/collect_chat_templates.py once, keeps their templates under the build
folder and gives them to chat_template_test, which compares each with its layout: name, and what it renders. To check
the templates of all packages, run that script and set EPIC_CHAT_TEMPLATES to its folder.

Needs PyPI the first time; ends with 77, which ctest shows as skipped, where that is not reached.
"""

import os
import pathlib
import shutil
import subprocess
import sys

SOURCE = pathlib.Path(os.environ.get("EPIC_SOURCE_DIR", pathlib.Path(__file__).resolve().parents[2]))
BINARIES = pathlib.Path(os.environ.get("EPIC_BINARY_DIR", SOURCE / "build" / "release"))
FOLDER = SOURCE / "build" / "chat-templates"
PACKAGES = ["trl", "guidance"]


def fetch():
    """Returns why the templates could not be fetched, or nothing."""
    if FOLDER.is_dir():
        return None
    partial = FOLDER.with_suffix(f".partial-{os.getpid()}")
    collect = [sys.executable, str(SOURCE / "tests" / "golden" / "collect_chat_templates.py"), str(partial), *PACKAGES]
    try:
        run = subprocess.run(collect, capture_output=True, text=True, timeout=200)
        if run.returncode != 0:
            return run.stderr.strip().splitlines()[-1] if run.stderr.strip() else f"exit code {run.returncode}"
        partial.rename(FOLDER)
    except (OSError, subprocess.TimeoutExpired) as error:
        if not FOLDER.is_dir():
            return str(error)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return None


def main():
    reason = fetch()
    if reason is not None:
        print(f"skipped: the packages {', '.join(PACKAGES)} were not fetched: {reason}")
        return 77
    test = [str(BINARIES / "tests_bin" / "chat_template_test"), "--gtest_filter=RecogniseTest.KnowsThePublishedTemplates"]
    return subprocess.run(test, env={**os.environ, "EPIC_CHAT_TEMPLATES": str(FOLDER)}, timeout=60).returncode


if __name__ == "__main__":
    sys.exit(main())
