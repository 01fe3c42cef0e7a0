// Every limit of EPIC that is not configuration: its name says what it bounds and in which unit, the comment says why.
#ifndef EPIC_CORE_LIMITS_H_
#define EPIC_CORE_LIMITS_H_

#include <cstddef>
#include <cstdint>

namespace epic {

// A document's text. Long enough for a book; the manifest keeps the text, so it bounds a record as well.
inline constexpr size_t kDocumentTextBytesMax = 4u << 20;
// A document's tokens: what 4 MiB of text can become at one token a character is refused beyond this.
inline constexpr int32_t kDocumentTokensMax = 1 << 20;
// Tokens of a document that are compiled in sight of each other (recipe "document"), the chunk itself included: bounds
// what a chunk costs to compile when nothing of its context is held, and what a request says of it.
inline constexpr int32_t kDocumentSectionTokensMax = 4096;
// Ids and tenants appear in keys, log lines and file listings.
inline constexpr size_t kDocumentIdBytesMax = 128;
inline constexpr size_t kTenantBytesMax = 64;
inline constexpr size_t kRequestIdBytesMax = 128;
inline constexpr size_t kLabelBytesMax = 256;
inline constexpr size_t kLabelsMax = 32;
// A prompt: segments, and bytes of text in all of them. Token counts are bounded by the model's context.
inline constexpr size_t kPromptSegmentsMax = 4096;
inline constexpr size_t kPromptTextBytesMax = 8u << 20;
inline constexpr size_t kStopStringsMax = 16;
inline constexpr size_t kStopStringBytesMax = 256;
inline constexpr int32_t kTopLogprobsMax = 1 << 20;  // bounded by the vocabulary
inline constexpr int32_t kContinuationTokensMax = 4096;
// A document's time to live: a hundred years, so that no sum of times overflows.
inline constexpr int64_t kDocumentTtlMsMax = int64_t{100} * 365 * 24 * 3600 * 1000;
// One page of a listing.
inline constexpr int32_t kPageSizeDefault = 100;
inline constexpr int32_t kPageSizeMax = 1000;
// Chunks in one Locate: the chunks of the longest prompt with room to spare.
inline constexpr size_t kLocateChunksMax = 4096;
// A gRPC message, both ways. Holds the largest document with its token ids.
inline constexpr int kGrpcMessageBytesMax = 16 << 20;
// A piece of a block on a gRPC stream. Measured to be the best trade of copies and overhead on loopback.
inline constexpr size_t kTransferPieceBytes = 1u << 20;
// Leases of readers in other processes on one node, and the longest time for which one may be granted.
inline constexpr size_t kLeasesMax = 1 << 18;
inline constexpr int64_t kLeaseMsMax = 600'000;
// WatchDocument calls on one node: each takes one of the server's threads for as long as it watches.
inline constexpr int kWatchesMax = 128;
// Requests that one worker's scheduler holds, running and waiting. Beyond it RESOURCE_EXHAUSTED.
inline constexpr size_t kSchedulerRequestsMax = 1024;
// Documents waiting to be compiled on one node: more are kept in the manifest and picked up as the queue drains.
inline constexpr size_t kCompileQueueMax = 65536;
// Shadow checks of one worker that wait until it is idle, and the bytes of their token ids and probabilities: a picture
// of the recent past is enough, the oldest go first. A prompt of a million tokens still fits.
inline constexpr size_t kShadowQueueMax = 64;
inline constexpr size_t kShadowQueueBytesMax = 16u << 20;
// From the answer's first token to the end of its shadow check. Older ones say little about now.
inline constexpr int64_t kShadowCheckMsMax = 600'000;
// How often one shadow check is started: a worker that is never idle for long enough gives it up.
inline constexpr int32_t kShadowStartsMax = 3;
// Of how many of a linker's last shadow checks a worker tells, and of how many linkers, those checked last.
inline constexpr size_t kShadowWindowChecks = 256;
inline constexpr size_t kShadowLinkersMax = 16;
// Deadlines, where the caller set none.
inline constexpr int64_t kControlDeadlineMsDefault = 10'000;    // create, get, list, delete, status
inline constexpr int64_t kGenerateDeadlineMsDefault = 600'000;  // a long prompt on a slow CPU
inline constexpr int64_t kTransferDeadlineMsDefault = 30'000;   // one block
inline constexpr int64_t kLeaseMsDefault = 60'000;  // renewed by use; a dead reader's blocks come free after it
inline constexpr int64_t kShutdownGraceMs = 10'000;

}  // namespace epic

#endif  // EPIC_CORE_LIMITS_H_
