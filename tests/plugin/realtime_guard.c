/* Counts calls that an audio thread must not make. Loaded before the host (LD_PRELOAD), it wraps the allocations, locks, waits
   and system calls below and counts those between stemprover_audio_begins and stemprover_audio_ends, on the thread that calls
   them. It does not see calls inside libc. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
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
int sched_yield (void) { REAL (sched_yield); return real(); }
int pthread_cond_timedwait (pthread_cond_t* c, pthread_mutex_t* m, const struct timespec* t)
{
    REAL (pthread_cond_timedwait);
    return real (c, m, t);
}
int pthread_cond_clockwait (pthread_cond_t* c, pthread_mutex_t* m, clockid_t k, const struct timespec* t)
{
    REAL (pthread_cond_clockwait);
    return real (c, m, k, t);
}
ssize_t sendto (int s, const void* p, size_t n, int f, const struct sockaddr* a, socklen_t l)
{
    REAL (sendto);
    return real (s, p, n, f, a, l);
}
ssize_t recvfrom (int s, void* p, size_t n, int f, struct sockaddr* a, socklen_t* l)
{
    REAL (recvfrom);
    return real (s, p, n, f, a, l);
}
int connect (int s, const struct sockaddr* a, socklen_t l) { REAL (connect); return real (s, a, l); }
void* mmap (void* p, size_t n, int r, int f, int d, off_t o) { REAL (mmap); return real (p, n, r, f, d, o); }
int munmap (void* p, size_t n) { REAL (munmap); return real (p, n); }
int usleep (useconds_t t) { REAL (usleep); return real (t); }
int open (const char* path, int flags, ...)
{
    va_list more;
    va_start (more, flags);
    const mode_t mode = va_arg (more, mode_t);
    va_end (more);
    REAL (open);
    return real (path, flags, mode);
}
/* For futex among others; six arguments at most. */
long syscall (long number, ...)
{
    va_list more;
    va_start (more, number);
    long a[6];
    for (int i = 0; i < 6; ++i)
        a[i] = va_arg (more, long);
    va_end (more);
    REAL (syscall);
    return real (number, a[0], a[1], a[2], a[3], a[4], a[5]);
}
