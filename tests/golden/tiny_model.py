"""Makes the tiny random-weight Llama models that the golden tests run: `tiny` (untied) and `tiny-tied`.

A random model with the usual initialisation attends almost uniformly, and then wrong rotations, offsets and masks hide
in the noise. Here q and k are scaled so that the scores before the softmax have a standard deviation of about 2.5, and
the norms' weights are spread around 1, so that a missing or swapped term shows. All weights are rounded to bfloat16
once, so that every format holds exactly the same numbers.

    python tiny_model.py OUTPUT_FOLDER

writes OUTPUT_FOLDER/tiny/ and OUTPUT_FOLDER/tiny-tied/ (config.json, tokenizer.json, tokenizer_config.json,
model.safetensors) and OUTPUT_FOLDER/tiny.gguf, the same model as OUTPUT_FOLDER/tiny/.
"""

import argparse
import json
import pathlib

import gguf
import numpy as np
import safetensors.torch
import tokenizers
import torch

from reference_weights import smollm_pre_tokenizer, to_adjacent_pairs

HEADS = 6
KV_HEADS = 2
HEAD_DIM = 16
WIDTH = HEADS * HEAD_DIM
FFN_WIDTH = 64
VOCAB_SIZE = 320
CONTEXT_LENGTH = 8192
ROPE_BASE = 10000.0
RMS_EPSILON = 1e-5
SCORE_DEVIATION = 2.5  # of q.k / sqrt(head_dim)
MODELS = {"tiny": {"layers": 4, "tied": False, "seed": 3}, "tiny-tied": {"layers": 2, "tied": True, "seed": 4}}

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


def make_weights(layers: int, tied: bool, seed: int) -> dict[str, torch.Tensor]:
    random = np.random.default_rng(seed)

    def matrix(rows, columns, gain):
        values = random.standard_normal((rows, columns)) * gain / np.sqrt(columns)
        return torch.from_numpy(values).to(torch.bfloat16)

    def norm():
        return torch.from_numpy(1 + 0.3 * random.standard_normal(WIDTH)).to(torch.bfloat16)

    kv_width = KV_HEADS * HEAD_DIM
    score_gain = np.sqrt(SCORE_DEVIATION)
    weights = {"model.embed_tokens.weight": torch.from_numpy(0.25 * random.standard_normal((VOCAB_SIZE, WIDTH)))}
    weights["model.embed_tokens.weight"] = weights["model.embed_tokens.weight"].to(torch.bfloat16)
    for layer in range(layers):
        prefix = f"model.layers.{layer}."
        weights[prefix + "input_layernorm.weight"] = norm()
        weights[prefix + "self_attn.q_proj.weight"] = matrix(WIDTH, WIDTH, score_gain)
        weights[prefix + "self_attn.k_proj.weight"] = matrix(kv_width, WIDTH, score_gain)
        weights[prefix + "self_attn.v_proj.weight"] = matrix(kv_width, WIDTH, 1.0)
        weights[prefix + "self_attn.o_proj.weight"] = matrix(WIDTH, WIDTH, 0.4)
        weights[prefix + "post_attention_layernorm.weight"] = norm()
        weights[prefix + "mlp.gate_proj.weight"] = matrix(FFN_WIDTH, WIDTH, 1.5)
        weights[prefix + "mlp.up_proj.weight"] = matrix(FFN_WIDTH, WIDTH, 1.0)
        weights[prefix + "mlp.down_proj.weight"] = matrix(WIDTH, FFN_WIDTH, 0.4)
    weights["model.norm.weight"] = norm()
    if not tied:
        weights["lm_head.weight"] = matrix(VOCAB_SIZE, WIDTH, 2.5)
    return weights


def make_tokenizer() -> tokenizers.Tokenizer:
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE())
    tokenizer.pre_tokenizer = smollm_pre_tokenizer()
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=VOCAB_SIZE,
        special_tokens=SPECIAL_TOKENS,
        initial_alphabet=sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator([TRAINING_TEXT], trainer)
    if tokenizer.get_vocab_size() != VOCAB_SIZE:
        raise ValueError(f"expected a vocabulary of {VOCAB_SIZE}, the text gave {tokenizer.get_vocab_size()}")
    return tokenizer


def write_folder(folder: pathlib.Path, layers: int, tied: bool, weights, tokenizer) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    config = {
        "architectures": ["LlamaForCausalLM"],
        "attention_bias": False,
        "attention_dropout": 0.0,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "head_dim": HEAD_DIM,
        "hidden_act": "silu",
        "hidden_size": WIDTH,
        "initializer_range": 0.02,
        "intermediate_size": FFN_WIDTH,
        "max_position_embeddings": CONTEXT_LENGTH,
        "mlp_bias": False,
        "model_type": "llama",
        "num_attention_heads": HEADS,
        "num_hidden_layers": layers,
        "num_key_value_heads": KV_HEADS,
        "pretraining_tp": 1,
        "rms_norm_eps": RMS_EPSILON,
        "rope_scaling": None,
        "rope_theta": ROPE_BASE,
        "tie_word_embeddings": tied,
        "torch_dtype": "bfloat16",
        "use_cache": True,
        "vocab_size": VOCAB_SIZE,
    }
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
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    (folder / "tokenizer_config.json").write_text(json.dumps(tokenizer_config, indent=2) + "\n")
    tokenizer.save(str(folder / "tokenizer.json"))
    safetensors.torch.save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def write_gguf(path: pathlib.Path, name: str, layers: int, weights, tokenizer) -> None:
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name(name)
    writer.add_block_count(layers)
    writer.add_context_length(CONTEXT_LENGTH)
    writer.add_embedding_length(WIDTH)
    writer.add_feed_forward_length(FFN_WIDTH)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_rope_freq_base(ROPE_BASE)
    writer.add_rope_dimension_count(HEAD_DIM)
    writer.add_layer_norm_rms_eps(RMS_EPSILON)
    writer.add_vocab_size(VOCAB_SIZE)
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_BF16)
    vocabulary = tokenizer.get_vocab()
    model = json.loads(tokenizer.to_str())["model"]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(sorted(vocabulary, key=vocabulary.get))
    writer.add_token_types(
        [gguf.TokenType.CONTROL if i < len(SPECIAL_TOKENS) else gguf.TokenType.NORMAL for i in range(VOCAB_SIZE)]
    )
    writer.add_token_merges([merge if isinstance(merge, str) else " ".join(merge) for merge in model["merges"]])
    writer.add_add_bos_token(False)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    writer.add_pad_token_id(2)
    writer.add_chat_template(CHAT_TEMPLATE)

    names = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}
    parts = {
        "input_layernorm": "attn_norm", "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k",
        "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output", "post_attention_layernorm": "ffn_norm",
        "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down",
    }
    for full_name, tensor in weights.items():
        stem = full_name.removesuffix(".weight")
        values = tensor.float().numpy()
        if stem in names:
            name = names[stem]
        else:
            layer, part = stem.removeprefix("model.layers.").split(".", 1)
            name = f"blk.{layer}.{parts[part]}"
            if part == "self_attn.q_proj":
                values = to_adjacent_pairs(values, HEADS)
            elif part == "self_attn.k_proj":
                values = to_adjacent_pairs(values, KV_HEADS)
        if values.ndim == 1:
            writer.add_tensor(name + ".weight", values)
        else:
            kind = gguf.GGMLQuantizationType.BF16
            writer.add_tensor(name + ".weight", gguf.quants.quantize(values, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", type=pathlib.Path)
    output = parser.parse_args().output
    tokenizer = make_tokenizer()
    for name, options in MODELS.items():
        weights = make_weights(**options)
        write_folder(output / name, options["layers"], options["tied"], weights, tokenizer)
        if name == "tiny":
            write_gguf(output / "tiny.gguf", name, options["layers"], weights, tokenizer)


if __name__ == "__main__":
    main()
