// SPDX-License-Identifier: GPL-2.0
#include "media/device.h"

#include <fcntl.h>
#include <openssl/evp.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <memory>

#include "media/image.h"

namespace media {

namespace {

using core::Code;
using core::Error;
using core::Result;

constexpr size_t kAlignment = 4096;

struct Free {
  void operator()(char* at) const { std::free(at); }
};
using Buffer = std::unique_ptr<char, Free>;

size_t whole_sectors(size_t bytes) { return (bytes + kSector - 1) / kSector * kSector; }

Buffer aligned(size_t bytes) {
  return Buffer(static_cast<char*>(
      std::aligned_alloc(kAlignment, (bytes + kAlignment - 1) / kAlignment * kAlignment)));
}

}  // namespace

Device::~Device() {
  if (fd_ >= 0) ::close(fd_);
}

Error Device::failed(const char* what) const {
  return {Code::storage, path_ + ": " + what + ": " + std::strerror(errno)};
}

Result<void> Device::open(const std::string& path, bool to_write) {
  path_ = path;
  fd_ = ::open(path.c_str(), (to_write ? O_WRONLY : O_RDONLY) | O_DIRECT | O_CLOEXEC);
  if (fd_ < 0) return failed("open");
  return {};
}

Result<std::string> Device::read(uint64_t offset, size_t bytes) const {
  const size_t whole = whole_sectors(bytes);
  const Buffer buffer = aligned(whole);
  if (!buffer) return Error{Code::storage, "no memory"};
  size_t done = 0;
  while (done < whole) {
    const ssize_t got =
        ::pread(fd_, buffer.get() + done, whole - done, static_cast<off_t>(offset + done));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return failed("read");
    if (got == 0) break;
    done += static_cast<size_t>(got);
  }
  return std::string(buffer.get(), std::min(done, bytes));
}

Result<void> Device::write(uint64_t offset, std::string_view bytes) const {
  const size_t whole = whole_sectors(bytes.size());
  const Buffer buffer = aligned(whole);
  if (!buffer) return Error{Code::storage, "no memory"};
  std::memcpy(buffer.get(), bytes.data(), bytes.size());
  std::memset(buffer.get() + bytes.size(), 0, whole - bytes.size());
  size_t done = 0;
  while (done < whole) {
    const ssize_t put =
        ::pwrite(fd_, buffer.get() + done, whole - done, static_cast<off_t>(offset + done));
    if (put < 0 && errno == EINTR) continue;
    if (put <= 0) return failed("write");
    done += static_cast<size_t>(put);
  }
  return {};
}

Result<void> Device::flush() const {
  if (::fdatasync(fd_) != 0) return failed("flush");
  return {};
}

struct Digest::State {
  EVP_MD_CTX* context = EVP_MD_CTX_new();
};

Digest::Digest() : state_(new State) { EVP_DigestInit_ex(state_->context, EVP_sha256(), nullptr); }

Digest::~Digest() {
  EVP_MD_CTX_free(state_->context);
  delete state_;
}

void Digest::add(std::string_view bytes) {
  EVP_DigestUpdate(state_->context, bytes.data(), bytes.size());
}

std::string Digest::end() {
  std::array<unsigned char, EVP_MAX_MD_SIZE> digest{};
  unsigned bytes = 0;
  EVP_DigestFinal_ex(state_->context, digest.data(), &bytes);
  constexpr std::string_view kDigits = "0123456789abcdef";
  std::string out;
  for (unsigned i = 0; i < bytes; i++) {
    out += kDigits[digest.at(i) >> 4];
    out += kDigits[digest.at(i) & 15];
  }
  return out;
}

}  // namespace media
