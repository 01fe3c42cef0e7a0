#!/usr/bin/env python3
"""Draws the figures of docs/performance.md from the JSON that the benchmarks wrote.

    build/peers/bin/python benchmarks/plot.py [--output docs/figures] linkers.json load.json shared-chunk.json prefill.json
                                              eviction.json

Each file's "benchmark" says what it is; files of other benchmarks are passed over. Writes ttft-by-prompt-length.svg,
load.svg, shared-chunk.svg, prefill.svg and eviction.svg (decision record 0012), as far as their data is there. --format
png is for looking at them where nothing shows SVG. Needs matplotlib, which scripts/peers.sh installs.
"""

import argparse
import json
import pathlib
import sys

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, NullLocator  # noqa: E402

# Okabe and Ito's colours, which every kind of colour vision tells apart; markers and dashes repeat the difference.
COLOURS = {"black": "#000000", "orange": "#E69F00", "sky": "#56B4E9", "green": "#009E73", "blue": "#0072B2",
           "vermilion": "#D55E00", "purple": "#CC79A7", "grey": "#767676"}
LINKER_STYLES = {
    "full": ("black", "o", "-"),
    "cacheblend:15": ("vermilion", "s", "-"),
    "cacheblend:5": ("orange", "s", "--"),
    "legolink:32": ("sky", "^", "--"),
    "legolink:16": ("blue", "^", "-"),
    "legolink:2": ("green", "v", "-"),
    "naive": ("purple", "D", ":"),
    "prefix, unchanged": ("grey", "x", ":"),
}
ENGINE_STYLES = {
    "EPIC file": ("blue", "^", "-"),
    "EPIC bf16": ("sky", "^", "--"),
    "llama.cpp file": ("vermilion", "s", "-"),
    "llama.cpp bf16": ("orange", "s", "--"),
    "PyTorch bf16": ("black", "o", "-"),
    "PyTorch float32": ("grey", "o", "--"),
}
POLICY_STYLES = {
    "lru": ("grey", "x", ":"),
    "tinylfu": ("sky", "s", "--"),
    "s3-fifo": ("orange", "D", "--"),
    "cost-aware": ("blue", "^", "-"),
    "belady": ("black", "o", ":"),
}


def style(styles: dict, name: str) -> dict:
    colour, marker, line = styles[name]
    return {"color": COLOURS[colour], "marker": marker, "linestyle": line, "label": name, "markersize": 5}


def setting(report: dict) -> str:
    if report["benchmark"] == "eviction":
        seeds = ", ".join(map(str, report["seeds"]))
        return f"{report['documents']:,} documents, seeds {seeds}; bars: standard deviation"
    return f"{report['model']}, {report['processor']}, {report['threads']} threads"


def finish(figure, axes, path: pathlib.Path, title: str, report: dict) -> None:
    figure.suptitle(title, fontsize=11)
    figure.text(0.5, 0.005, setting(report), ha="center", fontsize=7, color=COLOURS["grey"])
    for axis in axes:
        axis.grid(True, which="major", linewidth=0.4, color="#CCCCCC")
        axis.spines[["top", "right"]].set_visible(False)
    figure.tight_layout(rect=(0, 0.03, 1, 1))
    figure.savefig(path, dpi=110)
    plt.close(figure)
    print(path)


def plain_ticks(axis, ticks: list) -> None:
    axis.set_minor_locator(NullLocator())
    axis.set_ticks(ticks, [f"{tick:,}" for tick in ticks])


def logarithmic(axis) -> None:
    """1, 2, 5, 10, ... as plain numbers."""
    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
    axis.set_minor_formatter(NullFormatter())


def plot_linkers(report: dict, path: pathlib.Path) -> None:
    figure, axis = plt.subplots(figsize=(8, 4.5))
    rows = [row for row in report["results"] if row["part"] == "lengths"]
    lengths = sorted({row["chunks"] * row["chunk_tokens"] for row in rows})
    for name in LINKER_STYLES:
        points = sorted((row["chunks"] * row["chunk_tokens"], row["ttft_ms_median"])
                        for row in rows if row["linker"] == name)
        if points:
            axis.plot(*zip(*points), **style(LINKER_STYLES, name))
    axis.set_xscale("log", base=2)
    axis.set_yscale("log")
    plain_ticks(axis.xaxis, lengths)
    logarithmic(axis.yaxis)
    axis.set_xlabel("prompt tokens in chunks (log)")
    axis.set_ylabel("time to the first token, ms (log)")
    axis.legend(fontsize=8, frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))
    finish(figure, [axis], path, "Time to the first token by linker, everything local and warm", report)


def plot_load(report: dict, path: pathlib.Path) -> None:
    figure, (achieved, latency) = plt.subplots(1, 2, figsize=(10, 4.5))
    highest = 0
    for result in report["results"]:
        if result["cached_percent"] not in (0, 100) or result["linker"] not in LINKER_STYLES:
            continue
        offered = [step["offered_per_second"] for step in result["steps"]]
        highest = max(highest, *offered)
        line = style(LINKER_STYLES, result["linker"])
        achieved.plot(offered, [step["achieved_per_second"] for step in result["steps"]], **line)
        latency.plot(offered, [step["p99_ttft_ms"] for step in result["steps"]], **line)
        latency.plot(offered, [step["p50_ttft_ms"] for step in result["steps"]],
                     **{**line, "label": None, "linestyle": ":", "markersize": 3})
    achieved.plot([0, highest], [0, highest], color=COLOURS["grey"], linewidth=0.8, linestyle=":",
                  label="all that is offered")
    latency.axhline(report["p99_limit_ms"], color=COLOURS["grey"], linewidth=0.8, linestyle="--", label="limit of p99")
    for axis in (achieved, latency):
        axis.set_xscale("log")
        axis.set_yscale("log")
        logarithmic(axis.xaxis)
        logarithmic(axis.yaxis)
        axis.set_xlabel("offered, requests/s (log)")
    achieved.legend(fontsize=8, frameon=False)
    latency.legend(*latency.get_legend_handles_labels(), fontsize=8, frameon=False, loc="center left",
                   bbox_to_anchor=(1.0, 0.5))
    achieved.set_ylabel("achieved, requests/s (log)")
    latency.set_ylabel("time to the first token, ms (log): p99, dotted p50")
    finish(figure, [achieved, latency], path,
           f"Open-loop load, {report['prompt_tokens_in_parts']} tokens in cached chunks (full: none)", report)


def plot_shared_chunk(report: dict, path: pathlib.Path) -> None:
    figure, (speed, memory) = plt.subplots(1, 2, figsize=(10, 4.5))
    for same, name, colour, marker in ((True, "the same documents", "blue", "^"),
                                       (False, "different documents", "vermilion", "s")):
        rows = [row for row in report["results"] if row["same_documents"] is same]
        requests = [row["requests"] for row in rows]
        line = {"color": COLOURS[colour], "marker": marker, "label": name, "markersize": 5}
        speed.plot(requests, [row["decode_tokens_per_second"] for row in rows], **line)
        memory.plot(requests, [(row["document_bytes"] + row["private_bytes"]) / 2**20 for row in rows], **line)
    for axis in (speed, memory):
        axis.set_xscale("log", base=2)
        plain_ticks(axis.xaxis, requests)
        axis.set_ylim(bottom=0)
        axis.set_xlabel("requests at once")
        axis.legend(fontsize=8, frameon=False)
    speed.set_ylabel("decode, tokens/s of all requests")
    memory.set_ylabel("KV in memory, MiB")
    finish(figure, [speed, memory], path, "Requests over the same documents and over different ones", report)


def plot_prefill(report: dict, path: pathlib.Path) -> None:
    figure, axes = plt.subplots(1, 2, figsize=(10, 4.5))
    lengths = sorted({row["tokens"] for row in report["results"]})
    for axis, member, what in ((axes[0], "prefill_tokens_per_second", "prefill"),
                               (axes[1], "decode_tokens_per_second", "decode")):
        for name in ENGINE_STYLES:
            points = [(row["tokens"], row[member]) for row in report["results"]
                      if f"{row['engine']} {row['weights']}" == name and member in row]
            if points:
                axis.plot(*zip(*points), **style(ENGINE_STYLES, name))
        axis.set_xscale("log", base=2)
        plain_ticks(axis.xaxis, lengths)
        axis.set_ylim(bottom=0)
        axis.set_xlabel("prompt tokens" if what == "prefill" else "prompt tokens before the decoded ones")
        axis.set_ylabel(f"{what}, tokens/s")
        axis.legend(fontsize=8, frameon=False)
    finish(figure, axes, path, "Prefill and decode beside other engines, the same weights and threads", report)


def plot_eviction(report: dict, path: pathlib.Path) -> None:
    rows = [row for row in report["results"] if row["part"] == "one tier"]
    workloads = list(dict.fromkeys(row["workload"] for row in rows))
    figure, axes = plt.subplots(2, (len(workloads) + 1) // 2, figsize=(10, 6), squeeze=False, sharex=True)
    axes = list(axes.flat)
    for axis in axes[len(workloads):]:
        axis.remove()
    axes = axes[:len(workloads)]
    for axis, workload in zip(axes, workloads):
        for name in POLICY_STYLES:
            points = sorted((100 * row["tier_share"], 100 * row["cost_ratio"], 100 * row["cost_ratio_deviation"])
                            for row in rows if row["workload"] == workload and row["policy"] == name)
            share, cost, deviation = zip(*points)
            axis.errorbar(share, cost, yerr=deviation, elinewidth=0.6, **style(POLICY_STYLES, name))
        axis.set_title(workload, fontsize=9)
        axis.set_xticks(share)
        axis.set_ylim(bottom=0)
        axis.set_xlabel("tier, % of the working set")
        axis.set_ylabel("cost of misses, %")
    axes[-1].legend(fontsize=7, frameon=False)
    finish(figure, axes, path, "What misses cost, % of what the requests cost without a cache", report)


PLOTS = {
    "linkers": (plot_linkers, "ttft-by-prompt-length"),
    "load": (plot_load, "load"),
    "shared-chunk": (plot_shared_chunk, "shared-chunk"),
    "prefill": (plot_prefill, "prefill"),
    "eviction": (plot_eviction, "eviction"),
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("reports", nargs="+", type=pathlib.Path, help="JSON files of benchmarks")
    parser.add_argument("--output", type=pathlib.Path, default=pathlib.Path("docs/figures"))
    parser.add_argument("--format", default="svg", choices=["svg", "png"])
    arguments = parser.parse_args()
    # The same data gives the same file: no dates, no random ids.
    plt.rcParams.update({"svg.hashsalt": "epic", "svg.fonttype": "none", "font.family": "sans-serif", "font.size": 9})
    arguments.output.mkdir(parents=True, exist_ok=True)
    drawn = 0
    for file in arguments.reports:
        report = json.loads(file.read_text(encoding="utf-8"))
        if report.get("benchmark") in PLOTS:
            draw, name = PLOTS[report["benchmark"]]
            draw(report, arguments.output / f"{name}.{arguments.format}")
            drawn += 1
    if drawn == 0:
        print("error: none of the files is a report of " + ", ".join(PLOTS), file=sys.stderr)
    return 0 if drawn else 1


if __name__ == "__main__":
    sys.exit(main())
