#!/usr/bin/env python3
"""Disks that fail, fill up and lose what was not synced, under a running `epic up`: the manifest, its copy and the disk
tier.

The faults come from tests/faultfs, from edited files, and from a file system of a limited size.
"""

import os
import pathlib
import shutil
import subprocess
import sys
import unittest

import grpc_wire as wire
from epic_harness import wait_until
from tiers_harness import MIB, TiersTest, fingerprint, fresh_copy

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "faultfs"))

from faultfs import FaultyFolder  # pylint: disable=wrong-import-position

RESOURCE_EXHAUSTED = 8
NAMES = ["north", "south", "east"]
# A disk that is fuller than this takes no new documents, in these tests.
FREE_MIN = 8 * MIB


class DiskFaultsTest(TiersTest):
    def serve_on(self, disk, **options):
        """`epic up` in the folder `data` of a FaultyFolder."""
        self.data = disk.root / "data"
        self.serve(self.data, disk.prefix(), **options)

    def faulty_folder(self):
        disk = FaultyFolder()
        self.addCleanup(disk.remove)
        # Before the folder goes, its processes must.
        self.addCleanup(lambda: self.process.kill())
        return disk

    def register_code(self, name):
        """(code, sentence) of a registration on the wire."""
        text = self.text_of(name).read_text()
        request = wire.message((2, name), (3, text))
        reply = wire.call(self.epic.server, "epic.v1.DocumentService/CreateDocument", request)
        return reply.code, reply.sentence

    def assert_alive(self):
        self.assertIsNone(self.process.code, self.process.log[-4000:])


class DamagedManifest(DiskFaultsTest):
    """Files of the manifest that were changed, cut or taken away while the node did not run."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.original = cls.folder / "original"
        cls.data = cls.folder / "data"

    def setUp(self):
        if self.original.exists():
            return
        # Several starts with changes between them, so that there are tables beside the log.
        self.serve(self.original)
        self.register("north", "gone")
        self.node.json("pin", "north")
        self.epic.ok("documents", "delete", "gone")
        self.process.terminate()
        self.serve(self.original)
        self.register("south")
        self.process.kill()
        self.serve(self.original)
        self.register("east")
        self.node.wait_copied(len(NAMES))
        type(self).expected = self.answers(NAMES)
        self.process.kill()

    def files(self):
        """Names of the files that a copy of the manifest consists of, without the logs of what RocksDB did."""
        skipped = ("LOCK", "LOG", "OPTIONS-", "IDENTITY")
        return sorted(p.name for p in (self.original / "manifest").iterdir() if not p.name.startswith(skipped))

    HARMS = {
        "a bit in the middle": lambda path: DamagedManifest.flip(path, path.stat().st_size // 2),
        "its first byte": lambda path: DamagedManifest.flip(path, 0),
        "half of it": lambda path: os.truncate(path, path.stat().st_size // 2),
        "all of it": lambda path: os.truncate(path, 0),
        "the file": lambda path: path.unlink(),
    }

    @staticmethod
    def flip(path, at):
        data = bytearray(path.read_bytes())
        data[at] ^= 0x10
        path.write_bytes(bytes(data))

    def assert_whole(self):
        self.assertEqual(sorted(self.epic.documents()), sorted(NAMES))
        self.assertEqual(self.node.stats()["pinned_document_count"], 1)
        self.assertEqual(self.answers(NAMES), self.expected)
        self.assertEqual(self.node.compiled(), 0)
        for name in NAMES:
            self.assertEqual(self.epic.document(name, "--text")["text"], self.text_of(name).read_text())

    def test_one_copy_is_repaired_from_the_other(self):
        """Every kind of file, every kind of harm; the copies take turns."""
        files = self.files()
        kinds = {pathlib.Path(name).suffix or name.split("-")[0] for name in files}
        self.assertLessEqual({".sst", ".log", "MANIFEST", "CURRENT"}, kinds, files)
        turn = 0
        for what, harm in self.HARMS.items():
            for name in files:
                turn += 1
                copy = ("manifest", "manifest-copy")[turn % 2]
                with self.subTest(f"{what} of {copy}/{name}"):
                    data = fresh_copy(self.original, self.data)
                    path = data / copy / name
                    if not path.exists():
                        continue  # the copies number their files each for itself
                    before = path.stat().st_size
                    harm(path)
                    self.serve(data)
                    self.assertEqual(sorted(self.epic.documents()), sorted(NAMES))
                    self.assertEqual(self.answer("south"), self.expected["south"])
                    # An empty log and the like are as good as none.
                    if before > 0 and self.node.metric("manifest_repairs_total") > 0:
                        self.assertIn(str(data / copy), self.process.log)
                        self.assertIn(f"{copy}.damaged", self.process.log + str(list(data.iterdir())))
                    self.process.kill()

    def test_the_log_names_the_file(self):
        table = next(name for name in self.files() if name.endswith(".sst"))
        for copy, name in (("manifest", table), ("manifest-copy", "CURRENT"), ("manifest", "CURRENT")):
            with self.subTest(f"{copy}/{name}"):
                data = fresh_copy(self.original, self.data)
                self.flip(data / copy / name, 30 if name == table else 2)
                self.serve(data)
                self.assertGreater(self.node.metric("manifest_repairs_total"), 0)
                self.assertIn(f"{copy}/{name}", self.process.log)
                self.assertTrue((data / f"{copy}.damaged" / name).exists())
                self.assert_whole()
                self.assertEqual(self.process.terminate(), 0)
                # Only once: what was repaired is sound.
                self.serve(data)
                self.assertEqual(self.node.metric("manifest_repairs_total"), 0)
                self.assert_whole()
                self.assertEqual(self.process.terminate(), 0)

    def test_a_copy_that_is_gone_is_made_again(self):
        for copy in ("manifest", "manifest-copy"):
            with self.subTest(copy):
                data = fresh_copy(self.original, self.data)
                shutil.rmtree(data / copy)
                self.serve(data)
                self.assertIn(str(data / copy), self.process.log)
                self.assert_whole()
                self.assertEqual(self.process.terminate(), 0)

    def test_both_copies_damaged_are_refused_and_left_alone(self):
        table = next(name for name in self.files() if name.endswith(".sst"))
        for name in (table, "CURRENT"):
            with self.subTest(name):
                data = fresh_copy(self.original, self.data)
                for copy in ("manifest", "manifest-copy"):
                    path = next(iter((data / copy).glob("*.sst"))) if name == table else data / copy / name
                    self.flip(path, 30 if name == table else 2)
                before = fingerprint(data)
                self.assert_sentence(self.refuse_to_serve(data), data / "manifest", data / "manifest-copy")
                self.assertEqual(fingerprint(data), before)


class ReadErrors(DiskFaultsTest):
    def setUp(self):
        self.disk = self.faulty_folder()
        self.serve_on(self.disk)

    def test_segments_that_cannot_be_read(self):
        self.register(*NAMES)
        self.node.wait_copied(len(NAMES))
        before = self.answers(NAMES)
        self.node.evict_memory()
        compiled = self.node.compiled()
        self.disk.set_faults("read every data/blocks/segment-*")
        self.assertEqual(self.answers(NAMES), before)
        self.assertEqual(self.node.tier("disk")["read_errors_total"], len(NAMES))
        self.assertEqual(self.node.metric('tier_evictions_total{tier="disk",cause="unreadable"}'), len(NAMES))
        self.assertEqual(self.node.compiled(), compiled + len(NAMES))
        self.assertIn("Input/output error", self.process.log)
        self.disk.set_faults()
        self.node.wait_copied(len(NAMES))  # they were written again
        self.node.evict_memory()
        self.assertEqual(self.answers(NAMES), before)
        self.assertEqual(self.node.tier("disk")["read_errors_total"], len(NAMES))
        self.assertEqual(self.node.compiled(), compiled + len(NAMES))

    def test_a_manifest_whose_first_copy_cannot_be_read(self):
        self.register("north")
        # Its text is longer than what a start reads of the manifest for other reasons.
        long = self.epic.register(self.text_of("long", 2500))
        self.node.wait_copied(1 + long["chunks"])
        before = self.answers(["north"])
        self.assertEqual(self.process.terminate(), 0, self.process.log)
        # While it runs: tables of the first copy fail. (The start before has written them.)
        self.serve_on(self.disk)
        self.disk.set_faults("read every data/manifest/*.sst")
        self.assertEqual(sorted(self.epic.documents()), ["long", "north"])
        self.assertEqual(self.epic.document("long", "--text")["text"], self.text_of("long", 2500).read_text())
        self.assertEqual(self.answers(["north"]), before)
        # RocksDB may have had them in memory.
        if [path for _, path in self.disk.injected() if path.startswith("data/manifest/")]:
            self.assertGreater(self.node.metric("manifest_reads_from_copy_total"), 0)
        self.process.kill()
        # At the start, from a disk on which nothing can be read: it says so, and leaves the copy alone.
        copy = fingerprint(self.data / "manifest-copy")
        refusal = self.refuse_to_serve(self.data, self.disk.prefix())
        self.assert_sentence(refusal, self.data / "manifest", "check the disks")
        self.assertEqual(fingerprint(self.data / "manifest-copy"), copy)
        # From a disk of which one piece cannot be read: the copy takes over, and the node says which file it was.
        self.disk.set_faults("read nth 2 data/manifest/*.sst")
        self.serve_on(self.disk)
        self.assertIn(str(self.data / "manifest"), self.process.log)
        self.assertIn("Input/output error", self.process.log)
        self.assertGreater(self.node.metric("manifest_repairs_total"), 0)
        self.assertEqual(sorted(self.epic.documents()), ["long", "north"])
        self.assertEqual(self.answers(["north"]), before)
        self.assertEqual(self.node.compiled(), 0)

    def test_a_manifest_that_cannot_be_synced(self):
        for file in ("data/manifest/*.log", "data/manifest-copy/*.log"):
            with self.subTest(file):
                suffix = "copy" if "copy" in file else "first"
                self.register(f"kept-{suffix}")
                self.node.wait_copied(len(self.epic.documents()))
                before = self.answers([f"kept-{suffix}"])
                known = set(self.epic.documents())
                self.disk.set_faults(f"sync every {file}")
                code, sentence = self.register_code(f"refused-{suffix}")
                self.assertEqual(code, wire.UNAVAILABLE, sentence)
                self.assertIn(str(self.data / "manifest"), sentence)
                self.disk.set_faults()
                # Nobody knows what the failed sync has left: the sentence says what to do.
                result = self.refused(f"late-{suffix}")
                self.assert_sentence(result, "takes no changes", "restart the node")
                for command in (["pin"], ["unpin"]):
                    self.assertEqual(self.node.run(*command, f"kept-{suffix}").code, 1)
                self.assertEqual(self.epic.run("documents", "delete", f"kept-{suffix}").code, 1)
                # Questions and listings go on, from memory and from disk.
                self.node.evict_memory()
                self.assertEqual(self.answers([f"kept-{suffix}"]), before)
                self.assertLessEqual(known, set(self.epic.documents()))
                self.process.kill()
                self.disk.lose_power()
                self.serve_on(self.disk)
                found = set(self.epic.documents())
                self.assertLessEqual(known, found)
                self.assertNotIn(f"late-{suffix}", found)
                self.assertLessEqual(found - known, {f"refused-{suffix}"})
                self.assertEqual(self.answers([f"kept-{suffix}"]), before)


class FullDisk(DiskFaultsTest):
    """A disk that is full by the fault injection, or for true."""

    options = {"disk_free_bytes_min": FREE_MIN}

    def check_refusals(self, before, fill, free):
        """`fill()` leaves less than FREE_MIN; `free()` gives the room back."""
        self.assertEqual(self.node.run("unpin", "north").code, 0)
        fill()
        code, sentence = self.register_code("refused")
        self.assertEqual(code, RESOURCE_EXHAUSTED, sentence)
        self.assertRegex(sentence, rf"the disk of \S*manifest\S* has \d+ bytes free, expected at least {FREE_MIN}")
        self.assertNotIn("refused", self.epic.documents())
        # Questions, pins and deletions go on.
        self.assertEqual(self.answers(before), before)
        self.node.json("pin", "north")
        self.node.json("unpin", "north")
        self.epic.ok("documents", "delete", "doomed")
        self.assertNotIn("doomed", self.epic.documents())
        free()
        # Without a restart.
        self.register("late")
        self.assertEqual(self.answers(before), before)
        self.assert_alive()

    def test_a_disk_that_is_nearly_full_by_injection(self):
        disk = self.faulty_folder()
        self.serve_on(disk)
        self.register(*NAMES, "doomed")
        self.node.wait_copied(len(NAMES) + 1)
        before = self.answers(NAMES)
        self.check_refusals(before, lambda: disk.set_faults(f"space {FREE_MIN - MIB}"), disk.set_faults)
        self.node.wait_copied(len(NAMES) + 1)

    def serve_without_a_byte(self):
        """A node with documents on a disk that takes no byte more; (the disk, what was answered before)."""
        disk = self.faulty_folder()
        self.serve_on(disk)
        self.register(*NAMES)
        self.node.wait_copied(len(NAMES))
        before = self.answers(NAMES)
        disk.set_faults("space 0")
        return disk, before

    def test_a_disk_without_a_byte(self):
        disk, before = self.serve_without_a_byte()
        self.assertEqual(self.register_code("refused")[0], RESOURCE_EXHAUSTED)
        self.node.evict_memory()
        self.assertEqual(self.answers(NAMES), before)
        # Dropped blocks are erased from the index, which has no room for that either.
        self.node.json("evict", "--all")
        self.assertEqual(self.answers(NAMES), before)
        self.assert_alive()
        disk.set_faults()
        self.register("late")
        self.assertEqual(self.answers(NAMES), before)
        self.process.kill()
        disk.lose_power()
        self.serve_on(disk)
        self.assertEqual(set(self.epic.documents()), {*NAMES, "late"})
        self.assertEqual(self.answers(NAMES), before)

    def test_changes_that_a_disk_without_a_byte_cannot_take(self):
        disk, before = self.serve_without_a_byte()
        for attempt in (("documents", "delete", "east"), ("documents", "delete", "south")):
            self.assert_sentence(self.epic.run(*attempt), self.data / "manifest", "No space left")
        self.assert_sentence(self.node.run("pin", "north"), self.data / "manifest")
        self.assertEqual(self.node.stats()["pinned_document_count"], 0)
        self.node.run("compact")
        self.assert_alive()
        self.assertEqual(self.answers(NAMES), before)
        disk.set_faults()
        self.assertEqual(self.answers(NAMES), before)
        self.assert_alive()
        self.process.kill()
        disk.lose_power()
        self.serve_on(disk)
        # Not acknowledged, so either is right; but nothing else is gone.
        self.assertLessEqual({"north", "south"}, set(self.epic.documents()))
        self.register("late")

    def test_a_start_on_a_disk_without_a_byte(self):
        disk, before = self.serve_without_a_byte()
        self.process.kill()
        known = fingerprint(self.data / "manifest-copy")
        result = self.refuse_to_serve(self.data, disk.prefix())
        self.assert_sentence(result, self.data)
        self.assertGreater(len(known), 0)
        disk.set_faults()
        self.serve_on(disk)
        self.assertEqual(self.answers(NAMES), before)
        self.register("late")

    def limited_disk(self, size_mib):
        """A file system of that size, or the test is skipped."""
        folder = self.folder / f"disk-{self._testMethodName}"
        folder.mkdir()
        mount = ["mount", "-t", "tmpfs", "-o", f"size={size_mib}m", "epic-test", str(folder)]
        if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode != 0:
            self.skipTest("mounting a file system of a limited size needs root and the right to mount")

        def unmount():
            self.process.kill()
            subprocess.run(["umount", str(folder)], check=True)

        self.addCleanup(unmount)
        return folder

    @staticmethod
    def fill(path, free_bytes):
        """A file that leaves so many bytes of its file system."""
        status = os.statvfs(path.parent)
        with open(path, "wb") as file:
            os.posix_fallocate(file.fileno(), 0, status.f_bavail * status.f_frsize - free_bytes)

    def test_a_disk_that_is_full(self):
        folder = self.limited_disk(112)
        ballast = folder / "ballast"
        self.serve(folder / "data", disk_capacity_bytes="256MiB")
        # More documents than the disk has room for: it stays below its limit, and the tier says so.
        names = [f"document-{i}" for i in range(44)]
        for name in names:
            self.register(name)
        wait_until(lambda: self.node.tier("disk")["queue_length"] == 0, "nothing waits for the disk")
        disk = self.node.tier("disk")
        self.assertLess(disk["block_count"], len(names))
        self.assertGreater(disk["block_count"], 4)
        self.assertGreater(self.node.metric("tier_no_space_total"), 0)
        status = os.statvfs(folder)
        self.assertGreaterEqual(status.f_bavail * status.f_frsize, FREE_MIN - MIB)
        before = self.answers(names)
        self.assertEqual(self.answers(names), before)
        for name in ("north", "doomed"):
            self.register(name)
        self.check_refusals(before, lambda: self.fill(ballast, FREE_MIN // 4), ballast.unlink)
        # And without a byte left: nothing ends the process, and no answer changes.
        self.fill(ballast, 0)
        self.assertEqual(self.register_code("refused")[0], RESOURCE_EXHAUSTED)
        self.node.run("evict", "--all")
        self.assertEqual(self.answers(names[:8]), {name: before[name] for name in names[:8]})
        self.assert_alive()
        ballast.unlink()
        self.register("last")
        self.assertEqual(self.process.terminate(), 0, self.process.log)
        self.serve(folder / "data", disk_capacity_bytes="256MiB")
        self.assertLessEqual({*names, "late", "last", "north"}, set(self.epic.documents()))
        self.assertEqual(self.answers(names[:8]), {name: before[name] for name in names[:8]})

    def test_compacting_on_a_full_disk_does_no_harm(self):
        folder = self.limited_disk(112)
        ballast = folder / "ballast"
        self.serve(folder / "data")
        self.register(*NAMES)
        self.node.wait_copied(len(NAMES))
        before = self.answers(NAMES)
        self.fill(ballast, 0)
        self.assert_sentence(self.node.run("compact"), folder / "data" / "manifest", "free some space")
        self.assertEqual(self.answers(NAMES), before)
        ballast.unlink()
        # As the operators' page advises: without a restart.
        self.epic.ok("documents", "delete", "east")
        self.node.json("compact")
        self.register("late")
        self.assert_alive()


class PowerLoss(DiskFaultsTest):
    """What was acknowledged survives; what the disk tier holds afterwards is sound, or dropped."""

    options = {"kv_capacity_bytes": "16MiB", "pinned_bytes_max": "16MiB"}

    def test_documents_pins_and_blocks(self):
        disk = self.faulty_folder()
        self.serve_on(disk)
        answers, pinned, registered = {}, set(), []
        for round_number in range(5):
            for name in (f"kept-{round_number}", f"deleted-{round_number}"):
                self.register(name)
                registered.append(name)
                answers[name] = self.answer(name)
            kept, deleted = registered[-2:]
            if round_number % 2 == 0:
                self.node.json("pin", kept)
                pinned.add(kept)
            if round_number == 2:
                self.node.json("unpin", "kept-0")
                pinned.discard("kept-0")
            self.node.json("pin", deleted)
            self.epic.ok("documents", "delete", deleted)
            registered.remove(deleted)
            if round_number != 3:
                self.node.wait_copied(len(registered))  # else it is lost while it copies
            self.process.kill()
            # Nothing unsynced survives, or some of it in pieces.
            disk.lose_power(survive_percent=(0, 50, 90, 50, 20)[round_number], seed=round_number)
            self.serve_on(disk)
            self.assertEqual(set(self.epic.documents()), set(registered))
            self.assertEqual({pin["document_id"] for pin in self.node.stats()["pinned_documents"]}, pinned)
            verified = self.node.run("verify")
            self.assertIn(verified.code, (0, 1), str(verified))
            self.assertEqual(self.answers(registered), {name: answers[name] for name in registered})
            self.assertEqual(self.node.run("verify").code, 0)
            self.epic.wait_idle()


if __name__ == "__main__":
    unittest.main(verbosity=2)
