#!/usr/bin/env python3
"""Our tokenizers against the `tokenizers` package: the same ids and the same decoded text, on a million bytes.

Real vocabularies come from PyPI packages (vocabularies.py says which), SmolLM2's from the model file that EPIC_MODEL
names, Yi's and GPT-2's ways are run on small vocabularies trained here. Every text is encoded as text of users, where
control tokens mean nothing, and once more with control tokens recognised; the GGUF form of each vocabulary must give
what its tokenizer.json gives; bytes that are not UTF-8 must be refused with the position of the first.

Needs PyPI the first time; ends with 77, which ctest shows as skipped, where that is not reached.
"""

import functools
import json
import os
import pathlib
import struct
import subprocess
import sys
import tempfile
import time
import unicodedata
import unittest

import corpus
import vocabularies

SOURCE = pathlib.Path(os.environ.get("EPIC_SOURCE_DIR", pathlib.Path(__file__).resolve().parents[2]))
TOOL = pathlib.Path(os.environ.get("EPIC_BINARY_DIR", SOURCE / "build" / "release")) / "tests_bin" / "encode_texts"
FOLDER = SOURCE / "build" / "tokenizer-reference"


@functools.cache
def texts():
    return corpus.texts()


def run_tool(model, inputs, specials=False):
    """For every text its ids and what they decode to, or the error message."""
    with tempfile.TemporaryDirectory() as folder:
        source, result = pathlib.Path(folder) / "texts", pathlib.Path(folder) / "results"
        source.write_bytes(b"".join(struct.pack("=i", len(text)) + text for text in inputs))
        command = [str(TOOL), str(model), str(source), str(result)] + (["--specials"] if specials else [])
        run = subprocess.run(command, capture_output=True, timeout=300)
        if run.returncode != 0:
            raise AssertionError(run.stderr.decode("utf-8", "replace")[:2000])
        data = result.read_bytes()
    position = 0
    results = []

    def take(count):
        nonlocal position
        position += count
        return data[position - count : position]

    def number():
        return struct.unpack("=i", take(4))[0]

    while position < len(data):
        count = number()
        ids = list(struct.unpack(f"={count}i", take(4 * count))) if count >= 0 else None
        results.append((ids, take(number()).decode("utf-8", "replace")))
    return results


class CompareTest(unittest.TestCase):
    longMessage = False

    def compare(self, name, folder, change=None):
        """`change` makes of a text what its ids decode to; None where that is known only to the reference."""
        from tokenizers import Tokenizer

        reference = Tokenizer.from_file(str(folder / "tokenizer.json"))
        inputs = texts()
        encoded = [text.encode() for text in inputs]
        total = 0
        seconds = {"reference": 0.0, "ours": 0.0}
        for specials in (False, True):
            reference.encode_special_tokens = not specials
            begun = time.monotonic()
            expected = [encoding.ids for encoding in reference.encode_batch(inputs, add_special_tokens=False)]
            decoded = reference.decode_batch(expected, skip_special_tokens=True)
            seconds["reference"] += time.monotonic() - begun
            begun = time.monotonic()
            results = run_tool(folder, encoded, specials)
            seconds["ours"] += time.monotonic() - begun
            self.assertEqual(len(results), len(inputs))
            for text, ids, back, (our_ids, our_back) in zip(inputs, expected, decoded, results):
                self.assertEqual(our_ids, ids, f"{name}: the ids of {ascii(text)[:600]} are {str(our_ids)[:300]}, expected {str(ids)[:300]}")
                self.assertEqual(our_back, back, f"{name}: {ascii(text)[:300]} decodes to {ascii(our_back)[:300]}, expected {ascii(back)[:300]}")
                if change and not specials:
                    self.assertEqual(our_back, change(text), f"{name}: {ascii(text)[:300]} does not come back")
            total += sum(map(len, expected))
        print(f"{name}: {len(inputs)} texts, {sum(map(len, encoded))} bytes, {total} ids equal "
              f"(reference {seconds['reference']:.1f} s, ours with start {seconds['ours']:.1f} s)", flush=True)

    def compare_gguf(self, folder, path):
        some = [text.encode() for text in texts()[:1500]]
        self.assertEqual(run_tool(path, some), run_tool(folder, some), f"{path.name} differs from its tokenizer.json")

    def both(self, name, vocabulary, change=None):
        folder = vocabulary.write_json(FOLDER / name)
        self.compare(name, folder, change)
        self.compare_gguf(folder, vocabulary.write_gguf(FOLDER / name / "vocabulary.gguf"))

    def test_llama3(self):
        self.both("llama-3", vocabularies.llama3(PACKAGES), lambda text: text)

    def test_qwen2(self):
        self.both("qwen-2", vocabularies.qwen2(PACKAGES), lambda text: NORMALIZE(text))

    def test_tekken(self):
        self.both("mistral-nemo", vocabularies.tekken(PACKAGES), lambda text: text)

    def test_mistral_v1(self):
        self.both("mistral-7b-v0.1", vocabularies.mistral(PACKAGES, "tokenizer.model.v1"), lambda text: text.replace("\u2581", " "))

    def test_mistral_v3(self):
        vocabulary = vocabularies.mistral(PACKAGES, "mistral_instruct_tokenizer_240323.model.v3")
        self.compare("mistral-7b-v0.3", vocabulary.write_json(FOLDER / "mistral-7b-v0.3", **vocabularies.FIRST))
        never = vocabulary.write_json(FOLDER / "mistral-7b-v0.3-no-space", **vocabularies.NEVER)
        self.compare("mistral-7b-v0.3 without a space before text", never)
        # The same by tokenizer_config.json's word.
        told = vocabulary.write_json(FOLDER / "mistral-7b-v0.3-told")
        (told / "tokenizer_config.json").write_text(json.dumps({"add_prefix_space": False, "legacy": True}))
        some = [text.encode() for text in texts()[:1500]]
        self.assertEqual(run_tool(told, some), run_tool(never, some))

    def train(self, name, tokenizer, trainer):
        # Without what looks like a control token, or there would be merges that build one.
        tokenizer.train_from_iterator([text for text in texts()[:3500] if not any(token in text for token in corpus.TOKENS)], trainer)
        folder = FOLDER / name
        folder.mkdir(parents=True, exist_ok=True)
        tokenizer.save(str(folder / "tokenizer.json"))
        return folder

    def test_yi(self):
        """No package carries Yi's vocabulary: a small one, trained with its pipeline, and added tokens with every flag."""
        from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

        tokenizer = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
        tokenizer.normalizer = normalizers.Replace(" ", vocabularies.MARK)
        tokenizer.pre_tokenizer = pre_tokenizers.Split(vocabularies.MARK, "merged_with_next")  # for training alone
        tokenizer.decoder = decoders.Sequence([decoders.Replace(vocabularies.MARK, " "), decoders.ByteFallback(), decoders.Fuse()])
        flags = {"<|endoftext|>": {"normalized": True}, "<|im_start|>": {"lstrip": True}, "<|im_end|>": {"lstrip": True, "rstrip": True},
                 "</tool_call>": {"special": False, "rstrip": True}, "<think>": {"special": False, "normalized": True}, "[INST]": {"special": False, "lstrip": True}}
        names = ["<unk>", "<|startoftext|>", *flags]
        trainer = trainers.BpeTrainer(vocab_size=6000, show_progress=False, limit_alphabet=600,
                                      special_tokens=names + [f"<0x{byte:02X}>" for byte in range(256)])
        folder = self.train("yi-like", tokenizer, trainer)
        document = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
        document["pre_tokenizer"] = None
        document["added_tokens"] = [vocabularies.added(name, i, **{"special": True, **flags.get(name, {})}) for i, name in enumerate(names)]
        (folder / "tokenizer.json").write_text(json.dumps(document), encoding="utf-8")
        self.compare("Yi's pipeline, small vocabulary", folder)

    def test_gpt2(self):
        from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(vocab_size=6000, show_progress=False, special_tokens=["<|endoftext|>"], initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
        self.compare("GPT-2's pipeline, small vocabulary", self.train("gpt-2-like", tokenizer, trainer), lambda text: text)

    def test_smollm2(self):
        model = pathlib.Path(os.environ.get("EPIC_MODEL") or "none")
        if model.suffix != ".gguf":
            self.skipTest("EPIC_MODEL names no GGUF file")
        vocabulary = vocabularies.smollm2(model)
        if vocabulary.gguf["tokenizer.ggml.pre"] != "smollm" or len(vocabulary.tokens) != 49152:
            self.skipTest("EPIC_MODEL is not SmolLM2")
        folder = vocabulary.write_json(FOLDER / "smollm2")
        self.compare("SmolLM2", folder)
        self.compare_gguf(folder, model)

    def test_broken_utf8_is_refused_where_it_breaks(self):
        folder = vocabularies.llama3(PACKAGES).write_json(FOLDER / "llama-3")
        broken = corpus.broken_texts()
        for data, (ids, message) in zip(broken, run_tool(folder, broken), strict=True):
            with self.assertRaises(UnicodeDecodeError) as caught:
                data.decode("utf-8")
            position = caught.exception.start
            self.assertIsNone(ids, f"{data[:100]} was taken")
            self.assertIn(f"byte {position} (0x{data[position]:02x})", message)

    def test_the_corpus_is_what_it_is_said_to_be(self):
        everything = "".join(texts())
        self.assertGreater(len(everything.encode()), 1_000_000)
        self.assertNotEqual(unicodedata.normalize("NFC", everything), everything)
        scripts = {unicodedata.name(character, "?").split()[0] for character in everything}
        self.assertTrue({"LATIN", "GREEK", "CYRILLIC", "HEBREW", "ARABIC", "DEVANAGARI", "THAI", "CJK", "HANGUL", "HIRAGANA", "COMBINING"} <= scripts)


if __name__ == "__main__":
    FOLDER.mkdir(parents=True, exist_ok=True)
    try:
        PACKAGES = vocabularies.fetch(FOLDER)
    except (vocabularies.Unreachable, subprocess.TimeoutExpired) as error:
        print(f"SKIPPED: the reference could not be fetched from PyPI: {error}")
        sys.exit(77)
    sys.path.insert(0, str(PACKAGES))
    from tokenizers import normalizers

    NORMALIZE = normalizers.NFC().normalize_str
    unittest.main(verbosity=2)
