#!/usr/bin/env python3
"""Bad input at the wire: the right gRPC code, a sentence that names field, value and limit, and nothing half-stored.

The commands check much of this before they send it, and gRPC's clients check more; a server must not count on either.
"""

import json
import struct
import unittest

import grpc_wire as wire
from epic_harness import prose
from processes_test import ClusterTest

TEXT_BYTES_MAX = 4 << 20
CREATE = "epic.v1.DocumentService/CreateDocument"
GET = "epic.v1.DocumentService/GetDocument"
LIST = "epic.v1.DocumentService/ListDocuments"
DELETE = "epic.v1.DocumentService/DeleteDocument"
WATCH = "epic.v1.DocumentService/WatchDocument"
RESOLVE = "epic.v1.DocumentService/ResolveDocuments"
GENERATE = "epic.v1.GenerateService/Generate"


def create(document_id, text, *more):
    return wire.message((2, document_id), (3, text), *more)


def chat(*segments, linker=None, more=()):
    """GenerateRequest of one user message."""
    message = wire.message((1, "user"), *[(2, segment) for segment in segments])
    fields = [(3, wire.message((1, message)))]
    if linker is not None:
        fields.append((5, linker))
    return wire.message(*fields, *more)


def text(words):
    return wire.message((2, words))


def document(document_id, first_chunk=0, chunk_count=0):
    return wire.message((1, wire.message((1, document_id), (2, first_chunk), (3, chunk_count))))


class WireTest(ClusterTest):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.start_cluster(nodes=1, workers=1)
        cls.epic.register(cls.write("known.txt", prose("known", 300)))

    def setUp(self):
        self.before = {
            key: (value["tokens"], value["text_bytes"], value["labels"]) for key, value in self.epic.documents().items()
        }

    def tearDown(self):
        # Whatever a test sent, it changed nothing, holds nothing, and everybody still answers.
        after = {
            key: (value["tokens"], value["text_bytes"], value["labels"]) for key, value in self.epic.documents().items()
        }
        self.assertEqual(after, self.before)
        self.epic.wait_idle()
        for name, process in self.running.items():
            self.assertIsNone(process.code, f"{name} is gone\n{process.log[-4000:]}")

    def refused(self, name, method, body, code, *parts, **options):
        reply = wire.call(self.addresses[name], method, body, **options)
        self.assertEqual(reply.code, code, f"{name} {method}: {reply}")
        for part in parts:
            self.assertIn(str(part), reply.sentence, f"{name} {method}")
        self.assertEqual(reply.messages, [], f"{name} {method}")
        return reply

    def test_documents_that_are_none(self):
        for name in ("router", "node0"):
            with self.subTest(name):
                self.refused(name, CREATE, wire.message((2, "d")), wire.INVALID_ARGUMENT, "content", "text")
                self.refused(name, CREATE, create("d", ""), wire.INVALID_ARGUMENT, "text is empty")
                self.refused(
                    name,
                    CREATE,
                    create("d", "a" * (TEXT_BYTES_MAX + 1)),
                    wire.INVALID_ARGUMENT,
                    "text has",
                    TEXT_BYTES_MAX + 1,
                    TEXT_BYTES_MAX,
                )
                self.refused(name, CREATE, create("d", "one\0two"), wire.INVALID_ARGUMENT, "text", "zero byte", 3)
                self.refused(
                    name,
                    CREATE,
                    create("", "text") if name == "node0" else create("a b", "text"),
                    wire.INVALID_ARGUMENT,
                    "document_id",
                )
                self.refused(name, CREATE, create("d" * 129, "text"), wire.INVALID_ARGUMENT, "document_id", 129, 128)
                self.refused(name, CREATE, create("d\n", "text"), wire.INVALID_ARGUMENT, "document_id", "\\x0a")
                label = wire.message((1, "k" * 257), (2, "v"))
                self.refused(name, CREATE, create("d", "text", (5, label)), wire.INVALID_ARGUMENT, "labels", 257, 256)
                labels = [(5, wire.message((1, f"k{i}"), (2, "v"))) for i in range(33)]
                self.refused(name, CREATE, create("d", "text", *labels), wire.INVALID_ARGUMENT, "labels", 33, 32)
                self.refused(name, CREATE, create("d", "text", (6, -1)), wire.INVALID_ARGUMENT, "ttl_ms is -1")
                tenant = (1, wire.message((1, "no spaces")))
                self.refused(
                    name, CREATE, create("d", "text", tenant), wire.INVALID_ARGUMENT, "context.tenant", "no spaces"
                )
                ids = wire.message((1, wire.varint(5) + wire.varint(100000)))
                self.refused(name, CREATE, wire.message((2, "d"), (4, ids)), wire.INVALID_ARGUMENT, "token_ids", 100000)
                self.refused(name, CREATE, wire.message((2, "d"), (4, b"")), wire.INVALID_ARGUMENT, "token_ids")
                other = wire.message((1, wire.varint(5)), (2, "0" * 64))
                self.refused(name, CREATE, wire.message((2, "d"), (4, other)), wire.FAILED_PRECONDITION, "0" * 64)

    def test_bytes_that_are_no_text(self):
        for name in ("router", "node0"):
            for body in (create("d", b"caf\xe9"), create(b"\xff", "text"), b"\x1a\xff\xff\xff\xff\x0f"):
                reply = wire.call(self.addresses[name], CREATE, body)
                self.assertNotEqual(reply.code, wire.OK, f"{name} {body[:8]}")
                self.assertEqual(reply.messages, [])

    def test_the_same_id_with_other_text(self):
        for name in ("router", "node0"):
            self.refused(
                name,
                CREATE,
                create("known", "something else"),
                wire.ALREADY_EXISTS,
                '"known"',
                "other content",
                "delete",
            )

    def test_absent_documents(self):
        for name in ("router", "node0"):
            with self.subTest(name):
                for method in (GET, DELETE, WATCH):
                    self.refused(name, method, wire.message((2, "absent")), wire.NOT_FOUND, 'document "absent"')
                    self.refused(name, method, wire.message((2, "")), wire.INVALID_ARGUMENT, "document_id")
        self.refused("router", GENERATE, chat(document("absent"), text("What?")), wire.NOT_FOUND, '"absent"')
        self.refused("router", GENERATE, chat(document("known"), document("absent")), wire.NOT_FOUND, '"absent"')
        model = self.epic.json("models")[0]["fingerprint"]
        self.refused(
            "node0", RESOLVE, wire.message((2, "absent"), (3, "plain"), (4, model)), wire.NOT_FOUND, '"absent"'
        )

    def test_another_tenants_document_is_absent(self):
        tenant = (1, wire.message((1, "acme")))
        for name in ("router", "node0"):
            for method in (GET, DELETE, WATCH):
                self.refused(
                    name, method, wire.message(tenant, (2, "known")), wire.NOT_FOUND, 'document "known" does not exist'
                )
        self.refused("router", GENERATE, wire.message(tenant) + chat(document("known")), wire.NOT_FOUND, '"known"')

    def test_pages_beyond_the_limit(self):
        for name in ("router", "node0"):
            self.refused(name, LIST, wire.message((2, 1001)), wire.INVALID_ARGUMENT, "page_size is 1001", 1000)
            self.refused(name, LIST, wire.message((2, -1)), wire.INVALID_ARGUMENT, "page_size is -1", 1000)
            self.refused(name, LIST, wire.message((3, "no token!")), wire.INVALID_ARGUMENT, "page_token", "no token!")

    def test_linkers_that_are_none(self):
        cases = {"legolonk": "there is no such linker", "legolink:-1": "0 or more", "legolink:": "whole number"}
        cases |= {"legolink:1.5": "whole number", "legolink:99999999999": "2147483647", "cacheblend:0": "above 0"}
        cases |= {
            "cacheblend:101": "at most 100",
            "cacheblend:nan": "percentage",
            "full:1": "takes no number",
            "FULL": "no such linker",
        }
        for linker, words in cases.items():
            self.refused(
                "router",
                GENERATE,
                chat(document("known"), linker=linker),
                wire.INVALID_ARGUMENT,
                f'linker "{linker}"',
                words,
            )

    def test_prompts_that_are_none(self):
        self.refused("router", GENERATE, b"", wire.INVALID_ARGUMENT, "prompt is absent")
        self.refused("router", GENERATE, wire.message((3, b"")), wire.INVALID_ARGUMENT, "chat.messages is empty")
        self.refused("router", GENERATE, chat(b""), wire.INVALID_ARGUMENT, "chat.messages[0].segments[0]")
        oracle = wire.message((1, "oracle"), (2, text("What?")))
        self.refused(
            "router", GENERATE, wire.message((3, wire.message((1, oracle)))), wire.INVALID_ARGUMENT, "role", "oracle"
        )
        self.refused("router", GENERATE, chat(document("known", 0, 99)), wire.INVALID_ARGUMENT, '"known"', 99)
        self.refused("router", GENERATE, chat(document("known", -1)), wire.INVALID_ARGUMENT, "first_chunk is -1")
        many = [text("a")] * 4097
        self.refused("router", GENERATE, chat(*many), wire.INVALID_ARGUMENT, 4096)
        self.refused("router", GENERATE, chat(text("a" * ((8 << 20) + 1))), wire.INVALID_ARGUMENT, 8 << 20)
        ids = wire.message((3, wire.message((1, wire.varint(320)))))
        self.refused("router", GENERATE, chat(ids), wire.INVALID_ARGUMENT, "token_ids", 320, 319)
        self.refused("router", GENERATE, chat(text("What?"), more=[(2, "gpt")]), wire.NOT_FOUND, '"gpt"', "tiny")

    def test_prompts_beyond_the_context(self):
        tokens = self.epic.document("known")["tokens"]
        segments = [document("known")] * (8192 // tokens + 1)
        for linker in ("full", "legolink:16", "naive-last"):
            self.refused("router", GENERATE, chat(*segments, linker=linker), wire.INVALID_ARGUMENT, "tokens", 8192)
        self.refused(
            "router", GENERATE, chat(text(prose("long", 12000))), wire.INVALID_ARGUMENT, "the prompt has", 8192
        )

    def test_sampling_beyond_the_limits(self):
        cases = [
            ((1, -1.0), "temperature is -1"),
            ((2, 1.5), "top_p is 1.5"),
            ((3, -1), "top_k is -1"),
            ((5, -1), "max_output_tokens is -1"),
        ]
        cases += [((1, float("nan")), "temperature is"), ((6, ""), "stop"), ((6, "s" * 257), 256)]
        for field, words in cases:
            self.refused(
                "router", GENERATE, chat(text("What?"), more=[(6, wire.message(field))]), wire.INVALID_ARGUMENT, words
            )
        stops = wire.message(*[(6, f"stop{i}") for i in range(17)])
        self.refused("router", GENERATE, chat(text("What?"), more=[(6, stops)]), wire.INVALID_ARGUMENT, 17, 16)

    def test_deadlines_that_are_past_when_the_server_looks(self):
        model = self.epic.json("models")[0]["fingerprint"]
        calls = [
            ("router", CREATE, create("late", "text")),
            ("router", GET, wire.message((2, "known"))),
            ("router", LIST, b""),
            ("router", DELETE, wire.message((2, "known"))),
            ("router", WATCH, wire.message((2, "known"))),
            ("router", GENERATE, chat(document("known"), text("What?"))),
            ("router", "epic.v1.GenerateService/ListModels", b""),
            ("router", "epic.v1.GenerateService/GetStatus", b""),
            ("node0", CREATE, create("late", "text")),
            ("node0", GET, wire.message((2, "known"))),
            ("node0", LIST, b""),
            ("node0", DELETE, wire.message((2, "known"))),
            ("node0", WATCH, wire.message((2, "known"))),
            ("node0", RESOLVE, wire.message((2, "known"), (3, "plain"), (4, model))),
            ("node0", "epic.v1.CacheService/Locate", wire.message((2, model))),
            ("node0", "epic.v1.CacheService/ReadBlock", b""),
            ("node0", "epic.v1.CacheService/Release", b""),
            ("node0", "epic.v1.CacheService/GetNodeStatus", b""),
            ("worker0", "epic.v1.InferenceService/Infer", b""),
            ("worker0", "epic.v1.InferenceService/GetWorkerStatus", b""),
        ]
        for name, method, body in calls:
            for deadline in ("0m", "0n", "0S"):
                with self.subTest(f"{name} {method} {deadline}"):
                    self.refused(name, method, body, wire.DEADLINE_EXCEEDED, timeout_header=deadline)

    def test_a_deadline_that_passes_while_the_server_waits_for_the_request(self):
        for name in ("router", "node0"):
            self.refused(
                name, CREATE, create("late", "text"), wire.DEADLINE_EXCEEDED, timeout_header="20m", hold_body=True
            )

    def test_leases_and_blocks_that_are_not_there(self):
        node = "epic.v1.CacheService"
        self.refused("node0", f"{node}/ReadBlock", wire.message((1, 0)), wire.NOT_FOUND, "lease")
        wrong = self.refused("node0", f"{node}/Locate", wire.message((2, "f" * 64)), wire.FAILED_PRECONDITION, "f" * 64)
        self.assertIn(self.epic.json("models")[0]["fingerprint"], wrong.sentence)
        self.assertEqual(wire.call(self.addresses["node0"], f"{node}/Release").code, wire.OK)
        keys = wire.message((1, b"short"))
        self.refused("worker0", "epic.v1.InferenceService/GetWorkerStatus", keys, wire.INVALID_ARGUMENT, 32)
        foreign = wire.message((2, "f" * 64), (4, wire.message((2, wire.message((2, "What?"))))))
        self.refused("worker0", "epic.v1.InferenceService/Infer", foreign, wire.FAILED_PRECONDITION, "f" * 64)

    def test_a_client_that_dies_in_the_middle_of_a_message(self):
        # The prefix promises a megabyte; three bytes come, and then nothing but the end of the stream.
        torn = b"\0" + struct.pack(">I", 1 << 20) + b"abc"
        for name, method in (("router", CREATE), ("node0", CREATE), ("worker0", "epic.v1.InferenceService/Infer")):
            try:
                reply = wire.call(self.addresses[name], method, torn, prefixed=False)
                self.assertNotEqual(reply.code, wire.OK, name)
            except wire.WireError:
                pass  # to hang up on such a client is an answer too

    def test_a_message_longer_than_the_servers_limit(self):
        huge = b"\0" + struct.pack(">I", 64 << 20)
        for name, method in (("router", CREATE), ("node0", CREATE)):
            try:
                reply = wire.call(self.addresses[name], method, huge, prefixed=False)
                self.assertNotEqual(reply.code, wire.OK, f"{name}: {json.dumps(repr(reply))}")
            except wire.WireError:
                pass

    def test_methods_that_are_none(self):
        for name in ("router", "node0", "worker0"):
            self.assertEqual(wire.call(self.addresses[name], "epic.v1.DocumentService/Frobnicate").code, 12, name)


if __name__ == "__main__":
    unittest.main(verbosity=2)
