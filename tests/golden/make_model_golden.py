"""Makes the golden logits of whole models, computed by `transformers` on the CPU.

    python make_model_golden.py MODEL OUTPUT.json [--name NAME]

MODEL is a safetensors folder or a GGUF file. README.md describes the output. Before anything is written, the file is
checked by a second way of loading it: its tensors, dequantised by gguf.quants and put back into half-split order, must
give the same logits in the bare architecture, turned by the frequencies that reference_weights.py computes.
"""

import argparse
import math
import pathlib
import random

import torch
import transformers

import golden_format
import reference_weights

TINY_TOKENS = 416
DEFAULT_POSITIONS = 24
GREEDY_TOKENS = 16
ARCHITECTURES = {
    "llama": (transformers.LlamaConfig, transformers.LlamaForCausalLM),
    "mistral": (transformers.MistralConfig, transformers.MistralForCausalLM),
    "qwen2": (transformers.Qwen2Config, transformers.Qwen2ForCausalLM),
    "qwen3": (transformers.Qwen3Config, transformers.Qwen3ForCausalLM),
}


def load_with_transformers(path: pathlib.Path, dtype: torch.dtype):
    options = {"dtype": dtype, "attn_implementation": "eager"}
    if path.is_dir():
        model = transformers.AutoModelForCausalLM.from_pretrained(path, **options)
    else:
        model = transformers.AutoModelForCausalLM.from_pretrained(path.parent, gguf_file=path.name, **options)
    return model.eval()


def load_independently(path: pathlib.Path, dtype: torch.dtype):
    """The same model without transformers' loaders: our own reading of the file, put into the bare architecture."""
    sizes, weights = reference_weights.load(path)
    config_class, model_class = ARCHITECTURES[sizes.model_type]
    config = config_class(
        vocab_size=sizes.vocab_size,
        hidden_size=sizes.width,
        intermediate_size=sizes.ffn_width,
        num_hidden_layers=sizes.layers,
        num_attention_heads=sizes.heads,
        num_key_value_heads=sizes.kv_heads,
        head_dim=sizes.head_dim,
        max_position_embeddings=sizes.context_length,
        rms_norm_eps=sizes.rms_epsilon,
        tie_word_embeddings=sizes.tied_embeddings,
        attn_implementation="eager",
        **({"sliding_window": None} if sizes.model_type == "mistral" else {}),
    )
    model = model_class(config)
    missing, unexpected = model.load_state_dict(weights, strict=False)
    if unexpected or any(name != "lm_head.weight" or not sizes.tied_embeddings for name in missing):
        raise ValueError(f"{path}: weights missing {missing}, unexpected {unexpected}")
    turning = model.model.rotary_emb
    model = model.to(dtype)
    turning.inv_freq = torch.tensor(sizes.frequencies, dtype=torch.float64)
    turning.attention_scaling = sizes.attention_factor
    return model.eval()


def prompt_tokens(path: pathlib.Path, vocab_size: int) -> list[int]:
    """A prompt of at least 300 tokens: random ids for the tiny models, a rendered conversation for a trained one."""
    if vocab_size <= golden_format.WHOLE_VOCABULARY:
        generator = random.Random(300)
        return [generator.randrange(3, vocab_size) for _ in range(TINY_TOKENS)]
    text = (
        "<|im_start|>system\nYou answer from the documents.<|im_end|>\n<|im_start|>user\n"
        + golden_format.REPORT_TEXT + "\n" + golden_format.MINUTES_TEXT
        + "\nWhich crane stood still in March, and for how long?<|im_end|>\n<|im_start|>assistant\n"
    )
    return reference_weights.load_tokenizer(path).encode(text, add_special_tokens=False).ids


def selected_positions(tokens: int, count: int) -> list[int]:
    """First, second, last, and the rest spread evenly."""
    spread = [round(i * (tokens - 1) / (count - 2)) for i in range(count - 1)]
    return sorted(set(spread) | {0, 1})


@torch.no_grad()
def attention_entropy(model, ids: torch.Tensor) -> float:
    """Mean over layers, heads and the later half of the queries of entropy / log(keys); 1 would be uniform."""
    relative = []
    for attention in model(ids, output_attentions=True).attentions:
        for query in range(ids.shape[1] // 2, ids.shape[1]):
            weights = attention[0, :, query, : query + 1].double()
            entropy = -(weights * weights.clamp_min(1e-30).log()).sum(-1)
            relative.append(float(entropy.mean()) / math.log(query + 1))
    return sum(relative) / len(relative)


@torch.no_grad()
def greedy(model, ids: torch.Tensor) -> tuple[list[int], list[float]]:
    """The continuation without sampling, and by how much each token won over the second best."""
    tokens, margins, cache = [], [], None
    for _ in range(GREEDY_TOKENS):
        output = model(ids, past_key_values=cache, use_cache=True)
        best = torch.topk(output.logits[0, -1], 2)
        tokens.append(int(best.indices[0]))
        margins.append(float(best.values[0] - best.values[1]))
        ids, cache = best.indices[:1].reshape(1, 1), output.past_key_values
    return tokens, margins


def write_golden(path: pathlib.Path, output: pathlib.Path, name: str, position_count: int) -> None:
    model = load_with_transformers(path, torch.float32)
    vocab_size = model.config.vocab_size
    tokens = prompt_tokens(path, vocab_size)
    if len(tokens) < 300:
        raise ValueError(f"expected a prompt of at least 300 tokens, found {len(tokens)}")
    ids = torch.tensor([tokens])
    with torch.no_grad():
        reference = model(ids).logits[0]
        exact = load_independently(path, torch.float64)(ids).logits[0]
        half = load_with_transformers(path, torch.bfloat16)(ids).logits[0].float()

    rounding = golden_format.errors(reference, exact)
    if rounding["max_abs"] > 2e-4 * float(exact.abs().max()):
        raise ValueError(f"two ways of loading {path} disagree: {rounding}")

    positions = selected_positions(len(tokens), position_count)
    recorded_ids = golden_format.fixed_ids(vocab_size)
    greedy_tokens, greedy_margins = greedy(model, ids)
    document = {
        "schema": "epic-model-golden-1",
        "model": name,
        "vocab_size": vocab_size,
        "tokens": tokens,
        "attention_entropy": golden_format.rounded([attention_entropy(model, ids)])[0],
        "bf16_error": golden_format.recorded_errors(half[positions], reference[positions], recorded_ids),
        "float32_error": golden_format.recorded_errors(reference[positions].double(), exact[positions], recorded_ids),
        "greedy_tokens": greedy_tokens,
        "greedy_margins": golden_format.rounded(greedy_margins),
        "logit_ids": recorded_ids,
        "rows": [
            {
                "position": p,
                "bf16_error": golden_format.recorded_errors(half[[p]], reference[[p]], recorded_ids),
                **golden_format.recorded(reference[p], recorded_ids),
            }
            for p in positions
        ],
    }
    golden_format.write_json(output, document)
    for key in ("attention_entropy", "bf16_error", "float32_error", "greedy_tokens", "greedy_margins"):
        print(key, document[key])
    print("tokens", len(tokens), "logit deviation", float(reference.std()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=pathlib.Path)
    parser.add_argument("output", type=pathlib.Path)
    parser.add_argument("--name", help="the model's name in the output, by default the file's")
    parser.add_argument("--positions", type=int, default=DEFAULT_POSITIONS, help="how many positions are recorded")
    arguments = parser.parse_args()
    write_golden(arguments.model, arguments.output, arguments.name or arguments.model.stem, arguments.positions)


if __name__ == "__main__":
    main()
