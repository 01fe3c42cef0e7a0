#include "client/commands.h"

#include <cstdio>
#include <iostream>
#include <utility>

#include "client/command_output.h"
#include "client/compare.h"
#include "client/progress_line.h"
#include "client/text_file.h"
#include "core/identifiers.h"
#include "core/status_macros.h"
#include "fmt/format.h"

namespace epic::client {
namespace {

absl::StatusOr<NewDocument> ReadDocument(const std::string& path, const RegisterOptions& options) {
  NewDocument document;
  EPIC_ASSIGN_OR_RETURN(document.text, ReadDocumentFile(path));
  document.id = options.id.empty() ? DocumentIdFromPath(path) : options.id;
  EPIC_RETURN_IF_ERROR(ValidateDocumentId("document id", document.id));
  document.time_to_live = std::chrono::seconds(options.time_to_live_seconds);
  document.recipe = options.recipe;
  for (const std::string& label : options.labels) {
    const size_t equals = label.find('=');
    if (equals == std::string::npos || equals == 0) {
      return absl::InvalidArgumentError(fmt::format("--label {}: expected KEY=VALUE", QuoteForMessage(label)));
    }
    document.labels[label.substr(0, equals)] = label.substr(equals + 1);
  }
  return document;
}

absl::Status WaitForDocument(Client& client, const std::string& id, ProgressLine& progress) {
  return client.WaitUntilReady(id, [&](const DocumentInfo& info) {
    progress.Show(
        fmt::format("{}: {} of {} chunks compiled ({} tokens)", id, info.compiled_chunks, info.chunks, info.tokens));
  });
}

}  // namespace

absl::Status RunRegister(const CommonOptions& common, const RegisterOptions& options) {
  if (!options.id.empty() && options.files.size() != 1) {
    return absl::InvalidArgumentError(
        fmt::format("--id names one document, {} files were given", options.files.size()));
  }
  // Everything is read before anything is registered: a bad file among many leaves nothing behind.
  std::vector<NewDocument> documents;
  for (const std::string& file : options.files) {
    EPIC_ASSIGN_OR_RETURN(NewDocument document, ReadDocument(file, options));
    documents.push_back(std::move(document));
  }
  EPIC_ASSIGN_OR_RETURN(const auto client, Client::Connect(common.client));
  ProgressLine progress;
  nlohmann::json json = nlohmann::json::array();
  std::vector<std::pair<std::string, bool>> registered;
  for (const NewDocument& document : documents) {
    progress.Show(fmt::format("registering {}", document.id));
    bool created = false;
    EPIC_ASSIGN_OR_RETURN(const DocumentInfo info, client->CreateDocument(document, &created));
    registered.emplace_back(info.id, created);
  }
  for (const auto& [id, created] : registered) {
    if (options.wait) EPIC_RETURN_IF_ERROR(WaitForDocument(*client, id, progress));
    EPIC_ASSIGN_OR_RETURN(const DocumentInfo info, client->GetDocument(id));
    progress.Clear();
    if (common.json) {
      json.push_back(ToJson(info));
      json.back()["created"] = created;
    } else {
      std::cout << fmt::format("{} {}: {}, {} tokens in {} chunks\n", created ? "registered" : "already registered",
                               info.id, DocumentStateName(info.state), info.tokens, info.chunks)
                << std::flush;
    }
  }
  if (common.json) std::cout << json.dump(2) << "\n";
  return absl::OkStatus();
}

absl::Status RunAsk(const CommonOptions& common, const AskOptions& options) {
  EPIC_ASSIGN_OR_RETURN(const auto client, Client::Connect(common.client));
  if (options.compare) {
    ProgressLine progress;
    EPIC_ASSIGN_OR_RETURN(
        const Comparison comparison,
        CompareLinkers(*client, options.question, options.runs, [&](const std::string& text) { progress.Show(text); }));
    progress.Clear();
    std::cout << (common.json ? ComparisonJson(comparison) : ComparisonTable(comparison));
    return absl::OkStatus();
  }
  const auto show = [](const std::string& text) { std::cout << text << std::flush; };
  EPIC_ASSIGN_OR_RETURN(const Answer answer,
                        client->Ask(options.question, common.json ? std::function<void(const std::string&)>() : show));
  if (common.json) {
    std::cout << ToJson(answer).dump(2) << "\n";
    return absl::OkStatus();
  }
  std::cout << "\n" << std::flush;
  std::cerr << AnswerSummary(answer);
  if (!answer.linker_note.empty()) std::cerr << answer.linker_note << "\n";
  if (options.question.explain) std::cout << "\n" << PlanTable(answer.plan);
  return absl::OkStatus();
}

absl::Status RunDocumentsList(const CommonOptions& common, const ListOptions& options) {
  EPIC_ASSIGN_OR_RETURN(const auto client, Client::Connect(common.client));
  std::vector<DocumentInfo> documents;
  std::string token = options.page_token;
  do {
    EPIC_ASSIGN_OR_RETURN(DocumentPage page, client->ListDocuments(options.page_size, token));
    documents.insert(documents.end(), page.documents.begin(), page.documents.end());
    token = page.next_page_token;
  } while (!token.empty() && options.page_size == 0);
  if (common.json) {
    nlohmann::json json{{"documents", nlohmann::json::array()}, {"next_page_token", token}};
    for (const DocumentInfo& document : documents) json["documents"].push_back(ToJson(document));
    std::cout << json.dump(2) << "\n";
  } else {
    std::cout << DocumentTable(documents);
    if (!token.empty()) std::cout << fmt::format("\nMore: --page-token {}\n", token);
  }
  return absl::OkStatus();
}

absl::Status RunDocumentsGet(const CommonOptions& common, const std::string& id, bool with_text) {
  EPIC_ASSIGN_OR_RETURN(const auto client, Client::Connect(common.client));
  std::string text;
  EPIC_ASSIGN_OR_RETURN(const DocumentInfo document, client->GetDocument(id, with_text ? &text : nullptr));
  if (common.json) {
    nlohmann::json json = ToJson(document);
    if (with_text) json["text"] = text;
    std::cout << json.dump(2) << "\n";
    return absl::OkStatus();
  }
  std::cout << DocumentTable({document});
  if (!document.state_reason.empty()) std::cout << "\n" << document.state_reason << "\n";
  if (with_text) std::cout << "\n" << text << "\n";
  return absl::OkStatus();
}

absl::Status RunDocumentsDelete(const CommonOptions& common, const std::vector<std::string>& ids) {
  EPIC_ASSIGN_OR_RETURN(const auto client, Client::Connect(common.client));
  nlohmann::json json = nlohmann::json::array();
  for (const std::string& id : ids) {
    EPIC_RETURN_IF_ERROR(client->DeleteDocument(id));
    json.push_back({{"id", id}, {"deleted", true}});
    if (!common.json) std::cout << "deleted " << id << "\n" << std::flush;
  }
  if (common.json) std::cout << json.dump(2) << "\n";
  return absl::OkStatus();
}

absl::Status RunStatus(const CommonOptions& common) {
  EPIC_ASSIGN_OR_RETURN(const auto client, Client::Connect(common.client));
  EPIC_ASSIGN_OR_RETURN(const ClusterStatus status, client->GetStatus());
  std::cout << (common.json ? ToJson(status).dump(2) + "\n" : StatusTable(status));
  return absl::OkStatus();
}

absl::Status RunModels(const CommonOptions& common) {
  EPIC_ASSIGN_OR_RETURN(const auto client, Client::Connect(common.client));
  EPIC_ASSIGN_OR_RETURN(const std::vector<ModelDescription> models, client->ListModels());
  if (!common.json) {
    std::cout << ModelTable(models);
    return absl::OkStatus();
  }
  nlohmann::json json = nlohmann::json::array();
  for (const ModelDescription& model : models) json.push_back(ToJson(model));
  std::cout << json.dump(2) << "\n";
  return absl::OkStatus();
}

}  // namespace epic::client
