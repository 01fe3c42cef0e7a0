// Passing an absl::Status up: EPIC_RETURN_IF_ERROR(expr) and EPIC_ASSIGN_OR_RETURN(declaration, expr).
#ifndef EPIC_CORE_STATUS_MACROS_H_
#define EPIC_CORE_STATUS_MACROS_H_

#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#define EPIC_CONCAT_INNER_(a, b) a##b
#define EPIC_CONCAT_(a, b) EPIC_CONCAT_INNER_(a, b)

#define EPIC_RETURN_IF_ERROR(expr)                                  \
  do {                                                              \
    if (::absl::Status epic_status_ = (expr); !epic_status_.ok()) { \
      return epic_status_;                                          \
    }                                                               \
  } while (false)

#define EPIC_ASSIGN_OR_RETURN(declaration, expr) \
  EPIC_ASSIGN_OR_RETURN_IMPL_(EPIC_CONCAT_(epic_or_, __LINE__), declaration, expr)
#define EPIC_ASSIGN_OR_RETURN_IMPL_(var, declaration, expr) \
  auto var = (expr);                                        \
  if (!var.ok()) return var.status();                       \
  declaration = *std::move(var)

#endif  // EPIC_CORE_STATUS_MACROS_H_
