#include "client/command_output.h"

#include <ctime>
#include <utility>

#include "client/table.h"
#include "fmt/format.h"

namespace epic::client {
namespace {

using Align = Table::Align;

// "2026-01-31 12:00:00" in UTC.
std::string FormatTime(int64_t unix_ms) {
  const std::time_t seconds = static_cast<std::time_t>(unix_ms / 1000);
  std::tm parts{};
  gmtime_r(&seconds, &parts);
  char text[32];
  std::strftime(text, sizeof text, "%Y-%m-%d %H:%M:%S", &parts);
  return text;
}

// How linked answers agree with full recompute, behind an empty line; nothing where no worker has checked any.
std::string ShadowTable(const ClusterStatus& status) {
  Table table({{"worker", Align::kLeft},
               {"linker", Align::kLeft},
               {"shadow checks", Align::kRight},
               {"first token agrees", Align::kRight},
               {"mean KL, nats", Align::kRight},
               {"problem", Align::kLeft}});
  bool is_empty = true;
  for (const MemberStatus& member : status.members) {
    for (const ShadowFigures& figures : member.shadow) {
      is_empty = false;
      table.AddRow({member.address, figures.linker, std::to_string(figures.checks),
                    fmt::format("{:.1f} %", 100 * figures.first_token_agreement),
                    fmt::format("{:.4f}", figures.mean_kl), figures.problem});
    }
  }
  return is_empty ? "" : fmt::format("\n{}", table.ToString());
}

double Milliseconds(int64_t microseconds) { return static_cast<double>(microseconds) / 1e3; }

}  // namespace

nlohmann::json ToJson(const DocumentInfo& document) {
  return {{"id", document.id},
          {"state", DocumentStateName(document.state)},
          {"state_reason", document.state_reason},
          {"labels", document.labels},
          {"created_unix_ms", document.created_unix_ms},
          {"expires_unix_ms", document.expires_unix_ms},
          {"text_bytes", document.text_bytes},
          {"recipe", document.recipe},
          {"tokens", document.tokens},
          {"chunks", document.chunks},
          {"compiled_chunks", document.compiled_chunks},
          {"resident_chunks", document.resident_chunks}};
}

nlohmann::json ToJson(const Answer& answer) {
  const AnswerTiming& timing = answer.timing;
  nlohmann::json json{{"text", answer.text},
                      {"token_ids", answer.token_ids},
                      {"finish_reason", answer.finish_reason},
                      {"linker", answer.linker},
                      {"linker_note", answer.linker_note},
                      {"request_id", answer.request_id},
                      {"worker_id", answer.worker_id},
                      {"usage",
                       {{"prompt_tokens", answer.prompt_tokens},
                        {"cached_tokens", answer.cached_tokens},
                        {"recomputed_tokens", answer.recomputed_tokens},
                        {"selected_tokens", answer.selected_tokens},
                        {"reused_tokens", answer.reused_tokens},
                        {"completion_tokens", answer.token_ids.size()}}},
                      {"timing_us",
                       {{"queue", timing.queue_us},
                        {"lookup", timing.lookup_us},
                        {"load", timing.load_us},
                        {"compile", timing.compile_us},
                        {"link", timing.link_us},
                        {"first_token", timing.first_token_us},
                        {"ttft", timing.ttft_us},
                        {"total", timing.total_us}}},
                      {"bytes_pulled", timing.bytes_pulled}};
  for (const ChunkUse& chunk : answer.plan) {
    json["plan"].push_back({{"document_id", chunk.document_id},
                            {"chunk_index", chunk.chunk_index},
                            {"offset", chunk.offset},
                            {"tokens", chunk.tokens},
                            {"recomputed_tokens", chunk.recomputed_tokens},
                            {"source", chunk.source},
                            {"reason", chunk.reason}});
  }
  return json;
}

nlohmann::json ToJson(const ModelDescription& model) {
  return {{"name", model.name},
          {"architecture", model.architecture},
          {"fingerprint", model.fingerprint},
          {"layers", model.layers},
          {"width", model.width},
          {"context_length", model.context_length},
          {"vocab_size", model.vocab_size},
          {"kv_bytes_per_token", model.kv_bytes_per_token},
          {"weight_bytes", model.weight_bytes},
          {"chat_template", model.chat_template},
          {"chat_template_refusal", model.chat_template_refusal}};
}

nlohmann::json ToJson(const ClusterStatus& status) {
  nlohmann::json json{
      {"version", status.version}, {"uptime_ms", status.uptime_ms}, {"members", nlohmann::json::array()}};
  for (const MemberStatus& member : status.members) {
    nlohmann::json shadow = nlohmann::json::array();
    for (const ShadowFigures& figures : member.shadow) {
      shadow.push_back({{"linker", figures.linker},
                        {"checks", figures.checks},
                        {"first_token_agreement", figures.first_token_agreement},
                        {"mean_kl", figures.mean_kl},
                        {"problem", figures.problem}});
    }
    json["members"].push_back({{"role", member.role},
                               {"address", member.address},
                               {"health", member.health},
                               {"model", member.model},
                               {"documents", member.documents},
                               {"blocks", member.blocks},
                               {"used_bytes", member.used_bytes},
                               {"capacity_bytes", member.capacity_bytes},
                               {"queued", member.queued},
                               {"running", member.running},
                               {"waiting", member.waiting},
                               {"prefill_tokens_per_second", member.tokens_per_second},
                               {"shadow", std::move(shadow)}});
  }
  return json;
}

std::string DocumentTable(const std::vector<DocumentInfo>& documents) {
  Table table({{"id", Align::kLeft},
               {"state", Align::kLeft},
               {"tokens", Align::kRight},
               {"chunks", Align::kRight},
               {"in memory", Align::kRight},
               {"text", Align::kRight},
               {"registered (UTC)", Align::kLeft}});
  for (const DocumentInfo& document : documents) {
    table.AddRow({document.id, DocumentStateName(document.state), std::to_string(document.tokens),
                  std::to_string(document.chunks), std::to_string(document.resident_chunks),
                  HumanBytes(document.text_bytes), FormatTime(document.created_unix_ms)});
  }
  return table.ToString();
}

std::string PlanTable(const std::vector<ChunkUse>& plan) {
  Table table({{"document", Align::kLeft},
               {"chunk", Align::kRight},
               {"at", Align::kRight},
               {"tokens", Align::kRight},
               {"recomputed", Align::kRight},
               {"source", Align::kLeft},
               {"reason", Align::kLeft}});
  for (const ChunkUse& chunk : plan) {
    table.AddRow({chunk.document_id, std::to_string(chunk.chunk_index), std::to_string(chunk.offset),
                  std::to_string(chunk.tokens), std::to_string(chunk.recomputed_tokens), chunk.source, chunk.reason});
  }
  return table.ToString();
}

std::string ModelTable(const std::vector<ModelDescription>& models) {
  Table table({{"name", Align::kLeft},
               {"architecture", Align::kLeft},
               {"layers", Align::kRight},
               {"width", Align::kRight},
               {"context", Align::kRight},
               {"weights", Align::kRight},
               {"KV a token", Align::kRight},
               {"chat", Align::kLeft},
               {"fingerprint", Align::kLeft}});
  for (const ModelDescription& model : models) {
    table.AddRow({model.name, model.architecture, std::to_string(model.layers), std::to_string(model.width),
                  std::to_string(model.context_length), HumanBytes(model.weight_bytes),
                  HumanBytes(model.kv_bytes_per_token),
                  model.chat_template.empty() ? "none: " + model.chat_template_refusal : model.chat_template,
                  model.fingerprint.substr(0, 12)});
  }
  return table.ToString();
}

std::string StatusTable(const ClusterStatus& status) {
  Table table({{"role", Align::kLeft},
               {"address", Align::kLeft},
               {"health", Align::kLeft},
               {"documents", Align::kRight},
               {"KV memory", Align::kLeft},
               {"running", Align::kLeft},
               {"queued", Align::kLeft},
               {"tokens/s", Align::kRight},
               {"model", Align::kLeft}});
  for (const MemberStatus& member : status.members) {
    const bool is_node = member.role == "cache node";
    table.AddRow({member.role, member.address, member.health, is_node ? std::to_string(member.documents) : "",
                  fmt::format("{} of {}", HumanBytes(member.used_bytes), HumanBytes(member.capacity_bytes)),
                  fmt::format("{} {}", member.running, is_node ? "leases" : "requests"),
                  is_node ? fmt::format("{} chunks", member.queued)
                          : fmt::format("{} requests, {} tokens", member.waiting, member.queued),
                  is_node ? "" : fmt::format("{:.0f}", member.tokens_per_second), member.model});
  }
  return fmt::format("EPIC {}, up {} s\n\n", status.version, status.uptime_ms / 1000) + table.ToString() +
         ShadowTable(status);
}

std::string AnswerSummary(const Answer& answer) {
  const AnswerTiming& timing = answer.timing;
  const std::string reused =
      answer.reused_tokens > 0 ? fmt::format(", {} reused from an earlier request", answer.reused_tokens) : "";
  return fmt::format(
      "{}: first token after {:.1f} ms (look-up {:.1f}, load {:.1f}, link {:.1f}, first token {:.1f}); {} of {} prompt "
      "tokens recomputed, {} from cached chunks{}; {} tokens in {:.1f} ms\n",
      answer.linker, Milliseconds(timing.ttft_us), Milliseconds(timing.lookup_us), Milliseconds(timing.load_us),
      Milliseconds(timing.link_us), Milliseconds(timing.first_token_us), answer.recomputed_tokens, answer.prompt_tokens,
      answer.cached_tokens, reused, answer.token_ids.size(), Milliseconds(timing.total_us));
}

}  // namespace epic::client
