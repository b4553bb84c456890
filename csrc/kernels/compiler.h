/* Every difference between compilers, in one place.
 *
 * A kernel file is compiled for the baseline of its architecture and names what it needs in a function attribute, so that
 * the code around it never runs an instruction the processor lacks. MSVC accepts any intrinsic in any function.
 */
#ifndef PE_COMPILER_H
#define PE_COMPILER_H

#if defined(__GNUC__) || defined(__clang__)
#define PE_TARGET(list) __attribute__((target(list)))
#define PE_INLINE       static inline __attribute__((always_inline))
#ifdef __clang__
#define PE_NOINLINE __attribute__((noinline))
#else
#define PE_NOINLINE __attribute__((noinline, noclone)) /* GCC copies a function for each constant argument otherwise */
#endif
#define PE_UNLIKELY(x)  __builtin_expect(!!(x), 0)
#define PE_PREFETCH(p)  __builtin_prefetch(p, 0, 3)
#define PE_PREFETCH2(p) __builtin_prefetch(p, 0, 2) /* into the second cache */
#define PE_ALIGNED(n)   __attribute__((aligned(n)))
#elif defined(_MSC_VER)
#define PE_TARGET(list)
#define PE_INLINE       static __forceinline
#define PE_NOINLINE     __declspec(noinline)
#define PE_UNLIKELY(x)  (x)
#define PE_PREFETCH(p)  ((void)(p))
#define PE_PREFETCH2(p) ((void)(p))
#define PE_ALIGNED(n)   __declspec(align(n))
#else
#define PE_TARGET(list)
#define PE_INLINE static inline
#define PE_NOINLINE
#define PE_UNLIKELY(x)  (x)
#define PE_PREFETCH(p)  ((void)(p))
#define PE_PREFETCH2(p) ((void)(p))
#define PE_ALIGNED(n)
#endif

/* Where the lowest bit that is set stands. */
static inline unsigned pe_lowest(unsigned bits) {
#ifdef __GNUC__
    return (unsigned)__builtin_ctz(bits);
#else
    unsigned at = 0;
    while (!(bits >> at & 1)) at++;
    return at;
#endif
}

#if defined(__x86_64__) || defined(_M_X64)
#define PE_X86_64 1
#elif defined(__aarch64__) || defined(_M_ARM64)
#define PE_ARM64 1
#endif

/* The rotation is multiply, multiply, add: never fused, so that every processor gives the same bits. GCC does not know the
 * pragma and is told by -ffp-contract=off (and by -std=c11, which implies it). */
#if defined(__clang__) || defined(_MSC_VER)
#pragma STDC FP_CONTRACT OFF
#endif
#ifdef __FAST_MATH__
#error "posenc must not be compiled with -ffast-math: it would change its numbers"
#endif

#define PE_CAT_(a, b) a##b
#define PE_CAT(a, b)  PE_CAT_(a, b)

#endif
