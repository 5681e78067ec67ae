// EAM energies and forces of rows on a CPU: what `eam_kernel.py` computes with PyTorch, fused. The
// formulas stand there, strips and their neighbours in `eam_layout.py`; names here are theirs.
//
// Strips are taken a register at a time: one strip to a lane, so that sums over neighbours need
// no sum over lanes. What is needed of a neighbour lies together in one record, and so do the eight
// coefficients of a bin, so that a neighbour costs a few loads and not one for each number.
// Nothing of a pair is kept from the first pass to the second: computing its distance again is
// quicker than fetching it from beyond the second cache.
//
// Compiled by mgsym.utils.compilation with -DSTRIP=…, -DDOUBLE=… and vectors.h; called through
// mgsym.data_tools.simulation.potentials.eam_rows.

#ifdef __AVX2__
#include <immintrin.h>
#endif

#if DOUBLE
typedef double Real;
typedef int64_t Whole;
#else
typedef float Real;
typedef int32_t Whole;
#endif

const int WIDE = 32 / sizeof(Real);  // strips worked on at once
const int RECORD = 8;                // numbers kept together of a site, and of a bin
const float FILLER = 1e14f;          // Å; a site beyond fills up strips

typedef Real Reals __attribute__((vector_size(32), aligned(sizeof(Real)), may_alias));
typedef Whole Wholes __attribute__((vector_size(32), aligned(sizeof(Real)), may_alias));

extern "C" struct Problem {
    Index rows, sites, strips, of_row, boundary, pairs, species, bins, densities, symmetric, threads;
    const Index *types, *site_types, *row_strips, *row, *embedded;
    const int32_t *neighbor;
    const Real *coefficients, *embedding;
    const Index *boundary_types;
    const Real *boundary_fixed;
    const Index *pair_place, *pair_atom;
    const Real *weight;
    double cutoff, inverse_spacing, density_spacing;
};

static inline Reals load_reals(const Real *x) { return *reinterpret_cast<const Reals *>(x); }
static inline void store_reals(Real *x, Reals v) { *reinterpret_cast<Reals *>(x) = v; }

static inline Reals root(Reals v) {
    for (int l = 0; l < WIDE; ++l) v[l] = std::sqrt(v[l]);
    return v;
}

// Four numbers of the record at each of the places, by number.
struct Four {
    Reals a, b, c, d;
};

template <class Place>
static inline Four fetch(const Real *records, const Place *place) {
    Four found;
#if defined(__AVX2__) && !DOUBLE
    auto two = [&](int l) {  // lanes l and l + 4
        return _mm256_insertf128_ps(_mm256_castps128_ps256(_mm_loadu_ps(records + RECORD * Index(place[l]))),
                                    _mm_loadu_ps(records + RECORD * Index(place[l + 4])), 1);
    };
    const __m256 r0 = two(0), r1 = two(1), r2 = two(2), r3 = two(3);
    const __m256 ab01 = _mm256_unpacklo_ps(r0, r1), cd01 = _mm256_unpackhi_ps(r0, r1);
    const __m256 ab23 = _mm256_unpacklo_ps(r2, r3), cd23 = _mm256_unpackhi_ps(r2, r3);
    found.a = (Reals)_mm256_shuffle_ps(ab01, ab23, 0x44);
    found.b = (Reals)_mm256_shuffle_ps(ab01, ab23, 0xee);
    found.c = (Reals)_mm256_shuffle_ps(cd01, cd23, 0x44);
    found.d = (Reals)_mm256_shuffle_ps(cd01, cd23, 0xee);
#elif defined(__AVX2__)
    auto one = [&](int l) { return _mm256_loadu_pd(records + RECORD * Index(place[l])); };
    const __m256d r0 = one(0), r1 = one(1), r2 = one(2), r3 = one(3);
    const __m256d ac01 = _mm256_unpacklo_pd(r0, r1), bd01 = _mm256_unpackhi_pd(r0, r1);
    const __m256d ac23 = _mm256_unpacklo_pd(r2, r3), bd23 = _mm256_unpackhi_pd(r2, r3);
    found.a = (Reals)_mm256_permute2f128_pd(ac01, ac23, 0x20);
    found.b = (Reals)_mm256_permute2f128_pd(bd01, bd23, 0x20);
    found.c = (Reals)_mm256_permute2f128_pd(ac01, ac23, 0x31);
    found.d = (Reals)_mm256_permute2f128_pd(bd01, bd23, 0x31);
#else
    for (int l = 0; l < WIDE; ++l) {
        const Real *record = records + RECORD * Index(place[l]);
        found.a[l] = record[0];
        found.b[l] = record[1];
        found.c[l] = record[2];
        found.d[l] = record[3];
    }
#endif
    return found;
}

static inline Reals value(const Four &c, Reals place) {
    return c.a + place * (c.b + place * (c.c + place * c.d));
}
static inline Reals slope(const Four &c, Reals place) {
    return c.b + place * (Real(2) * c.c + Real(3) * (place * c.d));
}

// What the passes read beside the problem, and what they leave.
struct Work {
    std::vector<Real> records;   // [sites, RECORD]: x, y, z, species; embedding slope, weight
    std::vector<Real> received;  // [strips] density
    std::vector<Real> given;     // [STRIP, strips] density that rows give, where there is a boundary
    std::vector<Real> density;   // [rows + boundary]
    std::vector<Real> slope;     // [rows + boundary + 1] of the embedding energy
    std::vector<Real> sums;      // [4 or 10, strips]
};

// The neighbours of a register of strips: [STRIP] places, one strip to a lane.
//
// Made for all places before any coefficient is fetched: fetching waits for memory, and what waits
// for nothing else is fetched while it does.
struct Bonds {
    Reals x[STRIP], y[STRIP], z[STRIP], length[STRIP], place[STRIP];
    Wholes table[STRIP], table_back[STRIP];
    bool empty;

    template <bool SYMMETRIC>
    void make(const Problem &p, const Real *records, const Real *rows, Index first) {
        const Reals bins = Reals{} + Real(p.bins), spacing = Reals{} + Real(p.inverse_spacing);
        const Reals cutoff = Reals{} + Real(p.cutoff);
        const Whole one = Whole(p.bins + 1), all = Whole(p.species) * one;
        Reals x0, y0, z0;
        Wholes start, start_back;
        for (int l = 0; l < WIDE; ++l) {
            const Index row = p.row[first + l];
            x0[l] = rows[row];
            y0[l] = rows[p.rows + row];
            z0[l] = rows[2 * p.rows + row];
            start[l] = Whole(p.types[row]) * one;
            start_back[l] = Whole(p.types[row]) * all;
        }
        const int32_t *neighbor = p.neighbor + first;
        // the last site is nobody's neighbour: it fills up strips
        empty = true;
        for (int l = 0; l < WIDE; ++l) empty &= records[RECORD * neighbor[l]] > Real(FILLER);
        if (empty) return;
        for (int rank = 0; rank < STRIP; ++rank, neighbor += p.strips) {
            const Four site = fetch(records, neighbor);
            x[rank] = site.a - x0;
            y[rank] = site.b - y0;
            z[rank] = site.c - z0;
            const Reals r =
                root(x[rank] * x[rank] + y[rank] * y[rank] + z[rank] * z[rank]);
            length[rank] = r;
            Reals at = r * spacing;
            at = at < bins ? at : bins;  // NaN too: its force is NaN all the same
            at = r < cutoff ? at : bins;
            const Wholes bin = __builtin_convertvector(at, Wholes);
            place[rank] = at - __builtin_convertvector(bin, Reals);
            const Wholes type = __builtin_convertvector(site.d, Wholes);
            table[rank] = bin + start + type * all;
            if (!SYMMETRIC) table_back[rank] = bin + start_back + type * one;
        }
    }
    const Whole *at(int rank) const { return reinterpret_cast<const Whole *>(table + rank); }
    const Whole *back(int rank) const { return reinterpret_cast<const Whole *>(table_back + rank); }
};

// The first pass: densities.
template <bool SYMMETRIC, bool BOUNDARY>
static void densities(const Problem &p, Work &work, const Real *rows, Index from, Index to) {
    Bonds bonds;
    const Real *coefficients = p.coefficients;
    for (Index first = from; first < to; first += WIDE) {
        bonds.make<SYMMETRIC>(p, work.records.data(), rows, first);
        Reals received = {};
        Real *given = work.given.data() + first;
        for (int rank = 0; rank < STRIP; ++rank, given += p.strips) {
            if (bonds.empty) {
                if (!BOUNDARY) break;
                store_reals(given, Reals{});  // pairs that fill up lists lie here
                continue;
            }
            const Reals place = bonds.place[rank];
            const Reals at = value(fetch(coefficients, bonds.at(rank)), place);
            received += at;
            if (BOUNDARY)
                store_reals(given, SYMMETRIC
                                       ? at
                                       : value(fetch(coefficients, bonds.back(rank)), place));
        }
        store_reals(&work.received[first], received);
    }
}

// The second pass: pair energies, forces and the virial.
template <bool SYMMETRIC, bool BOUNDARY, bool STRESS>
static void forces(const Problem &p, Work &work, const Real *rows, Index from, Index to) {
    Bonds bonds;
    const int count = STRESS ? 10 : 4;
    const Real spacing = Real(p.inverse_spacing);
    const Real *coefficients = p.coefficients, *records = work.records.data();
    for (Index first = from; first < to; first += WIDE) {
        bonds.make<SYMMETRIC>(p, records, rows, first);
        Reals sums[10] = {}, own;
        for (int l = 0; l < WIDE; ++l) own[l] = work.slope[p.row[first + l]];
        const int32_t *neighbor = p.neighbor + first;
        for (int rank = 0; rank < STRIP && !bonds.empty; ++rank, neighbor += p.strips) {
            const Reals place = bonds.place[rank];
            const Four site = fetch(records + 4, neighbor);  // embedding slope, weight
            const Reals given = slope(fetch(coefficients, bonds.at(rank)), place);
            const Reals back =
                SYMMETRIC ? given : slope(fetch(coefficients, bonds.back(rank)), place);
            const Four c = fetch(coefficients + 4, bonds.at(rank));
            const Reals inverse = Real(1) / bonds.length[rank];
            const Reals pair = value(c, place) * inverse;
            const Reals embedded = own * given + site.a * back;
            const Reals tension =
                ((slope(c, place) * spacing - pair) * inverse + embedded * spacing) * inverse;
            sums[0] += BOUNDARY ? pair * site.b : pair * Real(0.5);
            const Reals dx = bonds.x[rank], dy = bonds.y[rank], dz = bonds.z[rank];
            const Reals x = tension * dx, y = tension * dy, z = tension * dz;
            sums[1] += x;
            sums[2] += y;
            sums[3] += z;
            if (!STRESS) continue;
            sums[4] += x * dx;
            sums[5] += y * dy;
            sums[6] += z * dz;
            sums[7] += y * dz;
            sums[8] += x * dz;
            sums[9] += x * dy;
        }
        for (int k = 0; k < count; ++k)
            store_reals(&work.sums[k * p.strips + first], k < 4 ? sums[k] : sums[k] * Real(0.5));
    }
}

// Energy and slope at a density; beyond the table the energy goes on straight.
static inline Real embed(const Problem &p, Index type, Real density, Real &slope) {
    const Real last = Real(p.densities - 1), scaled = density / Real(p.density_spacing);
    const Index bin = Index(scaled < last ? std::max(scaled, Real(0)) : last);
    const Real *c = p.embedding + 4 * (type * p.densities + bin);
    const Real place = scaled - Real(bin), inside = std::min(place, Real(1));
    const Real d = c[1] + inside * (Real(2) * c[2] + Real(3) * inside * c[3]);
    slope = d / Real(p.density_spacing);
    return c[0] + inside * (c[1] + inside * (c[2] + inside * c[3])) + (place - inside) * d;
}

// Σ over the strips of a row.
static inline Real of_row(const Problem &p, const Real *of_strips, Index row) {
    Real sum = 0;
    for (Index k = 0; k < p.of_row; ++k) {
        const Index strip = p.row_strips[row * p.of_row + k];
        if (strip < p.strips) sum += of_strips[strip];
    }
    return sum;
}

template <bool SYMMETRIC, bool BOUNDARY, bool STRESS>
static void both_passes(const Problem &p, Work &work, const Real *sites, const Real *rows,
                        Real *energy, Real *force, Real *virial, Real *boundary_energy) {
    for (Index s = 0; s < p.sites; ++s) {
        Real *record = &work.records[RECORD * s];
        for (int k = 0; k < 3; ++k) record[k] = sites[k * p.sites + s];
        record[3] = Real(p.site_types[s]);
    }
    share_out(p.strips, p.threads, WIDE, [&](Index, Index first, Index last) {
        densities<SYMMETRIC, BOUNDARY>(p, work, rows, first, last);
    });
    for (Index r = 0; r < p.rows; ++r) {
        energy[r] = embed(p, p.types[r], of_row(p, work.received.data(), r), work.slope[r]);
    }
    if (BOUNDARY) {
        Real *density = work.density.data();
        std::copy(p.boundary_fixed, p.boundary_fixed + p.boundary, density);
        for (Index k = 0; k < p.pairs; ++k)
            density[p.pair_atom[k]] += work.given[p.pair_place[k]];
        for (Index q = 0; q < p.boundary; ++q)
            boundary_energy[q] =
                embed(p, p.boundary_types[q], density[q], work.slope[p.rows + q]);
    }
    work.slope[p.rows + p.boundary] = 0;
    for (Index s = 0; s < p.sites; ++s) {
        Real *record = &work.records[RECORD * s];
        record[4] = work.slope[p.embedded[s]];
        if (BOUNDARY) record[5] = p.weight[s];
    }
    share_out(p.strips, p.threads, WIDE, [&](Index, Index first, Index last) {
        forces<SYMMETRIC, BOUNDARY, STRESS>(p, work, rows, first, last);
    });
    for (Index r = 0; r < p.rows; ++r) {
        energy[r] += of_row(p, work.sums.data(), r);
        for (int k = 0; k < 3; ++k)
            force[k * p.rows + r] = of_row(p, &work.sums[(k + 1) * p.strips], r);
        for (int k = 0; STRESS && k < 6; ++k)
            virial[k * p.rows + r] = of_row(p, &work.sums[(k + 4) * p.strips], r);
    }
}

// sites [3, sites], rows [3, rows] → energy [rows], force [3, rows], virial [6, rows] where it is not
// null, boundary_energy [boundary]
extern "C" void eam_forces(const Problem *problem, const Real *sites, const Real *rows, Real *energy,
                           Real *force, Real *virial, Real *boundary_energy) {
    const Problem &p = *problem;
    const bool boundary = boundary_energy != nullptr;
    static thread_local Work work;  // kept: fresh memory costs as much as the work in it
    auto room = [](std::vector<Real> &v, Index n) {
        if (Index(v.size()) < n) v.resize(n);
    };
    room(work.records, RECORD * p.sites);
    room(work.received, p.strips);
    room(work.given, boundary ? STRIP * p.strips : 0);
    room(work.density, p.boundary);
    room(work.slope, p.rows + p.boundary + 1);
    room(work.sums, (virial ? 10 : 4) * p.strips);
#define PASSES(S, B, V) \
    both_passes<S, B, V>(p, work, sites, rows, energy, force, virial, boundary_energy)
    if (p.symmetric)
        boundary ? PASSES(true, true, false)
                 : virial ? PASSES(true, false, true) : PASSES(true, false, false);
    else
        boundary ? PASSES(false, true, false)
                 : virial ? PASSES(false, false, true) : PASSES(false, false, false);
}
