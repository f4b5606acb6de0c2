/* By long division of large integers: slow, and short. */
#include "decimal.h"

#include <math.h>
#include <string.h>

#define WORDS 64 /* of 32 bits: both numbers have at most 330 + FR_DECIMAL_MOST_DIGITS decimal digits, 1522 bits, and one more */

typedef struct fr_large {
    int count; /* words in use; the last is not zero */
    uint32_t words[WORDS];
} fr_large;

/* number * factor + term */
static void multiply_add(fr_large *number, uint32_t factor, uint32_t term)
{
    uint64_t carry = term;
    for (int i = 0; i < number->count; i++) {
        carry += (uint64_t)number->words[i] * factor;
        number->words[i] = (uint32_t)carry;
        carry >>= 32;
    }
    if (carry)
        number->words[number->count++] = (uint32_t)carry;
}

static void multiply_by_power_of_ten(fr_large *number, int64_t exponent)
{
    for (; exponent > 0; exponent--)
        multiply_add(number, 10, 0);
}

static int num_bits(const fr_large *number)
{
    return number->count ? 32 * number->count - __builtin_clz(number->words[number->count - 1]) : 0;
}

static void shift_left(fr_large *number, int bits)
{
    const int words = bits / 32;
    memmove(number->words + words, number->words, (size_t)number->count * sizeof *number->words);
    memset(number->words, 0, (size_t)words * sizeof *number->words);
    number->count += number->count ? words : 0;
    multiply_add(number, UINT32_C(1) << bits % 32, 0);
}

static int compare(const fr_large *a, const fr_large *b)
{
    if (a->count != b->count)
        return a->count < b->count ? -1 : 1;
    for (int i = a->count - 1; i >= 0; i--)
        if (a->words[i] != b->words[i])
            return a->words[i] < b->words[i] ? -1 : 1;
    return 0;
}

/* a - b, which is not negative. */
static void subtract(fr_large *a, const fr_large *b)
{
    int64_t carry = 0;
    for (int i = 0; i < a->count; i++) {
        carry += (int64_t)a->words[i] - (i < b->count ? b->words[i] : 0);
        a->words[i] = (uint32_t)carry;
        carry >>= 32; /* 0 or -1 */
    }
    while (a->count && a->words[a->count - 1] == 0)
        a->count--;
}

double fr_decimal(const char *digits, size_t count, int64_t exponent)
{
    fr_large above = {0}, below = {.count = 1, .words = {1}}; /* the number is above / below */
    for (; count && *digits == '0'; count--)
        digits++;
    if (count == 0 || (int64_t)count + exponent < -330)
        return 0;
    if ((int64_t)count + exponent > 310)
        return INFINITY;
    for (size_t i = 0; i < count; i++)
        multiply_add(&above, 10, (uint32_t)(digits[i] - '0'));
    multiply_by_power_of_ten(&above, exponent);
    multiply_by_power_of_ten(&below, -exponent);
    int power = num_bits(&above) - num_bits(&below);
    shift_left(power > 0 ? &below : &above, power > 0 ? power : -power);
    if (compare(&above, &below) < 0) {
        shift_left(&above, 1);
        power--;
    }
    /* The number is above / below * 2^power, from 2^power on. Of its bits a normal double has 53, a subnormal one fewer. */
    const int bits = power >= -1022 ? 53 : 53 + power + 1022;
    if (bits < 0)
        return 0;
    uint64_t fraction = 0;
    for (int i = 0; i < bits; i++) {
        const bool bit = compare(&above, &below) >= 0;
        fraction = 2 * fraction + bit;
        if (bit)
            subtract(&above, &below);
        shift_left(&above, 1);
    }
    const int half = compare(&above, &below);
    fraction += half > 0 || (half == 0 && fraction & 1);
    return ldexp((double)fraction, power - bits + 1);
}
