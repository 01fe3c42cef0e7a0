#!/usr/bin/env python3
"""Kills EPIC without warning, again and again, and checks after each restart that it kept its word.

    tests/durability/kill_rounds.py [--rounds N] [--seed S] [--bin DIR] [--model PATH] [--keep]

A round: EPIC serves; a client registers documents (some with text in common), deletes some and asks questions, and
writes every operation into a journal of its own, synced, before it sends it and after it was acknowledged; at a
moment drawn from the seed (inside an operation, right behind its acknowledgement, or while documents compile) the
process gets SIGKILL. It is started again on the same folder, and then must hold:

  - every acknowledged registration is there, with its text and its number of tokens, and becomes READY;
  - every acknowledged deletion is gone;
  - the one operation that was under way was done wholly or not at all;
  - nothing else is there, and questions get the answers that they got before.

Every other round kills `epic up`; the rounds between kill the cache node of an EPIC out of three processes, whose
router and worker stay. Documents live on from round to round. Exit code 0 only where every round held.
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

OPERATIONS_MAX = 40  # in one round, in case the kill is late
DOCUMENTS_MAX = 14  # beyond it the client deletes rather than registers
READY_SECONDS = 120
ANSWER_TOKENS = 6
READY_STATE, FAILED_STATE = 3, 4

SERVICE = "epic.v1.DocumentService/"
GENERATE = "epic.v1.GenerateService/Generate"
# Longer than a chunk: the same chunks in many documents.
OPENINGS = [harness.prose(f"opening {i}", 400) for i in range(2)]


class Broken(Exception):
    """EPIC did not keep its word."""


def text_of(seed):
    """A document's text: short, long, or with an opening that others have too."""
    chooser = random.Random(f"text {seed}")
    kind = chooser.randrange(3)
    if kind == 0:
        return harness.prose(seed, chooser.randint(5, 60))
    if kind == 1:
        return harness.prose(seed, chooser.randint(300, 900))
    return chooser.choice(OPENINGS) + harness.prose(seed, chooser.randint(50, 400))


class Journal:
    """The client's own record: a line an operation when it begins and one when it was acknowledged, each synced."""

    def __init__(self, path):
        self._file = open(path, "a", encoding="utf-8")  # pylint: disable=consider-using-with

    def write(self, **entry):
        self._file.write(json.dumps(entry) + "\n")
        self._file.flush()
        os.fsync(self._file.fileno())


class Expected:
    """What must be there, by the journal."""

    COUNTS = ("registered", "deleted", "asked", "cut off")

    def __init__(self, folder):
        self.journal = Journal(folder / "journal.jsonl")
        self.documents = {}  # id -> {"seed", "tokens"}
        self.answers = {}  # id -> token ids
        self.under_way = None
        self.counts = dict.fromkeys(self.COUNTS, 0)

    def begin(self, kind, document_id, seed=None):
        self.under_way = {"kind": kind, "id": document_id, "seed": seed}
        self.journal.write(phase="begin", **self.under_way)

    def acknowledge(self, tokens=None):
        done, self.under_way = self.under_way, None
        self.journal.write(phase="acknowledged", tokens=tokens, **done)
        self.apply(done, tokens)

    def apply(self, done, tokens):
        if done["kind"] == "register":
            self.documents[done["id"]] = {"seed": done["seed"], "tokens": tokens}
            self.counts["registered"] += 1
        elif done["kind"] == "delete":
            self.documents.pop(done["id"])
            self.answers.pop(done["id"], None)
            self.counts["deleted"] += 1

    def refuse(self):
        """The operation under way did nothing, as far as the client knows: it may have been done all the same."""
        self.counts["cut off"] += 1


class Site:
    """An EPIC on a folder of its own, the process that gets killed, and what is expected of it."""

    def __init__(self, name, folder, options):
        self.name = name
        self.folder = folder / name
        self.folder.mkdir()
        self.options = options
        self.expected = Expected(self.folder)
        self.victim = None
        self.others = []
        self.address = harness.free_address()

    def binary(self, name):
        return pathlib.Path(self.options.bin) / name

    def common_flags(self):
        return harness.flags(model=self.options.model, threads=1, metrics_listen="")

    def launch(self, name, arguments, address):
        process = harness.Process(name, [*arguments, "--listen", address], self.folder / f"{name}.log")
        harness.wait_listening(process, address)
        return process

    def stop(self):
        for process in [self.victim] + self.others:
            if process is not None:
                process.kill()

    def kill(self):
        self.victim.kill()


class OneProcess(Site):
    def start(self):
        up = [self.binary("epic"), "up", *self.common_flags(), *harness.flags(data_dir=self.folder / "data")]
        self.victim = self.launch("up", up, self.address)


class ThreeProcesses(Site):
    """The router and the worker stay while the cache node dies and comes back."""

    def __init__(self, name, folder, options):
        super().__init__(name, folder, options)
        self.node = harness.free_address()

    def start(self):
        data = harness.flags(data_dir=self.folder / "data")
        self.victim = self.launch("node", [self.binary("epic-cache-node"), *self.common_flags(), *data], self.node)
        if self.others:
            return
        worker = harness.free_address()
        self.others.append(self.launch("worker", [self.binary("epic-inference-worker"), *self.common_flags()], worker))
        router = [self.binary("epic-router"), *harness.flags(cache_nodes=self.node, workers=worker, metrics_listen="")]
        self.others.append(self.launch("router", router, self.address))


class Calls:
    """The few calls that a client needs, by the wire."""

    def __init__(self, address):
        self.address = address

    def _call(self, method, body, seconds=60, **options):
        return wire.call(self.address, method, body, timeout_header=f"{seconds}S", seconds=seconds + 5, **options)

    def register(self, document_id, text):
        reply = self._call(SERVICE + "CreateDocument", wire.message((2, document_id), (3, text)))
        return reply, reply.messages and wire.first(wire.first(reply.message, 1), 8, 0)

    def delete(self, document_id):
        return self._call(SERVICE + "DeleteDocument", wire.message((2, document_id)))

    def text(self, document_id):
        reply = self._call(SERVICE + "GetDocument", wire.message((2, document_id), (3, 1)))
        if reply.code != wire.OK:
            raise Broken(f"document {document_id} is listed and cannot be read: {reply}")
        return wire.first(reply.message, 2, b"").decode()

    def documents(self):
        """{id: (state, tokens, reason)}, or None while EPIC cannot be reached."""
        found, token = {}, b""
        while True:
            try:
                reply = self._call(SERVICE + "ListDocuments", wire.message((2, 5), (3, token)))
            except (wire.WireError, OSError):
                return None
            if reply.code == wire.UNAVAILABLE:
                return None
            if reply.code != wire.OK:
                raise Broken(f"the documents cannot be listed: {reply}")
            for document in wire.every(reply.message, 1):
                name = wire.first(document, 1).decode()
                found[name] = (
                    wire.first(document, 6, 0),
                    wire.first(document, 8, 0),
                    wire.first(document, 7, b"").decode(),
                )
            token = wire.first(reply.message, 2, b"")
            if not token:
                return found

    def ask(self, document_id):
        segments = [wire.message((1, wire.message((1, document_id)))), wire.message((2, "\n\nWhat?"))]
        message = wire.message((1, "user"), *[(2, segment) for segment in segments])
        sampling = wire.message((5, ANSWER_TOKENS))
        reply = self._call(GENERATE, wire.message((3, wire.message((1, message))), (6, sampling)))
        tokens = [wire.first(token, 1, 0) for part in reply.messages for token in wire.every(part, 2)]
        return reply, tokens


class Client(threading.Thread):
    """Does operations until EPIC is gone, and says at its moment that the kill is due."""

    def __init__(self, site, seed, round_number, moment):
        super().__init__(daemon=True)
        self.site = site
        self.expected = site.expected
        self.calls = Calls(site.address)
        self.chooser = random.Random(f"client {seed} {round_number}")
        self.round_number = round_number
        self.moment = moment
        self.kill_now = threading.Event()
        self.error = None

    def run(self):
        try:
            for number in range(OPERATIONS_MAX):
                if not self.operate(number):
                    return
        except Exception as error:  # pylint: disable=broad-except
            self.error = error
        finally:
            self.kill_now.set()

    def operate(self, number):
        """One operation; whether EPIC is still there."""
        documents = sorted(self.expected.documents)
        draw = self.chooser.random()
        if documents and (draw < 0.25 or len(documents) >= DOCUMENTS_MAX):
            kind = "delete"
        elif documents and draw < 0.4:
            kind = "ask"
        else:
            kind = "register"
        if number == self.moment.number and documents and self.moment.kind == "delete":
            kind = "delete"
        elif number == self.moment.number and self.moment.kind == "register":
            kind = "register"
        due = number == self.moment.number
        if due and self.moment.when == "inside":
            self.kill_now.set()
        try:
            alive = getattr(self, kind)(documents, f"r{self.round_number:03}.{number:02}")
        except (wire.WireError, OSError):
            self.expected.refuse()
            return False
        if alive and due and self.moment.when == "behind":
            self.kill_now.set()
        return alive

    def done(self, reply):
        """Whether the call was acknowledged. A call that failed because EPIC is going is under way for ever."""
        if reply.code == wire.OK:
            return True
        if reply.code in (wire.UNAVAILABLE, wire.CANCELLED):
            self.expected.refuse()
            return False
        raise Broken(f"{self.expected.under_way} was refused: {reply}")

    def register(self, _, name):
        self.expected.begin("register", name, name)
        reply, tokens = self.calls.register(name, text_of(name))
        if not self.done(reply):
            return False
        self.expected.acknowledge(tokens)
        return True

    def delete(self, documents, _):
        self.expected.begin("delete", self.chooser.choice(documents))
        if not self.done(self.calls.delete(self.expected.under_way["id"])):
            return False
        self.expected.acknowledge()
        return True

    def ask(self, documents, _):
        name = self.chooser.choice(documents)
        reply, tokens = self.calls.ask(name)
        if reply.code in (wire.UNAVAILABLE, wire.CANCELLED):
            return False
        check_answer(self.expected, name, reply, tokens)
        return True


def check_answer(expected, name, reply, tokens):
    if reply.code != wire.OK:
        raise Broken(f"a question over {name} was refused: {reply}")
    known = expected.answers.setdefault(name, tokens)
    if tokens != known:
        raise Broken(f"a question over {name} was answered {tokens}, before it was {known}")
    expected.counts["asked"] += 1


class Moment:
    """When the process dies: in or behind operation `number`, and `delay_seconds` later."""

    def __init__(self, seed, round_number):
        chooser = random.Random(f"moment {seed} {round_number}")
        self.kind = ["register", "delete", "any"][round_number // 2 % 3]
        self.when = chooser.choice(["inside", "behind"])
        self.number = chooser.randrange(2, 12)
        # Inside an operation: its course takes about as long. Behind it: from at once to deep in compiling.
        longest = 0.02 if self.when == "inside" else 0.3
        self.delay_seconds = chooser.choice([0, chooser.uniform(0, longest / 10), chooser.uniform(0, longest)])

    def __str__(self):
        return f"killed {self.delay_seconds * 1000:.1f} ms {self.when} operation {self.number} ({self.kind})"


def settle(site):
    """After the restart: decides what became of the operation under way, and checks everything else."""
    calls, expected = Calls(site.address), site.expected

    def ready():
        for process in [site.victim, *site.others]:
            if process.code is not None:
                raise Broken(f"{process.name} of {site.name} ended with {process.code}:\n{process.log[-3000:]}")
        found = calls.documents()
        if found is None:
            return None
        failed = {name: reason for name, (state, _, reason) in found.items() if state == FAILED_STATE}
        if failed:
            raise Broken(f"documents could not be compiled: {failed}")
        return (found,) if all(state == READY_STATE for state, _, _ in found.values()) else None

    found = harness.wait_until(ready, "every document is READY", READY_SECONDS, lambda: str(calls.documents()))[0]
    under_way, expected.under_way = expected.under_way, None
    fate = "nothing was under way"
    if under_way is not None:
        was_done = (under_way["id"] in found) == (under_way["kind"] == "register")
        fate = f"the {under_way['kind']} under way was {'done' if was_done else 'not done'}"
        if was_done:
            expected.apply(under_way, found.get(under_way["id"], (0, None))[1])
        expected.journal.write(phase="settled", was_done=was_done, **under_way)
    lost = sorted(set(expected.documents) - set(found))
    if lost:
        raise Broken(f"acknowledged and gone: {lost}")
    unexpected = sorted(set(found) - set(expected.documents))
    if unexpected:
        raise Broken(f"there and never acknowledged, or deleted: {unexpected}")
    for name, document in expected.documents.items():
        if found[name][1] != document["tokens"] or document["tokens"] <= 0:
            raise Broken(f"{name} has {found[name][1]} tokens, it was registered with {document['tokens']}")
        if calls.text(name) != text_of(document["seed"]):
            raise Broken(f"{name} came back with another text")
    for name in sorted(expected.documents)[:2]:
        check_answer(expected, name, *calls.ask(name))
    return fate


def run_round(site, seed, round_number):
    moment = Moment(seed, round_number)
    client = Client(site, seed, round_number, moment)
    client.start()
    if not client.kill_now.wait(300):
        raise Broken("the client did not get to the moment of the kill in 300 s")
    if moment.delay_seconds:
        time.sleep(moment.delay_seconds)  # the moment itself, not a wait for something
    site.kill()
    client.join(120)
    if client.is_alive():
        raise Broken("the client did not end after the kill")
    if client.error is not None:
        raise client.error
    site.start()
    return moment, settle(site)


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


def main():
    options = parse_options()
    folder = pathlib.Path(tempfile.mkdtemp(prefix="epic-kill-"))
    sites = []
    begun = time.monotonic()
    held = 0
    try:
        for kind, name in ((OneProcess, "one-process"), (ThreeProcesses, "three-processes")):
            sites.append(kind(name, folder, options))
            sites[-1].start()
        for round_number in range(options.rounds):
            site = sites[round_number % len(sites)]
            moment, fate = run_round(site, options.seed, round_number)
            held += 1
            count = len(site.expected.documents)
            print(
                f"round {held:3} of {options.rounds}: {site.name}, {moment}; {fate}; {count} documents ready",
                flush=True,
            )
    except (Broken, AssertionError) as error:
        print(f"round {held + 1} of {options.rounds}, seed {options.seed}: {error}", file=sys.stderr)
        print(f"logs, data and journals are in {folder}", file=sys.stderr)
        options.keep = True
    finally:
        for site in sites:
            site.stop()
        if not options.keep:
            shutil.rmtree(folder, ignore_errors=True)
    total = {kind: sum(site.expected.counts[kind] for site in sites) for kind in Expected.COUNTS}
    print(f"{held} of {options.rounds} rounds held in {time.monotonic() - begun:.0f} s:", end=" ")
    print(", ".join(f"{count} {kind}" for kind, count in total.items()))
    return 0 if held == options.rounds else 1


if __name__ == "__main__":
    sys.exit(main())
