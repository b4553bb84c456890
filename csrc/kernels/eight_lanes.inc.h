/* Eight float32 lanes in 256 bits: what AVX2 has for every element, and AVX-512 for float16.
 *
 * Needs PE_FN and PE_EIGHT(op), the name of an operation; what they are is said in element.inc.h and bias.inc.h.
 */
PE_FN __m256 PE_EIGHT(set)(float x) {
    return _mm256_set1_ps(x);
}
PE_FN __m256 PE_EIGHT(add)(__m256 x, __m256 y) {
    return _mm256_add_ps(x, y);
}
PE_FN __m256 PE_EIGHT(mul)(__m256 x, __m256 y) {
    return _mm256_mul_ps(x, y);
}
PE_FN __m256 PE_EIGHT(abs)(__m256 x) {
    return _mm256_andnot_ps(_mm256_set1_ps(-0.0f), x);
}
PE_FN __m256 PE_EIGHT(count)(int32_t start) { /* start, start + 1, .. */
    const __m256i lanes = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    return _mm256_cvtepi32_ps(_mm256_add_epi32(_mm256_set1_epi32(start), lanes));
}
/* loads take 0.4 to 0.8 of the time of the instructions that gather, on a Zen 4 */
PE_FN __m256 PE_EIGHT(gather)(const float *t, const int32_t *i) {
    return _mm256_setr_ps(t[i[0]], t[i[1]], t[i[2]], t[i[3]], t[i[4]], t[i[5]], t[i[6]], t[i[7]]);
}
PE_FN __m256 PE_EIGHT(swap)(__m256 x) {
    return _mm256_permute_ps(x, 0xb1);
}
PE_FN __m256 PE_EIGHT(addsub)(__m256 x, __m256 y) { /* x*1 is exact: one rounding, as if there were no product */
    return _mm256_fmaddsub_ps(x, _mm256_set1_ps(1.0f), y);
}
PE_FN __m256 PE_EIGHT(spread)(__m128 x) { /* x0 x0 x1 x1 .. */
    return _mm256_permutevar8x32_ps(_mm256_castps128_ps256(x), _mm256_setr_epi32(0, 0, 1, 1, 2, 2, 3, 3));
}
PE_FN __m256 PE_EIGHT(dup)(const float *p) {
    return PE_EIGHT(spread)(_mm_loadu_ps(p));
}
#undef PE_EIGHT
