#include "client/model_files.h"

#include <unistd.h>

#include <iostream>
#include <utility>
#include <vector>

#include "client/table.h"
#include "core/status_macros.h"
#include "engine/files/rotation.h"
#include "engine/files/synthetic_model.h"
#include "engine/model_inspection.h"
#include "fmt/format.h"
#include "nlohmann/json.hpp"

namespace epic::client {

namespace {

nlohmann::json ConfigJson(const ModelConfig& config) {
  return {{"name", config.name},
          {"architecture", config.architecture},
          {"random_weights", config.is_synthetic},
          {"layers", config.layers},
          {"width", config.width},
          {"heads", config.heads},
          {"kv_heads", config.kv_heads},
          {"head_dim", config.head_dim},
          {"ffn_width", config.ffn_width},
          {"vocab_size", config.vocab_size},
          {"context_tokens", config.context_length},
          {"rope_base", config.rope_base},
          {"rope_scaling", RotationScalingText(config.rope_scaling)},
          {"tied_embeddings", config.tied_embeddings},
          {"qkv_bias", config.qkv_bias},
          {"qk_norm", config.qk_norm}};
}

nlohmann::json InspectionJson(const std::string& path, const ModelInspection& inspection) {
  nlohmann::json out = {{"file", path}, {"runs", inspection.runs.ok()}};
  if (!inspection.runs.ok()) out["reason"] = std::string(inspection.runs.message());
  if (!inspection.format.empty()) out["format"] = inspection.format;
  if (inspection.config.has_value()) {
    out["config"] = ConfigJson(*inspection.config);
    if (inspection.weight_memory_bytes.has_value()) out["weight_memory_bytes"] = *inspection.weight_memory_bytes;
    out["kv_bytes_per_token"] = inspection.kv_bytes_per_token;
  }
  if (inspection.available_memory_bytes.has_value()) out["available_memory_bytes"] = *inspection.available_memory_bytes;
  if (inspection.types.empty()) return out;
  out["parameters"] = inspection.parameters;
  out["stored_bytes"] = inspection.stored_bytes;
  for (const StoredType& type : inspection.types) {
    out["types"].push_back({{"type", type.name}, {"tensors", type.tensors}, {"bytes", type.bytes}});
  }
  out["tokenizer"] = inspection.tokenizer;
  out["starts_with_bos"] = inspection.starts_with_bos;
  out[inspection.has_chat_template ? "chat_template" : "no_chat_because"] = inspection.chat_template;
  return out;
}

std::string TypesText(const ModelInspection& inspection) {
  std::string text;
  for (const StoredType& type : inspection.types) {
    text +=
        fmt::format("{}{} ({} tensors, {})", text.empty() ? "" : ", ", type.name, type.tensors, HumanBytes(type.bytes));
  }
  return text;
}

void AddConfigRows(const ModelInspection& inspection, Table& table) {
  const ModelConfig& config = *inspection.config;
  table.AddRow({"name", Shorten(config.name, 100)});
  table.AddRow(
      {"architecture", fmt::format("{}{}{}{}", config.architecture, config.qkv_bias ? ", bias on q, k and v" : "",
                                   config.qk_norm ? ", norms on q and k" : "",
                                   config.tied_embeddings ? ", tied embeddings" : ", separate embeddings")});
  table.AddRow({"sizes", fmt::format("{} layers, width {}, {} heads of {}, {} key-value heads, feed-forward {}, "
                                     "vocabulary {}",
                                     config.layers, config.width, config.heads, config.head_dim, config.kv_heads,
                                     config.ffn_width, config.vocab_size)});
  table.AddRow({"context", fmt::format("{} tokens", config.context_length)});
  table.AddRow(
      {"rotation", fmt::format("base {}, scaling {}", config.rope_base, RotationScalingText(config.rope_scaling))});
}

void PrintInspection(const std::string& path, const ModelInspection& inspection) {
  Table table({{"property", Table::Align::kLeft}, {"value", Table::Align::kLeft}});
  table.AddRow({"file", path});
  if (!inspection.format.empty()) table.AddRow({"format", inspection.format});
  if (inspection.config.has_value()) AddConfigRows(inspection, table);
  if (!inspection.types.empty()) {
    table.AddRow({"weights", fmt::format("{:.3f} billion, {} in the file: {}", inspection.parameters / 1e9,
                                         HumanBytes(inspection.stored_bytes), TypesText(inspection))});
    table.AddRow({"tokenizer",
                  inspection.tokenizer + (inspection.starts_with_bos ? ", a sequence starts with BOS" : ", no BOS")});
    table.AddRow({"chat template", (inspection.has_chat_template ? "" : "none that is rendered: ") +
                                       Shorten(inspection.chat_template, 300)});
  }
  if (inspection.weight_memory_bytes.has_value()) {
    std::string memory =
        fmt::format("{} for the weights on the CPU", HumanBytes(static_cast<int64_t>(*inspection.weight_memory_bytes)));
    if (inspection.available_memory_bytes.has_value()) {
      memory += fmt::format("; {} are free here", HumanBytes(static_cast<int64_t>(*inspection.available_memory_bytes)));
    }
    table.AddRow({"memory", memory});
  }
  if (inspection.config.has_value()) {
    table.AddRow({"KV", fmt::format("{} a token in bf16 ({} bytes)",
                                    HumanBytes(static_cast<int64_t>(inspection.kv_bytes_per_token)),
                                    inspection.kv_bytes_per_token)});
  }
  table.AddRow({"runs", inspection.runs.ok() ? "yes" : "no"});
  std::cout << table.ToString();
}

}  // namespace

absl::Status RunModelsInspect(const std::string& path, bool json) {
  const ModelInspection inspection = InspectModel(path);
  if (json) {
    // Names come from the file and may not be UTF-8.
    std::cout << InspectionJson(path, inspection).dump(2, ' ', false, nlohmann::json::error_handler_t::replace) << "\n";
  } else {
    PrintInspection(path, inspection);
  }
  return inspection.runs;
}

absl::Status RunModelsSynth(const SynthOptions& options, bool json) {
  SyntheticModelOptions model;
  model.shape = options.shape;
  model.layers = options.layers;
  model.seed = static_cast<uint64_t>(options.seed);
  model.folder = options.folder;
  if (model.folder.empty()) {
    model.folder = fmt::format("models/synthetic-{}{}-seed-{}", options.shape,
                               options.layers == 0 ? "" : fmt::format("-{}-layers", options.layers), options.seed);
  }
  EPIC_ASSIGN_OR_RETURN(const uint64_t bytes, SyntheticModelBytes(model));
  int shown_percent = -1;
  if (isatty(STDERR_FILENO) != 0) {
    model.on_progress = [&shown_percent](uint64_t written, uint64_t total) {
      const int percent = static_cast<int>(100 * written / total);
      if (percent == shown_percent) return;
      shown_percent = percent;
      std::cerr << fmt::format("\rwriting {} of {} ({} %)", HumanBytes(static_cast<int64_t>(written)),
                               HumanBytes(static_cast<int64_t>(total)), percent)
                << (written == total ? "\n" : "") << std::flush;
    };
  }
  EPIC_RETURN_IF_ERROR(WriteSyntheticModel(model));
  if (json) {
    std::cout << nlohmann::json({{"folder", model.folder}, {"bytes", bytes}, {"random_weights", true}}).dump(2) << "\n";
  } else {
    std::cout << fmt::format("{}: {} of random weights in the shape of {}; for speed and memory only\n", model.folder,
                             HumanBytes(static_cast<int64_t>(bytes)), options.shape);
  }
  return absl::OkStatus();
}

}  // namespace epic::client
