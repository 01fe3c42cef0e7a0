#!/usr/bin/env python3
"""Breaks the linkers, the families and what makes the engine fast, one piece at a time, and shows which tests notice.

Each mutation replaces one piece of source text, builds its group's tests, runs them on the committed models and puts
the source back. A mutation that no test notices is an error, and so is one of a family's speciality that leaves the
tests of a model with that speciality green.

Usage: tests/mutations/run.py [--build DIR] [NAME ...]
"""

import argparse
import collections
import os
import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]

# name, file, text that must stand there exactly once, what replaces it; of a speciality also the models that must fail

MODEL_TESTS = ["link_plan_test", "linker_golden_test", "linker_invariants_test", "model_golden_test"]
MODEL_MUTATIONS = [
    ("offset off by one", "engine/cpu/segment_attention.cc",
     "view().info().first_position - segment.offset;", "view().info().first_position - segment.offset + 1;"),
    ("stale head kept", "engine/link_plan.cc",
     "plan.shared.push_back({static_cast<int32_t>(s), head, end});", "plan.shared.push_back({static_cast<int32_t>(s), 0, end});"),
    ("heads see their own tail", "engine/cpu/segment_attention.cc",
     "std::min(position - segment.offset + 1, segment.row_end);",
     "position >= segment.offset ? segment.row_end : 0;"),
    ("query left out of the recompute set", "engine/link_plan.cc",
     "    if (!reused) {\n      AddRange(offsets[s], offsets[s + 1], plan.positions);",
     "    if (!reused) {\n      AddRange(s + 1 == prompt.size() ? offsets[s + 1] - 1 : offsets[s], offsets[s + 1], plan.positions);"),
    ("rows unsorted", "engine/link_plan.cc",
     "  std::sort(chosen.begin(), chosen.end());\n", ""),
    ("stale copies of random rows seen", "engine/link_job.cc",
     "    SkipRows(shared.rerun, 0, main.shared.back());\n", ""),
    ("one random row more than asked for", "engine/link_plan.cc",
     "ChooseRandom(candidates, token_ids, ChosenCount(prompt, percent))",
     "ChooseRandom(candidates, token_ids, ChosenCount(prompt, percent) + 1)"),
    ("the first rows in place of random ones", "engine/link_plan.cc",
     "std::swap(drawn[i], drawn[i + generator.NextBelow(drawn.size() - i)]);", "generator.NextBelow(drawn.size() - i);"),
    ("heads run inside a run", "engine/link_plan.cc",
     "if (ContinuesRun(prompt, segment) || ChunkIsExact(prompt, segment, recipe)) return 0;",
     "if (ChunkIsExact(prompt, segment, recipe)) return 0;"),
    ("equal tokens taken for equal context", "engine/link_plan.cc",
     "return context.size() == before.context_token_ids.size() + before.token_ids.size() &&",
     "return context.size() >= before.context_token_ids.size() + before.token_ids.size() &&"),
    ("a document's blocks in the wrong place", "engine/chunk_compilation.cc",
     "shared.push_back({std::move(chunk), 0, count, begin, {}});",
     "shared.push_back({std::move(chunk), 0, count, begin + 1, {}});"),
    ("rotation pairs swapped", "engine/cpu/weight_matrix.cc",
     "is_rotated && file.RotationPairsAreAdjacent()", "is_rotated && !file.RotationPairsAreAdjacent()"),
    ("QKV bias not added", "engine/cpu/cpu_backend.cc",
     "row[i] += layer.qkv_bias[i];", "row[i] += 0;",
     "qwen2 qwen2Gguf qwen2yarn qwen2yarnGguf"),
    ("QK norm left out", "engine/cpu/cpu_backend.cc",
     "if (layer.q_norm.empty()) continue;", "continue;",
     "qwen3 qwen3Gguf"),
    ("norm of queries used for keys", "engine/cpu/cpu_backend.cc",
     "head < config_.heads ? layer.q_norm : layer.k_norm", "layer.q_norm",
     "qwen3 qwen3Gguf"),
    ("llama3 scaling of config.json ignored", "engine/files/rotation.cc",
     "(1 - kept) * frequency / scaling.factor", "(1 - kept) * frequency",
     "llama3"),
    ("llama3 scaling of GGUF's tensor ignored", "engine/files/rotation.cc",
     "frequencies[i] /= scaling.factors[i];", "frequencies[i] /= 1;",
     "llama3Gguf"),
    ("linear scaling ignored", "engine/files/rotation.cc",
     "frequency /= scaling.factor;", "frequency /= 1;",
     "llamalinear llamalinearGguf"),
    ("YaRN's frequencies ignored", "engine/files/rotation.cc",
     "stretched * frequencies[i] / scaling.factor", "stretched * frequencies[i]",
     "llamayarn llamayarnGguf qwen2yarn qwen2yarnGguf"),
    ("YaRN's attention factor ignored", "engine/cpu/cpu_backend.cc",
     "scale = config_.rope_scaling.attention_scale;", "scale = 1;",
     "llamayarn llamayarnGguf qwen2yarn qwen2yarnGguf"),
    ("GGUF llama not permuted back", "engine/files/model_family.cc",
     ".gguf_pairs_are_adjacent = true", ".gguf_pairs_are_adjacent = false",
     "tinyGguf llama3Gguf llamalinearGguf llamayarnGguf mistralGguf"),
    ("GGUF qwen2 permuted", "engine/files/model_family.cc",
     ".hf_architecture = \"Qwen2ForCausalLM\",", ".hf_architecture = \"Qwen2ForCausalLM\", .gguf_pairs_are_adjacent = true,",
     "qwen2Gguf qwen2yarnGguf"),
    ("tied output left empty", "engine/cpu/cpu_backend.cc",
     "EPIC_RETURN_IF_ERROR(output_.Load(file, OutputSource(config_), WeightUse::kFewRows, *weight_memory_, pool_));",
     "EPIC_RETURN_IF_ERROR(output_.Load(file, OutputSource(config_), WeightUse::kFewRows, *weight_memory_, pool_));\n"
     "  if (config_.tied_embeddings) {\n"
     "    output_ = WeightMatrix();\n"
     "    EPIC_ASSIGN_OR_RETURN(weight_memory_, WeightMemory::Create(bytes));\n  }",
     "llama3 llama3Gguf qwen2 qwen2Gguf"),
    ("separate output taken for a tied one", "engine/cpu/cpu_backend.cc",
     "config.tied_embeddings ? \"embedding\" : \"output\"", "config.layers > 0 ? \"embedding\" : \"output\"",
     "tiny tinyGguf llamalinear mistral mistralGguf qwen3 qwen3Gguf"),
]


ENGINE_TESTS = ["block_products_test", "engine_test", "kernels_test", "linker_golden_test", "model_golden_test",
                "row_cache_test", "scheduler_test", "segment_attention_test", "weight_matrix_test"]
ENGINE_MUTATIONS = [
    ("a chunk's units taken for one", "engine/cpu/segment_attention.cc",
     "try_emplace({chunk, place.index}, next)", "try_emplace({chunk, 0}, next)"),
    ("units added without their maxima", "engine/cpu/attention_impl.h",
     "const V add = S::Exp2(S::Set(from_state[0] - top));", "const V add = S::Set(1);"),
    ("recomputed rows seen twice", "engine/cpu/segment_attention.cc",
     "query.skip = segment.skip.data() + first / kTokensPerTile;", "query.skip = nullptr;"),
    ("minimum of a block left out", "engine/cpu/block_products.cc",
     "out.minimum[0] = _mm_cvtss_f32(_mm_movehdup_ps(both));", "out.minimum[0] = 0;"),
    ("sign of a block's zero lost", "engine/cpu/block_products.cc",
     "const Words bias = _mm256_set1_epi16(kFifthBits ? 16 : 8);", "const Words bias = _mm256_set1_epi16(8);"),
    ("activations of a group that is large cut off", "engine/cpu/block_products.cc",
     "32767.0f / largest)", "65535.0f / largest)"),
    ("blocks not in the rotation's order", "engine/cpu/weight_matrix.cc",
     "part->bytes.data() + to * row_bytes", "part->bytes.data() + r * row_bytes"),
    ("rows of prefill written over those of decode", "engine/cpu/cpu_backend.cc",
     "const int row = by_blocks + static_cast<int>(task / panel_tasks) * kProductRows;",
     "const int row = static_cast<int>(task / panel_tasks) * kProductRows;"),
    ("row's context forgotten", "engine/row_cache.cc",
     "row.context_high = hash.high64;\n      row.context_low = hash.low64;", "static_cast<void>(hash);"),
    ("a chunk's tokens not part of the context", "engine/row_cache.cc",
     "digest.Add(std::span<const int32_t>(prompt[shared->segment].token_ids));", ""),
    ("what a chunk has seen not part of the context", "engine/row_cache.cc",
     "RecipeBehind(recipe, prompt[shared->segment].context_token_ids)", "recipe"),
    ("rows of another tenant taken", "engine/request_state.cc",
     "return cache.Lookup(request_.cache_salt,", "return cache.Lookup(\"\","),
    ("page written to by two", "engine/request_state.cc",
     "if (match_.rows % kPageTokens != 0) match_.pages.back() = std::make_shared<KvPage>(*match_.pages.back());", ""),
    ("prompt taken whole from the cache", "engine/request_state.cc",
     "std::span(row_ids_).first(row_ids_.size() - 1)", "std::span(row_ids_)"),
    ("admission without a look at the budget", "engine/scheduler.cc",
     "- shared_bytes > options_.private_kv_bytes) return;", "- shared_bytes > 64 * options_.private_kv_bytes) return;"),
    ("last come, first admitted", "engine/scheduler.cc",
     "for (RequestPtr& request : submitted_requests_) waiting_.push_back(std::move(request));",
     "for (RequestPtr& request : submitted_requests_) waiting_.push_front(std::move(request));"),
    ("long piece beside decoding", "engine/scheduler.cc",
     "if (!decoding) return options_.piece_tokens;", "if (decoding || !decoding) return options_.piece_tokens;"),
    ("cancelled request keeps its memory", "engine/scheduler.cc",
     "reserved_bytes_ -= request->reserved_bytes();", "if (!request->cancelled.load()) reserved_bytes_ -= request->reserved_bytes();"),
]

GROUPS = [(MODEL_TESTS, MODEL_MUTATIONS), (ENGINE_TESTS, ENGINE_MUTATIONS)]


def run_tests(build, tests):
    """Builds, runs and returns the names of the tests that failed (or 'does not build')."""
    built = subprocess.run(["ninja", "-C", str(build), *tests], capture_output=True, text=True)
    if built.returncode != 0:
        sys.exit("the mutated source does not build:\n" + built.stdout[-3000:])
    failed = []
    committed_only = {**os.environ, "EPIC_SOURCE_DIR": str(ROOT), "EPIC_MODEL": "", "EPIC_QWEN_MODEL": ""}
    for test in tests:
        try:
            result = subprocess.run([str(build / "tests_bin" / test)], capture_output=True, text=True, cwd=ROOT,
                                    env=committed_only, timeout=240)
        except subprocess.TimeoutExpired:
            failed.append(test + " (does not end)")
            continue
        names = sorted(set(re.findall(r"^\[  FAILED  \] ([\w/]+\.[\w/]+)", result.stdout, re.M)))
        if result.returncode != 0:
            failed += names or [test + " (crashed)"]
    return failed


def models_of_tests(build, tests):
    """Test -> the models, or other parameters, that it runs with."""
    models = collections.defaultdict(set)
    for test in tests:
        listed = subprocess.run([str(build / "tests_bin" / test), "--gtest_list_tests"], capture_output=True, text=True,
                                cwd=ROOT, env={**os.environ, "EPIC_SOURCE_DIR": str(ROOT)}, check=True).stdout
        suite = ""
        for line in listed.splitlines():
            if not line.startswith(" "):
                suite = line.split()[0].split("/")[-1]
            elif "/" in line:
                name, model = line.split()[0].split("/")
                models[suite + name].add(model)
    return models


def describe(failed, models_of):
    """The failed tests, those of several models as one with the models behind it."""
    models = collections.defaultdict(list)
    for name in failed:
        test, model = re.fullmatch(r"(?:\w+/)?(\w+(?:\.\w+)?(?: \(.*\))?)/?(\w*)", name).groups()
        models[test].append(model)

    def of_models(test, names):
        if not names[0]:
            return f"`{test}`"
        return f"`{test}` ({'all' if set(names) == models_of[test] else ', '.join(names)})"

    return "; ".join(of_models(*item) for item in models.items()) or "**none**"


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--build", type=pathlib.Path, default=ROOT / "build" / "release", help="a configured build folder")
    parser.add_argument("names", nargs="*", help="mutations to run; default: all")
    arguments = parser.parse_args()
    names = [mutation[0] for _, mutations in GROUPS for mutation in mutations]
    unknown = sorted(set(arguments.names) - set(names))
    if unknown:
        sys.exit(f"no such mutation: {', '.join(unknown)}; there are: {', '.join(names)}")
    unnoticed = []
    print("| mutation | where | tests that fail |\n|---|---|---|", flush=True)
    for tests, mutations in GROUPS:
        chosen = [m for m in mutations if not arguments.names or m[0] in arguments.names]
        for name, path, old, new, *models in chosen:
            source = ROOT / path
            original = source.read_text()
            if original.count(old) != 1:
                sys.exit(f"{path}: the text of mutation '{name}' stands there {original.count(old)} times, expected once")
            try:
                source.write_text(original.replace(old, new))
                failed = run_tests(arguments.build, tests)
                models_of = models_of_tests(arguments.build, tests)
            finally:
                source.write_text(original)
            print(f"| {name} | `{path}` | {describe(failed, models_of)} |", flush=True)
            green = [model for model in " ".join(models).split() if not any(f.endswith("/" + model) for f in failed)]
            if not failed or green:
                unnoticed.append(name + (f" ({', '.join(green)})" if green else ""))
        if chosen and run_tests(arguments.build, tests):
            sys.exit("the unmutated source fails its tests")
    if unnoticed:
        sys.exit("not noticed by any test: " + ", ".join(unnoticed))


if __name__ == "__main__":
    main()
