"""Texts to compare tokenizers on: the same at every run, made from a seed and from nothing else.

texts() gives at least a million bytes of prose, code, numbers, scripts, emoji, white space, combining marks and
fragments of all that side by side; broken_texts() gives bytes that are not UTF-8.
"""

import random

WORDS = """the of and a to in is you that it he was for on are with as his they be at one have this from or had by hot
word but what some we can out other were all there when up use your how said an each she which do their time if will way
about many then them write would like so these her long make thing see him two has look more day could go come did number
sound no most people my over know water than call first who may down side been now find any new work part take get place
made live where after back little only round man year came show every good me give our under name very through just form
cache router document token prefix linker attention layer measurement memory bandwidth throughput latency asynchronous
internationalisation counterrevolutionary pseudopseudohypoparathyroidism Zürich café naïve façade Übermut señor Kraków
don't we'll they've I'm it's you'd can't HE'S THEY'RE O'Neill rock'n'roll""".split()
ENDS = [".", ". ", "!\n", "? ", ";\n", ":\n\n", "...", ", ", " - ", " \u2014 ", "\n", "\r\n", "\n\n\n", ")\n"]
SPACES = [" ", "  ", "   ", "    ", "        ", "\t", "\t\t", "\n", "\n\n", "\r\n", " \n", "\n ", "\t\n", "\u00a0", "\u2003",
          "\u3000", "\u202f", "\u2028", "\u0085", "\x0b", "\x0c", "\u1680", "\r", " \r\n \r\n", "\u200b", "\ufeff"]
# First and last code points of letters and signs that people write with.
SCRIPTS = [(0xC0, 0x17F), (0x180, 0x24F), (0x370, 0x3FF), (0x400, 0x4FF), (0x531, 0x587), (0x5D0, 0x5EA), (0x620, 0x6D3),
           (0x700, 0x74F), (0x900, 0x97F), (0x980, 0x9FE), (0xB80, 0xBFA), (0xC00, 0xC7F), (0xE01, 0xE5B), (0xE80, 0xEDF),
           (0xF00, 0xFDA), (0x10A0, 0x10FF), (0x1100, 0x11FF), (0x1200, 0x137C), (0x13A0, 0x13F4), (0x1780, 0x17E9),
           (0x1E00, 0x1EFF), (0x1F00, 0x1FFE), (0x2C80, 0x2CFF), (0x3041, 0x30FF), (0x3131, 0x318E), (0x4E00, 0x9FFF),
           (0xA000, 0xA48C), (0xA640, 0xA69D), (0xAC00, 0xD7A3), (0xF900, 0xFAD9), (0xFB00, 0xFB4F), (0xFF01, 0xFFDC),
           (0x10330, 0x1034A), (0x10400, 0x1044F), (0x1D400, 0x1D7FF), (0x20000, 0x2A6DF), (0x1E900, 0x1E95F)]
MARKS = [(0x300, 0x36F), (0x483, 0x489), (0x591, 0x5C7), (0x64B, 0x65F), (0x93C, 0x94D), (0xE31, 0xE3A), (0x1AB0, 0x1ABE),
         (0x1DC0, 0x1DFF), (0x20D0, 0x20F0), (0x302A, 0x302F), (0x3099, 0x309A), (0xFE00, 0xFE0F), (0xFE20, 0xFE2F),
         (0x1D165, 0x1D169), (0xE0100, 0xE01EF)]
DIGITS = [(0x30, 0x39), (0x660, 0x669), (0x966, 0x96F), (0xFF10, 0xFF19), (0x2150, 0x2189), (0x2460, 0x249B), (0xB2, 0xB3),
          (0x1D7CE, 0x1D7FF), (0x10D40, 0x10D49)]
SIGNS = "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~\u00a7\u00b0\u00b1\u00bf\u20ac\u2018\u2019\u201c\u201d\u2026\u2190\u2192\u2211\u221e\u25a0\u2581\u3001\u3002\uff0c"
EMOJI = ["\U0001f600", "\U0001f468\u200d\U0001f469\u200d\U0001f467", "\U0001f44d\U0001f3fd", "\U0001f1e9\U0001f1ea", "\u2764\ufe0f", "1\ufe0f\u20e3", "\U0001f9d1\U0001f3ff\u200d\U0001f692", "\u2603", "\U0001fae0"]
CODE = [
    "for (size_t i = 0; i < {a}.size(); ++i) {{\n    {b} += {a}[i].{c};  // {d}\n}}\n",
    "def {a}(self, {b}=None, *args, **kwargs):\n    \"\"\"{d}.\"\"\"\n    return [{c} for {c} in {b} or [] if {c} != {n}]\n\n",
    "\tif err := {a}.{b}(ctx, &{c}{{ID: {n}}}); err != nil {{\n\t\treturn fmt.Errorf(\"{d}: %w\", err)\n\t}}\n",
    "SELECT {a}, COUNT(*) FROM {b} WHERE {c} >= {n} AND name <> 'it''s' GROUP BY 1;\n",
    "<div class=\"{a}-{b}\" id='{c}{n}'>&nbsp;{d}</div>\n", "{{\"{a}\": [{n}, {n}.5e-3, null], \"{b}\": {{\"{c}\": true}}}}\n",
    "$ curl -sS https://example.org/{a}/{b}?{c}={n}#{d} | tee /var/tmp/{a}.log 2>&1\n", "| {a} | {b} |\n|---|---:|\n| {c} | {n} |\n",
    "impl<'a, T: {a}<Item = &'a {b}>> Iterator for {c}<T> {{ type Item = u{n}; }}\n", "\\frac{{{a}}}{{{b}_{{{n}}}}} \\leq \\sum_i x_i^2\n",
    "#include <{a}/{b}.h>\n#define {c} (0x{n:X})\n\n\n", "- [ ] {a} **{b}** _{c}_ `{d}` {n}%\n",
]
# What looks like a control token of some family.
TOKENS = ["<s>", "</s>", "<unk>", "<|im_start|>", "<|im_end|>", "<|endoftext|>", "<|eot_id|>", "<|begin_of_text|>", "[INST]",
          "[/INST]", "<|start_header_id|>user<|end_header_id|>", "<0x0A>", "<pad>", "<tool_call>", "</tool_call>",
          "[REFERENCE_DOC_3]", "<|im_end", "|im_end|>", "<|fim_prefix|>", "<think>"]


class Maker:
    def __init__(self, seed):
        self.random = random.Random(seed)

    def pick(self, items):
        return items[int(self.random.random() * len(items))]

    def below(self, limit):
        return int(self.random.random() * limit)

    def between(self, ranges):
        first, last = self.pick(ranges)
        return chr(first + self.below(last - first + 1))

    def word(self):
        if self.random.random() < 0.75:
            # Few words often, many seldom, as in any language.
            return WORDS[int(len(WORDS) * self.random.random() ** 2)]
        syllables = "".join(self.pick(["st", "k", "tr", "m", "n", "sch", "", "p", "l", "b"]) + self.pick("aeiou") + self.pick(["", "n", "r", "s", "ck", "th"])
                            for _ in range(1 + self.below(4)))
        return self.pick([syllables, syllables, syllables.title(), syllables.upper()])

    def name(self):
        words = [self.word() for _ in range(1 + self.below(3))]
        return self.pick(["_".join(words), words[0] + "".join(word.title() for word in words[1:]), "".join(word.title() for word in words), "_".join(words).upper(), words[0][:3]])

    def prose(self):
        return "".join((self.word() if index else self.word().title()) + (" " if self.random.random() < 0.85 else self.pick(ENDS)) for index in range(8 + self.below(30)))

    def code(self):
        return self.pick(CODE).format(a=self.name(), b=self.name(), c=self.name(), d=self.prose()[:40], n=self.below(10 ** (1 + self.below(8))))

    def script(self):
        ranges = [self.pick(SCRIPTS)]
        return self.pick([" ", "", "", "\u3000"]).join("".join(self.between(ranges) for _ in range(1 + self.below(9))) for _ in range(2 + self.below(12)))

    def any_character(self):
        while True:
            code_point = self.below(self.pick([0x80, 0x800, 0x3000, 0x10000, 0x20000, 0x110000]))
            if not 0xD800 <= code_point < 0xE000:
                return chr(code_point)

    def fragment(self):
        return self.pick([
            lambda: self.word(),
            lambda: self.pick(SPACES) * (1 + self.below(3)),
            lambda: self.pick([" ", "\n", "\t", "-", "=", "a", "\u7f13", "\U0001f600", "\u0301", "1", "A", "'", "/"]) * (1 + self.below(70)),
            lambda: "".join(self.between(DIGITS[: 1 + self.below(len(DIGITS))]) for _ in range(1 + self.below(12))),
            lambda: "".join(self.pick(SIGNS) for _ in range(1 + self.below(6))),
            lambda: self.pick(EMOJI),
            lambda: self.pick(["'s", "'t", "'re", "'ve", "'m", "'ll", "'d", "'S", "'LL", "'Re", "'\u017f", "'x", "\u2019s"]),
            lambda: self.between(SCRIPTS) + "".join(self.between(MARKS) for _ in range(1 + self.below(4))),
            lambda: self.pick("aeiouAEIOUncs\u0391\u0435\u05e9\u0915\u3046") + "".join(self.between(MARKS[:1]) for _ in range(1 + self.below(3))),
            lambda: "".join(self.between([(0x1100, 0x1112), (0x1161, 0x1175), (0x11A8, 0x11C2), (0xAC00, 0xD7A3)]) for _ in range(1 + self.below(5))),
            lambda: "".join(self.any_character() for _ in range(1 + self.below(5))),
            lambda: self.name(),
            lambda: self.pick(TOKENS),
        ])()

    def mixture(self):
        return "".join(self.fragment() for _ in range(2 + self.below(30)))


def texts(bytes_min=1_100_000, seed=4):
    maker = Maker(seed)
    result = ["", " ", "  ", "\n", "a", " a", "\u2581", "\u2581a", " \u2581", "\u0301", "\u1112\u1161\u11ab"]
    total = 0
    while total < bytes_min:
        text = maker.pick([maker.prose, maker.prose, maker.code, maker.code, maker.script, maker.mixture, maker.mixture])()
        result.append(text)
        total += len(text.encode())
    # Long texts, and words that never end.
    result.append("".join(result[11:400]))
    result += [maker.pick("abc") * 3000, "".join(maker.between([(0x4E00, 0x9FFF)]) for _ in range(4000)), " " * 3000,
               "".join(maker.pick("ab") for _ in range(5000)), "e" + "\u0301\u0323" * 1000, "A" * 2000 + "\u4e00" + "B" * 2000]
    return result


def broken_texts(count=400, seed=5):
    maker = Maker(seed)
    bad = [b"\x80", b"\xff", b"\xc3", b"\xe7\xbc", b"\xf0\x9f\x98", b"\xc0\xaf", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xf5", b"\xe0\x80\x80"]
    result = []
    for _ in range(count):
        text = maker.mixture().encode()
        cut = maker.below(len(text) + 1)
        result.append(text[:cut] + maker.pick(bad) + text[cut:])
    return result
