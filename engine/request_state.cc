#include "engine/request_state.h"

#include <algorithm>
#include <numeric>
#include <string>
#include <utility>

#include "core/status_macros.h"

namespace epic {
namespace {

int64_t MicrosecondsBetween(SteadyTime begin, SteadyTime end) {
  return std::chrono::duration_cast<std::chrono::microseconds>(end - begin).count();
}

int32_t CountTokens(const std::vector<PromptSegment>& prompt, bool chunks_only) {
  int32_t count = 0;
  for (const PromptSegment& segment : prompt) {
    if (!chunks_only || segment.is_chunk) count += static_cast<int32_t>(segment.token_ids.size());
  }
  return count;
}

std::vector<std::pair<int32_t, float>> MostLikely(std::span<const float> logits, int32_t count) {
  std::vector<int32_t> order(logits.size());
  std::iota(order.begin(), order.end(), 0);
  const size_t kept = std::min<size_t>(count, order.size());
  std::partial_sort(order.begin(), order.begin() + static_cast<ptrdiff_t>(kept), order.end(),
                    [&](int32_t a, int32_t b) { return logits[a] != logits[b] ? logits[a] > logits[b] : a < b; });
  std::vector<std::pair<int32_t, float>> top;
  if (kept == 0) return top;
  // One normalisation for all of them.
  const double shift = LogProbability(logits, order[0]) - static_cast<double>(logits[order[0]]);
  for (size_t i = 0; i < kept; ++i) top.emplace_back(order[i], static_cast<float>(logits[order[i]] + shift));
  return top;
}

}  // namespace

RequestState::RequestState(const RequestEnvironment& environment, GenerationRequest request, const Recipe& recipe,
                           SteadyTime now)
    : environment_(environment),
      request_(std::move(request)),
      recipe_(recipe),
      plan_(PlanLink(request_.prompt, request_.linker, recipe_)),
      sampler_(request_.sampling),
      decoder_(environment.tokenizer, request_.continues_text),
      stops_(request_.stop_strings),
      submitted_(now) {
  stats_.prompt_tokens = CountTokens(request_.prompt, false);
  stats_.cached_tokens = CountTokens(request_.prompt, true);
  ComputeReservation();
  if (KeepsRows()) row_ids_ = RowIdsOf(request_.prompt, plan_, recipe_);
}

// `full` is the reference and runs everything. The rows of CacheBlend depend on which others were chosen, and differ
// from layer to layer; those of random depend on the whole prompt; naive-last has one.
bool RequestState::KeepsRows() const {
  const LinkerKind kind = request_.linker.kind;
  return request_.reuses_rows &&
         (kind == LinkerKind::kPrefix || kind == LinkerKind::kNaive || kind == LinkerKind::kLegoLink);
}

void RequestState::ComputeReservation() {
  const KvShape shape = environment_.backend.kv_shape();
  const ModelConfig& config = environment_.backend.config();
  const int32_t wanted =
      request_.continuation.empty() ? request_.max_output_tokens : static_cast<int32_t>(request_.continuation.size());
  const int64_t output = std::min(wanted, config.context_length - stats_.prompt_tokens);
  const auto pages = [&](int64_t rows, int32_t begin, int32_t end) {
    return static_cast<size_t>((rows + kPageTokens - 1) / kPageTokens) * KvPage::Bytes(shape, begin, end);
  };
  int64_t rows = static_cast<int64_t>(plan_.positions.size());
  int32_t first_layer = 0;
  if (request_.linker.kind == LinkerKind::kCacheBlend) {
    first_layer = std::min(kCacheBlendFullLayers, shape.layers);
    reserved_bytes_ = pages(stats_.prompt_tokens + output, 0, first_layer) +
                      static_cast<size_t>(stats_.prompt_tokens) * config.width * sizeof(float);
    rows += static_cast<int64_t>(ChosenCount(request_.prompt, request_.linker.percent)) + 1;
  }
  reserved_bytes_ += pages(std::min<int64_t>(rows, stats_.prompt_tokens) + output, first_layer, shape.layers);
  size_t largest_compilation = 0;
  for (const int32_t segment : plan_.compile_alone) {
    const auto tokens = static_cast<int32_t>(request_.prompt[segment].token_ids.size());
    reserved_bytes_ += KvBlockBytes(shape, tokens);
    largest_compilation =
        std::max(largest_compilation, pages(tokens + environment_.plain.first_position(), 0, shape.layers));
  }
  reserved_bytes_ += largest_compilation;
}

int64_t RequestState::remaining_rows_of_stage() const {
  if (stage_ == Stage::kCompilingFresh) return fresh_->remaining();
  return stage_ == Stage::kLinking ? link_->remaining_rows() : 0;
}

int64_t RequestState::remaining_rows() const {
  if (stage_ == Stage::kDecoding || stage_ == Stage::kDone) return 0;
  if (stage_ == Stage::kLinking) return link_->remaining_rows();
  int64_t rows = static_cast<int64_t>(plan_.positions.size());
  for (size_t i = next_fresh_; i < plan_.compile_alone.size(); ++i) {
    const auto tokens = static_cast<int64_t>(request_.prompt[plan_.compile_alone[i]].token_ids.size());
    rows += i == next_fresh_ && fresh_.has_value() ? fresh_->remaining() : tokens;
  }
  return rows;
}

RowCache::Match RequestState::FindRows(RowCache& cache) const {
  if (row_ids_.empty()) return {};
  return cache.Lookup(request_.cache_salt, std::span(row_ids_).first(row_ids_.size() - 1));
}

void RequestState::Admit(RowCache::Match match, SteadyTime now) {
  admitted_ = now;
  stats_.queue_us = MicrosecondsBetween(submitted_, now);
  match_ = std::move(match);
  stats_.prefix_hit_tokens = match_.rows;
  const KvShape shape = environment_.backend.kv_shape();
  reserved_bytes_ -= match_.whole_pages() * KvPage::Bytes(shape, 0, shape.layers);
  if (match_.rows % kPageTokens != 0) match_.pages.back() = std::make_shared<KvPage>(*match_.pages.back());
  link_started_ = now;
  if (plan_.compile_alone.empty()) {
    StartLink();
  } else {
    stage_ = Stage::kCompilingFresh;
    StartNextFresh();
  }
}

void RequestState::StartLink() {
  stage_ = Stage::kLinking;
  link_ = std::make_unique<LinkJob>(environment_.backend, request_.prompt, request_.linker, plan_,
                                    LinkJob::Options{0, match_.rows, std::move(match_.pages)});
}

// naive-last: a fresh span compiled alone, at local positions, by the same rule as a chunk.
void RequestState::StartNextFresh() {
  const int32_t segment = plan_.compile_alone[next_fresh_];
  KvBlockInfo info;
  info.shape = environment_.backend.kv_shape();
  info.model_fingerprint_hex = environment_.fingerprint_hex;
  info.token_ids = request_.prompt[segment].token_ids;
  Recipe recipe = environment_.plain;
  if (segment == 0) recipe.prefix_tokens.clear();  // it begins the prompt, with the model's BOS where it has one
  fresh_.emplace(info, recipe, std::vector<ChunkKvPtr>{});
}

absl::Status RequestState::FinishFresh() {
  const int32_t segment = plan_.compile_alone[next_fresh_];
  const size_t bytes =
      KvBlockBytes(environment_.backend.kv_shape(), static_cast<int32_t>(request_.prompt[segment].token_ids.size()));
  std::shared_ptr<std::byte[]> memory = AllocateBlockMemory(bytes);
  EPIC_RETURN_IF_ERROR(fresh_->WriteBlock({memory.get(), bytes}).status());
  EPIC_ASSIGN_OR_RETURN(KvBlockView view, KvBlockView::Parse({memory.get(), bytes}));
  request_.prompt[segment].chunk = std::make_shared<ChunkKv>(std::move(view), memory);
  fresh_.reset();
  ++next_fresh_;
  return absl::OkStatus();
}

int32_t RequestState::TakeRows(int32_t rows_max, std::vector<int32_t>& token_ids, std::vector<int32_t>& positions,
                               SequenceKv** kv) {
  switch (stage_) {
    case Stage::kCompilingFresh:
      *kv = &fresh_->kv();
      return fresh_->TakeRows(rows_max, token_ids, positions);
    case Stage::kLinking:
      if (link_->NeedsOwnPass()) return 0;
      *kv = &link_->kv();
      return link_->TakeRows(rows_max, token_ids, positions);
    case Stage::kDecoding:
      *kv = &link_->kv();
      link_->kv().AppendToAll({{next_position_}});
      if (!row_ids_.empty()) row_ids_.push_back({0, 0, next_position_, next_token_});
      token_ids.push_back(next_token_);
      positions.push_back(next_position_);
      ++next_position_;
      return 1;
    default:
      return 0;
  }
}

bool RequestState::FinishRows(const float* hidden, int32_t rows, SteadyTime now) {
  const float* last = hidden + static_cast<size_t>(rows - 1) * environment_.backend.config().width;
  switch (stage_) {
    case Stage::kCompilingFresh:
      if (fresh_->remaining() > 0) return false;
      if (const absl::Status status = FinishFresh(); !status.ok()) {
        Finish(status, FinishReason::kStop);
      } else if (next_fresh_ < plan_.compile_alone.size()) {
        StartNextFresh();
      } else {
        stats_.compile_us = MicrosecondsBetween(link_started_, now);
        link_started_ = now;
        StartLink();
      }
      return false;
    case Stage::kLinking:
      link_->FinishRows(last);
      if (!link_->Done()) return false;
      Linked(now);
      return true;
    case Stage::kDecoding:
      return true;
    default:
      return false;
  }
}

bool RequestState::RunOwnPass(int32_t rows_max, int32_t* rows_run, SteadyTime* finished) {
  *rows_run = link_->RunOwnPass(rows_max);
  *finished = std::chrono::steady_clock::now();
  if (!link_->Done()) return false;
  Linked(*finished);
  return true;
}

void RequestState::Linked(SteadyTime now) {
  stage_ = Stage::kDecoding;
  linked_ = now;
  next_position_ = stats_.prompt_tokens;
  stats_.link_us = MicrosecondsBetween(link_started_, now);
  stats_.selected_tokens = static_cast<int32_t>(link_->selected().size());
  stats_.recomputed_tokens = link_->recomputed_rows();
  stats_.recomputed_per_segment.assign(request_.prompt.size(), 0);
  const std::vector<int32_t> offsets = SegmentOffsets(request_.prompt);
  for (const int32_t position : link_->selected()) {
    const auto segment = std::upper_bound(offsets.begin(), offsets.end(), position) - offsets.begin() - 1;
    ++stats_.recomputed_per_segment[segment];
  }
  if (request_.record_selection) stats_.selected_positions = link_->selected();
}

void RequestState::EmitToken(int32_t id, std::span<const float> logits, const std::string& text) {
  GeneratedToken token;
  token.id = id;
  token.text = text;
  if (request_.logprobs || request_.top_logprobs > 0 || !request_.continuation.empty()) {
    token.logprob = static_cast<float>(LogProbability(logits, id));
  }
  if (request_.top_logprobs > 0) token.top = MostLikely(logits, request_.top_logprobs);
  ++stats_.completion_tokens;
  generated_.push_back(id);
  if (request_.on_token) request_.on_token(token);
}

void RequestState::AcceptLogits(std::span<const float> logits, SteadyTime now) {
  const bool is_first = generated_.empty();
  if (is_first && request_.first_token_candidates > 0) {
    request_.on_first_token_candidates(MostLikely(logits, request_.first_token_candidates));
  }
  if (!request_.continuation.empty()) {
    next_token_ = request_.continuation[generated_.size()];
    EmitToken(next_token_, logits, decoder_.Push(next_token_));
    if (is_first) stats_.first_token_us = MicrosecondsBetween(linked_, std::chrono::steady_clock::now());
    if (generated_.size() == request_.continuation.size()) Finish(absl::OkStatus(), FinishReason::kScored);
    return;
  }
  next_token_ = sampler_.Sample(logits);
  if (is_first) stats_.first_token_us = MicrosecondsBetween(linked_, std::max(now, std::chrono::steady_clock::now()));
  if (!request_.ignore_end_of_turn &&
      std::ranges::find(environment_.stop_tokens, next_token_) != environment_.stop_tokens.end()) {
    Finish(absl::OkStatus(), FinishReason::kStop);
    return;
  }
  const StopMatcher::Result shown = stops_.Push(decoder_.Push(next_token_));
  EmitToken(next_token_, logits, shown.text);
  if (shown.stopped) {
    Finish(absl::OkStatus(), FinishReason::kStop);
  } else if (stats_.completion_tokens >= request_.max_output_tokens ||
             next_position_ >= environment_.backend.config().context_length) {
    Finish(absl::OkStatus(), FinishReason::kLength);
  }
}

void RequestState::Finish(const absl::Status& status, FinishReason reason) {
  if (stage_ == Stage::kDone) return;
  stage_ = Stage::kDone;
  if (status.ok() && reason != FinishReason::kScored) {
    // Text that was held back because it could have become a stop string, or a longer character.
    std::string rest = stops_.Push(decoder_.Finish()).text;
    rest += stops_.Finish();
    if (!rest.empty() && request_.on_token) request_.on_token(GeneratedToken{GeneratedToken::kNoToken, rest, 0, {}});
  }
  end_status_ = status;
  end_reason_ = reason;
}

size_t RequestState::PublishRows(RowCache& cache, RowCache::LastPage last_page) {
  if (row_ids_.empty() || link_ == nullptr) return 0;
  const PrivateRows& rows = link_->kv().plans.front().rows;
  const int32_t taken = cache.Publish(request_.cache_salt, std::span(row_ids_).first(static_cast<size_t>(rows.size())),
                                      rows.pages(), last_page);
  const size_t bytes = taken * cache.page_bytes();
  reserved_bytes_ -= bytes;
  return bytes;
}

void RequestState::Release() {
  link_.reset();  // before the prompt, of which it has a view
  fresh_.reset();
  match_ = {};
  request_.prompt = {};
  row_ids_ = {};
  plan_ = {};
}

void RequestState::Report() {
  if (request_.on_done) request_.on_done(end_status_, end_reason_, stats_);
  // What they hold may hold the handle.
  request_.on_done = nullptr;
  request_.on_token = nullptr;
}

}  // namespace epic
