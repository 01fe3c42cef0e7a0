#include "engine/linker_gate.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

namespace epic {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

const std::vector<std::string> kPlain = {"plain"};
const std::vector<std::string> kDocument = {"document"};
const std::vector<std::string> kBoth = {"plain", "document"};

LinkerVerdict Passing(const std::string& linker) { return JudgeLinker(linker, "plain", 12, 1, 0.01, {}); }
LinkerVerdict Failing(const std::string& linker) { return JudgeLinker(linker, "plain", 12, 0.5, 0.25, {}); }

std::string Chosen(const LinkerGate& gate, std::string_view name) {
  const auto choice = gate.Choose(name, kPlain);
  return choice.ok() ? choice->linker.Name() : std::string(choice.status().message());
}

TEST(LinkerGate, WithoutVerdictsTheDefaultIsFullAndNamesAreTaken) {
  const LinkerGate gate;
  EXPECT_EQ(Chosen(gate, ""), "full");
  EXPECT_THAT(gate.Choose("", kPlain)->note,
              AllOf(HasSubstr("no verdict"), HasSubstr("legolink:16"), HasSubstr("epic eval gate")));
  for (const char* name : {"full", "prefix", "naive", "legolink:16", "cacheblend:15"}) {
    EXPECT_EQ(Chosen(gate, name), name);
    EXPECT_EQ(gate.Choose(name, kPlain)->note, "");
  }
  EXPECT_EQ(gate.Choose("legolnk", kPlain).status().code(), absl::StatusCode::kInvalidArgument);
}

TEST(LinkerGate, APassingVerdictMakesTheDefault) {
  const LinkerGate gate = *LinkerGate::Create({Failing("naive"), Passing("legolink:16")}, {});
  EXPECT_EQ(Chosen(gate, ""), "legolink:16");
  EXPECT_EQ(gate.Choose("", kPlain)->note, "");
}

TEST(LinkerGate, TheCheapestDefaultThatPassesIsTaken) {
  const LinkerGate gate =
      *LinkerGate::Create({Failing("legolink:16"), Passing("legolink:64"), Passing("cacheblend:15")}, {});
  EXPECT_EQ(Chosen(gate, ""), "legolink:64");
  EXPECT_THAT(gate.Choose("", kPlain)->note, AllOf(HasSubstr("answered by legolink:64"),
                                                   HasSubstr("legolink:16 is refused"), HasSubstr("0.2500 nats")));
  EXPECT_EQ(Chosen(*LinkerGate::Create({Failing("legolink:16"), Passing("cacheblend:15")}, {}), ""), "cacheblend:15");
  // Others are for those who name them.
  EXPECT_EQ(Chosen(*LinkerGate::Create({Passing("legolink:2"), Passing("naive")}, {}), ""), "full");
}

TEST(LinkerGate, ARefusedLinkerIsNamedWithItsNumbers) {
  const LinkerGate gate = *LinkerGate::Create({Failing("legolink:16"), Failing("naive"), Failing("full")}, {});
  EXPECT_EQ(Chosen(gate, ""), "full");
  EXPECT_THAT(gate.Choose("", kPlain)->note, HasSubstr("0.2500 nats"));
  const absl::Status refused = gate.Choose("naive", kPlain).status();
  EXPECT_EQ(refused.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(refused.message()),
              AllOf(HasSubstr("naive"), HasSubstr("50.0 %"), HasSubstr("0.2500 nats"), HasSubstr("--allow-linkers")));
  EXPECT_EQ(Chosen(gate, "legolink:2"), "legolink:2");  // not judged
  EXPECT_EQ(Chosen(gate, "full"), "full");              // nothing to judge
}

TEST(LinkerGate, ChunksThatSawEachOtherHaveVerdictsOfTheirOwn) {
  const LinkerGate gate =
      *LinkerGate::Create({Failing("legolink:16"), Passing("legolink:16@document"), Passing("legolink:64"),
                           Passing("legolink:64@document"), Passing("naive"), Failing("naive@document")},
                          {});
  EXPECT_EQ(gate.Choose("", kDocument)->linker.Name(), "legolink:16");
  EXPECT_EQ(gate.Choose("", kDocument)->note, "");
  EXPECT_EQ(gate.Choose("", kPlain)->linker.Name(), "legolink:64");
  EXPECT_EQ(gate.Choose("", kBoth)->linker.Name(), "legolink:64");
  EXPECT_TRUE(gate.Choose("legolink:16", kDocument).ok());
  EXPECT_FALSE(gate.Choose("legolink:16", kBoth).ok());
  // A linker that names its recipe is judged by it, whatever the documents were registered with.
  EXPECT_FALSE(gate.Choose("legolink:16@plain", kDocument).ok());
  EXPECT_TRUE(gate.Choose("legolink:16@document", kPlain).ok());
  EXPECT_THAT(std::string(gate.Choose("naive", kDocument).status().message()), HasSubstr("naive@document is refused"));
  // Without a verdict for documents that are compiled as a whole there is no default for them.
  EXPECT_EQ(LinkerGate::Create({Passing("legolink:16")}, {})->Choose("", kDocument)->linker.Name(), "full");
}

TEST(LinkerGate, WhoVouchesForALinkerVouchesForItWithAnyRecipe) {
  const std::vector<LinkerVerdict> verdicts = {Failing("legolink:16"), Failing("legolink:16@document")};
  const LinkerGate any = *LinkerGate::Create(verdicts, {"legolink:16"});
  EXPECT_TRUE(any.Choose("legolink:16", kBoth).ok());
  const LinkerGate one = *LinkerGate::Create(verdicts, {"legolink:16@document"});
  EXPECT_TRUE(one.Choose("legolink:16", kDocument).ok());
  EXPECT_FALSE(one.Choose("legolink:16", kPlain).ok());
}

TEST(RecommendedRecipe, IsDocumentUnlessOnlyPlainPasses) {
  const auto recommended = [](std::vector<LinkerVerdict> verdicts) {
    return RecommendedRecipe(*LinkerGate::Create(std::move(verdicts), {}));
  };
  EXPECT_EQ(recommended({}), "document");
  EXPECT_EQ(recommended({Passing("legolink:64"), Passing("legolink:16@document")}), "document");
  EXPECT_EQ(recommended({Failing("legolink:16"), Failing("legolink:16@document")}), "document");
  EXPECT_EQ(recommended({Passing("legolink:16"), Failing("legolink:16@document")}), "plain");
  // Nobody has looked at documents compiled as a whole: without a verdict they would be answered by full.
  EXPECT_EQ(recommended({Passing("legolink:64")}), "plain");
}

TEST(PromptRecipes, AreThoseThatMakeADifference) {
  PromptRecipes recipes;
  EXPECT_EQ(recipes.Ids(), kPlain);
  recipes.AddChunk("one-chunk", false);
  EXPECT_EQ(recipes.Ids(), kPlain);
  recipes.AddChunk("whole", false);
  recipes.AddChunk("whole", true);
  EXPECT_EQ(recipes.Ids(), kDocument);
  recipes.AddChunk("alone", false);
  recipes.AddChunk("alone", false);
  EXPECT_EQ(recipes.Ids(), kBoth);
}

TEST(LinkerGate, TheOperatorMayVouch) {
  const LinkerGate some = *LinkerGate::Create({Failing("legolink:16"), Failing("naive")}, {"cacheblend:20.0", "naive"});
  EXPECT_THAT(some.allowed(), ElementsAre("cacheblend:20", "naive"));
  EXPECT_EQ(Chosen(some, "naive"), "naive");
  EXPECT_EQ(Chosen(some, ""), "full");
  EXPECT_EQ(Chosen(*LinkerGate::Create({}, {"legolink:16"}), ""), "legolink:16");
  const LinkerGate all = *LinkerGate::Create({Failing("legolink:16"), Failing("naive")}, {"all"});
  EXPECT_EQ(Chosen(all, ""), "legolink:16");
  EXPECT_EQ(Chosen(all, "naive"), "naive");
  EXPECT_EQ(LinkerGate::Create({}, {"naif"}).status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(LinkerGate::Create({}, {""}).status().code(), absl::StatusCode::kInvalidArgument);
}

class LoadLinkerGateTest : public ::testing::Test {
 protected:
  void SetUp() override { std::filesystem::remove_all(path_); }
  void TearDown() override { std::filesystem::remove_all(path_); }
  static ModelVerdicts Verdicts(const std::string& fingerprint, const std::vector<LinkerVerdict>& linkers) {
    return {"tiny", fingerprint, "0.1.0", kVerdictKvType, "a processor", "d16e57", {}, linkers};
  }
  std::string Write(const std::string& name, const ModelVerdicts& verdicts) const {
    std::filesystem::create_directories(path_);
    std::ofstream(path_ + "/" + name) << VerdictsToJson(verdicts);
    return path_ + "/" + name;
  }

  const std::string path_ = ::testing::TempDir() + "epic_linker_gate_" + std::to_string(getpid());
};

TEST_F(LoadLinkerGateTest, TakesTheVerdictsOfThisModelFromAFolderOrAFile) {
  Write("other.json", Verdicts("0ther", {Failing("legolink:16")}));
  const std::string file = Write("tiny.json", Verdicts("f00d", {Passing("legolink:16"), Failing("naive")}));
  std::ofstream(path_ + "/notes.txt") << "no verdicts";
  for (const std::string& path : {path_, file}) {
    const LoadedGate loaded = *LoadLinkerGate(path, {}, "f00d", "0.1.0");
    EXPECT_EQ(Chosen(loaded.gate, ""), "legolink:16");
    EXPECT_EQ(loaded.gate.verdicts().size(), 2U);
    EXPECT_THAT(loaded.notes, IsEmpty());
  }
  EXPECT_EQ(Chosen(LoadLinkerGate("", {}, "f00d", "0.1.0")->gate, ""), "full");
}

TEST_F(LoadLinkerGateTest, WhatWasMadeOtherwiseDoesNotHoldAndIsNoted) {
  Write("tiny.json", Verdicts("f00d", {Passing("legolink:16")}));
  const LoadedGate other_version = *LoadLinkerGate(path_, {}, "f00d", "0.2.0");
  EXPECT_EQ(Chosen(other_version.gate, ""), "full");
  ASSERT_EQ(other_version.notes.size(), 1U);
  EXPECT_THAT(other_version.notes[0], AllOf(HasSubstr("tiny.json"), HasSubstr("version 0.1.0, this is 0.2.0")));
  ModelVerdicts lax = Verdicts("f00d", {});
  lax.thresholds.mean_kl_max = 10;
  lax.linkers = {JudgeLinker("legolink:16", "plain", 12, 1, 5, lax.thresholds)};
  Write("tiny.json", lax);
  EXPECT_EQ(Chosen(LoadLinkerGate(path_, {}, "f00d", "0.1.0")->gate, ""), "full");
  ModelVerdicts other_type = Verdicts("f00d", {Passing("legolink:16")});
  other_type.kv_type = "int8";
  Write("tiny.json", other_type);
  EXPECT_THAT(LoadLinkerGate(path_, {}, "f00d", "0.1.0")->notes[0], HasSubstr("int8"));
}

TEST_F(LoadLinkerGateTest, DoubtfulFilesAreErrors) {
  EXPECT_EQ(LoadLinkerGate(path_, {}, "f00d", "0.1.0").status().code(), absl::StatusCode::kNotFound);
  Write("a.json", Verdicts("f00d", {Passing("naive")}));
  Write("b.json", Verdicts("f00d", {Failing("naive")}));
  EXPECT_THAT(std::string(LoadLinkerGate(path_, {}, "f00d", "0.1.0").status().message()),
              AllOf(HasSubstr("a.json"), HasSubstr("b.json"), HasSubstr("naive")));
  std::ofstream(path_ + "/b.json") << "{}";
  EXPECT_EQ(LoadLinkerGate(path_, {}, "f00d", "0.1.0").status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(LoadLinkerGate(path_ + "/a.json", {"naif"}, "f00d", "0.1.0").status().code(),
            absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace epic
