/* Training kernels: a per-channel affine map fused with a quantizer, its moments and its gradient.
 *
 * Every tensor is a row-major matrix of `rows` x `channels` values, channels innermost (channels_last images, or
 * N x C features), float32 or bfloat16. All arithmetic is float32 or wider; nothing allocates per element.
 *
 *   v      = a[c] * x + b[c]                    two roundings, no fused multiply-add
 *   index  = clip(floor(v), 0, M - 1)           thresholds at v = 1, 2, .., M - 1; NaN stays NaN
 *   output = offset + step * index
 *   phi    = surrogate(max(1 - v, v - (M - 1), 0))
 *
 * With M = 1 there is no quantizer: output = v and phi = 1.
 *
 * Work is cut into chunks whose size does not depend on the number of threads, and partial sums are added in chunk
 * order, so results are bit-identical for any number of threads.
 */
#include <math.h>
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#if defined(__x86_64__) && defined(__linux__) && defined(__GNUC__) && !defined(__clang__)
#define MULTIVERSION __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define MULTIVERSION
#endif
/* Into every clone: a call would keep its loops from being vectorized. */
#define ALWAYS_INLINE inline __attribute__((always_inline))
#if defined(_WIN32)
#define EXPORT __declspec(dllexport)
#else
#define EXPORT __attribute__((visibility("default")))
#endif

enum { FLOAT32 = 0, BFLOAT16 = 1 };
enum { WINDOW = 0, LINEAR_TAILS = 1, EXPONENTIAL_TAILS = 2, TRIANGLE = 3, ARCTAN = 4, SIGMOID = 5 };

/* Values processed at a time: a whole number of rows, long enough for vector loops, small enough for the L1 cache. */
enum { TILE = 512, CHUNK = 1 << 16, MAX_THREADS = 64 };

struct scratch;

struct job {
    const void *x, *grad;
    void *out;
    double *partial;     /* chunks x 2 x channels */
    const float *params; /* planes x channels: a, b (, A, B, C) */
    int planes, dtype, profile;
    int64_t rows, channels, tile_rows, chunk_rows, chunks;
    float top, step, offset, width;
    void (*work)(const struct job *, int64_t chunk, struct scratch *);
};

/* ---- bfloat16 ---------------------------------------------------------------------------------------------- */

static ALWAYS_INLINE float widen(uint16_t half) {
    uint32_t bits = (uint32_t)half << 16;
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static ALWAYS_INLINE uint16_t narrow(float value) { /* round to nearest, ties to even; NaN stays NaN */
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    uint32_t rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
    return (uint16_t)((bits & 0x7fffffffu) > 0x7f800000u ? (bits >> 16) | 0x40u : rounded);
}

/* ---- the function and its surrogate ------------------------------------------------------------------------- */

/* max(x, 0); NaN stays NaN. */
static ALWAYS_INLINE float positive(float x) { return x < 0.0f ? 0.0f : x; }

/* e**-t for t >= 0: 2**-(t log2 e), the integer part in the exponent, the fraction by its Taylor polynomial.
 * Relative error below 1e-6; 0 below 2**-126. */
static ALWAYS_INLINE float exp_minus(float t) {
    float scaled = t * 1.44269504f;
    uint32_t whole = (uint32_t)(int32_t)scaled; /* unsigned, so that an overflow is large too */
    float part = (float)(int32_t)whole - scaled; /* -1 < part <= 0 */
    float power = 1.5252734e-5f;
    power = power * part + 1.5403530e-4f;
    power = power * part + 1.3333558e-3f;
    power = power * part + 9.6181291e-3f;
    power = power * part + 5.5504109e-2f;
    power = power * part + 2.4022651e-1f;
    power = power * part + 6.9314718e-1f;
    power = power * part + 1.0f;
    uint32_t bits = (127u - whole) << 23;
    float scale;
    memcpy(&scale, &bits, sizeof scale);
    power *= scale;
    memcpy(&bits, &power, sizeof bits);
    bits &= 0u - (uint32_t)(whole < 127u); /* a mask: gcc makes control flow of a selection */
    memcpy(&power, &bits, sizeof power);
    return power;
}

/* phi at v; one of the two distances is zero. Formulas: maqd.nn.surrogate. */
static ALWAYS_INLINE float surrogate(int profile, float v, float top, float width, float inverse_width) {
    if (profile == WINDOW) return (v >= 1.0f - width) & (v <= top + width) ? 1.0f : 0.0f;
    float d = (positive(1.0f - v) + positive(v - top)) * inverse_width; /* in widths */
    float t;
    switch (profile) {
        case LINEAR_TAILS: return positive(1.0f - positive(d - 1.0f));
        case EXPONENTIAL_TAILS: /* max(d - 1, 0) without a comparison, on which gcc would not vectorize the rest */
            t = d - 1.0f;
            return exp_minus(0.5f * t + 0.5f * fabsf(t));
        case TRIANGLE: return positive(1.0f - d);
        case ARCTAN: t = d * 1.57079633f; return 1.0f / (1.0f + t * t);
        default: /* SIGMOID: 4 s (1 - s) with s = 1 / (1 + e**-d) */
            t = exp_minus(d);
            return 4.0f * t / ((1.0f + t) * (1.0f + t));
    }
}

/* ---- tiles -------------------------------------------------------------------------------------------------- */

MULTIVERSION
static void moments_tile(const float *restrict x, double *restrict sums, double *restrict squares, int64_t n) {
    for (int64_t i = 0; i < n; i++) {
        double value = x[i];
        sums[i] += value;
        squares[i] += value * value;
    }
}

MULTIVERSION
static void forward_tile(const float *restrict x, const float *restrict a, const float *restrict b, float *restrict out,
                         int64_t n, float top, float step, float offset) {
    if (top < 1.0f) {
        for (int64_t i = 0; i < n; i++) out[i] = a[i] * x[i] + b[i];
        return;
    }
    for (int64_t i = 0; i < n; i++) {
        float v = positive(a[i] * x[i] + b[i]); /* the order of the comparisons keeps NaN */
        v = v > top ? top : v;
        out[i] = floorf(v) * step + offset;
    }
}

/* grad * phi into `masked`; one loop per profile so that each is a plain vector loop. */
#define MASK_LOOP(PROFILE)                                                                           \
    case PROFILE:                                                                                    \
        for (int64_t i = 0; i < n; i++)                                                              \
            masked[i] = grad[i] * surrogate(PROFILE, a[i] * x[i] + b[i], top, width, inverse_width); \
        break;
MULTIVERSION
static void mask_tile(int profile, const float *restrict x, const float *restrict grad, const float *restrict a,
                      const float *restrict b, float *restrict masked, int64_t n, float top, float width) {
    float inverse_width = 1.0f / width;
    if (top < 1.0f) {
        memcpy(masked, grad, (size_t)n * sizeof *masked);
        return;
    }
    switch (profile) {
        MASK_LOOP(WINDOW)
        MASK_LOOP(LINEAR_TAILS)
        MASK_LOOP(EXPONENTIAL_TAILS)
        MASK_LOOP(TRIANGLE)
        MASK_LOOP(ARCTAN)
        MASK_LOOP(SIGMOID)
    }
}

MULTIVERSION
static void products_tile(const float *restrict masked, const float *restrict x, double *restrict sums,
                          double *restrict products, int64_t n) {
    for (int64_t i = 0; i < n; i++) {
        double value = masked[i];
        sums[i] += value;
        products[i] += value * (double)x[i];
    }
}

MULTIVERSION
static void input_gradient_tile(const float *restrict masked, const float *restrict x, const float *restrict A,
                                const float *restrict B, const float *restrict C, float *restrict out, int64_t n) {
    for (int64_t i = 0; i < n; i++) out[i] = (masked[i] * A[i] + x[i] * B[i]) + C[i];
}

MULTIVERSION
static void widen_tile(const uint16_t *restrict half, float *restrict buffer, int64_t n) {
    for (int64_t i = 0; i < n; i++) buffer[i] = widen(half[i]);
}

MULTIVERSION
static void narrow_tile(const float *restrict buffer, uint16_t *restrict half, int64_t n) {
    for (int64_t i = 0; i < n; i++) half[i] = narrow(buffer[i]);
}

/* ---- chunks: each thread owns its scratch ------------------------------------------------------------------- */

struct scratch {
    float *params; /* planes x tile: the channel parameters repeated over the rows of a tile */
    float *x, *grad, *out, *masked;
    double *sums; /* 2 x tile */
};

static int64_t chunk_start(const struct job *job, int64_t chunk) {
    int64_t row = chunk * job->chunk_rows;
    return (row < job->rows ? row : job->rows) * job->channels;
}

static const float *read_tile(const struct job *job, const void *base, int64_t first, int64_t n, float *buffer) {
    if (job->dtype == FLOAT32) return (const float *)base + first;
    widen_tile((const uint16_t *)base + first, buffer, n);
    return buffer;
}

static float *place_tile(const struct job *job, int64_t first, float *buffer) {
    return job->dtype == FLOAT32 ? (float *)job->out + first : buffer;
}

static void finish_tile(const struct job *job, int64_t first, int64_t n, const float *buffer) {
    if (job->dtype == BFLOAT16) narrow_tile(buffer, (uint16_t *)job->out + first, n);
}

/* Folds the sums of a tile's rows into the chunk's partial sums, one value per channel. */
static void fold_sums(const struct job *job, int64_t chunk, const double *sums, int64_t tile) {
    double *partial = job->partial + chunk * 2 * job->channels;
    for (int64_t plane = 0; plane < 2; plane++)
        for (int64_t i = 0; i < tile; i++) partial[plane * job->channels + i % job->channels] += sums[plane * tile + i];
}

static void moments_chunk(const struct job *job, int64_t chunk, struct scratch *scratch) {
    int64_t tile = job->tile_rows * job->channels, first = chunk_start(job, chunk), end = chunk_start(job, chunk + 1);
    memset(scratch->sums, 0, (size_t)(2 * tile) * sizeof(double));
    for (; first < end; first += tile) {
        int64_t n = end - first < tile ? end - first : tile;
        moments_tile(read_tile(job, job->x, first, n, scratch->x), scratch->sums, scratch->sums + tile, n);
    }
    fold_sums(job, chunk, scratch->sums, tile);
}

static void forward_chunk(const struct job *job, int64_t chunk, struct scratch *scratch) {
    int64_t tile = job->tile_rows * job->channels, first = chunk_start(job, chunk), end = chunk_start(job, chunk + 1);
    for (; first < end; first += tile) {
        int64_t n = end - first < tile ? end - first : tile;
        float *out = place_tile(job, first, scratch->out);
        forward_tile(read_tile(job, job->x, first, n, scratch->x), scratch->params, scratch->params + tile, out, n,
                     job->top, job->step, job->offset);
        finish_tile(job, first, n, out);
    }
}

static void backward_sums_chunk(const struct job *job, int64_t chunk, struct scratch *scratch) {
    int64_t tile = job->tile_rows * job->channels, first = chunk_start(job, chunk), end = chunk_start(job, chunk + 1);
    memset(scratch->sums, 0, (size_t)(2 * tile) * sizeof(double));
    for (; first < end; first += tile) {
        int64_t n = end - first < tile ? end - first : tile;
        const float *x = read_tile(job, job->x, first, n, scratch->x);
        const float *grad = read_tile(job, job->grad, first, n, scratch->grad);
        mask_tile(job->profile, x, grad, scratch->params, scratch->params + tile, scratch->masked, n, job->top,
                  job->width);
        products_tile(scratch->masked, x, scratch->sums, scratch->sums + tile, n);
    }
    fold_sums(job, chunk, scratch->sums, tile);
}

static void backward_input_chunk(const struct job *job, int64_t chunk, struct scratch *scratch) {
    int64_t tile = job->tile_rows * job->channels, first = chunk_start(job, chunk), end = chunk_start(job, chunk + 1);
    for (; first < end; first += tile) {
        int64_t n = end - first < tile ? end - first : tile;
        const float *x = read_tile(job, job->x, first, n, scratch->x), *params = scratch->params;
        const float *grad = read_tile(job, job->grad, first, n, scratch->grad);
        float *out = place_tile(job, first, scratch->out);
        mask_tile(job->profile, x, grad, params, params + tile, scratch->masked, n, job->top, job->width);
        input_gradient_tile(scratch->masked, x, params + 2 * tile, params + 3 * tile, params + 4 * tile, out, n);
        finish_tile(job, first, n, out);
    }
}

/* ---- running a job over its chunks -------------------------------------------------------------------------- */

struct worker {
    const struct job *job;
    int64_t first, stride;
    int failed;
};

static void *run_worker(void *argument) {
    struct worker *worker = argument;
    const struct job *job = worker->job;
    int64_t tile = job->tile_rows * job->channels;
    size_t floats = (size_t)(job->planes + 4) * (size_t)tile;
    double *memory = malloc((size_t)(2 * tile) * sizeof(double) + floats * sizeof(float));
    if (!memory) {
        worker->failed = 1;
        return NULL;
    }
    struct scratch scratch = {.sums = memory, .params = (float *)(memory + 2 * tile)};
    scratch.x = scratch.params + job->planes * tile;
    scratch.grad = scratch.x + tile;
    scratch.out = scratch.grad + tile;
    scratch.masked = scratch.out + tile;
    for (int64_t plane = 0; plane < job->planes; plane++)
        for (int64_t row = 0; row < job->tile_rows; row++)
            memcpy(scratch.params + plane * tile + row * job->channels, job->params + plane * job->channels,
                   (size_t)job->channels * sizeof(float));
    for (int64_t chunk = worker->first; chunk < job->chunks; chunk += worker->stride) job->work(job, chunk, &scratch);
    free(memory);
    return NULL;
}

/* Threads are made for the call: it costs some 20 us against the milliseconds of the tensors worth splitting, and
 * no idle pool competes with PyTorch's own. A thread that cannot be made has its share done by the caller. */
static int run_job(struct job *job, int threads) {
    int64_t rows = TILE / job->channels;
    job->tile_rows = rows > 0 ? rows : 1;
    rows = CHUNK / job->channels / job->tile_rows * job->tile_rows;
    job->chunk_rows = rows > 0 ? rows : job->tile_rows;
    job->chunks = (job->rows + job->chunk_rows - 1) / job->chunk_rows;
    if (threads > MAX_THREADS) threads = MAX_THREADS;
    if (threads > job->chunks) threads = (int)job->chunks;
    if (threads < 1) threads = 1;

    double *partial = NULL;
    if (job->partial) {
        partial = calloc((size_t)(job->chunks * 2 * job->channels) + 1, sizeof(double));
        if (!partial) return 1;
    }
    double *sums = job->partial;
    job->partial = partial;

    struct worker workers[MAX_THREADS];
    pthread_t handles[MAX_THREADS];
    int started[MAX_THREADS] = {0}, failed = 0;
    for (int i = threads - 1; i >= 0; i--) {
        workers[i] = (struct worker){.job = job, .first = i, .stride = threads};
        if (i > 0) started[i] = pthread_create(&handles[i], NULL, run_worker, &workers[i]) == 0;
        if (!started[i]) run_worker(&workers[i]);
    }
    for (int i = 0; i < threads; i++) {
        if (started[i]) pthread_join(handles[i], NULL);
        failed |= workers[i].failed;
    }
    if (partial) {
        memset(sums, 0, (size_t)(2 * job->channels) * sizeof(double));
        for (int64_t chunk = 0; chunk < job->chunks; chunk++)
            for (int64_t i = 0; i < 2 * job->channels; i++) sums[i] += partial[chunk * 2 * job->channels + i];
        free(partial);
    }
    return failed;
}

/* ---- interface: every function returns 0, or 1 when out of memory -------------------------------------------- */

/* sums[0][c] = sum of x, sums[1][c] = sum of x * x. */
EXPORT int maqd_channel_moments(const void *x, int dtype, int64_t rows, int64_t channels, double *sums, int threads) {
    struct job job = {
        .x = x, .dtype = dtype, .rows = rows, .channels = channels, .partial = sums, .work = moments_chunk};
    return run_job(&job, threads);
}

/* out = offset + step * index; params holds a and b. */
EXPORT int maqd_affine_act(const void *x, int dtype, int64_t rows, int64_t channels, const float *params, int states,
                           float step, float offset, void *out, int threads) {
    struct job job = {.x = x,
                      .dtype = dtype,
                      .rows = rows,
                      .channels = channels,
                      .params = params,
                      .planes = 2,
                      .top = (float)(states - 1),
                      .step = step,
                      .offset = offset,
                      .out = out,
                      .work = forward_chunk};
    return run_job(&job, threads);
}

/* sums[0][c] = sum of grad * phi, sums[1][c] = sum of grad * phi * x. */
EXPORT int maqd_affine_act_backward_sums(const void *x, const void *grad, int dtype, int64_t rows, int64_t channels,
                                         const float *params, int states, int profile, float width, double *sums,
                                         int threads) {
    struct job job = {.x = x,
                      .grad = grad,
                      .dtype = dtype,
                      .rows = rows,
                      .channels = channels,
                      .params = params,
                      .planes = 2,
                      .top = (float)(states - 1),
                      .profile = profile,
                      .width = width,
                      .partial = sums,
                      .work = backward_sums_chunk};
    return run_job(&job, threads);
}

/* out = grad * phi * A[c] + x * B[c] + C[c]; params holds a, b, A, B and C. */
EXPORT int maqd_affine_act_backward_input(const void *x, const void *grad, int dtype, int64_t rows, int64_t channels,
                                          const float *params, int states, int profile, float width, void *out,
                                          int threads) {
    struct job job = {.x = x,
                      .grad = grad,
                      .dtype = dtype,
                      .rows = rows,
                      .channels = channels,
                      .params = params,
                      .planes = 5,
                      .top = (float)(states - 1),
                      .profile = profile,
                      .width = width,
                      .out = out,
                      .work = backward_input_chunk};
    return run_job(&job, threads);
}
