#include <algorithm>
#include <array>
#include <utility>

#include "core/status_macros.h"
#include "engine/text/byte_alphabet.h"
#include "engine/text/plain_encoder.h"
#include "engine/text/pre_tokenizer.h"
#include "fmt/format.h"

namespace epic {
namespace {

class ByteLevelEncoder final : public PlainEncoder {
 public:
  ByteLevelEncoder(const Vocabulary& vocabulary, PreTokenizer pre_tokenizer)
      : vocabulary_(vocabulary), pre_tokenizer_(pre_tokenizer) {}

  // To be called once, before anything else.
  absl::Status Build(const TokenizerSpec& spec);

  void Encode(std::string_view text, size_t begin, size_t end, bool with_space, WordCache& cache,
              Tokenizer::Encoding& encoding) const override;
  std::string BytesOf(int32_t id) const override { return bytes_[id]; }

 private:
  absl::Status ReadBytes();
  int32_t LowestByteId() const;
  void IndexWholePieces(bool ignore_merges);
  // The tokens of a piece by merges; none where no byte of it has a token.
  void MergePiece(std::string_view piece, std::vector<BytePairMerger::Token>& tokens) const;

  const Vocabulary& vocabulary_;
  const PreTokenizer pre_tokenizer_;
  std::vector<std::string> bytes_;       // what each token decodes to, by id
  std::array<int32_t, 256> byte_ids_{};  // the token of a single byte, or kNoToken
  BytePairMerger merger_;
  // Pieces that are a single token, which most words are; views of bytes_.
  IdsByString whole_pieces_;
};

absl::Status ByteLevelEncoder::Build(const TokenizerSpec& spec) {
  EPIC_RETURN_IF_ERROR(ReadBytes());
  merger_.KeepNear(LowestByteId());
  EPIC_RETURN_IF_ERROR(vocabulary_.AddMerges(spec.merges, Vocabulary::SpecialMerges::kRefuse, merger_));
  IndexWholePieces(spec.ignore_merges);
  return absl::OkStatus();
}

absl::Status ByteLevelEncoder::ReadBytes() {
  bytes_.reserve(vocabulary_.size());
  for (int32_t id = 0; id < vocabulary_.size(); ++id) {
    const std::string& token = vocabulary_.token(id);
    if (vocabulary_.kind(id) == TokenKind::kByte) {
      return absl::InvalidArgumentError(fmt::format(
          "token {} ({}) is of the kind \"byte\", which byte-level BPE does not have", id, ShownToken(token)));
    }
    // A normal token outside the alphabet is never the result of merges of bytes; it decodes to its written form.
    std::optional<std::string> bytes;
    if (vocabulary_.kind(id) == TokenKind::kNormal) bytes = AlphabetToBytes(token);
    bytes_.push_back(bytes ? *std::move(bytes) : token);
  }
  for (int byte = 0; byte < 256; ++byte) {
    const std::string stand_in = ByteToAlphabet(static_cast<uint8_t>(byte));
    const std::optional<int32_t> id = vocabulary_.Find(stand_in);
    byte_ids_[byte] = id && vocabulary_.kind(*id) == TokenKind::kNormal ? *id : BytePairMerger::kNoToken;
    const bool is_plain = (byte >= 0x20 && byte <= 0x7E) || byte == '\n';
    if (is_plain && byte_ids_[byte] == BytePairMerger::kNoToken) {
      return absl::InvalidArgumentError(
          fmt::format("the vocabulary has no ordinary token for the byte 0x{:02x} (written {}), so that it cannot "
                      "represent plain text",
                      byte, ShownToken(stand_in)));
    }
  }
  return absl::OkStatus();
}

int32_t ByteLevelEncoder::LowestByteId() const {
  int32_t lowest = vocabulary_.size();
  for (const int32_t id : byte_ids_) {
    if (id != BytePairMerger::kNoToken) lowest = std::min(lowest, id);
  }
  return lowest;
}

void ByteLevelEncoder::IndexWholePieces(bool ignore_merges) {
  std::vector<BytePairMerger::Token> tokens;
  for (int32_t id = 0; id < vocabulary_.size(); ++id) {
    if (vocabulary_.kind(id) != TokenKind::kNormal) continue;
    if (!ignore_merges) {
      MergePiece(bytes_[id], tokens);
      if (tokens.size() != 1 || tokens[0].id != id || tokens[0].end != bytes_[id].size()) continue;
    }
    // A token outside the alphabet is no piece of text, however it decodes.
    if (AlphabetToBytes(vocabulary_.token(id))) whole_pieces_.try_emplace(bytes_[id], id);
  }
}

void ByteLevelEncoder::MergePiece(std::string_view piece, std::vector<BytePairMerger::Token>& tokens) const {
  tokens.clear();
  for (size_t i = 0; i < piece.size(); ++i) {
    const int32_t id = byte_ids_[static_cast<uint8_t>(piece[i])];
    if (id != BytePairMerger::kNoToken) tokens.push_back({id, i + 1});
  }
  merger_.Merge(tokens);
}

void ByteLevelEncoder::Encode(std::string_view text, size_t begin, size_t end, bool /*with_space*/, WordCache& cache,
                              Tokenizer::Encoding& encoding) const {
  const std::string_view stretch = text.substr(begin, end - begin);
  std::vector<BytePairMerger::Token> merged;
  for (size_t position = 0; position < stretch.size();) {
    const size_t piece_end = NextPiece(pre_tokenizer_, stretch, position);
    const std::string_view piece = stretch.substr(position, piece_end - position);
    if (const auto whole = whole_pieces_.find(piece); whole != whole_pieces_.end()) {
      encoding.ids.push_back(whole->second);
      encoding.byte_ends.push_back(begin + piece_end);
      position = piece_end;
      continue;
    }
    WordCache::Entry* const entry = cache.PlaceOf(piece);
    std::vector<BytePairMerger::Token>& tokens = entry != nullptr ? entry->tokens : merged;
    if (entry == nullptr || entry->word != piece) {
      MergePiece(piece, tokens);
      if (entry != nullptr) entry->word = piece;
    }
    for (const BytePairMerger::Token& token : tokens) {
      encoding.ids.push_back(token.id);
      encoding.byte_ends.push_back(begin + position + token.end);
    }
    position = piece_end;
  }
}

}  // namespace

absl::StatusOr<std::unique_ptr<PlainEncoder>> MakeByteLevelEncoder(const TokenizerSpec& spec,
                                                                   const Vocabulary& vocabulary) {
  const std::optional<PreTokenizer> pre_tokenizer = PreTokenizerByName(spec.pre_tokenizer);
  if (!pre_tokenizer) {
    return absl::UnimplementedError(fmt::format("the pre-tokenizer is {}; {} are run", ShownToken(spec.pre_tokenizer),
                                                std::string(kPreTokenizerNames)));
  }
  auto encoder = std::make_unique<ByteLevelEncoder>(vocabulary, *pre_tokenizer);
  EPIC_RETURN_IF_ERROR(encoder->Build(spec));
  return encoder;
}

}  // namespace epic
