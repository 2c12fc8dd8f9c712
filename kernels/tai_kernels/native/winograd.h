// Winograd's F(4x4, 3x3) (Lavin and Gray, arXiv 1509.09308): 16 outputs of a tile by 36 products a channel, not 144.
#pragma once
#include "simd.h"

namespace tai {

constexpr int kOutputs = 4;                  // a side of a tile
constexpr int kPoints = 6;                   // of its inputs, and of its transform
constexpr int kAllPoints = kPoints * kPoints;

// Six inputs of a line to its six points.
inline void transform_inputs(const Vec (&d)[kPoints], Vec (&p)[kPoints]) {
  const Vec even = d[4] - 4.0f * d[2], odd = d[3] - 4.0f * d[1];
  const Vec even2 = d[4] - d[2], odd2 = 2.0f * (d[3] - d[1]);
  p[0] = 4.0f * d[0] - 5.0f * d[2] + d[4];
  p[1] = even + odd;
  p[2] = even - odd;
  p[3] = even2 + odd2;
  p[4] = even2 - odd2;
  p[5] = 4.0f * d[1] - 5.0f * d[3] + d[5];
}

// Six points of a line to its four outputs.
inline void transform_outputs(const Vec (&m)[kPoints], Vec (&o)[kOutputs]) {
  const Vec even = m[1] + m[2], odd = m[1] - m[2], even2 = m[3] + m[4], odd2 = m[3] - m[4];
  o[0] = m[0] + even + even2;
  o[1] = odd + 2.0f * odd2;
  o[2] = even + 4.0f * even2;
  o[3] = odd + 8.0f * odd2 + m[5];
}

// One vector of channels of a tile: input[36] pixels (any place each) to 36 points, `stride` numbers apart.
inline void transform_tile(const float* const* pixels, int64_t channel, float* points, int64_t stride) {
  Vec columns[kPoints][kPoints];  // [x][point along y]
  for (int x = 0; x < kPoints; ++x) {
    Vec d[kPoints];
    for (int y = 0; y < kPoints; ++y) d[y] = load(pixels[y * kPoints + x] + channel);
    transform_inputs(d, columns[x]);
  }
  for (int y = 0; y < kPoints; ++y) {
    Vec d[kPoints], p[kPoints];
    for (int x = 0; x < kPoints; ++x) d[x] = columns[x][y];
    transform_inputs(d, p);
    for (int x = 0; x < kPoints; ++x) store(points + (y * kPoints + x) * stride, p[x]);
  }
}

// One vector of channels of a tile: 36 points, `stride` numbers apart, to outputs[y][x].
inline void outputs_of_tile(const float* points, int64_t stride, Vec (&outputs)[kOutputs][kOutputs]) {
  Vec rows[kPoints][kOutputs];  // [point along y][x]
  for (int y = 0; y < kPoints; ++y) {
    Vec m[kPoints];
    for (int x = 0; x < kPoints; ++x) m[x] = load(points + (y * kPoints + x) * stride);
    transform_outputs(m, rows[y]);
  }
  for (int x = 0; x < kOutputs; ++x) {
    Vec m[kPoints], o[kOutputs];
    for (int y = 0; y < kPoints; ++y) m[y] = rows[y][x];
    transform_outputs(m, o);
    for (int y = 0; y < kOutputs; ++y) outputs[y][x] = o[y];
  }
}

}  // namespace tai
