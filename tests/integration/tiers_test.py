#!/usr/bin/env python3
"""The tiers of a cache node in running processes: restarts, damaged blocks, pins, leases and options that are none.

Faults of the file system itself are in disk_faults_test.py.
"""

import os
import pathlib
import shutil
import signal
import socket
import threading
import unittest

from epic_harness import (
    BIN,
    MODEL,
    Epic,
    flags,
    free_address,
    prose,
    run,
    wait_listening,
    wait_until,
)
from tiers_harness import LINKER, MIB, CacheNode, TiersTest, fingerprint, stored_blocks

DOCUMENTS = ["north", "south", "east", "west", "middle"]


class Restarts(TiersTest):
    def restart(self, stop):
        """What was registered and copied to disk is answered from disk after `stop` and another start."""
        data = self.folder / self._testMethodName
        self.serve(data)
        self.register(*DOCUMENTS)
        self.node.wait_copied(len(DOCUMENTS))
        before = self.answers(DOCUMENTS)
        self.assertGreaterEqual(self.node.compiled(), len(DOCUMENTS))
        stop()
        self.serve(data)
        # The very first question: nobody has waited for anything.
        self.assertEqual(self.answer("east"), before["east"])
        self.assertEqual(self.answers(DOCUMENTS), before)
        self.assertEqual(self.node.compiled(), 0)
        self.assertEqual(self.node.stats()["adopted_blocks"], len(DOCUMENTS))
        self.assertGreaterEqual(self.node.tier("host")["promotions_total"], len(DOCUMENTS))
        self.assertEqual(self.node.metric('tier_promotions_total{tier="host"}'),
                         self.node.tier("host")["promotions_total"])
        self.epic.wait_idle()
        self.assertEqual(self.process.terminate(), 0, self.process.log)

    def test_a_node_that_was_stopped_comes_back_warm(self):
        def stop():
            self.assertEqual(self.process.terminate(), 0, self.process.log)

        self.restart(stop)

    def test_a_node_that_was_killed_comes_back_warm(self):
        self.restart(lambda: self.process.kill())


class DamagedBlocks(TiersTest):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.data = cls.folder / "data"
        cls.blocks = cls.data / "blocks"

    def setUp(self):
        shutil.rmtree(self.data, ignore_errors=True)
        self.serve(self.data)

    def tearDown(self):
        self.epic.wait_idle()
        self.assertEqual(self.process.terminate(), 0, self.process.log)

    def register_with_keys(self, names):
        """Registers documents; the key of each one's block."""
        keys = {}
        for count, name in enumerate(names, 1):
            self.register(name)
            self.node.wait_copied(count)
            (keys[name],) = set(stored_blocks(self.blocks)) - set(keys.values())
        return keys

    def flip(self, key, at):
        """In every copy of the block that lies about in the segments, so that it is not an old one that is meant."""
        for block in stored_blocks(self.blocks)[key]:
            block.flip(at, bit=abs(at) % 8)

    def test_a_flipped_bit_anywhere_in_a_block_changes_no_answer(self):
        names = DOCUMENTS[:3]
        keys = self.register_with_keys(names)
        before = self.answers(names)
        block = stored_blocks(self.blocks)[keys["south"]][0]
        first = block.header_bytes
        places = {
            "magic": 3, "version": 8, "length of the header": 13, "length of the block": 18, "layers": 32,
            "model": 60, "key": 100, "edition": 155, "tokens": 160, "reserved": 210, "table of groups": 265,
            "token ids": 400, "header checksum": first - 3, "first key": first, "keys": first + 70_001,
            "values": (first + block.block_bytes) // 2 - 9, "last layer": block.block_bytes - 30_000,
            "last byte": -1,
        }
        for number, (what, at) in enumerate(places.items(), 1):
            with self.subTest(what):
                compiled = self.node.compiled()
                self.flip(keys["south"], at)
                self.node.evict_memory()
                self.assertEqual(self.answers(names), before)
                self.assertEqual(self.node.tier("disk")["checksum_failures_total"], number)
                self.assertEqual(self.node.compiled(), compiled + 1)
                self.assertEqual(self.process.log.count(f"chunk {keys['south']} at byte"), number)
                self.node.wait_copied(len(names))  # again, and sound
        self.assertEqual(self.node.metric('tier_checksum_failures_total{tier="disk"}'), len(places))
        self.assertEqual(self.node.metric('tier_evictions_total{tier="disk",cause="damaged"}'), len(places))
        promotions = self.node.tier("host")["promotions_total"]
        self.node.evict_memory()
        compiled = self.node.compiled()
        self.assertEqual(self.answers(names), before)
        self.assertEqual(self.node.compiled(), compiled)
        self.assertGreater(self.node.tier("host")["promotions_total"], promotions)

    def test_memory_that_is_too_small_meets_the_damage_by_itself(self):
        keys = self.register_with_keys(DOCUMENTS)
        before = self.answers(DOCUMENTS)
        for key in keys.values():
            self.flip(key, 100_000)
        for _ in range(2):
            self.assertEqual(self.answers(DOCUMENTS), before)
        # Not all of them fit in memory, so some were asked of the disk.
        self.assertGreater(self.node.tier("disk")["checksum_failures_total"], 0)

    def test_two_blocks_that_changed_places(self):
        keys = self.register_with_keys(DOCUMENTS[:2])
        before = self.answers(DOCUMENTS[:2])
        found = stored_blocks(self.blocks)
        north, south = found[keys["north"]][0], found[keys["south"]][0]
        room = min(north.block_bytes, south.block_bytes)
        pieces = []
        for block in (north, south):
            with open(block.path, "rb") as file:
                file.seek(block.offset)
                pieces.append(file.read(room))
        for block, piece in zip((south, north), pieces):
            with open(block.path, "r+b") as file:
                file.seek(block.offset)
                file.write(piece)
        self.node.evict_memory()
        self.assertEqual(self.answers(DOCUMENTS[:2]), before)
        self.assertEqual(self.node.tier("disk")["checksum_failures_total"], 2)

    def test_verify_finds_bad_blocks_and_drops_them(self):
        keys = self.register_with_keys(DOCUMENTS)
        before = self.answers(DOCUMENTS)
        sound = self.node.run("verify")
        self.assertEqual(sound.code, 0, str(sound))
        bad = [keys["south"], keys["west"]]
        for key in bad:
            self.flip(key, -5)
        found = self.node.run("verify", "--tier", "disk")
        self.assertEqual(found.code, 1, str(found))
        for name, key in keys.items():
            self.assertEqual(key in found.out, key in bad, f"{name} {key}\n{found}")
        self.assertIn("2 of 5 blocks were bad", found.err)
        again = self.node.run("verify")
        self.assertEqual(again.code, 0, str(again))
        self.assertEqual(self.node.tier("disk")["block_count"], len(DOCUMENTS) - 2)
        self.node.evict_memory()
        compiled = self.node.compiled()
        self.assertEqual(self.answers(DOCUMENTS), before)
        self.assertEqual(self.node.compiled(), compiled + 2)
        self.node.wait_copied(len(DOCUMENTS))

    def test_segments_that_are_cut_short_or_gone_at_the_start(self):
        self.register(*DOCUMENTS)
        self.node.wait_copied(len(DOCUMENTS))
        before = self.answers(DOCUMENTS)
        for what, harm in {
            "cut": lambda path: os.truncate(path, 5000),
            "empty": lambda path: os.truncate(path, 0),
            "gone": lambda path: path.unlink(),
            "index": lambda path: shutil.rmtree(path.parent / "index"),
            "format": lambda path: (path.parent / "FORMAT").write_bytes(b"epic-disk-tier 9 0000\n"),
        }.items():
            with self.subTest(what):
                self.process.kill()
                harm(next(iter(sorted(self.blocks.glob("segment-*")))))
                self.serve(self.data)
                self.assertEqual(self.answers(DOCUMENTS), before)
                self.node.wait_copied(len(DOCUMENTS))


class Pins(TiersTest):
    """Memory for two documents."""

    def setUp(self):
        self.data = self.folder / self._testMethodName
        self.serve(self.data, pinned_bytes_max="3MiB")

    def tearDown(self):
        self.epic.wait_idle()
        self.assertEqual(self.node.stats()["pinned_document_count"], 0)
        for tier in self.node.stats()["tiers"]:
            self.assertEqual((tier["pinned_bytes"], tier["pinned_blocks"], tier["lease_count"]), (0, 0, 0), tier)
        self.assertEqual(self.process.terminate(), 0, self.process.log)

    def fill_with_pins(self):
        """Registers five documents and pins them one by one until no more may be: (those, the one that was refused, the
        refusal)."""
        self.register(*DOCUMENTS)
        self.node.wait_copied(len(DOCUMENTS))
        for i, name in enumerate(DOCUMENTS):
            result = self.node.run("pin", name)
            if result.code != 0:
                pinned = DOCUMENTS[:i]
                wait_until(lambda: self.node.tier("host")["pinned_blocks"] == len(pinned), "the pinned are in memory",
                           details=lambda: str(self.node.stats()))
                return pinned, name, result
        self.fail("five documents could be pinned in a memory of two")

    def test_more_than_may_be_pinned(self):
        pinned, extra, refusal = self.fill_with_pins()
        self.assertEqual(len(pinned), 2)
        self.assert_sentence(refusal, "pinned", 3 * MIB)
        stats = self.node.stats()
        self.assertEqual([entry["document_id"] for entry in stats["pinned_documents"]], pinned)
        self.assertLessEqual(self.node.tier("host")["pinned_bytes"], 3 * MIB)
        # Nothing is half-pinned, and room that comes free is given out again.
        self.node.json("unpin", pinned[0])
        self.node.json("pin", extra)
        self.node.json("unpin", extra, *pinned[1:])

    def test_memory_that_is_full_of_pins_fails_no_request(self):
        pinned, other, _ = self.fill_with_pins()
        before = self.answers(pinned)
        # The node has no room for a third, in spite of its copy on disk; the worker compiles it for itself.
        free = self.answer(other)
        for _ in range(2):
            self.assertEqual(self.answers(pinned), before)
            self.assertEqual(self.answer(other), free)
        # A new document finds no room in memory: it is registered, and compiled when there is room.
        late = self.epic.run("register", self.text_of("late"), "--no-wait")
        self.assertEqual(late.code, 0, str(late))
        answer = self.epic.run("ask", "What?", "--doc", "late", "--linker", LINKER, "--max-tokens", "4")
        if answer.code != 0:
            self.assert_sentence(answer, "pinned")
        self.assertEqual(self.answers(pinned), before)
        self.node.json("unpin", *pinned)
        self.epic.wait_ready("late")
        self.assertTrue(self.answer("late"))
        self.assertEqual(self.answers(pinned), before)

    def test_pins_survive_restarts_and_end_with_their_documents(self):
        self.register(*DOCUMENTS)
        self.node.json("pin", "north", "south")
        self.node.wait_copied(len(DOCUMENTS))
        before = self.answers(DOCUMENTS)
        self.process.kill()
        self.serve(self.data, pinned_bytes_max="3MiB")
        # They are brought to memory although nobody asks for them.
        wait_until(lambda: self.node.tier("host")["pinned_blocks"] == 2, "the pinned are in memory",
                   details=lambda: str(self.node.stats()))
        self.assertEqual(self.node.compiled(), 0)
        self.assertEqual(self.answers(DOCUMENTS), before)
        self.assertEqual(self.node.tier("host")["pinned_blocks"], 2)
        kept = self.node.json("evict", "--all", "--tier", "host")["kept_blocks"]
        self.assertEqual(kept, 2)
        self.epic.ok("documents", "delete", "north")
        self.assertEqual(self.node.stats()["pinned_document_count"], 1)
        self.node.json("unpin", "south")
        self.assertEqual(self.node.run("unpin", "north").code, 1)

    def test_documents_that_are_not_there(self):
        for command in ("pin", "unpin", "evict"):
            self.assert_sentence(self.node.run(command, "absent"), 'document "absent" does not exist')


# --- separate processes -----------------------------------------------------------------------------------------------


class Tap:
    """Passes bytes between a worker and its node, and on demand no more than so many from the node to the worker.

    What is held back is passed on when the tap opens again. A connection that one side ends is ended on the other.
    """

    def __init__(self, target):
        host, port = target.rsplit(":", 1)
        self._target = (host, int(port))
        self._changed = threading.Condition()
        self._allowed = None  # bytes to the worker yet; None: any number
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self.held_back = False
        self._start(self._accept)

    @staticmethod
    def _start(function, *arguments):
        threading.Thread(target=function, args=arguments, daemon=True).start()

    def close_after(self, allowed_bytes):
        with self._changed:
            self._allowed, self.held_back = allowed_bytes, False

    def open(self):
        with self._changed:
            self._allowed = None
            self._changed.notify_all()

    def end(self):
        self.open()
        self._listener.shutdown(socket.SHUT_RDWR)  # which ends its accept
        self._listener.close()

    def _accept(self):
        while True:
            try:
                worker, _ = self._listener.accept()
            except OSError:
                return
            self._start(self._serve, worker)

    def _serve(self, worker):
        with worker:
            try:
                node = socket.create_connection(self._target, timeout=10)
            except OSError:
                return
            with node:
                node.settimeout(None)
                to_node = threading.Thread(target=self._pass_on, args=(worker, node, False), daemon=True)
                to_node.start()
                self._pass_on(node, worker, True)
                to_node.join()

    def _pass_on(self, source, target, to_worker):
        try:
            while piece := source.recv(1 << 16):
                if to_worker:
                    self._wait_for(len(piece))
                target.sendall(piece)
        except OSError:
            pass
        for end in (source, target):
            try:
                end.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def _wait_for(self, size):
        with self._changed:
            while self._allowed is not None and self._allowed < size:
                self.held_back = True
                self._changed.wait()
            if self._allowed is not None:
                self._allowed -= size


class SeparateProcesses(TiersTest):
    """A node, a worker that pulls from it through a tap, and a router."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.addresses = {name: free_address() for name in ("node", "worker", "router", "node-metrics")}
        cls.tap = Tap(cls.addresses["node"])
        cls.addClassCleanup(cls.tap.end)
        cls.start_node()
        cls.start_worker()
        cls.router = cls.start("router", BIN / "epic-router", *flags(
            listen=cls.addresses["router"], cache_nodes=cls.addresses["node"], workers=cls.addresses["worker"],
            metrics_listen=""))
        wait_listening(cls.router, cls.addresses["router"])
        cls.epic = Epic(cls.addresses["router"])
        cls.node = CacheNode(cls.addresses["node"], cls.addresses["node-metrics"])
        cls.wait_serving()
        for name in DOCUMENTS[:2]:
            cls.register_large(name)
        cls.node.wait_copied(2)

    @classmethod
    def register_large(cls, name):
        """A document of one chunk that is larger than the worker's cache, so that it is pulled for every request."""
        document = cls.epic.register(cls.write(f"{name}.txt", prose(name, 850).replace(".", "")))
        assert (document["chunks"], document["tokens"] > 4200) == (1, True), document

    @classmethod
    def start_node(cls):
        cls.node_process = cls.start("node", BIN / "epic-cache-node", *flags(
            model=MODEL, data_dir=cls.folder / "data", listen=cls.addresses["node"], advertise=cls.tap.address,
            metrics_listen=cls.addresses["node-metrics"], threads=1, chunk_tokens=4000,
            kv_capacity_bytes="8MiB", disk_capacity_bytes="64MiB"))
        wait_listening(cls.node_process, cls.addresses["node"])

    @classmethod
    def start_worker(cls):
        cls.worker_process = cls.start("worker", BIN / "epic-inference-worker", *flags(
            model=MODEL, listen=cls.addresses["worker"], metrics_listen="", threads=1, worker_cache_bytes="1MiB",
            prefix_cache_bytes=0, shadow_share=0, allow_linkers="all"))
        wait_listening(cls.worker_process, cls.addresses["worker"])

    @classmethod
    def wait_serving(cls):
        wait_until(cls.epic.is_serving, "every member is healthy", details=lambda: cls.epic.run("status"))

    def leases(self):
        return self.node.tier("host")["lease_count"]

    def begin_request(self, name):
        """A question whose worker holds a lease and waits for the block's bytes: (its thread, where its answer goes)."""
        # The worker learns of the lease socket by its first answer.
        self.epic.ask([name], linker=LINKER, tokens=2)
        self.epic.wait_idle()
        self.tap.close_after(100_000)  # the answers to Locate, and less than the block
        answers = []

        def ask():
            answers.append(self.epic.run("ask", "What?", "--doc", name, "--linker", LINKER, "--max-tokens", "4",
                                         "--format", "json"))

        thread = threading.Thread(target=ask, daemon=True)
        thread.start()
        wait_until(lambda: self.tap.held_back and self.leases() > 0, "the worker waits for the block under a lease",
                   details=lambda: str(self.node.stats()))
        return thread, answers

    def end_request(self, thread):
        thread.join(120)
        self.assertFalse(thread.is_alive(), "the question was not answered in time")

    def worker_stands_still(self):
        tasks = pathlib.Path(f"/proc/{self.worker_process.pid}/task").glob("*/stat")
        return all(stat.read_text().rpartition(")")[2].split()[0] == "T" for stat in tasks)

    def test_a_restarted_node_serves_its_worker_from_disk(self):
        names = DOCUMENTS[:2]
        before = {name: self.epic.ask([name], linker=LINKER)["token_ids"] for name in names}
        for stop in (self.node_process.terminate, lambda: self.node_process.kill()):
            stop()
            self.start_node()
            self.wait_serving()
            wait_until(lambda: self.epic.run("ask", "What?", "--doc", "north").code == 0, "the node is asked again")
            self.assertEqual({name: self.epic.ask([name], linker=LINKER)["token_ids"] for name in names}, before)
            self.assertEqual(self.node.compiled(), 0)
            self.assertGreater(self.node.tier("host")["promotions_total"], 0)

    def test_the_leases_of_a_worker_that_is_killed_end_at_once(self):
        before = self.epic.ask(["north"], linker=LINKER, tokens=4)["token_ids"]
        thread, answers = self.begin_request("north")
        self.worker_process.kill()
        wait_until(lambda: self.leases() == 0, "its leases ended", seconds=20,
                   details=lambda: self.node_process.log[-2000:])
        self.assertIn("lease socket was closed", self.node_process.log)
        self.tap.open()
        self.start_worker()
        self.end_request(thread)
        # Whether the router tried again in time or said that nobody is there: it is an answer or a sentence.
        if answers[0].code != 0:
            self.assert_sentence(answers[0], self.addresses["worker"])
        self.wait_serving()
        wait_until(lambda: self.epic.run("ask", "What?").code == 0, "the worker is asked again")
        self.assertEqual(self.epic.ask(["north"], linker=LINKER, tokens=4)["token_ids"], before)
        self.epic.wait_idle()
        self.assertEqual(self.leases(), 0)

    def test_a_worker_that_stands_still_keeps_its_leases(self):
        before = self.epic.ask(["south"], linker=LINKER, tokens=4)["token_ids"]
        thread, answers = self.begin_request("south")
        self.worker_process.signal(signal.SIGSTOP)
        try:
            wait_until(self.worker_stands_still, "all threads of the worker have stopped")
            self.tap.open()
            # Other traffic goes on, and wants room: the block that the worker reads stays.
            for i in range(12):
                self.register_large(f"other{i}")
                self.assertGreater(self.leases(), 0)
            self.node.run("evict", "--all")
            self.assertGreater(self.leases(), 0)
        finally:
            self.worker_process.signal(signal.SIGCONT)
        self.end_request(thread)
        self.assertEqual(answers[0].code, 0, str(answers[0]))
        self.assertEqual(answers[0].json["token_ids"], before)
        self.epic.wait_idle()
        wait_until(lambda: self.leases() == 0, "no lease is left")
        for i in range(12):
            self.epic.ok("documents", "delete", f"other{i}")


class OneOwner(TiersTest):
    """Folders and sockets belong to one node."""

    def setUp(self):
        self.data = self.folder / self._testMethodName / "data"
        self.disk = self.folder / self._testMethodName / "blocks"
        self.socket = self.folder / f"{self._testMethodName[-20:]}.sock"
        self.serve(self.data, disk_dir=self.disk, lease_socket=self.socket)
        self.register("north")
        self.node.wait_copied(1)

    def refuse(self, *parts, **options):
        """A second node with these options does not start, and the first one does not notice."""
        before = self.answer("north")
        node = flags(model=MODEL, listen=free_address(), metrics_listen="", disk_capacity_bytes="64MiB", **options)
        self.assert_sentence(run(BIN / "epic-cache-node", *node), *parts)
        self.node.evict_memory()
        self.assertEqual(self.answer("north"), before)
        self.assertEqual(self.node.tier("disk")["checksum_failures_total"], 0)
        self.assertEqual(self.node.compiled(), 1)
        self.epic.register(self.write("after.txt", prose("after", 30)))
        self.epic.ok("documents", "delete", "after")
        self.epic.wait_idle()
        self.assertEqual(self.process.terminate(), 0, self.process.log)

    def test_the_data_folder(self):
        self.refuse(self.data, "belongs to a running instance", data_dir=self.data)

    def test_the_folder_of_the_disk_tier(self):
        self.refuse(self.disk, "belongs to a running instance", data_dir=self.folder / "second", disk_dir=self.disk)

    def test_the_folder_of_the_copy(self):
        self.refuse("manifest-copy", "belongs to a running instance", data_dir=self.folder / "third",
                    manifest_copy_dir=self.data / "manifest-copy")

    def test_the_lease_socket(self):
        self.refuse(self.socket, "another node listens", data_dir=self.folder / "fourth", lease_socket=self.socket)

    def test_a_socket_that_a_killed_node_left_is_taken_over(self):
        self.process.kill()
        self.assertTrue(self.socket.exists())
        self.serve(self.data, disk_dir=self.disk, lease_socket=self.socket)
        self.answer("north")
        self.epic.wait_idle()
        self.assertEqual(self.process.terminate(), 0, self.process.log)
        self.assertFalse(self.socket.exists())


class Options(TiersTest):
    """Options of the tiers that cannot be: one sentence, and no trace on the disk."""

    def refuse(self, *parts, **options):
        data = self.folder / "refused"
        shutil.rmtree(data, ignore_errors=True)
        node = [BIN / "epic-cache-node", *flags(model=MODEL, data_dir=data, listen=free_address(), metrics_listen="")]
        for name, value in options.items():
            node += ["--" + name.replace("_", "-")] + ([] if value is True else [value])
        self.assert_sentence(run(*node), *parts)
        return data

    def assert_nothing_is_left(self, data):
        left = [str(path) for path in pathlib.Path(data).rglob("*")] if data.exists() else []
        self.assertEqual(left, [])

    def test_values_that_are_none(self):
        for parts, options in (
            (["kv-dtype", "int9", "bf16, fp16", "int8"], {"kv_dtype": "int9"}),
            (["disk-kv-dtype", "int9", "bf16, fp16", "int8"], {"disk_kv_dtype": "int9"}),
            (["eviction", "mru", "cost-aware", "lru"], {"eviction_policy": "mru"}),
            (["disk-capacity-bytes", "5", 16 * MIB], {"disk_capacity_bytes": "5"}),
            (["pinned-bytes-max", 2 * MIB, "kv-capacity-bytes", MIB],
             {"pinned_bytes_max": "2MiB", "kv_capacity_bytes": "1MiB", "chunk_tokens": 512}),
            (["lease-socket-uids", "root"], {"lease_socket_uids": "root"}),
            (["lease-socket", 300, 107], {"lease_socket": "/" + "x" * 299}),
        ):
            with self.subTest(list(options)):
                self.assert_nothing_is_left(self.refuse(*parts, **options))

    def test_options_that_cannot_be_parsed(self):
        for option, value in (("disk-capacity-bytes", "lots"), ("pinned-bytes-max", "-1"), ("lock-memory", "maybe")):
            with self.subTest(option):
                result = run(BIN / "epic-cache-node", "--model", MODEL, "--data-dir", self.folder / "refused",
                             f"--{option}={value}")
                self.assertIn(result.code, (1, 2), str(result))
                self.assertIn(option, result.err)
                self.assertIn(value, result.err)

    def test_a_file_in_the_place_of_a_folder(self):
        file = self.write("file", b"in the way")
        for option in ("disk_dir", "manifest_copy_dir"):
            with self.subTest(option):
                self.refuse(file, **{option: file})
                self.refuse(file, **{option: file / "below"})
                self.assertEqual(file.read_bytes(), b"in the way")

    def test_a_file_in_the_place_of_the_lease_socket(self):
        file = self.write("no.sock", b"in the way")
        self.refuse(file, "no socket", lease_socket=file)
        self.assertEqual(file.read_bytes(), b"in the way")
        self.refuse(self.folder / "nowhere" / "x.sock", "No such file", lease_socket=self.folder / "nowhere" / "x.sock")

    def test_the_manifest_and_its_copy_in_one_folder(self):
        data = self.folder / "refused"
        self.refuse("manifest", "same or one lies in the other", manifest_copy_dir=data / "manifest")
        self.refuse("manifest", "same or one lies in the other", manifest_copy_dir=data / "manifest" / "copy")

    def test_huge_pages_that_are_not_there(self):
        reserved = pathlib.Path("/proc/sys/vm/nr_hugepages")
        if not reserved.exists() or int(reserved.read_text()) > 0:
            self.skipTest("this system has huge pages set aside")
        self.refuse("huge pages", reserved_huge_pages=True)

    def test_a_start_that_was_refused_leaves_a_folder_of_documents_as_it_was(self):
        data = self.folder / "kept"
        self.serve(data)
        self.register("north")
        self.node.wait_copied(1)
        self.assertEqual(self.process.terminate(), 0, self.process.log)
        before = fingerprint(data)
        for options in ({"kv_dtype": "int9"}, {"disk_capacity_bytes": "5"}, {"lease_socket": "/" + "x" * 299}):
            with self.subTest(list(options)):
                self.assert_sentence(self.refuse_to_serve(data, **options))
                self.assertEqual(fingerprint(data), before)


class Encodings(TiersTest):
    """Memory and disk in encodings of their own, and a disk that was written by another start's."""

    def test_a_disk_in_another_encoding_is_read(self):
        data = self.folder / "data"
        self.serve(data, disk_kv_dtype="int8")
        self.register(*DOCUMENTS[:2])
        self.node.wait_copied(2)
        self.assertEqual([tier["dtype"] for tier in self.node.stats()["tiers"]], ["bf16", "int8"])
        self.node.evict_memory()
        from_disk = self.answers(DOCUMENTS[:2])
        compiled = self.node.compiled()
        self.assertEqual(self.process.terminate(), 0, self.process.log)
        for memory, disk in (("bf16", "bf16"), ("bf16", "fp16"), ("bf16", "int8")):
            with self.subTest(f"{memory} {disk}"):
                self.serve(data, kv_dtype=memory, disk_kv_dtype=disk)
                self.assertEqual(self.answers(DOCUMENTS[:2]), from_disk)
                self.assertEqual(self.node.compiled(), 0)
                self.assertEqual(self.process.terminate(), 0, self.process.log)
        self.assertEqual(compiled, 2)


if __name__ == "__main__":
    unittest.main(verbosity=2)
