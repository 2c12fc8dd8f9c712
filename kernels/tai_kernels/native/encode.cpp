// The layers of a convolutional image tower on int16 rows with a scale each (a row: the channels of one pixel).
//
// Built by native_build.py into a plain shared library of its own, as score.cpp is; int16_layers.py calls it.
#include <algorithm>
#include <atomic>
#include <memory>
#include <new>

#include "int16_gemm.h"
#include "threads.h"
#include "winograd.h"

namespace tai {

// The fields of int16_layers.py's structures of the same names, in the same order.
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

struct WinogradJob {
  const float* images;         // [N, H, W, C]
  const int16_t* weights;      // packed [panel][36][C / 2][16][2]
  const float* column_scales;  // [panel][36][16]
  const float* bias;           // [O rounded up to a panel]
  int16_t* out;                // [N, H / P, W / P, O], or null
  float* out_scales;           // [N, H / P, W / P]
  float* out_floats;           // [N, H, W, O] in place of the two, or null
  int64_t image_count;         // N
  int64_t height;              // H, a multiple of P
  int64_t width;               // W, the same
  int64_t channels;            // C, a multiple of eight
  int64_t out_channels;        // O, a multiple of eight
  int64_t pool;                // P, 1 or 2: rows are means of P x P pixels
  int32_t threads;
};

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

template <class T>
class Aligned {  // to cache lines
 public:
  explicit Aligned(int64_t count) : numbers_(new (kLine) T[size_t(count)]) {}
  ~Aligned() { ::operator delete[](numbers_, kLine); }
  Aligned(const Aligned&) = delete;
  Aligned& operator=(const Aligned&) = delete;
  T* get() const { return numbers_; }

 private:
  static constexpr std::align_val_t kLine{64};
  T* numbers_;
};

inline int64_t whole_panels(int64_t columns) { return (columns + kPanel - 1) / kPanel * kPanel; }

// A Worker for each thread does run(first, last) on blocks of `block` of all things.
template <class Worker, class Job>
void in_blocks(const Job& job, int64_t count, int64_t block) {
  std::atomic<int64_t> next{0};
  in_threads(std::min<int64_t>(job.threads, (count + block - 1) / block), [&] {
    Worker worker(job);
    for (int64_t first; (first = next.fetch_add(block)) < count;) worker.run(first, std::min(first + block, count));
  });
}

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

// Convolution, bias and ReLU of a block of tiles, and then the means of their pixels as rows.
class WinogradWorker {
 public:
  static constexpr int64_t kBlock = 4 * kMicro;  // tiles: of C = 64 their points take 108 KiB

  explicit WinogradWorker(const WinogradJob& job)
      : job_(job),
        tiles_x_((job.width + kOutputs - 1) / kOutputs),
        per_image_((job.height + kOutputs - 1) / kOutputs * tiles_x_),
        border_(new float[size_t(job.channels)]()),
        exact_(kAllPoints * job.channels),
        points_(kAllPoints * kBlock * job.channels),
        scales_(kAllPoints * kBlock),
        sums_(kAllPoints * kBlock * kPanel),
        pixels_(job.out ? kBlock * kTilePixels * job.out_channels : 0) {}

  static int64_t tiles(const WinogradJob& job) {
    return job.image_count * ((job.height + kOutputs - 1) / kOutputs) * ((job.width + kOutputs - 1) / kOutputs);
  }

  void run(int64_t first, int64_t last) {
    for (int64_t t = first; t < last; ++t) read(t, t - first);
    for (int64_t column = 0; column < job_.out_channels; column += kPanel) {
      multiply(column, last - first);
      for (int64_t t = first; t < last; ++t)
        for (int64_t at = column; at < std::min(column + kPanel, job_.out_channels); at += kLanes)
          write(t, t - first, at, sums_.get() + (t - first) * kPanel + at - column);
    }
    if (job_.out)
      for (int64_t t = first; t < last; ++t) quantise(t, pixels_.get() + (t - first) * kTilePixels * job_.out_channels);
  }

 private:
  static constexpr int64_t kTilePixels = kOutputs * kOutputs;

  struct Place {
    int64_t image, y, x;  // of a tile's first output
  };

  Place place(int64_t tile) const {
    const int64_t inside = tile % per_image_;
    return {tile / per_image_, inside / tiles_x_ * kOutputs, inside % tiles_x_ * kOutputs};
  }

  // The points of a tile as int16 rows, one for each point.
  void read(int64_t tile, int64_t slot) {
    const int64_t channels = job_.channels;
    const Place at = place(tile);
    const float* inputs[kAllPoints];
    for (int64_t i = 0; i < kAllPoints; ++i) {
      const int64_t y = at.y - 1 + i / kPoints, x = at.x - 1 + i % kPoints;
      const bool inside = y >= 0 && y < job_.height && x >= 0 && x < job_.width;
      inputs[i] = inside ? job_.images + ((at.image * job_.height + y) * job_.width + x) * channels : border_.get();
    }
    for (int64_t k = 0; k < channels; k += kLanes) transform_tile(inputs, k, exact_.get() + k, channels);
    for (int64_t p = 0; p < kAllPoints; ++p) {
      const float* point = exact_.get() + p * channels;
      Vec most{};
      for (int64_t k = 0; k < channels; k += kLanes) most = larger(most, magnitude(load(point + k)));
      const int64_t row = p * kBlock + slot;
      scales_.get()[row] = quantise_row(point, channels, largest_of(most), points_.get() + row * channels);
    }
  }

  // Sums of all points for one panel of output channels.
  void multiply(int64_t column, int64_t count) {
    for (int64_t p = 0; p < kAllPoints; ++p) {
      const int64_t panel = column * kAllPoints + p * kPanel;
      const Vec by_column[] = {load(job_.column_scales + panel), load(job_.column_scales + panel + kLanes)};
      const float* scales = scales_.get() + p * kBlock;
      float* sums = sums_.get() + p * kBlock * kPanel;
      multiply_panel_int16(count, points_.get() + p * kBlock * job_.channels, job_.channels,
                           job_.weights + panel * job_.channels, job_.channels, [&](int64_t m, int v, Vec products) {
                             store(sums + m * kPanel + v * kLanes, products * (splat(scales[m]) * by_column[v]));
                           });
    }
  }

  // One vector of output channels of a tile's pixels.
  void write(int64_t tile, int64_t slot, int64_t channel, const float* sums) {
    Vec outputs[kOutputs][kOutputs];
    outputs_of_tile(sums, kBlock * kPanel, outputs);
    const Vec bias = load(job_.bias + channel);
    const int64_t depth = job_.out_channels;
    if (job_.out) {
      float* pixels = pixels_.get() + slot * kTilePixels * depth + channel;
      for (int64_t i = 0; i < kTilePixels; ++i)
        store(pixels + i * depth, larger(outputs[i / kOutputs][i % kOutputs] + bias, Vec{}));
      return;
    }
    const Place at = place(tile);
    for (int64_t y = at.y; y < std::min(at.y + kOutputs, job_.height); ++y)
      for (int64_t x = at.x; x < std::min(at.x + kOutputs, job_.width); ++x)
        store(job_.out_floats + ((at.image * job_.height + y) * job_.width + x) * depth + channel,
              larger(outputs[y - at.y][x - at.x] + bias, Vec{}));
  }

  void quantise(int64_t tile, float* pixels) {
    const Place at = place(tile);
    const int64_t depth = job_.out_channels, pool = job_.pool;
    const int64_t height = std::min<int64_t>(kOutputs, job_.height - at.y), width = std::min<int64_t>(kOutputs, job_.width - at.x);
    for (int64_t y = 0; y < height; y += pool)
      for (int64_t x = 0; x < width; x += pool) {
        float* corner = pixels + (y * kOutputs + x) * depth;
        Vec most{};
        for (int64_t k = 0; k < depth; k += kLanes) {
          Vec mean = load(corner + k);
          if (pool == 2) {  // the corner's own place takes the mean
            const float* below = corner + kOutputs * depth + k;
            mean = 0.25f * (mean + load(corner + depth + k) + load(below) + load(below + depth));
            store(corner + k, mean);
          }
          most = larger(most, mean);  // after the ReLU none is negative
        }
        const int64_t row = ((at.image * job_.height + at.y + y) / pool * job_.width + at.x + x) / pool;
        job_.out_scales[row] = quantise_row(corner, depth, largest_of(most), job_.out + row * depth);
      }
  }

  const WinogradJob& job_;
  int64_t tiles_x_, per_image_;
  std::unique_ptr<float[]> border_;  // zeros
  Aligned<float> exact_;             // [36][C] of one tile
  Aligned<int16_t> points_;          // [36][block][C]
  Aligned<float> scales_;            // [36][block]
  Aligned<float> sums_;              // [36][block][panel]
  Aligned<float> pixels_;            // [block][16][O]
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

template <class Worker, class Job>
int guarded(const Job& job, int64_t count) {
  try {
    in_blocks<Worker>(job, count, Worker::kBlock);
    return 0;
  } catch (...) {
    return 1;
  }
}

}  // namespace tai

extern "C" {

// Sizes of the jobs together, so that Python can tell that its fields match.
int64_t tai_job_bytes() { return sizeof(tai::LinearJob) + sizeof(tai::WinogradJob) + sizeof(tai::PoolJob); }

// The largest magnitude of a quantised row, which limits the weights.
float tai_largest() { return tai::kLargest; }

// Each returns 0, or 1 when memory ran out.
int tai_linear(const tai::LinearJob* job) { return tai::guarded<tai::LinearWorker>(*job, job->count); }
int tai_winograd(const tai::WinogradJob* job) {
  return tai::guarded<tai::WinogradWorker>(*job, tai::WinogradWorker::tiles(*job));
}
int tai_pool(const tai::PoolJob* job) { return tai::guarded<tai::PoolWorker>(*job, job->lines); }
}
