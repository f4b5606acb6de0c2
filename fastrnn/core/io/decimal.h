/* Decimal numbers as doubles, in every locale, correctly rounded. */
#ifndef FR_DECIMAL_H
#define FR_DECIMAL_H

#include "../common.h"

#define FR_DECIMAL_MOST_DIGITS 128

/* digits * 10^exponent, rounded to nearest, ties to even; `digits` are `count` characters from '0' to '9', at most
 * FR_DECIMAL_MOST_DIGITS. */
double fr_decimal(const char *digits, size_t count, int64_t exponent);

#endif
