// Sums of products of a few rows with a panel of classes, held in vector registers while the depth passes by.
//
// A lane has 32 bits: one fp32 number, or two neighbouring bf16 numbers of a row, as `Product` says. All lengths along
// the depth are in lanes here.
#pragma once
#include <cstring>

#include "job.h"
#include "row_numbers.h"
#include "simd.h"

// Processors that multiply pairs of bf16 numbers. TAI_EMULATE_BF16_VECTORS makes it plain C++ (from the instruction's
// description in Intel's instruction set reference), so that everything around it is tested on any machine.
#if defined(TAI_EMULATE_BF16_VECTORS) || (defined(__AVX512BF16__) && !defined(TAI_LANES))
#define TAI_BF16_VECTORS
#endif

namespace tai {

// Rows are scaled before they are multiplied.
struct Fp32Product {
  static constexpr int64_t kNumbers = 1;  // in a lane
  static constexpr bool kScalesSums = false;

  static Vec add(Vec sum, Vec a, Vec b) { return sum + a * b; }
  // Whether the job's rows can be multiplied where they are.
  static bool takes(const Job& job) { return job.row_type == kFloat32; }
  template <RowType type>
  static void lanes_of(const char* source, int64_t count, int64_t ahead, float scale, float* lanes) {
    numbers_to_floats<type>(source, count, ahead, scale, lanes);
  }
};

#if defined(TAI_BF16_VECTORS)
// Scales would be rounded with the rows, so the sums are multiplied by them.
struct Bf16Product {
  static constexpr int64_t kNumbers = 2;
  static constexpr bool kScalesSums = true;

  static Vec add(Vec sum, Vec a, Vec b) {
#if defined(TAI_EMULATE_BF16_VECTORS)
    const BitVec upper = BitVec{} + 0xffff0000u, x = bits_of<BitVec>(a), y = bits_of<BitVec>(b);
    sum += bits_of<Vec>(x & upper) * bits_of<Vec>(y & upper);
    return sum + bits_of<Vec>(x << 16) * bits_of<Vec>(y << 16);
#else
    return bits_of<Vec>(_mm512_dpbf16_ps(bits_of<__m512>(sum), bits_of<__m512bh>(a), bits_of<__m512bh>(b)));
#endif
  }
  static bool takes(const Job& job) {
    return job.row_type == kBFloat16 && job.dim % kNumbers == 0 && job.row_stride % kNumbers == 0;
  }
  template <RowType type>
  static void lanes_of(const char* source, int64_t count, int64_t ahead, float, float* lanes) {
    if (count % kNumbers) lanes[count / kNumbers] = 0.0f;  // the last number's neighbour
    numbers_to_bfloats<type>(source, count, ahead, reinterpret_cast<uint16_t*>(lanes));
  }
};
#endif

// Compilers would rather read a column from memory once per row, and the loads then cost more than the arithmetic.
#if defined(__x86_64__) && !defined(TAI_LANES)
#define TAI_KEEP_IN_REGISTER(vec) asm("" : "+v"(vec))
#else
#define TAI_KEEP_IN_REGISTER(vec)
#endif

constexpr int64_t kLineLanes = 16;  // a cache line

// One lane of a row in all lanes.
inline Vec splat_at(const float* lane) { return splat(load<float>(lane)); }

// Rows whose sums fit in the registers beside one vector of each column and a row's number. With half a vector at the
// end two rows share a register for it, which takes an even number of rows, and a second row's number.
template <int V, bool half>
constexpr int kMicroRows = half ? (kRegisters - V - 3) / (2 * V + 1) * 2 : (kRegisters - V - 1) / V;

// sums[M][width] (+)= rows[M][depth] . panel[depth][width], where the width is V vectors, or V and a half.
//
// `fetch`: the rows come from memory, and the processor's own prefetching ends at every page, so the next ones are asked
// for while these are multiplied.
template <class Product, int M, int V, bool half, bool fetch>
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
      if (k % kLineLanes == 0)
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
        const Vec first = splat_at(rows + m * row_stride + k), second = splat_at(rows + (m + 1) * row_stride + k);
#pragma GCC unroll 3
        for (int v = 0; v < V; ++v) {
          sum[m][v] = Product::add(sum[m][v], first, column[v]);
          sum[m + 1][v] = Product::add(sum[m + 1][v], second, column[v]);
        }
        pair[m / 2] = Product::add(pair[m / 2], halves_of(first, second), last);
      }
    } else {
#pragma GCC unroll 16
      for (int m = 0; m < M; ++m) {
        const Vec number = splat_at(rows + m * row_stride + k);
#pragma GCC unroll 3
        for (int v = 0; v < V; ++v) sum[m][v] = Product::add(sum[m][v], number, column[v]);
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
template <class Product, int M, int V, bool half>
inline void multiply_rest(int64_t count, const float* rows, int64_t row_stride, const float* panel, int64_t depth,
                          float* sums, int64_t sum_stride, bool add) {
  if constexpr (half) {
    for (; count >= 2; count -= 2, rows += 2 * row_stride, sums += 2 * sum_stride)
      multiply_micro<Product, 2, V, true, false>(rows, row_stride, panel, depth, sums, sum_stride, add);
    // A lone row is its own neighbour: both sums are the same, and so is their place.
    if (count) multiply_micro<Product, 2, V, true, false>(rows, 0, panel, depth, sums, 0, add);
  } else if constexpr (M > 0) {
    if (count == M)
      multiply_micro<Product, M, V, false, false>(rows, row_stride, panel, depth, sums, sum_stride, add);
    else
      multiply_rest<Product, M - 1, V, false>(count, rows, row_stride, panel, depth, sums, sum_stride, add);
  }
}

template <class Product, int V, bool half, bool fetch>
void multiply_panel(int64_t count, const float* rows, int64_t row_stride, const float* panel, int64_t depth,
                    float* sums, int64_t sum_stride, bool add) {
  constexpr int M = kMicroRows<V, half>;
  int64_t r = 0;
  for (; r + M <= count; r += M)
    multiply_micro<Product, M, V, half, fetch>(rows + r * row_stride, row_stride, panel, depth, sums + r * sum_stride,
                                               sum_stride, add);
  multiply_rest<Product, M - 1, V, half>(count - r, rows + r * row_stride, row_stride, panel, depth,
                                         sums + r * sum_stride, sum_stride, add);
}

}  // namespace tai
