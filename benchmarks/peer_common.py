"""What the peers of compare_prefill.py share: the prompts, and answering one question a line.

A peer prints one JSON line when its model is loaded, {"ready": true, ...}, and then answers each line
{"tokens": COUNT} on standard input by {"tokens", "prefill_seconds", "decode_seconds_per_token"}. bench-prefill
--serve speaks the same.
"""

import json
import sys
from collections.abc import Callable

FIRST_ID = 100  # below stand control tokens in many vocabularies


def prompt_ids(tokens: int, vocabulary: int) -> list[int]:
    """The ids that bench_prefill.cc uses too: the upper bits of a linear congruential generator from 1."""
    state = 1
    ids = []
    for _ in range(tokens):
        state = (1103515245 * state + 12345) % 2**31
        ids.append(FIRST_ID + (state >> 8) % (vocabulary - FIRST_ID))
    return ids


def serve(about: dict, measure: Callable[[int], tuple[float, float]]) -> None:
    """Answers until standard input ends; `measure` returns the seconds of the prefill and of one decoded token."""
    print(json.dumps({"ready": True, **about}), flush=True)
    for line in sys.stdin:
        tokens = json.loads(line)["tokens"]
        prefill, decode = measure(tokens)
        print(json.dumps({"tokens": tokens, "prefill_seconds": prefill, "decode_seconds_per_token": decode}), flush=True)
