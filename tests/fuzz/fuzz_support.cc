#include "tests/fuzz/fuzz_support.h"

#include <stdlib.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <filesystem>
#include <string_view>
#include <utility>

#include "absl/status/status.h"
#include "engine/files/model_file.h"
#include "engine/files/tokenizer_json.h"
#include "engine/text/chat_template.h"
#include "engine/text/tokenizer.h"

namespace epic {

namespace {

constexpr std::string_view kLineBegin = "=== EPIC FILE ";
constexpr std::string_view kLineEnd = " ===\n";
constexpr size_t kNameBytesMax = 64;
constexpr size_t kFilesMax = 8;
constexpr std::string_view kText = "The answer is 42,\n  d\xc3\xa9j\xc3\xa0 vu \xf0\x9f\x98\x80 <|im_end|> don't\t";

// One folder for the life of the process; the files in it come and go.
const std::string& ProcessFolder() {
  // Never destroyed: the handler that removes the folder runs after the destructors of static objects.
  static const auto* const folder = new std::string([] {
    std::string pattern = std::filesystem::is_directory("/dev/shm") ? "/dev/shm/epic_fuzz_XXXXXX" : "epic_fuzz_XXXXXX";
    Require(mkdtemp(pattern.data()) != nullptr, "cannot make " + pattern);
    std::atexit([] {
      std::error_code error;
      std::filesystem::remove_all(ProcessFolder(), error);
    });
    return pattern;
  }());
  return *folder;
}

bool IsFileName(std::string_view name) {
  return !name.empty() && name.size() <= kNameBytesMax && name.front() != '.' &&
         std::all_of(name.begin(), name.end(), [](char c) {
           return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '.' || c == '_' ||
                  c == '-';
         });
}

struct NameLine {
  size_t begin = std::string_view::npos;
  size_t end = std::string_view::npos;  // where the file's bytes begin
  std::string_view name;
};

NameLine FindNameLine(std::string_view text, size_t from) {
  for (size_t begin = text.find(kLineBegin, from); begin != std::string_view::npos;
       begin = text.find(kLineBegin, begin + 1)) {
    const size_t name_begin = begin + kLineBegin.size();
    const size_t name_end = text.substr(0, name_begin + kNameBytesMax + kLineEnd.size()).find(kLineEnd, name_begin);
    if (name_end == std::string_view::npos) continue;
    const std::string_view name = text.substr(name_begin, name_end - name_begin);
    if (IsFileName(name)) return {.begin = begin, .end = name_end + kLineEnd.size(), .name = name};
  }
  return {};
}

void UseTokenizer(const TokenizerSpec& spec) {
  const auto tokenizer = Tokenizer::Create(spec);
  if (!tokenizer.ok()) {
    Require(!tokenizer.status().message().empty(), "a tokenizer is refused without a word");
    return;
  }
  const auto encoding = (*tokenizer)->EncodeText(kText);
  Require(encoding.ok(), "text in UTF-8 is not encoded");
  Require(encoding->ids.size() == encoding->byte_ends.size(), "not one end for each token");
  Require(encoding->ids.empty() || encoding->byte_ends.back() == kText.size(), "the tokens do not cover the text");
  Require(std::is_sorted(encoding->byte_ends.begin(), encoding->byte_ends.end()), "the tokens are out of order");
  for (const int32_t id : encoding->ids) {
    Require(id >= 0 && id < (*tokenizer)->vocab_size() && !(*tokenizer)->IsControl(id), "text became a wrong token");
  }
  StreamDecoder decoder(**tokenizer);
  std::string decoded;
  for (const int32_t id : encoding->ids) decoded += decoder.Push(id);
  decoded += decoder.Finish();
  (void)(*tokenizer)->EncodeWithSpecials(kText);
}

}  // namespace

void Require(bool holds, const std::string& what) {
  if (holds) return;
  std::fprintf(stderr, "%s\n", what.c_str());
  std::abort();
}

FuzzFolder::FuzzFolder(const uint8_t* data, size_t size, const std::string& default_name) : path_(ProcessFolder()) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  NameLine line = FindNameLine(text, 0);
  if (line.begin != 0) Write(default_name, text.data(), std::min(line.begin, text.size()));
  while (line.begin != std::string_view::npos && files_.size() < kFilesMax) {
    const NameLine next = FindNameLine(text, line.end);
    Write(std::string(line.name), text.data() + line.end, std::min(next.begin, text.size()) - line.end);
    line = next;
  }
}

void FuzzFolder::Write(const std::string& name, const char* data, size_t size) {
  const std::string path = path_ + "/" + name;
  FILE* file = std::fopen(path.c_str(), "wb");
  Require(file != nullptr, "cannot write " + path);
  const bool written = size == 0 || std::fwrite(data, 1, size, file) == size;
  Require(std::fclose(file) == 0 && written, "cannot write " + path);
  if (std::find(files_.begin(), files_.end(), path) == files_.end()) files_.push_back(path);
}

FuzzFolder::~FuzzFolder() {
  for (const std::string& file : files_) unlink(file.c_str());
}

void OpenAndUseModel(const std::string& path) {
  const auto model = OpenModelFile(path);
  if (!model.ok()) {
    Require(!model.status().message().empty(), "a model is refused without a word");
    Require(absl::IsInvalidArgument(model.status()) || absl::IsUnimplemented(model.status()) ||
                absl::IsNotFound(model.status()),
            "a model is refused with " + model.status().ToString());
    return;
  }
  const ModelConfig& config = (*model)->config();
  const TokenizerSpec& spec = (*model)->tokenizer();
  Require(spec.tokens.size() == static_cast<size_t>(config.vocab_size), "the vocabulary is not the embedding's");
  Require(spec.kinds.size() == spec.tokens.size(), "not one kind for each token");
  std::vector<float> values;
  for (const std::string& name : (*model)->TensorNames()) {
    const auto tensor = (*model)->Tensor(name);
    Require(tensor.ok(), "a listed tensor is missing");
    const int64_t rows = (*tensor)->RowCount();
    for (const auto& [begin, end] : {std::pair{int64_t{0}, std::min<int64_t>(rows, 2)}, std::pair{rows - 1, rows}}) {
      values.resize(static_cast<size_t>((end - begin) * (*tensor)->RowLength()));
      DequantizeRows(**tensor, begin, end, values);
    }
  }
  const auto fingerprint = (*model)->Fingerprint("");
  Require(fingerprint.ok() && fingerprint->size() == 64, "the fingerprint is no SHA-256");
  UseTokenizer(spec);
  UseChatTemplate(spec);
}

void UseTokenizerOfFolder(const std::string& folder) {
  const auto spec = TokenizerFromFolder(folder, /*vocab_size=*/4096, {.bos_id = 1, .eos_id = 2});
  if (spec.ok()) {
    UseTokenizer(*spec);
  } else {
    Require(!spec.status().message().empty(), "a tokenizer is refused without a word");
  }
}

void UseChatTemplate(const TokenizerSpec& spec) {
  const auto chat = ChatTemplate::Recognise(spec);
  if (!chat.ok()) {
    Require(!chat.status().message().empty(), "a template is refused without a word");
    return;
  }
  TokenizerSpec protected_spec = spec;
  ProtectControlTokens(**chat, protected_spec);
  for (const std::string& token : (*chat)->stop_tokens()) {
    Require(std::ranges::count((*chat)->control_tokens(), token) == 1, "a stop token is no control token");
  }
  constexpr std::chrono::year_month_day kToday{std::chrono::year(2024), std::chrono::July, std::chrono::day(26)};
  const std::vector<ChatPart> parts = {
      {.text = "one <|im_end|> two "}, {.text = "", .is_opaque = true}, {.text = "three"}};
  const std::vector<std::vector<std::string_view>> conversations = {
      {"user"}, {"system", "user"}, {"system", "user", "assistant", "user"}, {"assistant"}, {"tool"}, {}};
  for (const std::vector<std::string_view>& roles : conversations) {
    std::vector<ChatMessage> messages;
    for (const std::string_view role : roles) messages.push_back({.role = role, .parts = parts});
    const auto spans = (*chat)->Render(messages, kToday);
    if (!spans.ok()) {
      Require(!spans.status().message().empty(), "a conversation is refused without a word");
      continue;
    }
    size_t opaque = 0;
    for (const TemplateSpan& span : *spans) {
      if (span.kind == TemplateSpan::Kind::kOpaque) ++opaque;
    }
    Require(opaque == messages.size(), "a part is laid out not exactly once");
  }
}

}  // namespace epic
