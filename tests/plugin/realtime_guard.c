/* Counts what an audio thread must not do: loaded before the host (LD_PRELOAD), it sees every allocation, lock and system
   call by its C name between stemprover_audio_begins and stemprover_audio_ends, on the thread that called them. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <poll.h>
#include <pthread.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

static __thread int inside __attribute__ ((tls_model ("initial-exec")));
static volatile int count, blocks;
static const char* volatile last = "";

void stemprover_audio_begins (void) { inside = 1; __sync_fetch_and_add (&blocks, 1); }
void stemprover_audio_ends (void) { inside = 0; }
int guard_count (void) { return count; }
int guard_blocks (void) { return blocks; }
const char* guard_last (void) { return last; }

static void note (const char* name)
{
    if (inside)
    {
        __sync_fetch_and_add (&count, 1);
        last = name;
    }
}

extern void* __libc_malloc (size_t);
extern void* __libc_calloc (size_t, size_t);
extern void* __libc_realloc (void*, size_t);
extern void __libc_free (void*);
extern void* __libc_memalign (size_t, size_t);

void* malloc (size_t size) { note ("malloc"); return __libc_malloc (size); }
void* calloc (size_t n, size_t size) { note ("calloc"); return __libc_calloc (n, size); }
void* realloc (void* p, size_t size) { note ("realloc"); return __libc_realloc (p, size); }
void free (void* p) { if (p) note ("free"); __libc_free (p); }
void* memalign (size_t a, size_t size) { note ("memalign"); return __libc_memalign (a, size); }
void* aligned_alloc (size_t a, size_t size) { note ("aligned_alloc"); return __libc_memalign (a, size); }
int posix_memalign (void** p, size_t a, size_t size)
{
    note ("posix_memalign");
    *p = __libc_memalign (a, size);
    return *p ? 0 : 12;
}

#define REAL(name) \
    static __typeof__ (name)* real; \
    if (! real) \
        real = (__typeof__ (name)*) dlsym (RTLD_NEXT, #name); \
    note (#name)

int pthread_mutex_lock (pthread_mutex_t* m) { REAL (pthread_mutex_lock); return real (m); }
int pthread_mutex_trylock (pthread_mutex_t* m) { REAL (pthread_mutex_trylock); return real (m); }
int pthread_rwlock_rdlock (pthread_rwlock_t* l) { REAL (pthread_rwlock_rdlock); return real (l); }
int pthread_rwlock_wrlock (pthread_rwlock_t* l) { REAL (pthread_rwlock_wrlock); return real (l); }
int pthread_cond_signal (pthread_cond_t* c) { REAL (pthread_cond_signal); return real (c); }
int pthread_cond_broadcast (pthread_cond_t* c) { REAL (pthread_cond_broadcast); return real (c); }
int pthread_cond_wait (pthread_cond_t* c, pthread_mutex_t* m) { REAL (pthread_cond_wait); return real (c, m); }
ssize_t send (int s, const void* p, size_t n, int f) { REAL (send); return real (s, p, n, f); }
ssize_t recv (int s, void* p, size_t n, int f) { REAL (recv); return real (s, p, n, f); }
ssize_t write (int s, const void* p, size_t n) { REAL (write); return real (s, p, n); }
ssize_t read (int s, void* p, size_t n) { REAL (read); return real (s, p, n); }
int poll (struct pollfd* p, nfds_t n, int t) { REAL (poll); return real (p, n, t); }
int nanosleep (const struct timespec* a, struct timespec* b) { REAL (nanosleep); return real (a, b); }
int sched_yield (void) { note ("sched_yield"); return 0; }
