#!/usr/bin/env python3
"""llama.cpp for compare_prefill.py: answers how long it reads a prompt and writes a token (peer_common.py).

    build/peers/bin/python benchmarks/peer_llama.py --model MODEL.gguf [--threads 2] [--context 8192]

llama.cpp gets its own default batch of 512 tokens. No sampling is timed: the next token is given, and its logits are
computed. So its decode is timed a little in its favour.
"""

import argparse
import importlib.metadata
import time

import llama_cpp
from peer_common import prompt_ids, serve

BATCH_TOKENS = 512  # llama.cpp's own default for a physical batch
WARM_UP_TOKENS = 64


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="a GGUF file")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--context", type=int, default=8192, help="tokens of prompt and answer at most")
    parser.add_argument("--decode-tokens", type=int, default=32)
    parser.add_argument("--flash-attention", action="store_true", help="its other attention, slower on some processors")
    arguments = parser.parse_args()
    model = llama_cpp.Llama(
        model_path=arguments.model,
        n_ctx=arguments.context,
        n_batch=BATCH_TOKENS,
        n_ubatch=BATCH_TOKENS,
        n_threads=arguments.threads,
        n_threads_batch=arguments.threads,
        n_gpu_layers=0,
        flash_attn=arguments.flash_attention,
        verbose=False,
    )

    def measure(tokens: int) -> tuple[float, float]:
        ids = prompt_ids(tokens, model.n_vocab())
        model.reset()
        begin = time.perf_counter()
        model.eval(ids)
        read = time.perf_counter()
        for i in range(arguments.decode_tokens):
            model.eval([ids[i % tokens]])
        return read - begin, (time.perf_counter() - read) / arguments.decode_tokens

    measure(WARM_UP_TOKENS)
    serve({"version": "llama-cpp-python " + importlib.metadata.version("llama-cpp-python")}, measure)


if __name__ == "__main__":
    main()
