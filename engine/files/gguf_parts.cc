#include "engine/files/gguf_parts.h"

#include <charconv>
#include <filesystem>
#include <optional>
#include <set>
#include <utility>

#include "core/status_macros.h"
#include "engine/files/file_error.h"

namespace epic {

namespace {

constexpr size_t kDigits = 5;

// What a file says of itself; a file without split.count is a whole model.
struct Place {
  uint64_t number = 0;  // from 0
  uint64_t count = 1;
  std::optional<uint64_t> tensors;  // of the whole model
};

absl::StatusOr<Place> PlaceOf(const GgufFile& file) {
  EPIC_ASSIGN_OR_RETURN(const std::optional<uint64_t> count, file.Unsigned("split.count"));
  Place place;
  if (count.value_or(1) <= 1) return place;
  place.count = *count;
  EPIC_ASSIGN_OR_RETURN(const std::optional<uint64_t> number, file.Unsigned("split.no"));
  if (!number.has_value()) {
    return BrokenFile(file.path,
                      "the file is a part of a model (split.count is {}), but does not say which: the key "
                      "split.no is missing",
                      *count);
  }
  if (*count > kGgufPartsMax || *number >= *count) {
    return BrokenFile(file.path, "split.no is {} and split.count {}, expected a number below a count of at most {}",
                      *number, *count, kGgufPartsMax);
  }
  place.number = *number;
  EPIC_ASSIGN_OR_RETURN(place.tensors, file.Unsigned("split.tensors.count"));
  return place;
}

std::string PartSuffix(uint64_t number, uint64_t count) {
  return fmt::format("-{:0{}}-of-{:0{}}.gguf", number + 1, kDigits, count, kDigits);
}

// The path without the part's suffix, which must be the one that belongs to its place.
absl::StatusOr<std::string> StemOf(const std::string& path, const Place& place) {
  const std::string suffix = PartSuffix(place.number, place.count);
  const std::string name = std::filesystem::path(path).filename().string();
  if (name.size() <= suffix.size() || !name.ends_with(suffix)) {
    return BrokenFile(path,
                      "the file is part {} of {} of a model, so that its name must end in {} for the other parts to "
                      "be found; rename it",
                      place.number + 1, place.count, Quoted(suffix));
  }
  return path.substr(0, path.size() - suffix.size());
}

bool SameContent(const GgufValue& a, const GgufValue& b) {
  if (a.type != b.type || a.content.index() != b.content.index()) return false;
  const auto* array = std::get_if<GgufArray>(&a.content);
  if (array == nullptr) {
    return std::visit(
        [&b](const auto& value) {
          using Value = std::decay_t<decltype(value)>;
          if constexpr (std::is_same_v<Value, GgufArray>) {
            return false;
          } else {
            return value == std::get<Value>(b.content);
          }
        },
        a.content);
  }
  const auto& other = std::get<GgufArray>(b.content);
  return array->element_type == other.element_type && array->count == other.count && array->strings == other.strings &&
         std::equal(array->bytes.begin(), array->bytes.end(), other.bytes.begin(), other.bytes.end());
}

// A part repeats none of the first part's metadata or all the same; where it differs, it is of another model.
absl::Status CheckSameModel(const GgufFile& first, const Place& first_place, const GgufFile& part, const Place& place,
                            uint64_t expected_number) {
  if (place.number != expected_number || place.count != first_place.count) {
    return BrokenFile(part.path,
                      "the file says that it is part {} of {}, expected part {} of {}; is it of another model?",
                      place.number + 1, place.count, expected_number + 1, first_place.count);
  }
  if (place.tensors != first_place.tensors) {
    return BrokenFile(part.path,
                      "the part belongs to a model of {} tensors, the first part to one of {}; they are parts "
                      "of two models",
                      place.tensors.value_or(0), first_place.tensors.value_or(0));
  }
  for (const auto& [key, value] : part.metadata) {
    if (key == "split.no") continue;
    const GgufValue* in_first = first.Find(key);
    if (in_first != nullptr && !SameContent(*in_first, value)) {
      return BrokenFile(part.path, "key {} has another value than in the first part; they are parts of two models",
                        Quoted(key));
    }
  }
  return absl::OkStatus();
}

// Moves the tensors of all parts into one list and checks it.
absl::StatusOr<GgufFile> Merge(std::vector<GgufFile> parts, const std::optional<uint64_t>& tensor_count) {
  GgufFile table = std::move(parts.front());
  std::set<std::string> names;
  for (const GgufTensor& tensor : table.tensors) names.insert(tensor.name);
  for (size_t i = 1; i < parts.size(); ++i) {
    for (GgufTensor& tensor : parts[i].tensors) {
      if (!names.insert(tensor.name).second) {
        return BrokenFile(parts[i].path, "tensor {} stands in an earlier part already", Quoted(tensor.name));
      }
      table.tensors.push_back(std::move(tensor));
    }
  }
  if (tensor_count.has_value() && *tensor_count != table.tensors.size()) {
    return BrokenFile(table.path, "the {} parts have {} tensors together, split.tensors.count says {}", parts.size(),
                      table.tensors.size(), *tensor_count);
  }
  return table;
}

}  // namespace

absl::StatusOr<GgufParts> OpenGgufParts(MappedFile mapped, const std::string& path) {
  EPIC_ASSIGN_OR_RETURN(GgufFile given, ParseGguf(mapped.bytes(), path));
  EPIC_ASSIGN_OR_RETURN(const Place given_place, PlaceOf(given));
  GgufParts result;
  if (given_place.count == 1) {
    result.files.push_back(std::move(mapped));
    result.table = std::move(given);
    return result;
  }
  EPIC_ASSIGN_OR_RETURN(const std::string stem, StemOf(path, given_place));
  // Every part is opened alike, the given one anew: that costs a second look at its head and spares a case of its own.
  std::vector<GgufFile> parts;
  Place first_place;
  for (uint64_t number = 0; number < given_place.count; ++number) {
    const std::string part_path = stem + PartSuffix(number, given_place.count);
    absl::StatusOr<MappedFile> file = MappedFile::Open(part_path);
    if (absl::IsNotFound(file.status())) {
      return absl::NotFoundError(
          fmt::format("{}: part {} of {} of the model is missing; all parts must lie in one folder", part_path,
                      number + 1, given_place.count));
    }
    EPIC_RETURN_IF_ERROR(file.status());
    EPIC_ASSIGN_OR_RETURN(GgufFile part, ParseGguf(file->bytes(), part_path));
    result.files.push_back(*std::move(file));
    parts.push_back(std::move(part));
    EPIC_ASSIGN_OR_RETURN(const Place place, PlaceOf(parts.back()));
    if (number == 0) first_place = place;
    // Against the first part, whichever was given; the first itself against its name.
    EPIC_RETURN_IF_ERROR(CheckSameModel(parts.front(),
                                        {.number = 0, .count = given_place.count, .tensors = first_place.tensors},
                                        parts.back(), place, number));
  }
  EPIC_ASSIGN_OR_RETURN(result.table, Merge(std::move(parts), first_place.tensors));
  return result;
}

}  // namespace epic
