// `epic cache`: what an operator does with the tiers of one cache node, or with the folder of one that does not run.
#ifndef EPIC_CLIENT_CACHE_COMMAND_H_
#define EPIC_CLIENT_CACHE_COMMAND_H_

#include <functional>
#include <ostream>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "client/cache_admin_client.h"
#include "client/commands.h"
#include "client/offline_verify.h"

namespace CLI {  // NOLINT(readability-identifier-naming): the library's name
class App;
}

namespace epic::client {

enum class CacheAction { kStats, kPin, kUnpin, kEvict, kVerify, kCompact };

struct CacheOptions {
  CacheAction action = CacheAction::kStats;
  std::string node;                       // HOST:PORT; empty: the only one that the router knows
  std::vector<std::string> document_ids;  // pin, unpin, evict
  bool all = false;                       // evict: every block; then there are no document_ids
  std::string tier = "all";               // evict, verify: host, disk or all
  OfflineFolders offline;                 // verify; without a data_dir the node is asked
};

// Declares `epic cache` and its subcommands. Parsing fills `*options` and then calls `chosen`.
void DeclareCacheCommand(CLI::App& app, CacheOptions* options, std::function<void()> chosen);

// The signature of VerifyOffline, so that this file does not need what reads the folders.
using OfflineVerifier = std::function<absl::StatusOr<std::vector<OfflinePart>>(
    const OfflineFolders&, const std::function<void(const std::string&)>&)>;

// Does what `options` say against the node that they name, or, where they name a folder, by `verify_offline`. Results
// go to standard output, progress to standard error. DATA_LOSS where something was bad.
absl::Status RunCache(const CommonOptions& common, const CacheOptions& options, const OfflineVerifier& verify_offline);

// The two halves of it, with the node and the streams given. A document that cannot be pinned or unpinned leaves a line
// in `errors` and the next one is tried; the status then counts them.
absl::Status RunCacheOnNode(CacheAdminClient& node, const CacheOptions& options, bool json, std::ostream& out,
                            std::ostream& errors);
absl::Status RunCacheOffline(const CacheOptions& options, const OfflineVerifier& verify_offline, bool json,
                             std::ostream& out);

}  // namespace epic::client

#endif  // EPIC_CLIENT_CACHE_COMMAND_H_
