// Memory that is not set to anything, in whole cache lines, or in huge pages where there is much of it.
#pragma once
#include <cstddef>
#include <cstdint>
#include <new>
#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace tai {

// A fresh page costs a microsecond or two when it is first written: 20 MB of small ones take longer than what is
// written there.
constexpr size_t kHugePage = size_t(2) << 20;

template <class T>
class Aligned {
 public:
  explicit Aligned(int64_t count)
      : alignment_{size_t(count) * sizeof(T) >= kHugePage ? kHugePage : 64},
        numbers_(static_cast<T*>(::operator new[](size_t(count) * sizeof(T), alignment_))) {
#if defined(__linux__)
    if (size_t(alignment_) == kHugePage) madvise(numbers_, size_t(count) * sizeof(T), MADV_HUGEPAGE);  // if it pleases
#endif
  }
  ~Aligned() { ::operator delete[](numbers_, alignment_); }
  Aligned(const Aligned&) = delete;
  Aligned& operator=(const Aligned&) = delete;
  T* get() const { return numbers_; }

 private:
  std::align_val_t alignment_;
  T* numbers_;
};

}  // namespace tai
