"""Reads a model for the reference implementations: sizes, float32 weights, tokenizer.

One convention for both formats, the one of `transformers`: matrices as [out, in], rotation pairs half-split (dimension
i turns with dimension i + head_dim / 2). GGUF files of architecture `llama` store the rows of q and k with adjacent
pairs; they are brought back here. The frequencies of scaled rotations are computed here in double. Written apart from
transformers' own loaders and scalings, so that each checks the other.
"""

import dataclasses
import json
import math
import pathlib

import gguf
import numpy as np
import safetensors.torch
import tokenizers
import torch


@dataclasses.dataclass(frozen=True)
class Sizes:
    layers: int
    width: int
    heads: int
    kv_heads: int
    head_dim: int
    ffn_width: int
    vocab_size: int
    context_length: int
    rms_epsilon: float
    rope_base: float
    tied_embeddings: bool
    frequencies: tuple[float, ...]  # of each rotation pair, radians a position
    attention_factor: float = 1.0  # by which the rotation stretches queries and keys (YaRN)
    model_type: str = "llama"


# Name in the GGUF file -> name in transformers.
_GGUF_LAYER_NAMES = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
}
_GGUF_NAMES = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}


def to_adjacent_pairs(matrix: np.ndarray, heads: int) -> np.ndarray:
    """Half-split rows of each head (i, i + d/2) -> adjacent rows (2i, 2i + 1), as GGUF `llama` stores q and k."""
    head_dim = matrix.shape[0] // heads
    order = np.arange(head_dim).reshape(2, head_dim // 2).T.reshape(-1)
    return matrix.reshape(heads, head_dim, -1)[:, order].reshape(matrix.shape)


def to_half_split_pairs(matrix: np.ndarray, heads: int) -> np.ndarray:
    """The inverse of to_adjacent_pairs."""
    head_dim = matrix.shape[0] // heads
    order = np.arange(head_dim).reshape(head_dim // 2, 2).T.reshape(-1)
    return matrix.reshape(heads, head_dim, -1)[:, order].reshape(matrix.shape)


def _yarn(plain: list[float], base: float, factor: float, original: int, fast: float, slow: float) -> list[float]:
    """Pairs that turn more than `fast` times in the original context keep their frequency, those that turn less than
    `slow` times are slowed by `factor`; between the two whole pairs around these bounds, linearly from one to the
    other."""
    pairs = len(plain)

    def pair_that_turns(times):
        return pairs * math.log(original / (times * 2 * math.pi)) / math.log(base)

    first = max(math.floor(pair_that_turns(fast)), 0)
    last = min(math.ceil(pair_that_turns(slow)), 2 * pairs - 1)
    slowed = [min(max((i - first) / max(last - first, 0.001), 0), 1) for i in range(pairs)]
    return [f * (1 - part) + f / factor * part for f, part in zip(plain, slowed)]


def _llama3(plain: list[float], factor: float, original: int, low: float, high: float) -> list[float]:
    """By how often a pair turns in the original context: `high` times and more keep their frequency, `low` times and
    fewer are slowed by `factor`."""
    kept = [min(max((original * f / (2 * math.pi) - low) / (high - low), 0), 1) for f in plain]
    return [f * part + f / factor * (1 - part) for f, part in zip(plain, kept)]


def rotation(head_dim: int, base: float, scaling: dict | None) -> tuple[tuple[float, ...], float]:
    """Frequencies and attention factor. `scaling`: with the names of config.json, `rope_type` or `type` first."""
    plain = [base ** (-i / head_dim) for i in range(0, head_dim, 2)]
    scaling = scaling or {}
    kind = scaling.get("rope_type") or scaling.get("type") or "default"
    original = scaling.get("original_max_position_embeddings")
    if kind == "default":
        return tuple(plain), 1.0
    factor = scaling["factor"]
    if kind == "linear":
        return tuple(f / factor for f in plain), 1.0
    if kind == "llama3":
        return tuple(_llama3(plain, factor, original, scaling["low_freq_factor"], scaling["high_freq_factor"])), 1.0
    if kind == "yarn":
        stretch = scaling.get("attention_factor") or 1 + 0.1 * math.log(factor)
        bounds = scaling.get("beta_fast") or 32, scaling.get("beta_slow") or 1
        return tuple(_yarn(plain, base, factor, original, *bounds)), stretch
    raise ValueError(f"rotation scaling {kind} is not known here")


def _gguf_rotation(field, has, architecture: str, head_dim: int, divisors) -> tuple[float, tuple[float, ...], float]:
    """Base, frequencies, attention factor."""

    def key(name, absent=None):
        name = f"{architecture}.rope.{name}"
        return field(name) if has(name) else absent

    scaling = {"rope_type": key("scaling.type", "none").replace("none", "default")}
    for ours, theirs in {"factor": "factor", "original_max_position_embeddings": "original_context_length",
                         "beta_fast": "yarn_beta_fast", "beta_slow": "yarn_beta_slow"}.items():
        scaling[ours] = key("scaling." + theirs)
    base = float(key("freq_base", 10000.0))
    frequencies, stretch = rotation(head_dim, base, scaling)
    if divisors is not None:
        frequencies = tuple(f / float(d) for f, d in zip(frequencies, divisors, strict=True))
    return base, frequencies, stretch * key("scaling.attn_factor", 1.0)


def _load_gguf(path: pathlib.Path):
    reader = gguf.GGUFReader(path)

    def field(name):
        return reader.fields[name].contents()

    architecture = field("general.architecture")
    if architecture not in ("llama", "qwen2", "qwen3"):
        raise ValueError(f"{path}: expected architecture llama, qwen2 or qwen3, found {architecture}")
    tensors = {tensor.name: tensor for tensor in reader.tensors}
    divisors = tensors.pop("rope_freqs.weight", None)
    width, heads = field(f"{architecture}.embedding_length"), field(f"{architecture}.attention.head_count")
    head_dim = width // heads
    if f"{architecture}.attention.key_length" in reader.fields:
        head_dim = field(f"{architecture}.attention.key_length")
    base, frequencies, stretch = _gguf_rotation(field, lambda name: name in reader.fields, architecture, head_dim,
                                                None if divisors is None else divisors.data)
    sizes = Sizes(
        layers=field(f"{architecture}.block_count"),
        width=width,
        heads=heads,
        kv_heads=field(f"{architecture}.attention.head_count_kv"),
        head_dim=head_dim,
        ffn_width=field(f"{architecture}.feed_forward_length"),
        vocab_size=len(field("tokenizer.ggml.tokens")),
        context_length=field(f"{architecture}.context_length"),
        rms_epsilon=float(field(f"{architecture}.attention.layer_norm_rms_epsilon")),
        rope_base=base,
        tied_embeddings="output.weight" not in tensors,
        frequencies=frequencies,
        attention_factor=stretch,
        model_type=architecture,
    )
    weights = {}
    for stored_name, tensor in tensors.items():
        values = np.array(gguf.quants.dequantize(tensor.data, tensor.tensor_type), dtype=np.float32)
        stem, _, kind = stored_name.rpartition(".")
        if stem in _GGUF_NAMES:
            name = _GGUF_NAMES[stem]
        else:
            _, layer, part = stem.split(".")
            if architecture == "llama" and part in ("attn_q", "attn_k"):
                values = to_half_split_pairs(values, sizes.heads if part == "attn_q" else sizes.kv_heads)
            name = f"model.layers.{layer}.{_GGUF_LAYER_NAMES[part]}"
        weights[f"{name}.{kind}"] = torch.from_numpy(values)
    return sizes, weights


def _load_folder(folder: pathlib.Path):
    config = json.loads((folder / "config.json").read_text())
    scaling = config.get("rope_parameters") or config.get("rope_scaling") or {}
    head_dim = config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]
    base = float(config.get("rope_theta") or scaling["rope_theta"])
    frequencies, stretch = rotation(head_dim, base, scaling)
    sizes = Sizes(
        layers=config["num_hidden_layers"],
        width=config["hidden_size"],
        heads=config["num_attention_heads"],
        kv_heads=config["num_key_value_heads"],
        head_dim=head_dim,
        ffn_width=config["intermediate_size"],
        vocab_size=config["vocab_size"],
        context_length=config["max_position_embeddings"],
        rms_epsilon=config["rms_norm_eps"],
        rope_base=base,
        tied_embeddings=config["tie_word_embeddings"],
        frequencies=frequencies,
        attention_factor=stretch,
        model_type=config["model_type"],
    )
    weights = safetensors.torch.load_file(folder / "model.safetensors")
    return sizes, {name: values.float() for name, values in weights.items()}


def load(path) -> tuple[Sizes, dict[str, torch.Tensor]]:
    """Sizes and float32 weights (names of transformers) of a GGUF file or a safetensors folder."""
    path = pathlib.Path(path)
    return _load_folder(path) if path.is_dir() else _load_gguf(path)


def load_tokenizer(path) -> tokenizers.Tokenizer:
    """The tokenizer of a folder, or one built from a GGUF file's vocabulary."""
    path = pathlib.Path(path)
    if path.is_dir():
        return tokenizers.Tokenizer.from_file(str(path / "tokenizer.json"))
    fields = gguf.GGUFReader(path).fields
    pre_tokenizers = {"smollm": smollm_pre_tokenizer, "qwen2": qwen2_pre_tokenizer}
    name = fields["tokenizer.ggml.pre"].contents()
    if name not in pre_tokenizers:
        raise ValueError(f"{path}: expected pre-tokenizer {' or '.join(pre_tokenizers)}, found {name}")
    tokens = fields["tokenizer.ggml.tokens"].contents()
    kinds = fields["tokenizer.ggml.token_type"].contents()
    merges = [tuple(merge.split(" ")) for merge in fields["tokenizer.ggml.merges"].contents()]
    tokenizer = tokenizers.Tokenizer(
        tokenizers.models.BPE(vocab={token: i for i, token in enumerate(tokens)}, merges=merges)
    )
    tokenizer.pre_tokenizer = pre_tokenizers[name]()
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    tokenizer.add_special_tokens([token for token, kind in zip(tokens, kinds) if kind == gguf.TokenType.CONTROL])
    return tokenizer


def smollm_pre_tokenizer():
    """Every digit alone, then the byte-level split of GPT-2."""
    pre = tokenizers.pre_tokenizers
    return pre.Sequence([pre.Digits(individual_digits=True), pre.ByteLevel(add_prefix_space=False)])


def qwen2_pre_tokenizer():
    """Contractions, words with one leading character, single digits, punctuation with its line ends, white space."""
    pre = tokenizers.pre_tokenizers
    parts = [r"(?i:'s|'t|'re|'ve|'m|'ll|'d)", r"[^\r\n\p{L}\p{N}]?\p{L}+", r"\p{N}",
             r" ?[^\s\p{L}\p{N}]+[\r\n]*", r"\s*[\r\n]+", r"\s+(?!\S)", r"\s+"]
    split = pre.Split(tokenizers.Regex("|".join(parts)), "isolated")
    return pre.Sequence([split, pre.ByteLevel(add_prefix_space=False, use_regex=False)])
