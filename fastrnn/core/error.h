/* The text that explains a failure, of the thread on which it happened. Only functions that check or create write it; runs do not. */
#ifndef FR_ERROR_H
#define FR_ERROR_H

#include "common.h"

/* Sets the text and returns the status. Of printf's conversions %s, %d, %lld and %zu; a string that is NULL is "NULL". */
fastrnn_status fr_fail(fastrnn_status status, const char *format, ...) __attribute__((format(printf, 2, 3)));

fastrnn_status fr_fail_null(const char *argument);   /* FASTRNN_ERROR_ARGUMENT: it is NULL */
fastrnn_status fr_fail_struct(const char *argument); /* FASTRNN_ERROR_ARGUMENT: its struct_size, or members that are not known */
fastrnn_status fr_fail_index(const char *argument, int64_t index, int64_t count); /* FASTRNN_ERROR_ARGUMENT */
fastrnn_status fr_fail_isa(const char *isa); /* of a function that takes NULL for the one that FASTRNN_ISA names */
fastrnn_status fr_fail_store(void); /* FASTRNN_ERROR_STORE */
fastrnn_status fr_fail_slots(const int64_t *slots, int64_t count, int64_t capacity); /* FASTRNN_ERROR_ARGUMENT */
fastrnn_status fr_fail_memory(void);
fastrnn_status fr_fail_size(const char *what); /* FASTRNN_ERROR_SIZE: its bytes do not fit in size_t */

/* Adds to the text, after "; " if it is not empty. Texts of several faults begin with fr_clear_faults. */
void fr_clear_faults(void);
bool fr_has_faults(void);
void fr_add_fault(const char *format, ...) __attribute__((format(printf, 1, 2)));

#endif
