// Means of neighbouring int16 rows.
#pragma once
#include "int16_gemm.h"
#include "workers.h"

namespace tai {

// Fields as in int16_library.py's structure of the same name, in the same order.
struct PoolJob {
  const int16_t* rows;         // [N, H, W, C]
  const float* row_scales;     // [N, H, W]
  int16_t* out;                // [N, H / P, W / P, C]
  float* out_scales;           // [N, H / P, W / P]
  int64_t lines;               // N * H / P
  int64_t width;               // W, a multiple of P as H is
  int64_t channels;            // C, a multiple of eight
  int64_t pool;                // P
  int32_t threads;
};

class PoolWorker {
 public:
  static constexpr int64_t kBlock = 4;  // lines

  explicit PoolWorker(const PoolJob& job) : job_(job), mean_(job.channels) {}

  void run(int64_t first, int64_t last) {
    const int64_t pool = job_.pool, out_width = job_.width / pool, channels = job_.channels;
    const Vec share = splat(1.0f / float(pool * pool));
    for (int64_t row = first * out_width; row < last * out_width; ++row) {
      // Lines of all pictures follow each other, as heights are multiples of the pool.
      const int64_t corner = row / out_width * pool * job_.width + row % out_width * pool;
      Vec most{};
      for (int64_t k = 0; k < channels; k += kLanes) {
        Vec sum{};
        for (int64_t y = 0; y < pool; ++y)
          for (int64_t pixel = corner + y * job_.width; pixel < corner + y * job_.width + pool; ++pixel)
            sum += int16_vec(job_.rows + pixel * channels + k) * splat(job_.row_scales[pixel]);
        most = larger(most, magnitude(sum * share));
        store(mean_.get() + k, sum * share);
      }
      job_.out_scales[row] = quantise_row(mean_.get(), channels, largest_of(most), job_.out + row * channels);
    }
  }

 private:
  const PoolJob& job_;
  Aligned<float> mean_;
};

}  // namespace tai
