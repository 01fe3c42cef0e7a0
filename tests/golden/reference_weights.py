"""Reads a model for the reference implementations: sizes, float32 weights, tokenizer.

One convention for both formats, the one of `transformers`: matrices as [out, in], rotation pairs half-split (dimension
i turns with dimension i + head_dim / 2). GGUF files of architecture `llama` store the rows of q and k with adjacent
pairs; they are brought back here. Written apart from transformers' own GGUF loader, so that each checks the other.
"""

import dataclasses
import json
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


def _load_gguf(path: pathlib.Path):
    reader = gguf.GGUFReader(path)

    def field(name):
        return reader.fields[name].contents()

    if field("general.architecture") != "llama":
        raise ValueError(f"{path}: expected architecture llama, found {field('general.architecture')}")
    names = {tensor.name for tensor in reader.tensors}
    width, heads = field("llama.embedding_length"), field("llama.attention.head_count")
    sizes = Sizes(
        layers=field("llama.block_count"),
        width=width,
        heads=heads,
        kv_heads=field("llama.attention.head_count_kv"),
        head_dim=width // heads,
        ffn_width=field("llama.feed_forward_length"),
        vocab_size=len(field("tokenizer.ggml.tokens")),
        context_length=field("llama.context_length"),
        rms_epsilon=float(field("llama.attention.layer_norm_rms_epsilon")),
        rope_base=float(field("llama.rope.freq_base")),
        tied_embeddings="output.weight" not in names,
    )
    weights = {}
    for tensor in reader.tensors:
        values = np.array(gguf.quants.dequantize(tensor.data, tensor.tensor_type), dtype=np.float32)
        stem = tensor.name.removesuffix(".weight")
        if stem in _GGUF_NAMES:
            name = _GGUF_NAMES[stem]
        else:
            _, layer, part = stem.split(".")
            if part == "attn_q":
                values = to_half_split_pairs(values, sizes.heads)
            elif part == "attn_k":
                values = to_half_split_pairs(values, sizes.kv_heads)
            name = f"model.layers.{layer}.{_GGUF_LAYER_NAMES[part]}"
        weights[name + ".weight"] = torch.from_numpy(values)
    return sizes, weights


def _load_folder(folder: pathlib.Path):
    config = json.loads((folder / "config.json").read_text())
    rope = config.get("rope_parameters") or {}
    sizes = Sizes(
        layers=config["num_hidden_layers"],
        width=config["hidden_size"],
        heads=config["num_attention_heads"],
        kv_heads=config["num_key_value_heads"],
        head_dim=config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"],
        ffn_width=config["intermediate_size"],
        vocab_size=config["vocab_size"],
        context_length=config["max_position_embeddings"],
        rms_epsilon=config["rms_norm_eps"],
        rope_base=float(config.get("rope_theta") or rope["rope_theta"]),
        tied_embeddings=config["tie_word_embeddings"],
    )
    weights = safetensors.torch.load_file(folder / "model.safetensors")
    return sizes, {name: values.float() for name, values in weights.items()}


def load(path) -> tuple[Sizes, dict[str, torch.Tensor]]:
    """Sizes and float32 weights (names of transformers) of a GGUF file or a safetensors folder."""
    path = pathlib.Path(path)
    return _load_folder(path) if path.is_dir() else _load_gguf(path)


def load_tokenizer(path) -> tokenizers.Tokenizer:
    """The tokenizer of a folder, or one built from a GGUF file's vocabulary with the `smollm` pre-tokenizer."""
    path = pathlib.Path(path)
    if path.is_dir():
        return tokenizers.Tokenizer.from_file(str(path / "tokenizer.json"))
    fields = gguf.GGUFReader(path).fields
    if fields["tokenizer.ggml.pre"].contents() != "smollm":
        raise ValueError(f"{path}: expected pre-tokenizer smollm, found {fields['tokenizer.ggml.pre'].contents()}")
    tokens = fields["tokenizer.ggml.tokens"].contents()
    kinds = fields["tokenizer.ggml.token_type"].contents()
    merges = [tuple(merge.split(" ")) for merge in fields["tokenizer.ggml.merges"].contents()]
    tokenizer = tokenizers.Tokenizer(
        tokenizers.models.BPE(vocab={token: i for i, token in enumerate(tokens)}, merges=merges)
    )
    tokenizer.pre_tokenizer = smollm_pre_tokenizer()
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    tokenizer.add_special_tokens([token for token, kind in zip(tokens, kinds) if kind == gguf.TokenType.CONTROL])
    return tokenizer


def smollm_pre_tokenizer():
    """Every digit alone, then the byte-level split of GPT-2."""
    pre = tokenizers.pre_tokenizers
    return pre.Sequence([pre.Digits(individual_digits=True), pre.ByteLevel(add_prefix_space=False)])
