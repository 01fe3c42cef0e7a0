#!/usr/bin/env python3
"""Measures the prefill of llama.cpp, the peer that `full` is compared with, on the same file and threads.

    python peer_prefill.py --model MODEL.gguf [--tokens 512,2048,4096] [--threads 2] [--runs 3]

Needs the package llama-cpp-python, built from source for the machine it runs on:

    CMAKE_ARGS="-DGGML_NATIVE=ON" pip install --no-binary llama-cpp-python llama-cpp-python==0.3.36

Prints the processor's name, how busy the machine was, and for each prompt length the median time from the first token's
evaluation to the logits of the last, and tokens per second. The prompts are pseudo-random ids, the same in every run;
the cache is emptied before each. One short prompt goes first and is not counted.
"""

import argparse
import importlib.metadata
import os
import platform
import random
import statistics
import time

import llama_cpp

BATCH_TOKENS = 512  # llama.cpp's own default for a physical batch
WARM_UP_TOKENS = 64


def processor_name() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:
            for line in lines:
                if line.startswith("model name"):
                    return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or "unknown"


def prefill_seconds(model: llama_cpp.Llama, tokens: list[int]) -> float:
    model.reset()
    begin = time.perf_counter()
    model.eval(tokens)
    return time.perf_counter() - begin


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="a GGUF file")
    parser.add_argument("--tokens", default="512,2048,4096", help="prompt lengths, separated by commas")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--runs", type=int, default=3)
    arguments = parser.parse_args()
    lengths = [int(length) for length in arguments.tokens.split(",")]
    if min(lengths) < 1 or arguments.runs < 1 or arguments.threads < 1:
        parser.error("--tokens, --runs and --threads must all be at least 1")

    model = llama_cpp.Llama(
        model_path=arguments.model,
        n_ctx=max(lengths) + 1,
        n_batch=BATCH_TOKENS,
        n_ubatch=BATCH_TOKENS,
        n_threads=arguments.threads,
        n_threads_batch=arguments.threads,
        n_gpu_layers=0,
        verbose=False,
    )
    version = importlib.metadata.version("llama-cpp-python")
    print(f"llama-cpp-python {version} on {processor_name()}, {arguments.threads} threads of {os.cpu_count()}")
    generator = random.Random(1)
    prompts = {length: [generator.randrange(100, model.n_vocab()) for _ in range(length)] for length in lengths}
    prefill_seconds(model, prompts[lengths[0]][:WARM_UP_TOKENS])

    print(f"{'tokens':>8} {'median s':>10} {'fastest s':>10} {'slowest s':>10} {'tokens/s':>10} {'load before':>12}")
    for length in lengths:
        load = os.getloadavg()[0]
        seconds = [prefill_seconds(model, prompts[length]) for _ in range(arguments.runs)]
        median = statistics.median(seconds)
        print(f"{length:>8} {median:>10.3f} {min(seconds):>10.3f} {max(seconds):>10.3f} {length / median:>10.0f} "
              f"{load:>12.1f}", flush=True)


if __name__ == "__main__":
    main()
