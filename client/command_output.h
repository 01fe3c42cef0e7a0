// What the commands print, as JSON and as tables. Pure.
#ifndef EPIC_CLIENT_COMMAND_OUTPUT_H_
#define EPIC_CLIENT_COMMAND_OUTPUT_H_

#include <string>
#include <vector>

#include "client/client.h"
#include "nlohmann/json.hpp"

namespace epic::client {

nlohmann::json ToJson(const DocumentInfo& document);
nlohmann::json ToJson(const Answer& answer);
nlohmann::json ToJson(const ModelDescription& model);
nlohmann::json ToJson(const ClusterStatus& status);

std::string DocumentTable(const std::vector<DocumentInfo>& documents);
std::string PlanTable(const std::vector<ChunkUse>& plan);
std::string ModelTable(const std::vector<ModelDescription>& models);
std::string StatusTable(const ClusterStatus& status);
// One line: time to first token with its parts, tokens, worker.
std::string AnswerSummary(const Answer& answer);

}  // namespace epic::client

#endif  // EPIC_CLIENT_COMMAND_OUTPUT_H_
