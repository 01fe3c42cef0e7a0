#!/usr/bin/env python3
"""The strict model and the faults of libepic_faultfs.so, operation by operation.

A program does what a test dictates and is killed with -9; the folder after the power loss must be exactly what the
strict model says: bytes as of the file's last sync, names as of their folder's.
"""

import pathlib
import shutil
import subprocess
import unittest

from faultfs import TESTS_BIN, FaultyFolder

BLOCK = 4096

# Commands behind one another, and what is there after the power loss: a text for a file, None for a folder. Before
# that, the folder has durably `old` with the text "durable", and `sub` with `sub/inner`, the same. DIR is the folder.
SEQUENCES = {
    "nothing": ["", {}],
    "a write without a sync": ["open f DIR/old rw; pwrite f 0 DURABLE", {}],
    "fsync": ["open f DIR/old rw; pwrite f 0 DUR; fsync f", {"old": "DURable"}],
    "fdatasync": ["open f DIR/old rw; pwrite f 7 +more; fdatasync f", {"old": "durable+more"}],
    "fsync through another descriptor": [
        "open f DIR/old rw; pwrite f 0 DUR; close f; open g DIR/old read; fsync g",
        {"old": "DURable"},
    ],
    "write and fsync through a duplicate": [
        "open f DIR/old rw append; dup f g; write g +more; close f; fsync g",
        {"old": "durable+more"},
    ],
    "close is no sync": ["open f DIR/old rw; pwrite f 0 DUR; close f", {}],
    "sync_file_range is no sync": ["open f DIR/old rw; pwrite f 0 DUR; sync_file_range f", {}],
    "append after a sync": ["open f DIR/old rw append; write f +1; fsync f; write f +2", {"old": "durable+1"}],
    "two appends, two syncs": [
        "open f DIR/old rw append; write f +1; fsync f; write f +2; fsync f",
        {"old": "durable+1+2"},
    ],
    "only what was written last is copied": [
        "open f DIR/old rw; pwrite f 0 A; fsync f; pwrite f 2 B; pwrite f 4 C; fsync f; pwrite f 0 X",
        {"old": "AuBaCle"},
    ],
    "writev": ["open f DIR/old rw append; writev f +one +two; fsync f", {"old": "durable+one+two"}],
    "pwritev2 with RWF_DSYNC": [
        "open f DIR/old rw; pwrite f 0 XXX; pwritev2 f 5 LE; pwrite f 5 le",
        {"old": "durabLE"},
    ],
    "O_DSYNC makes its own write durable": [
        "open f DIR/old rw; open g DIR/old rw dsync; pwrite f 0 XXX; pwrite g 7 +more",
        {"old": "durable+more"},
    ],
    "O_SYNC makes its own write durable": ["open f DIR/old rw sync append; write f +more", {"old": "durable+more"}],
    "O_DIRECT is no sync": [f"open f DIR/old rw direct; fill f 0 1 z", {}],
    "O_DIRECT with a sync": ["open f DIR/old rw direct; fill f 0 1 z; fdatasync f", {"old": "z" * BLOCK}],
    "a mapped write without a sync": ["open f DIR/old rw; map f 0 DUR", {}],
    "a mapped write with a sync": ["open f DIR/old rw; map f 0 DUR; fsync f", {"old": "DURable"}],
    "a mapped write behind a sync, synced": ["open f DIR/old rw; fsync f; map f 0 DUR; fsync f", {"old": "DURable"}],
    "stdio behind a sync": ["open f DIR/old rw; fsync f; stdio DIR/old new", {"old": "new"}],
    "stdio with a sync": ["stdio DIR/old new", {"old": "new"}],
    "a C++ stream has no sync": ["stream DIR/old new", {}],
    "a C++ stream, synced later": ["stream DIR/old new; open f DIR/old read; fsync f", {"old": "new"}],
    "copy_file_range": ["open f DIR/sub/inner read; open g DIR/old rw; pwrite g 0 X; fsync g; copy f g; fsync g",
                        {"old": "durable"}],
    "sendfile without a sync": [
        "open f DIR/sub/inner read; open g DIR/old rw; write g X; fsync g; sendfile f g",
        {"old": "Xurable"},
    ],
    "sendfile with a sync": [
        "open f DIR/sub/inner read; open g DIR/old rw; write g X; fsync g; sendfile f g; fsync g",
        {"old": "Xdurable"},
    ],
    "shortened without a sync": ["open f DIR/old rw; ftruncate f 3", {}],
    "shortened and synced": ["open f DIR/old rw; ftruncate f 3; fsync f", {"old": "dur"}],
    "truncate by path, then synced": ["open f DIR/old rw; fsync f; truncate DIR/old 3; fsync f", {"old": "dur"}],
    "shortened, made longer again, synced": [
        "open f DIR/old rw; fsync f; ftruncate f 3; pwrite f 5 X; fsync f",
        {"old": "dur\0\0X"},
    ],
    "made longer and synced": ["open f DIR/old rw; ftruncate f 9; fsync f", {"old": "durable\0\0"}],
    "preallocated and synced": ["open f DIR/old rw; fallocate f 0 9; fsync f", {"old": "durable\0\0"}],
    "a hole, synced": [
        f"open f DIR/old rw; fill f 0 3 z; fsync f; punch f {BLOCK} {BLOCK}; fsync f",
        {"old": "z" * BLOCK + "\0" * BLOCK + "z" * BLOCK},
    ],
    "a hole without a sync": [
        f"open f DIR/old rw; fill f 0 3 z; fsync f; punch f {BLOCK} {BLOCK}",
        {"old": "z" * 3 * BLOCK},
    ],
    "O_TRUNC without a sync": ["open f DIR/old rw; fsync f; open g DIR/old rw trunc; write g new", {}],
    "O_TRUNC and a sync": ["open f DIR/old rw; fsync f; open g DIR/old rw trunc; write g new; fsync g", {"old": "new"}],
    "O_TRUNC, a hole and a sync": [
        "open f DIR/old rw; fsync f; open g DIR/old rw trunc; pwrite g 5 X; fsync g",
        {"old": "\0\0\0\0\0X"},
    ],
    "creat and a sync": ["open f DIR/old rw; fsync f; creat g DIR/old; fsync g", {"old": ""}],
    "a new file, synced, its folder not": ["open f DIR/new rw create; write f text; fsync f", {}],
    "a new file, its folder synced, the file not": [
        "open f DIR/new rw create; write f text; syncfolder DIR",
        {"new": ""},
    ],
    "a new file and its folder": [
        "open f DIR/new rw create; write f text; fsync f; syncfolder DIR",
        {"new": "text"},
    ],
    "bytes that are synced after their folder": [
        "open f DIR/new rw create; syncfolder DIR; write f text; fsync f",
        {"new": "text"},
    ],
    "a rename without a sync of the folder": ["rename DIR/old DIR/moved", {}],
    "a rename and a sync of the folder": ["rename DIR/old DIR/moved; syncfolder DIR", {"old": ..., "moved": "durable"}],
    "a rename, and a sync of the file alone": ["rename DIR/old DIR/moved; open f DIR/moved rw; fsync f", {}],
    "a replaced file, the folder not synced": [
        "open f DIR/next rw create; write f new; fsync f; rename DIR/next DIR/old",
        {},
    ],
    "a replaced file, everything synced": [
        "open f DIR/next rw create; write f new; fsync f; rename DIR/next DIR/old; syncfolder DIR",
        {"old": "new"},
    ],
    "a replaced file that was never synced itself": [
        "open f DIR/next rw create; write f new; rename DIR/next DIR/old; syncfolder DIR",
        {"old": ""},
    ],
    "a file moved to another folder, that one synced": [
        "rename DIR/old DIR/sub/old; syncfolder DIR/sub",
        {"sub/old": "durable"},
    ],
    "a file moved to another folder, the first one synced": [
        "rename DIR/old DIR/sub/old; syncfolder DIR",
        {"old": ...},
    ],
    "unlink without a sync": ["unlink DIR/old", {}],
    "unlink and a sync": ["unlink DIR/old; syncfolder DIR", {"old": ...}],
    "remove and a sync of another folder": ["remove DIR/old; syncfolder DIR/sub", {}],
    "removed and made anew under the name": [
        "unlink DIR/old; open f DIR/old rw create; write f new; fsync f",
        {},
    ],
    "a hard link without a sync": ["link DIR/old DIR/second", {}],
    "a hard link and a sync": ["link DIR/old DIR/second; syncfolder DIR", {"second": "durable"}],
    "a hard link shares its bytes": [
        "link DIR/old DIR/second; syncfolder DIR; open f DIR/second rw; pwrite f 0 DUR; fsync f",
        {"old": "DURable", "second": "DURable"},
    ],
    "a new folder without a sync": ["mkdir DIR/new; syncfolder DIR/new", {}],
    "a new folder, itself not synced": [
        "mkdir DIR/new; open f DIR/new/file rw create; fsync f; syncfolder DIR",
        {"new": None},
    ],
    "a new folder, synced": [
        "mkdir DIR/new; open f DIR/new/file rw create; write f x; fsync f; syncfolder DIR/new; syncfolder DIR",
        {"new": None, "new/file": "x"},
    ],
    "a folder renamed": ["rename DIR/sub DIR/moved; syncfolder DIR",
                         {"sub": ..., "sub/inner": ..., "moved": None, "moved/inner": "durable"}],
    "a folder removed": ["unlink DIR/sub/inner; rmdir DIR/sub; syncfolder DIR", {"sub": ..., "sub/inner": ...}],
    "threads that sync their logs": [
        "threads DIR 4 50; syncfolder DIR",
        {f"log{i}": "0123456789" * 50 for i in range(4)},
    ],
}


class Actor:
    """The program that does what it is told, under the library."""

    def __init__(self, folder):
        self._folder = folder
        self._process = subprocess.Popen(  # pylint: disable=consider-using-with
            [TESTS_BIN / "faultfs_actor"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=folder.environment(),
            text=True,
            encoding="latin-1",
        )

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.kill()

    def do(self, command):
        self._process.stdin.write(command.replace("DIR", str(self._folder.root)) + "\n")
        self._process.stdin.flush()
        return self._process.stdout.readline().rstrip("\n")

    def kill(self):
        self._process.kill()
        self._process.communicate()


def contents(root):
    """{path below root: the file's text, or None for a folder}"""
    return {
        str(path.relative_to(root)): None if path.is_dir() else path.read_bytes().decode("latin-1")
        for path in root.rglob("*")
    }


class FolderTest(unittest.TestCase):
    BEFORE = {"old": "durable", "sub": None, "sub/inner": "durable"}

    def setUp(self):
        self.folder = FaultyFolder()
        self.addCleanup(self.folder.remove)
        self.reset()

    def reset(self):
        shutil.rmtree(self.folder.root)
        self.folder.root.mkdir()
        (self.folder.root / "sub").mkdir()
        for name in ("old", "sub/inner"):
            (self.folder.root / name).write_text("durable")
        self.folder.make_durable()

    def do(self, commands):
        """Each in turn, all of which must go well; then the program is killed."""
        with Actor(self.folder) as actor:
            for command in filter(None, commands.split("; ")):
                self.assertEqual(actor.do(command), "ok", command)


class StrictModelTest(FolderTest):
    def test_what_survives_power_loss(self):
        for name, (commands, changes) in SEQUENCES.items():
            with self.subTest(name):
                self.reset()
                self.do(commands)
                self.folder.lose_power()
                expected = {**self.BEFORE, **changes}
                expected = {path: text for path, text in expected.items() if text is not ...}
                self.assertEqual(contents(self.folder.root), expected)

    def test_a_file_synced_after_the_writer_was_killed(self):
        # No power is lost with the first process: what it wrote is still there, and durable after the next's sync.
        self.do("open f DIR/old rw append; write f +1; fsync f; write f +2")
        self.do("open f DIR/old rw append; write f +3; fsync f")
        self.folder.lose_power()
        self.assertEqual(contents(self.folder.root)["old"], "durable+1+2+3")

    def test_names_and_bytes_last_over_several_losses(self):
        for round_number in range(3):
            self.do(f"open f DIR/{round_number} rw create; write f text; fsync f; syncfolder DIR; rename DIR/old DIR/x")
            self.folder.lose_power()
        self.assertEqual(contents(self.folder.root), {**self.BEFORE, "0": "text", "1": "text", "2": "text"})

    def test_hard_links_stay_links(self):
        self.do("link DIR/old DIR/second; syncfolder DIR")
        self.folder.lose_power()
        self.do("open f DIR/second rw; pwrite f 0 DUR; fsync f")
        self.folder.lose_power()
        self.assertEqual(contents(self.folder.root)["old"], "DURable")

    def test_a_reused_inode_is_another_file(self):
        with Actor(self.folder) as actor:
            self.assertEqual(actor.do("syncfolder DIR"), "ok")
            seen = set()
            for number in range(200):
                for command in ("open f DIR/t rw create", f"write f {number}", "fsync f", "unlink DIR/t", "close f"):
                    self.assertEqual(actor.do(command), "ok")
                    if command.startswith("write"):
                        seen.add((self.folder.root / "t").stat().st_ino)
            self.assertLess(len(seen), 200, "no inode was used twice: the test shows nothing")
            self.assertEqual(actor.do("open f DIR/t rw create"), "ok")
            self.assertEqual(actor.do("syncfolder DIR"), "ok")
        self.folder.lose_power()
        self.assertEqual(contents(self.folder.root)["t"], "")

    def test_unsynced_changes_survive_in_part_by_the_seed(self):
        def after_loss(percent, seed):
            self.reset()
            self.do("open f DIR/old rw; fill f 0 64 a; fsync f; fill f 0 64 b; rename DIR/sub/inner DIR/sub/moved")
            self.folder.lose_power(percent, seed)
            found = contents(self.folder.root)
            text = found["old"]
            self.assertEqual(len(text), 64 * BLOCK)
            pieces = [text[i : i + BLOCK] for i in range(0, len(text), BLOCK)]
            self.assertTrue(all(piece in ("a" * BLOCK, "b" * BLOCK) for piece in pieces))
            self.assertNotEqual("sub/inner" in found, "sub/moved" in found)
            return "".join(piece[0] for piece in pieces), "sub/moved" in found

        self.assertEqual(after_loss(0, 1), ("a" * 64, False))
        self.assertEqual(after_loss(100, 1), ("b" * 64, True))
        halves = [after_loss(50, seed) for seed in (1, 1, 2)]
        self.assertEqual(halves[0], halves[1])
        self.assertNotEqual(halves[0], halves[2])
        self.assertTrue({"a", "b"} == set(halves[0][0]))

    def test_without_an_image_the_process_ends(self):
        shutil.rmtree(pathlib.Path(self.folder.environment()["EPIC_FAULTFS_IMAGE"]))
        done = subprocess.run(
            [TESTS_BIN / "faultfs_actor"],
            input=f"open f {self.folder.root}/old rw trunc\n",
            env=self.folder.environment(),
            capture_output=True,
            text=True,
            check=False,
        )
        self.assertLess(done.returncode, 0)
        self.assertIn("EPIC_FAULTFS_IMAGE must name an existing folder", done.stderr)


class FaultsTest(FolderTest):
    def setUp(self):
        super().setUp()
        self.actor = Actor(self.folder)
        self.addCleanup(self.actor.kill)

    def expect(self, command, outcome):
        self.assertEqual(self.actor.do(command), outcome, command)

    def test_reads_fail_while_they_are_told_to(self):
        self.expect("open f DIR/old read", "ok")
        self.expect("open g DIR/sub/inner read", "ok")
        self.expect("pread f 0 3", "<dur>")
        self.folder.set_faults("read every old")
        self.expect("pread f 0 3", "EIO")
        self.expect("fread DIR/old 3", "EIO")
        self.expect("pread g 0 3", "<dur>")
        self.folder.set_faults("read nth 2 sub/*")
        self.expect("pread f 0 3", "<dur>")
        self.expect("pread g 0 3", "<dur>")
        self.expect("pread g 0 3", "EIO")
        self.expect("pread g 0 3", "<dur>")
        self.folder.set_faults()
        self.expect("fread DIR/sub/inner 3", "<dur>")
        self.assertEqual(self.folder.injected(), [("read", "old"), ("read", "old"), ("read", "sub/inner")])

    def test_the_disk_fills_up_and_has_room_again(self):
        self.folder.set_faults("space 5")
        self.expect("open f DIR/new rw create", "ok")
        self.expect("fallocate f 0 6", "ENOSPC")
        self.expect("ftruncate f 6", "ENOSPC")
        self.expect("writev f abc def", "ENOSPC")
        self.expect("write f abc", "ok")
        self.expect("write f def", "short 2")
        self.expect("write f f", "ENOSPC")
        self.expect("ftruncate f 4", "ok")
        self.folder.set_faults()
        self.expect("write f +more", "ok")
        self.assertEqual({kind for kind, _ in self.folder.injected()}, {"space"})

    def test_the_space_that_is_left_can_be_asked_for(self):
        self.expect("space DIR/sub", "much")
        self.folder.set_faults(f"space {3 * BLOCK}")
        self.expect("space DIR/sub", str(3 * BLOCK))
        self.expect("open f DIR/new rw create", "ok")
        self.expect("fill f 0 1 z", "ok")
        self.expect("space DIR", str(2 * BLOCK))
        self.folder.set_faults()
        self.expect("space DIR", "much")

    def test_what_was_written_before_the_disk_was_full_is_durable(self):
        self.folder.set_faults("space 4")
        self.expect("open f DIR/new rw create", "ok")
        self.expect("write f abcd+more", "short 4")
        self.expect("fsync f", "ok")
        self.expect("syncfolder DIR", "ok")
        self.actor.kill()
        self.folder.lose_power()
        self.assertEqual(contents(self.folder.root)["new"], "abcd")

    def test_what_a_failed_sync_was_for_stays_lost(self):
        self.expect("open f DIR/old rw append", "ok")
        self.expect("write f +1", "ok")
        self.folder.set_faults("sync every old")
        self.expect("fsync f", "EIO")
        self.expect("fdatasync f", "EIO")
        self.expect("syncfolder DIR", "ok")
        self.folder.set_faults()
        self.expect("write f +2", "ok")
        self.expect("fsync f", "ok")
        self.actor.kill()
        self.folder.lose_power()
        self.assertEqual(contents(self.folder.root)["old"], "durable\0\0+2")

    def test_the_sync_of_a_folder_fails(self):
        self.expect("rename DIR/old DIR/moved", "ok")
        self.folder.set_faults("sync nth 1 .")
        self.expect("syncfolder DIR", "EIO")
        self.actor.kill()
        self.folder.lose_power()
        self.assertEqual(contents(self.folder.root), self.BEFORE)

    def test_a_bad_control_file_ends_the_process(self):
        self.folder.set_faults("read evry old")
        self.expect("open f DIR/old read", "ok")
        self.expect("pread f 0 3", "")


if __name__ == "__main__":
    unittest.main()
