// SPDX-License-Identifier: GPL-2.0
// blockcheck: writes self-describing sectors with many threads, and tells afterwards whether every
// flushed one, or a later one, is there.
//
//   blockcheck write DEVICE TAG RUN
//       until it is killed; says on standard output what is flushed
//   blockcheck verify DEVICE TAG RUN
//       reads what write said from standard input, then the device
//   blockcheck instant DEVICE TAG RUN
//       the same of a device that is to be what the written one was at one instant: a line "taken"
//       stands between what had been said before and what was said later
//
// What a thread does is a function of (run, thread, number of the operation), so that the verifier
// knows it without being told. Threads share a device by stripes that do not fit into chunks;
// within a thread operations follow each other. What write says is to be kept outside of what is
// tested.
#include <fcntl.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <iostream>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

namespace {

constexpr uint64_t kSector = 512;
constexpr uint64_t kStripe = 192;  // sectors; a chunk has 2048
constexpr uint64_t kThreads = 8;
constexpr uint64_t kMagic = 0x6b636f6c62637363;
constexpr uint64_t kMost = 128;        // sectors in one operation
constexpr uint64_t kZeroOneIn = 24;    // operations that write zeroes without data
constexpr uint64_t kFlushOneIn = 6;    // operations behind which it flushes
constexpr uint64_t kBehind = 100'000;  // operations that may have followed the last one we heard of
constexpr uint64_t kUnseen = 64;       // operations of which the later ones leave no trace
constexpr size_t kAlign = 4096;
constexpr int kExitWrong = 1;
constexpr int kExitUsage = 2;

struct Sector {
  uint64_t magic;
  uint64_t tag;
  uint64_t run;
  uint64_t sector;
  uint64_t thread;
  uint64_t number;
  uint64_t filler[(kSector - 7 * 8) / 8];
  uint64_t sum;
};
static_assert(sizeof(Sector) == kSector);

uint64_t mix(uint64_t x) {
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9;
  x = (x ^ (x >> 27)) * 0x94d049bb133111eb;
  return x ^ (x >> 31);
}

uint64_t sum_of(const Sector& s) {
  uint64_t sum = 0;
  for (const uint64_t word : {s.magic, s.tag, s.run, s.sector, s.thread, s.number})
    sum = mix(sum + word);
  for (const uint64_t word : s.filler) sum = mix(sum ^ word);
  return sum;
}

struct Layout {
  uint64_t tag = 0;
  uint64_t run = 0;
  uint64_t sectors = 0;
};

struct Operation {
  uint64_t start = 0;
  uint64_t len = 0;
  bool zero = false;
  bool flush = false;
};

// The operation of a thread with this number.
Operation operation(const Layout& layout, uint64_t thread, uint64_t number) {
  const uint64_t seed = mix(layout.tag ^ mix(layout.run ^ mix(thread ^ mix(number))));
  const uint64_t stripes = layout.sectors / (kStripe * kThreads);
  const uint64_t first = (seed % stripes * kThreads + thread) * kStripe;
  const uint64_t more = mix(seed);
  uint64_t at = more % kStripe;
  uint64_t len = 1 + mix(more) % std::min(kMost, kStripe - at);
  // As file systems do, mostly.
  if (mix(more + 1) % 4 != 0) {
    at = at / 8 * 8;
    len = std::min((len + 7) / 8 * 8, kStripe - at);
  }
  return {first + at, len, mix(more + 2) % kZeroOneIn == 0, mix(more + 3) % kFlushOneIn == 0};
}

uint64_t owner(uint64_t sector) { return sector / kStripe % kThreads; }

bool covers(const Operation& op, uint64_t sector) {
  return sector >= op.start && sector < op.start + op.len;
}

using Buffer = std::unique_ptr<char, decltype(&std::free)>;

Buffer make_buffer(uint64_t sectors) {
  const size_t bytes = (sectors * kSector + kAlign - 1) / kAlign * kAlign;
  return {static_cast<char*>(std::aligned_alloc(kAlign, bytes)), &std::free};
}

[[noreturn]] void fail(const std::string& what) {
  std::cerr << "blockcheck: " << what << ": " << std::strerror(errno) << "\n";
  std::_Exit(kExitWrong);
}

void fill(char* data, const Layout& layout, uint64_t thread, uint64_t number, const Operation& op) {
  for (uint64_t i = 0; i < op.len; i++) {
    Sector s{};
    s.magic = kMagic;
    s.tag = layout.tag;
    s.run = layout.run;
    s.sector = op.start + i;
    s.thread = thread;
    s.number = number;
    for (size_t w = 0; w < std::size(s.filler); w++) s.filler[w] = mix(number * 64 + w + i);
    s.sum = sum_of(s);
    std::memcpy(data + i * kSector, &s, sizeof(s));
  }
}

[[noreturn]] void write_all(int fd, const Layout& layout) {
  std::mutex out;
  std::vector<std::thread> threads;
  for (uint64_t thread = 0; thread < kThreads; thread++) {
    threads.emplace_back([&, thread] {
      const Buffer data = make_buffer(kMost + 8);
      for (uint64_t number = 0;; number++) {
        const Operation op = operation(layout, thread, number);
        if (op.zero) {
          std::array<uint64_t, 2> range = {op.start * kSector, op.len * kSector};
          if (::ioctl(fd, BLKZEROOUT, range.data()) != 0) fail("zeroing");
        } else {
          fill(data.get(), layout, thread, number, op);
          const auto bytes = static_cast<ssize_t>(op.len * kSector);
          if (::pwrite(fd, data.get(), op.len * kSector, static_cast<off_t>(op.start * kSector)) !=
              bytes)
            fail("writing");
        }
        if (!op.flush) continue;
        if (::fdatasync(fd) != 0) fail("flushing");
        const std::string line = std::to_string(thread) + " " + std::to_string(number) + "\n";
        const std::lock_guard lock(out);
        // Who read it is gone, so there is no use in going on.
        if (::write(STDOUT_FILENO, line.data(), line.size()) < 0) std::_Exit(0);
      }
    });
  }
  for (auto& thread : threads) thread.join();
  std::_Exit(0);
}

template <class Visit>
void read_all(int fd, uint64_t sectors, const Visit& visit) {
  constexpr uint64_t kAtOnce = 2048;
  const Buffer data = make_buffer(kAtOnce);
  for (uint64_t at = 0; at < sectors; at += kAtOnce) {
    const uint64_t some = std::min(kAtOnce, sectors - at);
    if (::pread(fd, data.get(), some * kSector, static_cast<off_t>(at * kSector)) !=
        static_cast<ssize_t>(some * kSector))
      fail("reading at sector " + std::to_string(at));
    for (uint64_t i = 0; i < some; i++) visit(at + i, data.get() + i * kSector);
  }
}

/// What a sector must at least hold.
struct Expected {
  std::optional<uint64_t> number;  // of the last flushed operation on it; nothing: none was
  bool zero = false;               // that operation wrote zeroes
};

class Verifier {
 public:
  explicit Verifier(const Layout& layout)
      : layout_(layout), flushed_(kThreads), least_(layout.sectors) {}

  // "THREAD NUMBER" lines; the last may have been cut off.
  void read_log(std::istream& in) {
    for (std::string line; std::getline(in, line) && !in.eof();) {
      uint64_t thread = kThreads;
      uint64_t number = 0;
      if (std::sscanf(line.c_str(), "%lu %lu", &thread, &number) != 2 || thread >= kThreads)
        continue;
      flushed_[thread] = std::max(flushed_[thread].value_or(0), number);
    }
    for (uint64_t thread = 0; thread < kThreads; thread++)
      for (uint64_t number = 0; flushed_[thread] && number <= *flushed_[thread]; number++) {
        const Operation op = operation(layout_, thread, number);
        for (uint64_t i = 0; i < op.len; i++) least_[op.start + i] = {number, op.zero};
        operations_++;
      }
  }

  bool verify(int fd) {
    read_all(fd, layout_.sectors,
             [this](uint64_t sector, const char* data) { check(sector, data); });
    std::cout << operations_ << " operations flushed, " << found_
              << " sectors as they were flushed, " << later_ << " later ones, " << wrong_
              << " wrong, digest " << std::hex << digest_ << "\n";
    return wrong_ == 0;
  }

 private:
  void check(uint64_t sector, const char* data) {
    Sector s{};
    std::memcpy(&s, data, sizeof(s));
    digest_ = mix(digest_ + s.sum + s.number);
    const Expected& least = least_[sector];
    const bool zero = std::all_of(data, data + kSector, [](char c) { return c == 0; });
    if (zero) {
      if (!least.number || least.zero || zeroed_later(sector, *least.number)) return count(least);
      return complain(sector,
                      "zeroes, where operation " + std::to_string(*least.number) + " was flushed");
    }
    if (s.magic != kMagic || s.sum != sum_of(s)) return complain(sector, "torn, or garbage");
    if (s.tag != layout_.tag || s.sector != sector || s.thread != owner(sector))
      return complain(sector, "data of another place: tag " + std::to_string(s.tag) + ", sector " +
                                  std::to_string(s.sector));
    if (s.run != layout_.run) {
      // What an earlier run left, where this one has flushed nothing.
      if (s.run < layout_.run && !least.number) return;
      return complain(sector, "data of run " + std::to_string(s.run));
    }
    const Operation op = operation(layout_, s.thread, s.number);
    if (!covers(op, sector) || op.zero) return complain(sector, "data that was never written");
    if (least.number && s.number < *least.number)
      return complain(sector, "operation " + std::to_string(s.number) + ", though " +
                                  std::to_string(*least.number) + " was flushed");
    found_ += least.number && s.number == *least.number;
    later_ += !least.number || s.number > *least.number;
  }

  bool zeroed_later(uint64_t sector, uint64_t than) {
    const uint64_t thread = owner(sector);
    const uint64_t end = flushed_[thread].value_or(0) + kBehind;
    for (uint64_t number = than + 1; number < end; number++) {
      const Operation op = operation(layout_, thread, number);
      if (op.zero && covers(op, sector)) return true;
    }
    return false;
  }

  void count(const Expected& least) { found_ += least.number.has_value(); }

  void complain(uint64_t sector, const std::string& what) {
    constexpr uint64_t kSaid = 20;
    if (wrong_++ < kSaid) std::cout << "sector " << sector << ": " << what << "\n";
  }

  const Layout layout_;
  std::vector<std::optional<uint64_t>> flushed_;
  std::vector<Expected> least_;
  uint64_t operations_ = 0;
  uint64_t found_ = 0;
  uint64_t later_ = 0;
  uint64_t wrong_ = 0;
  uint64_t digest_ = 0;
};

/// Whether a device is what another was at one instant: for each thread there is an operation up to
/// which all are there, and none behind it. Of the next one some sectors may be.
class Instant {
 public:
  explicit Instant(const Layout& layout) : layout_(layout), seen_(layout.sectors), log_(kThreads) {}

  void read_log(std::istream& in) {
    bool taken = false;
    for (std::string line; std::getline(in, line) && !in.eof();) {
      uint64_t thread = kThreads;
      uint64_t number = 0;
      taken = taken || line == "taken";
      if (std::sscanf(line.c_str(), "%lu %lu", &thread, &number) != 2 || thread >= kThreads)
        continue;
      Bounds& log = log_[thread];
      if (!taken) log.flushed = number;
      if (taken && !log.next) log.next = number;
    }
  }

  bool verify(int fd) {
    read_all(fd, layout_.sectors,
             [this](uint64_t sector, const char* data) { note(sector, data); });
    for (uint64_t thread = 0; thread < kThreads; thread++) settle(thread);
    std::cout << wrong_ << " wrong, digest " << std::hex << digest_ << "\n";
    return wrong_ == 0;
  }

 private:
  struct Bounds {
    std::optional<uint64_t> flushed;  // the last that was, before
    std::optional<uint64_t> next;     // the first that was, later
  };
  // Operations count from 1 here; 0: zeroes.
  using Image = std::vector<uint64_t>;

  void note(uint64_t sector, const char* data) {
    Sector s{};
    std::memcpy(&s, data, sizeof(s));
    digest_ = mix(digest_ + s.sum + s.number);
    if (std::all_of(data, data + kSector, [](char c) { return c == 0; })) return;
    if (s.magic != kMagic || s.sum != sum_of(s) || s.tag != layout_.tag || s.run != layout_.run ||
        s.sector != sector || s.thread != owner(sector)) {
      complain("sector " + std::to_string(sector) + ": torn, or data of another place");
      return;
    }
    seen_[sector] = s.number + 1;
    last_[s.thread] = std::max(last_[s.thread], s.number + 1);
  }

  void apply(Image& image, uint64_t thread, uint64_t count) const {
    const Operation op = operation(layout_, thread, count - 1);
    for (uint64_t i = 0; i < op.len; i++) image[op.start + i] = op.zero ? 0 : count;
  }

  // Looks for the number of operations that explains what was seen.
  void settle(uint64_t thread) {
    const Bounds& log = log_[thread];
    const uint64_t least = log.flushed ? *log.flushed + 1 : 0;
    uint64_t count = last_[thread] == 0 ? 0 : last_[thread] - 1;
    Image now(layout_.sectors);
    for (uint64_t i = 1; i <= count; i++) apply(now, thread, i);
    for (const uint64_t end = std::max(count, least) + kUnseen; count <= end; count++) {
      Image next = now;
      apply(next, thread, count + 1);
      const uint64_t torn = differing(thread, now, next);
      if (count >= least && torn == 0 && (!log.next || count <= *log.next + 1)) {
        std::cout << "thread " << thread << ": " << count << " operations, " << least
                  << " of them flushed before\n";
        return;
      }
      now = std::move(next);
    }
    complain("thread " + std::to_string(thread) + ": no instant has what is there; the last is " +
             std::to_string(last_[thread]) + ", " + std::to_string(least) +
             " were flushed before, " + (log.next ? std::to_string(*log.next + 1) : "nothing") +
             " later");
  }

  // Sectors of a thread that are neither as they were before an operation nor as behind it.
  uint64_t differing(uint64_t thread, const Image& before, const Image& behind) const {
    uint64_t count = 0;
    for (uint64_t sector = 0; sector < layout_.sectors; sector++)
      count += owner(sector) == thread && seen_[sector] != before[sector] &&
               seen_[sector] != behind[sector];
    return count;
  }

  void complain(const std::string& what) {
    constexpr uint64_t kSaid = 20;
    if (wrong_++ < kSaid) std::cout << what << "\n";
  }

  const Layout layout_;
  Image seen_;
  std::vector<Bounds> log_;
  std::array<uint64_t, kThreads> last_{};
  uint64_t wrong_ = 0;
  uint64_t digest_ = 0;
};

template <class Check>
int check(const Layout& layout, int fd) {
  Check one(layout);
  one.read_log(std::cin);
  return one.verify(fd) ? 0 : kExitWrong;
}

}  // namespace

int main(int argc, char** argv) {
  const std::vector<std::string> words(argv + 1, argv + argc);
  const std::string what = words.empty() ? "" : words[0];
  if (words.size() != 4 || (what != "write" && what != "verify" && what != "instant")) {
    std::cerr << "usage: blockcheck write|verify|instant DEVICE TAG RUN\n";
    return kExitUsage;
  }
  const bool writes = what == "write";
  const int fd = ::open(words[1].c_str(), (writes ? O_RDWR : O_RDONLY) | O_DIRECT | O_CLOEXEC);
  if (fd < 0) fail(words[1]);
  const off_t bytes = ::lseek(fd, 0, SEEK_END);
  Layout layout{std::stoull(words[2]), std::stoull(words[3]), 0};
  // Whole rounds of stripes; what is behind is left alone.
  layout.sectors =
      static_cast<uint64_t>(bytes) / kSector / (kStripe * kThreads) * kStripe * kThreads;
  if (layout.sectors == 0) {
    std::cerr << "blockcheck: " << words[1] << " is too small\n";
    return kExitUsage;
  }
  if (writes) write_all(fd, layout);
  return what == "instant" ? check<Instant>(layout, fd) : check<Verifier>(layout, fd);
}
