#!/usr/bin/env python3
"""Runs one benchmark in its quick mode on a tiny model and checks what it prints; no time is judged.

    python3 quick_test.py NAME MODEL COMMAND...

COMMAND is the benchmark without --quick, --model, --format and --save.
"""

import json
import pathlib
import subprocess
import sys
import tempfile
import unittest

# Beside "benchmark", "processor", "threads", "results" and "bars", which every report has.
MEMBERS = {
    "kernels": {"calibration", "instruction_set"},
    "policies": {"task", "data_digest", "seed", "budget", "examples", "skipped"},
    "prefill": {"calibration", "runs"},
    "linkers": {"calibration", "compile", "memory", "overhead", "runs"},
    "shared-chunk": {"calibration", "runs"},
    "load": {"calibration", "p99_limit_ms", "output_tokens"},
    "tokenizer": {"runs"},
}
RESULT_MEMBERS = {
    "kernels": {"kernel", "shape", "rows", "gflops", "share_of_peak", "gbps", "share_of_read"},
    "policies": {"example", "policy", "kl", "first_token_agrees", "prompt_tokens", "selected_rows", "recomputed_rows",
                 "link_seconds"},
    "prefill": {"engine", "tokens", "prefill_tokens_per_second", "decode_tokens_per_second"},
    "linkers": {"part", "linker", "ttft_ms_median", "rows_run", "gflop_products", "gflop_attention",
                "speedup_over_full", "speedup_allowed"},
    "shared-chunk": {"requests", "same_documents", "decode_tokens_per_second", "link_seconds", "document_bytes",
                     "private_bytes"},
    "load": {"linker", "cached_percent", "idle_ttft_ms", "throughput_at_limit", "steps"},
    "tokenizer": {"model", "text", "bytes", "tokens", "megabytes_per_second"},
}
# Bars that a quick run computes too.
BARS = {"kernels": 1, "prefill": 0, "linkers": 4, "shared-chunk": 1, "load": 2, "policies": 0, "tokenizer": 2}

NAME, MODEL, COMMAND = "", "", []


class QuickTest(unittest.TestCase):
    def run_benchmark(self, *arguments: str) -> subprocess.CompletedProcess:
        quick = ["--runs", "1"] if NAME == "tokenizer" else ["--quick"]
        return subprocess.run([*COMMAND, *quick, "--model", MODEL, *arguments], capture_output=True, text=True,
                              stdin=subprocess.DEVNULL, timeout=120, check=False)

    def test_json_has_what_readers_need_and_ends_with_its_bars(self):
        with tempfile.TemporaryDirectory() as folder:
            saved = pathlib.Path(folder) / "report.json"
            save = [] if NAME == "tokenizer" else ["--save", str(saved)]
            run = self.run_benchmark("--format", "json", *save)
            self.assertEqual(run.returncode, 0, run.stderr)
            report = json.loads(run.stdout)
            if save:
                self.assertEqual(json.loads(saved.read_text(encoding="utf-8")), report)
        self.assertEqual(report["benchmark"], NAME)
        self.assertTrue(report["processor"])
        self.assertGreaterEqual(report["threads"], 1)
        self.assertLessEqual(MEMBERS[NAME], report.keys())
        self.assertTrue(report["results"])
        for result in report["results"]:
            self.assertLessEqual(RESULT_MEMBERS[NAME], result.keys())
        self.assertEqual(list(report)[-1], "bars")
        self.assertEqual(len(report["bars"]), BARS[NAME])
        for bar in report["bars"]:
            self.assertEqual(list(bar), ["name", "value", "bar", "holds"])
            self.assertIs(bar["holds"], bar["value"] <= bar["bar"] if "at most" in bar["name"] else
                          bar["value"] >= bar["bar"])

    def test_table_names_the_processor(self):
        run = self.run_benchmark()
        self.assertEqual(run.returncode, 0, run.stderr)
        self.assertIn("threads" if NAME != "tokenizer" else "one core", run.stdout)
        self.assertGreater(len(run.stdout.splitlines()), 4)

    def test_a_model_that_is_not_there_is_refused(self):
        run = subprocess.run([*COMMAND, "--model", "no-such-model.gguf"], capture_output=True, text=True,
                             stdin=subprocess.DEVNULL, timeout=120, check=False)
        self.assertNotEqual(run.returncode, 0)
        self.assertIn("error:", run.stderr)
        self.assertEqual(run.stdout, "")


if __name__ == "__main__":
    NAME, MODEL, *COMMAND = sys.argv[1:]
    unittest.main(argv=[sys.argv[0]], verbosity=2)
