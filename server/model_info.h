// How a process describes the model that it runs.
#ifndef EPIC_SERVER_MODEL_INFO_H_
#define EPIC_SERVER_MODEL_INFO_H_

#include "engine/engine.h"
#include "epic/v1/common.pb.h"

namespace epic {

v1::ModelInfo ModelInfoOf(const Engine& engine);

}  // namespace epic

#endif  // EPIC_SERVER_MODEL_INFO_H_
