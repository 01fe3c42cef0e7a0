// Reading and writing little-endian integers and length-prefixed strings in byte strings.
//
// ByteWriter appends to a string. ByteReader walks over bytes that may be hostile: a read past the end returns zeros or
// an empty view and makes ok() false for good, so that a caller may read a whole record and ask once at the end. A
// reader's views point into its input. Both are thread-compatible. x86-64 only, as EPIC is: a byte order is a memcpy.
#ifndef EPIC_CORE_BYTE_CODEC_H_
#define EPIC_CORE_BYTE_CODEC_H_

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

namespace epic {

class ByteWriter {
 public:
  template <typename Integer>
  void Put(Integer value) {
    static_assert(std::is_integral_v<Integer>);
    bytes_.append(reinterpret_cast<const char*>(&value), sizeof(value));
  }
  void PutRaw(std::string_view bytes) { bytes_.append(bytes); }
  // REQUIRES: shorter than 4 GiB, here and in PutIntegers.
  void PutString(std::string_view bytes) {
    Put(static_cast<uint32_t>(bytes.size()));
    PutRaw(bytes);
  }
  void PutIntegers(std::span<const int32_t> values) {
    Put(static_cast<uint32_t>(values.size()));
    PutRaw({reinterpret_cast<const char*>(values.data()), values.size_bytes()});
  }
  void PadTo(size_t bytes) { bytes_.resize(bytes, '\0'); }

  size_t size() const { return bytes_.size(); }
  const std::string& bytes() const { return bytes_; }
  std::string Take() && { return std::move(bytes_); }

 private:
  std::string bytes_;
};

class ByteReader {
 public:
  explicit ByteReader(std::string_view bytes) : rest_(bytes) {}

  template <typename Integer>
  Integer Get() {
    static_assert(std::is_integral_v<Integer>);
    const std::string_view raw = GetRaw(sizeof(Integer));
    Integer value = 0;
    if (!raw.empty()) std::memcpy(&value, raw.data(), sizeof(value));
    return value;
  }
  std::string_view GetRaw(size_t bytes) {
    if (bytes > rest_.size()) {
      ok_ = false;
      rest_ = {};
      return {};
    }
    const std::string_view raw = rest_.substr(0, bytes);
    rest_.remove_prefix(bytes);
    return raw;
  }
  std::string_view GetString() { return GetRaw(Get<uint32_t>()); }
  std::vector<int32_t> GetIntegers() { return GetIntegers(Get<uint32_t>()); }
  // The size is checked against what is left before anything is allocated.
  std::vector<int32_t> GetIntegers(size_t count) {
    const std::string_view raw = GetRaw(count * sizeof(int32_t));
    std::vector<int32_t> values(raw.size() / sizeof(int32_t));
    if (!values.empty()) std::memcpy(values.data(), raw.data(), raw.size());
    return values;
  }

  bool ok() const { return ok_; }
  size_t remaining() const { return rest_.size(); }

 private:
  std::string_view rest_;
  bool ok_ = true;
};

}  // namespace epic

#endif  // EPIC_CORE_BYTE_CODEC_H_
