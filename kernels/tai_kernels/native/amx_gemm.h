// Similarities of a tile of half-precision or int8 rows with the classes by AMX: bf16 products, fp32 sums.
//
// AMX multiplies a tile of 16 rows x 32 bf16 by one of 16 pairs of bf16 x 16 columns. Two tiles by two share every
// load. With TAI_EMULATE_AMX the tile instructions are plain C++ (from their description in Intel's instruction set
// reference), so that everything around them is tested on any machine.
#pragma once
#include "job.h"
#include "memory.h"
#include "row_numbers.h"
#include "simd.h"
#include "threads.h"

#if defined(TAI_EMULATE_AMX) || (defined(__AMX_BF16__) && defined(__AMX_TILE__) && defined(__linux__))
#define TAI_AMX
#endif

#if !defined(TAI_AMX)
namespace tai {
inline bool amx_ready() { return false; }
}  // namespace tai
#else

#include <algorithm>
#include <atomic>
#include <vector>

#if defined(TAI_EMULATE_AMX)
namespace tai {
struct EmulatedTile {
  char bytes[16][64];
};
inline thread_local EmulatedTile emulated_tiles[8];

inline void emulated_zero(int t) { std::memset(&emulated_tiles[t], 0, sizeof(EmulatedTile)); }
inline void emulated_load(int t, const void* source, int64_t stride) {
  const char* rows = static_cast<const char*>(source);
  for (int r = 0; r < 16; ++r) std::memcpy(emulated_tiles[t].bytes[r], rows + r * stride, 64);
}
inline void emulated_store(int t, void* target, int64_t stride) {
  char* rows = static_cast<char*>(target);
  for (int r = 0; r < 16; ++r) std::memcpy(rows + r * stride, emulated_tiles[t].bytes[r], 64);
}
inline void emulated_dot(int c, int a, int b) {
  for (int m = 0; m < 16; ++m)
    for (int n = 0; n < 16; ++n) {
      float sum;
      std::memcpy(&sum, emulated_tiles[c].bytes[m] + 4 * n, 4);
      for (int k = 0; k < 16; ++k) {
        uint16_t x[2], y[2];
        std::memcpy(x, emulated_tiles[a].bytes[m] + 4 * k, 4);
        std::memcpy(y, emulated_tiles[b].bytes[k] + 4 * n, 4);
        sum += bfloat_to_float(x[0]) * bfloat_to_float(y[0]);
        sum += bfloat_to_float(x[1]) * bfloat_to_float(y[1]);
      }
      std::memcpy(emulated_tiles[c].bytes[m] + 4 * n, &sum, 4);
    }
}
inline bool amx_ready() { return true; }
struct AmxTiles {};
}  // namespace tai
#define TAI_TILE_ZERO(t) tai::emulated_zero(t)
#define TAI_TILE_LOAD(t, source, stride) tai::emulated_load(t, source, stride)
#define TAI_TILE_STORE(t, target, stride) tai::emulated_store(t, target, stride)
#define TAI_TILE_DOT(c, a, b) tai::emulated_dot(c, a, b)
#else
#include <sys/syscall.h>
#include <unistd.h>

namespace tai {
// Linux gives a process the tile registers only when it asks for them.
inline bool amx_ready() {
  constexpr int kRequestPermission = 0x1023, kTileData = 18;  // ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA
  static const bool granted = syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
  return granted;
}

// The calling thread's tile registers: all eight of 16 rows x 64 bytes, given back at the end.
class AmxTiles {
 public:
  AmxTiles() {
    alignas(64) Configuration configuration{};
    configuration.palette = 1;
    for (int t = 0; t < 8; ++t) configuration.row_bytes[t] = 64, configuration.rows[t] = 16;
    _tile_loadconfig(&configuration);
  }
  ~AmxTiles() { _tile_release(); }
  AmxTiles(const AmxTiles&) = delete;
  AmxTiles& operator=(const AmxTiles&) = delete;

 private:
  struct Configuration {
    uint8_t palette, start_row, reserved[14];
    uint16_t row_bytes[16];
    uint8_t rows[16];
  };
  static_assert(sizeof(Configuration) == 64);
};
}  // namespace tai
#define TAI_TILE_ZERO(t) _tile_zero(t)
#define TAI_TILE_LOAD(t, source, stride) _tile_loadd(t, source, stride)
#define TAI_TILE_STORE(t, target, stride) _tile_stored(t, target, stride)
#define TAI_TILE_DOT(c, a, b) _tile_dpbf16ps(c, a, b)
#endif

namespace tai {

constexpr int64_t kTileSide = 16;   // rows, and columns of sums
constexpr int64_t kTileDepth = 32;  // bf16 numbers in a row of a tile
constexpr int64_t kTileNumbers = kTileSide * kTileDepth;

// Classes in bf16, one tile after the other: [class tile][depth tile][pair of numbers][class][2].
class AmxClasses {
 public:
  explicit AmxClasses(const Job& job, int64_t threads)
      : depth_tiles_(round_up(job.dim, kTileDepth) / kTileDepth),
        packed_(round_up(job.class_count, kTileSide) / kTileSide * depth_tiles_ * kTileNumbers) {
    std::atomic<int64_t> next{0};
    in_threads(std::min(threads, 1 + job.class_count * job.dim / 500'000), [&] {
      by_row_type(job.class_type, [&](auto type) {
        for (int64_t tile; (tile = next.fetch_add(1)) * kTileSide < job.class_count;)
          for (int64_t k = 0; k < depth_tiles_; ++k) pack<type>(job, tile, k);
      });
    });
  }

  int64_t depth_tiles() const { return depth_tiles_; }
  const uint16_t* tile(int64_t class_tile, int64_t depth_tile) const {
    return packed_.get() + (class_tile * depth_tiles_ + depth_tile) * kTileNumbers;
  }

 private:
  // One tile: the rows of its classes in bf16 first, then pair by pair of their numbers, so that what is read and what
  // is written lies in whole cache lines.
  template <RowType type>
  void pack(const Job& job, int64_t class_tile, int64_t depth_tile) {
    const int64_t first = class_tile * kTileSide, k = depth_tile * kTileDepth;
    alignas(64) uint16_t rows[kTileSide][kTileDepth] = {};
    for (int64_t c = 0; c < std::min(kTileSide, job.class_count - first); ++c)
      numbers_to_bfloats<type>(row_at<type>(job.classes, first + c, job.dim) + k * bytes_per_number(type),
                               std::min(kTileDepth, job.dim - k), kPageBytes, rows[c]);
    uint16_t* tile = packed_.get() + (class_tile * depth_tiles_ + depth_tile) * kTileNumbers;
    for (int64_t pair = 0; pair < kTileDepth / 2; ++pair)
      for (int64_t c = 0; c < kTileSide; ++c)
        std::memcpy(tile + (pair * kTileSide + c) * 2, rows[c] + pair * 2, 2 * sizeof(uint16_t));
  }

  int64_t depth_tiles_;
  Aligned<uint16_t> packed_;
};

// sums[R tiles][Q tiles] (+)= rows . classes over `depth` tiles of the depth. A class tile's next depth is next to it;
// `class_stride` numbers lie between two class tiles.
template <int R, int Q>
inline void multiply_tiles(const uint16_t* rows, int64_t row_stride, const uint16_t* classes, int64_t class_stride,
                           int64_t depth, float* sums, int64_t sum_stride, bool add) {
  const int64_t row_bytes = row_stride * 2, sum_bytes = sum_stride * 4;
  float* sums_below = sums + kTileSide * sum_stride;
  const uint16_t* rows_below = rows + kTileSide * row_stride;
  if (add) {
    TAI_TILE_LOAD(0, sums, sum_bytes);
    if constexpr (Q > 1) TAI_TILE_LOAD(1, sums + kTileSide, sum_bytes);
    if constexpr (R > 1) TAI_TILE_LOAD(2, sums_below, sum_bytes);
    if constexpr (R > 1 && Q > 1) TAI_TILE_LOAD(3, sums_below + kTileSide, sum_bytes);
  } else {
    TAI_TILE_ZERO(0);
    if constexpr (Q > 1) TAI_TILE_ZERO(1);
    if constexpr (R > 1) TAI_TILE_ZERO(2);
    if constexpr (R > 1 && Q > 1) TAI_TILE_ZERO(3);
  }
  for (int64_t k = 0; k < depth; ++k) {
    TAI_TILE_LOAD(4, rows + k * kTileDepth, row_bytes);
    TAI_TILE_LOAD(6, classes + k * kTileNumbers, 64);
    TAI_TILE_DOT(0, 4, 6);
    if constexpr (Q > 1) {
      TAI_TILE_LOAD(7, classes + class_stride + k * kTileNumbers, 64);
      TAI_TILE_DOT(1, 4, 7);
    }
    if constexpr (R > 1) {
      TAI_TILE_LOAD(5, rows_below + k * kTileDepth, row_bytes);
      TAI_TILE_DOT(2, 5, 6);
    }
    if constexpr (R > 1 && Q > 1) TAI_TILE_DOT(3, 5, 7);
  }
  TAI_TILE_STORE(0, sums, sum_bytes);
  if constexpr (Q > 1) TAI_TILE_STORE(1, sums + kTileSide, sum_bytes);
  if constexpr (R > 1) TAI_TILE_STORE(2, sums_below, sum_bytes);
  if constexpr (R > 1 && Q > 1) TAI_TILE_STORE(3, sums_below + kTileSide, sum_bytes);
}

// One thread's workspace.
class AmxGemm {
 public:
  static constexpr int64_t kTileRows = 256;
  static constexpr int64_t kChunkClasses = 128;
  static constexpr int64_t kDepthTiles = 16;  // two class tiles of it, 32 KiB, stay in the first-level cache

  AmxGemm(const Job& job, const AmxClasses& classes)
      : job_(job),
        classes_(classes),
        // One more tile than the depth needs: rows a power of two apart would share cache sets.
        row_stride_((classes.depth_tiles() + 1) * kTileDepth),
        rows_(kTileRows * row_stride_) {
    std::memset(rows_.get(), 0, size_t(kTileRows * row_stride_) * 2);  // what no row fills is multiplied as well
  }

  void begin_tile(int64_t first_row, int64_t count) {
    count_ = count;
    first_row_ = first_row;
    by_row_type(job_.row_type, [&](auto type) { convert_as<type>(); });
  }

  int64_t chunk_end(int64_t first) const { return std::min(first + kChunkClasses, job_.class_count); }

  void multiply(int64_t first, int64_t last, float* sums, int64_t sum_stride) {
    const int64_t class_tiles = round_up(last - first, kTileSide) / kTileSide;
    const int64_t row_tiles = round_up(count_, kTileSide) / kTileSide;
    const int64_t class_stride = classes_.depth_tiles() * kTileNumbers;
    for (int64_t c = 0; c < class_tiles; c += 2)
      for (int64_t k = 0; k < classes_.depth_tiles(); k += kDepthTiles) {
        const int64_t depth = std::min(kDepthTiles, classes_.depth_tiles() - k);
        const uint16_t* classes = classes_.tile(first / kTileSide + c, k);
        for (int64_t r = 0; r < row_tiles; r += 2) {
          const uint16_t* rows = rows_.get() + r * kTileSide * row_stride_ + k * kTileDepth;
          float* target = sums + r * kTileSide * sum_stride + c * kTileSide;
          const bool two_rows = r + 1 < row_tiles, two_classes = c + 1 < class_tiles;
          if (two_rows && two_classes)
            multiply_tiles<2, 2>(rows, row_stride_, classes, class_stride, depth, target, sum_stride, k > 0);
          else if (two_rows)
            multiply_tiles<2, 1>(rows, row_stride_, classes, class_stride, depth, target, sum_stride, k > 0);
          else if (two_classes)
            multiply_tiles<1, 2>(rows, row_stride_, classes, class_stride, depth, target, sum_stride, k > 0);
          else
            multiply_tiles<1, 1>(rows, row_stride_, classes, class_stride, depth, target, sum_stride, k > 0);
        }
      }
    if (job_.row_scales) scale_rows(job_.row_scales + first_row_, count_, last - first, sums, sum_stride);
  }

 private:
  template <RowType type>
  void convert_as() {
    for (int64_t r = 0; r < count_; ++r)
      numbers_to_bfloats<type>(row_at<type>(job_.rows, first_row_ + r, job_.row_stride), job_.dim,
                               kPageBytes, rows_.get() + r * row_stride_);
  }

  const Job& job_;
  const AmxClasses& classes_;
  [[no_unique_address]] AmxTiles tiles_;
  int64_t row_stride_;
  Aligned<uint16_t> rows_;
  int64_t first_row_ = 0;
  int64_t count_ = 0;
};

}  // namespace tai
#endif
