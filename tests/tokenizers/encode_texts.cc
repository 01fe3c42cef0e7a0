// Encodes and decodes texts with the tokenizer of a model file, for comparison with the reference (compare_test.py).
//
//   encode_texts MODEL TEXTS RESULTS [--specials]
//
// MODEL is a folder with tokenizer.json or a GGUF file; no weights are needed. TEXTS holds texts, each a 32-bit length
// and its bytes. RESULTS gets for each: the number of ids and the ids, then the length of what they decode to and the
// bytes; or -1, and the length of the error message and the message. All numbers are 32-bit and in the machine's order.
// --specials: control tokens are recognised in the texts.
//
// Beside that it checks on every text what only this side can see: that tokens cover the text in order, and that a
// stream of single tokens decodes to the same. The exit code is not 0 where that fails.
#include <cstdint>
#include <cstdio>
#include <fstream>
#include <iterator>
#include <memory>
#include <string>
#include <vector>

#include "core/utf8.h"
#include "engine/files/gguf.h"
#include "engine/files/gguf_model.h"
#include "engine/files/loaded_model.h"
#include "engine/files/mapped_file.h"
#include "engine/files/tokenizer_json.h"
#include "engine/text/tokenizer.h"

namespace epic {
namespace {

absl::StatusOr<TokenizerSpec> ReadSpec(const std::string& model) {
  if (!model.ends_with(".gguf")) return TokenizerFromFolder(model, kVocabularyMax, {});
  absl::StatusOr<MappedFile> file = MappedFile::Open(model);
  if (!file.ok()) return file.status();
  const absl::StatusOr<GgufFile> gguf = ParseGguf(file->bytes(), model);
  if (!gguf.ok()) return gguf.status();
  return TokenizerFromGguf(*gguf);
}

void Append(int32_t value, std::string& out) { out.append(reinterpret_cast<const char*>(&value), sizeof value); }

void Append(const std::string& text, std::string& out) {
  Append(static_cast<int32_t>(text.size()), out);
  out += text;
}

// An empty string where all is well.
std::string Complaint(const Tokenizer& tokenizer, const std::string& text, const std::vector<int32_t>& ids) {
  const absl::StatusOr<Tokenizer::Encoding> encoding = tokenizer.EncodeText(text);
  if (!encoding.ok()) return std::string(encoding.status().message());
  if (encoding->byte_ends.size() != encoding->ids.size()) return "not every token has an end";
  size_t end = 0;
  for (const size_t byte_end : encoding->byte_ends) {
    if (byte_end < end) return "the tokens' ends do not ascend";
    end = byte_end;
  }
  if (end != text.size() && !encoding->ids.empty()) return "the tokens do not cover the text";
  const std::string decoded = tokenizer.Decode(ids);
  if (FindInvalidUtf8(decoded)) return "";  // a vocabulary that lacks bytes
  StreamDecoder decoder(tokenizer);
  std::string streamed;
  for (const int32_t id : ids) streamed += decoder.Push(id);
  streamed += decoder.Finish();
  return streamed == decoded ? "" : "a stream decodes to something else";
}

int Run(const std::string& model, const std::string& texts_path, const std::string& results_path, bool specials) {
  const absl::StatusOr<TokenizerSpec> spec = ReadSpec(model);
  const absl::StatusOr<std::unique_ptr<Tokenizer>> tokenizer =
      spec.ok() ? Tokenizer::Create(*spec) : absl::StatusOr<std::unique_ptr<Tokenizer>>(spec.status());
  if (!tokenizer.ok()) {
    std::fprintf(stderr, "%s: %s\n", model.c_str(), tokenizer.status().ToString().c_str());
    return 1;
  }
  std::ifstream file(texts_path, std::ios::binary);
  std::string results;
  int complaints = 0;
  for (int32_t length = 0; file.read(reinterpret_cast<char*>(&length), sizeof length);) {
    std::string text(static_cast<size_t>(length), '\0');
    file.read(text.data(), length);
    const TextPiece piece = {text, specials};
    const absl::StatusOr<std::vector<int32_t>> ids = (*tokenizer)->EncodePieces({&piece, 1}, true);
    if (!ids.ok()) {
      Append(-1, results);
      Append(std::string(ids.status().message()), results);
      continue;
    }
    Append(static_cast<int32_t>(ids->size()), results);
    for (const int32_t id : *ids) Append(id, results);
    Append((*tokenizer)->Decode(*ids), results);
    const std::string complaint = Complaint(**tokenizer, text, *ids);
    if (!complaint.empty() && ++complaints <= 5) std::fprintf(stderr, "%s: %s\n", complaint.c_str(), text.c_str());
  }
  std::ofstream(results_path, std::ios::binary) << results;
  return complaints > 0 ? 1 : 0;
}

}  // namespace
}  // namespace epic

int main(int argc, char** argv) {
  const std::vector<std::string> arguments(argv + 1, argv + argc);
  const bool specials = arguments.size() == 4 && arguments[3] == "--specials";
  if (arguments.size() != 3 && !specials) {
    std::fprintf(stderr, "usage: encode_texts MODEL TEXTS RESULTS [--specials]\n");
    return 2;
  }
  return epic::Run(arguments[0], arguments[1], arguments[2], specials);
}
