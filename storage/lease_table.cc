#include "storage/lease_table.h"

#include <sys/random.h>

#include <cerrno>
#include <cstdlib>
#include <utility>
#include <vector>

#include "fmt/format.h"

namespace epic {
namespace {

std::chrono::milliseconds Milliseconds(LeaseTable::Duration duration) {
  return std::chrono::duration_cast<std::chrono::milliseconds>(duration);
}

}  // namespace

uint64_t SystemRandom64() {
  uint64_t value = 0;
  ssize_t got = 0;
  do {
    got = getrandom(&value, sizeof(value), 0);
  } while (got < 0 && errno == EINTR);
  if (got != static_cast<ssize_t>(sizeof(value))) std::abort();
  return value;
}

LeaseTable::LeaseTable(size_t leases_max, std::function<uint64_t()> random)
    : leases_max_(leases_max), random_(std::move(random)) {}

absl::StatusOr<uint64_t> LeaseTable::Enter(Record&& record) {
  if (records_.size() >= leases_max_) {
    return absl::ResourceExhaustedError(
        fmt::format("{} leases are granted, the limit is {}; release some or wait until they expire", records_.size(),
                    leases_max_));
  }
  uint64_t id = random_();
  while (id == 0 || records_.contains(id)) id = random_();
  records_.emplace(id, std::move(record));
  return id;
}

absl::StatusOr<uint64_t> LeaseTable::Grant(BlockStore::Lease lease, TimePoint now, Duration ttl) {
  Record record;
  record.lease = std::make_shared<const BlockStore::Lease>(std::move(lease));
  record.ttl = ttl;
  record.expires = now + ttl;
  const MutexLock lock(mutex_);
  return Enter(std::move(record));
}

absl::StatusOr<uint64_t> LeaseTable::GrantInSession(BlockStore::Lease lease, uint64_t session) {
  Record record;
  record.lease = std::make_shared<const BlockStore::Lease>(std::move(lease));
  record.session = session;
  const MutexLock lock(mutex_);
  const auto open = sessions_.find(session);
  if (open == sessions_.end()) {
    return absl::FailedPreconditionError(
        "no such session: its socket was closed, or the node was started anew; connect to the lease socket again");
  }
  absl::StatusOr<uint64_t> id = Enter(std::move(record));
  if (id.ok()) open->second.insert(*id);
  return id;
}

void LeaseTable::OpenSession(uint64_t session) {
  const MutexLock lock(mutex_);
  sessions_.try_emplace(session);
}

size_t LeaseTable::EndSession(uint64_t session) {
  std::vector<std::shared_ptr<const BlockStore::Lease>> ended;  // end behind the lock
  const MutexLock lock(mutex_);
  const auto open = sessions_.find(session);
  if (open == sessions_.end()) return 0;
  for (const uint64_t id : open->second) {
    const auto record = records_.find(id);
    ended.push_back(std::move(record->second.lease));
    records_.erase(record);
  }
  sessions_.erase(open);
  return ended.size();
}

absl::StatusOr<std::shared_ptr<const BlockStore::Lease>> LeaseTable::Find(uint64_t id, uint64_t edition,
                                                                          TimePoint now) {
  const MutexLock lock(mutex_);
  const auto found = records_.find(id);
  if (found == records_.end()) {
    return absl::NotFoundError(
        "no such lease: it was released, has expired, or was never granted; locate the chunk again");
  }
  Record& record = found->second;
  if (record.IsOver(now)) {
    return absl::NotFoundError(
        fmt::format("the lease expired {} ms ago, after {} ms without use; locate the chunk again",
                    Milliseconds(now - record.expires).count(), Milliseconds(record.ttl).count()));
  }
  if (record.lease->edition() != edition) {
    return absl::FailedPreconditionError(fmt::format("the lease is on edition {:016x}, edition {:016x} was asked for",
                                                     record.lease->edition(), edition));
  }
  record.expires = now + record.ttl;
  return record.lease;
}

bool LeaseTable::Release(uint64_t id) {
  std::shared_ptr<const BlockStore::Lease> ended;  // ends behind the lock
  const MutexLock lock(mutex_);
  const auto found = records_.find(id);
  if (found == records_.end()) return false;
  ended = std::move(found->second.lease);
  if (found->second.session != 0) sessions_.at(found->second.session).erase(id);
  records_.erase(found);
  return true;
}

size_t LeaseTable::Sweep(TimePoint now) {
  std::vector<std::shared_ptr<const BlockStore::Lease>> ended;  // end behind the lock
  const MutexLock lock(mutex_);
  for (auto record = records_.begin(); record != records_.end();) {
    const auto current = record++;
    if (!current->second.IsOver(now)) continue;
    ended.push_back(std::move(current->second.lease));
    records_.erase(current);
  }
  return ended.size();
}

size_t LeaseTable::session_count() const {
  const MutexLock lock(mutex_);
  return sessions_.size();
}

size_t LeaseTable::size() const {
  const MutexLock lock(mutex_);
  return records_.size();
}

}  // namespace epic
