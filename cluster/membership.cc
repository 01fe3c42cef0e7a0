#include "cluster/membership.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <utility>

namespace epic {
namespace {

class StaticMembership final : public Membership {
 public:
  explicit StaticMembership(MembershipSnapshot snapshot)
      : snapshot_(std::make_shared<const MembershipSnapshot>(std::move(snapshot))) {}
  std::shared_ptr<const MembershipSnapshot> Current() const override { return snapshot_; }

 private:
  const std::shared_ptr<const MembershipSnapshot> snapshot_;
};

void SortAndCheck(const std::string& field, std::vector<std::string>* addresses, std::vector<std::string>* problems) {
  if (addresses->empty()) problems->push_back(fmt::format("{} is empty; expected at least one HOST:PORT", field));
  std::sort(addresses->begin(), addresses->end());
  for (size_t i = 0; i < addresses->size(); ++i) {
    const std::string& address = (*addresses)[i];
    if (address.empty()) problems->push_back(fmt::format("{} has an empty address; expected HOST:PORT", field));
    if (i > 0 && address == (*addresses)[i - 1]) {
      problems->push_back(fmt::format("{} names {} twice; expected each address once", field, address));
    }
  }
}

}  // namespace

absl::StatusOr<std::unique_ptr<Membership>> MakeStaticMembership(std::vector<std::string> cache_nodes,
                                                                 std::vector<std::string> workers) {
  std::vector<std::string> problems;
  SortAndCheck("cache-nodes", &cache_nodes, &problems);
  SortAndCheck("workers", &workers, &problems);
  if (!problems.empty()) return absl::InvalidArgumentError(fmt::format("{}", fmt::join(problems, "\n")));
  return std::make_unique<StaticMembership>(MembershipSnapshot{std::move(cache_nodes), std::move(workers)});
}

}  // namespace epic
