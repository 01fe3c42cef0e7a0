// A GGUF model in one file or split over several, as one table.
//
// A split model lies in files "NAME-00001-of-0000N.gguf" in one folder. Each has the keys split.no (from 0),
// split.count and split.tensors.count (of the whole model) and a part of the tensors; the first has the metadata too.
// OpenGgufParts takes any one of them and opens all. It checks that every part is there, that each says the same of the
// model and stands where its name says, that no tensor comes twice and that all come together to the count.
//
// Errors as ParseGguf; NOT_FOUND names a part that is missing. Ownership: the table views the files.
#ifndef EPIC_ENGINE_FILES_GGUF_PARTS_H_
#define EPIC_ENGINE_FILES_GGUF_PARTS_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/files/gguf.h"
#include "engine/files/mapped_file.h"

namespace epic {

inline constexpr uint64_t kGgufPartsMax = 1024;

struct GgufParts {
  std::vector<MappedFile> files;  // in the order of the parts
  GgufFile table;                 // path and metadata of the first part, tensors of all
};

// `mapped` is the file at `path`, whichever part it is.
[[nodiscard]] absl::StatusOr<GgufParts> OpenGgufParts(MappedFile mapped, const std::string& path);

}  // namespace epic

#endif  // EPIC_ENGINE_FILES_GGUF_PARTS_H_
