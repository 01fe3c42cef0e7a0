#!/usr/bin/env python3
"""Takes the power away at random moments and checks that what was acknowledged is still there.

    tests/durability/power_loss_test.py [--rounds N] [--seed S] [--threads T] [--partly] [--keep]

A round: a program changes durable things from several threads, under a file system that keeps only what was synced
(tests/faultfs), and says of each change when it begins and when it was acknowledged; at a moment drawn from the seed it
gets SIGKILL and the power goes. After that everything acknowledged must be as it was acknowledged, and every change
under way done wholly or not at all. Things live on from round to round. Of every four rounds, one kills the process
and leaves the power on, and with --partly one lets half of what was not synced survive, in pieces of 4096 bytes. Exit
code 0 only where every round held.
"""

import argparse
import collections
import os
import pathlib
import random
import subprocess
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "faultfs"))

import faultfs  # pylint: disable=wrong-import-position

DRIVER = faultfs.TESTS_BIN / "power_loss_driver"
EVENTS_MAX = 1500
LOOK_SECONDS = 60
START_SECONDS_MAX = 0.1


class Broken(Exception):
    """Something acknowledged was not kept."""


class Expected:
    """The states in which each key may be."""

    def __init__(self):
        self.states = collections.defaultdict(lambda: {"absent"})  # (part, key) -> states
        self.acknowledged = 0

    def note(self, line):
        event, part, key, state = line.split()
        if event == "begin":
            self.states[part, key] = self.states[part, key] | {state}
        else:
            self.states[part, key] = {state}
            self.acknowledged += 1

    def compare(self, lines):
        """Checks what was found, which then is what is expected."""
        present = collections.Counter()
        seen = set()
        for part, key, state in (line.split(" ", 2) for line in lines):
            if key == "total":
                if int(state) != present[part]:
                    raise Broken(f"{state} keys are there as {part}, of which {present[part]} are known")
                continue
            if state not in self.states[part, key]:
                allowed = " or ".join(sorted(self.states[part, key]))
                raise Broken(f"{part} {key} is {state}, expected {allowed}")
            self.states[part, key] = {state}
            present[part] += state != "absent"
            seen.add((part, key))
        if seen != set(self.states):
            raise Broken("not every key was looked at")


class Moment:
    """When the process is killed, and what becomes of what was not synced."""

    def __init__(self, seed, round_number, partly):
        chooser = random.Random(f"power {seed} {round_number}")
        # In the first moments it opens, and recovers what the last round left.
        self.events = chooser.choice([0, chooser.randrange(1, 40), chooser.randrange(1, EVENTS_MAX)])
        self.delay_seconds = chooser.uniform(0, START_SECONDS_MAX) if self.events == 0 else 0
        kind = ["strict", "partly", "strict", "kill"][round_number % 4]
        self.kind = "strict" if kind == "partly" and not partly else kind
        self.seed = chooser.randrange(1 << 30)

    def __str__(self):
        when = f"after {self.events} events" if self.events else f"{self.delay_seconds * 1000:.0f} ms from its start"
        what = {"strict": "nothing unsynced kept", "partly": "half of the unsynced kept", "kill": "power stayed on"}
        return f"killed {when}, {what[self.kind]}"


def write_until_killed(folder, expected, moment, options, round_number):
    writer = subprocess.Popen(  # pylint: disable=consider-using-with
        [DRIVER, "write", folder.root, str(options.threads), str(options.seed * 1000 + round_number)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=folder.environment(),
        text=True,
    )
    if moment.events == 0:
        time.sleep(moment.delay_seconds)  # the moment itself, not a wait for something
        writer.kill()
    for count, line in enumerate(writer.stdout, start=1):
        expected.note(line)
        if count == moment.events:
            writer.kill()
    errors = writer.stderr.read()
    if writer.wait() != -9:
        raise Broken(f"the writer ended by itself with {writer.returncode}: {errors}")


def look(folder, expected):
    keys = "".join(f"{part} {key}\n" for part, key in sorted(expected.states))
    done = subprocess.run(
        [DRIVER, "look", folder.root],
        input=keys,
        capture_output=True,
        text=True,
        env=folder.environment(),
        timeout=LOOK_SECONDS,
        check=False,
    )
    if done.returncode != 0:
        raise Broken(f"it cannot be opened any more ({done.returncode}): {done.stderr}")
    expected.compare(done.stdout.splitlines())


def run_round(folder, expected, options, round_number):
    moment = Moment(options.seed, round_number, options.partly)
    write_until_killed(folder, expected, moment, options, round_number)
    if moment.kind != "kill":
        folder.lose_power(50 if moment.kind == "partly" else 0, moment.seed)
    look(folder, expected)
    return moment


def parse_options():
    parser = argparse.ArgumentParser(description="Takes the power away and checks that what was acknowledged is kept.")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--seed", type=int, default=1, help="the same seed draws the same changes and moments")
    parser.add_argument("--threads", type=int, default=3)
    parser.add_argument("--partly", action="store_true", help="some rounds let half of what was not synced survive")
    parser.add_argument("--keep", action="store_true", help="leave the folder behind; so does a failure")
    return parser.parse_args()


def main():
    options = parse_options()
    expected = Expected()
    folder = faultfs.FaultyFolder()
    begun = time.monotonic()
    held = 0
    try:
        for round_number in range(options.rounds):
            moment = run_round(folder, expected, options, round_number)
            held += 1
            present = sum(states != {"absent"} for states in expected.states.values())
            print(f"round {held:3} of {options.rounds}: {moment}; {present} present", flush=True)
    except Broken as error:
        print(f"round {held + 1} of {options.rounds}, seed {options.seed}: {error}", file=sys.stderr)
        print(f"the folder is {folder.root}", file=sys.stderr)
        options.keep = True
    finally:
        if not options.keep:
            folder.remove()
    print(f"{held} of {options.rounds} rounds held in {time.monotonic() - begun:.0f} s, ", end="")
    print(f"{expected.acknowledged} changes acknowledged")
    return 0 if held == options.rounds else 1


if __name__ == "__main__":
    os.environ.setdefault("LC_ALL", "C.UTF-8")
    sys.exit(main())
