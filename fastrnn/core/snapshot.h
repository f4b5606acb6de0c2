/* The header of snapshots, of layers and of models; fastrnn.h has the format. */
#ifndef FR_SNAPSHOT_H
#define FR_SNAPSHOT_H

#include "common.h"

#define FR_SNAPSHOT_VERSION 1
#define FR_SNAPSHOT_HEADER 40 /* bytes */

/* Writes the header; info->struct_size is not read. */
void fr_snapshot_put_header(void *snapshot, const fastrnn_snapshot_info *info);
/* Whether these `size` bytes begin with this header. */
bool fr_snapshot_has_header(const void *snapshot, size_t size, const fastrnn_snapshot_info *info);

/* FASTRNN_ERROR_SNAPSHOT, and why these bytes are not what is wanted. */
fastrnn_status fr_fail_snapshot(const void *snapshot, size_t size, const fastrnn_snapshot_info *wanted, size_t wanted_size);

/* Copies reals from this machine's byte order to little-endian; the inverse is the same function. */
void fr_snapshot_copy_reals(void *to, const void *from, int64_t count, size_t real_size);

#endif
