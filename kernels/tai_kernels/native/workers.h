// Work in blocks that threads take one after the other, each with a workspace of its own.
#pragma once
#include <algorithm>
#include <atomic>
#include <cstdint>

#include "memory.h"
#include "threads.h"

namespace tai {

// A Worker for each thread does run(first, last) on blocks of Worker::kBlock of all things.
template <class Worker, class Job>
void in_blocks(const Job& job, int64_t count) {
  std::atomic<int64_t> next{0};
  in_threads(std::min<int64_t>(job.threads, (count + Worker::kBlock - 1) / Worker::kBlock), [&] {
    Worker worker(job);
    for (int64_t first; (first = next.fetch_add(Worker::kBlock)) < count;)
      worker.run(first, std::min(first + Worker::kBlock, count));
  });
}

}  // namespace tai
