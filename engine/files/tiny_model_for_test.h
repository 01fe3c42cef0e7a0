// A tiny llama model for tests, written as GGUF or as a safetensors folder, with every byte open to alteration.
//
// GgufBuilder and SafetensorsBuilder write any container, valid or not: a test takes a valid one and spoils it. The
// tiny model has two layers, grouped queries, an explicit output matrix and random weights from a fixed seed; the same
// weights go into both formats, queries and keys in each format's own order of rotation pairs. Test code only; not
// thread-safe.
#ifndef EPIC_ENGINE_FILES_TINY_MODEL_FOR_TEST_H_
#define EPIC_ENGINE_FILES_TINY_MODEL_FOR_TEST_H_

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "engine/files/gguf.h"
#include "engine/files/model_config.h"
#include "engine/text/tokenizer_spec.h"
#include "nlohmann/json.hpp"

namespace epic {

struct GgufBuilder {
  struct Key {
    std::string name;
    uint32_t type = 0;
    std::string payload;  // as stored after the type
  };
  struct Tensor {
    std::string name;
    std::vector<uint64_t> dimensions;  // fastest first, as stored
    uint32_t type = 0;
    std::string bytes;
    bool has_offset = false;  // otherwise the builder places it
    uint64_t offset = 0;
  };

  uint32_t version = 3;
  uint64_t alignment = 32;
  std::vector<Key> keys;
  std::vector<Tensor> tensors;
  int64_t key_count_change = 0;  // added to the counts in the header, to make them wrong
  int64_t tensor_count_change = 0;

  // Each replaces a key of the same name.
  void SetString(const std::string& name, const std::string& value);
  void SetUint32(const std::string& name, uint32_t value);
  void SetFloat(const std::string& name, float value);
  void SetBool(const std::string& name, bool value);
  void SetStrings(const std::string& name, const std::vector<std::string>& values);
  void SetInt32s(const std::string& name, const std::vector<int32_t>& values);
  void Set(const std::string& name, GgufValueType type, const std::string& payload);
  void Remove(const std::string& name);
  Tensor& TensorNamed(const std::string& name);
  void RemoveTensor(const std::string& name);

  // The file. `header_bytes`, if given, receives where the tensor data begins.
  std::string Build(size_t* header_bytes = nullptr) const;
};

struct SafetensorsBuilder {
  struct Tensor {
    std::string name;
    std::string dtype;
    std::vector<int64_t> shape;
    std::string bytes;
  };
  std::vector<Tensor> tensors;

  Tensor& TensorNamed(const std::string& name);
  nlohmann::json Header() const;
  // The file with the header that Header() makes, or with another one.
  std::string Build() const { return BuildWithHeader(Header().dump()); }
  std::string BuildWithHeader(const std::string& header) const;
};

struct TinyModel {
  ModelConfig config;
  TokenizerSpec tokenizer;
  // By canonical name, row-major, queries and keys in half-split order.
  std::map<std::string, std::vector<float>> weights;
  std::map<std::string, std::vector<int64_t>> shapes;

  GgufBuilder Gguf() const;
  SafetensorsBuilder Safetensors() const;
  nlohmann::json ConfigJson() const;
  nlohmann::json TokenizerJson() const;
  nlohmann::json TokenizerConfigJson() const;
  // All four files into `folder`, which is made.
  void WriteFolder(const std::string& folder) const;
};

TinyModel MakeTinyModel();

// Appends a number as it lies in memory.
template <typename Value>
void AppendRaw(Value value, std::string& out) {
  out.append(reinterpret_cast<const char*>(&value), sizeof(value));
}
std::string GgufString(const std::string& text);

void WriteFile(const std::string& path, const std::string& bytes);
std::string ReadFile(const std::string& path);
// A new empty folder under the test's temporary folder.
std::string FreshFolder(const std::string& name);

}  // namespace epic

#endif  // EPIC_ENGINE_FILES_TINY_MODEL_FOR_TEST_H_
