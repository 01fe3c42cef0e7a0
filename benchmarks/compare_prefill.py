#!/usr/bin/env python3
"""Prefill and decode of EPIC beside llama.cpp and PyTorch: `scripts/bench.sh prefill` runs this.

Every engine is a process that has loaded its model and answers how long it takes for a prompt of so many tokens
(bench-prefill --serve, peer_llama.py, peer_torch.py): the same ids, the same number of threads, greedy, nothing cached
between prompts. For each prompt length the engines take turns, and medians are reported. Two files are compared: the
model's own, and a bf16 GGUF of the same weights, made once by make_bf16_gguf.py; PyTorch runs the bf16 weights as
bf16 and as float32.

An engine that does not answer within --limit-seconds is ended and skipped from that prompt length on. Where the peers
are not installed (scripts/peers.sh), EPIC's columns stand alone and there are no bars.
"""

import argparse
import json
import os
import pathlib
import select
import statistics
import subprocess
import sys
import tempfile
import time
import typing
from dataclasses import dataclass, field

FOLDER = pathlib.Path(__file__).resolve().parent
LOAD_LIMIT_SECONDS = 600
# (a ratio of tokens per second, at least)
PREFILL_OVER_LLAMA = 2.0
PREFILL_OVER_PYTORCH = 1.2
DECODE_OVER_LLAMA = 1.0


@dataclass
class Engine:
    """One process with one file. `weights`: what it computes from, which says what it is compared with."""

    name: str
    weights: str
    command: list[str]
    process: subprocess.Popen | None = None
    messages: typing.TextIO | None = None  # its standard error
    about: dict = field(default_factory=dict)
    skipped: str = ""
    prefill: dict[int, list[float]] = field(default_factory=dict)  # seconds by prompt length
    decode: dict[int, list[float]] = field(default_factory=dict)

    @property
    def title(self) -> str:
        return f"{self.name} {self.weights}"

    def start(self) -> None:
        self.messages = tempfile.TemporaryFile("w+")
        self.process = subprocess.Popen(
            self.command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.messages, text=True, bufsize=1
        )
        answer = self.read_line(LOAD_LIMIT_SECONDS)
        if answer is None:
            self.stop(f"did not start: {self.last_message()}")
        else:
            self.about = answer

    def read_line(self, limit_seconds: float) -> dict | None:
        """The next line of JSON; None where the process ended or the time is over."""
        deadline = time.monotonic() + limit_seconds
        while (left := deadline - time.monotonic()) > 0:
            if select.select([self.process.stdout], [], [], left)[0]:
                line = self.process.stdout.readline()
                if not line:
                    return None
                if line.startswith("{"):  # libraries print notices of their own
                    return json.loads(line)
        return None

    def last_message(self) -> str:
        """The last line that the process wrote to standard error."""
        self.messages.seek(0)
        return (self.messages.read().strip().splitlines() or ["it said nothing"])[-1][:200]

    def measure(self, tokens: int, limit_seconds: float) -> None:
        if self.skipped:
            return
        try:
            self.process.stdin.write(json.dumps({"tokens": tokens}) + "\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            self.stop(f"ended by itself: {self.last_message()}")
            return
        answer = self.read_line(limit_seconds)
        if answer is None:
            ended = self.process.poll() is not None
            self.stop(f"ended by itself: {self.last_message()}" if ended else f"longer than {limit_seconds:.0f} s at {tokens} tokens")
            return
        self.prefill.setdefault(tokens, []).append(answer["prefill_seconds"])
        self.decode.setdefault(tokens, []).append(answer["decode_seconds_per_token"])

    def stop(self, reason: str) -> None:
        self.skipped = reason
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    def prefill_rate(self, tokens: int) -> float | None:
        return tokens / statistics.median(self.prefill[tokens]) if tokens in self.prefill else None

    def decode_rate(self, tokens: int) -> float | None:
        return 1 / statistics.median(self.decode[tokens]) if tokens in self.decode else None


def bf16_file(python: pathlib.Path, model: pathlib.Path, folder: pathlib.Path) -> pathlib.Path:
    output = folder / f"{model.stem}.bf16.gguf"
    if not output.exists():
        subprocess.run([python, FOLDER / "make_bf16_gguf.py", model, output], check=True, stdout=subprocess.DEVNULL)
    return output


def make_engines(arguments: argparse.Namespace) -> list[Engine]:
    common = ["--threads", str(arguments.threads), "--decode-tokens", str(arguments.decode_tokens)]
    model = pathlib.Path(arguments.model)
    python = pathlib.Path(arguments.peers) / "bin" / "python"
    epic = [arguments.epic, "--serve", "--texts", str(FOLDER.parent / "examples" / "documents"), *common]
    engines = [Engine("EPIC", "file", [*epic, "--model", str(model)])]
    if not python.exists() or model.suffix != ".gguf":
        return engines
    context = str(max(arguments.tokens) + arguments.decode_tokens + 8)
    llama = [str(python), str(FOLDER / "peer_llama.py"), "--context", context, *common]
    torch = [str(python), str(FOLDER / "peer_torch.py"), *common]
    bf16 = str(bf16_file(python, model, pathlib.Path(arguments.peers)))
    return [
        *engines,
        Engine("llama.cpp", "file", [*llama, "--model", str(model)]),
        Engine("EPIC", "bf16", [*epic, "--model", bf16]),
        Engine("llama.cpp", "bf16", [*llama, "--model", bf16]),
        Engine("PyTorch", "bf16", [*torch, "--model", bf16, "--dtype", "bfloat16"]),
        Engine("PyTorch", "float32", [*torch, "--model", bf16, "--dtype", "float32"]),
    ]


def progress(text: str) -> None:
    print(f"\r{text:<90}", end="\r", file=sys.stderr, flush=True)


def measure_all(engines: list[Engine], arguments: argparse.Namespace) -> None:
    for engine in engines:
        progress(f"loading {engine.title}")
        engine.start()
    for tokens in arguments.tokens:
        for run in range(arguments.runs):
            for engine in engines:
                progress(f"{tokens} tokens, run {run + 1} of {arguments.runs}, {engine.title}")
                engine.measure(tokens, arguments.limit_seconds)
    for engine in engines:
        if not engine.skipped:
            engine.process.stdin.close()
            engine.process.wait()
    progress("")


def worst_ratio(engines: list[Engine], ours: str, theirs: str, rate) -> tuple[float, int] | None:
    """The smallest ratio of two engines over the prompt lengths that both have, and where it is."""
    titled = {engine.title: engine for engine in engines}
    if ours not in titled or theirs not in titled:
        return None
    ratios = []
    for tokens in titled[ours].prefill:
        a, b = rate(titled[ours], tokens), rate(titled[theirs], tokens)
        if a and b:
            ratios.append((a / b, tokens))
    return min(ratios) if ratios else None


def make_bars(engines: list[Engine]) -> list[dict]:
    bars = []
    for what, rate, ours, theirs, bar in (
        ("prefill", Engine.prefill_rate, "EPIC file", "llama.cpp file", PREFILL_OVER_LLAMA),
        ("prefill", Engine.prefill_rate, "EPIC bf16", "llama.cpp bf16", PREFILL_OVER_LLAMA),
        ("prefill", Engine.prefill_rate, "EPIC bf16", "PyTorch bf16", PREFILL_OVER_PYTORCH),
        ("decode", Engine.decode_rate, "EPIC file", "llama.cpp file", DECODE_OVER_LLAMA),
        ("decode", Engine.decode_rate, "EPIC bf16", "llama.cpp bf16", DECODE_OVER_LLAMA),
    ):
        worst = worst_ratio(engines, ours, theirs, rate)
        if worst is not None:
            name = f"{what} of {ours} / {theirs}, worst of the lengths: {worst[1]} (at least)"
            bars.append({"name": name, "value": worst[0], "bar": bar, "holds": worst[0] >= bar})
    return bars


def make_report(engines: list[Engine], arguments: argparse.Namespace) -> dict:
    epic = engines[0].about
    report = {"benchmark": "prefill", "processor": epic["processor"], "threads": epic["threads"],
              "model": epic["model"], "calibration": epic["calibration"], "runs": arguments.runs,
              "decode_tokens": arguments.decode_tokens, "results": []}
    for engine in engines:
        for tokens in arguments.tokens:
            if tokens in engine.prefill:
                report["results"].append({
                    "engine": engine.name, "weights": engine.weights, "version": engine.about.get("version", ""),
                    "tokens": tokens,
                    "prefill_tokens_per_second": engine.prefill_rate(tokens),
                    "prefill_seconds": sorted(engine.prefill[tokens]),
                    "decode_tokens_per_second": engine.decode_rate(tokens),
                    "decode_seconds_per_token": sorted(engine.decode[tokens]),
                })
            else:
                report["results"].append({"engine": engine.name, "weights": engine.weights, "tokens": tokens,
                                          "skipped": engine.skipped})
    report["bars"] = make_bars(engines)
    return report


def table_of(engines: list[Engine], arguments: argparse.Namespace, report: dict) -> str:
    lines = [f"{report['model']}, {report['processor']}, {report['threads']} threads, medians of {arguments.runs} "
             "interleaved runs", "", engines[0].about["calibration_table"]]
    for engine in engines[1:]:
        if engine.about.get("version"):
            lines.append(f"{engine.title}: {engine.about['version']}")
    for what, rate in (("prefill", Engine.prefill_rate), ("decode", Engine.decode_rate)):
        lines.append(f"\n{what}, tokens/s" + ("" if what == "prefill" else " after a prompt of so many tokens"))
        lines.append(f"{'tokens':>8}" + "".join(f" {engine.title:>18}" for engine in engines))
        for tokens in arguments.tokens:
            rates = [rate(engine, tokens) for engine in engines]
            lines.append(f"{tokens:>8}" + "".join(f" {'-' if r is None else format(r, '.1f'):>18}" for r in rates))
    lines.append("")
    lines += [f"{engine.title}: skipped: {engine.skipped}" for engine in engines if engine.skipped]
    if len(engines) == 1:
        lines.append("No peers: scripts/peers.sh installs llama.cpp and PyTorch, and this program finds them then.")
    for bar in report["bars"]:
        holds = "holds" if bar["holds"] else "FAILS"
        lines.append(f"{bar['name']:<84} {bar['value']:>10.3f}   bar {bar['bar']:>8.3f}   {holds}")
    return "\n".join(lines)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epic", required=True, help="the program bench-prefill")
    parser.add_argument("--model", default=os.environ.get("EPIC_MODEL"), help="a GGUF file; EPIC_MODEL where not given")
    parser.add_argument("--peers", default=str(FOLDER.parent / "build" / "peers"), help="what scripts/peers.sh made")
    parser.add_argument("--tokens", default="512,2048,4096,7680", help="prompt lengths, comma-separated")
    parser.add_argument("--decode-tokens", type=int, default=32)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--limit-seconds", type=float, default=120, help="of one prompt and its decoding")
    parser.add_argument("--format", default="table", choices=["table", "json"])
    parser.add_argument("--save", help="a file that the JSON is written to besides")
    parser.add_argument("--quick", action="store_true", help="very small sizes: shows that the program works")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.tokens, arguments.decode_tokens, arguments.runs = "32,64", 4, 1
    try:
        arguments.tokens = [int(tokens) for tokens in arguments.tokens.split(",")]
    except ValueError:
        parser.error(f"--tokens must be whole numbers separated by commas, got '{arguments.tokens}'")
    if not arguments.model:
        parser.error("--model or EPIC_MODEL must name a GGUF file")
    if min(*arguments.tokens, arguments.runs, arguments.threads, arguments.decode_tokens) < 1:
        parser.error("--tokens, --runs, --threads and --decode-tokens must all be at least 1")
    return arguments


def main() -> int:
    arguments = parse_arguments()
    engines = make_engines(arguments)
    measure_all(engines, arguments)
    if not engines[0].prefill:
        print(f"error: EPIC measured nothing ({engines[0].skipped}); run {' '.join(engines[0].command)}",
              file=sys.stderr)
        return 1
    report = make_report(engines, arguments)
    print(json.dumps(report, indent=2) if arguments.format == "json" else table_of(engines, arguments, report))
    if arguments.save:
        pathlib.Path(arguments.save).write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
