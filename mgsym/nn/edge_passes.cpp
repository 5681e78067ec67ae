// The passes over edges of SymGNN's training step on a CPU: what `egat_kernel.py`, `egat.py` and
// `layers.py` compute with PyTorch, fused. The formulas stand there; names here are theirs.
//
// Edges are taken BLOCK at a time, and of their channels one head (WIDTH channels) at a time. All
// that is made of them on the way, such as the panel z [BLOCK, WIDTH], stays in the first cache,
// and all products are of such panels with matrices of WIDTH × WIDTH. Sums over edges are made
// block by block, for each thread by itself: Python adds those up, in the order of the threads.
//
// Compiled by mgsym.utils.compilation with -DWIDTH=… and vectors.h; called through
// mgsym.nn.edge_passes.

const int VECTORS = WIDTH / LANES;    // registers in a row of a panel
const int PAIR = 2 * LANES;           // columns of a product that are made at once
const int BLOCK = 72;                 // edges; a panel of 32 channels takes 9 kB
const float SLOPE = 0.01f;            // of LeakyReLU
static_assert(WIDTH % PAIR == 0, "a row is made of pairs of registers");

typedef uint8_t Bytes __attribute__((vector_size(LANES), aligned(1), may_alias));

// ---- products of panels ----

// Some rows and one pair of columns of start + left [rows, inner] · right [inner, WIDTH].
template <int ROWS, class Start, class Finish>
static inline void product_tile(int row, int column, const float *left, int inner,
                                const float *right, Start start, Finish finish) {
    Vec sums[ROWS][2];
#pragma GCC unroll 8
    for (int r = 0; r < ROWS; ++r)
        for (int v = 0; v < 2; ++v) sums[r][v] = start(row + r, column + v * LANES);
    left += row * inner;
    right += column;
    for (int k = 0; k < inner; ++k) {
        const Vec first = load(right + k * WIDTH), second = load(right + k * WIDTH + LANES);
#pragma GCC unroll 8
        for (int r = 0; r < ROWS; ++r) {
            const float x = left[r * inner + k];
            sums[r][0] += x * first;
            sums[r][1] += x * second;
        }
    }
#pragma GCC unroll 8
    for (int r = 0; r < ROWS; ++r)
        for (int v = 0; v < 2; ++v) finish(row + r, column + v * LANES, sums[r][v]);
}

// Give start(row, column) + left · right to finish(row, column, value), a register at a time.
// Six rows by two registers keep twelve sums in flight, which is what hides the latency of FMA.
template <class Start, class Finish>
static inline void product(int rows, const float *left, int inner, const float *right, Start start,
                           Finish finish) {
    int row = 0;
    for (; row + 6 <= rows; row += 6)
        for (int column = 0; column < WIDTH; column += PAIR)
            product_tile<6>(row, column, left, inner, right, start, finish);
    for (; row < rows; ++row)
        for (int column = 0; column < WIDTH; column += PAIR)
            product_tile<1>(row, column, left, inner, right, start, finish);
}

// total [inner, WIDTH] += leftᵀ · right of left [rows, inner] and right [rows, WIDTH]: some of its rows.
template <int ROWS>
static inline void outer_tile(int rows, const float *left, int inner, const float *right,
                              float *total) {
    Vec sums[ROWS][2];
#pragma GCC unroll 8
    for (int i = 0; i < ROWS; ++i)
        for (int v = 0; v < 2; ++v) sums[i][v] = load(total + i * WIDTH + v * LANES);
    for (int r = 0; r < rows; ++r) {
        const Vec first = load(right + r * WIDTH), second = load(right + r * WIDTH + LANES);
#pragma GCC unroll 8
        for (int i = 0; i < ROWS; ++i) {
            const float x = left[r * inner + i];
            sums[i][0] += x * first;
            sums[i][1] += x * second;
        }
    }
#pragma GCC unroll 8
    for (int i = 0; i < ROWS; ++i)
        for (int v = 0; v < 2; ++v) store(total + i * WIDTH + v * LANES, sums[i][v]);
}

static inline void outer(int rows, const float *left, int inner, const float *right, float *total) {
    for (int column = 0; column < WIDTH; column += PAIR) {
        int i = 0;
        for (; i + 6 <= inner; i += 6)
            outer_tile<6>(rows, left + i, inner, right + column, total + i * WIDTH + column);
        for (; i + 4 <= inner; i += 4)
            outer_tile<4>(rows, left + i, inner, right + column, total + i * WIDTH + column);
        for (; i + 2 <= inner; i += 2)
            outer_tile<2>(rows, left + i, inner, right + column, total + i * WIDTH + column);
        for (; i < inner; ++i)
            outer_tile<1>(rows, left + i, inner, right + column, total + i * WIDTH + column);
    }
}

// total [WIDTH] += Σ weight(row) · panel[row]
template <class Weight>
static inline void add_rows(int rows, const float *panel, float *total, Weight weight) {
    Vec even[VECTORS], odd[VECTORS];  // two sums each, as one would wait for itself
    for (int v = 0; v < VECTORS; ++v) even[v] = odd[v] = Vec{};
    int r = 0;
    for (; r + 2 <= rows; r += 2)
        for (int v = 0; v < VECTORS; ++v) {
            even[v] += weight(r) * load(panel + r * WIDTH + v * LANES);
            odd[v] += weight(r + 1) * load(panel + (r + 1) * WIDTH + v * LANES);
        }
    for (int v = 0; v < VECTORS; ++v) {
        if (r < rows) even[v] += weight(r) * load(panel + r * WIDTH + v * LANES);
        add(total + v * LANES, even[v] + odd[v]);
    }
}

// Call work(first edge, rows) for each block of a range.
template <class Work>
static inline void each_block(Index first, Index last, Work work) {
    for (Index start = first; start < last; start += BLOCK)
        work(start, int(std::min(Index(BLOCK), last - start)));
}

// ---- logits and new edges of a layer (egat_kernel.py) ----

struct Layer {
    Index count, heads, nodes, threads;
    const Index *source, *target;  // [count]
    const float *p, *q;            // [nodes, heads · WIDTH]
    const float *edges;            // f [count, WIDTH]
    const float *inward;           // W_eᵀ of each head, [heads, WIDTH, WIDTH]
    const uint8_t *kept;           // dropout [count, WIDTH], or null
    float *stored;                 // z, block by block and in it head by head, or null
    float scale;                   // of what is kept
};

// z of one head of a block.
static void activate(const Layer &L, Index start, int rows, Index head, float *z) {
    const Index channels = L.heads * WIDTH, *source = L.source + start, *target = L.target + start;
    const float *p = L.p + head * WIDTH, *q = L.q + head * WIDTH;
    if (head + 1 < L.heads)  // what the next head gathers comes from far
        for (int r = 0; r < rows; ++r)
            for (int c = 0; c < WIDTH; c += 16)
                __builtin_prefetch(p + source[r] * channels + WIDTH + c);
    product(
        rows, L.edges + start * WIDTH, WIDTH, L.inward + head * WIDTH * WIDTH,
        [&](int r, int c) { return load(p + source[r] * channels + c) + load(q + target[r] * channels + c); },
        [&](int r, int c, Vec u) { store(z + r * WIDTH + c, u > 0 ? u : SLOPE * u); });
}

static inline float *place(const Layer &L, Index start, int rows, Index head) {
    return L.stored + start * L.heads * WIDTH + head * rows * WIDTH;
}

// z of one head of a block, as stored or made again in `own`.
static inline const float *activation(const Layer &L, Index start, int rows, Index head, float *own) {
    if (L.stored) return place(L, start, rows, head);
    activate(L, start, rows, head, own);
    return own;
}

// a · z of one head of a block.
static inline void head_logits(const Layer &L, Index start, int rows, Index head, const float *z,
                               const float *a, float *logits) {
    Vec weight[VECTORS];
    for (int v = 0; v < VECTORS; ++v) weight[v] = load(a + head * WIDTH + v * LANES);
    for (int r = 0; r < rows; ++r) {
        Vec dot = Vec{};
        for (int v = 0; v < VECTORS; ++v) dot += weight[v] * load(z + r * WIDTH + v * LANES);
        logits[(start + r) * L.heads + head] = sum(dot);
    }
}

// What comes down to the projection: d_new behind dropout.
static inline const float *behind_dropout(const Layer &L, Index start, int rows, const float *d_new, float *own) {
    d_new += start * WIDTH;
    if (!L.kept) return d_new;
    const uint8_t *kept = L.kept + start * WIDTH;
    for (int i = 0; i < rows * WIDTH; i += LANES)
        store(own + i, load(d_new + i) * (L.scale * __builtin_convertvector(*reinterpret_cast<const Bytes *>(kept + i), Vec)));
    return own;
}

extern "C" {

// z, logits [count, heads], and per thread Σ (z − shift) and its squares, [threads, 2, channels].
void egat_activate(const Layer *layer, const float *a, const float *shift, float *logits, double *sums) {
    const Layer &L = *layer;
    const Index channels = L.heads * WIDTH;
    share_out(L.count, L.threads, BLOCK, [=](Index thread, Index first, Index last) {
        alignas(64) float own[BLOCK * WIDTH];
        double *total = sums + thread * 2 * channels;
        each_block(first, last, [&](Index start, int rows) {
            for (Index head = 0; head < L.heads; ++head) {
                float *z = L.stored ? place(L, start, rows, head) : own;
                activate(L, start, rows, head, z);
                Vec s[VECTORS], squares[VECTORS], middle[VECTORS];
                for (int v = 0; v < VECTORS; ++v) {
                    s[v] = squares[v] = Vec{};
                    middle[v] = load(shift + head * WIDTH + v * LANES);
                }
                head_logits(L, start, rows, head, z, a, logits);
                for (int r = 0; r < rows; ++r)
                    for (int v = 0; v < VECTORS; ++v) {
                        const Vec d = load(z + r * WIDTH + v * LANES) - middle[v];
                        s[v] += d;
                        squares[v] += d * d;
                    }
                for (int v = 0; v < VECTORS; ++v)
                    for (int l = 0; l < LANES; ++l) {
                        total[head * WIDTH + v * LANES + l] += s[v][l];
                        total[channels + head * WIDTH + v * LANES + l] += squares[v][l];
                    }
            }
        });
    });
}

// Without statistics: z where it is stored, logits and, where there is a matrix, new edges as
// egat_update makes them, all in one pass.
void egat_outputs(const Layer *layer, const float *a, const float *matrix, const float *constant,
                  float *logits, float *updated) {
    const Layer &L = *layer;
    share_out(L.count, L.threads, BLOCK, [=](Index, Index first, Index last) {
        alignas(64) float own[BLOCK * WIDTH];
        each_block(first, last, [&](Index start, int rows) {
            float *out = updated + start * WIDTH;
            for (Index head = 0; head < L.heads; ++head) {
                float *z = L.stored ? place(L, start, rows, head) : own;
                activate(L, start, rows, head, z);
                head_logits(L, start, rows, head, z, a, logits);
                if (!matrix) continue;
                const float *so_far = head ? out : L.edges + start * WIDTH;
                product(
                    rows, z, WIDTH, matrix + head * WIDTH * WIDTH,
                    [&](int r, int c) { return load(so_far + r * WIDTH + c) + (head ? Vec{} : load(constant + c)); },
                    [&](int r, int c, Vec x) { store(out + r * WIDTH + c, x); });
            }
            if (matrix) behind_dropout(L, start, rows, updated, out);
        });
    });
}

// new = m (f + z · matrix + constant); matrix [channels, WIDTH] is norm and projection in one.
void egat_update(const Layer *layer, const float *matrix, const float *constant, float *updated) {
    const Layer &L = *layer;
    share_out(L.count, L.threads, BLOCK, [=](Index, Index first, Index last) {
        alignas(64) float own[BLOCK * WIDTH];
        each_block(first, last, [&](Index start, int rows) {
            float *out = updated + start * WIDTH;
            for (int r = 0; r < rows; ++r)
                for (int c = 0; c < WIDTH; c += LANES)
                    store(out + r * WIDTH + c, load(L.edges + (start + r) * WIDTH + c) + load(constant + c));
            for (Index head = 0; head < L.heads; ++head)
                product(
                    rows, activation(L, start, rows, head, own), WIDTH, matrix + head * WIDTH * WIDTH,
                    [&](int r, int c) { return load(out + r * WIDTH + c); },
                    [&](int r, int c, Vec x) { store(out + r * WIDTH + c, x); });
            behind_dropout(L, start, rows, updated, out);
        });
    });
}

// Σ over edges of d_newᵀ z [threads, heads, WIDTH, WIDTH], of d_new [threads, WIDTH], and of
// d_logits · z [threads, heads, WIDTH]; d_new (behind dropout) or d_logits may be null.
void egat_moments(const Layer *layer, const float *d_logits, const float *d_new, float *moment,
                  float *summed, float *d_a) {
    const Layer &L = *layer;
    share_out(L.count, L.threads, BLOCK, [=](Index thread, Index first, Index last) {
        alignas(64) float own[BLOCK * WIDTH], dropped[BLOCK * WIDTH];
        const Index by_head = thread * L.heads;
        each_block(first, last, [&](Index start, int rows) {
            const float *d_out = d_new ? behind_dropout(L, start, rows, d_new, dropped) : nullptr;
            if (d_out) add_rows(rows, d_out, summed + thread * WIDTH, [](int) { return 1.0f; });
            for (Index head = 0; head < L.heads; ++head) {
                const float *z = activation(L, start, rows, head, own);
                if (d_out) outer(rows, d_out, WIDTH, z, moment + (by_head + head) * WIDTH * WIDTH);
                if (d_logits)
                    add_rows(rows, z, d_a + (by_head + head) * WIDTH,
                             [&](int r) { return d_logits[(start + r) * L.heads + head]; });
            }
        });
    });
}

// What reaches nodes [threads, nodes, channels], edges and W_e [threads, channels, WIDTH]:
// dz = d_new · downward + d_logits · a + slope · z + constant, downward [heads, WIDTH, WIDTH].
void egat_backward(const Layer *layer, const float *d_logits, const float *d_new,
                   const float *downward, const float *a, const float *slope,
                   const float *constant, const float *w_e, float *d_p, float *d_q,
                   float *d_edges, float *d_w_e) {
    const Layer &L = *layer;
    const Index channels = L.heads * WIDTH;
    share_out(L.count, L.threads, BLOCK, [=](Index thread, Index first, Index last) {
        alignas(64) float own[BLOCK * WIDTH], dropped[BLOCK * WIDTH], d_u[BLOCK * WIDTH];
        each_block(first, last, [&](Index start, int rows) {
            const Index *source = L.source + start, *target = L.target + start;
            const float *d_out = d_new ? behind_dropout(L, start, rows, d_new, dropped) : nullptr;
            float *d_f = d_edges + start * WIDTH;
            if (d_out) std::memcpy(d_f, d_out, sizeof(float) * rows * WIDTH);
            else std::memset(d_f, 0, sizeof(float) * rows * WIDTH);
            for (Index head = 0; head < L.heads; ++head) {
                const Index at = head * WIDTH, square = head * WIDTH * WIDTH;
                float *to_p = d_p + thread * L.nodes * channels + at, *to_q = d_q + thread * L.nodes * channels + at;
                for (int r = 0; r < rows; ++r)
                    for (int c = 0; c < WIDTH; c += 16) __builtin_prefetch(to_p + source[r] * channels + c, 1);
                const float *z = activation(L, start, rows, head, own);
                product(
                    rows, d_out, d_out ? WIDTH : 0, downward + square,
                    [&](int r, int c) {
                        const float above = d_logits ? d_logits[(start + r) * L.heads + head] : 0.0f;
                        return above * load(a + at + c) + (load(slope + at + c) * load(z + r * WIDTH + c) + load(constant + at + c));
                    },
                    [&](int r, int c, Vec d_z) {  // z has the sign of u
                        store(d_u + r * WIDTH + c, load(z + r * WIDTH + c) > 0 ? d_z : SLOPE * d_z);
                    });
                outer(rows, d_u, WIDTH, L.edges + start * WIDTH, d_w_e + (thread * channels + at) * WIDTH);
                product(
                    rows, d_u, WIDTH, w_e + square, [&](int r, int c) { return load(d_f + r * WIDTH + c); },
                    [&](int r, int c, Vec x) { store(d_f + r * WIDTH + c, x); });
                for (int r = 0; r < rows; ++r)
                    for (int c = 0; c < WIDTH; c += LANES) add(to_p + source[r] * channels + c, load(d_u + r * WIDTH + c));
                for (int r = 0; r < rows;) {  // edges are sorted by target
                    const int begin = r;
                    while (r < rows && target[r] == target[begin]) ++r;
                    add_rows(r - begin, d_u + begin * WIDTH, to_q + target[begin] * channels, [](int) { return 1.0f; });
                }
            }
        });
    });
}

// ---- attention (scatter.py, egat.py) ----

// α of logits: their softmax over the edges that arrive at each node. [count, heads] both.
void softmax(Index nodes, Index heads, Index threads, const Index *offsets, const float *logits,
             float *alpha) {
    share_out(nodes, threads, 1, [=](Index, Index first, Index last) {
        std::vector<float> largest(heads), total(heads);
        for (Index node = first; node < last; ++node) {
            const Index begin = offsets[node] * heads, end = offsets[node + 1] * heads;
            std::fill(largest.begin(), largest.end(), -INFINITY);
            std::fill(total.begin(), total.end(), 0.0f);
            for (Index i = begin; i < end; i += heads)
                for (Index k = 0; k < heads; ++k) largest[k] = std::max(largest[k], logits[i + k]);
            for (Index i = begin; i < end; i += heads)
                for (Index k = 0; k < heads; ++k)
                    total[k] += alpha[i + k] = std::exp(logits[i + k] - largest[k]);
            for (Index i = begin; i < end; i += heads)
                for (Index k = 0; k < heads; ++k) alpha[i + k] /= total[k];
        }
    });
}

// d_logits = α (d_α − Σ α d_α)
void softmax_backward(Index nodes, Index heads, Index threads, const Index *offsets,
                      const float *alpha, const float *d_alpha, float *d_logits) {
    share_out(nodes, threads, 1, [=](Index, Index first, Index last) {
        std::vector<float> total(heads);
        for (Index node = first; node < last; ++node) {
            const Index begin = offsets[node] * heads, end = offsets[node + 1] * heads;
            std::fill(total.begin(), total.end(), 0.0f);
            for (Index i = begin; i < end; i += heads)
                for (Index k = 0; k < heads; ++k) total[k] += alpha[i + k] * d_alpha[i + k];
            for (Index i = begin; i < end; i += heads)
                for (Index k = 0; k < heads; ++k)
                    d_logits[i + k] = alpha[i + k] * (d_alpha[i + k] - total[k]);
        }
    });
}

// gathered [nodes, heads, WIDTH] = Σ over edges s→d of α h_s
void gather(Index nodes, Index heads, Index threads, const Index *offsets, const Index *source,
            const float *alpha, const float *h, float *gathered) {
    share_out(nodes, threads, 1, [=](Index, Index first, Index last) {
        for (Index node = first; node < last; ++node)
            for (Index k = 0; k < heads; ++k) {
                Vec sums[VECTORS];
                for (int v = 0; v < VECTORS; ++v) sums[v] = Vec{};
                for (Index e = offsets[node]; e < offsets[node + 1]; ++e)
                    for (int v = 0; v < VECTORS; ++v)
                        sums[v] += alpha[e * heads + k] * load(h + source[e] * WIDTH + v * LANES);
                for (int v = 0; v < VECTORS; ++v)
                    store(gathered + (node * heads + k) * WIDTH + v * LANES, sums[v]);
            }
    });
}

// Its gradients: d_α [count, heads], and d_h [threads, nodes, WIDTH], which is added to.
void gather_backward(Index nodes, Index heads, Index threads, const Index *offsets,
                     const Index *source, const float *alpha, const float *h,
                     const float *d_gathered, float *d_alpha, float *d_h) {
    share_out(nodes, threads, 1, [=](Index thread, Index first, Index last) {
        float *to_h = d_h + thread * nodes * WIDTH;
        for (Index node = first; node < last; ++node)
            for (Index e = offsets[node]; e < offsets[node + 1]; ++e) {
                const float *above = d_gathered + node * heads * WIDTH, *sent = h + source[e] * WIDTH;
                float *d_sent = to_h + source[e] * WIDTH;
                Vec sums[VECTORS];
                for (int v = 0; v < VECTORS; ++v) sums[v] = load(d_sent + v * LANES);
                for (Index k = 0; k < heads; ++k) {
                    Vec dot = Vec{};
                    for (int v = 0; v < VECTORS; ++v) {
                        const Vec d = load(above + k * WIDTH + v * LANES);
                        dot += d * load(sent + v * LANES);
                        sums[v] += alpha[e * heads + k] * d;
                    }
                    d_alpha[e * heads + k] = sum(dot);
                }
                for (int v = 0; v < VECTORS; ++v) store(d_sent + v * LANES, sums[v]);
            }
    });
}

// ---- encoding of edges under several views (layers.py) ----

struct Encoder {
    Index count, views, inputs, threads;
    const float *x;      // [count, inputs], the last of which is 1
    const float *first;  // [views, inputs, WIDTH]
};

}  // extern "C"

// The hidden layer of a block under one view.
static void hidden_layer(const Encoder &E, Index start, int rows, Index view, float *hidden) {
    product(
        rows, E.x + start * E.inputs, int(E.inputs), E.first + view * E.inputs * WIDTH,
        [](int, int) { return Vec{}; },
        [=](int r, int c, Vec h) { store(hidden + r * WIDTH + c, h < 0 ? Vec{} : h); });
}

// d_first of a view, of a block whose hidden layer has this gradient; no more than ReLU lets pass.
static void into_first(const Encoder &E, Index start, int rows, const float *hidden,
                       float *d_hidden, float *d_first) {
    for (int i = 0; i < rows * WIDTH; i += LANES)
        store(d_hidden + i, load(hidden + i) > 0 ? load(d_hidden + i) : Vec{});
    outer(rows, E.x + start * E.inputs, int(E.inputs), d_hidden, d_first);
}

extern "C" {

// Per thread and view, Σ over edges of the hidden layer and of its outer products with itself,
// [threads, views, 1 + WIDTH, WIDTH].
void encoder_moments(const Encoder *encoder, float *sums) {
    const Encoder &E = *encoder;
    share_out(E.count, E.threads, BLOCK, [=](Index thread, Index from, Index to) {
        alignas(64) float hidden[BLOCK * WIDTH];
        each_block(from, to, [&](Index start, int rows) {
            for (Index view = 0; view < E.views; ++view) {
                float *total = sums + (thread * E.views + view) * (1 + WIDTH) * WIDTH;
                hidden_layer(E, start, rows, view, hidden);
                add_rows(rows, hidden, total, [](int) { return 1.0f; });
                outer(rows, hidden, WIDTH, hidden, total + WIDTH);
            }
        });
    });
}

// d_first [threads, views, inputs, WIDTH] of these: d_hidden = hidden · symmetric + d_sum.
void encoder_moments_backward(const Encoder *encoder, const float *symmetric, const float *d_sum,
                              float *d_first) {
    const Encoder &E = *encoder;
    share_out(E.count, E.threads, BLOCK, [=](Index thread, Index from, Index to) {
        alignas(64) float hidden[BLOCK * WIDTH], d_hidden[BLOCK * WIDTH];
        each_block(from, to, [&](Index start, int rows) {
            for (Index view = 0; view < E.views; ++view) {
                hidden_layer(E, start, rows, view, hidden);
                product(
                    rows, hidden, WIDTH, symmetric, [&](int, int c) { return load(d_sum + c); },
                    [&](int r, int c, Vec d) { store(d_hidden + r * WIDTH + c, d); });
                into_first(E, start, rows, hidden, d_hidden,
                           d_first + (thread * E.views + view) * E.inputs * WIDTH);
            }
        });
    });
}

// ReLU of hidden · second + constant, summed over views with their shares into [count, WIDTH].
void encoder_encode(const Encoder *encoder, const float *second, const float *constant,
                    const float *shares, float *encoded) {
    const Encoder &E = *encoder;
    share_out(E.count, E.threads, BLOCK, [=](Index, Index from, Index to) {
        alignas(64) float hidden[BLOCK * WIDTH];
        each_block(from, to, [&](Index start, int rows) {
            float *out = encoded + start * WIDTH;
            std::memset(out, 0, sizeof(float) * rows * WIDTH);
            for (Index view = 0; view < E.views; ++view) {
                hidden_layer(E, start, rows, view, hidden);
                product(
                    rows, hidden, WIDTH, second, [&](int, int c) { return load(constant + c); },
                    [&](int r, int c, Vec x) { add(out + r * WIDTH + c, shares[view] * (x < 0 ? Vec{} : x)); });
            }
        });
    });
}

// Gradients of that per thread and view, without the shares: of first [·, inputs, WIDTH], of
// its transpose [·, WIDTH, WIDTH] and of constant [·, WIDTH]; `back` is second transposed.
void encoder_encode_backward(const Encoder *encoder, const float *second, const float *back,
                             const float *constant, const float *d_encoded, float *d_first,
                             float *d_second, float *d_constant) {
    const Encoder &E = *encoder;
    share_out(E.count, E.threads, BLOCK, [=](Index thread, Index from, Index to) {
        alignas(64) float hidden[BLOCK * WIDTH], d_hidden[BLOCK * WIDTH], d_out[BLOCK * WIDTH];
        each_block(from, to, [&](Index start, int rows) {
            const float *above = d_encoded + start * WIDTH;
            for (Index view = 0; view < E.views; ++view) {
                const Index at = thread * E.views + view;
                hidden_layer(E, start, rows, view, hidden);
                product(
                    rows, hidden, WIDTH, second, [&](int, int c) { return load(constant + c); },
                    [&](int r, int c, Vec x) { store(d_out + r * WIDTH + c, x > 0 ? load(above + r * WIDTH + c) : Vec{}); });
                add_rows(rows, d_out, d_constant + at * WIDTH, [](int) { return 1.0f; });
                outer(rows, d_out, WIDTH, hidden, d_second + at * WIDTH * WIDTH);
                product(
                    rows, d_out, WIDTH, back, [](int, int) { return Vec{}; },
                    [&](int r, int c, Vec d) { store(d_hidden + r * WIDTH + c, d); });
                into_first(E, start, rows, hidden, d_hidden, d_first + at * E.inputs * WIDTH);
            }
        });
    });
}

}  // extern "C"
