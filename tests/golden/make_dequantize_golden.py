"""Makes the reference outputs that engine/files/dequantize_test.cc compares with, bit for bit.

    pip install gguf numpy
    python3 tests/golden/make_dequantize_golden.py

For each tensor type it writes to tests/golden/dequantize/:
  TYPE.blocks.bin  random valid blocks as a GGUF file stores them, rows of 64 elements
  TYPE.floats.bin  what gguf.quants.dequantize makes of them, little-endian float32

Scales cover normal, denormal, zero and negative halves up to the largest finite one; quantised bytes are uniform.
"""

import pathlib

import gguf
import numpy as np

ROW_ELEMENTS = 64
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


def blocks_of(rng, qtype, rows):
    elements = rows * ROW_ELEMENTS
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
    halves = 2 if qtype == gguf.GGMLQuantizationType.Q4_1 else 1
    scales = np.stack([rng.permutation(random_halves(rng, count)) for _ in range(halves)], axis=1)
    payload = rng.integers(0, 256, (count, block_bytes - 2 * halves), dtype=np.uint8)
    return np.concatenate([scales.view(np.uint8), payload], axis=1).reshape(rows, -1)


def main():
    OUT.mkdir(exist_ok=True)
    rows_by_type = {"F32": 8, "F16": 24, "BF16": 16, "Q8_0": 32, "Q4_0": 32, "Q4_1": 32}
    for seed, (name, rows) in enumerate(rows_by_type.items()):
        qtype = gguf.GGMLQuantizationType[name]
        blocks = blocks_of(np.random.default_rng(20 + seed), qtype, rows)
        floats = gguf.quants.dequantize(blocks, qtype).astype("<f4")
        assert floats.size == rows * ROW_ELEMENTS and np.isfinite(floats).all()
        (OUT / f"{name}.blocks.bin").write_bytes(blocks.tobytes())
        (OUT / f"{name}.floats.bin").write_bytes(floats.tobytes())
        print(f"{name}: {rows} rows, {blocks.size} bytes of blocks")


if __name__ == "__main__":
    main()
