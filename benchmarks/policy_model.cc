#include "benchmarks/policy_model.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdlib>
#include <numeric>

#include "core/chunker.h"
#include "core/limits.h"
#include "core/status_macros.h"
#include "engine/chunk_compilation.h"
#include "engine/link_job.h"

namespace epic {
namespace {

constexpr int32_t kPieceRows = 256;

}  // namespace

absl::StatusOr<std::unique_ptr<PolicyModel>> PolicyModel::Open(const std::string& path, int threads) {
  std::unique_ptr<PolicyModel> model(new PolicyModel());
  EPIC_ASSIGN_OR_RETURN(model->file_, OpenModelFile(path));
  TokenizerSpec spec = model->file_->tokenizer();
  EPIC_ASSIGN_OR_RETURN(model->template_, ChatTemplate::Recognise(spec));
  ProtectControlTokens(*model->template_, spec);
  EPIC_ASSIGN_OR_RETURN(model->tokenizer_, Tokenizer::Create(std::move(spec)));
  EPIC_ASSIGN_OR_RETURN(model->backend_, CpuBackend::Create(*model->file_, threads));
  model->plain_.id = kPlainRecipeId;
  if (const auto start = model->tokenizer_->sequence_start_id()) model->plain_.prefix_tokens = {*start};
  for (const int32_t id : model->tokenizer_->stop_ids()) model->stop_ids_.insert(id);
  for (const std::string& token : model->template_->stop_tokens()) {
    if (const auto id = model->tokenizer_->TokenId(token)) model->stop_ids_.insert(*id);
  }
  for (int32_t id = 0; id < model->config().vocab_size; ++id) {
    model->separations_.push_back(SeparationOf(model->tokenizer_->DecodeToken(id)));
  }
  return model;
}

absl::StatusOr<std::vector<PromptSegment>> PolicyModel::Prompt(const eval::Example& example,
                                                               bool whole_documents) const {
  PromptMessage message{"user", {}};
  if (!example.preface.empty()) message.parts.push_back({PromptPart::Kind::kText, example.preface, {}, nullptr});
  for (const std::string& document : example.documents) {
    EPIC_ASSIGN_OR_RETURN(const Tokenizer::Encoding encoding, tokenizer_->EncodeText(document));
    const std::vector<TokenSpan> spans =
        ChunkDocument(static_cast<int32_t>(encoding.ids.size()), document, encoding.byte_ends, ChunkerOptions());
    const std::vector<int32_t> sections =
        SectionBegins(spans, std::min(kDocumentSectionTokensMax, config().context_length - plain_.first_position()));
    for (size_t i = 0; i < spans.size(); ++i) {
      const auto at = [&](int32_t token) { return encoding.ids.begin() + token; };
      PromptPart part{PromptPart::Kind::kChunk, "", {at(spans[i].begin), at(spans[i].end)}, nullptr};
      if (whole_documents) part.context_token_ids.assign(at(sections[i]), at(spans[i].begin));
      message.parts.push_back(std::move(part));
    }
  }
  message.parts.push_back({PromptPart::Kind::kText, "\n\n" + example.question, {}, nullptr});
  return BuildChatPrompt(*tokenizer_, *template_, {message});
}

Recipe PolicyModel::RecipeFor(const std::vector<PromptSegment>& prompt, const RowPolicy& policy) const {
  if (policy.behind == 0 || prompt.front().is_chunk) return plain_;
  const std::vector<int32_t>& head = prompt.front().token_ids;
  const size_t count = std::min<size_t>(policy.behind, head.size());
  return {"behind", {head.begin(), head.begin() + static_cast<ptrdiff_t>(count)}};
}

PolicyModel::Reference PolicyModel::RunFull(const std::vector<PromptSegment>& prompt, int32_t positions_max) {
  const Linker full{.kind = LinkerKind::kFull};
  LinkJob job(*backend_, prompt, full, PlanLink(prompt, full, plain_), {});
  RunToEnd(job);
  Reference reference;
  std::vector<float> hidden = job.last_hidden();
  for (int32_t position = SegmentOffsets(prompt).back();; ++position) {
    const LogProbabilities& distribution = reference.distributions.emplace_back(Distributions(hidden).front());
    const auto likeliest = std::max_element(distribution.begin(), distribution.end());
    reference.answer.push_back(static_cast<int32_t>(likeliest - distribution.begin()));
    if (static_cast<int32_t>(reference.answer.size()) == positions_max) return reference;
    if (stop_ids_.contains(reference.answer.back())) return reference;
    hidden = Append({reference.answer.back()}, position, job.kv());
  }
}

PolicyModel::Linked PolicyModel::Link(std::vector<PromptSegment> prompt, const RowPolicy& policy, int32_t budget,
                                      const std::vector<int32_t>& answer) {
  const Recipe recipe = RecipeFor(prompt, policy);
  CompileChunks(recipe, prompt);
  const PolicyPlan plan = PlanPolicy(prompt, policy, recipe, budget, separations_);
  Linked linked;
  const auto begin = std::chrono::steady_clock::now();
  LinkJob job(*backend_, prompt, plan.linker, plan.plan, {});
  RunToEnd(job);
  linked.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  linked.selected_rows = static_cast<int32_t>(job.selected().size());
  linked.recomputed_rows = job.recomputed_rows();
  std::vector<float> hidden = job.last_hidden();
  if (answer.size() > 1) {
    const std::vector<float> rest = Append({answer.begin(), answer.end() - 1}, SegmentOffsets(prompt).back(), job.kv());
    hidden.insert(hidden.end(), rest.begin(), rest.end());
  }
  linked.distributions = Distributions(hidden);
  return linked;
}

void PolicyModel::RunToEnd(LinkJob& job) {
  while (!job.Done()) {
    if (job.NeedsOwnPass()) {
      job.RunOwnPass(kPieceRows);
      continue;
    }
    std::vector<int32_t> ids, positions;
    const int32_t rows = job.TakeRows(kPieceRows, ids, positions);
    const std::vector<float> hidden = RunRows(ids, std::move(positions), job.kv());
    job.FinishRows(hidden.data() + static_cast<size_t>(rows - 1) * config().width);
  }
}

std::vector<float> PolicyModel::RunRows(const std::vector<int32_t>& token_ids, std::vector<int32_t> positions,
                                        SequenceKv& kv) {
  RowBatch batch;
  batch.groups.push_back({&kv, 0, static_cast<int32_t>(token_ids.size())});
  batch.positions = std::move(positions);
  std::vector<float> hidden(token_ids.size() * config().width);
  backend_->Embed(token_ids, hidden.data());
  backend_->RunLayers(batch, 0, config().layers, false, hidden.data());
  return hidden;
}

std::vector<float> PolicyModel::Append(const std::vector<int32_t>& token_ids, int32_t position, SequenceKv& kv) {
  std::vector<int32_t> positions(token_ids.size());
  std::iota(positions.begin(), positions.end(), position);
  kv.AppendToAll(positions);
  return RunRows(token_ids, std::move(positions), kv);
}

std::vector<LogProbabilities> PolicyModel::Distributions(const std::vector<float>& hidden) {
  const size_t rows = hidden.size() / config().width;
  const size_t vocabulary = config().vocab_size;
  std::vector<float> logits(rows * vocabulary);
  backend_->Logits(static_cast<int32_t>(rows), hidden.data(), logits.data());
  std::vector<LogProbabilities> distributions;
  for (size_t row = 0; row < rows; ++row) {
    LogProbabilities& distribution =
        distributions.emplace_back(logits.begin() + static_cast<ptrdiff_t>(row * vocabulary),
                                   logits.begin() + static_cast<ptrdiff_t>((row + 1) * vocabulary));
    const double largest = *std::max_element(distribution.begin(), distribution.end());
    double sum = 0;
    for (const float logit : distribution) sum += std::exp(logit - largest);
    const double shift = largest + std::log(sum);
    for (float& logit : distribution) logit = static_cast<float>(logit - shift);
  }
  return distributions;
}

void PolicyModel::CompileChunks(const Recipe& recipe, std::vector<PromptSegment>& prompt) {
  std::vector<ChunkKvPtr> context;  // the chunks that the next one of the section sees
  for (PromptSegment& segment : prompt) {
    if (!segment.is_chunk) continue;
    if (segment.context_token_ids.empty()) context.clear();
    const Recipe own = RecipeBehind(recipe, segment.context_token_ids);
    ChunkKvPtr& compiled = compiled_[{own.prefix_tokens, segment.token_ids}];
    if (compiled == nullptr) compiled = Compile(segment.token_ids, own, context);
    segment.chunk = compiled;
    context.push_back(compiled);
  }
}

ChunkKvPtr PolicyModel::Compile(const std::vector<int32_t>& token_ids, const Recipe& recipe,
                                std::vector<ChunkKvPtr> context) {
  KvBlockInfo info;
  info.shape = backend_->kv_shape();
  info.model_fingerprint_hex = std::string(64, '0');  // blocks of this program alone
  info.token_ids = token_ids;
  info.recipe_id = recipe.id;
  info.first_position = recipe.first_position();
  ChunkCompilation compilation(info, recipe, std::move(context));
  while (compilation.remaining() > 0) {
    std::vector<int32_t> ids, positions;
    compilation.TakeRows(kPieceRows, ids, positions);
    RunRows(ids, std::move(positions), compilation.kv());
  }
  const size_t bytes = KvBlockBytes(info);
  std::shared_ptr<std::byte[]> memory = AllocateBlockMemory(bytes);
  // The block has just been made from a shape and sizes that the model gave: neither can fail.
  if (!compilation.WriteBlock({memory.get(), bytes}).ok()) std::abort();
  absl::StatusOr<KvBlockView> view = KvBlockView::Parse({memory.get(), bytes});
  if (!view.ok()) std::abort();
  return std::make_shared<ChunkKv>(*std::move(view), memory);
}

}  // namespace epic
