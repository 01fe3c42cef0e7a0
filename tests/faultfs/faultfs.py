"""Power loss and failing disks for integration tests: runs processes under libepic_faultfs.so.

    with FaultyFolder() as folder:
        process = subprocess.Popen([...], env=folder.environment())   # works below folder.root
        ...
        process.kill(); process.wait()
        folder.lose_power()                  # folder.root now holds what a strict disk would hold
        folder.set_faults("read every *.sst", "space 0")
        ...
        folder.set_faults()                  # the disk is well again

Everything that ran under environment() must have ended before lose_power(). Needs Python's standard library alone;
from the environment: EPIC_BINARY_DIR, the build folder with tests_bin/.
"""

import os
import pathlib
import shutil
import subprocess
import tempfile

SOURCE = pathlib.Path(os.environ.get("EPIC_SOURCE_DIR", pathlib.Path(__file__).resolve().parents[2]))
TESTS_BIN = pathlib.Path(os.environ.get("EPIC_BINARY_DIR", SOURCE / "build" / "release")) / "tests_bin"
LIBRARY = TESTS_BIN / "libepic_faultfs.so"
TOOL = TESTS_BIN / "faultfs"


def _tool(*arguments):
    done = subprocess.run([TOOL, *map(str, arguments)], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise AssertionError(f"faultfs {' '.join(map(str, arguments))} ended with {done.returncode}: {done.stderr}")


class FaultyFolder:
    """A folder, `root`, on a disk that keeps only what was synced and fails on demand. Empty at first."""

    def __init__(self):
        self._folder = pathlib.Path(tempfile.mkdtemp(prefix="epic-faultfs-")).resolve()
        self.root = self._folder / "root"
        self._image = self._folder / "image"
        self._control = self._folder / "control"
        self._record = self._folder / "control.injected"
        self.root.mkdir()
        self.make_durable()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.remove()

    def remove(self):
        shutil.rmtree(self._folder, ignore_errors=True)

    def environment(self, base=None):
        """The environment for a process whose files below `root` are watched. `base`: instead of this process's."""
        return {
            **(os.environ if base is None else base),
            "LD_PRELOAD": str(LIBRARY),
            "EPIC_FAULTFS_ROOT": str(self.root),
            "EPIC_FAULTFS_IMAGE": str(self._image),
            "EPIC_FAULTFS_CONTROL": str(self._control),
        }

    def prefix(self):
        """Words before a command line that put it under environment()."""
        changes = self.environment(base={})
        return ["env", *(f"{name}={value}" for name, value in changes.items())]

    def make_durable(self):
        """Counts everything below `root` as durable, as after a calm unmounting."""
        shutil.rmtree(self._image, ignore_errors=True)
        _tool("create", self.root, self._image)

    def lose_power(self, survive_percent=0, seed=1):
        """Puts `root` into the state of after the power loss. With `survive_percent`, see faultfs_tool.cc."""
        restored = self._folder / "restored"
        _tool("restore", self._image, restored, "--live", self.root, "--survive", survive_percent, "--seed", seed)
        shutil.rmtree(self.root)
        restored.rename(self.root)
        self.make_durable()

    def set_faults(self, *rules):
        """From now on these faults and no others; the lines are those of faults.h. Without any the disk is well."""
        following = self._folder / "control.next"
        following.write_text("".join(f"{rule}\n" for rule in rules))
        following.rename(self._control)

    def injected(self):
        """Every fault that was injected so far, in order, as (kind, path below root)."""
        if not self._record.exists():
            return []
        return [tuple(line.split(" ", 1)) for line in self._record.read_text().splitlines()]
