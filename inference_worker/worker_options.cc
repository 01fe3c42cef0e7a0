#include "inference_worker/worker_options.h"

#include "core/identifiers.h"
#include "core/limits.h"

namespace epic {

absl::Status WorkerServerOptions::Validate() const {
  std::string problems;
  const auto note = [&problems](const absl::Status& status) {
    if (status.ok()) return;
    problems += (problems.empty() ? "" : "; ") + std::string(status.message());
  };
  note(ValidateHostPort("listen", server.listen_address));
  note(worker.Validate());
  note(LinkerGate::Create({}, allowed_linkers).status());
  if (!worker_id.empty()) note(ValidateIdentifier("worker-id", worker_id, kRequestIdBytesMax));
  return problems.empty() ? absl::OkStatus() : absl::InvalidArgumentError(problems);
}

void DeclareWorkerServerOptions(WorkerServerOptions* options, Config* config) {
  DeclareGrpcServerOptions(&options->server, config);
  config->AddString("worker-id", &options->worker_id,
                    "Name of this worker in answers and reports. Empty: its listen address.");
  config->AddBytes("worker-cache-bytes", &options->worker.cache.capacity_bytes, {.min = 1 << 20},
                   "Memory for chunks that the worker pulled or compiled.");
  config->AddBytes("worker-heap-bytes", &options->worker.heap_bytes_max, {},
                   "Memory for chunks of running requests that the worker's cache has no room for.");
  config->AddBytes("client-buffer-bytes", &options->worker.stream_bytes_max, {.min = 1 << 20},
                   "Bytes of an answer that may wait for its client to read; beyond it the request is ended.");
  config->AddInt32("loading-threads", &options->worker.loading_threads, {.min = 1, .max = 256},
                   "Requests whose chunks are brought at the same time.");
  config->AddInt32("requests-max", &options->worker.requests_max,
                   {.min = 1, .max = static_cast<int64_t>(kSchedulerRequestsMax)},
                   "Requests in any state; beyond it they are refused.");
  config->AddDuration("node-timeout", &options->worker.nodes.node_timeout, {.min = 1, .max = 3'600'000},
                      "How long a cache node may take for one call before the worker compiles the chunks itself.");
  DeclareLinkerGateOptions(options, config);
}

void DeclareLinkerGateOptions(WorkerServerOptions* options, Config* config) {
  config->AddString(
      "linker-verdicts", &options->verdicts,
      "File, or folder of files, that epic eval gate wrote: which linkers keep the model's answers. Empty: "
      "none.");
  config->AddStringList("allow-linkers", &options->allowed_linkers,
                        "Linkers that are used whatever the verdicts say, or their lack; all: every one.");
  config->AddShare("shadow-share", &options->worker.shadow_share,
                   "Of linked answers whose first token is checked against full recompute when the worker is idle; 0: "
                   "none.");
}

void DeclareEngineOptions(EngineOptions* options, Config* config) {
  config->AddString("model", &options->model_path,
                    "The model: a GGUF file, or a directory with safetensors, config.json and tokenizer.json.");
  config->AddString("cache-dir", &options->cache_dir,
                    "Directory in which the fingerprints of model files are remembered. Empty: nowhere.");
  config->AddInt32("threads", &options->threads, {.min = 0, .max = 1024}, "Compute threads. 0: one a core.");
  config->AddBytes("private-kv-bytes", &options->private_kv_bytes, {.min = 1 << 20},
                   "Memory for keys and values of running requests that are not chunks.");
  config->AddBytes("prefix-cache-bytes", &options->prefix_cache_bytes, {},
                   "Memory for rows of KV that requests ran, kept for those that begin alike; 0: none.");
  config->AddInt32("piece-tokens", &options->piece_tokens, {.min = 1, .max = 4096},
                   "Rows of prefill or linking between two decode steps.");
  config->AddInt32("running-requests-max", &options->running_requests_max,
                   {.min = 1, .max = static_cast<int64_t>(kSchedulerRequestsMax)}, "Requests in one batch.");
}

}  // namespace epic
