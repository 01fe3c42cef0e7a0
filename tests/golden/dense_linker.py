"""The linkers of docs/linking.md once more, densely and without any of the engine's devices.

Nothing is shared with the engine: no segments, no counter-rotated queries, no online softmax. Every layer holds one
key and one value for each of the prompt's N positions; keys are kept unrotated and rotated, all of them, to their true
positions; the mask is an explicit N x N matrix whose rows are picked. Slow, and short enough to be read and believed.

Three precisions:
  EXACT      float64 everywhere: the reference.
  ROUNDED_KV float64, but every key (rotated to the position where it was compiled) and value is rounded to bfloat16
             when it is made, as a cache would store it.
  BF16       weights, activations, keys and values in bfloat16, softmax and norms inside in float32, as transformers
             does it.
"""

import dataclasses
import enum

import torch

from reference_weights import Sizes


class Precision(enum.Enum):
    EXACT = "exact"
    ROUNDED_KV = "rounded_kv"
    BF16 = "bf16"


@dataclasses.dataclass(frozen=True)
class Segment:
    """A span of the prompt. `prefix`: the tokens that a chunk is compiled behind and whose KV is dropped."""

    kind: str  # "chunk" or "fresh"
    tokens: tuple[int, ...]
    prefix: tuple[int, ...] = ()


@dataclasses.dataclass
class Blend:
    """How CacheBlend chose. `deviations`: of every chunk token, by position."""

    chosen_rows: list[int]
    deviations: dict[int, float]


@dataclasses.dataclass
class Linked:
    recomputed_rows: list[int]
    logits: torch.Tensor  # [rows, vocabulary]: the recomputed rows that end the prompt, without a gap, at most 16
    blend: Blend | None = None


@dataclasses.dataclass
class Cache:
    """Keys before rotation and values, each [layers][kv_heads, rows, head_dim]."""

    keys: list[torch.Tensor]
    values: list[torch.Tensor]

    def rows(self, begin: int) -> "Cache":
        return Cache([k[:, begin:] for k in self.keys], [v[:, begin:] for v in self.values])


MAX_LOGIT_ROWS = 16


def random_rows(tokens: list[int], candidates: list[int], count: int) -> list[int]:
    """The choice of `random`: the first `count` of the candidates shuffled (Fisher and Yates) by SplitMix64 numbers,
    whose state begins as the prompt's ids put through it one by one. Ascending."""
    whole = 2**64

    def split_mix(state):
        mixed = (state ^ (state >> 30)) * 0xBF58476D1CE4E5B9 % whole
        mixed = (mixed ^ (mixed >> 27)) * 0x94D049BB133111EB % whole
        return mixed ^ (mixed >> 31)

    step, state = 0x9E3779B97F4A7C15, 0
    for token in tokens:
        state = split_mix(((state ^ token) + step) % whole)
    left, chosen = list(candidates), []
    for first in range(min(count, len(left))):
        size = len(left) - first
        while True:
            state = (state + step) % whole
            number = split_mix(state)
            if number < (whole - 1) // size * size:  # above that, small remainders would come more often
                break
        picked = first + number % size
        left[first], left[picked] = left[picked], left[first]
        chosen.append(left[first])
    return sorted(chosen)


def continues_run(segments: list[Segment], index: int) -> bool:
    """Whether a chunk stands behind the chunk that it has seen last, which had seen all that it has seen before."""
    before = segments[index - 1]
    return before.kind == "chunk" and segments[index].prefix == before.prefix + before.tokens


class DenseLinker:
    def __init__(self, sizes: Sizes, weights: dict[str, torch.Tensor], precision: Precision = Precision.EXACT):
        self.sizes = sizes
        self.precision = precision
        self.dtype = torch.bfloat16 if precision is Precision.BF16 else torch.float64
        self.weights = {name: value.to(self.dtype) for name, value in weights.items()}
        self._compiled: dict[tuple, Cache] = {}

    def share_compiled(self, compiled: dict[tuple, Cache]) -> None:
        """Keeps compiled chunks in `compiled` from now on, which another object of the same precision may share."""
        self._compiled = compiled

    # --- The parts of a Llama layer ---

    def weight(self, layer: int, part: str) -> torch.Tensor:
        return self.weights[f"model.layers.{layer}.{part}.weight"]

    def optional(self, layer: int, part: str, kind: str = "weight") -> torch.Tensor | None:
        """What only some families have."""
        return self.weights.get(f"model.layers.{layer}.{part}.{kind}")

    def norm(self, hidden: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        wide = hidden.float() if self.precision is Precision.BF16 else hidden
        scale = torch.rsqrt(wide.square().mean(-1, keepdim=True) + self.sizes.rms_epsilon)
        return weight * (wide * scale).to(self.dtype)

    def rotate(self, states: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        """Rotary embedding of [heads, rows, head_dim] at `positions`, half-split pairs; stretched where YaRN asks."""
        half = self.sizes.head_dim // 2
        angles = positions.double()[:, None] * torch.tensor(self.sizes.frequencies, dtype=torch.float64)
        stretch = self.sizes.attention_factor
        cosine, sine = (angles.cos() * stretch).to(self.dtype), (angles.sin() * stretch).to(self.dtype)
        first, second = states[..., :half], states[..., half:]
        return torch.cat([first * cosine - second * sine, second * cosine + first * sine], dim=-1)

    def project(self, layer: int, hidden: torch.Tensor, positions: torch.Tensor):
        """q, k, v of rows that stand at `positions`: [heads, rows, head_dim], none of them rotated."""
        normed = self.norm(hidden, self.weight(layer, "input_layernorm"))

        def heads(part):
            flat = torch.nn.functional.linear(normed, self.weight(layer, part), self.optional(layer, part, "bias"))
            return flat.reshape(flat.shape[0], -1, self.sizes.head_dim).transpose(0, 1)

        q, k, v = heads("self_attn.q_proj"), heads("self_attn.k_proj"), heads("self_attn.v_proj")
        q_norm, k_norm = self.optional(layer, "self_attn.q_norm"), self.optional(layer, "self_attn.k_norm")
        q = q if q_norm is None else self.norm(q, q_norm)
        k = k if k_norm is None else self.norm(k, k_norm)
        if self.precision is Precision.ROUNDED_KV:
            stored = self.rotate(k, positions).to(torch.bfloat16).to(self.dtype)
            k = self.rotate(stored, -positions) / self.sizes.attention_factor**2
            v = v.to(torch.bfloat16).to(self.dtype)
        return q, k, v

    def attend(self, layer: int, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: torch.Tensor):
        """q: [heads, rows, d] and k: [kv_heads, n, d], both rotated; mask: [rows, n], true where visible."""
        group = self.sizes.heads // self.sizes.kv_heads
        k, v = k.repeat_interleave(group, dim=0), v.repeat_interleave(group, dim=0)
        scores = (q @ k.transpose(1, 2)) * self.sizes.head_dim**-0.5
        scores = scores.masked_fill(~mask, float("-inf"))
        wide = torch.float32 if self.precision is Precision.BF16 else torch.float64
        mixed = torch.softmax(scores, dim=-1, dtype=wide).to(self.dtype) @ v
        return mixed.transpose(0, 1).reshape(q.shape[1], -1) @ self.weight(layer, "self_attn.o_proj").T

    def feed_forward(self, layer: int, hidden: torch.Tensor) -> torch.Tensor:
        normed = self.norm(hidden, self.weight(layer, "post_attention_layernorm"))
        gate = torch.nn.functional.silu(normed @ self.weight(layer, "mlp.gate_proj").T)
        return (gate * (normed @ self.weight(layer, "mlp.up_proj").T)) @ self.weight(layer, "mlp.down_proj").T

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        output = self.weights.get("lm_head.weight", self.weights["model.embed_tokens.weight"])
        return self.norm(hidden, self.weights["model.norm.weight"]) @ output.T

    # --- Rows of a prompt ---

    def mask(self, rows: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        """The rows of the full causal matrix: true where a key's position is not after the query's."""
        return (positions[None, :] <= positions[:, None])[rows]

    def layer_step(self, layer, hidden, rows, positions, q, k, v):
        """One layer for `rows`, whose queries are q; k and v hold all of the prompt's positions. None is rotated."""
        q = self.rotate(q, positions[rows])
        hidden = hidden + self.attend(layer, q, self.rotate(k, positions), v, self.mask(rows, positions))
        return hidden + self.feed_forward(layer, hidden)

    def run(self, tokens, rows, positions, cache: Cache, hidden=None, first_layer=0):
        """All layers from `first_layer` on for `rows`; every other row's keys and values are the cached ones.

        Returns the rows' last hidden states and the merged cache.
        """
        if hidden is None:
            hidden = self.weights["model.embed_tokens.weight"][tokens[rows]]
        merged = Cache(list(cache.keys), list(cache.values))
        for layer in range(first_layer, self.sizes.layers):
            q, k, v = self.project(layer, hidden, positions[rows])
            merged.keys[layer] = cache.keys[layer].clone().index_copy_(1, rows, k)
            merged.values[layer] = cache.values[layer].clone().index_copy_(1, rows, v)
            hidden = self.layer_step(layer, hidden, rows, positions, q, merged.keys[layer], merged.values[layer])
        return hidden, merged

    def empty_cache(self, rows: int) -> Cache:
        shape = (self.sizes.kv_heads, rows, self.sizes.head_dim)
        layers = range(self.sizes.layers)
        return Cache([torch.zeros(shape, dtype=self.dtype) for _ in layers],
                     [torch.zeros(shape, dtype=self.dtype) for _ in layers])

    def compile(self, tokens: tuple[int, ...], prefix: tuple[int, ...] = ()) -> Cache:
        """The chunk alone behind `prefix`, at positions 0, 1, ...; the prefix's rows are dropped."""
        key = (tokens, prefix)
        if key not in self._compiled:
            ids = torch.tensor(prefix + tokens)
            rows = torch.arange(len(ids))
            _, cache = self.run(ids, rows, rows, self.empty_cache(len(ids)))
            self._compiled[key] = cache.rows(len(prefix))
        return self._compiled[key]

    # --- The linkers ---

    def cached_prompt(self, segments: list[Segment], linker: str, sinks: tuple[int, ...]) -> Cache:
        """What the cache holds for the prompt: chunks as compiled, fresh spans empty (but `naive-last`: compiled)."""
        parts = []
        for segment in segments:
            if segment.kind == "chunk":
                prefix = sinks if linker == "legolink:0" else segment.prefix
                parts.append(self.compile(segment.tokens, prefix))
            elif linker == "naive-last":
                parts.append(self.compile(segment.tokens))
            else:
                parts.append(self.empty_cache(len(segment.tokens)))
        layers = range(self.sizes.layers)
        return Cache([torch.cat([part.keys[layer] for part in parts], dim=1) for layer in layers],
                     [torch.cat([part.values[layer] for part in parts], dim=1) for layer in layers])

    def recompute_rows(self, segments: list[Segment], linker: str) -> list[int]:
        """Which positions of the prompt are recomputed (without CacheBlend's choice), ascending."""
        total = sum(len(segment.tokens) for segment in segments)
        name, _, argument = linker.partition(":")
        if name == "full":
            return list(range(total))
        if name == "naive-last":
            return [total - 1]
        heads = int(argument) if name == "legolink" else 0
        rows, begin = [], 0
        for index, segment in enumerate(segments):
            length = len(segment.tokens)
            if segment.kind == "fresh":
                rows += range(begin, begin + length)
            elif begin > 0 and not continues_run(segments, index):
                rows += range(begin, begin + min(heads, length))
            begin += length
        if name == "random":
            chunk_rows = sorted(set(range(total)) - set(rows))
            tokens = [token for segment in segments for token in segment.tokens]
            rows = sorted(rows + random_rows(tokens, chunk_rows, int(len(chunk_rows) * float(argument) / 100)))
        return rows

    def blend(self, segments, tokens, positions, cache, percent, fresh, forced_rows):
        """CacheBlend: the hidden states of the rows that go on after layer 1, and which they are."""
        every = torch.arange(len(tokens))
        hidden = self.weights["model.embed_tokens.weight"][tokens]
        q, k, v = self.project(0, hidden, positions)
        hidden = self.layer_step(0, hidden, every, positions, q, k, v)
        q, k, v = self.project(1, hidden, positions)
        deviation = (v.double() - cache.values[1].double()).square().sum(dim=(0, 2))
        chunk_rows, begin = [], 0
        for segment in segments:
            if segment.kind == "chunk":
                chunk_rows += range(begin, begin + len(segment.tokens))
            begin += len(segment.tokens)
        count = int(len(chunk_rows) * percent / 100)
        chosen = sorted(chunk_rows, key=lambda row: (-float(deviation[row]), row))[:count]
        result = Blend(sorted(chosen), {row: float(deviation[row]) for row in chunk_rows})
        rows = sorted(fresh + (result.chosen_rows if forced_rows is None else forced_rows))
        index = torch.tensor(rows)
        hidden = self.layer_step(1, hidden[index], index, positions, q[:, index], k, v)
        return hidden, rows, result

    @torch.no_grad()
    def link(self, segments: list[Segment], linker: str, sinks: tuple[int, ...] = (), position_offset: int = 0,
             forced_rows: list[int] | None = None) -> Linked:
        """Runs a prompt. `forced_rows`: chunk rows that CacheBlend takes instead of those that it would choose."""
        tokens = torch.tensor([token for segment in segments for token in segment.tokens])
        positions = torch.arange(len(tokens)) + position_offset
        rows = self.recompute_rows(segments, linker)
        cache = self.cached_prompt(segments, linker, sinks) if linker != "full" else self.empty_cache(len(tokens))
        hidden, first_layer, blend = None, 0, None
        if linker.startswith("cacheblend:"):
            percent = int(linker.partition(":")[2])
            hidden, rows, blend = self.blend(segments, tokens, positions, cache, percent, rows, forced_rows)
            first_layer = 2
        hidden, _ = self.run(tokens, torch.tensor(rows), positions, cache, hidden, first_layer)
        tail = 1
        while tail < min(len(rows), MAX_LOGIT_ROWS) and rows[-tail - 1] == rows[-tail] - 1:
            tail += 1
        return Linked(rows, self.logits(hidden[-tail:]), blend)
