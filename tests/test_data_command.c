// LINK: data
// LABELS: parity
// RUNS: vlm
// `vlm data`: what it counts, the page it writes, and the parts they are made of.
#include "support/data_case.h"
#include "support/program.h"

#include "base/batch.h"
#include "data/html.h"
#include "data/row_stream.h"
#include "data/show.h"
#include "image/probe.h"
#include "text/unicode.h"

#define COUNT(array) (sizeof(array) / sizeof(array)[0])

static long long integer(const json_t *object, const char *key) {
    const json_t *value = json_object_get(object, key);
    if (!json_is_integer(value)) fail_msg("%s is no integer", key);
    return json_integer_value(value);
}

static json_t *run_json(const char *line) {
    ProgramResult r = program_run(line);
    json_t *object = json_loads(r.out, 0, NULL);
    if (r.status || !object)
        fail_msg("vlm %s: status %d\nstdout: %s\nstderr: %s", line, r.status, r.out, r.err);
    program_result_free(&r);
    return object;
}

// `vlm data` on a path with the settings of the reference data set, and further flags.
static char *data_line(const char *path, const char *flags) {
    char *tokenizer = golden_path("tokenizer/bytes");
    char *line =
        mem_printf("data --train_dataset_path %s --lm_tokenizer %s --vit_img_size 32 --vit_patch_size 4 "
                   "--max_img_size 64 --mp_image_token_length 4 --num_workers 2 %s",
                   path, tokenizer, flags);
    free(tokenizer);
    return line;
}

static json_t *survey(const char *path, const char *flags) {
    char *words = mem_printf("--json %s", flags), *line = data_line(path, words);
    json_t *object = run_json(line);
    free(line);
    free(words);
    return object;
}

static long long dropped(const json_t *survey, const char *kind) {
    json_t *drop;
    size_t i;
    json_array_foreach(json_object_get(survey, "rows_dropped"), i, drop) {
        if (strcmp(json_string_value(json_object_get(drop, "kind")), kind)) continue;
        assert_true(strlen(json_string_value(json_object_get(drop, "reason"))) > 0);
        return integer(drop, "rows");
    }
    return 0;
}

// ---- counts ----

typedef struct Outcomes {
    long long samples, tokens, trained, dropped, errors;
} Outcomes;

static Outcomes expected_outcomes(void) {
    Error err;
    Outcomes o = {0};
    char *bytes, *path = golden_path("data/expected.jsonl");
    size_t size, i;
    json_t *label;
    expect(file_read(&bytes, &size, path, &err), &err);
    for (char *line = strtok(bytes, "\n"); line; line = strtok(NULL, "\n")) {
        json_t *row = json_loads(line, JSON_ALLOW_NUL, NULL);
        const json_t *want = json_object_get(row, "default");
        const char *outcome = json_string_value(json_object_get(want, "outcome"));
        o.samples += strcmp(outcome, "sample") == 0;
        o.dropped += strcmp(outcome, "dropped") == 0;
        o.errors += strstr(outcome, "error") != NULL;
        o.tokens += (long long)json_array_size(json_object_get(want, "input_ids"));
        json_array_foreach(json_object_get(want, "labels"), i, label) o.trained +=
            json_integer_value(label) != IGNORE_INDEX;
        json_decref(row);
    }
    free(bytes);
    free(path);
    return o;
}

static void the_reference_rows_are_counted(void **state) {
    (void)state;
    char *path = golden_path("data/parquet");
    json_t *s = survey(path, "--max_images_per_example 1000 --max_images_per_knapsack 1000");
    const json_t *tokens = json_object_get(s, "tokens");
    const Outcomes want = expected_outcomes();
    assert_true(want.samples > 0 && want.dropped > 0 && want.errors > 0);
    assert_int_equal(integer(s, "rows_seen"), want.samples + want.dropped + want.errors);
    assert_int_equal(integer(s, "rows_kept"), want.samples);
    assert_int_equal(dropped(s, "no turn passes the ratings"), want.dropped);
    assert_int_equal(dropped(s, "text cannot be used") + dropped(s, "picture cannot be used"), want.errors);
    assert_int_equal(integer(tokens, "total"), want.tokens);
    assert_int_equal(integer(tokens, "trained"), want.trained);
    json_t *bar;
    size_t i;
    long long in_bars = 0;
    json_array_foreach(json_object_get(tokens, "histogram"), i, bar) in_bars += integer(bar, "samples");
    assert_int_equal(in_bars, want.samples);
    json_decref(s);
    free(path);
}

static void each_limit_drops_its_rows(void **state) {
    (void)state;
    char *path = golden_path("data/parquet");
    json_t *loose = survey(path, ""), *few = survey(path, "--max_images_per_example 1"),
           *brief = survey(path, "--max_sample_length 80"), *narrow = survey(path, "--lm_max_length 80"),
           *cut = survey(path, "--max_sample_length 80 --long_samples truncate"),
           *strict = survey(path, "--formatting_min_rating 5"), *first = survey(path, "--rows 7");
    assert_true(dropped(few, "too many pictures") > dropped(loose, "too many pictures"));
    assert_true(dropped(brief, "too long") > 0);
    assert_int_equal(dropped(brief, "too long"), dropped(narrow, "no sequence can hold it"));
    assert_true(integer(cut, "rows_truncated") > 0 && integer(brief, "rows_truncated") == 0);
    assert_int_equal(integer(cut, "rows_truncated") + dropped(cut, "too long"), dropped(brief, "too long"));
    assert_true(integer(json_object_get(strict, "turns"), "formatting") >
                integer(json_object_get(loose, "turns"), "formatting"));
    assert_true(dropped(strict, "no turn passes the ratings") > dropped(loose, "no turn passes the ratings"));
    assert_int_equal(integer(first, "rows_seen"), 7);
    json_t *all[] = {loose, few, brief, narrow, cut, strict, first};
    for (size_t i = 0; i < COUNT(all); i++) json_decref(all[i]);
    free(path);
}

static void files_columns_and_pictures_are_listed(void **state) {
    (void)state;
    char *folder = make_folder();
    for (size_t i = 0; i < 3; i++) {
        char *path = mem_printf("%s/%zu.parquet", folder, i);
        write_rows(path, 20 * i, 20, 8);
        free(path);
    }
    json_t *s = survey(folder, ""), *column = json_array_get(json_object_get(s, "columns"), 0);
    const json_t *pictures = json_object_get(s, "pictures"), *packing = json_object_get(s, "packing");
    assert_int_equal(integer(s, "files"), 3);
    assert_int_equal(integer(s, "row_groups"), 9);
    assert_int_equal(integer(s, "rows_kept"), 60);
    assert_string_equal(json_string_value(json_object_get(column, "name")), "images");
    assert_string_equal(json_string_value(json_object_get(column, "type")),
                        "list<struct<bytes: binary, path: string>>");
    assert_int_equal(integer(pictures, "count"), 45);
    assert_int_equal(integer(json_object_get(pictures, "formats"), "PNG"), 45);
    const json_t *least = json_object_get(json_object_get(pictures, "width_height"), "min");
    assert_int_equal(json_integer_value(json_array_get(least, 0)), 8);
    assert_int_equal(json_integer_value(json_array_get(least, 1)), 8);
    assert_true(integer(packing, "packs") > 0);
    json_decref(s);
    char *line = data_line(folder, "--lm_max_length 300 --max_sample_length 300");
    program_expect(line, 0, "3 files, 9 row groups, 60 rows", "");
    program_expect(line, 0, "list<struct<user: string, assistant: string>>", "");
    program_expect(line, 0, "sequences of 300 tokens", "");
    free(line);
    remove_folder(folder);
}

static void wrong_command_lines_are_refused(void **state) {
    (void)state;
    char *path = golden_path("data/parquet");
    static const struct {
        const char *flags;
        int status;
        const char *err;
    } cases[] = {
        {"--show 60 --out /dev/null", 1, "there is no row 60; the data set has 60 rows, 0 to 59"},
        {"--show 0-99999999999999999999", 1, "there is no row"},
        {"--show 5-3", 1, "5-3: the first row is behind the last"},
        {"--show x", 1, "found \"x\", expected rows such as 7 or 0-9,40"},
        {"--show 1,,2", 1, "found \"1,,2\""},
        {"--show 3-", 1, "found \"3-\""},
        {"--show=-3", 1, "found \"-3\""},
        {"--show 3 --out /nowhere/at/all/page.html", 1, "/nowhere/at/all/page.html"},
        {"--rows x", 2, "--rows"},
        {"--no_such_flag", 2, "unknown flag"},
        {"--lm_chat_template other", 1, "lm_chat_template"},
    };
    for (size_t i = 0; i < COUNT(cases); i++) {
        char *line = data_line(path, cases[i].flags);
        program_expect(line, cases[i].status, "", cases[i].err);
        free(line);
    }
    char *line = data_line("/nowhere/at/all", "");
    program_expect(line, 1, "", "/nowhere/at/all");
    free(line);
    free(path);
}

// ---- the page ----

static char *show(const char *path, const char *flags) {
    char *page = program_temporary("html"), *words = mem_printf("%s --out %s", flags, page);
    char *line = data_line(path, words);
    program_expect(line, 0, page, "");
    char *html = program_read_text(page);
    unlink(page);
    free(page);
    free(words);
    free(line);
    return html;
}

static size_t count_of(const char *text, const char *part) {
    size_t n = 0;
    while ((text = strstr(text, part))) text += strlen(part), n++;
    return n;
}

static void all_rows_are_shown(void **state) {
    (void)state;
    char *path = golden_path("data/parquet"), *html = show(path, "--show 0-59");
    assert_int_equal(count_of(html, "<section>"), 60);
    assert_int_equal(count_of(html, "</section>"), 60);
    assert_true(count_of(html, "href=\"data:image/png;base64,iVBOR") > 50);
    assert_true(count_of(html, ">global tile, 32 x 32<") > 20);
    assert_true(count_of(html, "class=\"missing\"") >=
                3); // pictures that cannot be decoded, with their reasons
    assert_true(count_of(html, "the picture is null") >= 2);        // in its place and over the row
    assert_true(count_of(html, "&lt;|image|&gt; × 4</span>") > 50); // picture places are cut short
    assert_true(count_of(html, "image tokens were removed") >= 1);
    assert_true(count_of(html, "number low") >= 3);
    assert_int_equal(count_of(html, "<script"), 0);
    free(html);
    html = show(path, "--show 3,50-51");
    assert_int_equal(count_of(html, "<section>"), 3);
    assert_true(strstr(html, "<h2>row 51</h2>") && strstr(html, "row 51 of the file") == NULL);
    free(html);
    html = show(path, "--show 48 --max_sample_length 400"); // a row that is too long is shown with its tokens
    assert_true(strstr(html, "not trained on") && strstr(html, "too long: ") &&
                strstr(html, "class=\"tokens\""));
    free(html);
    free(path);
}

// What a data set holds can only be text on the page.
static void texts_are_inert(void **state) {
    (void)state;
    Error err;
    char *folder = make_folder(), *path = path_join(folder, "a.parquet");
    ParquetWriter *w;
    size_t size;
    unsigned char *png = make_png(&size, 20, 30, 1);
    FineVisionImage image = {png, size, "x\"><script>alert(0)</script>"};
    FineVisionTurn turn = {"</div></title><script>alert(1)</script><img src=x onerror=alert(2)>",
                           "\" onmouseover=\"alert(3)\" '<svg onload=alert(4)> &lt;script&gt; \x01\x7f",
                           5,
                           5,
                           5,
                           5};
    FineVisionRow row = {&image, 1, &turn, 1, "<b>"};
    expect(parquet_create(&w, path, 10, &err), &err);
    expect(parquet_write_row(w, &row, &err), &err);
    expect(parquet_finish(w, &err), &err);
    char *html = show(folder, "--show 0");
    assert_int_equal(count_of(html, "<script"), 0);
    assert_int_equal(count_of(html, "<img"), 0);
    assert_int_equal(count_of(html, "<svg onload"), 0);
    assert_int_equal(count_of(html, "\" onmouseover"), 0);
    assert_int_equal(count_of(html, "</title>"), 1);
    assert_true(strstr(html, "&lt;script&gt;alert(1)&lt;/script&gt;"));
    assert_true(strstr(html, "&amp;lt;script&amp;gt; ␁␡")); // a reference in the text is no reference
    assert_true(strstr(html, "default-src 'none'"));
    free(html);
    free(png);
    free(path);
    remove_folder(folder);
}

static void expect_html(const char *text, size_t size, const char *want) {
    CharVec html = {0};
    html_text(&html, text, size);
    vec_push(&html, '\0');
    assert_string_equal(html.items, want);
    vec_free(&html);
}

static void html_escapes_and_repairs(void **state) {
    (void)state;
    expect_html("a<b>&\"'", 7, "a&lt;b&gt;&amp;&quot;&#39;");
    expect_html("\xff"
                "a\xc3",
                3,
                "\xef\xbf\xbd"
                "a\xef\xbf\xbd");
    expect_html("\xe2\x82", 2, "\xef\xbf\xbd");
    expect_html("é€😀\n\t", 11, "é€😀\n\t");
    expect_html("\0\x1b", 2, "␀␛");
    static const struct {
        const char *bytes, *base64;
    } cases[] = {{"", ""},
                 {"f", "Zg=="},
                 {"fo", "Zm8="},
                 {"foo", "Zm9v"},
                 {"foob", "Zm9vYg=="},
                 {"fooba", "Zm9vYmE="},
                 {"foobar", "Zm9vYmFy"},
                 {"\xfb\xff", "+/8="}};
    for (size_t i = 0; i < COUNT(cases); i++) { // RFC 4648, section 10
        CharVec html = {0};
        html_base64(&html, cases[i].bytes, strlen(cases[i].bytes));
        vec_push(&html, '\0');
        assert_string_equal(html.items, cases[i].base64);
        vec_free(&html);
    }
}

// ---- tokens ----

// Reads the text back out of the markup of show_tokens: of all spans, or of those that are trained on.
static void read_back(CharVec *out, const char *html, size_t size, bool only_trained,
                      const char *image_token) {
    static const char *const references[][2] = {
        {"&lt;", "<"}, {"&gt;", ">"}, {"&amp;", "&"}, {"&quot;", "\""}, {"&#39;", "'"}};
    bool in_sign = false, trained = false, block = false;
    for (size_t i = 0; i < size;) {
        if (html[i] == '<') {
            const size_t length = (size_t)(strchr(html + i, '>') - (html + i)) + 1;
            char class[16] = "";
            if (sscanf(html + i, "<span class=\"%15[a-z ]\"", class) == 1 ||
                !strncmp(html + i, "<span class=\"\"", 14)) {
                trained = strchr(class, 'y') != NULL;
                block = class[0] == 'i';
                assert_null(strchr(class, 'x'));
            }
            in_sign = !strncmp(html + i, "<i>", 3);
            i += length;
            continue;
        }
        char character[8] = {html[i]};
        size_t used = 1;
        for (size_t k = 0; k < COUNT(references); k++)
            if (!strncmp(html + i, references[k][0], strlen(references[k][0])))
                character[0] = *references[k][1], used = strlen(references[k][0]);
        unsigned n;
        int skip = 0;
        if (block && sscanf(html + i, " × %u%n", &n, &skip) == 1) {
            for (unsigned k = 1; k < n && (trained || !only_trained); k++)
                vec_extend(out, image_token, strlen(image_token));
            i += (size_t)skip;
            continue;
        }
        if (!in_sign && (trained || !only_trained)) vec_push(out, character[0]);
        i += used;
    }
}

// A text as the page shows it: repaired, with pictures of control characters.
static void as_shown(CharVec *out, const char *bytes, size_t size) {
    CharVec html = {0};
    html_text(&html, bytes, size);
    read_back(out, html.count ? html.items : "", html.count, false, "");
    vec_free(&html);
}

static void expect_same(const CharVec *got, const CharVec *want, size_t row, const char *what) {
    if (got->count == want->count && (got->count == 0 || memcmp(got->items, want->items, got->count) == 0))
        return;
    fail_msg("row %zu, %s: %.*s\nexpected %.*s", row, what, (int)got->count, got->items, (int)want->count,
             want->items);
}

static void check_tokens(const Sample *s, const SampleRules *r, size_t row) {
    CharVec html = {0}, got = {0}, want = {0}, bytes = {0};
    show_tokens(&html, r, s->ids.items, s->labels.items, s->ids.count);
    vec_push(&html, '\0');
    const char *begin = strstr(html.items, "class=\"tokens\">") + strlen("class=\"tokens\">");
    const size_t size = (size_t)(strstr(begin, "</div>\n") - begin);
    read_back(&got, begin, size, false, r->image_token);
    tokenizer_decode_bytes(r->chat.tokenizer, s->ids.items, s->ids.count, false, &bytes);
    as_shown(&want, bytes.items, bytes.count);
    expect_same(&got, &want, row, "tokens");
    vec_clear(&got), vec_clear(&want), vec_clear(&bytes);
    read_back(&got, begin, size, true, r->image_token);
    for (size_t i = 0; i < s->labels.count; i++)
        if (s->labels.items[i] != IGNORE_INDEX)
            tokenizer_decode_bytes(r->chat.tokenizer, &s->labels.items[i], 1, false, &bytes);
    as_shown(&want, bytes.items, bytes.count);
    expect_same(&got, &want, row, "what is trained on");
    vec_free(&html), vec_free(&got), vec_free(&want), vec_free(&bytes);
}

// The page shows the tokens' text, and as trained on what the labels hold.
static void the_page_shows_tokens_and_labels(void **state) {
    (void)state;
    Error err;
    char *folder = golden_path("data/parquet");
    Config c;
    data_config(&c, folder, "default");
    c.train.max_images_per_example = c.train.max_sample_length = 100000;
    Tokenizer *t = data_tokenizer(&c);
    Dataset *d;
    RowStream *rows;
    SampleRules rules;
    expect(sample_rules_init(&rules, &c, t, &err), &err);
    expect(dataset_open(&d, folder, &c.train.train_dataset_name, &err), &err);
    expect(row_stream_open(&rows, d, (RowStreamSettings){0}, &err), &err);
    size_t n = 0, samples = 0;
    for (RowRef ref;; n++) {
        Sample s;
        expect(row_stream_next(rows, &ref, &err), &err);
        if (!ref.group) break;
        if (sample_build(&s, &rules, &ref.group->columns, ref.row, &err) == SAMPLE_KEPT) {
            check_tokens(&s, &rules, n);
            sample_free(&s);
            samples++;
        }
        row_release(&ref);
    }
    assert_true(samples > 40);
    row_stream_close(rows);
    dataset_close(d);
    tokenizer_free(t);
    config_free(&c);
    free(folder);
}

// Ids that are no token, and a label that is another token than the next one, are shown as such.
static void odd_tokens_are_shown(void **state) {
    (void)state;
    Error err;
    Config c;
    data_config(&c, "", "default");
    Tokenizer *t = data_tokenizer(&c);
    SampleRules rules;
    expect(sample_rules_init(&rules, &c, t, &err), &err);
    const int32_t ids[] = {3 + 'a', 99999, -7, 3 + 0xc3, 3 + 'b'}, labels[] = {5, -100, -100, 3 + 'b', -100};
    CharVec html = {0};
    show_tokens(&html, &rules, ids, labels, COUNT(ids));
    vec_push(&html, '\0');
    assert_true(
        strstr(html.items, "<span class=\"x\" title=\"position 1 · id 99999 · label –\">[99999]</span>"));
    assert_true(strstr(html.items, ">[-7]</span>"));
    assert_true(strstr(html.items, ">\xef\xbf\xbd</span>")); // half a character
    assert_true(strstr(html.items, "<span class=\"y\" title=\"position 4 · id 101 · label –\">b</span>"));
    vec_free(&html);
    html = (CharVec){0};
    show_tokens(&html, &rules, NULL, NULL, 0);
    assert_true(html.count > 0);
    vec_free(&html);
    tokenizer_free(t);
    config_free(&c);
}

// ---- headers of pictures ----

static void probe_case(const json_t *entry) {
    Error err;
    char *bytes, *path = golden_path("images/%s", json_string_value(json_object_get(entry, "file")));
    size_t size;
    expect(file_read(&bytes, &size, path, &err), &err);
    const ImageProbe p = image_probe(bytes, size);
    const char *format = json_string_value(json_object_get(entry, "format"));
    const json_t *wanted = json_object_get(entry, "size_wh");
    if (format && strcmp(p.format, format == NULL || strcmp(format, "WEBP") ? format : "WebP"))
        fail_msg("%s: %s, expected %s", path, p.format, format);
    if (json_is_array(wanted) && format && strcmp(format, "TIFF") && p.width) {
        assert_int_equal(p.width, json_integer_value(json_array_get(wanted, 0)));
        assert_int_equal(p.height, json_integer_value(json_array_get(wanted, 1)));
    } else if (json_is_array(wanted) && format && strcmp(format, "TIFF")) {
        fail_msg("%s: no size", path);
    }
    for (size_t n = 0; n <= size; n += n < 64 ? 1 : 61) { // of any part of it, and of any bytes
        char *part = mem_alloc(n + 1), *exact = realloc(part, n ? n : 1);
        if (n) memcpy(exact, bytes, n);
        image_probe(exact, n);
        Random r = random_stream(n, RANDOM_TEST, size);
        for (int k = 0; k < 4 && n; k++) exact[random_below(&r, n < 40 ? n : 40)] = (char)random_u32(&r);
        image_probe(exact, n);
        free(exact);
    }
    free(bytes);
    free(path);
}

static void headers_tell_format_and_size(void **state) {
    (void)state;
    Error err;
    char *bytes, *path = golden_path("images/index.jsonl");
    size_t size, n = 0;
    expect(file_read(&bytes, &size, path, &err), &err);
    for (char *rest, *line = strtok_r(bytes, "\n", &rest); line; line = strtok_r(NULL, "\n", &rest), n++) {
        json_t *entry = json_loads(line, 0, NULL);
        probe_case(entry);
        json_decref(entry);
    }
    assert_true(n > 0);
    free(bytes);
    free(path);
    assert_string_equal(image_probe("nothing", 7).format, "unknown");
    assert_string_equal(image_probe(NULL, 0).format, "unknown");
}

// A table before the frame header, a filler byte and a marker without length; cut off at every byte.
static void segments_of_a_jpeg_are_walked(void **state) {
    (void)state;
    static const unsigned char jpeg[] = {0xff, 0xd8, 0xff, 0xc4, 0,    4,    9, 9, 0xff, 0xff, 0x01,
                                         0xff, 0xc2, 0,    17,   0x08, 0x01, 2, 3, 4,    9,    9};
    for (size_t n = 0; n <= sizeof jpeg; n++) {
        unsigned char *part = malloc(n ? n : 1); // of this size, so that a byte too many is seen
        memcpy(part, jpeg, n);
        const ImageProbe p = image_probe(part, n);
        assert_int_equal(p.width, n >= 20 ? 0x304 : 0);
        assert_int_equal(p.height, n >= 20 ? 0x102 : 0);
        free(part);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_reference_rows_are_counted),
        cmocka_unit_test(each_limit_drops_its_rows),
        cmocka_unit_test(files_columns_and_pictures_are_listed),
        cmocka_unit_test(wrong_command_lines_are_refused),
        cmocka_unit_test(all_rows_are_shown),
        cmocka_unit_test(texts_are_inert),
        cmocka_unit_test(html_escapes_and_repairs),
        cmocka_unit_test(the_page_shows_tokens_and_labels),
        cmocka_unit_test(odd_tokens_are_shown),
        cmocka_unit_test(headers_tell_format_and_size),
        cmocka_unit_test(segments_of_a_jpeg_are_walked),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
