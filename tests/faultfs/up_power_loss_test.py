#!/usr/bin/env python3
"""The real `epic up` on a disk that loses what was not synced and fails: what was acknowledged is there afterwards."""

import pathlib
import sys
import unittest

from faultfs import FaultyFolder

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "integration"))

import epic_harness as harness  # pylint: disable=wrong-import-position


class UpTest(harness.EpicTest):
    def setUp(self):
        self.disk = FaultyFolder()
        self.addCleanup(self.disk.remove)
        self.data = self.disk.root / "data"
        self.serve()

    def serve(self):
        address, metrics = harness.free_address(), harness.free_address()
        command = [*self.disk.prefix(), *harness.up_arguments(address, metrics, self.data)]
        self.process = self.start("up", *command)
        harness.wait_listening(self.process, address)
        self.epic = harness.Epic(address, metrics)
        harness.wait_until(self.epic.is_serving, "it is healthy", details=lambda: self.process.log[-4000:])

    def register(self, name):
        return self.epic.register(self.write(f"{name}.txt", harness.prose(name, 60)))

    def test_acknowledged_registrations_and_deletions_survive_power_loss(self):
        for round_number in range(3):
            for name in ("kept", "deleted"):
                self.register(f"{name}-{round_number}")
            self.epic.ok("documents", "delete", f"deleted-{round_number}")
            self.process.kill()
            self.disk.lose_power()
            self.serve()
            self.assertEqual(set(self.epic.documents()), {f"kept-{i}" for i in range(round_number + 1)})
        self.epic.wait_ready("kept-0")
        self.assertTrue(self.epic.ask(["kept-0"])["token_ids"])

    def test_a_registration_that_cannot_be_synced_is_refused(self):
        self.register("before")
        self.disk.set_faults("sync every *.log")
        refused = self.epic.run("register", self.write("refused.txt", harness.prose("refused", 60)))
        self.assertEqual(refused.code, 1, str(refused))
        self.assertTrue(self.disk.injected())
        self.assertEqual(set(self.epic.documents()), {"before"})
        self.disk.set_faults()
        self.process.kill()
        self.disk.lose_power()
        self.serve()
        self.assertEqual(set(self.epic.documents()), {"before"})

    def test_a_manifest_that_cannot_be_read_is_named(self):
        self.register("before")
        self.process.kill()
        self.disk.set_faults("read every *.log")
        command = harness.up_arguments(harness.free_address(), harness.free_address(), self.data)
        refused = harness.run(*self.disk.prefix(), *command)
        self.assertEqual(refused.code, 1, str(refused))
        self.assertIn(str(self.data / "manifest"), refused.err)
        self.assertIn("Input/output error", refused.err)
        self.disk.set_faults()
        self.serve()
        self.assertEqual(set(self.epic.documents()), {"before"})


if __name__ == "__main__":
    unittest.main()
