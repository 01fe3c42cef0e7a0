// A cursor over the bytes of a GGUF file that cannot leave them. Used by gguf.cc alone.
//
// Every read names what it reads, so that the error for a file that ends too early says where and at what. After an
// error the cursor is of no further use. Not thread-safe; views the bytes, which must outlive it.
#ifndef EPIC_ENGINE_FILES_GGUF_READER_H_
#define EPIC_ENGINE_FILES_GGUF_READER_H_

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>

#include "absl/status/statusor.h"
#include "core/status_macros.h"
#include "engine/files/file_error.h"

namespace epic {

class GgufReader {
 public:
  GgufReader(std::span<const std::byte> bytes, const std::string& path) : bytes_(bytes), path_(path) {}

  size_t position() const { return position_; }
  size_t remaining() const { return bytes_.size() - position_; }
  const std::string& path() const { return path_; }

  // The next `count` bytes as they lie in the file. `what` names them in the error.
  absl::StatusOr<std::span<const std::byte>> Bytes(uint64_t count, std::string_view what) {
    if (count > remaining()) {
      return BrokenFile(path_,
                        "at byte {}: expected {} bytes for {}, but the file ends after {}; it is cut short or corrupt",
                        position_, count, what, remaining());
    }
    const std::span<const std::byte> result = bytes_.subspan(position_, count);
    position_ += count;
    return result;
  }

  template <typename Value>
  absl::StatusOr<Value> Scalar(std::string_view what) {
    static_assert(std::is_arithmetic_v<Value> && !std::is_same_v<Value, bool>);
    EPIC_ASSIGN_OR_RETURN(const std::span<const std::byte> raw, Bytes(sizeof(Value), what));
    Value value;
    std::memcpy(&value, raw.data(), sizeof(Value));
    return value;
  }

  absl::StatusOr<std::string_view> String(uint64_t bytes_max, std::string_view what) {
    EPIC_ASSIGN_OR_RETURN(const uint64_t length, Scalar<uint64_t>(what));
    if (length > bytes_max) {
      return BrokenFile(path_, "at byte {}: {} has {} bytes, at most {} are allowed", position_, what, length,
                        bytes_max);
    }
    EPIC_ASSIGN_OR_RETURN(const std::span<const std::byte> raw, Bytes(length, what));
    return std::string_view(reinterpret_cast<const char*>(raw.data()), raw.size());
  }

 private:
  std::span<const std::byte> bytes_;
  std::string path_;
  size_t position_ = 0;
};

}  // namespace epic

#endif  // EPIC_ENGINE_FILES_GGUF_READER_H_
