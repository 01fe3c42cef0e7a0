"""Makes the corpus that the fuzzers start from: tiny models in every format and way of writing that EPIC reads.

    python3 tests/fuzz/make_corpus.py

Writes tests/fuzz/corpus/TARGET/: whole models first (each must open, which tests/fuzz/corpus_test.cc checks), then some
of them cut short ("cut_*"). Weights are random bytes from a fixed seed: the same files come out every time. Needs
Python's standard library alone. An input of several files has a line "=== EPIC FILE name ===" before each of them.
"""

import json
import pathlib
import random
import shutil
import struct

OUT = pathlib.Path(__file__).resolve().parent / "corpus"

# Stored tensor types: GGUF's number, elements and bytes of a block, and where in a block its halves lie.
TYPES = {
    "F32": (0, 1, 4, []), "F16": (1, 1, 2, []), "BF16": (30, 1, 2, []),
    "Q4_0": (2, 32, 18, [0]), "Q4_1": (3, 32, 20, [0, 2]), "Q5_0": (6, 32, 22, [0]), "Q5_1": (7, 32, 24, [0, 2]),
    "Q8_0": (8, 32, 34, [0]), "Q2_K": (10, 256, 84, [80, 82]), "Q3_K": (11, 256, 110, [108]),
    "Q4_K": (12, 256, 144, [0, 2]), "Q5_K": (13, 256, 176, [0, 2]), "Q6_K": (14, 256, 210, [208]),
}
U8, I32, U16, U32, F32, BOOL, STRING, ARRAY, U64 = 0, 5, 2, 4, 6, 7, 8, 9, 10
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
CHATML = (
    "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + "
    "'\\n'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
DEFAULT_SYSTEM = (
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\\nBe brief.<|im_end|>\\n' }}{% endif %}"
    "{{'<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n'}}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)


def byte_level_vocabulary():
    """Three control tokens, a token for each printable byte, blank and line feed, and what three merges build."""
    letters = [chr(byte) for byte in range(0x21, 0x7F)] + ["\u0120", "\u010a"]
    return SPECIAL + letters + ["th", "the", "\u0120t"], ["t h", "th e", "\u0120 t"]


def sentencepiece_vocabulary():
    """Unknown, BOS, EOS, a token for each byte, and a few pieces with their scores."""
    pieces = ["\u2581", "t", "h", "e", "th", "the", "\u2581the"]
    tokens = ["<unk>", "<s>", "</s>"] + [f"<0x{byte:02X}>" for byte in range(256)] + pieces
    kinds = [2, 3, 3] + [6] * 256 + [1] * len(pieces)
    scores = [0.0] * 259 + [-float(i) for i in range(len(pieces))]
    return tokens, kinds, scores


class Shape:
    """Sizes of a tiny model."""

    def __init__(self, width=16, head_dim=16, heads=1, kv_heads=1, ffn=16, layers=1, vocabulary=None):
        self.width, self.head_dim, self.heads, self.kv_heads = width, head_dim, heads, kv_heads
        self.ffn, self.layers = ffn, layers
        self.vocabulary = vocabulary or len(byte_level_vocabulary()[0])

    def tensors(self, names, tied=False, bias=False, qk_norm=False):
        """(name, shape with the slowest dimension first) in file order; `names` is of GGUF or safetensors."""
        query, kv = self.heads * self.head_dim, self.kv_heads * self.head_dim
        listed = [(names["embedding"], [self.vocabulary, self.width])]
        for layer in range(self.layers):
            shapes = {
                "attention_norm": [self.width], "q": [query, self.width], "k": [kv, self.width], "v": [kv, self.width],
                "o": [self.width, query], "ffn_norm": [self.width], "gate": [self.ffn, self.width],
                "up": [self.ffn, self.width], "down": [self.width, self.ffn],
            }
            if bias:
                shapes |= {"q_bias": [query], "k_bias": [kv], "v_bias": [kv]}
            if qk_norm:
                shapes |= {"q_norm": [self.head_dim], "k_norm": [self.head_dim]}
            listed += [(names["layer"].format(layer) + names[key], shape) for key, shape in shapes.items()]
        listed.append((names["final_norm"], [self.width]))
        if not tied:
            listed.append((names["output"], [self.vocabulary, self.width]))
        return listed


GGUF_NAMES = {
    "embedding": "token_embd.weight", "final_norm": "output_norm.weight", "output": "output.weight", "layer": "blk.{}.",
    "attention_norm": "attn_norm.weight", "q": "attn_q.weight", "k": "attn_k.weight", "v": "attn_v.weight",
    "o": "attn_output.weight", "ffn_norm": "ffn_norm.weight", "gate": "ffn_gate.weight", "up": "ffn_up.weight",
    "down": "ffn_down.weight", "q_bias": "attn_q.bias", "k_bias": "attn_k.bias", "v_bias": "attn_v.bias",
    "q_norm": "attn_q_norm.weight", "k_norm": "attn_k_norm.weight",
}
SAFETENSORS_NAMES = {
    "embedding": "model.embed_tokens.weight", "final_norm": "model.norm.weight", "output": "lm_head.weight",
    "layer": "model.layers.{}.", "attention_norm": "input_layernorm.weight", "q": "self_attn.q_proj.weight",
    "k": "self_attn.k_proj.weight", "v": "self_attn.v_proj.weight", "o": "self_attn.o_proj.weight",
    "ffn_norm": "post_attention_layernorm.weight", "gate": "mlp.gate_proj.weight", "up": "mlp.up_proj.weight",
    "down": "mlp.down_proj.weight", "q_bias": "self_attn.q_proj.bias", "k_bias": "self_attn.k_proj.bias",
    "v_bias": "self_attn.v_proj.bias", "q_norm": "self_attn.q_norm.weight", "k_norm": "self_attn.k_norm.weight",
}


def elements_of(shape):
    count = 1
    for dimension in shape:
        count *= dimension
    return count


def tensor_bytes(rng, kind, shape):
    """Random values of about 0.1, as the type stores them."""
    elements = elements_of(shape)
    if kind == "F32":
        return b"".join(struct.pack("<f", rng.uniform(-0.1, 0.1)) for _ in range(elements))
    if kind == "F16":
        return b"".join(struct.pack("<e", rng.uniform(-0.1, 0.1)) for _ in range(elements))
    if kind == "BF16":
        return b"".join(struct.pack("<f", rng.uniform(-0.1, 0.1))[2:] for _ in range(elements))
    _, block_elements, block_bytes, halves_at = TYPES[kind]
    assert shape[-1] % block_elements == 0
    out = b""
    for _ in range(elements // block_elements):
        block = bytearray(rng.randbytes(block_bytes))
        for at in halves_at:
            block[at : at + 2] = struct.pack("<e", rng.uniform(-0.01, 0.01))
        out += bytes(block)
    return out


def text(value):
    raw = value.encode()
    return struct.pack("<Q", len(raw)) + raw


def key(name, kind, payload):
    return text(name) + struct.pack("<I", kind) + payload


def string_array(name, values):
    return key(name, ARRAY, struct.pack("<IQ", STRING, len(values)) + b"".join(map(text, values)))


def number_array(name, kind, code, values):
    return key(name, ARRAY, struct.pack(f"<IQ{len(values)}{code}", kind, len(values), *values))


class Gguf:
    """Writes a GGUF file, whole or in parts."""

    def __init__(self, seed, architecture="llama", shape=None, matrix_types=("F16",), extra=(), sentencepiece=False,
                 version=3, alignment=None, **tensor_options):
        rng = random.Random(seed)
        shape = shape or Shape()
        self.version, self.alignment = version, alignment or 32
        prefix = architecture + "."
        sizes = {
            "block_count": shape.layers, "embedding_length": shape.width, "attention.head_count": shape.heads,
            "attention.head_count_kv": shape.kv_heads, "attention.key_length": shape.head_dim,
            "attention.value_length": shape.head_dim, "feed_forward_length": shape.ffn, "context_length": 128,
            "rope.dimension_count": shape.head_dim,
        }
        self.keys = [key("general.architecture", STRING, text(architecture)), key("general.name", STRING, text("tiny"))]
        if alignment:
            self.keys.append(key("general.alignment", U32, struct.pack("<I", alignment)))
        self.keys += [key(prefix + name, U32, struct.pack("<I", value)) for name, value in sizes.items()]
        self.keys.append(key(prefix + "rope.freq_base", F32, struct.pack("<f", 10000.0)))
        self.keys.append(key(prefix + "attention.layer_norm_rms_epsilon", F32, struct.pack("<f", 1e-5)))
        self.keys += extra
        self.keys += sentencepiece_keys() if sentencepiece else byte_level_keys()
        self.tensors = []
        for index, (name, dimensions) in enumerate(shape.tensors(GGUF_NAMES, **tensor_options)):
            kind = matrix_types[index % len(matrix_types)] if len(dimensions) == 2 else "F32"
            while dimensions[-1] % TYPES[kind][1] != 0:
                kind = "F16"
            self.tensors.append((name, dimensions, kind, tensor_bytes(rng, kind, dimensions)))

    def add_factors(self, count):
        self.tensors.append(("rope_freqs.weight", [count], "F32", struct.pack(f"<{count}f", *[1.0] * count)))
        return self

    def build(self, keys=None, tensors=None):
        keys = self.keys if keys is None else keys
        tensors = self.tensors if tensors is None else tensors
        out = b"GGUF" + struct.pack("<IQQ", self.version, len(tensors), len(keys)) + b"".join(keys)
        data = b""
        for name, dimensions, kind, raw in tensors:
            data += bytes(-len(data) % self.alignment)
            out += text(name) + struct.pack(f"<I{len(dimensions)}Q", len(dimensions), *reversed(dimensions))
            out += struct.pack("<IQ", TYPES[kind][0], len(data))
            data += raw
        out += bytes(-len(out) % self.alignment)
        self.data_begin = len(out)
        return out + data

    def build_split(self, parts):
        """The first part has the metadata and its share of the tensors, as every part."""
        files = {}
        for part in range(parts):
            mine = self.tensors[part * len(self.tensors) // parts : (part + 1) * len(self.tensors) // parts]
            keys = self.keys if part == 0 else []
            keys = keys + [
                key("split.no", U16, struct.pack("<H", part)), key("split.count", U16, struct.pack("<H", parts)),
                key("split.tensors.count", I32, struct.pack("<i", len(self.tensors))),
            ]
            files[f"tiny-{part + 1:05d}-of-{parts:05d}.gguf"] = self.build(keys, mine)
        return files


def byte_level_keys():
    tokens, merges = byte_level_vocabulary()
    return [
        key("tokenizer.ggml.model", STRING, text("gpt2")), key("tokenizer.ggml.pre", STRING, text("smollm")),
        string_array("tokenizer.ggml.tokens", tokens),
        number_array("tokenizer.ggml.token_type", I32, "i", [3] * 3 + [1] * (len(tokens) - 3)),
        string_array("tokenizer.ggml.merges", merges),
        key("tokenizer.ggml.bos_token_id", U32, struct.pack("<I", 1)),
        key("tokenizer.ggml.eos_token_id", U32, struct.pack("<I", 2)),
        key("tokenizer.ggml.add_bos_token", BOOL, b"\0"), key("tokenizer.chat_template", STRING, text(CHATML)),
    ]


def sentencepiece_keys():
    tokens, kinds, scores = sentencepiece_vocabulary()
    return [
        key("tokenizer.ggml.model", STRING, text("llama")), string_array("tokenizer.ggml.tokens", tokens),
        number_array("tokenizer.ggml.scores", F32, "f", scores),
        number_array("tokenizer.ggml.token_type", I32, "i", kinds),
        key("tokenizer.ggml.bos_token_id", U32, struct.pack("<I", 1)),
        key("tokenizer.ggml.eos_token_id", U32, struct.pack("<I", 2)),
        key("tokenizer.ggml.unknown_token_id", U32, struct.pack("<I", 0)),
        key("tokenizer.ggml.add_bos_token", BOOL, b"\1"), key("tokenizer.ggml.add_space_prefix", BOOL, b"\1"),
    ]


def safetensors_file(rng, tensors, kind, metadata=True):
    header = {"__metadata__": {"format": "pt"}} if metadata else {}
    data = b""
    for name, shape in tensors:
        raw = tensor_bytes(rng, kind, shape)
        header[name] = {"dtype": kind, "shape": shape, "data_offsets": [len(data), len(data) + len(raw)]}
        data += raw
    text_header = json.dumps(header, separators=(",", ":")).encode()
    text_header += b" " * (-len(text_header) % 8)
    return struct.pack("<Q", len(text_header)) + text_header + data


def config_json(shape, **changes):
    config = {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "bos_token_id": 1, "eos_token_id": 2,
        "hidden_act": "silu", "hidden_size": shape.width, "intermediate_size": shape.ffn,
        "max_position_embeddings": 128, "num_attention_heads": shape.heads, "num_hidden_layers": shape.layers,
        "num_key_value_heads": shape.kv_heads, "head_dim": shape.head_dim, "rms_norm_eps": 1e-5, "rope_theta": 10000.0,
        "tie_word_embeddings": False, "vocab_size": shape.vocabulary,
    }
    return json.dumps(config | changes, separators=(",", ":")).encode()


def added_token(token_id, content):
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    return {"id": token_id, "content": content} | flags


def byte_level_tokenizer_json():
    tokens, merges = byte_level_vocabulary()
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    digits = {"type": "Digits", "individual_digits": True}
    return {
        "version": "1.0", "truncation": None, "padding": None,
        "added_tokens": [added_token(i, content) for i, content in enumerate(SPECIAL)], "normalizer": None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [digits, byte_level]}, "post_processor": None,
        "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
        "model": {
            "type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
            "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False, "ignore_merges": False,
            "vocab": {token: i for i, token in enumerate(tokens)}, "merges": merges,
        },
    }


def nfc_tokenizer_json(expression):
    """With a normaliser and a regular expression for the pieces, as the Qwen and Llama 3 families have them."""
    document = byte_level_tokenizer_json()
    split = {"type": "Split", "pattern": {"Regex": expression}, "behavior": "Isolated", "invert": False}
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    document["normalizer"] = {"type": "NFC"}
    document["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [split, byte_level]}
    return document


def sentencepiece_tokenizer_json():
    tokens, _, _ = sentencepiece_vocabulary()
    merges = [["t", "h"], ["th", "e"], ["\u2581", "the"]]
    single = [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}]
    special = {"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]}}
    replace = {"type": "Replace", "pattern": {"String": "\u2581"}, "content": " "}
    strip = {"type": "Strip", "content": " ", "start": 1, "stop": 0}
    return {
        "version": "1.0", "truncation": None, "padding": None,
        "added_tokens": [added_token(i, content) for i, content in enumerate(tokens[:3])],
        "normalizer": {
            "type": "Sequence",
            "normalizers": [
                {"type": "Prepend", "prepend": "\u2581"},
                {"type": "Replace", "pattern": {"String": " "}, "content": "\u2581"},
            ],
        },
        "pre_tokenizer": None,
        "post_processor": {"type": "TemplateProcessing", "single": single, "pair": single, "special_tokens": special},
        "decoder": {"type": "Sequence", "decoders": [replace, {"type": "ByteFallback"}, {"type": "Fuse"}, strip]},
        "model": {
            "type": "BPE", "dropout": None, "unk_token": "<unk>", "continuing_subword_prefix": None,
            "end_of_word_suffix": None, "fuse_unk": True, "byte_fallback": True, "ignore_merges": False,
            "vocab": {token: i for i, token in enumerate(tokens)}, "merges": merges,
        },
    }


def dump(document):
    return json.dumps(document, separators=(",", ":"), ensure_ascii=False).encode()


def join(files):
    """Several files as one input; see fuzz_support.h."""
    return b"".join(f"=== EPIC FILE {name} ===\n".encode() + raw for name, raw in files.items())


def shards(rng, tensors, kind, count):
    """Weights over several files, with their index."""
    files, weight_map, total = {}, {}, 0
    for number in range(count):
        mine = tensors[number * len(tensors) // count : (number + 1) * len(tensors) // count]
        name = f"model-{number + 1:05d}-of-{count:05d}.safetensors"
        files[name] = safetensors_file(rng, mine, kind)
        total += sum(elements_of(shape) * TYPES[kind][2] for _, shape in mine)
        weight_map |= {tensor: name for tensor, _ in mine}
    return {"model.safetensors.index.json": dump({"metadata": {"total_size": total}, "weight_map": weight_map})} | files


def gguf_seeds():
    seeds = {
        "f16": Gguf(1).build(),
        "f32_bf16_tied": Gguf(2, matrix_types=("F32", "BF16"), tied=True).build(),
        "blocks_of_32": Gguf(
            3, shape=Shape(width=32, heads=2, ffn=32), matrix_types=("Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1"), tied=True
        ).build(),
        "blocks_of_256": Gguf(
            4, shape=Shape(width=256), matrix_types=("Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K"), tied=True
        ).build(),
        "version_2_alignment_8": Gguf(5, version=2, alignment=8, tied=True).build(),
        "two_layers_factors": Gguf(6, shape=Shape(layers=2), tied=True).add_factors(8).build(),
        "linear_scaling": Gguf(
            7,
            extra=[
                key("llama.rope.scaling.type", STRING, text("linear")),
                key("llama.rope.scaling.factor", F32, struct.pack("<f", 4.0)),
            ],
            tied=True,
        ).build(),
        "yarn_scaling": Gguf(
            8,
            extra=[
                key("llama.rope.scaling.type", STRING, text("yarn")),
                key("llama.rope.scaling.factor", F32, struct.pack("<f", 4.0)),
                key("llama.rope.scaling.original_context_length", U32, struct.pack("<I", 32)),
            ],
            tied=True,
        ).build(),
        "qwen2": Gguf(9, architecture="qwen2", bias=True, tied=True).build(),
        "qwen3": Gguf(10, architecture="qwen3", qk_norm=True, tied=True).build(),
        "sentencepiece": Gguf(
            11, shape=Shape(vocabulary=len(sentencepiece_vocabulary()[0])), sentencepiece=True, tied=True
        ).build(),
        "split_in_2": join(Gguf(12, tied=True).build_split(2)),
        "split_in_3": join(Gguf(13).build_split(3)),
    }
    model = Gguf(1, tied=True)
    whole = model.build()
    for cut in (3, 8, 24, 60, 200, model.data_begin // 2, model.data_begin - 40, model.data_begin, len(whole) - 1):
        seeds[f"cut_at_{cut:05d}"] = whole[:cut]
    parts = Gguf(12, tied=True).build_split(2)
    seeds["cut_split_one_part"] = join(dict(list(parts.items())[:1]))
    seeds["cut_split_second_part"] = join(
        {name: raw[:200] if name.startswith("tiny-00002") else raw for name, raw in parts.items()}
    )
    return seeds


def safetensors_seeds():
    rng = random.Random(20)
    shape = Shape()
    tensors = shape.tensors(SAFETENSORS_NAMES)
    beside = {"config.json": config_json(shape), "tokenizer.json": dump(byte_level_tokenizer_json())}
    seeds = {
        kind.lower(): join(beside | {"model.safetensors": safetensors_file(rng, tensors, kind)})
        for kind in ("F16", "BF16", "F32")
    }
    qwen2 = {"architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2", "tie_word_embeddings": True}
    qwen3 = {"architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3", "tie_word_embeddings": True}
    with_bias = shape.tensors(SAFETENSORS_NAMES, tied=True, bias=True)
    bias = beside | {
        "config.json": config_json(shape, **qwen2),
        "model.safetensors": safetensors_file(rng, with_bias, "F16", metadata=False),
    }
    seeds["qwen2_tied"] = join(bias)
    norms = beside | {
        "config.json": config_json(shape, **qwen3),
        "model.safetensors": safetensors_file(rng, shape.tensors(SAFETENSORS_NAMES, tied=True, qk_norm=True), "F16"),
    }
    seeds["qwen3_tied"] = join(norms)
    sharded = shards(rng, tensors, "F16", 2)
    seeds["sharded_in_2"] = join(beside | sharded)
    seeds["sharded_in_3"] = join(beside | shards(rng, tensors, "BF16", 3))
    whole = safetensors_file(rng, tensors, "F16")
    header_end = 8 + struct.unpack("<Q", whole[:8])[0]
    for cut in (4, 9, header_end // 2, header_end, len(whole) - 1):
        seeds[f"cut_at_{cut:05d}"] = join(beside | {"model.safetensors": whole[:cut]})
    seeds["cut_shard_missing"] = join(beside | dict(list(sharded.items())[:-1]))
    return seeds


def model_folder_seeds():
    rng = random.Random(30)
    shape = Shape()
    byte_level, sentencepiece = byte_level_tokenizer_json(), sentencepiece_tokenizer_json()
    tokenizer_config = {
        "add_prefix_space": False, "bos_token": SPECIAL[1], "eos_token": {"content": SPECIAL[2]},
        "chat_template": CHATML,
        "added_tokens_decoder": {str(i): {"content": token, "special": True} for i, token in enumerate(SPECIAL)},
    }
    files = {"config.json": config_json(shape), "tokenizer.json": dump(byte_level)}
    whole = files | {
        "tokenizer_config.json": dump(tokenizer_config),
        "generation_config.json": dump({"bos_token_id": 1, "eos_token_id": [2, 0], "temperature": 0.6}),
        "model.safetensors": safetensors_file(rng, shape.tensors(SAFETENSORS_NAMES), "F16"),
    }
    llama3 = {
        "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 64,
    }
    yarn = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32}
    seeds = {"whole": join(whole)}
    for name, changes in {
        "llama3_scaling": {"rope_scaling": llama3},
        "linear_scaling": {"rope_scaling": {"type": "linear", "factor": 2.0}},
        "yarn_scaling": {"rope_parameters": yarn | {"rope_theta": 10000.0}, "rope_theta": None},
        "mistral": {"architectures": ["MistralForCausalLM"], "model_type": "mistral", "sliding_window": None},
    }.items():
        seeds[name] = join(whole | {"config.json": config_json(shape, **changes)})
    # Without weights: these reach the tokenizer through its own door.
    seeds["tokenizer_sentencepiece"] = join({"tokenizer.json": dump(sentencepiece)})
    metaspace = sentencepiece | {
        "normalizer": None,
        "pre_tokenizer": {"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": "first", "split": False},
    }
    seeds["tokenizer_metaspace"] = join({"tokenizer.json": dump(metaspace)})
    seeds["tokenizer_nfc"] = join({"tokenizer.json": dump(nfc_tokenizer_json(r"\p{N}|\p{L}+|\s+"))})
    named_templates = [{"name": "default", "template": CHATML}, {"name": "other", "template": DEFAULT_SYSTEM}]
    seeds["tokenizer_named_templates"] = join({
        "tokenizer.json": dump(byte_level), "tokenizer_config.json": dump({"chat_template": named_templates}),
    })
    seeds["template_in_its_own_file"] = join(
        {"tokenizer.json": dump(byte_level), "chat_template.jinja": CHATML.encode()}
    )
    index = shards(rng, shape.tensors(SAFETENSORS_NAMES), "F16", 2)["model.safetensors.index.json"]
    seeds["index_without_shards"] = join(files | {"model.safetensors.index.json": index})
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        raw = whole[name]
        for cut in (1, len(raw) // 3, len(raw) - 1):
            seeds[f"cut_{name.split('.')[0]}_at_{cut:04d}"] = join(files | {name: raw[:cut]})
    return seeds


def chat_template_seeds():
    blanks = CHATML.replace("{%", "{%- ").replace("'", '"').replace("message[\"role\"]", "message.role")
    seeds = {"chatml": CHATML, "default_system": DEFAULT_SYSTEM, "other_spelling": blanks}
    seeds["statements"] = (
        "{%- set system = messages[0]['content'] if messages[0]['role'] == 'system' else '' -%}\n"
        "{# a comment #}{% for m in messages[1:] %}{% if m.role == 'user' and not loop.last %}[INST] "
        "{{ m.content | trim }} [/INST]{% elif m['role'] in ['assistant'] %}{{- eos_token ~ m['content'] -}}{% else %}"
        "{{ raise_exception('no \"' + m.role + '\"') }}{% endif %}\n{% endfor %}{{ bos_token }}"
    )
    seeds["macros"] = (
        "{%- macro one(x, y=1) %}{{ x }}{% endmacro %}{{ one(messages | length) }}{% raw %}{{ }}{% endraw %}"
    )
    for cut in (1, 30, len(CHATML) // 2, len(CHATML) - 1):
        seeds[f"cut_at_{cut:03d}"] = CHATML[:cut]
    return {name: source.encode() for name, source in seeds.items()}


def main():
    targets = {
        "gguf": gguf_seeds(), "safetensors": safetensors_seeds(), "model_folder": model_folder_seeds(),
        "chat_template": chat_template_seeds(),
    }
    for target, seeds in targets.items():
        folder = OUT / target
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        for name, raw in seeds.items():
            (folder / name).write_bytes(raw)
        print(f"{target}: {len(seeds)} inputs, {sum(map(len, seeds.values()))} bytes")


if __name__ == "__main__":
    main()
