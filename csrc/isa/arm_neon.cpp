// NEON, as every 64-bit ARM processor has it.
#include <arm_neon.h>

#include "isa/arm.h"
#include "isa/plain.h"
#include "kernels/dense.h"
#include "kernels/depthwise.h"
#include "kernels/epilogue.h"
#include "kernels/events.h"
#include "kernels/winograd.h"

namespace maqd {

namespace {

struct DenseOps : WholeTiles<DenseOps> {
    static constexpr size_t TILE = 2;
    using Finisher = PlainFinisher;

    // Bytes are widened: x up to 255 needs 9 bits with its sign.
    static inline void tile(const uint8_t *x, const Left &left, const Right &right, int32_t *acc) {
        for (size_t half = 0; half < 2; half++) {
            const int8_t *w = right.first + half * right.pitch;
            const uint8_t *from = x;
            int32x4_t sums[TILE][8];  // two vectors for four outputs: even and odd pairs of products
            for (size_t p = 0; p < TILE; p++)
                for (auto &sum : sums[p]) sum = vdupq_n_s32(0);
            for (int32_t row = 0; row < right.runs; row++, from += left.pitch)
                for (size_t k = 0; k < right.run; k += 4, w += 64) {
                    int16x8_t inputs[TILE];
                    for (size_t p = 0; p < TILE; p++) {
                        uint32_t four;
                        std::memcpy(&four, from + p * left.stride + k, 4);
                        inputs[p] = vreinterpretq_s16_u16(vmovl_u8(vreinterpret_u8_u32(vdup_n_u32(four))));
                    }
                    for (size_t v = 0; v < 8; v++) {  // 8 weights: two outputs
                        const int16x8_t eight = vmovl_s8(vld1_s8(w + v * 8));
                        for (size_t p = 0; p < TILE; p++) {
                            sums[p][v] = vpadalq_s16(sums[p][v], vmulq_s16(inputs[p], eight));
                        }
                    }
                }
            for (size_t p = 0; p < TILE; p++)
                for (size_t v = 0; v < 8; v++) {
                    const size_t o = half * 16 + v * 2;
                    acc[p * 32 + o] = right.start[o] + vgetq_lane_s32(sums[p][v], 0) + vgetq_lane_s32(sums[p][v], 1);
                    acc[p * 32 + o + 1] =
                        right.start[o + 1] + vgetq_lane_s32(sums[p][v], 2) + vgetq_lane_s32(sums[p][v], 3);
                }
        }
    }
};

struct Half {
    using T = uint8x8_t;
    static constexpr size_t BYTES = 8;
    static T load(const uint8_t *p) { return vld1_u8(p); }
    static void store(uint8_t *p, T v) { vst1_u8(p, v); }
    static T zero() { return vdup_n_u8(0); }
    static T or2(T a, T b) { return vorr_u8(a, b); }
    static T and_not(T a, T b) { return vbic_u8(a, b); }
    static T xor3(T a, T b, T c) { return veor_u8(veor_u8(a, b), c); }
    static T not_xor3(T a, T b, T c) { return vmvn_u8(xor3(a, b, c)); }
    static T borrow(T a, T b, T c) { return vbsl_u8(veor_u8(b, c), vmvn_u8(a), b); }
};

struct X128 {
    using T = uint8x16_t;
    using H = Half;
    static constexpr size_t BYTES = 16;
    static T load(const uint8_t *p) { return vld1q_u8(p); }
    static void store(uint8_t *p, T v) { vst1q_u8(p, v); }
    static T zero() { return vdupq_n_u8(0); }
    static T xor2(T a, T b) { return veorq_u8(a, b); }
    static T and2(T a, T b) { return vandq_u8(a, b); }
    static T full_add(T &a, T b, T c) {
        const T differ = veorq_u8(b, c), carry = vbslq_u8(differ, a, b);
        a = veorq_u8(a, differ);
        return carry;
    }
    static H::T low(T v) { return vget_low_u8(v); }
    static H::T high(T v) { return vget_high_u8(v); }
};

struct EventOps : PlainEventOps {
    using Finisher = PlainFinisher;
};

struct DepthwiseOps {
    using Finisher = PlainFinisher;

    template <size_t COUNT>
    static inline void shorts(const uint8_t *x, const size_t *taps, size_t count, size_t step, const int8_t *weights,
                              size_t pitch, int16_t *acc) {
        for (size_t lane = 0; lane < DEPTHWISE_LANES; lane += 16) {
            int16x8_t low[COUNT], high[COUNT];
            for (size_t p = 0; p < COUNT; p++) low[p] = high[p] = vdupq_n_s16(0);
            for (size_t t = 0; t < count; t++) {
                const int8x16_t w = vld1q_s8(weights + t * pitch + lane);
                const int16x8_t w0 = vmovl_s8(vget_low_s8(w)), w1 = vmovl_s8(vget_high_s8(w));
                for (size_t p = 0; p < COUNT; p++) {
                    const uint8x16_t inputs = vld1q_u8(x + taps[t] + p * step + lane);
                    low[p] = vmlaq_s16(low[p], vreinterpretq_s16_u16(vmovl_u8(vget_low_u8(inputs))), w0);
                    high[p] = vmlaq_s16(high[p], vreinterpretq_s16_u16(vmovl_u8(vget_high_u8(inputs))), w1);
                }
            }
            for (size_t p = 0; p < COUNT; p++) {
                vst1q_s16(acc + p * DEPTHWISE_LANES + lane, low[p]);
                vst1q_s16(acc + p * DEPTHWISE_LANES + lane + 8, high[p]);
            }
        }
    }
};

void events(const EventsCall &e, const Finish &finish, size_t first, size_t last, uint8_t *scratch) {
    EventRows<X128, EventOps, EventLists<EventOps>>(e, finish, scratch).run(first, last);
}

Isa make() {
    Isa isa{};
    isa.name = "neon";
    FILL_SCALAR_KERNELS(isa.scalar, neon_);
    isa.language = plain_language();
    isa.dense.run = dense_blocks<DenseOps>;
    isa.dense.scratch = dense_block_scratch<DenseOps>;
    isa.dense.align = 4;
    isa.dense.strip_columns = 4;
    isa.dense.pair_limit = INT16_MAX;
    isa.dense.direct = true;
    isa.winograd.run = winograd<BlockWinograd<DenseOps>>;
    isa.winograd.scratch = winograd_scratch<PlainFinisher>;
    isa.winograd.offset = true;
    isa.events.run = events;
    isa.events.scratch = event_scratch<PlainFinisher, EventLists<EventOps>>;
    isa.events.vector_bits = 128;
    isa.events.count_bits = plain_count_bits;
    isa.depthwise.run = depthwise<DepthwiseOps>;
    isa.depthwise.scratch = depthwise_scratch<PlainFinisher>;
    isa.costs.product = 0.03;
    isa.costs.combine = 4;
    isa.costs.row = 0.8;
    isa.costs.chunk = 40;
    isa.costs.sums = 0;
    isa.costs.look = 30;
    return isa;
}

}  // namespace

const Isa &neon() {
    static const Isa isa = make();
    return isa;
}

}  // namespace maqd
