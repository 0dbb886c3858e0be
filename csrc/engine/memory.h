// Memory that kernels may use: aligned, zeroed, with room to read and write a little past its end.
#pragma once

#include <cstdint>
#include <cstring>
#include <memory>
#include <new>
#include <stdexcept>

#include "kernels/calls.h"

namespace maqd {

class Memory {
  public:
    Memory() = default;
    explicit Memory(size_t size) : size_(size) {
        if (size > SIZE_MAX / 2) throw std::bad_alloc();
        const size_t total = (size + SLACK + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
        data_.reset(static_cast<uint8_t *>(::operator new(total, std::align_val_t(ALIGNMENT))));
        std::memset(data_.get(), 0, total);
    }
    uint8_t *data() { return data_.get(); }
    const uint8_t *data() const { return data_.get(); }
    size_t size() const { return size_; }

  private:
    static constexpr size_t ALIGNMENT = 64;
    struct Free {
        void operator()(uint8_t *data) const { ::operator delete(data, std::align_val_t(ALIGNMENT)); }
    };
    std::unique_ptr<uint8_t, Free> data_;
    size_t size_ = 0;
};

}  // namespace maqd
