#include "transfer/lease_session.h"

#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <string_view>
#include <system_error>

#include "core/byte_codec.h"
#include "fmt/format.h"

namespace epic {
namespace {

constexpr std::string_view kMagic = "EPICLSE1";
constexpr int kHelloMsMax = 5000;

}  // namespace

std::array<char, kLeaseHelloBytes> EncodeLeaseHello(const LeaseHello& hello) {
  ByteWriter writer;
  writer.PutRaw(kMagic);
  writer.Put(hello.instance_id);
  writer.Put(hello.session_id);
  std::array<char, kLeaseHelloBytes> bytes{};
  std::copy(writer.bytes().begin(), writer.bytes().end(), bytes.begin());
  return bytes;
}

std::optional<LeaseHello> DecodeLeaseHello(const std::array<char, kLeaseHelloBytes>& bytes) {
  ByteReader reader(std::string_view(bytes.data(), bytes.size()));
  if (reader.GetRaw(kMagic.size()) != kMagic) return std::nullopt;
  LeaseHello hello;
  hello.instance_id = reader.Get<uint64_t>();
  hello.session_id = reader.Get<uint64_t>();
  return hello;
}

absl::StatusOr<std::unique_ptr<LeaseSession>> LeaseSession::Connect(const std::string& path, uint64_t instance_id) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.empty() || path.size() >= sizeof(address.sun_path)) {
    return absl::NotFoundError(fmt::format("no lease socket can be at a path of {} bytes", path.size()));
  }
  std::copy(path.begin(), path.end(), address.sun_path);
  const int descriptor = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (descriptor < 0) {
    return absl::UnavailableError(fmt::format("no socket: {}", std::generic_category().message(errno)));
  }
  const auto fail = [&](absl::Status status) {
    close(descriptor);
    return status;
  };
  if (connect(descriptor, reinterpret_cast<const sockaddr*>(&address), sizeof(address)) != 0) {
    const std::string message =
        fmt::format("cannot connect to lease socket {}: {}", path, std::generic_category().message(errno));
    if (errno == ENOENT || errno == ECONNREFUSED || errno == ENOTDIR) return fail(absl::NotFoundError(message));
    if (errno == EACCES || errno == EPERM) return fail(absl::PermissionDeniedError(message));
    return fail(absl::UnavailableError(message));
  }
  std::array<char, kLeaseHelloBytes> bytes{};
  size_t got = 0;
  while (got < bytes.size()) {
    pollfd wait{.fd = descriptor, .events = POLLIN, .revents = 0};
    const int ready = poll(&wait, 1, kHelloMsMax);
    if (ready < 0 && errno == EINTR) continue;
    if (ready <= 0) return fail(absl::UnavailableError(fmt::format("lease socket {} says nothing", path)));
    const ssize_t count = recv(descriptor, bytes.data() + got, bytes.size() - got, 0);
    if (count < 0 && (errno == EINTR || errno == EAGAIN)) continue;
    if (count <= 0) {
      return fail(absl::PermissionDeniedError(
          fmt::format("the node behind lease socket {} lets this user not in, or has too many sessions", path)));
    }
    got += static_cast<size_t>(count);
  }
  const std::optional<LeaseHello> hello = DecodeLeaseHello(bytes);
  if (!hello || hello->instance_id != instance_id) {
    return fail(absl::FailedPreconditionError(fmt::format("lease socket {} belongs to another node", path)));
  }
  return std::unique_ptr<LeaseSession>(new LeaseSession(descriptor, *hello));
}

LeaseSession::~LeaseSession() { close(descriptor_); }

bool LeaseSession::IsOpen() const {
  char byte = 0;
  const ssize_t count = recv(descriptor_, &byte, 1, MSG_DONTWAIT | MSG_PEEK);
  return count < 0 && (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR);
}

}  // namespace epic
