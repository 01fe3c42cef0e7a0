"""Makes families/<name>/: for each kind of model that the engine runs one tiny model in both formats and its goldens.

    python families.py [--models-only] [NAME ...]

Each folder holds `safetensors/`, `model.gguf` (the same numbers), `model.json` and `linkers.json` (README.md). The
goldens are computed from the safetensors folder, with the scalings of `transformers`; before they are written, the GGUF
file, read by reference_weights.py, must have the same sizes, weights and frequencies.
"""

import argparse
import dataclasses
import math
import pathlib
import shutil

import torch
import transformers

import make_linker_golden
import make_model_golden
import reference_weights
import tiny_model
from tiny_model import TinyModel

SMALL = {"layers": 3, "width": 64, "heads": 4, "kv_heads": 2, "ffn_width": 32, "vocab_size": 272}
WIDE_HEADS = {**SMALL, "head_dim": 32}
POSITIONS = 12
CASES = ["head-chunks-question", "chunk-behind-its-context"]
LINKERS = ["full", "naive", "cacheblend:15", "legolink:1", "legolink:16"]

# Of head-chunks-question: with these CacheBlend's choice has a margin that rounding does not reach.
LONG_CHUNK_SEEDS = {"llama3": 204, "llama-linear": 183, "llama-yarn": 100, "mistral": 139, "qwen2": 170,
                    "qwen2-yarn": 137, "qwen3": 203}

# The contexts that scalings start from are short, so that a prompt of 300 tokens is well beyond them.
FAMILIES = [
    TinyModel("llama3", seed=11, **SMALL, tied=True,
              scaling={"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                       "original_max_position_embeddings": 128}),
    TinyModel("llama-linear", seed=12, **SMALL, scaling={"type": "linear", "factor": 4.0}),
    TinyModel("llama-yarn", seed=13, **SMALL,
              scaling={"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 128, "beta_fast": 16.0,
                       "beta_slow": 2.0, "attention_factor": 1.25}),
    TinyModel("mistral", seed=14, **WIDE_HEADS, model_type="mistral", rope_base=1000000.0),
    TinyModel("qwen2", seed=15, **SMALL, model_type="qwen2", tied=True, qkv_bias=True, rope_base=1000000.0,
              rms_epsilon=1e-6),
    TinyModel("qwen2-yarn", seed=16, **SMALL, model_type="qwen2", qkv_bias=True,
              scaling={"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 128}),
    TinyModel("qwen3", seed=17, **WIDE_HEADS, model_type="qwen3", qk_norm=True, rope_base=1000000.0,
              rms_epsilon=1e-6),
]
OLDER_CONFIGS = {"llama-linear", "llama-yarn"}  # written as transformers 4 did, the others by transformers itself

# Its GGUF reader knows no scaling, no head size of Qwen 3, and no `llama` called Mistral.
READ_BY_TRANSFORMERS = {"qwen2"}


def write_folder(folder: pathlib.Path, model: TinyModel, weights, tokenizer) -> None:
    config_class, model_class = make_model_golden.ARCHITECTURES[model.model_type]
    config = config_class(
        vocab_size=model.vocab_size,
        hidden_size=model.width,
        intermediate_size=model.ffn_width,
        num_hidden_layers=model.layers,
        num_attention_heads=model.heads,
        num_key_value_heads=model.kv_heads,
        max_position_embeddings=tiny_model.CONTEXT_LENGTH,
        rms_norm_eps=model.rms_epsilon,
        tie_word_embeddings=model.tied,
        rope_parameters={"rope_type": "default", **(model.scaling or {}), "rope_theta": model.rope_base},
        bos_token_id=1,
        eos_token_id=2,
        # Qwen 2 knows no head size of its own; Mistral's configuration has a window unless told otherwise.
        **({} if model.model_type == "qwen2" else {"head_dim": model.head_dim}),
        **({"sliding_window": None} if model.model_type == "mistral" else {}),
    )
    whole = model_class(config).to(torch.bfloat16)
    missing, unexpected = whole.load_state_dict(weights, strict=False)
    if unexpected or missing != (["lm_head.weight"] if model.tied else []):
        raise ValueError(f"{model.name}: weights missing {missing}, unexpected {unexpected}")
    whole.tie_weights()
    whole.save_pretrained(folder)
    tiny_model.write_tokenizer(folder, tokenizer)


def check_formats_agree(folder: pathlib.Path, file: pathlib.Path) -> None:
    ours, our_weights = reference_weights.load(folder)
    theirs, their_weights = reference_weights.load(file)
    for field in dataclasses.fields(ours):
        a, b = getattr(ours, field.name), getattr(theirs, field.name)
        if field.name == "model_type":
            continue
        pairs = zip(a, b, strict=True) if field.name == "frequencies" else [(a, b)]
        if not all(math.isclose(x, y, rel_tol=2e-7) for x, y in pairs):
            raise ValueError(f"{folder.parent.name}: {field.name} is {a} in safetensors and {b} in GGUF")
    if our_weights.keys() != their_weights.keys():
        raise ValueError(f"{folder.parent.name}: weights of one format only {our_weights.keys() ^ their_weights.keys()}")
    for name, values in our_weights.items():
        if not torch.equal(values, their_weights[name]):
            raise ValueError(f"{folder.parent.name}: {name} differs between the formats")


@torch.no_grad()
def check_transformers_reads(folder: pathlib.Path, file: pathlib.Path) -> None:
    ids = torch.arange(3, 150)[None]
    logits = [make_model_golden.load_with_transformers(path, torch.float32)(ids).logits for path in (folder, file)]
    make_linker_golden.require_equal("GGUF against safetensors, both read by transformers", *logits)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="by default all")
    parser.add_argument("--models-only", action="store_true", help="leave the goldens as they are")
    arguments = parser.parse_args()
    unknown = set(arguments.names) - {model.name for model in FAMILIES}
    if unknown:
        parser.error(f"no such family: {', '.join(sorted(unknown))}")
    root = pathlib.Path(__file__).resolve().parent / "families"
    for model in FAMILIES:
        if arguments.names and model.name not in arguments.names:
            continue
        print(f"== {model.name}", flush=True)
        folder, file = root / model.name / "safetensors", root / model.name / "model.gguf"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        weights, tokenizer = tiny_model.make_weights(model), tiny_model.make_tokenizer(model.vocab_size)
        if model.name in OLDER_CONFIGS:
            tiny_model.write_older_folder(folder, model, weights, tokenizer)
        else:
            write_folder(folder, model, weights, tokenizer)
        tiny_model.write_gguf(file, model, weights, tokenizer)
        check_formats_agree(folder, file)
        if model.name in READ_BY_TRANSFORMERS:
            check_transformers_reads(folder, file)
        if not arguments.models_only:
            make_model_golden.write_golden(folder, root / model.name / "model.json", model.name, POSITIONS)
            make_linker_golden.write_golden(folder, root / model.name / "linkers.json", model.name, CASES, LINKERS,
                                            LONG_CHUNK_SEEDS[model.name])


if __name__ == "__main__":
    main()
