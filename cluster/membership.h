// Who belongs to the cluster: the addresses of its cache nodes and workers, as of now.
//
// Readers take a snapshot and work with it to the end of what they do; the next snapshot may be another. Where the list
// comes from is the implementation's business. The static list below never changes.
#ifndef EPIC_CLUSTER_MEMBERSHIP_H_
#define EPIC_CLUSTER_MEMBERSHIP_H_

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace epic {

// Addresses (HOST:PORT) in alphabetical order, each once. An address is also the member's name in placement, so a
// member that comes back under another address is another member.
struct MembershipSnapshot {
  std::vector<std::string> cache_nodes;
  std::vector<std::string> workers;
};

// Thread-safe.
class Membership {
 public:
  virtual ~Membership() = default;
  // Never null. Cheap: called for every request.
  virtual std::shared_ptr<const MembershipSnapshot> Current() const = 0;
};

// The list that the configuration names. INVALID_ARGUMENT, with all problems, for an empty list of either kind, an
// empty address, or one that stands twice.
absl::StatusOr<std::unique_ptr<Membership>> MakeStaticMembership(std::vector<std::string> cache_nodes,
                                                                 std::vector<std::string> workers);

}  // namespace epic

#endif  // EPIC_CLUSTER_MEMBERSHIP_H_
