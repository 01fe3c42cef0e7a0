#!/usr/bin/env python3
"""Writes unicode_ranges.inc: which code points are letters, numbers and white space to the pre-tokenizer.

Token ids decide chunk keys, so the classes must not depend on the Unicode version of a library that happens to be
installed. They are asked of the `tokenizers` package itself, one code point at a time:

    python3 engine/text/make_unicode_ranges.py > engine/text/unicode_ranges.inc

Numbers are what its `Digits` splits off; letters and white space are what its byte-level expression takes them for. The
two follow different Unicode versions; where they differ, `Digits` wins, because it runs first.
"""

import tokenizers
from tokenizers import pre_tokenizers

CODE_POINTS = 0x110000


def main():
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    digits = pre_tokenizers.Digits(individual_digits=True)

    def joins(left, character):
        return len(byte_level.pre_tokenize_str(left + character)) == 1

    def class_of(code_point):
        if 0xD800 <= code_point < 0xE000:
            return None
        character = chr(code_point)
        if len(digits.pre_tokenize_str("a" + character)) == 2:
            return "kNumber"
        if joins("a", character):
            return "kLetter"
        if joins("!", character):
            return None
        if joins("1", character):
            raise SystemExit(f"U+{code_point:04X} is a number to the expression but not to Digits")
        if not joins("\t", character):
            raise SystemExit(f"U+{code_point:04X} joins nothing")
        return "kSpace"

    ranges = []
    for code_point in range(CODE_POINTS):
        name = class_of(code_point)
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
