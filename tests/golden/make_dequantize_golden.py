"""Makes the reference outputs that engine/files/dequantize_test.cc compares with, bit for bit.

    pip install gguf numpy
    python3 tests/golden/make_dequantize_golden.py

For each tensor type it writes to tests/golden/dequantize/:
  TYPE.blocks.bin  random valid blocks as a GGUF file stores them, two a row (64 elements where there are none)
  TYPE.floats.bin  what gguf.quants.dequantize makes of them, little-endian float32

Scales cover normal, denormal, zero and negative halves up to the largest finite one; quantised bytes are uniform.
"""

import pathlib

import gguf
import numpy as np

PLAIN_ROW_ELEMENTS = 64
BLOCKS_PER_ROW = 2
# Where in a block its halves (scale, minimum) lie; every other byte may hold anything.
HALVES_AT = {
    "Q8_0": [0], "Q4_0": [0], "Q4_1": [0, 2], "Q5_0": [0], "Q5_1": [0, 2],
    "Q2_K": [80, 82], "Q3_K": [108], "Q4_K": [0, 2], "Q5_K": [0, 2], "Q6_K": [208],
}
ROWS = {
    "F32": 8, "F16": 24, "BF16": 16, "Q8_0": 32, "Q4_0": 32, "Q4_1": 32, "Q5_0": 32, "Q5_1": 32,
    "Q2_K": 8, "Q3_K": 8, "Q4_K": 8, "Q5_K": 8, "Q6_K": 8,
}
OUT = pathlib.Path(__file__).resolve().parent / "dequantize"


def random_halves(rng, count):
    """Finite halves over the whole range of bit patterns, with the edges in front."""
    magnitudes = [0x0000, 0x0001, 0x03FF, 0x0400, 0x3C00, 0x7BFF]
    edges = np.array([sign | bits for bits in magnitudes for sign in (0, 0x8000)], np.uint16)
    bits = rng.integers(0, 1 << 16, count, dtype=np.uint16)
    bits = np.where((bits & 0x7C00) == 0x7C00, bits & 0xBFFF, bits).astype(np.uint16)
    # A quarter denormal, so that a conversion which flushes them shows.
    bits = np.where(rng.random(count) < 0.25, bits & 0x83FF, bits).astype(np.uint16)
    bits[: min(len(edges), count)] = edges[: min(len(edges), count)]
    return bits


def row_elements(qtype):
    block_elements, _ = gguf.GGML_QUANT_SIZES[qtype]
    return PLAIN_ROW_ELEMENTS if block_elements == 1 else block_elements * BLOCKS_PER_ROW


def blocks_of(rng, qtype, rows):
    elements = rows * row_elements(qtype)
    if qtype == gguf.GGMLQuantizationType.F32:
        bits = rng.integers(0, 1 << 32, elements, dtype=np.uint32)
        bits = np.where((bits & 0x7F800000) == 0x7F800000, bits & 0xBFFFFFFF, bits).astype(np.uint32)
        return bits.view(np.uint8).reshape(rows, -1)
    if qtype == gguf.GGMLQuantizationType.F16:
        return random_halves(rng, elements).view(np.uint8).reshape(rows, -1)
    if qtype == gguf.GGMLQuantizationType.BF16:
        bits = rng.integers(0, 1 << 16, elements, dtype=np.uint16)
        bits = np.where((bits & 0x7F80) == 0x7F80, bits & 0xBFFF, bits).astype(np.uint16)
        return bits.view(np.uint8).reshape(rows, -1)
    block_elements, block_bytes = gguf.GGML_QUANT_SIZES[qtype]
    count = elements // block_elements
    blocks = rng.integers(0, 256, (count, block_bytes), dtype=np.uint8)
    for at in HALVES_AT[qtype.name]:
        blocks[:, at : at + 2] = rng.permutation(random_halves(rng, count)).view(np.uint8).reshape(count, 2)
    return blocks.reshape(rows, -1)


def main():
    OUT.mkdir(exist_ok=True)
    for seed, (name, rows) in enumerate(ROWS.items()):
        qtype = gguf.GGMLQuantizationType[name]
        blocks = blocks_of(np.random.default_rng(20 + seed), qtype, rows)
        floats = gguf.quants.dequantize(blocks, qtype).astype("<f4")
        assert floats.size == rows * row_elements(qtype) and np.isfinite(floats).all()
        (OUT / f"{name}.blocks.bin").write_bytes(blocks.tobytes())
        (OUT / f"{name}.floats.bin").write_bytes(floats.tobytes())
        print(f"{name}: {rows} rows, {blocks.size} bytes of blocks")


if __name__ == "__main__":
    main()
