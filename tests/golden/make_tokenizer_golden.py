#!/usr/bin/env python3
"""Makes tests/golden/tokenizer/: what the `tokenizers` package and Jinja answer, for our tokenizer to be compared with.

    python3 tests/golden/make_tokenizer_golden.py small           small.json, gaps.json, utf8.json and chat.json
    python3 tests/golden/make_tokenizer_golden.py families        families.json, pieces.json, nfc.json, score_merges.json
    python3 tests/golden/make_tokenizer_golden.py model GGUF      smollm2.json, from the model's own vocabulary

small.json holds a small vocabulary trained here, with the pre-tokenizer and decoder of SmolLM2, and the ids of many
texts; gaps.json a smaller one that lacks tokens for many bytes. smollm2.json holds the ids of the same texts, in the same order, by the real vocabulary. families.json
holds for each family that we run a small vocabulary trained with its own pipeline, as tokenizer.json has it, and the ids
of texts; pieces.json where each way of splitting cuts texts (in characters); nfc.json what NFC makes of texts; score_merges.json the merges that transformers derives from scores. Needs
tokenizers and jinja2; `model` also gguf and transformers, `families` also transformers.
"""

import json
import pathlib
import random
import sys

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

FOLDER = pathlib.Path(__file__).parent / "tokenizer"
CONTROL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<repo>", "<repo>name"]
# Added tokens that are not special: one the beginning of another, one the beginning of a control token, one that
# overlaps a control token, one not ASCII, one white space.
USER_DEFINED = ["[[ref]]", "[[ref]]s", "<|im_en", "note<|im", "\u2603", "\n\n\n\n"]

SENTENCES = """
The cache holds what the model has read, so that nobody has to read it twice; it's kept, it isn't copied, and we'll see why.
A router sends each request where most of its documents already are. Don't move what you can reach!
Der Zwischenspeicher h\u00e4lt, was gro\u00df genug ist; k\u00fcrzere St\u00fccke l\u00e4sst er fallen. \u00dcbung macht den Meister.
Le mod\u00e8le a d\u00e9j\u00e0 lu la page ; l'\u00e9t\u00e9 dernier, on l'a relue \u00e0 No\u00ebl.
\u041a\u044d\u0448 \u0445\u0440\u0430\u043d\u0438\u0442 \u043f\u0440\u043e\u0447\u0438\u0442\u0430\u043d\u043d\u043e\u0435, \u0447\u0442\u043e\u0431\u044b \u043d\u0435 \u0447\u0438\u0442\u0430\u0442\u044c \u0434\u0432\u0430\u0436\u0434\u044b.
\u7f13\u5b58\u4fdd\u5b58\u6a21\u578b\u5df2\u7ecf\u8bfb\u8fc7\u7684\u5185\u5bb9\u3002\u30ad\u30e3\u30c3\u30b7\u30e5\u306f\u8aad\u3093\u3060\u3082\u306e\u3092\u899a\u3048\u3066\u3044\u307e\u3059\u3002
\uce90\uc2dc\ub294 \uc77d\uc740 \uac83\uc744 \uae30\uc5b5\ud569\ub2c8\ub2e4. \u0915\u0948\u0936 \u092a\u0922\u093c\u0940 \u0939\u0941\u0908 \u091a\u0940\u091c\u094b\u0902 \u0915\u094b \u092f\u093e\u0926 \u0930\u0916\u0924\u093e \u0939\u0948\u0964
\u0630\u0627\u0643\u0631\u0629 \u0627\u0644\u062a\u062e\u0632\u064a\u0646 \u062a\u062d\u0641\u0638 \u0645\u0627 \u0642\u0631\u0623\u0647 \u0627\u0644\u0646\u0645\u0648\u0630\u062c. \u05d4\u05de\u05d8\u05de\u05d5\u05df \u05e9\u05d5\u05de\u05e8 \u05de\u05d4 \u05e9\u05e0\u05e7\u05e8\u05d0.
for (size_t i = 0; i < chunks.size(); ++i) {\n    total += chunks[i].bytes;  // one block each\n}
def link(chunks, head=16):\n    return [c.keys[:head] for c in chunks if c is not None]
\tif (a == b && c != d) { return x->y; }
{"id": 1024, "text": "value", "list": [1, 2, 3]}\n\n\n
""".strip().split("\n")

FIXED_TEXTS = [
    "", " ", "  ", "   ", "\n", "\r\n", "\t", "\u00a0", "a", " a", "  a", "a ", "a  ", "   a   b  ",
    "Hello, world!", "don't DON'T Don'T it's IT'S we'll WE'LL they've I'm I'M you'd they're 'tis 'sss ''s '' ' s 'S",
    "x's y't z're q've w'm e'll r'd 'satisfied 'lla 'l 'r 'v 're' \u2019s can\u2019t",
    "0 1 12 123 1234567890 3.14159 1,000,000 0x1F a1b2c3 7up x86 v2.0-rc1", " 1", "  1", "   12  3", "1 a", "1  a", "a\n1", "\n\n1",
    "\u0661\u0662\u0663 \u06f4\u06f5\u06f6 \u0967\u0968\u0969 \u0e51\u0e52 \uff11\uff12\uff13", "x\u00b2+y\u00b3=z\u2074 \u00bd \u00bc\u2153 \u2160\u2161\u216b \u2460\u2461 \u3007\u3021 \u4e00\u4e8c\u4e09",
    "\U0001d7d8\U0001d7d9 \U00010107 \U0001f100 \u0bf0 \u0f33", "a\u00b21 \u00bda \u2167b",
    "\U0001f600 \U0001f468\u200d\U0001f469\u200d\U0001f467\u200d\U0001f466 \U0001f44d\U0001f3fd \U0001f1e9\U0001f1ea \u2764\ufe0f 1\ufe0f\u20e3",
    "a\u00a0b \u00a0c\u00a0 d", "\u3000\u5168\u89d2\u3000\u7a7a\u767d\u3000\u3000x", "\u2003\u2009em\u2028line\u2029para\u0085nel\u1680ogham\u202f\u205f!",
    "\u200b\u200czero\u200dwidth\ufeff \u2060", "tab\t\ttab\t x", "\r\n\r\nfoo\r\n  bar\r\n", "a\n b\n  c\n   d", "\n \n \n", " \n", " \n a", "\x0b\x0c\x1c\x1d\x1e\x1f\x7f\x00",
    "trailing spaces   ", "trailing tab\t", "  \n  \t \u00a0 x",
    "<|im_end|>", "<|im_start|>user\nhi<|im_end|>\n", "a<|im_end|>b<|endoftext|>", "<|im_end", "<|im_en|>", "|im_end|>", "<|im_end|", "<|IM_END|>", "<|im_start|><|im_start|>",
    "<repo>name<repo>names<repo", "note<|im_end|> note<|im note<|im_en", "[[ref]]s [[ref]] [[ref] [[[ref]]]", "\u2603\u2603 snow\u2603man", "a\n\n\nb\n\n\n\nc\n\n\n\n\nd\n\n\n\n\n\n\n\n",
    "e\u0301 n\u0303 a\u0308\u0304 \u0915\u094d\u0937\u093f \u0e01\u0e33 Z\u0351\u036b\u0343A\u0334L \u05e9\u05c1\u05b8", "\u0301alone \u0301", "\u1112\u1161\u11ab \ud55c",
    "na\u00efve caf\u00e9 stra\u00dfe \u0130stanbul \ufb01n \u01c5 \u00aa\u00ba \u02b0 \u2160x", "\u10d0\u10d1\u10d2 \u0531\u0532 \u13a0\u13a1 \u1200 \U00010330 \U0001e900 \U00020000\U0002a6df",
    "\U00031350\U000323af \U0002ebf0 \U00010d40\U00010d41 \U00011de0\U00011de1 x\U00016ff4y \u1c89 \ua7cb", "\ue000 \U000f0000 \uffff \ufdd0 \U0010ffff \u0378",
    "Donaudampfschifffahrtsgesellschaftskapit\u00e4nsm\u00fctze", "a" * 47, "a" * 48, "a" * 49, "ab" * 40, "the" * 60, "x" * 300, "=" * 100, "-+" * 60, "\u7f13\u5b58" * 40, "\U0001f600" * 20, " " * 100 + "x", "\n" * 30,
    "https://example.org/a/b?c=d&e=%20#f user@example.org C:\\dir\\file.txt ~/.config/x_y-z.json",
    "#include <vector>\n\nint main(int argc, char** argv) {\n\tstd::vector<int> v{1, 2, 3};\n\treturn v[0] == 1 ? 0 : -1;\n}\n",
    "class A:\n    def __init__(self, x=None):\n        self.x = x or {}\n\n    @property\n    def y(self): return self.x['y']\n",
    "SELECT COUNT(*) FROM t WHERE a >= 10 AND b <> 'x''y';", "<div class=\"a\">&nbsp;</div><!-- c -->", "\\frac{1}{2} $x_i^2$ \\\\", "| a | b |\n|---|---|\n| 1 | 2 |\n", "- [ ] item\n* **bold** _it_ `code`\n",
    "\u00a1Hola! \u00bfQu\u00e9 tal? \u00abGuillemets\u00bb \u201equotes\u201c \u2014 dash\u2026 \u20ac5 \u00a33 \u00b11\u00b0 \u2192 \u221e \u2260 \u2211",
    "=\x04=", "\x04", "-\x04\x04>(\x04(\x06(\x04", "a\x04\x04b", "\U00040000", "=\U00040000=", "(" + "\x04(" * 40, "\u00e9\u010d\u00e9", "x\u010d\u010d",
    "I'LL i'll I\u02bcll 'RE 'Ve '\u0073", "a'b''c'''d", " 's 't", "!'s ?'re x !'", "\n's", "1's 2'd", "\u00e9's \u7f13's",
] + SENTENCES


def random_texts(count, seed):
    generator = random.Random(seed)
    words = sorted({word for sentence in SENTENCES for word in sentence.split()})
    spaces = [" ", " ", " ", "  ", "\n", "\t", "\r\n", "\u00a0", "\u3000", "    ", "\n\n"]
    pools = [
        "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ", "0123456789\u0663\u00b2\u00bd\u2167", "'\u2019\".,;:!?-_/\\|<>()[]{}@#$%^&*+=~`",
        "".join(spaces), "\u00e9\u00fc\u00df\u0301\u0416\u03bb\u05d0\u0639\u0915\u0e01\ud55c\u7f13\u3042", "\U0001f600\U0001f3fd\u200d\ufe0f\u2603\U00020001\U0001d7d9",
    ]

    def any_character():
        while True:
            code_point = generator.randrange(0x110000 if generator.random() < 0.3 else 0x3000)
            if not 0xD800 <= code_point < 0xE000:
                return chr(code_point)

    def piece():
        choice = generator.random()
        if choice < 0.3:
            return generator.choice(words)
        if choice < 0.5:
            return generator.choice(spaces)
        if choice < 0.6:
            return generator.choice(["'s", "'t", "'re", "'ve", "'m", "'ll", "'d", "'S", "'LL"])
        if choice < 0.65:
            return generator.choice(CONTROL + USER_DEFINED)
        if choice < 0.9:
            pool = generator.choice(pools)
            return "".join(generator.choice(pool) for _ in range(generator.randint(1, 4)))
        return "".join(any_character() for _ in range(generator.randint(1, 3)))

    return ["".join(piece() for _ in range(generator.randint(1, 14))) for _ in range(count)]


def training_texts(seed):
    """Sentences, and words put together from syllables, so that there are merges of merges."""
    generator = random.Random(seed)
    syllables = [a + b + c for a in ["", "b", "k", "st", "m", "tr", "l"] for b in "aeiou" for c in ["", "n", "r", "st"]]
    words = ["".join(generator.choice(syllables) for _ in range(generator.randint(1, 4))) for _ in range(900)]
    for _ in range(1500):
        yield " ".join(words[int(len(words) * generator.random() ** 3)] for _ in range(12)) + generator.choice([".", "!\n", "  ", "\n\n"])
    for sentence in SENTENCES:
        for _ in range(40):
            yield sentence + "\n"


def pre_tokenizer():
    return pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)])


def train(vocab_size, alphabet, sample):
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizer()
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size, show_progress=False, initial_alphabet=alphabet,
        special_tokens=[AddedToken(token, special=True, normalized=False) for token in CONTROL])
    tokenizer.train_from_iterator(sample, trainer)
    tokenizer.add_tokens(USER_DEFINED)
    return tokenizer


def small_tokenizer():
    return train(1400, pre_tokenizers.ByteLevel.alphabet(), training_texts(1))


def gaps_tokenizer():
    """Knows the bytes of printable ASCII and of a few characters only."""
    printable = [chr(code_point) for code_point in range(0x21, 0x7F)] + ["\u0120", "\u010a"]
    runs = ["==", "==", "->", "()", "(((", "\u00e9\u00e9"] * 9
    return train(420, printable, runs + [text for text in training_texts(4) if text.isascii()])


def encode(tokenizer, text, with_specials):
    tokenizer.encode_special_tokens = not with_specials
    return tokenizer.encode(text, add_special_tokens=False).ids


def encode_all(tokenizer, texts):
    cases = []
    for text in texts:
        case = {"ids": encode(tokenizer, text, False)}
        with_specials = encode(tokenizer, text, True)
        if with_specials != case["ids"]:
            case["special_ids"] = with_specials
        cases.append(case)
    return cases


CONVERSATIONS = [
    [("user", "What is a KV cache?")],
    [("system", "Answer in one word."), ("user", "Is it cached?")],
    [("user", "2 + 2?"), ("assistant", "4"), ("user", "And 3 + 3?\n")],
    [("system", "\u7b80\u77ed"), ("user", "\u7f13\u5b58\u662f\u4ec0\u4e48\uff1f  "), ("assistant", "'s \U0001f600"), ("user", "3")],
    [("user", ""), ("assistant", ""), ("user", "x")],
    [("user", "first"), ("system", "late"), ("assistant", "ok"), ("user", "go on")],
]


def render(source, conversation):
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    messages = [{"role": role, "content": content} for role, content in conversation]
    return environment.from_string(source).render(messages=messages, add_generation_prompt=True)


def utf8_cases(seed):
    generator = random.Random(seed)
    samples = [bytes([byte]) for byte in range(0x7E, 0x100)]
    samples += [bytes([first, second, 0x80]) for first in (0xC1, 0xC2, 0xE0, 0xED, 0xEF, 0xF0, 0xF4, 0xF5) for second in (0x41, 0x7F, 0x80, 0x8F, 0x90, 0x9F, 0xA0, 0xBF, 0xC0)]
    samples += ["\u00e9\u7f13\U0001f600".encode()[:length] + b"x" * tail for length in range(10) for tail in range(2)]
    parts = [b"a", b"\xc3\xa9", b"\xe7\xbc\x93", b"\xf0\x9f\x98\x80", b"\xf0\x9f\x98", b"\xe7\xbc", b"\xc3", b"\x80", b"\xff", b"\xed\xa0\x80"]
    samples += [b"".join(generator.choice(parts) for _ in range(generator.randint(2, 7))) for _ in range(60)]
    cases = []
    for sample in samples:
        invalid_at = -1
        try:
            sample.decode("utf-8")
        except UnicodeDecodeError as error:
            invalid_at = error.start
        cases.append({"hex": sample.hex(), "invalid_at": invalid_at, "replaced": sample.decode("utf-8", "replace")})
    return cases


def texts():
    return FIXED_TEXTS + random_texts(300, 2)


def write(name, value):
    # One case a line: diffs stay readable.
    lines = json.dumps(value, separators=(",", ":")).replace("},{", "},\n{")
    (FOLDER / name).write_text(lines + "\n", encoding="ascii")


def describe(tokenizer, cases):
    model = json.loads(tokenizer.to_str())["model"]
    vocabulary = tokenizer.get_vocab(with_added_tokens=True)
    tokens = sorted(vocabulary, key=vocabulary.get)
    assert [vocabulary[token] for token in tokens] == list(range(len(tokens)))
    return {
        "tokens": tokens,
        "control": [vocabulary[token] for token in CONTROL],
        "user_defined": [vocabulary[token] for token in USER_DEFINED],
        "merges": [" ".join(merge) for merge in model["merges"]],
        "cases": cases,
    }


def make_small():
    tokenizer = small_tokenizer()
    cases = [{"text": text, **case} for text, case in zip(texts(), encode_all(tokenizer, texts()))]
    write("small.json", describe(tokenizer, cases))
    gaps = gaps_tokenizer()
    gap_texts = [text for text in texts() if not text.isascii() or "\x04" in text][:160]
    write("gaps.json", describe(gaps, [{"text": text, "ids": encode(gaps, text, False)} for text in gap_texts]))
    write("utf8.json", utf8_cases(3))
    write("chat.json", {"conversations": CONVERSATIONS})


def make_model(path):
    from gguf import GGUFReader
    from transformers import AutoTokenizer

    reader = GGUFReader(path)
    field = lambda name: reader.fields["tokenizer.ggml." + name].contents()
    assert field("model") == "gpt2" and field("pre") == "smollm"
    tokens = field("tokens")
    control = [token for token, kind in zip(tokens, field("token_type")) if kind == 3]
    tokenizer = Tokenizer(models.BPE(
        vocab={token: index for index, token in enumerate(tokens)}, merges=[tuple(merge.split(" ")) for merge in field("merges")]))
    tokenizer.pre_tokenizer = pre_tokenizer()
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in control])

    # transformers reads the same file but forgets to split digits; with that put right the two must agree.
    other = AutoTokenizer.from_pretrained(pathlib.Path(path).parent, gguf_file=pathlib.Path(path).name)._tokenizer
    other.pre_tokenizer = pre_tokenizer()
    cases = encode_all(tokenizer, texts())
    assert cases == encode_all(other, texts())

    template = reader.fields["tokenizer.chat_template"].contents()
    rendered = [render(template, conversation) for conversation in CONVERSATIONS]
    write("smollm2.json", {
        "vocab_size": len(tokens),
        "cases": cases,
        "chat": {"rendered": rendered, "ids": [encode(tokenizer, text, True) for text in rendered]},
    })


FAMILY_TEXTS = [
    "it's IT'S I'LL we'Ve '\u017f x'\u017fab '\u017f", "1234567 \u0661\u0662\u0663\u0664 12\u00b2 3\u2167", "camelCase HTTPServer XMLHttpRequest iOS \u01c5ungla \u00c9cole \u00c9COLE a\u0301B A\u0301b",
    "\u4e2dABC\u4e2dabc \u30ab\u30bf", "!word $x _y \u00a0z \tq \u3000r\r\ns", "a/b//c/ \n/ =/\n\n/ ...\r\n\r\n x", "  \n \n  a\n\n\n   b   \n", "\u0301start \u0301 \u0301\u0301x",
    "cafe\u0301 caf\u00e9 A\u030a \u212b \u1100\u1161\u11a8 \uac01 q\u0323\u0307 q\u0307\u0323 \u0915\u093c \u0958 \u2126", "\u2581a \u2581 b\u2581c", " a", "  a", "   ", "\n a", "a  b   c",
    "a<|im_end|> \u00a0b <|im_end|>c", "x  <|pad|>\t y<|pad|>z", "[ref] [ref][ref] a [ref] b", "\U0001f600\u2603 \U00040000 \ue000", "<0x0A> <0x41>", "a qzx and SELECT qz", "Cafe\u0301[re\u0302\u0301f]x[r\u1ebff]",
]


def family(name, normalizer, pre_tokenizer, decoder, byte_level, ignore_merges=False):
    """A small vocabulary with control and user-defined tokens of every flag that is run."""
    control = [AddedToken("<unk>", special=True, normalized=False), AddedToken("<|im_end|>", special=True, normalized=False, lstrip=True),
               AddedToken("<|im_start|>", special=True, normalized=False), AddedToken("<|pad|>", special=True, normalized=False, lstrip=True, rstrip=True)]
    if byte_level:
        tokenizer = Tokenizer(models.BPE(ignore_merges=ignore_merges))
        options = {"initial_alphabet": pre_tokenizers.ByteLevel.alphabet()}
    else:
        tokenizer = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
        options = {"limit_alphabet": 160}
        control += [f"<0x{byte:02X}>" for byte in range(256)]
    tokenizer.normalizer = normalizer
    # SentencePiece learns words by themselves, whatever is done about spaces later.
    tokenizer.pre_tokenizer = pre_tokenizer if byte_level else pre_tokenizers.Metaspace(prepend_scheme="never")
    tokenizer.decoder = decoder
    tokenizer.train_from_iterator(training_texts(6), trainers.BpeTrainer(vocab_size=900, show_progress=False, special_tokens=control, **options))
    tokenizer.add_tokens([AddedToken("[ref]", special=False, normalized=False, rstrip=True), AddedToken("<tool>", special=False, normalized=False)])
    if byte_level:
        tokenizer.add_tokens([AddedToken("[r\u1ebff]", special=False, normalized=True)])
    document = json.loads(tokenizer.to_str())
    document["pre_tokenizer"] = json.loads(pre_tokenizer.__getstate__()) if pre_tokenizer else None
    # Byte tokens are in the vocabulary and not looked for in text.
    document["added_tokens"] = [token for token in document["added_tokens"] if not token["content"].startswith("<0x")]
    if ignore_merges:
        # Tokens that no merge builds.
        size = len(document["model"]["vocab"])
        document["added_tokens"] = [{**token, "id": token["id"] + (3 if token["id"] >= size else 0)} for token in document["added_tokens"]]
        document["model"]["vocab"].update({token: size + i for i, token in enumerate(["\u0120cache!", "\u0120qzx", "\u0120SELECT"])})
    tokenizer = Tokenizer.from_str(json.dumps(document))
    # The stored form of merges is a list of pairs; strings are shorter.
    document["model"]["merges"] = [" ".join(merge) for merge in document["model"]["merges"]]
    cases = []
    for text, case in zip(FAMILY_TEXTS, encode_all(tokenizer, FAMILY_TEXTS)):
        cases.append({"text": text, **case, "decoded": tokenizer.decode(case["ids"], skip_special_tokens=True)})
    sample = FIXED_TEXTS + random_texts(60, 8)
    cases += [{"text": text, **case, "decoded": tokenizer.decode(case["ids"], skip_special_tokens=True)} for text, case in zip(sample, encode_all(tokenizer, sample))]
    return {"name": name, "tokenizer": document, "cases": cases}


def make_families():
    from tokenizers import Regex, normalizers

    sys.path.insert(0, str(FOLDER.parent.parent / "tokenizers"))
    import vocabularies

    def split(expression):
        return pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(expression), "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])

    mark = vocabularies.MARK
    back = [decoders.Replace(mark, " "), decoders.ByteFallback(), decoders.Fuse()]
    strip = decoders.Sequence(back + [decoders.Strip(" ", 1, 0)])
    to_marks = normalizers.Replace(" ", mark)
    tekken = (r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"
              r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+")
    families = [
        family("gpt-2", None, pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel(), True),
        family("smollm", None, pre_tokenizer(), decoders.ByteLevel(), True),
        family("llama-3", None, split(vocabularies.LLAMA3_SPLIT), decoders.ByteLevel(), True, ignore_merges=True),
        family("qwen-2", normalizers.NFC(), split(vocabularies.QWEN2_SPLIT), decoders.ByteLevel(), True),
        family("mistral-nemo", None, split(tekken), decoders.ByteLevel(), True),
        family("llama-2", normalizers.Sequence([normalizers.Prepend(mark), to_marks]), None, strip, False),
        family("mistral-v0.3", None, pre_tokenizers.Metaspace(replacement=mark, prepend_scheme="first", split=False), strip, False),
        family("always", None, pre_tokenizers.Metaspace(replacement=mark, prepend_scheme="always", split=False), strip, False),
        family("yi", to_marks, None, decoders.Sequence(back), False),
    ]
    write("families.json", families)

    splitters = {"gpt-2": pre_tokenizers.ByteLevel(add_prefix_space=False), "smollm": pre_tokenizer(), "llama-bpe": split(vocabularies.LLAMA3_SPLIT),
                 "qwen2": split(vocabularies.QWEN2_SPLIT), "tekken": split(tekken)}
    cut_texts = [text for text in FAMILY_TEXTS + FIXED_TEXTS + random_texts(150, 10) if text]
    write("pieces.json", [{"text": text, **{name: [end for _, (_, end) in splitter.pre_tokenize_str(text)] for name, splitter in splitters.items()}} for text in cut_texts])

    nfc = normalizers.NFC()
    generator = random.Random(9)
    marks = [chr(c) for c in [*range(0x300, 0x370), *range(0x591, 0x5C8), *range(0x93C, 0x94E), 0x3099, 0x309A, 0x1161, 0x1162, 0x11A8, 0x11A9, 0x1D165, 0x302A, 0x20D0]]
    letters = list("aeiouAEIOUcnsq ") + [chr(c) for c in [0x1100, 0x1112, 0xAC00, 0xAC01, 0x304B, 0x915, 0x5E9, 0x1EA0, 0x212B, 0x958, 0xFB2C, 0x1F71, 0x2126, 0x4E00, 0xF900, 0x1D15E, 0x344, 0x37E]]
    texts = ["".join(generator.choice(letters) + "".join(generator.choice(marks) for _ in range(generator.randint(0, 4))) for _ in range(generator.randint(1, 5))) for _ in range(500)]
    write("nfc.json", [{"text": text, "nfc": nfc.normalize_str(text)} for text in texts])

    from transformers.convert_slow_tokenizer import generate_merges

    pieces = sorted(json.loads(json.dumps(families[5]["tokenizer"]["model"]["vocab"])).items(), key=lambda item: item[1])
    tokens = [token for token, _ in pieces if not token.startswith("<")][:400]
    # Few scores for many tokens: what decides between equal ones shows.
    scores = [(token, float(-generator.randint(0, 60))) for token in tokens]
    merges = generate_merges({token: i for i, token in enumerate(tokens)}, scores)
    write("score_merges.json", {"tokens": tokens, "scores": [score for _, score in scores], "merges": [" ".join(merge) for merge in merges]})


if __name__ == "__main__":
    if sys.argv[1:] == ["small"]:
        make_small()
    elif sys.argv[1:] == ["families"]:
        make_families()
    elif len(sys.argv) == 3 and sys.argv[1] == "model":
        make_model(sys.argv[2])
    else:
        sys.exit(__doc__)
