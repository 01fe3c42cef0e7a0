#include "client/cache_command.h"

#include <cstdlib>
#include <iostream>
#include <numeric>
#include <utility>

#include "CLI/CLI.hpp"
#include "client/cache_output.h"
#include "client/progress_line.h"
#include "client/table.h"
#include "core/identifiers.h"
#include "core/status_macros.h"
#include "fmt/format.h"
#include "fmt/ranges.h"

namespace epic::client {
namespace {

constexpr char kNodeVariable[] = "EPIC_NODE";

v1::Tier ParseTier(const std::string& name) {
  if (name == "host") return v1::TIER_HOST;
  return name == "disk" ? v1::TIER_DISK : v1::TIER_UNSPECIFIED;
}

void AddTierOption(CLI::App& command, CacheOptions* options) {
  command.add_option("--tier", options->tier, "host, disk or all")
      ->check(CLI::IsMember({"host", "disk", "all"}))
      ->capture_default_str();
}

void DeclareEvict(CLI::App& cache, CacheOptions* options, const std::function<void()>& chosen) {
  CLI::App* evict = cache.add_subcommand("evict", "drop chunks from memory and disk; documents stay");
  CLI::Option* ids = evict->add_option("ids", options->document_ids, "documents whose chunks go");
  evict->add_flag("--all", options->all, "every chunk of the node, of all tenants")->excludes(ids);
  AddTierOption(*evict, options);
  evict->callback([=] {
    if (ids->count() == 0 && !options->all) throw CLI::RequiredError("a document's id, or --all,");
    options->action = CacheAction::kEvict;
    chosen();
  });
}

void DeclareVerify(CLI::App& cache, CLI::Option* node, CacheOptions* options, const std::function<void()>& chosen) {
  CLI::App* verify =
      cache.add_subcommand("verify", "read every block and compare it with its checksums; bad ones are dropped");
  AddTierOption(*verify, options);
  CLI::Option* offline = verify
                             ->add_option("--offline", options->offline.data_dir,
                                          "check the data folder of a node that does not run, and change nothing")
                             ->check(CLI::ExistingDirectory)
                             ->excludes(node)
                             ->excludes(verify->get_option("--tier"));
  verify
      ->add_option("--manifest-copy-dir", options->offline.manifest_copy_dir,
                   "with --offline: as the node had it; default: manifest-copy in the data folder")
      ->needs(offline);
  verify
      ->add_option("--disk-dir", options->offline.disk_dir,
                   "with --offline: as the node had it; default: blocks in the data folder")
      ->needs(offline);
  verify->callback([=] {
    options->action = CacheAction::kVerify;
    chosen();
  });
}

// A fault of the node or of the way to it, which the next document would meet as well.
bool ConcernsTheNode(const absl::Status& status) {
  return status.code() == absl::StatusCode::kUnavailable || status.code() == absl::StatusCode::kUnimplemented ||
         status.code() == absl::StatusCode::kDeadlineExceeded;
}

absl::Status Stats(CacheAdminClient& node, const CacheOptions& options, bool json, std::ostream& out) {
  EPIC_ASSIGN_OR_RETURN(const v1::GetTiersResponse tiers, node.GetTiers());
  out << (json ? ToJson(tiers).dump(2) + "\n" : TiersText(options.node, tiers));
  return absl::OkStatus();
}

// What became of one document, as a line and as JSON.
struct PinOutcome {
  std::string text;
  nlohmann::json json;
};

absl::StatusOr<PinOutcome> Pin(CacheAdminClient& node, const std::string& id) {
  EPIC_ASSIGN_OR_RETURN(const v1::PinDocumentResponse pinned, node.PinDocument(id));
  return PinOutcome{fmt::format("pinned {}: {} chunks, {} of them in memory, {}\n", id, pinned.chunk_count(),
                                pinned.resident_chunk_count(), HumanBytes(pinned.bytes())),
                    {{"id", id},
                     {"pinned", true},
                     {"chunk_count", pinned.chunk_count()},
                     {"resident_chunk_count", pinned.resident_chunk_count()},
                     {"bytes", pinned.bytes()}}};
}

absl::StatusOr<PinOutcome> Unpin(CacheAdminClient& node, const std::string& id) {
  EPIC_ASSIGN_OR_RETURN(const v1::UnpinDocumentResponse unpinned, node.UnpinDocument(id));
  return PinOutcome{unpinned.was_pinned() ? fmt::format("unpinned {}\n", id) : fmt::format("{} was not pinned\n", id),
                    {{"id", id}, {"pinned", false}, {"was_pinned", unpinned.was_pinned()}}};
}

absl::Status PinOrUnpin(CacheAdminClient& node, const CacheOptions& options, bool json, std::ostream& out,
                        std::ostream& errors) {
  const bool is_pin = options.action == CacheAction::kPin;
  nlohmann::json results = nlohmann::json::array();
  absl::Status last_failure;
  size_t failures = 0;
  for (const std::string& id : options.document_ids) {
    const absl::StatusOr<PinOutcome> outcome = is_pin ? Pin(node, id) : Unpin(node, id);
    if (outcome.ok()) {
      results.push_back(outcome->json);
      if (!json) out << outcome->text << std::flush;
      continue;
    }
    ++failures;
    last_failure = outcome.status();
    results.push_back({{"id", id}, {"error", std::string(last_failure.message())}});
    if (options.document_ids.size() == 1 || ConcernsTheNode(last_failure)) break;
    errors << fmt::format("epic: {}: {}\n", id, std::string(last_failure.message()));
  }
  if (json) out << results.dump(2) << "\n";
  if (failures == 0) return absl::OkStatus();
  if (options.document_ids.size() == 1 || ConcernsTheNode(last_failure)) return last_failure;
  return absl::Status(last_failure.code(), fmt::format("{} of {} documents could not be {}", failures,
                                                       options.document_ids.size(), is_pin ? "pinned" : "unpinned"));
}

absl::Status Evict(CacheAdminClient& node, const CacheOptions& options, bool json, std::ostream& out) {
  EPIC_ASSIGN_OR_RETURN(const v1::EvictBlocksResponse evicted,
                        node.EvictBlocks(options.document_ids, ParseTier(options.tier)));
  if (json) {
    out << ToJson(evicted).dump(2) << "\n";
  } else {
    out << fmt::format("evicted {} blocks from memory and {} from disk; {} stay, in use or pinned\n",
                       evicted.evicted_host_blocks(), evicted.evicted_disk_blocks(), evicted.kept_blocks());
  }
  return absl::OkStatus();
}

absl::Status Verify(CacheAdminClient& node, const CacheOptions& options, bool json, std::ostream& out) {
  ProgressLine progress;
  const auto show = [&progress](const v1::VerifyBlocksResponse& so_far) {
    // By whole per cents: elsewhere than on a terminal each change is a line.
    const int64_t percent = so_far.total_blocks() == 0 ? 100 : 100 * so_far.verified_blocks() / so_far.total_blocks();
    progress.Show(
        fmt::format("verifying: {} % of {} blocks, {} bad", percent, so_far.total_blocks(), so_far.bad_blocks()));
  };
  EPIC_ASSIGN_OR_RETURN(const v1::VerifyBlocksResponse verified, node.VerifyBlocks(ParseTier(options.tier), show));
  progress.Clear();
  if (json) {
    out << ToJson(verified).dump(2) << "\n";
  } else {
    out << fmt::format("verified {} blocks ({}): {} bad\n", verified.verified_blocks(),
                       HumanBytes(verified.verified_bytes()), verified.bad_blocks());
    if (verified.bad_blocks() > 0) out << "\n" << FaultTable(verified);
  }
  out << std::flush;
  if (verified.bad_blocks() == 0) return absl::OkStatus();
  return absl::DataLossError(fmt::format(
      "{} of {} blocks were bad; they were dropped, and their chunks are compiled again when they are needed",
      verified.bad_blocks(), verified.verified_blocks()));
}

absl::Status Compact(CacheAdminClient& node, bool json, std::ostream& out) {
  EPIC_ASSIGN_OR_RETURN(const v1::CompactResponse compacted, node.Compact());
  if (json) {
    out << ToJson(compacted).dump(2) << "\n";
  } else {
    out << fmt::format("manifest and index took {} before and take {} now\n", HumanBytes(compacted.bytes_before()),
                       HumanBytes(compacted.bytes_after()));
  }
  return absl::OkStatus();
}

}  // namespace

void DeclareCacheCommand(CLI::App& app, CacheOptions* options, std::function<void()> chosen) {
  CLI::App* cache = app.add_subcommand("cache", "look at, pin, evict, verify and compact what a cache node holds");
  // Not require_subcommand(1), which would not name the word that is no subcommand.
  cache->require_subcommand(0, 1);
  cache->fallthrough();
  cache->callback([cache] {
    if (cache->get_subcommands().empty()) {
      throw CLI::RequiredError("one of stats, pin, unpin, evict, verify and compact");
    }
  });
  if (const char* node = std::getenv(kNodeVariable); node != nullptr && *node != '\0') options->node = node;
  // Not by envname(): a variable must not stand against --offline, as an option on the command line does.
  CLI::Option* node =
      cache->add_option("--node", options->node,
                        fmt::format("cache node to talk to, HOST:PORT, or the environment's {}; without "
                                    "either, the router's only one",
                                    kNodeVariable));
  const auto declare = [&](const char* name, const char* description, CacheAction action) {
    CLI::App* command = cache->add_subcommand(name, description);
    command->callback([options, action, chosen] {
      options->action = action;
      chosen();
    });
    return command;
  };
  declare("stats", "what memory and disk hold and have done since the node's start", CacheAction::kStats);
  declare("pin", "keep documents' chunks in memory, also after a restart", CacheAction::kPin)
      ->add_option("ids", options->document_ids, "documents")
      ->required();
  declare("unpin", "let pinned documents' chunks go again when room is needed", CacheAction::kUnpin)
      ->add_option("ids", options->document_ids, "documents")
      ->required();
  DeclareEvict(*cache, options, chosen);
  DeclareVerify(*cache, node, options, chosen);
  declare("compact", "give back to the file system what deleted records still take", CacheAction::kCompact);
}

// The only node that the router knows; where there are several, somebody must say which.
absl::StatusOr<std::string> OnlyNode(const ClientOptions& options) {
  EPIC_ASSIGN_OR_RETURN(const auto router, Client::Connect(options));
  EPIC_ASSIGN_OR_RETURN(const ClusterStatus status, router->GetStatus());
  std::vector<std::string> addresses;
  for (const MemberStatus& member : status.members) {
    if (member.role == "cache node") addresses.push_back(member.address);
  }
  if (addresses.size() == 1) return addresses.front();
  return absl::InvalidArgumentError(fmt::format("the router at {} has {} cache nodes ({}); say which one with --node",
                                                options.server, addresses.size(), fmt::join(addresses, ", ")));
}

absl::Status RunCache(const CommonOptions& common, const CacheOptions& options, const OfflineVerifier& verify_offline) {
  if (!options.offline.data_dir.empty()) return RunCacheOffline(options, verify_offline, common.json, std::cout);
  CacheOptions resolved = options;
  if (resolved.node.empty()) {
    EPIC_ASSIGN_OR_RETURN(resolved.node, OnlyNode(common.client));
  }
  CacheAdminOptions node_options;
  node_options.node = resolved.node;
  node_options.tenant = common.client.tenant;
  node_options.control_timeout = common.client.control_timeout;
  EPIC_ASSIGN_OR_RETURN(const auto node, CacheAdminClient::Connect(node_options));
  return RunCacheOnNode(*node, resolved, common.json, std::cout, std::cerr);
}

absl::Status RunCacheOnNode(CacheAdminClient& node, const CacheOptions& options, bool json, std::ostream& out,
                            std::ostream& errors) {
  // All of them before the first call: a bad id among many leaves nothing half-done.
  for (const std::string& id : options.document_ids) EPIC_RETURN_IF_ERROR(ValidateDocumentId("document id", id));
  switch (options.action) {
    case CacheAction::kStats:
      return Stats(node, options, json, out);
    case CacheAction::kPin:
    case CacheAction::kUnpin:
      return PinOrUnpin(node, options, json, out, errors);
    case CacheAction::kEvict:
      return Evict(node, options, json, out);
    case CacheAction::kVerify:
      return Verify(node, options, json, out);
    case CacheAction::kCompact:
      return Compact(node, json, out);
  }
  return absl::InternalError("an action of epic cache is not handled");
}

absl::Status RunCacheOffline(const CacheOptions& options, const OfflineVerifier& verify_offline, bool json,
                             std::ostream& out) {
  ProgressLine progress;
  EPIC_ASSIGN_OR_RETURN(const std::vector<OfflinePart> parts,
                        verify_offline(options.offline, [&progress](const std::string& text) { progress.Show(text); }));
  progress.Clear();
  out << (json ? ToJson(parts).dump(2) + "\n" : OfflineText(parts)) << std::flush;
  const size_t faults = std::accumulate(parts.begin(), parts.end(), size_t{0},
                                        [](size_t sum, const OfflinePart& part) { return sum + part.faults.size(); });
  if (faults == 0) return absl::OkStatus();
  return absl::DataLossError(fmt::format(
      "{} faults in {}; nothing was changed (a start repairs the manifest from its sound copy and drops bad blocks)",
      faults, options.offline.data_dir));
}

}  // namespace epic::client
