#include "client/cache_output.h"

#include <functional>
#include <map>
#include <utility>

#include "client/table.h"
#include "fmt/format.h"

namespace epic::client {
namespace {

using Align = Table::Align;

nlohmann::json ToJson(const v1::TierStatus& tier) {
  nlohmann::json evictions = nlohmann::json::object();
  for (const auto& [cause, count] : tier.evictions_total()) evictions[cause] = count;
  return {{"tier", TierName(tier.tier())},
          {"dtype", tier.dtype()},
          {"eviction_policy", tier.eviction_policy()},
          {"capacity_bytes", tier.capacity_bytes()},
          {"used_bytes", tier.used_bytes()},
          {"block_count", tier.block_count()},
          {"pinned_blocks", tier.pinned_blocks()},
          {"pinned_bytes", tier.pinned_bytes()},
          {"lease_count", tier.lease_count()},
          {"leased_bytes", tier.leased_bytes()},
          {"largest_free_bytes", tier.largest_free_bytes()},
          {"free_ranges", tier.free_ranges()},
          {"hits_total", tier.hits_total()},
          {"misses_total", tier.misses_total()},
          {"promotions_total", tier.promotions_total()},
          {"demotions_total", tier.demotions_total()},
          {"evictions_total", std::move(evictions)},
          {"checksum_failures_total", tier.checksum_failures_total()},
          {"read_errors_total", tier.read_errors_total()},
          {"write_errors_total", tier.write_errors_total()},
          {"declined_total", tier.declined_total()},
          {"queue_length", tier.queue_length()},
          {"bytes_read_total", tier.bytes_read_total()},
          {"bytes_written_total", tier.bytes_written_total()}};
}

// "handbook: its checksum is wrong" in its two parts; the first is empty where there is no colon.
std::pair<std::string, std::string> SplitFault(const std::string& fault) {
  const size_t colon = fault.find(": ");
  if (colon == std::string::npos) return {"", fault};
  return {fault.substr(0, colon), fault.substr(colon + 2)};
}

std::string Share(uint64_t part, uint64_t whole) {
  return whole == 0 ? "-" : fmt::format("{:.1f} %", 100 * static_cast<double>(part) / static_cast<double>(whole));
}

std::string Bytes(uint64_t bytes) { return HumanBytes(static_cast<int64_t>(bytes)); }

// One row of the table of tiers.
struct TierRow {
  const char* title;
  std::function<std::string(const v1::TierStatus&)> cell;
};

std::vector<TierRow> SizeRows() {
  using Tier = v1::TierStatus;
  return {
      {"kept as", [](const Tier& t) { return t.dtype(); }},
      {"eviction policy", [](const Tier& t) { return t.eviction_policy(); }},
      {"capacity", [](const Tier& t) { return HumanBytes(t.capacity_bytes()); }},
      {"used", [](const Tier& t) { return HumanBytes(t.used_bytes()); }},
      {"used share",
       [](const Tier& t) {
         return Share(static_cast<uint64_t>(t.used_bytes()), static_cast<uint64_t>(t.capacity_bytes()));
       }},
      {"largest free run", [](const Tier& t) { return HumanBytes(t.largest_free_bytes()); }},
      {"free runs", [](const Tier& t) { return std::to_string(t.free_ranges()); }},
      {"blocks", [](const Tier& t) { return std::to_string(t.block_count()); }},
      {"pinned blocks", [](const Tier& t) { return std::to_string(t.pinned_blocks()); }},
      {"pinned", [](const Tier& t) { return HumanBytes(t.pinned_bytes()); }},
      {"leases", [](const Tier& t) { return std::to_string(t.lease_count()); }},
      {"under lease", [](const Tier& t) { return HumanBytes(t.leased_bytes()); }},
  };
}

std::vector<TierRow> WorkRows() {
  using Tier = v1::TierStatus;
  return {
      {"hits", [](const Tier& t) { return std::to_string(t.hits_total()); }},
      {"misses", [](const Tier& t) { return std::to_string(t.misses_total()); }},
      {"hit ratio", [](const Tier& t) { return Share(t.hits_total(), t.hits_total() + t.misses_total()); }},
      {"promoted", [](const Tier& t) { return std::to_string(t.promotions_total()); }},
      {"demoted", [](const Tier& t) { return std::to_string(t.demotions_total()); }},
      {"declined", [](const Tier& t) { return std::to_string(t.declined_total()); }},
      {"waiting", [](const Tier& t) { return std::to_string(t.queue_length()); }},
      {"read", [](const Tier& t) { return Bytes(t.bytes_read_total()); }},
      {"written", [](const Tier& t) { return Bytes(t.bytes_written_total()); }},
      {"checksum failures", [](const Tier& t) { return std::to_string(t.checksum_failures_total()); }},
      {"read errors", [](const Tier& t) { return std::to_string(t.read_errors_total()); }},
      {"write errors", [](const Tier& t) { return std::to_string(t.write_errors_total()); }},
  };
}

// What a cause of evictions is called in the table; a cause that a newer node has keeps its own name.
std::string EvictionTitle(const std::string& cause) {
  static const std::map<std::string, std::string> kTitles = {{"room", "evicted for room"},
                                                             {"run", "evicted as neighbours"},
                                                             {"requested", "evicted on request"},
                                                             {"deleted", "dropped, not needed"},
                                                             {"damaged", "dropped, damaged"}};
  const auto title = kTitles.find(cause);
  return title == kTitles.end() ? fmt::format("evicted: {}", cause) : title->second;
}

void AddRows(const std::vector<TierRow>& rows, const v1::GetTiersResponse& tiers, Table& table) {
  for (const TierRow& row : rows) {
    std::vector<std::string> cells{row.title};
    for (const v1::TierStatus& tier : tiers.tiers()) cells.push_back(row.cell(tier));
    table.AddRow(std::move(cells));
  }
}

// A row for each cause that any tier counts, in the order of their names.
void AddEvictionRows(const v1::GetTiersResponse& tiers, Table& table) {
  std::map<std::string, std::vector<std::string>> rows;
  for (const v1::TierStatus& tier : tiers.tiers()) {
    for (const auto& [cause, count] : tier.evictions_total()) rows[cause] = {EvictionTitle(cause)};
  }
  for (auto& [cause, cells] : rows) {
    for (const v1::TierStatus& tier : tiers.tiers()) {
      const auto count = tier.evictions_total().find(cause);
      cells.push_back(count == tier.evictions_total().end() ? "-" : std::to_string(count->second));
    }
    table.AddRow(cells);
  }
}

std::string PinnedTable(const v1::GetTiersResponse& tiers) {
  if (tiers.pinned_documents().empty()) return "";
  Table table({{"pinned document", Align::kLeft}, {"tenant", Align::kLeft}, {"KV", Align::kRight}});
  for (const v1::PinnedDocument& pinned : tiers.pinned_documents()) {
    table.AddRow({pinned.document_id(), pinned.tenant(), HumanBytes(pinned.bytes())});
  }
  const int64_t more = tiers.pinned_document_count() - tiers.pinned_documents_size();
  return fmt::format("\n{}{}", table.ToString(), more > 0 ? fmt::format("and {} more\n", more) : "");
}

}  // namespace

std::string TierName(v1::Tier tier) {
  switch (tier) {
    case v1::TIER_UNSPECIFIED:
      return "all";
    case v1::TIER_HOST:
      return "host";
    case v1::TIER_DISK:
      return "disk";
    default:
      return fmt::format("tier {}", static_cast<int>(tier));
  }
}

nlohmann::json ToJson(const v1::GetTiersResponse& tiers) {
  nlohmann::json json{{"version", tiers.version()},
                      {"tiers", nlohmann::json::array()},
                      {"document_count", tiers.document_count()},
                      {"pinned_document_count", tiers.pinned_document_count()},
                      {"pinned_bytes_max", tiers.pinned_bytes_max()},
                      {"adopted_blocks", tiers.adopted_blocks()},
                      {"orphaned_blocks", tiers.orphaned_blocks()},
                      {"pinned_documents", nlohmann::json::array()}};
  for (const v1::TierStatus& tier : tiers.tiers()) json["tiers"].push_back(ToJson(tier));
  for (const v1::PinnedDocument& pinned : tiers.pinned_documents()) {
    json["pinned_documents"].push_back(
        {{"tenant", pinned.tenant()}, {"document_id", pinned.document_id()}, {"bytes", pinned.bytes()}});
  }
  return json;
}

nlohmann::json ToJson(const v1::EvictBlocksResponse& evicted) {
  return {{"evicted_host_blocks", evicted.evicted_host_blocks()},
          {"evicted_disk_blocks", evicted.evicted_disk_blocks()},
          {"kept_blocks", evicted.kept_blocks()}};
}

nlohmann::json ToJson(const v1::VerifyBlocksResponse& verified) {
  nlohmann::json faults = nlohmann::json::array();
  for (const std::string& text : verified.faults()) {
    const auto [key, fault] = SplitFault(text);
    faults.push_back({{"key", key}, {"fault", fault}});
  }
  return {{"verified_blocks", verified.verified_blocks()},
          {"total_blocks", verified.total_blocks()},
          {"verified_bytes", verified.verified_bytes()},
          {"bad_blocks", verified.bad_blocks()},
          {"faults", std::move(faults)}};
}

nlohmann::json ToJson(const v1::CompactResponse& compacted) {
  return {{"bytes_before", compacted.bytes_before()}, {"bytes_after", compacted.bytes_after()}};
}

nlohmann::json ToJson(const std::vector<OfflinePart>& parts) {
  nlohmann::json json{{"parts", nlohmann::json::array()}};
  for (const OfflinePart& part : parts) {
    json["parts"].push_back({{"name", part.name},
                             {"folder", part.folder},
                             {"entries", part.entries},
                             {"bytes", part.bytes},
                             {"faults", part.faults},
                             {"note", part.note}});
  }
  return json;
}

std::string TiersText(const std::string& node, const v1::GetTiersResponse& tiers) {
  std::vector<Table::Column> columns{{"", Align::kLeft}};
  for (const v1::TierStatus& tier : tiers.tiers()) columns.push_back({TierName(tier.tier()), Align::kRight});
  Table table(std::move(columns));
  AddRows(SizeRows(), tiers, table);
  AddRows(WorkRows(), tiers, table);
  AddEvictionRows(tiers, table);
  return fmt::format(
      "cache node at {}, EPIC {}: {} documents, {} pinned (up to {} of KV)\nat its start {} blocks were there again on "
      "disk, and {} that nothing referred to were dropped\n\n{}{}",
      node, tiers.version(), tiers.document_count(), tiers.pinned_document_count(),
      HumanBytes(tiers.pinned_bytes_max()), tiers.adopted_blocks(), tiers.orphaned_blocks(), table.ToString(),
      PinnedTable(tiers));
}

std::string FaultTable(const v1::VerifyBlocksResponse& verified) {
  if (verified.bad_blocks() == 0) return "";
  Table table({{"bad block", Align::kLeft}, {"what was wrong", Align::kLeft}});
  for (const std::string& text : verified.faults()) {
    const auto [key, fault] = SplitFault(text);
    table.AddRow({key, fault});
  }
  const int64_t more = verified.bad_blocks() - verified.faults_size();
  return fmt::format("{}{}", table.ToString(), more > 0 ? fmt::format("and {} more\n", more) : "");
}

std::string OfflineText(const std::vector<OfflinePart>& parts) {
  Table table({{"part", Align::kLeft},
               {"entries", Align::kRight},
               {"size", Align::kRight},
               {"faults", Align::kRight},
               {"folder", Align::kLeft}});
  Table faults({{"part", Align::kLeft}, {"what is wrong", Align::kLeft}});
  bool is_sound = true;
  std::string notes;
  for (const OfflinePart& part : parts) {
    table.AddRow({part.name, std::to_string(part.entries), HumanBytes(part.bytes), std::to_string(part.faults.size()),
                  part.folder});
    for (const std::string& fault : part.faults) faults.AddRow({part.name, fault});
    is_sound = is_sound && part.faults.empty();
    if (!part.note.empty()) notes += fmt::format("\n{}: {}\n", part.name, part.note);
  }
  return fmt::format("{}{}{}", table.ToString(), notes, is_sound ? "" : fmt::format("\n{}", faults.ToString()));
}

}  // namespace epic::client
