// Products of int16 rows with int16 weights, added up exactly in int32, which AVX2 does faster than fp32.
//
// Rows carry a scale each and weights one per column. Nothing can overflow: |row| <= kLargest, and whoever packs the
// weights keeps the sum of every column's magnitudes below 2^31 / kLargest (int16_layers.py).
//
// Weights are packed in panels of 16 columns: [panel][depth / 2][16][2], pairs of neighbouring depths side by side, as
// the multiply-and-add-pairs instruction reads them.
#pragma once
#include <immintrin.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <iterator>

#include "simd.h"

namespace tai {

static_assert(kLanes == 8, "written for 256-bit vectors");

constexpr int kPanel = 16;          // columns
constexpr int kVectors = 2;         // of them
constexpr int kMicro = 6;           // rows: 12 vectors of sums, two of weights, a pair of numbers and a product
constexpr float kLargest = 4095.0f;  // of a quantised row; the rest of int32 is for the weights

// Written out, because compilers keep the products of several rows, and the sums then no longer fit in registers. %{ and
// %} are braces that stay in the text.
inline void add_products(__m256i& sum, __m256i numbers, __m256i weights) {
#if defined(__AVXVNNI__)
  asm volatile("%{vex%} vpdpwssd %2, %1, %0" : "+x"(sum) : "x"(numbers), "x"(weights));
#else
  __m256i product;
  asm volatile("vpmaddwd %3, %2, %1\n\tvpaddd %1, %0, %0" : "+x"(sum), "=&x"(product) : "x"(numbers), "x"(weights));
#endif
}

// Sums of M rows with one panel, in fp32 and not yet scaled. A function of its own: inlined, its sums would have to
// share the registers with what is around it.
template <int M>
__attribute__((noinline)) void multiply_int16(const int16_t* rows, int64_t row_stride, const int16_t* panel,
                                              int64_t depth, Vec (*sums)[kVectors]) {
  __m256i sum[M][kVectors];
#pragma GCC unroll 6
  for (int m = 0; m < M; ++m)
#pragma GCC unroll 2
    for (int v = 0; v < kVectors; ++v) sum[m][v] = _mm256_setzero_si256();
  for (int64_t k = 0; k < depth; k += 2) {
    __m256i weights[kVectors];
#pragma GCC unroll 2
    for (int v = 0; v < kVectors; ++v) weights[v] = load<__m256i>(panel + k * kPanel + v * 2 * kLanes);
#pragma GCC unroll 6
    for (int m = 0; m < M; ++m) {
      const __m256i numbers = _mm256_set1_epi32(load<int32_t>(rows + m * row_stride + k));
#pragma GCC unroll 2
      for (int v = 0; v < kVectors; ++v) add_products(sum[m][v], numbers, weights[v]);
    }
  }
#pragma GCC unroll 6
  for (int m = 0; m < M; ++m)
#pragma GCC unroll 2
    for (int v = 0; v < kVectors; ++v) sums[m][v] = bits_of<Vec>(_mm256_cvtepi32_ps(sum[m][v]));
}

// finish(row, v, sums) for all of `count` rows and the two vectors of columns of one panel.
template <class Finish>
inline void multiply_panel_int16(int64_t count, const int16_t* rows, int64_t row_stride, const int16_t* panel,
                                 int64_t depth, const Finish& finish) {
  static constexpr decltype(&multiply_int16<1>) kKernels[] = {multiply_int16<1>, multiply_int16<2>, multiply_int16<3>,
                                                              multiply_int16<4>, multiply_int16<5>, multiply_int16<6>};
  static_assert(std::size(kKernels) == kMicro);
  for (int64_t r = 0; r < count; r += kMicro) {
    const int64_t some = std::min<int64_t>(count - r, kMicro);
    Vec sums[kMicro][kVectors];
    kKernels[some - 1](rows + r * row_stride, row_stride, panel, depth, sums);
    for (int64_t m = 0; m < some; ++m)
#pragma GCC unroll 2
      for (int v = 0; v < kVectors; ++v) finish(r + m, v, sums[m][v]);
  }
}

inline int64_t whole_panels(int64_t columns) { return (columns + kPanel - 1) / kPanel * kPanel; }

inline Vec magnitude(Vec x) { return bits_of<Vec>(bits_of<BitVec>(x) & 0x7fffffffu); }

inline float largest_of(Vec x) {
  const __m256 all = bits_of<__m256>(x);
  __m128 most = _mm_max_ps(_mm256_castps256_ps128(all), _mm256_extractf128_ps(all, 1));
  most = _mm_max_ps(most, _mm_movehl_ps(most, most));
  return _mm_cvtss_f32(_mm_max_ss(most, _mm_movehdup_ps(most)));
}

inline float largest_in(const float* numbers, int64_t count) {
  Vec most{};
  for (int64_t k = 0; k < count; k += kLanes) most = larger(most, magnitude(load(numbers + k)));
  return largest_of(most);
}

// numbers[count], none larger than `largest`, -> target[count] of at most kLargest in magnitude; returns the scale that
// undoes it. `count` is a multiple of eight.
inline float quantise_row(const float* numbers, int64_t count, float largest, int16_t* target) {
  const Vec factor = splat(largest > 0.0f ? kLargest / largest : 0.0f);
  int64_t k = 0;
  for (; k + 2 * kLanes <= count; k += 2 * kLanes) {
    const __m256i low = _mm256_cvtps_epi32(bits_of<__m256>(load(numbers + k) * factor));
    const __m256i high = _mm256_cvtps_epi32(bits_of<__m256>(load(numbers + k + kLanes) * factor));
    // Packing works within halves of a register; the permutation puts the quarters in order again.
    store(target + k, _mm256_permute4x64_epi64(_mm256_packs_epi32(low, high), 0xd8));
  }
  if (k < count) {
    const __m256i last = _mm256_cvtps_epi32(bits_of<__m256>(load(numbers + k) * factor));
    store(target + k, _mm_packs_epi32(_mm256_castsi256_si128(last), _mm256_extracti128_si256(last, 1)));
  }
  return largest / kLargest;
}

// Eight int16 numbers as fp32.
inline Vec int16_vec(const int16_t* source) {
  return bits_of<Vec>(_mm256_cvtepi32_ps(_mm256_cvtepi16_epi32(load<__m128i>(source))));
}

}  // namespace tai
