// SPDX-License-Identifier: GPL-2.0
// Fibers of a simulation: coroutines of one thread, of which a seeded scheduler runs one at a time,
// up to where it waits next. Nothing else happens at the same moment, so a seed is a schedule.
#pragma once

#include <coroutine>
#include <cstdint>
#include <exception>
#include <functional>
#include <memory>
#include <optional>
#include <random>
#include <set>
#include <utility>
#include <vector>

namespace sim {

/// What a fiber waits for; empty: nothing but its turn.
using Condition = std::function<bool()>;

/// What a coroutine returns that has nothing to say.
struct Done {};

/// A coroutine that begins when it is awaited, and is destroyed with the frame that awaits it: what
/// kills a fiber kills all that it is in the middle of.
template <class T>
class [[nodiscard]] Co {
 public:
  struct promise_type;
  using Handle = std::coroutine_handle<promise_type>;

  struct Final {
    bool await_ready() noexcept { return false; }
    std::coroutine_handle<> await_suspend(Handle h) noexcept {
      if (h.promise().then) return h.promise().then;
      return std::noop_coroutine();
    }
    void await_resume() noexcept {}
  };
  struct promise_type {
    std::coroutine_handle<> then;
    std::exception_ptr failed;
    std::optional<T> value;
    Co get_return_object() { return Co(Handle::from_promise(*this)); }
    std::suspend_always initial_suspend() noexcept { return {}; }
    Final final_suspend() noexcept { return {}; }
    void unhandled_exception() { failed = std::current_exception(); }
    void return_value(T v) { value = std::move(v); }
  };

  Co(Co&& other) noexcept : handle_(std::exchange(other.handle_, {})) {}
  Co& operator=(Co&&) = delete;
  ~Co() {
    if (handle_) handle_.destroy();
  }

  bool await_ready() const { return false; }
  std::coroutine_handle<> await_suspend(std::coroutine_handle<> caller) {
    handle_.promise().then = caller;
    return handle_;
  }
  T await_resume() {
    rethrow();
    return std::move(*handle_.promise().value);
  }

  std::coroutine_handle<> handle() const { return handle_; }
  void rethrow() const {
    if (handle_.promise().failed) std::rethrow_exception(handle_.promise().failed);
  }

 private:
  explicit Co(Handle handle) : handle_(handle) {}
  Handle handle_;
};

class Scheduler {
 public:
  explicit Scheduler(uint64_t seed) : random_(seed) {}

  /// Starts a fiber; `owner` is what kill() ends it by.
  void spawn(const void* owner, Co<Done> main);
  /// Ends all fibers of an owner where they wait; one of them that calls this, at its next wait.
  void kill(const void* owner);
  /// An owner's fibers stand still, until thaw().
  void freeze(const void* owner) { frozen_.insert(owner); }
  void thaw(const void* owner) { frozen_.erase(owner); }

  /// Gives one fiber, drawn by chance, its turn; it goes on where what it waits for is so. Time
  /// passes by one. What a fiber throws ends here, in the caller.
  void step();
  [[nodiscard]] uint64_t now() const { return now_; }

  /// At random, from 0 to below `limit`.
  uint64_t draw(uint64_t limit) { return random_() % limit; }
  bool one_in(uint64_t chance) { return draw(chance) == 0; }

  struct Wait {
    Scheduler& scheduler;
    Condition condition;
    bool await_ready() const { return false; }
    void await_suspend(std::coroutine_handle<> at) {
      scheduler.running_->at = at;
      scheduler.running_->until = std::move(condition);
    }
    void await_resume() const {}
  };
  /// Goes on at a later turn, when the condition is true.
  Wait until(Condition condition) { return {*this, std::move(condition)}; }
  Wait turn() { return {*this, {}}; }
  /// Some time, drawn by chance, of this length at most.
  Wait pause(uint64_t most) {
    const uint64_t over = now_ + draw(most + 1);
    return {*this, [this, over] { return now_ >= over; }};
  }

 private:
  struct Fiber {
    const void* owner;
    Co<Done> main;
    std::coroutine_handle<> at;
    Condition until;
    bool killed = false;
  };

  std::mt19937_64 random_;
  uint64_t now_ = 0;
  std::vector<std::unique_ptr<Fiber>> fibers_;
  std::set<const void*> frozen_;
  Fiber* running_ = nullptr;
};

}  // namespace sim
