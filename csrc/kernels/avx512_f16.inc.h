/* What reads and writes float16 on AVX-512: eight float32 lanes, G, in 256 bits, and thirty-two registers of them.
 *
 * A Zen 4 widens eight float16 from memory in one step where sixteen take four, and narrows no faster in 512 bits: a rotation
 * takes 0.85 of the time. It adds in two of its four units, in those that also widen and narrow, and multiplies in the
 * others: differences are x*1 - y, which is rounded once, to the same bits.
 */
enum { GL = 8 };
typedef __m256 G;

#define PE_F16_APART 1
#define PE_F16_TURN  8
#define PE_F16_AHEAD 8

PE_FN G ld_f32g(const float *p) {
    return _mm256_loadu_ps(p);
}
PE_FN G ldn_f32g(const float *p, size_t n) {
    return _mm256_maskz_loadu_ps((__mmask8)first(n), p);
}
PE_FN G ld_f16g(const uint16_t *p) {
    return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)p));
}
PE_FN G ldn_f16g(const uint16_t *p, size_t n) {
    return _mm256_cvtph_ps(_mm_maskz_loadu_epi16((__mmask8)first(n), p));
}
PE_FN __m128i g_to_f16(G x) {
    return _mm256_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}
PE_FN void st_f16g(uint16_t *p, G x) {
    _mm_storeu_si128((__m128i *)p, g_to_f16(x));
}
PE_FN void stn_f16g(uint16_t *p, G x, size_t n) {
    _mm_mask_storeu_epi16(p, (__mmask8)first(n), g_to_f16(x));
}
PE_FN void sts_f16g(uint16_t *p, G x) {
    _mm_stream_si128((__m128i *)p, g_to_f16(x));
}
PE_FN G g_sub(G x, G y) {
    return _mm256_fmsub_ps(x, _mm256_set1_ps(1.0f), y);
}
PE_FN G g_dupn(const float *p, size_t n) {
    return g_spread(_mm_maskz_loadu_ps((__mmask8)first(n), p));
}
