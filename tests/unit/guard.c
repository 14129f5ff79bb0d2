/* An allocator for LD_PRELOAD under which a stray access ends the process: a block of some size ends at a page that nobody
   may touch, is filled with a pattern, and can't be touched any more once it is freed, for its addresses are never used again. */
#include <errno.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>

extern void *__libc_malloc(size_t);
extern void *__libc_calloc(size_t, size_t);
extern void *__libc_realloc(void *, size_t);
extern void *__libc_memalign(size_t, size_t);
extern void __libc_free(void *);

#define PAGE ((size_t)4096)
#define LEAST ((size_t)512)
#define REGION ((size_t)1 << 44)
/* Each block takes two of the mappings that a process may have, 65,530 where nobody allowed more. */
#define MOST ((size_t)20000)
#define FRESH (MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE)
#define UP(size, to) (((size) + (to) - 1) / (to) * (to))

/* What stands right before a block. */
struct head { size_t size, pages; };

static char *region;
static _Atomic size_t used, live;
static _Atomic int on = 1;

/* Whether blocks that are asked for from now on are guarded. */
void guard(int wanted) { on = wanted; }

__attribute__((constructor)) static void reserve(void) {
    void *at = mmap(NULL, REGION, PROT_NONE, FRESH, -1, 0);
    if (at != MAP_FAILED) region = at;
}

static struct head *guarded(void *at) {
    return region && (char *)at >= region && (char *)at < region + REGION ? (struct head *)at - 1 : NULL;
}

static void *block(size_t alignment, size_t size) {
    if (alignment < 16) alignment = 16;
    if (!region || size < LEAST || size > REGION / 16 || alignment > PAGE) return NULL;
    if (!on || live >= MOST) return NULL;
    size_t body = UP(size, alignment), pages = UP(body + sizeof(struct head), PAGE);
    size_t start = atomic_fetch_add(&used, pages + PAGE);
    if (start + pages + PAGE > REGION || mprotect(region + start, pages, PROT_READ | PROT_WRITE)) return NULL;
    char *at = region + start + pages - body;
    *guarded(at) = (struct head){size, pages};
    live++;
    return at;
}

static void *filled(size_t alignment, size_t size) {
    void *at = block(alignment, size);
    return at ? memset(at, 0x7b, size) : NULL;
}

void *malloc(size_t size) {
    void *at = filled(16, size);
    return at ? at : __libc_malloc(size);
}

void *calloc(size_t count, size_t each) {
    size_t size;
    void *at = __builtin_mul_overflow(count, each, &size) ? NULL : block(16, size);
    return at ? at : __libc_calloc(count, each);
}

void *memalign(size_t alignment, size_t size) {
    void *at = filled(alignment, size);
    return at ? at : __libc_memalign(alignment, size);
}

void *aligned_alloc(size_t alignment, size_t size) { return memalign(alignment, size); }

int posix_memalign(void **at, size_t alignment, size_t size) {
    void *made = memalign(alignment, size);
    if (!made) return ENOMEM;
    *at = made;
    return 0;
}

void free(void *at) {
    struct head *head = guarded(at);
    if (!head) {
        __libc_free(at);
        return;
    }
    size_t pages = head->pages;
    char *start = (char *)((uintptr_t)at / PAGE * PAGE) + UP((uintptr_t)at % PAGE + UP(head->size, 16), PAGE) - pages;
    mmap(start, pages, PROT_NONE, FRESH | MAP_FIXED, -1, 0);
    live--;
}

size_t malloc_usable_size(void *at) {
    struct head *head = guarded(at);
    return head ? head->size : at ? (((size_t *)at)[-1] & ~(size_t)7) - 8 : 0;
}

void *realloc(void *at, size_t size) {
    struct head *head = guarded(at);
    if (!at) return malloc(size);
    if (!head) return __libc_realloc(at, size);
    void *made = malloc(size);
    if (made) {
        memcpy(made, at, head->size < size ? head->size : size);
        free(at);
    }
    return made;
}
