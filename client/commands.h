// The subcommands of `epic` that talk to a running EPIC. Each returns what went wrong; epic_main.cc turns it into one
// sentence on standard error and the exit code.
#ifndef EPIC_CLIENT_COMMANDS_H_
#define EPIC_CLIENT_COMMANDS_H_

#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "client/client.h"

namespace epic::client {

// Options that all of them share.
struct CommonOptions {
  ClientOptions client;
  bool json = false;  // --format json
};

struct RegisterOptions {
  std::vector<std::string> files;
  std::string id;                   // for a single file only
  std::vector<std::string> labels;  // key=value
  int64_t time_to_live_seconds = 0;
  std::string recipe;  // empty: the node's default
  bool wait = true;
};

struct AskOptions {
  Question question;
  bool compare = false;
  int runs = 5;
};

struct ListOptions {
  int32_t page_size = 0;  // 0: every page
  std::string page_token;
};

absl::Status RunRegister(const CommonOptions& common, const RegisterOptions& options);
absl::Status RunAsk(const CommonOptions& common, const AskOptions& options);
absl::Status RunDocumentsList(const CommonOptions& common, const ListOptions& options);
absl::Status RunDocumentsGet(const CommonOptions& common, const std::string& id, bool with_text);
absl::Status RunDocumentsDelete(const CommonOptions& common, const std::vector<std::string>& ids);
absl::Status RunStatus(const CommonOptions& common);
absl::Status RunModels(const CommonOptions& common);

}  // namespace epic::client

#endif  // EPIC_CLIENT_COMMANDS_H_
