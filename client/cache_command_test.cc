#include "client/cache_command.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <map>
#include <sstream>
#include <string>
#include <utility>

#include "CLI/CLI.hpp"
#include "client/cache_output.h"

namespace epic::client {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

v1::GetTiersResponse TwoTiers() {
  v1::GetTiersResponse tiers;
  tiers.set_version("1.2.3");
  tiers.set_document_count(12);
  tiers.set_pinned_document_count(3);
  tiers.set_pinned_bytes_max(1 << 30);
  tiers.set_adopted_blocks(40);
  tiers.set_orphaned_blocks(2);
  v1::TierStatus* host = tiers.add_tiers();
  host->set_tier(v1::TIER_HOST);
  host->set_dtype("bf16");
  host->set_eviction_policy("cost");
  host->set_capacity_bytes(int64_t{2} << 30);
  host->set_used_bytes(int64_t{3} << 29);
  host->set_block_count(1500);
  host->set_pinned_blocks(24);
  host->set_pinned_bytes(24 << 20);
  host->set_lease_count(5);
  host->set_leased_bytes(1 << 20);
  host->set_largest_free_bytes(300 << 20);
  host->set_free_ranges(7);
  host->set_hits_total(950);
  host->set_misses_total(50);
  host->set_promotions_total(30);
  host->set_demotions_total(60);
  (*host->mutable_evictions_total())["room"] = 60;
  (*host->mutable_evictions_total())["run"] = 4;
  v1::TierStatus* disk = tiers.add_tiers();
  disk->set_tier(v1::TIER_DISK);
  disk->set_dtype("int8");
  disk->set_eviction_policy("lru");
  disk->set_capacity_bytes(int64_t{8} << 30);
  disk->set_checksum_failures_total(1);
  disk->set_read_errors_total(2);
  disk->set_write_errors_total(3);
  disk->set_declined_total(6);
  disk->set_queue_length(8);
  disk->set_bytes_read_total(5 << 20);
  disk->set_bytes_written_total(9 << 20);
  (*disk->mutable_evictions_total())["room"] = 11;
  (*disk->mutable_evictions_total())["cosmic ray"] = 1;
  v1::PinnedDocument* pinned = tiers.add_pinned_documents();
  pinned->set_tenant("default");
  pinned->set_document_id("handbook");
  pinned->set_bytes(20 << 20);
  pinned = tiers.add_pinned_documents();
  pinned->set_tenant("acme");
  pinned->set_document_id("manual");
  pinned->set_bytes(4 << 20);
  return tiers;
}

// Knows the documents "a" and "b", "a" being pinned; refuses "big".
class FakeNode : public CacheAdminClient {
 public:
  absl::StatusOr<v1::GetTiersResponse> GetTiers() override {
    calls.push_back("stats");
    return TwoTiers();
  }
  absl::StatusOr<v1::PinDocumentResponse> PinDocument(const std::string& id) override {
    calls.push_back("pin " + id);
    if (!failure.ok()) return failure;
    if (id == "big") return absl::ResourceExhaustedError("too much would be pinned");
    if (id != "a" && id != "b") return absl::NotFoundError("no such document");
    v1::PinDocumentResponse response;
    response.set_chunk_count(5);
    response.set_resident_chunk_count(2);
    response.set_bytes(3 << 19);
    return response;
  }
  absl::StatusOr<v1::UnpinDocumentResponse> UnpinDocument(const std::string& id) override {
    calls.push_back("unpin " + id);
    if (id != "a" && id != "b") return absl::NotFoundError("no such document");
    v1::UnpinDocumentResponse response;
    response.set_was_pinned(id == "a");
    return response;
  }
  absl::StatusOr<v1::EvictBlocksResponse> EvictBlocks(const std::vector<std::string>& ids, v1::Tier tier) override {
    calls.push_back("evict " + std::to_string(ids.size()) + " " + TierName(tier));
    v1::EvictBlocksResponse response;
    response.set_evicted_host_blocks(9);
    response.set_evicted_disk_blocks(8);
    response.set_kept_blocks(1);
    return response;
  }
  absl::StatusOr<v1::VerifyBlocksResponse> VerifyBlocks(
      v1::Tier tier, const std::function<void(const v1::VerifyBlocksResponse&)>& progress) override {
    calls.push_back("verify " + TierName(tier));
    progress(verified);
    return verified;
  }
  absl::StatusOr<v1::CompactResponse> Compact() override {
    calls.push_back("compact");
    v1::CompactResponse response;
    response.set_bytes_before(3 << 20);
    response.set_bytes_after(1 << 20);
    return response;
  }

  std::vector<std::string> calls;
  absl::Status failure;
  v1::VerifyBlocksResponse verified;
};

struct Outcome {
  absl::Status status;
  std::string out;
  std::string errors;
};

Outcome RunOn(FakeNode& node, const CacheOptions& options, bool json = false) {
  std::ostringstream out, errors;
  Outcome outcome;
  outcome.status = RunCacheOnNode(node, options, json, out, errors);
  outcome.out = out.str();
  outcome.errors = errors.str();
  return outcome;
}

CacheOptions Asking(CacheAction action, std::vector<std::string> ids = {}) {
  CacheOptions options;
  options.node = "127.0.0.1:7401";
  options.action = action;
  options.document_ids = std::move(ids);
  return options;
}

// The name of the error that parsing ends with, or "" where it does not.
std::string Parse(const std::string& line, CacheOptions* options, bool* is_chosen = nullptr) {
  CLI::App app;
  app.fallthrough();
  app.require_subcommand(1);
  DeclareCacheCommand(app, options, [is_chosen] {
    if (is_chosen != nullptr) *is_chosen = true;
  });
  try {
    app.parse(line);
  } catch (const CLI::ParseError& error) {
    return error.get_name() + ": " + error.what();
  }
  return "";
}

TEST(CacheCommandParseTest, KnowsEverySubcommand) {
  const std::map<std::string, CacheAction> lines = {
      {"cache stats", CacheAction::kStats},           {"cache pin a b", CacheAction::kPin},
      {"cache unpin a b", CacheAction::kUnpin},       {"cache evict a b --tier disk", CacheAction::kEvict},
      {"cache verify", CacheAction::kVerify},         {"cache compact", CacheAction::kCompact},
      {"cache evict --all", CacheAction::kEvict},     {"cache --node h:1 stats", CacheAction::kStats},
      {"cache stats --node h:1", CacheAction::kStats}};
  for (const auto& [line, action] : lines) {
    CacheOptions options;
    bool is_chosen = false;
    EXPECT_EQ(Parse(line, &options, &is_chosen), "") << line;
    EXPECT_TRUE(is_chosen) << line;
    EXPECT_EQ(options.action, action) << line;
    if (line.find(" a b") != std::string::npos) {
      EXPECT_THAT(options.document_ids, ElementsAre("a", "b")) << line;
    }
    EXPECT_EQ(options.node, line.find("--node") == std::string::npos ? "" : "h:1") << line;
    EXPECT_EQ(options.tier, line.find("--tier") == std::string::npos ? "all" : "disk") << line;
  }
}

TEST(CacheCommandParseTest, RefusesWhatMakesNoSense) {
  const std::string folder = testing::TempDir();
  const std::map<std::string, std::string> lines = {
      {"cache", "one of stats, pin, unpin, evict, verify and compact is required"},
      {"cache burn", "not expected: burn"},
      {"cache pin", "ids is required"},
      {"cache unpin", "ids is required"},
      {"cache evict", "a document's id, or --all, is required"},
      {"cache evict a --all", "ids excludes --all"},
      {"cache evict --all --tier gpu", "gpu not in {host,disk,all}"},
      {"cache verify --tier gpu", "gpu not in {host,disk,all}"},
      {"cache verify --offline " + folder + " --node h:1", "--node excludes --offline"},
      {"cache verify --offline " + folder + " --tier disk", "--tier excludes --offline"},
      {"cache verify --offline " + folder + "/absent", "Directory does not exist"},
      {"cache verify --disk-dir " + folder, "--disk-dir requires --offline"},
      {"cache stats --offline " + folder, "not expected"}};
  for (const auto& [line, expected] : lines) {
    CacheOptions options;
    bool is_chosen = false;
    EXPECT_THAT(Parse(line, &options, &is_chosen), HasSubstr(expected)) << line;
  }
}

TEST(CacheCommandParseTest, TakesTheNodeFromTheEnvironmentAndDoesNotHoldItAgainstOffline) {
  ASSERT_EQ(setenv("EPIC_NODE", "h:2", 1), 0);
  CacheOptions by_environment, by_flag, offline;
  EXPECT_EQ(Parse("cache stats", &by_environment), "");
  EXPECT_EQ(Parse("cache stats --node h:3", &by_flag), "");
  EXPECT_EQ(Parse("cache verify --offline " + testing::TempDir() + " --disk-dir d --manifest-copy-dir m", &offline),
            "");
  unsetenv("EPIC_NODE");
  EXPECT_EQ(by_environment.node, "h:2");
  EXPECT_EQ(by_flag.node, "h:3");
  EXPECT_EQ(offline.offline.data_dir, testing::TempDir());
  EXPECT_EQ(offline.offline.disk_dir, "d");
  EXPECT_EQ(offline.offline.manifest_copy_dir, "m");
}

TEST(CacheStatsTest, IsOneTableWithAColumnATierAndThePinnedDocumentsBelow) {
  FakeNode node;
  const Outcome outcome = RunOn(node, Asking(CacheAction::kStats));
  EXPECT_TRUE(outcome.status.ok());
  EXPECT_EQ(outcome.out,
            "cache node at 127.0.0.1:7401, EPIC 1.2.3: 12 documents, 3 pinned (up to 1.0 GiB of KV)\n"
            "at its start 40 blocks were there again on disk, and 2 that nothing referred to were dropped\n"
            "\n"
            "                            host     disk\n"
            "---------------------  ---------  -------\n"
            "kept as                     bf16     int8\n"
            "eviction policy             cost      lru\n"
            "capacity                 2.0 GiB  8.0 GiB\n"
            "used                     1.5 GiB      0 B\n"
            "used share                75.0 %    0.0 %\n"
            "largest free run       300.0 MiB      0 B\n"
            "free runs                      7        0\n"
            "blocks                      1500        0\n"
            "pinned blocks                 24        0\n"
            "pinned                  24.0 MiB      0 B\n"
            "leases                         5        0\n"
            "under lease              1.0 MiB      0 B\n"
            "hits                         950        0\n"
            "misses                        50        0\n"
            "hit ratio                 95.0 %        -\n"
            "promoted                      30        0\n"
            "demoted                       60        0\n"
            "declined                       0        6\n"
            "waiting                        0        8\n"
            "read                         0 B  5.0 MiB\n"
            "written                      0 B  9.0 MiB\n"
            "checksum failures              0        1\n"
            "read errors                    0        2\n"
            "write errors                   0        3\n"
            "evicted: cosmic ray            -        1\n"
            "evicted for room              60       11\n"
            "evicted as neighbours          4        -\n"
            "\n"
            "pinned document  tenant         KV\n"
            "---------------  -------  --------\n"
            "handbook         default  20.0 MiB\n"
            "manual           acme      4.0 MiB\n"
            "and 1 more\n");
}

// Every field of the contract, so that one that is added is not forgotten here.
void ExpectEveryField(const google::protobuf::Descriptor& message, const nlohmann::json& json) {
  for (int i = 0; i < message.field_count(); ++i) {
    EXPECT_TRUE(json.contains(message.field(i)->name())) << message.field(i)->full_name();
  }
}

TEST(CacheStatsTest, TheJsonHasEverything) {
  FakeNode node;
  const nlohmann::json json = nlohmann::json::parse(RunOn(node, Asking(CacheAction::kStats), /*json=*/true).out);
  ExpectEveryField(*v1::GetTiersResponse::descriptor(), json);
  ExpectEveryField(*v1::TierStatus::descriptor(), json["tiers"][0]);
  ExpectEveryField(*v1::PinnedDocument::descriptor(), json["pinned_documents"][0]);
  EXPECT_EQ(json["tiers"][0]["tier"], "host");
  EXPECT_EQ(json["tiers"][0]["capacity_bytes"], int64_t{2} << 30);
  EXPECT_EQ(json["tiers"][1]["evictions_total"], (nlohmann::json{{"room", 11}, {"cosmic ray", 1}}));
}

TEST(CachePinTest, PinsEachAndGoesOnAfterAFailure) {
  FakeNode node;
  const Outcome outcome = RunOn(node, Asking(CacheAction::kPin, {"a", "absent", "big", "b"}));
  EXPECT_EQ(outcome.out,
            "pinned a: 5 chunks, 2 of them in memory, 1.5 MiB\n"
            "pinned b: 5 chunks, 2 of them in memory, 1.5 MiB\n");
  EXPECT_EQ(outcome.errors,
            "epic: absent: no such document\n"
            "epic: big: too much would be pinned\n");
  EXPECT_FALSE(outcome.status.ok());
  EXPECT_EQ(outcome.status.message(), "2 of 4 documents could not be pinned");
}

TEST(CachePinTest, OneDocumentThatCannotBePinnedIsOneSentence) {
  FakeNode node;
  const Outcome outcome = RunOn(node, Asking(CacheAction::kPin, {"absent"}));
  EXPECT_EQ(outcome.status.code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(outcome.status.message(), "no such document");
  EXPECT_THAT(outcome.out + outcome.errors, IsEmpty());
}

TEST(CachePinTest, StopsWhereTheNodeIsGone) {
  FakeNode node;
  node.failure = absl::UnavailableError("no answer");
  const Outcome outcome = RunOn(node, Asking(CacheAction::kPin, {"a", "b"}));
  EXPECT_THAT(node.calls, ElementsAre("pin a"));
  EXPECT_EQ(outcome.status.message(), "no answer");
  EXPECT_THAT(outcome.errors, IsEmpty());
}

TEST(CachePinTest, ABadIdAmongManyLeavesNothingDone) {
  FakeNode node;
  const Outcome outcome = RunOn(node, Asking(CacheAction::kPin, {"a", "no good\n"}));
  EXPECT_EQ(outcome.status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(node.calls, IsEmpty());
}

TEST(CachePinTest, TheJsonHasAnElementADocument) {
  FakeNode node;
  const Outcome outcome = RunOn(node, Asking(CacheAction::kPin, {"a", "absent"}), /*json=*/true);
  const nlohmann::json expected = {
      {{"id", "a"}, {"pinned", true}, {"chunk_count", 5}, {"resident_chunk_count", 2}, {"bytes", 3 << 19}},
      {{"id", "absent"}, {"error", "no such document"}}};
  EXPECT_EQ(nlohmann::json::parse(outcome.out), expected);
  EXPECT_FALSE(outcome.status.ok());
}

TEST(CacheUnpinTest, SaysWhatWasNotPinned) {
  FakeNode node;
  const Outcome outcome = RunOn(node, Asking(CacheAction::kUnpin, {"a", "b", "absent"}));
  EXPECT_EQ(outcome.out, "unpinned a\nb was not pinned\n");
  EXPECT_EQ(outcome.errors, "epic: absent: no such document\n");
  EXPECT_EQ(outcome.status.message(), "1 of 3 documents could not be unpinned");
}

TEST(CacheEvictTest, NamesDocumentsAndTier) {
  FakeNode node;
  CacheOptions options = Asking(CacheAction::kEvict, {"a", "b"});
  options.tier = "host";
  EXPECT_EQ(RunOn(node, options).out, "evicted 9 blocks from memory and 8 from disk; 1 stay, in use or pinned\n");
  options.document_ids.clear();
  options.tier = "disk";
  EXPECT_TRUE(RunOn(node, options).status.ok());
  options.tier = "all";
  const nlohmann::json expected = {{"evicted_host_blocks", 9}, {"evicted_disk_blocks", 8}, {"kept_blocks", 1}};
  EXPECT_EQ(nlohmann::json::parse(RunOn(node, options, /*json=*/true).out), expected);
  EXPECT_THAT(node.calls, ElementsAre("evict 2 host", "evict 0 disk", "evict 0 all"));
}

TEST(CacheVerifyTest, SucceedsWhereNothingIsBad) {
  FakeNode node;
  node.verified.set_verified_blocks(40);
  node.verified.set_total_blocks(40);
  node.verified.set_verified_bytes(60 << 20);
  const Outcome outcome = RunOn(node, Asking(CacheAction::kVerify));
  EXPECT_TRUE(outcome.status.ok());
  EXPECT_EQ(outcome.out, "verified 40 blocks (60.0 MiB): 0 bad\n");
  EXPECT_THAT(node.calls, ElementsAre("verify all"));
}

TEST(CacheVerifyTest, FailsWithATableOfWhatIsBad) {
  FakeNode node;
  node.verified.set_verified_blocks(40);
  node.verified.set_total_blocks(40);
  node.verified.set_bad_blocks(3);
  node.verified.add_faults("00ff: layer group 2: checksum 1, expected 2");
  node.verified.add_faults("unreadable");
  const Outcome outcome = RunOn(node, Asking(CacheAction::kVerify));
  EXPECT_EQ(outcome.out,
            "verified 40 blocks (0 B): 3 bad\n"
            "\n"
            "bad block  what was wrong\n"
            "---------  -------------------------------------\n"
            "00ff       layer group 2: checksum 1, expected 2\n"
            "           unreadable\n"
            "and 1 more\n");
  EXPECT_EQ(outcome.status.code(), absl::StatusCode::kDataLoss);
  EXPECT_THAT(std::string(outcome.status.message()), HasSubstr("3 of 40 blocks were bad"));
  const nlohmann::json json = nlohmann::json::parse(RunOn(node, Asking(CacheAction::kVerify), /*json=*/true).out);
  EXPECT_EQ(json["bad_blocks"], 3);
  EXPECT_EQ(json["faults"][0]["key"], "00ff");
  EXPECT_EQ(json["faults"][0]["fault"], "layer group 2: checksum 1, expected 2");
}

TEST(CacheCompactTest, SaysBeforeAndAfter) {
  FakeNode node;
  EXPECT_EQ(RunOn(node, Asking(CacheAction::kCompact)).out,
            "manifest and index took 3.0 MiB before and take 1.0 MiB now\n");
  const nlohmann::json expected = {{"bytes_before", 3 << 20}, {"bytes_after", 1 << 20}};
  EXPECT_EQ(nlohmann::json::parse(RunOn(node, Asking(CacheAction::kCompact), /*json=*/true).out), expected);
}

class CacheOfflineTest : public testing::Test {
 protected:
  CacheOfflineTest() {
    options_.action = CacheAction::kVerify;
    options_.offline.data_dir = "data";
  }

  Outcome RunOffline(bool json = false) {
    std::ostringstream out;
    const absl::Status status = RunCacheOffline(
        options_,
        [this](const OfflineFolders& folders,
               const std::function<void(const std::string&)>&) -> absl::StatusOr<std::vector<OfflinePart>> {
          EXPECT_EQ(folders.data_dir, "data");
          if (!failure_.ok()) return failure_;
          return parts_;
        },
        json, out);
    return {status, out.str(), ""};
  }

  CacheOptions options_;
  absl::Status failure_;
  std::vector<OfflinePart> parts_ = {{"manifest", "data/manifest", 120, 3 << 20, {}, ""},
                                     {"disk tier", "data/blocks", 40, 60 << 20, {}, ""}};
};

TEST_F(CacheOfflineTest, SucceedsWhereEverythingIsSound) {
  const Outcome outcome = RunOffline();
  EXPECT_TRUE(outcome.status.ok()) << outcome.status;
  EXPECT_EQ(outcome.out,
            "part       entries      size  faults  folder\n"
            "---------  -------  --------  ------  -------------\n"
            "manifest       120   3.0 MiB       0  data/manifest\n"
            "disk tier       40  60.0 MiB       0  data/blocks\n");
}

TEST_F(CacheOfflineTest, ANoteIsNoFault) {
  parts_[0].note = "it is behind";
  const Outcome outcome = RunOffline();
  EXPECT_TRUE(outcome.status.ok()) << outcome.status;
  EXPECT_THAT(outcome.out, HasSubstr("data/blocks\n\nmanifest: it is behind\n"));
  EXPECT_EQ(nlohmann::json::parse(RunOffline(/*json=*/true).out)["parts"][0]["note"], "it is behind");
}

TEST_F(CacheOfflineTest, ListsFaultsAndFails) {
  parts_[1].faults = {"00ff: not the bytes that were written", "index: damaged"};
  const Outcome outcome = RunOffline();
  EXPECT_THAT(outcome.out, HasSubstr("disk tier       40  60.0 MiB       2  data/blocks\n"
                                     "\n"
                                     "part       what is wrong\n"
                                     "---------  -------------------------------------\n"
                                     "disk tier  00ff: not the bytes that were written\n"
                                     "disk tier  index: damaged\n"));
  EXPECT_EQ(outcome.status.code(), absl::StatusCode::kDataLoss);
  EXPECT_THAT(std::string(outcome.status.message()), HasSubstr("2 faults in data; nothing was changed"));
  EXPECT_EQ(nlohmann::json::parse(RunOffline(/*json=*/true).out)["parts"][1]["faults"][1], "index: damaged");
}

TEST_F(CacheOfflineTest, WhatKeepsItFromCheckingIsTheWholeAnswer) {
  failure_ = absl::FailedPreconditionError("a node runs on it");
  const Outcome outcome = RunOffline();
  EXPECT_EQ(outcome.status, failure_);
  EXPECT_THAT(outcome.out, IsEmpty());
}

}  // namespace
}  // namespace epic::client
