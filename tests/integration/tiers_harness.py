"""What the tests of a cache node's tiers share: a running `epic up` with small tiers, and the bytes of its disk tier.

The blocks of the tiny model take 512 bytes a token. CHUNK_TOKENS makes every document of DOCUMENT_WORDS
one chunk, of about 1.4 MB.
"""

import hashlib
import os
import pathlib
import shutil
import struct

from epic_harness import (
    BIN,
    EpicTest,
    Epic,
    flags,
    free_address,
    prose,
    run,
    scrape,
    up_arguments,
    wait_listening,
    wait_until,
)

CHUNK_TOKENS = 3000
DOCUMENT_WORDS = 500
# Attends to blocks as they are held, but for their first 16 tokens: a wrong byte in a block is a wrong answer.
LINKER = "legolink:16"
ANSWER_TOKENS = 12
MIB = 1 << 20

BLOCK_MAGIC = b"EPICKVB\n"
PAGE_BYTES = 4096


class CacheNode:
    """One cache node, asked for what it holds."""

    def __init__(self, address, metrics):
        self.address, self.metrics_address = address, metrics

    def run(self, *arguments):
        """An `epic cache` command."""
        return run(BIN / "epic", "cache", *arguments, "--node", self.address)

    def json(self, *arguments):
        result = self.run(*arguments, "--format", "json")
        if result.code != 0:
            raise AssertionError(f"failed: {result}")
        return result.json

    def stats(self):
        return self.json("stats")

    def tier(self, name):
        return next(tier for tier in self.stats()["tiers"] if tier["tier"] == name)

    def metric(self, name):
        """The sum over its labels; labels that must be there may follow the name, as in blocks{tier="disk"}."""
        found = scrape(self.metrics_address, "epic_cache_node_" + name)
        if not found:
            raise AssertionError(f"there is no metric {name}")
        return sum(found.values())

    def compiled(self):
        return self.metric("compiled_chunks_total")

    def documents(self):
        """Its documents by id, asked of the node and not of a router."""
        return Epic(self.address).documents()

    def wait_copied(self, blocks):
        """Until the disk tier holds so many blocks and waits for none."""

        def look():
            disk = self.tier("disk")
            return disk["block_count"] == blocks and disk["queue_length"] == 0

        wait_until(look, f"{blocks} blocks are on disk", details=lambda: str(self.tier("disk")))

    def evict_memory(self):
        """Everything that is not in use leaves memory. How many blocks that were."""
        return self.json("evict", "--all", "--tier", "host")["evicted_host_blocks"]


class TiersTest(EpicTest):
    """Starts `epic up` on folders, under a fault-injecting file system or not, and asks it questions."""

    options = {}  # of every start, below those of the call

    def serve(self, data, prefix=(), **options):
        """`epic up`, serving; self.process, self.epic and self.node are its. Memory holds two documents."""
        words = dict(
            chunk_tokens=CHUNK_TOKENS, kv_capacity_bytes="3MiB", disk_capacity_bytes="64MiB", prefix_cache_bytes=0,
            shadow_share=0, threads=1,
        )
        address, metrics = free_address(), free_address()
        arguments = up_arguments(address, metrics, data) + flags(**(words | self.options | options))
        self.process = self.start(f"{self._testMethodName}", *prefix, *arguments)
        wait_listening(self.process, address)
        self.epic = Epic(address, metrics)
        wait_until(self.epic.is_serving, "it is healthy", details=lambda: self.process.log[-4000:])
        self.node = CacheNode(self.epic.members("cache node")[0]["address"], metrics)

    def refuse_to_serve(self, data, prefix=(), **options):
        """What `epic up` says that does not come to serve; it must end by itself."""
        arguments = up_arguments(free_address(), free_address(), data) + flags(**(self.options | options))
        return run(*prefix, *arguments, seconds=60)

    def text_of(self, name, words=DOCUMENT_WORDS):
        return self.write(f"{name}.txt", prose(name, words))

    def register(self, *names):
        """Documents of one block each, compiled."""
        for name in names:
            document = self.epic.register(self.text_of(name))
            self.assertEqual((document["state"], document["chunks"]), ("ready", 1), document)

    def refused(self, name):
        """What the registration of that document is refused with."""
        result = self.epic.run("register", self.text_of(name), "--no-wait")
        self.assertEqual(result.code, 1, str(result))
        return result

    def answer(self, name):
        """What the model says over one document: always the same for the same bytes of its block."""
        answer = self.epic.ask([name], linker=LINKER, tokens=ANSWER_TOKENS)
        self.assertGreater(answer["usage"]["cached_tokens"], 0, answer)
        return answer["token_ids"]

    def answers(self, names):
        return {name: self.answer(name) for name in names}

    def fail_with_log(self, message):
        self.fail(f"{message}\n{self.process.log[-6000:]}")


# --- the disk tier's bytes --------------------------------------------------------------------------------------------


class StoredBlock:
    """One block in a segment file, by its own header. It may be one that the tier has freed since."""

    def __init__(self, path, offset, header):
        self.path, self.offset = path, offset
        self.header_bytes, self.block_bytes = struct.unpack_from("<IQ", header, 12)
        self.key = header[80:112].hex()

    def flip(self, at, bit=0):
        """Flips one bit of the byte `at` of the block; negative: from its end."""
        at = self.offset + (at if at >= 0 else self.block_bytes + at)
        with open(self.path, "r+b") as file:
            file.seek(at)
            byte = file.read(1)[0]
            file.seek(at)
            file.write(bytes([byte ^ (1 << bit)]))


def stored_blocks(folder):
    """Every block in the segment files of a disk tier's folder, by key; of one key several where old ones lie about."""
    found = {}
    for path in sorted(pathlib.Path(folder).glob("segment-*")):
        with open(path, "rb") as file:
            offset = 0
            while True:
                try:
                    offset = file.seek(offset, os.SEEK_DATA)  # segments are preallocated, and mostly holes to read
                except OSError:
                    break
                offset = offset // PAGE_BYTES * PAGE_BYTES
                file.seek(offset)
                page = file.read(PAGE_BYTES)
                if len(page) < PAGE_BYTES:
                    break
                if page.startswith(BLOCK_MAGIC):
                    block = StoredBlock(path, offset, page)
                    found.setdefault(block.key, []).append(block)
                offset += PAGE_BYTES
    return found


# --- folders ----------------------------------------------------------------------------------------------------------


def fresh_copy(source, target):
    """A folder that is as `source` is, whatever was there before."""
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(source, target, ignore=lambda folder, names: [name for name in names if name.endswith(".sock")])
    return target


def fingerprint(folder):
    """{path below the folder: digest} of every file that says something: not RocksDB's own log and locks."""
    found = {}
    for path in sorted(pathlib.Path(folder).rglob("*")):
        if path.is_file() and path.name != "LOCK" and not path.name.startswith("LOG"):
            found[str(path.relative_to(folder))] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found
