#!/usr/bin/env python3
"""Kills EPIC without warning, again and again, and checks after each restart that it kept its word.

    tests/durability/kill_rounds.py [--rounds N] [--seed S] [--bin DIR] [--model PATH] [--keep]

A round: EPIC serves from tiers that are too small for its documents, so that blocks leave memory and disk and come
back. Two writers register documents (some with text in common, some with a time to live), delete, pin and unpin them, empty
the memory and compact the manifest; beside them questions are asked. Every operation stands in a journal, synced,
before it is sent and after it was acknowledged. At a moment drawn from the seed (inside an operation, right behind its
acknowledgement, while documents compile, or when nothing is under way) the process gets SIGKILL. In every other round
`epic cache verify --offline` then looks at its folder. It is started again on the same folder, and then must hold:

  - every acknowledged registration is there, with its text, tokens and time to live, and becomes READY;
  - every acknowledged deletion is gone, and so is what has expired;
  - what was pinned is pinned and in memory, and nothing else is pinned;
  - each operation that was under way was done wholly or not at all, and can be repeated;
  - no more chunks are compiled than were missing on disk; a question over chunks that a tier holds compiles none;
  - no tier holds a block without a document, or a bad one, and no lease is left;
  - greedy answers are token by token what they were before, wherever they must be: see `must_be_the_same`.

Every other round kills `epic up`; the rounds between kill the cache node of an EPIC out of three processes, whose
router and worker stay. Documents live on from round to round. At the end everything is deleted: both tiers must be
empty, and empty after one more kill. Exit code 0 only where every round held.
"""

import argparse
import json
import os
import pathlib
import random
import shutil
import sys
import tempfile
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "integration"))

import epic_harness as harness  # pylint: disable=wrong-import-position
import grpc_wire as wire  # pylint: disable=wrong-import-position
import store_client as store  # pylint: disable=wrong-import-position
from store_client import Broken, Document, wait_for  # pylint: disable=wrong-import-position

WRITERS = "ab"
LASTING_SLOTS = 9  # documents of a writer that stay until they are deleted
PASSING_SLOTS = 3  # documents of a writer that have a time to live
TTLS_MS = (200, 1000, 60000)
RECIPES = ("plain", "plain", "document", "")  # the last one is the node's default, which is document
LINKERS = ("full", "naive", "legolink:16")
DISK_QUESTIONS = 4  # over chunks that are all on disk when nothing is under way
QUESTION_TOKENS_MAX = 6000  # of documents: the tiny model's context has 8,192
ANSWER_TOKENS = 6
# All documents of a site together take about 20 MiB: far more than memory, and more than the smaller disk, which
# evicts.
MEMORY_BYTES, PINNED_BYTES = "6MiB", "3MiB"
DISK_BYTES, SMALL_DISK_BYTES = "64MiB", "16MiB"
OPERATIONS_MAX = 60  # of a writer in one round, in case the kill is late
SETTLE_SECONDS = 120
# A run of so many rounds must have reached everything that it is about.
TELLING_ROUNDS = 20
# Longer than a chunk: the same chunks in many documents.
OPENINGS = [harness.prose(f"opening {i}", 150) for i in range(2)]


def unix_ms():
    return time.time_ns() // 1_000_000


def text_of(seed):
    """A document's text: short, long, or with an opening that others have too."""
    chooser = random.Random(f"text {seed}")
    kind = chooser.randrange(4)
    if kind == 0:
        return harness.prose(seed, chooser.randint(5, 60))
    if kind <= 2:
        return harness.prose(seed, chooser.randint(300, 800))
    return chooser.choice(OPENINGS) + harness.prose(seed, chooser.randint(50, 500))


def recipe_of(seed):
    return random.Random(f"recipe {seed}").choice(RECIPES)


class Journal:
    """The client's own record: a line an operation when it begins and one when it was acknowledged, each synced."""

    def __init__(self, path):
        self._file = open(path, "a", encoding="utf-8")  # pylint: disable=consider-using-with

    def write(self, **entry):
        self._file.write(json.dumps(entry) + "\n")
        self._file.flush()
        os.fsync(self._file.fileno())


class Operation:
    """What a writer asked for and has no acknowledgement of yet."""

    def __init__(self, kind, document_id="", seed=None, ttl_ms=0):
        self.kind, self.id, self.seed, self.ttl_ms = kind, document_id, seed, ttl_ms

    def __str__(self):
        life = f" for {self.ttl_ms} ms" if self.ttl_ms else ""
        return f"{self.kind} {self.id}".strip() + life


class Entry:
    """A document that must be there."""

    def __init__(self, seed, document):
        self.seed = seed
        self.tokens = document.tokens
        self.chunks = document.chunks
        self.expires_unix_ms = document.expires_unix_ms  # 0: never
        self.pinned = False

    def expired(self, at_ms):
        return 0 < self.expires_unix_ms <= at_ms


class Expected:
    """What must be there, by the journal. Several threads write; `lock` guards everything."""

    COUNTS = ("registered", "deleted", "pinned", "unpinned", "evictions asked for", "compacted", "refused pins",
              "cut off", "expired", "asked")

    def __init__(self, folder):
        self.lock = threading.RLock()
        self.journal = Journal(folder / "journal.jsonl")
        self.documents = {}  # id -> Entry
        self.answers = {}  # (seeds of documents, linker) -> token ids
        self.under_way = {}  # writer -> Operation
        self.counts = dict.fromkeys(self.COUNTS, 0)

    def begin(self, writer, operation):
        with self.lock:
            self.under_way[writer] = operation
            self.journal.write(phase="begin", writer=writer, **vars(operation))

    def acknowledge(self, writer, document=None):
        with self.lock:
            operation = self.under_way.pop(writer)
            self.journal.write(phase="acknowledged", writer=writer, **vars(operation))
            self.apply(operation, document)

    def forget(self, writer, why):
        """The operation had no effect."""
        with self.lock:
            operation = self.under_way.pop(writer)
            self.journal.write(phase=why, writer=writer, **vars(operation))

    def apply(self, operation, document=None):
        kind = operation.kind
        if kind == "register":
            self.documents[operation.id] = Entry(operation.seed, document)
        elif kind == "delete":
            self.documents.pop(operation.id, None)
        elif kind in ("pin", "unpin") and operation.id in self.documents:
            self.documents[operation.id].pinned = kind == "pin"
        names = {"register": "registered", "delete": "deleted", "pin": "pinned", "unpin": "unpinned",
                 "evict": "evictions asked for", "compact": "compacted"}
        self.counts[names[kind]] += 1

    def expire(self, document_id):
        self.documents.pop(document_id, None)
        self.counts["expired"] += 1

    def seeds(self, document_ids):
        """Of documents that are there and stay, as far as is known; None where one does not."""
        with self.lock:
            busy = {operation.id for operation in self.under_way.values() if operation.kind in ("register", "delete")}
            if any(name in busy or name not in self.documents for name in document_ids):
                return None
            return tuple(self.documents[name].seed for name in document_ids)


class Site:
    """An EPIC on a folder of its own, the process that gets killed, and what is expected of it."""

    def __init__(self, name, folder, options):
        self.name = name
        self.folder = folder / name
        self.folder.mkdir()
        self.data = self.folder / "data"
        self.options = options
        self.expected = Expected(self.folder)
        self.victim = None
        self.others = []
        self.address, self.node = harness.free_address(), harness.free_address()
        self.calls = store.Calls(self.address, self.node)
        self.done = dict.fromkeys(("from disk", "to disk", "evicted from memory", "evicted from disk", "compiled"), 0)
        self._life = {}

    def binary(self, name):
        return pathlib.Path(self.options.bin) / name

    def common_flags(self):
        return harness.flags(model=self.options.model, threads=1, metrics_listen="")

    def tier_flags(self, disk_bytes):
        return harness.flags(data_dir=self.data, kv_capacity_bytes=MEMORY_BYTES, disk_capacity_bytes=disk_bytes,
                             pinned_bytes_max=PINNED_BYTES)

    def launch(self, name, arguments, address):
        process = harness.Process(name, [*arguments, "--listen", address], self.folder / f"{name}.log")
        harness.wait_listening(process, address)
        return process

    def note(self, tiers, status):
        """Remembers what this life of the node has done so far."""
        self._life = {"from disk": tiers.host.promotions, "to disk": tiers.disk.demotions,
                      "evicted from memory": tiers.host.evicted, "evicted from disk": tiers.disk.evicted,
                      "compiled": status.compiled_chunks}

    def kill(self):
        self.victim.kill()
        for name, count in self._life.items():
            self.done[name] += count
        self._life = {}

    def stop(self):
        for process in [self.victim] + self.others:
            if process is not None:
                process.kill()

    def check_alive(self):
        for process in [self.victim, *self.others]:
            if process.code is not None:
                raise Broken(f"{process.name} of {self.name} ended with {process.code}:\n{process.log[-3000:]}")


class OneProcess(Site):
    """Its disk has room for everything: what is compiled after a restart can be said exactly."""

    EVICTS_FROM_DISK = False
    REACHES = ("from disk", "to disk", "evicted from memory", "compiled")

    def start(self):
        up = [self.binary("epic"), "up", *self.common_flags(), *self.tier_flags(DISK_BYTES)]
        up += harness.flags(node_listen=self.node, allow_linkers="all", shadow_share=0)
        self.victim = self.launch("up", up, self.address)


class ThreeProcesses(Site):
    """The router and the worker stay while the cache node dies and comes back. Its disk evicts."""

    EVICTS_FROM_DISK = True
    REACHES = OneProcess.REACHES + ("evicted from disk",)

    def start(self):
        node = [self.binary("epic-cache-node"), *self.common_flags(), *self.tier_flags(SMALL_DISK_BYTES)]
        # Another policy than the default's: it evicts from disk whatever a block is worth.
        node += harness.flags(eviction_policy="lru")
        self.victim = self.launch("node", node, self.node)
        if self.others:
            return
        worker = harness.free_address()
        # So little memory of its own that the worker keeps asking the node.
        arguments = harness.flags(allow_linkers="all", shadow_share=0, worker_cache_bytes="1MiB")
        self.others.append(
            self.launch("worker", [self.binary("epic-inference-worker"), *self.common_flags(), *arguments], worker)
        )
        router = [self.binary("epic-router"), *harness.flags(cache_nodes=self.node, workers=worker, metrics_listen="")]
        self.others.append(self.launch("router", router, self.address))


class Moment:
    """When the process dies: in or behind the first writer's operation `number`, `delay_seconds` later, or when it is
    idle after that operation."""

    KINDS = ("register", "delete", "pin", "any", "unpin", "idle")

    def __init__(self, seed, round_number):
        chooser = random.Random(f"moment {seed} {round_number}")
        self.kind = self.KINDS[round_number // 2 % len(self.KINDS)]
        self.when = "behind" if self.kind == "idle" else chooser.choice(["inside", "behind"])
        self.number = chooser.randrange(2, 12)
        # Inside an operation: its course takes about as long. Behind it: from at once to deep in compiling.
        longest = 0.02 if self.when == "inside" else 0.3
        self.delay_seconds = chooser.choice([0, chooser.uniform(0, longest / 10), chooser.uniform(0, longest)])
        if self.kind == "idle":
            self.delay_seconds = 0

    def __str__(self):
        if self.kind == "idle":
            return f"killed idle after operation {self.number}"
        return f"killed {self.delay_seconds * 1000:.1f} ms {self.when} operation {self.number} ({self.kind})"


class Worker(threading.Thread):
    """A thread that works on a site until EPIC is gone or it is told to stop, and keeps what went wrong."""

    def __init__(self, site, draws):
        super().__init__(daemon=True)
        self.site = site
        self.calls = site.calls
        self.expected = site.expected
        self.chooser = random.Random(draws)
        self.halt = threading.Event()
        self.error = None

    def run(self):
        try:
            self.work()
        except Exception as error:  # pylint: disable=broad-except
            self.error = error

    def work(self):
        raise NotImplementedError

    def finish(self):
        self.join(180)
        if self.is_alive():
            raise Broken(f"{type(self).__name__} did not end")
        if self.error is not None:
            raise self.error


class Writer(Worker):
    """Changes its own documents."""

    WEIGHTS = (("register", 40), ("delete", 15), ("pin", 17), ("unpin", 12), ("evict", 5), ("compact", 3))

    def __init__(self, site, name, seed, round_number):
        super().__init__(site, f"writer {name} {seed} {round_number}")
        self.name = name
        self.round_number = round_number

    def work(self):
        for number in range(OPERATIONS_MAX):
            if self.halt.is_set() or not self.operate(number):
                return

    def own(self, wanted=lambda entry: True):
        now = unix_ms()
        with self.expected.lock:
            return sorted(name for name, entry in self.expected.documents.items()
                          if name[0] == self.name and not entry.expired(now) and wanted(entry))

    def free(self, passing):
        now = unix_ms()
        slots = PASSING_SLOTS if passing else LASTING_SLOTS
        names = [f"{self.name}{'t' if passing else 'd'}{number}" for number in range(slots)]
        with self.expected.lock:
            known = self.expected.documents
            return [name for name in names if name not in known or known[name].expired(now)]

    def draw(self, number, wanted=None):
        """The next operation: of the kind that is wanted, where there is one to do."""
        kinds, weights = zip(*self.WEIGHTS)
        kind = wanted or self.chooser.choices(kinds, weights)[0]
        seed = f"{self.name}.{self.round_number:03}.{number:02}"
        if kind in ("evict", "compact"):
            return Operation(kind)
        if kind != "register":
            fitting = self.own(lambda entry: kind == "delete" or entry.pinned == (kind == "unpin"))
            if fitting:
                return Operation(kind, self.chooser.choice(fitting))
        lasting, passing = self.free(False), self.free(True)
        if passing and self.chooser.random() < 0.2:
            return Operation("register", self.chooser.choice(passing), seed, self.chooser.choice(TTLS_MS))
        if lasting:
            return Operation("register", self.chooser.choice(lasting), seed)
        return Operation("delete", self.chooser.choice(self.own()))

    def send(self, operation):
        if operation.kind == "register":
            text, recipe = text_of(operation.seed), recipe_of(operation.seed)
            return self.calls.register(operation.id, text, recipe, operation.ttl_ms)
        if operation.kind == "evict":
            return self.calls.evict_memory()
        if operation.kind == "compact":
            return self.calls.compact()
        return getattr(self.calls, operation.kind)(operation.id)

    def operate(self, number, wanted=None):
        """One operation; whether EPIC is still there. A call that failed because EPIC is going stays under way."""
        operation = self.draw(number, wanted)
        self.expected.begin(self.name, operation)
        try:
            reply = self.send(operation)
        except (wire.WireError, OSError):
            reply = None
        if reply is None or reply.code in store.GONE:
            self.expected.counts["cut off"] += 1
            return False
        if reply.code == wire.OK:
            document = Document(wire.first(reply.message, 1, b"")) if operation.kind == "register" else None
            if document is not None and not wire.first(reply.message, 2, 0):
                raise Broken(f"{operation} found a document there that was deleted or has expired")
            self.expected.acknowledge(self.name, document)
            return True
        if operation.kind == "pin" and reply.code == store.RESOURCE_EXHAUSTED:
            self.expected.forget(self.name, "refused")
            self.expected.counts["refused pins"] += 1
            return True
        with self.expected.lock:
            entry = self.expected.documents.get(operation.id)
            if reply.code == wire.NOT_FOUND and entry is not None and entry.expired(unix_ms()):
                self.expected.forget(self.name, "expired")
                self.expected.expire(operation.id)
                return True
        raise Broken(f"{operation} was refused: {reply}")


class FirstWriter(Writer):
    """The writer whose operations say when the kill is due."""

    def __init__(self, site, name, seed, round_number, moment, beside):
        super().__init__(site, name, seed, round_number)
        self.moment = moment
        self.beside = beside  # the other workers
        self.kill_now = threading.Event()
        self.disk_blocks = None  # when it was idle
        self.disk_answers = {}  # name of a document -> answer from blocks that are all on disk
        self.last_look = None  # the node's status right before the last operation

    def run(self):
        super().run()
        self.kill_now.set()

    def work(self):
        moment = self.moment
        for number in range(OPERATIONS_MAX):
            tiers, status = self.calls.tiers(), self.calls.status()
            if tiers is None or status is None:
                return
            self.site.note(tiers, status)
            self.last_look = status
            due = number == moment.number
            if due and moment.when == "inside":
                self.kill_now.set()
            wanted = moment.kind if due and moment.kind not in ("any", "idle") else None
            if not self.operate(number, wanted):
                return
            if due and moment.kind == "idle":
                self.come_to_rest()
                return
            if due and moment.when == "behind":
                self.kill_now.set()

    def come_to_rest(self):
        for worker in self.beside:
            worker.halt.set()
        for worker in self.beside:
            worker.finish()
        rested = wait_for_rest(self.site)
        if not self.site.EVICTS_FROM_DISK:
            self.ask_the_disk(rested)
            rested = wait_for_rest(self.site)
        self.disk_blocks = rested.tiers.disk.blocks
        self.site.note(rested.tiers, rested.status)


    def ask_the_disk(self, rested):
        """Answers that must be the same after the kill, whatever the recipe: the bytes that they read are on disk."""
        reply = self.calls.evict_memory()
        if reply.code != wire.OK:
            raise Broken(f"memory could not be emptied: {reply}")
        lasting = sorted(name for name, document in rested.documents.items() if not document.expires_unix_ms)
        chunks = self.calls.chunks(lasting)
        # What is pinned stays in memory and may have no copy.
        pinned = {key for name in lasting if rested.documents[name].pinned for key in chunks[name]}
        on_disk = [name for name in lasting if all(chunks[name].values()) and not pinned & set(chunks[name])]
        for name in self.chooser.sample(on_disk, min(len(on_disk), DISK_QUESTIONS)):
            answer = self.calls.ask([name], "naive", ANSWER_TOKENS)
            if answer.reply.code != wire.OK:
                raise Broken(f"a question over {name} was refused: {answer.reply}")
            # The worker's own memory may have a chunk that the node had no room for once.
            if answer.sources == {answer.HELD}:
                self.disk_answers[name] = answer.tokens


class Asker(Worker):
    """Asks questions beside the writers."""

    def __init__(self, site, seed, round_number):
        super().__init__(site, f"asker {seed} {round_number}")
        self.question = None

    def work(self):
        while not self.halt.is_set():
            names = choose_documents(self.expected, self.chooser)
            if not names:
                self.halt.wait(0.02)
                continue
            linker = self.chooser.choice(LINKERS)
            self.question = f"{linker} over {' and '.join(names)}"
            if not self.ask(names, linker):
                return
            self.question = None

    def ask(self, names, linker):
        seeds = self.expected.seeds(names)
        if seeds is None:
            return True
        try:
            answer = self.calls.ask(names, linker, ANSWER_TOKENS, afresh=self.chooser.random() < 0.5)
        except (wire.WireError, OSError):
            return False
        if answer.reply.code in store.GONE:
            return False
        with self.expected.lock:
            if self.expected.seeds(names) == seeds:
                check_answer(self.expected, seeds, linker, answer)
            elif answer.reply.code not in (wire.OK, wire.NOT_FOUND):
                raise Broken(f"a question over {names} was refused: {answer.reply}")
        return True


def choose_documents(expected, chooser):
    """One or two documents that stay, short enough for one question."""
    with expected.lock:
        lasting = sorted(name for name, entry in expected.documents.items() if not entry.expires_unix_ms)
        chosen = chooser.sample(lasting, min(len(lasting), chooser.choice((1, 1, 2))))
        if sum(expected.documents[name].tokens for name in chosen) > QUESTION_TOKENS_MAX:
            chosen = chosen[:1]
        return chosen


def must_be_the_same(seeds, linker):
    """Whether a question over these documents has the same answer for ever.

    A chunk that was compiled alone has the same bytes whoever compiles it and whenever. One that was compiled in sight of
    others has not: it differs in the last bits where the others were not held and ran again beside it. Answers from
    such chunks are compared only where nothing was compiled in between (FirstWriter.ask_the_disk)."""
    return linker == "full" or all(recipe_of(seed) == "plain" for seed in seeds)


def check_answer(expected, seeds, linker, answer):
    """Every question is answered, and where it must be, as it was before. Whether it was compared with an answer."""
    if answer.reply.code != wire.OK or not answer.tokens:
        raise Broken(f"a question over {seeds} by {linker} was refused: {answer.reply}")
    with expected.lock:
        expected.counts["asked"] += 1
        if not must_be_the_same(seeds, linker):
            return False
        is_new = (seeds, linker) not in expected.answers
        known = expected.answers.setdefault((seeds, linker), answer.tokens)
    if answer.tokens != known:
        raise Broken(f"a question over {seeds} by {linker} was answered {answer.tokens}, before it was {known}; chunks "
                     f"came from {answer.sources}")
    return not is_new


class Rested:
    """What was there when nothing was under way."""

    def __init__(self, documents, tiers, status, from_ms, to_ms):
        self.documents, self.tiers, self.status = documents, tiers, status
        self.from_ms, self.to_ms = from_ms, to_ms  # when it was looked at


def wait_for_rest(site):
    """Until every document is READY, what is pinned is in memory, what has expired is swept, nothing waits and nobody
    holds a lease."""
    calls = site.calls

    def look():
        site.check_alive()
        from_ms = unix_ms()
        documents, tiers, status = calls.documents(), calls.tiers(), calls.status()
        if documents is None or tiers is None or status is None:
            return None
        failed = [document for document in documents.values() if document.state == Document.FAILED]
        if failed:
            raise Broken(f"documents could not be compiled: {failed}")
        there = all(document.state == Document.READY for document in documents.values())
        warm = all(d.resident_chunks == d.chunks for d in documents.values() if d.pinned)
        swept = tiers.documents == len(documents) and tiers.pinned <= set(documents)
        if not (there and warm and swept and tiers.idle and status.waiting == 0):
            return None
        again = calls.documents()
        if again is None or set(again) != set(documents):
            return None
        return Rested(again, tiers, status, from_ms, unix_ms())

    return wait_for(look, f"{site.name} is at rest", SETTLE_SECONDS,
                    lambda: f"{calls.documents()}\n{calls.tiers()}\n{site.victim.log[-3000:]}")


class Settlement:
    """After the restart: decides what became of the operations under way, and checks everything else."""

    def __init__(self, site, chooser):
        self.site, self.calls, self.expected = site, site.calls, site.expected
        self.chooser = chooser
        self.known_before = dict(self.expected.documents)
        self.fates = []
        self.facts = []

    def run(self, idle, killed_ms):
        """`idle`: the first writer, which knows what was there when nothing was under way, if it was."""
        in_flight = dict(self.expected.under_way)
        first = wait_for(self.calls.tiers, "the node answers", details=lambda: self.site.victim.log[-3000:])
        rested = wait_for_rest(self.site)
        for operation in in_flight.values():
            self.decide(operation, rested)
        self.expected.under_way.clear()
        self.check_documents(rested)
        self.check_blocks(first, rested, in_flight.values())
        if idle.disk_blocks is not None:
            self.check_adoption(first, idle.disk_blocks, killed_ms)
            self.check_disk_answers(idle.disk_answers)
        self.facts.append(f"{self.calls.verify()} blocks verified")
        self.check_answers()
        for operation in in_flight.values():
            self.repeat(operation)
        rested = wait_for_rest(self.site)
        for name, tier in (("memory", rested.tiers.host), ("disk", rested.tiers.disk)):
            if tier.faults:
                raise Broken(f"{tier.faults} faults in {name} where nothing was broken: {rested.tiers}")
        self.site.note(rested.tiers, rested.status)

    def decide(self, operation, rested):
        there = operation.id in rested.documents
        before = self.expected.documents.get(operation.id)
        was_done = {"register": there, "delete": not there, "pin": operation.id in rested.tiers.pinned,
                    "unpin": there and operation.id not in rested.tiers.pinned}.get(operation.kind)
        if operation.kind == "register" and before is not None:
            self.expected.expire(operation.id)  # it was registered anew because it had expired
        if operation.kind != "register" and before is not None and not there and before.expired(rested.to_ms):
            was_done = None
        if was_done:
            self.expected.apply(operation, rested.documents.get(operation.id))
            if operation.kind == "register" and rested.documents[operation.id].pinned:
                raise Broken(f"{operation} took over a pin")
        self.fates.append(f"{operation} ({ {True: 'done', False: 'not done', None: 'either'}[was_done]})")
        self.expected.journal.write(phase="settled", was_done=was_done, **vars(operation))

    def check_documents(self, rested):
        expected, found = self.expected, rested.documents
        for name, entry in list(expected.documents.items()):
            if entry.expired(rested.from_ms) and name in found:
                raise Broken(f"{name} has expired and is there: {found[name]}")
            if name in found:
                continue
            if not entry.expired(rested.to_ms):
                raise Broken(f"acknowledged and gone: {name}, of {sorted(found)}")
            expected.expire(name)
        unexpected = sorted(set(found) - set(expected.documents))
        if unexpected:
            raise Broken(f"there and never acknowledged, or deleted: {unexpected}")
        for name, entry in expected.documents.items():
            now = found[name]
            if (now.tokens, now.chunks, now.expires_unix_ms) != (entry.tokens, entry.chunks, entry.expires_unix_ms):
                raise Broken(f"{name} is not what was registered: {vars(now)}, expected {vars(entry)}")
            if now.pinned != entry.pinned or (name in rested.tiers.pinned) != entry.pinned:
                raise Broken(f"{name} is {'' if now.pinned else 'not '}pinned, against the last acknowledged change")
            text = self.calls.text(name)
            if text != text_of(entry.seed) and not (text is None and entry.expired(unix_ms())):
                raise Broken(f"{name} came back with another text")
        pinned = sum(entry.pinned for entry in expected.documents.values())
        passing = sum(entry.expires_unix_ms > 0 for entry in expected.documents.values())
        self.facts.append(f"{len(found)} documents, {pinned} pinned, {passing} with a time to live")

    def check_blocks(self, first, rested, in_flight):
        """Nothing was compiled that was there; nothing is there that belongs to nobody."""
        chunks = wait_for(lambda: self.calls.chunks(sorted(self.calls.documents() or {})), "the documents resolve")
        keys = {key for document in chunks.values() for key in document}
        held = {key for document in chunks.values() for key, is_held in document.items() if is_held}
        tiers, status = rested.tiers, rested.status
        # Documents that expired since the kill may have been compiled before they were swept.
        gone = [entry for name, entry in self.known_before.items() if entry.expires_unix_ms and name not in chunks]
        unknown = any(operation.kind == "register" and operation.ttl_ms for operation in in_flight)
        missing = len(keys) + sum(entry.chunks for entry in gone) - first.adopted
        compiled = status.compiled_chunks
        exact = not gone and not unknown and tiers.disk.evicted == 0
        # A pinned chunk that disk evicted since the start, before it had come to memory, is compiled as well.
        pinned = sum(entry.chunks for entry in self.expected.documents.values() if entry.pinned)
        too_many = not unknown and compiled > missing + min(pinned, tiers.disk.evicted)
        if too_many or (exact and compiled != missing):
            raise Broken(f"{compiled} chunks were compiled; of {len(keys)}, {first.adopted} were on disk: {tiers}")
        for name, tier in (("memory", tiers.host), ("disk", tiers.disk)):
            if tier.used_bytes > tier.capacity_bytes:
                raise Broken(f"{name} holds more than it may: {tiers}")
        if not gone and not unknown and max(tiers.host.blocks, tiers.disk.blocks) > len(held):
            raise Broken(f"there are blocks that belong to no document: {len(held)} keys are held, but {tiers}")
        self.facts.append(f"{first.adopted} of {len(keys)} chunks on disk, {first.orphaned} orphans dropped, {compiled} "
                          f"compiled ({'exact' if exact else 'within the bound'})")

    def check_adoption(self, first, disk_blocks, killed_ms):
        """What disk held when nothing was under way is there again."""
        passing = sum(entry.chunks for entry in self.known_before.values()
                      if entry.expires_unix_ms and entry.expired(killed_ms))
        if not disk_blocks - passing <= first.adopted + first.orphaned <= disk_blocks or first.orphaned > passing:
            raise Broken(f"disk held {disk_blocks} blocks when it was idle; after the restart {first.adopted} were "
                         f"adopted and {first.orphaned} dropped")
        self.facts.append(f"the {disk_blocks} blocks of the idle disk adopted")

    def check_disk_answers(self, answers):
        """Blocks that were on disk at the kill give the answers that they gave before, without being compiled."""
        before = self.calls.status().compiled_chunks
        for name, tokens in sorted(answers.items()):
            answer = self.calls.ask([name], "naive", ANSWER_TOKENS)
            if answer.reply.code != wire.OK or answer.sources != {answer.HELD} or answer.tokens != tokens:
                raise Broken(f"from the blocks on disk, a question over {name} was answered {tokens}; after the restart "
                             f"{answer.tokens}, from {answer.sources}: {answer.reply}")
        compiled = self.calls.status().compiled_chunks - before
        if compiled:
            raise Broken(f"{compiled} chunks of {sorted(answers)} were compiled again, all were on disk")
        if answers:
            self.facts.append(f"{len(answers)} answers from it the same")

    def check_answers(self):
        """Known questions, whose answers must be the same; chunks that a tier holds are not compiled for them."""
        by_seed = {entry.seed: name for name, entry in self.expected.documents.items() if not entry.expires_unix_ms}
        known = [(seeds, linker) for seeds, linker in sorted(self.expected.answers) if set(seeds) <= set(by_seed)]
        reading = [question for question in known if question[1] != "full"]
        chosen = self.sample(known, 2) + self.sample(reading, 3)
        chosen += [((seed,), "naive") for seed in self.sample(sorted(by_seed), 2)]
        same = loads = without_compiling = 0
        for seeds, linker in chosen:
            names = [by_seed[seed] for seed in seeds]
            before, tiers = self.calls.status(), self.calls.tiers()
            chunks = self.calls.chunks(names)
            same += check_answer(self.expected, seeds, linker, self.calls.ask(names, linker, ANSWER_TOKENS))
            after, tiers_after = self.calls.status(), self.calls.tiers()
            all_held = all(is_held for document in chunks.values() for is_held in document.values())
            if linker != "full" and all_held and tiers_after.disk.evicted == tiers.disk.evicted:
                if after.compiled_chunks != before.compiled_chunks:
                    raise Broken(f"{linker} over {names} compiled {after.compiled_chunks - before.compiled_chunks} "
                                 f"chunks that were held: {tiers_after}")
                without_compiling += 1
            loads += tiers_after.host.promotions - tiers.host.promotions
            self.wait_for_no_lease()
        self.facts.append(f"{len(chosen)} answers, {same} the same as before, {without_compiling} from chunks without "
                          f"compiling, {loads} chunks loaded for them")

    def sample(self, population, count_max):
        return self.chooser.sample(population, min(len(population), count_max))

    def wait_for_no_lease(self):
        def look():
            tiers = self.calls.tiers()
            return tiers if tiers is not None and tiers.idle else None

        wait_for(look, "no lease is held after a question", details=lambda: str(self.calls.tiers()))

    def repeat(self, operation):
        """What a client does that got no answer: it asks again, and is told what became of the first time."""
        entry = self.expected.documents.get(operation.id)
        if operation.kind == "register" and not operation.ttl_ms:
            reply = self.calls.register(operation.id, text_of(operation.seed), recipe_of(operation.seed), 0)
            if reply.code != wire.OK or bool(wire.first(reply.message, 2, 0)) != (entry is None):
                raise Broken(f"{operation} was repeated: {reply}, it had {'not ' if entry is None else ''}been done")
            if entry is None:
                self.expected.apply(operation, Document(wire.first(reply.message, 1)))
        elif operation.kind == "delete" and (entry is None or not entry.expires_unix_ms):
            reply = self.calls.delete(operation.id)
            if reply.code != (wire.NOT_FOUND if entry is None else wire.OK):
                raise Broken(f"{operation} was repeated: {reply}, it had {'' if entry is None else 'not '}been done")
            if entry is not None:
                self.expected.apply(operation)


def verify_offline(site):
    """`epic cache verify --offline` on the folder of the killed node."""
    result = harness.run(site.binary("epic"), "cache", "verify", "--offline", site.data, "--format", "json")
    if result.code != 0:
        raise Broken(f"the folder of the killed node is not sound: {result}")


def run_round(site, seed, round_number):
    """What was seen, as the words of a line."""
    moment = Moment(seed, round_number)
    asker = Asker(site, seed, round_number)
    second = Writer(site, WRITERS[1], seed, round_number)
    first = FirstWriter(site, WRITERS[0], seed, round_number, moment, [asker, second])
    workers = [first, second, asker]
    for worker in workers:
        worker.start()
    if not first.kill_now.wait(300):
        raise Broken("the writer did not get to the moment of the kill in 300 s")
    if moment.delay_seconds:
        time.sleep(moment.delay_seconds)  # the moment itself, not a wait for something
    killed_ms = unix_ms()
    site.kill()
    for worker in workers:
        worker.halt.set()
    for worker in workers:
        worker.finish()
    offline = "not looked at"
    if round_number // len(KINDS_OF_SITE) % 2 == 0:
        verify_offline(site)
        offline = "sound"
    site.start()
    settlement = Settlement(site, random.Random(f"settlement {seed} {round_number}"))
    settlement.run(first, killed_ms)
    in_flight = settlement.fates + ([f"asking {asker.question}"] if asker.question else [])
    if first.last_look is not None and moment.kind != "idle" and first.last_look.waiting:
        in_flight.append(f"{first.last_look.waiting} chunks to compile")
    return f"{site.name}, {moment}; in flight: {', '.join(in_flight) or 'nothing'}; folder {offline}; " + "; ".join(
        settlement.facts
    )


def delete_everything(site):
    """Nothing is left in any tier, and nothing comes back."""
    with site.expected.lock:
        for name, entry in sorted(site.expected.documents.items()):
            reply = site.calls.delete(name)
            if reply.code != wire.OK and not (reply.code == wire.NOT_FOUND and entry.expired(unix_ms())):
                raise Broken(f"{name} could not be deleted at the end: {reply}")
        site.expected.documents.clear()

    def empty():
        tiers = site.calls.tiers()
        bare = tiers is not None and tiers.documents == 0 and not tiers.pinned and tiers.idle
        return True if bare and not any((t.blocks, t.used_bytes) != (0, 0) for t in (tiers.host, tiers.disk)) else None

    def still_there():
        return f"{site.name}: {site.calls.tiers()}"

    wait_for(empty, "everything was deleted and nothing is left", details=still_there)
    site.kill()
    verify_offline(site)
    site.start()
    wait_for(empty, "nothing is left after a restart", details=still_there)
    tiers = site.calls.tiers()
    if tiers.adopted or tiers.orphaned:
        raise Broken(f"blocks of deleted documents were on disk: {tiers.adopted} adopted, {tiers.orphaned} orphans")


KINDS_OF_SITE = ((OneProcess, "one-process"), (ThreeProcesses, "three-processes"))


def parse_options():
    parser = argparse.ArgumentParser(
        description="Kills EPIC again and again and checks that it kept what it acknowledged."
    )
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1, help="the same seed draws the same operations and moments")
    parser.add_argument("--bin", default=harness.BIN, help="folder of the binaries")
    parser.add_argument("--model", default=harness.MODEL)
    parser.add_argument(
        "--keep", action="store_true", help="leave the folder with data, journals and logs behind; so does a failure"
    )
    return parser.parse_args()


def check_reach(sites, rounds):
    """A run that never evicted or loaded anything has shown less than it says."""
    if rounds < TELLING_ROUNDS:
        return
    for site in sites:
        missed = [name for name in site.REACHES if site.done[name] == 0]
        if missed:
            raise Broken(f"the load of {site.name} was too small: no chunk was {', '.join(missed)}")


def main():
    options = parse_options()
    folder = pathlib.Path(tempfile.mkdtemp(prefix="epic-kill-"))
    sites = []
    begun = time.monotonic()
    held = 0
    try:
        for kind, name in KINDS_OF_SITE:
            sites.append(kind(name, folder, options))
            sites[-1].start()
        for round_number in range(options.rounds):
            line = run_round(sites[round_number % len(sites)], options.seed, round_number)
            held += 1
            print(f"round {held:3} of {options.rounds}: {line}", flush=True)
        for site in sites:
            delete_everything(site)
        check_reach(sites, options.rounds)
        is_sound = True
    except (Broken, AssertionError, OSError) as error:
        is_sound = False
        print(f"round {held + 1} of {options.rounds}, seed {options.seed}: {error}", file=sys.stderr)
        print(f"logs, data and journals are in {folder}", file=sys.stderr)
        options.keep = True
    finally:
        for site in sites:
            site.stop()
        if not options.keep:
            shutil.rmtree(folder, ignore_errors=True)
    for site in sites:
        print(f"{site.name}: " + ", ".join(f"{count} {name}" for name, count in site.expected.counts.items()), end="; ")
        print("chunks " + ", ".join(f"{count} {name}" for name, count in site.done.items()))
    print(f"{held} of {options.rounds} rounds with seed {options.seed} held in {time.monotonic() - begun:.0f} s", end="")
    print("; at the end everything was deleted and both tiers were empty" if is_sound else "")
    return 0 if is_sound else 1


if __name__ == "__main__":
    sys.exit(main())
