// set_manifest_version FOLDER VERSION: writes a format version into a manifest, as a newer EPIC would. For tests.
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <string>

#include "core/byte_codec.h"
#include "rocksdb/db.h"
#include "storage/manifest_keys.h"

namespace epic {
namespace {

rocksdb::Status SetVersion(const std::string& folder, uint32_t version) {
  rocksdb::DB* raw_database = nullptr;
  const rocksdb::Status opened = rocksdb::DB::Open(rocksdb::Options(), folder, &raw_database);
  if (!opened.ok()) return opened;
  const std::unique_ptr<rocksdb::DB> database(raw_database);
  ByteWriter value;
  value.Put(version);
  rocksdb::WriteOptions options;
  options.sync = true;
  return database->Put(options, ManifestKey(ManifestKeyKind::kFormatVersion, {}), std::string(value.bytes()));
}

}  // namespace
}  // namespace epic

int main(int argc, char** argv) {
  if (argc != 3) {
    std::fputs("usage: set_manifest_version FOLDER VERSION\n", stderr);
    return 2;
  }
  const rocksdb::Status status = epic::SetVersion(argv[1], static_cast<uint32_t>(std::atoi(argv[2])));
  if (status.ok()) return 0;
  std::fprintf(stderr, "set_manifest_version: %s\n", status.ToString().c_str());
  return 1;
}
