// Numbers of rows and classes in the type that they are multiplied in, and sums of unscaled rows times their scales.
#pragma once
#include <cstring>
#include <type_traits>

#include "simd.h"

namespace tai {

constexpr int64_t kPageBytes = 4096;  // where the processor's own prefetching ends

// Calls `work` with the row type as a constant.
template <class Work>
void by_row_type(int32_t type, const Work& work) {
  switch (type) {
    case kFloat32: return work(std::integral_constant<RowType, kFloat32>{});
    case kFloat16: return work(std::integral_constant<RowType, kFloat16>{});
    case kBFloat16: return work(std::integral_constant<RowType, kBFloat16>{});
    default: return work(std::integral_constant<RowType, kInt8>{});
  }
}

template <RowType type>
const char* row_at(const void* rows, int64_t row, int64_t stride) {
  return static_cast<const char*>(rows) + row * stride * bytes_per_number(type);
}

// Numbers in fp32, scaled. What lies `ahead` bytes further on is asked for meanwhile.
template <RowType type>
void numbers_to_floats(const char* source, int64_t count, int64_t ahead, float scale, float* target) {
  int64_t k = 0;
  for (; k + kLanes <= count; k += kLanes) {
    __builtin_prefetch(source + ahead + k * bytes_per_number(type));
    store(target + k, row_vec<type>(source, k) * scale);
  }
  for (; k < count; ++k) target[k] = row_number<type>(source, k) * scale;
}

// Numbers in bf16, of which int8 ones are exact; `ahead` as above.
template <RowType type>
void numbers_to_bfloats(const char* source, int64_t count, int64_t ahead, uint16_t* target) {
  int64_t k = 0;
  for (; k + kLanes <= count; k += kLanes) {
    __builtin_prefetch(source + ahead + k * bytes_per_number(type));
    if constexpr (type == kBFloat16)
      store(target + k, load<HalfVec>(source + 2 * k));
    else
      store(target + k, vec_to_bfloat(row_vec<type>(source, k)));
  }
  for (; k < count; ++k) target[k] = float_to_bfloat(row_number<type>(source, k));
}

inline void scale_rows(const float* scales, int64_t rows, int64_t count, float* sums, int64_t sum_stride) {
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t c = 0; c < count; ++c) sums[r * sum_stride + c] *= scales[r];
}

}  // namespace tai
