// The socket by which readers on the node's host hold their leases.
//
// A reader connects to a Unix socket and is told, in kLeaseHelloBytes bytes, which instance of the node it has reached
// and under which session its leases are granted. It keeps the connection open as long as it reads. When the connection
// ends, by close or by the death of the process, the session ends and its leases with it: at once, and never before.
// Nothing that a reader sends is read; one that sends is cut off.
//
// Only processes of the allowed user ids are let in, by what the kernel says of the peer. Thread-safe.
#ifndef EPIC_CACHE_NODE_LEASE_SOCKET_H_
#define EPIC_CACHE_NODE_LEASE_SOCKET_H_

#include <sys/types.h>

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/status/statusor.h"
#include "storage/lease_table.h"

namespace epic {

struct LeaseSocketOptions {
  std::string path;  // at most 107 bytes; a socket that a dead node left there is replaced
  std::vector<uid_t> allowed_uids;
  size_t sessions_max = 256;
};

class LeaseSocket {
 public:
  // `leases` must outlive the socket. INVALID_ARGUMENT: the path is too long. FAILED_PRECONDITION: another node
  // listens there, or something that is no socket is in the way. PERMISSION_DENIED, UNAVAILABLE: the system's reason.
  static absl::StatusOr<std::unique_ptr<LeaseSocket>> Open(const LeaseSocketOptions& options, uint64_t instance_id,
                                                           LeaseTable* leases);
  // Ends all sessions and removes the socket.
  ~LeaseSocket();
  LeaseSocket(const LeaseSocket&) = delete;
  LeaseSocket& operator=(const LeaseSocket&) = delete;

  const std::string& path() const { return options_.path; }
  uint64_t refused_total() const { return refused_total_; }

 private:
  LeaseSocket(const LeaseSocketOptions& options, uint64_t instance_id, LeaseTable* leases, int listener,
              int stop_event);
  void Run();
  void Accept();

  struct Session {
    int descriptor = -1;
    uint64_t id = 0;
  };

  const LeaseSocketOptions options_;
  const uint64_t instance_id_;
  LeaseTable* const leases_;
  const int listener_;
  const int stop_event_;
  std::atomic<uint64_t> refused_total_{0};
  std::vector<Session> sessions_;  // the thread's
  std::thread thread_;
};

}  // namespace epic

#endif  // EPIC_CACHE_NODE_LEASE_SOCKET_H_
