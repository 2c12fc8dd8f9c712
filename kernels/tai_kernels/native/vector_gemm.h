// Similarities of a tile of rows with the classes by fp32 vector arithmetic, for any row type.
//
// Classes are laid out once per call in panels of up to three vectors, [D][width] each; the last vector of all may be
// half a one, so that 20 classes cost no more than 20. A tile of rows is converted to
// fp32 in the second-level cache (fp32 rows stay where they are); a panel's slice of the depth stays in the first-level
// cache while the rows pass by. Blocking after Goto and van de Geijn, "Anatomy of high-performance matrix
// multiplication" (2008).
#pragma once
#include <algorithm>
#include <atomic>
#include <optional>
#include <vector>

#include "job.h"
#include "memory.h"
#include "simd.h"
#include "threads.h"

namespace tai {

// Compilers would rather read a column from memory once per row, and the loads then cost more than the arithmetic.
#if defined(__x86_64__) && !defined(TAI_LANES)
#define TAI_KEEP_IN_REGISTER(vec) asm("" : "+v"(vec))
#else
#define TAI_KEEP_IN_REGISTER(vec)
#endif

constexpr int64_t kLineFloats = 16;  // a cache line
constexpr int64_t kPageBytes = 4096;

// Rows whose sums fit in the registers beside one vector of each column and a row's number. With half a vector at the
// end two rows share a register for it, which takes an even number of rows, and a second row's number.
template <int V, bool half>
constexpr int kMicroRows = half ? (kRegisters - V - 3) / (2 * V + 1) * 2 : (kRegisters - V - 1) / V;

// sums[M][width] (+)= rows[M][depth] . panel[depth][width], where the width is V vectors, or V and a half.
//
// `fetch`: the rows come from memory, and the processor's own prefetching ends at every page, so the next ones are asked
// for while these are multiplied.
template <int M, int V, bool half, bool fetch>
inline void multiply_micro(const float* rows, int64_t row_stride, const float* panel, int64_t depth, float* sums,
                           int64_t sum_stride, bool add) {
  constexpr int kWidth = V * kLanes + (half ? kHalf : 0);
  Vec sum[M][V];
  Vec pair[half ? M / 2 : 1];
#pragma GCC unroll 16
  for (int m = 0; m < M; ++m)
#pragma GCC unroll 3
    for (int v = 0; v < V; ++v) sum[m][v] = add ? load(sums + m * sum_stride + v * kLanes) : Vec{};
  if constexpr (half)
#pragma GCC unroll 16
    for (int m = 0; m < M; m += 2) {
      const float* place = sums + m * sum_stride + V * kLanes;
      pair[m / 2] = add ? halves_of(twice(place), twice(place + sum_stride)) : Vec{};
    }
  for (int64_t k = 0; k < depth; ++k) {
    if constexpr (fetch)
      if (k % kLineFloats == 0)
#pragma GCC unroll 16
        for (int m = 0; m < M; ++m) __builtin_prefetch(rows + (M + m) * row_stride + k);
    Vec column[V];
#pragma GCC unroll 3
    for (int v = 0; v < V; ++v) {
      column[v] = load(panel + k * kWidth + v * kLanes);
      TAI_KEEP_IN_REGISTER(column[v]);
    }
    if constexpr (half) {
      Vec last = twice(panel + k * kWidth + V * kLanes);
      TAI_KEEP_IN_REGISTER(last);
#pragma GCC unroll 16
      for (int m = 0; m < M; m += 2) {
        const Vec first = splat(rows[m * row_stride + k]), second = splat(rows[(m + 1) * row_stride + k]);
#pragma GCC unroll 3
        for (int v = 0; v < V; ++v) {
          sum[m][v] += first * column[v];
          sum[m + 1][v] += second * column[v];
        }
        pair[m / 2] += halves_of(first, second) * last;
      }
    } else {
#pragma GCC unroll 16
      for (int m = 0; m < M; ++m) {
        const Vec number = splat(rows[m * row_stride + k]);
#pragma GCC unroll 3
        for (int v = 0; v < V; ++v) sum[m][v] += number * column[v];
      }
    }
  }
#pragma GCC unroll 16
  for (int m = 0; m < M; ++m)
#pragma GCC unroll 3
    for (int v = 0; v < V; ++v) store(sums + m * sum_stride + v * kLanes, sum[m][v]);
  if constexpr (half)
#pragma GCC unroll 16
    for (int m = 0; m < M; m += 2) {
      HalfWide halves[2];
      std::memcpy(halves, &pair[m / 2], sizeof halves);
      store(sums + m * sum_stride + V * kLanes, halves[0]);
      store(sums + (m + 1) * sum_stride + V * kLanes, halves[1]);
    }
}

// The last rows of a tile: exactly M of them, found by counting down.
template <int M, int V, bool half>
inline void multiply_rest(int64_t count, const float* rows, int64_t row_stride, const float* panel, int64_t depth,
                          float* sums, int64_t sum_stride, bool add) {
  if constexpr (half) {
    for (; count >= 2; count -= 2, rows += 2 * row_stride, sums += 2 * sum_stride)
      multiply_micro<2, V, true, false>(rows, row_stride, panel, depth, sums, sum_stride, add);
    // A lone row is its own neighbour: both sums are the same, and so is their place.
    if (count) multiply_micro<2, V, true, false>(rows, 0, panel, depth, sums, 0, add);
  } else if constexpr (M > 0) {
    if (count == M)
      multiply_micro<M, V, false, false>(rows, row_stride, panel, depth, sums, sum_stride, add);
    else
      multiply_rest<M - 1, V, false>(count, rows, row_stride, panel, depth, sums, sum_stride, add);
  }
}

template <int V, bool half, bool fetch>
void multiply_panel(int64_t count, const float* rows, int64_t row_stride, const float* panel, int64_t depth,
                    float* sums, int64_t sum_stride, bool add) {
  constexpr int M = kMicroRows<V, half>;
  int64_t r = 0;
  for (; r + M <= count; r += M)
    multiply_micro<M, V, half, fetch>(rows + r * row_stride, row_stride, panel, depth, sums + r * sum_stride,
                                      sum_stride, add);
  multiply_rest<M - 1, V, half>(count - r, rows + r * row_stride, row_stride, panel, depth, sums + r * sum_stride,
                                sum_stride, add);
}

struct Panel {
  int64_t first_class;
  int vectors;
  bool half;      // and half a vector more
  int64_t start;  // of its numbers in the packed classes

  int64_t width() const { return vectors * kLanes + (half ? kHalf : 0); }
};

class VectorClasses {
 public:
  VectorClasses(const float* classes, int64_t count, int64_t dim, int64_t threads) : dim_(dim) {
    int64_t left = round_up(count, kHalf) / kHalf;  // in half vectors
    int64_t at = 0;
    while (left > 0) {
      // Threes, but never a lone vector at the end when two pairs do: a single vector starves the adders.
      int64_t halves = left == 8 || left == 7 ? 4 : std::min<int64_t>(left, 6);
      if (halves == 1) halves = 2;
      panels_.push_back({at, int(halves / 2), halves % 2 == 1, at * dim});
      at += halves * kHalf;
      left -= halves;
    }
    packed_.emplace(at * dim);
    std::atomic<size_t> next{0};
    const int64_t worthwhile = 1 + count * dim / 500'000;
    in_threads(std::min(threads, worthwhile), [&] {
      for (size_t i; (i = next.fetch_add(1)) < panels_.size();) pack(panels_[i], classes, count);
    });
  }

  const std::vector<Panel>& panels() const { return panels_; }
  const float* numbers(const Panel& panel, int64_t depth) const {
    return packed_->get() + panel.start + depth * panel.width();
  }

 private:
  // A few lines of the panel at a time, so that what is written stays in the first-level cache until it is whole.
  void pack(const Panel& panel, const float* classes, int64_t count) {
    const int64_t width = panel.width();
    float* target = packed_->get() + panel.start;
    for (int64_t first = 0; first < dim_; first += kLineFloats) {
      const int64_t last = std::min(first + kLineFloats, dim_);
      for (int64_t j = 0; j < width; ++j) {
        const bool exists = panel.first_class + j < count;
        const float* source = classes + (panel.first_class + j) * dim_;
        for (int64_t k = first; k < last; ++k) target[k * width + j] = exists ? source[k] : 0.0f;
      }
    }
  }

  int64_t dim_;
  std::vector<Panel> panels_;
  std::optional<Aligned<float>> packed_;
};

// One thread's workspace.
class VectorGemm {
 public:
  static constexpr int64_t kTileRows = 100;  // of D = 1024 in fp32: 400 KiB, for the second-level cache
  static constexpr int64_t kChunkClasses = 240;
  static constexpr int64_t kDepth = 256;  // a panel's slice, 24 KiB at most with AVX2, is for the first-level cache

  VectorGemm(const Job& job, const VectorClasses& classes)
      : job_(job),
        classes_(classes),
        in_place_(job.row_type == kFloat32),
        // Rows a power of two apart would share cache sets.
        row_stride_(in_place_ ? job.row_stride : round_up(job.dim, kLanes) + 16),
        converted_(in_place_ ? 0 : kTileRows * row_stride_) {}

  void begin_tile(int64_t first_row, int64_t count) {
    count_ = count;
    switch (job_.row_type) {
      case kFloat32: rows_ = static_cast<const float*>(job_.rows) + first_row * row_stride_; return;
      case kFloat16: return convert_as<kFloat16>(first_row);
      case kBFloat16: return convert_as<kBFloat16>(first_row);
      default: return convert_as<kInt8>(first_row);
    }
  }

  // Where a chunk of classes that starts at `first` ends: before the first panel that would not fit as a whole.
  int64_t chunk_end(int64_t first) const {
    for (const Panel& panel : classes_.panels())
      if (panel.first_class + panel.width() > first + kChunkClasses) return panel.first_class;
    return job_.class_count;
  }

  // Similarities of the tile's rows with the chunk of classes [first, last) to sums[row][class - first].
  void multiply(int64_t first, int64_t last, float* sums, int64_t sum_stride) {
    for (const Panel& panel : classes_.panels()) {
      if (panel.first_class < first || panel.first_class >= last) continue;
      float* target = sums + panel.first_class - first;
      for (int64_t k = 0; k < job_.dim; k += kDepth) {
        const int64_t depth = std::min(kDepth, job_.dim - k);
        switch (2 * panel.vectors + panel.half) {
          case 6: multiply_at<3, false>(panel, k, depth, target, sum_stride); break;
          case 5: multiply_at<2, true>(panel, k, depth, target, sum_stride); break;
          case 4: multiply_at<2, false>(panel, k, depth, target, sum_stride); break;
          case 3: multiply_at<1, true>(panel, k, depth, target, sum_stride); break;
          default: multiply_at<1, false>(panel, k, depth, target, sum_stride);
        }
      }
    }
  }

 private:
  template <int V, bool half>
  void multiply_at(const Panel& panel, int64_t k, int64_t depth, float* target, int64_t sum_stride) {
    const float* numbers = classes_.numbers(panel, k);
    if (in_place_ && panel.first_class == 0)
      multiply_panel<V, half, true>(count_, rows_ + k, row_stride_, numbers, depth, target, sum_stride, k > 0);
    else
      multiply_panel<V, half, false>(count_, rows_ + k, row_stride_, numbers, depth, target, sum_stride, k > 0);
  }

  // Half-precision and int8 rows in fp32, each read once from end to end.
  template <RowType type>
  void convert_as(int64_t first_row) {
    rows_ = converted_.get();
    const int64_t row_bytes = job_.row_stride * bytes_per_number(type);
    for (int64_t r = 0; r < count_; ++r) {
      const char* row = static_cast<const char*>(job_.rows) + (first_row + r) * row_bytes;
      const float scale = type == kInt8 ? job_.row_scales[first_row + r] : 1.0f;
      float* target = converted_.get() + r * row_stride_;
      int64_t k = 0;
      for (; k + kLanes <= job_.dim; k += kLanes) {
        // A page ahead, where the processor's own prefetching ends.
        __builtin_prefetch(row + kPageBytes + k * bytes_per_number(type));
        store(target + k, row_vec<type>(row, k) * scale);
      }
      for (; k < job_.dim; ++k) target[k] = row_number<type>(row, k) * scale;
    }
  }

  const Job& job_;
  const VectorClasses& classes_;
  bool in_place_;
  int64_t row_stride_;
  Aligned<float> converted_;
  const float* rows_ = nullptr;
  int64_t count_ = 0;
};

}  // namespace tai
