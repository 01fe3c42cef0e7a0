"""Makes the golden logits of the linkers, computed by dense_linker.py.

    python make_linker_golden.py MODEL OUTPUT.json [--name NAME]

MODEL is a safetensors folder or a GGUF file; a small vocabulary gets all cases of random tokens, a large one the cases
of English text. README.md describes the output. Nothing is written unless the reference agrees with itself and with
`transformers` (see check_*).
"""

import argparse
import pathlib
import random

import torch

import golden_format
import make_model_golden
import reference_weights
from dense_linker import MAX_LOGIT_ROWS, DenseLinker, Precision, Segment

WHOLE_CHUNKS = "legolink:1000000"
LINKERS = ["full", "naive", "naive-last", "cacheblend:15", "legolink:0", "legolink:1", "legolink:2", "legolink:16",
           "random:30", WHOLE_CHUNKS]
RUNS = "document-runs"
# Those that only an own recipe, or chunks without a run, make sense for.
NOT_FOR_RUNS = {"legolink:0", WHOLE_CHUNKS}
SHIFT = 5000
CONTEXT_SHIFT = 777
TINY_LONG_CHUNK_SEED = 126
TOLERANCE_FACTOR = 1.5
NEAR = 0.01
HEAD_TEXT = "<|im_start|>system\nYou answer from the documents.<|im_end|>\n<|im_start|>user\n"
QUESTION_TEXT = "\nWhich crane stood still in March, and for how long?<|im_end|>\n<|im_start|>assistant\n"
SECOND_QUESTION_TEXT = "\nWhen does the dredger come, and what is done until then?<|im_end|>\n<|im_start|>assistant\n"


class Builder:
    """Segments from text or from random tokens."""

    def __init__(self, path: pathlib.Path, vocab_size: int):
        self.tokenizer = reference_weights.load_tokenizer(path)
        self.vocab_size = vocab_size

    def ids(self, text: str) -> tuple[int, ...]:
        return tuple(self.tokenizer.encode(text, add_special_tokens=False).ids)

    def fresh(self, text: str) -> Segment:
        return Segment("fresh", self.ids(text))

    def chunk(self, text: str) -> Segment:
        return Segment("chunk", self.ids(text))

    def random(self, kind: str, length: int, seed: int, prefix: tuple[int, ...] = ()) -> Segment:
        generator = random.Random(seed)
        return Segment(kind, tuple(generator.randrange(3, self.vocab_size) for _ in range(length)), prefix)


def random_cases(build: Builder, long_chunk_seed: int) -> dict[str, list[Segment]]:
    head, question, r = build.fresh(HEAD_TEXT), build.fresh(QUESTION_TEXT), build.random
    # The seeds of the longest chunks were picked so that CacheBlend's choice has a wide margin (4 % and more).
    twice = r("chunk", 64, 30)
    context = r("fresh", 40, 50)
    return {
        "head-chunks-question": [head, r("chunk", 70, 10), r("chunk", 33, 11), r("fresh", 9, 12),
                                 r("chunk", 128, long_chunk_seed), r("chunk", 5, 14), question],
        "starts-with-chunk": [r("chunk", 90, 20), r("fresh", 7, 21), r("chunk", 48, 22), r("chunk", 130, 174), question],
        "same-chunk-twice": [head, twice, r("fresh", 11, 31), twice, r("chunk", 100, 158), question],
        "adjacent-chunks": [r("fresh", 6, 40), r("chunk", 100, 41), r("chunk", 17, 42), r("chunk", 16, 43),
                            r("chunk", 120, 107), r("chunk", 1, 45), question],
        "chunk-behind-its-context": [context, r("chunk", 220, 51, context.tokens), question],
        RUNS: document_runs(head, [r("chunk", 60, 70), r("chunk", 45, 71), r("chunk", 80, 72), r("chunk", 33, 73)],
                            r("fresh", 11, 74), r("chunk", 40, 75), question),
    }


def document_runs(head, chunks, between, other, question) -> list[Segment]:
    """Chunks that have each seen those before it: three as in their document, two from its middle, and one behind a
    chunk that it has not seen."""
    seen, document = (), []
    for chunk in chunks:
        document.append(Segment("chunk", chunk.tokens, seen))
        seen += chunk.tokens
    return [head, *document[:3], between, *document[2:], other, document[1], question]


def text_cases(build: Builder) -> dict[str, list[Segment]]:
    head, question = build.fresh(HEAD_TEXT), build.fresh(QUESTION_TEXT)
    report, minutes = build.chunk(golden_format.REPORT_TEXT), build.chunk(golden_format.MINUTES_TEXT)
    context = build.fresh(HEAD_TEXT + golden_format.MINUTES_TEXT)
    return {
        "head-chunks-question": [head, report, build.chunk("Page 7 of 12\n"), build.fresh("\nAnd from the council:\n"),
                                 minutes, build.chunk(golden_format.NOTE_TEXT), question],
        "starts-with-chunk": [minutes, build.fresh("\nAnd the manual:\n"), build.chunk(golden_format.MANUAL_TEXT),
                              build.chunk(golden_format.NOTE_TEXT), build.fresh(SECOND_QUESTION_TEXT)],
        "chunk-behind-its-context": [context, Segment("chunk", report.tokens, context.tokens), question],
        RUNS: document_runs(head, [report, minutes, build.chunk(golden_format.NOTE_TEXT), build.chunk("Page 7 of 12\n")],
                            build.fresh("\nAnd from the council:\n"), build.chunk(golden_format.MANUAL_TEXT), question),
    }


def row_errors(values: torch.Tensor, reference: torch.Tensor, ids: list[int]) -> dict[str, float]:
    """Errors over the recorded elements of the prompt's last rows, and of the worst row alone."""
    values = values.double()
    rows = [golden_format.recorded_errors(values[[i]], reference[[i]], ids) for i in range(len(reference))]
    return {
        **golden_format.recorded_errors(values, reference, ids),
        "worst_row_rms": max(row["rms"] for row in rows),
        "worst_row_centred_rms": max(row["centred_rms"] for row in rows),
    }


def tolerance(errors: list[dict[str, float]]) -> dict[str, float]:
    names = {"max_abs": "max_abs", "rms": "worst_row_rms", "centred_rms": "worst_row_centred_rms"}
    values = [TOLERANCE_FACTOR * max(error[name] for error in errors) for name in names.values()]
    return dict(zip(names, golden_format.rounded(values)))


def describe_blend(blend, others) -> dict:
    """The chosen rows, and how near the others came: rounding may swap rows on the two sides of the boundary."""
    order = sorted(blend.deviations.items(), key=lambda item: (-item[1], item[0]))
    last, best_left_out = order[len(blend.chosen_rows) - 1][1], order[len(blend.chosen_rows)][1]
    near = sorted(row for row, value in order if best_left_out * (1 - NEAR) <= value <= last * (1 + NEAR))
    numbers = golden_format.rounded([last, best_left_out, (last - best_left_out) / last])
    return {
        "chosen_rows": blend.chosen_rows,
        "smallest_chosen_deviation": numbers[0],
        "largest_left_out_deviation": numbers[1],
        "relative_margin": numbers[2],
        "near_rows": near,
        "chosen_otherwise_when_rounded": sorted(
            {row for other in others for row in set(other.chosen_rows) ^ set(blend.chosen_rows)}
        ),
    }


def last_rows(linker_model: DenseLinker, segments, linker: str, sinks, forced) -> torch.Tensor:
    """Logits of the prompt's last rows. `naive-last` has only one, so there the prompt is also ended earlier: one row
    says little about the size of rounding errors."""
    if linker != "naive-last":
        return linker_model.link(segments, linker, sinks, forced_rows=forced).logits
    question, rows = segments[-1].tokens, []
    for length in range(max(1, len(question) - MAX_LOGIT_ROWS + 1), len(question) + 1):
        shortened = segments[:-1] + [Segment("fresh", question[:length])]
        rows.append(linker_model.link(shortened, linker, sinks).logits)
    return torch.cat(rows)


def golden_result(linkers: dict[Precision, DenseLinker], segments, linker: str, sinks, ids) -> tuple[dict, torch.Tensor]:
    exact = linkers[Precision.EXACT].link(segments, linker, sinks)
    forced = exact.blend.chosen_rows if exact.blend else None
    reference = last_rows(linkers[Precision.EXACT], segments, linker, sinks, forced)
    result = {
        "linker": linker,
        "recomputed_count": len(exact.recomputed_rows),
        "recomputed_rows": ranges(exact.recomputed_rows),
    }
    if exact.blend:
        rounded = [linkers[p].link(segments, linker, sinks).blend for p in (Precision.BF16, Precision.ROUNDED_KV)]
        result["cacheblend"] = describe_blend(exact.blend, rounded)
    for precision, name in ((Precision.BF16, "bf16_error"), (Precision.ROUNDED_KV, "bf16_kv_error")):
        rounded = last_rows(linkers[precision], segments, linker, sinks, forced)
        result[name] = row_errors(rounded, reference, ids)
    result["tolerance"] = tolerance([result["bf16_error"], result["bf16_kv_error"]])
    result |= golden_format.recorded(exact.logits[-1], ids)
    return result, exact.logits[-1]


def copied_result(exact: DenseLinker, segments, linker: str, sinks, ids, full: dict) -> tuple[dict, torch.Tensor]:
    """A linker that must equal `full`: its own rows and logits, the rounding errors of `full`."""
    linked = exact.link(segments, linker, sinks)
    rows = linked.recomputed_rows
    own = {"linker": linker, "recomputed_count": len(rows), "recomputed_rows": ranges(rows)}
    return {**full, **own, **golden_format.recorded(linked.logits[-1], ids)}, linked.logits[-1]


def ranges(rows: list[int]) -> list[list[int]]:
    """Ascending rows as half-open ranges [begin, end)."""
    result = []
    for row in rows:
        if result and result[-1][1] == row:
            result[-1][1] += 1
        else:
            result.append([row, row + 1])
    return result


def require_equal(what: str, a: torch.Tensor, b: torch.Tensor, limit: float = 1e-9) -> float:
    difference = float((a.double() - b.double()).abs().max())
    print(f"  {what}: largest difference {difference:.3g}", flush=True)
    if not difference <= limit:
        raise ValueError(f"{what}: expected a difference of at most {limit}, found {difference}")
    return difference


def check_against_transformers(exact: DenseLinker, path: pathlib.Path, segments: list[Segment]) -> None:
    model = make_model_golden.load_independently(path, torch.float64)
    tokens = torch.tensor([[token for segment in segments for token in segment.tokens]])
    with torch.no_grad():
        reference = model(tokens).logits[0, -1]
    # transformers computes norms, softmax and angles in float32 even here.
    require_equal("full against transformers", exact.link(segments, "full").logits[-1], reference,
                  limit=2e-4 * float(reference.abs().max()))


def check_one_chunk_at_the_start(exact: DenseLinker, build: Builder, sinks) -> None:
    segments = [build.random("chunk", 120, 60), build.random("fresh", 5, 61)]
    full = exact.link(segments, "full").logits[-1]
    for linker in ("naive", "cacheblend:15", "legolink:2", "random:30"):
        require_equal(f"one chunk at the start, {linker}", exact.link(segments, linker, sinks).logits[-1], full)


def golden_case(linkers, name: str, segments: list[Segment], sinks, ids, chosen: list[str]) -> dict:
    """All linkers for one prompt; a chunk with a context of its own: `naive` alone, which must then equal `full`."""
    exact = linkers[Precision.EXACT]
    has_runs = name == RUNS
    has_context = any(segment.prefix for segment in segments) and not has_runs
    chosen = [linker for linker in chosen if not (has_runs and linker in NOT_FOR_RUNS)]
    field = "context" if has_runs else "prefix"
    total = sum(len(segment.tokens) for segment in segments)
    print(f"{name}: {total} tokens", flush=True)
    results, last = [], {}
    for linker in ["full", "naive"] if has_context else chosen:
        if linker == WHOLE_CHUNKS:
            result, last[linker] = copied_result(exact, segments, linker, sinks, ids, results[0])
        else:
            result, last[linker] = golden_result(linkers, segments, linker, sinks, ids)
        results.append(result)
        print(f"  {linker}: M {result['recomputed_count']}, from full "
              f"{golden_format.errors(last[linker], last['full'])}, tolerance {result['tolerance']}",
              result.get("cacheblend", ""), flush=True)
    case = {
        "name": name,
        "token_count": total,
        "segments": [
            {"kind": s.kind, "tokens": list(s.tokens), **({field: list(s.prefix)} if s.prefix else {})}
            for s in segments
        ],
    }
    if has_context:
        shift = CONTEXT_SHIFT
        require_equal("behind its context, naive is full", last["naive"], last["full"])
    elif not has_runs:
        shift = SHIFT
        whole = exact.link(segments, WHOLE_CHUNKS, sinks).logits[-1]
        require_equal("whole chunks recomputed, legolink is full", whole, last["full"])
    if has_context or name == "head-chunks-question":
        for linker in last if len(ids) == exact.sizes.vocab_size else ["naive"]:
            moved = exact.link(segments, linker, sinks, position_offset=shift).logits[-1]
            require_equal(f"{linker} moved by {shift}", moved, last[linker])
        case["position_offset_that_changes_nothing"] = shift
    return {**case, "results": results}


def write_golden(path: pathlib.Path, output: pathlib.Path, name: str, case_names: list[str] | None = None,
                 chosen: list[str] | None = None, long_chunk_seed: int = TINY_LONG_CHUNK_SEED) -> None:
    """`case_names`, `chosen` (linkers, `full` first): by default all. `long_chunk_seed`: of the longest chunk of
    `head-chunks-question`, picked so that CacheBlend's choice has a wide margin."""
    sizes, weights = reference_weights.load(path)
    weights = {key: value.double() for key, value in weights.items()}
    build = Builder(path, sizes.vocab_size)
    small = sizes.vocab_size <= golden_format.WHOLE_VOCABULARY
    cases = random_cases(build, long_chunk_seed) if small else text_cases(build)
    sinks = build.ids(HEAD_TEXT)[:4]
    linkers = {precision: DenseLinker(sizes, weights, precision) for precision in Precision}
    check_against_transformers(linkers[Precision.EXACT], path, cases["head-chunks-question"])
    check_one_chunk_at_the_start(linkers[Precision.EXACT], build, sinks)

    ids = golden_format.fixed_ids(sizes.vocab_size)
    golden_format.write_json(output, {
        "schema": "epic-linker-golden-1",
        "model": name,
        "vocab_size": sizes.vocab_size,
        "sink_tokens": list(sinks),
        "logit_ids": ids,
        "cases": [golden_case(linkers, case, segments, sinks, ids, chosen or LINKERS)
                  for case, segments in cases.items() if not case_names or case in case_names],
    })


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=pathlib.Path)
    parser.add_argument("output", type=pathlib.Path)
    parser.add_argument("--name", help="the model's name in the output, by default the file's")
    parser.add_argument("--case", action="append", help="by default all")
    parser.add_argument("--linker", action="append", help="`full` first; by default all")
    arguments = parser.parse_args()
    write_golden(arguments.model, arguments.output, arguments.name or arguments.model.stem, arguments.case,
                 arguments.linker)


if __name__ == "__main__":
    main()
