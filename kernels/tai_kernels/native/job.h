// One call, as Python fills it in (native_score.py holds the same fields in the same order).
#pragma once
#include <cstdint>

namespace tai {

struct Job {
  const void* rows;         // [T, D], row_stride numbers apart
  const float* row_scales;  // [T] with int8 rows, else null
  const int64_t* offsets;   // [N + 1]
  const void* classes;      // [C, D], neighbours in memory
  const float* coarse;      // [N, C] scores to merge with, or null
  float* fine;              // [N, C] out, or null
  float* merged;            // [N, C] out, or null; needs coarse
  void* state;              // [N, C] out: log-sum-exp (float) or argmax (int32), or null
  int64_t items;            // N
  int64_t dim;              // D
  int64_t class_count;      // C
  int64_t row_stride;
  int32_t row_type;    // RowType
  int32_t class_type;  // RowType, but int8
  int32_t max_pooling;
  int32_t in_bf16;     // 1: multiplied in bf16; only where tai_bf16_products() says that the machine does
  int32_t threads;
  float temperature;
  float scale;
  float mix;
};

inline int64_t round_up(int64_t n, int64_t step) { return (n + step - 1) / step * step; }

}  // namespace tai
