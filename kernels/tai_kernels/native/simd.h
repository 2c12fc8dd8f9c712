// Vectors of floats in the width of the machine, and what is done with them, in the compilers' own vector types.
#pragma once
#include <cstdint>
#include <cstring>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace tai {

// TAI_LANES lets a test build any width on any machine: the compiler splits wide vectors.
#if defined(TAI_LANES)
constexpr int kLanes = TAI_LANES;
#elif defined(__AVX512F__)
constexpr int kLanes = 16;
#elif defined(__AVX__)
constexpr int kLanes = 8;
#else
constexpr int kLanes = 4;
#endif

// Vector registers of the instruction set: how large a block of sums can be held.
#if defined(__AVX512F__) || defined(__aarch64__)
constexpr int kRegisters = 32;
#else
constexpr int kRegisters = 16;
#endif

typedef float Vec __attribute__((vector_size(4 * kLanes)));
typedef int32_t IntVec __attribute__((vector_size(4 * kLanes)));
typedef uint32_t BitVec __attribute__((vector_size(4 * kLanes)));
typedef uint16_t HalfVec __attribute__((vector_size(2 * kLanes)));
typedef int8_t ByteVec __attribute__((vector_size(kLanes)));

template <class To, class From>
inline To bits_of(From from) {
  static_assert(sizeof(To) == sizeof(From));
  To to;
  std::memcpy(&to, &from, sizeof to);
  return to;
}

template <class V = Vec, class T>
inline V load(const T* source) {
  V v;
  std::memcpy(&v, source, sizeof v);
  return v;
}

template <class V, class T>
inline void store(T* target, V v) {
  std::memcpy(target, &v, sizeof v);
}

inline Vec splat(float x) { return x - Vec{}; }  // subtracting zero changes nothing, so the compiler drops it
inline Vec larger(Vec a, Vec b) { return a > b ? a : b; }

constexpr int kHalf = kLanes / 2;
typedef float HalfWide __attribute__((vector_size(4 * kHalf)));

// The lower half of `low` and the upper half of `high`.
inline Vec halves_of(Vec low, Vec high) {
#if defined(__AVX512F__) && !defined(TAI_LANES)
  return bits_of<Vec>(_mm512_mask_blend_ps(0xff00, low, high));
#elif defined(__AVX__) && !defined(TAI_LANES)
  return bits_of<Vec>(_mm256_blend_ps(low, high, 0xf0));
#else
  for (int i = kHalf; i < kLanes; ++i) low[i] = high[i];
  return low;
#endif
}

// The same half vector twice.
inline Vec twice(const float* source) {
#if defined(__AVX512F__) && !defined(TAI_LANES)
  return bits_of<Vec>(_mm512_broadcast_f64x4(load<__m256d>(source)));
#elif defined(__AVX__) && !defined(TAI_LANES)
  return bits_of<Vec>(_mm256_broadcast_ps(reinterpret_cast<const __m128*>(source)));
#else
  Vec both;
  for (int i = 0; i < kLanes; ++i) both[i] = source[i % kHalf];
  return both;
#endif
}

// 2^t for t <= 0, relative error 2e-7; below 2^-126 it stays at 2^-126, which no sum beside a 1 can notice.
inline Vec exp2_nonpositive(Vec t) {
  t = larger(t, splat(-126.0f));
  const Vec magic = splat(12582912.0f);  // 1.5 * 2^23: adding it rounds to an integer, kept in the low bits
  const Vec rounded = t + magic;
  const Vec f = t - (rounded - magic);  // in [-1/2, 1/2]
  // Taylor series of 2^f: (ln 2)^k / k!.
  Vec p = splat(1.5403530393381609e-4f);
  p = p * f + splat(1.3333558146428443e-3f);
  p = p * f + splat(9.6181291076284772e-3f);
  p = p * f + splat(5.5504108664821580e-2f);
  p = p * f + splat(2.4022650695910071e-1f);
  p = p * f + splat(6.9314718055994531e-1f);
  p = p * f + splat(1.0f);
  return bits_of<Vec>(bits_of<BitVec>(p) + (bits_of<BitVec>(rounded) << 23));
}

enum RowType : int32_t { kFloat32 = 0, kFloat16 = 1, kBFloat16 = 2, kInt8 = 3 };

inline float half_to_float(uint16_t h) {
  // Shift the exponent into place and let one multiplication by 2^112 mend its bias, subnormals included.
  const uint32_t magnitude = uint32_t(h & 0x7fff) << 13;
  const float value = bits_of<float>(magnitude) * 5.192296858534828e33f;
  const bool special = (h & 0x7c00) == 0x7c00;  // infinity or NaN
  const uint32_t bits = special ? (magnitude | 0x7f800000u) : bits_of<uint32_t>(value);
  return bits_of<float>(bits | (uint32_t(h & 0x8000) << 16));
}

inline float bfloat_to_float(uint16_t b) { return bits_of<float>(uint32_t(b) << 16); }

// Round to nearest, ties to even; rows are finite.
inline uint16_t float_to_bfloat(float x) {
  const uint32_t bits = bits_of<uint32_t>(x);
  return uint16_t((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

inline HalfVec vec_to_bfloat(Vec x) {
#if defined(__AVX512BF16__) && !defined(TAI_LANES)
  return bits_of<HalfVec>(_mm512_cvtneps_pbh(bits_of<__m512>(x)));
#endif
  const BitVec bits = bits_of<BitVec>(x);
  return __builtin_convertvector((bits + 0x7fff + ((bits >> 16) & 1)) >> 16, HalfVec);
}

inline Vec halves_to_vec(const uint16_t* source) {
#if defined(__AVX512F__) && !defined(TAI_LANES)
  return bits_of<Vec>(_mm512_cvtph_ps(load<__m256i>(source)));
#elif defined(__F16C__) && !defined(TAI_LANES)
  return bits_of<Vec>(_mm256_cvtph_ps(load<__m128i>(source)));
#else
  Vec v;
  for (int i = 0; i < kLanes; ++i) v[i] = half_to_float(source[i]);
  return v;
#endif
}

// Compilers widen short vectors of bytes step by step; the instruction does it at once.
inline Vec bytes_to_vec(const int8_t* source) {
#if defined(__AVX512F__) && !defined(TAI_LANES)
  return bits_of<Vec>(_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(load<__m128i>(source))));
#elif defined(__AVX2__) && !defined(TAI_LANES)
  return bits_of<Vec>(_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_set_epi64x(0, load<int64_t>(source)))));
#else
  return __builtin_convertvector(__builtin_convertvector(load<ByteVec>(source), IntVec), Vec);
#endif
}

// One vector, or one number, of a row in its stored type, as fp32.
template <RowType type>
inline Vec row_vec(const void* row, int64_t k) {
  if constexpr (type == kFloat32) return load(static_cast<const float*>(row) + k);
  if constexpr (type == kFloat16) return halves_to_vec(static_cast<const uint16_t*>(row) + k);
  if constexpr (type == kBFloat16) {
    const HalfVec halves = load<HalfVec>(static_cast<const uint16_t*>(row) + k);
    return bits_of<Vec>(__builtin_convertvector(halves, BitVec) << 16);
  }
  if constexpr (type == kInt8) return bytes_to_vec(static_cast<const int8_t*>(row) + k);
}

template <RowType type>
inline float row_number(const void* row, int64_t k) {
  if constexpr (type == kFloat32) return static_cast<const float*>(row)[k];
  if constexpr (type == kFloat16) return half_to_float(static_cast<const uint16_t*>(row)[k]);
  if constexpr (type == kBFloat16) return bfloat_to_float(static_cast<const uint16_t*>(row)[k]);
  if constexpr (type == kInt8) return float(static_cast<const int8_t*>(row)[k]);
}

inline int64_t bytes_per_number(int32_t type) { return type == kFloat32 ? 4 : type == kInt8 ? 1 : 2; }

}  // namespace tai
