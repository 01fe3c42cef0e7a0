#!/usr/bin/env python3
"""Writes nfc_tables.inc: what nfc.cc needs to know of Unicode's normalisation form NFC.

Token ids decide chunk keys, so the tables must not depend on the Unicode version of a library that happens to be
installed. They are asked of the `tokenizers` package itself, whose own version is older than most:

    python3 engine/text/make_nfc_tables.py > engine/text/nfc_tables.inc

Hangul syllables are left out, because nfc.cc computes them.
"""

import unicodedata

import tokenizers
from tokenizers import normalizers

CODE_POINTS = [code_point for code_point in range(0x110000) if not 0xD800 <= code_point < 0xE000]
HANGUL = range(0xAC00, 0xD7A4)


def normaliser(form):
    normalizer = form()
    # Every code point alone: line feeds between them, because nothing joins a line feed.
    text = "\n".join(chr(code_point) for code_point in CODE_POINTS if code_point != 0x0A)
    parts = normalizer.normalize_str(text).split("\n")
    results = dict(zip([code_point for code_point in CODE_POINTS if code_point != 0x0A], parts))
    results[0x0A] = "\n"
    return normalizer.normalize_str, results


def combining_classes(decompose, decomposed):
    """A mark behind one of a higher class changes places with it, which shows how high its own class is."""
    representatives = {}
    for code_point in CODE_POINTS:
        combining = unicodedata.combining(chr(code_point))
        if combining and decomposed[code_point] == chr(code_point):
            swaps = decompose("\u0345" + chr(code_point)) != "\u0345" + chr(code_point)
            if swaps or combining == 240:
                representatives.setdefault(combining, chr(code_point))
    ordered = sorted(representatives)
    assert ordered[-1] == 240
    classes = {}
    for code_point in CODE_POINTS:
        character = chr(code_point)
        if decomposed[code_point] != character:
            continue
        swaps = [decompose(representatives[k] + character) != representatives[k] + character for k in ordered]
        if any(swaps):
            classes[code_point] = max([k for k, s in zip(ordered, swaps) if not s])
        elif decompose(character + representatives[ordered[0]]) != character + representatives[ordered[0]]:
            classes[code_point] = 240
    for code_point, combining in classes.items():
        known = unicodedata.combining(chr(code_point))
        if known and known != combining:
            raise SystemExit(f"U+{code_point:04X} has class {combining}, not {known}")
    return classes


def main():
    decompose, decomposed = normaliser(normalizers.NFD)
    compose, composed = normaliser(normalizers.NFC)
    classes = combining_classes(decompose, decomposed)

    print(f"// Written by make_nfc_tables.py from tokenizers {tokenizers.__version__}. Do not edit.")
    print("// clang-format off")
    print("constexpr CombiningRange kCombiningRanges[] = {")
    ranges = []
    for code_point in sorted(classes):
        if ranges and ranges[-1][1] == code_point - 1 and ranges[-1][2] == classes[code_point]:
            ranges[-1][1] = code_point
        else:
            ranges.append([code_point, code_point, classes[code_point]])
    for start in range(0, len(ranges), 6):
        print(" ".join("{0x%X, 0x%X, %d}," % tuple(entry) for entry in ranges[start : start + 6]))
    print("};")

    print("constexpr Decomposition kDecompositions[] = {")
    entries = []
    by_decomposition = {whole: code_point for code_point, whole in sorted(decomposed.items(), reverse=True)}
    for code_point in CODE_POINTS:
        whole = decomposed[code_point]
        if whole == chr(code_point) or code_point in HANGUL:
            continue
        # One step: all but the last character put together again, and the last; a third number says whether the pair
        # is put together to this character.
        first = compose(whole[:-1])
        if len(first) > 1:  # put together by nothing, but there may be a character that comes apart to it
            first = chr(by_decomposition.get(whole[:-1], 0)) or first
        if len(whole) > 1 and len(first) == 1:
            pair, composes = (ord(first), ord(whole[-1])), composed[code_point] == chr(code_point)
            assert not composes or compose(first + whole[-1]) == chr(code_point)
            entries.append((code_point, *pair, int(composes)))
        elif len(whole) == 1:
            entries.append((code_point, ord(whole), 0, 0))
        else:
            raise SystemExit(f"U+{code_point:04X} is more than one step from {ascii(whole)}")
    for start in range(0, len(entries), 4):
        print(" ".join("{0x%X, 0x%X, 0x%X, %d}," % entry for entry in entries[start : start + 4]))
    print("};")
    print("// clang-format on")


if __name__ == "__main__":
    main()
