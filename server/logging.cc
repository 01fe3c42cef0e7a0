#include "server/logging.h"

#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>

#include <map>
#include <memory>

namespace epic {

absl::Status InitLogging(const std::string& program, const std::string& level) {
  static const std::map<std::string, spdlog::level::level_enum> kLevels = {{"trace", spdlog::level::trace},
                                                                           {"debug", spdlog::level::debug},
                                                                           {"info", spdlog::level::info},
                                                                           {"warning", spdlog::level::warn},
                                                                           {"error", spdlog::level::err}};
  const auto found = kLevels.find(level);
  if (found == kLevels.end()) {
    return absl::InvalidArgumentError(
        fmt::format("log-level is \"{}\"; expected trace, debug, info, warning or error", level));
  }
  auto logger = std::make_shared<spdlog::logger>(program, std::make_shared<spdlog::sinks::stderr_sink_mt>());
  logger->set_pattern("%Y-%m-%dT%H:%M:%S.%eZ %l %n: %v", spdlog::pattern_time_type::utc);
  logger->set_level(found->second);
  logger->flush_on(spdlog::level::warn);
  spdlog::set_default_logger(std::move(logger));
  return absl::OkStatus();
}

}  // namespace epic
