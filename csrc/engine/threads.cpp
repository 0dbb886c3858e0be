#include "engine/threads.h"

#include <stdexcept>
#include <string>
#include <system_error>

namespace maqd {

namespace {

inline void relax() {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    asm volatile("yield");
#endif
}

constexpr int SPINS = 20000;  // some tens of microseconds; then other processes may need the processor

}  // namespace

void Barrier::wait() {
    const unsigned round = round_.load(std::memory_order_acquire);
    if (arrived_.fetch_add(1, std::memory_order_acq_rel) == members_ - 1) {
        arrived_.store(0, std::memory_order_relaxed);
        round_.fetch_add(1, std::memory_order_acq_rel);
        return;
    }
    for (int spin = 0; round_.load(std::memory_order_acquire) == round; spin++) {
        if (spin < SPINS)
            relax();
        else
            std::this_thread::yield();
    }
}

Team::Team(int members) {
    threads_.reserve(static_cast<size_t>(members));
    try {
        for (int member = 1; member < members; member++) threads_.emplace_back([this, member] { loop(member); });
    } catch (const std::system_error &) {
        const size_t started = threads_.size() + 1;
        stop();
        throw std::runtime_error("the system started " + std::to_string(started) + " of " + std::to_string(members) +
                                 " threads; load the network with fewer");
    }
}

Team::~Team() { stop(); }

void Team::stop() {
    {
        std::lock_guard<std::mutex> lock(mutex_);
        stop_ = true;
    }
    start_.notify_all();
    for (auto &thread : threads_) thread.join();
}

bool Team::run(const std::function<void(int)> &work) {
    std::unique_lock<std::mutex> owner(owner_, std::try_to_lock);
    if (!owner.owns_lock()) return false;
    {
        std::lock_guard<std::mutex> lock(mutex_);
        work_ = &work;
        running_ = static_cast<int>(threads_.size());
        round_++;
    }
    start_.notify_all();
    work(0);
    std::unique_lock<std::mutex> lock(mutex_);
    done_.wait(lock, [this] { return running_ == 0; });
    return true;
}

void Team::loop(int member) {
    unsigned seen = 0;
    for (;;) {
        const std::function<void(int)> *work;
        {
            std::unique_lock<std::mutex> lock(mutex_);
            start_.wait(lock, [&] { return stop_ || round_ != seen; });
            if (stop_) return;
            seen = round_;
            work = work_;
        }
        (*work)(member);
        std::lock_guard<std::mutex> lock(mutex_);
        if (--running_ == 0) done_.notify_one();
    }
}

}  // namespace maqd
