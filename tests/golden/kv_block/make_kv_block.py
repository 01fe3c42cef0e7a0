#!/usr/bin/env python3
"""Writes one small KV block of each dtype, byte by byte from docs/kv-blocks.md, without any code of EPIC.

    python3 -m venv venv && venv/bin/pip install -r requirements.txt
    venv/bin/python make_kv_block.py [--check]

--check compares with the files that are there and writes nothing. The format is frozen: a file never changes. The
hashes of larger blocks, with several layer groups, are printed only; core/kv_encoding_test.cc has them.
"""

import argparse
import collections
import hashlib
import pathlib
import struct
import sys

import numpy as np
import xxhash

Shape = collections.namedtuple("Shape", "layers heads head_dim tokens")
SMALL = Shape(layers=3, heads=2, head_dim=8, tokens=40)
LARGE = Shape(layers=5, heads=2, head_dim=64, tokens=300)
BF16, FP16, INT8 = 1, 2, 3
FINGERPRINT = hashlib.sha256(b"golden model").digest()
KEY = hashlib.sha256(b"golden chunk").digest()
RECIPE = b"document"
FIRST_POSITION = 7
GROUP_BYTES_MIN = 256 * 1024


def source_bits(kind, layer, head, token, dimension):
    """bf16 bits of one key (kind 0) or value (kind 1). core/kv_encoding_test.cc has the same function."""
    if kind == 0 and head == 0 and dimension == 3:
        return 0x8000  # a channel of zeros, negative ones
    if kind == 1 and head == 1 and token == 5:
        return 0  # a token of zeros
    mixed = (layer * 7919 + head * 104729 + token * 31 + dimension * 17 + kind * 5 + 1) * 2654435761 % 2**32
    if kind == 0 and head == 1 and dimension == 0 and token % 2 == 0:
        return 0x3680 + (mixed >> 20) % 0x80  # from 2^-18: subnormal numbers in fp16, half of them ties
    return (mixed >> 31) << 15 | 0x3a00 + (mixed >> 8) % 0x0700


def source(kind, shape):
    """float32 of shape (layers, heads, padded tokens, dimensions); padding is zero."""
    padded = shape.tokens + -shape.tokens % 32
    bits = np.zeros((shape.layers, shape.heads, padded, shape.head_dim), dtype=np.uint32)
    for layer in range(shape.layers):
        for head in range(shape.heads):
            for token in range(shape.tokens):
                for dimension in range(shape.head_dim):
                    bits[layer, head, token, dimension] = source_bits(kind, layer, head, token, dimension)
    return (bits << 16).view(np.float32)


def to_bf16(x):
    """Bits of the nearest bf16, ties to even: the upper half after adding just below half of the lower one."""
    bits = x.view(np.uint32).astype(np.uint64)
    return ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype(np.uint16)


def key_order(matrix):
    """(heads, tokens, dimensions) to [head][token / 16][dimension / 2][token % 16][dimension % 2]."""
    heads, tokens, dimensions = matrix.shape
    return matrix.reshape(heads, tokens // 16, 16, dimensions // 2, 2).transpose(0, 1, 3, 2, 4)


def value_order(matrix):
    """(heads, tokens, dimensions) to [head][token / 2][dimension][token % 2]."""
    heads, tokens, dimensions = matrix.shape
    return matrix.reshape(heads, tokens // 2, 2, dimensions).transpose(0, 1, 3, 2)


def quantise(matrix, axis):
    """(codes, scales) of one layer with one scale along `axis`, float32 throughout."""
    scales = np.abs(matrix).max(axis=axis, keepdims=True) / np.float32(127)
    codes = np.rint(matrix / np.where(scales == 0, np.float32(1), scales))
    return codes.astype(np.int8), scales


def pad(data, multiple):
    return data + bytes(-len(data) % multiple)


def layer_parts(dtype, keys, values):
    """K, scales of K, V, scales of V of one layer, padded to multiples of 64."""
    if dtype == INT8:
        key_codes, key_scales = quantise(keys, axis=1)
        value_codes, value_scales = quantise(values, axis=2)
        parts = [key_order(key_codes), key_scales, value_order(value_codes), value_scales]
    else:
        encode = to_bf16 if dtype == BF16 else lambda x: x.astype(np.float16)
        empty = np.zeros(0, dtype=np.float32)
        parts = [key_order(encode(keys)), empty, value_order(encode(values)), empty]
    return [pad(np.ascontiguousarray(part).tobytes(), 64) for part in parts]


def plan_groups(layers, layer_bytes):
    """Layers a group: whole ones, at least 256 KiB where there are so many; the last group takes the remainder."""
    each = -(-GROUP_BYTES_MIN // layer_bytes)
    count = max(1, layers // each)
    return [each] * (count - 1) + [layers - each * (count - 1)]


def block(dtype, shape, keys, values, alignment=64, group_layers=None):
    layers = [layer_parts(dtype, keys[layer], values[layer]) for layer in range(shape.layers)]
    sizes = [len(part) for part in layers[0]]
    layout = [sizes[0], sum(sizes[:2]), sum(sizes[:3]), sum(sizes)]
    group_layers = group_layers or plan_groups(shape.layers, sum(sizes))
    token_ids = [100 + 13 * i for i in range(shape.tokens)]

    unpadded = 256 + 32 * len(group_layers) + 4 * shape.tokens + 8
    header_bytes = unpadded + -unpadded % alignment
    table, payload, first = b"", b"", 0
    for count in group_layers:
        group = pad(b"".join(b"".join(parts) for parts in layers[first : first + count]), alignment)
        checksum = xxhash.xxh3_64_intdigest(group)
        table += struct.pack("<IIQQQ", first, count, header_bytes + len(payload), len(group), checksum)
        payload += group
        first += count
    edition = xxhash.xxh3_64_intdigest(KEY + struct.pack("<I", dtype) + table)

    header = b"EPICKVB\n"
    header += struct.pack("<IIQ", 1, header_bytes, header_bytes + len(payload))
    header += struct.pack("<II", 0, alignment)
    header += struct.pack("<IIII", shape.layers, shape.heads, shape.head_dim, dtype)
    header += FINGERPRINT + KEY
    header += struct.pack("<I32s", len(RECIPE), RECIPE)
    header += struct.pack("<iQ", FIRST_POSITION, edition)
    header += struct.pack("<II", shape.tokens, len(group_layers))
    header += struct.pack("<QQQQ", *layout)
    header += bytes(56)
    assert len(header) == 256
    header += table + struct.pack(f"<{shape.tokens}i", *token_ids)
    header += bytes(header_bytes - 8 - len(header))
    header += struct.pack("<Q", xxhash.xxh3_64_intdigest(header))
    return header + payload


def decoded(matrix, axis):
    """What comes out of int8: code x scale in float32, layer by layer."""
    layers = []
    for layer in matrix:
        codes, scales = quantise(layer, axis)
        layers.append(codes.astype(np.float32) * scales)
    return np.stack(layers)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="compare, write nothing")
    check = parser.parse_args().check
    keys, values = source(0, SMALL), source(1, SMALL)
    blocks = {
        "bf16": block(BF16, SMALL, keys, values),
        "fp16": block(FP16, SMALL, keys, values),
        "int8": block(INT8, SMALL, keys, values),
        "bf16_from_int8": block(BF16, SMALL, decoded(keys, axis=1), decoded(values, axis=2)),
        # As another writer of version 1 may lay it out: groups at pages, padding behind their last layer.
        "int8_pages": block(INT8, SMALL, keys, values, alignment=4096, group_layers=[1, 2]),
    }
    for name, data in blocks.items():
        path = pathlib.Path(__file__).parent / f"{name}.kvblock"
        if not check:
            path.write_bytes(data)
        elif path.read_bytes() != data:
            sys.exit(f"{path} differs")
        print(f"{path.name}: {len(data)} bytes, sha256 {hashlib.sha256(data).hexdigest()}")
    keys, values = source(0, LARGE), source(1, LARGE)
    for name, dtype in (("bf16", BF16), ("fp16", FP16), ("int8", INT8)):
        data = block(dtype, LARGE, keys, values)
        print(f"large {name}: {len(data)} bytes, sha256 {hashlib.sha256(data).hexdigest()}")


if __name__ == "__main__":
    main()
