#!/usr/bin/env python3
"""Writes a bf16 GGUF of the weights of another GGUF file, whatever blocks those are kept in.

    build/peers/bin/python benchmarks/make_bf16_gguf.py MODEL.gguf OUTPUT.gguf

Every matrix is dequantised and rounded to bf16, vectors (norms, biases) are kept as float32, all metadata is copied
but the file's type. The same weights then run in every engine without its kernels for quantised blocks.
"""

import argparse
import os

import gguf
import numpy as np

FILE_TYPE = "general.file_type"
# Written by the writer itself.
OWN_KEYS = {"GGUF.version", "GGUF.tensor_count", "GGUF.kv_count", "general.architecture", FILE_TYPE}


def round_to_bf16(values: np.ndarray) -> np.ndarray:
    """The upper half of each float32, to nearest and ties to even, as bytes."""
    bits = np.ascontiguousarray(values, dtype=np.float32).view(np.uint32)
    rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
    return rounded.astype(np.uint16).view(np.uint8)


def copy_metadata(reader: gguf.GGUFReader, writer: gguf.GGUFWriter) -> None:
    for key, field in reader.fields.items():
        if key in OWN_KEYS:
            continue
        element = field.types[-1] if field.types[0] == gguf.GGUFValueType.ARRAY else None
        writer.add_key_value(key, field.contents(), field.types[0], sub_type=element)
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_BF16)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("output")
    arguments = parser.parse_args()
    reader = gguf.GGUFReader(arguments.model)
    unfinished = arguments.output + ".unfinished"
    writer = gguf.GGUFWriter(unfinished, reader.fields["general.architecture"].contents())
    copy_metadata(reader, writer)
    for tensor in reader.tensors:
        values = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
        if values.ndim == 1:
            writer.add_tensor(tensor.name, values.astype(np.float32))
        else:
            writer.add_tensor(tensor.name, round_to_bf16(values), raw_dtype=gguf.GGMLQuantizationType.BF16)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    os.replace(unfinished, arguments.output)


if __name__ == "__main__":
    main()
