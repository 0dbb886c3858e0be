// A team of threads that run one function together.
#pragma once

#include <atomic>
#include <condition_variable>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

namespace maqd {

// A barrier of a team. Waiting spins, because steps take microseconds.
class Barrier {
  public:
    explicit Barrier(int members) : members_(members) {}
    void wait();

  private:
    const int members_;
    std::atomic<int> arrived_{0};
    std::atomic<unsigned> round_{0};
};

class Team {
  public:
    // Throws std::runtime_error if the system starts no more threads; those that it started have ended then.
    explicit Team(int members);
    ~Team();
    Team(const Team &) = delete;
    Team &operator=(const Team &) = delete;

    int members() const { return static_cast<int>(threads_.size()) + 1; }

    // Calls work(member) once for each member, 0 in the calling thread, and returns when all have returned. False,
    // without a call, if another thread has the team. `work` must not throw.
    bool run(const std::function<void(int)> &work);

  private:
    void loop(int member);
    void stop();

    std::mutex owner_, mutex_;
    std::condition_variable start_, done_;
    const std::function<void(int)> *work_ = nullptr;
    unsigned round_ = 0;
    int running_ = 0;
    bool stop_ = false;
    std::vector<std::thread> threads_;
};

}  // namespace maqd
