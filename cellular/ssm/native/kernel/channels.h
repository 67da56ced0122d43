/* The scan with a decay for every channel and state component.

   A state is N rows of D channels, side by side in vectors; `rates` are A in that form. */

typedef struct {
    const Real *x, *delta, *a, *b, *c, *state; /* of all texts; a, state: (N, D) */
    Real *y, *last, *before;
} ChannelsForward;

typedef struct {
    const Real *x, *delta, *a, *b, *c, *before, *d_y, *d_last;
    Real *d_x, *d_delta, *d_a, *d_b, *d_c, *d_state; /* d_a a text each */
} ChannelsBackward;

INLINE void channels_text_forward(const ChannelsForward *f, long text, int L, int D, int N,
                                      const Lanes *rates, Lanes *state, Lanes *row_of, int V) {
    int chunks = (L + CHUNK - 1) / CHUNK;
    Lanes *x = row_of, *delta = x + V, *y = delta + V;
    load_rows(state, f->state + text * N * D, N, D, V);
    for (int t = 0; t < L; t++) {
        long row = text * L + t;
        const Real *b = f->b + row * N, *c = f->c + row * N;
        if (t % CHUNK == 0) store_rows(f->before + (text * chunks + t / CHUNK) * N * D, state, N, D, V);
        load_row(x, f->x + row * D, D, V);
        load_row(delta, f->delta + row * D, D, V);
        for (int v = 0; v < V; v++) {
            Lanes step = delta[v], u = step * x[v], total = {0};
            for (int n = 0; n < N; n++) {
                Lanes s = state[n * V + v] * exponential(step * rates[n * V + v]) + u * b[n];
                state[n * V + v] = s;
                total += s * c[n];
            }
            y[v] = total;
        }
        store_row(f->y + row * D, y, D, V);
    }
    store_rows(f->last + text * N * D, state, N, D, V);
}

/* Memory: CHUNK + 1 states, CHUNK decays, and the sums of a chunk for B and C. */
INLINE void channels_text_backward(const ChannelsBackward *f, long text, int L, int D, int N,
                                       const Lanes *rates, Lanes *d_state, Lanes *d_rates, Lanes *memory, int V) {
    int chunks = (L + CHUNK - 1) / CHUNK, size = N * V;
    Lanes *states = memory, *decays = states + (CHUNK + 1) * size, *of_b = decays + CHUNK * size;
    Lanes *of_c = of_b + CHUNK * N, *x = of_c + CHUNK * N, *delta = x + V, *d_y = delta + V, *d_x = d_y + V;
    Lanes *d_delta = d_x + V;
    load_rows(d_state, f->d_last + text * N * D, N, D, V);
    memset(d_rates, 0, size * sizeof(Lanes));
    for (int chunk = chunks - 1; chunk >= 0; chunk--) {
        int length = chunk < chunks - 1 ? CHUNK : L - chunk * CHUNK;
        long first = text * L + chunk * CHUNK;
        load_rows(states, f->before + (text * chunks + chunk) * N * D, N, D, V);
        for (int t = 0; t < length; t++) {
            const Real *b = f->b + (first + t) * N;
            Lanes *state = states + t * size, *next = state + size, *decay = decays + t * size;
            load_row(x, f->x + (first + t) * D, D, V);
            load_row(delta, f->delta + (first + t) * D, D, V);
            for (int v = 0; v < V; v++) {
                Lanes step = delta[v], u = step * x[v];
                for (int n = 0; n < N; n++) {
                    Lanes kept = exponential(step * rates[n * V + v]);
                    decay[n * V + v] = kept;
                    next[n * V + v] = state[n * V + v] * kept + u * b[n];
                }
            }
        }
        memset(of_b, 0, 2 * CHUNK * N * sizeof(Lanes));
        for (int t = length - 1; t >= 0; t--) {
            long row = first + t;
            const Real *b = f->b + row * N, *c = f->c + row * N;
            Lanes *before = states + t * size, *after = before + size, *decay = decays + t * size;
            load_row(x, f->x + row * D, D, V);
            load_row(delta, f->delta + row * D, D, V);
            load_row(d_y, f->d_y + row * D, D, V);
            for (int v = 0; v < V; v++) {
                Lanes step = delta[v], u = step * x[v], d_u = {0}, of_step = {0};
                for (int n = 0; n < N; n++) {
                    int place = n * V + v;
                    Lanes d = d_state[place] + d_y[v] * c[n];
                    of_c[t * N + n] += after[place] * d_y[v];
                    of_b[t * N + n] += d * u;
                    d_u += d * b[n];
                    d *= decay[place];
                    Lanes d_rate = d * before[place];
                    of_step += d_rate * rates[place];
                    d_rates[place] += d_rate * step;
                    d_state[place] = d;
                }
                d_x[v] = d_u * step, d_delta[v] = d_u * x[v] + of_step;
            }
            store_row(f->d_x + row * D, d_x, D, V);
            store_row(f->d_delta + row * D, d_delta, D, V);
        }
        sums(f->d_b + first * N, of_b, length * N);
        sums(f->d_c + first * N, of_c, length * N);
    }
    store_rows(f->d_state + text * N * D, d_state, N, D, V);
    store_rows(f->d_a + text * N * D, d_rates, N, D, V);
}

int channels_forward(const ChannelsForward *f, long first, long end, int L, int D, int N) {
    int V = vectors(D);
    Lanes *memory = (Lanes *)room((2L * N + 3) * V * LANES), *rates = memory + N * V;
    if (!memory) return -1;
    load_rows(rates, f->a, N, D, V);
    for (long text = first; text < end; text++)
        channels_text_forward(f, text, L, D, N, rates, memory, rates + N * V, V);
    free(memory);
    return 0;
}

int channels_backward(const ChannelsBackward *f, long first, long end, int L, int D, int N) {
    int V = vectors(D);
    long size = (long)N * V;
    Lanes *memory = (Lanes *)room(((2L * CHUNK + 4) * size + 2L * CHUNK * N + 5 * V) * LANES);
    if (!memory) return -1;
    Lanes *d_state = memory, *rates = d_state + size, *d_rates = rates + size, *rest = d_rates + size;
    load_rows(rates, f->a, N, D, V);
    for (long text = first; text < end; text++)
        channels_text_backward(f, text, L, D, N, rates, d_state, d_rates, rest, V);
    free(memory);
    return 0;
}
