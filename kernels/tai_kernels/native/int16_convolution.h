// 3x3 convolutions by Winograd's transform, multiplied in int16.
#pragma once
#include <memory>

#include "int16_gemm.h"
#include "winograd.h"
#include "workers.h"

namespace tai {

// Fields as in int16_library.py's structure of the same name, in the same order.
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
      const int64_t row = p * kBlock + slot;
      scales_.get()[row] =
          quantise_row(point, channels, largest_in(point, channels), points_.get() + row * channels);
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
    const int64_t height = std::min<int64_t>(kOutputs, job_.height - at.y);
    const int64_t width = std::min<int64_t>(kOutputs, job_.width - at.x);
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

}  // namespace tai
