// faultfs: makes the durable image of a folder, and turns one into the folder as it would be after power loss.
//
//   faultfs create ROOT IMAGE            everything in ROOT counts as durable; ROOT's files get their identities
//   faultfs restore IMAGE TARGET         TARGET must not exist
//     [--live ROOT --survive PERCENT --seed N]
//
// With --survive, what was not synced survives in part, as on a disk that writes in an order of its own: each piece of
// 4096 bytes that differs from the durable one, each change of a file's size, and of each folder all changes of names
// together, with that likelihood. The same seed and history give the same choice.
#include <sys/stat.h>

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <iostream>
#include <map>
#include <random>
#include <string>
#include <vector>

#include "CLI/CLI.hpp"
#include "tests/faultfs/image.h"
#include "tests/faultfs/system_calls.h"

namespace epic::faultfs {
namespace {

constexpr int64_t kPieceBytes = 4096;

class Restoration {
 public:
  // `live_root` may be empty where `survive_percent` is 0.
  Restoration(Image image, const std::string& live_root, int survive_percent, uint64_t seed)
      : image_(std::move(image)), survive_percent_(survive_percent), random_(seed) {
    if (survive_percent_ > 0) FindLive(live_root, kRootId);
  }

  void RestoreFolder(const std::string& id, const std::string& target) {
    if (mkdir(target.c_str(), 0755) != 0) Die("cannot make " + target);
    const auto live = live_.find(id);
    const std::vector<Name> names = live != live_.end() && Survives() ? ListFolder(live->second) : image_.Names(id);
    for (const Name& name : names) {
      const std::string path = target + "/" + name.name;
      if (name.is_folder) {
        RestoreFolder(name.id, path);
      } else if (const auto [restored, is_new] = restored_.emplace(name.id, path); is_new) {
        RestoreFile(name.id, path);
      } else {
        std::filesystem::create_hard_link(restored->second, path);
      }
    }
  }

 private:
  bool Survives() { return static_cast<int>(random_() % 100) < survive_percent_; }

  void FindLive(const std::string& path, const std::string& id) {
    live_[id] = path;
    for (const Name& name : ListFolder(path)) {
      if (name.is_folder) {
        FindLive(path + "/" + name.name, name.id);
      } else {
        live_[name.id] = path + "/" + name.name;
      }
    }
  }

  void RestoreFile(const std::string& id, const std::string& path) {
    const system::Descriptor file(system::Open(path, O_RDWR | O_CREAT | O_EXCL));
    if (file.get() < 0) Die("cannot make " + path);
    int64_t size = 0;
    if (std::filesystem::exists(image_.BytesPath(id))) {
      const system::Descriptor durable(system::Open(image_.BytesPath(id), O_RDONLY));
      struct stat status;
      if (durable.get() < 0 || fstat(durable.get(), &status) != 0) Die("cannot open " + image_.BytesPath(id));
      size = status.st_size;
      CopyBytes(durable.get(), file.get(), 0, size);
    }
    if (const auto live = live_.find(id); live != live_.end()) size = Mix(live->second, file.get(), size);
    if (system::Truncate(file.get(), size) != 0) Die("cannot set the size of " + path);
  }

  // Puts those pieces of the live file that survive over the durable ones. The size that survives.
  int64_t Mix(const std::string& live_path, int file, int64_t durable_size) {
    const system::Descriptor live(system::Open(live_path, O_RDONLY));
    struct stat status;
    if (live.get() < 0 || fstat(live.get(), &status) != 0) Die("cannot open " + live_path);
    const int64_t size = status.st_size != durable_size && Survives() ? status.st_size : durable_size;
    std::string unsynced(kPieceBytes, '\0');
    std::string durable(kPieceBytes, '\0');
    for (int64_t begin = 0; begin < std::min<int64_t>(size, status.st_size); begin += kPieceBytes) {
      std::fill(unsynced.begin(), unsynced.end(), '\0');
      std::fill(durable.begin(), durable.end(), '\0');
      const ssize_t got = system::PositionedRead(live.get(), unsynced.data(), kPieceBytes, begin);
      if (got < 0 || system::PositionedRead(file, durable.data(), kPieceBytes, begin) < 0) {
        Die("cannot read " + live_path);
      }
      if (unsynced == durable || !Survives()) continue;
      if (system::PositionedWrite(file, unsynced.data(), static_cast<size_t>(got), begin) != got) {
        Die("cannot write a restored file");
      }
    }
    return size;
  }

  const Image image_;
  const int survive_percent_;
  std::mt19937_64 random_;
  std::map<std::string, std::string> live_;      // paths by identity, where unsynced changes may survive
  std::map<std::string, std::string> restored_;  // the first path of each file, for its other names
};

int Main(int argc, char** argv) {
  CLI::App app("Durable images of folders that are watched by libepic_faultfs.so");
  app.require_subcommand(1);
  std::string root;
  std::string image;
  std::string target;
  int survive_percent = 0;
  uint64_t seed = 1;
  CLI::App* const create = app.add_subcommand("create", "Makes the image of a folder");
  create->add_option("root", root)->required()->check(CLI::ExistingDirectory);
  create->add_option("image", image)->required()->check(CLI::NonexistentPath);
  CLI::App* const restore = app.add_subcommand("restore", "Makes the folder as it would be after power loss");
  restore->add_option("image", image)->required()->check(CLI::ExistingDirectory);
  restore->add_option("target", target)->required()->check(CLI::NonexistentPath);
  CLI::Option* const live = restore->add_option("--live", root, "the watched folder")->check(CLI::ExistingDirectory);
  restore->add_option("--survive", survive_percent, "percent of what was not synced that survives")
      ->check(CLI::Range(0, 100))
      ->needs(live);
  restore->add_option("--seed", seed);
  CLI11_PARSE(app, argc, argv);
  if (create->parsed()) {
    Image(image).Create(root);
  } else {
    Restoration(Image(image), root, survive_percent, seed).RestoreFolder(kRootId, target);
  }
  return 0;
}

}  // namespace
}  // namespace epic::faultfs

int main(int argc, char** argv) { return epic::faultfs::Main(argc, argv); }
