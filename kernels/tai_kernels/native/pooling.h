// From a tile of similarities to scores: pooling over each item's rows, as tai_kernels/pooling.py defines it.
#pragma once
#include <cmath>
#include <limits>
#include <vector>

#include "job.h"
#include "simd.h"

namespace tai {

constexpr float kLog2E = 1.4426950408889634f;

// What is known of an item, for one vector of classes, after some of its rows.
struct Running {
  Vec maximum;
  Vec sum;       // softmax: sum of exp(temperature (s - maximum))
  Vec weighted;  // softmax: the same sum weighted by s
  IntVec first;  // max: position of the first row that reaches the maximum
};

// Pool `count` rows of one vector of classes; `position` is the first row's place within its item.
template <bool max_pooling>
inline Running pool_rows(const float* sums, int64_t stride, int64_t count, int64_t position, float temperature_log2) {
  Running run;
  run.maximum = load(sums);
  if constexpr (max_pooling) {
    run.first = IntVec{} + int32_t(position);
    for (int64_t r = 1; r < count; ++r) {
      const Vec s = load(sums + r * stride);
      const auto better = s > run.maximum;
      run.first = better ? IntVec{} + int32_t(position + r) : run.first;
      run.maximum = better ? s : run.maximum;
    }
    run.sum = run.weighted = Vec{};
  } else {
    for (int64_t r = 1; r < count; ++r) run.maximum = larger(run.maximum, load(sums + r * stride));
    run.sum = run.weighted = Vec{};
    run.first = IntVec{};
    for (int64_t r = 0; r < count; ++r) {
      const Vec s = load(sums + r * stride);
      const Vec e = exp2_nonpositive((s - run.maximum) * temperature_log2);
      run.sum += e;
      run.weighted += e * s;
    }
  }
  return run;
}

// Join what two stretches of rows of the same item gave; `a` comes first.
template <bool max_pooling>
inline Running join(const Running& a, const Running& b, float temperature_log2) {
  Running run;
  run.maximum = larger(a.maximum, b.maximum);
  if constexpr (max_pooling) {
    run.first = b.maximum > a.maximum ? b.first : a.first;
    run.sum = run.weighted = Vec{};
  } else {
    const Vec keep_a = exp2_nonpositive((a.maximum - run.maximum) * temperature_log2);
    const Vec keep_b = exp2_nonpositive((b.maximum - run.maximum) * temperature_log2);
    run.sum = a.sum * keep_a + b.sum * keep_b;
    run.weighted = a.weighted * keep_a + b.weighted * keep_b;
    run.first = IntVec{};
  }
  return run;
}

inline void store_some(float* target, Vec v, int64_t count) {
  if (count >= kLanes)
    store(target, v);
  else
    for (int i = 0; i < count; ++i) target[i] = v[i];
}

inline Vec load_some(const float* source, int64_t count) {
  if (count >= kLanes) return load(source);
  Vec v{};
  for (int i = 0; i < count; ++i) v[i] = source[i];
  return v;
}

// Write one item's scores for the vector of classes that starts at class `at`.
template <bool max_pooling>
inline void emit(const Job& job, int64_t item, int64_t at, const Running& run) {
  const int64_t count = job.class_count - at;
  const int64_t place = item * job.class_count + at;
  const Vec value = max_pooling ? run.maximum : run.weighted / run.sum;
  const Vec fine = value * job.scale;
  if (job.fine) store_some(job.fine + place, fine, count);
  if (job.merged) {
    const Vec coarse = load_some(job.coarse + place, count);
    store_some(job.merged + place, fine + (coarse - fine) * job.mix, count);
  }
  if (job.state) {
    for (int i = 0; i < kLanes && i < count; ++i) {
      if constexpr (max_pooling)
        static_cast<int32_t*>(job.state)[place + i] = run.first[i];
      else
        static_cast<float*>(job.state)[place + i] = job.temperature * run.maximum[i] + std::log(run.sum[i]);
    }
  }
}

// An item without rows: its fine score is its coarse score.
inline void emit_empty(const Job& job, int64_t item) {
  for (int64_t place = item * job.class_count; place < (item + 1) * job.class_count; ++place) {
    const float coarse = job.coarse ? job.coarse[place] : 0.0f;
    if (job.fine) job.fine[place] = coarse;
    if (job.merged) job.merged[place] = coarse;
    if (job.state) static_cast<int32_t*>(job.state)[place] = 0;  // a float zero as well
  }
}

}  // namespace tai
