// Sums over the neighbours of atoms: what `power_spectrum.py` and `gaussian_sums.py` compute with
// PyTorch, fused. The formulas stand there; names here are theirs.
//
// An atom's neighbours within the cutoff are gathered first. Then eight of them fill a register
// while their spherical harmonics are made, and an atom's radial functions fill registers while
// neighbours are summed one by one. Everything of an atom stays in the first cache.
//
// Compiled by mgsym.utils.compilation with vectors.h; called through mgsym.descriptors.neighbor_sums.

const float R_MIN = 1.5f;     // Å
const float PI = 3.14159265f;
const float SMALLEST = 1e-4f; // of a power whose root is taken

struct Neighbors {
    Index atoms, species, threads;
    const Index *offsets;  // [atoms + 1], where each atom's neighbours begin
    const Index *source;   // [pairs]
    const float *vector;   // [pairs, 3]
    const Index *types;    // of all atoms
};

// ½ (1 + cos πx) = cos² (πx / 2) for 0 ≤ x ≤ 1.
static inline float smooth_cutoff(float x) {
    const float y = 0.5f * PI * x, s = y * y;
    float p = s * -1.1470746e-11f + 2.0876757e-9f;
    p = p * s - 2.7557319e-7f;
    p = p * s + 2.4801587e-5f;
    p = p * s - 1.3888889e-3f;
    p = p * s + 4.1666667e-2f;
    p = p * s - 0.5f;
    p = p * s + 1.0f;
    return p * p;
}

// The neighbours of one atom closer than a cutoff.
struct Near {
    std::vector<float> x, y, z, length;
    std::vector<Index> kind;
    int count = 0;

    void find(const Neighbors &N, Index atom, float cutoff) {
        const Index first = N.offsets[atom], last = N.offsets[atom + 1];
        const size_t room = size_t(last - first) + LANES;
        if (x.size() < room) {
            for (std::vector<float> *v : {&x, &y, &z, &length}) v->resize(room);
            kind.resize(room);
        }
        count = 0;
        for (Index e = first; e < last; ++e) {
            const float *v = N.vector + 3 * e;
            const float r = std::sqrt(v[0] * v[0] + v[1] * v[1] + v[2] * v[2]);
            x[count] = v[0], y[count] = v[1], z[count] = v[2], length[count] = r;
            kind[count] = N.types[N.source[e]];
            count += r < cutoff;
        }
        for (int i = count; i < count + LANES; ++i) x[i] = y[i] = z[i] = length[i] = 1.0f;
    }
};

// Gaussians that fall to zero at the cutoff, padded to whole registers.
struct Radial {
    int count, registers;
    float cutoff, per_step;
    std::vector<float> centre;

    Radial(float cutoff, Index count)
        : count(int(count)), registers(int(count + LANES - 1) / LANES), cutoff(cutoff),
          per_step((count - 1) / (cutoff - R_MIN)), centre(registers * LANES) {
        for (int i = 0; i < registers * LANES; ++i) centre[i] = R_MIN + i / per_step;
    }

    template <class Take>
    inline void of(float length, Take take) const {
        const float fall = smooth_cutoff(length / cutoff);
        for (int p = 0; p < registers; ++p) {
            const Vec d = (length - load(&centre[p * LANES])) * per_step;
            take(p, fall * exponential(-0.5f * d * d));
        }
    }
};

// Real spherical harmonics of eight directions, [(l_max + 1)²] registers.
struct Harmonics {
    int l_max;
    std::vector<float> norm, values;

    explicit Harmonics(int l_max)
        : l_max(l_max), norm((l_max + 1) * (l_max + 1)), values((l_max + 1) * (l_max + 1) * LANES) {
        for (int l = 0; l <= l_max; ++l)
            for (int m = 0; m <= l; ++m) {
                double ratio = (2 * l + 1) / (4 * M_PI) * (m ? 2 : 1);
                for (int k = l - m + 1; k <= l + m; ++k) ratio /= k;
                norm[l * l + l + m] = norm[l * l + l - m] = float(std::sqrt(ratio));
            }
    }

    void of(Vec x, Vec y, Vec z) {
        Vec cosine = Vec{} + 1.0f, sine = Vec{}, start = Vec{} + 1.0f;  // ρᵐ cos mφ, (2m − 1)!!
        for (int m = 0; m <= l_max; ++m) {
            Vec before = Vec{}, last = start;
            for (int l = m; l <= l_max; ++l) {
                if (l > m) {
                    const Vec next = (float(2 * l - 1) * z * last - float(l + m - 1) * before) / float(l - m);
                    before = last, last = next;
                }
                const int centre = l * l + l;
                store(&values[(centre - m) * LANES], norm[centre - m] * last * sine);
                store(&values[(centre + m) * LANES], norm[centre + m] * last * cosine);
            }
            start *= float(2 * m + 1);
            const Vec next = x * cosine - y * sine;
            sine = x * sine + y * cosine, cosine = next;
        }
    }
};

// The density around one atom, c [species, (l_max + 1)², radial padded to registers].
template <int REGISTERS>
static void expand(const Near &near, const Radial &radial, Harmonics &harmonics, float *c) {
    const int functions = (harmonics.l_max + 1) * (harmonics.l_max + 1);
    for (int first = 0; first < near.count; first += LANES) {
        const Vec length = load(&near.length[first]);
        harmonics.of(load(&near.x[first]) / length, load(&near.y[first]) / length, load(&near.z[first]) / length);
        for (int i = first; i < std::min(first + LANES, near.count); ++i) {
            Vec g[REGISTERS] = {};
            radial.of(near.length[i], [&](int p, Vec v) { g[p] = v; });
            float *own = c + near.kind[i] * functions * REGISTERS * LANES;
            const float *y = &harmonics.values[i - first];
            for (int k = 0; k < functions; ++k)
                for (int p = 0; p < REGISTERS; ++p) add(own + (k * REGISTERS + p) * LANES, y[k * LANES] * g[p]);
        }
    }
}

// Σ_m of c[a, lm] c[b, lm] · 4π / (2l + 1), for every pair a ≤ b of channels and every l.
static void power_spectrum(int channels, int l_max, const float *c, int width, float *out) {
    std::vector<float> row(width);
    for (int l = 0; l <= l_max; ++l) {
        const float share = 4 * PI / (2 * l + 1);
        for (int a = 0; a < channels; ++a) {
            const int from = a / LANES * LANES;
            for (int b = from; b < width; b += LANES) {
                Vec total{};
                for (int k = l * l; k < (l + 1) * (l + 1); ++k) total += c[k * width + a] * load(c + k * width + b);
                store(&row[b], share * total);
            }
            std::copy(row.begin() + a, row.begin() + channels, out);
            out += channels - a;
        }
    }
}

// Radial densities, and the roots of Σ_m c[s, n, lm] c[t, n, lm] · 4π / (2l + 1), s ≤ t, l ≥ 1.
static void roots(int species, int radial, int l_max, const float *c, int width, float *out) {
    const int channels = species * radial;
    for (int a = 0; a < channels; ++a) *out++ = std::sqrt(4 * PI) * c[a];
    for (int l = 1; l <= l_max; ++l)
        for (int s = 0; s < species; ++s)
            for (int t = s; t < species; ++t)
                for (int n = 0; n < radial; ++n) {
                    float power = 0;
                    for (int k = l * l; k < (l + 1) * (l + 1); ++k)
                        power += c[k * width + s * radial + n] * c[k * width + t * radial + n];
                    power *= 4 * PI / (2 * l + 1);
                    *out++ = power / std::sqrt(std::abs(power) + SMALLEST);
                }
}

extern "C" {

// Σ g_n(r) over the neighbours of each species; `out` has rows of `stride`, this fills
// species · radial numbers of each.
void radial_densities(const Neighbors *neighbors, float cutoff, Index count, Index stride, float *out) {
    const Neighbors &N = *neighbors;
    share_out(N.atoms, N.threads, 1, [=](Index, Index first, Index last) {
        Near near;
        const Radial radial(cutoff, count);
        const int padded = radial.registers * LANES;
        std::vector<float> total(N.species * padded);
        for (Index atom = first; atom < last; ++atom) {
            near.find(N, atom, cutoff);
            std::fill(total.begin(), total.end(), 0.0f);
            for (int i = 0; i < near.count; ++i) {
                float *own = &total[near.kind[i] * padded];
                radial.of(near.length[i], [&](int p, Vec v) { add(own + p * LANES, v); });
            }
            for (Index s = 0; s < N.species; ++s)
                std::copy_n(&total[s * padded], count, out + atom * stride + s * count);
        }
    });
}

// The power spectrum of every pair of channels, or (rooted) what `local_descriptors` takes.
void power_spectra(const Neighbors *neighbors, float cutoff, Index count, Index l_max, Index rooted,
                   Index stride, float *out) {
    const Neighbors &N = *neighbors;
    share_out(N.atoms, N.threads, 1, [=](Index, Index first, Index last) {
        Near near;
        const Radial radial(cutoff, count);
        Harmonics harmonics{int(l_max)};
        const int functions = int((l_max + 1) * (l_max + 1)), padded = radial.registers * LANES;
        const int channels = int(N.species * count), width = (channels + LANES - 1) / LANES * LANES;
        std::vector<float> c(N.species * functions * padded), together(functions * width);
        for (Index atom = first; atom < last; ++atom) {
            near.find(N, atom, cutoff);
            std::fill(c.begin(), c.end(), 0.0f);
            switch (radial.registers) {
                case 1: expand<1>(near, radial, harmonics, c.data()); break;
                case 2: expand<2>(near, radial, harmonics, c.data()); break;
                case 3: expand<3>(near, radial, harmonics, c.data()); break;
                default: expand<4>(near, radial, harmonics, c.data());
            }
            for (int k = 0; k < functions; ++k)
                for (Index s = 0; s < N.species; ++s)
                    std::copy_n(&c[(s * functions + k) * padded], count, &together[k * width + s * count]);
            float *own = out + atom * stride;
            if (rooted) roots(int(N.species), int(count), int(l_max), together.data(), width, own);
            else power_spectrum(channels, int(l_max), together.data(), width, own);
        }
    });
}

// sums [all, q] += w values[atom] and weights [all] += w for each neighbour nearer than the cutoff
// of each atom, w = exp(−square / 2 length²). One thread: atoms share neighbours.
void gaussian_sums(const Neighbors *neighbors, float length, double cutoff, Index q, const double *square,
                   const float *values, float *sums, float *weights) {
    const Neighbors &N = *neighbors;
    alignas(32) float w[LANES + 1];
    Index node[LANES + 1];
    for (Index atom = 0; atom < N.atoms; ++atom) {
        const float *own = values + atom * q;
        for (Index e = N.offsets[atom]; e < N.offsets[atom + 1];) {
            int found = 0;
            for (; found < LANES && e < N.offsets[atom + 1]; ++e) {
                w[found] = float(square[e]);
                node[found] = N.source[e];
                found += square[e] < cutoff * cutoff;
            }
            for (int i = found; i < LANES; ++i) w[i] = 0.0f;
            store(w, exponential(load(w) * (-0.5f / (length * length))));
            for (int i = 0; i < found; ++i) {
                weights[node[i]] += w[i];
                for (Index k = 0; k < q; ++k) sums[node[i] * q + k] += w[i] * own[k];
            }
        }
    }
}

}  // extern "C"
