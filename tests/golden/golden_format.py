"""How numbers are written into the golden files, and the texts that they are made from."""

import json
import pathlib
import random

import torch

SIGNIFICANT_DIGITS = 7
TOP_LOGITS = 64
FIXED_LOGITS = 512
WHOLE_VOCABULARY = 1024  # a vocabulary up to this size is recorded in full


def rounded(values) -> list[float]:
    return [float(f"{float(value):.{SIGNIFICANT_DIGITS}g}") for value in values]


def errors(values: torch.Tensor, reference: torch.Tensor) -> dict[str, float]:
    """Largest and root-mean-square difference over all elements; `centred_rms`: each row's mean difference taken off.

    A trained model's rounding errors move all logits of a row together, which no softmax sees. Off with that, an error
    of the arithmetic shows much earlier.
    """
    difference = values.double() - reference.double()
    centred = difference - difference.mean(-1, keepdim=True)
    numbers = [difference.abs().max(), difference.square().mean().sqrt(), centred.square().mean().sqrt()]
    return dict(zip(("max_abs", "rms", "centred_rms"), rounded(numbers)))


def fixed_ids(vocab_size: int) -> list[int]:
    """The ids whose logits are recorded everywhere: all of a small vocabulary, else the same random ones."""
    if vocab_size <= WHOLE_VOCABULARY:
        return list(range(vocab_size))
    return sorted(random.Random(512).sample(range(vocab_size), FIXED_LOGITS))


def recorded(logits: torch.Tensor, ids: list[int]) -> dict:
    """One row of logits as it is written: `logits` at `ids`, and the largest ones where `ids` is a selection."""
    row = {"logits": rounded(logits[ids])}
    if len(ids) < logits.shape[0]:
        top = torch.topk(logits, TOP_LOGITS)
        row["top_ids"] = top.indices.tolist()
        row["top_logits"] = rounded(top.values)
    return row


def recorded_errors(values: torch.Tensor, reference: torch.Tensor, ids: list[int]) -> dict[str, float]:
    """`errors` over exactly the elements that `recorded` writes for the reference. Both: [positions, vocabulary]."""
    chosen = []
    for row, reference_row in zip(values, reference):
        columns = list(ids)
        if len(ids) < reference_row.shape[0]:
            columns += torch.topk(reference_row, TOP_LOGITS).indices.tolist()
        chosen.append((row[columns], reference_row[columns]))
    return errors(torch.stack([pair[0] for pair in chosen]), torch.stack([pair[1] for pair in chosen]))


def write_json(path: pathlib.Path, document: dict) -> None:
    """One line for every innermost list, so that the file stays small and a difference stays readable."""

    def render(value, depth):
        indent = "\n" + " " * depth
        if isinstance(value, dict):
            items = [f"{json.dumps(key)}: {render(item, depth + 1)}" for key, item in value.items()]
            return "{" + indent + " " + ("," + indent + " ").join(items) + indent + "}" if items else "{}"
        if isinstance(value, list) and any(isinstance(item, (list, dict)) for item in value):
            items = [render(item, depth + 1) for item in value]
            return "[" + indent + " " + ("," + indent + " ").join(items) + indent + "]"
        return json.dumps(value, separators=(",", ":"), allow_nan=False)

    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(render(document, 0) + "\n")


# Written for these tests; facts of a harbour that does not exist.
REPORT_TEXT = """\
Annual report of the Harbour Office of Veldmark, 2031. The office keeps three cranes, of which the oldest, called the
Heron, was built in 1968 and lifts 14 tonnes. In March the Heron stood still for nineteen days because a bearing had to
be cast anew in Osterby. During that time 41 ships were sent to the northern quay, where the water is only 6.5 metres
deep, and two of them, the Amarant and the Lisbeth, had to wait for the spring tide. The cost of the repair was 83,200
crowns; the fees lost were 12,950 crowns. The council has decided to buy a fourth crane in 2033, second hand if
possible, and to keep the Heron as a reserve.
"""
MINUTES_TEXT = """\
Minutes of the meeting of 9 May. Present: Ms Tolland (chair), Mr Abend, Dr Ruiz, and the pilot on duty. Dr Ruiz showed
the soundings of the southern channel: at the bend near the old mill 1.2 metres of sand have come in since the autumn.
Mr Abend asked whether the dredger could begin before June. The chair answered that the dredger is hired to Osterby
until 17 June, and that the buoys at the bend will be moved eleven metres to the east in the meantime. The pilot asked
that every captain be told by radio. Agreed by all. Next meeting: 6 June, in the new tower, at half past eight.
"""
NOTE_TEXT = "Note: the key of the new tower hangs behind the tide table; bring it back before noon."
MANUAL_TEXT = """\
How to read the tide table. Find the day in the first column. The second column gives the time of high water, the third
the height above the datum of Veldmark in centimetres. Add forty minutes for the northern quay. When the barometer
stands below 990 hectopascals, add one centimetre for every hectopascal that is missing. Never subtract anything: a
table that promises too much water has sunk more ships than a storm. In a year that can be divided by four the pages
after February begin one line lower, because of the leap day. The office prints the table every October and sells it at
the counter for two crowns.
"""
