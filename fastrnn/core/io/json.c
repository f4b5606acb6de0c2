#include "json.h"

#include <math.h>
#include <string.h>

#include "decimal.h"

#define MOST_DEPTH 16

/* The next character, and the number of bytes that it takes; -1 at the end, and for what is no character of a text. */
static int character(const fr_json *json, int *bytes)
{
    if (json->at == json->end)
        return -1;
    const unsigned char c = (unsigned char)*json->at;
    *bytes = 1;
    if (c >= 0x80)
        return -1;
    if (!json->in_string || c != '\\')
        return c;
    static const char escapes[] = "\"\\/bfnrt", meanings[] = "\"\\/\b\f\n\r\t";
    const char *escape = json->at + 1 < json->end && json->at[1] ? strchr(escapes, json->at[1]) : NULL;
    *bytes = 2;
    return escape ? meanings[escape - escapes] : -1; /* \u is for characters that no text of ours has */
}

static int peek(const fr_json *json)
{
    int bytes;
    return character(json, &bytes);
}

static int take(fr_json *json)
{
    int bytes;
    const int c = character(json, &bytes);
    json->at += c < 0 ? 0 : bytes;
    return c;
}

static bool take_if(fr_json *json, int wanted)
{
    const bool found = peek(json) == wanted;
    if (found)
        take(json);
    return found;
}

static void skip_space(fr_json *json)
{
    for (int c = peek(json); c == ' ' || c == '\t' || c == '\n' || c == '\r'; c = peek(json))
        take(json);
}

static bool skip_word(fr_json *json, const char *word)
{
    for (; *word; word++)
        if (!take_if(json, *word))
            return false;
    return true;
}

static bool skip_string(fr_json *json)
{
    take(json);
    for (int c = take(json); c != '"'; c = take(json)) {
        if (c < ' ')
            return false;
        if (c != '\\')
            continue;
        c = take(json);
        for (int digits = c == 'u' ? 4 : 0; digits > 0; digits--) {
            const int digit = take(json);
            if (digit <= 0 || !strchr("0123456789abcdefABCDEF", digit))
                return false;
        }
        if (c <= 0 || !strchr("\"\\/bfnrtu", c))
            return false;
    }
    return true;
}

static bool is_digit(int c) { return c >= '0' && c <= '9'; }

static int64_t skip_digits(fr_json *json)
{
    int64_t count = 0;
    for (; is_digit(peek(json)); count++)
        take(json);
    return count;
}

static bool skip_number(fr_json *json)
{
    take_if(json, '-');
    if (peek(json) == 'I')
        return skip_word(json, "Infinity");
    if (!take_if(json, '0') && !skip_digits(json))
        return false;
    if (take_if(json, '.') && !skip_digits(json))
        return false;
    if (!take_if(json, 'e') && !take_if(json, 'E'))
        return true;
    if (!take_if(json, '+'))
        take_if(json, '-');
    return skip_digits(json) > 0;
}

static bool skip_value(fr_json *json, int depth);

static bool skip_elements(fr_json *json, char end, int depth)
{
    take(json);
    skip_space(json);
    if (take_if(json, end))
        return true;
    do {
        skip_space(json);
        if (end == '}') {
            if (peek(json) != '"' || !skip_string(json))
                return false;
            skip_space(json);
            if (!take_if(json, ':'))
                return false;
        }
        if (!skip_value(json, depth))
            return false;
        skip_space(json);
    } while (take_if(json, ','));
    return take_if(json, end);
}

static bool skip_value(fr_json *json, int depth)
{
    if (depth == MOST_DEPTH)
        return false;
    switch (fr_json_kind(*json)) {
    case '{': skip_space(json); return skip_elements(json, '}', depth + 1);
    case '[': skip_space(json); return skip_elements(json, ']', depth + 1);
    case '"': skip_space(json); return skip_string(json);
    case 't': skip_space(json); return skip_word(json, "true");
    case 'f': skip_space(json); return skip_word(json, "false");
    case 'n': skip_space(json); return skip_word(json, "null");
    case 'N': skip_space(json); return skip_word(json, "NaN");
    default: skip_space(json); return skip_number(json);
    }
}

bool fr_json_check(fr_json json, size_t *wrong)
{
    const char *start = json.at;
    bool right = skip_value(&json, 0);
    if (right)
        skip_space(&json);
    *wrong = (size_t)(json.at - start);
    return right && json.at == json.end;
}

char fr_json_kind(fr_json json)
{
    skip_space(&json);
    const int c = peek(&json);
    return c < 0 ? 0 : (char)c;
}

void fr_json_skip(fr_json *json) { skip_value(json, 0); }

bool fr_json_next(fr_json *next, fr_json *name, fr_json *value)
{
    skip_space(next);
    const int before = take(next); /* {, [ or a comma: the value before it was skipped */
    skip_space(next);
    if (before == ']' || before == '}' || peek(next) == ']' || peek(next) == '}')
        return false;
    if (name) {
        *name = *next;
        skip_string(next);
        skip_space(next);
        take(next); /* the colon */
    }
    *value = *next;
    fr_json_skip(next);
    return true;
}

int64_t fr_json_count(fr_json json)
{
    fr_json name, value, *of_object = fr_json_kind(json) == '{' ? &name : NULL;
    int64_t count = 0;
    while (fr_json_next(&json, of_object, &value))
        count++;
    return count;
}

bool fr_json_is(fr_json json, const char *string)
{
    if (fr_json_kind(json) != '"')
        return false;
    skip_space(&json);
    take(&json);
    for (; *string; string++)
        if (take(&json) != *string)
            return false;
    return peek(&json) == '"';
}

bool fr_json_inside(fr_json json, fr_json *inside)
{
    const char *characters;
    size_t size;
    if (!fr_json_string(json, &characters, &size))
        return false;
    *inside = (fr_json){.at = characters, .end = characters + size, .in_string = true};
    return true;
}

bool fr_json_string(fr_json json, const char **characters, size_t *size)
{
    if (fr_json_kind(json) != '"')
        return false;
    skip_space(&json);
    fr_json last = json;
    skip_string(&last);
    take(&json);
    *characters = json.at;
    *size = (size_t)(last.at - json.at) - (json.in_string ? 2 : 1); /* the last quotation mark is \" in a string */
    return true;
}

/* The characters of a number, up to a limit. */
typedef struct fr_number {
    char characters[FR_DECIMAL_MOST_DIGITS + 32];
    size_t size;
} fr_number;

static bool number_of(fr_json json, fr_number *number)
{
    const char kind = fr_json_kind(json);
    if (kind != '-' && kind != 'I' && kind != 'N' && !is_digit(kind))
        return false;
    skip_space(&json);
    fr_json end = json;
    fr_json_skip(&end);
    for (number->size = 0; json.at < end.at && number->size < sizeof number->characters; number->size++)
        number->characters[number->size] = (char)take(&json);
    return json.at == end.at;
}

bool fr_json_integer(fr_json json, int64_t *integer)
{
    fr_number number;
    if (!number_of(json, &number))
        return false;
    const bool negative = number.characters[0] == '-';
    *integer = 0;
    for (size_t i = negative; i < number.size; i++) {
        const char c = number.characters[i];
        if (!is_digit(c) || *integer > (INT64_MAX - (c - '0')) / 10)
            return false;
        *integer = 10 * *integer + (c - '0');
    }
    *integer = negative ? -*integer : *integer;
    return true;
}

/* The power of ten of a number's exponent, "e-5", within a range that is beyond that of double. */
static int64_t exponent_of(const char *characters, size_t size)
{
    int64_t exponent = 0;
    bool negative = false;
    for (size_t i = 1; i < size; i++)
        if (is_digit(characters[i]))
            exponent = fr_min(10 * exponent + (characters[i] - '0'), 1 << 20);
        else
            negative = characters[i] == '-';
    return negative ? -exponent : exponent;
}

bool fr_json_number(fr_json json, double *value)
{
    fr_number number;
    char digits[FR_DECIMAL_MOST_DIGITS];
    size_t count = 0, i;
    int64_t exponent = 0;
    bool in_fraction = false;
    if (!number_of(json, &number))
        return false;
    const bool negative = number.characters[0] == '-';
    const char first = number.characters[negative];
    if (first == 'N' || first == 'I') {
        *value = first == 'N' ? NAN : negative ? -INFINITY : INFINITY;
        return true;
    }
    for (i = negative; i < number.size && (is_digit(number.characters[i]) || number.characters[i] == '.'); i++) {
        if (number.characters[i] == '.') {
            in_fraction = true;
            continue;
        }
        if (count == sizeof digits)
            return false;
        digits[count++] = number.characters[i];
        exponent -= in_fraction;
    }
    if (i < number.size)
        exponent += exponent_of(number.characters + i, number.size - i);
    *value = fr_decimal(digits, count, exponent);
    *value = negative ? -*value : *value;
    return true;
}

bool fr_json_bool(fr_json json, bool *value)
{
    const char kind = fr_json_kind(json);
    *value = kind == 't';
    return kind == 't' || kind == 'f';
}

fr_json_text fr_json_text_of(fr_json json)
{
    fr_json_text text = {0};
    fr_json end = json;
    skip_space(&json);
    fr_json_skip(&end);
    const bool is_string = fr_json_kind(json) == '"';
    size_t size = 0;
    for (; json.at < end.at && size < sizeof text - 1; size++)
        text.characters[size] = (char)take(&json);
    if (json.at < end.at)
        memcpy(text.characters + sizeof text - 4, "...", 3);
    if (is_string) /* as messages quote */
        text.characters[0] = '\'';
    if (is_string && json.at == end.at)
        text.characters[size - 1] = '\'';
    return text;
}
