// What the cluster is made of and how busy it is: every member's health and numbers, asked for at the same time.
#ifndef EPIC_ROUTER_STATUS_REPORT_H_
#define EPIC_ROUTER_STATUS_REPORT_H_

#include <chrono>

#include "cluster/membership.h"
#include "router/backends.h"

namespace epic {

// Never fails: a member that does not answer within `timeout` is in the report with the reason as its health.
v1::GetStatusResponse MakeStatusReport(const CallScope& scope, const Membership& membership, Backends* backends,
                                       std::chrono::milliseconds timeout);

}  // namespace epic

#endif  // EPIC_ROUTER_STATUS_REPORT_H_
