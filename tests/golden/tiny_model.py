"""Makes tiny random-weight models: as a program `tiny` (untied) and `tiny-tied`; as a module those of families.py.

A random model with the usual initialisation attends almost uniformly, and then wrong rotations, offsets and masks hide
in the noise. Here q and k are scaled so that the scores before the softmax have a standard deviation of about 2.5, and
the norms' weights are spread around 1, so that a missing or swapped term shows. All weights are rounded to bfloat16
once, so that every format holds exactly the same numbers.

    python tiny_model.py OUTPUT_FOLDER

writes OUTPUT_FOLDER/tiny/ and OUTPUT_FOLDER/tiny-tied/ (config.json, tokenizer.json, tokenizer_config.json,
model.safetensors) and OUTPUT_FOLDER/tiny.gguf, the same model as OUTPUT_FOLDER/tiny/.
"""

import argparse
import dataclasses
import json
import pathlib

import gguf
import numpy as np
import safetensors.torch
import tokenizers
import torch

from reference_weights import smollm_pre_tokenizer, to_adjacent_pairs

CONTEXT_LENGTH = 8192
SCORE_DEVIATION = 2.5  # of q.k / sqrt(head_dim)
QUERY_KEY_BIAS_DEVIATION = 1.0
VALUE_BIAS_DEVIATION = 0.5


@dataclasses.dataclass(frozen=True)
class TinyModel:
    """Everything in which tiny models differ. `scaling`: as in config.json, without the base."""

    name: str
    layers: int
    seed: int
    model_type: str = "llama"
    tied: bool = False
    width: int = 96
    heads: int = 6
    kv_heads: int = 2
    head_dim: int = 16
    ffn_width: int = 64
    vocab_size: int = 320
    rope_base: float = 10000.0
    rms_epsilon: float = 1e-5
    qkv_bias: bool = False
    qk_norm: bool = False
    scaling: dict | None = None

    @property
    def gguf_architecture(self) -> str:
        """Converters write Mistral as `llama`."""
        return "llama" if self.model_type == "mistral" else self.model_type


MODELS = [TinyModel("tiny", layers=4, seed=3), TinyModel("tiny-tied", layers=2, seed=4, tied=True)]
ARCHITECTURES = {"llama": "LlamaForCausalLM", "mistral": "MistralForCausalLM", "qwen2": "Qwen2ForCausalLM",
                 "qwen3": "Qwen3ForCausalLM"}

SPECIAL_TOKENS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
CHAT_TEMPLATE = (
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n' }}"
    "{% endif %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
TRAINING_TEXT = """\
The lighthouse keeper counts the ships that pass between the two islands, and writes their names into a book.
In the winter of 1987 there were 214 of them; in the summer that followed there were more than 1,300.
A ship that carries timber sits low in the water. A ship that carries wool sits high, and rolls in the swell.
The keeper's daughter asked: why do you write them down? Because, said the keeper, somebody will want to know.
When the fog comes in from the north the horn sounds every ninety seconds, and the book stays empty for the night.
The system answers the user, and the assistant of the keeper reads what the user has written to the system.
"""


def make_weights(model: TinyModel) -> dict[str, torch.Tensor]:
    random = np.random.default_rng(model.seed)

    def matrix(rows, columns, gain):
        values = random.standard_normal((rows, columns)) * gain / np.sqrt(columns)
        return torch.from_numpy(values).to(torch.bfloat16)

    def norm(length=model.width, mean=1.0):
        return torch.from_numpy(mean * (1 + 0.3 * random.standard_normal(length))).to(torch.bfloat16)

    def bias(length, deviation):
        return torch.from_numpy(deviation * random.standard_normal(length)).to(torch.bfloat16)

    width, query_width, kv_width = model.width, model.heads * model.head_dim, model.kv_heads * model.head_dim
    score_gain = np.sqrt(SCORE_DEVIATION)
    weights = {"model.embed_tokens.weight": torch.from_numpy(0.25 * random.standard_normal((model.vocab_size, width)))}
    weights["model.embed_tokens.weight"] = weights["model.embed_tokens.weight"].to(torch.bfloat16)
    for layer in range(model.layers):
        prefix = f"model.layers.{layer}."
        weights[prefix + "input_layernorm.weight"] = norm()
        weights[prefix + "self_attn.q_proj.weight"] = matrix(query_width, width, score_gain)
        weights[prefix + "self_attn.k_proj.weight"] = matrix(kv_width, width, score_gain)
        weights[prefix + "self_attn.v_proj.weight"] = matrix(kv_width, width, 1.0)
        if model.qkv_bias:
            weights[prefix + "self_attn.q_proj.bias"] = bias(query_width, QUERY_KEY_BIAS_DEVIATION)
            weights[prefix + "self_attn.k_proj.bias"] = bias(kv_width, QUERY_KEY_BIAS_DEVIATION)
            weights[prefix + "self_attn.v_proj.bias"] = bias(kv_width, VALUE_BIAS_DEVIATION)
        if model.qk_norm:  # the norms take the projections' scale away and set the scores' themselves
            weights[prefix + "self_attn.q_norm.weight"] = norm(model.head_dim, score_gain)
            weights[prefix + "self_attn.k_norm.weight"] = norm(model.head_dim, score_gain)
        weights[prefix + "self_attn.o_proj.weight"] = matrix(width, query_width, 0.4)
        weights[prefix + "post_attention_layernorm.weight"] = norm()
        weights[prefix + "mlp.gate_proj.weight"] = matrix(model.ffn_width, width, 1.5)
        weights[prefix + "mlp.up_proj.weight"] = matrix(model.ffn_width, width, 1.0)
        weights[prefix + "mlp.down_proj.weight"] = matrix(width, model.ffn_width, 0.4)
    weights["model.norm.weight"] = norm()
    if not model.tied:
        weights["lm_head.weight"] = matrix(model.vocab_size, width, 2.5)
    return weights


def make_tokenizer(vocab_size: int) -> tokenizers.Tokenizer:
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE())
    tokenizer.pre_tokenizer = smollm_pre_tokenizer()
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=SPECIAL_TOKENS,
        initial_alphabet=sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator([TRAINING_TEXT], trainer)
    if tokenizer.get_vocab_size() != vocab_size:
        raise ValueError(f"expected a vocabulary of {vocab_size}, the text gave {tokenizer.get_vocab_size()}")
    return tokenizer


def older_config(model: TinyModel) -> dict:
    """config.json as transformers 4 wrote it: `rope_theta` and `rope_scaling` apart, `torch_dtype`."""
    return {
        "architectures": [ARCHITECTURES[model.model_type]],
        "attention_bias": False,
        "attention_dropout": 0.0,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "head_dim": model.head_dim,
        "hidden_act": "silu",
        "hidden_size": model.width,
        "initializer_range": 0.02,
        "intermediate_size": model.ffn_width,
        "max_position_embeddings": CONTEXT_LENGTH,
        "mlp_bias": False,
        "model_type": model.model_type,
        "num_attention_heads": model.heads,
        "num_hidden_layers": model.layers,
        "num_key_value_heads": model.kv_heads,
        "pretraining_tp": 1,
        "rms_norm_eps": model.rms_epsilon,
        "rope_scaling": model.scaling,
        "rope_theta": model.rope_base,
        "tie_word_embeddings": model.tied,
        "torch_dtype": "bfloat16",
        "use_cache": True,
        "vocab_size": model.vocab_size,
    }


def write_tokenizer(folder: pathlib.Path, tokenizer) -> None:
    tokenizer_config = {
        "add_bos_token": False,
        "add_prefix_space": False,
        "added_tokens_decoder": {
            str(i): {"content": token, "lstrip": False, "normalized": False, "rstrip": False, "single_word": False,
                     "special": True}
            for i, token in enumerate(SPECIAL_TOKENS)
        },
        "additional_special_tokens": SPECIAL_TOKENS[1:],
        "bos_token": "<|im_start|>",
        "chat_template": CHAT_TEMPLATE,
        "clean_up_tokenization_spaces": False,
        "eos_token": "<|im_end|>",
        "model_max_length": CONTEXT_LENGTH,
        "pad_token": "<|im_end|>",
        "tokenizer_class": "GPT2Tokenizer",
        "unk_token": "<|endoftext|>",
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(tokenizer_config, indent=2) + "\n")
    tokenizer.save(str(folder / "tokenizer.json"))


def write_older_folder(folder: pathlib.Path, model: TinyModel, weights, tokenizer) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(older_config(model), indent=2) + "\n")
    write_tokenizer(folder, tokenizer)
    safetensors.torch.save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def add_gguf_scaling(writer: gguf.GGUFWriter, model: TinyModel) -> None:
    """The rotation's scaling as converters write it: keys, but for Llama 3 a tensor of the pairs' divisors."""
    scaling = model.scaling or {}
    kind = scaling.get("rope_type", scaling.get("type"))
    if kind == "linear":
        writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(scaling["factor"])
    elif kind == "yarn":
        factor = scaling["factor"]
        writer.add_rope_scaling_type(gguf.RopeScalingType.YARN)
        writer.add_rope_scaling_factor(factor)
        writer.add_rope_scaling_orig_ctx_len(scaling["original_max_position_embeddings"])
        if "beta_fast" in scaling:
            writer.add_rope_scaling_yarn_beta_fast(scaling["beta_fast"])
            writer.add_rope_scaling_yarn_beta_slow(scaling["beta_slow"])
        if "attention_factor" in scaling:  # GGUF's multiplies what YaRN itself prescribes
            writer.add_rope_scaling_attn_factors(scaling["attention_factor"] / (1 + 0.1 * np.log(factor)))
    elif kind == "llama3":
        frequencies = model.rope_base ** (-np.arange(0, model.head_dim, 2) / model.head_dim)
        turns = scaling["original_max_position_embeddings"] * frequencies / (2 * np.pi)
        low, high = scaling["low_freq_factor"], scaling["high_freq_factor"]
        kept = np.clip((turns - low) / (high - low), 0, 1)
        divisors = 1 / (kept + (1 - kept) / scaling["factor"])
        writer.add_tensor("rope_freqs.weight", divisors.astype(np.float32))


def write_gguf(path: pathlib.Path, model: TinyModel, weights, tokenizer) -> None:
    writer = gguf.GGUFWriter(path, model.gguf_architecture)
    writer.add_name(model.name)
    writer.add_block_count(model.layers)
    writer.add_context_length(CONTEXT_LENGTH)
    writer.add_embedding_length(model.width)
    writer.add_feed_forward_length(model.ffn_width)
    writer.add_head_count(model.heads)
    writer.add_head_count_kv(model.kv_heads)
    if model.head_dim * model.heads != model.width:
        writer.add_key_length(model.head_dim)
        writer.add_value_length(model.head_dim)
    writer.add_rope_freq_base(model.rope_base)
    writer.add_rope_dimension_count(model.head_dim)
    writer.add_layer_norm_rms_eps(model.rms_epsilon)
    writer.add_vocab_size(model.vocab_size)
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_BF16)
    vocabulary = tokenizer.get_vocab()
    bpe = json.loads(tokenizer.to_str())["model"]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(sorted(vocabulary, key=vocabulary.get))
    writer.add_token_types(
        [gguf.TokenType.CONTROL if i < len(SPECIAL_TOKENS) else gguf.TokenType.NORMAL for i in range(model.vocab_size)]
    )
    writer.add_token_merges([merge if isinstance(merge, str) else " ".join(merge) for merge in bpe["merges"]])
    writer.add_add_bos_token(False)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    writer.add_pad_token_id(2)
    writer.add_chat_template(CHAT_TEMPLATE)
    add_gguf_scaling(writer, model)

    names = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}
    parts = {
        "input_layernorm": "attn_norm", "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k",
        "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output", "post_attention_layernorm": "ffn_norm",
        "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down",
        "self_attn.q_norm": "attn_q_norm", "self_attn.k_norm": "attn_k_norm",
    }
    for full_name, tensor in weights.items():
        stem, _, kind = full_name.rpartition(".")
        values = tensor.float().numpy()
        if stem in names:
            name = names[stem]
        else:
            layer, part = stem.removeprefix("model.layers.").split(".", 1)
            name = f"blk.{layer}.{parts[part]}"
            if model.gguf_architecture == "llama" and part in ("self_attn.q_proj", "self_attn.k_proj"):
                values = to_adjacent_pairs(values, model.heads if part == "self_attn.q_proj" else model.kv_heads)
        if values.ndim == 1:
            writer.add_tensor(f"{name}.{kind}", values)
        else:
            stored = gguf.GGMLQuantizationType.BF16
            writer.add_tensor(f"{name}.{kind}", gguf.quants.quantize(values, stored), raw_dtype=stored)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", type=pathlib.Path)
    output = parser.parse_args().output
    for model in MODELS:
        weights, tokenizer = make_weights(model), make_tokenizer(model.vocab_size)
        write_older_folder(output / model.name, model, weights, tokenizer)
        if model.name == "tiny":
            write_gguf(output / "tiny.gguf", model, weights, tokenizer)


if __name__ == "__main__":
    main()
