/* The part of the DLPack 1.3 ABI that reading a tensor takes: plain structs, stable by version number.
 * https://dmlc.github.io/dlpack/latest/c_api.html
 */
#ifndef PE_DLPACK_ABI_H
#define PE_DLPACK_ABI_H

#include <stdint.h>

enum { DL_INT = 0, DL_FLOAT = 2, DL_BFLOAT = 4 };         /* type codes */
enum { DL_CPU = 1, DL_CUDA_HOST = 3, DL_ROCM_HOST = 11 }; /* memory this processor can read */

typedef struct {
    void *data;
    struct {
        int32_t type, id;
    } device;
    int32_t ndim;
    struct {
        uint8_t code, bits;
        uint16_t lanes;
    } dtype;
    int64_t *shape, *strides; /* in elements; strides may be NULL for a contiguous tensor */
    uint64_t byte_offset;
} dl_tensor;

/* What a tensor's type publishes in the capsule __dlpack_c_exchange_api__, named "dlpack_exchange_api". */
typedef struct dl_exchange_api {
    struct {
        uint32_t major, minor;
    } version;
    struct dl_exchange_api *previous;
    void *allocate;
    void *managed_from_object;
    void *managed_to_object;
    int (*tensor_from_object)(void *object,
                              dl_tensor *out); /* a view: valid while the object lives and is not resized */
    void *current_stream;
} dl_exchange_api;

#endif
