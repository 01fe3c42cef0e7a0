#!/usr/bin/env python3
"""Clients that go away in the middle: the work stops, what it held is given back, and the next client is served."""

import signal
import threading
import unittest

import grpc_wire as wire
from epic_harness import BIN, Process, flags, prose, wait_until
from processes_test import ClusterTest
from wire_test import GENERATE, WATCH, chat, document, text

# Far more tokens than a test would wait for; the answer does not end at an end of turn.
ENDLESS = (6, wire.message((5, 7000), (7, 1)))


class Cancellation(ClusterTest):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.start_cluster(nodes=1, workers=1)
        cls.epic.register(cls.write("known.txt", prose("known", 300)))

    def tearDown(self):
        self.epic.wait_idle()
        self.assertEqual(self.epic.metric("epic_cache_node_leases", self.metrics["node0"]), 0)
        self.assertEqual(self.epic.metric("epic_worker_cache_leases", self.metrics["worker0"]), 0)
        self.epic.ask(["known"], tokens=2)

    def generated(self):
        return self.epic.metric('epic_worker_tokens_total{kind="generated"}', self.metrics["worker0"])

    def cancelled(self):
        """Requests that ended as cancelled, at the router and at the worker."""
        return (
            self.epic.metric('epic_router_requests_total{code="CANCELLED"}'),
            self.epic.metric('epic_worker_requests_total{code="CANCELLED"}', self.metrics["worker0"]),
        )

    def wait_cancelled(self, before, count):
        wait_until(
            lambda: self.cancelled() == (before[0] + count, before[1] + count),
            f"{count} requests ended as cancelled",
            details=lambda: f"before {before}, now {self.cancelled()}",
        )

    def ask_and_leave(self, tokens_read=3):
        """Reads the first tokens of an endless answer and hangs up."""
        seen = []

        def enough(message):
            seen.append(message)
            return len(seen) < tokens_read

        body = chat(document("known"), text("What?"), more=[ENDLESS])
        self.assertIsNone(wire.call(self.epic.server, GENERATE, body, on_message=enough))
        self.assertEqual(len(seen), tokens_read)

    def test_a_connection_that_breaks_during_the_answer(self):
        before = self.cancelled()
        self.ask_and_leave()
        self.wait_cancelled(before, 1)
        self.epic.wait_idle()

    def test_many_at_once(self):
        before = self.cancelled()
        threads = [threading.Thread(target=self.ask_and_leave) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(120)
            self.assertFalse(thread.is_alive())
        self.wait_cancelled(before, len(threads))

    def test_a_command_that_is_killed(self):
        before = self.cancelled()
        question = flags(doc="known", max_tokens=7000, temperature=2, server=self.epic.server)
        command = Process("ask", [BIN / "epic", "ask", "What?", *question], self.folder / "ask.out")
        self.processes.append(command)
        # Its answer may have come to an end by itself under this model; then it left nothing to cancel.
        wait_until(lambda: command.log or command.code is not None, "the answer begins")
        command.signal(signal.SIGKILL)
        command.wait()
        self.epic.wait_idle()
        self.assertLessEqual(self.cancelled()[1], before[1] + 1)

    def test_a_deadline_in_the_middle_of_the_answer(self):
        body = chat(document("known"), text("What?"), more=[ENDLESS])
        reply = wire.call(self.epic.server, GENERATE, body, timeout_header="300m")
        self.assertEqual(reply.code, wire.DEADLINE_EXCEEDED, reply)
        self.epic.wait_idle()
        # Nobody goes on generating for a client whose time is over.
        tokens = self.generated()
        self.epic.state()
        self.assertEqual(self.generated(), tokens)

    def test_a_watcher_that_goes_away(self):
        self.epic.ok("register", self.write("long.txt", prose("long", 6000)), "--no-wait")
        self.assertIsNone(
            wire.call(self.epic.server, WATCH, wire.message((2, "long")), on_message=lambda message: False)
        )
        self.epic.wait_ready("long")
        self.epic.ok("documents", "delete", "long")

    def test_a_document_that_is_deleted_while_it_is_watched(self):
        self.epic.ok("register", self.write("short-lived.txt", prose("short-lived", 20000)), "--no-wait")
        deleted = []

        def delete_once(message):
            if not deleted:
                deleted.append(self.epic.ok("documents", "delete", "short-lived"))
            return True

        reply = wire.call(self.epic.server, WATCH, wire.message((2, "short-lived")), on_message=delete_once)
        self.assertEqual(reply.code, wire.NOT_FOUND, reply)
        self.assertIn("short-lived", reply.sentence)


if __name__ == "__main__":
    unittest.main(verbosity=2)
