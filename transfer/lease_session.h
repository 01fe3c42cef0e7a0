// A reader's side of a node's lease socket (cache_node/lease_socket.h): an open connection is a session.
#ifndef EPIC_TRANSFER_LEASE_SESSION_H_
#define EPIC_TRANSFER_LEASE_SESSION_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "absl/status/statusor.h"

namespace epic {

// What a node says to whoever connects: magic, the node's instance, the session. Little-endian.
struct LeaseHello {
  uint64_t instance_id = 0;
  uint64_t session_id = 0;
};
inline constexpr size_t kLeaseHelloBytes = 24;
std::array<char, kLeaseHelloBytes> EncodeLeaseHello(const LeaseHello& hello);
std::optional<LeaseHello> DecodeLeaseHello(const std::array<char, kLeaseHelloBytes>& bytes);

// Thread-safe; ends with the object.
class LeaseSession {
 public:
  // Connects and hears the hello, within five seconds. NOT_FOUND: nobody listens there. FAILED_PRECONDITION: it is
  // another node, that of another host with the same path perhaps. PERMISSION_DENIED: the node does not let this user
  // in. UNAVAILABLE: anything else.
  static absl::StatusOr<std::unique_ptr<LeaseSession>> Connect(const std::string& path, uint64_t instance_id);
  ~LeaseSession();
  LeaseSession(const LeaseSession&) = delete;
  LeaseSession& operator=(const LeaseSession&) = delete;

  uint64_t id() const { return id_; }
  uint64_t instance_id() const { return instance_id_; }
  // Whether the node still holds its end. Does not block.
  bool IsOpen() const;

 private:
  LeaseSession(int descriptor, const LeaseHello& hello)
      : descriptor_(descriptor), id_(hello.session_id), instance_id_(hello.instance_id) {}

  const int descriptor_;
  const uint64_t id_;
  const uint64_t instance_id_;
};

}  // namespace epic

#endif  // EPIC_TRANSFER_LEASE_SESSION_H_
