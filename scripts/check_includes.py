#!/usr/bin/env python3
"""Checks that #includes point one way only: core <- engine, storage, transfer, cluster <- roles, proto <- roles, client.

    scripts/check_includes.py              checks the clone; prints each include that breaks a rule, exits 1
    scripts/check_includes.py --self-test  plants one violation of each rule and shows that it is found

The rules are RULES and the three functions below; docs/architecture.md says why they hold. Needs Python's standard
library alone.
"""
import pathlib
import re
import sys
import tempfile

ROLES = {"cache_node", "inference_worker", "router"}
# Folder -> the folders of ours that its files may include beside itself. `proto` stands for the generated epic/v1/*.pb.h.
RULES = {
    "core": set(),
    "engine": {"core"},
    "storage": {"core"},
    "transfer": {"core", "proto"},
    "cluster": {"core"},
    "server": {"core", "engine", "proto"},
    "cache_node": {"core", "engine", "storage", "transfer", "cluster", "server", "proto"},
    "inference_worker": {"core", "engine", "storage", "transfer", "cluster", "server", "proto"},
    "router": {"core", "engine", "storage", "transfer", "cluster", "server", "proto"},
    "eval": {"core", "engine"},
    "client": {"core", "server", "proto"},
}
# `epic up` is all roles in one process, so these files of client/ put the roles together.
ASSEMBLES_ROLES = re.compile(r"^client/(epic_main|one_process|up)\.(cc|h)$")
# `epic eval` drives the evaluation, which knows a running EPIC as an interface only.
EVALUATES = re.compile(r"^client/(epic_main|eval_\w+)\.(cc|h)$")
# `epic models inspect` and `synth` work on model files of this machine, without a running EPIC.
READS_MODEL_FILES = re.compile(r"^client/model_files\.(cc|h)$")
# `epic cache verify --offline` checks the folder of a cache node that does not run.
READS_DATA_FOLDERS = re.compile(r"^client/offline_verify(_test)?\.(cc|h)$")
# Only these may include gRPC, directly or through a generated service header: each such file takes seconds to compile.
MAY_INCLUDE_GRPC = re.compile(r"_(service|client|server)(_test|_testing)?\.(cc|h)$")
GRPC = re.compile(r"^(grpcpp/|grpc\+\+/|grpc/|epic/v1/.*\.grpc\.pb\.h$)")
# Libraries that a folder must build without. A bare GPU machine builds core and engine.
FORBIDDEN_LIBRARIES = {
    "core": re.compile(r"^(rocksdb/|google/protobuf/|prometheus/)"),
    "engine": re.compile(r"^(rocksdb/|google/protobuf/|prometheus/)"),
}
ROCKSDB_FOLDER = "storage"
INCLUDE = re.compile(r'^\s*#\s*include\s*[<"]([^>"]+)[>"]')


def target_folder(include):
    """The folder of ours that an include names, or None for a library's header."""
    if include.startswith("epic/v1/"):
        return "proto"
    first = include.split("/", 1)[0]
    return first if "/" in include and (first in RULES or first in {"tests", "benchmarks"}) else None


def allowed_folders(path, folder):
    """The folders of ours that this file may include beside its own, or None where anything goes."""
    if folder not in RULES:
        return None  # tests/ and benchmarks/ may use everything
    allowed = RULES[folder]
    if ASSEMBLES_ROLES.match(path):
        allowed = allowed | ROLES | {"engine", "storage", "transfer", "cluster"}
    if EVALUATES.match(path):
        allowed = allowed | {"eval"}
    if READS_MODEL_FILES.match(path):
        allowed = allowed | {"engine"}
    if READS_DATA_FOLDERS.match(path):
        allowed = allowed | {"storage"}
    return allowed


def problem(path, include):
    """Says why the file must not include this header, or returns None."""
    folder = path.split("/", 1)[0]
    if GRPC.match(include) and folder in RULES:
        if folder in {"core", "engine", "storage"}:
            return f"{folder}/ must build without gRPC"
        if not MAY_INCLUDE_GRPC.search(path):
            return "gRPC is included only by files called *_service.*, *_client.* or *_server.*"
    if folder in FORBIDDEN_LIBRARIES and FORBIDDEN_LIBRARIES[folder].match(include):
        return f"{folder}/ must build without this library"
    if include.startswith("rocksdb/") and folder in RULES and folder != ROCKSDB_FOLDER:
        return "RocksDB is included only by storage/"
    target = target_folder(include)
    allowed = allowed_folders(path, folder)
    if target is None or target == folder or allowed is None or target in allowed:
        return None
    if target == "tests" and path.endswith(("_test.cc", "_for_test.h")):
        return None  # harnesses that tests of several folders share
    if folder in ROLES and target in ROLES:
        return "no role includes another role"
    return f"{folder}/ may include {', '.join(sorted(allowed)) or 'nothing'} and itself, not {target}/"


def check(root):
    """Returns (number of files read, list of problems as text)."""
    problems, files = [], 0
    for folder in sorted(set(RULES) | {"tests", "benchmarks"}):
        for file in sorted((root / folder).rglob("*")):
            if file.suffix not in {".h", ".cc", ".cu", ".cuh", ".inc"} or not file.is_file():
                continue
            files += 1
            path = file.relative_to(root).as_posix()
            for number, line in enumerate(file.read_text(encoding="utf-8", errors="replace").splitlines(), 1):
                match = INCLUDE.match(line)
                why = match and problem(path, match.group(1))
                if why:
                    problems.append(f"{path}:{number}: includes {match.group(1)}: {why}")
    return files, problems


def self_test():
    forbidden = [
        ("core/a.h", '#include "engine/engine.h"'),
        ("core/a.cc", "#include <rocksdb/db.h>"),
        ("engine/a.cc", '#include "storage/manifest.h"'),
        ("engine/cpu/a.cc", "#include <google/protobuf/message.h>"),
        ("engine/a_client.cc", "#include <grpcpp/grpcpp.h>"),
        ("storage/a.cc", '  #  include "transfer/transport.h"'),
        ("transfer/a.cc", '#include "cache_node/cache_node.h"'),
        ("transfer/in_process.cc", "#include <grpcpp/grpcpp.h>"),
        ("cluster/a.cc", '#include "epic/v1/cache.pb.h"'),
        ("cache_node/a.cc", '#include "inference_worker/worker.h"'),
        ("router/router.cc", "#include <grpcpp/grpcpp.h>"),
        ("router/a.h", '#include "epic/v1/inference.grpc.pb.h"'),
        ("inference_worker/a.cc", "#include <rocksdb/db.h>"),
        ("server/a.cc", '#include "router/router.h"'),
        ("client/table.cc", '#include "router/router.h"'),
        ("client/sdk_client.cc", '#include "engine/engine.h"'),
        ("client/commands.cc", '#include "eval/runner.h"'),
        ("client/eval_subject.cc", '#include "engine/engine.h"'),
        ("eval/runner.cc", '#include "client/client.h"'),
        ("client/model_files.cc", '#include "cache_node/cache_node.h"'),
        ("client/cache_command.cc", '#include "storage/manifest.h"'),
        ("client/offline_verify.cc", '#include "cache_node/cache_node.h"'),
        ("router/b.cc", '#include "tests/engine_harness.h"'),
    ]
    permitted = [
        ("core/a.h", '#include "core/sync.h"'),
        ("core/b.h", "#include <string>"),
        ("engine/a.cc", '#include "core/kv_block.h"'),
        ("storage/a.cc", "#include <rocksdb/db.h>"),
        ("transfer/grpc_block_client.h", '#include "epic/v1/cache.grpc.pb.h"'),
        ("router/router_service.cc", "#include <grpcpp/grpcpp.h>"),
        ("router/router_service_test.cc", '#include "epic/v1/inference.grpc.pb.h"'),
        ("client/one_process.cc", '#include "cache_node/cache_node.h"'),
        ("client/eval_subject.h", '#include "eval/subject.h"'),
        ("client/model_files.cc", '#include "engine/model_inspection.h"'),
        ("client/offline_verify.cc", '#include "storage/manifest_verify.h"'),
        ("tests/a_test.cc", '#include "router/router.h"'),
        ("engine/a_test.cc", '#include "tests/engine_harness.h"'),
        ("core/c.cc", '// #include "engine/engine.h"'),
    ]
    for (path, line), must_fail in [(x, True) for x in forbidden] + [(x, False) for x in permitted]:
        with tempfile.TemporaryDirectory() as folder:
            file = pathlib.Path(folder, path)
            file.parent.mkdir(parents=True)
            file.write_text(line + "\n", encoding="utf-8")
            _, problems = check(pathlib.Path(folder))
        if bool(problems) != must_fail:
            sys.exit(f"self-test failed: {path} with {line!r} gave {problems}, "
                     f"expected {'a problem' if must_fail else 'none'}")
    print(f"includes: self-test passed: {len(forbidden)} violations found, {len(permitted)} rightful includes let through")


def main():
    if sys.argv[1:] == ["--self-test"]:
        return self_test()
    if sys.argv[1:]:
        sys.exit(f"error: unknown argument {sys.argv[1]!r}: expected nothing or --self-test.")
    files, problems = check(pathlib.Path(__file__).resolve().parent.parent)
    if files == 0:
        sys.exit("error: no source file was found: is this script where it belongs, in scripts/ of the clone?")
    for line in problems:
        print(line)
    if problems:
        sys.exit(f"error: {len(problems)} includes point the wrong way; docs/architecture.md says which way is right.")
    print(f"includes: {files} files, every include points the right way")


if __name__ == "__main__":
    main()
