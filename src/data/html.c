#include "data/html.h"
#include "text/unicode.h"

#include <stdarg.h>
#include <stdio.h>

void html_put(CharVec *html, const char *format, ...) {
    va_list args;
    va_start(args, format);
    const int size = vsnprintf(NULL, 0, format, args);
    va_end(args);
    vec_reserve(html, html->count + (size_t)size + 1);
    va_start(args, format);
    vsnprintf(html->items + html->count, (size_t)size + 1, format, args);
    va_end(args);
    html->count += (size_t)size;
}

static const char *reference(uint32_t code_point) {
    switch (code_point) {
    case '&':
        return "&amp;";
    case '<':
        return "&lt;";
    case '>':
        return "&gt;";
    case '"':
        return "&quot;";
    case '\'':
        return "&#39;";
    default:
        return NULL;
    }
}

void html_text(CharVec *html, const char *text, size_t size) {
    for (size_t at = 0; at < size;) {
        const Utf8Char c = utf8_decode(text + at, size - at);
        const char *escaped = reference(c.code_point);
        const bool control = c.code_point < ' ' && c.code_point != '\n' && c.code_point != '\t';
        if (escaped)
            vec_extend(html, escaped, strlen(escaped));
        else if (control)
            utf8_append(html, 0x2400 + c.code_point);
        else if (c.code_point == 0x7f)
            utf8_append(html, 0x2421);
        else
            utf8_append(html, c.code_point == UTF8_INVALID ? 0xfffd : c.code_point);
        at += c.size;
    }
}

void html_base64(CharVec *html, const void *bytes, size_t size) {
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    const uint8_t *in = bytes;
    vec_reserve(html, html->count + (size + 2) / 3 * 4);
    for (size_t i = 0; i < size; i += 3) {
        const size_t n = size - i < 3 ? size - i : 3;
        const uint32_t group = (uint32_t)in[i] << 16 | (n > 1 ? (uint32_t)in[i + 1] << 8 : 0) |
                               (n > 2 ? (uint32_t)in[i + 2] : 0);
        for (size_t k = 0; k < 4; k++) vec_push(html, k <= n ? digits[group >> (18 - 6 * k) & 63] : '=');
    }
}
