// Similarities of a tile of rows with the classes by vector arithmetic, for any row type.
//
// The products are in fp32, or in bf16 where the processor multiplies pairs of them (`Product`). Classes are laid out
// once per call in panels of up to three vectors, [lanes of D][width] each; the last vector of all may be half a one, so
// that 20 classes cost no more than 20. A tile of rows is converted in the second-level cache (rows that are of the
// product's own type stay where they are); a panel's slice of the depth stays in the first-level cache while the rows
// pass by. Blocking after Goto and van de Geijn, "Anatomy of high-performance matrix multiplication" (2008).
#pragma once
#include <algorithm>
#include <atomic>
#include <optional>
#include <vector>

#include "job.h"
#include "memory.h"
#include "row_numbers.h"
#include "simd.h"
#include "threads.h"
#include "vector_micro.h"

namespace tai {

struct Panel {
  int64_t first_class;
  int vectors;
  bool half;      // and half a vector more
  int64_t start;  // of its lanes in the packed classes

  int64_t width() const { return vectors * kLanes + (half ? kHalf : 0); }
};

template <class Product>
class VectorClasses {
 public:
  explicit VectorClasses(const Job& job, int64_t threads)
      : dim_(job.dim), lanes_(round_up(job.dim, Product::kNumbers) / Product::kNumbers) {
    const int64_t count = job.class_count;
    int64_t left = round_up(count, kHalf) / kHalf;  // in half vectors
    int64_t at = 0;
    while (left > 0) {
      // Threes, but never a lone vector at the end when two pairs do: a single vector starves the adders.
      int64_t halves = left == 8 || left == 7 ? 4 : std::min<int64_t>(left, 6);
      if (halves == 1) halves = 2;
      panels_.push_back({at, int(halves / 2), halves % 2 == 1, at * lanes_});
      at += halves * kHalf;
      left -= halves;
    }
    packed_.emplace(at * lanes_);
    std::atomic<size_t> next{0};
    const int64_t worthwhile = 1 + count * dim_ / 500'000;
    in_threads(std::min(threads, worthwhile), [&] {
      by_row_type(job.class_type, [&](auto type) {
        for (size_t i; (i = next.fetch_add(1)) < panels_.size();) pack<type>(panels_[i], job);
      });
    });
  }

  const std::vector<Panel>& panels() const { return panels_; }
  int64_t lanes() const { return lanes_; }  // of a row
  const float* slice(const Panel& panel, int64_t lane) const {
    return packed_->get() + panel.start + lane * panel.width();
  }

 private:
  // A few lines of the panel at a time, so that what is written stays in the first-level cache until it is whole.
  template <RowType type>
  void pack(const Panel& panel, const Job& job) {
    const int64_t width = panel.width(), panel_bytes = width * dim_ * bytes_per_number(type);
    float* target = packed_->get() + panel.start;
    for (int64_t first = 0; first < lanes_; first += kLineLanes) {
      const int64_t last = std::min(first + kLineLanes, lanes_), numbers = first * Product::kNumbers;
      for (int64_t j = 0; j < width; ++j) {
        float lanes[kLineLanes] = {};
        if (panel.first_class + j < job.class_count) {
          const char* source = row_at<type>(job.classes, panel.first_class + j, dim_);
          Product::template lanes_of<type>(source + numbers * bytes_per_number(type),
                                           std::min(kLineLanes * Product::kNumbers, dim_ - numbers), panel_bytes, 1.0f,
                                           lanes);
        }
        for (int64_t k = first; k < last; ++k) target[k * width + j] = lanes[k - first];
      }
    }
  }

  int64_t dim_, lanes_;
  std::vector<Panel> panels_;
  std::optional<Aligned<float>> packed_;
};

// One thread's workspace.
template <class Product>
class VectorGemm {
 public:
  static constexpr int64_t kTileRows = 100 * Product::kNumbers;  // of D = 1024: 400 KiB, for the second-level cache
  static constexpr int64_t kChunkClasses = 240;
  static constexpr int64_t kDepth = 2048 / kLanes;  // a panel's slice of at most 24 KiB is for the first-level cache

  VectorGemm(const Job& job, const VectorClasses<Product>& classes)
      : job_(job),
        classes_(classes),
        in_place_(Product::takes(job)),
        // Rows a power of two apart would share cache sets.
        row_stride_(in_place_ ? job.row_stride / Product::kNumbers : round_up(classes.lanes(), kLanes) + 16),
        converted_(in_place_ ? 0 : kTileRows * row_stride_) {}

  void begin_tile(int64_t first_row, int64_t count) {
    first_row_ = first_row;
    count_ = count;
    rows_ = in_place_ ? static_cast<const float*>(job_.rows) + first_row * row_stride_ : converted_.get();
    if (!in_place_) by_row_type(job_.row_type, [&](auto type) { convert_as<type>(); });
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
      for (int64_t k = 0; k < classes_.lanes(); k += kDepth) {
        const int64_t depth = std::min(kDepth, classes_.lanes() - k);
        switch (2 * panel.vectors + panel.half) {
          case 6: multiply_at<3, false>(panel, k, depth, target, sum_stride); break;
          case 5: multiply_at<2, true>(panel, k, depth, target, sum_stride); break;
          case 4: multiply_at<2, false>(panel, k, depth, target, sum_stride); break;
          case 3: multiply_at<1, true>(panel, k, depth, target, sum_stride); break;
          default: multiply_at<1, false>(panel, k, depth, target, sum_stride);
        }
      }
    }
    if (Product::kScalesSums && job_.row_scales)
      scale_rows(job_.row_scales + first_row_, count_, last - first, sums, sum_stride);
  }

 private:
  template <int V, bool half>
  void multiply_at(const Panel& panel, int64_t k, int64_t depth, float* target, int64_t sum_stride) {
    const float* slice = classes_.slice(panel, k);
    if (in_place_ && panel.first_class == 0)
      multiply_panel<Product, V, half, true>(count_, rows_ + k, row_stride_, slice, depth, target, sum_stride, k > 0);
    else
      multiply_panel<Product, V, half, false>(count_, rows_ + k, row_stride_, slice, depth, target, sum_stride, k > 0);
  }

  template <RowType type>
  void convert_as() {
    for (int64_t r = 0; r < count_; ++r) {
      const float scale = type == kInt8 ? job_.row_scales[first_row_ + r] : 1.0f;
      Product::template lanes_of<type>(row_at<type>(job_.rows, first_row_ + r, job_.row_stride), job_.dim, kPageBytes,
                                       scale, converted_.get() + r * row_stride_);
    }
  }

  const Job& job_;
  const VectorClasses<Product>& classes_;
  bool in_place_;
  int64_t row_stride_;  // in lanes
  Aligned<float> converted_;
  const float* rows_ = nullptr;
  int64_t first_row_ = 0, count_ = 0;
};

}  // namespace tai
