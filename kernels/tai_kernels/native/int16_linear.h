// Linear maps of int16 rows, which are 1x1 convolutions.
#pragma once
#include "int16_gemm.h"
#include "workers.h"

namespace tai {

// Fields as in int16_library.py's structure of the same name, in the same order.
struct LinearJob {
  const int16_t* rows;         // [M, K]
  const float* row_scales;     // [M]
  const int16_t* weights;      // packed [panel][K / 2][16][2]
  const float* column_scales;  // [N rounded up to a panel]
  const float* bias;           // [N rounded up to a panel]
  const int16_t* other;        // [M, N] rows to add, or null
  const float* other_scales;   // [M]
  int16_t* out;                // [M, N], or null
  float* out_scales;           // [M]
  float* out_floats;           // [M, N] in place of the two, or null
  int64_t count;               // M
  int64_t depth;               // K, even
  int64_t columns;             // N, a multiple of eight
  int32_t relu;
  int32_t threads;
};

class LinearWorker {
 public:
  static constexpr int64_t kBlock = 48;  // rows: of N = 1024 sums 192 KiB, for the second-level cache

  explicit LinearWorker(const LinearJob& job)
      : job_(job), stride_(whole_panels(job.columns)), sums_(job.out ? kBlock * stride_ : 0) {}

  void run(int64_t first, int64_t last) {
    const int16_t* rows = job_.rows + first * job_.depth;
    const float* scales = job_.row_scales + first;
    for (int64_t column = 0; column < job_.columns; column += kPanel) {
      const Vec by_column[] = {load(job_.column_scales + column), load(job_.column_scales + column + kLanes)};
      const Vec bias[] = {load(job_.bias + column), load(job_.bias + column + kLanes)};
      const auto multiply = [&](const auto& keep) {
        multiply_panel_int16(last - first, rows, job_.depth, job_.weights + column * job_.depth, job_.depth,
                             [&](int64_t m, int v, Vec products) {
                               keep(m, column + v * kLanes, products * (splat(scales[m]) * by_column[v]) + bias[v]);
                             });
      };
      if (job_.out)
        multiply([&](int64_t m, int64_t at, Vec sums) { store(sums_.get() + m * stride_ + at, sums); });
      else
        multiply([&](int64_t m, int64_t at, Vec sums) {
          if (at < job_.columns)
            store(job_.out_floats + (first + m) * job_.columns + at, job_.relu ? larger(sums, Vec{}) : sums);
        });
    }
    if (job_.out)
      for (int64_t row = first; row < last; ++row) quantise(row, sums_.get() + (row - first) * stride_);
  }

 private:
  void quantise(int64_t row, float* sums) {
    const Vec floor = splat(job_.relu ? 0.0f : -__builtin_inff());
    Vec most{};
    const auto finish = [&](int64_t k, Vec y) {
      y = larger(y, floor);
      most = larger(most, magnitude(y));
      store(sums + k, y);
    };
    if (job_.other) {
      const int16_t* other = job_.other + row * job_.columns;
      const Vec scale = splat(job_.other_scales[row]);
      for (int64_t k = 0; k < job_.columns; k += kLanes) finish(k, load(sums + k) + int16_vec(other + k) * scale);
    } else {
      for (int64_t k = 0; k < job_.columns; k += kLanes) finish(k, load(sums + k));
    }
    job_.out_scales[row] = quantise_row(sums, job_.columns, largest_of(most), job_.out + row * job_.columns);
  }

  const LinearJob& job_;
  int64_t stride_;
  Aligned<float> sums_;
};

}  // namespace tai
