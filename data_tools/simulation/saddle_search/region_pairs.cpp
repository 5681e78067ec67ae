// Neighbour lists of active regions on a CPU: what `region_lists.py` makes with PyTorch, without
// the large arrays in between. Names here are those there.
//
// Compiled by mgsym.utils.compilation with -DSTRIP=… and vectors.h; called through
// mgsym.data_tools.simulation.saddle_search.region_pairs.

#ifdef __AVX2__
#include <immintrin.h>
#endif

const int WIDE = 4;  // sites looked at at once

typedef double Reals __attribute__((vector_size(8 * WIDE), aligned(8), may_alias));

extern "C" struct Regions {
    Index count, slots, rows, sites, kinds, frozen;
    const Index *slot;  // [count]
    const double *x;    // [count, 3, rows]
    const double *base;
    const Index *owner, *site_types, *boundary_of_site, *row_types;
    const double *limit;  // [kinds, kinds] Å², of a site and a row
    double boundary_limit;
};

// Where the sites of a region are, and how far rows of each kind see them, Å²; whole registers.
struct Sites {
    Index room;
    std::vector<double> x, y, z, limits;

    Sites(const Regions &r, const double *rows, Index slot)
        : room((r.sites + WIDE - 1) / WIDE * WIDE), x(room), y(room), z(room),
          limits(room * r.kinds, -1.0) {
        const Index first = slot * r.sites;
        for (Index s = 0; s < r.sites; ++s) {
            const double *base = r.base + 3 * (first + s);
            const Index owner = r.owner[first + s], kind = r.site_types[first + s];
            x[s] = base[0] + (owner < 0 ? 0.0 : rows[owner]);
            y[s] = base[1] + (owner < 0 ? 0.0 : rows[r.rows + owner]);
            z[s] = base[2] + (owner < 0 ? 0.0 : rows[2 * r.rows + owner]);
            for (Index k = 0; k < r.kinds; ++k) limits[k * room + s] = r.limit[kind * r.kinds + k];
        }
    }
};

static inline Reals at(const std::vector<double> &values, Index s) {
    return *reinterpret_cast<const Reals *>(values.data() + s);
}

// One bit for each number that is below its limit.
static inline int below(Reals numbers, Reals limits) {
#ifdef __AVX2__
    return _mm256_movemask_pd(_mm256_cmp_pd((__m256d)numbers, (__m256d)limits, _CMP_LT_OQ));
#else
    int bits = 0;
    for (int l = 0; l < WIDE; ++l) bits |= int(numbers[l] < limits[l]) << l;
    return bits;
#endif
}

// Degrees [count, rows], the sites near each row in turn (−1 − site where the row gives density to
// a boundary atom), and how many of those pairs each region has [count]. `found` has room for all
// rows times all sites.
extern "C" void find_neighbors(const Regions *regions, Index *degree, int32_t *found,
                               Index *of_slot) {
    const Regions &r = *regions;
    for (Index c = 0; c < r.count; ++c) {
        const Index slot = r.slot[c], first = slot * r.sites;
        const double *rows = r.x + 3 * c * r.rows;
        const Sites sites(r, rows, slot);
        of_slot[c] = 0;
        for (Index row = 0; row < r.rows; ++row) {
            const Index kind = r.row_types[slot * r.rows + row];
            const double x = rows[row], y = rows[r.rows + row], z = rows[2 * r.rows + row];
            const int32_t *begin = found;
            for (Index s = 0; kind < r.kinds - 1 && s < sites.room; s += WIDE) {
                const Reals dx = at(sites.x, s) - x, dy = at(sites.y, s) - y;
                const Reals dz = at(sites.z, s) - z;
                const Reals square = dx * dx + dy * dy + dz * dz;
                const Reals limit =
                    *reinterpret_cast<const Reals *>(&sites.limits[kind * sites.room + s]);
                const int bits = below(square, limit);
                for (int l = 0; bits >> l; ++l) {
                    if (!(bits >> l & 1)) continue;
                    const Index site = first + s + l;
                    const double *base = r.base + 3 * site;
                    const bool itself = r.owner[site] == row && base[0] == 0.0 &&
                                        base[1] == 0.0 && base[2] == 0.0;
                    if (itself) continue;
                    const bool feels = r.frozen && r.boundary_of_site[site] >= 0 &&
                                       square[l] < r.boundary_limit;
                    of_slot[c] += feels;
                    *found++ = int32_t(feels ? -1 - (s + l) : s + l);
                }
            }
            degree[c * r.rows + row] = found - begin;
        }
    }
}

extern "C" struct Lists {
    Index strips, of_row, pairs;
    int32_t *neighbor;  // [STRIP, slots, strips]
    Index *row;         // [slots, strips]
    Index *row_strips;  // [slots, rows, of_row]
    Index *pair_place, *pair_boundary;  // [slots, pairs]
};

// Lay out in strips what `find_neighbors` gave.
extern "C" void lay_out_neighbors(const Regions *regions, const Lists *lists, const Index *degree,
                                  const int32_t *found) {
    const Regions &r = *regions;
    const Lists &l = *lists;
    const Index every = r.slots * l.strips;  // strips of all slots
    for (Index c = 0; c < r.count; ++c) {
        const Index slot = r.slot[c], first = slot * r.sites, strip_0 = slot * l.strips;
        for (int rank = 0; rank < STRIP; ++rank)
            std::fill_n(l.neighbor + rank * every + strip_0, l.strips,
                        int32_t(first + r.sites - 1));
        std::fill_n(l.row + strip_0, l.strips, 0);
        std::fill_n(l.row_strips + slot * r.rows * l.of_row, r.rows * l.of_row, -1);
        std::fill_n(l.pair_place + slot * l.pairs, l.pairs, strip_0 + l.strips - 1);
        std::fill_n(l.pair_boundary + slot * l.pairs, l.pairs, 0);
        Index strip = -1, pair = slot * l.pairs;
        for (Index row = 0; row < r.rows; ++row)
            for (Index k = 0; k < degree[c * r.rows + row]; ++k) {
                const Index rank = k % STRIP;
                if (rank == 0) {
                    ++strip;
                    l.row[strip_0 + strip] = row;
                    l.row_strips[(slot * r.rows + row) * l.of_row + k / STRIP] = strip;
                }
                const bool feels = *found < 0;
                const Index site = feels ? -1 - *found : *found, place = rank * every + strip_0 + strip;
                ++found;
                l.neighbor[place] = int32_t(first + site);
                if (!feels) continue;
                l.pair_place[pair] = place;
                l.pair_boundary[pair++] = r.boundary_of_site[first + site];
            }
    }
}
