// Writing HTML into a growing text, so that nothing a data set holds can be more than text in it.
#pragma once
#include "base/vec.h"

// The markup itself: printf format. Every %s must be a text of ours; what comes from outside goes through
// html_text.
void html_put(CharVec *html, const char *format, ...) __attribute__((format(printf, 2, 3)));
// Text from outside, for the content of an element or an attribute in quotes: & < > " ' become references,
// invalid UTF-8 U+FFFD, control characters but tab and newline their pictures (␀ …).
void html_text(CharVec *html, const char *text, size_t size);
void html_base64(CharVec *html, const void *bytes, size_t size); // RFC 4648, with padding
