#include "cache_node/lease_socket.h"

#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <system_error>
#include <utility>

#include "core/status_macros.h"
#include "fmt/format.h"
#include "spdlog/spdlog.h"
#include "transfer/lease_session.h"

namespace epic {
namespace {

absl::Status SystemError(const std::string& what, int error) {
  const std::string message = fmt::format("{}: {}", what, std::generic_category().message(error));
  return error == EACCES || error == EPERM ? absl::PermissionDeniedError(message) : absl::UnavailableError(message);
}

sockaddr_un AddressOf(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::copy(path.begin(), path.end(), address.sun_path);
  return address;
}

// Removes a socket that nobody listens on any more.
absl::Status ClearPath(const std::string& path, const sockaddr_un& address) {
  struct stat found {};
  if (lstat(path.c_str(), &found) != 0) {
    return errno == ENOENT ? absl::OkStatus() : SystemError(fmt::format("cannot look at {}", path), errno);
  }
  if (!S_ISSOCK(found.st_mode)) {
    return absl::FailedPreconditionError(
        fmt::format("{} is there and is no socket; choose another lease-socket", path));
  }
  const int probe = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  const bool is_used = probe >= 0 && connect(probe, reinterpret_cast<const sockaddr*>(&address), sizeof(address)) == 0;
  if (probe >= 0) close(probe);
  if (is_used) {
    return absl::FailedPreconditionError(fmt::format("another node listens on {}; choose another lease-socket", path));
  }
  if (unlink(path.c_str()) != 0 && errno != ENOENT) return SystemError(fmt::format("cannot remove {}", path), errno);
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::unique_ptr<LeaseSocket>> LeaseSocket::Open(const LeaseSocketOptions& options, uint64_t instance_id,
                                                               LeaseTable* leases) {
  if (options.path.empty() || options.path.size() >= sizeof(sockaddr_un::sun_path)) {
    return absl::InvalidArgumentError(fmt::format("lease-socket has a path of {} bytes, expected 1 to {}",
                                                  options.path.size(), sizeof(sockaddr_un::sun_path) - 1));
  }
  const sockaddr_un address = AddressOf(options.path);
  EPIC_RETURN_IF_ERROR(ClearPath(options.path, address));
  const int listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (listener < 0) return SystemError("no socket", errno);
  if (bind(listener, reinterpret_cast<const sockaddr*>(&address), sizeof(address)) != 0 || listen(listener, 64) != 0) {
    const absl::Status status = SystemError(fmt::format("cannot listen on {}", options.path), errno);
    close(listener);
    return status;
  }
  const int stop_event = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  if (stop_event < 0) {
    const absl::Status status = SystemError("no eventfd", errno);
    close(listener);
    return status;
  }
  return std::unique_ptr<LeaseSocket>(new LeaseSocket(options, instance_id, leases, listener, stop_event));
}

LeaseSocket::LeaseSocket(const LeaseSocketOptions& options, uint64_t instance_id, LeaseTable* leases, int listener,
                         int stop_event)
    : options_(options),
      instance_id_(instance_id),
      leases_(leases),
      listener_(listener),
      stop_event_(stop_event),
      thread_([this] { Run(); }) {}

LeaseSocket::~LeaseSocket() {
  const uint64_t one = 1;
  static_cast<void>(!write(stop_event_, &one, sizeof(one)));  // an eventfd takes it always
  thread_.join();
  for (const Session& session : sessions_) {
    leases_->EndSession(session.id);
    close(session.descriptor);
  }
  unlink(options_.path.c_str());
  close(listener_);
  close(stop_event_);
}

void LeaseSocket::Run() {
  while (true) {
    std::vector<pollfd> waits{{.fd = stop_event_, .events = POLLIN, .revents = 0},
                              {.fd = listener_, .events = POLLIN, .revents = 0}};
    for (const Session& session : sessions_)
      waits.push_back({.fd = session.descriptor, .events = POLLIN, .revents = 0});
    if (poll(waits.data(), waits.size(), -1) < 0 && errno != EINTR) {
      spdlog::error("the lease socket {} cannot be waited for: {}", options_.path,
                    std::generic_category().message(errno));
      return;
    }
    if (waits[0].revents != 0) return;
    // Whatever happens on a connection ends it: its reader closed it, died, or does not keep to the protocol.
    for (size_t i = sessions_.size(); i-- > 0;) {
      if (waits[i + 2].revents == 0) continue;
      const size_t ended = leases_->EndSession(sessions_[i].id);
      if (ended > 0) spdlog::info("a reader's lease socket was closed; {} leases ended", ended);
      close(sessions_[i].descriptor);
      sessions_.erase(sessions_.begin() + static_cast<ptrdiff_t>(i));
    }
    if (waits[1].revents != 0) Accept();
  }
}

void LeaseSocket::Accept() {
  const int descriptor = accept4(listener_, nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK);
  if (descriptor < 0) return;
  ucred peer{};
  socklen_t length = sizeof(peer);
  const bool is_known = getsockopt(descriptor, SOL_SOCKET, SO_PEERCRED, &peer, &length) == 0;
  const bool is_allowed = is_known && std::find(options_.allowed_uids.begin(), options_.allowed_uids.end(), peer.uid) !=
                                          options_.allowed_uids.end();
  if (!is_allowed || sessions_.size() >= options_.sessions_max) {
    ++refused_total_;
    spdlog::warn("a reader of user {} was refused at the lease socket: {}", peer.uid,
                 is_allowed ? "too many sessions" : "its user is not among those allowed");
    close(descriptor);
    return;
  }
  const Session session{.descriptor = descriptor, .id = SystemRandom64() | 1};  // never 0
  leases_->OpenSession(session.id);
  const std::array<char, kLeaseHelloBytes> hello =
      EncodeLeaseHello({.instance_id = instance_id_, .session_id = session.id});
  // A new socket's buffer takes it whole.
  if (send(descriptor, hello.data(), hello.size(), MSG_NOSIGNAL) != static_cast<ssize_t>(hello.size())) {
    leases_->EndSession(session.id);
    close(descriptor);
    return;
  }
  sessions_.push_back(session);
}

}  // namespace epic
