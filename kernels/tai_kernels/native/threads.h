// The same work by several threads, of which this one is the first.
#pragma once
#include <cstdint>
#include <exception>
#include <mutex>
#include <thread>
#include <vector>

namespace tai {

// Calls `work` in up to `count` threads and waits for all; what one of them throws is thrown here.
template <class Work>
void in_threads(int64_t count, const Work& work) {
  std::exception_ptr failure;
  std::mutex failure_lock;
  const auto guarded = [&] {
    try {
      work();
    } catch (...) {
      const std::lock_guard<std::mutex> guard(failure_lock);
      failure = std::current_exception();
    }
  };
  std::vector<std::thread> threads;
  try {
    for (int64_t t = 1; t < count; ++t) threads.emplace_back(guarded);
  } catch (...) {  // no more threads to be had: those that run, and this one, do the work
  }
  guarded();
  for (std::thread& thread : threads) thread.join();
  if (failure) std::rethrow_exception(failure);
}

}  // namespace tai
