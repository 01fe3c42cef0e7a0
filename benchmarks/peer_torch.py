#!/usr/bin/env python3
"""PyTorch for compare_prefill.py: answers how long it reads a prompt and writes a token (peer_common.py).

    build/peers/bin/python benchmarks/peer_torch.py --model MODEL.gguf [--dtype bfloat16] [--threads 2]

The model is opened by transformers from the GGUF file and runs with its usual attention and cache.
"""

import argparse
import importlib.metadata
import pathlib
import time

import torch
import transformers
from peer_common import prompt_ids, serve

WARM_UP_TOKENS = 64


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="a GGUF file")
    parser.add_argument("--dtype", default="bfloat16", choices=["bfloat16", "float32"])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--decode-tokens", type=int, default=32)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    path = pathlib.Path(arguments.model)
    transformers.utils.logging.disable_progress_bar()
    model = transformers.AutoModelForCausalLM.from_pretrained(
        path.parent,
        gguf_file=path.name,
        dtype=getattr(torch, arguments.dtype),
        quantization_config=transformers.GgufConfig(dequantize=True),
        local_files_only=True,
    ).eval()

    @torch.inference_mode()
    def measure(tokens: int) -> tuple[float, float]:
        ids = prompt_ids(tokens, model.config.vocab_size)
        begin = time.perf_counter()
        output = model(torch.tensor([ids]), use_cache=True, logits_to_keep=1)
        read = time.perf_counter()
        for i in range(arguments.decode_tokens):
            output = model(torch.tensor([[ids[i % tokens]]]), past_key_values=output.past_key_values, use_cache=True)
        return read - begin, (time.perf_counter() - read) / arguments.decode_tokens

    measure(WARM_UP_TOKENS)
    serve({"version": "PyTorch " + importlib.metadata.version("torch")}, measure)


if __name__ == "__main__":
    main()
