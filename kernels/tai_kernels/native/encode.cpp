// The layers of a convolutional image tower on int16 rows with a scale each (a row: the channels of one pixel).
//
// Built by native_build.py into a plain shared library of its own, as score.cpp is; int16_library.py calls it.
#include "int16_convolution.h"
#include "int16_linear.h"
#include "int16_pool.h"

namespace tai {

template <class Worker, class Job>
int guarded(const Job& job, int64_t count) {
  try {
    in_blocks<Worker>(job, count);
    return 0;
  } catch (...) {
    return 1;
  }
}

}  // namespace tai

extern "C" {

// Sizes of the jobs together, so that Python can tell that its fields match.
int64_t tai_job_bytes() {
  return sizeof(tai::LinearJob) + sizeof(tai::WinogradJob) + sizeof(tai::PoolJob);
}

// The largest magnitude of a quantised row, which limits the weights.
float tai_largest() { return tai::kLargest; }

// Each returns 0, or 1 when memory ran out.
int tai_linear(const tai::LinearJob* job) { return tai::guarded<tai::LinearWorker>(*job, job->count); }
int tai_winograd(const tai::WinogradJob* job) {
  return tai::guarded<tai::WinogradWorker>(*job, tai::WinogradWorker::tiles(*job));
}
int tai_pool(const tai::PoolJob* job) { return tai::guarded<tai::PoolWorker>(*job, job->lines); }
}
