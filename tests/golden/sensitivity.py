"""Shows that the golden logits would notice a mistake: plants mistakes in the dense reference and compares.

    python sensitivity.py MODEL LINKERS.json [--case NAME]...
    python sensitivity.py --families

For every planted mistake and linker, prints the change of the last row's recorded logits over the tolerance that the
golden file gives for it, as `rms` and `centred_rms` (see README.md), whichever is larger. Above 1 a test fails.
With --families: what makes each model of families/ special is taken away, and printed are the change of the logits of
model.json over 1.5 times its `bf16_error`, and the smallest change that a linker shows.
"""

import argparse
import dataclasses
import json
import pathlib

import torch

import golden_format
import reference_weights
from dense_linker import DenseLinker, Segment

LINKERS = ["naive", "naive-last", "cacheblend:15", "legolink:0", "legolink:1", "legolink:2", "legolink:16"]


class Mutant(DenseLinker):
    """The reference with hooks that know which rows of the prompt are stale: cached, not recomputed, in a chunk."""

    compiles_alike = True  # chunks come out as in the reference: the mistake is in linking only

    def link(self, segments, linker, sinks=(), position_offset=0, forced_rows=None):
        self.linking = False
        self.linker, self.segments = linker, segments
        self.spans, first_positions, begin = [], [], 0
        for segment in segments:
            prefix = sinks if linker == "legolink:0" and segment.kind == "chunk" else segment.prefix
            self.spans.append((begin, begin + len(segment.tokens), segment.kind))
            first_positions += [len(prefix)] * len(segment.tokens)
            begin += len(segment.tokens)
        self.first_positions = torch.tensor(first_positions)
        return super().link(segments, linker, sinks, position_offset, forced_rows)

    def cached_prompt(self, segments, linker, sinks):
        cache = super().cached_prompt(segments, linker, sinks)
        self.linking, self.cached = True, cache
        return self.planted_in_cache(cache)

    def planted_in_cache(self, cache):
        return cache

    def layer_step(self, layer, hidden, rows, positions, q, k, v):
        self.layer, self.rows = layer, rows
        return super().layer_step(layer, hidden, rows, positions, q, k, v)

    def stale(self, layer) -> torch.Tensor:
        """True at rows whose keys come from a chunk's cache at this layer."""
        flags = torch.zeros(self.spans[-1][1], dtype=torch.bool)
        for begin, end, kind in self.spans:
            flags[begin:end] = kind == "chunk" or self.linker == "naive-last"
        flags[self.rows] = False
        return flags & (not (self.linker.startswith("cacheblend") and layer < 2))

    def is_prompt_keys(self, states) -> bool:
        return self.linking and states.shape[:2] == (self.sizes.kv_heads, self.spans[-1][1])

    def compiled_positions(self) -> torch.Tensor:
        return torch.cat([torch.arange(end - begin) for begin, end, _ in self.spans]) + self.first_positions

    def moved(self, states, positions, by):
        """Rotation of the prompt's keys with the stale ones' positions changed."""
        changed = positions + torch.where(self.stale(self.layer), by, 0)
        return DenseLinker.rotate(self, states, changed)


class OffsetByOne(Mutant):
    """offset off by one (cached keys one position late)"""

    def rotate(self, states, positions):
        return self.moved(states, positions, 1) if self.is_prompt_keys(states) else super().rotate(states, positions)


class FirstPositionForgotten(Mutant):
    """first stored position forgotten (matters where it is not 0)"""

    def rotate(self, states, positions):
        if self.is_prompt_keys(states):
            return self.moved(states, positions, self.first_positions)
        return super().rotate(states, positions)


class KeysNotMoved(Mutant):
    """cached keys used where they were compiled"""

    def rotate(self, states, positions):
        if not self.is_prompt_keys(states):
            return super().rotate(states, positions)
        local = self.compiled_positions()
        return super().rotate(states, torch.where(self.stale(self.layer), local, positions))


class AdjacentPairs(Mutant):
    """rotation pairs swapped (adjacent instead of half-split), everywhere"""

    compiles_alike = False

    def rotate(self, states, positions):
        half = self.sizes.head_dim // 2
        order = torch.arange(2 * half).reshape(half, 2).T.reshape(-1)
        return super().rotate(states[..., order], positions)[..., torch.argsort(order)]


class AdjacentPairsWhenMoved(AdjacentPairs):
    """rotation pairs swapped only where cached keys are moved"""

    compiles_alike = True

    def rotate(self, states, positions):
        if not self.is_prompt_keys(states):
            return DenseLinker.rotate(self, states, positions)
        local = self.compiled_positions()
        stale = self.stale(self.layer)
        right = DenseLinker.rotate(self, states, torch.where(stale, local, positions))
        return super().rotate(right, torch.where(stale, positions - local, 0))


class StaleHeadKept(Mutant):
    """stale rows kept beside the recomputed ones"""

    def attend(self, layer, q, k, v, mask):
        if self.linking and not (self.linker.startswith("cacheblend") and layer < 2):
            every = torch.arange(k.shape[1])
            flags = torch.zeros(len(every), dtype=torch.bool)
            for begin, end, kind in self.spans:
                flags[begin:end] = kind == "chunk"
            twice = every[flags & ~self.stale(layer)]
            old = DenseLinker.rotate(self, self.cached.keys[layer], every)
            k = torch.cat([k, old[:, twice]], dim=1)
            v = torch.cat([v, self.cached.values[layer][:, twice]], dim=1)
            mask = torch.cat([mask, mask[:, twice]], dim=1)
        return super().attend(layer, q, k, v, mask)


class HeadsSeeTheirTail(Mutant):
    """recomputed rows of a chunk see all of the chunk"""

    def mask(self, rows, positions):
        result = super().mask(rows, positions)
        if self.linking:
            for begin, end, kind in self.spans:
                if kind == "chunk":
                    inside = (rows >= begin) & (rows < end)
                    result[inside, begin:end] = True
        return result


class BottomRightMask(Mutant):
    """rows masked as if they were the prompt's last ones"""

    def mask(self, rows, positions):
        if not self.linking:
            return super().mask(rows, positions)
        return super().mask(torch.arange(len(positions) - len(rows), len(positions)), positions)


class QueryLeftOut(Mutant):
    """of the question only the last token recomputed"""

    def cached_prompt(self, segments, linker, sinks):
        as_chunk = segments[:-1] + [Segment("chunk", segments[-1].tokens)]
        return super().cached_prompt(as_chunk, linker, sinks)

    def recompute_rows(self, segments, linker):
        rows = super().recompute_rows(segments, linker)
        total = sum(len(segment.tokens) for segment in segments)
        return [row for row in rows if row < total - len(segments[-1].tokens)] + [total - 1]


class ValuesByOne(Mutant):
    """cached values taken from the next row"""

    def planted_in_cache(self, cache):
        return type(cache)(cache.keys, [value.roll(-1, dims=1) for value in cache.values])


class OneLayerStale(Mutant):
    """one layer's cache taken from the layer above (layer 2 from layer 3)"""

    def planted_in_cache(self, cache):
        return type(cache)(cache.keys, cache.values[:2] + cache.values[3:4] + cache.values[3:])


class NoSinks(Mutant):
    """chunks of legolink:0 compiled without their four sinks (first position 0)"""

    def link(self, segments, linker, sinks=(), position_offset=0, forced_rows=None):
        return super().link(segments, linker, (), position_offset, forced_rows)


class BaseOff(Mutant):
    """rotation base 20 % too large"""

    compiles_alike = False

    def __init__(self, sizes, weights):
        plain = reference_weights.rotation(sizes.head_dim, sizes.rope_base * 1.2, None)[0]
        super().__init__(dataclasses.replace(sizes, frequencies=plain), weights)


class Without(DenseLinker):
    """A model from which something is taken that its family has. `concerns` tells whether a model has it."""


class WithoutBias(Without):
    """QKV bias left out"""

    def __init__(self, sizes, weights):
        super().__init__(sizes, {name: value for name, value in weights.items() if not name.endswith(".bias")})

    @staticmethod
    def concerns(sizes, weights):
        return any(name.endswith(".bias") for name in weights)


class WithoutQkNorm(Without):
    """QK norm left out"""

    def __init__(self, sizes, weights):
        super().__init__(sizes, {k: v for k, v in weights.items() if "q_norm" not in k and "k_norm" not in k})

    @staticmethod
    def concerns(sizes, weights):
        return any("q_norm" in name for name in weights)


class WithoutScaling(Without):
    """frequencies not scaled"""

    def __init__(self, sizes, weights):
        plain = reference_weights.rotation(sizes.head_dim, sizes.rope_base, None)[0]
        super().__init__(dataclasses.replace(sizes, frequencies=plain), weights)

    @staticmethod
    def concerns(sizes, weights):
        return sizes.frequencies != reference_weights.rotation(sizes.head_dim, sizes.rope_base, None)[0]


class WithoutAttentionFactor(Without):
    """YaRN's attention factor left out"""

    def __init__(self, sizes, weights):
        super().__init__(dataclasses.replace(sizes, attention_factor=1.0), weights)

    @staticmethod
    def concerns(sizes, weights):
        return sizes.attention_factor != 1.0


class WronglyPermuted(Without):
    """rows of q and k left as GGUF's `llama` stores them"""

    def __init__(self, sizes, weights):
        heads = {"q_proj": sizes.heads, "k_proj": sizes.kv_heads}
        changed = dict(weights)
        for name, value in weights.items():
            part = name.split(".")[-2]
            if part in heads and name.endswith(".weight"):
                changed[name] = torch.from_numpy(reference_weights.to_adjacent_pairs(value.numpy(), heads[part]))
        super().__init__(sizes, changed)

    @staticmethod
    def concerns(sizes, weights):
        return True


class OtherHead(Without):
    """output: the embedding in place of a matrix of its own; where tied, the embedding's rows one further"""

    def __init__(self, sizes, weights):
        embedding = weights["model.embed_tokens.weight"]
        head = embedding.roll(1, dims=0) if sizes.tied_embeddings else embedding
        super().__init__(sizes, {**weights, "lm_head.weight": head})

    @staticmethod
    def concerns(sizes, weights):
        return True


SPECIALITIES = [WithoutBias, WithoutQkNorm, WithoutScaling, WithoutAttentionFactor, WronglyPermuted, OtherHead]
MUTANTS = [OffsetByOne, FirstPositionForgotten, KeysNotMoved, AdjacentPairs, AdjacentPairsWhenMoved, StaleHeadKept,
           HeadsSeeTheirTail, BottomRightMask, QueryLeftOut, ValuesByOne, OneLayerStale, NoSinks, BaseOff]


def change(logits, result, ids) -> float:
    """Of a row of all logits against the recorded one."""
    found = golden_format.errors(logits[ids], torch.tensor(result["logits"], dtype=torch.float64))
    return max(found[name] / result["tolerance"][name] for name in ("rms", "centred_rms"))


def read_segments(case: dict) -> list[Segment]:
    return [Segment(s["kind"], tuple(s["tokens"]), tuple(s.get("prefix", ()))) for s in case["segments"]]


def chosen_rows(result: dict):
    return result.get("cacheblend", {}).get("chosen_rows")


@torch.no_grad()
def change_of_model(reference: DenseLinker, golden: dict) -> float:
    tokens = torch.tensor(golden["tokens"])
    every = torch.arange(len(tokens))
    hidden, _ = reference.run(tokens, every, every, reference.empty_cache(len(tokens)))
    logits = reference.logits(hidden[[row["position"] for row in golden["rows"]]])
    expected = torch.tensor([row["logits"] for row in golden["rows"]], dtype=torch.float64)
    found = golden_format.errors(logits[:, golden["logit_ids"]], expected)
    return max(found[name] / (1.5 * golden["bf16_error"][name]) for name in ("rms", "centred_rms"))


def families() -> None:
    root = pathlib.Path(__file__).resolve().parent / "families"
    folders = sorted(root.iterdir())
    print("| taken away | " + " | ".join(folder.name for folder in folders) + " |")
    print("|---" * (len(folders) + 1) + "|")
    for mutant in [DenseLinker, *SPECIALITIES]:
        cells = [change_of_family(mutant, folder) for folder in folders]
        print(f"| {'nothing' if mutant is DenseLinker else mutant.__doc__} | " + " | ".join(cells) + " |", flush=True)


def change_of_family(mutant, folder: pathlib.Path) -> str:
    sizes, weights = reference_weights.load(folder / "safetensors")
    if mutant is not DenseLinker and not mutant.concerns(sizes, weights):
        return ""
    reference = mutant(sizes, weights)
    of_model = change_of_model(reference, json.loads((folder / "model.json").read_text()))
    golden = json.loads((folder / "linkers.json").read_text())
    of_linkers = []
    for result in golden["cases"][0]["results"]:
        linked = reference.link(read_segments(golden["cases"][0]), result["linker"], forced_rows=chosen_rows(result))
        of_linkers.append(change(linked.logits[-1], result, golden["logit_ids"]))
    return f"{of_model:.1f}, {min(of_linkers):.1f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=pathlib.Path, nargs="?")
    parser.add_argument("golden", type=pathlib.Path, nargs="?")
    parser.add_argument("--families", action="store_true")
    parser.add_argument("--case", action="append")
    parser.add_argument("--linker", action="append", help="by default all that are recorded")
    arguments = parser.parse_args()
    if arguments.families:
        return families()
    if not arguments.golden:
        parser.error("MODEL and LINKERS.json are needed, or --families")
    golden = json.loads(arguments.golden.read_text())
    sizes, weights = reference_weights.load(arguments.model)
    ids, sinks = golden["logit_ids"], tuple(golden["sink_tokens"])

    for case in golden["cases"]:
        if arguments.case and case["name"] not in arguments.case:
            continue
        results = {result["linker"]: result for result in case["results"]}
        linkers = [linker for linker in arguments.linker or LINKERS if linker in results]
        segments = read_segments(case)
        print(f"\n{case['name']}\n\n| planted mistake | " + " | ".join(linkers) + " |")
        print("|---" * (len(linkers) + 1) + "|")
        compiled = {}
        for mutant in [DenseLinker, *MUTANTS]:
            if mutant is OneLayerStale and sizes.layers < 4:
                continue
            reference = mutant(sizes, weights)
            if mutant is DenseLinker or mutant.compiles_alike:
                reference.share_compiled(compiled)
            cells = []
            for linker in linkers:
                linked = reference.link(segments, linker, sinks, forced_rows=chosen_rows(results[linker]))
                cells.append(f"{change(linked.logits[-1], results[linker], ids):.1f}")
            title = "none" if mutant is DenseLinker else mutant.__doc__.split("\n")[0]
            print(f"| {title} | " + " | ".join(cells) + " |", flush=True)
        for one, other in zip(linkers, linkers[1:]):
            row = torch.zeros(sizes.vocab_size, dtype=torch.float64)
            row[ids] = torch.tensor(results[other]["logits"], dtype=torch.float64)
            print(f"{other} instead of {one}: {change(row, results[one], ids):.1f}")


if __name__ == "__main__":
    main()
