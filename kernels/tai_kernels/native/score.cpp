// Scores of packed items in one pass over their rows; no similarity ever leaves a thread's tile.
//
// Built by native.py with the machine's own compiler into a plain shared library: no torch headers, no torch ABI.
#include <algorithm>
#include <atomic>
#include <memory>
#include <vector>

#include "amx_gemm.h"
#include "job.h"
#include "pooling.h"
#include "threads.h"
#include "vector_gemm.h"

namespace tai {

// Work is handed out in units of whole items: as many as fit a tile, or one large item.
std::vector<int64_t> plan_units(const Job& job, int64_t tile_rows) {
  std::vector<int64_t> starts;
  int64_t rows = 0;
  for (int64_t item = 0; item < job.items; ++item) {
    const int64_t count = job.offsets[item + 1] - job.offsets[item];
    const bool full = starts.empty() || rows + count > tile_rows || item - starts.back() >= tile_rows;
    if (full) {
      starts.push_back(item);
      rows = 0;
    }
    rows += count;
  }
  starts.push_back(job.items);
  return starts;
}

template <class Gemm, bool max_pooling>
class Worker {
 public:
  template <class Classes>
  Worker(const Job& job, const Classes& classes)
      : job_(job),
        gemm_(job, classes),
        temperature_log2_(job.temperature * kLog2E),
        tile_(new float[Gemm::kTileRows * Gemm::kChunkClasses]()) {}

  void run(int64_t first_item, int64_t last_item) {
    const int64_t first_row = job_.offsets[first_item], last_row = job_.offsets[last_item];
    if (last_row - first_row <= Gemm::kTileRows)
      small_items(first_item, last_item, first_row, last_row - first_row);
    else
      large_item(first_item, first_row, last_row);
  }

 private:
  void small_items(int64_t first_item, int64_t last_item, int64_t first_row, int64_t rows) {
    if (rows > 0) gemm_.begin_tile(first_row, rows);
    for (int64_t first = 0, last; first < job_.class_count && rows > 0; first = last) {
      last = gemm_.chunk_end(first);
      gemm_.multiply(first, last, tile_.get(), Gemm::kChunkClasses);
      for (int64_t item = first_item; item < last_item; ++item) {
        const int64_t start = job_.offsets[item], count = job_.offsets[item + 1] - start;
        if (count == 0) continue;
        const float* sums = tile_.get() + (start - first_row) * Gemm::kChunkClasses;
        for (int64_t at = first; at < last; at += kLanes) {
          const float* column = sums + at - first;
          emit<max_pooling>(job_, item, at,
                            pool_rows<max_pooling>(column, Gemm::kChunkClasses, count, 0, temperature_log2_));
        }
      }
    }
    for (int64_t item = first_item; item < last_item; ++item)
      if (job_.offsets[item] == job_.offsets[item + 1]) emit_empty(job_, item);
  }

  // An item of more rows than a tile: the tiles' results are joined.
  void large_item(int64_t item, int64_t first_row, int64_t last_row) {
    running_.resize(round_up(job_.class_count, kLanes) / kLanes);
    const int64_t total = last_row - first_row;
    const int64_t tiles = round_up(total, Gemm::kTileRows) / Gemm::kTileRows;
    const int64_t step = round_up(total, tiles) / tiles;  // even tiles: 197 rows are 99 and 98, not 100 and 97
    for (int64_t row = first_row; row < last_row; row += step) {
      const int64_t rows = std::min(step, last_row - row);
      gemm_.begin_tile(row, rows);
      for (int64_t first = 0, last; first < job_.class_count; first = last) {
        last = gemm_.chunk_end(first);
        gemm_.multiply(first, last, tile_.get(), Gemm::kChunkClasses);
        for (int64_t at = first; at < last; at += kLanes) {
          const Running part = pool_rows<max_pooling>(tile_.get() + at - first, Gemm::kChunkClasses, rows,
                                                      row - first_row, temperature_log2_);
          Running& whole = running_[at / kLanes];
          whole = row == first_row ? part : join<max_pooling>(whole, part, temperature_log2_);
        }
      }
    }
    for (int64_t at = 0; at < job_.class_count; at += kLanes) emit<max_pooling>(job_, item, at, running_[at / kLanes]);
  }

  const Job& job_;
  Gemm gemm_;
  float temperature_log2_;
  std::unique_ptr<float[]> tile_;
  std::vector<Running> running_;
};

template <class Gemm, class Classes, bool max_pooling>
void score(const Job& job) {
  // Starting a thread costs some ten microseconds: worth it from a few million multiplications on.
  const double multiplications = double(job.offsets[job.items]) * double(job.class_count) * double(job.dim);
  const int64_t worthwhile = 1 + int64_t(multiplications / 4e6);
  const Classes classes(job, std::min<int64_t>(job.threads, worthwhile));
  const std::vector<int64_t> units = plan_units(job, Gemm::kTileRows);
  std::atomic<size_t> next{0};
  in_threads(std::min<int64_t>({job.threads, int64_t(units.size()) - 1, worthwhile}), [&] {
    Worker<Gemm, max_pooling> worker(job, classes);
    for (size_t unit; (unit = next.fetch_add(1)) + 1 < units.size();) worker.run(units[unit], units[unit + 1]);
  });
}

template <class Gemm, class Classes>
void score_by_mode(const Job& job) {
  job.max_pooling ? score<Gemm, Classes, true>(job) : score<Gemm, Classes, false>(job);
}

}  // namespace tai

extern "C" {

// Size of Job, so that Python can tell that its fields match.
int64_t tai_job_bytes() { return sizeof(tai::Job); }

int tai_lanes() { return tai::kLanes; }

// What multiplies in bf16: 2, tiles of AMX; 1, vectors of pairs; 0, nothing.
int tai_bf16_products() {
#if defined(TAI_BF16_VECTORS)
  return tai::amx_ready() ? 2 : 1;
#else
  return tai::amx_ready() ? 2 : 0;
#endif
}

// 0, or 1 when memory ran out.
int tai_score(const tai::Job* job) {
  try {
    if (job->items == 0) return 0;
#if defined(TAI_AMX)
    if (job->in_bf16 && tai::amx_ready()) {
      tai::score_by_mode<tai::AmxGemm, tai::AmxClasses>(*job);
      return 0;
    }
#endif
#if defined(TAI_BF16_VECTORS)
    if (job->in_bf16) {
      tai::score_by_mode<tai::VectorGemm<tai::Bf16Product>, tai::VectorClasses<tai::Bf16Product>>(*job);
      return 0;
    }
#endif
    tai::score_by_mode<tai::VectorGemm<tai::Fp32Product>, tai::VectorClasses<tai::Fp32Product>>(*job);
    return 0;
  } catch (...) {
    return 1;
  }
}
}
