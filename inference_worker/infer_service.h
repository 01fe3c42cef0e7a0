// InferenceService as a worker serves it: gRPC's side of worker.h.
//
// Infer has no thread of its own: the engine's pushes and the client's reads drive it, so that any number of slow
// clients cost no threads. Thread-safe.
#ifndef EPIC_INFERENCE_WORKER_INFER_SERVICE_H_
#define EPIC_INFERENCE_WORKER_INFER_SERVICE_H_

#include <grpcpp/grpcpp.h>

#include <string>

#include "epic/v1/inference.grpc.pb.h"
#include "inference_worker/worker.h"

namespace epic {

class InferService final : public v1::InferenceService::WithCallbackMethod_Infer<v1::InferenceService::Service> {
 public:
  // `worker` must outlive the service. `worker_id` names it in answers and reports.
  InferService(Worker* worker, std::string worker_id) : worker_(worker), worker_id_(std::move(worker_id)) {}

  grpc::ServerWriteReactor<v1::GenerateResponse>* Infer(grpc::CallbackServerContext* context,
                                                        const v1::InferRequest* request) override;
  grpc::Status GetWorkerStatus(grpc::ServerContext* context, const v1::GetWorkerStatusRequest* request,
                               v1::GetWorkerStatusResponse* response) override;

 private:
  Worker* const worker_;
  const std::string worker_id_;
};

}  // namespace epic

#endif  // EPIC_INFERENCE_WORKER_INFER_SERVICE_H_
