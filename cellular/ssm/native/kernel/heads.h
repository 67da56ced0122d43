/* The scan with one decay a head, a text at a time.

   A head's state is N rows of P channels, side by side in vectors. Backward goes from chunk to chunk, and
   computes the CHUNK states of each again from the one before it, which forward kept. */

typedef struct {
    const Real *x, *delta, *a, *b, *c, *state; /* of all texts */
    Real *y, *last, *before;
} HeadsForward;

typedef struct {
    const Real *x, *delta, *a, *b, *c, *before, *d_y, *d_last;
    Real *d_x, *d_delta, *d_a, *d_b, *d_c, *d_state; /* d_a a text each */
} HeadsBackward;

/* What a position adds to the state, before B: Δ x; V vectors. */
INLINE void entering(Lanes *u, const Real *x, Real delta, int P, int V) {
    load_row(u, x, P, V);
    for (int v = 0; v < V; v++) u[v] *= delta;
}

INLINE void text_forward(const HeadsForward *f, long text, int L, int H, int P, int N, Lanes *states,
                             int V) {
    long state_size = (long)H * P * N;
    int chunks = (L + CHUNK - 1) / CHUNK;
    for (int h = 0; h < H; h++) /* (P, N) there, (N, P) here */
        for (int n = 0; n < N; n++)
            for (int p = 0; p < P; p++)
                ((Real *)(states + (h * N + n) * V))[p] = f->state[text * state_size + (h * P + p) * N + n];
    for (int t = 0; t < L; t++) {
        long row = text * L + t;
        const Real *b = f->b + row * N, *c = f->c + row * N;
        if (t % CHUNK == 0)
            store_rows(f->before + (text * chunks + t / CHUNK) * state_size, states, H * N, P, V);
        for (int h = 0; h < H; h++) {
            Lanes *state = states + h * N * V, u[V], even[V], odd[V];
            Real delta = f->delta[row * H + h], decay = exp_one(delta * f->a[h]);
            entering(u, f->x + (row * H + h) * P, delta, P, V);
            for (int v = 0; v < V; v++) even[v] = odd[v] = (Lanes){0};
            int n = 0;
            for (; n + 2 <= N; n += 2)
                for (int v = 0; v < V; v++) {
                    Lanes one = state[n * V + v] * decay + u[v] * b[n];
                    Lanes two = state[(n + 1) * V + v] * decay + u[v] * b[n + 1];
                    state[n * V + v] = one, state[(n + 1) * V + v] = two;
                    even[v] += one * c[n], odd[v] += two * c[n + 1];
                }
            if (n < N)
                for (int v = 0; v < V; v++) {
                    state[n * V + v] = state[n * V + v] * decay + u[v] * b[n];
                    even[v] += state[n * V + v] * c[n];
                }
            for (int v = 0; v < V; v++) even[v] += odd[v];
            store_row(f->y + (row * H + h) * P, even, P, V);
        }
    }
    for (int h = 0; h < H; h++)
        for (int n = 0; n < N; n++)
            for (int p = 0; p < P; p++)
                f->last[text * state_size + (h * P + p) * N + n] = ((Real *)(states + (h * N + n) * V))[p];
}

/* One head of one chunk, from its last position to its first. `d_state` is at its end, then at its start;
   `states` is room for CHUNK + 1; `of_b` and `of_c` are N vectors a position, whose lanes are summed later. */
INLINE Real chunk_backward(const HeadsBackward *f, long row, int h, int length, int H, int P, int N,
                               Lanes *states, Lanes *d_state, Lanes *of_b, Lanes *of_c, int V) {
    Real decays[CHUNK], d_a = 0;
    int size = N * V;
    for (int t = 0; t < length; t++) {
        Lanes u[V], *state = states + t * size, *next = state + size;
        const Real *b = f->b + (row + t) * N;
        long place = (row + t) * H + h;
        decays[t] = exp_one(f->delta[place] * f->a[h]);
        entering(u, f->x + place * P, f->delta[place], P, V);
        for (int n = 0; n < N; n++)
            for (int v = 0; v < V; v++) next[n * V + v] = state[n * V + v] * decays[t] + u[v] * b[n];
    }
    for (int t = length - 1; t >= 0; t--) {
        long place = (row + t) * H + h;
        const Real *b = f->b + (row + t) * N, *c = f->c + (row + t) * N;
        Real delta = f->delta[place], decay = decays[t];
        Lanes u[V], d_y[V], d_u[V], of_decay = {0}, by_delta = {0};
        Lanes *before = states + t * size, *after = before + size;
        entering(u, f->x + place * P, delta, P, V);
        load_row(d_y, f->d_y + place * P, P, V);
        for (int v = 0; v < V; v++) d_u[v] = (Lanes){0};
        for (int n = 0; n < N; n++) {
            Lanes b_sum = {0}, c_sum = {0};
            for (int v = 0; v < V; v++) {
                Lanes d = d_state[n * V + v] + d_y[v] * c[n];
                c_sum += after[n * V + v] * d_y[v];
                b_sum += d * u[v];
                d_u[v] += d * b[n];
                d *= decay;
                of_decay += d * before[n * V + v];
                d_state[n * V + v] = d;
            }
            of_b[t * N + n] += b_sum, of_c[t * N + n] += c_sum;
        }
        load_row(u, f->x + place * P, P, V);
        for (int v = 0; v < V; v++) by_delta += d_u[v] * u[v], d_u[v] *= delta;
        Real d_rate = sum(of_decay);
        store_row(f->d_x + place * P, d_u, P, V);
        f->d_delta[place] = sum(by_delta) + d_rate * f->a[h];
        d_a += d_rate * delta;
    }
    return d_a;
}

INLINE void text_backward(const HeadsBackward *f, long text, int L, int H, int P, int N, Lanes *memory,
                              int V) {
    long state_size = (long)H * P * N;
    int chunks = (L + CHUNK - 1) / CHUNK;
    Lanes *d_states = memory, *states = d_states + H * N * V;
    Lanes *of_b = states + (CHUNK + 1) * N * V, *of_c = of_b + CHUNK * N;
    for (int h = 0; h < H; h++) {
        f->d_a[text * H + h] = 0;
        for (int n = 0; n < N; n++)
            for (int p = 0; p < P; p++)
                ((Real *)(d_states + (h * N + n) * V))[p] = f->d_last[text * state_size + (h * P + p) * N + n];
    }
    for (int chunk = chunks - 1; chunk >= 0; chunk--) {
        int length = chunk < chunks - 1 ? CHUNK : L - chunk * CHUNK;
        long row = text * L + chunk * CHUNK;
        memset(of_b, 0, 2 * CHUNK * N * sizeof(Lanes));
        for (int h = 0; h < H; h++) {
            const Real *before = f->before + (text * chunks + chunk) * state_size + (long)h * P * N;
            load_rows(states, before, N, P, V);
            f->d_a[text * H + h] +=
                chunk_backward(f, row, h, length, H, P, N, states, d_states + h * N * V, of_b, of_c, V);
        }
        sums(f->d_b + row * N, of_b, length * N);
        sums(f->d_c + row * N, of_c, length * N);
    }
    for (int h = 0; h < H; h++)
        for (int n = 0; n < N; n++)
            for (int p = 0; p < P; p++)
                f->d_state[text * state_size + (h * P + p) * N + n] = ((Real *)(d_states + (h * N + n) * V))[p];
}

/* Texts `first` up to `end`; 0, or -1 where there is no memory. */
int heads_forward(const HeadsForward *f, long first, long end, int L, int H, int P, int N) {
    int V = vectors(P);
    Lanes *states = (Lanes *)room((long)H * N * V * LANES);
    if (!states) return -1;
    for (long text = first; text < end; text++) switch (V) {
            case 1: text_forward(f, text, L, H, P, N, states, 1); break;
            case 2: text_forward(f, text, L, H, P, N, states, 2); break;
            case 4: text_forward(f, text, L, H, P, N, states, 4); break;
            default: text_forward(f, text, L, H, P, N, states, V);
        }
    free(states);
    return 0;
}

int heads_backward(const HeadsBackward *f, long first, long end, int L, int H, int P, int N) {
    int V = vectors(P);
    Lanes *memory = (Lanes *)room(((long)(H + CHUNK + 1) * N * V + 2L * CHUNK * N) * LANES);
    if (!memory) return -1;
    for (long text = first; text < end; text++) switch (V) {
            case 1: text_backward(f, text, L, H, P, N, memory, 1); break;
            case 2: text_backward(f, text, L, H, P, N, memory, 2); break;
            case 4: text_backward(f, text, L, H, P, N, memory, 4); break;
            default: text_backward(f, text, L, H, P, N, memory, V);
        }
    free(memory);
    return 0;
}
