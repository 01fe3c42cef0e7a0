// Reading a document's file for registration.
#ifndef EPIC_CLIENT_TEXT_FILE_H_
#define EPIC_CLIENT_TEXT_FILE_H_

#include <string>

#include "absl/status/statusor.h"

namespace epic::client {

// The file's text. NOT_FOUND, PERMISSION_DENIED; INVALID_ARGUMENT where it is a folder, empty (or white space alone),
// longer than kDocumentTextBytesMax, or not UTF-8 text (the position of the first bad byte is named; a NUL byte is not
// text).
absl::StatusOr<std::string> ReadDocumentFile(const std::string& path);

// The document id that a file registers under where none is given: its name without folder and extension, characters
// that an id cannot have replaced by '-'.
std::string DocumentIdFromPath(const std::string& path);

}  // namespace epic::client

#endif  // EPIC_CLIENT_TEXT_FILE_H_
