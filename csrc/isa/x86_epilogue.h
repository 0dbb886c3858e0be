// The epilogue of a convolution, for AVX-512 and AMX.
#pragma once

#include "kernels/calls.h"

namespace maqd {

// The epilogue of at most 32 outputs of a layer. Its variant is chosen once, not for each pixel.
class alignas(64) Finisher {
  public:
    Finisher(const Finish &, size_t output, size_t outputs);

    // Rows of accumulators, `stride` apart, of `pixels` pixels of the tensor from `pixel` on.
    void block(const int32_t *acc, size_t stride, size_t pixel, size_t pixels) const {
        table_->block(*this, acc, stride, pixel, pixels);
    }
    // Products of Winograd's filtering, m[6][PLANE][32].
    void quads(const int32_t *m, const Quad *quads, size_t count) const { table_->quads(*this, m, quads, count); }
    // As `block`, of accumulators in 16 bits, each row aligned. Only if is_short(), see epilogue.h.
    void rows(const int16_t *acc, size_t stride, size_t pixel, size_t pixels) const {
        table_->rows(*this, acc, stride, pixel, pixels);
    }

  private:
    struct Table {
        void (*block)(const Finisher &, const int32_t *, size_t, size_t, size_t);
        void (*quads)(const Finisher &, const int32_t *, const Quad *, size_t);
        void (*rows)(const Finisher &, const int16_t *, size_t, size_t, size_t);
    };
    template <class With>
    void use(const With &);
    template <bool ADDEND, bool RAW, bool SIGNS>
    void use_short(const Finish &, size_t output, size_t outputs);

    const Table *table_;
    alignas(64) unsigned char made_[640];
};

}  // namespace maqd
