"""The calls that a client and an operator of EPIC need, by the wire: field numbers are those of proto/epic/v1.

Documents and questions go to the router, everything about tiers to the cache node itself.
"""

import epic_harness as harness
import grpc_wire as wire

RESOURCE_EXHAUSTED = 8
HOST, DISK = 1, 2

_DOCUMENTS = "epic.v1.DocumentService/"
_ADMIN = "epic.v1.CacheAdminService/"
_NODE_STATUS = "epic.v1.CacheService/GetNodeStatus"
_GENERATE = "epic.v1.GenerateService/Generate"

# Answers that a client gets while the process that it talks to, or the one behind it, is going or coming.
GONE = (wire.UNAVAILABLE, wire.CANCELLED)


class Broken(Exception):
    """EPIC did not keep its word."""


class Document:
    """What EPIC says of a document."""

    REGISTERED, COMPILING, READY, FAILED = 1, 2, 3, 4

    def __init__(self, message):
        self.id = wire.first(message, 1, b"").decode()
        self.expires_unix_ms = wire.first(message, 5, 0)
        self.state = wire.first(message, 6, 0)
        self.reason = wire.first(message, 7, b"").decode()
        self.tokens = wire.first(message, 8, 0)
        self.chunks = wire.first(message, 9, 0)
        self.resident_chunks = wire.first(message, 11, 0)
        self.pinned = bool(wire.first(message, 15, 0))

    def __repr__(self):
        return f"{self.id}: state {self.state} {self.reason}, {self.resident_chunks} of {self.chunks} chunks in memory"


class Tier:
    """What one tier holds, and has done since the node's start."""

    def __init__(self, message):
        self.kind = wire.first(message, 1, 0)
        self.capacity_bytes = wire.first(message, 4, 0)
        self.used_bytes = wire.first(message, 5, 0)
        self.blocks = wire.first(message, 6, 0)
        self.leases = wire.first(message, 9, 0)
        self.promotions = wire.first(message, 15, 0)
        self.demotions = wire.first(message, 16, 0)
        self.evictions = {
            wire.first(entry, 1, b"").decode(): wire.first(entry, 2, 0) for entry in wire.every(message, 17)
        }
        self.checksum_failures = wire.first(message, 18, 0)
        self.read_errors = wire.first(message, 19, 0)
        self.write_errors = wire.first(message, 20, 0)
        self.declined = wire.first(message, 21, 0)
        self.waiting = wire.first(message, 22, 0)

    @property
    def evicted(self):
        """Blocks that left because something else needed their room."""
        return self.evictions.get("room", 0) + self.evictions.get("run", 0)

    @property
    def faults(self):
        return self.checksum_failures + self.read_errors + self.write_errors + self.evictions.get("damaged", 0)


class Tiers:
    """The answer of GetTiers."""

    def __init__(self, message):
        tiers = {tier.kind: tier for tier in map(Tier, wire.every(message, 2))}
        self.host, self.disk = tiers[HOST], tiers[DISK]
        self.documents = wire.first(message, 3, 0)
        self.adopted = wire.first(message, 6, 0)
        self.orphaned = wire.first(message, 7, 0)
        self.pinned = {wire.first(pinned, 2, b"").decode() for pinned in wire.every(message, 8)}

    @property
    def idle(self):
        return self.host.waiting == 0 and self.disk.waiting == 0 and self.host.leases == 0

    def __str__(self):
        return ", ".join(
            f"{name}: {tier.blocks} blocks, {tier.used_bytes} of {tier.capacity_bytes} bytes, {tier.waiting} waiting, "
            f"{tier.leases} leases, evicted {tier.evictions}"
            for name, tier in (("memory", self.host), ("disk", self.disk))
        )


class NodeStatus:
    """The answer of GetNodeStatus, as far as it is needed here."""

    def __init__(self, message):
        self.fingerprint = wire.first(wire.first(message, 2, b""), 3, b"").decode()
        self.waiting = wire.first(message, 8, 0)
        self.compiled_chunks = wire.first(message, 13, 0)


class Answer:
    """To a question: the call's reply, the ids of the tokens, and where the chunks came from."""

    HELD = "held by node"

    def __init__(self, reply):
        self.reply = reply
        self.tokens = [wire.first(token, 1, 0) for part in reply.messages for token in wire.every(part, 2)]
        finals = [final for part in reply.messages for final in wire.every(part, 3)]
        self.sources = {wire.first(chunk, 6, b"").decode() for final in finals for chunk in wire.every(final, 5)}


class Calls:
    """One EPIC: its router at `router`, its cache node at `node`."""

    def __init__(self, router, node):
        self.router = router
        self.node = node

    @staticmethod
    def _call(address, method, body, seconds=60):
        return wire.call(address, method, body, timeout_header=f"{seconds}S", seconds=seconds + 5)

    def _asked(self, address, method, body=b""):
        """The message of a call that has no reason to fail; None while nobody answers."""
        try:
            reply = self._call(address, method, body)
        except (wire.WireError, OSError):
            return None
        if reply.code in GONE:
            return None
        if reply.code != wire.OK:
            raise Broken(f"{method} was refused: {reply}")
        return reply.message

    # What changes something: the reply is the caller's to judge.

    def register(self, document_id, text, recipe, ttl_ms):
        body = wire.message((2, document_id), (3, text), (6, ttl_ms), (7, recipe))
        return self._call(self.router, _DOCUMENTS + "CreateDocument", body)

    def delete(self, document_id):
        return self._call(self.router, _DOCUMENTS + "DeleteDocument", wire.message((2, document_id)))

    def pin(self, document_id):
        return self._call(self.node, _ADMIN + "PinDocument", wire.message((2, document_id)))

    def unpin(self, document_id):
        return self._call(self.node, _ADMIN + "UnpinDocument", wire.message((2, document_id)))

    def evict_memory(self):
        return self._call(self.node, _ADMIN + "EvictBlocks", wire.message((3, HOST)))

    def compact(self):
        return self._call(self.node, _ADMIN + "Compact", b"")

    def ask(self, document_ids, linker, tokens, afresh=True):
        segments = [wire.message((1, wire.message((1, name)))) for name in document_ids]
        segments.append(wire.message((2, "\n\nWhat?")))
        message = wire.message((1, "user"), *[(2, segment) for segment in segments])
        chat = wire.message((1, message))
        body = wire.message(
            (3, chat), (5, linker), (6, wire.message((5, tokens), (7, 1))), (10, True), (11, bool(afresh))
        )
        return Answer(self._call(self.router, _GENERATE, body))

    # What only looks.

    def text(self, document_id):
        """The text, or None where the document is not there."""
        reply = self._call(self.router, _DOCUMENTS + "GetDocument", wire.message((2, document_id), (3, 1)))
        if reply.code == wire.NOT_FOUND:
            return None
        if reply.code != wire.OK:
            raise Broken(f"document {document_id} cannot be read: {reply}")
        return wire.first(reply.message, 2, b"").decode()

    def documents(self):
        """{id: Document}, or None while EPIC cannot be reached."""
        found, token = {}, b""
        while True:
            page = self._asked(self.router, _DOCUMENTS + "ListDocuments", wire.message((2, 5), (3, token)))
            if page is None:
                return None
            for document in map(Document, wire.every(page, 1)):
                found[document.id] = document
            token = wire.first(page, 2, b"")
            if not token:
                return found

    def tiers(self):
        """Tiers, or None while the node cannot be reached; as the next."""
        answer = self._asked(self.node, _ADMIN + "GetTiers")
        return answer if answer is None else Tiers(answer)

    def status(self):
        answer = self._asked(self.node, _NODE_STATUS)
        return answer if answer is None else NodeStatus(answer)

    def chunks(self, document_ids):
        """{id: {key: whether a tier holds it}}, or None where one of the documents has gone."""
        fingerprint = self.status().fingerprint
        body = wire.message(*[(2, name) for name in document_ids], (4, fingerprint))
        reply = self._call(self.node, _DOCUMENTS + "ResolveDocuments", body)
        if reply.code == wire.NOT_FOUND:
            return None
        if reply.code != wire.OK:
            raise Broken(f"{document_ids} cannot be resolved: {reply}")
        return {
            wire.first(document, 1).decode(): {
                wire.first(chunk, 1): bool(wire.first(chunk, 5, 0)) for chunk in wire.every(document, 2)
            }
            for document in wire.every(reply.message, 1)
        }

    def verify(self):
        """Reads every block of both tiers. How many there were; raises for a bad one."""
        reply = self._call(self.node, _ADMIN + "VerifyBlocks", b"")
        if reply.code != wire.OK or not reply.messages:
            raise Broken(f"the blocks could not be verified: {reply}")
        faults = [fault.decode() for part in reply.messages for fault in wire.every(part, 5)]
        last = reply.messages[-1]
        if wire.first(last, 4, 0) or faults:
            raise Broken(f"{wire.first(last, 4, 0)} bad blocks: {faults}")
        return wire.first(last, 1, 0)


def wait_for(look, what, seconds=120, details=lambda: ""):
    """The first value of look() that is not None."""

    def look_again():
        value = look()
        return None if value is None else (value,)

    return harness.wait_until(look_again, what, seconds, details)[0]
