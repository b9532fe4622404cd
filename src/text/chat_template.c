// A template is brought to one canonical form, in which spellings of the same thing are equal, and compared
// with the ones that are known. In that form text stands for itself, whether it was written outside of tags
// or as a literal; what a tag prints otherwise stands between PRINT and END, a statement between BLOCK and
// END.
#include "text/chat_template.h"

enum { PRINT = 1, BLOCK = 2, END = 3, UNKNOWN = 4 };

typedef struct Reader {
    const char *at;
    CharVec out;
    size_t text_start; // in out: where the text since the last tag begins
    bool line_starts;  // the text since the last tag is at the start of a line
    bool strip;        // the last tag ended with a minus sign
    bool drop_newline; // the last tag was a block
} Reader;

static bool is_blank(char c) {
    return c == ' ' || (c >= '\t' && c <= '\r');
}

static bool is_word(char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_';
}

// A literal, whose quote stands at r->at; its characters are appended.
static void read_literal(Reader *r) {
    const char quote = *r->at++;
    while (*r->at && *r->at != quote) {
        char c = *r->at++;
        if (c == '\\') {
            static const char names[] = "nrt\\'\"", values[] = "\n\r\t\\'\"";
            const char *name = *r->at ? strchr(names, *r->at) : NULL;
            c = name ? values[name - names] : UNKNOWN;
            if (*r->at) r->at++;
        }
        vec_push(&r->out, c);
    }
    if (*r->at)
        r->at++;
    else
        vec_push(&r->out, UNKNOWN);
}

static bool at_tag(const char *at) {
    return at[0] == '{' && (at[1] == '%' || at[1] == '{' || at[1] == '#');
}

static bool at_tag_end(const char *at, char mark) {
    if (*at == '-' || (*at == '+' && mark == '%')) at++;
    return at[0] == mark && at[1] == '}';
}

// A word with the space that parts it from a word before; .x becomes ['x'].
static void read_code(Reader *r, bool spaced) {
    if (*r->at == '.' && is_word(r->at[1])) {
        vec_extend(&r->out, "['", 2);
        for (r->at++; is_word(*r->at); r->at++) vec_push(&r->out, *r->at);
        vec_extend(&r->out, "']", 2);
        return;
    }
    const char before = r->out.count ? r->out.items[r->out.count - 1] : ' ';
    if (spaced && is_word(before) && is_word(*r->at)) vec_push(&r->out, ' ');
    vec_push(&r->out, *r->at++);
}

// A piece of code, or a literal in single quotes.
static void read_piece(Reader *r, bool spaced) {
    if (*r->at != '\'' && *r->at != '"') {
        read_code(r, spaced);
        return;
    }
    vec_push(&r->out, '\'');
    read_literal(r);
    vec_push(&r->out, '\'');
}

static void read_block(Reader *r) {
    vec_push(&r->out, BLOCK);
    bool spaced = false;
    while (*r->at && !at_tag_end(r->at, '%')) {
        const bool blank = is_blank(*r->at);
        if (blank)
            r->at++;
        else
            read_piece(r, spaced);
        spaced = blank;
    }
    vec_push(&r->out, END);
}

// What {{ }} prints: literals and other operands, joined by + or ~.
static void read_print(Reader *r) {
    bool in_operand = false, wanted = true, spaced = false;
    size_t depth = 0;
    while (*r->at && !at_tag_end(r->at, '}')) {
        const char c = *r->at;
        const bool blank = is_blank(c), quote = c == '\'' || c == '"';
        if (blank) {
            r->at++;
        } else if (depth == 0 && (c == '+' || c == '~')) {
            if (in_operand) vec_push(&r->out, END);
            if (wanted) vec_push(&r->out, UNKNOWN);
            in_operand = false, wanted = true;
            r->at++;
        } else if (quote && !in_operand) {
            read_literal(r);
            wanted = false;
        } else {
            if (!in_operand) vec_push(&r->out, PRINT);
            in_operand = true, wanted = false;
            depth += c == '[' || c == '(';
            depth -= depth > 0 && (c == ']' || c == ')');
            read_piece(r, spaced);
        }
        spaced = blank;
    }
    if (in_operand) vec_push(&r->out, END);
    if (wanted) vec_push(&r->out, UNKNOWN);
}

// Before a tag: white space goes that the tag's minus sign takes, or that a block has before it on its line.
static void trim_text(Reader *r, bool minus, bool block) {
    size_t end = r->out.count;
    if (minus) {
        while (end > r->text_start && is_blank(r->out.items[end - 1])) end--;
    } else if (block) {
        while (end > r->text_start && (r->out.items[end - 1] == ' ' || r->out.items[end - 1] == '\t')) end--;
        const bool from_start = end == r->text_start ? r->line_starts : r->out.items[end - 1] == '\n';
        if (!from_start) return;
    }
    r->out.count = end;
}

static void read_text(Reader *r) {
    if (r->strip)
        while (is_blank(*r->at)) r->at++;
    const bool newline = r->drop_newline && *r->at == '\n';
    if (newline && !r->strip) r->at++;
    r->line_starts = newline || r->text_start == 0;
    r->text_start = r->out.count;
    for (; *r->at && !at_tag(r->at); r->at++)
        vec_push(&r->out, (unsigned char)*r->at < '\t' ? UNKNOWN : *r->at);
    const size_t n = r->out.count; // Jinja drops one newline at the end of the whole template
    if (!*r->at && n > r->text_start && r->out.items[n - 1] == '\n') r->out.count--;
}

static void read_tag(Reader *r) {
    const char mark = r->at[1];
    const bool minus = r->at[2] == '-', plus = r->at[2] == '+' && mark == '%';
    trim_text(r, minus, mark != '{' && !plus);
    r->at += minus || plus ? 3 : 2;
    if (mark == '%')
        read_block(r);
    else if (mark == '{')
        read_print(r);
    else
        vec_push(&r->out, UNKNOWN); // a comment
    r->strip = *r->at == '-';
    r->drop_newline = mark == '%' && *r->at != '+';
    if (*r->at == '-' || *r->at == '+') r->at++;
    if (*r->at)
        r->at += 2;
    else
        vec_push(&r->out, UNKNOWN);
}

static CharVec canonical(const char *template_text) {
    Reader r = {.at = template_text};
    while (true) {
        read_text(&r);
        if (!*r.at) break;
        if (r.at[1] == '#') {
            vec_push(&r.out, UNKNOWN);
            break;
        }
        read_tag(&r);
    }
    return r.out;
}

static bool skip(const char **at, const char *end, const char *template_part) {
    CharVec part = canonical(template_part);
    const bool same = (size_t)(end - *at) >= part.count && memcmp(*at, part.items, part.count) == 0;
    if (same) *at += part.count;
    vec_free(&part);
    return same;
}

// The condition, the text under it, and its end, if they stand here.
static bool skip_system(const char **at, const char *end, const char *condition, CharVec *system) {
    const char *start = *at;
    if (!skip(at, end, condition)) return false;
    const char *text = *at, *p = text;
    while (p < end && (unsigned char)*p >= '\t') p++;
    *at = p;
    if (!skip(at, end, "{% endif %}")) {
        *at = start;
        return false;
    }
    vec_extend(system, text, (size_t)(p - text));
    return true;
}

#define DEFINE_PROMPT "{% set add_generation_prompt = false %}{% endif %}"

bool chat_template_parse(const char *template_text, CharVec *system) {
    CharVec found = canonical(template_text);
    const char *at = found.items, *end = at + found.count;
    if (!skip(&at, end, "{% if not add_generation_prompt is defined %}" DEFINE_PROMPT))
        skip(&at, end, "{% if add_generation_prompt is not defined %}" DEFINE_PROMPT);
    const size_t start = system->count;
    const bool outside = skip_system(&at, end, "{% if messages[0]['role'] != 'system' %}", system);
    bool ok = skip(&at, end, "{% for message in messages %}");
    if (ok && !outside)
        skip_system(&at, end, "{% if loop.first and messages[0]['role'] != 'system' %}", system);
    ok = ok &&
         skip(&at, end,
              "<|im_start|>{{ message['role'] }}\n{{ message['content'] }}{{ '<|im_end|>\n' }}"
              "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}") &&
         at == end;
    if (!ok) system->count = start;
    vec_free(&found);
    return ok;
}
