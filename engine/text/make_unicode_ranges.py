#!/usr/bin/env python3
"""Writes unicode_ranges.inc: which code points are letters, marks, numbers and white space to the pre-tokenizers.

Token ids decide chunk keys, so the classes must not depend on the Unicode version of a library that happens to be
installed. They are asked of the `tokenizers` package itself, whose expressions have classes of their own:

    python3 engine/text/make_unicode_ranges.py > engine/text/unicode_ranges.inc

`Digits`, which SmolLM2's way of splitting runs first, follows a newer version of Unicode than the expressions; what is a
number to it alone is a class of its own.
"""

import tokenizers
from tokenizers import Regex, pre_tokenizers

CODE_POINTS = 0x110000
# Each expression names what is *not* in the class.
CLASSES = [
    ("kUpper", r"[^\p{Lu}\p{Lt}]"),
    ("kLower", r"[^\p{Ll}]"),
    ("kOtherLetter", r"[^\p{Lm}\p{Lo}]"),
    ("kMark", r"[^\p{M}]"),
    ("kNumber", r"[^\p{N}]"),
    ("kSpace", r"\S"),
]


def main():
    every = "".join(chr(code_point) for code_point in range(CODE_POINTS) if not 0xD800 <= code_point < 0xE000)
    class_of = {}
    for name, others in CLASSES:
        for run, _ in pre_tokenizers.Split(Regex(others), "removed").pre_tokenize_str(every):
            for character in run:
                if character in class_of:
                    raise SystemExit(f"U+{ord(character):04X} is both {class_of[character]} and {name}")
                class_of[character] = name
    for letters in (r"[^\p{L}]",):
        joined = "".join(run for run, _ in pre_tokenizers.Split(Regex(letters), "removed").pre_tokenize_str(every))
        expected = [c for c in every if class_of.get(c) in ("kUpper", "kLower", "kOtherLetter")]
        if joined != "".join(expected):
            raise SystemExit("the letters are not what their kinds make up")
    digits = pre_tokenizers.Digits(individual_digits=True)
    for character in every:
        is_number = len(digits.pre_tokenize_str("a" + character)) == 2
        if is_number and class_of.setdefault(character, "kDigitsNumber") not in ("kNumber", "kDigitsNumber"):
            raise SystemExit(f"U+{ord(character):04X} is {class_of[character]} and a number to Digits")
        if not is_number and class_of.get(character) == "kNumber":
            raise SystemExit(f"U+{ord(character):04X} is a number to the expressions but not to Digits")

    ranges = []
    for code_point in range(CODE_POINTS):
        name = class_of.get(chr(code_point))
        if name is None:
            continue
        if ranges and ranges[-1][2] == name and ranges[-1][1] == code_point - 1:
            ranges[-1][1] = code_point
        else:
            ranges.append([code_point, code_point, name])

    print(f"// Written by make_unicode_ranges.py from tokenizers {tokenizers.__version__}. Do not edit.")
    print("// clang-format off")
    for start in range(0, len(ranges), 4):
        print(" ".join("{0x%X, 0x%X, %s}," % tuple(entry) for entry in ranges[start : start + 4]))
    print("// clang-format on")


if __name__ == "__main__":
    main()
