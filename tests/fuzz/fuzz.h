/* SPDX-License-Identifier: GPL-2.0 */
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>

/// Ends the run with what was expected; the input is kept by libFuzzer.
#define EXPECT(condition)                                                            \
  do {                                                                               \
    if (!(condition)) {                                                              \
      std::fprintf(stderr, "%s:%d: expected: %s\n", __FILE__, __LINE__, #condition); \
      std::abort();                                                                  \
    }                                                                                \
  } while (false)

/// Reads fields off an input; zeros behind its end.
class Input {
 public:
  Input(const uint8_t* data, size_t size) : data_(data), left_(size) {}

  template <class T>
  T take() {
    T out{};
    const size_t bytes = sizeof(T) < left_ ? sizeof(T) : left_;
    if (bytes > 0) std::memcpy(&out, data_, bytes);
    data_ += bytes;
    left_ -= bytes;
    return out;
  }
  bool empty() const { return left_ == 0; }

 private:
  const uint8_t* data_;
  size_t left_;
};

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);
